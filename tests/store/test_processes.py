"""SQLite between processes: fair shares, first opens, sudden deaths, forks."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from triggerflow.store.operations import Batch, Claim, NewInstance, Operation, Start, Verdict
from triggerflow.store.records import NewTrigger
from triggerflow.store.sqlite import SqliteStore, schema

NOW = 1_700_000_000.0
FLOWS = frozenset({("welcome", 1)})

Spawn = Callable[[str], Any]


@pytest.fixture
def store(database: Path) -> Iterator[SqliteStore]:
    store = SqliteStore(database)
    store.open()
    yield store
    store.close()


def start(id: str) -> Start:
    return Start(NewInstance(id, "welcome", 1, b"input", b"seed", NOW))


def ask(store: SqliteStore, operation: Operation, worker: Any = None) -> Any:
    return store.commit(Batch([operation], NOW, worker))[0]


WRITER = """
store = SqliteStore(PATH); store.open()
say(ready=True); hear()
mine, last = 0, 0
while last < 600:
    last = store.commit(Batch([start(f"{os.getpid()}-{mine}")], NOW))[0].number
    mine += 1
say(commits=mine)
store.close()
"""


def test_two_busy_processes_share_fairly(spawn: Spawn, database: Path) -> None:
    """Two processes that write as fast as they can each get a quarter of it at least."""
    children = [spawn(WRITER) for _ in range(2)]
    for child in children:
        child.hear()
    for child in children:
        child.tell()
    shares = [child.hear()["commits"] for child in children]
    for child in children:
        child.end()
    assert sum(shares) >= 600
    assert min(shares) >= sum(shares) / 4, shares
    db = sqlite3.connect(database)
    assert db.execute("SELECT count(*) FROM instance").fetchone() == (sum(shares),)
    db.close()


THREADS = """
import threading
stores = [SqliteStore(PATH) for _ in range(3)]
for store in stores:
    store.open()
say(ready=True); hear()
wrong = []

def write(which):
    try:
        for turn in range(40):
            stores[which].commit(Batch([start(f"{os.getpid()}-{which}-{turn}")], NOW))
            stores[which].reap()
    except Exception as error:
        wrong.append(repr(error))

