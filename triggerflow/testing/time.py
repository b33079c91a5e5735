"""Virtual time: a year of timers in milliseconds, and the same order in every run."""

from __future__ import annotations

import contextlib
import importlib
import math
from collections.abc import Awaitable, Callable, Iterator
from typing import Any, Final, TypeVar

import trio
import trio.testing

from triggerflow.engine.clock import LoopClock

T = TypeVar("T")

_SORTED: Final = "_ALLOW_DETERMINISTIC_SCHEDULING"


def virtual_settings(clock: LoopClock | None = None) -> dict[str, Any]:
    """Settings for `App.open` under which an engine lives in virtual time.

    Commits and plain steps run on the loop's own thread, the wall clock follows trio's,
    and nobody's lease runs out.
    """
    return {
        "inline": True,
        "lease": math.inf,
        "clock": LoopClock() if clock is None else clock,
    }


def run_virtually(scenario: Callable[[], Awaitable[T]]) -> T:
    """Run an async function under trio's `MockClock`, which jumps whenever all wait.

    Tasks that may run at once do so in the same order in every run: trio's own chance, which
    shuffles them, is seeded. So a commit point has the same number each time.
    """
    with _in_order():
        return trio.run(scenario, clock=trio.testing.MockClock(autojump_threshold=0))


@contextlib.contextmanager
def _in_order() -> Iterator[None]:
    # The door that trio keeps for Hypothesis; where a later trio has none, order is chance.
    runner: Any = importlib.import_module("trio._core._run")
    chance: Any = getattr(runner, "_r", None)
    before = getattr(runner, _SORTED, None)
    if before is None or not hasattr(chance, "setstate"):
        yield
        return
    state = chance.getstate()
    chance.seed(0)
    setattr(runner, _SORTED, True)
    try:
        yield
    finally:
        setattr(runner, _SORTED, before)
        chance.setstate(state)
