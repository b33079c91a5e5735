"""triggerflow: SQLite, fsync on, default settings, plain `def` steps.

usage: see `shape.py`
"""

from __future__ import annotations

import gc
import itertools
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import trio
from callers import by
from common import rss_mb, workdir
from shape import (
    FLOWS,
    HELPERS,
    MANY,
    WARM,
    Work,
    die,
    in_two_lives,
    tell_latency,
    tell_memory,
    tell_recovery,
    until,
)

import triggerflow as tf

VERSION = str(tf.__version__)


def step(value: Any) -> Any:
    return value


def stamp() -> float:
    return time.perf_counter()


def make_app(folder: str) -> tf.App:
    app = tf.App(f"sqlite:///{folder}/flows.db", entry_points=False)

    @app.flow
    def one_step(value: Any) -> Any:
        return (yield tf.call(step, value))

    @app.flow
    def ten_steps(value: Any) -> Any:
        for _ in range(10):
            value = yield tf.call(step, value)
        return value

    @app.flow
    def park(value: Any) -> Any:
        yield tf.call(step, value)
        return (yield tf.wait_signal("go"))

    @app.flow
    def stamped(_activity: Any) -> Any:
        return (yield tf.call(stamp))

    app.trigger("stamp", on="Stamp", start=stamped)
    return app


async def flows(steps: int, at_once: int, seconds: float) -> None:
    with workdir() as folder:
        async with make_app(str(folder)).open() as engine:

            async def run(number: int) -> None:
                ended = await engine.wait(await engine.start(FLOWS[steps], number))
                assert ended.result == number

            await by(at_once, until(WARM, itertools.count()), run)
            with Work() as work:
                await by(at_once, work.count(until(seconds, itertools.count())), run)
    work.tell(f"{FLOWS[steps]} {at_once}", each=steps, version=VERSION)


async def answers(engine: Any, at_once: int, ids: Iterator[str]) -> None:
    """So many signallers signal the parked flows; each has its answer before it goes on."""

    async def signal(id: str) -> None:
        await engine.signal(id, "go", 1)
        assert (await engine.wait(id)).result == 1

    await by(at_once, ids, signal)


async def fill_up(engine: Any, numbers: Iterator[int]) -> list[str]:
    """Park flows; returns their ids."""
    ids = []

    async def park(number: int) -> None:
        ids.append(await engine.start("park", number))

    await by(HELPERS, numbers, park)
    await engine.run_until_idle()
    return ids


async def signals(at_once: int, seconds: float) -> None:
    with workdir() as folder:
        async with make_app(str(folder)).open() as engine:
            ids = await fill_up(engine, until(2 * seconds, range(MANY)))
            with Work() as work:
                await answers(engine, at_once, work.count(until(seconds, ids)))
    work.tell(f"signal {at_once}", parked=len(ids))


async def latency(seconds: float) -> None:
    found = []
    with workdir() as folder:
        async with make_app(str(folder)).open() as engine:
            for number in until(seconds, itertools.count()):
                called = time.perf_counter()
                appended = await engine.append(
                    {"type": "Stamp", "actor": "https://a.example/ann", "number": number}
                )
                (firing,) = appended.firings or ()
                ended = await engine.wait(str(firing.instance_id))
                found.append(ended.result - called)
    tell_latency(found[10:], VERSION)


def keep_ids(folder: str, ids: list[str]) -> None:
    Path(folder, "ids").write_text("\n".join(ids))


async def fill(folder: str, count: int) -> None:
    async with make_app(folder).open() as engine:
        await fill_up(engine, iter(range(HELPERS)))
        gc.collect()
        before = rss_mb()
        ids = await fill_up(engine, iter(range(count)))
        gc.collect()
        tell_memory(count, rss_mb() - before)
        keep_ids(folder, ids)
        die()


async def again(folder: str, count: int, ids: list[str]) -> None:
    from triggerflow.engine import engine as _loaded  # noqa: F401

    begun = time.perf_counter()
    async with make_app(folder).open() as engine:
        opened = time.perf_counter() - begun
        await answers(engine, HELPERS, iter(ids))
        answered = time.perf_counter() - begun
    tell_recovery("recover", opened, count, count)
    tell_recovery("answered", answered, count, count)


def main(command: str, *arguments: str) -> None:
    if command == "flows":
        trio.run(flows, int(arguments[0]), int(arguments[1]), float(arguments[2]))
    elif command == "signal":
        trio.run(signals, int(arguments[0]), float(arguments[1]))
    elif command == "latency":
        trio.run(latency, float(arguments[0]))
    elif command == "parked":
        with workdir() as folder:
            in_two_lives(str(folder), *arguments)
    elif command == "fill":
        trio.run(fill, arguments[0], int(arguments[1]))
    else:
        ids = Path(arguments[0], "ids").read_text().split()
        trio.run(again, arguments[0], int(arguments[1]), ids)


if __name__ == "__main__":
    main(*sys.argv[1:])
