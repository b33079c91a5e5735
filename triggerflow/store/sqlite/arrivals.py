"""Writing what comes in: activities with their firings and instances, starts, dispatches."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from triggerflow.errors import InternalError
from triggerflow.store.newcomer import NewInstance, NewWait
from triggerflow.store.operations import Append, Dispatch, Outcome, PlannedFiring, Verdict
from triggerflow.store.records import Claimed, FiringRecord
from triggerflow.store.sqlite import registry, waits
from triggerflow.store.sqlite.reads import firings_of

if TYPE_CHECKING:
    import sqlite3

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
        self.cancels: list[tuple[int, int, tuple[NewWait, ...]]] = []
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
        if new.cancel_on:
            self.cancels.append((number, origin, new.cancel_on))
        if mine and owned is not None:
            owned.append(_claimed(number, new, origin))
        return number

    def fire(
        self,
        seq: int,
        planned: PlannedFiring,
        generation: int,
        at: float,
        owned: list[Claimed] | None = None,
        chain: int = 0,
    ) -> None:
        """Gather a firing, and what it starts."""
        trigger, _ = self.trigger(planned.trigger_cid)
        if planned.outcome == "deferred":
            self.outbox.append((seq, trigger, generation, at))
            return
        started = None
        if planned.instance is not None:
            started = planned.instance.id
            planned.instance.chain = chain
            self.instance(planned.instance, seq, trigger, owned)
        self.firings.append(
            (seq, trigger, started, planned.outcome, planned.error, generation, at)
        )

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
        for number, position, cancel_on in self.cancels:
            waits.arm_cancels(db, number, position, cancel_on)


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
    known = dict(
        db.execute(
            "SELECT cid, seq FROM activity WHERE cid IN (SELECT value FROM json_each(?))",
            (cids,),
        )
    )
    rows = Arrivals(db, worker)
    seq = next_number(db, "activity")
    duplicates: list[tuple[int, str, int]] = []
    fresh: list[tuple[int, Append, int, list[Claimed]]] = []
    for index, op in items:
        found = known.get(op.cid)
        if found is not None:
            duplicates.append((index, op.cid, found))
        elif op.registry != generation and op.firings is not None:
            outcomes[index] = Outcome(Verdict.STALE)
        else:
            known[op.cid] = seq
            owned: list[Claimed] = []
            fresh.append((index, op, seq, owned))
            rows.activities.append(
                (seq, op.cid, op.types, op.actors, op.document, op.received, None, 0)
            )
            if op.firings is None:
                rows.outbox.append((seq, None, generation, op.received))
            else:
                for planned in op.firings:
                    rows.fire(seq, planned, generation, op.received, owned if op.own else None)
            seq += 1
    rows.write()
    for index, op, number, owned in fresh:
        outcomes[index] = Outcome(
            Verdict.APPLIED,
            seq=number,
            firings=_written(rows, op),
            claimed=tuple(owned),
            opened=bool(rows.cancels),
        )
    for index, cid, number in duplicates:
        deferred = db.execute(
            "SELECT 1 FROM outbox WHERE activity = ? AND trigger_spec IS NULL", (number,)
        ).fetchone()
        firings = None if deferred else tuple(firings_of(db, cid))
        outcomes[index] = Outcome(Verdict.DUPLICATE, seq=number, firings=firings)


def _written(rows: Arrivals, op: Append) -> tuple[FiringRecord, ...] | None:
    if op.firings is None:
        return None
    return tuple(
        FiringRecord(
            rows.trigger(planned.trigger_cid)[1],
            planned.trigger_cid,
            None if planned.instance is None else planned.instance.id,
            planned.error,
            planned.outcome,
            op.received,
            op.registry,
        )
        for planned in op.firings
        if planned.outcome != "deferred"
    )


def dispatch(db: sqlite3.Connection, items: Items, outcomes: Outcomes) -> None:
    """Decide and write deferred dispatches; see `operations.Dispatch`."""
    rows = Arrivals(db)
    for index, op in items:
        outcomes[index] = _dispatch(db, op, rows)
    rows.write()
    if rows.cancels:
        outcomes[items[0][0]].opened = True


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
            Verdict.APPLIED,
            instance=new.id,
            number=number,
            claimed=tuple(owned or ()),
            opened=bool(new.cancel_on),
        )
    rows.write()


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
