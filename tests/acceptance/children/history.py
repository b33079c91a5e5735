"""A worker beside a long history: it backfills or catches up, and appends meanwhile."""

from __future__ import annotations

import json
import sys

import trio
from house import hear, say

import triggerflow as tf
from triggerflow.engine import backfill

# Many commits, so that a kill falls between two of them.
backfill._FIRINGS, backfill._LOOKED = 20, 200
store, way, life = sys.argv[1:]


def picky(document: dict[str, int]) -> bool:
    if document["n"] % 20 == 10:
        raise ValueError(document["n"])
    return True


app = tf.App(f"sqlite:///{store}", entry_points=False)


@app.flow
def numbered(activity: dict[str, int]) -> object:
    return (yield tf.call(abs, activity["n"]))


app.trigger("early", on="Like", start=numbered)
if way != "prepare":
    app.trigger("late", on="Follow", start=numbered, guard=picky, start_at="horizon")


def act(n: int, type: str) -> dict[str, object]:
    return {"type": type, "actor": "https://a.example/ann", "n": n}


async def prepare() -> None:
    """The history: a tenth of it would fire; then `early` meets things while it is paused."""
    count = int(life)
    async with app.open(work=False) as engine:
        for first in range(0, count, 1000):
            page = [act(n, "Note" if n % 10 else "Follow") for n in range(first, first + 1000)]
            await engine.append_many(page)
        await engine.pause("early")
        await engine.append_many([act(n, "Like") for n in range(count)][: count // 10])
        await engine.resume("early")


async def brings(engine: tf.Engine) -> None:
    """Live traffic: each is told of once it is durable."""
    for n in range(1_000_000 * (int(life) + 1), 10**12, 10):
        found = await engine.append(act(n, "Follow"))
        say("ack", json.dumps([found.cid, [each.outcome for each in found.firings or ()]]))
        await trio.sleep(0.005)


async def work() -> None:
    async with app.open() as engine, trio.open_nursery() as nursery:
        nursery.start_soon(brings, engine)
        told = -1
        while True:
            moved = sum(each.cursor for each in await engine.backfills())
            if moved != told:
                told = moved
                say("moved", str(moved))
            await trio.sleep(0.002)


async def drain() -> None:
    async with app.open() as engine:
        while any(each.state == "running" for each in await engine.backfills()):  # noqa: ASYNC110
            await trio.sleep(0.01)
        await engine.run_until_idle()
        say("done")


say("open")
hear()
trio.run({"prepare": prepare, "work": work, "drain": drain}[way])
if way == "prepare":
    say("done")
