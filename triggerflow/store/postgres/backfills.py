"""Walks over history: opened, paused, cancelled, listed, and what they look at."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from triggerflow.store.history import BackfillRecord, PastActivity, Span

if TYPE_CHECKING:
    from triggerflow.store.postgres.wire import Db


def span_of(db: Db, span: Span) -> tuple[int, int]:
    """First and last activity of a span: never beyond the newest one there is.

    Who writes one holds `registry.stand_by`: nobody does while it is changed, so all below
    have landed.
    """
    first, last = max(1, span.first), _newest(db)
    if span.last is not None:
        last = min(last, span.last)
    if span.received_from is not None:
        # Times may go back where a clock was set: the least number, not the first one.
        (least,) = db.execute(
            "SELECT min(seq) FROM activity WHERE document IS NOT NULL AND received >= %s",
            span.received_from,
        ).rows()[0]
        first = max(first, last + 1 if least is None else least)
    if span.received_until is not None:
        (most,) = db.execute(
            "SELECT max(seq) FROM activity WHERE document IS NOT NULL AND received < %s",
            span.received_until,
        ).rows()[0]
        last = min(last, most or 0)
    return first, max(last, first - 1)


def _newest(db: Db) -> int:
    number: int = db.execute("SELECT coalesce(max(seq), 0) FROM activity").one()
    return number


def begin(db: Db, name: str, span: Span, now: float) -> int | None:
    """Open a backfill of the trigger of this name; None where there is none."""
    spec = db.execute(
        "SELECT id FROM trigger_spec WHERE name = %s AND state <> 'superseded'", name
    ).row()
    if spec is None:
        return None
    first, last = span_of(db, span)
    return _insert(db, "backfill", name, spec[0], first, last, span, now)


def take_up(db: Db, name: str, now: float, *, catch_up: bool) -> int | None:
    """Open a walk over a name's paused firings; None where there are none."""
    found = db.execute(
        "SELECT 1 FROM firing WHERE instance IS NULL AND outcome = 'paused'"
        " AND trigger_spec IN (SELECT id FROM trigger_spec WHERE name = %s) LIMIT 1",
        name,
    ).row()
    if found is None:
        return None
    kind = "resume" if catch_up else "skip"
    stop_resuming(db, name, f"the trigger was resumed again, with {kind}", now)
    # What is being dropped is dropped, whatever comes after.
    (dropping,) = db.execute(
        "SELECT coalesce(max(last), 0) FROM backfill"
        " WHERE name = %s AND kind = 'skip' AND ended IS NULL",
        name,
    ).rows()[0]
    return _insert(db, kind, name, None, dropping + 1, _newest(db), Span(), now)


def _insert(
    db: Db,
    kind: str,
    name: str,
    spec: int | None,
    first: int,
    last: int,
    span: Span,
    now: float,
) -> int:
    empty = last < first
    number: int = db.execute(
        "INSERT INTO backfill (kind, name, trigger_spec, state, first, last, received_from,"
        " received_until, cursor, created, ended)"
        " VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s)"
        " RETURNING id",
        kind,
        name,
        spec,
        "done" if empty else "running",
        first,
        last,
        span.received_from,
        span.received_until,
        first - 1,
        now,
        now if empty else None,
    ).one()
    return number


def stop_resuming(db: Db, name: str, reason: str, now: float) -> None:
    """Cancel the walk that takes up a name's paused firings; what it left stays paused."""
    db.execute(
        "UPDATE backfill SET state = 'cancelled', reason = %s, ended = %s"
        " WHERE name = %s AND kind = 'resume' AND ended IS NULL",
        reason,
        now,
        name,
    )


def set_state(db: Db, number: int, state: str, reason: str | None, now: float) -> str | None:
    """Pause, go on with, or cancel one that has not ended; see `Store.set_backfill`."""
    db.execute(
        "UPDATE backfill SET state = %s, reason = %s, ended = %s"
        " WHERE id = %s AND ended IS NULL",
        state,
        reason,
        now if state == "cancelled" else None,
        number,
    )
    row = db.execute("SELECT state FROM backfill WHERE id = %s", number).row()
    return None if row is None else row[0]


# --- asking ------------------------------------------------------------------------------


_HAS_FIRED: Final = (
    "EXISTS (SELECT 1 FROM firing f WHERE f.activity = {seq} AND f.trigger_spec = {spec})"
    " OR EXISTS (SELECT 1 FROM outbox o WHERE o.activity = {seq}"
    " AND o.trigger_spec = {spec})"
)


def has_fired(db: Db, seq: int, spec: int) -> bool:
    """Whether a pair has fired, or its dispatch was put off."""
    found: bool = db.execute(
        f"SELECT {_HAS_FIRED.format(seq='%s', spec='%s')}", seq, spec, seq, spec
    ).one()
    return found


def past(
    db: Db, spec_cid: str, after: int, last: int, limit: int, size: int
) -> list[PastActivity]:
    """A page of activities with what a backfill must know; see `Store.past`."""
    row = db.execute("SELECT id FROM trigger_spec WHERE cid = %s", spec_cid).row()
    spec = -1 if row is None else row[0]
    # As many as fit: documents may be large, and a page is held in memory.
    sized = db.execute(
        "SELECT seq, coalesce(length(document), 0)::bigint FROM activity"
        " WHERE seq > %s AND seq <= %s ORDER BY seq LIMIT %s",
        after,
        last,
        limit,
    ).rows()
    end = after
    for seq, bytes in sized:
        end, size = seq, size - bytes
        if size <= 0:
            break
    rows = db.execute(
        "SELECT a.seq, a.cid, a.document, a.types, a.actors, a.source, a.namespace, a.depth,"
        f" a.received, {_HAS_FIRED.format(seq='a.seq', spec='%s')} FROM activity a"
        " WHERE a.seq > %s AND a.seq <= %s ORDER BY a.seq",
        spec,
        spec,
        after,
        end,
    ).rows()
    return [PastActivity(*row) for row in rows]


_BACKFILL: Final = (
    "SELECT b.id, b.kind, b.name, t.cid, t.spec, t.options,"
    " CASE WHEN t.id IS NULL THEN c.state WHEN t.state <> 'superseded' THEN t.state END,"
    " b.state, b.reason, b.first, b.last, b.received_from, b.received_until, b.cursor,"
    " b.looked, b.fired, b.unstarted, b.known, b.removed, w.id, b.created, b.moved, b.ended"
    " FROM backfill b LEFT JOIN trigger_spec t ON t.id = b.trigger_spec"
    " LEFT JOIN trigger_spec c ON c.name = b.name AND c.state <> 'superseded'"
    " LEFT JOIN worker w ON w.id = b.owner"
)


def listed(db: Db, *, open_only: bool, number: int | None) -> list[BackfillRecord]:
    """Backfills, the oldest first; see `Store.backfills`."""
    rows = db.execute(
        f"{_BACKFILL} WHERE {'b.ended IS NULL' if open_only else 'TRUE'}"
        " AND (%s::bigint IS NULL OR b.id = %s) ORDER BY b.id",
        number,
        number,
    ).rows()
    return [BackfillRecord(*(*row[:9], Span(*row[9:13]), *row[13:])) for row in rows]
