"""The floor: an event loop, bare generators and group commit, with no engine around them.

A flow's start, each result and its end are rows that are durable before anything follows.
There are no tags, digests, checks, attempts, clocks, triggers or leases, steps run on the
loop, parked flows stay in memory, and flows move in lockstep, which flatters batching: a
yardstick for the machine, no design.

usage: see `shape.py`
"""

from __future__ import annotations

import gc
import itertools
import sqlite3
import sys
import time
from collections.abc import Awaitable, Callable, Generator, Iterator
from typing import Any

import cbor2
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

Flow = Generator[Any, Any, Any]
WAIT = "wait"
FLOW_TABLE = (
    "CREATE TABLE IF NOT EXISTS flow"
    " (id INTEGER PRIMARY KEY, name TEXT, input BLOB, result BLOB)"
)
LOG_TABLE = (
    "CREATE TABLE IF NOT EXISTS log"
    " (id INTEGER PRIMARY KEY, flow INTEGER, position INTEGER, value BLOB,"
    " UNIQUE (flow, position))"
)
STARTED = "INSERT INTO flow VALUES (?, ?, ?, NULL)"
LOGGED = "INSERT INTO log (flow, position, value) VALUES (?, ?, ?)"
ENDED = "UPDATE flow SET result = ? WHERE id = ?"


def step(value: Any) -> Any:
    return value


def stamp(_: Any) -> float:
    return time.perf_counter()


def one_step(value: Any) -> Flow:
    return (yield step, value)


def ten_steps(value: Any) -> Flow:
    for _ in range(10):
        value = yield step, value
    return value


def park(value: Any) -> Flow:
    yield step, value
    return (yield WAIT, None)


def stamped(value: Any) -> Flow:
    return (yield stamp, value)


CODE: dict[str, Callable[[Any], Flow]] = {
    each.__name__: each for each in (one_step, ten_steps, park, stamped)
}


class Floor:
    def __init__(self, folder: str) -> None:
        self.db = sqlite3.connect(
            f"{folder}/floor.db", isolation_level=None, check_same_thread=False
        )
        self.db.execute("PRAGMA journal_mode = WAL")
        self.db.execute("PRAGMA synchronous = FULL")
        self.db.execute(FLOW_TABLE)
        self.db.execute(LOG_TABLE)
        self.rows: dict[str, list[Any]] = {}
        self.waiting: list[trio.Event] = []
        self.came = trio.Event()
        self.parked: dict[int, tuple[Flow, int]] = {}
        self.ids = itertools.count()

    def commit(self, rows: dict[str, list[Any]]) -> None:
        self.db.execute("BEGIN IMMEDIATE")
        for statement, values in rows.items():
            self.db.executemany(statement, values)
        self.db.execute("COMMIT")

    async def commit_for_ever(self) -> None:
        while True:
            await self.came.wait()
            self.came = trio.Event()
            rows, waiting = self.rows, self.waiting
            self.rows, self.waiting = {}, []
            await trio.to_thread.run_sync(self.commit, rows)
            for event in waiting:
                event.set()

    async def durable(self, statement: str, *values: Any) -> None:
        self.rows.setdefault(statement, []).append(values)
        event = trio.Event()
        self.waiting.append(event)
        self.came.set()
        await event.wait()

    async def start(self, name: str, value: Any) -> Any:
        """Run a flow to its end, or until it is parked: then its id is returned."""
        id = next(self.ids)
        await self.durable(STARTED, id, name, cbor2.dumps(value))
        flow = CODE[name](value)
        return await self.drive(id, flow, next(flow), 0)

    async def drive(self, id: int, flow: Flow, wanted: Any, position: int) -> Any:
        try:
            while wanted[0] is not WAIT:
                fn, value = wanted
                value = fn(value)
                await self.durable(LOGGED, id, position, cbor2.dumps(value))
                position += 1
                wanted = flow.send(value)
        except StopIteration as stop:
            await self.durable(ENDED, cbor2.dumps(stop.value), id)
            return stop.value
        self.parked[id] = flow, position
        return id

    async def signal(self, id: int, value: Any) -> Any:
        flow, position = self.parked.pop(id)
        await self.durable(LOGGED, id, position, cbor2.dumps(value))
        try:
            flow.send(value)
        except StopIteration as stop:
            await self.durable(ENDED, cbor2.dumps(stop.value), id)
            return stop.value

    def recover(self) -> None:
        for id, name, value in self.db.execute(
            "SELECT id, name, input FROM flow WHERE result IS NULL"
        ):
            flow = CODE[name](cbor2.loads(value))
            next(flow)
            self.parked[id] = flow, 0
        for id, value in self.db.execute(
            "SELECT log.flow, value FROM log JOIN flow ON flow.id = log.flow"
            " WHERE result IS NULL ORDER BY log.id"
        ):
            flow, position = self.parked[id]
            flow.send(cbor2.loads(value))
            self.parked[id] = flow, position + 1


