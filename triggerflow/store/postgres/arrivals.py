"""Writing what comes in: activities with their firings and instances, starts, dispatches."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import attrs

from triggerflow.errors import InternalError
from triggerflow.store.acts import EmitActivity
from triggerflow.store.operations import Append, Dispatch, Outcome, PlannedFiring, Turn, Verdict
from triggerflow.store.postgres.columns import Ints, Texts, columns
from triggerflow.store.postgres.reads import firings_of
from triggerflow.store.postgres.standing import Holder, Items, Stand, Standing
from triggerflow.store.records import Claimed, FiringRecord

if TYPE_CHECKING:
    from triggerflow.store.newcomer import NewInstance
    from triggerflow.store.postgres.connection import Answer, Db

Outcomes = list[Any]
# CID -> (number, name): a trigger's row never changes in these.
Triggers = dict[str, tuple[int, str]]

_PUBLISH: Final = (
    "SELECT pg_advisory_xact_lock_shared((%s::bigint << 40)"
    " | CASE WHEN is_called THEN last_value ELSE 0 END) FROM activity_seq"
)
# Numbers in the batch's order, rows in the order of CIDs: two batches wait for each other in
# one direction only. A number is given out after it was published which one came before.
_INSERT: Final = (
    "INSERT INTO activity (seq, cid, types, actors, document, received, cause, depth)"
    " SELECT n.seq, n.cid, n.types, n.actors, n.document, n.received, n.cause, n.depth"
    " FROM (SELECT nextval('activity_seq') AS seq, u.* FROM unnest(%s, %s, %s, %s, %s, %s, %s,"
    " %s) AS u (cid, types, actors, document, received, cause, depth, registry)"
    " WHERE u.registry IS NULL OR u.registry ="
    " (SELECT value FROM meta WHERE name = 'registry')) n"
    " ORDER BY n.cid ON CONFLICT (cid) DO NOTHING RETURNING seq"
)
_KNOWN: Final = (
    "SELECT a.cid, a.seq, EXISTS (SELECT 1 FROM outbox o WHERE o.activity = a.seq"
    " AND o.trigger_spec IS NULL) FROM activity a WHERE a.cid = ANY(%s)"
)


@attrs.define(slots=True)
class Cid:
    """An activity that this batch is about.

    Attributes:
        fresh: this batch inserted it, and nothing of the batch has said yet that it is its.
        deferred: it waits for its dispatch.
    """

    seq: int
    fresh: bool
    deferred: bool


class Activities:
    """The activities of a batch: inserted before anything else is locked.

    Those that turns emit are inserted here too, though it isn't decided yet which turns win;
    what nobody claims in the end is taken back.
    """

    def __init__(self, db: Db, turns: list[Any], appends: list[Any], lock_class: int) -> None:
        self.db = db
        self.found: dict[str, Cid] = {}
        self.registry = 0
        self.horizon = 0
        rows: dict[str, tuple[Any, ...]] = {}
        for op in turns:
            for act in op.acts if isinstance(op, Turn) else ():
                if isinstance(act, EmitActivity) and act.cid not in rows:
                    rows[act.cid] = _row(act, op.number, act.depth, None)
        for op in appends:
            if op.cid not in rows:
                needed = None if op.firings is None else op.registry
                rows[op.cid] = _row(op, None, 0, needed)
        self._lock_class = lock_class
        self._rows = list(rows.values())
        self._asked: list[Answer] = []

    def insert(self) -> None:
        """Send it off."""
        ask = self.db.ask
        if self._rows:
            ask(_PUBLISH, self._lock_class)
            self._asked = [
                ask(_INSERT, *columns("tttbfiii", self._rows)),
                ask(_KNOWN, Texts([row[0] for row in self._rows])),
                ask("SELECT value FROM meta WHERE name = 'registry'"),
            ]

    def take(self) -> None:
        """Take what came of it."""
        if self._asked:
            fresh, known, registry = self._asked
            inserted = set(fresh.firsts())
            self.found = {
                cid: Cid(seq, seq in inserted, deferred) for cid, seq, deferred in known.rows()
            }
            self.registry = registry.one()

    def claim(self, cid: str) -> int | None:
        """The number of an activity if it is new, from now on it isn't; else None."""
        found = self.found.get(cid)
        if found is None or not found.fresh:
            return None
        found.fresh = False
        return found.seq

    def take_back(self) -> None:
        """Remove those that only a turn wanted which lost."""
        left = [found.seq for found in self.found.values() if found.fresh]
        if left:
            self.db.ask("DELETE FROM activity WHERE seq = ANY(%s)", Ints(left))


def _row(
    of: Append | EmitActivity, cause: int | None, depth: int, registry: int | None
) -> tuple[Any, ...]:
    return (of.cid, of.types, of.actors, of.document, of.received, cause, depth, registry)


