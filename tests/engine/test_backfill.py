"""Backfills: where they begin and end, what stops them, crashes, rivals, and live traffic."""

# ruff: noqa: ASYNC110 - what is polled tells nobody

from __future__ import annotations

from datetime import UTC, datetime

import pytest
import trio

import triggerflow as tf
from triggerflow.engine import backfill as walks
from triggerflow.store.history import Span
from triggerflow.store.operations import Advance, Append
from triggerflow.store.sqlite import MemoryStore, SqliteStore
from triggerflow.testing.crash import crash_everywhere

START = 1_700_000_000.0


def act(n, type="Follow"):
    return {"type": type, "actor": "https://a.example/ann", "n": n}


def define(app, *, name="t", guard=None, **options):
    @app.flow
    def numbered(activity):
        yield tf.now()
        return activity["n"]

    app.trigger(name, on="Follow", start=numbered, guard=guard, **options)
    return app


@pytest.fixture
def small(monkeypatch):
    """Pages of two activities, and a commit for each."""
    monkeypatch.setattr(walks, "_LOOKED", 2)
    real = SqliteStore.past

    def past(self, trigger_cid, after, last, *, limit=2, size=2**21):
        return real(self, trigger_cid, after, last, limit=limit, size=size)

    monkeypatch.setattr(SqliteStore, "past", past)


async def results(engine):
    return [each.result async for each in engine.instances()]


async def filled(engine, *args, **named):
    """A backfill, when it is done."""
    walk = await engine.backfill(*args, **named)
    await engine.run_until_idle()
    return await engine.get_backfill(walk.id)


def sums(found):
    return found.looked, found.fired, found.unstarted, found.known, found.removed


def old(new_app, live, store, count=10):
    """History from before there was the trigger: one in two activities is a Follow."""
    app = new_app(store)

    async def scenario(engine):
        for n in range(count):
            await engine.append(act(n, "Follow" if n % 2 else "Like"))
            await trio.sleep(1)

    live(app, scenario, work=False)


def test_a_new_trigger_begins_at_the_latest(new_app, live, make_store):
    """It meets nothing of before; a backfill from the horizon meets all of it, once."""
    store = make_store()
    old(new_app, live, store)

    async def scenario(engine):
        await engine.run_until_idle()
        assert await results(engine) == []
        dry = await engine.backfill("t", dry_run=True)
        assert (dry.id, dry.state, sums(dry)) == (None, "done", (10, 5, 0, 0, 0))
        assert await engine.backfills() == ()
        assert sums(await filled(engine, "t")) == (10, 5, 0, 0, 0)
        assert sums(await filled(engine, "t")) == (10, 0, 0, 5, 0)
        again = await engine.append(act(1))
        assert again.duplicate
        assert [each.source for each in again.firings] == ["backfill"]
        return await results(engine)

    assert live(define(new_app(store)), scenario) == [1, 3, 5, 7, 9]


@pytest.mark.parametrize(
    ("since", "until", "found"),
    [
        ("horizon", None, [1, 3, 5, 7, 9]),
        (5, None, [5, 7, 9]),
        (4, 8, [3, 5, 7]),
        (8, 4, []),
        (11, None, []),
        (1, 10**9, [1, 3, 5, 7, 9]),
        (datetime.fromtimestamp(START + 3, UTC), None, [3, 5, 7, 9]),
        (2, datetime.fromtimestamp(START + 5, UTC), [1, 3]),
        (datetime.fromtimestamp(START + 99, UTC), None, []),
        ("horizon", datetime.fromtimestamp(START, UTC), []),
    ],
)
def test_where_it_begins_and_ends(new_app, live, since, until, found):
    """Numbers count themselves in, times are those of the activities, the end is now."""
    store = MemoryStore()
    old(new_app, live, store)

    async def scenario(engine):
        dry = await engine.backfill("t", since, until=until, dry_run=True)
        done = await filled(engine, "t", since, until=until)
        assert (done.state, done.fired, done.share) == ("done", len(found), 1.0)
        assert sums(dry) == sums(done)
        return await results(engine)

    assert live(define(new_app(store)), scenario) == found


