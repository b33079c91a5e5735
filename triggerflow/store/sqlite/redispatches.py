"""Deciding and writing redispatches: a firing without an instance gets another outcome."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from triggerflow.store.operations import APPLIED, Outcome, Redispatch, Verdict
from triggerflow.store.sqlite import registry
from triggerflow.store.sqlite.arrivals import Arrivals

if TYPE_CHECKING:
    import sqlite3


def redispatch(
    db: sqlite3.Connection, items: Sequence[tuple[int, Any]], outcomes: list[Any]
) -> None:
    """Decide and write redispatches; see `operations.Redispatch`."""
    generation = registry.generation(db)
    rows = Arrivals(db)
    changed: set[int] = set()
    for index, op in items:
        if op.registry != generation:
            outcomes[index] = Outcome(Verdict.STALE)
        elif op.firing in changed or not again(db, rows, op):
            outcomes[index] = Outcome(Verdict.GONE)
        else:
            changed.add(op.firing)
            outcomes[index] = APPLIED
    rows.write()


def again(db: sqlite3.Connection, rows: Arrivals, op: Redispatch) -> bool:
    """Gather what a firing becomes; False where it is no longer what was planned for."""
    row = db.execute(
        "SELECT f.activity, f.dead_letter, a.depth FROM firing f"
        " JOIN activity a ON a.seq = f.activity"
        " WHERE f.id = ? AND f.changes = ? AND f.instance IS NULL",
        (op.firing, op.changes),
    ).fetchone()
    if row is None:
        return False
    seq, dead_letter, chain = row
    if dead_letter is not None:
        op.planned.dead_letter = None
    rows.fire(
        seq, op.planned, op.registry, op.at, chain=chain, source=op.source, over=op.firing
    )
    return True