class Arrivals:
    """Rows gathered for one transaction and then written together.

    Args:
        horizon: the newest activity that is settled: hand-started instances wait for later
            ones.
    """

    def __init__(self, s: Standing, triggers: Triggers, horizon: int = 0) -> None:
        self.s = s
        self.horizon = horizon
        self.firings: list[tuple[Any, ...]] = []
        self.outbox: list[tuple[Any, ...]] = []
        self.instances: list[tuple[Any, ...]] = []
        self.generations: list[tuple[Any, ...]] = []
        self._triggers = triggers

    def trigger(self, cid: str) -> tuple[int, str]:
        """Number and name of a trigger."""
        found = self._triggers.get(cid)
        if found is None:
            for each, number, name in self.s.db.ask(
                "SELECT cid, id, name FROM trigger_spec"
            ).rows():
                self._triggers[each] = (number, name)
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
        number = self.s.next_number()
        mine = owned is not None and self.s.worker is not None and new.status == "running"
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
                self.s.worker if mine else None,
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
        if not mine:
            self.s.loud = True
        elif owned is not None:
            owned.append(_claimed(number, new, origin))
        self.s.bear(
            Stand(
                number,
                new.id,
                new.status,
                self.s.worker if mine else None,
                1,
                0,
                cancelled=False,
                parent=parent,
                awaited=awaited,
                abandoned=abandoned,
                value=None,
            )
        )
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
            self.defer(seq, trigger, generation, at)
            return
        started = None
        if planned.instance is not None:
            started = planned.instance.id
            planned.instance.chain = chain
            self.instance(planned.instance, seq, trigger, owned)
        self.firings.append(
            (seq, trigger, started, planned.outcome, planned.error, generation, at)
        )

    def defer(self, seq: int, trigger: int | None, generation: int, at: float) -> None:
        """Gather a dispatch that is put off."""
        self.outbox.append((seq, trigger, generation, at))
        self.s.loud = True

    def write(self) -> None:
        """Insert all of it."""
        ask = self.s.db.ask
        if self.firings:
            ask(
                "INSERT INTO firing (activity, trigger_spec, instance, outcome, error,"
                " registry, at) SELECT * FROM unnest(%s, %s, %s, %s, %s, %s, %s)",
                *columns("iitttif", self.firings),
            )
        if self.outbox:
            ask(
                "INSERT INTO outbox (activity, trigger_spec, registry, created)"
                " SELECT * FROM unnest(%s, %s, %s, %s)",
                *columns("iiif", self.outbox),
            )
        if self.instances:
            # Keys in one order: two batches that claim two of them don't deadlock.
            rows = sorted(self.instances, key=lambda row: (row[9] or "", row[3], row[2]))
            ask(
                "INSERT INTO instance (id, public_id, namespace, flow, version, status, owner,"
                " cause, reason, key, correlation_id, activity, trigger_spec, created,"
                " parent, parent_tag, awaited, abandoned, depth, chain, origin)"
                " SELECT * FROM unnest(%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s,"
                " %s, %s, %s, %s, %s, %s, %s)",
                *columns(_INSTANCE, rows),
            )
            ask(
                "INSERT INTO generation (instance, generation, seed, input, digest)"
                " SELECT u.i, 1, u.s, u.v, u.d FROM unnest(%s, %s, %s, %s) AS u (i, s, v, d)",
                *columns("ibbb", self.generations),
            )


_INSTANCE: Final = "itttit" + "i" + "tttt" + "ii" + "f" + "it" + "oo" + "iii"


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
    s: Standing,
    activities: Activities,
    triggers: Triggers,
    items: Items,
    outcomes: Outcomes,
) -> None:
    """Decide and write appends; see `operations.Append`."""
    rows = Arrivals(s, triggers)
    duplicates: list[tuple[int, str]] = []
    for index, op in items:
        seq = activities.claim(op.cid)
        if seq is None:
            if op.cid in activities.found:
                duplicates.append((index, op.cid))
            else:
                outcomes[index] = Outcome(Verdict.STALE)
            continue
        owned: list[Claimed] = []
        if op.firings is None:
            activities.found[op.cid].deferred = True
            rows.defer(seq, None, activities.registry, op.received)
        else:
            for planned in op.firings:
                rows.fire(
                    seq, planned, activities.registry, op.received, owned if op.own else None
                )
        s.loud = True
        outcomes[index] = Outcome(
            Verdict.APPLIED, seq=seq, firings=_written(rows, op), claimed=tuple(owned)
        )
    rows.write()
    if duplicates:
        found = firings_of(s.db, [cid for _, cid in duplicates])
        for index, cid in duplicates:
            known = activities.found[cid]
            firings = None if known.deferred else tuple(found.get(cid, ()))
            outcomes[index] = Outcome(Verdict.DUPLICATE, seq=known.seq, firings=firings)


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


def dispatch(s: Standing, triggers: Triggers, items: Items, outcomes: Outcomes) -> None:
    """Decide and write deferred dispatches; see `operations.Dispatch`."""
    rows = Arrivals(s, triggers)
    done: list[int] = []
    for index, op in items:
        outcomes[index] = _dispatch(s, op, rows, done)
    if done:
        s.loud = True
        s.db.ask("DELETE FROM outbox WHERE id = ANY(%s)", Ints(done))
    rows.write()


def _dispatch(s: Standing, op: Dispatch, rows: Arrivals, done: list[int]) -> Outcome:
    found = s.outbox.pop(op.outbox, None)
    if found is None:
        return Outcome(Verdict.GONE)
    done.append(op.outbox)
    _, chain, fired = found
    for planned in op.firings:
        if rows.trigger(planned.trigger_cid)[0] not in fired:
            rows.fire(op.seq, planned, op.registry, op.received, chain=chain)
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
