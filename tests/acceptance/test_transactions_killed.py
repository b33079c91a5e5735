"""Transaction steps under SIGKILL: the user's rows are the results, one for one.

The audit reads the user's table with plain SQL, and the results as a client reads them.
"""

from __future__ import annotations

import random
import signal
import sqlite3
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import triggerflow as tf

LIMIT = 60.0
SABOTAGE = "TRIGGERFLOW_TEST_SABOTAGE"


class Office:
    """One store, and the children that book seats in it."""

    def __init__(self, path: Path, processes: Any) -> None:
        self.path = path
        self.processes = processes
        self.acks: set[str] = set()

    def child(self, way: str, life: int = 0, dies: str = "", **env: str) -> Any:
        child = self.processes.start("seats.py", *(self.path, way, life, dies), **env)
        child.expect("open")
        child.say("go")
        return child

    def heard(self, lines: list[str]) -> int:
        """Keep what a child was told; how many acknowledgements these were."""
        found = {line[4:] for line in lines if line.startswith("ack ")}
        self.acks |= found
        return len(found)

    def drain(self) -> None:
        """One process drives everything to its end."""
        child = self.child("drain")
        child.expect("done")
        assert child.finish() == []

    def booked(self) -> Counter[tuple[object, ...]]:
        """The user's rows."""
        with sqlite3.connect(self.path) as db:
            if not db.execute("SELECT 1 FROM sqlite_master WHERE name = 'seats'").fetchone():
                return Counter()
            return Counter(map(tuple, db.execute("SELECT seat, order_id, leg FROM seats")))

    def audit(self) -> list[str]:
        """What is wrong: rows without result, results without row, legs booked twice."""
        app = tf.App(f"sqlite:///{self.path}", entry_points=False)
        results: Counter[tuple[object, ...]] = Counter()
        found = []
        with app.client(work=False) as client:
            for each in client.instances():
                if each.status != "done":
                    found.append(f"{each.id} is {each.status}, expected done")
                    continue
                results.update(tuple(leg) for leg in each.result)
        rows = self.booked()
        found += [f"row {row} is no step's result" for row in rows - results]
        found += [f"result {row} has no row" for row in results - rows]
        legs = Counter(row[1:] for row in rows)
        found += [f"leg {leg} is booked {n} times" for leg, n in legs.items() if n > 1]
        orders = {order for _, order, _ in results}
        found += [f"order {order} was acknowledged and lost" for order in self.acks - orders]
        return found


@pytest.fixture
def office(tmp_path: Path, processes: Any) -> Office:
    return Office(tmp_path / "office.db", processes)


def die(office: Office, dies: str, **env: str) -> None:
    """One order, whose first booking kills its process there."""
    child = office.child("one", 1, dies, **env)
    while not child.over:
        office.heard(child.pull(LIMIT))
    assert child.process.wait(LIMIT) == -signal.SIGKILL


@pytest.mark.parametrize(("dies", "rows"), [("before", 0), ("within", 0), ("after", 1)])
def test_killed_around_the_commit(office: Office, dies: str, rows: int) -> None:
    """Before the commit neither row nor result is there; after it both, and no second run."""
    die(office, dies)
    assert office.booked().total() == rows
    office.drain()
    assert office.audit() == []
    assert office.booked().total() == 3


def test_audit_notices_a_result_apart_from_its_row(office: Office) -> None:
    """With the rows committed before the result, a kill between them books a leg twice."""
    die(office, "between", **{SABOTAGE: "apart"})
    office.drain()
    found = office.audit()
    assert any("is no step's result" in each for each in found), found
    assert any("is booked 2 times" in each for each in found), found


@pytest.mark.slow
def test_killed_at_random_moments(office: Office, report: Callable[[str], None]) -> None:
    """Two processes at a time, six kills: in the end the rows are the results."""
    chance = random.Random(20_260_202)
    pair = [office.child("append", 1), office.child("append", 2)]
    kills = 0
    for life in range(3, 9):
        moment = [chance.randint(3, 60) for _ in pair]
        until = time.monotonic() + LIMIT
        counts = [0, 0]
        while not any(count >= most for count, most in zip(counts, moment, strict=True)):
            for index, child in enumerate(pair):
                counts[index] += office.heard(child.pull(0.01))
                assert not child.over, child.complaints()
            assert time.monotonic() < until, f"only {counts} acks of {moment}"
        loser = 0 if counts[0] >= moment[0] else 1
        office.heard(pair[loser].kill())
        kills += 1
        pair[loser] = office.child("append", life)
    for child in pair:
        office.heard(child.kill())
        kills += 1
    office.drain()
    rows = office.booked().total()
    report(f"{kills} kills: {len(office.acks)} orders acknowledged, {rows} seats booked")
    assert office.audit() == []
    assert rows >= 3 * len(office.acks) > 0
    assert "locked" not in office.processes.complaints()
