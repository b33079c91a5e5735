"""Waits against activities: each gets its first one, whoever looks, whenever it was opened.

A scan is driven by hand here: it stands still wherever it asks or commits, so that a test can
put anything between a look and what is done on it.
"""

from __future__ import annotations

import logging
import types
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from triggerflow.core.codec import ValueCodec, encode_document
from triggerflow.engine import watching as watching_module
from triggerflow.engine.watching import Watching
from triggerflow.store.acts import OpenWait
from triggerflow.store.newcomer import NewInstance
from triggerflow.store.operations import Append, Batch, Start
from triggerflow.store.sqlite import MemoryStore, waits
from triggerflow.store.waits import Watched
from triggerflow.triggers import compile_pattern, pivots_of

NOW = 1_700_000_000.0
CODEC = ValueCodec()


class Here:
    """Where a scan stands still until it is driven on."""

    def __await__(self):
        yield self


class Asking:
    """Reads and writes of one worker, each of which waits for its turn."""

    def __init__(self, store):
        self.store = store

    async def ask(self, what):
        await Here()
        if isinstance(what, Watched):
            (found,) = self.store.commit(Batch([what], NOW))
        else:
            found = what()
        await Here()
        return found


class World:
    """A store with one instance that waits for things, and activities by hand."""

    def __init__(self, store=None):
        self.store = MemoryStore() if store is None else store
        self.store.open()
        new = NewInstance("i1", "f", 1, b"\xf6", b"seed", NOW)
        (started,) = self.store.commit(Batch([Start(new)], NOW))
        self.number = started.number
        self.documents: list[dict[str, Any]] = []
        self.patterns: dict[str, tuple[int, Any]] = {}

    def worker(self):
        asking = Asking(self.store)
        return Watching(
            store=self.store,
            committer=asking,
            reader=asking,
            codec=CODEC,
            clock=types.SimpleNamespace(now=lambda: NOW),
            inline=True,
            told=lambda outcome: None,
        )

    def append(self, **document):
        document = {"type": "T", "actor": "x", "seq": len(self.documents) + 1, **document}
        self.documents.append(document)
        kinds = '["T"]'
        cid, block = f"cid{len(self.documents)}", encode_document(document)
        self.store.commit(Batch([Append(cid, block, kinds, '["x"]', NOW, 0, ())], NOW))

    def open(self, pattern, after=None):
        after = len(self.documents) if after is None else after
        tag = f"w#{len(self.patterns)}"
        self.patterns[tag] = (after, compile_pattern(pattern))
        pivots = pivots_of(self.patterns[tag][1].conditions)
        self.open_raw(tag, CODEC.encode(pattern), pivots, after)

    def open_raw(self, tag, pattern, pivots, after=0):
        act = OpenWait(tag, pattern, after, b"digest", pivots)
        self.store._write(lambda db: waits.arm(db, self.number, 1, act))

    def hits(self):
        """Tag -> number of the activity that its wait got."""
        found = {}
        for row in self.store.inbox(self.number):
            _, seq, document, digest = CODEC.decode(row.payload)
            assert row.name not in found
            assert (document, digest) == (self.documents[seq - 1], b"digest")
            found[row.name] = seq
        return found

    def expected(self):
        """The same by trying every wait on every activity, in order."""
        found = {}
        for tag, (after, pattern) in self.patterns.items():
            for seq, document in enumerate(self.documents, 1):
                if seq > after and pattern(document):
                    found[tag] = seq
                    break
        return found


def run(*workers):
    """Scan until there is nothing left to look at."""
    for worker in workers:
        for _ in worker.scan().__await__():
            pass


@pytest.fixture(autouse=True)
def _no_trio(monkeypatch):
    async def breathe(self):
        await Here()

    monkeypatch.setattr(Watching, "_breathe", breathe)


scalars = st.sampled_from([1, 1.0, "1", "xy", True])
leaves = st.lists(
    scalars | scalars | st.sampled_from([{"prefix": "x"}, {"exists": False}]),
    min_size=1,
    max_size=2,
)
fields = st.dictionaries(st.sampled_from("aab"), leaves, min_size=1, max_size=2)
patterns = (
    fields
    | st.builds(lambda more: {"type": ["T"], **more}, fields)
    | st.builds(lambda one, two: {"$or": [one, two]}, fields, fields)
    | st.just({"type": ["T"]})
    | st.just({"a": [{"exists": False}]})
)
documents = st.dictionaries(
    st.sampled_from("ab"), scalars | st.lists(scalars, max_size=2), min_size=1
)
steps = st.lists(
    st.tuples(st.just("append"), documents)
    | st.tuples(st.just("open"), st.tuples(patterns, st.none() | st.integers(0, 8)))
    | st.tuples(st.sampled_from(["one", "two"]), st.integers(1, 12) | st.just(1000)),
    min_size=5,
    max_size=40,
)


