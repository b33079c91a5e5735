"""Writing what comes in: activities with their firings and instances, starts, dispatches."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import attrs

from triggerflow.store.decided import Met
from triggerflow.store.newcomer import NewInstance
from triggerflow.store.operations import Append, Dispatch, Outcome, Verdict
from triggerflow.store.records import Claimed, FiringRecord
from triggerflow.store.sqlite import registry
from triggerflow.store.sqlite.fired import firings_of
from triggerflow.store.sqlite.firing import (
    holder,
)
from triggerflow.store.sqlite.incoming import Arrivals, next_number

if TYPE_CHECKING:
    import sqlite3

    from triggerflow.store.records import NewTrigger

Items = Sequence[tuple[int, Any]]
Outcomes = list[Any]


def append(
    db: sqlite3.Connection, worker: int | None, items: Items, outcomes: Outcomes
) -> None:
    """Decide and write appends; see `operations.Append`."""
    generation = registry.generation(db)
    cids = json.dumps([op.cid for _, op in items])
    known = {
        (cid, namespace): number
        for cid, namespace, number in db.execute(
            "SELECT cid, namespace, seq FROM activity"
            " WHERE cid IN (SELECT value FROM json_each(?))",
            (cids,),
        )
    }
    rows = Arrivals(db, worker)
    seq = next_number(db, "activity")
    duplicates: list[tuple[int, Append, int]] = []
    fresh: list[tuple[int, Met, tuple[FiringRecord, ...] | None, list[Claimed]]] = []
    for index, op in items:
        found = known.get((op.cid, op.namespace))
        if found is not None:
            duplicates.append((index, op, found))
        elif op.registry != generation and op.firings is not None:
            outcomes[index] = Outcome(Verdict.STALE)
        else:
            known[op.cid, op.namespace] = seq
            owned: list[Claimed] = []
            met = Met(seq, op.cid)
            fired: tuple[FiringRecord, ...] | None = None
            rows.activities.append(
                (
                    seq,
                    op.cid,
                    op.types,
                    op.actors,
                    op.document,
                    op.received,
                    op.namespace,
                    op.source,
                    op.digest,
                )
            )
            fired = None
            if op.firings is None:
                rows.outbox.append((seq, None, generation, op.received))
            else:
                mine = owned if op.own else None
                each = (
                    rows.fire(met, one, generation, op.received, mine) for one in op.firings
                )
                fired = tuple(record for record in each if record is not None)
            fresh.append((index, met, fired, owned))
            seq += 1
    rows.write()
    for index, met, fired, owned in fresh:
        outcomes[index] = Outcome(
            Verdict.APPLIED,
            seq=met.seq,
            firings=fired,
            claimed=tuple(owned),
        )
    if fresh:
        rows.tell(fresh[0][0], outcomes)
    for index, op, number in duplicates:
        deferred = db.execute(
            "SELECT 1 FROM outbox WHERE activity = ? AND trigger_spec IS NULL", (number,)
        ).fetchone()
        firings = None if deferred else tuple(firings_of(db, op.cid, op.namespace))
        outcomes[index] = Outcome(Verdict.DUPLICATE, seq=number, firings=firings)


def rehearse(db: sqlite3.Connection, op: Append, proposed: Sequence[NewTrigger]) -> Outcome:
    """Decide and write an append in a transaction that is taken back; see `Store.rehearse`."""
    if op.registry != registry.generation(db):
        return Outcome(Verdict.STALE)
    op = attrs.evolve(op, registry=registry.sync(db, proposed, op.received))
    outcomes: Outcomes = [None]
    append(db, None, [(0, op)], outcomes)
    found: Outcome = outcomes[0]
    return found


def dispatch(db: sqlite3.Connection, items: Items, outcomes: Outcomes) -> None:
    """Decide and write deferred dispatches; see `operations.Dispatch`."""
    rows = Arrivals(db)
    done: list[tuple[int, Met]] = []
    for index, op in items:
        met = _dispatch(db, op, rows)
        if isinstance(met, Met):
            done.append((index, met))
        else:
            outcomes[index] = Outcome(met)
    rows.write()
    for index, met in done:
        outcomes[index] = Outcome(Verdict.APPLIED, seq=met.seq)
    if done:
        rows.tell(done[0][0], outcomes)


def _dispatch(db: sqlite3.Connection, op: Dispatch, rows: Arrivals) -> Met | Verdict:
    if not db.execute("SELECT 1 FROM outbox WHERE id = ?", (op.outbox,)).fetchone():
        return Verdict.GONE
    if op.current is not None and op.current != registry.generation(db):
        return Verdict.STALE
    db.execute("DELETE FROM outbox WHERE id = ?", (op.outbox,))
    fired = {
        number
        for (number,) in db.execute(
            "SELECT trigger_spec FROM firing WHERE activity = ?", (op.seq,)
        )
    }
    met = Met(
        op.seq,
        *db.execute("SELECT cid, depth FROM activity WHERE seq = ?", (op.seq,)).fetchone(),
    )
    for planned in op.firings:
        if rows.trigger(planned.trigger_cid)[0] not in fired:
            rows.fire(met, planned, op.registry, op.received)
    return met


def start(db: sqlite3.Connection, worker: int | None, items: Items, outcomes: Outcomes) -> None:
    """Decide and write starts; see `operations.Start`."""
    rows = Arrivals(db, worker)
    keys: dict[tuple[str, str, str], NewInstance] = {}
    for index, op in items:
        new = op.instance
        if new.key is not None:
            rival = holder(db, new, keys)
            if rival is not None:
                who, same = rival
                outcomes[index] = Outcome(
                    Verdict.DUPLICATE if same else Verdict.CONFLICT, instance=who
                )
                continue
            keys[(new.namespace, new.flow, new.key)] = new
        owned: list[Claimed] | None = [] if op.own else None
        number = rows.instance(new, None, None, owned)
        outcomes[index] = Outcome(
            Verdict.APPLIED, instance=new.id, number=number, claimed=tuple(owned or ())
        )
    rows.write()
    rows.tell(items[0][0], outcomes)
