"""Firings that started nothing: found, written over, and what they were before."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from triggerflow.store.history import FiringChange, Unstarted

if TYPE_CHECKING:
    import sqlite3

_UNSTARTED = (
    "SELECT f.id, f.changes, f.activity, a.cid, a.document, a.types, a.actors, a.source,"
    " a.namespace, a.depth, t.id, t.name, t.cid, t.spec,"
    " t.options, c.state, f.outcome, f.attempts, f.due FROM firing f"
    " JOIN activity a ON a.seq = f.activity JOIN trigger_spec t ON t.id = f.trigger_spec"
    " LEFT JOIN trigger_spec c ON c.name = t.name AND c.state <> 'superseded'"
    " WHERE f.instance IS NULL"
)


def unstarted(
    db: sqlite3.Connection,
    outcomes: Sequence[str],
    *,
    activity: str | None,
    trigger: str | None,
    after: tuple[int, int],
    last: int | None,
    limit: int,
) -> list[Unstarted]:
    """A page of firings that started nothing; see `Store.unstarted`."""
    where = " AND f.outcome IN (SELECT value FROM json_each(?))"
    bound: list[Any] = [json.dumps(list(outcomes))]
    if activity is not None:
        where += " AND f.activity IN (SELECT seq FROM activity WHERE cid = ?)"
        bound.append(activity)
    if trigger is not None:
        where += " AND f.trigger_spec IN (SELECT id FROM trigger_spec WHERE name = ?)"
        bound.append(trigger)
    if last is not None:
        where += " AND f.activity <= ?"
        bound.append(last)
    rows = db.execute(
        f"{_UNSTARTED}{where} AND (f.activity, f.trigger_spec) > (?, ?)"
        " ORDER BY f.activity, f.trigger_spec LIMIT ?",
        (*bound, *after, limit),
    )
    return [Unstarted(*row) for row in rows]


def due(
    db: sqlite3.Connection, now: float, after: tuple[float, int], limit: int
) -> list[Unstarted]:
    """A page of firings that are to be dispatched again; see `Store.due_dispatches`."""
    rows = db.execute(
        f"{_UNSTARTED} AND f.due IS NOT NULL AND f.due <= ? AND (f.due, f.id) > (?, ?)"
        " ORDER BY f.due, f.id LIMIT ?",
        (now, *after, limit),
    )
    return [Unstarted(*row) for row in rows]


def next_due(db: sqlite3.Connection, after: float) -> float | None:
    """When the next dispatch after a moment is to be tried again."""
    found: float | None = db.execute(
        "SELECT min(due) FROM firing WHERE due IS NOT NULL AND due > ?", (after,)
    ).fetchone()[0]
    return found


def history(db: sqlite3.Connection, activity: str, trigger_cid: str) -> list[FiringChange]:
    """What a firing was before, the oldest first."""
    rows = db.execute(
        "SELECT h.outcome, h.error, h.at, h.registry, h.source, h.attempts FROM activity a"
        " JOIN firing f ON f.activity = a.seq JOIN trigger_spec t ON t.id = f.trigger_spec"
        " JOIN firing_history h ON h.firing = f.id WHERE a.cid = ? AND t.cid = ?"
        " ORDER BY h.change",
        (activity, trigger_cid),
    )
    return [FiringChange(*row) for row in rows]


def change(db: sqlite3.Connection, rows: Sequence[tuple[Any, ...]]) -> None:
    """Write firings over: (id, instance, outcome, error, registry, at, source, ...) each."""
    db.executemany(
        "INSERT INTO firing_history SELECT id, changes, outcome, error, registry, at, source,"
        " attempts FROM firing WHERE id = ?",
        [row[:1] for row in rows],
    )
    db.executemany(
        "UPDATE firing SET instance = ?2, outcome = ?3, error = ?4, registry = ?5, at = ?6,"
        " source = ?7, due = ?8, attempts = ?9, dead_letter = coalesce(dead_letter, ?10),"
        " earlier = ?11, changes = changes + 1 WHERE id = ?1",
        rows,
    )
