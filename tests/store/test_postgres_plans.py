"""PostgreSQL's query plans: what is asked all the time never walks through a large table.

The plans are those of a plain connection with the server's own settings; the store's
connections are told, besides, not to walk through tables that are small yet.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest

from triggerflow.store.acts import (
    AwaitChild,
    CancelChild,
    CloseTask,
    CloseWait,
    ContinueAsNew,
    EmitActivity,
    OpenTask,
    OpenWait,
    RearmTask,
    RecordResult,
    SendMessage,
    SetAttributes,
    SpawnChild,
)
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
from triggerflow.store.postgres.wire import Db
from triggerflow.store.records import NewTrigger
from triggerflow.store.tasks import ClaimTasks, FinishTask, TaskHeartbeat
from triggerflow.store.waits import Hit, Watched

pytestmark = pytest.mark.slow

NOW = 1_700_000_000.0
FLOWS = frozenset({("welcome", 1)})
ROWS = 100_000
LARGE = (
    "activity",
    "attribute",
    "firing",
    "generation",
    "inbox",
    "instance",
    "log",
    "progress",
    "recorded",
    "task",
    "task_answer",
    "tried",
    "wait",
    "wait_key",
)
# Partial indexes that hold only what the question is about: walking them is no waste.
SMALL = (
    "instance_blocked",
    "instance_due",
    "instance_free",
    "instance_open",
    "instance_owned",
    "instance_unhappy",
    "task_suspect",
    "wait_behind",
)
# 100,000 instances, one in a hundred runnable, one in a hundred blocked, the others parked or
# done; each with an activity, a firing, a log entry, a message, a task and so on.
FILL = """
INSERT INTO trigger_spec (cid, name, meaning, spec, state, registered, registry)
    VALUES ('cid-old', 'old', 'means old', '', 'superseded', 0, 0);
INSERT INTO activity (seq, cid, types, actors, document, received)
    SELECT nextval('activity_seq'), 'cid-x' || n, '[]', '[]', 'd', {now} - n
    FROM generate_series(1, {rows}) n;
INSERT INTO firing (activity, trigger_spec, instance, outcome, registry, at)
    SELECT n, 1, 'i-x' || n, 'started', 0, {now} FROM generate_series(1, {rows}) n;
INSERT INTO instance (id, public_id, namespace, flow, version, status, due, key,
    correlation_id, parent, activity, trigger_spec, created, ended, log_length, awaited)
    SELECT nextval('instance_id'), 'i-x' || n, CASE WHEN n % 50 = 0 THEN 'shop' ELSE '' END,
    'welcome', 1, CASE n % 100 WHEN 0 THEN 'running' WHEN 1 THEN 'blocked'
    WHEN 2 THEN 'failed' ELSE CASE WHEN n % 2 = 0 THEN 'waiting' ELSE 'done' END END,
    CASE WHEN n % 100 > 2 AND n % 2 = 0 THEN {now} + n END, 'k-x' || n, 'order-' || n % 1000,
    CASE WHEN n > 1000 THEN n % 1000 + 1 END, n, 1, {now} + n / 100,
    CASE WHEN n % 100 = 2 OR n % 100 > 2 AND n % 2 = 1 THEN {now} + n END, 1, TRUE
    FROM generate_series(1, {rows}) n;
UPDATE instance SET cause = 'diverged' WHERE status = 'blocked';
INSERT INTO generation (instance, generation, seed, input)
    SELECT n, 1, 's', 'i' FROM generate_series(1, {rows}) n;
INSERT INTO log (instance, generation, position, tag, value, failed, at)
    SELECT n, 1, 0, 'call:a#0', 'v', FALSE, {now} FROM generate_series(1, {rows}) n;
INSERT INTO inbox (instance, kind, name, payload, dedup, digest, at)
    SELECT n, 'signal', 'reply', 'p', 'd' || n, 'd', {now} FROM generate_series(1, {rows}) n;
INSERT INTO tried (instance, build) SELECT n, 'build-a' FROM generate_series(1, {rows}) n;
INSERT INTO wait (id, instance, generation, tag, pattern, position)
    SELECT n, n, 1, 'wait#0', 'p', 0 FROM generate_series(1, {rows}) n;
INSERT INTO wait_key (path, value, wait)
    SELECT '["id"]', 'n' || n, n FROM generate_series(1, {rows}) n;
