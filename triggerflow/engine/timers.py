"""Near timers: a heap of what is due while its instance is owned.

Those of parked instances are rows under an index in the store; the keeper asks for them.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable


class Timers:
    """Callbacks by due time, seconds since the epoch. Runs on the loop's thread."""

    def __init__(self, earlier: Callable[[], None]) -> None:
        """
        Args:
            earlier: called when a timer is set before all others.
        """
        self._earlier = earlier
        self._heap: list[tuple[float, int, Callable[[], None]]] = []
        self._number = 0

    def at(self, due: float, work: Callable[[], None]) -> None:
        """Call `work` once `due` has come."""
        self._number += 1
        earlier = not self._heap or due < self._heap[0][0]
        heapq.heappush(self._heap, (due, self._number, work))
        if earlier:
            self._earlier()

    def next(self) -> float | None:
        """When the next one is due."""
        return self._heap[0][0] if self._heap else None

    def fire(self, now: float) -> None:
        """Call what is due by `now`."""
        while self._heap and self._heap[0][0] <= now:
            heapq.heappop(self._heap)[2]()

    def clear(self) -> None:
        """Forget them all."""
        self._heap.clear()