@settings(max_examples=150, deadline=None)
@given(steps, st.sampled_from([1, 3, 200]), st.sampled_from([2, 1000]))
def test_lookup_equals_trying_every_wait(plan, size, ahead):
    """Two workers, stopped anywhere, waits opened anywhere: each gets its first activity."""
    kept = watching_module._PAGE, watching_module._AHEAD, watching_module._WAITS
    watching_module._PAGE, watching_module._AHEAD, watching_module._WAITS = size, ahead, size
    world = World()
    workers = {name: world.worker() for name in ("one", "two")}
    scans: dict[str, Any] = {}
    try:
        for what, how in plan:
            if what == "append":
                world.append(**how)
            elif what == "open":
                world.open(*how)
            else:
                for _ in range(how):
                    if what not in scans:
                        scans[what] = workers[what].scan().__await__()
                    if next(scans[what], None) is None:
                        del scans[what]
                        break
        for scan in scans.values():
            for _ in scan:
                pass
        run(workers["one"])
        assert world.hits() == world.expected()
        open_ = {each.tag for each in world.store.waits()}
        assert open_ == world.patterns.keys() - world.hits().keys()
        standing = world.store.standing()
        assert not standing.behind
    finally:
        for scan in scans.values():
            scan.close()
        watching_module._PAGE, watching_module._AHEAD, watching_module._WAITS = kept
        world.store.close()


# --- at each point of a scan


def points(prepare):
    """How often a scan stands still."""
    world = World()
    worker = prepare(world) or world.worker()
    return sum(1 for _ in worker.scan().__await__())


@pytest.mark.parametrize("order", ["append then open", "open then append", "early"])
@pytest.mark.parametrize("before", [True, False])
def test_whatever_comes_between_a_look_and_its_commit_is_not_missed(order, before):
    """A wait and its activity come at any point of another worker's scan."""

    def prepare(world):
        one = world.worker()
        world.open({"a": [2]})
        world.append(a=1)
        if before:
            # It knows more than it has written down.
            run(one)
        world.append(a=1)
        world.append(a=2)
        return one

    for point in range(points(prepare) + 1):
        world = World()
        one, two = prepare(world), world.worker()
        scan = one.scan().__await__()
        for _ in range(point):
            next(scan)
        if order == "append then open":
            world.append(a="mine")
            world.open({"a": ["mine"]}, after=3)
        elif order == "open then append":
            world.open({"a": ["mine"]})
            world.append(a="mine")
        else:
            world.open({"a": [1]}, after=0)
        if not before:
            run(two)
        for _ in scan:
            pass
        run(one)
        assert world.hits() == world.expected(), point
        assert len(world.hits()) == 2
        world.store.close()


def test_two_who_scan_at_once_find_the_same():
    """At every point of one scan another one runs to its end; then the first goes on."""

    def prepare(world):
        world.open({"a": [7]}, after=0)
        world.open({"b": ["x"]}, after=2)
        world.open({"type": ["T"]}, after=1)
        for n in range(9):
            world.append(a=n, b="x")

    for point in range(points(prepare) + 1):
        world = World()
        prepare(world)
        scan = world.worker().scan().__await__()
        for _ in range(point):
            next(scan)
        run(world.worker())
        for _ in scan:
            pass
        assert world.hits() == world.expected() == {"w#0": 8, "w#1": 3, "w#2": 2}
        world.store.close()


@pytest.mark.parametrize(("values", "got"), [("12131", 2), ("11112", 5), ("11111", 6)])
def test_wait_that_is_behind_gets_its_first(monkeypatch, values, got):
    """While it catches up, page by page, a later activity that it meets doesn't count yet."""
    monkeypatch.setattr(watching_module, "_PAGE", 1)
    world = World()
    world.open({"a": ["never"]})
    for value in values:
        world.append(a=value)
    run(world.worker())
    assert world.store.standing().position == 0
    world.store.commit(Batch([Watched(5, NOW, newest=1)], NOW))
    world.open({"a": ["2"]}, after=0)
    for _ in range(3):
        world.append(a="2")
    run(world.worker())
    assert world.hits() == {"w#1": got}


