"""Held instances: what their rows say, and what an arrival meets; the same in every backend."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Final

import attrs

from triggerflow.core.admission_request import Pace

if TYPE_CHECKING:
    from triggerflow.core.admission_request import Gather

# What `instance.held` says: gathered in a group of this kind, waiting for its turn, or waiting
# for a place. 0 is admitted.
GROUPS: Final = {"debounce": 1, "batch": 2}
THROTTLED: Final = 3
FOR_A_PLACE: Final = 4

# What `place.state` says.
RESERVED, WAITS, TAKEN, GIVEN_BACK = range(4)

# A list's own bytes: its head at most.
LIST_HEAD: Final = 5
# How many settled rates each new one sweeps away, and how long after: a clock that is set back
# by less still finds what is owed.
SWEEP: Final = 3
REST: Final = 3600.0


@attrs.frozen
class Verdict:
    """An arrival that starts nothing: it joined an instance, or was refused for a reason."""

    outcome: str
    instance: str | None
    reason: str | None


@attrs.frozen
class Beginning:
    """How a new instance begins: held, until then or for a place, or admitted.

    `input` is its input for now, where it is gathered into a list.
    """

    held: int = 0
    due: float | None = None
    input: bytes | None = None


@attrs.frozen
class Group:
    """The open group that an arrival meets.

    Attributes:
        over: it takes no more: its time has passed, or the arrival is too large for it.
        full: it has all that it waits for once the arrival has joined.
    """

    number: int
    id: str
    opened: float
    count: int
    bytes: int
    over: bool
    full: bool


def group_met(
    gather: Gather, input: bytes, now: float, row: tuple[int, str, float, int, int, float]
) -> Group:
    """The group behind a row: number, public id, opened, count, bytes, due."""
    number, id, opened, count, size, due = row
    too_large = gather.listed and size + len(input) > gather.most
    full = gather.size is not None and count + 1 >= gather.size
    return Group(number, id, opened, count, size, due <= now or too_large, full)


def pace_text(pace: Pace | None) -> str | None:
    """A pace as a group's row keeps it."""
    return None if pace is None else json.dumps(attrs.astuple(pace))


def pace_of(text: str | None) -> Pace | None:
    """The pace that `pace_text` wrote."""
    return None if text is None else Pace(*json.loads(text))
