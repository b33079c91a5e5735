"""Parked instances: a row each, and a bounded number of live replays."""

# ruff: noqa: ASYNC110 - `id` is a word of the glossary; what is polled tells nobody

from __future__ import annotations

import pytest
import trio

import triggerflow as tf
from triggerflow.store.operations import Claim
from triggerflow.store.sqlite import MemoryStore, SqliteStore


@pytest.fixture
def parking(new_app):
    """An app whose flow counts its drives and closings, and takes three signals."""

    def make(store):
        app = new_app(store)
        app.drives, app.closed, app.performed = [], [], []

        def perform(what):
            app.performed.append(what)
            return what

        @app.flow(name="f")
        def f(n):
            app.drives.append(n)
            got = []
            try:
                for _ in range(3):
                    got.append((yield tf.wait_signal("go")))
            finally:
                app.closed.append(n)
                if len(got) < 3:
                    yield tf.call(perform, n)
            return got

        return app

    return make


async def _signalled(engine, ids, value):
    for id in ids:
        await engine.signal(id, "go", value)
    await engine.run_until_idle()


def test_evicted_replays_are_closed_and_rebuilt(parking, live):
    """With room for two, the others are driven again; what they yield on closing is dropped."""
    app = parking(MemoryStore())

    async def scenario(engine):
        ids = [await engine.start("f", n) for n in range(5)]
        await engine.run_until_idle()
        assert sorted(app.closed) == sorted(set(app.closed))
        assert len(app.closed) == 3
        assert len(engine._executor.warm) == 2
        for value in range(3):
            await _signalled(engine, ids, value)
        return [(await engine.wait(id)).result for id in ids]

    assert live(app, scenario, keep_warm=2) == [[0, 1, 2]] * 5
    assert app.performed == []
    assert len(app.drives) > 5


def test_warm_replays_are_not_driven_again(parking, live):
    """While there is room, a signal costs no re-drive and no reading of the log."""
    app = parking(MemoryStore())

    async def scenario(engine):
        ids = [await engine.start("f", n) for n in range(5)]
        await engine.run_until_idle()
        for value in range(3):
            await _signalled(engine, ids, value)
        return [(await engine.wait(id)).result for id in ids]

    assert live(app, scenario, keep_warm=10) == [[0, 1, 2]] * 5
    assert sorted(app.drives) == list(range(5))


@pytest.mark.parametrize("keep_warm", [0, 1])
def test_little_room_changes_nothing_but_speed(parking, live, keep_warm):
    """Even without any room for live replays all flows come to their ends."""
    app = parking(MemoryStore())

    async def scenario(engine):
        ids = [await engine.start("f", n) for n in range(4)]
        for value in range(3):
            await _signalled(engine, ids, value)
        return [(await engine.wait(id)).result for id in ids]

    assert live(app, scenario, keep_warm=keep_warm) == [[0, 1, 2]] * 4


def test_warm_replay_that_fell_behind_is_dropped(parking, real, tmp_path, watched):
    """Where another worker went on meanwhile, the longer log counts, not the live generator."""
    path = tmp_path / "shared.db"
    first = watched(SqliteStore(path))
    one, two = parking(first), parking(SqliteStore(path))

    async def reaches(engine, id, length):
        while (await engine.get(id)).log_length < length or (
            await engine.get(id)
        ).status not in ("waiting", "done"):
            await trio.sleep(0.002)

    async def scenario():
        async with one.open() as engine:
            id = await engine.start("f", 1)
            await engine.run_until_idle()
            assert len(engine._executor.warm) == 1
            # Only the second worker may claim for a while.
            engine._executor.draining = True
            async with two.open() as other:
                await other.signal(id, "go", "a")
                await reaches(other, id, 1)
            engine._executor.draining = False
            for value in ("b", "c"):
                await engine.signal(id, "go", value)
            found = await engine.wait(id)
            return found.result, [entry.value for entry in await engine.log(id)]

    result, log = real(scenario)
    assert result == log == ["a", "b", "c"]
    assert two.drives == [1]
    assert len(one.drives) >= 2
    assert first.operations(Claim)


def test_a_thousand_parked_flows_wake(parking, live):
    """1,000 parked flows, each woken by its own signals, all end, with few replays kept."""
    app = parking(MemoryStore())

    async def scenario(engine):
        ids = [await engine.start("f", n) for n in range(1000)]
        await engine.run_until_idle()
        assert not engine._executor.owned
        assert len(engine._executor.warm) == 100
        for value in range(3):
            async with trio.open_nursery() as nursery:
                for id in ids:
                    nursery.start_soon(engine.signal, id, "go", value)
        return [(await engine.wait(id)).result for id in ids]

    assert live(app, scenario, keep_warm=100) == [[0, 1, 2]] * 1000
    assert app.performed == []


def test_timers_of_parked_flows_fire_in_order(new_app, live):
    """A year of timers takes no time to test, and they come when they are due."""
    app = new_app()
    woken = []

    @app.flow
    def naps(days):
        yield tf.sleep(tf.days(days))
        woken.append(days)
        return (yield tf.now())

    async def scenario(engine):
        ids = [await engine.start(naps, n) for n in (300, 1, 30, 365, 7)]
        found = [await engine.wait(id) for id in ids]
        return [round((each.result.timestamp() - each.created) / 86400) for each in found]

    assert live(app, scenario, hung=1e9, keep_warm=1) == [300, 1, 30, 365, 7]
    assert woken == [1, 7, 30, 300, 365]


def test_restart_leaves_parked_flows_alone(parking, live):
    """Opening an app with parked instances drives none of them until something comes."""
    store = MemoryStore()

    async def begin(engine):
        return [await engine.start("f", n) for n in range(20)]

    ids = live(parking(store), begin)
    app = parking(store)

    async def idle(engine):
        await engine.run_until_idle()
        assert app.drives == []
        await _signalled(engine, ids[:1], 0)
        return list(app.drives)

    assert live(app, idle) == [0]


def test_closing_an_engine_runs_no_clean_up_of_flows(parking, live):
    """Live generators are closed in silence: what they yield on their way out is dropped."""
    store = MemoryStore()
    app = parking(store)

    async def begin(engine):
        id = await engine.start("f", 1)
        await _signalled(engine, [id], 0)
        return id

    id = live(app, begin)
    assert app.closed == [1]
    assert app.performed == []
    again = parking(store)

    async def end(engine):
        for value in (1, 2):
            await engine.signal(id, "go", value)
        return (await engine.wait(id)).result

    assert live(again, end) == [0, 1, 2]


def test_timer_that_comes_due_while_its_instance_parks_is_taken(new_app, live):
    """A due time that passes while the parking turn is on its way is seen at the next claim."""
    app = new_app()

    @app.flow
    def f(_):
        first = yield tf.race(tf.wait_signal("go"), tf.sleep(5))
        return first.index

    async def main(engine):
        id = await engine.start(f)
        await engine.run_until_idle()
        executor = engine._executor
        parked = executor.warm.pop(1)
        executor.warm.keep(parked)
        # As a timer does that fires between the drive and the commit.
        parked.note_due(engine._clock.now() + 6)
        assert parked.due
        return (await engine.wait(id, timeout=100)).result

    assert live(app, main) == 1
