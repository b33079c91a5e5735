"""`PostgresStore`: lines to one database, and every verb of the protocol over them.

A worker keeps three connections: one writes, one reads, one listens for news of others. Steps
in transactions of their own have up to four more. Every commit is on disk when it returns
(``synchronous_commit`` is the server's), and whatever is lost on the way is noticed and made
good, or said: see `writer`.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Final, TypeVar, Unpack

import psycopg

from triggerflow.errors import StoreError
from triggerflow.store.postgres import (
    fired,
    listing,
    locks,
    progress,
    reads,
    retention,
    schema,
    tasks,
    turns,
    waits,
    workers,
)
from triggerflow.store.postgres.batch import carry_out, rehearse
from triggerflow.store.postgres.connection import place_of
from triggerflow.store.postgres.held import forbidden
from triggerflow.store.postgres.lines import Line
from triggerflow.store.postgres.news import News
from triggerflow.store.postgres.transactions import Transactions
from triggerflow.store.postgres.triggers import Triggers
from triggerflow.store.postgres.wire import Db
from triggerflow.store.postgres.writer import Writer
from triggerflow.store.records import Pruned

if TYPE_CHECKING:
    from triggerflow.store.operations import Append, Batch, Outcome
    from triggerflow.store.records import (
        ActivityRecord,
        Counts,
        FiringRecord,
        InboxRow,
        InstanceRecord,
        LogRecord,
        NewTrigger,
        OutboxRow,
        Position,
        ProgressRecord,
        RemovedRecord,
        TaskCount,
        TaskRecord,
        Where,
        WorkerRecord,
    )
    from triggerflow.store.transactions import Transact, Work
    from triggerflow.store.waits import Standing, WaitRecord

T = TypeVar("T")

# A store of one database is told from another by the number of its table of activities.
_LOCK_CLASS: Final = "SELECT 'activity'::regclass::oid::bigint & 8388607"


class PostgresStore(Triggers):
    """One database. See `triggerflow.store.protocol.Store` for what the methods promise.

    Args:
        url: ``postgresql://user@host:port/database``; ``?schema=`` names the schema of
            triggerflow's tables, which is ``triggerflow`` otherwise. All else in it is
            libpq's.
    """

    def __init__(self, url: str) -> None:
        self._place = place_of(url)
        self.url = self._place.url
        self._read_guard = threading.Lock()
        self._write_guard = threading.RLock()
        self._closed = threading.Event()
        self._writer: Writer | None = None
        self._reader: Line | None = None
        self._news: News | None = None
        self._transactions: Transactions | None = None
        self._workers: set[int] = set()
        self._triggers: dict[str, tuple[int, str]] = {}
        self._lock_class = 0
        self._pid = 0

    # --- opening and closing

    def open(self) -> None:
        """Open the database, migrated where needed; see `Store.open`."""
        if self._writer is not None:
            return
        self._closed = threading.Event()
        try:
            line = Line(self.url, lambda: self._held("writer"), self._closed)
            self._writer = Writer(line)
            db = line.open()
            schema.migrate(db.connection, self._place.schema, self.url)
            self._lock_class = db.execute(_LOCK_CLASS).one()
            own = schema.tables(db.connection, self._place.schema)
            self._news = News(lambda: self._held("listener"), self._place.schema)
            self._news.open()
            self._reader = Line(self.url, lambda: self._place.ours("reader"), self._closed)
        except psycopg.Error as error:
            self.abandon()
            raise StoreError(
                self.url,
                f"can't be opened: {str(error).strip()}",
                "is the server up, does the database exist, and may this user create a schema "
                "in it?",
            ) from error
        except BaseException:
            self.abandon()
            raise
        self._triggers = {}
        self._transactions = Transactions(self._place, own, self._forbidden, self._reader)
        self._pid = os.getpid()

    def _held(self, name: str) -> Db:
        """A connection that shows that the workers of this process live."""
        db = self._place.ours(name)
        try:
            for worker in self._workers:
                locks.hold(db, worker)
                workers.settle_in(db, worker)
        except BaseException:
            db.close()
            raise
        return db

    def _shown(self) -> list[Line | News]:
        """The lines whose connections show that our workers live."""
        found: list[Line | News] = [] if self._writer is None else [self._writer.line]
        return found if self._news is None else [*found, self._news]

    def close(self) -> None:
        """Close it; see `Store.close`."""
        # A step that stands still must not hold up the last write.
        self._end_transactions()
        if self._writer is not None and self._pid == os.getpid():
            for worker in list(self._workers):
                self.forget_worker(worker)
        self.abandon()

    def abandon(self) -> None:
        """Let go as a killed process would; see `Store.abandon`."""
        self._closed.set()
        self._end_transactions()
        with self._read_guard, self._write_guard:
            lines = [*self._shown(), self._reader]
            workers_here, self._workers = self._workers, set()
            self._writer = self._reader = self._news = None
            # After a fork the connections are those of the parent.
            if self._pid in (0, os.getpid()):
                for line in lines:
                    if line is not None:
                        _let_go(line.db, workers_here)
                        line.close()
        self._pid = 0

    def _end_transactions(self) -> None:
        transactions, self._transactions = self._transactions, None
        if transactions is not None and self._pid == os.getpid():
            transactions.close()

    # --- writing

    def commit(self, batch: Batch) -> list[Outcome]:
        """Carry out a batch in one transaction; see `Store.commit`."""
        return self._write(lambda db: carry_out(db, batch, self._triggers, self._lock_class))

    def rehearse(self, append: Append, proposed: Sequence[NewTrigger] = ()) -> Outcome:
        """Carry out an append and take it back; see `Store.rehearse`."""

        def work(db: Db) -> tuple[Outcome, bool]:
            raise _TakenBack(rehearse(db, append, proposed, self._lock_class))

        try:
            return self._write(work)
        except _TakenBack as back:
            return back.outcome

    def register_worker(
        self,
        *,
        build: str,
        flows: Iterable[tuple[str, int]],
        now: float,
        serves: Iterable[tuple[str, str]] = (),
    ) -> tuple[int, int]:
        """Register a worker of this process; see `Store.register_worker`."""
        known, served = list(flows), list(serves)

        def work(db: Db) -> tuple[int, bool]:
            number = workers.register(db, build=build, flows=known, serves=served, now=now)
            # Before the commit: nobody may see the row without the lock.
            listening = None if self._news is None else self._news.db
            for each in (db, listening):
                if each is not None and not each.lost:
                    locks.hold(each, number)
            self._workers.add(number)
            return number, False

        return self._write(work), 1

    def forget_worker(self, worker: int) -> None:
        """Remove a worker of this process; see `Store.forget_worker`."""

        def work(db: Db) -> tuple[None, bool]:
            if worker in self._workers:
                workers.hand_back(db, worker)
                workers.remove(db, worker)
            return None, True

        self._write(work)
        self._workers.discard(worker)
        for line in self._shown():
            _let_go(line.db, {worker})

    def reap(self, silent: Mapping[int, float] | None = None) -> int:
        """Free what dead workers owned; see `Store.reap`."""

        def work(db: Db) -> tuple[int, bool]:
            freed = workers.reap(db, silent=silent or {})
            return freed, freed > 0

        return self._write(work)

    def transact(
        self, step: Transact, work: Work, *, gave_up: Callable[[], None] = lambda: None
    ) -> Outcome:
        """Run a step in a transaction of its own; see `Store.transact`."""
        self._check_process()
        transactions = self._transactions
        if transactions is None:
            raise StoreError(self.url, "is not open")
        return transactions.run(step, work, gave_up)

    def _forbidden(self, step: Transact) -> Outcome | None:
        def look(db: Db) -> Outcome | None:
            current = db.execute(
                "SELECT 1 FROM worker WHERE id = %s AND epoch = %s", *step.worker
            )
            row = db.execute(
                "SELECT owner, generation, pending, status, (SELECT data FROM request"
                " WHERE instance = %s AND tag = %s) FROM instance WHERE id = %s",
                step.number,
                step.tag,
                step.number,
            ).row()
            unread = db.execute(
                "SELECT kind FROM inbox WHERE instance = %s AND NOT consumed"
                " AND (kind = 'cancel' OR kind = 'complete' AND name = %s)"
                " ORDER BY id LIMIT 1",
                step.number,
                step.tag,
            ).row()
            return forbidden(step, current=current.row() is not None, row=row, unread=unread)

        return self._read(look)

    def prune(
        self,
        flow: str,
        before: Mapping[int | None, float],
        *,
        now: float,
        after: Position | None = None,
        limit: int = 200,
    ) -> Pruned:
        """Remove a page of ended instances; see `Store.prune`."""
        found, following = self._read(lambda db: retention.old(db, flow, before, after, limit))
        if not found:
            return Pruned(0, following)

        def work(db: Db) -> tuple[Pruned, bool]:
            done = retention.prune(db, flow, before, now=now, after=after, limit=limit)
            return done, False

        return self._write(work)

    def prune_documents(
        self, before: float, *, after: Position | None = None, limit: int = 200
    ) -> Pruned:
        """Take a page of documents; see `Store.prune_documents`."""
        found, following = self._read(
            lambda db: retention.old_documents(db, before, after, limit)
        )
        if not found:
            return Pruned(0, following)

        def work(db: Db) -> tuple[Pruned, bool]:
            return retention.prune_documents(db, before, after=after, limit=limit), False

        return self._write(work)

    # --- asking

    def changed(self) -> bool:
        """Whether another worker has written, as far as known; see `Store.changed`."""
        with self._write_guard:
            self._check_process()
            return self._news is not None and self._news.heard()

    def instance(self, id: str) -> InstanceRecord | None:
        """See `Store.instance`."""
        return self._read(lambda db: reads.instance(db, id))

    def ids(self, prefix: str, limit: int = 6) -> list[str]:
        """See `Store.ids`."""
        return self._read(lambda db: reads.ids(db, prefix, limit))

    def removed(self, prefix: str) -> RemovedRecord | None:
        """See `Store.removed`."""
        return self._read(lambda db: retention.removed(db, prefix))

    def holders(self, key: str, *, namespace: str, flow: str | None = None) -> list[str]:
        """See `Store.holders`."""
        return self._read(lambda db: reads.holders(db, key, namespace, flow))

    def instances(
        self,
        *,
        after: tuple[float, int] | None = None,
        limit: int = 100,
        newest_first: bool = False,
        **where: Unpack[Where],
    ) -> list[InstanceRecord]:
        """See `Store.instances`."""
        return self._read(
            lambda db: listing.instances(
                db, where, after=after, limit=limit, newest_first=newest_first
            )
        )

    def log(self, number: int, generation: int) -> list[LogRecord]:
        """See `Store.log`."""
        return self._read(lambda db: reads.log_of(db, number, generation))

    def inbox(self, number: int, after: int = 0) -> list[InboxRow]:
        """See `Store.inbox`."""
        return self._read(lambda db: reads.inbox_after(db, number, after))

    def progress(self, number: int, generation: int) -> list[ProgressRecord]:
        """See `Store.progress`."""
        return self._read(lambda db: progress.of(db, number, generation))

    def woken(self, worker: int) -> list[tuple[int, list[InboxRow]]]:
        """See `Store.woken`."""
        # Asked at every sign of life of another process, so the common answer costs no
        # transaction.
        if not self._read(lambda db: turns.woken(db, worker)):
            return []
        return self._write(lambda db: (_woken(db, worker), False))

    def activity(self, cid: str, namespace: str = "") -> ActivityRecord | None:
        """See `Store.activity`."""
        return self._read(lambda db: reads.activity(db, cid, namespace))

    def newest_activities(self, limit: int) -> list[ActivityRecord]:
        """See `Store.newest_activities`."""
        return self._read(lambda db: reads.newest_activities(db, limit))

    def firings(self, cid: str, namespace: str = "") -> list[FiringRecord]:
        """See `Store.firings`."""
        return self._read(lambda db: fired.firings_of(db, cid, namespace))

    def fired(
        self,
        *,
        activity: str | None = None,
        trigger: str | None = None,
        outcome: str | None = None,
        after: int | None = None,
        limit: int = 100,
    ) -> list[FiringRecord]:
        """See `Store.fired`."""
        return self._read(
            lambda db: fired.fired(
                db,
                activity=activity,
                trigger=trigger,
                outcome=outcome,
                after=after,
                limit=limit,
            )
        )

    def outbox(self, limit: int, after: int = 0) -> list[OutboxRow]:
        """See `Store.outbox`."""
        return self._read(lambda db: reads.outbox(db, limit, after))

    def standing(self) -> Standing:
        """See `Store.standing`."""
        return self._read(waits.standing)

    def waits_under(
        self, pivots: Sequence[tuple[str, str, int]], limit: int
    ) -> list[tuple[int, WaitRecord]]:
        """See `Store.waits_under`."""
        return self._read(lambda db: waits.waits_under(db, pivots, limit))

    def waits_behind(
        self,
        after: tuple[int, int] | None = None,
        limit: int = 100,
        *,
        nearest_first: bool = False,
    ) -> list[WaitRecord]:
        """See `Store.waits_behind`."""
        return self._read(
            lambda db: waits.waits_behind(db, after, limit, nearest_first=nearest_first)
        )

    def waits(self, after: int = 0, limit: int = 1000) -> list[WaitRecord]:
        """See `Store.waits`."""
        return self._read(lambda db: waits.waits(db, after, limit))

    def waits_of(self, number: int) -> list[WaitRecord]:
        """See `Store.waits_of`."""
        return self._read(lambda db: waits.waits_of(db, number))

    def activities(self, after: int, limit: int) -> list[ActivityRecord]:
        """See `Store.activities`."""
        return self._read(lambda db: reads.activities(db, self._lock_class, after, limit))

    def recorded(self, step: str, key: str) -> bytes | None:
        """See `Store.recorded`."""
        return self._read(lambda db: reads.recorded(db, step, key))

    def tasks(
        self, queue: str | None = None, *, after: int = 0, limit: int = 100
    ) -> list[TaskRecord]:
        """See `Store.tasks`."""
        return self._read(lambda db: tasks.of_queue(db, queue, after, limit))

    def tasks_of(self, number: int) -> list[TaskRecord]:
        """See `Store.tasks_of`."""
        return self._read(lambda db: tasks.of_instance(db, number))

    def held(self, worker: int) -> set[tuple[int, int]]:
        """See `Store.held`."""
        return self._read(lambda db: tasks.held(db, worker))

    def task_counts(self) -> list[TaskCount]:
        """See `Store.task_counts`."""
        return self._read(tasks.backlog)

    def workers(self) -> list[WorkerRecord]:
        """See `Store.workers`."""
        return self._read(workers.all_of)

    def counts(self) -> Counts:
        """See `Store.counts`."""
        return self._read(reads.counts)

    def runnable(self) -> bool:
        """See `Store.runnable`."""
        return self._read(reads.runnable)

    def next_due(self) -> float | None:
        """See `Store.next_due`."""
        return self._read(reads.next_due)

    # --- the lines

    def _write(self, work: Callable[[Db], tuple[T, bool]]) -> T:
        """Have something written; others are told where the work says so."""
        with self._write_guard:
            if self._writer is None:
                raise StoreError(self.url, "is not open")
            self._check_process()
            found, loud = self._writer.run(work)
            if loud and self._news is not None:
                self._news.tell()
        return found

    def _read(self, work: Callable[[Db], T]) -> T:
        with self._read_guard:
            if self._reader is None:
                raise StoreError(self.url, "is not open")
            self._check_process()
            return self._reader.read(work)

    def _check_process(self) -> None:
        if self._pid and self._pid != os.getpid():
            raise StoreError(
                self.url,
                "was opened before this process was forked",
                "open the app in the child, after the fork",
            )


class _TakenBack(Exception):
    """Ends a transaction that is to leave nothing but its outcome."""

    def __init__(self, outcome: Outcome) -> None:
        super().__init__()
        self.outcome = outcome


def _let_go(db: Db | None, held: set[int]) -> None:
    """Let go of locks that go with the connection, before the server notices by itself."""
    if db is None or db.lost:
        return
    try:
        for worker in held:
            locks.let_go(db, worker)
    except psycopg.Error:
        # It is lost, and they are gone.
        return


def _woken(db: Db, worker: int) -> list[tuple[int, list[InboxRow]]]:
    numbers = db.execute(
        "UPDATE instance SET wake = FALSE WHERE id IN (SELECT id FROM instance"
        " WHERE status = 'running' AND owner = %s AND wake ORDER BY id FOR UPDATE)"
        " RETURNING id",
        worker,
    ).firsts()
    # In a statement of its own: the rows are locked, so no message is on its way.
    found = reads.inbox_of(reads.ask_inbox(db, numbers))
    return [(number, found.get(number, [])) for number in sorted(numbers)]
