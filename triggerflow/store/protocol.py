"""What a backend must offer. `triggerflow.testing.check_store` holds it to that."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Protocol, Unpack

from triggerflow.errors import StoreError
from triggerflow.store.history import (
    BackfillRecord,
    FiringChange,
    PastActivity,
    Span,
    Unstarted,
)
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
    Pruned,
    RemovedRecord,
    TaskCount,
    TaskRecord,
    TriggerRecord,
    Where,
    WorkerRecord,
)
from triggerflow.store.transactions import Transact, Work
from triggerflow.store.waits import Waits


class Store(Waits, Protocol):
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

    def rehearse(self, append: Append, proposed: Sequence[NewTrigger] = ()) -> Outcome:
        """What `commit` would answer to an append now; nothing is kept, nobody is woken.

        Args:
            proposed: triggers that count as current for it, besides those of the registry
                generation that the append names.
        """
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
        """Fence dead workers and free what they owned, held or walked; how much that was.

        Dead is a worker whose process is gone, or one of `silent` that still shows the sign
        of life (`WorkerRecord.seen`) given there: its caller has watched it show no other
        for longer than the lease. Each instance that it owned counts one crash, and so does
        each task that it held; at the limit, a task's call is told that it failed.
        """
        ...

    def sync_triggers(self, triggers: Sequence[NewTrigger], *, now: float) -> int:
        """Make triggers current, superseding others of the same names or meanings.

        A state belongs to the name: a new spec of a paused one is paused. One that comes back
        under its old CID is as good as new: what came meanwhile it has not met. `start` counts
        for names that were never registered before, and opens a backfill. `limits` hold from
        now on for those, too, who wait for a place already.

        Returns:
            The registry generation, which grows whenever this changed anything.
        """
        ...

    def set_trigger_state(
        self, name: str, state: str, *, now: float, catch_up: bool | None = None
    ) -> int | None:
        """Make a name's trigger ``active``, ``paused`` or ``draining``, if it is another.

        The registry generation grows. Pausing cancels a walk that takes up the name's paused
        firings, and what it left stays paused; one that drops them goes on.

        Args:
            catch_up: where it becomes, or is, active: open such a walk, taking them up or
                dropping them, if there are any. What was deferred during a pause that is
                dropped is dropped too.

        Returns:
            The number of that walk, or None.
        """
        ...

    def open_backfill(self, name: str, span: Span, *, now: float) -> int | None:
        """Open a backfill of the present trigger of a name; None where there is none.

        It ends at the newest activity that there is now at the latest, and one that has
        nothing to look at is done at once.
        """
        ...

    def set_backfill(
        self, number: int, state: str, *, now: float, reason: str | None = None
    ) -> str | None:
        """Make one that has not ended ``running``, ``paused`` or ``cancelled``.

        Returns:
            Its state now; None where there is none.
        """
        ...

    def retire_trigger(self, name: str) -> bool:
        """Let the trigger of this name be current no more; False if there is none.

        What was appended before still meets it where its dispatch was deferred. The registry
        generation grows.
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
        """The registry generation and its triggers, in order of registration."""
        ...

    def triggers_at(self, number: int) -> tuple[TriggerRecord, ...]:
        """The triggers of an earlier registry generation, with their states of then."""
        ...

    def trigger_state(self, name: str) -> tuple[str | None, list[str]]:
        """The state of a name's trigger, None where it has none; and all names ever used."""
        ...

    def unstarted(
        self,
        outcomes: Iterable[str],
        *,
        activity: str | None = None,
        trigger: str | None = None,
        after: tuple[int, int] = (0, 0),
        last: int | None = None,
        limit: int = 100,
    ) -> list[Unstarted]:
        """A page of firings without an instance, in the order of their activities.

        Args:
            outcomes: only those with one of these.
            activity: only those of the activity with this CID.
            trigger: only those of triggers that have, or had, this name.
            after: `Unstarted.cursor` of the last one of the page before.
            last: only those of activities up to this sequence number.
            limit: how many at most.
        """
        ...

    def due_dispatches(
        self, now: float, *, after: tuple[float, int] = (0.0, 0), limit: int = 100
    ) -> list[Unstarted]:
        """A page of firings whose dispatch is to be tried again by now, the longest due first.

        Args:
            after: `due` and `id` of the last one of the page before.
            limit: how many at most.
        """
        ...

    def next_dispatch(self, after: float) -> float | None:
        """When, after a moment, the next dispatch is to be tried again."""
        ...

    def firing_history(self, cid: str, trigger_cid: str) -> list[FiringChange]:
        """What a firing was before it was written over, the oldest first."""
        ...

    def backfills(
        self, *, open_only: bool = False, number: int | None = None
    ) -> list[BackfillRecord]:
        """Backfills, oldest first: all, those that have not ended, or the one of a number."""
        ...

    def past(
        self, trigger_cid: str, after: int, last: int, *, limit: int = 500, size: int = 2**21
    ) -> list[PastActivity]:
        """A page of activities above `after`, up to `last`, for a backfill of a trigger.

        Args:
            limit: how many at most.
            size: bytes of documents after which the page ends.
        """
        ...

    def span(self, span: Span) -> tuple[int, int]:
        """First and last sequence number of a part of history; last below first: none.

        With times, the numbers enclose all activities in question, others too where a clock
        was set meanwhile.
        """
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

    def activity(self, cid: str, namespace: str = "") -> ActivityRecord | None:
        """One activity by its CID, in its namespace."""
        ...

    def newest_activities(self, limit: int) -> list[ActivityRecord]:
        """The last activities of all namespaces, the newest first."""
        ...

    def firings(self, cid: str, namespace: str = "") -> list[FiringRecord]:
        """An activity's firings, in their order."""
        ...

    def fired(
        self,
        *,
        activity: str | None = None,
        trigger: str | None = None,
        outcome: str | None = None,
        after: int | None = None,
        limit: int = 100,
    ) -> list[FiringRecord]:
        """A page of firings, the newest first.

        Args:
            activity: only those of the activity with this CID.
            trigger: only those of triggers of this name, superseded ones too.
            outcome: only those with this outcome.
            after: `FiringRecord.number` of the last one of the page before.
            limit: how many at most.
        """
        ...

    def outbox(self, limit: int, after: int = 0) -> list[OutboxRow]:
        """Deferred dispatches, oldest first."""
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