threads = [threading.Thread(target=write, args=(n,)) for n in range(3)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
for store in stores:
    store.close()
say(wrong=wrong)
"""


def test_threads_of_two_processes_write_at_once(spawn: Spawn, store: SqliteStore) -> None:
    """Several stores in threads of several processes are never told of a lock or deadlock."""
    children = [spawn(THREADS) for _ in range(2)]
    for child in children:
        child.hear()
    for child in children:
        child.tell()
    for child in children:
        assert child.hear() == {"wrong": []}
        child.end()
    assert store.counts().instances == {"running": 240}


FIRST_OPEN = """
say(ready=True); hear()
store = SqliteStore(PATH); store.open()
found = store.commit(Batch([start(f"i{os.getpid()}")], NOW))[0]
say(verdict=found.verdict.value, schema=store.counts().schema)
store.close()
"""


def test_many_processes_open_a_new_file_at_once(spawn: Spawn, database: Path) -> None:
    """Eight processes that open a brand-new file together all succeed, with one schema."""
    children = [spawn(FIRST_OPEN) for _ in range(8)]
    for child in children:
        child.hear()
    for child in children:
        child.tell()
    newest = schema.migrations()[-1][0]
    for child in children:
        assert child.hear() == {"verdict": "applied", "schema": newest}
        child.end()
    db = sqlite3.connect(database)
    assert db.execute("SELECT count(*) FROM instance").fetchone() == (8,)
    known = {"registry": 0, "token": 0, "watched": 0}
    assert dict(db.execute("SELECT name, value FROM meta")) == known
    db.close()


OPEN_AND_CLOSE = """
say(ready=True); hear()
for turn in range(15):
    store = SqliteStore(PATH); store.open()
    store.register_worker(build="b", flows=FLOWS, now=NOW)
    assert store.commit(Batch([start(f"{os.getpid()}-{turn}")], NOW))[0].seq is None
    store.instances(limit=3); store.reap()
    store.close()
say(turns=turn + 1)
"""


def test_processes_come_and_go(spawn: Spawn, database: Path) -> None:
    """Processes that open, write and close all the time never find the file locked."""
    children = [spawn(OPEN_AND_CLOSE) for _ in range(4)]
    for child in children:
        child.hear()
    for child in children:
        child.tell()
    for child in children:
        assert child.hear() == {"turns": 15}
        child.end()
    db = sqlite3.connect(database)
    assert db.execute("SELECT count(*) FROM instance").fetchone() == (60,)
    assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    db.close()


OWNER = """
store = SqliteStore(PATH); store.open()
worker = store.register_worker(build="build-a", flows=FLOWS, now=NOW)
store.commit(Batch([start("i1"), claim()], NOW, worker))
say(worker=worker)
hear()
"""


def test_a_killed_worker_is_dead_at_once(store: SqliteStore, spawn: Spawn) -> None:
    """A worker of a killed process is reaped at once, whatever its lease says."""
    child = spawn(OWNER)
    number, epoch = child.hear()["worker"]
    assert [(each.id, each.alive, each.owned) for each in store.workers()] == [
        (number, True, 1)
    ]
    assert store.reap() == 0
    child.kill()
    assert [each.alive for each in store.workers()] == [False]
    assert store.reap() == 1
    found = store.instance("i1")
    assert found is not None
    assert (found.status, found.owner, found.crashes) == ("running", None, 1)
    late = ask(store, Claim(10, 1, "build-a", FLOWS, NOW), (number, epoch))
    assert (late.verdict, late.detail) == (Verdict.FENCED, "worker")


def test_a_living_worker_of_another_process_is_left_alone(
    store: SqliteStore, spawn: Spawn
) -> None:
    """Looking whether a worker lives neither kills it nor takes its lock."""
    child = spawn(OWNER)
    child.hear()
    for _ in range(3):
        assert store.reap() == 0
    child.tell()
    child.end()
    # It ended without closing, which is a death too.
    assert store.reap() == 1


CRASH_MID_TRANSACTION = """
store = SqliteStore(PATH); store.open()
with store._locks.turn():
    store._db.execute("BEGIN IMMEDIATE")
    store._db.execute("DELETE FROM instance")
    say(inside=True)
    hear()
"""


def test_a_death_inside_a_transaction_leaves_nothing(store: SqliteStore, spawn: Spawn) -> None:
    """A process killed while it writes leaves no half batch, and the turnstile free."""
    ask(store, start("i1"))
    child = spawn(CRASH_MID_TRANSACTION)
    child.hear()
    child.kill()
    assert ask(store, start("i2")).verdict is Verdict.APPLIED
    assert [each.id for each in store.instances()] == ["i1", "i2"]


def test_changed_notices_other_processes_only(store: SqliteStore, spawn: Spawn) -> None:
    """`changed` is true once after another process wrote, and never after an own write."""
    assert not store.changed()
    ask(store, start("i1"))
    store.sync_triggers([NewTrigger("a", "cid-a", b"a", "means a")], now=NOW)
    assert not store.changed()
    child = spawn(
        "store = SqliteStore(PATH); store.open()\n"
        "store.commit(Batch([start('i2')], NOW))\nsay(done=True); hear()\n"
    )
    child.hear()
    assert store.changed()
    assert not store.changed()
    child.tell()
    child.end()
    store.changed()
    ask(store, start("i3"))
    assert not store.changed()


def test_changed_survives_an_own_write(store: SqliteStore, spawn: Spawn) -> None:
    """Another process's write is still noticed when an own one came after it."""
    assert not store.changed()
    child = spawn(
        "store = SqliteStore(PATH); store.open()\n"
        "store.commit(Batch([start('i2')], NOW))\nsay(done=True); hear()\n"
    )
    child.hear()
    ask(store, start("i3"))
    assert store.changed()


SEES = """
store = SqliteStore(PATH); store.open()
say(alive=[[each.id, each.alive] for each in store.workers()])
store.close()
"""


def test_two_stores_of_one_process_keep_their_locks(
    store: SqliteStore, spawn: Spawn, database: Path
) -> None:
    """A store that closes takes no lock away from another store of its process."""
    mine, _ = store.register_worker(build="build-a", flows=FLOWS, now=NOW)
    second = SqliteStore(database)
    second.open()
    second.register_worker(build="build-b", flows=FLOWS, now=NOW)
    assert [each.alive for each in store.workers()] == [True, True]
    second.close()
    child = spawn(SEES)
    assert child.hear() == {"alive": [[mine, True]]}
    child.end()
    assert store.reap() == 0
    assert ask(store, start("i1")).verdict is Verdict.APPLIED


def test_another_way_to_write_the_path_is_the_same_file(
    store: SqliteStore, spawn: Spawn, database: Path
) -> None:
    """Two stores on one file keep their locks, though one goes by a symbolic link."""
    mine, _ = store.register_worker(build="build-a", flows=FLOWS, now=NOW)
    link = database.with_name("link.db")
    link.symlink_to(database)
    second = SqliteStore(link)
    second.open()
    second.close()
    child = spawn(SEES)
    assert child.hear() == {"alive": [[mine, True]]}
    child.end()


# What a forked child does with its parent's store, and how that ends.
FORK = """
from triggerflow.errors import StoreError
store = SqliteStore(PATH); store.open()
worker = store.register_worker(build="build-a", flows=FLOWS, now=NOW)
store.commit(Batch([start("i1"), claim()], NOW, worker))
child = os.fork()
if child == 0:
    try:
        {deed}
        found = "no error"
    except BaseException as error:
        found = type(error).__name__ + ": " + str(error)
    say(found=found)
    os._exit(0)
os.waitpid(child, 0)
mine = store.commit(Batch([start("i2"), claim()], NOW, worker))
say(parent=[each.verdict.value for each in mine], reaped=store.reap())
hear()
store.close()
"""


def fork(spawn: Spawn, deed: str) -> tuple[str, Any]:
    """What the forked child found, and the parent, still running."""
    child = spawn(FORK.format(deed=deed))
    found = child.hear()["found"]
    assert child.hear() == {"parent": ["applied", "applied"], "reaped": 0}
    return found, child


DEEDS = {
    "commit": 'store.commit(Batch([start("i3")], NOW))',
    "register_worker": 'store.register_worker(build="b", flows=FLOWS, now=NOW)',
    "reap": "store.reap()",
    "changed": "store.changed()",
    "instance": 'store.instance("i1")',
    "instances": "store.instances()",
    "workers": "store.workers()",
}


@pytest.mark.parametrize("deed", DEEDS)
def test_a_forked_child_is_refused(deed: str, spawn: Spawn, store: SqliteStore) -> None:
    """A child that goes on with its parent's store is told so; the parent isn't harmed."""
    found, parent = fork(spawn, DEEDS[deed])
    assert found.startswith("StoreError"), found
    assert "fork" in found
    assert [each.alive for each in store.workers()] == [True]
    parent.tell()
    parent.end()
    assert sorted(each.id for each in store.instances()) == ["i1", "i2"]


@pytest.mark.parametrize("deed", ["store.close()", "store.abandon()", "del store"])
def test_a_forked_child_closes_only_its_own(
    deed: str, spawn: Spawn, store: SqliteStore
) -> None:
    """A child that closes or drops its copy gives up none of its parent's workers."""
    _, parent = fork(spawn, deed)
    assert [(each.alive, each.owned) for each in store.workers()] == [(True, 2)]
    parent.tell()
    parent.end()


def test_a_forked_child_may_open_its_own(spawn: Spawn, store: SqliteStore) -> None:
    """A child that opens a store of its own works, and leaves the parent's locks alone."""
    deed = (
        "own = SqliteStore(PATH); own.open(); "
        "own.register_worker(build='b', flows=FLOWS, now=NOW); "
        "own.commit(Batch([start('i3')], NOW)); "
        "assert [w.alive for w in own.workers()] == [True, True]; own.close()"
    )
    found, parent = fork(spawn, deed)
    assert found == "no error"
    assert [each.alive for each in store.workers()] == [True]
    parent.tell()
    parent.end()