def test_wait_that_came_later_is_looked_at_too():
    """What a worker knows beyond the store's position doesn't hide a new wait from it."""
    world = World()
    worker = world.worker()
    world.open({"a": ["never"]})
    for n in range(4):
        world.append(a=n)
        run(worker)
        world.open({"a": [n, n + 1]}, after=n)
        world.open({"a": [n + 1]})
    assert world.hits() == {"w#1": 1, "w#2": 2, "w#3": 2, "w#4": 3, "w#5": 3, "w#6": 4}


def test_wait_in_the_future_gets_nothing_before_it():
    """`after=` may be a number that no activity has yet."""
    world = World()
    world.open({"a": [1]}, after=5)
    for _ in range(7):
        world.append(a=1)
        run(world.worker())
    assert world.hits() == {"w#0": 6}


# --- how much it costs


class Counting:
    """A store that counts what it is asked, and gives."""

    def __init__(self, store):
        self.store = store
        self.asked = 0
        self.given = 0
        self.commits = []

    def __getattr__(self, name):
        found = getattr(self.store, name)
        if name not in ("standing", "waits_under", "waits_behind", "waits", "activities"):
            return found

        def read(*args, **named):
            rows = found(*args, **named)
            self.asked += 1
            self.given += len(rows) if isinstance(rows, list) else 1
            return rows

        return read

    def commit(self, batch):
        self.commits += batch.operations
        return self.store.commit(batch)


def crowd(count):
    """Waits for ids that nobody has, and a worker that has looked around."""
    store = Counting(MemoryStore())
    world = World(store)
    for n in range(count):
        world.open({"type": ["T"], "a": [f"id{n}"]})
    worker = world.worker()
    run(worker)
    store.asked = store.given = 0
    store.commits.clear()
    return world, store, worker


@pytest.mark.parametrize("count", [2, 3000])
def test_activity_costs_the_same_however_many_wait(count):
    """What is read and written for an activity doesn't grow with the open waits."""
    world, store, worker = crowd(count)
    world.append(a="nobody")
    store.commits.clear()
    run(worker)
    # How far all is, a page, the waits under its pivots; and that there is no more.
    assert (store.asked, store.given, store.commits) == (5, 3, [])
    store.asked = store.given = 0
    world.append(a="id0")
    run(worker)
    assert (store.asked, store.given) == (5, 4)
    assert world.hits() == {"w#0": 2}


def test_what_met_nothing_is_written_down_now_and_then():
    """Activities that nobody waits for cost no commit each, and little after a crash."""
    world, store, worker = crowd(1)
    for _ in range(11):
        for _ in range(100):
            world.append(a="nobody")
        store.commits.clear()
        run(worker)
        if store.commits:
            break
    assert [op.position for op in store.commits] == [1000]
    assert world.store.standing().position == 1000


def test_thousands_of_waits_for_one_activity_are_told_in_bounded_commits():
    """One page of hits to a commit; the position moves with the last of them."""
    store = Counting(MemoryStore())
    world = World(store)
    for _ in range(1234):
        world.open({"type": ["T"]})
    world.append(a=1)
    store.commits.clear()
    run(world.worker())
    sizes = [len(op.hits) for op in store.commits]
    assert (sum(sizes), max(sizes)) == (1234, 100)
    assert [op.newest is None for op in store.commits] == [True] * 12 + [False]
    assert len(world.hits()) == 1234


def test_large_documents_make_smaller_commits(monkeypatch):
    """What hits carry is bounded too."""
    monkeypatch.setattr(watching_module, "_LARGEST", 10_000)
    store = Counting(MemoryStore())
    world = World(store)
    for _ in range(10):
        world.open({"type": ["T"]})
    world.append(a="x" * 4000)
    store.commits.clear()
    run(world.worker())
    assert [len(op.hits) for op in store.commits] == [3, 3, 3, 1]


def test_bomb_is_looked_up_in_pages():
    """A document of many values asks many times, for a bounded number of pivots each."""
    store = Counting(MemoryStore())
    world = World(store)
    world.open({"a": [41_999]})
    world.open({"b": [{"prefix": "x"}]})
    world.append(a=list(range(42_000)), b=["x"])
    run(world.worker())
    assert world.hits() == {"w#0": 1, "w#1": 1}
    assert store.asked < 60


