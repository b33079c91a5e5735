"""Draining: a worker stops taking work, lets its steps end, and hands the rest back at once.

What has no step running is handed back first, while others still end theirs, so that another
worker can take it without waiting for the lease. What runs on past the limit is given up: it
runs again where its instance is claimed, and what it brings here is dropped.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Final

import attrs
import trio

from triggerflow.store.operations import Release, Verdict

if TYPE_CHECKING:
    from triggerflow.engine.committer import Committer
    from triggerflow.engine.executor import Executor
    from triggerflow.store.protocol import Store

log: Final = logging.getLogger("triggerflow")


@attrs.frozen
class Drained:
    """What a drain came to.

    Attributes:
        finished: steps that were running, those of queues among them, and ended within the
            limit.
        handed_back: instances that any worker may claim now.
        abandoned: steps that ran on; they run again where their instances are claimed.
    """

    finished: int = 0
    handed_back: int = 0
    abandoned: int = 0


class Draining:
    """The drain of one engine: done once, however often it is asked for.

    Attributes:
        begun: no step is begun and nothing is claimed any more.
        summary: what it came to, once it is over.
    """

    def __init__(
        self,
        *,
        store: Store,
        committer: Committer,
        executor: Executor,
        stop_keeping: Callable[[], Awaitable[None]],
    ) -> None:
        """
        Args:
            stop_keeping: ends claims, timers and heartbeats.
        """
        self.begun = False
        self.summary: Drained | None = None
        self._store = store
        self._committer = committer
        self._executor = executor
        self._stop_keeping = stop_keeping
        self._lock = trio.Lock()
        self._deadline = math.inf
        self._scope: trio.CancelScope | None = None
        self._steps = 0
        self._handed_back = 0
        self._abandoned = 0

    async def run(self, limit: float) -> Drained:
        """Drain; who comes later waits for the same drain, and may shorten its limit.

        If it is cancelled, the next call goes on where it was.
        """
        if not self.begun:
            self.begun = self._executor.draining = self._executor.tasks.draining = True
            self._steps = self._running()
        self._deadline = min(self._deadline, trio.current_time() + limit)
        if self._scope is not None:
            self._scope.deadline = self._deadline
        async with self._lock:
            if self.summary is None:
                await self._drain()
                finished = self._steps - self._abandoned
                self.summary = Drained(finished, self._handed_back, self._abandoned)
            return self.summary

    def _running(self) -> int:
        owned = sum(len(run.attempts) for run in self._executor.owned.values())
        return owned + len(self._executor.tasks.held)

    async def _drain(self) -> None:
        executor = self._executor
        with trio.CancelScope(deadline=self._deadline) as self._scope:
            await self._until_empty()
        await self._stop_keeping()
        self._abandoned += self._running()
        self._handed_back += len(executor.owned)
        executor.performer.close()
        executor.drop_all()
        worker = self._committer.worker
        if worker is not None:
            # Hands back whatever is left, what landed in this very moment included.
            await self._committer.run(lambda: self._store.forget_worker(worker[0]))
            self._committer.worker = None
        executor.drop_all()

    async def _until_empty(self) -> None:
        executor = self._executor
        while not executor.empty:
            idle = tuple(
                number
                for number, run in executor.owned.items()
                if not (run.busy or run.is_busy_beside(()))
            )
            for number in idle:
                executor.forget(number)
            if idle:
                await self._hand_back(idle)
            else:
                await executor.quieter()

    async def _hand_back(self, numbers: tuple[int, ...]) -> None:
        # Counted first: it is on its way, even if the limit ends meanwhile.
        self._handed_back += len(numbers)
        try:
            outcome = await self._committer.ask(Release(numbers))
        except Exception as error:  # noqa: BLE001
            # They are handed back with the worker's row, at the end.
            log.warning("instances could not be handed back yet: %s", error)
            return
        if outcome.verdict is not Verdict.APPLIED:
            # The lease was lost: others have them already.
            self._handed_back -= len(numbers)
