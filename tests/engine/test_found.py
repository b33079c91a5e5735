"""Hazards that were found by attacking the engine; each test is the smallest repro."""

# ruff: noqa: ASYNC110 - `id` is a word of the glossary; what is polled tells nobody

from __future__ import annotations

import threading

import pytest
import trio

import triggerflow as tf
from triggerflow.store.operations import Claim, Turn
from triggerflow.store.sqlite import MemoryStore, SqliteStore


def test_two_callers_of_run_until_idle_both_return(new_app, live):
    """Any number of tasks may wait for idleness at the same time."""
    app = new_app()

    async def scenario(engine):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(engine.run_until_idle)
            nursery.start_soon(engine.run_until_idle)

    live(app, scenario)


def test_every_suspect_gets_its_turn(new_app, live):
    """Instances whose owners died twice run alone, one after the other, and all do."""
    store = MemoryStore()
    app = new_app(store)

    @app.flow
    def quick(n):
        return n
        yield

    async def starts(engine):
        return [await engine.start(quick, n) for n in range(3)]

    ids = live(app, starts, work=False)
    store.open()
    store._db.execute("UPDATE instance SET crashes = 2")

    async def scenario(engine):
        return [(await engine.wait(id)).result for id in ids]

    assert live(app, scenario) == [0, 1, 2]


def test_a_place_that_gets_free_is_filled_at_once(new_app, live):
    """With one instance that runs for long, the other places still serve everybody else."""
    app = new_app()

    async def long():
        await trio.sleep(1000)

    @app.flow
    def slow(_):
        yield tf.call(long)

    @app.flow
    def quick(n):
        return n
        yield

    async def scenario(engine):
        await engine.start(slow)
        await trio.sleep(1)
        began = trio.current_time()
        ids = [await engine.start(quick, n) for n in range(10)]
        found = [(await engine.wait(id)).result for id in ids]
        return found, trio.current_time() - began

    found, took = live(app, scenario, capacity=2)
    assert found == list(range(10))
    assert took < 10


@pytest.mark.timeout(10)
def test_a_due_timer_without_a_free_place_waits_quietly(new_app, live):
    """A parked instance that is due while the worker is full must not make it spin."""
    app = new_app()

    async def long():
        await trio.sleep(100)

    @app.flow
    def slow(_):
        yield tf.call(long)

    @app.flow
    def sleeper(_):
        yield tf.sleep(10)

    async def scenario(engine):
        first = await engine.start(sleeper)
        await engine.run_until_idle()
        second = await engine.start(slow)
        await engine.wait(second)
        await engine.wait(first)

    live(app, scenario, capacity=1)


def test_result_kept_while_a_failed_turn_waits(new_app, live, watched):
    """After a failed commit nothing is taken with the old replay: no entry goes missing."""
    store = watched(MemoryStore())
    app = new_app(store)
    release = {}

    async def first():
        await trio.sleep(1)
        return "a"

    async def second():
        await trio.sleep(1.05)
        return "b"

    @app.flow
    def both(_):
        return (yield tf.gather(tf.call(first), tf.call(second)))

    def fail_once(batch):
        for op in batch.operations:
            if type(op) is Turn and op.entries and not release:
                release["failed"] = True
                raise OSError("disk full")

    store.before = fail_once

    async def scenario(engine):
        id = await engine.start(both)
        found = await engine.wait(id)
        return found.result, sorted(entry.tag for entry in await engine.log(id))

    result, tags = live(app, scenario)
    assert result == ["a", "b"]
    assert tags == ["gather#0[0]/call:first#0", "gather#0[1]/call:second#0"]


@pytest.mark.parametrize("together", [1, 2], ids=["alone", "in a batch"])
def test_commit_that_landed_and_raised_leaves_no_instance_behind(
    new_app, live, watched, together
):
    """A commit of doubtful outcome: the instance goes on, whichever way it went."""
    store = watched(MemoryStore())
    app = new_app(store)
    raised = []

    @app.flow
    def simple(n):
        return (yield tf.call(abs, n))

    def fail_late(batch, outcomes):
        if not raised and any(type(op) is Turn for op in batch.operations):
            raised.append(True)
            raise OSError("connection lost after COMMIT")

    store.after = fail_late

    async def starts(engine):
        return [await engine.start(simple, n) for n in range(together)]

    ids = live(app, starts, work=False)

    async def scenario(engine):
        return [(await engine.wait(id)).result for id in ids]

    assert live(app, scenario) == list(range(together))


