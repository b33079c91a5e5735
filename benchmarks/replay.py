"""Replay: recorded entries per second, from memory and cold from SQLite.

memory: a chain of `call(step, i)` driven from `Entry` objects, beside a bare generator fed
from a list, with and without the digests that every stored entry carries.
cold: a file that real engine runs wrote; read, decode, re-drive, every digest verified, by
the code that a claim runs.

usage: replay.py memory ENTRIES SECONDS | cold STEPS int|note_arg|note SECONDS
"""

from __future__ import annotations

import gc
import sys
import time
from collections.abc import Callable
from typing import Any

import trio
from common import NOTE, Timer, emit, rss_mb, workdir

import triggerflow as tf


def step(*arguments: Any) -> Any:
    return arguments[0]


class Bare:
    __slots__ = ("argument", "name")

    def __init__(self, name: str, argument: Any) -> None:
        self.name = name
        self.argument = argument


def bare(entries: int) -> Any:
    for number in range(entries):
        yield Bare("step", number)
    return entries


def chain(entries: int) -> Any:
    for number in range(entries):
        yield tf.call(step, number)
    return entries


def feed_bare(entries: int, log: list[tuple[str, Any]]) -> Any:
    generator = bare(entries)
    send = generator.send
    wanted = send(None)
    try:
        for name, value in log:
            if wanted.name != name:
                raise RuntimeError(name)
            wanted = send(value)
    except StopIteration as stop:
        return stop.value


def repeat(seconds: float, work: Callable[[], Any]) -> tuple[int, Timer]:
    """Run it again and again for so many seconds, at least three times."""
    gc.collect()
    rounds = 0
    with Timer() as taken:
        end = time.perf_counter() + seconds
        while rounds < 3 or time.perf_counter() < end:
            work()
            rounds += 1
    return rounds, taken


def memory(entries: int, seconds: float) -> None:
    codec = tf.Replay(chain, 1)._codec
    plain = [tf.Entry(f"call:step#{i}", i, None, None, 1.0) for i in range(entries)]
    signed = [
        tf.Entry(f"call:step#{i}", i, None, codec.digest((i,), {}), 1.0) for i in range(entries)
    ]
    pairs = [("step", i) for i in range(entries)]

    def replay(log: list[tf.Entry]) -> None:
        found = tf.Replay(chain, entries, log=log).outcome
        assert found == tf.Done(entries)

    def drive() -> None:
        assert tf.drive(chain, entries, plain) == tf.Done(entries)

    def bare_loop() -> None:
        assert feed_bare(entries, pairs) == entries

    for name, work in (
        ("bare", bare_loop),
        ("memory", lambda: replay(plain)),
        ("drive", drive),
        ("memory digests", lambda: replay(signed)),
    ):
        rounds, taken = repeat(seconds, work)
        emit(f"replay {name} {entries}", entries * rounds, taken)


async def cold(steps: int, kind: str, seconds: float) -> None:
    from triggerflow.engine.running import Running
    from triggerflow.store.records import Claimed

    with workdir() as folder:
        app = tf.App(f"sqlite:///{folder}/replay.db", entry_points=False)

        @app.flow
        def recorded(_input):
            for number in range(steps):
                if kind == "int":
                    yield tf.call(step, number)
                elif kind == "note_arg":
                    yield tf.call(step, number, NOTE)
                else:
                    yield tf.call(step, NOTE)
            return steps

        async with app.open() as engine, trio.open_nursery() as nursery:
            ids = [await engine.start("recorded", None) for _ in range(3)]
            for each in ids:
                nursery.start_soon(engine.wait, each)
        store = app.make_store()
        store.open()
        flow = app.flows.get("recorded", 1)
        turn = 0

        def again() -> None:
            nonlocal turn
            record = store.instance(ids[turn % 3])
            turn += 1
            claimed = Claimed(
                record.number, record.id, record.flow, record.version, record.generation,
                record.log_length, record.pending, record.crashes, False, record.input,
                record.seed, record.started, None, (),
            )  # fmt: skip
            run = Running(claimed, flow, 0.0)
            run.redrive(store.log(record.number, record.generation), record.pending, app.codec)
            assert run.replay.outcome == tf.Done(steps)
            assert run.replay.position == steps

        again()
        before = rss_mb()
        rounds, taken = repeat(seconds, again)
        rows = store.log(store.instance(ids[0]).number, 1)
        assert all(row.digest for row in rows)
        emit(
            f"replay cold {kind} {steps}",
            steps * rounds,
            taken,
            rss_mb=round(rss_mb(), 1),
            rss_grown_mb=round(rss_mb() - before, 1),
        )
        store.close()


if __name__ == "__main__":
    if sys.argv[1] == "memory":
        memory(int(sys.argv[2]), float(sys.argv[3]))
    else:
        trio.run(cold, int(sys.argv[2]), sys.argv[3], float(sys.argv[4]))
