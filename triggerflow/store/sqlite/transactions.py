"""Steps' own transactions: one at a time, in the write turn, under a time limit.

Whoever wants one waits at a gate and, once through, for the write turn (see `locks`). So the
committer waits behind one transaction at most, and a transaction behind one commit. From
``BEGIN IMMEDIATE`` to its end nobody else writes to the file: what is checked first, such as
the worker's epoch, still holds at the commit.

A thread can't be stopped, but its transaction can: when the limit has passed, the watch
interrupts the statement that runs, rolls back, and gives up turn and gate in the thread's
stead. Each statement, and the end, is under the transaction's guard, so after that the
thread never touches the connection again.

Locks are taken in one order: gate, turn, guard. The watch takes only the guard, and gives the
other two back.
"""

from __future__ import annotations

import contextlib
import queue
import sqlite3
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Final

from triggerflow.core.codec import ValueCodec
from triggerflow.core.log import decode_pending
from triggerflow.errors import StoreError, TimedOut, TransactionError
from triggerflow.store.operations import Outcome, Verdict
from triggerflow.store.sqlite import requests, workers
from triggerflow.store.sqlite.locks import FairLock, LockFile, NoLocks
from triggerflow.store.sqlite.permissions import refusal
from triggerflow.store.transactions import FetchedRows

if TYPE_CHECKING:
    from triggerflow.core.transaction import Values
    from triggerflow.store.transactions import Transact, Work

# How often a statement is interrupted that goes on all the same: it was between two rows.
_NUDGE: Final = 0.005
# A pending set holds texts, numbers and bytes: no class need be registered.
_CODEC: Final = ValueCodec()


class SqliteTransaction:
    """What the step gets; see `triggerflow.core.transaction.Transaction`."""

    __slots__ = ("_held",)

    def __init__(self, held: _Held) -> None:
        self._held = held

    def execute(self, sql: str, values: Values = (), /) -> FetchedRows:
        """Run one statement."""
        given = _copied(values)
        return self._held.run(lambda db: db.execute(sql, given))

    def executemany(self, sql: str, rows: Iterable[Values], /) -> FetchedRows:
        """Run one statement for each of many rows of values."""
        # Read first: a generator's own code must not run under the guard.
        given = [_copied(row) for row in rows]
        return self._held.run(lambda db: db.executemany(sql, given))


def _copied(values: Values) -> Any:
    return dict(values) if isinstance(values, Mapping) else tuple(values)


