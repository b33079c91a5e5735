"""Walks over history: backfills, paused firings that are taken up or dropped, due retries.

A backfill is a row with a cursor. A page of activities is read and planned like appends, and
its firings and the cursor's new place are one commit, so that a page is done or not, and
whoever comes next goes on from there. Two workers can't do one page twice: the cursor must
stand where it stood, and beneath it the pair of activity and trigger is unique.

Live traffic comes first. While this process brings anything in, or another one writes, the
walk rests four times as long as its page took: a fifth of the time is its share. It waits
altogether while this worker owns as many instances as it may.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Final

import trio

from triggerflow.errors import EngineClosed
from triggerflow.store.operations import Advance, PlannedFiring, Redispatch, Verdict

if TYPE_CHECKING:
    from triggerflow.engine.arrivals import Arrivals
    from triggerflow.engine.clock import Clock
    from triggerflow.engine.committer import Committer
    from triggerflow.engine.history import History
    from triggerflow.engine.pressure import Backlog
    from triggerflow.engine.reader import Reader
    from triggerflow.engine.redispatch import Redispatcher
    from triggerflow.store.history import BackfillRecord, Unstarted
    from triggerflow.store.operations import Outcome
    from triggerflow.store.protocol import Store

log: Final = logging.getLogger("triggerflow")

# One commit: so many firings, or so many activities, or so many seconds of looking.
_FIRINGS: Final = 100
_LOOKED: Final = 5000
_LONG: Final = 0.1
# Above the number of any trigger.
_LAST: Final = 2**62
# Under live traffic a walk rests so many times as long as it worked.
_REST: Final = 4
# So long after something was brought in there is live traffic still.
_LIVE: Final = 1.0
# How soon a full worker looks for a free place.
_CROWDED: Final = 0.1
_TROUBLE: Final = 0.5


class Backfills:
    """Goes through what is open, one page of each in turn. Runs on the loop's thread."""

    def __init__(
        self,
        *,
        store: Store,
        committer: Committer,
        reader: Reader,
        arrivals: Arrivals,
        history: History,
        redispatcher: Redispatcher,
        clock: Clock,
        backlog: Backlog,
        full: Callable[[], bool],
        draining: Callable[[], bool],
        started: Callable[[], None],
        begun: Callable[[Outcome], None],
        rested: Callable[[], None],
    ) -> None:
        """
        Args:
            full: whether this worker owns as many instances as it may.
            draining: whether it is about to stop, and begins nothing more.
            started: called when something was started that a worker must claim.
            begun: called with each outcome, which has whom it told something.
            rested: called when there is nothing to do for now.
        """
        self._store = store
        self._committer = committer
        self._reader = reader
        self._arrivals = arrivals
        self._history = history
        self._redispatcher = redispatcher
        self._clock = clock
        self._backlog = backlog
        self._full = full
        self._draining = draining
        self._started = started
        self._begun = begun
        self._rested = rested
        self._woken = trio.Event()
        self._look = True
        self._works = False
        self._due: float | None = None
        self._came = 0
        self._live_until = -1.0

    @property
    def busy(self) -> bool:
        """Whether there is something to do now, as far as is known."""
        return self._look or self._works

    def come(self) -> None:
        """There may be something to do."""
        self._look = True
        self._woken.set()

    def others_wrote(self) -> None:
        """Another process has written."""
        self._live_until = trio.current_time() + _LIVE
        self.come()

    async def run(self) -> None:
        """Work until cancelled."""
        while True:
            await self._sleep()
            self._look, self._works = False, True
            try:
                self._look = await self._round() or self._look
            except EngineClosed:
                return
            except Exception:
                log.exception("a backfill could not go on; trying again")
                await trio.sleep(_TROUBLE)
                self._look = True
            finally:
                self._works = False
            if not self._look:
                self._rested()

    async def _sleep(self) -> None:
        while not self._look and not self._is_due():
            pause = float("inf")
            if self._due is not None:
                # A wall clock can be set while we sleep.
                pause = min(self._clock.recheck, max(0.0, self._due - self._clock.now()))
            with trio.move_on_after(pause):
                await self._woken.wait()
        self._woken = trio.Event()

    def _is_due(self) -> bool:
        return self._due is not None and self._due <= self._clock.now()

    async def _round(self) -> bool:
        """Do what is due, and a page of each walk; whether there may be more to do."""
        if self._draining():
            return False
        await self._try_again()
        more = False
        for record in await self._reader.ask(lambda: self._store.backfills(open_only=True)):
            if record.state != "running" or not await self._is_ours(record):
                continue
            if self._draining():
                return False
            if self._full():
                await trio.sleep(_CROWDED)
                return True
            began = trio.current_time()
            if await self._page(record):
                more = True
                await self._yield(trio.current_time() - began)
        return more

    async def _yield(self, took: float) -> None:
        """Let live traffic have its share."""
        now = trio.current_time()
        if self._backlog.came != self._came:
            self._came = self._backlog.came
            self._live_until = now + _LIVE
        await trio.sleep(_REST * took if now < self._live_until else 0)

    # --- dispatches that failed and are due again

    async def _try_again(self) -> None:
        now = self._clock.now()
        after: tuple[float, int] | None = (0.0, 0)
        while after is not None:
            # Page by page: those that another worker must do, who has their guard's code, don't
            # hide the others.
            read = partial(self._store.due_dispatches, now, after=after, limit=_FIRINGS)
            rows = await self._reader.ask(read)
            if rows:
                counts = await self._redispatcher.carry_out(rows, "retry")
                if counts["started"] or counts["failed"]:
                    self._started()
            after = (rows[-1].due or 0.0, rows[-1].id) if len(rows) == _FIRINGS else None
        self._due = await self._reader.ask(lambda: self._store.next_dispatch(now))

    # --- walks

    async def _is_ours(self, record: BackfillRecord) -> bool:
        """Whether it can move, and this worker has the code that it needs."""
        mine = self._committer.worker
        if record.owner is not None and (mine is None or record.owner != mine[0]):
            return False
        if record.kind == "skip":
            return True
        if record.kind == "backfill" and record.current is None:
            now = self._clock.now()
            reason = "its trigger was superseded or retired"
            await self._committer.run(
                lambda: self._store.set_backfill(record.id, "cancelled", now=now, reason=reason)
            )
            return False
        if record.current not in ("active", None):
            return False
        if record.spec is None:
            # Where its name has no trigger any more, or none that can be read, whoever comes.
            trigger = self._arrivals.named(record.trigger)
        else:
            trigger = self._arrivals.one(record.spec, record.options)
            if trigger is None:
                return False
        guard = None if trigger is None else trigger.guard
        return guard is None or guard.fn is not None

    async def _page(self, record: BackfillRecord) -> bool:
        """Move on by one commit; whether there may be more to do."""
        look = {"backfill": self._fill, "resume": self._resume, "skip": self._skip}
        operation = await look[record.kind](record)
        outcome = await self._committer.ask(operation, self._begun)
        if outcome.verdict is Verdict.STALE:
            await self._arrivals.look_again()
            return True
        if outcome.verdict is not Verdict.APPLIED:
            # Paused, cancelled, or another worker was faster.
            return False
        if operation.firings or operation.again:
            self._started()
        return True

    async def _fill(self, record: BackfillRecord) -> Advance:
        found = Advance(
            record.id, record.cursor, record.cursor, self._arrivals.registry, self._clock.now()
        )
        trigger = self._arrivals.one(record.spec or b"", record.options)
        assert trigger is not None
        began = trio.current_time()
        while found.to < (record.span.last or 0):
            page = await self._history.page(trigger, record.span, found.to)
            found.to = page.to
            found.looked += page.looked
            found.known += page.known
            found.removed += page.removed
            found.firings += page.firings
            long = trio.current_time() - began >= _LONG
            if len(found.firings) >= _FIRINGS or found.looked >= _LOOKED or long:
                break
        return found

    async def _paused(self, record: BackfillRecord) -> list[Unstarted]:
        """The next firings to take up or drop, all that an activity has or none."""
        rows = await self._reader.ask(
            lambda: self._store.unstarted(
                ("paused",),
                trigger=record.trigger,
                after=(record.cursor, _LAST),
                last=record.span.last,
                limit=_FIRINGS,
            )
        )
        if len(rows) == _FIRINGS and rows[0].seq != rows[-1].seq:
            rows = [row for row in rows if row.seq != rows[-1].seq]
        return rows

    async def _resume(self, record: BackfillRecord) -> Advance:
        registry, now = self._arrivals.registry, self._clock.now()
        rows = await self._paused(record)
        again, left = await self._redispatcher.plan(rows, "resume")
        return Advance(
            record.id,
            record.cursor,
            rows[-1].seq if rows else record.cursor,
            registry,
            now,
            looked=len(rows),
            known=left["paused"] + left["unreadable"],
            removed=left["removed"],
            again=tuple(again),
            done=not rows,
        )

    async def _skip(self, record: BackfillRecord) -> Advance:
        registry, now = self._arrivals.registry, self._clock.now()
        rows = await self._paused(record)
        again = [
            Redispatch(
                row.id,
                row.changes,
                PlannedFiring(row.trigger_cid, outcome="skipped", attempts=row.attempts),
                registry,
                now,
                "resume",
            )
            for row in rows
        ]
        return Advance(
            record.id,
            record.cursor,
            rows[-1].seq if rows else record.cursor,
            registry,
            now,
            looked=len(rows),
            again=tuple(again),
            done=not rows,
        )
