"""Writing what comes in: activities with their firings and instances, starts, dispatches."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

from triggerflow.errors import InternalError
from triggerflow.store.newcomer import NewInstance
from triggerflow.store.operations import Dispatch, Outcome, PlannedFiring, Verdict
from triggerflow.store.records import Claimed, FiringRecord
from triggerflow.store.sqlite import admission, kin, places, registry
from triggerflow.store.sqlite.reads import firings_of

if TYPE_CHECKING:
    import sqlite3

    from triggerflow.core.admission_request import Admission

Items = Sequence[tuple[int, Any]]
Outcomes = list[Any]


# How an instance begins of which nothing is asked.
_ADMITTED: Final = admission.Standing()


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
        self.told = kin.Told()
        self._triggers: dict[str, tuple[int, str]] | None = None
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
        generation: int = 0,
    ) -> int:
        """Gather a new instance.

        Args:
            owned: gets it where the worker owns it from the start.
            kin: its parent's number and tag, awaited, abandoned.
            generation: that of the triggers, of which the newest know the limits best.
        """
        if not self._number:
            self._number = next_number(self.db, "instance")
        number = self._number
        self._number += 1
        standing = _ADMITTED
        if new.admission is not None:
            standing = admission.enter(
                self.db,
                number,
                new,
                new.admission,
                activity=activity,
                now=new.created,
                registry=generation,
                told=self.told,
            )
        status = "waiting" if standing.held else new.status
        mine = owned is not None and self.worker is not None and status == "running"
        origin = self.horizon if activity is None else activity
        parent, tag, awaited, abandoned = kin or (None, None, False, False)
        self.instances.append(
            (
                number,
                new.id,
                new.namespace,
                new.flow,
                new.version,
                status,
                self.worker if mine else None,
                None if standing.held else new.cause,
                None if standing.held else new.reason,
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
        input = new.input if standing.input is None else standing.input
        self.generations.append((number, new.seed, input, new.digest))
        if new.admission is not None:
            # At once, for those that come after it in this batch.
            self.write_instances()
            self.db.execute(
                "UPDATE instance SET priority = ?, held = ?, due = ? WHERE id = ?",
                (new.admission.priority, standing.held, standing.due, number),
            )
        if mine and owned is not None:
            owned.append(_claimed(number, new, origin, input))
        return number

    def fire(
        self,
        seq: int,
        planned: PlannedFiring,
        generation: int,
        at: float,
        owned: list[Claimed] | None = None,
        chain: int = 0,
    ) -> FiringRecord | None:
        """Gather a firing, and what it starts; None where its dispatch is left to others."""
        trigger, name = self.trigger(planned.trigger_cid)
        if planned.outcome == "deferred":
            self.outbox.append((seq, trigger, generation, at))
            return None
        new = planned.instance
        outcome, started, error = planned.outcome, None, planned.error
        if new is not None:
            new.chain = chain
            asked = new.admission
            verdict = None if asked is None else self._judge(new, asked, seq)
            if verdict is None:
                started = new.id
                self.instance(new, seq, trigger, owned, generation=generation)
            else:
                outcome, started, error = verdict.outcome, verdict.instance, verdict.reason
        self.firings.append((seq, trigger, started, outcome, error, generation, at))
        return FiringRecord(name, planned.trigger_cid, started, error, outcome, at, generation)

    def _judge(self, new: NewInstance, asked: Admission, seq: int) -> admission.Verdict | None:
        """What keeps an arrival from starting an instance of its own."""
        admitted: places.Admitted = {}
        verdict = admission.judge(
            self.db, new, asked, activity=seq, now=new.created, admitted=admitted
        )
        self.told.woken(admitted)
        return verdict

    def tell(self, index: int, outcomes: Outcomes) -> None:
        """One outcome passes on what all of them have told."""
        if self.told:
            found = outcomes[index]
            found.told += tuple(self.told.owners)
            found.ended += tuple(self.told.ended)

    def write(self) -> None:
        """Insert all of it."""
        db = self.db
        if self.activities:
            db.executemany(
                "INSERT INTO activity (seq, cid, types, actors, document, received, cause,"
                " depth) VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                self.activities,
            )
        if self.firings:
            db.executemany(
                "INSERT INTO firing (activity, trigger_spec, instance, outcome, error,"
                " registry, at) VALUES (?, ?, ?, ?, ?, ?, ?)",
                self.firings,
            )
        if self.outbox:
            db.executemany(
                "INSERT INTO outbox (activity, trigger_spec, registry, created)"
                " VALUES (?, ?, ?, ?)",
                self.outbox,
            )
        self.write_instances()

    def write_instances(self) -> None:
        """Insert the new instances that were gathered so far."""
        db = self.db
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
            self.instances.clear()
            self.generations.clear()


def _claimed(number: int, new: NewInstance, origin: int, input: bytes) -> Claimed:
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
        input=input,
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
    known = dict(
        db.execute(
            "SELECT cid, seq FROM activity WHERE cid IN (SELECT value FROM json_each(?))",
            (cids,),
        )
    )
    rows = Arrivals(db, worker)
    seq = next_number(db, "activity")
    duplicates: list[tuple[int, str, int]] = []
    fresh: list[tuple[int, int, tuple[FiringRecord, ...] | None, list[Claimed]]] = []
    for index, op in items:
        found = known.get(op.cid)
        if found is not None:
            duplicates.append((index, op.cid, found))
        elif op.registry != generation and op.firings is not None:
            outcomes[index] = Outcome(Verdict.STALE)
        else:
            known[op.cid] = seq
            owned: list[Claimed] = []
            fired: tuple[FiringRecord, ...] | None = None
            rows.activities.append(
                (seq, op.cid, op.types, op.actors, op.document, op.received, None, 0)
            )
            if op.firings is None:
                rows.outbox.append((seq, None, generation, op.received))
            else:
                mine = owned if op.own else None
                records = [
                    rows.fire(seq, planned, generation, op.received, mine)
                    for planned in op.firings
                ]
                fired = tuple(each for each in records if each is not None)
            fresh.append((index, seq, fired, owned))
            seq += 1
    rows.write()
    for index, number, fired, owned in fresh:
        outcomes[index] = Outcome(
            Verdict.APPLIED, seq=number, firings=fired, claimed=tuple(owned)
        )
    if fresh:
        rows.tell(fresh[0][0], outcomes)
    for index, cid, number in duplicates:
        deferred = db.execute(
            "SELECT 1 FROM outbox WHERE activity = ? AND trigger_spec IS NULL", (number,)
        ).fetchone()
        firings = None if deferred else tuple(firings_of(db, cid))
        outcomes[index] = Outcome(Verdict.DUPLICATE, seq=number, firings=firings)


def dispatch(db: sqlite3.Connection, items: Items, outcomes: Outcomes) -> None:
    """Decide and write deferred dispatches; see `operations.Dispatch`."""
    rows = Arrivals(db)
    for index, op in items:
        outcomes[index] = _dispatch(db, op, rows)
    rows.write()
    rows.tell(items[0][0], outcomes)


def _dispatch(db: sqlite3.Connection, op: Dispatch, rows: Arrivals) -> Outcome:
    if not db.execute("SELECT 1 FROM outbox WHERE id = ?", (op.outbox,)).fetchone():
        return Outcome(Verdict.GONE)
    db.execute("DELETE FROM outbox WHERE id = ?", (op.outbox,))
    fired = {
        number
        for (number,) in db.execute(
            "SELECT trigger_spec FROM firing WHERE activity = ?", (op.seq,)
        )
    }
    (chain,) = db.execute("SELECT depth FROM activity WHERE seq = ?", (op.seq,)).fetchone()
    for planned in op.firings:
        if rows.trigger(planned.trigger_cid)[0] not in fired:
            rows.fire(op.seq, planned, op.registry, op.received, chain=chain)
    return Outcome(Verdict.APPLIED, seq=op.seq)


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


def holder(
    db: sqlite3.Connection, new: NewInstance, keys: dict[tuple[str, str, str], NewInstance]
) -> tuple[str, bool] | None:
    """Who holds the key of a new instance, and whether with the same input; None if nobody.

    Args:
        keys: what this batch has given out already.
    """
    name = (new.namespace, new.flow, new.key or "")
    earlier = keys.get(name)
    if earlier is not None:
        return earlier.id, _alike(new, earlier.input, earlier.digest)
    row = db.execute(
        "SELECT i.public_id, g.input, g.digest FROM instance i"
        " JOIN generation g ON g.instance = i.id AND g.generation = 1"
        " WHERE i.namespace = ? AND i.flow = ? AND i.key = ?"
        " AND i.status IN ('running', 'waiting', 'blocked')",
        name,
    ).fetchone()
    return None if row is None else (row[0], _alike(new, row[1], row[2]))


def _alike(new: NewInstance, input: bytes, digest: bytes | None) -> bool:
    """Whether two inputs are the same; their bytes may differ in the order of dict keys."""
    if new.digest is not None and digest is not None:
        return new.digest == digest
    return new.input == input
