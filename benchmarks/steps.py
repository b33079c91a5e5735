"""Durable steps per second: flows of plain `def` steps on SQLite, fsync on, default settings.

A new flow starts as one ends, and each ends in the caller's hands: `Engine.wait` returned.
With `ended` the caller learns it from the engine's own notice instead, which shows what
`wait` costs.

usage: steps.py STEPS FLOWS AT_ONCE [wait|ended] [note] [URL]      note: 606-byte values
URL is that of an empty place on PostgreSQL; without it a new SQLite file is used.
"""

from __future__ import annotations

import sys
from typing import Any

import trio
from common import NOTE, Timer, emit, workdir

import triggerflow as tf


def step(value: Any) -> Any:
    return value


def make_app(url: str, steps: int) -> tf.App:
    app = tf.App(url, entry_points=False)

    @app.flow
    def chain(value):
        for _ in range(steps):
            value = yield tf.call(step, value)
        return value

    return app


async def run(engine: Any, flows: int, at_once: int, how: str, note: bool) -> None:
    ended: dict[str, trio.Event] = {}
    over: set[str] = set()
    if how == "ended":
        executor = engine._executor
        moved = executor._moved

        def notice(instance: str, status: str, due: float | None) -> None:
            moved(instance, status, due)
            if status == "done":
                event = ended.pop(instance, None)
                if event is None:
                    over.add(instance)
                else:
                    event.set()

        executor._moved = notice
    numbers = iter(range(flows))

    async def caller() -> None:
        for number in numbers:
            started = await engine.start("chain", NOTE if note else number)
            if how == "wait":
                found = await engine.wait(started)
                assert found.status == "done"
            elif started in over:
                over.discard(started)
            else:
                event = ended[started] = trio.Event()
                await event.wait()

    async with trio.open_nursery() as nursery:
        for _ in range(at_once):
            nursery.start_soon(caller)


async def main(steps: int, flows: int, at_once: int, how: str = "wait", *more: str) -> None:
    note = "note" in more
    with workdir() as folder:
        given = [each for each in more if "://" in each]
        app = make_app(given[0] if given else f"sqlite:///{folder}/steps.db", steps)
        async with app.open() as engine:
            await run(engine, at_once, at_once, how, note)  # warm
            before = engine._committer.commits
            with Timer() as taken:
                await run(engine, flows, at_once, how, note)
            commits = engine._committer.commits - before
    what = f"steps {steps}-step {at_once}" + (" ended" if how == "ended" else "")
    emit(what + (" note" if note else ""), steps * flows, taken, commits=commits)


if __name__ == "__main__":
    trio.run(main, *map(int, sys.argv[1:4]), *sys.argv[4:])
