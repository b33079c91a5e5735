"""Time and chance: the only place that reads them. Everything below gets them as arguments."""

from __future__ import annotations

import base64
import hashlib
import itertools
import os
import secrets
import time
from typing import Final, Protocol

import trio


class Clock(Protocol):
    """What the engine asks for the time.

    Attributes:
        recheck: the longest that a timer may sleep before it looks at the clock again,
            since a wall clock can be set; infinite where it can't.
    """

    recheck: float

    def now(self) -> float:
        """Seconds since the epoch."""
        ...

    def steady(self) -> float:
        """Seconds on a clock that nobody sets, for what isn't stored; from any thread."""
        ...


class SystemClock:
    """The machine's wall clock."""

    recheck = 1.0

    def now(self) -> float:
        """Seconds since the epoch."""
        return time.time()

    def steady(self) -> float:
        """Seconds since some moment of this process's life."""
        return time.monotonic()


class LoopClock:
    """A wall clock that follows trio's clock: virtual under ``trio.testing.MockClock``.

    Args:
        start: the epoch seconds that the loop's first moment counts as.
    """

    recheck = float("inf")

    def __init__(self, start: float = 1_700_000_000.0) -> None:
        self._start = start
        self._zero: float | None = None

    def now(self) -> float:
        """Seconds since the epoch, as far as the loop has come."""
        moment = trio.current_time()
        if self._zero is None:
            self._zero = moment
        return self._start + (moment - self._zero)

    def steady(self) -> float:
        """The loop's own time."""
        return trio.current_time()


def random_id() -> str:
    """A new public instance id: 20 lower-case letters and digits, 100 bits of chance."""
    return base64.b32encode(_chance()[:13]).decode().lower()[:20]


def new_seed() -> bytes:
    """A new seed for `uuid4` and `random`."""
    return _chance()[:16]


def _chance() -> bytes:
    # A hash over a secret of the process, its number and a counter: the kernel is asked
    # once, not once an instance, and a forked child, which inherits the secret, can't
    # repeat its parent.
    return hashlib.blake2b(
        b"%d %d" % (os.getpid(), next(_counter)), key=_SECRET, digest_size=32
    ).digest()


_SECRET: Final = secrets.token_bytes(32)
_counter: Final = itertools.count()