@pytest.mark.parametrize(
    ("since", "until"),
    [
        ("latest", None),
        ("soon", None),
        (0, None),
        (True, None),
        (1.5, None),
        (datetime(2026, 1, 1), None),  # noqa: DTZ001
        (1, "horizon"),
        (1, 0),
    ],
)
def test_places_that_are_none(new_app, live, since, until):
    """What is no place in history is refused, and says what would be one."""
    app = define(new_app())

    async def scenario(engine):
        with pytest.raises(tf.DefinitionError, match="backfill"):
            await engine.backfill("t", since, until=until)
        assert await engine.backfills() == ()

    live(app, scenario)


@pytest.mark.parametrize("start_at", ["horizon", 4, datetime.fromtimestamp(START + 3, UTC)])
def test_a_trigger_may_say_where_it_starts(new_app, live, start_at):
    """`start_at` fills a trigger of a new name, in the commit that registers it, once."""
    store = MemoryStore()
    old(new_app, live, store)

    async def scenario(engine):
        await engine.run_until_idle()
        return await results(engine)

    expected = [1, 3, 5, 7, 9] if start_at == "horizon" else [3, 5, 7, 9]
    app = define(new_app(store), start_at=start_at)
    assert live(app, scenario) == expected
    # Neither a restart nor an edit fires any of it again.
    for version in (1, 2):
        app = define(new_app(store), start_at=start_at, version=version)
        assert live(app, scenario) == expected


def test_times_follow_the_activities_where_a_clock_was_set(new_app, live, small):
    """A clock that was ahead and was put right: each counts by the time that stands on it."""
    store = MemoryStore()
    store.open()
    from triggerflow.store.operations import Batch

    ahead = [100.0, 200.0, 5000.0, 5100.0, 300.0, 400.0]
    for n, received in enumerate(ahead):
        document = tf.encode_document(act(n))
        cid = tf.cid_of(act(n))
        append = Append(cid, document, '["Follow"]', '["ann"]', received, 0, ())
        store.commit(Batch([append], received))
    store.close()

    async def scenario(engine):
        at = [datetime.fromtimestamp(each, UTC) for each in (150.0, 350.0)]
        done = await filled(engine, "t", at[0], until=at[1])
        assert (done.looked, done.fired) == (2, 2)
        assert sorted(await results(engine)) == [1, 4]
        assert (await filled(engine, "t", at[1])).fired == 3
        return sorted(await results(engine))

    assert live(define(new_app(store)), scenario) == [1, 2, 3, 4, 5]


def test_what_arrives_meanwhile_fires_once(new_app, live, small, make_store):
    """Appends that land at every step of a backfill: the live path has them, it has none."""
    store = make_store()
    old(new_app, live, store)

    async def scenario(engine):
        walk = await engine.backfill("t")
        n = 10
        while (await engine.get_backfill(walk.id)).state == "running":
            await engine.append(act(n))
            n += 1
        await engine.run_until_idle()
        done = await engine.get_backfill(walk.id)
        assert sums(done) == (10, 5, 0, 0, 0)
        assert n > 12
        found = await results(engine)
        assert len(found) == len(set(found))
        assert set(found) == {1, 3, 5, 7, 9, *range(10, n)}

    live(define(new_app(store)), scenario)


def test_removed_documents_are_counted_and_passed_over(new_app, live):
    """What retention took can't be matched any more; the counts add up."""
    store = MemoryStore()
    old(new_app, live, store, 6)
    store.open()
    store.prune_documents(START + 2.5)
    store.close()

    async def scenario(engine):
        done = await filled(engine, "t")
        # Whatever it was, it can't be told: also the Likes among them.
        assert sums(done) == (6, 2, 0, 0, 3)
        return await results(engine)

    assert live(define(new_app(store)), scenario) == [3, 5]


