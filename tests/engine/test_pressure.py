"""Back-pressure: appenders wait in line, nothing is lost, and the engine's own work goes on."""

# ruff: noqa: ASYNC110 - what is polled tells nobody

from __future__ import annotations

import threading

import attrs
import pytest
import trio
import trio.lowlevel

import triggerflow as tf
from triggerflow.engine.pressure import Backlog
from triggerflow.engine.settings import Settings
from triggerflow.store.operations import Append, Send, Start, Turn
from triggerflow.store.sqlite import MemoryStore

CALLERS = (Append, Start, Send)


def note(n):
    return {"type": "Note", "actor": "https://a.example/ann", "n": n}


def _of_callers(batch):
    return sum(type(op) in CALLERS for op in batch.operations)


# --- room in the committer


def test_a_blocked_store_holds_a_bounded_number(new_app, real, make_sqlite, watched):
    """While the store stands still, the rest waits in line; then all of it lands, once."""
    store = watched(make_sqlite())
    app = new_app(store)
    opened = threading.Event()
    opened.set()
    store.before = lambda batch: opened.wait(20)

    async def scenario():
        async with app.open(work=False, backlog=10) as engine, trio.open_nursery() as nursery:
            opened.clear()
            for n in range(300):
                nursery.start_soon(engine.append, note(n))
            while engine.statistics().held < 290:
                await trio.sleep(0.005)
            found = engine.statistics()
            assert found.waiting <= 10
            assert found.held == 290
            opened.set()
        return max(_of_callers(batch) for batch, _ in store.batches)

    assert real(scenario) <= 10
    store.open()
    assert store.counts().activities == 300
    store.close()


def test_every_verb_that_writes_waits_in_line(new_app, live):
    """Append, append_many, start, signal and others wait for room, and then do their part."""
    app = new_app()

    @app.flow
    def f(_):
        return (yield tf.wait_signal("go"))

    async def scenario(engine):
        ids = [await engine.start(f) for _ in range(3)]
        await engine.run_until_idle()
        async with trio.open_nursery() as nursery, engine._backlog.room("test", 100):
            nursery.start_soon(engine.append, note(0))
            nursery.start_soon(engine.append_many, [note(n) for n in range(1, 4)])
            nursery.start_soon(engine.start, f)
            nursery.start_soon(engine.signal, ids[0], "go", 1)
            nursery.start_soon(engine.cancel, ids[1])
            nursery.start_soon(engine.terminate, ids[2])
            await trio.sleep(5)
            assert engine.statistics().held == 8
            assert engine._store.counts().activities == 0
            assert [(await engine.get(id)).status for id in ids] == ["waiting"] * 3
        statuses = [(await engine.wait(id)).status for id in ids]
        return statuses, engine._store.counts().activities, engine.statistics().held

    assert live(app, scenario, backlog=100) == (["done", "cancelled", "cancelled"], 4, 0)


def test_turns_go_on_while_appenders_wait(new_app, live, make_store):
    """Claims, turns, timers and parking need no room: flows end while the line stands still."""
    app = new_app(make_store())

    @app.flow
    def f(n):
        yield tf.call(abs, n)
        yield tf.sleep(10)
        return (yield tf.call(abs, -n))

    async def scenario(engine):
        ids = [await engine.start(f, n) for n in range(20)]
        async with trio.open_nursery() as nursery, engine._backlog.room("test", 2):
            for n in range(50):
                nursery.start_soon(engine.append, note(n))
            found = [(await engine.wait(id)).result for id in ids]
            assert engine.statistics().held == 50
            assert engine._store.counts().activities == 0
        assert found == list(range(20))
        return engine._store.counts().activities

    # More are started than it may own: the rest is claimed meanwhile.
    assert live(app, scenario, backlog=2, capacity=8, patience=0) == 50


def test_first_come_first_served(new_app, live):
    """Who came first lands first, whatever others want of the room."""
    app = new_app()

    async def scenario(engine):
        async with trio.open_nursery() as nursery, engine._backlog.room("test"):
            for n in range(30):
                nursery.start_soon(engine.append, note(n))
                await trio.sleep(1)
        db = engine._store._db
        return [cid for (cid,) in db.execute("SELECT cid FROM activity ORDER BY seq")]

    found = live(app, scenario, backlog=1)
    assert found == [str(tf.cid_of(note(n))) for n in range(30)]


