"""The floor: group commit and batched SQL with nothing around them. A yardstick, no design.

Two threads: one drives bare generators, one commits what has gathered. There are no tags,
digests, checks, attempts or clocks, no retry and no recovery, and every step runs on the
driving thread, so that all flows move in lockstep, which flatters batching.

usage: floor.py STEPS FLOWS AT_ONCE
"""

from __future__ import annotations

import queue
import sqlite3
import sys
import threading
from collections.abc import Generator
from pathlib import Path
from typing import Any

import cbor2
from common import Timer, emit, workdir

TABLES = (
    "CREATE TABLE flow (id INTEGER PRIMARY KEY, state TEXT, input BLOB, result BLOB)",
    (
        "CREATE TABLE log (id INTEGER PRIMARY KEY, flow INTEGER, position INTEGER,"
        " tag TEXT, value BLOB, UNIQUE (flow, position))"
    ),
)


def step(value: int) -> int:
    return value


def chain(steps: int, value: int) -> Generator[Any, Any, Any]:
    for _ in range(steps):
        value = yield step, value
    return value


class Floor:
    def __init__(self, folder: Path, steps: int, flows: int) -> None:
        self.db = sqlite3.connect(
            folder / "f.db", isolation_level=None, check_same_thread=False
        )
        self.db.execute("PRAGMA journal_mode = WAL")
        self.db.execute("PRAGMA synchronous = FULL")
        for table in TABLES:
            self.db.execute(table)
        self.steps, self.flows = steps, flows
        self.begun = self.ended = self.commits = 0
        self.todo: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self.done: queue.SimpleQueue[list[Any]] = queue.SimpleQueue()

    def commit_for_ever(self) -> None:
        while True:
            batches = [self.todo.get()]
            while not self.todo.empty():
                batches.append(self.todo.get())
            self.db.execute("BEGIN IMMEDIATE")
            for starts, logs, ends, _ in batches:
                self.db.executemany("INSERT INTO flow VALUES (?, 'running', ?, NULL)", starts)
                self.db.executemany(
                    "INSERT INTO log (flow, position, tag, value) VALUES (?, ?, ?, ?)", logs
                )
                self.db.executemany(
                    "UPDATE flow SET state = 'done', result = ? WHERE id = ?", ends
                )
            self.db.execute("COMMIT")
            self.commits += 1
            for *_, waiting in batches:
                self.done.put(waiting)

    def begin(self, starts: list[Any], waiting: list[Any]) -> None:
        if self.begun < self.flows:
            number = self.begun
            self.begun += 1
            starts.append((number, cbor2.dumps(number)))
            waiting.append((number, chain(self.steps, number), -1, None))

    def run(self, at_once: int) -> None:
        threading.Thread(target=self.commit_for_ever, daemon=True).start()
        starts: list[Any] = []
        waiting: list[Any] = []
        for _ in range(at_once):
            self.begin(starts, waiting)
        self.todo.put((starts, [], [], waiting))
        while self.ended < self.flows:
            starts, logs, ends, waiting = [], [], [], []
            for number, flow, position, value in self.done.get():
                if flow is None:
                    self.ended += 1
                    self.begin(starts, waiting)
                    continue
                try:
                    fn, argument = flow.send(value)
                except StopIteration as stop:
                    ends.append((cbor2.dumps(stop.value), number))
                    waiting.append((number, None, 0, None))
                    continue
                result = fn(argument)
                logs.append((number, position + 1, "call:step", cbor2.dumps(result)))
                waiting.append((number, flow, position + 1, result))
            if waiting:
                self.todo.put((starts, logs, ends, waiting))


def main(steps: int, flows: int, at_once: int) -> None:
    with workdir() as folder:
        floor = Floor(folder, steps, flows)
        with Timer() as taken:
            floor.run(at_once)
        (count,) = floor.db.execute("SELECT count(*) FROM log").fetchone()
        assert count == steps * flows
    emit(f"floor {steps}-step {at_once}", steps * flows, taken, commits=floor.commits)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:4]))
