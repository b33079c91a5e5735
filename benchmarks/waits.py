"""Open waits for activities: what an activity costs beside them, met by one or by none.

One process opens them (a flow each, with an id of its own), another one opens the file.

usage: waits.py WAITS
"""

from __future__ import annotations

import gc
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import trio
from common import Timer, emit, rss_mb, workdir

import triggerflow as tf

MISSES = 300
HITS = 50


def make_app(path: str) -> tf.App:
    app = tf.App(f"sqlite:///{path}", entry_points=False)

    @app.flow
    def listen(number):
        found = yield tf.wait_activity({"type": ["Accept"], "object": [f"offer-{number}"]})
        return found["object"]

    return app


def accept(what: str) -> dict[str, Any]:
    return {"type": "Accept", "actor": "https://a.example/ann", "object": what}


async def fill(path: str, count: int) -> None:
    async with make_app(path).open() as engine:
        numbers = iter(range(count))

        async def caller() -> None:
            for number in numbers:
                await engine.start("listen", number, key=f"n{number}")

        with Timer() as taken:
            async with trio.open_nursery() as nursery:
                for _ in range(200):
                    nursery.start_soon(caller)
            await engine.run_until_idle()
    emit(f"open {count} waits", count or 1, taken)


async def again(path: str, count: int) -> None:
    from triggerflow.engine import engine as _loaded  # noqa: F401

    app = make_app(path)
    before = rss_mb()
    start = time.perf_counter()
    async with app.open() as engine:
        ready = time.perf_counter() - start
        await engine.run_until_idle()
        gc.collect()
        grown = round(rss_mb() - before, 1)
        emit(f"start-up with {count} waits", 1, ready, grown_mb=grown)
        with Timer() as taken:
            for number in range(MISSES):
                await engine.append(accept(f"nobody-{number}"))
            await engine.run_until_idle()
        emit(f"append beside {count} waits, none met", MISSES, taken)
        with Timer() as taken:
            await engine.append_many(accept(f"many-{number}") for number in range(2000))
            await engine.run_until_idle()
        emit(f"append_many beside {count} waits, none met", 2000, taken)
        hits = min(HITS, count)
        ids = [await engine.start("listen", number, key=f"n{number}") for number in range(hits)]
        with Timer() as taken:
            for number, id in enumerate(ids):
                await engine.append(accept(f"offer-{number}"))
                found = await engine.wait(id, timeout=30)
                assert found.result == f"offer-{number}"
        if hits:
            emit(f"append beside {count} waits till the flow that it met ends", hits, taken)


def main(count: int) -> None:
    with workdir() as folder:
        path = str(folder / "waits.db")
        me = [sys.executable, str(Path(__file__).resolve())]
        for verb in ("fill", "again"):
            subprocess.run([*me, verb, path, str(count)], check=True)


if __name__ == "__main__":
    if sys.argv[1] in ("fill", "again"):
        trio.run({"fill": fill, "again": again}[sys.argv[1]], sys.argv[2], int(sys.argv[3]))
    else:
        main(int(sys.argv[1]))
