"""What a backend must offer. `triggerflow.testing.check_store` holds it to that."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Protocol, Unpack

from triggerflow.errors import StoreError
from triggerflow.store.operations import Batch, Outcome
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
    Pruned,
    RemovedRecord,
    Standing,
    TaskCount,
    TaskRecord,
    TriggerRecord,
    WaitRecord,
    Where,
    WorkerRecord,
)
from triggerflow.store.transactions import Transact, Work


class Store(Protocol):
    """A place where activities, triggers, instances and logs are kept.

    All methods block; none knows an event loop. `commit` and the writing methods are
    called from one thread at a time, reads and `transact` from any thread at any time.
    """

    url: str

    def open(self) -> None:
        """Open the store, migrated to the newest schema.

        Raises:
            StoreError: it can't be opened.
            SchemaTooNew: a newer triggerflow wrote it.
        """

    def close(self) -> None:
        """Close it; registered workers that are still there are given up cleanly."""

    def abandon(self) -> None:
        """Let go of everything as a killed process would: for crash tests."""

    # --- writing

    def commit(self, batch: Batch) -> list[Outcome]:
        """Carry out a batch in one durable transaction; one outcome an operation."""
        ...

    def register_worker(
        self,
        *,
        build: str,
        flows: Iterable[tuple[str, int]],
        now: float,
        serves: Iterable[tuple[str, str]] = (),
    ) -> tuple[int, int]:
        """A new worker's (id, epoch), its lease held by this process.

        Args:
            flows: (name, version) of every flow that it knows.
            serves: (queue, step) of every queue that it serves and step that it knows.
        """
        ...

    def forget_worker(self, worker: int) -> None:
        """Hand all that a worker owns or holds back, and remove it."""

    def reap(self, silent: Mapping[int, float] | None = None) -> int:
        """Fence dead workers and free what they owned or held; how much that was.

        Dead is a worker whose process is gone, or one of `silent` that still shows the sign
        of life (`WorkerRecord.seen`) given there: its caller has watched it show no other
        for longer than the lease. Each instance that it owned counts one crash, and so does
        each task that it held; at the limit, a task's call is told that it failed.
        """
        ...

    def sync_triggers(self, triggers: Sequence[NewTrigger], *, now: float) -> int:
        """Make triggers current, superseding others of the same names or meanings.

        Returns:
            The registry generation, which grows whenever this changed anything.
        """
        ...

    def transact(
        self, step: Transact, work: Work, *, gave_up: Callable[[], None] = lambda: None
    ) -> Outcome:
        """Run a step's work, and keep what it returns as a ``complete`` message of its tag.

        Both are one durable transaction in the store's own database, or nothing is: where
        the precondition of `Transact` fails, where `work` raises (the exception comes out as
        it is), and where it takes longer than `step.limit`. Others' commits wait for
        it no longer than that. It is called from any thread, by many at a time, none of which
        may starve, nor starve `commit`.

        Args:
            step: which step, and the precondition.
            work: gets the transaction, and returns the encoded result.
            gave_up: called, from any thread, when the limit has passed and everything is
                rolled back while `work` still runs.

        Raises:
            TimedOut: the limit passed.
            StoreError: the store failed, or offers no transactions.
        """
        del step, work, gave_up
        raise StoreError(
            self.url,
            "offers no transactions to steps",
            "make it a plain step, and let the service behind it know a repeat by "
            "tf.step_context().idempotency_key",
        )

    def prune(
        self,
        flow: str,
        before: Mapping[int | None, float],
        *,
        now: float,
        after: Position | None = None,
        limit: int = 200,
    ) -> Pruned:
        """Remove a page of a flow's ended instances, oldest end first, each of them whole.

        One goes if it ended before the time that `before` has for its version, or for None,
        which stands for all versions not named. A live or blocked instance stays, and so
        does one whose parent lives. Its firing stays, and notes `now`.

        Args:
            after: where the page before ended.
            limit: how many instances are looked at.
        """
        ...

    def prune_documents(
        self, before: float, *, after: Position | None = None, limit: int = 200
    ) -> Pruned:
        """Take a page of documents from activities that were received before a time.

        The activity's row stays, with CID, types and actors. A document that the outbox
        needs stays as well.
        """
        ...

    # --- asking

    def changed(self) -> bool:
        """Whether another process has written since the last call."""
        ...

    def registry(self) -> tuple[int, tuple[TriggerRecord, ...]]:
        """The registry generation and its active triggers, in order of registration."""
        ...

    def triggers_at(self, registry: int) -> tuple[TriggerRecord, ...]:
        """The triggers that were active at a registry generation."""
        ...

    def instance(self, id: str) -> InstanceRecord | None:
        """One instance by its public id."""
        ...

    def ids(self, prefix: str, limit: int = 6) -> list[str]:
        """Public ids that begin with `prefix`."""
        ...

    def removed(self, prefix: str) -> RemovedRecord | None:
        """The one instance whose id begins so that `prune` removed, if a firing tells."""
        ...

    def holders(self, key: str, *, namespace: str, flow: str | None = None) -> list[str]:
        """Public ids of the live instances that hold a business key."""
        ...

    def instances(
        self,
        *,
        after: tuple[float, int] | None = None,
        limit: int = 100,
        newest_first: bool = False,
        **where: Unpack[Where],
    ) -> list[InstanceRecord]:
        """A page of instances, by the time of their creation.

        Args:
            after: `InstanceRecord.cursor` of the last one of the page before.
            limit: how many at most.
            newest_first: the other way round.
            where: see `Where`.
        """
        ...

    def log(self, number: int, generation: int) -> list[LogRecord]:
        """The log of one generation."""
        ...

    def inbox(self, number: int, after: int = 0) -> list[InboxRow]:
        """Unread messages of one instance with an id above `after`, oldest first."""
        ...

    def progress(self, number: int, generation: int) -> list[ProgressRecord]:
        """What the steps of one generation said last of their progress."""
        ...

    def woken(self, worker: int) -> list[tuple[int, list[InboxRow]]]:
        """Instances of a worker whose inbox others wrote to, with all unread rows."""
        ...

    def activity(self, cid: str) -> ActivityRecord | None:
        """One activity by its CID."""
        ...

    def firings(self, cid: str) -> list[FiringRecord]:
        """An activity's firings."""
        ...

    def outbox(self, limit: int, after: int = 0) -> list[OutboxRow]:
        """Deferred dispatches, oldest first."""
        ...

    def standing(self) -> Standing:
        """How far the open waits for activities are, and where they are filed.

        Every wait that isn't newer than it says is seen by whoever asks after it.
        """
        ...

    def waits_under(
        self, pivots: Sequence[tuple[str, str, int]], limit: int
    ) -> list[tuple[int, WaitRecord]]:
        """Open waits that are filed under one of these pivots, those that catch up included.

        Args:
            pivots: path and value, and an id: only waits with a larger one are asked for.
            limit: how many at most.

        Returns:
            Index of the pivot and wait, in the order of the pivots, those of one by id. A
            wait of several pivots comes several times.
        """
        ...

    def waits_behind(
        self,
        after: tuple[int, int] | None = None,
        limit: int = 100,
        *,
        nearest_first: bool = False,
    ) -> list[WaitRecord]:
        """Open waits that have to catch up by themselves.

        Args:
            after: (scanned, id) of the last one of the page before.
            limit: how many at most.
            nearest_first: those first that have come furthest; the others by default.
        """
        ...

    def waits(self, after: int = 0, limit: int = 1000) -> list[WaitRecord]:
        """A page of the open waits, by id, those above `after`."""
        ...

    def waits_of(self, number: int) -> list[WaitRecord]:
        """The open waits of one instance."""
        ...

    def activities(self, after: int, limit: int) -> list[ActivityRecord]:
        """Activities by sequence number, those above `after`, in order and without a gap.

        Where they are large it may be fewer than `limit`, but one at least. One that could
        still be followed by a smaller number doesn't count yet.
        """
        ...

    def recorded(self, step: str, key: str) -> bytes | None:
        """The result that is recorded under a user's key."""
        ...

    def tasks(
        self, queue: str | None = None, *, after: int = 0, limit: int = 100
    ) -> list[TaskRecord]:
        """Queued calls of one queue, or of all, oldest first, those above number `after`."""
        ...

    def tasks_of(self, number: int) -> list[TaskRecord]:
        """The queued calls of one instance."""
        ...

    def held(self, worker: int) -> set[tuple[int, int]]:
        """(task, token) of everything that a worker holds."""
        ...

    def task_counts(self) -> list[TaskCount]:
        """How many tasks there are of each step in each queue."""
        ...

    def workers(self) -> list[WorkerRecord]:
        """All registered workers."""
        ...

    def counts(self) -> Counts:
        """How much the store holds."""
        ...

    def runnable(self) -> bool:
        """Whether any instance is runnable that nobody owns."""
        ...

    def next_due(self) -> float | None:
        """When the next parked instance is due."""
        ...


StoreFactory = Callable[[str], Store]


def offers_transactions(store: Store) -> bool:
    """Whether a backend has a `Store.transact` of its own."""
    own = getattr(type(store), "transact", None)
    return own is not Store.transact and hasattr(store, "transact")
