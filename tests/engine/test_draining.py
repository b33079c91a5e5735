"""Draining: not ready first, steps may end, the rest is handed back at once, and only once."""

# ruff: noqa: ASYNC110 - what is polled tells nobody

from __future__ import annotations

import threading
from functools import partial

import attrs
import pytest
import trio

import triggerflow as tf
from triggerflow.engine.engine import Engine
from triggerflow.store.operations import Claim, Release, Turn
from triggerflow.store.sqlite import MemoryStore, SqliteStore
from triggerflow.testing.crash import crash_everywhere


def _world(new_app, store):
    """An app whose steps last as long as they are told, and what happened in them."""
    world = attrs.make_class("World", ["app", "calls", "ended", "step"])(
        new_app(store), [], [], None
    )

    async def step(length):
        world.calls.append((length, tf.step_context().attempt))
        await trio.sleep(length)
        world.ended.append(length)
        return length

    world.step = step

    @world.app.flow(name="f")
    def f(lengths):
        got = []
        for each in lengths:
            got.append((yield tf.call(step, each)))
        return got

    @world.app.flow(name="sleeps")
    def sleeps(length):
        yield tf.race(tf.sleep(length), tf.call(step, 10_000))

    @world.app.flow(name="parks")
    def parks(_):
        yield tf.wait_signal("go")

    return world


def test_steps_end_and_the_rest_goes_back(new_app, live, make_store):
    """What ends in time is recorded and begins nothing more; the rest is handed back, alive."""
    store = make_store()
    world = _world(new_app, store)

    async def scenario(engine):
        short = await engine.start("f", [5, 7])
        last = await engine.start("f", [6])
        long = await engine.start("f", [500])
        await engine.start("parks")
        await trio.sleep(1)
        began = trio.current_time()
        found = await engine.drain(timeout=60)
        assert trio.current_time() - began == 60
        assert found == tf.Drained(finished=2, handed_back=2, abandoned=1)
        assert (await engine.get(last)).status == "done"
        assert [each.tag for each in await engine.log(short)] == ["call:step#0"]
        records = {each.id: each for each in store.instances()}
        assert [(records[id].status, records[id].owner) for id in (short, long)] == [
            ("running", None),
            ("running", None),
        ]
        assert store.workers() == []
        assert world.calls == [(5, 1), (6, 1), (500, 1)]
        return short, long

    short, long = live(world.app, scenario)
    assert world.ended == [5, 6]
    assert [each.crashes for each in _read(store)] == [0, 0, 0, 0]
    again = _world(new_app, store)

    async def goes_on(engine):
        return (await engine.wait(short)).result, (await engine.wait(long)).result

    assert live(again.app, goes_on) == ([5, 7], [500])
    # Handed back, not died: the first attempt that no result came of doesn't count.
    assert sorted(again.calls) == [(7, 1), (500, 1)]


def test_what_was_not_begun_is_begun_by_the_next(new_app, live, make_store):
    """A call that is armed as a drain begins goes on elsewhere, whatever else ends here."""
    store = make_store()
    world = _world(new_app, store)

    def two(world):
        @world.app.flow(name="two")
        def two(_):
            def second():
                yield tf.wait_signal("go")
                return (yield tf.call(world.step, 7))

            return (yield tf.gather(tf.call(world.step, 20), second()))

    two(world)

    async def scenario(engine):
        id = await engine.start("two")
        await trio.sleep(1)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(partial(engine.drain, timeout=60))
            await trio.sleep(1)
            await engine.signal(id, "go")
        assert world.ended == [20]
        return id

    id = live(world.app, scenario)
    again = _world(new_app, store)
    two(again)

    async def goes_on(engine):
        return (await engine.wait(id, timeout=100)).result

    assert live(again.app, goes_on) == [20, 7]


def _read(store):
    store.open()
    try:
        return store.instances()
    finally:
        store.close()


def test_what_no_step_runs_for_is_handed_back_first(new_app, live, watched):
    """Another worker need not wait for the steps of others, nor for any lease."""
    store = watched(MemoryStore())
    world = _world(new_app, store)
    released = []

    async def scenario(engine):
        await engine.start("f", [100])
        # Owned, with no step running: its turn could not be stored.
        await engine.start("parks")
        await trio.sleep(1)
        assert engine.statistics().owned == 2
        began = trio.current_time()

        def note(batch):
            released.extend(
                (op.numbers, trio.current_time() - began)
                for op in batch.operations
                if type(op) is Release and op.numbers
            )

        store.before = note
        found = await engine.drain(timeout=1000)
        assert trio.current_time() - began == 99
        return found

    broken = []

    def trouble(batch):
        if any(type(op) is Turn and op.number == 2 for op in batch.operations):
            broken.append(True)
            raise OSError("disk full")

    store.before = trouble
    found = live(world.app, scenario)
    assert broken
    assert found == tf.Drained(finished=1, handed_back=1, abandoned=0)
    assert released == [((2,), 0.0)]


