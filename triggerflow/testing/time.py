"""Virtual time: a year of timers in milliseconds, and the same order in every run."""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import trio
import trio.testing

from triggerflow.engine.clock import LoopClock

T = TypeVar("T")


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
    """Run an async function under trio's `MockClock`, which jumps whenever all wait."""
    return trio.run(scenario, clock=trio.testing.MockClock(autojump_threshold=0))
