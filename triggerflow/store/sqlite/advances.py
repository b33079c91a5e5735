"""Moving walks over history on: a page's firings and the cursor in one transaction."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from triggerflow.store.decided import Met
from triggerflow.store.firings import DOES, JOINED
from triggerflow.store.operations import Advance, Outcome, Verdict
from triggerflow.store.sqlite import registry
from triggerflow.store.sqlite.backfills import has_fired
from triggerflow.store.sqlite.incoming import Arrivals
from triggerflow.store.sqlite.redispatches import again

if TYPE_CHECKING:
    import sqlite3

    from triggerflow.store.records import FiringRecord


def advance(
    db: sqlite3.Connection, worker: int, items: Sequence[tuple[int, Any]], outcomes: list[Any]
) -> None:
    """Decide and write advances; see `operations.Advance`."""
    generation = registry.generation(db)
    for index, op in items:
        outcomes[index] = _advance(db, worker, op, generation)


def _advance(db: sqlite3.Connection, worker: int, op: Advance, generation: int) -> Outcome:
    row = db.execute(
        "SELECT b.trigger_spec, b.last, b.state, b.cursor, w.id FROM backfill b"
        " LEFT JOIN worker w ON w.id = b.owner WHERE b.id = ?",
        (op.backfill,),
    ).fetchone()
    if row is None:
        return Outcome(Verdict.GONE)
    spec, last, state, cursor, owner = row
    if state != "running" or cursor != op.cursor or owner not in (None, worker):
        return Outcome(Verdict.CONFLICT, detail=state)
    if op.registry != generation:
        return Outcome(Verdict.STALE)
    rows = Arrivals(db)
    counts = Counter(known=op.known)

    def count(record: FiringRecord | None) -> None:
        fired = record is not None and record.outcome in DOES | JOINED
        counts["fired" if fired else "unstarted"] += 1

    for seq, planned in op.firings:
        if spec is None or has_fired(db, seq, spec):
            counts["known"] += 1
            continue
        met = Met(
            seq, *db.execute("SELECT cid, depth FROM activity WHERE seq = ?", (seq,)).fetchone()
        )
        count(rows.fire(met, planned, generation, op.at, source="backfill"))
    for each in op.again:
        found = again(db, rows, each)
        if found is None:
            counts["known"] += 1
            continue
        count(found)
    rows.write()
    done = op.done or op.to >= last
    db.execute(
        "UPDATE backfill SET cursor = ?, looked = looked + ?, fired = fired + ?,"
        " unstarted = unstarted + ?, known = known + ?, removed = removed + ?, owner = ?,"
        " moved = ?, state = ?, ended = ? WHERE id = ?",
        (
            op.to,
            op.looked,
            counts["fired"],
            counts["unstarted"],
            counts["known"],
            op.removed,
            None if done else worker,
            op.at,
            "done" if done else "running",
            op.at if done else None,
            op.backfill,
        ),
    )
    outcomes = [Outcome(Verdict.APPLIED)]
    rows.tell(0, outcomes)
    return outcomes[0]