@pytest.mark.parametrize("what", ["Claim", "Release", "reap", "registry", "woken"])
def test_store_trouble_is_weathered_by_the_keeper(new_app, watched, real, make_sqlite, what):
    """A full disk during a claim, a heartbeat or a read does not end the engine."""
    store = watched(make_sqlite())
    app = new_app(store)
    failed = []

    @app.flow
    def simple(n):
        return (yield tf.call(abs, n))

    def fail_commit(batch):
        if not failed and any(type(op).__name__ == what for op in batch.operations):
            failed.append(True)
            raise OSError("disk full")

    def fail_call(*args, **options):
        if not failed:
            failed.append(True)
            raise OSError("disk full")
        return getattr(store.store, what)(*args, **options)

    async def scenario():
        async with app.open(lease=0.3) as engine:
            if what[0].isupper():
                store.before = fail_commit
            else:
                setattr(store, what, fail_call)
            id = await engine.start(simple, -3)
            return (await engine.wait(id)).result

    assert real(scenario, hung=5) == 3


def test_block_that_cannot_be_stored_is_tried_again(new_app, live, watched):
    """A divergence whose own commit fails still blocks the instance in the end."""
    store = watched(MemoryStore())

    def make(build, changed):
        app = new_app(store, build=build)

        @app.flow(name="f")
        def f(_):
            yield tf.call(abs, -2 if changed else -1)
            yield tf.wait_signal("go")

        return app

    async def begin(engine):
        id = await engine.start("f")
        await engine.run_until_idle()
        await engine.signal(id, "other")
        return id

    id = live(make("one", False), begin)
    failed = []

    def fail_once(batch):
        if not failed and any(type(op).__name__ == "Block" for op in batch.operations):
            failed.append(True)
            raise OSError("disk full")

    async def scenario(engine):
        store.before = fail_once
        await engine.signal(id, "go")
        await engine.run_until_idle()
        return (await engine.get(id)).status

    assert live(make("two", True), scenario) == "blocked"


def test_wait_with_no_time_returns_what_has_ended(new_app, live):
    """`wait(timeout=0)` on an instance that has ended is an answer, not a timeout."""
    app = new_app()

    @app.flow
    def quick(_):
        return 1
        yield

    async def scenario(engine):
        id = await engine.start(quick)
        await engine.run_until_idle()
        return (await engine.wait(id, timeout=0)).result

    assert live(app, scenario) == 1


def test_key_compares_inputs_by_value(new_app, live):
    """A second start with an equal input returns the first id, whatever its dicts' order."""
    app = new_app()

    @app.flow
    def waits(_):
        yield tf.wait_signal("go")

    async def scenario(engine):
        first = await engine.start(waits, {"a": 1, "b": 2}, key="k")
        second = await engine.start(waits, {"b": 2, "a": 1}, key="k")
        return first == second

    assert live(app, scenario)


def test_closed_engine_leaves_no_waiter_hanging(new_app, real, make_sqlite):
    """Tasks outside of the engine's block that wait for it are told that it closed."""
    app = new_app(make_sqlite())
    told = []

    @app.flow
    def waits(_):
        yield tf.wait_signal("go")

    async def waiter(engine, id):
        with pytest.raises(tf.EngineClosed):
            await engine.wait(id)
        told.append(True)

    async def scenario():
        async with trio.open_nursery() as nursery, app.open() as engine:
            id = await engine.start(waits)
            await engine.run_until_idle()
            nursery.start_soon(waiter, engine, id)
            await trio.testing.wait_all_tasks_blocked()

    real(scenario, hung=3)
    assert told


def test_flow_that_raises_a_strange_exception_harms_nobody(new_app, live):
    """A BaseException of the user's own fails its instance, not the engine."""
    app = new_app()

    class Strange(BaseException):
        pass

    @app.flow
    def odd(_):
        yield tf.call(abs, -1)
        raise Strange

    async def scenario(engine):
        id = await engine.start(odd)
        found = await engine.wait(id)
        return found.status, found.failure.type

    status, kind = live(app, scenario)
    assert status == "failed"
    assert kind.endswith("Strange")