def test_a_guard_that_raises_for_half_of_history(new_app, live, small):
    """Each of its errors is a firing, the others start, and the walk goes on to its end."""
    store = MemoryStore()
    old(new_app, live, store, 20)

    def picky(document):
        if document["n"] % 4 == 1:
            raise ValueError("no")
        return document["n"] != 3

    async def scenario(engine):
        done = await filled(engine, "t")
        assert sums(done) == (20, 4, 5, 0, 0)
        (firing,) = await engine.firings(activity=tf.cid_of(act(5)))
        assert (firing.outcome, firing.source) == ("guard_error", "backfill")
        return await results(engine)

    assert live(define(new_app(store), guard=picky), scenario) == [7, 11, 15, 19]


def test_it_stands_still_while_it_or_its_trigger_is_paused(new_app, live, small):
    """And goes on from where it stood; a restart in between changes nothing."""
    store = MemoryStore()
    old(new_app, live, store)

    async def begin(engine):
        walk = await engine.backfill("t")
        while (await engine.get_backfill(walk.id)).cursor < 4:
            await trio.lowlevel.checkpoint()
        await engine.pause("t")
        await engine.run_until_idle()
        held = await engine.get_backfill(walk.id)
        assert (held.state, held.reason) == ("running", "its trigger is paused")
        assert 0 < held.share < 1
        return held

    held = live(define(new_app(store)), begin)

    async def go_on(engine):
        await engine.run_until_idle()
        assert (await engine.get_backfill(held.id)).cursor == held.cursor
        await engine.pause_backfill(held.id)
        await engine.resume("t")
        await engine.run_until_idle()
        stands = await engine.get_backfill(held.id)
        assert (stands.state, stands.cursor) == ("paused", held.cursor)
        await engine.resume_backfill(held.id)
        await engine.run_until_idle()
        assert sums(await engine.get_backfill(held.id)) == (10, 5, 0, 0, 0)
        return await results(engine)

    assert live(define(new_app(store)), go_on) == [1, 3, 5, 7, 9]


def test_it_can_be_cancelled(new_app, live, small):
    """It ends where it stands; a new one takes up the rest."""
    store = MemoryStore()
    old(new_app, live, store)

    async def scenario(engine):
        walk = await engine.backfill("t")
        while (await engine.get_backfill(walk.id)).cursor < 4:
            await trio.lowlevel.checkpoint()
        ended = await engine.cancel_backfill(walk.id)
        await engine.run_until_idle()
        found = await engine.get_backfill(walk.id)
        assert (found.state, found.reason, found.cursor) == (
            "cancelled",
            "it was cancelled",
            ended.cursor,
        )
        assert (await engine.resume_backfill(walk.id)).state == "cancelled"
        rest = await filled(engine, "t")
        assert (rest.known, rest.fired) == (found.fired, 5 - found.fired)
        with pytest.raises(tf.DefinitionError, match="none of this id"):
            await engine.get_backfill(99)
        return await results(engine)

    assert live(define(new_app(store)), scenario) == [1, 3, 5, 7, 9]


def test_an_edit_ends_it(new_app, live, small):
    """A superseded trigger starts nothing more; the new one wasn't asked to."""
    store = MemoryStore()
    old(new_app, live, store)

    async def begin(engine):
        walk = await engine.backfill("t")
        while (await engine.get_backfill(walk.id)).cursor < 4:
            await trio.lowlevel.checkpoint()
        await engine.pause_backfill(walk.id)
        return len(await results(engine))

    count = live(define(new_app(store)), begin)

    async def after(engine):
        await engine.resume_backfill(1)
        await engine.run_until_idle()
        found = await engine.get_backfill(1)
        assert (found.state, found.reason) == (
            "cancelled",
            "its trigger was superseded or retired",
        )
        return len(await results(engine))

    assert live(define(new_app(store), version=2), after) == count


