"""DBOS: SQLite, default settings, its `def` workflows and steps, a thread a caller.

Flows that are parked by the thousand are its `async def` workflows: a thread for each would
cost more. Elsewhere the `def` form was the faster of the two.

usage: see `shape.py`
"""

from __future__ import annotations

import asyncio
import gc
import itertools
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from importlib.metadata import version
from typing import Any

from common import rss_mb, workdir
from dbos import DBOS, SetWorkflowID
from shape import (
    FLOWS,
    HELPERS,
    MANY,
    PATIENCE,
    WARM,
    Work,
    die,
    in_two_lives,
    tell_latency,
    tell_memory,
    tell_recovery,
    until,
)

VERSION = version("dbos")
# A workflow that waits longer than this stops waiting, in seconds.
WAIT = 3600
# How many flows have come to their wait, how many have passed it.
parked: list[int] = []
passed: list[int] = []


def launch(folder: str) -> None:
    DBOS(
        config={
            "name": "bench",
            "system_database_url": f"sqlite:///{folder}/dbos.sqlite",
            "log_level": "ERROR",
            "application_version": "1",
        }
    )
    DBOS.launch()


@DBOS.step()
def step(value: Any) -> Any:
    return value


@DBOS.step()
async def async_step(value: Any) -> Any:
    return value


@DBOS.step()
def stamp() -> float:
    return time.perf_counter()


@DBOS.workflow()
def one_step(value: Any) -> Any:
    return step(value)


@DBOS.workflow()
def ten_steps(value: Any) -> Any:
    for _ in range(10):
        value = step(value)
    return value


@DBOS.workflow()
def stamped() -> Any:
    return stamp()


@DBOS.workflow()
def park(value: int) -> Any:
    step(value)
    parked.append(value)
    return DBOS.recv("go", timeout_seconds=WAIT)


@DBOS.workflow()
async def async_park(value: int) -> Any:
    await async_step(value)
    parked.append(value)
    found = await DBOS.recv_async("go", timeout_seconds=WAIT)
    passed.append(value)
    return found


def by(at_once: int, things: Iterator[Any], do: Callable[[Any], None]) -> None:
    """So many threads work through the things."""
    lock = threading.Lock()

    def caller() -> None:
        while True:
            with lock:
                thing = next(things, None)
            if thing is None:
                return
            do(thing)

    threads = [threading.Thread(target=caller) for _ in range(at_once)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def wait_for(things: Sequence[int], count: int, patience: float = PATIENCE) -> None:
    """Wait until there are so many, or until patience ends."""
    for _ in until(patience, itertools.count()):
        if len(things) >= count:
            break
        time.sleep(0.01)


def flows(steps: int, at_once: int, seconds: float) -> None:
    work_of = {1: one_step, 10: ten_steps}[steps]

    def run(number: int) -> None:
        assert work_of(number) == number

    by(at_once, until(WARM, itertools.count()), run)
    with Work() as work:
        by(at_once, work.count(until(seconds, itertools.count())), run)
    work.tell(f"{FLOWS[steps]} {at_once}", each=steps, version=VERSION)


def signals(at_once: int, seconds: float) -> None:
    handles = [DBOS.start_workflow(park, number) for number in until(2 * seconds, range(MANY))]
    wait_for(parked, len(handles))

    def signal(handle: Any) -> None:
        DBOS.send(handle.workflow_id, 1, "go")
        assert handle.get_result() == 1

    with Work() as work:
        by(at_once, work.count(until(seconds, handles)), signal)
    work.tell(f"signal {at_once}", parked=len(handles))


def latency(seconds: float) -> None:
    found = []
    for _ in until(seconds, itertools.count()):
        called = time.perf_counter()
        found.append(DBOS.start_workflow(stamped).get_result() - called)
    tell_latency(found[10:], VERSION)


async def fill_up(first: int, count: int) -> None:
    numbers = iter(range(first, first + count))

    async def caller() -> None:
        for number in numbers:
            with SetWorkflowID(f"flow-{number}"):
                await DBOS.start_workflow_async(async_park, number)

    await asyncio.gather(*(caller() for _ in range(HELPERS)))
    await asyncio.to_thread(wait_for, parked, first + count)
    if len(parked) < first + count:
        raise SystemExit(f"{len(parked)} of {first + count} flows came to their wait")


async def fill(count: int) -> None:
    await fill_up(0, HELPERS)
    gc.collect()
    before = rss_mb()
    await fill_up(HELPERS, count)
    gc.collect()
    tell_memory(count, rss_mb() - before)
    die()


def again(folder: str, count: int) -> None:
    begun = time.perf_counter()
    launch(folder)
    wait_for(parked, count + HELPERS)
    reached = min(count, len(parked) - HELPERS)
    tell_recovery("recover", time.perf_counter() - begun, reached, count)
    sent = time.perf_counter()
    numbers = until(PATIENCE, range(count))
    by(HELPERS, numbers, lambda number: DBOS.send(f"flow-{number}", 1, "go"))
    wait_for(passed, count, PATIENCE - (time.perf_counter() - sent))
    tell_recovery("answered", time.perf_counter() - begun, len(passed), count)


def main(command: str, *arguments: str) -> None:
    if command == "again":
        again(arguments[0], int(arguments[1]))
        return
    if command == "fill":
        launch(arguments[0])
        asyncio.run(fill(int(arguments[1])))
        return
    with workdir() as folder:
        if command == "parked":
            in_two_lives(str(folder), *arguments)
            return
        launch(str(folder))
        if command == "flows":
            flows(int(arguments[0]), int(arguments[1]), float(arguments[2]))
        elif command == "signal":
            signals(int(arguments[0]), float(arguments[1]))
        else:
            latency(float(arguments[0]))


if __name__ == "__main__":
    main(*sys.argv[1:])
    # Flows that still wait would keep the process.
    sys.stdout.flush()
    os._exit(0)
