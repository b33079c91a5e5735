"""What a store gives back: rows as frozen values, bytes still encoded."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypedDict

import attrs

from triggerflow.store.history import Span

ENDED = frozenset({"done", "failed", "cancelled"})
# From so many deaths of its owners on, an instance runs alone, so that a death tells who
# caused it; at the limit it blocks.
SUSPECT = 2
CRASH_LIMIT = 5
OPEN = ("running", "waiting", "blocked")
STATUSES = (*OPEN, "done", "failed", "cancelled")


@attrs.frozen
class FiringRecord:
    """A trigger met an activity.

    Attributes:
        instance: public id of what it started, joined, signalled or cancelled; of a deduped
            one, the instance that was there already.
        error: why it did nothing.
        activity: the activity's CID.
        earlier: CID of the activity that fired in its stead, where it was deduped.
        number: the store's number of the firing; what a page of firings goes on from.
        source: what wrote it as it is: ``live``, ``backfill``, ``resume``, ``redispatch`` or
            ``retry``.
        due: when its dispatch is tried again.
        attempts: how often it was tried in a row.
        dead_letter: public id of what its failure started.
        changes: how often it was written over.
    """

    trigger: str
    trigger_cid: str
    instance: str | None
    error: str | None
    outcome: str
    at: float
    registry: int
    activity: str
    earlier: str | None = None
    number: int = attrs.field(default=0, eq=False)
    source: str = "live"
    due: float | None = None
    attempts: int = 1
    dead_letter: str | None = None
    changes: int = attrs.field(default=0, eq=False)


@attrs.frozen
class ActivityRecord:
    """An appended activity; `document` is its DAG-CBOR, None once retention took it.

    `types` and `actors` are JSON lists; `digest` is the SHA-256 of the bytes that were
    received, where its ingest gave them.
    """

    seq: int
    cid: str
    types: str
    actors: str
    document: bytes | None
    received: float
    namespace: str = ""
    source: str | None = None
    depth: int = 0
    digest: bytes | None = None


@attrs.frozen
class InboxRow:
    """A message that waits in an instance's inbox."""

    id: int
    kind: str
    name: str
    payload: bytes
    at: float


@attrs.frozen
class LogRecord:
    """A stored log entry; see `operations.LogRow`."""

    position: int
    tag: str
    value: bytes
    failed: bool
    digest: bytes | None
    at: float


@attrs.frozen
class ProgressRecord:
    """What a step said last of its progress, and when."""

    tag: str
    details: bytes
    at: float


HOLDS = ("", "debounce", "batch", "throttle", "place")


@attrs.frozen
class Hold:
    """Why an instance that was started isn't admitted yet.

    Attributes:
        kind: ``debounce``, ``batch``, ``throttle``, or ``place`` (of a concurrency key).
        until: when that ends by itself, in seconds since the epoch; None where it waits for a
            place.
        key: of the group, or the place: text, "" for the only one; None for a throttle.
    """

    kind: str
    until: float | None
    key: str | None


@attrs.frozen
class InstanceRecord:
    """An instance as stored; `held` is a number that `HOLDS` names."""

    number: int
    id: str
    flow: str
    version: int | None
    status: str
    namespace: str
    key: str | None
    correlation_id: str | None
    parent: str | None
    generation: int
    log_length: int
    pending: bytes | None
    due: float | None
    owner: int | None
    crashes: int
    cause: str | None
    reason: str | None
    value: bytes | None
    attributes: bytes | None
    created: float
    ended: float | None
    started: float | None
    input: bytes
    seed: bytes
    activity: str | None
    trigger: str | None
    trigger_cid: str | None
    positions: bytes | None = None
    turns: int = 0
    priority: int = 0
    held: int = 0
    held_key: str | None = None

    @property
    def hold(self) -> Hold | None:
        """What it is held for, if it is."""
        return Hold(HOLDS[self.held], self.due, self.held_key) if self.held else None

    @property
    def cursor(self) -> tuple[float, int]:
        """Where a page that ends with it ends."""
        return self.created, self.number


class Where(TypedDict, total=False):
    """Which instances are asked for; what isn't given, or is None, leaves it open.

    `status` has one or several; `parent` is a public id; `created_after` counts its own
    moment in, `created_before` doesn't.
    """

    status: tuple[str, ...] | str | None
    flow: str | None
    key: str | None
    attributes: Mapping[str, str | float | bool] | None
    namespace: str | None
    correlation_id: str | None
    parent: str | None
    created_after: float | None
    created_before: float | None


