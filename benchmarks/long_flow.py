"""What a step costs in a flow of 100, 1,000 and 10,000 steps: it must not grow.

usage: long_flow.py STEPS_IN_ALL AT_ONCE
"""

from __future__ import annotations

import gc
import sys

import trio
from common import Timer, emit, workdir
from steps import make_app, run


async def main(total: int, at_once: int) -> None:
    for steps in (100, 1000, 10_000):
        flows = max(at_once, total // steps)
        with workdir() as folder:
            app = make_app(f"sqlite:///{folder}/long.db", steps)
            gc.collect()
            async with app.open() as engine:
                with Timer() as taken:
                    await run(engine, flows, at_once, "wait", False)
        emit(
            f"long {steps} at {at_once}",
            steps * flows,
            taken,
            us_per_step=round(taken.s / steps / flows * 1e6, 1),
        )


if __name__ == "__main__":
    trio.run(main, int(sys.argv[1]), int(sys.argv[2]))
