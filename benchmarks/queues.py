"""Queued calls per second on SQLite, beside plain steps of the same flows in the same run.

Flows of ten calls: at home; on a queue that the same process serves; on a queue that another
process serves, which drives nothing. Default settings, fsync on, plain `def` steps.

usage: queues.py FLOWS AT_ONCE [here|there]     the plain ones always, and both by default
       queues.py profile FLOWS AT_ONCE          one process, its loop under the profiler
"""

from __future__ import annotations

import contextlib
import cProfile
import pstats
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import trio
from common import ROOT, Timer, emit, workdir
from hotspots import spent

import triggerflow as tf

STEPS = 10


def make_app(path: str) -> tf.App:
    app = tf.App(f"sqlite:///{path}", entry_points=False)

    @app.step
    def step(value: int) -> int:
        return value + 1

    @app.flow
    def plain(value):
        for _ in range(STEPS):
            value = yield tf.call(step, value)
        return value

    @app.flow
    def queued(value):
        for _ in range(STEPS):
            value = yield tf.call(step, value).using(queue="far")
        return value

    return app


async def run(engine: Any, flow: str, flows: int, at_once: int) -> None:
    numbers = iter(range(flows))

    async def caller() -> None:
        for number in numbers:
            found = await engine.wait(await engine.start(flow, number))
            assert found.result == number + STEPS

    async with trio.open_nursery() as nursery:
        for _ in range(at_once):
            nursery.start_soon(caller)


@contextlib.contextmanager
def serving(path: str) -> Iterator[None]:
    """Another process that serves the queue of the store there."""
    worker = subprocess.Popen(
        [sys.executable, str(Path(__file__).resolve()), "serve", path],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert worker.stdout is not None
    worker.stdout.readline()
    try:
        yield
    finally:
        # It ends when nobody can speak to it any more.
        worker.communicate()


async def serve(path: str) -> None:
    async with make_app(path).open(queues=["far"], only_queues=True):
        print("ready", flush=True)
        await trio.to_thread.run_sync(sys.stdin.read)


async def measure(path: str, where: str, flows: int, at_once: int) -> None:
    flow = "plain" if where == "home" else "queued"
    async with make_app(path).open(queues=["far"] if where == "here" else []) as engine:
        await run(engine, flow, at_once, at_once)  # warm
        before = engine._committer.commits
        with Timer() as taken:
            await run(engine, flow, flows, at_once)
        commits = engine._committer.commits - before
    emit(f"queues {where} {at_once}", flows * STEPS, taken, commits=commits)


def main(flows: int, at_once: int, *places: str) -> None:
    for where in ("home", *(places or ("here", "there"))):
        with workdir() as folder:
            path = str(folder / "queues.db")
            with serving(path) if where == "there" else contextlib.nullcontext():
                trio.run(measure, path, where, flows, at_once)


async def profiled(flows: int, at_once: int) -> None:
    profile = cProfile.Profile()
    with workdir() as folder:
        app = make_app(f"{folder}/queues.db")
        async with app.open(queues=["far"]) as engine:
            await run(engine, "queued", at_once, at_once)
            before = spent()
            with Timer() as taken:
                await run(engine, "queued", flows, at_once)
            after = spent()
            profile.enable()
            await run(engine, "queued", flows, at_once)
            profile.disable()
    calls = flows * STEPS
    print(f"{taken.s / calls * 1e6:.1f} us a call, processor {taken.cpu / calls * 1e6:.1f}")
    for name, seconds in after.items():
        print(f"  {name:24} {(seconds - before.get(name, 0.0)) / calls * 1e6:6.1f} us a call")
    rows = [
        (both, own, count, f"{file.replace(str(ROOT) + '/', '')}:{line}({name})")
        for (file, line, name), (_, count, own, both, _) in pstats.Stats(profile).stats.items()
        if "poll" not in name
    ]
    total = sum(own for _, own, _, _ in rows)
    print("  with callees %  own %  calls a call")
    for both, own, count, name in sorted(rows, reverse=True)[:45]:
        print(f"  {min(both / total, 1):6.1%} {own / total:6.1%} {count / calls:6.2f}  {name}")


if __name__ == "__main__":
    if sys.argv[1] == "serve":
        trio.run(serve, sys.argv[2])
    elif sys.argv[1] == "profile":
        trio.run(profiled, *map(int, sys.argv[2:4]))
    else:
        main(*map(int, sys.argv[1:3]), *sys.argv[3:])
