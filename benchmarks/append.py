"""Activities per second, with ten triggers of which one per cent fire; and CIDs per second.

usage: append.py many|one kb|github ACTIVITIES | cid ROUNDS
many: append_many; one: `append` by 100 callers at once.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

import trio
from common import WEBHOOKS, Timer, activity, emit, workdir

import triggerflow as tf


def webhooks() -> list[dict[str, Any]]:
    """GitHub's webhook payloads, or documents of like size where the file isn't there."""
    if WEBHOOKS.exists():
        return [tf.parse_json(line) for line in WEBHOOKS.read_text().splitlines() if line]
    return [
        {**activity(number), "parts": [activity(part) for part in range(number % 25)]}
        for number in range(160)
    ]


def documents(kind: str, count: int) -> Iterator[dict[str, Any]]:
    """So many documents, no two alike; one per cent have a bucket below ten."""
    if kind == "kb":
        yield from map(activity, range(count))
        return
    found = webhooks()
    for number in range(count):
        # A delivery id, as GitHub sends it in a header, makes each a new activity.
        yield found[number % len(found)] | {"delivery": number, "bucket": number % 1000}


def make_app(url: str, kind: str) -> tf.App:
    app = tf.App(url, entry_points=False)

    @app.flow
    def note(_document):
        yield tf.side_effect(lambda: None)

    for number in range(10):
        match = {"bucket": [number]}
        app.trigger(
            f"bucket-{number}",
            on="Create" if kind == "kb" else "*",
            match={"object": match} if kind == "kb" else match,
            start=note,
        )
    return app


async def append(how: str, kind: str, count: int) -> None:
    given = list(documents(kind, count))
    size = sum(len(tf.encode_document(each)) for each in given[:1000]) // min(1000, count)
    with workdir() as folder:
        app = make_app(f"sqlite:///{folder}/append.db", kind)
        async with app.open() as engine:
            await engine.append_many([activity(-each - 1) for each in range(100)])  # warm
            fired = 0
            with Timer() as taken:
                if how == "many":
                    for found in await engine.append_many(given):
                        assert not found.duplicate
                        fired += len(found.firings)
                else:
                    left = iter(given)

                    async def caller() -> None:
                        nonlocal fired
                        for each in left:
                            found = await engine.append(each)
                            fired += len(found.firings)

                    async with trio.open_nursery() as nursery:
                        for _ in range(100):
                            nursery.start_soon(caller)
            assert fired == sum(1 for number in range(count) if number % 1000 < 10)
            await engine.run_until_idle()
    emit(f"append {how} {kind}", count, taken, bytes=size, fired=fired)


def cids(rounds: int) -> None:
    kb = activity(1)
    big = min(webhooks(), key=lambda each: abs(len(tf.encode_document(each)) - 12_000))
    for what, document in (("1 KB", kb), ("12 KB", big)):
        size = len(tf.encode_document(document))
        with Timer() as taken:
            for _ in range(rounds):
                tf.cid_of(document)
        emit(
            f"cid {what}",
            rounds,
            taken,
            bytes=size,
            mb_per_s=round(rounds * size / 1e6 / taken.s),
        )


if __name__ == "__main__":
    if sys.argv[1] == "cid":
        cids(int(sys.argv[2]))
    else:
        trio.run(append, sys.argv[1], sys.argv[2], int(sys.argv[3]))
