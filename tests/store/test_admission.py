"""What admission costs, and two processes that want the same places."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import attrs
import pytest

from triggerflow.core.admission_request import Admission, Gather, Pace, Place
from triggerflow.store.newcomer import NewInstance
from triggerflow.store.operations import Append, Batch, Claim, PlannedFiring, Start, Turn
from triggerflow.store.records import NewTrigger
from triggerflow.store.sqlite import MemoryStore, SqliteStore

NOW = 1_700_000_000.0
FLOWS = frozenset({("welcome", 1)})


class Meter:
    """A store, and how many steps of SQLite's machine it takes to do something."""

    def __init__(self) -> None:
        self.store = MemoryStore()
        self.made = 0
        self.store.open()
        self.store.sync_triggers([NewTrigger("a", "cid-a", b"a", "means a")], now=NOW)
        self.worker = self.store.register_worker(build="b", flows=FLOWS, now=NOW)

    def commit(self, *operations: Any, now: float = NOW) -> Any:
        return self.store.commit(Batch(list(operations), now, self.worker))

    def arrive(self, count: int, asked: Admission | None) -> None:
        operations = []
        for _ in range(count):
            self.made += 1
            id = f"i{self.made}"
            new = NewInstance(id, "welcome", 1, b"in", b"seed", NOW, admission=asked)
            firing = PlannedFiring("cid-a", new)
            operations.append(Append(f"cid-{id}", b"{}", "[]", "[]", NOW, 1, (firing,)))
        self.commit(*operations)

    def steps_of_an_end(self) -> int:
        """What it takes that one ends and the next one gets its place."""
        (found,) = self.commit(Claim(1, 0, "b", FLOWS, NOW))
        (mine,) = found.claimed
        turn = Turn(mine.number, 1, 0, (), b"p", "done", NOW, NOW, value=b"v")
        return self.steps(lambda: self.commit(turn))

    def steps(self, deed: Callable[[], object]) -> int:
        """How many steps, in tens, a deed takes."""
        ticks = 0

        def tick() -> None:
            nonlocal ticks
            ticks += 1

        self.store._db.set_progress_handler(tick, 10)
        try:
            deed()
        finally:
            self.store._db.set_progress_handler(None, 0)
        return ticks


@pytest.mark.parametrize(
    "asked",
    [
        Admission(places=(Place("p", "k", 1),)),
        Admission(throttle=Pace("t", "k", 1, 10.0, 1)),
        Admission(rate_limit=Pace("r", "k", 1, 10.0, 1)),
        Admission(Gather("batch", "g", "k", 9.0, None, 100_000, True, 10**9)),
        Admission(Gather("debounce", "g", "k", 9.0, None, None, False, 10**9)),
    ],
    ids=["place", "throttle", "rate", "batch", "debounce"],
)
def test_an_arrival_costs_the_same_however_many_are_held(asked: Admission) -> None:
    """Ten thousand that are held under one key make the next one no dearer."""
    meter = Meter()
    meter.arrive(20, asked)
    few = meter.steps(lambda: meter.arrive(20, asked))
    for _ in range(10):
        meter.arrive(1000, asked)
    many = meter.steps(lambda: meter.arrive(20, asked))
    assert many < 2 * few


def test_an_end_costs_the_same_however_many_wait() -> None:
    """The next of ten thousand is looked up, and so is the next of a thousand places."""
    meter = Meter()
    one = Admission(places=(Place("p", "k", 1),))
    meter.arrive(20, one)
    few = meter.steps_of_an_end()
    for _ in range(10):
        meter.arrive(1000, one)
    assert meter.steps_of_an_end() < 2 * few
    wide = Meter()
    large = Admission(places=(Place("p", "k", 1000),))
    for _ in range(3):
        wide.arrive(1000, large)
    assert wide.steps_of_an_end() < 2 * few