def test_a_worker_without_the_guards_code_leaves_it(new_app, live):
    """It goes on in a worker that has it."""
    store = MemoryStore()
    old(new_app, live, store, 4)

    def yes(document):
        return True

    async def ask(engine):
        await engine.backfill("t")

    live(define(new_app(store), guard=yes), ask, work=False)

    async def idle(engine):
        await engine.run_until_idle()
        (walk,) = await engine.backfills()
        return walk.cursor

    assert live(new_app(store), idle) == 0

    async def work(engine):
        await engine.run_until_idle()
        return await results(engine)

    assert live(define(new_app(store), guard=yes), work) == [1, 3]


def test_a_crash_anywhere_in_a_backfill(new_app, live, make_store, small):
    """Wherever the process dies, each pair starts once and the counts are exact."""

    def history(n):
        return act(n, "Follow" if n % 2 else "Like")

    def make(store):
        app = define(new_app(store), name="first")
        if filling[0]:
            app.trigger("t", on="Follow", start="numbered", version=2, start_at="horizon")
        return app

    filling = [False]

    def prepared():
        store = make_store()
        filling[0] = False

        async def append(engine):
            for n in range(7):
                await engine.append(history(n))

        live(new_app(store), append, work=False)
        filling[0] = True
        return store

    async def scenario(engine):
        await engine.run_until_idle()
        await engine.append(history(7))
        await engine.run_until_idle()
        return sorted(await results(engine))

    def audit(store):
        (walk,) = store.backfills()
        found = (walk.state, walk.looked, walk.fired, walk.unstarted, walk.known, walk.removed)
        assert found == ("done", 7, 3, 0, 0, 0)

    report = crash_everywhere(make, scenario, prepared, audit=audit)
    assert report.end == [1, 3, 5, 7, 7]
    assert report.points > 10


def test_two_workers_on_one_backfill(new_app, tmp_path, small, live):
    """Rivals on one file: no page is done twice, and the counts add up."""
    path = tmp_path / "rivals.db"
    old(new_app, live, SqliteStore(path), 60)

    async def main():
        apps = [define(new_app(SqliteStore(path))) for _ in range(2)]
        async with apps[0].open() as one, apps[1].open() as two:
            walk = await two.backfill("t")
            with trio.fail_after(60):
                while (found := await one.get_backfill(walk.id)).state == "running":
                    await trio.sleep(0.01)
                await one.run_until_idle()
                await two.run_until_idle()
                while None in (made := await results(one)):
                    await trio.sleep(0.01)
            return sums(found), sorted(made)

    assert trio.run(main) == ((60, 30, 0, 0, 0), list(range(1, 60, 2)))


def test_rivals_without_an_owner_are_told_apart_by_the_cursor(new_app, live, small):
    """Two pages planned for one place: the store takes the first and refuses the second."""
    store = MemoryStore()
    old(new_app, live, store)
    store.open()
    from triggerflow.store.operations import Batch, Verdict

    a, b = [store.register_worker(build="b", flows=(), now=1.0) for _ in range(2)]
    cid = define(new_app()).triggers[0].trigger_cid
    from triggerflow.store.records import NewTrigger

    registry = store.sync_triggers([NewTrigger("t", cid, b"spec", "m")], now=1.0)
    walk = store.open_backfill("t", Span(), now=1.0)

    def ask(worker, **parts):
        given = {"cursor": 0, "to": 2, "registry": registry, "at": 2.0} | parts
        (outcome,) = store.commit(Batch([Advance(walk, **given)], 2.0, worker))
        return outcome.verdict

    assert ask(a, registry=registry - 1) is Verdict.STALE
    assert ask(a) is Verdict.APPLIED
    assert ask(a) is Verdict.CONFLICT
    assert ask(b, cursor=2, to=4) is Verdict.CONFLICT
    store.forget_worker(a[0])
    assert ask(a, cursor=2, to=4) is Verdict.FENCED
    assert ask(b, cursor=2, to=4) is Verdict.APPLIED
    store.set_backfill(walk, "paused", now=3.0)
    assert ask(b, cursor=4, to=6) is Verdict.CONFLICT