def test_who_is_cancelled_leaves_the_line(new_app, live):
    """The next one moves up; room that was given in the very same moment is given back."""

    async def scenario(_):
        backlog = Backlog(3)
        entered = []

        async def enter(size):
            async with backlog.room("test", size):
                entered.append(size)
                await trio.sleep_forever()

        async with trio.open_nursery() as nursery, backlog.room("test", 2):
            with trio.move_on_after(1):
                nursery.start_soon(trio.sleep, 2)
                await enter(2)
            assert backlog.held == 0
            with trio.CancelScope() as scope:
                async with trio.open_nursery() as inner:
                    inner.start_soon(enter, 3)
                    await trio.sleep(1)
                    nursery.start_soon(enter, 1)
                    await trio.sleep(1)
                    assert (entered, backlog.held) == ([], 4)
                    scope.cancel()
            await trio.sleep(1)
            assert (entered, backlog.used, backlog.held) == ([1], 3, 0)
            nursery.cancel_scope.cancel()
        async with trio.open_nursery() as nursery:
            await backlog.enter("test", 3)
            nursery.start_soon(enter, 2)
            await trio.sleep(1)
            backlog.leave(3)
            assert backlog.used == 2
            nursery.cancel_scope.cancel()
        return entered, backlog.used, backlog.held

    assert live(new_app(), scenario) == ([1, 2], 0, 0)


def test_closing_tells_who_waits(new_app, live):
    """Whoever is in line when the engine ends gets `EngineClosed`, not silence."""
    app = new_app()
    told = []

    async def append(engine, n):
        with pytest.raises(tf.EngineClosed):
            await engine.append(note(n))
        told.append(n)

    async def scenario(engine):
        outer = trio.lowlevel.current_root_task()
        assert outer is not None
        await engine._backlog.enter("test", 1)
        for n in range(3):
            trio.lowlevel.spawn_system_task(append, engine, n)
        await trio.sleep(1)
        assert engine.statistics().held == 3

    live(app, scenario, backlog=1)
    assert sorted(told) == [0, 1, 2]


def test_more_than_the_backlog_at_once(new_app, live):
    """A page larger than the backlog is cut; a batch that can't be cut goes in alone."""
    app = new_app()

    async def scenario(engine):
        found = await engine.append_many(note(n) for n in range(100))
        async with engine._backlog.room("test", 50):
            pass
        return [each.seq for each in found]

    assert live(app, scenario, backlog=7) == list(range(1, 101))


# --- places in the worker


@pytest.fixture
def crowded(new_app):
    """An app whose flows run a step until its gate opens; two are driven at a time."""
    app = new_app()
    world = attrs.make_class("World", ["app", "gates", "ended"])(app, {}, [])

    async def step(n):
        await world.gates.setdefault(n, trio.Event()).wait()
        world.ended.append(n)
        return n

    @app.flow
    def f(activity):
        return (yield tf.call(step, activity["n"]))

    app.trigger("t", on="Note", start=f)
    return world


def test_a_full_worker_slows_appends_and_drops_none(crowded, live):
    """Who would start a flow waits for a place, or for `patience` seconds at the most."""

    async def scenario(engine):
        took = []
        for n in range(6):
            began = trio.current_time()
            await engine.append(note(n))
            took.append(trio.current_time() - began)
            # For the worker to look whether it is behind.
            await trio.sleep(2)
        assert took == [0, 0, 0, 30, 30, 30]
        found = engine.statistics()
        assert (found.owned, found.capacity) == (2, 2)
        # Nobody has claimed the third one since it landed.
        assert 95 < found.lag < 99
        began = trio.current_time()
        await engine.append({"type": "Other", "actor": "https://a.example/ann"})
        assert trio.current_time() == began
        for n in range(6):
            crowded.gates.setdefault(n, trio.Event()).set()
        await engine.run_until_idle()
        assert engine.statistics().lag == 0
        return [(each.status, each.result) async for each in engine.instances()]

    found = live(crowded.app, scenario, capacity=2, patience=30)
    assert found == [("done", n) for n in range(6)]


