"""What the contenders share: the shapes of the work, how long it goes on, how it is told.

Every contender is a script of its own with these commands, and prints JSON lines:

    flows STEPS AT_ONCE SECONDS   a caller starts a flow, has its result, starts the next
    signal AT_ONCE SECONDS        a signaller signals a parked flow, has its answer, goes on
    latency SECONDS               one flow at a time: from the call to the step's first line
    parked FLOWS                  memory of parked flows; killed; opened again; all signalled

A parked flow has run one step and waits for a signal; its answer is its result. By hand:
`PYTHONPATH=benchmarks python benchmarks/peers/with_floor.py flows 10 100 3`.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Self, TypeVar

from common import Timer, emit

T = TypeVar("T")

FLOWS = {1: "one_step", 10: "ten_steps"}
# Before the clock runs, every kind of work is done for so long.
WARM = 0.3
# So many flows wait for the signallers, or as many as could be parked in the time for it.
MANY = 30_000
# How many at once park flows, and signal those that a crash left.
HELPERS = 100
# So long a contender may take for what is waited for, in seconds.
PATIENCE = 180.0


def until(seconds: float, things: Iterable[T]) -> Iterator[T]:
    """The things, one by one, until the time is over."""
    end = time.perf_counter() + seconds
    for thing in things:
        if time.perf_counter() >= end:
            return
        yield thing


def fsyncs() -> int | None:
    """What the shim that slows has counted so far; None if there is none."""
    path = os.environ.get("TRIGGERFLOW_FSYNC_COUNT")
    return int.from_bytes(Path(path).read_bytes()[:8], sys.byteorder) if path else None


class Work(Timer):
    """A timed block that counts what it does."""

    done = 0

    def __enter__(self) -> Self:
        self._fsyncs = fsyncs()
        return super().__enter__()

    def count(self, things: Iterable[T]) -> Iterator[T]:
        """The things; each one that is taken counts."""
        for thing in things:
            self.done += 1
            yield thing

    def tell(self, what: str, each: int = 1, **more: object) -> None:
        """Print the line of this work; one unit of it weighs `each`."""
        now = fsyncs()
        if now is not None and self._fsyncs is not None:
            more["fsyncs"] = now - self._fsyncs
            more["fsyncs_each"] = round((now - self._fsyncs) / max(1, self.done), 3)
        emit(what, self.done * each, self, **more)


def tell_latency(found: Sequence[float], version: str) -> None:
    """Print the line of times from the call to the first step, in seconds."""
    ordered = sorted(found)
    emit(
        "latency",
        len(ordered),
        0.0,
        p50_ms=round(ordered[len(ordered) // 2] * 1e3, 3),
        p99_ms=round(ordered[len(ordered) * 99 // 100] * 1e3, 3),
        version=version,
    )


def tell_memory(flows: int, grown_mb: float) -> None:
    """Print the line of what so many parked flows added to the resident memory."""
    each = round(grown_mb * 1024 / flows, 2)
    emit("memory", flows, 0.0, grown_mb=round(grown_mb, 1), kb_each=each)


def tell_recovery(what: str, seconds: float, reached: int, flows: int) -> None:
    """Print how long after opening so many flows of all waited again, or had answered."""
    emit(what, flows, seconds, reached=reached)


def in_two_lives(*arguments: str) -> None:
    """Run this script as `fill`, which ends by SIGKILL, then as `again` on what that left."""
    for command, wanted in (("fill", -signal.SIGKILL), ("again", 0)):
        argv = [sys.executable, sys.argv[0], command, *arguments]
        status = subprocess.run(argv, check=False).returncode
        if status != wanted:
            raise SystemExit(f"{' '.join(argv)}: exit status {status}")


def die() -> None:
    """End this process as a crash would."""
    sys.stdout.flush()
    os.kill(os.getpid(), signal.SIGKILL)