class _Held:
    """One transaction, from the moment that it has the turn until it gives it up.

    Attributes:
        over: it has ended, and the turn is given up.
        given_up: why it was ended before its step was, or None.
    """

    def __init__(
        self,
        db: sqlite3.Connection,
        step: Transact,
        *,
        broken: Callable[[], None],
        leave: Callable[[], None],
    ) -> None:
        self.step = step
        self.over = threading.Event()
        self.given_up: Exception | None = None
        self._db = db
        self._broken = broken
        self._leave = leave
        self._guard = threading.Lock()
        # An interrupt must never meet the end: of a commit nobody would know whether it
        # landed, and a rollback would leave the file locked.
        self._deciding = threading.Lock()
        self._ending = False
        self._refused: str | None = None
        self._spoilt = False

    def begin(self) -> Outcome | None:
        """Begin it; what forbids it, or None."""
        with self._guard:
            self._check()
            # As everywhere but here they are off, they go off again at the end.
            self._db.execute("PRAGMA foreign_keys = ON")
            self._db.execute("BEGIN IMMEDIATE")
            found = forbidden(self._db, self.step)
            if found is None:
                self._db.set_authorizer(self._judge)
            return found

    def run(self, statement: Callable[[sqlite3.Connection], sqlite3.Cursor]) -> FetchedRows:
        """Run a statement of the step's, to its last row."""
        with self._guard:
            self._check()
            self._refused = None
            try:
                cursor = statement(self._db)
                rows = cursor.fetchall()
            except sqlite3.Error:
                if self._refused is not None:
                    raise TransactionError(
                        self.step.tag, self._refused, "nothing of this statement was done"
                    ) from None
                if self.given_up is not None:
                    self._check()
                raise
            finally:
                # INSERT OR ROLLBACK and a full disk do that. The next statement would be
                # durable by itself.
                self._spoilt = not self._db.in_transaction
            return FetchedRows(rows, cursor.rowcount, cursor.lastrowid)

    def keep(self, result: bytes) -> Outcome:
        """Commit it, with the step's result as a message to the instance."""
        step = self.step
        with self._guard:
            self._check()
            with self._deciding:
                if self.given_up is not None:
                    raise self.given_up
                self._ending = True
            self._db.set_authorizer(None)
            row = self._db.execute(
                "INSERT INTO inbox (instance, kind, name, payload, at)"
                " VALUES (?, 'complete', ?, ?, ?)",
                (step.number, step.tag, result, step.at),
            ).lastrowid
            self._db.execute("COMMIT")
            self._end()
        return Outcome(Verdict.APPLIED, number=step.number, owner=step.worker[0], inbox=row)

    def roll_back(self) -> None:
        """Undo it, unless it has ended already."""
        with self._guard:
            if not self.over.is_set():
                self._roll_back()

    def give_up(self, reason: Exception) -> bool:
        """End it in its thread's stead; whether it hadn't ended by itself."""
        with self._deciding:
            if not self._ending:
                self.given_up = reason
        while not self._guard.acquire(timeout=_NUDGE):
            with self._deciding:
                if not self._ending:
                    self._db.interrupt()
        try:
            if self.over.is_set():
                return False
            self._roll_back()
        finally:
            self._guard.release()
        return True

    def _roll_back(self) -> None:
        with self._deciding:
            self._ending = True
        try:
            self._db.set_authorizer(None)
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
        except sqlite3.Error:
            self._broken()
            raise
        finally:
            self._end()

    def _end(self) -> None:
        try:
            self._db.execute("PRAGMA foreign_keys = OFF")
        finally:
            self.over.set()
            self._leave()

    def _check(self) -> None:
        """Refuse to go on with what is over."""
        tag, limit = self.step.tag, self.step.limit
        if isinstance(self.given_up, TimedOut):
            raise TransactionError(
                tag,
                f"its {limit:g} s have passed, and everything in it was rolled back",
                "nobody else can write meanwhile: do slow work in a plain step before it, or "
                "give it more time with @tf.transaction(timeout=)",
            )
        if self.given_up is not None or self.over.is_set():
            raise TransactionError(
                tag, "it is over", "use it in the step's own function, until that returns"
            )
        if self._spoilt:
            raise TransactionError(
                tag,
                "the database has rolled it back, all that was done before included",
                "write ON CONFLICT ABORT instead of ROLLBACK, or let the error leave the step",
            )

    def _judge(
        self, action: int, first: str | None, second: str | None, home: str | None, _: Any
    ) -> int:
        found = refusal(action, first, second, home)
        if found is None:
            return sqlite3.SQLITE_OK
        self._refused = found
        return sqlite3.SQLITE_DENY


def forbidden(db: sqlite3.Connection, step: Transact) -> Outcome | None:
    """Which part of the precondition of `Transact` doesn't hold, or None."""
    if not workers.is_current(db, *step.worker):
        return Outcome(Verdict.FENCED, detail="worker")
    row = db.execute(
        "SELECT owner, generation, pending FROM instance WHERE id = ? AND status = 'running'",
        (step.number,),
    ).fetchone()
    if row is None or row[:2] != (step.worker[0], step.generation):
        return Outcome(Verdict.FENCED, detail="owner")
    blob = requests.around(db, step.number, row[2], step.tag)
    pending = {} if blob is None else decode_pending(_CODEC.decode(blob))
    kept = pending.get(step.tag)
    if kept is None or kept.due is not None or kept.attempts != step.attempts:
        return Outcome(Verdict.FENCED, detail="tag")
    unread = db.execute(
        "SELECT kind FROM inbox WHERE instance = ? AND consumed = 0"
        " AND (kind = 'cancel' OR kind = 'complete' AND name = ?) ORDER BY id LIMIT 1",
        (step.number, step.tag),
    ).fetchone()
    if unread is None:
        return None
    return Outcome(Verdict.GONE if unread[0] == "cancel" else Verdict.DUPLICATE)


