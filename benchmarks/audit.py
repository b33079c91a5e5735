"""Kill a process under load once, recover in another, and audit the database.

A child starts flows and appends activities, each of them written down once it was
acknowledged, until SIGKILL ends it at a random moment. Another process runs what is left.
Then every acknowledged start and activity must exist, every instance must have ended with
the right result, each log position must be there once, and every (activity, trigger) pair
must have fired once. Any violation is printed and makes the exit status 1.

usage: audit.py SECONDS [SEED]
"""

from __future__ import annotations

import json
import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import cbor2
import trio
from common import Timer, activity, emit, workdir

import triggerflow as tf

STEPS = 10
PATIENCE = 60.0


def add(value: int, number: int) -> int:
    return value + number


def size(document: Any) -> int:
    return len(document)


def make_app(path: str) -> tf.App:
    app = tf.App(f"sqlite:///{path}", entry_points=False)

    @app.flow
    def total(value):
        for number in range(STEPS):
            value = yield tf.call(add, value, number)
        return value

    @app.flow
    def measure(document):
        return (yield tf.call(size, document))

    app.trigger("measure", on="Create", start=measure)
    return app


async def load(path: str, acknowledged: str) -> None:
    """Start and append for ever; each is one line once it was acknowledged."""
    out = os.open(acknowledged, os.O_CREAT | os.O_WRONLY | os.O_APPEND)
    async with make_app(path).open() as engine, trio.open_nursery() as nursery:

        async def starter(number: int) -> None:
            while True:
                started = await engine.start("total", number)
                os.write(out, f"start {started} {number}\n".encode())
                await engine.wait(started)
                number += 100

        async def appender(number: int) -> None:
            while True:
                found = await engine.append(activity(number))
                os.write(out, f"append {found.cid} {number}\n".encode())
                number += 10

        for number in range(100):
            nursery.start_soon(starter, number)
        for number in range(10):
            nursery.start_soon(appender, number)


async def recover(path: str) -> None:
    async with make_app(path).open() as engine:
        await engine.run_until_idle()
        while [True async for each in engine.instances() if not each.is_over]:
            await trio.sleep(0.05)
            await engine.run_until_idle()


def audit(path: str, acknowledged: list[list[str]]) -> list[str]:
    """What is wrong with the database, in words."""
    db = sqlite3.connect(path)
    wrong: list[str] = []
    found = {
        public: (
            number,
            flow,
            status,
            length,
            cbor2.loads(value) if value else None,
            cbor2.loads(given),
        )
        for number, public, flow, status, length, value, given in db.execute(
            "SELECT i.id, i.public_id, i.flow, i.status, i.log_length, i.value, g.input"
            " FROM instance i JOIN generation g ON g.instance = i.id"
        )
    }
    cids = dict(db.execute("SELECT cid, seq FROM activity"))
    for kind, public, number in acknowledged:
        if kind == "start" and (public not in found or found[public][5] != int(number)):
            wrong.append(f"acknowledged start {public} is lost")
        if kind == "append" and public not in cids:
            wrong.append(f"acknowledged activity {public} is lost")
    positions: dict[int, list[int]] = {}
    for number, position in db.execute("SELECT instance, position FROM log ORDER BY position"):
        positions.setdefault(number, []).append(position)
    for public, (number, flow, status, length, value, given) in found.items():
        steps = STEPS if flow == "total" else 1
        if status != "done":
            wrong.append(f"{flow} {public} is {status}")
        elif value != (given + sum(range(STEPS)) if flow == "total" else len(given)):
            wrong.append(f"{flow} {public} of {given!r:.40} returned {value!r}")
        if not positions.get(number, []) == list(range(steps)) == list(range(length)):
            wrong.append(
                f"{flow} {public} has the log {positions.get(number)} and length {length}"
            )
    fired = dict(db.execute("SELECT activity, count(*) FROM firing GROUP BY activity"))
    started = {public for (public,) in db.execute("SELECT instance FROM firing")}
    for cid, seq in cids.items():
        if fired.get(seq) != 1:
            wrong.append(f"activity {cid} fired {fired.get(seq, 0)} times")
    measures = {public for public, row in found.items() if row[1] == "measure"}
    wrong += [f"firing or instance {public} stands alone" for public in started ^ measures]
    (state,) = db.execute("PRAGMA integrity_check").fetchone()
    if state != "ok":
        wrong.append(f"integrity_check: {state}")
    db.close()
    return wrong


def main(seconds: float, seed: int) -> int:
    moment = random.Random(seed).uniform(0.2, 1.0) * seconds
    with workdir() as folder:
        path, notes = str(folder / "audit.db"), folder / "acknowledged"
        me = [sys.executable, str(Path(__file__).resolve())]
        child = subprocess.Popen([*me, "load", path, str(notes)])
        try:
            patience = time.monotonic() + PATIENCE
            while not notes.exists() or not notes.stat().st_size:
                if child.poll() is not None or time.monotonic() > patience:
                    print(json.dumps({"what": "audit", "wrong": ["the load did not start"]}))
                    return 1
                time.sleep(0.01)
            time.sleep(moment)
        finally:
            child.send_signal(signal.SIGKILL)
            child.wait()
        lines = notes.read_text().splitlines(keepends=True)
        acknowledged = [line.split() for line in lines if line.endswith("\n")]
        db = sqlite3.connect(path)
        (running,) = db.execute(
            "SELECT count(*) FROM instance WHERE status NOT IN ('done', 'failed')"
        ).fetchone()
        db.close()
        with Timer() as taken:
            subprocess.run([*me, "recover", path], check=True, timeout=PATIENCE)
        wrong = audit(path, acknowledged)
        emit(
            "audit after SIGKILL",
            len(acknowledged),
            taken.s,
            seed=seed,
            killed_after_s=round(moment, 2),
            in_flight=running,
            wrong=wrong[:20],
            violations=len(wrong),
        )
        return 1 if wrong else 0


if __name__ == "__main__":
    if sys.argv[1] == "load":
        trio.run(load, sys.argv[2], sys.argv[3])
    elif sys.argv[1] == "recover":
        trio.run(recover, sys.argv[2])
    else:
        chosen = (
            int(sys.argv[2]) if len(sys.argv) > 2 else random.SystemRandom().randrange(10**6)
        )
        sys.exit(main(float(sys.argv[1]), chosen))
