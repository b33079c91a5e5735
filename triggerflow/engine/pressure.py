"""Back-pressure: who brings work in waits for room; what the engine itself does never waits.

Two things can pile up. Operations pile up in the committer while the store is slow: there
`Backlog` lets only so many in at a time, first come first served. Runnable instances pile up
in the store while this worker is full: there `Crowd` slows those who would start more, each
for a bounded time, since one of them may be a step of the very instances that fill it.
Nothing is refused or dropped.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Final

import attrs
import trio

from triggerflow.errors import EngineClosed


@attrs.define(slots=True, eq=False)
class _Place:
    """Somebody in line."""

    size: int = 1
    turn: trio.Event = attrs.field(factory=trio.Event)
    admitted: bool = False


class Backlog:
    """Room for the operations of callers in the committer. Runs on the loop's thread.

    Attributes:
        used: how many operations are in.
        came: how many have come in, ever.
    """

    def __init__(self, limit: int) -> None:
        self.used = self.came = 0
        self._limit: Final = limit
        self._line: deque[_Place] = deque()
        self._closed = False

    @property
    def held(self) -> int:
        """How many operations wait for room."""
        return sum(each.size for each in self._line)

    def room(self, verb: str, size: int = 1) -> _Room:
        """Have room for so many operations; waits in line while there is none.

        More than there is room for at all come in alone.

        Raises:
            EngineClosed: the engine was closed meanwhile.
        """
        return _Room(self, verb, size)

    async def enter(self, verb: str, size: int) -> None:
        """Wait for the room; `leave` must follow."""
        if self._closed:
            raise EngineClosed(verb)
        self.came += size
        if not self._line and self._fits(size):
            self.used += size
            return
        place = _Place(size)
        self._line.append(place)
        try:
            await place.turn.wait()
        except BaseException:
            if place.admitted:
                self.leave(size)
            elif not self._closed:
                self._line.remove(place)
                self._admit()
            raise
        if not place.admitted:
            raise EngineClosed(verb)

    def leave(self, size: int) -> None:
        """So many have landed."""
        self.used -= size
        self._admit()

    def close(self) -> None:
        """Nobody comes in any more; who waits is told."""
        self._closed = True
        while self._line:
            self._line.popleft().turn.set()

    def _fits(self, size: int) -> bool:
        return not self.used or self.used + size <= self._limit

    def _admit(self) -> None:
        while self._line and self._fits(self._line[0].size):
            place = self._line.popleft()
            self.used += place.size
            place.admitted = True
            place.turn.set()


@attrs.define(slots=True, eq=False)
class _Room:
    """Room in a backlog for the time of a block; plain, since every append passes here."""

    backlog: Backlog
    verb: str
    size: int

    async def __aenter__(self) -> None:
        await self.backlog.enter(self.verb, self.size)

    async def __aexit__(self, *raised: object) -> None:
        self.backlog.leave(self.size)


class Crowd:
    """Slows those who start flows while this worker is full and behind.

    Each place that becomes free lets the next one in line go, so that flows start as fast
    as they are driven; whoever has waited for `patience` seconds goes all the same.
    """

    def __init__(self, patience: float, crowded: Callable[[], bool]) -> None:
        self._patience: Final = patience
        self._crowded = crowded
        self._line: deque[_Place] = deque()

    @property
    def slowed(self) -> int:
        """How many wait."""
        return len(self._line)

    async def slow_down(self) -> None:
        """Wait for a free place where there is none, but not for long."""
        if not self._patience or not self._crowded():
            return
        place = _Place()
        self._line.append(place)
        try:
            with trio.move_on_after(self._patience):
                await place.turn.wait()
        finally:
            if not place.admitted:
                self._line.remove(place)

    def place_freed(self) -> None:
        """An owned instance is gone: the next one in line may come."""
        if self._line:
            place = self._line.popleft()
            place.admitted = True
            place.turn.set()

    def caught_up(self) -> None:
        """Nothing runnable waits for this worker any more: all may come."""
        while self._line:
            self.place_freed()
