"""Parked instances whose live replay is kept: the next claim goes on without re-driving."""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from triggerflow.engine.running import Running
    from triggerflow.store.records import Claimed


class Warm:
    """A bounded number of them; the one that was used longest ago goes first.

    Args:
        room: how many are kept at most.
    """

    def __init__(self, room: int) -> None:
        self._room = room
        self._kept: OrderedDict[int, Running] = OrderedDict()
        self._turns: dict[int, tuple[int, int]] = {}

    def __len__(self) -> int:
        return len(self._kept)

    @property
    def turns(self) -> Mapping[int, tuple[int, int]]:
        """Where each stands, for claims: number -> (generation, turns)."""
        return self._turns

    def keep(self, run: Running) -> None:
        """Keep one that has parked."""
        self._kept[run.number] = run
        self._turns[run.number] = (run.generation, run.turns)
        while len(self._kept) > self._room:
            number, coldest = self._kept.popitem(last=False)
            del self._turns[number]
            coldest.drop()

    def pop(self, number: int) -> Running | None:
        """Keep it no longer; None where it wasn't kept."""
        self._turns.pop(number, None)
        return self._kept.pop(number, None)

    def fitting(self, claimed: Claimed) -> Running | None:
        """Give out the one that stands where this claimed instance does, if it is kept.

        Another worker may have run an attempt meanwhile, or have replaced a wait. That leaves
        no entry, so it is the turns that are compared.
        """
        run = self.pop(claimed.number)
        if run is None:
            return None
        if (run.generation, run.turns) == (claimed.generation, claimed.turns):
            return run
        run.drop()
        return None

    def clear(self, cause: str) -> None:
        """Drop them all."""
        for run in self._kept.values():
            run.drop(cause)
        self._kept.clear()
        self._turns.clear()