def test_due_ones_are_looked_up() -> None:
    """A claim looks at no more held ones than it may take."""
    meter = Meter()
    asked = Admission(throttle=Pace("t", "k", 1, 0.001, 1))

    def claim() -> None:
        (found,) = meter.commit(Claim(5, 0, "b", FLOWS, NOW + 99))
        assert len(found.claimed) == 5

    meter.arrive(50, asked)
    few = meter.steps(claim)
    for _ in range(5):
        meter.arrive(1000, asked)
    assert meter.steps(claim) < 2 * few


def test_settled_rates_are_swept_away() -> None:
    """A rate for each of many keys leaves no row once nothing is owed any more."""
    store = MemoryStore()
    store.open()
    for n in range(500):
        now = NOW + 600 * n
        pace = Pace("r", str(n), 1, 10.0, 1)
        new = NewInstance(
            f"i{n}", "welcome", 1, b"in", b"seed", now, admission=Admission(throttle=pace)
        )
        store.commit(Batch([Start(new)], now))
    (left,) = store._db.execute("SELECT count(*) FROM rate").fetchone()
    assert left < 15
    store.close()


def test_a_fenced_or_failed_commit_leaves_nothing_behind() -> None:
    """A batch that is rolled back takes no place, no token, and joins no group."""
    meter = Meter()
    asked = Admission(
        rate_limit=Pace("r", "k", 5, 10.0, 5),
        throttle=Pace("t", "k", 1, 10.0, 1),
        places=(Place("p", "k", 1),),
    )
    db = meter.store._db

    def rows() -> list[Any]:
        tables = ("pool", "place", "rate", "gathering", "gathered", "instance")
        return [db.execute(f"SELECT * FROM {each} ORDER BY 1, 2").fetchall() for each in tables]

    meter.arrive(2, asked)
    before = rows()
    new = NewInstance("i1", "welcome", 1, b"in", b"seed", NOW, admission=asked)
    twice = Start(attrs.evolve(new))  # an id that is there: the insert fails
    with pytest.raises(Exception, match="UNIQUE"):
        meter.commit(twice)
    assert rows() == before


# --- two processes


RACER = """
from triggerflow.core.admission_request import Admission, Place
store = SqliteStore(PATH)
store.open()
worker = store.register_worker(build="build-a", flows=FLOWS, now=NOW)
me = hear()
asked = Admission(places=(Place("p", "k", 3),))
most = 0
for n in range(60):
    new = NewInstance(f"{me}-{n}", "welcome", 1, b"in", b"seed", NOW, admission=asked)
    (found,) = store.commit(Batch([Start(new, own=True)], NOW, worker))
    mine = list(found.claimed)
    (found,) = store.commit(Batch([Claim(5, 0, "build-a", FLOWS, NOW)], NOW, worker))
    mine += found.claimed
    running = [each for each in store.instances(status="running", limit=1000)]
    most = max(most, len(running))
    for each in mine:
        turn = Turn(each.number, 1, 0, (), b"p", "done", NOW, NOW, value=b"v")
        store.commit(Batch([turn], NOW, worker))
say(most=most)
hear()
store.close()
"""


def test_two_processes_never_share_a_place(database: Path, spawn: Callable[[str], Any]) -> None:
    """Two that start and end all the time never have more under way than there are places."""
    children = [spawn(RACER) for _ in range(2)]
    for n, child in enumerate(children):
        child.tell(f"c{n}")
    found = [child.hear() for child in children]
    for child in children:
        child.tell("end")
        child.end()
    assert all(each["most"] <= 3 for each in found), json.dumps(found)
    assert max(each["most"] for each in found) > 1
    store = SqliteStore(database)
    store.open()
    worker = store.register_worker(build="build-a", flows=FLOWS, now=NOW)
    while True:
        (claim,) = store.commit(Batch([Claim(9, 0, "build-a", FLOWS, NOW)], NOW, worker))
        if not claim.claimed:
            break
        assert len(claim.claimed) <= 3
        turns = [
            Turn(each.number, 1, 0, (), b"p", "done", NOW, NOW, value=b"v")
            for each in claim.claimed
        ]
        store.commit(Batch(turns, NOW, worker))
    assert store.counts().instances == {"done": 120}
    store.close()