def test_a_long_history_in_bounded_memory(new_app, live):
    """Twenty thousand activities are read in pages, and no page holds more than its bytes."""
    store = MemoryStore()

    async def append(engine):
        for first in range(0, 20_000, 1000):
            documents = [
                act(n, "Follow" if n % 100 == 0 else "Like") for n in range(first, first + 1000)
            ]
            await engine.append_many(documents)

    live(new_app(store), append, work=False)
    sizes = []
    real = store.past

    def past(*args, **named):
        found = real(*args, **named)
        sizes.append(len(found))
        return found

    store.past = past

    async def scenario(engine):
        commits = engine._committer.commits
        assert sums(await filled(engine, "t")) == (20_000, 200, 0, 0, 0)
        assert engine._committer.commits - commits < 200
        return len(await results(engine))

    assert live(define(new_app(store)), scenario) == 200
    assert max(sizes) == 500
    store.open()
    cid = define(new_app()).triggers[0].trigger_cid
    assert len(store.past(cid, 0, 20_000, size=1)) == 1


def test_it_waits_while_its_worker_is_behind(new_app, live, small):
    """More is runnable than the worker may own: the backfill brings in no more."""
    store = MemoryStore()
    old(new_app, live, store)
    app = new_app(store)

    @app.flow
    def busy(activity):
        yield tf.call(trio.sleep, 1000)

    app.trigger("t", on="Follow", start=busy)

    async def scenario(engine):
        walk = await engine.backfill("t")
        await trio.sleep(500)
        early = await engine.get_backfill(walk.id)
        await trio.sleep(20_000)
        late = await engine.get_backfill(walk.id)
        return early.fired, late.fired

    early, late = live(app, scenario, capacity=1, hung=1e6)
    assert early < 5
    assert late == 5


def test_rest_under_live_traffic(new_app, live, small, monkeypatch):
    """While appends come in, a page is followed by a rest of four times its length."""
    store = MemoryStore()
    old(new_app, live, store, 20)
    rests = []
    real = walks.Backfills._yield

    async def resting(self, took):
        before = trio.current_time()
        await real(self, 1.0)
        rests.append(trio.current_time() - before)

    monkeypatch.setattr(walks.Backfills, "_yield", resting)

    async def scenario(engine):
        await filled(engine, "t", until=10)
        quiet = list(rests)
        rests.clear()
        walk = await engine.backfill("t", 11)
        while (await engine.get_backfill(walk.id)).state == "running":
            await engine.append(act(len(rests) + 100, "Like"))
            await trio.sleep(0.5)
        return set(quiet), max(rests)

    assert live(define(new_app(store)), scenario) == ({0.0}, 4.0)


def test_a_draining_worker_begins_no_page(new_app, live, small):
    """From the drain's first moment on the cursor stands; the next worker goes on."""
    store = MemoryStore()
    old(new_app, live, store)
    app = new_app(store)

    @app.flow
    def numbered(activity):
        yield tf.call(trio.sleep, 50)
        return activity["n"]

    app.trigger("t", on="Follow", start=numbered)

    async def stop(engine):
        walk = await engine.backfill("t")
        while (await engine.get_backfill(walk.id)).cursor < 4:
            await trio.lowlevel.checkpoint()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(lambda: engine.drain(timeout=100))
            await trio.sleep(1)
            early = (await engine.get_backfill(walk.id)).cursor
            await trio.sleep(40)
            assert (await engine.get_backfill(walk.id)).cursor == early
        return early

    assert 4 <= live(app, stop) < 10

    async def go_on(engine):
        await engine.run_until_idle()
        await trio.sleep(100)
        return sorted(await results(engine))

    assert live(app, go_on) == [1, 3, 5, 7, 9]