async def flows(floor: Floor, steps: int, at_once: int, seconds: float) -> None:
    async def run(number: int) -> None:
        assert await floor.start(FLOWS[steps], number) == number

    await by(at_once, until(WARM, itertools.count()), run)
    with Work() as work:
        await by(at_once, work.count(until(seconds, itertools.count())), run)
    work.tell(f"{FLOWS[steps]} {at_once}", each=steps, version=sqlite3.sqlite_version)


async def fill_up(floor: Floor, numbers: Iterator[int]) -> None:
    async def run(number: int) -> None:
        await floor.start("park", number)

    await by(HELPERS, numbers, run)


async def answers(floor: Floor, at_once: int, ids: Iterator[int]) -> None:
    async def run(id: int) -> None:
        assert await floor.signal(id, 1) == 1

    await by(at_once, ids, run)


async def signals(floor: Floor, at_once: int, seconds: float) -> None:
    await fill_up(floor, until(2 * seconds, range(MANY)))
    ids = list(floor.parked)
    with Work() as work:
        await answers(floor, at_once, work.count(until(seconds, ids)))
    work.tell(f"signal {at_once}", parked=len(ids))


async def latency(floor: Floor, seconds: float) -> None:
    found = []
    for number in until(seconds, itertools.count()):
        called = time.perf_counter()
        found.append(await floor.start("stamped", number) - called)
    tell_latency(found[10:], sqlite3.sqlite_version)


async def fill(floor: Floor, count: int) -> None:
    await fill_up(floor, iter(range(HELPERS)))
    gc.collect()
    before = rss_mb()
    await fill_up(floor, iter(range(count)))
    gc.collect()
    tell_memory(count, rss_mb() - before)
    die()


async def with_floor(
    folder: str, work: Callable[..., Awaitable[None]], *arguments: Any
) -> None:
    floor = Floor(folder)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(floor.commit_for_ever)
        await work(floor, *arguments)
        nursery.cancel_scope.cancel()


async def again(folder: str, count: int) -> None:
    begun = time.perf_counter()
    floor = Floor(folder)
    floor.recover()
    waiting = time.perf_counter() - begun
    async with trio.open_nursery() as nursery:
        nursery.start_soon(floor.commit_for_ever)
        await answers(floor, HELPERS, iter(list(floor.parked)))
        nursery.cancel_scope.cancel()
    tell_recovery("recover", waiting, count, count)
    tell_recovery("answered", time.perf_counter() - begun, count, count)


def main(command: str, *arguments: str) -> None:
    if command == "fill":
        trio.run(with_floor, arguments[0], fill, int(arguments[1]))
        return
    if command == "again":
        trio.run(again, arguments[0], int(arguments[1]))
        return
    with workdir() as found:
        folder = str(found)
        if command == "parked":
            in_two_lives(folder, *arguments)
        elif command == "flows":
            steps, at_once, seconds = arguments
            trio.run(with_floor, folder, flows, int(steps), int(at_once), float(seconds))
        elif command == "signal":
            trio.run(with_floor, folder, signals, int(arguments[0]), float(arguments[1]))
        else:
            trio.run(with_floor, folder, latency, float(arguments[0]))


if __name__ == "__main__":
    main(*sys.argv[1:])
