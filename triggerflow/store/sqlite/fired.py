"""Firings, as the audit asks for them: of an activity, of a trigger, with an outcome."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from triggerflow.store.records import FiringRecord

if TYPE_CHECKING:
    import sqlite3

_FIRING: Final = (
    "SELECT t.name, t.cid, f.instance, f.error, f.outcome, f.at, f.registry, a.cid, e.cid,"
    " f.id, f.source, f.due, f.attempts, f.dead_letter, f.changes"
    " FROM firing f JOIN activity a ON a.seq = f.activity"
    " JOIN trigger_spec t ON t.id = f.trigger_spec LEFT JOIN activity e ON e.seq = f.earlier"
)


def firings_of(db: sqlite3.Connection, cid: str, namespace: str) -> list[FiringRecord]:
    """An activity's firings, in the order in which they were written."""
    rows = db.execute(
        f"{_FIRING} WHERE f.activity = (SELECT seq FROM activity WHERE cid = ?"
        " AND namespace = ?) ORDER BY f.id",
        (cid, namespace),
    )
    return [FiringRecord(*row) for row in rows]


def fired(
    db: sqlite3.Connection,
    *,
    activity: str | None,
    trigger: str | None,
    outcome: str | None,
    after: int | None,
    limit: int,
) -> list[FiringRecord]:
    """A page of firings, the newest first; see `Store.fired`."""
    terms: list[str] = []
    values: list[Any] = []
    for term, value in (
        ("f.activity IN (SELECT seq FROM activity WHERE cid = ?)", activity),
        ("f.trigger_spec IN (SELECT id FROM trigger_spec WHERE name = ?)", trigger),
        ("f.outcome = ?", outcome),
        ("f.id < ?", after),
    ):
        if value is not None:
            terms.append(term)
            values.append(value)
    if outcome not in (None, "started"):
        # As its index says it, or SQLite wouldn't use that.
        terms.append("f.outcome <> 'started'")
    where = f" WHERE {' AND '.join(terms)}" if terms else ""
    rows = db.execute(f"{_FIRING}{where} ORDER BY f.id DESC LIMIT ?", (*values, limit))
    return [FiringRecord(*row) for row in rows]