def test_more_paths_than_can_be_named():
    """Waits that each have a path of their own are found as well."""
    world = World()
    for n in range(1100):
        world.open({f"k{n}": {"b": [n]}})
    assert world.store.standing().paths is None
    world.append(**{f"k{n}": [{"b": n}] for n in (5, 1099)}, k7={"b": 8})
    run(world.worker())
    assert world.hits() == {"w#5": 1, "w#1099": 1}


# --- what can't be read


BAD = (
    (CODEC.encode({"a": [{"sounds-like": "x"}]}), '["a"]', "sx"),
    (b"\xff\xff", "", ""),
    (CODEC.encode("no pattern"), "", ""),
)


@pytest.mark.parametrize(("pattern", "path", "value"), BAD, ids=["newer", "broken", "no"])
@pytest.mark.parametrize("early", [True, False])
def test_bad_pattern_holds_up_only_itself(pattern, path, value, early, caplog):
    """Others go on; it stays, named once, until somebody comes who can read it."""
    world = World()
    world.open({"a": ["x"]}, after=0)
    if early:
        world.append(a="y")
    world.open_raw("bad", pattern, ((path, value),))
    world.append(a="x")
    world.append(a="x")
    one = world.worker()
    with caplog.at_level(logging.WARNING, "triggerflow"):
        run(one)
        world.open({"a": ["z"]})
        world.append(a="z")
        run(one)
    assert world.hits() == world.expected()
    assert [each.tag for each in world.store.waits()] == ["bad"]
    assert len([each for each in caplog.records if "bad" in each.getMessage()]) == 1
    # One who knows the newer language comes.
    world.patterns["bad"] = (0, compile_pattern({"a": ["x"]}))
    world.store._write(
        lambda db: db.execute(
            "UPDATE wait SET pattern = ? WHERE tag = 'bad'", (CODEC.encode({"a": ["x"]}),)
        )
    )
    run(world.worker())
    assert world.hits() == world.expected()


def test_many_bad_ones_do_not_hide_the_others(monkeypatch):
    """What can't be read is passed over, also where it fills pages."""
    monkeypatch.setattr(watching_module, "_WAITS", 3)
    world = World()
    world.append(a=1)
    world.append(a=2)
    for n in range(10):
        world.open_raw(f"bad{n}", b"\xff", (("", ""),))
    world.open({"a": [2]}, after=0)
    run(world.worker())
    assert world.hits() == {"w#0": 2}


def test_pattern_that_raises_holds_up_only_itself(monkeypatch):
    """A test that raises, which none should, is as one that can't be read."""
    world = World()
    for n in (1, 2):
        world.open({"a": [n], "b": [{"exists": True}]}, after=0)
    monkeypatch.setattr(
        watching_module.Watch,
        "__call__",
        lambda self, types, document: 1 / (document["a"] - 1) > 0,
    )
    world.append(a=1, b=1)
    world.append(a=2, b=1)
    worker = world.worker()
    run(worker)
    run(worker)
    assert world.hits() == {"w#1": 2}


def test_document_that_is_gone_or_broken_is_passed_over(caplog):
    """What retention took meets nothing, nor does what nobody can read."""
    world = World()
    world.open({"a": [1]}, after=0)
    for _ in range(3):
        world.append(a=1)
    world.store._write(
        lambda db: (
            db.execute("UPDATE activity SET document = NULL WHERE seq = 1"),
            db.execute("UPDATE activity SET document = x'ff' WHERE seq = 2"),
        )
    )
    run(world.worker())
    assert world.hits() == {"w#0": 3}
    assert "activity 2 can't be read" in caplog.text


def test_waits_from_before_they_were_filed_are_found():
    """A wait under no pivot of its own is held against everything, once."""
    world = World()
    world.patterns["old"] = (0, compile_pattern({"a": [{"prefix": "x"}, 1]}))
    pattern = CODEC.encode({"a": [{"prefix": "x"}, 1]})
    world.open_raw("old", pattern, (("", ""),))
    world.patterns["filed"] = (0, compile_pattern({"a": [1]}))
    world.open_raw("filed", CODEC.encode({"a": [1]}), (("", ""),))
    world.append(a=2)
    world.append(a=1)
    run(world.worker())
    assert world.hits() == {"old": 2, "filed": 2}
