"""Writing what comes in: activities with their firings and instances, starts, dispatches."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import attrs

from triggerflow.errors import InternalError
from triggerflow.store.newcomer import NewInstance
from triggerflow.store.operations import Append, Dispatch, Outcome, PlannedFiring, Verdict
from triggerflow.store.records import Claimed, FiringRecord
from triggerflow.store.sqlite import registry
from triggerflow.store.sqlite.fired import firings_of
from triggerflow.store.sqlite.firing import Keys, decide, deliver, holder, remember

if TYPE_CHECKING:
    import sqlite3

    from triggerflow.store.firings import Letter
    from triggerflow.store.records import NewTrigger

Items = Sequence[tuple[int, Any]]
Outcomes = list[Any]


def next_number(db: sqlite3.Connection, table: str) -> int:
    """The next number of an AUTOINCREMENT table; this transaction is its only writer."""
    row = db.execute("SELECT seq FROM sqlite_sequence WHERE name = ?", (table,)).fetchone()
    return 1 if row is None else row[0] + 1


class Arrivals:
    """Rows gathered for one transaction and then written together."""

    def __init__(self, db: sqlite3.Connection, worker: int | None = None) -> None:
        self.db = db
        self.worker = worker
        self.activities: list[tuple[Any, ...]] = []
        self.firings: list[tuple[Any, ...]] = []
        self.outbox: list[tuple[Any, ...]] = []
        self.instances: list[tuple[Any, ...]] = []
        self.generations: list[tuple[Any, ...]] = []
        self._triggers: dict[str, tuple[int, str]] | None = None
        self._keys: Keys = {}
        self._keyed: dict[str, int] = {}
        self._letters: list[tuple[int, Letter, float]] = []
        self._number = 0
        self._horizon: int | None = None

    @property
    def horizon(self) -> int:
        """The newest activity before this batch's own."""
        if self._horizon is None:
            self._horizon = next_number(self.db, "activity") - 1
        return self._horizon

    def trigger(self, cid: str) -> tuple[int, str]:
        """Number and name of a trigger."""
        if self._triggers is None:
            rows = self.db.execute("SELECT cid, id, name FROM trigger_spec")
            self._triggers = {each: (number, name) for each, number, name in rows}
        found = self._triggers.get(cid)
        if found is None:
            raise InternalError(f"a firing was planned for the unknown trigger {cid}")
        return found

    def instance(
        self,
        new: NewInstance,
        activity: int | None,
        trigger: int | None,
        owned: list[Claimed] | None = None,
        kin: tuple[int, str, bool, bool] | None = None,
    ) -> int:
        """Gather a new instance; `kin` is its parent's number and tag, awaited, abandoned."""
        if not self._number:
            self._number = next_number(self.db, "instance")
        number = self._number
        self._number += 1
        mine = owned is not None and self.worker is not None and new.status == "running"
        origin = self.horizon if activity is None else activity
        parent, tag, awaited, abandoned = kin or (None, None, False, False)
        self.instances.append(
            (
                number,
                new.id,
                new.namespace,
                new.flow,
                new.version,
                new.status,
                self.worker if mine else None,
                new.cause,
                new.reason,
                new.key,
                new.correlation_id,
                activity,
                trigger,
                new.created,
                parent,
                tag,
                awaited,
                abandoned,
                new.depth,
                new.chain,
                origin,
            )
        )
        self.generations.append((number, new.seed, new.input, new.digest))
        if mine and owned is not None:
            owned.append(_claimed(number, new, origin))
        return number

    def fire(
        self,
        met: Met,
        planned: PlannedFiring,
        generation: int,
        at: float,
        owned: list[Claimed] | None = None,
    ) -> FiringRecord | None:
        """Decide and gather a firing, and what it starts or sends; None if it is put off."""
        trigger, name = self.trigger(planned.trigger_cid)
        if planned.outcome == "deferred":
            self.outbox.append((met.seq, trigger, generation, at))
            return None
        found = decide(self.db, planned, self._keys, self._keyed, at)
        new = planned.instance
        if found.outcome == "started" and new is not None:
            new.chain = met.depth
            number = self.instance(new, met.seq, trigger, owned)
            if new.key is not None:
                self._keys[new.namespace, new.flow, new.key] = new
                self._keyed[new.id] = number
        elif found.number is not None and planned.letter is not None:
            self._letters.append((found.number, planned.letter, at))
            met.addressed.append(found.number)
        if planned.once is not None and found.outcome == planned.outcome and not found.error:
            remember(self.db, planned.once, met.seq, found, at)
        self.firings.append(
            (
                met.seq,
                trigger,
                found.instance,
                found.outcome,
                found.error,
                generation,
                at,
                found.earlier,
            )
        )
        earlier = None if found.earlier is None else self._cid(found.earlier)
        return FiringRecord(
            name,
            planned.trigger_cid,
            found.instance,
            found.error,
            found.outcome,
            at,
            generation,
            met.cid,
            earlier,
        )

    def _cid(self, seq: int) -> str:
        # This batch's own are numbered one after the other.
        at = seq - self.activities[0][0] if self.activities else -1
        if at >= 0:
            return str(self.activities[at][1])
        (cid,) = self.db.execute("SELECT cid FROM activity WHERE seq = ?", (seq,)).fetchone()
        return str(cid)

    def write(self) -> dict[int, int | None]:
        """Insert all of it; number -> owner of the instances that got a message."""
        db = self.db
        if self.activities:
            db.executemany(
                "INSERT INTO activity (seq, cid, types, actors, document, received, namespace,"
                " source, received_digest) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
                self.activities,
            )
        if self.firings:
            db.executemany(
                "INSERT INTO firing (activity, trigger_spec, instance, outcome, error,"
                " registry, at, earlier) VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                self.firings,
            )
        if self.outbox:
            db.executemany(
                "INSERT INTO outbox (activity, trigger_spec, registry, created)"
                " VALUES (?, ?, ?, ?)",
                self.outbox,
            )
        if self.instances:
            db.executemany(
                "INSERT INTO instance (id, public_id, namespace, flow, version, status, owner,"
                " cause, reason, key, correlation_id, activity, trigger_spec, created,"
                " parent, parent_tag, awaited, abandoned, depth, chain, origin)"
                " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                self.instances,
            )
            db.executemany(
                "INSERT INTO generation (instance, generation, seed, input, digest)"
                " VALUES (?, 1, ?, ?, ?)",
                self.generations,
            )
        # Now that the newcomers have their rows: a letter may be for one of them.
        return deliver(db, self._letters) if self._letters else {}


