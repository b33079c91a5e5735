"""Moving walks over history on: a page's firings and the cursor in one transaction."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

from triggerflow.store.decided import Met
from triggerflow.store.firings import DOES, JOINED
from triggerflow.store.operations import Advance, Outcome, Verdict
from triggerflow.store.postgres import registry
from triggerflow.store.postgres.backfills import has_fired
from triggerflow.store.postgres.incoming import Arrivals, Triggers
from triggerflow.store.postgres.redispatches import again

if TYPE_CHECKING:
    from triggerflow.store.postgres.standing import Items, Standing
    from triggerflow.store.records import FiringRecord


def advance(s: Standing, triggers: Triggers, items: Items, outcomes: list[Any]) -> None:
    """Decide and write advances; see `operations.Advance`."""
    generation = registry.generation(s.db)
    for index, op in items:
        outcomes[index] = _advance(s, triggers, op, generation)


def _advance(s: Standing, triggers: Triggers, op: Advance, generation: int) -> Outcome:
    db, worker = s.db, s.worker
    row = db.execute(
        "SELECT b.trigger_spec, b.last, b.state, b.cursor, w.id FROM backfill b"
        " LEFT JOIN worker w ON w.id = b.owner WHERE b.id = %s FOR UPDATE OF b",
        op.backfill,
    ).row()
    if row is None:
        return Outcome(Verdict.GONE)
    spec, last, state, cursor, owner = row
    if state != "running" or cursor != op.cursor or owner not in (None, worker):
        return Outcome(Verdict.CONFLICT, detail=state)
    if op.registry != generation:
        return Outcome(Verdict.STALE)
    rows = Arrivals(s, triggers)
    counts = Counter(known=op.known)

    def count(record: FiringRecord | None) -> None:
        fired = record is not None and record.outcome in DOES | JOINED
        counts["fired" if fired else "unstarted"] += 1

    for seq, planned in op.firings:
        if spec is None or has_fired(db, seq, spec):
            counts["known"] += 1
            continue
        about = db.execute("SELECT cid, depth FROM activity WHERE seq = %s", seq).rows()[0]
        met = Met(seq, *about)
        count(rows.fire(met, planned, generation, op.at, source="backfill"))
    for each in op.again:
        found = again(rows, each)
        if found is None:
            counts["known"] += 1
            continue
        count(found)
    rows.write()
    done = op.done or op.to >= last
    db.execute(
        "UPDATE backfill SET cursor = %s, looked = looked + %s, fired = fired + %s,"
        " unstarted = unstarted + %s, known = known + %s, removed = removed + %s, owner = %s,"
        " moved = %s, state = %s, ended = %s WHERE id = %s",
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
    )
    outcomes = [Outcome(Verdict.APPLIED)]
    rows.tell(0, outcomes)
    return outcomes[0]
