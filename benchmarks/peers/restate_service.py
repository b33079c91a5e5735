"""The flows of `with_restate.py`, served to Restate's server by hypercorn.

usage: restate_service.py PORT FOLDER      FOLDER: where parked flows leave word
"""

from __future__ import annotations

import asyncio
import sys
import time
from pathlib import Path
from typing import Any

import restate
from hypercorn.asyncio import serve
from hypercorn.config import Config

FOLDER = Path(sys.argv[2])
parked = (FOLDER / "parked").open("a", buffering=1)
passed = (FOLDER / "passed").open("a", buffering=1)
service = restate.Service("bench")


def step(value: int) -> int:
    return value


def stamp() -> float:
    return time.perf_counter()


@service.handler()
async def one_step(ctx: restate.Context, value: int) -> int:
    return await ctx.run_typed("step", step, value=value)


@service.handler()
async def ten_steps(ctx: restate.Context, value: int) -> int:
    for number in range(10):
        value = await ctx.run_typed(f"step {number}", step, value=value)
    return value


@service.handler()
async def stamped(ctx: restate.Context, _value: int) -> float:
    return await ctx.run_typed("stamp", stamp)


@service.handler()
async def park(ctx: restate.Context, value: int) -> Any:
    await ctx.run_typed("step", step, value=value)
    name, answer = ctx.awakeable(type_hint=int)
    parked.write(f"{value} {name}\n")
    found = await answer
    passed.write(f"{value}\n")
    return found


if __name__ == "__main__":
    config = Config()
    config.bind = [f"127.0.0.1:{sys.argv[1]}"]
    config.h2_max_concurrent_streams = 4096
    config.keep_alive_timeout = 600
    config.loglevel = "ERROR"
    asyncio.run(serve(restate.app(services=[service]), config))
