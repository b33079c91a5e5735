"""`SqliteStore`: transactions, connections, and the order in which a batch is decided.

WAL with ``synchronous=FULL``: a commit is on disk when it returns. Writers of all
processes pass one turnstile (see `locks`), so that none starves and none is told "database
is locked", the first open included. Reads use a connection of their own and never wait.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeVar, Unpack

from triggerflow.errors import StoreError
from triggerflow.store.records import Pruned
from triggerflow.store.sqlite import (
    arrivals,
    fired,
    listing,
    progress,
    reads,
    retention,
    schema,
    tasks,
    turns,
    waits,
    workers,
)
from triggerflow.store.sqlite.batch import carry_out
from triggerflow.store.sqlite.locks import LockFile, NoLocks, lock_file
from triggerflow.store.sqlite.transactions import Transactions
from triggerflow.store.sqlite.triggers import Triggers

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

_PRAGMAS: Final = (
    "PRAGMA synchronous = FULL",
    "PRAGMA temp_store = MEMORY",
    "PRAGMA cache_size = -16000",
    "PRAGMA wal_autocheckpoint = 4000",
)


class SqliteStore(Triggers):
    """One SQLite file. See `triggerflow.store.protocol.Store` for what the methods promise."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = os.fspath(path)
        self.url = f"sqlite:///{self.path}"
        self._db: sqlite3.Connection | None = None
        self._reader: sqlite3.Connection | None = None
        # A connection that is closed while another thread uses it takes the process down.
        self._read_guard = threading.Lock()
        self._write_guard = threading.RLock()
        self._locks: LockFile | NoLocks | None = None
        self._transactions: Transactions | None = None
        self._workers: set[int] = set()
        self._version = -1
        self._pid = 0

    # --- opening and closing

    def open(self) -> None:
        """Open the file, made and migrated where needed; see `Store.open`."""
        if self._db is not None:
            return
        try:
            Path(self.path).absolute().parent.mkdir(parents=True, exist_ok=True)
            self._locks = lock_file(self.path)
            with self._locks.turn():
                self._db = self._connect()
                schema.check(self._db, self.url)
                self._db.execute("PRAGMA journal_mode = WAL")
                schema.migrate(self._db, self.url)
            self._reader = self._connect()
            self._reader.execute("PRAGMA query_only = ON")
        except (sqlite3.Error, OSError) as error:
            self.close()
            raise StoreError(
                self.url,
                f"can't be opened: {error}",
                "is the path writable, on a local disk, and a SQLite file?",
            ) from error
        except BaseException:
            self.close()
            raise
        self._transactions = Transactions(self.url, self._locks, self._connect)
        self._pid = os.getpid()
        self.changed()

    def _connect(self) -> sqlite3.Connection:
        db = sqlite3.connect(
            self.path,
            timeout=10.0,
            isolation_level=None,
            check_same_thread=False,
            cached_statements=256,
        )
        for pragma in _PRAGMAS:
            db.execute(pragma)
        return db

    def close(self) -> None:
        """Close the file; see `Store.close`."""
        # A step that stands still must not hold up the last write.
        self._end_transactions()
        if self._db is not None and self._pid == os.getpid():
            for worker in list(self._workers):
                self.forget_worker(worker)
        self.abandon()

    def abandon(self) -> None:
        """Let go as a killed process would; see `Store.abandon`."""
        self._end_transactions()
        if self._locks is not None:
            for worker in self._workers:
                self._locks.let_go(worker)
        self._workers.clear()
        with self._read_guard, self._write_guard:
            for db in (self._reader, self._db):
                if db is not None:
                    db.close()
            self._reader = self._db = None
        if self._locks is not None:
            self._locks.leave()
            self._locks = None

    def _end_transactions(self) -> None:
        transactions, self._transactions = self._transactions, None
        # After a fork its locks are those of the parent.
        if transactions is not None and self._pid == os.getpid():
            transactions.close()

    # --- writing

    def commit(self, batch: Batch) -> list[Outcome]:
        """Carry out a batch in one transaction; see `Store.commit`."""
        return self._write(lambda db: carry_out(db, batch))

    def rehearse(self, append: Append, proposed: Sequence[NewTrigger] = ()) -> Outcome:
        """Carry out an append and take it back; see `Store.rehearse`."""
        return self._write(lambda db: arrivals.rehearse(db, append, proposed), keep=False)

    def register_worker(
        self,
        *,
        build: str,
        flows: Iterable[tuple[str, int]],
        now: float,
        serves: Iterable[tuple[str, str]] = (),
    ) -> tuple[int, int]:
        """Register a worker of this process; see `Store.register_worker`."""

        def work(db: sqlite3.Connection) -> int:
            number = workers.register(db, build=build, flows=flows, serves=serves, now=now)
            # Before the commit: nobody may see the row without the lock.
            self._lock().hold(number)
            self._workers.add(number)
            return number

        return self._write(work), 1

    def forget_worker(self, worker: int) -> None:
        """Remove a worker of this process; see `Store.forget_worker`."""

        def work(db: sqlite3.Connection) -> None:
            if worker in self._workers:
                workers.hand_back(db, worker)
                workers.remove(db, worker)

        self._write(work)
        self._workers.discard(worker)
        self._lock().let_go(worker)

    def reap(self, silent: Mapping[int, float] | None = None) -> int:
        """Free what dead workers owned; see `Store.reap`."""
        return self._write(
            lambda db: workers.reap(db, silent=silent or {}, alive=self._lock().alive)
        )

    def transact(
        self, step: Transact, work: Work, *, gave_up: Callable[[], None] = lambda: None
    ) -> Outcome:
        """Run a step in a transaction of its own; see `Store.transact`."""
        self._check_process()
        transactions = self._transactions
        if transactions is None:
            raise StoreError(self.url, "is not open")
        return transactions.run(step, work, gave_up)

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
        return self._write(
            lambda db: retention.prune(db, flow, before, now=now, after=after, limit=limit)
        )

    def prune_documents(
        self, before: float, *, after: Position | None = None, limit: int = 200
    ) -> Pruned:
        """Take a page of documents; see `Store.prune_documents`."""
        found, following = self._read(
            lambda db: retention.old_documents(db, before, after, limit)
        )
        if not found:
            return Pruned(0, following)
        return self._write(
            lambda db: retention.prune_documents(db, before, after=after, limit=limit)
        )

    # --- asking

    def changed(self) -> bool:
        """Whether another connection has written; see `Store.changed`."""
        with self._write_guard:
            version: int = self._writer().execute("PRAGMA data_version").fetchone()[0]
        changed = version != self._version
        self._version = version
        return changed

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
        return self._write(lambda db: _woken(db, worker))

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
        return self._read(lambda db: reads.activities(db, after, limit))

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
        return self._read(lambda db: workers.all_of(db, self._lock().alive))

    def counts(self) -> Counts:
        """See `Store.counts`."""
        return self._read(reads.counts)

    def runnable(self) -> bool:
        """See `Store.runnable`."""
        return self._read(reads.runnable)

    def next_due(self) -> float | None:
        """See `Store.next_due`."""
        return self._read(reads.next_due)

    # --- the two connections

    def _write(self, work: Callable[[sqlite3.Connection], T], *, keep: bool = True) -> T:
        with self._write_guard, self._lock().turn(), self._worded():
            db = self._writer()
            db.execute("BEGIN IMMEDIATE")
            try:
                found = work(db)
                db.execute("COMMIT" if keep else "ROLLBACK")
            except BaseException:
                # A failed COMMIT may have ended the transaction already.
                if db.in_transaction:
                    db.execute("ROLLBACK")
                raise
        return found

    def _read(self, work: Callable[[sqlite3.Connection], T]) -> T:
        with self._read_guard:
            if self._reader is None:
                raise StoreError(self.url, "is not open")
            self._check_process()
            with self._worded():
                return work(self._reader)

    @contextlib.contextmanager
    def _worded(self) -> Iterator[None]:
        """SQLite's errors as ours: the disk is full, the file is gone or damaged."""
        try:
            yield
        except sqlite3.Error as error:
            raise StoreError(self.url, f"{type(error).__name__}: {error}") from error

    def _writer(self) -> sqlite3.Connection:
        if self._db is None:
            raise StoreError(self.url, "is not open")
        self._check_process()
        return self._db

    def _check_process(self) -> None:
        if self._pid and self._pid != os.getpid():
            raise StoreError(
                self.url,
                "was opened before this process was forked",
                "open the app in the child, after the fork",
            )

    def _lock(self) -> LockFile | NoLocks:
        if self._locks is None:
            raise StoreError(self.url, "is not open")
        return self._locks


def _woken(db: sqlite3.Connection, worker: int) -> list[tuple[int, list[InboxRow]]]:
    numbers = turns.woken(db, worker)
    listed = f"[{','.join(map(str, numbers))}]"
    db.execute(
        "UPDATE instance SET wake = 0 WHERE id IN (SELECT value FROM json_each(?))", (listed,)
    )
    found = reads.inbox_of(db, listed)
    return [(number, found.get(number, [])) for number in numbers]
