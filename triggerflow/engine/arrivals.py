"""Appending: validate, address, match, judge, and one commit with everything that follows."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Any, Final

import attrs

from triggerflow.core.activity import Activity
from triggerflow.core.codec import Limits, decode_document
from triggerflow.core.envelopes import Envelope, Incoming
from triggerflow.engine.clock import new_seed
from triggerflow.engine.guards import Question, judge
from triggerflow.engine.validating import Validate, validated
from triggerflow.engine.views import Appended, Rejected, appended
from triggerflow.errors import DefinitionError, InternalError, TriggerflowError
from triggerflow.pipeline.known import Known, read_trigger, read_triggers
from triggerflow.pipeline.plan import Judged, asks_code, plan, refused_signal
from triggerflow.store.operations import Append, Dispatch, Outcome, PlannedFiring, Verdict
from triggerflow.triggers import Guard, Trigger, TriggerIndex

if TYPE_CHECKING:
    from triggerflow.engine.clock import Clock
    from triggerflow.engine.committer import Committer
    from triggerflow.engine.pressure import Backlog, Crowd
    from triggerflow.flows.registry import FlowRegistry
    from triggerflow.store.history import PastActivity, Unstarted
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
        known, registry: the triggers that it was held against, and their generation.
        held: trigger CID -> ``paused`` or ``skipped``.
        attempts: how often its dispatch was tried, this time included.
        put_off: a dispatch is to be tried again later.
    """

    activity: Activity
    document: bytes
    digest: bytes | None = None
    matched: list[Trigger] = attrs.field(factory=list)
    verdicts: dict[str, Judged] = attrs.field(factory=dict)
    known: Known = attrs.field(factory=Known)
    registry: int = -1
    held: Mapping[str, str] = attrs.field(factory=dict)
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
        triggers: Iterable[Trigger],
        clock: Clock,
        limits: Limits,
        guard_limit: float,
        deferred: bool,
        inline: bool,
        validate: Validate | None,
        envelopes: dict[str, Envelope],
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
            triggers: those of the app, which needn't be read again from their specs.
            envelopes: how documents may be read, by name.
            validate: raises for activities that a plugin vetoes; None when none asks.
            announced: called with (activity, firings) after the commit; None when no
                plugin listens.
            promise: keeps places in this worker for what an append starts, if it can.
            redeem: gives them back once it has started.
            begun: called with the outcome of an append or dispatch, which has what this
                worker owns now, and whom it told something.
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
        self._envelopes = envelopes
        self._announced = announced
        self._promise = promise
        self._redeem = redeem
        self._begun = begun
        self._put_off = put_off
        self._backlog = backlog
        self._crowd = crowd
        self._registry = -1
        self._known = Known()
        # Those of the app, as a store would give them back.
        self._own = {(each.trigger_cid, each.delivery.encoded()): each for each in triggers}
        # Specs that are met one firing at a time.
        self._once = lru_cache(_KEPT)(self._one)

    def refresh(self, generation: int, triggers: Iterable[TriggerRecord]) -> None:
        """Plan with these triggers from now on; only those that are new are read."""
        if generation == self._registry:
            return
        self._known = read_triggers(triggers, self._guards, before=self._known, own=self._own)
        self._registry = generation

    async def look_again(self) -> None:
        """Plan with the triggers that the store has now."""
        self.refresh(*await self._committer.run(self._store.registry))

    @property
    def registry(self) -> int:
        """The registry generation that appends are planned with."""
        return self._registry

    def named(self, name: str) -> Trigger | None:
        """The trigger of a name, unless it is draining, or can't be read here."""
        return self._known.index.get(name)

    def one(self, spec: bytes, options: bytes | None) -> Trigger | None:
        """A stored trigger, from a few that are kept; None if it can't be read here."""
        return self._once(spec, options)

    def _one(self, spec: bytes, options: bytes | None) -> Trigger | None:
        try:
            return read_trigger(spec, self._guards, options)
        except TriggerflowError:
            return None

    @property
    def index(self) -> TriggerIndex:
        """The triggers that appends are planned with."""
        return self._known.index

    async def append(self, incoming: Incoming) -> Appended:
        """Append one activity; see `Engine.append`."""
        (found,) = await self._append([self._read(incoming)])
        return found

    async def append_many(self, incoming: Sequence[Incoming]) -> list[Appended | Rejected]:
        """Append many at once; see `Engine.append_many`."""
        results: list[Appended | Rejected | None] = []
        arrivals: list[_Arrival] = []
        for index, each in enumerate(incoming):
            try:
                arrivals.append(self._read(each))
                results.append(None)
            except TriggerflowError as error:
                results.append(Rejected(index, error))
        found = iter(await self._append(arrivals))
        return [next(found) if result is None else result for result in results]

    def _read(self, incoming: Incoming) -> _Arrival:
        """Everything that can be refused is refused here, before any write."""
        return _Arrival(*self.read(incoming), received_digest(incoming))

    def read(self, incoming: Incoming) -> tuple[Activity, bytes]:
        """An activity and its document's bytes, or the refusal that an append would get."""
        return validated(incoming, self._limits, self._validate, envelopes=self._envelopes)

    async def rehearsed(
        self, activity: Activity, document: bytes, known: Known
    ) -> tuple[tuple[PlannedFiring, ...], Append]:
        """The plan that an append would have with these triggers, and the append; unsent."""
        arrival = _Arrival(
            activity, document, None, known.index.match(activity), known=known, held=known.held
        )
        await self._judge([arrival])
        operation = self._operation(arrival)
        planned = self._plan(arrival, operation.received)
        operation.firings = planned
        return planned, operation

    @property
    def guards(self) -> dict[str, Guard]:
        """Key -> guard with code, of this process."""
        return self._guards

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
            # Of one generation, whatever comes while guards are judged.
            arrival.known, arrival.registry = self._known, self._registry
            arrival.held = self._known.held
            arrival.matched = self._known.index.match(arrival.activity)
        await self._judge(arrivals)

    async def _judge(self, arrivals: list[_Arrival]) -> None:
        asked = [
            (arrival, trigger)
            for arrival in arrivals
            for trigger in arrival.matched
            if asks_code(trigger, self._flows)
        ]
        if not asked:
            return
        verdicts = await judge(
            [self._question(arrival, trigger) for arrival, trigger in asked],
            limit=self._guard_limit,
            inline=self._inline,
        )
        for (arrival, trigger), verdict in zip(asked, verdicts, strict=True):
            arrival.verdicts[trigger.trigger_cid] = verdict

    def _question(self, arrival: _Arrival, trigger: Trigger) -> Question:
        return Question(
            arrival.document,
            trigger,
            partial(refused_signal, arrival.activity, trigger, self._flows),
        )

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
            firings=None
            if self._deferred
            else (*self._plan(arrival, now), *arrival.known.deferred(activity)),
            namespace=activity.namespace,
            source=activity.source,
            digest=arrival.digest,
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
        activity = activity_of(row)
        for _ in range(_MOST_PLANS):
            arrival = _Arrival(activity, row.document, registry=self._registry)
            if not await self._meet(row, arrival):
                return False
            await self._judge([arrival])
            now = self._clock.now()
            firings = (*self._plan(arrival, now), *arrival.known.deferred(activity))
            outcome = await self._committer.ask(
                Dispatch(row.id, row.seq, row.registry, now, firings, arrival.registry),
                self._begun,
            )
            if arrival.put_off:
                self._put_off()
            if outcome.verdict is not Verdict.STALE:
                return outcome.verdict is Verdict.APPLIED
            await self.look_again()
        return False

    async def _meet(self, row: OutboxRow, arrival: _Arrival) -> bool:
        """Find the triggers that the append would have met; False if it is for another worker.

        Newer triggers don't see the activity. One that is paused now starts nothing; what one
        met during a pause that was skipped is skipped too.
        """
        states = self._known.states
        if row.spec is None:
            arrival.known = await self._known_at(row.registry)
            arrival.matched = arrival.known.index.match(arrival.activity)
            then = {
                cid: state for cid, state in arrival.known.held.items() if state == "skipped"
            }
        else:
            trigger = self._once(row.spec, row.options)
            if trigger is None:
                # For a worker that can read it.
                return False
            if trigger.guard is not None and trigger.guard.fn is None:
                # For a worker that has the guard's code.
                return False
            # Whoever put it off may not have been able to ask.
            arrival.matched = TriggerIndex([trigger]).match(arrival.activity)
            then = {trigger.trigger_cid: "skipped"} if row.state == "skipped" else {}
        now = {
            each.trigger_cid: "paused"
            for each in arrival.matched
            if states.get(each.name) == "paused"
        }
        arrival.held = {**then, **now}
        return True

    async def _known_at(self, registry: int) -> Known:
        """The triggers that an append would have met: newer ones don't see the activity."""
        if registry == self._registry:
            return self._known
        records = await self._committer.run(lambda: self._store.triggers_at(registry))
        return read_triggers(records, self._guards)

    # --- what is taken up again, or met late

    async def planned(
        self, met: Sequence[Met], *, now: float
    ) -> list[tuple[PlannedFiring, ...]]:
        """What activities lead to now, each with triggers that it is known to meet."""
        arrivals = [
            _Arrival(
                each.activity,
                each.document,
                None,
                list(each.triggers),
                attempts=each.attempts,
            )
            for each in met
        ]
        await self._judge(arrivals)
        return [self._plan(each, now) for each in arrivals]


def activity_of(row: OutboxRow | Unstarted | PastActivity) -> Activity:
    """A stored activity that has its document still, as its append read it."""
    return Activity(
        row.cid,
        decode_document(row.document or b""),
        tuple(json.loads(row.types)),
        tuple(json.loads(row.actors)),
        row.source,
        row.namespace,
        row.depth,
    )


def received_digest(incoming: Incoming) -> bytes | None:
    """The SHA-256 of the bytes that came, where the ingest gave them.

    Raises:
        DefinitionError: what it gave isn't bytes.
    """
    if incoming.received is None:
        return None
    if not isinstance(incoming.received, bytes | bytearray | memoryview):
        raise DefinitionError(
            "append(received=)", f"found {type(incoming.received).__name__}, expected bytes"
        )
    return hashlib.sha256(incoming.received).digest()
