"""Parked instances: what they cost in memory, and what they cost a process that starts.

One process parks them (a call, then a wait for a signal), another one opens the file.

usage: parked.py INSTANCES
"""

from __future__ import annotations

import gc
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import trio
from common import Timer, emit, rss_mb, workdir

import triggerflow as tf


def step(value: Any) -> Any:
    return value


def make_app(path: str) -> tf.App:
    app = tf.App(f"sqlite:///{path}", entry_points=False)

    @app.flow
    def park(value):
        value = yield tf.call(step, value)
        payload = yield tf.wait_signal("go")
        return [value, payload]

    return app


async def fill(path: str, count: int) -> None:
    app = make_app(path)
    async with app.open() as engine:
        numbers = iter(range(count))
        last = ""

        async def caller() -> None:
            nonlocal last
            for number in numbers:
                last = await engine.start("park", number)

        async def some(callers: int) -> None:
            async with trio.open_nursery() as nursery:
                for _ in range(callers):
                    nursery.start_soon(caller)
            await engine.run_until_idle()

        gc.collect()
        before = rss_mb()
        with Timer() as taken:
            await some(500)
        gc.collect()
        grown = rss_mb() - before
    emit(
        f"park {count}", count, taken, rss_mb=round(before + grown, 1), grown_mb=round(grown, 1)
    )
    print(json.dumps({"last": last}), flush=True)


async def again(path: str, id: str, count: int) -> None:
    app = make_app(path)
    from triggerflow.engine import engine as _loaded  # noqa: F401

    before = rss_mb()
    start = time.perf_counter()
    async with app.open() as engine:
        ready = time.perf_counter() - start
        await engine.run_until_idle()
        idle = time.perf_counter() - start
        gc.collect()
        emit(
            f"parked start-up {count}",
            1,
            ready,
            until_idle_s=round(idle, 4),
            rss_mb=round(rss_mb(), 1),
            grown_mb=round(rss_mb() - before, 1),
        )
        with Timer() as taken:
            await engine.signal(id, "go", 1)
            found = await engine.wait(id, timeout=10)
        assert found.result[1] == 1
        assert (await engine.get(id)).status == "done"
        emit(f"parked signal one of {count}", 1, taken)


def main(count: int) -> None:
    with workdir() as folder:
        path = str(folder / "parked.db")
        me = [sys.executable, str(Path(__file__).resolve())]
        found = subprocess.run(
            [*me, "fill", path, str(count)], stdout=-1, check=True, text=True
        )
        *lines, last = found.stdout.splitlines()
        print("\n".join(lines), flush=True)
        subprocess.run([*me, "again", path, json.loads(last)["last"], str(count)], check=True)


if __name__ == "__main__":
    if sys.argv[1] == "fill":
        trio.run(fill, sys.argv[2], int(sys.argv[3]))
    elif sys.argv[1] == "again":
        trio.run(again, sys.argv[2], sys.argv[3], int(sys.argv[4]))
    else:
        main(int(sys.argv[1]))
