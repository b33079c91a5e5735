"""Pages of `instances(...)`: the first one and the 100th, narrowed down in each way.

The store has ended instances, one in a hundred failed or cancelled, and one in two hundred
still waiting; they stand in it as flows leave them, written by SQL so that this takes seconds.
A filter whose matches fill no 100 pages is asked for its last full page instead.

usage: listings.py [INSTANCES]     200,000 by default
"""

from __future__ import annotations

import json
import sqlite3
import statistics
import sys
import time
from pathlib import Path
from typing import Any

from common import emit, workdir

import triggerflow as tf
from triggerflow.core.codec import ValueCodec
from triggerflow.engine.asking import PAGE

BEGUN = 1_700_000_000.0
FLOWS, SHOPS, CUSTOMERS = 20, 10, 1000
ROUNDS = 15
FILTERS: tuple[dict[str, Any], ...] = (
    {},
    {"status": "done"},
    {"status": "failed"},
    {"status": "waiting"},
    {"status": ("done", "failed")},
    {"flow": "flow-7"},
    {"flow": "flow-7", "status": "done"},
    {"flow": "flow-7", "status": "failed"},
    {"namespace": "shop-3"},
    {"key": "key-77"},
    {"correlation_id": "order-77"},
    {"attributes": {"paid": True}},
    {"attributes": {"customer": "c-77"}},
    {"attributes": {"customer": "c-77", "paid": True}},
    {"attributes": {"paid": False}, "status": "done"},
    {"created_after": BEGUN + 50_000.0},
)


def status_of(number: int) -> str:
    if number % 200 == 7:
        return "waiting"
    return {3: "failed", 53: "cancelled"}.get(number % 100, "done")


def fill(path: Path, count: int) -> None:
    codec = ValueCodec()
    value, input = codec.encode(17), codec.encode({"n": 1})
    shown = codec.encode({"customer": "c-1", "paid": True})
    rows, generations, attributes = [], [], []
    for number in range(1, count + 1):
        status = status_of(number)
        made = BEGUN + number
        flow, shop = f"flow-{number % FLOWS}", f"shop-{number % SHOPS}"
        # Keys are held by one live instance at most; those of ended ones come again.
        names = (f"key-{number % 10_000}", f"order-{number % 20_000}")
        over = None if status == "waiting" else made + 5
        live = number if status == "waiting" else ""
        rows.append(
            (number, f"id-{number:08}", shop, flow, status, value, f"{names[0]}{live}",
             names[1], shown, made, made, over)
        )  # fmt: skip
        generations.append((number, 1, b"seed", input))
        attributes.append(("customer", json.dumps(f"c-{number % CUSTOMERS}"), number))
        attributes.append(("paid", json.dumps(number % 50 == 0), number))
    with sqlite3.connect(path) as db:
        db.executemany(
            "INSERT INTO instance (id, public_id, namespace, flow, version, status, log_length,"
            " value, key, correlation_id, attributes, created, started, ended)"
            " VALUES (?, ?, ?, ?, 1, ?, 3, ?, ?, ?, ?, ?, ?, ?)",
            rows,
        )
        db.executemany(
            "INSERT INTO generation (instance, generation, seed, input) VALUES (?, ?, ?, ?)",
            generations,
        )
        db.executemany(
            "INSERT INTO attribute (name, value, created, instance)"
            " SELECT ?, ?, created, id FROM instance WHERE id = ?",
            attributes,
        )
    db.close()


def timed(
    store: Any, where: dict[str, Any], after: Any, newest: bool
) -> tuple[float, list[Any]]:
    """(median seconds, the page)."""
    times, page = [], []
    for _ in range(ROUNDS):
        begun = time.perf_counter()
        page = store.instances(**where, after=after, limit=PAGE, newest_first=newest)
        times.append(time.perf_counter() - begun)
    return statistics.median(times), page


def main(count: int) -> None:
    with workdir() as folder:
        path = folder / "listings.db"
        store = tf.App(f"sqlite:///{path}", entry_points=False).make_store()
        store.open()
        store.close()
        fill(path, count)
        store.open()
        for where in FILTERS:
            for newest in (False, True):
                first, page = timed(store, where, None, newest)
                number, after = 1, None
                while number < 100 and len(page) == PAGE:
                    before = after
                    after = (page[-1].created, page[-1].number)
                    page = store.instances(
                        **where, after=after, limit=PAGE, newest_first=newest
                    )
                    if not page:
                        after = before
                        break
                    number += 1
                later, page = timed(store, where, after, newest)
                text = ", ".join(f"{name}={value}" for name, value in where.items()) or "all"
                emit(
                    f"listing {text}{' newest first' if newest else ''}",
                    len(page),
                    first,
                    first_ms=round(first * 1e3, 2),
                    page=number,
                    page_ms=round(later * 1e3, 2),
                )
        store.close()


if __name__ == "__main__":
    main(int((sys.argv[1:] or ["200000"])[0]))
