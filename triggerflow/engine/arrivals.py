"""Appending: validate, address, match, judge, and one commit with everything that follows."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
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
from triggerflow.store.operations import Append, Dispatch, Outcome, Verdict
from triggerflow.triggers import Guard, Trigger, TriggerIndex

if TYPE_CHECKING:
    from triggerflow.engine.clock import Clock
    from triggerflow.engine.committer import Committer
    from triggerflow.engine.pressure import Backlog, Crowd
    from triggerflow.flows.registry import FlowRegistry
    from triggerflow.store.protocol import Store
    from triggerflow.store.records import OutboxRow, TriggerRecord

# A registry that changes faster than an append can be planned is somebody's mistake.
_MOST_PLANS: Final = 20


@attrs.define(slots=True)
class _Arrival:
    """An activity on its way in."""

    activity: Activity
    document: bytes
    matched: list[Trigger] = attrs.field(factory=list)
    verdicts: dict[str, Judged] = attrs.field(factory=dict)


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
        self._backlog = backlog
        self._crowd = crowd
        self._registry = -1
        self._index = TriggerIndex()

    def refresh(self, generation: int, triggers: Iterable[TriggerRecord]) -> None:
        """Plan with these triggers from now on."""
        self._index = TriggerIndex(self._known(record.spec) for record in triggers)
        self._registry = generation

    def _known(self, block: bytes) -> Trigger:
        spec = decode_document(block)
        guard = self._guards.get(spec.get("guard", ""))
        return Trigger.from_spec(spec, None if guard is None else guard.fn)

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
                self.refresh(*await self._committer.run(self._store.registry))
            todo = stale
        done = [each for each in found if each is not None]
        if len(done) < len(found):
            raise InternalError("the trigger registry changed under every plan of an append")
        return done

    async def _match(self, arrivals: list[_Arrival]) -> None:
        for arrival in arrivals:
            arrival.matched = self._index.match(arrival.activity)
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
            registry=self._registry,
            firings=None if self._deferred else self._plan(arrival, now),
        )

    def _plan(self, arrival: _Arrival, now: float) -> Any:
        return plan(
            arrival.activity,
            arrival.matched,
            arrival.verdicts,
            document=arrival.document,
            flows=self._flows,
            now=now,
            seed=new_seed,
        )

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
        arrival = _Arrival(activity, row.document, await self._met(row, activity))
        if row.spec is not None and any(
            trigger.guard is not None and trigger.guard.fn is None
            for trigger in arrival.matched
        ):
            # For a worker that has the guard's code.
            return False
        await self._judge([arrival])
        now = self._clock.now()
        outcome = await self._committer.ask(
            Dispatch(row.id, row.seq, row.registry, now, self._plan(arrival, now)),
            self._begun,
        )
        return outcome.verdict is Verdict.APPLIED

    async def _met(self, row: OutboxRow, activity: Activity) -> list[Trigger]:
        """The triggers that the append would have met: newer ones don't see the activity."""
        if row.spec is not None:
            # That it met this one was found when it was appended.
            return [self._known(row.spec)]
        index = self._index
        if row.registry != self._registry:
            records = await self._committer.run(lambda: self._store.triggers_at(row.registry))
            index = TriggerIndex(self._known(record.spec) for record in records)
        return index.match(activity)
