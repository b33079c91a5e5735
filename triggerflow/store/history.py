"""What a store gives back of the past: firings that started nothing, and walks over history."""

from __future__ import annotations

import attrs


@attrs.frozen
class FiringChange:
    """What a firing was before it was written over."""

    outcome: str
    error: str | None
    at: float
    registry: int
    source: str
    attempts: int


@attrs.frozen
class Unstarted:
    """A firing without an instance, with all that it takes to dispatch it again.

    Attributes:
        id, changes: which firing, and how often it was written over until now.
        seq, cid, document, types, actors, source, namespace, depth: its activity; no document
            once retention took it.
        number, trigger, trigger_cid, spec, options: its trigger, which may be superseded.
        state: that of the present trigger of this name, or None where there is none.
        due: when its dispatch is tried again, or None.
    """

    id: int
    changes: int
    seq: int
    cid: str
    document: bytes | None
    types: str
    actors: str
    source: str | None
    namespace: str
    depth: int
    number: int
    trigger: str
    trigger_cid: str
    spec: bytes
    options: bytes | None
    state: str | None
    outcome: str
    attempts: int
    due: float | None = None

    @property
    def cursor(self) -> tuple[int, int]:
        """Where a page that ends with it ends."""
        return self.seq, self.number


@attrs.frozen
class Span:
    """A part of history: activities by sequence number, both counted in, and by time.

    `received_from` counts its own moment in, `received_until` doesn't. What isn't given
    leaves it open; `last` is never beyond the newest activity.
    """

    first: int = 1
    last: int | None = None
    received_from: float | None = None
    received_until: float | None = None


@attrs.frozen
class BackfillRecord:
    """A walk over history.

    Attributes:
        kind: ``backfill``, ``resume`` or ``skip``.
        trigger: a trigger's name.
        trigger_cid, spec, options: the trigger of a backfill.
        current: the state of the trigger that it needs; None where that is no more.
        state: ``running``, ``paused``, ``done`` or ``cancelled``.
        reason: why it was cancelled.
        span: which activities, `last` given.
        cursor: all activities up to this one are settled.
        looked: how many activities were looked at; firings, where it takes up or drops them.
        fired: how many firings it wrote that start something.
        unstarted: how many that don't: errors above all.
        known: how many had fired before, were changed meanwhile, or stay as they are.
        removed: how many whose documents retention had taken.
        owner: the worker that goes through it, while that is there.
        created, moved, ended: when, in seconds since the epoch.
    """

    id: int
    kind: str
    trigger: str
    trigger_cid: str | None
    spec: bytes | None
    options: bytes | None
    current: str | None
    state: str
    reason: str | None
    span: Span
    cursor: int
    looked: int
    fired: int
    unstarted: int
    known: int
    removed: int
    owner: int | None
    created: float
    moved: float | None
    ended: float | None


@attrs.frozen
class PastActivity:
    """An activity that a backfill looks at; `known` if its pair has fired, or will."""

    seq: int
    cid: str
    document: bytes | None
    types: str
    actors: str
    source: str | None
    namespace: str
    depth: int
    received: float
    known: bool = attrs.field(converter=bool)
