"""Query plans: what is asked all the time never walks through a large table."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import attrs
import pytest

from triggerflow.core.admission_request import Admission, Gather, Pace, Place
from triggerflow.store.acts import CloseTask, CloseWait, OpenTask, OpenWait, RearmTask
from triggerflow.store.operations import (
    Append,
    Batch,
    Block,
    Claim,
    Dispatch,
    Heartbeat,
    LogRow,
    NewInstance,
    PlannedFiring,
    Release,
    Send,
    Start,
    Terminate,
    Turn,
    Unblock,
)
from triggerflow.store.records import NewTrigger
from triggerflow.store.sqlite import SqliteStore
from triggerflow.store.tasks import ClaimTasks, FinishTask, TaskHeartbeat
from triggerflow.store.waits import Hit, Watched

NOW = 1_700_000_000.0
FLOWS = frozenset({("welcome", 1)})
ROWS = 20_000
LARGE = (
    "activity",
    "firing",
    "gathered",
    "gathering",
    "generation",
    "inbox",
    "instance",
    "log",
    "place",
    "pool",
    "progress",
    "rate",
    "task",
    "task_answer",
    "tried",
    "wait",
    "wait_key",
)
# Partial indexes that hold only what the question is about: walking them is no waste.
SMALL = (
    "instance_active",
    "instance_blocked",
    "instance_due",
    "instance_open",
    "instance_unhappy",
    "task_suspect",
    "wait_behind",
)
# Questions to a listing; each of their pages is looked up, and none is sorted.
LISTED: tuple[dict[str, Any], ...] = (
    {"created_after": NOW, "created_before": NOW + 9},
    {"flow": "welcome"},
    {"flow": "welcome", "status": "done", "created_before": NOW + 9},
    {"key": "k-x7"},
    {"namespace": "shop"},
    {"correlation_id": "order-7"},
    {"parent": "i-x7"},
    {"status": "waiting"},
    {"status": ("running", "blocked")},
    {"status": ("failed", "cancelled"), "created_after": NOW},
    {"status": "failed", "namespace": "shop"},
)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SqliteStore]:
    """20,000 instances: most parked, some runnable, some blocked, with logs and messages."""
    store = SqliteStore(Path(tmp_path_factory.mktemp("plans")) / "flows.db")
    store.open()
    registry = store.sync_triggers([NewTrigger("a", "cid-a", b"a", "means a")], now=NOW)
    worker = store.register_worker(build="build-a", flows=FLOWS, now=NOW)
    for first in range(0, ROWS, 1000):
        names = range(first, first + 1000)
        store.commit(Batch([append(f"x{n}", registry) for n in names], NOW))
        claim = Claim(1000, 0, "build-a", FLOWS, NOW)
        (found,) = store.commit(Batch([claim], NOW, worker))
        turns: list[Any] = []
        for each in found.claimed:
            if each.number % 10 == 0:
                turns.append(Release((each.number,)))
            elif each.number % 10 == 1:
                turns.append(Block(each.number, 1, 0, "diverged", "changed", "build-a"))
            else:
                queued = OpenTask(f"call:t#{each.number}", "gpu", "render", b"a", NOW)
                wait = OpenWait("w#0", b"p", 0, b"d", (('["id"]', f"n{each.number}"),))
                parked = parking(each.number, 0, NOW + each.number)
                turns.append(attrs.evolve(parked, acts=(queued, wait)))
        store.commit(Batch(turns, NOW, worker))
        sends = [
            Send(f"i-x{n}", "signal", "reply", b"yes", NOW, f"d{n}", b"d")
            for n in names
            if n % 10 == 1
        ]
        store.commit(Batch(sends, NOW))
    yield store
    store.close()


def append(name: str, registry: int) -> Append:
    made = NewInstance(f"i-{name}", "welcome", 1, b"input", b"seed", NOW, key=f"k-{name}")
    return Append(
        f"cid-{name}", b"{}", "[]", "[]", NOW, registry, (PlannedFiring("cid-a", made),)
    )


def parking(number: int, length: int, due: float | None, status: str = "waiting") -> Turn:
    rows = (LogRow("call:a#0", b"v", False, b"d", NOW),)
    return Turn(number, 1, length, rows, b"p", status, NOW, NOW, due)


def plans(store: SqliteStore, deed: Callable[[], object]) -> dict[str, list[str]]:
    """Each statement that a deed runs, with the steps of its plan."""
    seen: list[tuple[sqlite3.Connection, str]] = []
    connections = [store._db, store._reader]
    for db in connections:
        db.set_trace_callback(lambda sql, db=db: seen.append((db, sql)))
    try:
        deed()
    finally:
        for db in connections:
            db.set_trace_callback(None)
    found = {}
    for db, sql in seen:
        if re.match(r"\s*(SELECT|UPDATE|DELETE|INSERT)\b", sql):
            steps = db.execute(f"EXPLAIN QUERY PLAN {sql}").fetchall()
            found[sql] = [step[3] for step in steps]
    return found


def walks(sql: str, steps: list[str]) -> list[str]:
    """The steps that walk through a large table."""
    names = {table: table for table in LARGE}
    for table, alias in re.findall(r"(?:FROM|JOIN)\s+(\w+)\s+(?:AS\s+)?(\w+)", sql):
        if table in LARGE:
            names[alias] = table
    found = []
    for step in steps:
        scan = re.match(r"SCAN (?:TABLE )?(\w+)(?: AS (\w+))?", step)
        if scan and (scan[1] in names or scan[2] in names):
            index = re.search(r"INDEX (\w+)", step)
            if index is None or index[1] not in SMALL:
                found.append(step)
    return found


def list_pages(store: SqliteStore, where: dict[str, Any]) -> None:
    for newest in (False, True):
        store.instances(**where, limit=10, newest_first=newest)
        store.instances(**where, limit=10, newest_first=newest, after=(NOW, 500))


def deeds(store: SqliteStore) -> dict[str, Callable[[], object]]:
    registry, _ = store.registry()
    worker = store.register_worker(build="build-b", flows=FLOWS, now=NOW)

    def commit(*operations: Any) -> Any:
        return store.commit(Batch(list(operations), NOW, worker))

    def own() -> Any:
        return commit(Claim(1, 0, "build-b", FLOWS, NOW))[0].claimed[0]

    def dispatch() -> None:
        commit(Append("cid-late", b"{}", "[]", "[]", NOW, registry, None))
        row = store.outbox(1)[0]
        commit(Dispatch(row.id, row.seq, registry, NOW, append("late", 1).firings))

    def turn() -> None:
        mine, yours = own(), own()
        commit(parking(mine.number, 0, NOW + 5), parking(yours.number, 0, None, "done"))

    def say() -> None:
        mine = own()
        commit(Heartbeat(mine.number, 1, "call:b#0", b"half", NOW))
        store.progress(mine.number, 1)
        over = parking(mine.number, 0, None, "done")
        commit(attrs.evolve(over, progress_over=("call:b#0",)))

    def revive() -> None:
        mine = own()
        commit(parking(mine.number, 0, None, "failed"))
        commit(Send(mine.id, "retry", "", b"", NOW))

    def block() -> None:
        mine = own()
        commit(Block(mine.number, 1, 0, "diverged", "changed", "build-b"))

    def crash() -> None:
        dying = store.register_worker(build="build-c", flows=FLOWS, now=NOW - 100)
        store.commit(Batch([Claim(5, 1, "build-c", FLOWS, NOW)], NOW - 100, dying))
        store.reap({dying[0]: NOW - 100})

    def forget() -> None:
        store.forget_worker(store.register_worker(build="d", flows=FLOWS, now=NOW)[0])

    def held() -> Any:
        one = frozenset({"gpu"}), frozenset({"render", "paint"})
        return commit(ClaimTasks(2, *one, NOW))[0].tasks

    def run_tasks() -> None:
        one, two = held()
        call = (one.number, one.generation, one.tag)
        commit(TaskHeartbeat(one.id, one.token, *call, b"half", NOW))
        commit(FinishTask(one.id, one.token, *call, b"done", b"d", final=True, at=NOW))
        commit(FinishTask(one.id, one.token, *call, b"done", b"d", final=True, at=NOW))
        call = (two.number, two.generation, two.tag)
        commit(FinishTask(two.id, two.token, *call, b"no", b"d", final=False, at=NOW))

    def decide() -> None:
        mine = own()
        queued = OpenTask("call:new#0", "cpu", "render", b"a", NOW, 9.0, "k")
        later, close = RearmTask("call:new#0", NOW + 9), CloseTask("call:new#0")
        turn = attrs.evolve(
            parking(mine.number, 0, None, "running"), acts=(queued, later, close)
        )
        commit(turn)

    def lose() -> None:
        dying = store.register_worker(
            build="e", flows=(), serves=[("gpu", "render")], now=NOW - 99
        )
        one = frozenset({"gpu"}), frozenset({"render"})
        store.commit(Batch([ClaimTasks(5, *one, NOW)], NOW - 99, dying))
        store.reap({dying[0]: NOW - 99})

    def listen() -> None:
        mine = own()
        standing = store.standing()
        opened = OpenWait("w#1", b"p", 0, b"d", (('["id"]', "n77"), ("", "")))
        acts = (opened, attrs.evolve(opened, tag="w#2"), CloseWait("w#2"))
        commit(attrs.evolve(parking(mine.number, 0, None), acts=acts))
        found = store.waits_under([('["id"]', "n77", 0), ("", "", 0), ('["n"]', "n1", 9)], 10)
        (wait,) = store.waits_of(mine.number)
        store.waits(after=500, limit=10)
        store.waits_behind(limit=10)
        store.waits_behind((5, 5), 10, nearest_first=True)
        hits = (Hit(found[0][1].id, 9, 0, b"p"),)
        commit(Watched(9, NOW, hits, (wait.id,), (wait.id,), standing.newest))
        commit(Watched(10**9, NOW, newest=standing.newest))
        commit(Terminate("i-x14", b"v", NOW))

    def controlled(name: str, **parts: Any) -> Any:
        made = append(name, registry)
        new = attrs.evolve(made.firings[0].instance, key=None, admission=Admission(**parts))
        return attrs.evolve(made, firings=(PlannedFiring("cid-a", new),))

    def gather() -> None:
        pack = Gather("batch", "g", "k", 5.0, None, 3, True, 1000)
        bounce = Gather("debounce", "g", "b", 5.0, None, None, False, 1000)
        throttle = Pace("t", "", 1, 10.0, 1)
        commit(*(controlled(f"p{n}", gather=pack, throttle=throttle) for n in range(4)))
        commit(controlled("b0", gather=bounce), controlled("b1", gather=bounce))
        commit(Send("i-b0", "cancel", "", b"", NOW))

    def limit() -> None:
        pace = Pace("r", "", 1, 10.0, 1)
        commit(controlled("r0", rate_limit=pace), controlled("r1", rate_limit=pace))

    def place() -> None:
        one = (Place("p", "k", 1),)
        high = {"places": one, "priority": 9}
        commit(*(controlled(f"q{n}", **high) for n in range(3)))
        mine = own()
        assert mine.id == "i-q0"
        commit(parking(mine.number, 0, None, "failed"))
        commit(Send("i-q0", "retry", "", b"", NOW))
        for n, mode in enumerate(("skip", "skip", "cancel", "cancel")):
            commit(controlled(f"s{n}", places=(Place("s", mode, 1, mode),)))

    new = NewInstance("i-new", "welcome", 1, b"input", b"seed", NOW, key="k-x12")
    return {
        "waits": listen,
        "append": lambda: commit(append("new", registry), append("x7", registry)),
        "gather": gather,
        "limit": limit,
        "place": place,
        "dispatch": dispatch,
        "start with key": lambda: commit(Start(new)),
        "send": lambda: commit(
            Send("i-x12", "signal", "reply", b"yes", NOW, "d12", b"d"),
            Send("i-x13", "cancel", "", b"", NOW),
        ),
        "dedup": lambda: commit(Send("i-x11", "signal", "reply", b"yes", NOW, "d11", b"d")),
        "claim": lambda: commit(Claim(10, 1, "build-b", FLOWS, NOW + 50)),
        "claim what is left": lambda: commit(Claim(5000, 0, "build-b", FLOWS, NOW)),
        "claim alone": lambda: commit(Claim(10, 1, "build-b", FLOWS, NOW, alone=True)),
        "turn": turn,
        "heartbeat": say,
        "revive": revive,
        "block": block,
        "unblock": lambda: commit(Unblock("i-x20")),
        "release": lambda: commit(Release((own().number,))),
        "reap": crash,
        "tasks": run_tasks,
        "tasks in a turn": decide,
        "tasks of the dead": lose,
        "held": lambda: (held(), store.held(worker[0])),
        "list tasks": lambda: (
            store.tasks(limit=10),
            store.tasks("gpu", after=500, limit=10),
            store.tasks_of(77),
        ),
        "forget": forget,
        "woken": lambda: (own(), store.woken(worker[0])),
        "next due": store.next_due,
        "runnable": store.runnable,
        "prune": lambda: (
            commit(parking(own().number, 0, None, "done")),
            store.prune("welcome", {1: NOW + 1}, now=NOW),
        ),
        "prune documents": lambda: store.prune_documents(NOW + 1, limit=20),
        "removed": lambda: store.removed("i-x"),
        "instance": lambda: store.instance("i-x77"),
        "ids": lambda: store.ids("i-x77"),
        **{
            f"a page by {', '.join(where)}": partial(list_pages, store, where)
            for where in LISTED
        },
        "log": lambda: store.log(77, 1),
        "inbox": lambda: store.inbox(77),
        "activity": lambda: store.activity("cid-x77"),
        "firings": lambda: store.firings("cid-x77"),
        "outbox": lambda: store.outbox(10),
        "registry": store.registry,
        "workers": store.workers,
        "sync": lambda: store.sync_triggers(
            [NewTrigger("b", "cid-b", b"b", "means b", limits=(("p", 2),))], now=NOW
        ),
    }


def test_nothing_hot_walks_through_a_table(store: SqliteStore) -> None:
    """On 20,000 instances, no statement of an operation or a lookup is a full scan."""
    found = {}
    statements = 0
    for name, deed in deeds(store).items():
        for sql, steps in plans(store, deed).items():
            statements += 1
            if walks(sql, steps):
                found[name] = (re.sub(r"\s+", " ", sql)[:300], steps)
    assert not found
    assert statements > 80


def test_no_page_is_sorted(store: SqliteStore) -> None:
    """Each page of a listing comes out of its index in order, whatever narrows it down."""
    for where in ({}, *LISTED):
        found = plans(store, partial(list_pages, store, where))
        assert len(found) == 4
        for sql, steps in found.items():
            assert not [each for each in steps if "TEMP B-TREE" in each], (sql, steps)


def test_the_probe_sees_a_walk(store: SqliteStore) -> None:
    """The test above would notice a scan, by table and by alias, and an index on all rows."""
    for sql in (
        "SELECT * FROM instance WHERE cause = 'x'",
        "SELECT i.id FROM instance i WHERE i.crashes > 3",
        "SELECT instance, generation FROM log ORDER BY instance, generation",
    ):
        (steps,) = plans(store, lambda sql=sql: store._db.execute(sql).fetchall()).values()
        assert walks(sql, steps), steps
    hot = "SELECT min(due) FROM instance WHERE status = 'waiting' AND due IS NOT NULL"
    (steps,) = plans(store, lambda: store._db.execute(hot).fetchall()).values()
    assert "instance_due" in steps[0]
    assert not walks(hot, steps)
