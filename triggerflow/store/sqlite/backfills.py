"""Walks over history: opened, paused, cancelled, listed, and what they look at."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from triggerflow.store.history import BackfillRecord, PastActivity, Span

if TYPE_CHECKING:
    import sqlite3


def span_of(db: sqlite3.Connection, span: Span) -> tuple[int, int]:
    """First and last activity of a span: never beyond the newest one there is.

    Nobody else writes while this transaction does, so all below have landed.
    """
    first, last = max(1, span.first), _newest(db)
    if span.last is not None:
        last = min(last, span.last)
    if span.received_from is not None:
        # Times may go back where a clock was set: the least number, not the first one.
        (least,) = db.execute(
            "SELECT min(seq) FROM activity WHERE document IS NOT NULL AND received >= ?",
            (span.received_from,),
        ).fetchone()
        first = max(first, last + 1 if least is None else least)
    if span.received_until is not None:
        (most,) = db.execute(
            "SELECT max(seq) FROM activity WHERE document IS NOT NULL AND received < ?",
            (span.received_until,),
        ).fetchone()
        last = min(last, most or 0)
    return first, max(last, first - 1)


def _newest(db: sqlite3.Connection) -> int:
    number: int = db.execute("SELECT coalesce(max(seq), 0) FROM activity").fetchone()[0]
    return number


def begin(db: sqlite3.Connection, name: str, span: Span, now: float) -> int | None:
    """Open a backfill of the trigger of this name; None where there is none."""
    spec = db.execute(
        "SELECT id FROM trigger_spec WHERE name = ? AND state <> 'superseded'", (name,)
    ).fetchone()
    if spec is None:
        return None
    first, last = span_of(db, span)
    return _insert(db, "backfill", name, spec[0], first, last, span, now)


def take_up(db: sqlite3.Connection, name: str, now: float, *, catch_up: bool) -> int | None:
    """Open a walk over a name's paused firings; None where there are none."""
    found = db.execute(
        "SELECT 1 FROM firing WHERE instance IS NULL AND outcome = 'paused'"
        " AND trigger_spec IN (SELECT id FROM trigger_spec WHERE name = ?) LIMIT 1",
        (name,),
    ).fetchone()
    if found is None:
        return None
    kind = "resume" if catch_up else "skip"
    stop_resuming(db, name, f"the trigger was resumed again, with {kind}", now)
    # What is being dropped is dropped, whatever comes after.
    (dropping,) = db.execute(
        "SELECT coalesce(max(last), 0) FROM backfill"
        " WHERE name = ? AND kind = 'skip' AND ended IS NULL",
        (name,),
    ).fetchone()
    return _insert(db, kind, name, None, dropping + 1, _newest(db), Span(), now)


def _insert(
    db: sqlite3.Connection,
    kind: str,
    name: str,
    spec: int | None,
    first: int,
    last: int,
    span: Span,
    now: float,
) -> int:
    empty = last < first
    cursor = db.execute(
        "INSERT INTO backfill (kind, name, trigger_spec, state, first, last, received_from,"
        " received_until, cursor, created, ended) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
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
        ),
    )
    return cursor.lastrowid or 0


def stop_resuming(db: sqlite3.Connection, name: str, reason: str, now: float) -> None:
    """Cancel the walk that takes up a name's paused firings; what it left stays paused."""
    db.execute(
        "UPDATE backfill SET state = 'cancelled', reason = ?, ended = ?"
        " WHERE name = ? AND kind = 'resume' AND ended IS NULL",
        (reason, now, name),
    )


def set_state(
    db: sqlite3.Connection, number: int, state: str, reason: str | None, now: float
) -> str | None:
    """Pause, go on with, or cancel one that has not ended; see `Store.set_backfill`."""
    db.execute(
        "UPDATE backfill SET state = ?, reason = ?, ended = ? WHERE id = ? AND ended IS NULL",
        (state, reason, now if state == "cancelled" else None, number),
    )
    row = db.execute("SELECT state FROM backfill WHERE id = ?", (number,)).fetchone()
    return None if row is None else row[0]


# --- asking ------------------------------------------------------------------------------


_HAS_FIRED: Final = (
    "EXISTS (SELECT 1 FROM firing f WHERE f.activity = {seq} AND f.trigger_spec = {spec})"
    " OR EXISTS (SELECT 1 FROM outbox o WHERE o.activity = {seq}"
    " AND o.trigger_spec = {spec})"
)


def has_fired(db: sqlite3.Connection, seq: int, spec: int) -> bool:
    """Whether a pair has fired, or its dispatch was put off."""
    found = db.execute(f"SELECT {_HAS_FIRED.format(seq='?1', spec='?2')}", (seq, spec))
    return bool(found.fetchone()[0])


def past(
    db: sqlite3.Connection, spec_cid: str, after: int, last: int, limit: int, size: int
) -> list[PastActivity]:
    """A page of activities with what a backfill must know; see `Store.past`."""
    row = db.execute("SELECT id FROM trigger_spec WHERE cid = ?", (spec_cid,)).fetchone()
    rows = db.execute(
        "SELECT a.seq, a.cid, a.document, a.types, a.actors, a.source, a.namespace, a.depth,"
        f" a.received, {_HAS_FIRED.format(seq='a.seq', spec='?1')} FROM activity a"
        " WHERE a.seq > ?2 AND a.seq <= ?3 ORDER BY a.seq LIMIT ?4",
        (-1 if row is None else row[0], after, last, limit),
    )
    found = []
    # Row by row: documents may be large, and a page is held in memory.
    for row in rows:
        found.append(PastActivity(*row))
        size -= len(found[-1].document or b"")
        if size <= 0:
            break
    rows.close()
    return found


_BACKFILL: Final = (
    "SELECT b.id, b.kind, b.name, t.cid, t.spec, t.options,"
    " CASE WHEN t.id IS NULL THEN c.state WHEN t.state <> 'superseded' THEN t.state END,"
    " b.state, b.reason, b.first, b.last, b.received_from, b.received_until, b.cursor,"
    " b.looked, b.fired, b.unstarted, b.known, b.removed, w.id, b.created, b.moved, b.ended"
    " FROM backfill b LEFT JOIN trigger_spec t ON t.id = b.trigger_spec"
    " LEFT JOIN trigger_spec c ON c.name = b.name AND c.state <> 'superseded'"
    " LEFT JOIN worker w ON w.id = b.owner"
)


def listed(
    db: sqlite3.Connection, *, open_only: bool, number: int | None
) -> list[BackfillRecord]:
    """Backfills, the oldest first; see `Store.backfills`."""
    rows = db.execute(
        f"{_BACKFILL} WHERE {'b.ended IS NULL' if open_only else '1'}"
        " AND (?1 IS NULL OR b.id = ?1) ORDER BY b.id",
        (number,),
    )
    return [BackfillRecord(*(*row[:9], Span(*row[9:13]), *row[13:])) for row in rows]
