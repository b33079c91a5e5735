"""Rows of what comes in, gathered for one transaction and then written together."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from triggerflow.errors import InternalError
from triggerflow.store.decided import Decision, Met, has_fired, record_of, row_of
from triggerflow.store.holding import Beginning, Verdict
from triggerflow.store.newcomer import NewInstance
from triggerflow.store.operations import PlannedFiring
from triggerflow.store.postgres import admission, registry, waits
from triggerflow.store.postgres import firings as written
from triggerflow.store.postgres.columns import columns
from triggerflow.store.postgres.firing import decide, deliver, remember
from triggerflow.store.postgres.standing import Holder, Stand, Standing
from triggerflow.store.posts import Admitted, Told
from triggerflow.store.records import Claimed, FiringRecord

if TYPE_CHECKING:
    from triggerflow.core.admission_request import Admission
    from triggerflow.store.firings import Letter

Outcomes = list[Any]
# CID -> (number, name): a trigger's row never changes in these.
Triggers = dict[str, tuple[int, str]]

# Tags of waits that no effect of the flow stands behind; their generation is 0.
_CANCEL: Final = "cancel_on#{}"
# How an instance begins of which nothing is asked.
_ADMITTED: Final = Beginning()


class Arrivals:
    """Rows gathered for one transaction and then written together.

    Args:
        s: what the batch has found.
        triggers: those that are known by now; more are noted.
        horizon: the newest activity that is settled: hand-started instances wait for later
            ones.
    """

    def __init__(self, s: Standing, triggers: Triggers, horizon: int = 0) -> None:
        self.s = s
        self.horizon = horizon
        self.firings: list[tuple[Any, ...]] = []
        self.changed: list[tuple[Any, ...]] = []
        self.outbox: list[tuple[Any, ...]] = []
        self.instances: list[tuple[Any, ...]] = []
        self.generations: list[tuple[Any, ...]] = []
        self.waits: list[waits.Opened] = []
        self.opened = False
        self.told = Told()
        self._triggers = triggers
        self._generation: int | None = None
        self._letters: list[tuple[int, Letter, float]] = []

    @property
    def generation(self) -> int:
        """The registry generation."""
        if self._generation is None:
            self._generation = registry.generation(self.s.db)
        return self._generation

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
        generation: int | None = None,
    ) -> int:
        """Gather a new instance.

        Args:
            owned: gets it where the worker owns it from the start.
            kin: its parent's number and tag, awaited, abandoned.
            generation: that of the triggers, of which the newest know the limits best; the
                present one by default.
        """
        number = self.s.next_number()
        standing = _ADMITTED
        if new.admission is not None:
            standing = admission.enter(
                self.s,
                number,
                new,
                new.admission,
                activity=activity,
                now=new.created,
                registry=self.generation if generation is None else generation,
                told=self.told,
            )
        status = "waiting" if standing.held else new.status
        mine = owned is not None and self.s.worker is not None and status == "running"
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
                self.s.worker if mine else None,
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
                0 if new.admission is None else new.admission.priority,
                standing.held,
                standing.due,
            )
        )
        input = new.input if standing.input is None else standing.input
        self.generations.append((number, new.seed, input, new.digest))
        self.waits += [
            waits.Opened(
                number, 0, _CANCEL.format(at), "cancel", each.pattern, None, origin, each.pivots
            )
            for at, each in enumerate(new.cancel_on)
        ]
        if not mine:
            self.s.loud = True
        elif owned is not None:
            owned.append(new.claimed(number, origin, input))
        self.s.bear(
            Stand(
                number,
                new.id,
                status,
                self.s.worker if mine else None,
                1,
                0,
                cancelled=False,
                parent=parent,
                awaited=awaited,
                abandoned=abandoned,
                value=None,
                held=standing.held,
            )
        )
        if new.admission is not None:
            # At once, for those that come after it in this batch.
            self.write_instances()
        return number

    def fire(
        self,
        met: Met,
        planned: PlannedFiring,
        generation: int,
        at: float,
        owned: list[Claimed] | None = None,
        source: str = "live",
        over: int | None = None,
    ) -> FiringRecord | None:
        """Decide and gather a firing, and what it starts or sends; None if it is put off.

        Args:
            source: what led to it.
            over: the number of the firing that this one is written over.
        """
        trigger, name = self.trigger(planned.trigger_cid)
        if planned.outcome == "deferred":
            self.defer(met.seq, trigger, generation, at)
            return None
        found = decide(self.s, planned, at)
        new = planned.instance
        if found.outcome == "started" and new is not None:
            new.chain = met.depth
            found = self._start(new, met.seq, trigger, owned, generation) or found
        elif found.number is not None and planned.letter is not None:
            self._letters.append((found.number, planned.letter, at))
            if planned.letter.kind == "cancel":
                # At once, for those that come after it in this batch: one that is held ends.
                self._deliver()
        if planned.once is not None and has_fired(planned, found):
            remember(self.s, planned.once, met.seq, found, at)
        dead = planned.dead_letter
        if dead is not None:
            dead.chain = met.depth
            self.instance(dead, met.seq, trigger, generation=generation)
        row = row_of(planned, found, generation, at, source)
        if over is None:
            self.firings.append((met.seq, trigger, *row))
        else:
            self.changed.append((over, *row))
        return record_of(
            name,
            planned,
            found,
            generation,
            at,
            source,
            activity=met.cid,
            earlier=None if found.earlier is None else self._cid(found.earlier),
        )

    def _start(
        self,
        new: NewInstance,
        seq: int,
        trigger: int,
        owned: list[Claimed] | None,
        generation: int,
    ) -> Decision | None:
        """Gather what a firing starts, or say what came of it instead."""
        verdict = None if new.admission is None else self._judge(new, new.admission, seq)
        if verdict is not None:
            return Decision(verdict.outcome, verdict.reason, verdict.instance)
        asked = new.admission
        if asked is not None and any(place.mode == "cancel" for place in asked.places):
            # Those that it ends may have letters on their way.
            self._deliver()
        self.instance(new, seq, trigger, owned, generation=generation)
        if new.key is not None:
            holder = Holder(new.id, new.input, new.digest)
            self.s.keys[new.namespace, new.flow, new.key] = holder
        return None

    def _judge(self, new: NewInstance, asked: Admission, seq: int) -> Verdict | None:
        """What keeps an arrival from starting an instance of its own."""
        admitted: Admitted = {}
        verdict = admission.judge(
            self.s, new, asked, activity=seq, now=new.created, admitted=admitted
        )
        self.s.admit(admitted)
        self.told.woken(admitted)
        return verdict

    def tell(self, index: int, outcomes: Outcomes) -> None:
        """One outcome passes on what all of them have told, and whether they wait."""
        if self.opened:
            outcomes[index].opened = True
        if self.told:
            found = outcomes[index]
            found.told += tuple(self.told.owners)
            found.ended += tuple(self.told.ended)

    def _cid(self, seq: int) -> str:
        cid: str = self.s.db.execute("SELECT cid FROM activity WHERE seq = %s", seq).one()
        return cid

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
                " registry, at, source, due, attempts, dead_letter, earlier)"
                " SELECT * FROM unnest(%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s)",
                *columns("iitttiftfiti", self.firings),
            )
        if self.changed:
            written.change(self.s.db, self.changed)
            self.s.loud = True
        if self.outbox:
            ask(
                "INSERT INTO outbox (activity, trigger_spec, registry, created)"
                " SELECT * FROM unnest(%s, %s, %s, %s)",
                *columns("iiif", self.outbox),
            )
        self._deliver()

    def _deliver(self) -> None:
        """Put the letters that were gathered so far into inboxes."""
        # The newcomers get their rows first: a letter may be for one of them.
        self.write_instances()
        if self._letters:
            self.told.add(deliver(self.s, self._letters))
            self._letters.clear()

    def write_instances(self) -> None:
        """Insert the new instances that were gathered so far."""
        ask = self.s.db.execute
        if self.instances:
            # Keys in one order: two batches that claim two of them don't deadlock.
            rows = sorted(self.instances, key=lambda row: (row[9] or "", row[3], row[2]))
            ask(
                "INSERT INTO instance (id, public_id, namespace, flow, version, status, owner,"
                " cause, reason, key, correlation_id, activity, trigger_spec, created,"
                " parent, parent_tag, awaited, abandoned, depth, chain, origin, priority,"
                " held, due) SELECT * FROM unnest(%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s,"
                " %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s)",
                *columns(_INSTANCE, rows),
            )
            ask(
                "INSERT INTO generation (instance, generation, seed, input, digest)"
                " SELECT u.i, 1, u.s, u.v, u.d FROM unnest(%s, %s, %s, %s) AS u (i, s, v, d)",
                *columns("ibbb", self.generations),
            )
            if self.waits:
                waits.open_all(self.s.db, self.waits)
                self.opened = True
            self.instances.clear()
            self.generations.clear()
            self.waits.clear()


_INSTANCE: Final = "itttit" + "i" + "tttt" + "ii" + "f" + "it" + "oo" + "iii" + "iif"
