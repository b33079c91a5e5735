"""Timers cost rows only: sleeps spread over a year, what they cost in memory and at start-up.

One process parks them, another one opens the file, and waits for those of its first minute.

usage: timers.py [TIMERS | --full]     100,000 by default, a million with --full
"""

from __future__ import annotations

import gc
import subprocess
import sys
import time
from pathlib import Path

import trio
from common import Timer, emit, rss_mb, workdir

import triggerflow as tf
from triggerflow.engine.clock import SystemClock

YEAR = 365 * 24 * 3600
# Of these many, one is due in the first minute after the file is opened again.
PER_NEAR = 1000


def now() -> float:
    # The engine's clock: a timer is due at an epoch time.
    return SystemClock().now()


def make_app(path: str) -> tf.App:
    app = tf.App(f"sqlite:///{path}", entry_points=False)

    @app.flow
    def wait(due):
        yield tf.sleep_until(due)
        return (yield tf.now())

    return app


async def fill(path: str, count: int, opens: float) -> None:
    app = make_app(path)
    async with app.open() as engine:

        async def caller() -> None:
            for number in numbers:
                near = number % PER_NEAR == 0
                later = 60 * number / count if near else 120 + YEAR * number / count
                await engine.start("wait", opens + later)

        async def park(some: range) -> None:
            nonlocal numbers
            numbers = iter(some)
            async with trio.open_nursery() as nursery:
                for _ in range(500):
                    nursery.start_soon(caller)
            await engine.run_until_idle()

        numbers = iter(())
        # What a worker under load needs anyway, and the replays that it keeps warm.
        warm = min(2000, count // 2)
        await park(range(warm))
        gc.collect()
        before = rss_mb()
        with Timer() as taken:
            await park(range(warm, count))
        gc.collect()
        emit(
            f"timers parked {count}",
            count - warm,
            taken,
            rss_mb=round(rss_mb(), 1),
            grown_mb=round(rss_mb() - before, 1),
            file_mb=round(Path(path).stat().st_size / 2**20, 1),  # noqa: ASYNC240
        )


async def again(path: str, count: int, opens: float) -> None:
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
            f"timers start-up {count}",
            1,
            ready,
            until_idle_s=round(idle, 4),
            rss_mb=round(rss_mb(), 1),
            grown_mb=round(rss_mb() - before, 1),
        )
        await trio.sleep(max(0.0, opens + 65 - now()))
        await engine.run_until_idle()
        late = [
            (each.ended or 0.0) - max(each.input, opens)
            async for each in engine.instances(status="done")
        ]
        near = len(range(0, count, PER_NEAR))
        emit(
            f"timers fired {near} of {count}",
            len(late),
            60.0,
            missing=near - len(late),
            early=sum(each < 0 for each in late),
            latest_s=round(max(late, default=0.0), 3),
        )


def main(count: int) -> None:
    # Parking them takes no longer than a second for each 500, and a minute.
    opens = now() + 60 + count / 500
    with workdir() as folder:
        me = [sys.executable, str(Path(__file__).resolve())]
        given = [str(folder / "timers.db"), str(count), str(opens)]
        subprocess.run([*me, "fill", *given], check=True)
        time.sleep(max(0.0, opens - now()))
        subprocess.run([*me, "again", *given], check=True)


if __name__ == "__main__":
    if sys.argv[1:2] == ["fill"]:
        trio.run(fill, sys.argv[2], int(sys.argv[3]), float(sys.argv[4]))
    elif sys.argv[1:2] == ["again"]:
        trio.run(again, sys.argv[2], int(sys.argv[3]), float(sys.argv[4]))
    else:
        wanted = (sys.argv[1:] or ["100000"])[0]
        main(1_000_000 if wanted == "--full" else int(wanted))