class Transactions:
    """The transactions of one open store.

    Args:
        url: the store's, for messages.
        locks: where the write turn is.
        connect: gives the connection to use; asked when the first one begins.
        shared: the connection is the store's only one, and isn't ours to close.
    """

    def __init__(
        self,
        url: str,
        locks: LockFile | NoLocks,
        connect: Callable[[], sqlite3.Connection],
        *,
        shared: bool = False,
    ) -> None:
        self._url = url
        self._locks = locks
        self._connect = connect
        self._shared = shared
        self._gate = FairLock()
        self._state = threading.Lock()
        self._current: _Held | None = None
        self._db: sqlite3.Connection | None = None
        self._closed = False
        self._watched: queue.SimpleQueue[tuple[_Held, Callable[[], None]] | None]
        self._watched = queue.SimpleQueue()
        self._watch: threading.Thread | None = None

    def run(self, step: Transact, work: Work, gave_up: Callable[[], None]) -> Outcome:
        """Run one; see `Store.transact`."""
        held = self._enter(step)
        try:
            self._watched.put((held, gave_up))
            with self._worded():
                found = held.begin()
            if found is not None:
                return found
            result = work(SqliteTransaction(held))
            with self._worded():
                return held.keep(result)
        except BaseException as error:
            if held.given_up is not None and error is not held.given_up:
                raise held.given_up from error
            raise
        finally:
            with self._worded():
                held.roll_back()

    def _enter(self, step: Transact) -> _Held:
        """Wait for gate and turn."""
        self._gate.acquire()
        try:
            self._check_open()
            self._locks.take_turn()
        except BaseException:
            self._gate.release()
            raise
        try:
            with self._state, self._worded():
                self._check_open()
                if self._db is None:
                    self._db = self._connect()
                if self._watch is None:
                    self._watch = threading.Thread(
                        target=self._keep_watch, name="triggerflow-transactions", daemon=True
                    )
                    self._watch.start()
                held = _Held(self._db, step, broken=self._broken, leave=self._leave)
                self._current = held
        except BaseException:
            self._leave()
            raise
        return held

    def _broken(self) -> None:
        """It can't even be rolled back: closing frees the file before the turn is given up."""
        if self._db is not None and not self._shared:
            self._db.close()
            self._db = None

    def _leave(self) -> None:
        try:
            self._locks.give_turn()
        finally:
            self._gate.release()

    def close(self) -> None:
        """End the one that runs, and refuse those that wait."""
        with self._state:
            self._closed = True
            current = self._current
        if current is not None:
            current.give_up(self._not_open())
        self._watched.put(None)
        # Whoever is in the gate is on the way out of it: he must be, before the lock file is.
        self._gate.acquire()
        try:
            if self._db is not None and not self._shared:
                self._db.close()
            self._db = None
        finally:
            self._gate.release()

    def _keep_watch(self) -> None:
        while True:
            watched = self._watched.get()
            if watched is None:
                return
            held, gave_up = watched
            if held.over.wait(held.step.limit):
                continue
            # Whatever happens in here, the next transaction needs its watch.
            with contextlib.suppress(Exception):
                if held.give_up(TimedOut(held.step.tag)):
                    gave_up()

    @contextlib.contextmanager
    def _worded(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.IntegrityError:
            # The step's own doing: a constraint that is looked at when it commits.
            raise
        except sqlite3.Error as error:
            raise StoreError(self._url, f"{type(error).__name__}: {error}") from error

    def _check_open(self) -> None:
        if self._closed:
            raise self._not_open()

    def _not_open(self) -> StoreError:
        return StoreError(self._url, "is not open")
