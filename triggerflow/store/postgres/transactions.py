"""Steps' own transactions: each on a connection of its own, under a time limit.

A step works unhindered by other commits, and they by it. What it needs is checked twice: before
it begins, so that a step which is not wanted does nothing; and at its end with the instance's
row locked, so that what was checked still holds at the commit. Who reaps its worker, or takes
a turn of its instance, locks that row as well, and comes either before or after.

A thread can't be stopped, but its transaction can: when the limit has passed, the watch has
the server end the connection, which rolls everything back, and puts a new one in its place.
"""

from __future__ import annotations

import contextlib
import queue
import threading
from collections import deque
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final

import psycopg
from psycopg import errors

from triggerflow.errors import StoreError, TimedOut
from triggerflow.store.postgres.held import Held, PostgresTransaction
from triggerflow.store.postgres.lines import landed

if TYPE_CHECKING:
    from triggerflow.store.operations import Outcome
    from triggerflow.store.postgres.connection import Place
    from triggerflow.store.postgres.lines import Line
    from triggerflow.store.transactions import Transact, Work

# So many steps are in their transactions at once; a connection each.
AT_ONCE: Final = 4
# How long the server may take to end a connection, in milliseconds.
_PATIENCE: Final = 5000


class _Slot:
    """A place for one transaction: a connection, and a thread that watches over it."""

    def __init__(self, place: Place) -> None:
        self._place = place
        self._connection: psycopg.Connection[Any] | None = None
        self._watched: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._watch: threading.Thread | None = None

    def connection(self) -> psycopg.Connection[Any]:
        """Its connection, made where there is none."""
        if self._connection is None or self._connection.closed:
            self._connection = self._place.connect("step")
        return self._connection

    def watch(self, held: Held, overran: Callable[[], None]) -> None:
        """Call `overran` from the watch's thread if it isn't over within its limit."""
        if self._watch is None:
            self._watch = threading.Thread(
                target=self._keep_watch, name="triggerflow-transaction", daemon=True
            )
            self._watch.start()

        def look() -> None:
            if not held.over.wait(held.step.limit):
                overran()

        self._watched.put(look)

    def _keep_watch(self) -> None:
        while True:
            look = self._watched.get()
            if look is None:
                return
            # Whatever happens in here, the next transaction needs its watch.
            with contextlib.suppress(Exception):
                look()

    def clean(self) -> None:
        """Forget what a step left on the connection: settings, temporary tables."""
        connection = self._connection
        if connection is not None and not connection.closed:
            try:
                connection.execute("DISCARD ALL", prepare=False)
            except psycopg.Error:
                connection.close()

    def close(self) -> None:
        """Close it."""
        self._watched.put(None)
        if self._connection is not None:
            self._connection.close()
            self._connection = None


class Transactions:
    """The transactions of one open store."""

    def __init__(
        self,
        place: Place,
        own: Mapping[int, str],
        ask: Callable[[Transact], Outcome | None],
        line: Line,
    ) -> None:
        """
        Args:
            place: where the database is.
            own: triggerflow's own tables, by the server's numbers of them.
            ask: which part of a precondition doesn't hold, without a lock.
            line: may be asked how a commit ended.
        """
        self._place = place
        self._own = own
        self._precheck = ask
        self._line = line
        self._lock = threading.Lock()
        self._free = [_Slot(place) for _ in range(AT_ONCE)]
        self._waiting: deque[queue.SimpleQueue[_Slot | None]] = deque()
        self._running: set[Held] = set()
        self._closed = False

    def run(self, step: Transact, work: Work, gave_up: Callable[[], None]) -> Outcome:
        """Run one; see `Store.transact`."""
        slot = self._take()
        held: Held | None = None
        try:
            found = self._precheck(step)
            if found is not None:
                return found
            try:
                held = Held(slot.connection(), self._place.schema, self._own, step)
                held.begin()
            except psycopg.Error as error:
                raise self._worded(error) from error
            with self._lock:
                if self._closed:
                    held.roll_back()
                    raise self._not_open()
                self._running.add(held)
            slot.watch(held, lambda: self._overran(held, gave_up))
            try:
                return self._carry_out(held, work)
            finally:
                with self._lock:
                    self._running.discard(held)
        finally:
            if held is not None and held.given_up is not None:
                # Somebody else has its place, and the connection is dead.
                slot.close()
            else:
                slot.clean()
                self._give(slot)

    def _carry_out(self, held: Held, work: Work) -> Outcome:
        try:
            result = work(PostgresTransaction(held))
            return self._keep(held, result)
        except BaseException as error:
            if held.given_up is not None and error is not held.given_up:
                raise held.given_up from error
            if held.lost and not isinstance(error, StoreError):
                raise self._worded(error) from error
            raise
        finally:
            try:
                held.roll_back()
            except psycopg.Error as error:
                raise self._worded(error) from error

    def _keep(self, held: Held, result: bytes) -> Outcome:
        try:
            return held.keep(result)
        except errors.IntegrityError:
            # The step's own doing: a constraint that is looked at when it commits.
            raise
        except psycopg.Error as error:
            lost = isinstance(error, psycopg.OperationalError)
            if held.xid and lost and landed(self._line, held.xid, error):
                return held.kept()
            raise self._worded(error) from error

    def _overran(self, held: Held, gave_up: Callable[[], None]) -> None:
        if held.give_up(TimedOut(held.step.tag), self._end):
            # The next one doesn't wait until the step's function returns.
            self._give(_Slot(self._place))
            gave_up()

    def _end(self, process: int) -> None:
        """Have the server end a connection, and wait until it has."""
        with contextlib.suppress(psycopg.Error), self._place.connect("watch") as connection:
            connection.execute("SELECT pg_terminate_backend(%s, %s)", (process, _PATIENCE))

    def close(self) -> None:
        """End those that run, and refuse those that wait."""
        with self._lock:
            self._closed = True
            running = list(self._running)
            waiting, self._waiting = self._waiting, deque()
        for ticket in waiting:
            ticket.put(None)
        for held in running:
            held.give_up(self._not_open(), self._end)
        with self._lock:
            free, self._free = self._free, []
        for slot in free:
            slot.close()

    def _take(self) -> _Slot:
        """A free slot, first come first served."""
        with self._lock:
            if self._closed:
                raise self._not_open()
            if self._free:
                return self._free.pop()
            ticket: queue.SimpleQueue[_Slot | None] = queue.SimpleQueue()
            self._waiting.append(ticket)
        found = ticket.get()
        if found is None:
            raise self._not_open()
        return found

    def _give(self, slot: _Slot) -> None:
        with self._lock:
            if self._waiting:
                self._waiting.popleft().put(slot)
                return
            if not self._closed:
                self._free.append(slot)
                return
        slot.close()

    def _worded(self, error: BaseException) -> StoreError:
        return StoreError(self._place.url, f"{type(error).__name__}: {str(error).strip()}")

    def _not_open(self) -> StoreError:
        return StoreError(self._place.url, "is not open")
