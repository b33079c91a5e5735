"""Durations are timedeltas or seconds; inside they are float seconds."""

from __future__ import annotations

import math
from datetime import timedelta

from triggerflow.errors import DefinitionError


def seconds(duration: timedelta | float, what: str = "duration") -> float:
    """A duration in seconds.

    Raises:
        DefinitionError: it is negative, not finite, or not a duration at all.
    """
    if isinstance(duration, timedelta):
        length = duration.total_seconds()
    elif isinstance(duration, int | float) and not isinstance(duration, bool):
        try:
            length = float(duration)
        except OverflowError:
            length = math.inf
    else:
        raise DefinitionError(what, f"found {duration!r}, expected a timedelta or seconds")
    if not math.isfinite(length) or length < 0:
        raise DefinitionError(what, f"found {duration!r}, expected a finite length from 0 up")
    return length


def days(count: float) -> timedelta:
    """`count` days, as a timedelta."""
    return timedelta(days=count)


def hours(count: float) -> timedelta:
    """`count` hours, as a timedelta."""
    return timedelta(hours=count)


def minutes(count: float) -> timedelta:
    """`count` minutes, as a timedelta."""
    return timedelta(minutes=count)