def test_busy_worker_notices_what_others_write(new_app, real, tmp_path):
    """Steady work of its own must not keep a worker from seeing another process's signal."""
    path = tmp_path / "shared.db"
    stop = threading.Event()
    one = new_app(SqliteStore(path))
    two = new_app(SqliteStore(path))

    def spin():
        return stop.is_set()

    @one.flow
    def busy(_):
        while not (yield tf.call(spin)):
            pass

    @one.flow
    def waits(_):
        return (yield tf.wait_signal("go"))

    async def scenario():
        async with one.open() as engine, two.open(work=False) as other:
            ids = [await engine.start(busy) for _ in range(2)]
            id = await engine.start(waits)
            while (await engine.get(id)).status != "waiting":
                await trio.lowlevel.checkpoint()
            try:
                await other.signal(id, "go", 7)
                with trio.fail_after(3):
                    found = (await engine.wait(id)).result
            finally:
                stop.set()
            for each in ids:
                await engine.wait(each)
            return found

    assert real(scenario) == 7


def test_hanging_guard_of_a_deferred_dispatch_does_not_stop_the_clock(
    new_app, real, make_sqlite
):
    """While guards of deferred dispatches hang, timers fire and heartbeats go on."""
    app = new_app(make_sqlite())
    release = threading.Event()

    def hangs(document):
        release.wait(20)

    @app.flow
    def started(_):
        return None
        yield

    @app.flow
    def naps(_):
        yield tf.sleep(0.05)

    app.trigger("t", on="Follow", guard=hangs, start=started)

    async def scenario():
        async with app.open(deferred=True, guard_limit=0.5) as engine:
            await engine.append_many(
                {"type": "Follow", "actor": "https://a.example/", "n": n} for n in range(8)
            )
            id = await engine.start(naps)
            try:
                with trio.fail_after(1.5):
                    await engine.wait(id)
            finally:
                release.set()

    real(scenario)


def test_overdue_flag_reaches_the_flow(new_app, real, make_sqlite, turned_clock):
    """A step that overran its timeout twice fails with `TimedOut(still_running=True)`."""
    app = new_app(make_sqlite())
    clock = turned_clock()
    release, begun = threading.Event(), threading.Event()

    def hangs():
        begun.set()
        release.wait(20)

    @app.flow
    def f(_):
        try:
            yield tf.call(hangs).using(timeout=10)
        except tf.TimedOut as error:
            return error.still_running
        return "no timeout"

    async def scenario():
        async with app.open(clock=clock, lease=1e9) as engine:
            id = await engine.start(f)
            await trio.to_thread.run_sync(begun.wait)
            clock.time += 11
            await trio.sleep(0.05)
            clock.time += 11
            found = (await engine.wait(id)).result
            release.set()
            return found

    assert real(scenario) is True


def test_queued_step_does_not_use_up_its_timeout(new_app, real, make_sqlite, turned_clock):
    """A step's timeout runs from its start, not from when it was put before a busy pool."""
    app = new_app(make_sqlite())
    clock = turned_clock()
    release, begun = threading.Event(), threading.Event()

    def blocks():
        begun.set()
        release.wait(20)

    @app.flow
    def first(_):
        yield tf.call(blocks)

    @app.flow
    def second(_):
        return (yield tf.call(abs, -1).using(timeout=10))

    async def scenario():
        async with app.open(clock=clock, lease=1e9, threads=1) as engine:
            one = await engine.start(first)
            await trio.to_thread.run_sync(begun.wait)
            two = await engine.start(second)
            while not engine._executor.owned.get(2) or not engine._executor.owned[2].attempts:
                await trio.sleep(0.001)
            clock.time += 11
            await trio.sleep(0.05)
            release.set()
            await engine.wait(one)
            return await engine.wait(two)

    found = real(scenario)
    assert found.failure is None
    assert found.result == 1


def test_timer_of_an_instance_that_parks_during_a_claim_is_not_lost(new_app, live):
    """A due time that comes while a claim's answer is on its way is kept."""
    app = new_app()

    @app.flow
    def naps(_):
        yield tf.call(abs, -1)
        yield tf.sleep(5)
        return 1

    async def scenario(engine):
        ask = engine._committer.ask

        async def slow_ask(operation, *rest):
            found = await ask(operation, *rest)
            if type(operation) is Claim:
                await trio.sleep(1)
            return found

        engine._committer.ask = slow_ask
        engine._keeper.work_came()
        await trio.sleep(0.5)
        id = await engine.start(naps)
        with trio.fail_after(100):
            return (await engine.wait(id)).result

    assert live(app, scenario) == 1


def test_instances_may_be_left_early(new_app, live):
    """Leaving the iteration over instances before its end costs nothing, not even a warning."""
    app = new_app()

    @app.flow
    def quick(_):
        return 1
        yield

    async def scenario(engine):
        for n in range(3):
            await engine.start(quick, n)
        async for each in engine.instances():
            assert each.input == 0
            break

    live(app, scenario)
