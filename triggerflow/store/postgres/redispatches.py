"""Deciding and writing redispatches: a firing without an instance gets another outcome."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from triggerflow.store.decided import Met
from triggerflow.store.operations import Outcome, Redispatch, Verdict
from triggerflow.store.postgres import registry
from triggerflow.store.postgres.incoming import Arrivals, Triggers

if TYPE_CHECKING:
    from triggerflow.store.postgres.standing import Items, Standing
    from triggerflow.store.records import FiringRecord


def redispatch(s: Standing, triggers: Triggers, items: Items, outcomes: list[Any]) -> None:
    """Decide and write redispatches; see `operations.Redispatch`."""
    generation = registry.generation(s.db)
    rows = Arrivals(s, triggers)
    done: dict[int, tuple[int, FiringRecord]] = {}
    for index, op in items:
        if op.registry != generation:
            outcomes[index] = Outcome(Verdict.STALE)
            continue
        found = None if op.firing in done else again(rows, op)
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


def again(rows: Arrivals, op: Redispatch) -> FiringRecord | None:
    """Gather what a firing becomes; None where it is no longer what was planned for."""
    row = rows.s.db.execute(
        "SELECT f.activity, a.cid, a.depth, f.dead_letter FROM firing f"
        " JOIN activity a ON a.seq = f.activity"
        " WHERE f.id = %s AND f.changes = %s AND f.instance IS NULL"
        " FOR UPDATE OF f",
        op.firing,
        op.changes,
    ).row()
    if row is None:
        return None
    *about, dead_letter = row
    if dead_letter is not None:
        op.planned.dead_letter = None
    met = Met(*about)
    return rows.fire(met, op.planned, op.registry, op.at, source=op.source, over=op.firing)
