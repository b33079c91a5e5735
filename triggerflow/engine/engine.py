"""The engine: the verbs, over one open store. Everything runs on one trio loop."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterable
from datetime import timedelta
from typing import TYPE_CHECKING, Final

import trio

from triggerflow.core.durations import seconds
from triggerflow.engine.arrivals import Arrivals
from triggerflow.engine.backfill import Backfills
from triggerflow.engine.committer import Committer
from triggerflow.engine.draining import Drained, Draining
from triggerflow.engine.drive import Around
from triggerflow.engine.executor import Executor
from triggerflow.engine.explaining import Explaining
from triggerflow.engine.history import History
from triggerflow.engine.keeper import Keeper
from triggerflow.engine.pressure import Crowd
from triggerflow.engine.redispatch import Redispatcher
from triggerflow.engine.retention import Retention
from triggerflow.engine.statistics import Statistics
from triggerflow.engine.triggering import Triggering
from triggerflow.engine.views import Appended, Instance
from triggerflow.engine.watching import Watching
from triggerflow.errors import EngineClosed, WaitTimedOut
from triggerflow.pipeline.known import new_triggers
from triggerflow.store.acts import CloseTask, OpenWait
from triggerflow.store.operations import Outcome
from triggerflow.store.records import ENDED

if TYPE_CHECKING:
    from triggerflow.engine.settings import Code, Settings
    from triggerflow.store.acts import Act
    from triggerflow.store.protocol import Store
    from triggerflow.store.records import InstanceRecord

log: Final = logging.getLogger("triggerflow")


class Engine(Triggering):
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
        super().__init__(store, code, committer, settings)
        self._nursery = nursery
        self._waiters: dict[str, trio.Event] = {}
        # Started here and not heard of since: they can't have ended.
        self._alive: set[str] = set()
        self._idle = trio.Event()
        self._open = False
        # Drained without having worked: there was nothing to do for it.
        self._drained_idle = False
        self._closed = False
        self._died: BaseException | None = None
        self._crowd = Crowd(
            settings.patience, lambda: self._keeper is not None and self._keeper.crowded
        )
        self._arrivals = Arrivals(
            store=store,
            committer=self._committer,
            flows=code.flows,
            guards=code.guards,
            triggers=code.triggers,
            clock=self._clock,
            limits=settings.limits,
            guard_limit=settings.guard_limit,
            deferred=settings.deferred,
            inline=settings.inline,
            validate=code.validate,
            envelopes=code.envelopes,
            announced=code.announced,
            promise=self._promise,
            redeem=self._redeem,
            begun=self._begun,
            put_off=self._walk_came,
            backlog=self._backlog,
            crowd=self._crowd,
        )
        self._explaining = Explaining(
            store=store,
            committer=committer,
            arrivals=self._arrivals,
            proposed=() if settings.register else new_triggers(code.triggers),
        )
        self._watching = Watching(
            store=store,
            committer=committer,
            reader=self._reader,
            codec=code.codec,
            clock=self._clock,
            inline=settings.inline,
            told=self._reached_out,
        )
        self._history = History(
            store=store, reader=self._reader, arrivals=self._arrivals, clock=self._clock
        )
        self._redispatcher = Redispatcher(
            committer=committer,
            arrivals=self._arrivals,
            clock=self._clock,
            begun=self._begun,
        )
        self._backfills: Backfills | None = None
        self._executor: Executor | None = None
        self._keeper: Keeper | None = None
        self._keeping = trio.CancelScope()
        self._kept: trio.Event | None = None
        self._draining: Draining | None = None
        self._ending = trio.CancelScope()

    # --- opening and closing

    async def begin(self) -> None:
        """Open the store, make the app's triggers current, and start to work."""
        code, committer = self._code, self._committer
        await committer.run(self._store.open)
        if code.triggers and self._settings.register:
            now = self._clock.now()
            rows = new_triggers(code.triggers)
            await committer.run(lambda: self._store.sync_triggers(rows, now=now))
        self._arrivals.refresh(*await committer.run(self._store.registry))
        if self._settings.work:
            await self._start_working()
        self._open = True

    async def _start_working(self) -> None:
        settings, code = self._settings, self._code
        self._executor = Executor(
            store=self._store,
            committer=self._committer,
            around=Around(code.codec, code.flows, settings.limits, code.validate, code.steps),
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
            task_ended=lambda: self._tell(Keeper.place_freed),
            queues=settings.queues,
        )
        if not settings.only_queues:
            self._backfills = Backfills(
                store=self._store,
                committer=self._committer,
                reader=self._reader,
                arrivals=self._arrivals,
                history=self._history,
                redispatcher=self._redispatcher,
                clock=self._clock,
                backlog=self._backlog,
                full=lambda: self._keeper is not None and self._keeper.full,
                draining=lambda: self._executor is not None and self._executor.draining,
                started=self._work_came,
                begun=self._begun,
                rested=lambda: self._tell(Keeper.look_again),
            )
        self._keeper = Keeper(
            store=self._store,
            committer=self._committer,
            executor=self._executor,
            arrivals=self._arrivals,
            watching=self._watching,
            clock=self._clock,
            build=code.build,
            flows=frozenset(
                (flow.name, flow.version) for flow in code.flows if not settings.only_queues
            ),
            lease=settings.lease,
            capacity=settings.capacity,
            only_queues=settings.only_queues,
            walks=self._backfills,
            settled=self._settled,
            caught_up=self._crowd.caught_up,
        )
        await self._keeper.register()
        self._kept = trio.Event()
        retention = Retention(
            store=self._store,
            committer=self._committer,
            clock=self._clock,
            flows=code.flows,
            instances=code.retention,
            documents=code.activity_retention,
            rested=lambda: self._tell(Keeper.look_again),
        )
        self._draining = Draining(
            store=self._store,
            committer=self._committer,
            executor=self._executor,
            stop_keeping=self._stop_keeping,
        )
        self._nursery.start_soon(self._keep, self._keeper, retention, self._kept)

    async def _keep(self, keeper: Keeper, retention: Retention, kept: trio.Event) -> None:
        try:
            with self._keeping:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(retention.run)
                    if self._backfills is not None:
                        nursery.start_soon(self._backfills.run)
                    await keeper.run()
                    nursery.cancel_scope.cancel()
        finally:
            kept.set()

    async def _stop_keeping(self) -> None:
        # Before the store closes: the keeper would ask a closed one.
        self._keeping.cancel()
        # None: opening ended while it registered.
        if self._kept is not None:
            await self._kept.wait()

    async def end(self) -> None:
        """Let running steps finish for a moment, hand instances back, close the store."""
        self._let_go()
        with self._ending:
            await self._end()
        if self._died is not None:
            # It died of its last writes: nobody answers any more.
            self.abandon()

    async def _end(self) -> None:
        if self._draining is not None:
            try:
                await self._draining.run(self._settings.drain)
            except Exception:
                # Closing the store hands back what it can; the rest goes with the lease.
                log.exception("the engine could not be drained to its end")
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
        self._ending.cancel()
        self._nursery.cancel_scope.cancel()

    @property
    def died(self) -> BaseException | None:
        """What killed the engine, if anything did."""
        return self._died

    async def drain(self, *, timeout: timedelta | float | None = None) -> Drained:  # noqa: ASYNC109
        """Stop taking work, let running steps end, and hand everything else back.

        From its first moment on the engine isn't `ready`, claims nothing and begins no step.
        Another worker may take what was handed back at once. Verbs that write and ask still
        work; the engine drives nothing any more. A second call gets the same summary.

        Args:
            timeout: how long running steps have to end; the setting `drain` by default. A
                later call may shorten it, as with ``timeout=0``.

        Raises:
            StoreError: the store failed at the end; call it again to go on.
        """
        self._check_open("drain")
        limit = self._settings.drain if timeout is None else seconds(timeout, "drain(timeout=)")
        if self._draining is None:
            self._drained_idle = True
            return Drained()
        found = await self._draining.run(limit)
        self._others_wrote()
        self._settled()
        return found

    @property
    def state(self) -> str:
        """How it stands; see `Statistics.state`."""
        draining = self._draining
        if self._closed:
            return "closed"
        if not self._open:
            return "starting"
        if self._drained_idle or (draining is not None and draining.summary is not None):
            return "drained"
        if draining is not None and draining.begun:
            return "draining"
        return "degraded" if self._committer.failing else "ready"

    @property
    def ready(self) -> bool:
        """Whether it takes work and can store what comes of it."""
        return self.state == "ready"

    def statistics(self) -> Statistics:
        """How it stands now: a few numbers, for health checks and metrics."""
        executor, keeper = self._executor, self._keeper
        return Statistics(
            state=self.state,
            owned=0 if executor is None else len(executor.owned),
            tasks=0 if executor is None else len(executor.tasks.held),
            capacity=self._settings.capacity if self._settings.work else 0,
            warm=0 if executor is None else len(executor.warm),
            waiting=self._committer.waiting,
            held=self._backlog.held,
            slowed=self._crowd.slowed,
            commits=self._committer.commits,
            lag=0.0 if keeper is None else keeper.lag,
        )

    # --- what the parts tell it

    def _tell(self, what: Callable[[Keeper], None]) -> None:
        if self._keeper is not None:
            what(self._keeper)

    def _others_wrote(self) -> None:
        self._tell(Keeper.others_wrote)
        if self._backfills is not None:
            self._backfills.others_wrote()
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
        self._crowd.place_freed()
        self._tell(Keeper.place_freed)

    def _work_came(self) -> None:
        self._tell(Keeper.work_came)

    def _walk_came(self) -> None:
        if self._backfills is not None:
            self._backfills.come()

    def _reached_out(self, outcome: Outcome, acts: Iterable[Act] = ()) -> None:
        """A turn, an arrival, a hit, or what ended an instance, told others."""
        for id in outcome.ended:
            self._moved(id, "cancelled", None)
        for number, owner in outcome.told:
            self._message_sent(number, owner)
        waits = any(isinstance(act, OpenWait) for act in acts)
        if any(isinstance(act, CloseTask) for act in acts):
            # It may run in this very process.
            self._tell(Keeper.look_around)
        self._watching.open = self._watching.open or waits
        self._tell(Keeper.dispatch_came if outcome.emitted or waits else Keeper.work_came)

    def _message_sent(self, number: int, owner: int | None) -> None:
        worker = self._committer.worker
        if self._executor is not None and worker is not None and owner == worker[0]:
            self._executor.fetch_inbox(number)
        else:
            self._work_came()

    def _arrived(self, found: Iterable[Appended]) -> None:
        if any(not each.duplicate for each in found):
            dispatch = self._settings.deferred or self._watching.open
            self._tell(Keeper.dispatch_came if dispatch else Keeper.work_came)

    def _begun(self, outcome: Outcome) -> None:
        """Drive what this worker owns since the commit that made it, and tell whom it told."""
        if outcome.opened:
            self._watching.open = True
            self._tell(Keeper.dispatch_came)
        if outcome.claimed and self._executor is not None:
            self._alive.update(each.id for each in outcome.claimed)
            self._executor.load(outcome.claimed)
        if outcome.told or outcome.ended:
            self._reached_out(outcome)

    def _promise(self, count: int) -> bool:
        return self._keeper is not None and self._keeper.promise(count)

    def _redeem(self, count: int) -> None:
        if self._keeper is not None and count:
            self._keeper.redeem(count)

    def _ended_by_hand(self, id: str, outcome: Outcome) -> None:
        if self._executor is not None:
            self._executor.forget(outcome.number or 0)
            self._tell(Keeper.look_around)
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
        self._backlog.close()
        for event in self._waiters.values():
            event.set()
        self._settled()

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
        while self.state != "drained":
            self._check_open("run_until_idle")
            idle = self._idle
            self._tell(Keeper.work_came)
            await idle.wait()
            if self._keeper.idle:
                return