@attrs.frozen
class Claimed:
    """An instance that a worker now owns, with all that it needs to drive it.

    `log` is None where the worker said that it has it, and the pending set with it, which may
    be `IN_ROWS` then; `progress` is what its steps said last, as (tag, details). `turns` counts
    the turns that were taken: who knows as many knows all that the instance waits for.
    """

    number: int
    id: str
    flow: str
    version: int
    generation: int
    log_length: int
    pending: bytes | None
    crashes: int
    cancelled: bool
    input: bytes
    seed: bytes
    started: float | None
    log: tuple[LogRecord, ...] | None
    inbox: tuple[InboxRow, ...]
    progress: tuple[tuple[str, bytes], ...] = ()
    namespace: str = ""
    correlation_id: str | None = None
    depth: int = 0
    chain: int = 0
    origin: int = 0
    attributes: bytes | None = None
    positions: bytes | None = None
    turns: int = 0


@attrs.frozen
class ClaimedTask:
    """A task that a worker now holds, with all that it needs to run it.

    Attributes:
        id: the store's number of the task.
        token: what the holder must show.
        number: the store's number of its instance; `instance` is the public id.
        args: encoded.
        attempt: 1 for the first one; those that a crash cut off count.
        recorded: the result that is recorded under the call's key, encoded, or None.
        details: what an earlier attempt said last of its progress.
    """

    id: int
    token: int
    number: int
    instance: str
    generation: int
    tag: str
    queue: str
    step: str
    args: bytes
    attempt: int
    crashes: int
    timeout: float | None
    recorded: bytes | None = None
    details: bytes | None = None


@attrs.frozen
class TaskRecord:
    """A queued call as stored.

    Attributes:
        instance: its instance's public id.
        attempt: how many attempts were begun.
        due: from when on it may be claimed; None while its flow decides on a failed attempt.
        owner: the worker that holds it, or None.
    """

    id: int
    instance: str
    generation: int
    tag: str
    queue: str
    step: str
    attempt: int
    due: float | None
    armed: float
    owner: int | None
    token: int
    crashes: int


@attrs.frozen
class TaskCount:
    """How many tasks of a step stand in a queue, and how many of them a worker holds."""

    queue: str
    step: str
    tasks: int
    held: int
    oldest: float


@attrs.frozen
class TriggerRecord:
    """A stored trigger: `spec` is its DAG-CBOR, `cid` that spec's CID.

    `state` is ``active``, ``paused``, ``draining`` or ``superseded``; of an earlier generation,
    also ``skipped``: paused, and what it met was dropped. `options` is how it is dispatched.
    """

    number: int
    cid: str
    name: str
    spec: bytes
    state: str
    options: bytes | None = None


@attrs.frozen
class NewTrigger:
    """A trigger to make current; `meaning` is the CID of its spec without the name.

    `options` is how it is dispatched. `start` is from where on one of a new name fires, None
    from now on. `limits` are the (scope, limit) of its places, which hold for those who wait
    there already.
    """

    name: str
    cid: str
    spec: bytes
    meaning: str
    options: bytes | None = None
    start: Span | None = None
    limits: tuple[tuple[str, int], ...] = ()


@attrs.frozen
class OutboxRow:
    """A dispatch that was deferred.

    `trigger_cid` and `spec` name the one trigger, with its `options` and, if that is over, its
    `state` of then; without them it is for all that were current at the registry generation
    `registry`.
    """

    id: int
    seq: int
    cid: str
    document: bytes
    registry: int
    trigger_cid: str | None
    spec: bytes | None
    types: str
    actors: str
    source: str | None
    namespace: str
    depth: int
    options: bytes | None = None
    state: str | None = None


# Where a page of what is pruned ended: a time, and a number within that time.
Position = tuple[float, int]


@attrs.frozen
class Pruned:
    """A page of retention: how many went, and where the next page begins; None at the end."""

    removed: int
    next: Position | None


@attrs.frozen
class RemovedRecord:
    """An instance that retention removed, as its firing tells."""

    id: str
    activity: str
    trigger: str
    at: float


@attrs.frozen
class WorkerRecord:
    """A registered worker; `serves` has (queue, step), `holds` counts tasks."""

    id: int
    epoch: int
    build: str
    pid: int
    seen: float
    alive: bool
    owned: int
    holds: int = 0
    serves: tuple[tuple[str, str], ...] = ()


@attrs.frozen
class Counts:
    """How much a store holds, for `doctor` and summaries."""

    activities: int
    firings: int
    instances: dict[str, int]
    outbox: int
    inbox: int
    schema: int
    oldest_runnable: float | None