def test_a_freed_place_lets_one_go(crowded, live):
    """Places and appenders go one for one, oldest first, long before patience ends."""

    async def scenario(engine):
        landed = []

        async def append(n):
            await engine.append(note(n))
            landed.append(n)

        async with trio.open_nursery() as nursery:
            for n in range(6):
                await append(n)
            await trio.sleep(2)
            for n in range(6, 10):
                nursery.start_soon(append, n)
                await trio.sleep(1)
            assert (engine.statistics().slowed, landed) == (4, list(range(6)))
            for n in range(4):
                crowded.gates.setdefault(n, trio.Event()).set()
                await trio.sleep(2)
                assert landed == list(range(7 + n))
            began = trio.current_time()
        assert trio.current_time() - began < 1
        for n in range(4, 10):
            crowded.gates.setdefault(n, trio.Event()).set()
        await engine.run_until_idle()

    live(crowded.app, scenario, capacity=2, patience=1000)
    assert sorted(crowded.ended) == list(range(10))


def test_a_step_that_appends_in_a_full_worker_gets_through(new_app, live):
    """The only place is taken by the instance that waits: it waits for a moment, no longer."""
    app = new_app()
    engines = []

    async def step(n):
        if n:
            await engines[0].append(note(n - 1))
            await engines[0].start("f", note(0), key=f"k{n}")
        return n

    @app.flow(name="f")
    def f(activity):
        return (yield tf.call(step, activity["n"]))

    app.trigger("t", on="Note", start=f)

    async def scenario(engine):
        engines.append(engine)
        await engine.append(note(10))
        await engine.run_until_idle()
        return [each.status async for each in engine.instances()]

    assert live(app, scenario, capacity=1, backlog=1) == ["done"] * 21


def test_it_never_owns_more_than_its_capacity(new_app, live, watched):
    """Not even where many are started at once, by batches, starts and claims together."""
    store = watched(MemoryStore())
    app = new_app(store)
    most = []

    async def step():
        await trio.sleep(1)

    @app.flow
    def f(_):
        yield tf.call(step)

    app.trigger("one", on="Note", start=f)
    app.trigger("two", on="Note", start=f, version=2)

    async def scenario(engine):
        store.after = lambda batch, _: most.append(engine.statistics().owned)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(engine.append_many, [note(n) for n in range(50)])
            for _ in range(50):
                nursery.start_soon(engine.start, f)
        await engine.run_until_idle()
        return [each.status async for each in engine.instances()]

    assert set(live(app, scenario, capacity=7, patience=0)) == {"done"}
    assert max(most) <= 7
    assert len(store.operations(Turn)) > 100


def test_a_worker_that_is_full_and_not_behind_slows_nobody(crowded, live):
    """All places taken, nothing runnable left over: the next append goes straight in."""

    async def scenario(engine):
        for n in range(2):
            await engine.append(note(n))
        await trio.sleep(10)
        assert engine.statistics().lag == 0
        began = trio.current_time()
        await engine.append(note(2))
        took = trio.current_time() - began
        for n in range(3):
            crowded.gates.setdefault(n, trio.Event()).set()
        await engine.run_until_idle()
        return took

    assert live(crowded.app, scenario, capacity=2, patience=50) == 0


# --- the numbers


def test_statistics_are_a_frozen_value(new_app, live):
    """What was asked stays as it was; an engine that doesn't work has no capacity."""
    app = new_app()

    @app.flow
    def f(_):
        yield tf.wait_signal("go")

    async def scenario(engine):
        before = engine.statistics()
        await engine.start(f)
        await engine.run_until_idle()
        after = engine.statistics()
        assert (before.warm, after.warm) == (0, 1)
        assert after.commits > before.commits
        assert (after.owned, after.waiting, after.held, after.slowed) == (0, 0, 0, 0)
        with pytest.raises(attrs.exceptions.FrozenInstanceError):
            after.owned = 7

    live(app, scenario)

    async def asks(engine):
        return engine.statistics().capacity

    assert live(new_app(), asks, work=False) == 0


def test_clients_have_them_too(new_app):
    """The blocking client asks its engine."""
    with new_app().client(capacity=12) as client:
        assert client.statistics().capacity == 12


@pytest.mark.parametrize(("name", "bad"), [("backlog", 0), ("backlog", "x"), ("patience", -1)])
def test_bad_settings_are_refused(name, bad):
    """The error names the setting, what was found and what is expected."""
    with pytest.raises(tf.DefinitionError, match=f"setting {name}: found {bad!r}"):
        Settings(**{name: bad})