def test_from_its_first_moment_nothing_is_taken(new_app, live, watched):
    """Not ready at once; no claim, no step; what is started meanwhile waits for others."""
    store = watched(MemoryStore())
    world = _world(new_app, store)
    world.app.trigger("t", on="Note", start="parks")

    async def scenario(engine):
        assert (engine.state, engine.ready) == ("ready", True)
        await engine.start("f", [50])
        await trio.sleep(1)
        found = []
        async with trio.open_nursery() as nursery:

            async def drain():
                found.append(await engine.drain(timeout=100))

            nursery.start_soon(drain)
            await trio.sleep(1)
            assert (engine.state, engine.ready) == ("draining", False)
            claims = len(store.operations(Claim))
            late = await engine.start("f", [1])
            appended = await engine.append({"type": "Note", "actor": "a"})
            await trio.sleep(10)
            assert len(store.operations(Claim)) == claims
        assert (engine.state, engine.statistics().ready) == ("drained", False)
        # The verbs still work; nothing is driven.
        await engine.signal(appended.firings[0].instance_id, "go")
        with trio.fail_after(5):
            await engine.run_until_idle()
        await trio.sleep(1000)
        assert (await engine.get(late)).status == "running"
        with pytest.raises(tf.WaitTimedOut):
            await engine.wait(late, timeout=5)
        assert world.calls == [(50, 1)]
        return found

    assert live(world.app, scenario) == [tf.Drained(finished=1, handed_back=0, abandoned=0)]


def test_a_second_drain_gives_the_same(new_app, live):
    """At the same time or later, shorter or longer: one drain, one summary."""
    world = _world(new_app, MemoryStore())

    async def scenario(engine):
        for _ in range(3):
            await engine.start("f", [1000])
        await trio.sleep(1)
        found = []

        async def drain(limit):
            found.append(await engine.drain(timeout=limit))

        began = trio.current_time()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(drain, 500)
            await trio.sleep(10)
            # In a hurry now: it shortens the drain that is going on.
            nursery.start_soon(drain, 20)
            nursery.start_soon(drain, tf.minutes(900))
        assert trio.current_time() - began == 30
        await drain(0)
        assert trio.current_time() - began == 30
        return found

    assert live(world.app, scenario) == [tf.Drained(0, 3, 3)] * 4


def test_a_cancelled_drain_goes_on_later(new_app, live):
    """Whoever gives up waiting for it undoes nothing, and the next one finishes it."""
    world = _world(new_app, MemoryStore())

    async def scenario(engine):
        await engine.start("f", [100])
        await trio.sleep(1)
        with trio.move_on_after(5):
            await engine.drain(timeout=1000)
        assert engine.state == "draining"
        assert world.ended == []
        return await engine.drain(timeout=1000)

    assert live(world.app, scenario) == tf.Drained(1, 0, 0)


def test_closing_drains(new_app, live):
    """The end of the block is a drain with the setting's limit, and quick after one."""
    store = MemoryStore()
    world = _world(new_app, store)

    async def scenario(engine):
        await engine.start("f", [10])
        await engine.start("f", [1000])
        await trio.sleep(1)

    live(world.app, scenario, drain=50)
    assert world.ended == [10]
    assert [(each.status, each.owner) for each in _read(store)] == [
        ("done", None),
        ("running", None),
    ]


def test_another_worker_goes_on_at_once(new_app, real, tmp_path):
    """Two processes' worth: what one hands back the other drives, long before any lease."""
    path = tmp_path / "a.db"
    gates = {"one": trio.Event(), "two": trio.Event()}
    calls = []

    def make(name):
        app = new_app(SqliteStore(path))

        async def step():
            calls.append(name)
            await gates[name].wait()
            return name

        @app.flow(name="f")
        def f(_):
            return (yield tf.call(step))

        return app

    async def scenario():
        gates["two"].set()
        async with make("one").open(lease=1e6) as one:
            ids = [await one.start("f") for _ in range(20)]
            while len(calls) < 20:
                await trio.sleep(0.005)
            async with make("two").open(lease=1e6) as two:
                found = await one.drain(timeout=0)
                results = [(await two.wait(id)).result for id in ids]
                # The one that drained hears of it too.
                assert [(await one.wait(id)).result for id in ids] == results
        return found, set(results)

    assert real(scenario) == (tf.Drained(0, 20, 20), {"two"})


def test_a_thread_that_runs_on_changes_nothing(new_app, real, make_sqlite):
    """A plain step can't be stopped: it is given up, and what it brings later is dropped."""
    store = make_sqlite()
    app = new_app(store)
    gate, began = threading.Event(), threading.Event()

    @app.flow
    def f(_):
        return (yield tf.call(step))

    def step():
        began.set()
        gate.wait(20)
        return "late"

    async def scenario():
        async with app.open() as engine:
            id = await engine.start(f)
            while not began.is_set():
                await trio.sleep(0.005)
            found = await engine.drain(timeout=0)
            gate.set()
            record = store.instance(id)
            assert (record.status, record.owner, record.log_length) == ("running", None, 0)
            return found

    assert real(scenario) == tf.Drained(0, 1, 1)