@attrs.define(slots=True)
class Met:
    """The activity of some firings: `addressed` are the instances that they send something."""

    seq: int
    cid: str
    depth: int = 0
    addressed: list[int] = attrs.field(factory=list)

    def told(self, owners: dict[int, int | None]) -> tuple[tuple[int, int | None], ...]:
        """Whom its firings told, with their owners."""
        return tuple((each, owners[each]) for each in self.addressed if each in owners)


def _claimed(number: int, new: NewInstance, origin: int) -> Claimed:
    """A new instance as its owner gets it."""
    return Claimed(
        number=number,
        id=new.id,
        flow=new.flow,
        version=new.version or 0,
        generation=1,
        log_length=0,
        pending=None,
        crashes=0,
        cancelled=False,
        input=new.input,
        seed=new.seed,
        started=None,
        log=(),
        inbox=(),
        namespace=new.namespace,
        correlation_id=new.correlation_id,
        depth=new.depth,
        chain=new.chain,
        origin=origin,
    )


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
    owners = rows.write()
    for index, met, fired, owned in fresh:
        outcomes[index] = Outcome(
            Verdict.APPLIED,
            seq=met.seq,
            firings=fired,
            claimed=tuple(owned),
            told=met.told(owners),
        )
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
        if met is None:
            outcomes[index] = Outcome(Verdict.GONE)
        else:
            done.append((index, met))
    owners = rows.write()
    for index, met in done:
        outcomes[index] = Outcome(Verdict.APPLIED, seq=met.seq, told=met.told(owners))


def _dispatch(db: sqlite3.Connection, op: Dispatch, rows: Arrivals) -> Met | None:
    if not db.execute("SELECT 1 FROM outbox WHERE id = ?", (op.outbox,)).fetchone():
        return None
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
