"""What must be true of a store full of `controlled.py`'s flows, asked in plain SQL.

Nothing here uses triggerflow. Each finding is a line of text; a clean store has none.
"""

from __future__ import annotations

import itertools
import json
import sqlite3
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import cbor2

KINDS = "DDBBTCCRSX"
SIZE, PLACES, RATE = 7, 3, 20
CONTROLS: dict[str, dict[str, Any]] = {
    "D": {"debounce": {"period": 0.2, "max_wait": 0.6, "key": "$.k", "collect": "all"}},
    "B": {"batch": {"size": SIZE, "wait": 0.5, "key": "$.k"}, "concurrency": PLACES},
    "T": {"throttle": {"limit": 200, "period": 1, "burst": 5}},
    "C": {"concurrency": {"limit": PLACES, "key": "$.k"}},
    "R": {"rate_limit": {"limit": RATE, "period": 1}},
    "S": {"singleton": {"mode": "skip", "key": "$.k"}},
    "X": {"singleton": {"mode": "cancel", "key": "$.k"}},
}
OUTCOMES = {
    "D": {"started", "debounced"},
    "B": {"started", "batched"},
    "R": {"started", "limited"},
    "S": {"started", "limited"},
}


def audit(store: Path, acks: Mapping[int, tuple[str, str]]) -> list[str]:
    """Every activity has had its one effect, and no limit was passed.

    Args:
        acks: number of an activity -> the outcome and the instance that were acknowledged.
    """
    with closing(sqlite3.connect(store)) as db:
        return [
            *[f"integrity: {row}" for (row,) in db.execute("PRAGMA integrity_check")][1:],
            *_firings(db, acks),
            *_instances(db),
            *_limits(db),
            *_left(db),
        ]


def _firings(db: sqlite3.Connection, acks: Mapping[int, tuple[str, str]]) -> Iterator[str]:
    found: dict[int, list[tuple[str, str, str]]] = defaultdict(list)
    for document, kind, outcome, instance in db.execute(
        "SELECT a.document, t.name, f.outcome, coalesce(f.instance, '') FROM activity a"
        " LEFT JOIN firing f ON f.activity = a.seq"
        " LEFT JOIN trigger_spec t ON t.id = f.trigger_spec"
    ):
        found[cbor2.loads(document)["n"]].append((kind, outcome, instance))
    for n, fired in found.items():
        kind = KINDS[n % len(KINDS)]
        if len(fired) != 1 or fired[0][0] != kind:
            yield f"{n}: fired {fired}, expected once, {kind}"
        elif fired[0][1] not in OUTCOMES.get(kind, {"started"}):
            yield f"{n}: {kind} came to {fired[0][1]}"
        elif bool(fired[0][2]) == (fired[0][1] == "limited"):
            yield f"{n}: {fired[0]}"
        elif n in acks and acks[n] != fired[0][1:]:
            yield f"{n}: acknowledged as {acks[n]}, stored as {fired[0][1:]}"
    for n in acks.keys() - found.keys():
        yield f"{n}: acknowledged and lost"


def _instances(db: sqlite3.Connection) -> Iterator[str]:
    """Each instance was given, and returned, what was gathered in it: all of it, in order."""
    given: dict[str, list[int]] = defaultdict(list)
    started: Counter[str] = Counter()
    for id, outcome, document in db.execute(
        "SELECT f.instance, f.outcome, a.document FROM firing f"
        " JOIN activity a ON a.seq = f.activity WHERE f.instance IS NOT NULL ORDER BY f.id"
    ):
        given[id].append(cbor2.loads(document)["n"])
        started[id] += outcome == "started"
    for id, status, value, kind in db.execute(
        "SELECT i.public_id, i.status, i.value, t.name FROM instance i"
        " JOIN trigger_spec t ON t.id = i.trigger_spec"
    ):
        numbers = given.pop(id, None)
        if started[id] != 1:
            yield f"{id}: started {started[id]} times"
        if status == "done":
            if cbor2.loads(value) != numbers:
                yield f"{id}: returned {cbor2.loads(value)}, was given {numbers}"
            if kind == "B" and len(numbers or ()) > SIZE:
                yield f"{id}: a batch of {len(numbers or ())}"
        elif status != "cancelled" or kind != "X":
            yield f"{id}: {kind} is {status}"
    yield from (f"{id}: has no instance" for id in given)
    short = [
        len(list(group))
        for _, group in itertools.groupby(
            db.execute(
                "SELECT c.instance FROM gathered c JOIN instance i ON i.id = c.instance"
                " JOIN trigger_spec t ON t.id = i.trigger_spec WHERE t.name = 'B' ORDER BY 1"
            )
        )
    ]
    if SIZE not in short:
        yield "no batch was ever full"


def _limits(db: sqlite3.Connection) -> Iterator[str]:
    """How many were under way at once, from the first turn to the end, and how fast."""
    runs: dict[tuple[str, int], list[tuple[float, float]]] = defaultdict(list)
    received: list[float] = []
    for kind, document, begun, ended, at in db.execute(
        "SELECT t.name, a.document, i.started, i.ended, a.received FROM instance i"
        " JOIN trigger_spec t ON t.id = i.trigger_spec JOIN activity a ON a.seq = i.activity"
    ):
        key = 0 if kind == "B" else cbor2.loads(document)["k"]
        if begun is not None:
            runs[kind, key].append((begun, ended))
        if kind == "R":
            received.append(at)
    for (kind, key), times in runs.items():
        moments = sorted(
            [(begun, 1) for begun, _ in times] + [(ended, -1) for _, ended in times]
        )
        most = max(itertools.accumulate(change for _, change in moments))
        limit = {"B": PLACES, "C": PLACES, "S": 1, "X": 1}.get(kind)
        if limit is not None and most > limit:
            yield f"{kind} {key}: {most} at once"
    for first in received:
        count = sum(first <= each < first + 1 for each in received)
        if count > 2 * RATE + 1:
            yield f"R: {count} in a second"


def _left(db: sqlite3.Connection) -> Iterator[str]:
    """Nothing is under way, so nobody has a place, waits for one, or gathers."""
    for sql in (
        "SELECT count(*) FROM pool",
        "SELECT count(*) FROM place",
        "SELECT count(*) FROM gathering",
        "SELECT count(*) FROM gathered WHERE input IS NOT NULL",
        "SELECT count(*) FROM instance WHERE held <> 0 OR owner IS NOT NULL",
    ):
        (count,) = db.execute(sql).fetchone()
        if count:
            yield f"{count} left: {sql}"


def summary(store: Path, world: Path) -> str:
    """What there was to audit."""
    with closing(sqlite3.connect(store)) as db:
        outcomes = dict(db.execute("SELECT outcome, count(*) FROM firing GROUP BY 1"))
    steps = Counter(
        tuple(line.split()[:2]) for line in world.with_suffix(".txt").read_text().splitlines()
    )
    again = sum(count - 1 for count in steps.values())
    return f"{json.dumps(outcomes)}, {again} runs of steps repeated"
