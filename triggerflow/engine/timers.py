"""Near timers: a heap of what is due while its instance is owned.

Those of parked instances are rows under an index in the store; the keeper asks for them.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable
from typing import Any, Final

# Below so many dead timers, clearing them out isn't worth it.
_FEW: Final = 64

# [due, number, work or None]: a list, so that work can be taken out while it is in the heap.
Timer = list[Any]


class Timers:
    """Callbacks by due time, seconds since the epoch. Runs on the loop's thread."""

    def __init__(self, earlier: Callable[[], None]) -> None:
        """
        Args:
            earlier: called when a timer is set before all others.
        """
        self._earlier = earlier
        self._heap: list[Timer] = []
        self._number = 0
        self._dead = 0

    def __len__(self) -> int:
        return len(self._heap) - self._dead

    def at(self, due: float, work: Callable[[], None]) -> Timer:
        """Call `work` once `due` has come; what comes back can be cancelled."""
        self._number += 1
        earlier = not self._heap or due < self._heap[0][0]
        timer = [due, self._number, work]
        heapq.heappush(self._heap, timer)
        if earlier:
            self._earlier()
        return timer

    def cancel(self, timer: Timer) -> None:
        """Forget a timer, and what it would call, at once."""
        if timer[2] is None:
            return
        timer[2] = None
        self._dead += 1
        if self._dead > _FEW and self._dead > len(self._heap) // 2:
            self._heap = [each for each in self._heap if each[2] is not None]
            heapq.heapify(self._heap)
            self._dead = 0

    def next(self) -> float | None:
        """When the next one is due."""
        while self._heap and self._heap[0][2] is None:
            heapq.heappop(self._heap)
            self._dead -= 1
        return self._heap[0][0] if self._heap else None

    def fire(self, now: float) -> None:
        """Call what is due by `now`; what is set meanwhile waits for the next time."""
        last = self._number
        while self._heap and self._heap[0][0] <= now and self._heap[0][1] <= last:
            timer = heapq.heappop(self._heap)
            work, timer[2] = timer[2], None
            if work is None:
                self._dead -= 1
            else:
                work()

    def clear(self) -> None:
        """Forget them all."""
        self._heap.clear()
        self._dead = 0
