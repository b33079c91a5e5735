"""Deciding and writing redispatches: a firing without an instance gets another outcome."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from triggerflow.store.decided import Met
from triggerflow.store.operations import Outcome, Redispatch, Verdict
from triggerflow.store.sqlite import registry
from triggerflow.store.sqlite.incoming import Arrivals

if TYPE_CHECKING:
    import sqlite3

    from triggerflow.store.records import FiringRecord


def redispatch(
    db: sqlite3.Connection, items: Sequence[tuple[int, Any]], outcomes: list[Any]
) -> None:
    """Decide and write redispatches; see `operations.Redispatch`."""
    generation = registry.generation(db)
    rows = Arrivals(db)
    done: dict[int, tuple[int, FiringRecord]] = {}
    for index, op in items:
        if op.registry != generation:
            outcomes[index] = Outcome(Verdict.STALE)
            continue
        found = None if op.firing in done else again(db, rows, op)
        if found is None:
            outcomes[index] = Outcome(Verdict.GONE)
        else:
            done[op.firing] = (index, found)
    rows.write()
    for index, record in done.values():
        outcomes[index] = Outcome(Verdict.APPLIED, firings=(record,))
    for index, _ in done.values():
        rows.tell(index, outcomes)
        break


def again(db: sqlite3.Connection, rows: Arrivals, op: Redispatch) -> FiringRecord | None:
    """Gather what a firing becomes; None where it is no longer what was planned for."""
    row = db.execute(
        "SELECT f.activity, a.cid, a.depth, f.dead_letter FROM firing f"
        " JOIN activity a ON a.seq = f.activity"
        " WHERE f.id = ? AND f.changes = ? AND f.instance IS NULL",
        (op.firing, op.changes),
    ).fetchone()
    if row is None:
        return None
    *about, dead_letter = row
    if dead_letter is not None:
        op.planned.dead_letter = None
    met = Met(*about)
    return rows.fire(met, op.planned, op.registry, op.at, source=op.source, over=op.firing)
