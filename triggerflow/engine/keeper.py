"""The keeper: one task that claims, fires timers, keeps the lease and reaps the dead."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

import trio

from triggerflow.engine.alone import Alone
from triggerflow.engine.silence import Silence
from triggerflow.errors import EngineClosed
from triggerflow.store.operations import Claim, Outcome, Release

if TYPE_CHECKING:
    from triggerflow.engine.arrivals import Arrivals
    from triggerflow.engine.backfill import Backfills
    from triggerflow.engine.clock import Clock
    from triggerflow.engine.committer import Committer
    from triggerflow.engine.executor import Executor
    from triggerflow.engine.watching import Watching
    from triggerflow.store.protocol import Store

log: Final = logging.getLogger("triggerflow")

_LARGEST_CLAIM: Final = 256
# How long to wait before a store that failed is tried again.
_TROUBLE: Final = 0.5
# How often a full worker asks whether more is runnable.
_LOOK: Final = 1.0
_OUTBOX_PAGE: Final = 100


class Keeper:
    """Keeps a working engine supplied with work. Runs on the loop's thread."""

    def __init__(
        self,
        *,
        store: Store,
        committer: Committer,
        executor: Executor,
        arrivals: Arrivals,
        watching: Watching,
        clock: Clock,
        build: str,
        flows: frozenset[tuple[str, int]],
        lease: float,
        capacity: int,
        only_queues: bool,
        walks: Backfills | None,
        settled: Callable[[], None],
        caught_up: Callable[[], None],
    ) -> None:
        """
        Args:
            lease: seconds without a sign of life after which a worker counts as dead.
            capacity: how many instances may be owned at once.
            only_queues: own none at all, and run tasks alone.
            walks: what goes through history here.
            settled: called when there was nothing more to claim.
            caught_up: called when nothing runnable waits for a place here.
        """
        self._store = store
        self._committer = committer
        self._executor = executor
        self._arrivals = arrivals
        self._watching = watching
        self._clock = clock
        self._build = build
        self._flows = flows
        self._lease = lease
        self._capacity = capacity
        self._only_queues = only_queues
        self._walks = walks
        self._settled = settled
        self._caught_up = caught_up
        self._nursery: trio.Nursery | None = None
        self._woken = trio.Event()
        self._work = True
        self._look_around = True
        self._fenced = False
        self._next_sign = -math.inf
        self._emptying = False
        self._due: float | None = None
        self._outbox_after = 0
        self._dispatching = True
        self._dispatcher_runs = False
        self._behind: float | None = None
        self._promised = 0
        self._alone = Alone()
        self._next_look = -math.inf
        self._silence = Silence(lease)

    # --- what others tell it

    def work_came(self) -> None:
        """Something may be runnable."""
        self._work = True
        self._executor.tasks.come()
        self._woken.set()

    def dispatch_came(self) -> None:
        """Something may be in the outbox, or meet a wait."""
        self._dispatching = True
        self.work_came()

    def others_wrote(self) -> None:
        """Another process has written."""
        self._look_around = True
        self._watching.open = True
        self.dispatch_came()

    def parked(self, due: float | None) -> None:
        """An instance was parked until `due`."""
        if due is not None and (self._due is None or due < self._due):
            self._due = due
            self._woken.set()

    def place_freed(self) -> None:
        """An owned instance, or a task, is gone: another may be taken, or all is quiet."""
        tasks = self._executor.tasks
        if self._work or self._executor.empty or self._is_due() or tasks.wanted():
            self._woken.set()

    def look_around(self) -> None:
        """What is owned or held here may have been written to."""
        self._look_around = True
        self._woken.set()

    def lease_lost(self) -> None:
        """A commit was fenced: begin again as a new worker."""
        self._fenced = True
        self._woken.set()

    def timer_set(self) -> None:
        """An earlier timer was set."""
        self._woken.set()

    def look_again(self) -> None:
        """The committer, which was busy with something else, may be idle now."""
        self._woken.set()

    @property
    def crowded(self) -> bool:
        """Whether more is runnable than this worker may own, as it last found out."""
        full = self._free <= 0 and not self._executor.draining
        return full and self._behind is not None

    @property
    def full(self) -> bool:
        """Whether this worker owns as many as it may, so that what starts now waits."""
        return self._free <= 0

    @property
    def _free(self) -> int:
        return self._capacity - len(self._executor.owned) - self._promised

    @property
    def lag(self) -> float:
        """Seconds since runnable instances began to wait for a place; 0 if none does."""
        return 0.0 if self._behind is None else trio.current_time() - self._behind

    @property
    def idle(self) -> bool:
        """Whether nothing is runnable, owned or deferred, as far as this worker can tell."""
        return not (
            self._work
            or self._look_around
            or self._fenced
            or self._dispatching
            or self._dispatcher_runs
            or (self._walks is not None and self._walks.busy)
            or not self._executor.empty
            or self._executor.tasks.look
            or not self._committer.idle
        )

    # --- its life

    async def register(self) -> None:
        """Become a worker with an epoch of its own."""
        self._committer.worker = await self._committer.run(
            lambda: self._store.register_worker(
                build=self._build,
                flows=sorted(self._flows),
                serves=self._executor.tasks.serves,
                now=self._clock.now(),
            )
        )

    async def run(self) -> None:
        """Work until cancelled."""
        # What is dispatched beside the rounds ends with them: the store is closed next.
        async with trio.open_nursery() as self._nursery:
            await self._rounds()
            self._nursery.cancel_scope.cancel()

    async def _rounds(self) -> None:
        beat = self._lease / 3
        next_beat = trio.current_time()
        while True:
            try:
                now = trio.current_time()
                if now >= next_beat:
                    # Without a lease there is nothing to keep: dead processes that left
                    # work behind are looked for once.
                    next_beat = math.inf if math.isinf(beat) else now + min(beat, 1.0)
                    await self._keep_lease()
                    # A floor: a wake-up that got lost costs a second, not the flow.
                    self._work = True
                    self._executor.tasks.come()
                    self._dispatching = self._dispatching or self._watching.open
                await self._round()
            except EngineClosed:
                return
            except Exception:
                # A full disk, a lost connection: the store may come back, and what is
                # owned must not be dropped for it.
                log.exception("the store could not be used; trying again")
                self._work = True
                await trio.sleep(_TROUBLE)
                continue
            await self._rest(next_beat)

    async def _round(self) -> None:
        self._executor.fire_timers()
        if self._fenced:
            await self._begin_again()
        if self._look_around:
            await self._fetch_messages()
        if self._dispatching and not self._dispatcher_runs:
            # Beside this loop: guards are the user's code and may take their time.
            self._dispatcher_runs = True
            assert self._nursery is not None
            self._nursery.start_soon(self._dispatch_until_done)
        await self._claim_in_turn()
        if self.idle:
            self._settled()

    async def _claim_in_turn(self) -> None:
        resting = self._alone.resting and self._takes_anything()
        tasks_first = self._alone.tasks_first(waits=self._executor.tasks.emptying)
        if tasks_first:
            await self._claim_tasks()
        if self._work or self._is_due():
            await self._claim()
        if not tasks_first:
            await self._claim_tasks()
        if resting:
            # Innocents could come, as far as there are any.
            self._alone.resting = False

    async def _rest(self, next_beat: float) -> None:
        now = self._clock.now()
        near, limit = self._executor.next_timers()
        tasks = self._executor.tasks
        timers = [
            near,
            self._due if self.can_take() else None,
            tasks.due if self._can_take_tasks() else None,
        ]
        pause = min((due - now for due in timers if due is not None), default=math.inf)
        if limit is not None:
            pause = min(pause, limit - self._clock.steady())
        # A wall clock can be set while we sleep, hence the recheck.
        pause = min(pause, self._clock.recheck, next_beat - trio.current_time())
        if self._work and self._free <= 0:
            pause = min(pause, self._next_look - trio.current_time())
        if self.can_take() and (self._work or self._fenced or self._look_around):
            pause = 0
        if tasks.look and self._can_take_tasks():
            pause = 0
        with trio.move_on_after(max(0.0, pause)):
            await self._woken.wait()
        self._woken = trio.Event()

    def _is_due(self) -> bool:
        return self._due is not None and self._due <= self._clock.now()

    def can_take(self) -> bool:
        """Whether this worker may own more instances now."""
        if self._free <= 0 or self._only_queues:
            return False
        return self._takes_anything()

    def _takes_anything(self) -> bool:
        executor = self._executor
        if executor.draining:
            return False
        if (self._emptying or executor.tasks.emptying) and not self._is_empty:
            return False
        # Someone whose owners died twice runs with nothing else in this process.
        return not (executor.has_suspect or executor.tasks.has_suspect)

    @property
    def _is_empty(self) -> bool:
        """Whether nothing is owned or held, nor about to be: a suspect may come."""
        return self._executor.empty and not self._promised

    def _can_take_tasks(self) -> bool:
        return self._takes_anything() and self._executor.tasks.can_take(alone=self._is_empty)

    async def _claim_tasks(self) -> None:
        tasks = self._executor.tasks
        if tasks.wanted() and self._can_take_tasks():
            with self._alone.asking(empty=self._is_empty) as alone:
                await tasks.claim(alone=alone)
            if tasks.has_suspect:
                self._alone.came("task")

    def promise(self, count: int) -> bool:
        """Keep places for so many instances that are about to start, if there are as many."""
        # Where older ones wait for a place, it is theirs. What is on its way may be one that
        # must run alone.
        if self._behind is not None or self._alone.asked:
            return False
        if not self.can_take() or self._free < count:
            return False
        self._promised += count
        return True

    def redeem(self, count: int) -> None:
        """They have started, and are owned, or they won't."""
        self._promised -= count
        self.place_freed()

    async def _claim(self) -> None:
        if self._only_queues:
            self._work = False
        elif not self.can_take():
            if self._free <= 0:
                await self._look_behind()
        else:
            await self._claim_instances()

    async def _claim_instances(self) -> None:
        self._work = self._emptying = False
        # Whoever parks while the claim is on its way says so itself.
        self._due = None
        limit = min(_LARGEST_CLAIM, self._free)
        with self._alone.asking(empty=self._is_empty) as alone:
            found = await self._committer.ask(
                Claim(
                    limit=limit,
                    blocked=max(1, limit // 10),
                    build=self._build,
                    flows=self._flows,
                    now=self._clock.now(),
                    alone=alone,
                    warm=self._executor.warm.turns,
                )
            )
            self._take_over(found)

    async def _look_behind(self) -> None:
        """Find out whether anything waits for a place, since all are taken."""
        if trio.current_time() < self._next_look:
            return
        self._next_look = trio.current_time() + _LOOK
        # What comes while the question is on its way says so itself.
        self._work = False
        if await self._committer.run(self._store.runnable):
            self._work = True
            self._fell_behind()
        else:
            self._catch_up()

    def _catch_up(self) -> None:
        self._behind = None
        self._caught_up()

    def _fell_behind(self) -> None:
        if self._behind is None:
            self._behind = trio.current_time()

    def _take_over(self, found: Outcome) -> None:
        if found.detail == "worker":
            self._fenced = True
            return
        self.parked(found.next_due)
        self._executor.load(found.claimed)
        if self._executor.has_suspect:
            self._alone.came("instance")
        self._work = self._work or found.more
        if not found.more:
            self._catch_up()
        else:
            self._fell_behind()
        if found.suspects:
            # They run alone, so nothing new is taken until this worker is empty. It may be
            # so by now, though it wasn't when the claim was sent.
            self._work = True
            self._emptying = not self._is_empty

    async def _keep_lease(self) -> None:
        """Show that we live, and free what the dead owned."""
        # Also while nothing is owned: a worker that looks dead is removed, and what only it
        # knows would block. Ten times a lease is often enough for one that idles.
        if not self._executor.empty or trio.current_time() >= self._next_sign:
            self._next_sign = trio.current_time() + self._lease / 10
            found = await self._committer.ask(Release(()))
            if found.detail == "worker":
                self._fenced = True
                return
        if self._executor.tasks.held:
            # What was withdrawn meanwhile must not run on.
            self._look_around = True
        moment = trio.current_time()
        if await self._committer.run(lambda: self._reap(moment)):
            self.work_came()
            # What they held may have been told to instances of ours.
            self._look_around = True
            if self._walks is not None:
                self._walks.come()

    def _reap(self, moment: float) -> int:
        workers = self._store.workers()
        silent = self._silence.look(workers, moment)
        if not silent and all(each.alive for each in workers):
            return 0
        return self._store.reap(silent)

    async def _begin_again(self) -> None:
        self._executor.drop_all()
        await self.register()
        self._fenced = False
        self.work_came()

    async def _fetch_messages(self) -> None:
        self._look_around = False
        if self._committer.worker is None:
            return
        worker = self._committer.worker[0]
        for number, rows in await self._committer.run(lambda: self._store.woken(worker)):
            self._executor.receive(number, rows)
        await self._executor.tasks.look_after()

    async def _dispatch_until_done(self) -> None:
        try:
            while self._dispatching:
                await self._dispatch()
        except EngineClosed:
            return
        except Exception:
            log.exception("deferred dispatches could not be carried out; trying again")
            await trio.sleep(_TROUBLE)
            self._dispatching = True
        finally:
            self._dispatcher_runs = False
            self._woken.set()

    async def _dispatch(self) -> None:
        """Carry out what others deferred, as far as this process has the code."""
        self._dispatching = False
        rows = await self._committer.run(
            lambda: self._store.outbox(_OUTBOX_PAGE, self._outbox_after)
        )
        if rows:
            await self._arrivals.look_again()
            if await self._arrivals.dispatch(rows):
                self._work = True
        # Rows that stay (their guard isn't here) are passed over until others write.
        if self._watching.open:
            await self._watching.scan()
        self._outbox_after = rows[-1].id if len(rows) == _OUTBOX_PAGE else 0
        if len(rows) == _OUTBOX_PAGE:
            self._dispatching = True