def test_a_store_that_fails_meanwhile(new_app, live, watched):
    """Hand-backs that fail come with the worker's row; what can't be written is tried again."""
    store = watched(MemoryStore())
    world = _world(new_app, store)
    failing = []
    forget = store.store.forget_worker

    def forget_worker(worker):
        if failing:
            failing.pop()
            raise OSError("disk full")
        forget(worker)

    store.forget_worker = forget_worker

    async def scenario(engine):
        await engine.start("f", [100])
        await trio.sleep(1)
        failing.append(True)
        with pytest.raises(OSError, match="disk full"):
            await engine.drain(timeout=5)
        assert engine.state == "draining"
        found = await engine.drain()
        assert store.workers() == []
        return found

    assert live(world.app, scenario) == tf.Drained(0, 1, 1)


def test_a_crash_in_the_middle_of_a_drain(make_store):
    """Killed at every write of it, or of the closing: nothing stays owned, nothing is lost."""

    def make_app(store):
        app = tf.App(store, build="one", entry_points=False)

        async def step(n):
            await trio.sleep(n)
            return n

        @app.flow(name="f")
        def f(activity):
            return [(yield tf.call(step, activity["n"])), (yield tf.call(step, 1))]

        app.trigger("t", on="Note", start=f)
        return app

    async def scenario(engine):
        for n in (1, 5, 9):
            await engine.append({"type": "Note", "actor": "ann", "n": n})
        await trio.sleep(3)
        await engine.drain(timeout=4)
        return engine.state

    def audit(store):
        found = store.instances()
        assert len(found) == 3
        assert {(each.status, each.owner) for each in found} <= {
            ("running", None),
            ("done", None),
        }
        assert store.workers() == []

    report = crash_everywhere(make_app, scenario, make_store, audit=audit)
    assert report.points > 10
    assert report.end == "drained"


# --- readiness


def test_degraded_while_the_store_fails(new_app, live, watched):
    """A store that refuses every write makes it degraded; the next one that lands, ready."""
    store = watched(MemoryStore())
    world = _world(new_app, store)

    def fail(batch):
        raise OSError("disk full")

    async def scenario(engine):
        store.before = fail
        with pytest.raises(OSError, match="full"):
            await engine.start("f", [1])
        assert (engine.state, engine.ready) == ("degraded", False)
        store.before = lambda batch: None
        await engine.start("f", [1])
        assert (engine.state, engine.ready) == ("ready", True)

    live(world.app, scenario)


def test_one_bad_operation_is_not_the_store(new_app, live, watched):
    """Where others land beside the one that fails, the store is fine."""
    store = watched(MemoryStore())
    world = _world(new_app, store)

    async def scenario(engine):
        bad = await engine.start("parks")

        def fail(batch):
            if any(getattr(op, "instance", None) == bad for op in batch.operations):
                raise OSError("bad page")

        store.before = fail
        await engine.run_until_idle()
        async with trio.open_nursery() as nursery:

            async def send():
                with pytest.raises(OSError, match="bad page"):
                    await engine.signal(bad, "go")

            nursery.start_soon(send)
            nursery.start_soon(engine.start, "parks")
        return engine.state

    assert live(world.app, scenario) == "ready"


def test_states_from_opening_to_the_end(new_app, live, watched, monkeypatch):
    """Starting until the store is open, closed after the block; a drain has no way back."""
    store = watched(MemoryStore())
    world = _world(new_app, store)
    seen = []

    async def scenario(engine):
        seen.append(engine)
        return engine.state

    begin = Engine.begin

    async def looks(engine):
        seen.append(engine.state)
        await begin(engine)

    monkeypatch.setattr(Engine, "begin", looks)
    assert live(world.app, scenario) == "ready"
    assert seen[0] == "starting"
    assert seen[1].state == "closed"


def test_one_that_does_not_work_has_nothing_to_drain(new_app, live):
    """It becomes drained all the same, so that a health check sees one picture."""

    async def scenario(engine):
        return engine.ready, await engine.drain(), engine.state

    found = live(_world(new_app, MemoryStore()).app, scenario, work=False)
    assert found == (True, tf.Drained(), "drained")


def test_clients_drain_too(new_app):
    """The blocking client has the verb, and its statistics tell the state."""
    with new_app().client() as client:
        assert client.statistics().ready
        assert client.drain(timeout=1) == client.drain() == tf.Drained()
        assert client.statistics().state == "drained"
    with pytest.raises(tf.EngineClosed):
        client.drain()


@pytest.mark.parametrize("bad", [-1, "soon"])
def test_a_limit_that_is_none_is_refused(new_app, live, bad):
    """And nothing has begun to drain."""

    async def scenario(engine):
        with pytest.raises(tf.DefinitionError, match=r"drain\(timeout=\)"):
            await engine.drain(timeout=bad)
        return engine.state

    assert live(new_app(), scenario) == "ready"
