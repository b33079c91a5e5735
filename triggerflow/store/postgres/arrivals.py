"""Writing what comes in: activities with their firings and instances, starts, dispatches."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from triggerflow.errors import InternalError
from triggerflow.store.operations import Append, Dispatch, Outcome, PlannedFiring, Verdict
from triggerflow.store.postgres.columns import Ints, columns
from triggerflow.store.postgres.reads import firings_of
from triggerflow.store.postgres.standing import Holder, Items, Stand, Standing
from triggerflow.store.records import Claimed, FiringRecord

if TYPE_CHECKING:
    from triggerflow.store.newcomer import NewInstance
    from triggerflow.store.postgres.activities import Activities

Outcomes = list[Any]
# CID -> (number, name): a trigger's row never changes in these.
Triggers = dict[str, tuple[int, str]]


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
            for each, number, name in self.s.db.execute(
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
        ask = self.s.db.execute
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
        s.db.execute("DELETE FROM outbox WHERE id = ANY(%s)", Ints(done))
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
