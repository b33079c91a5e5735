"""Time limits of plain steps. A thread can't be stopped, only waited for and fenced.

An attempt that overran is given one more timeout to end in: another attempt beside it might
do its work twice at once. If it ends, it counts as failed and the retry policy decides; if
not, the call fails for good, and what the thread brings later is dropped.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from triggerflow.engine.performer import Attempt
from triggerflow.errors import TimedOut

if TYPE_CHECKING:
    from triggerflow.engine.clock import Clock
    from triggerflow.engine.performer import Performer
    from triggerflow.engine.timers import Timers


class Limits:
    """Watches attempts that have a timeout. Runs on the loop's thread."""

    def __init__(
        self,
        timers: Timers,
        performer: Performer,
        clock: Clock,
        finished: Callable[[list[Attempt]], None],
    ) -> None:
        """
        Args:
            timers: by the steady clock: one that is set must not cut a step short.
            finished: gets attempts that were given up.
        """
        self._timers = timers
        self._performer = performer
        self._clock = clock
        self._finished = finished

    def watch(self, attempt: Attempt, timeout: float) -> None:
        """Look at an attempt once its time has passed."""
        self._set(attempt, timeout, timeout)

    def _set(self, attempt: Attempt, wait: float, timeout: float) -> None:
        timer = self._timers.at(
            self._clock.steady() + wait, partial(self._look, attempt, timeout)
        )
        attempt.stop_timer = partial(self._timers.cancel, timer)

    def _look(self, attempt: Attempt, timeout: float) -> None:
        if attempt.over or attempt.failure is not None or attempt.blob is not None:
            return
        if attempt.owner.attempts.get(attempt.tag) is not attempt:
            return
        left = timeout
        if attempt.begun is not None:
            left += attempt.begun - self._clock.steady()
        if not attempt.overdue and left > 0:
            # It waited for a thread: its time runs from its start.
            self._set(attempt, left, timeout)
        elif not attempt.overdue:
            attempt.overdue = True
            self._performer.replace_thread(attempt)
            self.watch(attempt, timeout)
        else:
            self._give_up(attempt)

    def _give_up(self, attempt: Attempt) -> None:
        attempt.cancel("timed_out")
        given_up = Attempt(
            attempt.owner, attempt.tag, attempt.name, attempt.fn, (), {}, attempt.number
        )
        given_up.fail(TimedOut(attempt.tag, still_running=True))
        # Without an error the retry policy isn't asked.
        given_up.error = None
        attempt.owner.replace(attempt, given_up)
        self._finished([given_up])
