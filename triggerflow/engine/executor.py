"""The executor: owns instances, takes their turns, and performs what a commit allows.

The durability guarantee stands here: only this module submits turns, and a call is handed
to the performer by the callback of the commit that armed it, never before.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Final

import trio

from triggerflow.core.outcomes import Continued
from triggerflow.engine.attempts import Attempts
from triggerflow.engine.drive import Around
from triggerflow.engine.heartbeats import Heartbeats, flush, forget, over
from triggerflow.engine.running import Running
from triggerflow.engine.starter import Starter
from triggerflow.engine.tasks import Held, Tasks
from triggerflow.engine.timers import Timers
from triggerflow.engine.turn import Taken, take
from triggerflow.engine.warm import Warm
from triggerflow.errors import Diverged
from triggerflow.store.operations import Block, Outcome, Release, Verdict
from triggerflow.store.records import ENDED, SUSPECT

if TYPE_CHECKING:
    from triggerflow.core.driver import Replay
    from triggerflow.engine.clock import Clock
    from triggerflow.engine.committer import Committer
    from triggerflow.engine.performer import Attempt
    from triggerflow.store.acts import Act
    from triggerflow.store.protocol import Store
    from triggerflow.store.records import Claimed, InboxRow

log: Final = logging.getLogger("triggerflow")

_INBOX_AGAIN: Final = 0.5


class Executor:
    """All instances that this worker owns. Everything here runs on the loop's thread.

    Attributes:
        owned: number -> instance.
        warm: parked instances whose live replay is kept.
        draining: perform nothing new; what runs may end.
    """

    def __init__(
        self,
        *,
        store: Store,
        committer: Committer,
        around: Around,
        clock: Clock,
        build: str,
        nursery: trio.Nursery,
        threads: int,
        keep_warm: int,
        inline: bool,
        always_replay: bool,
        lease: float,
        moved: Callable[[str, str, float | None], None],
        told: Callable[[Outcome, tuple[Act, ...]], None],
        fenced: Callable[[], None],
        timer_set: Callable[[], None],
        task_ended: Callable[[], None],
        queues: tuple[str, ...] = (),
    ) -> None:
        """
        Args:
            around: what a turn needs of the app.
            moved: called with (public id, new status, due time) when an instance parks,
                ends or blocks, or becomes runnable again.
            told: called with outcome and acts of each turn that reached out to others.
            fenced: called when this worker turns out to have lost its lease.
            timer_set: called when an earlier timer than before was set.
            task_ended: called when a task is held no longer.
            queues: whose tasks are run here.
        """
        self.owned: dict[int, Running] = {}
        self.warm = Warm(keep_warm)
        self.draining = False
        self._task_ended_here = task_ended
        self._store = store
        self._committer = committer
        self._around = around
        self._codec = codec = around.codec
        self._clock = clock
        self._build = build
        self._nursery = nursery
        self._always_replay = always_replay
        self._timer_set = timer_set
        self._moved = moved
        self._told = told
        self._fenced = fenced
        self._suspects: dict[int, Running] = {}
        self._quieter = trio.Event()
        self._timers = Timers(timer_set)
        # By the steady clock: what is not stored doesn't follow a wall clock that is set.
        self._steady = Timers(timer_set)
        self._attempts = Attempts(
            store=store,
            committer=committer,
            codec=codec,
            clock=clock,
            nursery=nursery,
            timers=self._steady,
            threads=threads,
            inline=inline,
            lease=lease,
            ended=self._ended,
            unwanted=self._unwanted,
            landed=self.fetch_inbox,
            refused=self._lost,
        )
        self.performer = self._attempts.performer
        self.tasks = Tasks(
            store=store,
            committer=committer,
            codec=codec,
            clock=clock,
            nursery=nursery,
            steps=around.steps,
            queues=queues,
            most=threads,
            attempts=self._attempts,
            told=told,
            fenced=fenced,
            ended=self._task_ended,
        )
        self._heartbeats = Heartbeats(committer, codec, clock, self._lost)
        self._starter = Starter(
            store=store,
            committer=committer,
            codec=codec,
            attempts=self._attempts,
            heartbeats=self._heartbeats,
            later=self._later,
            finished=self._attempts.finished,
        )

    # --- taking over

    def load(self, claimed: Iterable[Claimed]) -> None:
        """Own these instances: re-drive them, and go on."""
        with self._committer.gathering():
            for each in claimed:
                self._load(each)

    def _load(self, claimed: Claimed) -> None:
        flow = self._around.flows.get(claimed.flow, claimed.version)
        run = Running(claimed, flow, self._clock.now(), self._codec)
        self.owned[run.number] = run
        if run.crashes >= SUSPECT:
            self._suspects[run.number] = run
        warm = self.warm.fitting(claimed)
        try:
            if warm is not None and not run.retried:
                # Nothing ran when it was parked, so nothing need be performed.
                run.take_over(warm)
            else:
                if warm is not None:
                    warm.drop()
                rows, pending = claimed.log, claimed.pending
                if rows is None:
                    # It was warm when the claim was made, and isn't any more.
                    rows = tuple(self._store.log(run.number, run.generation))
                    record = self._store.instance(run.id)
                    pending = None if record is None else record.pending
                replay = run.redrive(rows, pending, self._codec)
                # Every call that runs nowhere must be performed; those of the stored
                # pending set were armed by an owner that is gone.
                replay.armed[:] = list(replay.pending)
        except Exception as error:  # noqa: BLE001
            self._block(run, error)
            return
        run.note_due(self._clock.now())
        run.watch(self._timers, self._timer_fired)
        self._turn(run)

    def _block(self, run: Running, error: Exception) -> None:
        reason = str(error)
        if not isinstance(error, Diverged):
            reason = f"its log can't be replayed here: {type(error).__name__}: {reason}"
            log.warning("instance %s blocks: %s", run.id, reason, exc_info=error)

        def landed(outcome: Outcome | Exception) -> None:
            if isinstance(outcome, Exception):
                log.warning("instance %s could not be blocked: %s", run.id, outcome)
                self._nursery.start_soon(self._block_later, run, error)
                return
            self._forget(run)
            if outcome.verdict is Verdict.APPLIED:
                self._moved(run.id, "blocked", None)

        run.busy = True
        self._committer.submit(
            Block(run.number, run.generation, run.log_length, "diverged", reason, self._build),
            landed,
        )

    async def _block_later(self, run: Running, error: Exception) -> None:
        run.trouble += 1
        await trio.sleep(run.pause)
        if not run.gone:
            self._block(run, error)

    def _lost(self, run: Running, outcome: Outcome) -> None:
        """A write was refused: the instance, or the whole worker, is another's."""
        if outcome.detail == "worker":
            self._forget(run)
            self._fenced()
        elif self.owned.get(run.number) is run:
            if outcome.verdict is Verdict.GONE:
                run.drop("ended")
            self._hand_back(run)
        # Else it has parked: a loser spoke while the turn by which it lost was in flight.

    def _hand_back(self, run: Running) -> None:
        """The store knows more of it than we do: let the next claim read it anew."""
        self._forget(run)
        self._committer.submit(
            Release((run.number,)), lambda _: self._moved(run.id, "running", None)
        )

    def forget(self, number: int) -> None:
        """An instance has ended without a turn of ours, or is handed back."""
        run = self.owned.get(number) or self.warm.pop(number)
        if run is not None:
            self._forget(run, "ended")

    def _forget(self, run: Running, cause: str = "lease_lost") -> None:
        self._quieter.set()
        run.drop(cause)
        run.unwatch(self._timers)
        if self.owned.get(run.number) is run:
            del self.owned[run.number]
            self._suspects.pop(run.number, None)

    @property
    def empty(self) -> bool:
        """Whether nothing is owned, and no task held."""
        return not self.owned and not self.tasks.held

    @property
    def has_suspect(self) -> bool:
        """Whether an owned instance must run alone."""
        return bool(self._suspects) and any(
            run.crashes >= SUSPECT for run in self._suspects.values()
        )

    async def quieter(self) -> None:
        """Return once a turn has landed, or an instance or a task is gone."""
        self._quieter = trio.Event()
        await self._quieter.wait()

    def drop_all(self) -> None:
        """The lease is lost: nothing here is ours any more."""
        cause = "closed" if self.performer.closed else "lease_lost"
        for run in self.owned.values():
            run.drop(cause)
        self.warm.clear(cause)
        self.tasks.drop_all(cause)
        self.owned.clear()
        self._suspects.clear()
        self._timers.clear()
        self._steady.clear()

    # --- what comes in

    def receive(self, number: int, rows: Iterable[InboxRow]) -> None:
        """Messages for an owned instance; of others, the next claim reads them."""
        run = self.owned.get(number)
        if run is not None and not run.gone and run.receive(rows):
            self._turn(run)

    def _ended(self, attempt: Attempt) -> None:
        if isinstance(attempt.owner, Held):
            self.tasks.finished(attempt)
            return
        run: Running = attempt.owner
        flush(attempt)
        run.results.append(attempt)
        self._turn(run)

    def _task_ended(self) -> None:
        self._quieter.set()
        self._task_ended_here()

    def _unwanted(self, attempt: Attempt) -> None:
        run = attempt.owner
        if not isinstance(run, Running):
            return
        self._quieter.set()
        owed = self._starter.ended(run, attempt, begin=not self.draining)
        if owed and not run.is_busy_beside(()):
            # It was owned for this attempt's sake, and may park now.
            run.fresh = True
            self._turn(run)

    # --- the turn

    def _turn(self, run: Running) -> None:
        replay = run.replay
        if run.busy or run.gone or replay is None:
            return
        try:
            if self._always_replay and not replay.armed:
                rows = self._store.log(run.number, run.generation)
                replay = run.drive_again(rows, self._codec)
            taken = take(run, replay, around=self._around, now=self._clock.now())
        except Exception as error:  # noqa: BLE001
            self._block(run, error)
            return
        run.busy = True
        taken.operation.progress_over = over(run)
        self._committer.submit(
            taken.operation, lambda outcome: self._landed(run, replay, taken, outcome)
        )

    def _landed(
        self, run: Running, replay: Replay, taken: Taken, outcome: Outcome | Exception
    ) -> None:
        self._quieter.set()
        if isinstance(outcome, Outcome) and outcome.verdict is Verdict.APPLIED:
            self._pass_on(taken, outcome)
        if run.gone:
            return
        run.busy = False
        if isinstance(outcome, Exception):
            if not self.draining:
                self._troubled(run, taken, outcome)
            return
        if outcome.verdict is not Verdict.APPLIED:
            if outcome.refusals:
                self._refused(run, taken, outcome)
            else:
                self._lost(run, outcome)
            return
        operation = taken.operation
        run.trouble = 0
        run.refused.clear()
        run.log_length += len(operation.entries)
        run.turns += 1
        forget(run, operation.progress_over)
        for tag, cause in taken.lost.items():
            run.give_up(tag, cause)
        if operation.entries and run.crashes:
            run.crashes = 0
            # It need no longer be alone.
            self._timer_set()
        if operation.status in ENDED or isinstance(replay.outcome, Continued):
            self._forget(run)
            self._moved(run.id, operation.status, None)
            return
        if operation.status == "waiting" and not outcome.woken:
            self._park(run, operation.due)
            return
        if self.draining:
            # The next turn must not park it beside what was never begun.
            replay.armed += taken.perform
        else:
            for tag in taken.perform:
                self._starter.perform(run, replay, tag)
        run.watch(self._timers, self._timer_fired)
        if outcome.woken:
            run.fresh = True
            self.fetch_inbox(run.number)
        elif run.results or run.due or run.fresh:
            # What came while this turn was in flight.
            self._turn(run)

    def _pass_on(self, taken: Taken, outcome: Outcome) -> None:
        # The first turn of a batch speaks for all of it, whatever it did itself, and whatever
        # has become of its instance.
        acts = taken.operation.acts
        if acts or outcome.told or outcome.emitted or outcome.ended:
            self._told(outcome, acts)

    def _park(self, run: Running, due: float | None) -> None:
        del self.owned[run.number]
        self._suspects.pop(run.number, None)
        run.unwatch(self._timers)
        self.warm.keep(run)
        self._moved(run.id, "waiting", due)

    def fetch_inbox(self, number: int) -> None:
        """Read an owned instance's unread messages and take them."""

        def deliver(rows: list[InboxRow] | Exception) -> None:
            if not isinstance(rows, Exception):
                self.receive(number, rows)
            elif number in self.owned:
                log.warning("an inbox could not be read, trying again: %s", rows)
                self._later(_INBOX_AGAIN, lambda: self.fetch_inbox(number))

        run = self.owned.get(number)
        after = 0 if run is None else run.inbox_seen
        self._committer.call(lambda: self._store.inbox(number, after), deliver)

    def _troubled(self, run: Running, taken: Taken, error: Exception) -> None:
        """The commit failed: keep the resolutions, drop the replay, try again later."""
        self._take_back(run, taken)
        run.trouble += 1
        log.warning("instance %s: its turn could not be stored: %s", run.id, error)
        self._nursery.start_soon(self._reload, run)

    def _refused(self, run: Running, taken: Taken, outcome: Outcome) -> None:
        """An act of the turn can't be done: its effect fails when the turn is taken again."""
        run.note_refusals(taken.operation, outcome.refusals)
        self._take_back(run, taken)
        self._nursery.start_soon(self._reload, run)

    def _take_back(self, run: Running, taken: Taken) -> None:
        run.give_back(taken.results, taken.messages)
        if run.replay is not None:
            # It has gone on from what isn't stored; nothing may be taken with it any more.
            run.replay.close()
            run.replay = None

    async def _reload(self, run: Running) -> None:
        if run.trouble:
            await trio.sleep(run.pause)
        if run.gone:
            return
        try:
            record, rows = await self._committer.run(
                lambda: (
                    self._store.instance(run.id),
                    self._store.log(run.number, run.generation),
                )
            )
            if record is None or len(rows) != run.log_length:
                # The commit did land, whatever the store said.
                self._hand_back(run)
                return
            run.reread(record, rows, self._codec)
        except Diverged as diverged:
            self._block(run, diverged)
            return
        except Exception as error:  # noqa: BLE001
            run.trouble += 1
            log.warning("instance %s: its log could not be read: %s", run.id, error)
            self._nursery.start_soon(self._reload, run)
            return
        if run.replay is not None:
            run.replay.armed[:] = list(run.replay.pending)
        run.note_due(self._clock.now())
        self._turn(run)

    # --- timers

    def _later(self, seconds: float, work: Callable[[], None]) -> None:
        self._steady.at(self._clock.steady() + seconds, work)

    def _timer_fired(self, run: Running) -> None:
        if run.gone or self.owned.get(run.number) is not run:
            return
        run.note_due(self._clock.now())
        if run.due:
            self._turn(run)
        else:
            # The clock was set back in this very moment: it comes again.
            run.watch(self._timers, self._timer_fired)

    def next_timers(self) -> tuple[float | None, float | None]:
        """When the next ones fire: by the wall clock, and by the steady one."""
        return self._timers.next(), self._steady.next()

    def fire_timers(self) -> None:
        """Run what is due."""
        with self._committer.gathering():
            self._timers.fire(self._clock.now())
            self._steady.fire(self._clock.steady())
