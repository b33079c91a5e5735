"""Walks over history and what came of redispatches, as the user sees them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs

if TYPE_CHECKING:
    from collections.abc import Mapping

    from triggerflow.store.history import BackfillRecord, Span


@attrs.frozen
class Backfill:
    """A walk over history, as it stands.

    Attributes:
        id: what it is asked for by; None for a dry run.
        kind: ``backfill``; or ``resume`` or ``skip``, which take up or drop what a trigger met
            while it was paused.
        trigger: the trigger's name, and its CID where it is a backfill.
        state: ``running``, ``paused``, ``done`` or ``cancelled``.
        reason: why it was cancelled, or why a running one stands still, or None.
        first, last: which activities, by sequence number.
        cursor: all up to this one are settled.
        looked: how many activities (of a backfill) or firings were looked at.
        fired: how many of those started something.
        unstarted: how many made a firing that started nothing, such as an error.
        known: how many had fired before.
        removed: how many had no document any more.
        created, moved, ended: when it began, last moved, ended; seconds since the epoch.
    """

    id: int | None
    kind: str
    trigger: str
    trigger_cid: str | None
    state: str
    reason: str | None
    first: int
    last: int
    cursor: int
    looked: int
    fired: int
    unstarted: int
    known: int
    removed: int
    created: float
    moved: float | None
    ended: float | None

    @property
    def share(self) -> float:
        """How much of it is settled, from 0 to 1."""
        if self.state == "done" or self.last < self.first:
            return 1.0
        return (self.cursor - self.first + 1) / (self.last - self.first + 1)

    @classmethod
    def of(cls, record: BackfillRecord) -> Backfill:
        """The walk behind a stored record."""
        reason = record.reason
        if record.state == "running" and record.current not in ("active", None):
            reason = f"its trigger is {record.current}"
        return cls(
            record.id,
            record.kind,
            record.trigger,
            record.trigger_cid,
            record.state,
            reason,
            record.span.first,
            record.span.last or 0,
            record.cursor,
            record.looked,
            record.fired,
            record.unstarted,
            record.known,
            record.removed,
            record.created,
            record.moved,
            record.ended,
        )

    @classmethod
    def dry(
        cls, trigger: str, trigger_cid: str, span: Span, counts: Mapping[str, int], now: float
    ) -> Backfill:
        """What a dry run found."""
        last = span.last or 0
        names = ("looked", "fired", "unstarted", "known", "removed")
        looked, fired, unstarted, known, removed = (counts.get(name, 0) for name in names)
        return cls(
            id=None,
            kind="backfill",
            trigger=trigger,
            trigger_cid=trigger_cid,
            state="done",
            reason="it was a dry run",
            first=span.first,
            last=last,
            cursor=last,
            looked=looked,
            fired=fired,
            unstarted=unstarted,
            known=known,
            removed=removed,
            created=now,
            moved=None,
            ended=now,
        )


@attrs.frozen
class Redispatched:
    """What became of firings that were dispatched again.

    Attributes:
        looked: how many there were.
        outcomes: outcome -> how many have it now. Those that stay as they are count under
            ``paused`` (their trigger is), ``removed`` (their document is), ``unknown_guard``
            (this process lacks its code), ``unreadable`` (this triggerflow can't read their
            trigger) or ``changed`` (somebody else was faster).
    """

    looked: int
    outcomes: dict[str, int]
