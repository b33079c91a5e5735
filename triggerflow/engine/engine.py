"""The engine: the verbs, over one open store. Everything runs on one trio loop."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import attrs
import trio

from triggerflow.core.codec import encode_document
from triggerflow.core.durations import seconds
from triggerflow.engine.arrivals import Arrivals
from triggerflow.engine.asking import flow_name
from triggerflow.engine.clock import new_seed, random_id
from triggerflow.engine.committer import Committer
from triggerflow.engine.drive import Around
from triggerflow.engine.executor import Executor
from triggerflow.engine.keeper import Keeper
from triggerflow.engine.sending import Sending
from triggerflow.engine.views import Appended, Instance, Rejected
from triggerflow.engine.watching import Watching
from triggerflow.errors import (
    DefinitionError,
    EngineClosed,
    KeyTaken,
    UnknownFlow,
    WaitTimedOut,
)
from triggerflow.store.acts import OpenWait
from triggerflow.store.newcomer import NewInstance
from triggerflow.store.operations import Outcome, Start, Verdict
from triggerflow.store.records import ENDED, NewTrigger

if TYPE_CHECKING:
    from triggerflow.engine.settings import Code, Settings
    from triggerflow.store.acts import Act
    from triggerflow.store.protocol import Store
    from triggerflow.store.records import InstanceRecord


class Engine(Sending):
    """An open app. Get it with ``async with app.open() as engine``.

    All verbs are durable when they return.
    """

    def __init__(
        self, store: Store, code: Code, settings: Settings, nursery: trio.Nursery
    ) -> None:
        committer = Committer(
            store,
            settings.clock,
            changed=self._others_wrote,
            fatal=self._fatal,
            inline=settings.inline,
        )
        super().__init__(store, code, committer, settings.clock, inline=settings.inline)
        self._settings = settings
        self._nursery = nursery
        self._waiters: dict[str, trio.Event] = {}
        # Started here and not heard of since: they can't have ended.
        self._alive: set[str] = set()
        self._idle = trio.Event()
        self._closed = False
        self._died: BaseException | None = None
        self._arrivals = Arrivals(
            store=store,
            committer=self._committer,
            flows=code.flows,
            guards=code.guards,
            clock=self._clock,
            limits=settings.limits,
            guard_limit=settings.guard_limit,
            deferred=settings.deferred,
            inline=settings.inline,
            validate=code.validate,
            announced=code.announced,
            can_own=lambda: self._keeper is not None and self._keeper.can_take(),
            begun=self._begun,
        )
        self._watching = Watching(
            store=store,
            committer=committer,
            codec=code.codec,
            clock=self._clock,
            told=self._reached_out,
        )
        self._executor: Executor | None = None
        self._keeper: Keeper | None = None
        self._keeping = trio.CancelScope()
        self._kept: trio.Event | None = None

    # --- opening and closing

    async def begin(self) -> None:
        """Open the store, make the app's triggers current, and start to work."""
        code, committer = self._code, self._committer
        await committer.run(self._store.open)
        if code.triggers:
            rows = [
                NewTrigger(
                    trigger.name,
                    trigger.trigger_cid,
                    encode_document(trigger.spec()),
                    trigger.meaning_cid,
                )
                for trigger in code.triggers
            ]
            now = self._clock.now()
            await committer.run(lambda: self._store.sync_triggers(rows, now=now))
        self._arrivals.refresh(*await committer.run(self._store.registry))
        if self._settings.work:
            await self._start_working()

    async def _start_working(self) -> None:
        settings, code = self._settings, self._code
        self._executor = Executor(
            store=self._store,
            committer=self._committer,
            around=Around(code.codec, code.flows, settings.limits, code.validate),
            clock=self._clock,
            build=code.build,
            nursery=self._nursery,
            threads=settings.threads,
            keep_warm=settings.keep_warm,
            inline=settings.inline,
            always_replay=settings.always_replay,
            lease=settings.lease,
            moved=self._moved,
            told=self._reached_out,
            fenced=lambda: self._tell(Keeper.lease_lost),
            timer_set=lambda: self._tell(Keeper.timer_set),
        )
        self._keeper = Keeper(
            store=self._store,
            committer=self._committer,
            executor=self._executor,
            arrivals=self._arrivals,
            watching=self._watching,
            clock=self._clock,
            build=code.build,
            flows=frozenset((flow.name, flow.version) for flow in code.flows),
            lease=settings.lease,
            capacity=settings.capacity,
            settled=self._settled,
        )
        await self._keeper.register()
        self._kept = trio.Event()
        self._nursery.start_soon(self._keep, self._keeper, self._kept)

    async def _keep(self, keeper: Keeper, kept: trio.Event) -> None:
        try:
            with self._keeping:
                await keeper.run()
        finally:
            kept.set()

    async def end(self) -> None:
        """Let running steps finish for a moment, hand instances back, close the store."""
        self._let_go()
        executor = self._executor
        if executor is not None:
            executor.draining = True
            with trio.move_on_after(self._settings.drain):
                await executor.quiet()
            executor.performer.close()
            executor.drop_all()
            # Before the store closes: the keeper would ask a closed one.
            self._keeping.cancel()
            # None: opening ended while it registered.
            if self._kept is not None:
                await self._kept.wait()
        self._reader.close()
        await self._committer.run(self._store.close)
        await self._committer.close()

    def abandon(self) -> None:
        """Stop dead, as a killed process would: nothing is handed back."""
        self._let_go()
        if self._executor is not None:
            self._executor.performer.close()
            self._executor.drop_all()
        self._reader.close()
        self._committer.abandon()
        self._store.abandon()

    def _fatal(self, error: BaseException) -> None:
        self._died = error
        self._nursery.cancel_scope.cancel()

    @property
    def died(self) -> BaseException | None:
        """What killed the engine, if anything did."""
        return self._died

    # --- what the parts tell it

    def _tell(self, what: Callable[[Keeper], None]) -> None:
        if self._keeper is not None:
            what(self._keeper)

    def _others_wrote(self) -> None:
        self._tell(Keeper.others_wrote)
        self._alive.clear()
        for event in list(self._waiters.values()):
            event.set()

    def _moved(self, instance: str, status: str, due: float | None) -> None:
        self._alive.discard(instance)
        if status == "waiting" and self._keeper is not None:
            self._keeper.parked(due)
        event = self._waiters.get(instance)
        if event is not None and status != "waiting":
            event.set()
        self._tell(Keeper.place_freed)

    def _work_came(self) -> None:
        self._tell(Keeper.work_came)

    def _reached_out(self, outcome: Outcome, acts: Iterable[Act] = ()) -> None:
        """A turn, a hit, or what ended an instance, told others."""
        for number, owner in outcome.told:
            self._message_sent(number, owner)
        waits = any(isinstance(act, OpenWait) for act in acts)
        self._watching.open = self._watching.open or waits
        self._tell(Keeper.dispatch_came if outcome.emitted or waits else Keeper.work_came)

    def _message_sent(self, number: int, owner: int | None) -> None:
        worker = self._committer.worker
        if self._executor is not None and worker is not None and owner == worker[0]:
            self._executor.fetch_inbox(number)
        else:
            self._work_came()

    def _ended_by_hand(self, id: str, outcome: Outcome) -> None:
        if self._executor is not None:
            self._executor.forget(outcome.number or 0)
        self._reached_out(outcome)
        self._moved(id, "cancelled", None)

    def _settled(self) -> None:
        idle, self._idle = self._idle, trio.Event()
        idle.set()

    def _check_open(self, verb: str) -> None:
        if self._closed:
            raise EngineClosed(verb)

    def _let_go(self) -> None:
        """Tell everybody who waits that nothing will come any more."""
        self._closed = True
        for event in self._waiters.values():
            event.set()
        self._settled()

    # --- verbs: activities

    async def append(self, activity: object) -> Appended:
        """Append an activity; its firings and their instances land in the same commit.

        Args:
            activity: a document with a ``type`` and an ``actor``; integral floats become
                integers.

        Returns:
            Its CID and firings; for one that was there before, the first firings.

        Raises:
            ActivityRejected: type or actor can't be read, or a plugin vetoed it.
            EncodingRefused: it is no DAG-CBOR document, or too large or deep.
        """
        found = await self._arrivals.append(activity)
        self._arrived([found])
        return found

    async def append_many(self, activities: Iterable[object]) -> list[Appended | Rejected]:
        """Append many activities, a thousand to a commit; each has its own result.

        One that is refused does not hinder the others: its result is a `Rejected`.
        """
        if isinstance(activities, Mapping | str | bytes):
            raise DefinitionError("append_many", "found one document, expected many")
        found: list[Appended | Rejected] = []
        page: list[object] = []
        for activity in activities:
            page.append(activity)
            if len(page) == 1000:
                found += await self._append_page(page, len(found))
                page = []
        return found + await self._append_page(page, len(found))

    async def _append_page(self, page: list[object], first: int) -> list[Appended | Rejected]:
        found = await self._arrivals.append_many(page)
        self._arrived([each for each in found if isinstance(each, Appended)])
        return [
            attrs.evolve(each, index=each.index + first) if isinstance(each, Rejected) else each
            for each in found
        ]

    def _arrived(self, found: Iterable[Appended]) -> None:
        if any(not each.duplicate for each in found):
            dispatch = self._settings.deferred or self._watching.open
            self._tell(Keeper.dispatch_came if dispatch else Keeper.work_came)

    # --- verbs: instances

    async def start(
        self,
        flow: Any,
        input: Any = None,
        *,
        key: str | None = None,
        version: int | None = None,
        namespace: str = "",
        correlation_id: str | None = None,
    ) -> str:
        """Start an instance by hand.

        Args:
            flow: a flow, or a flow's name.
            input: the flow's input.
            key: business key, held by one live instance of the flow at a time: a second
                start with the same input returns the first one's id.
            version: of the flow; the latest by default.

        Returns:
            The instance's id.

        Raises:
            UnknownFlow: no such flow is registered here (a client that leaves the work to
                others may start it all the same).
            KeyTaken: the key is held by an instance with another input.
            EncodingRefused: the input can't be kept.
        """
        name = flow_name(flow)
        if key == "":
            raise DefinitionError("start(key=)", "found an empty key")
        if version is None and not isinstance(flow, str):
            version = flow.version
        known = self._code.flows.find(name, version)
        if known is None and self._settings.work:
            self._code.flows.get(name, version)
        new = NewInstance(
            id=random_id(),
            flow=name,
            version=version if known is None else known.version,
            input=self._code.codec.encode(input, "input"),
            seed=new_seed(),
            created=self._clock.now(),
            namespace=namespace,
            key=key,
            digest=None if key is None else self._code.codec.digest((input,), {}, "input"),
            correlation_id=correlation_id,
        )
        if known is None:
            new.status, new.cause = "blocked", "unknown_flow"
            new.reason = str(UnknownFlow(name, version)) + "; a worker that knows it starts it"
        own = self._keeper is not None and known is not None and self._keeper.can_take()
        outcome = await self._committer.ask(Start(new, own), self._begun)
        holder = outcome.instance or new.id
        if outcome.verdict is Verdict.CONFLICT:
            raise KeyTaken(name, key or "", holder)
        if not outcome.claimed:
            self._tell(Keeper.work_came)
        return holder

    def _begun(self, outcome: Outcome) -> None:
        """Drive what this worker owns since the commit that made it."""
        if outcome.claimed and self._executor is not None:
            self._alive.update(each.id for each in outcome.claimed)
            self._executor.load(outcome.claimed)

    # --- verbs: waiting

    async def wait(self, id: str, *, timeout: timedelta | float | None = None) -> Instance:  # noqa: ASYNC109
        """Wait until an instance has ended.

        Raises:
            WaitTimedOut: it had not ended in time; it goes on, and can be waited for again.
            UnknownInstance: none fits, or several do.
        """
        limit = math.inf if timeout is None else seconds(timeout, "wait(timeout=)")
        found = await self.resolve_id(id)
        if math.isinf(limit):
            record = await self._ended(found)
        else:
            with trio.move_on_after(limit) as timer:
                record = await self._ended(found)
            if timer.cancelled_caught:
                # The last word is the store's: it may have ended just as the time ran out.
                record = await self._record(found)
                if record.status not in ENDED:
                    raise WaitTimedOut(found, limit, record.status)
        return Instance.of(record, self._code.codec)

    async def _ended(self, id: str) -> InstanceRecord:
        while True:
            self._check_open("wait")
            event = self._waiters.get(id)
            if event is None or event.is_set():
                event = self._waiters[id] = trio.Event()
            if id in self._alive:
                await event.wait()
            record = await self._record(id)
            if record.status in ENDED:
                self._waiters.pop(id, None)
                return record
            await event.wait()

    async def run_until_idle(self) -> None:
        """Return when nothing is runnable now; future timers and open waits don't count."""
        if self._keeper is None:
            return
        while True:
            self._check_open("run_until_idle")
            idle = self._idle
            self._tell(Keeper.work_came)
            await idle.wait()
            if self._keeper.idle:
                return
