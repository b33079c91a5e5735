"""What can be asked of a store: operations with preconditions, each with its own outcome.

A batch is one transaction. Every operation is decided on its own: one that loses (the
activity was there before, the worker was fenced, the instance has ended) changes nothing
and says so, and its neighbours land all the same. An unexpected error rolls the whole
batch back and is raised.

In a batch, the store decides in one order: the worker's fence, heartbeats, turns and blocks,
appends, starts, dispatches, redispatches, advances, messages, waits, unblocks, terminations,
heartbeats and answers of tasks, releases, claims, claims of tasks.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from typing import Any

import attrs

from triggerflow.store.acts import Act, Refusal
from triggerflow.store.firings import Letter, Once
from triggerflow.store.newcomer import NewInstance
from triggerflow.store.records import Claimed, ClaimedTask, FiringRecord
from triggerflow.store.tasks import ClaimTasks, FinishTask, TaskHeartbeat
from triggerflow.store.waits import Watched


class Verdict(Enum):
    """How an operation ended."""

    APPLIED = "applied"
    DUPLICATE = "duplicate"
    CONFLICT = "conflict"
    STALE = "stale"
    GONE = "gone"
    FENCED = "fenced"


@attrs.define(slots=True)
class Outcome:
    """What became of one operation.

    Attributes:
        verdict: `Verdict.APPLIED`, or why nothing was changed.
        seq: the activity's sequence number (appends).
        firings: the activity's firings, first ones where it is a duplicate (appends);
            None where its dispatch is deferred.
        instance: public id of the instance concerned (starts, messages).
        number: the store's own number of that instance.
        owner: worker that owns it, or None.
        inbox: number of the inbox row (messages).
        woken: the instance has messages that this turn had not seen (turns).
        claimed: what the worker owns from now on (claims, appends, starts).
        tasks: what it holds from now on (claims of tasks).
        more: there may be more to claim (claims).
        suspects: instances or tasks wait that must run alone (claims).
        next_due: when the next parked instance, or task, is due, or None (claims).
        detail: what was found, for the message; ``worker`` where the worker itself was
            fenced, not only this operation.
        told: (number, owner) of other instances that got a message, or became runnable (turns,
            appends, starts, dispatches, messages, terminations, answers).
        ended: public ids of instances that this ended without a turn of theirs.
        emitted: an activity was appended, and waits for its dispatch (turns).
        refusals: acts that can't be done (turns, with `CONFLICT`).
        opened: waits for activities were opened (appends, starts, dispatches).
    """

    verdict: Verdict
    seq: int | None = None
    firings: tuple[FiringRecord, ...] | None = ()
    instance: str | None = None
    number: int | None = None
    owner: int | None = None
    inbox: int | None = None
    woken: bool = False
    claimed: tuple[Claimed, ...] = ()
    more: bool = False
    suspects: bool = False
    next_due: float | None = None
    detail: str = ""
    told: tuple[tuple[int, int | None], ...] = ()
    ended: tuple[str, ...] = ()
    emitted: bool = False
    refusals: tuple[Refusal, ...] = ()
    tasks: tuple[ClaimedTask, ...] = ()
    opened: bool = False


APPLIED = Outcome(Verdict.APPLIED)
FENCED = Outcome(Verdict.FENCED)


@attrs.define(slots=True)
class PlannedFiring:
    """One trigger that met an activity: what it does, an error, or a hand-over.

    The store decides the rest: with `once`, a later one is ``deduped``; an instance whose
    business key is held is ``deduped`` where the holder has the same input and ``failed``
    where it has another one; a letter to nobody is ``failed``.

    Attributes:
        trigger_cid: which trigger.
        instance: what to start, or None.
        error: why nothing is done, or None.
        outcome: ``started``, ``signalled``, ``cancelled``, ``guard_error``, ``failed``,
            ``too_deep``, ``paused``, ``skipped`` or ``deferred`` (this process lacks the
            guard, or can't read the trigger: an outbox row asks a worker that can).
        letter: the message to send, or None.
        once: what makes it fire once, or None.
        due: when its dispatch is tried again, or None.
        attempts: how often it was tried in a row.
        dead_letter: what its failure starts, or None.

    An instance with an `admission` may not be started after all: the firing is then
    ``debounced`` or ``batched`` and names the instance that it joined, or ``limited`` and
    says why.
    """

    trigger_cid: str
    instance: NewInstance | None = None
    error: str | None = None
    outcome: str = "started"
    letter: Letter | None = None
    once: Once | None = None
    due: float | None = None
    attempts: int = 1
    dead_letter: NewInstance | None = None


@attrs.define(slots=True)
class Append:
    """Append an activity, its firings and their instances: all of it or nothing.

    Precondition: the store's registry generation is `registry` (else `STALE`), and no activity
    of the namespace has this CID (else `DUPLICATE`, with the first firings). `firings` None
    defers the dispatch: an outbox row is written instead.

    With `own`, the batch's worker owns the runnable instances from the start, and the
    outcome's `claimed` has them; if the worker was fenced they land without an owner.
    `digest` is that of the bytes that were received.
    """

    cid: str
    document: bytes
    types: str
    actors: str
    received: float
    registry: int
    firings: tuple[PlannedFiring, ...] | None
    own: bool = False
    namespace: str = ""
    source: str | None = None
    digest: bytes | None = None


@attrs.define(slots=True)
class Dispatch:
    """Carry out a deferred dispatch: write the firings of an outbox row, and remove it.

    Precondition: the row is there (else `GONE`), and the store's registry generation is
    `current`, where that is given (else `STALE`). It was planned with the triggers of the
    generation `registry`, that of the append, and with their states at `current`. A pair
    (activity, trigger) that has fired before is left as it is.
    """

    outbox: int
    seq: int
    registry: int
    received: float
    firings: tuple[PlannedFiring, ...]
    current: int | None = None


@attrs.define(slots=True)
class Redispatch:
    """Write a firing over that has no instance; what it was is kept in its history.

    Precondition: the registry generation is `registry` (else `STALE`), the firing is there,
    has no instance, and was written over `changes` times (else `GONE`).

    Attributes:
        firing: the store's number of the firing.
        planned: what it becomes; its dead letter counts only if the firing has none.
        source: ``resume``, ``redispatch`` or ``retry``.
    """

    firing: int
    changes: int
    planned: PlannedFiring
    registry: int
    at: float
    source: str = "redispatch"


@attrs.define(slots=True)
class Advance:
    """Move a backfill's cursor, with all that follows from the activities that it passes.

    Precondition: the worker's epoch holds (else `FENCED`), the registry generation is
    `registry` (else `STALE`), the backfill is ``running``, its cursor is `cursor`, and no
    other worker that is still registered has it (else `CONFLICT`). A pair that has fired,
    or is about to, is counted as known and left as it is; so is a firing that has changed.

    Attributes:
        to: where the cursor goes; at the end of its span the backfill is ``done``.
        looked: how many activities (firings, for a resume) were passed.
        known, removed: how many of them without a plan; see `records.BackfillRecord`.
        firings: (sequence number, plan).
        again: firings to write over.
        done: it is done, wherever the cursor stands.
    """

    backfill: int
    cursor: int
    to: int
    registry: int
    at: float
    looked: int = 0
    known: int = 0
    removed: int = 0
    firings: tuple[tuple[int, PlannedFiring], ...] = ()
    again: tuple[Redispatch, ...] = ()
    done: bool = False


@attrs.define(slots=True)
class Start:
    """Start an instance by hand.

    With a business key: `DUPLICATE` if a live instance of the flow holds it with the same
    input, `CONFLICT` if with another. `own` as for `Append`.
    """

    instance: NewInstance
    own: bool = False


@attrs.define(slots=True)
class Send:
    """Put a message into an instance's inbox and wake it.

    A signal that a parked instance doesn't wait for wakes nobody, as long as all workers
    run the build that parked it; another build may wait for something else.

    `GONE` if there is no such instance or it has ended (a ``retry`` needs one that failed,
    its key free, else `CONFLICT`); `DUPLICATE` for an equal dedup key and payload, or
    a second ``cancel``; `CONFLICT` for an equal dedup key with another payload, or where
    `generation` is given and the instance has another one.
    """

    instance: str
    kind: str
    name: str
    payload: bytes
    at: float
    dedup: str | None = None
    digest: bytes | None = None
    generation: int | None = None


@attrs.define(slots=True)
class Unblock:
    """Let a blocked instance be tried again, by any build; its crashes are forgotten.

    `GONE` if there is no such instance, `CONFLICT` if it isn't blocked.
    """

    instance: str


@attrs.define(slots=True)
class Terminate:
    """End an instance at once: none of its code runs any more.

    It is ``cancelled`` with `value` as its failure record, whoever owns it; its owner's next
    turn is fenced. `GONE` if there is no such instance or it has ended.
    """

    instance: str
    value: bytes
    at: float


@attrs.define(slots=True)
class LogRow:
    """One entry as stored: `value` holds the value, or the failure's record if `failed`."""

    tag: str
    value: bytes
    failed: bool
    digest: bytes | None
    at: float


@attrs.define(slots=True)
class Turn:
    """One advance of an instance: its entries, its new pending set, its status.

    Precondition: the worker's epoch holds, it owns the instance, and generation and log
    length are as stated; else `FENCED`. An act that can't be done makes it `CONFLICT`. A turn
    that would park an instance whose inbox has rows above `inbox_seen` that would wake it
    keeps it owned and says `woken`.

    Attributes:
        number: the store's number of the instance.
        log_length: how long its log was before this turn.
        entries: what is added.
        pending: the new pending set, encoded; or `IN_ROWS`, and what changed is in `changed`.
        changed: (tag, encoded request) of those that are new or other than before; None for
            those that are gone.
        afresh: `changed` is the whole set.
        status: ``running`` (stays owned), ``waiting`` (parks), or a terminal one.
        due: earliest due time among the pending, or None.
        consumed: inbox rows that became entries, or were dropped.
        value: result or failure record, where it ends.
        started: time of the generation's first turn; kept from the first turn on.
        acts: what it does towards others.
        progress_over: tags whose progress is of no more use.
        awaits: where it parks, the names of signals that it waits for: only these need
            wake it, and all other messages. None: any message does.
    """

    number: int
    generation: int
    log_length: int
    entries: tuple[LogRow, ...]
    pending: bytes
    status: str
    at: float
    started: float
    due: float | None = None
    consumed: tuple[int, ...] = ()
    inbox_seen: int = 0
    value: bytes | None = None
    acts: tuple[Act, ...] = ()
    progress_over: tuple[str, ...] = ()
    awaits: tuple[str, ...] | None = None
    changed: tuple[tuple[str, bytes | None], ...] = ()
    afresh: bool = False


@attrs.define(slots=True)
class Heartbeat:
    """Keep what a step said last of its progress, in place of what it said before.

    Precondition: the worker's epoch holds, it owns the instance, and the generation is as
    stated; else `FENCED`, or `GONE` where the instance has ended.
    """

    number: int
    generation: int
    tag: str
    details: bytes
    at: float


@attrs.define(slots=True)
class Block:
    """Block an instance and record that this build was tried. Precondition as for `Turn`."""

    number: int
    generation: int
    log_length: int
    cause: str
    reason: str
    build: str


@attrs.define(slots=True)
class Release:
    """Hand instances back, runnable, without counting a crash."""

    numbers: tuple[int, ...]


@attrs.define(slots=True)
class Claim:
    """Take runnable instances (and due ones, and blocked ones of other builds) as owner.

    Attributes:
        limit: how many at most.
        blocked: how many blocked ones at most, within that limit.
        build: this worker's build: instances that it was tried on are skipped.
        flows: (name, version) of every flow that this worker knows.
        now: what counts as due.
        alone: the worker owns nothing, so it may take an instance whose owners died
            twice; then it gets that one only.
        warm: number -> (generation, turns) of instances whose log and pending set the worker
            has, and needn't read.
    """

    limit: int
    blocked: int
    build: str
    flows: frozenset[tuple[str, int]]
    now: float
    alone: bool = False
    warm: Mapping[int, tuple[int, int]] = attrs.field(factory=dict)


Operation = (
    Append
    | Dispatch
    | Redispatch
    | Advance
    | Start
    | Send
    | Unblock
    | Terminate
    | Heartbeat
    | Turn
    | Block
    | Watched
    | Release
    | Claim
    | TaskHeartbeat
    | FinishTask
    | ClaimTasks
)


@attrs.define(slots=True)
class Batch:
    """Operations that share a transaction.

    Attributes:
        operations: what to do.
        now: the time that the batch stamps on the worker's row.
        worker: (id, epoch) of the worker behind heartbeats, turns, blocks, answers, advances,
            releases and claims.
    """

    operations: list[Any]
    now: float
    worker: tuple[int, int] | None = None
