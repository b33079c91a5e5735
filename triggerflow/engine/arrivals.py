"""Appending: validate, address, match, judge, and one commit with everything that follows."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final

import attrs

from triggerflow.core.activity import Activity
from triggerflow.core.codec import Limits, decode_document
from triggerflow.engine.clock import new_seed
from triggerflow.engine.guards import judge
from triggerflow.engine.validating import Validate, validated
from triggerflow.engine.views import Appended, Rejected, appended
from triggerflow.errors import InternalError, TriggerflowError
from triggerflow.pipeline.plan import Judged, guarded, plan
from triggerflow.store.operations import Append, Dispatch, Outcome, PlannedFiring, Verdict
from triggerflow.triggers import Delivery, Guard, Trigger, TriggerIndex

if TYPE_CHECKING:
    from triggerflow.engine.clock import Clock
    from triggerflow.engine.committer import Committer
    from triggerflow.engine.pressure import Backlog, Crowd
    from triggerflow.flows.registry import FlowRegistry
    from triggerflow.store.protocol import Store
    from triggerflow.store.records import OutboxRow, TriggerRecord

# A registry that changes faster than an append can be planned is somebody's mistake.
_MOST_PLANS: Final = 20
# How many specs are kept compiled that are not current.
_KEPT: Final = 1000


@attrs.define(slots=True)
class _Arrival:
    """An activity on its way in, or taken up again.

    Attributes:
        registry: the generation of what it matched.
        held: trigger CID -> ``paused`` or ``skipped``.
        attempts: how often its dispatch was tried, this time included.
        put_off: a dispatch is to be tried again later.
    """

    activity: Activity
    document: bytes
    matched: list[Trigger] = attrs.field(factory=list)
    verdicts: dict[str, Judged] = attrs.field(factory=dict)
    registry: int = -1
    held: dict[str, str] = attrs.field(factory=dict)
    attempts: int = 1
    put_off: bool = False


@attrs.frozen
class Met:
    """An activity, and triggers that it met; see `_Arrival` for the attempts."""

    activity: Activity
    document: bytes
    triggers: Sequence[Trigger]
    attempts: int = 1


class Arrivals:
    """Appends activities and carries out dispatches that were deferred."""

    def __init__(
        self,
        *,
        store: Store,
        committer: Committer,
        flows: FlowRegistry,
        guards: dict[str, Guard],
        clock: Clock,
        limits: Limits,
        guard_limit: float,
        deferred: bool,
        inline: bool,
        validate: Validate | None,
        announced: Callable[[Activity, Any], None] | None,
        promise: Callable[[int], bool],
        redeem: Callable[[int], None],
        begun: Callable[[Outcome], None],
        put_off: Callable[[], None],
        backlog: Backlog,
        crowd: Crowd,
    ) -> None:
        """
        Args:
            guards: key -> guard with code, of this process.
            validate: raises for activities that a plugin vetoes; None when none asks.
            announced: called with (activity, firings) after the commit; None when no
                plugin listens.
            promise: keeps places in this worker for what an append starts, if it can.
            redeem: gives them back once it has started.
            begun: called with an append's outcome, which has what this worker owns now.
            put_off: called when a dispatch failed that is to be tried again later.
            backlog: room for what is submitted.
            crowd: slows what starts flows while this worker is full.
        """
        self._store = store
        self._committer = committer
        self._flows = flows
        self._guards = guards
        self._clock = clock
        self._limits = limits
        self._guard_limit = guard_limit
        self._deferred = deferred
        self._inline = inline
        self._validate = validate
        self._announced = announced
        self._promise = promise
        self._redeem = redeem
        self._begun = begun
        self._put_off = put_off
        self._backlog = backlog
        self._crowd = crowd
        self._registry = -1
        self._index = TriggerIndex()
        self._states: dict[str, str] = {}
        self._held: dict[str, str] = {}
        # Specs that are met one firing at a time.
        self._once = lru_cache(_KEPT)(self.known)

    def refresh(self, generation: int, triggers: Iterable[TriggerRecord]) -> None:
        """Plan with these triggers from now on."""
        if generation == self._registry:
            return
        records = tuple(triggers)
        self._index = TriggerIndex(
            self.known(each.spec, each.options) for each in records if each.state != "draining"
        )
        self._states = {each.name: each.state for each in records if each.state != "active"}
        self._held = {each.cid: "paused" for each in records if each.state == "paused"}
        self._registry = generation

    async def look_again(self) -> None:
        """Plan with the triggers that the store has now."""
        self.refresh(*await self._committer.run(self._store.registry))

    def known(self, block: bytes, options: bytes | None) -> Trigger:
        """A stored trigger, with its guard's code if this process has that."""
        spec = decode_document(block)
        guard = self._guards.get(spec.get("guard", ""))
        trigger = Trigger.from_spec(spec, None if guard is None else guard.fn)
        return attrs.evolve(trigger, delivery=Delivery.decoded(options))

    @property
    def registry(self) -> int:
        """The registry generation that appends are planned with."""
        return self._registry

    def named(self, name: str) -> Trigger | None:
        """The trigger of a name, unless it is draining."""
        return self._index.get(name)

    @property
    def index(self) -> TriggerIndex:
        """The triggers that appends are planned with."""
        return self._index

    async def append(self, document: object) -> Appended:
        """Append one activity; see `Engine.append`."""
        (found,) = await self._append([self._read(document)])
        return found

    async def append_many(self, documents: Sequence[object]) -> list[Appended | Rejected]:
        """Append many at once; see `Engine.append_many`."""
        results: list[Appended | Rejected | None] = []
        arrivals: list[_Arrival] = []
        for index, document in enumerate(documents):
            try:
                arrivals.append(self._read(document))
                results.append(None)
            except TriggerflowError as error:
                results.append(Rejected(index, error))
        found = iter(await self._append(arrivals))
        return [next(found) if result is None else result for result in results]

    def _read(self, document: object) -> _Arrival:
        """Everything that can be refused is refused here, before any write."""
        return _Arrival(*validated(document, self._limits, self._validate))

    async def _append(self, arrivals: list[_Arrival]) -> list[Appended]:
        found: list[Appended | None] = [None] * len(arrivals)
        todo = list(range(len(arrivals)))
        slowed = False
        for _ in range(_MOST_PLANS):
            if not todo:
                break
            if not self._deferred:
                await self._match([arrivals[index] for index in todo])
                if not slowed and any(each.matched for each in arrivals):
                    slowed = True
                    await self._crowd.slow_down()
            outcomes = await self._commit([arrivals[index] for index in todo])
            stale = []
            for index, outcome in zip(todo, outcomes, strict=True):
                if outcome.verdict is Verdict.STALE:
                    stale.append(index)
                    continue
                found[index] = self._appended(arrivals[index], outcome)
            if stale:
                await self.look_again()
            todo = stale
        done = [each for each in found if each is not None]
        if len(done) < len(found):
            raise InternalError("the trigger registry changed under every plan of an append")
        return done

    async def _match(self, arrivals: list[_Arrival]) -> None:
        for arrival in arrivals:
            arrival.matched = self._index.match(arrival.activity)
            # Of one generation, whatever comes while guards are judged.
            arrival.registry, arrival.held = self._registry, self._held
        await self._judge(arrivals)

    async def _judge(self, arrivals: list[_Arrival]) -> None:
        questions = [
            (arrival, trigger) for arrival in arrivals for trigger in guarded(arrival.matched)
        ]
        if not questions:
            return
        verdicts = await judge(
            [(arrival.document, trigger) for arrival, trigger in questions],
            limit=self._guard_limit,
            inline=self._inline,
        )
        for (arrival, trigger), verdict in zip(questions, verdicts, strict=True):
            arrival.verdicts[trigger.trigger_cid] = verdict

    def _operation(self, arrival: _Arrival) -> Append:
        now = self._clock.now()
        activity = arrival.activity
        return Append(
            cid=activity.cid,
            document=arrival.document,
            types=json.dumps(activity.types),
            actors=json.dumps(activity.actors),
            received=now,
            registry=arrival.registry,
            firings=None if self._deferred else self._plan(arrival, now),
        )

    def _plan(self, arrival: _Arrival, now: float) -> tuple[PlannedFiring, ...]:
        planned = plan(
            arrival.activity,
            arrival.matched,
            arrival.verdicts,
            document=arrival.document,
            flows=self._flows,
            now=now,
            seed=new_seed,
            held=arrival.held,
            attempts=arrival.attempts,
        )
        arrival.put_off = any(each.due is not None for each in planned)
        return planned

    async def _commit(self, arrivals: Sequence[_Arrival]) -> list[Outcome]:
        async with self._backlog.room("append", len(arrivals)):
            # Planned when there is room: what was planned earlier might be stale.
            operations = [self._operation(each) for each in arrivals]
            promised = 0
            try:
                for each in operations:
                    count = sum(fired.instance is not None for fired in each.firings or ())
                    if count and self._promise(count):
                        each.own = True
                        promised += count
                if len(operations) == 1:
                    return [await self._committer.ask(operations[0], self._begun)]
                return await self._committer.ask_all(operations, self._begun)
            finally:
                self._redeem(promised)
                if any(each.put_off for each in arrivals):
                    self._put_off()

    def _appended(self, arrival: _Arrival, outcome: Outcome) -> Appended:
        duplicate = outcome.verdict is Verdict.DUPLICATE
        found = appended(
            arrival.activity.cid,
            outcome.seq or 0,
            duplicate=duplicate,
            firings=outcome.firings,
        )
        if self._announced is not None and not duplicate:
            self._announced(arrival.activity, found.firings)
        return found

    # --- what others deferred

    async def dispatch(self, rows: Sequence[OutboxRow]) -> int:
        """Carry out deferred dispatches that this process can; how many it did."""
        done = 0
        for row in rows:
            done += await self._dispatch(row)
        return done

    async def _dispatch(self, row: OutboxRow) -> bool:
        activity = Activity.read(row.cid, decode_document(row.document))
        for _ in range(_MOST_PLANS):
            arrival = _Arrival(activity, row.document, registry=self._registry)
            await self._meet(row, arrival)
            if row.spec is not None and any(
                trigger.guard is not None and trigger.guard.fn is None
                for trigger in arrival.matched
            ):
                # For a worker that has the guard's code.
                return False
            await self._judge([arrival])
            now = self._clock.now()
            firings = self._plan(arrival, now)
            outcome = await self._committer.ask(
                Dispatch(row.id, row.seq, row.registry, now, firings, arrival.registry)
            )
            if arrival.put_off:
                self._put_off()
            if outcome.verdict is not Verdict.STALE:
                return outcome.verdict is Verdict.APPLIED
            await self.look_again()
        return False

    async def _meet(self, row: OutboxRow, arrival: _Arrival) -> None:
        """Find the triggers that the append would have met: newer ones don't see the activity.

        One that is paused now starts nothing; what one met during a pause that was skipped is
        skipped too.
        """
        index, then = self._index, {}
        if row.spec is not None:
            # That it met this one was found when it was appended.
            arrival.matched = [self._once(row.spec, row.options)]
            then = {row.trigger_cid: row.state}
        else:
            if row.registry != arrival.registry:
                records = await self._committer.run(
                    lambda: self._store.triggers_at(row.registry)
                )
                index = TriggerIndex(
                    self.known(each.spec, each.options)
                    for each in records
                    if each.state != "draining"
                )
                then = {each.cid: each.state for each in records}
            arrival.matched = index.match(arrival.activity)
        for trigger in arrival.matched:
            cid = trigger.trigger_cid
            if self._states.get(trigger.name) == "paused":
                arrival.held[cid] = "paused"
            elif then.get(cid) == "skipped":
                arrival.held[cid] = "skipped"

    # --- what is taken up again, or met late

    async def planned(
        self, met: Sequence[Met], *, now: float
    ) -> list[tuple[PlannedFiring, ...]]:
        """What activities lead to now, each with triggers that it is known to meet."""
        arrivals = [
            _Arrival(each.activity, each.document, list(each.triggers), attempts=each.attempts)
            for each in met
        ]
        await self._judge(arrivals)
        return [self._plan(each, now) for each in arrivals]

    def one(self, spec: bytes, options: bytes | None) -> Trigger:
        """A stored trigger, from a few that are kept."""
        return self._once(spec, options)
