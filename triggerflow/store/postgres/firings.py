"""Firings that started nothing: found, written over, and what they were before."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from triggerflow.store.history import FiringChange, Unstarted
from triggerflow.store.postgres.columns import Texts

if TYPE_CHECKING:
    from triggerflow.store.postgres.wire import Db

_UNSTARTED = (
    "SELECT f.id, f.changes, f.activity, a.cid, a.document, a.types, a.actors, a.source,"
    " a.namespace, a.depth, t.id, t.name, t.cid, t.spec,"
    " t.options, c.state, f.outcome, f.attempts, f.due FROM firing f"
    " JOIN activity a ON a.seq = f.activity JOIN trigger_spec t ON t.id = f.trigger_spec"
    " LEFT JOIN trigger_spec c ON c.name = t.name AND c.state <> 'superseded'"
    " WHERE f.instance IS NULL"
)


def unstarted(
    db: Db,
    outcomes: Sequence[str],
    *,
    activity: str | None,
    trigger: str | None,
    after: tuple[int, int],
    last: int | None,
    limit: int,
) -> list[Unstarted]:
    """A page of firings that started nothing; see `Store.unstarted`."""
    where = " AND f.outcome = ANY(%s)"
    bound: list[Any] = [Texts(list(outcomes))]
    if activity is not None:
        where += " AND f.activity IN (SELECT seq FROM activity WHERE cid = %s)"
        bound.append(activity)
    if trigger is not None:
        where += " AND f.trigger_spec IN (SELECT id FROM trigger_spec WHERE name = %s)"
        bound.append(trigger)
    if last is not None:
        where += " AND f.activity <= %s"
        bound.append(last)
    rows = db.execute(
        f"{_UNSTARTED}{where} AND (f.activity, f.trigger_spec) > (%s, %s)"
        " ORDER BY f.activity, f.trigger_spec LIMIT %s",
        *bound,
        *after,
        limit,
    ).rows()
    return [Unstarted(*row) for row in rows]


def due(db: Db, now: float, after: tuple[float, int], limit: int) -> list[Unstarted]:
    """A page of firings that are to be dispatched again; see `Store.due_dispatches`."""
    rows = db.execute(
        f"{_UNSTARTED} AND f.due IS NOT NULL AND f.due <= %s AND (f.due, f.id) > (%s, %s)"
        " ORDER BY f.due, f.id LIMIT %s",
        now,
        *after,
        limit,
    ).rows()
    return [Unstarted(*row) for row in rows]


def next_due(db: Db, after: float) -> float | None:
    """When the next dispatch after a moment is to be tried again."""
    found: float | None = db.execute(
        "SELECT min(due) FROM firing WHERE due IS NOT NULL AND due > %s", after
    ).one()
    return found


def history(db: Db, activity: str, trigger_cid: str) -> list[FiringChange]:
    """What a firing was before, the oldest first."""
    rows = db.execute(
        "SELECT h.outcome, h.error, h.at, h.registry, h.source, h.attempts FROM activity a"
        " JOIN firing f ON f.activity = a.seq JOIN trigger_spec t ON t.id = f.trigger_spec"
        " JOIN firing_history h ON h.firing = f.id WHERE a.cid = %s AND t.cid = %s"
        " ORDER BY h.change",
        activity,
        trigger_cid,
    ).rows()
    return [FiringChange(*row) for row in rows]


def change(db: Db, rows: Sequence[tuple[Any, ...]]) -> None:
    """Write firings over: (id, instance, outcome, error, registry, at, source, ...) each."""
    for id, *rest in rows:
        db.execute(
            "INSERT INTO firing_history SELECT id, changes, outcome, error, registry, at,"
            " source, attempts FROM firing WHERE id = %s",
            id,
        )
        db.execute(
            "UPDATE firing SET instance = %s, outcome = %s, error = %s, registry = %s,"
            " at = %s, source = %s, due = %s, attempts = %s,"
            " dead_letter = coalesce(dead_letter, %s), earlier = %s, changes = changes + 1"
            " WHERE id = %s",
            *rest,
            id,
        )
