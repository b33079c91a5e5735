"""Writing what comes in: activities with their firings and instances, starts, dispatches."""

from __future__ import annotations

from typing import TYPE_CHECKING

from triggerflow.store.decided import Met
from triggerflow.store.operations import Dispatch, Outcome, Verdict
from triggerflow.store.postgres import registry
from triggerflow.store.postgres.activities import Activities
from triggerflow.store.postgres.columns import Ints
from triggerflow.store.postgres.fired import firings_of
from triggerflow.store.postgres.incoming import Arrivals, Outcomes, Triggers
from triggerflow.store.postgres.standing import Holder, Items, Standing

if TYPE_CHECKING:
    from triggerflow.store.postgres.activities import Name
    from triggerflow.store.records import Claimed, FiringRecord


def append(
    s: Standing,
    activities: Activities,
    triggers: Triggers,
    items: Items,
    outcomes: Outcomes,
) -> None:
    """Decide and write appends; see `operations.Append`."""
    rows = Arrivals(s, triggers)
    duplicates: list[tuple[int, Name]] = []
    fresh: list[int] = []
    for index, op in items:
        name = (op.cid, op.namespace)
        seq = activities.claim(name)
        if seq is None:
            if name in activities.found:
                duplicates.append((index, name))
            else:
                outcomes[index] = Outcome(Verdict.STALE)
            continue
        owned: list[Claimed] = []
        fired: tuple[FiringRecord, ...] | None = None
        if op.firings is None:
            activities.found[name].deferred = True
            rows.defer(seq, None, activities.registry, op.received)
        else:
            met, mine = Met(seq, op.cid), owned if op.own else None
            each = [
                rows.fire(met, one, activities.registry, op.received, mine)
                for one in op.firings
            ]
            fired = tuple(record for record in each if record is not None)
        s.loud = True
        fresh.append(index)
        outcomes[index] = Outcome(Verdict.APPLIED, seq=seq, firings=fired, claimed=tuple(owned))
    rows.write()
    if fresh:
        rows.tell(fresh[0], outcomes)
    for index, name in duplicates:
        known = activities.found[name]
        firings = None if known.deferred else tuple(firings_of(s.db, *name))
        outcomes[index] = Outcome(Verdict.DUPLICATE, seq=known.seq, firings=firings)


def dispatch(s: Standing, triggers: Triggers, items: Items, outcomes: Outcomes) -> None:
    """Decide and write deferred dispatches; see `operations.Dispatch`."""
    rows = Arrivals(s, triggers)
    done: list[int] = []
    applied: list[int] = []
    for index, op in items:
        outcomes[index] = _dispatch(s, op, rows, done)
        if outcomes[index].verdict is Verdict.APPLIED:
            applied.append(index)
    if done:
        s.loud = True
        s.db.execute("DELETE FROM outbox WHERE id = ANY(%s)", Ints(done))
    rows.write()
    if applied:
        rows.tell(applied[0], outcomes)


def _dispatch(s: Standing, op: Dispatch, rows: Arrivals, done: list[int]) -> Outcome:
    found = s.outbox.get(op.outbox)
    if found is None:
        return Outcome(Verdict.GONE)
    if op.current is not None and op.current != registry.generation(s.db):
        return Outcome(Verdict.STALE)
    del s.outbox[op.outbox]
    done.append(op.outbox)
    cid, depth, fired = found
    met = Met(op.seq, cid, depth)
    for planned in op.firings:
        if rows.trigger(planned.trigger_cid)[0] not in fired:
            rows.fire(met, planned, op.registry, op.received)
    return Outcome(Verdict.APPLIED, seq=op.seq)


def start(
    s: Standing, triggers: Triggers, horizon: int, items: Items, outcomes: Outcomes
) -> None:
    """Decide and write starts; see `operations.Start`."""
    rows = Arrivals(s, triggers, horizon)
    for index, op in items:
        new = op.instance
        if new.key is not None:
            name = (new.namespace, new.flow, new.key)
            rival = s.keys.get(name)
            if rival is not None:
                verdict = Verdict.DUPLICATE if rival.same(new) else Verdict.CONFLICT
                outcomes[index] = Outcome(verdict, instance=rival.id)
                continue
            s.keys[name] = Holder(new.id, new.input, new.digest)
        owned: list[Claimed] | None = [] if op.own else None
        number = rows.instance(new, None, None, owned)
        outcomes[index] = Outcome(
            Verdict.APPLIED, instance=new.id, number=number, claimed=tuple(owned or ())
        )
    rows.write()
    rows.tell(items[0][0], outcomes)
