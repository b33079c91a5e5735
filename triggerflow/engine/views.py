"""What the verbs give back: an instance, an entry, an append, as the user sees them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import attrs

from triggerflow.core.failure import Failure
from triggerflow.core.log import Pending, decode_pending
from triggerflow.store.records import ENDED, Hold

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from triggerflow.core.codec import ValueCodec
    from triggerflow.store.history import FiringChange
    from triggerflow.store.records import (
        FiringRecord,
        InstanceRecord,
        ProgressRecord,
        TaskRecord,
    )


@attrs.frozen
class Firing:
    """A trigger met an activity.

    Attributes:
        trigger: the trigger's name.
        trigger_cid: its CID.
        instance_id: what it started, joined, signalled or cancelled, or None; of a deduped one,
            the instance that was there already.
        error: why it did nothing, or None.
        outcome: ``started``, ``signalled``, ``cancelled``, ``deduped``, ``guard_error``,
            ``failed`` or ``too_deep``; ``debounced`` or ``batched`` where it joined an instance
            that is held and not yet admitted; ``limited``; ``paused`` while its trigger is,
            ``skipped`` where that was dropped; ``guard_no`` where a later look found so.
        activity: the activity's CID.
        earlier: CID of the activity that fired in its stead, where it was deduped.
        at: when, in seconds since the epoch.
        registry: the registry generation that it was planned with.
        number: the store's own number; 0 where it has just been written.
        source: what wrote it as it is: ``live``, ``backfill``, ``resume``, ``redispatch`` or
            ``retry``.
        due: when its dispatch is tried again, in seconds since the epoch, or None.
        attempts: how often it was tried in a row.
        dead_letter: the instance that its failure started, or None.
        before: what it was before it was dispatched again, the oldest first, as `firings`
            tells it.
    """

    trigger: str
    trigger_cid: str
    instance_id: str | None
    error: str | None
    outcome: str
    activity: str
    earlier: str | None
    at: float
    registry: int
    number: int = attrs.field(default=0, eq=False, repr=False)
    source: str = "live"
    due: float | None = None
    attempts: int = 1
    dead_letter: str | None = None
    before: tuple[FiringChange, ...] = ()

    @classmethod
    def of(cls, record: FiringRecord, before: Iterable[FiringChange] = ()) -> Firing:
        """The firing behind a stored record."""
        return cls(
            record.trigger,
            record.trigger_cid,
            record.instance,
            record.error,
            record.outcome,
            record.activity,
            record.earlier,
            record.at,
            record.registry,
            record.number,
            record.source,
            record.due,
            record.attempts,
            record.dead_letter,
            tuple(before),
        )


@attrs.frozen
class Appended:
    """An activity is in the store.

    Attributes:
        cid: its content id.
        seq: its sequence number.
        duplicate: it was there before; `firings` are the first ones, nothing new started.
        firings: what met it; None where its dispatch is deferred to a worker.
    """

    cid: str
    seq: int
    duplicate: bool
    firings: tuple[Firing, ...] | None


@attrs.frozen
class Rejected:
    """One of `append_many`'s documents was refused: nothing of it is stored.

    Attributes:
        index: its place among the documents.
        error: why, as the exception that `append` would have raised.
    """

    index: int
    error: Exception


@attrs.frozen
class Progress:
    """What a running step said last by `heartbeat`.

    Attributes:
        details: what it said.
        at: when, in seconds since the epoch.
    """

    details: Any
    at: float


@attrs.frozen
class Instance:
    """One durable execution of a flow, as it stands.

    Attributes:
        status: ``running``, ``waiting``, ``blocked``, ``done``, ``failed``, ``cancelled``.
        result: what it returned, if done.
        failure: how it failed, if failed or cancelled.
        cause: why it is blocked; `reason` says it in words.
        waiting: tags that it waits for.
        due: when the next of them fires by itself, seconds since the epoch.
        held: why it isn't admitted yet, or None; it is ``waiting`` then, and none of its code
            runs.
        created, started, ended: seconds since the epoch.
        activity: CID of the activity that started it, or None.
        trigger: name of the trigger that did.
    """

    id: str
    flow: str
    version: int | None
    status: str
    input: Any
    result: Any
    failure: Failure | None
    cause: str | None
    reason: str | None
    waiting: tuple[str, ...]
    key: str | None
    namespace: str
    correlation_id: str | None
    attributes: dict[str, Any]
    parent: str | None
    generation: int
    log_length: int
    due: float | None
    created: float
    started: float | None
    ended: float | None
    activity: str | None
    trigger: str | None
    trigger_cid: str | None
    priority: int = 0
    held: Hold | None = None

    @property
    def is_over(self) -> bool:
        """Whether it has ended."""
        return self.status in ENDED

    @classmethod
    def of(cls, record: InstanceRecord, codec: ValueCodec) -> Instance:
        """The instance behind a stored record."""
        value = None if record.value is None else codec.decode(record.value)
        failure = None
        if record.status in ("failed", "cancelled") and value is not None:
            failure = Failure.from_record(value)
        return cls(
            id=record.id,
            flow=record.flow,
            version=record.version,
            status=record.status,
            input=codec.decode(record.input),
            result=value if record.status == "done" else None,
            failure=failure,
            cause=record.cause,
            reason=record.reason,
            waiting=tuple(pending_of(record, codec)),
            key=record.key,
            namespace=record.namespace,
            correlation_id=record.correlation_id,
            attributes={} if record.attributes is None else codec.decode(record.attributes),
            parent=record.parent,
            generation=record.generation,
            log_length=record.log_length,
            due=record.due if record.status == "waiting" else None,
            created=record.created,
            started=record.started,
            ended=record.ended,
            activity=record.activity,
            trigger=record.trigger,
            trigger_cid=record.trigger_cid,
            priority=record.priority,
            held=record.hold,
        )


@attrs.frozen
class Task:
    """A queued call that has no result yet.

    Attributes:
        instance: id of the instance that waits for it.
        tag: its tag there, in that generation.
        step: the step's registered name.
        state: ``ready`` (a worker may claim it once it is due), ``running`` (`worker` has
            it), or ``failed`` (its last attempt did, and its flow decides what follows).
        attempt: how many attempts were begun.
        due: from when on it may be claimed, in seconds since the epoch.
        armed: since when it is queued.
        worker: the number of the worker that runs it, as `doctor` shows it.
        crashes: how often in a row its worker died with it.
    """

    instance: str
    generation: int
    tag: str
    queue: str
    step: str
    state: str
    attempt: int
    due: float | None
    armed: float
    worker: int | None
    crashes: int

    @classmethod
    def of(cls, record: TaskRecord) -> Task:
        """The task behind a stored record."""
        if record.owner is not None:
            state = "running"
        else:
            state = "failed" if record.due is None else "ready"
        return cls(
            record.instance,
            record.generation,
            record.tag,
            record.queue,
            record.step,
            state,
            record.attempt,
            record.due,
            record.armed,
            record.owner,
            record.crashes,
        )


def progress_of(
    record: InstanceRecord, rows: Iterable[ProgressRecord], codec: ValueCodec
) -> dict[str, Progress]:
    """Tag -> what its step said last, for the calls that an instance waits for."""
    said = {row.tag: row for row in rows}
    return {
        tag: Progress(codec.decode(said[tag].details), said[tag].at)
        for tag in pending_of(record, codec)
        if tag in said
    }


def appended(cid: str, seq: int, *, duplicate: bool, firings: Sequence[Any] | None) -> Appended:
    """An `Appended` of stored records."""
    found = None if firings is None else tuple(Firing.of(record) for record in firings)
    return Appended(cid, seq, duplicate, found)


def pending_of(record: InstanceRecord, codec: ValueCodec) -> dict[str, Pending]:
    """What an instance waits for; nothing before its first turn and once it has ended."""
    if record.pending is None or record.status in ENDED:
        return {}
    return decode_pending(codec.decode(record.pending))