UPDATE wait SET upto = 9 WHERE id % 1000 = 0;
UPDATE meta SET value = {rows} WHERE name = 'wait';
INSERT INTO task (instance, generation, tag, queue, step, args, due, armed)
    SELECT n, 1, 'call:t#0', 'gpu', 'render', 'a', {now}, {now}
    FROM generate_series(1, {rows}) n;
INSERT INTO task_answer (instance, generation, tag, token, digest)
    SELECT n, 1, 'call:u#0', 0, 'd' FROM generate_series(1, {rows}) n;
INSERT INTO progress (instance, generation, tag, details, at)
    SELECT n, 1, 'call:t#0', 'd', {now} FROM generate_series(1, {rows}) n;
INSERT INTO attribute (name, value, created, instance)
    SELECT 'city', '"c' || n || '"', {now} + n / 100, n FROM generate_series(1, {rows}) n;
INSERT INTO recorded (step, key, value, at)
    SELECT 'a', 'k' || n, 'v', {now} FROM generate_series(1, {rows}) n;
UPDATE firing SET removed = {now} WHERE id % 1000 = 0;
"""


class Plans:
    """A full store, and the plans of what it is asked.

    Attributes:
        store: the store.
    """

    def __init__(self, places: Any) -> None:
        from triggerflow.store.postgres import PostgresStore

        self.places = places
        self.name = places.take()
        self.store = PostgresStore(places.url_of(self.name))
        self.store.open()
        self.store.sync_triggers([NewTrigger("a", "cid-a", b"a", "means a")], now=NOW)
        plain = psycopg.connect(places.url, autocommit=True)
        plain.execute(f"SET search_path TO {self.name}, pg_catalog")
        plain.execute(FILL.format(now=NOW, rows=ROWS), prepare=False)
        plain.execute("VACUUM ANALYZE")
        self._plain = Db(plain)

    def close(self) -> None:
        self.store.close()
        self._plain.close()
        self.places.ask(f"DROP SCHEMA {self.name} CASCADE")

    def of(self, deed: Callable[[], object]) -> dict[str, Any]:
        """Each statement that a deed runs, with its plan."""
        seen: dict[str, tuple[Any, ...]] = {}
        ask = Db.execute

        def noting(db: Db, text: str, *values: Any) -> Any:
            seen.setdefault(text, values)
            return ask(db, text, *values)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Db, "execute", noting)
            deed()
        return {
            text: self.plan(text, *values)
            for text, values in seen.items()
            if re.match(r"(SELECT|UPDATE|DELETE|INSERT|WITH)\b", text)
        }

    def plan(self, text: str, *values: Any) -> Any:
        """The plan of a statement."""
        found = self._plain.execute(f"EXPLAIN (FORMAT JSON) {text}", *values).one()
        return (json.loads(found) if isinstance(found, bytes | str) else found)[0]["Plan"]


def walks(plan: Any, limited: bool = False) -> list[str]:
    """The steps of a plan that walk through a large table."""
    found = []
    limited = limited or plan["Node Type"] == "Limit"
    table, index = plan.get("Relation Name"), plan.get("Index Name")
    if table in LARGE:
        if plan["Node Type"] == "Seq Scan":
            found.append(f"walks through {table}")
        # A page comes out of its index in order, up to its limit.
        elif not (limited or "Index Cond" in plan or index is None or index in SMALL):
            found.append(f"walks through {table} by {index}")
    for below in plan.get("Plans", ()):
        found += walks(below, limited and plan["Node Type"] not in ("Sort", "Aggregate"))
    return found


@pytest.fixture(scope="module")
def plans(places: Any) -> Iterator[Plans]:
    made = Plans(places)
    yield made
    made.close()


def new(id: str, **parts: Any) -> NewInstance:
    return NewInstance(id, "welcome", 1, b"input", b"seed", NOW, **parts)


def append(name: str, registry: int) -> Append:
    fires = PlannedFiring("cid-a", new(f"i-{name}", key=f"k-{name}"))
    return Append(f"cid-{name}", b"{}", "[]", "[]", NOW, registry, (fires,))


def deeds(plans: Plans) -> dict[str, Callable[[], object]]:
    store = plans.store
    registry, _ = store.registry()
    worker = store.register_worker(build="build-b", flows=FLOWS, now=NOW)

    def commit(*operations: Any) -> Any:
        return store.commit(Batch(list(operations), NOW, worker))

    def own(count: int = 1) -> Any:
        found = commit(Claim(count, 0, "build-b", FLOWS, NOW))[0].claimed
        return found[0] if count == 1 else found

    def turn(of: Any, status: str, **parts: Any) -> Turn:
        rows = (LogRow("call:a#1", b"v", False, b"d", NOW),)
        return Turn(
            of.number, of.generation, of.log_length, rows, b"p", status, NOW, NOW, **parts
        )

    def dispatch() -> None:
        commit(Append("cid-late", b"{}", "[]", "[]", NOW, registry, None))
        row = store.outbox(1)[0]
        commit(Dispatch(row.id, row.seq, registry, NOW, append("late", 1).firings))

    def turns() -> None:
        ops = [
            turn(mine, status, due=NOW + 9, consumed=(1, 2), progress_over=("call:t#0",))
            for mine, status in zip(own(4), ("waiting", "done", "failed", "cancelled"))
        ]
        commit(*ops)

    def act() -> None:
        mine, other = own(2)
        acts = (
            SpawnChild("s#0", new("i-child", key="k-child"), awaited=True, abandoned=False),
            AwaitChild("i-x77"),
            CancelChild("i-x78", b"\xf6", NOW, forget=True),
            SendMessage("s#1", "i-x80", "reply", b"p", NOW),
            EmitActivity("cid-emitted", b"{}", "[]", "[]", NOW, 1),
            OpenWait("wait#1", b"p", 0),
            CloseWait("wait#0"),
            OpenTask("call:new#0", "cpu", "render", b"a", NOW, 9.0, "k"),
            RearmTask("call:t#0", NOW + 9),
            CloseTask("call:t#1"),
            SetAttributes(b"a", {"city": "here", "town": None}),
            RecordResult("call:a#1", "a", "new", b"v", NOW),
        )
        follows = ContinueAsNew(1, b"input", b"seed", None)
        commit(turn(mine, "running", acts=acts), turn(other, "running", acts=(follows,)))

    def revive() -> None:
        commit(Send("i-x2", "retry", "", b"", NOW))

    def crash() -> None:
        dying = store.register_worker(build="c", flows=FLOWS, now=NOW - 100)
        store.commit(Batch([Claim(5, 1, "c", FLOWS, NOW)], NOW - 100, dying))
        gpu = frozenset({"gpu"}), frozenset({"render"})
        store.commit(Batch([ClaimTasks(5, *gpu, NOW)], NOW - 100, dying))
        store.reap({dying[0]: NOW - 100})

    def run_tasks() -> None:
        gpu = frozenset({"gpu"}), frozenset({"render", "paint"})
        commit(ClaimTasks(2, *gpu, NOW, alone=True))
        one, two = commit(ClaimTasks(2, *gpu, NOW))[0].tasks
        call = (one.number, one.generation, one.tag)
        commit(TaskHeartbeat(one.id, one.token, *call, b"half", NOW))
        commit(FinishTask(one.id, one.token, *call, b"done", b"d", final=True, at=NOW))
        call = (two.number, two.generation, two.tag)
        commit(FinishTask(two.id, two.token, *call, b"no", b"d", final=False, at=NOW))

    def transact() -> None:
        from triggerflow.store.transactions import Transact

        mine = own()
        store.transact(Transact(mine.number, 1, "x", 0, worker, NOW, 9.0), lambda tx: b"")

    listed: list[dict[str, Any]] = [
        {},
        {"created_after": NOW, "created_before": NOW + 9},
        {"flow": "welcome"},
        {"key": "k-x7"},
        {"namespace": "shop"},
        {"correlation_id": "order-7"},
        {"parent": "i-x7"},
        {"status": "waiting"},
        {"status": ("running", "blocked")},
        {"status": ("failed", "cancelled"), "created_after": NOW},
        {"attributes": {"city": "c7"}},
    ]

    def pages() -> None:
        for where in listed:
            for newest in (False, True):
                store.instances(**where, limit=10, newest_first=newest)
                store.instances(**where, limit=10, newest_first=newest, after=(NOW, 500))

    return {
        "append": lambda: commit(append("new", registry), append("x7", registry)),
        "dispatch": dispatch,
        "start": lambda: commit(Start(new("i-new", key="k-x12")), Start(new("i-newer"))),
        "send": lambda: commit(
            Send("i-x12", "signal", "reply", b"yes", NOW, "d12", b"d"),
            Send("i-x14", "cancel", "", b"", NOW),
        ),
        "watched": lambda: commit(
            Watched(9, NOW, (Hit(77, 9, 0, b"p"),), (78, 79), (80,), newest=ROWS),
        ),
        "waits": lambda: (
            store.standing(),
            store.waits_under([('["id"]', "n78", 0), ("", "", 0), ('["n"]', "n1", 9)], 10),
            store.waits_behind(limit=10),
            store.waits_behind((5, 5), 10, nearest_first=True),
            store.waits(500, 10),
            store.waits_of(78),
        ),
        "claim": lambda: commit(Claim(10, 1, "build-b", FLOWS, NOW + 50)),
        "claim alone": lambda: commit(Claim(10, 1, "build-b", FLOWS, NOW, alone=True)),
        # The largest that a worker asks for.
        "claim many": lambda: commit(Claim(256, 0, "build-b", FLOWS, NOW)),
        "hand back": lambda: (
            store.forget_worker(store.register_worker(build="d", flows=FLOWS, now=NOW)[0]),
            commit(Release(tuple(each.number for each in store.instances(status="running")))),
        ),
        "turns": turns,
        "acts": act,
        "heartbeat": lambda: commit(Heartbeat(own().number, 1, "call:b#0", b"half", NOW)),
        "revive": revive,
        "block": lambda: commit(Block(own().number, 1, 1, "diverged", "changed", "build-b")),
        "unblock": lambda: commit(Unblock("i-x101")),
        "terminate": lambda: commit(Terminate("i-x104", b"v", NOW)),
        "reap": crash,
        "tasks": run_tasks,
        "transact": transact,
        "woken": lambda: (
            own(),
            commit(Send("i-x77", "signal", "r", b"", NOW)),
            store.woken(worker[0]),
        ),
        "held": lambda: store.held(worker[0]),
        "list tasks": lambda: (
            store.tasks(limit=10),
            store.tasks("gpu", after=500, limit=10),
            store.tasks_of(77),
        ),
        "next due": store.next_due,
        "runnable": store.runnable,
        "prune": lambda: store.prune("welcome", {1: NOW + 50}, now=NOW),
        "prune documents": lambda: store.prune_documents(NOW - 99_900, limit=20),
        "removed": lambda: store.removed("i-x100"),
        "instance": lambda: store.instance("i-x77"),
        "ids": lambda: store.ids("i-x77"),
        "holders": lambda: store.holders("k-x4", namespace=""),
        "pages": pages,
        "log": lambda: store.log(77, 1),
        "inbox": lambda: store.inbox(77),
        "progress": lambda: store.progress(77, 1),
        "activity": lambda: store.activity("cid-x77"),
        "activities": lambda: store.activities(5000, 100),
        "firings": lambda: store.firings("cid-x77"),
        "outbox": lambda: store.outbox(10),
        "recorded": lambda: store.recorded("a", "k7"),
        "registry": store.registry,
        "workers": store.workers,
    }


def test_nothing_hot_walks_through_a_table(plans: Plans) -> None:
    """On 100,000 instances, no statement of an operation or a lookup is a sequential scan."""
    found = {}
    statements = 0
    for name, deed in deeds(plans).items():
        for text, plan in plans.of(deed).items():
            statements += 1
            if walks(plan):
                found[name, text[:300]] = walks(plan)
    assert not found, "\n".join(f"{k}: {v}" for k, v in found.items())
    assert statements > 120


def test_the_probe_sees_a_walk(plans: Plans) -> None:
    """The test above would notice a scan, by table and by an index on all rows."""
    for text in (
        "SELECT * FROM instance WHERE reason = 'x'",
        "SELECT i.id FROM instance i WHERE i.crashes > 3",
        "SELECT count(*) FROM log",
        "UPDATE inbox SET consumed = TRUE WHERE name = 'x'",
    ):
        assert walks(plans.plan(text)), text
    assert not walks(plans.plan("SELECT * FROM instance WHERE id = 7"))
