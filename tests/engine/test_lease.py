"""Leases and trouble: who lost the right to act changes nothing; who met an error goes on."""

# ruff: noqa: ASYNC110 - `id` is a word of the glossary; what is polled tells nobody

from __future__ import annotations

import logging
import sqlite3
from pathlib import Path

import pytest
import trio

import triggerflow as tf
from triggerflow.store.operations import Turn
from triggerflow.store.sqlite import MemoryStore, SqliteStore
from triggerflow.testing.time import run_virtually, virtual_settings

FOLLOW = {"type": "Follow", "actor": "https://a.example/ann"}


class _World:
    """Steps of one flow, and what the test knows of them."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.gates: dict[str, trio.Event] = {}

    def app(self, new_app, store, name):
        app = new_app(SqliteStore(store) if isinstance(store, Path) else store)

        async def step():
            self.calls.append(name)
            gate = self.gates.get(name)
            if gate is not None:
                await gate.wait()
            return name

        @app.flow(name="f")
        def f(_):
            first = yield tf.call(step)
            return [first, (yield tf.wait_signal("go"))]

        @app.flow(name="quick")
        def quick(n):
            return (yield tf.call(abs, n))

        return app


async def _until(condition):
    while True:
        found = condition()
        if hasattr(found, "__await__"):
            found = await found
        if found:
            return
        await trio.sleep(0.005)


# --- leases


def test_stale_worker_is_fenced_and_begins_again(new_app, real, tmp_path, standstill):
    """Another worker takes over; the late result changes nothing; the old worker works on."""
    world = _World()
    path = tmp_path / "shared.db"
    still = standstill(SqliteStore(path))

    async def scenario():
        world.gates["one"] = trio.Event()
        async with world.app(new_app, still, "one").open(lease=0.3) as one:
            id = await one.start("f")
            await _until(lambda: world.calls == ["one"])
            first = one._committer.worker
            still.still = True
            async with world.app(new_app, path, "two").open(lease=0.3) as two:

                async def parked():
                    return (await two.get(id)).status == "waiting"

                await _until(parked)
                assert world.calls == ["one", "two"]
                two._executor.draining = True
                # The lost worker's step ends only now.
                still.still = False
                world.gates["one"].set()
                await _until(lambda: one._committer.worker != first)
                assert [each.value for each in await two.log(id)] == ["two"]
                # The old worker, born again, does new work.
                assert (await one.wait(await one.start("quick", -7))).result == 7
                two._executor.draining = False
                await one.signal(id, "go", "end")
                found = await one.wait(id)
                return found.result, [each.tag for each in await one.log(id)]

    result, tags = real(scenario)
    assert result == ["two", "end"]
    assert tags == ["call:step#0", "wait_signal:go#0"]
    assert world.calls == ["one", "two"]


def test_death_is_counted_where_it_belongs(new_app, real, tmp_path, standstill):
    """A reaped worker's instances count one crash, and the step sees a second attempt."""
    path = tmp_path / "shared.db"
    attempts = []
    still = standstill(SqliteStore(path))

    def make(store, gate):
        app = new_app(store)

        async def step():
            attempts.append(tf.step_context())
            await gate.wait()

        @app.flow(name="f")
        def f(_):
            yield tf.call(step)

        return app

    async def scenario():
        never, at_once = trio.Event(), trio.Event()
        at_once.set()
        async with make(still, never).open(lease=0.3) as one:
            id = await one.start("f")
            await _until(lambda: attempts)
            still.still = True
            async with make(SqliteStore(path), at_once).open(lease=0.3) as two:
                found = (await two.wait(id)).status
            still.still = False
            return found

    assert real(scenario) == "done"
    assert [context.attempt for context in attempts] == [1, 2]
    assert len({context.idempotency_key for context in attempts}) == 1


def test_worker_that_shows_life_is_not_reaped(new_app, real, tmp_path, turned_clock):
    """While a worker's heartbeats come, a long step stays its own, whatever others think."""
    world = _World()
    path = tmp_path / "shared.db"
    clock = turned_clock()

    async def scenario():
        world.gates["one"] = trio.Event()
        async with world.app(new_app, path, "one").open(clock=clock, lease=0.9) as one:
            id = await one.start("f")
            await _until(lambda: world.calls)
            async with world.app(new_app, path, "two").open(clock=clock, lease=0.9) as two:
                for _ in range(6):
                    # Never more than a beat of 0.3 s at a time.
                    await trio.sleep(0.35)
                    clock.time += 0.35
                world.gates["one"].set()
                await two.signal(id, "go", 1)
                return (await two.wait(id)).result

    assert real(scenario) == ["one", 1]
    assert world.calls == ["one"]


def test_idle_worker_outlives_its_lease(new_app, real, tmp_path, turned_clock):
    """A worker that had nothing to do for longer than its lease still works."""
    clock = turned_clock()
    world = _World()

    async def scenario():
        async with world.app(new_app, tmp_path / "a.db", "one").open(
            clock=clock, lease=3
        ) as one:
            id = await one.start("f")
            await one.run_until_idle()
            for _ in range(3):
                clock.time += 10
                await trio.sleep(0.05)
            await one.signal(id, "go", 1)
            assert (await one.wait(await one.start("quick", -1))).result == 1
            return (await one.wait(id)).result

    assert real(scenario) == ["one", 1]


def test_dead_process_is_known_at_once(new_app, live, killed):
    """A worker whose process is gone is reaped without waiting for its lease."""
    store = MemoryStore()
    world = _World()

    def make():
        app = new_app(store)

        async def step():
            world.calls.append("step")
            await trio.sleep(0 if len(world.calls) > 1 else 1000)

        @app.flow(name="f")
        def f(_):
            yield tf.call(step)

        return app

    async def dies(engine):
        id = await engine.start("f")
        await trio.sleep(1)
        return id

    id = killed(make(), dies)

    async def works(engine):
        began = trio.current_time()
        await engine.wait(id)
        return trio.current_time() - began

    assert live(make(), works) < 1


def test_two_workers_on_one_file_share_the_work(new_app, real, tmp_path):
    """Every instance is driven by one of them at a time: each step runs once."""
    path = tmp_path / "shared.db"
    calls = []

    def make(name):
        app = new_app(SqliteStore(path))

        def step(n):
            calls.append((n, name))
            return n

        @app.flow(name="f")
        def f(n):
            yield tf.call(step, n)
            return (yield tf.wait_signal("go"))

        return app

    async def scenario():
        async with (
            make("one").open() as one,
            make("two").open() as two,
            make("writer").open(work=False) as writer,
        ):
            ids = [await writer.start("f", n) for n in range(100)]
            for n, id in enumerate(ids):
                await (one, two, writer)[n % 3].signal(id, "go", n)
            return [(await writer.wait(id)).result for id in ids]

    assert real(scenario) == list(range(100))
    assert sorted(n for n, _ in calls) == list(range(100))


# --- the store in trouble


def _chain(app):
    calls = []

    def step(n):
        calls.append(n)
        return n

    @app.flow(name="f")
    def f(n):
        got = []
        for each in range(3):
            got.append((yield tf.call(step, [n, each])))
        return got

    return calls


@pytest.mark.parametrize("at", range(1, 8))
def test_commit_that_fails_once_costs_no_result(new_app, live, make_store, watched, at):
    """Whichever batch fails, no finished step runs again and every flow comes to its end."""
    store = watched(make_store())
    app = new_app(store)
    calls = _chain(app)
    count = iter(range(1, 1000))

    def fail(batch):
        if next(count) == at:
            raise sqlite3.OperationalError("database or disk is full")

    async def scenario(engine):
        ids = []
        while len(ids) < 3:
            try:
                ids.append(await engine.start("f", len(ids)))
            except sqlite3.OperationalError:
                continue
            if len(ids) == 1:
                store.before = fail
        return [(await engine.wait(id)).result for id in ids]

    found = live(app, scenario)
    assert found == [[[n, each] for each in range(3)] for n in range(3)]
    assert sorted(calls) == [[n, each] for n in range(3) for each in range(3)]


def test_instance_that_can_not_be_stored_troubles_nobody_else(new_app, live, watched, caplog):
    """Its turns fail again and again; neighbours in the same batches land; then it goes on."""
    store = watched(MemoryStore())
    app = new_app(store)
    calls = _chain(app)
    broken = []

    def fail(batch):
        for op in batch.operations:
            if type(op) is Turn and op.number == 3 and op.entries and broken:
                broken.append(True)
                raise OSError("bad page")

    store.before = fail
    broken.append(True)

    async def scenario(engine):
        ids = [await engine.start("f", n) for n in range(6)]
        others = [id for n, id in enumerate(ids) if n != 2]
        with trio.fail_after(60):
            for id in others:
                await engine.wait(id)
        await trio.sleep(300)
        assert (await engine.get(ids[2])).status == "running"
        tries = len(broken)
        broken.clear()
        found = (await engine.wait(ids[2])).result
        return tries, found

    with caplog.at_level(logging.WARNING, "triggerflow"):
        tries, found = live(app, scenario)
    assert found == [[2, each] for each in range(3)]
    assert tries > 3
    assert tries < 200
    assert calls.count([2, 0]) == 1
    assert "could not be stored" in caplog.text


def test_append_that_fails_tells_its_caller_and_leaves_nothing(new_app, live, watched):
    """A full disk is the appender's error; the engine lives, and the repeat lands."""
    store = watched(MemoryStore())
    app = new_app(store)
    _chain(app)
    app.trigger("t", on="Follow", start="f")

    async def scenario(engine):
        await engine.run_until_idle()

        def fail(batch):
            raise sqlite3.OperationalError("database or disk is full")

        store.before = fail
        with pytest.raises(sqlite3.OperationalError, match="full"):
            await engine.append(FOLLOW)
        with pytest.raises(sqlite3.OperationalError):
            await engine.start("f", 1)
        store.before = lambda batch: None
        found = await engine.append(FOLLOW)
        (firing,) = found.firings
        await engine.wait(firing.instance_id)
        return found.duplicate, store.counts().activities

    assert live(app, scenario) == (False, 1)


def test_trouble_while_a_signal_waits_loses_no_signal(new_app, live, watched):
    """A message taken by a turn that failed is taken again, in its order."""
    store = watched(MemoryStore())
    app = new_app(store)
    failures = []

    @app.flow
    def f(_):
        got = []
        for _ in range(4):
            got.append((yield tf.wait_signal("go")))
        return got

    def fail(batch):
        for op in batch.operations:
            if type(op) is Turn and op.consumed and len(failures) < 3:
                failures.append(True)
                raise OSError("disk full")

    store.before = fail

    async def scenario(engine):
        id = await engine.start(f)
        await engine.run_until_idle()
        for n in range(4):
            await engine.signal(id, "go", n)
        return (await engine.wait(id)).result

    assert live(app, scenario) == [0, 1, 2, 3]
    assert len(failures) == 3


def test_trouble_keeps_timers_cancels_and_retries(new_app, live, watched):
    """Every other turn fails once: sleep, back-off and cancel come to the same end."""
    store = watched(MemoryStore())
    app = new_app(store)
    seen = set()
    attempts = []

    def flaky():
        attempts.append(1)
        if len(attempts) < 3:
            raise OSError
        return len(attempts)

    def undo():
        return "undone"

    @app.flow
    def f(_):
        yield tf.sleep(50)
        got = yield tf.call(flaky).using(retry=tf.RetryPolicy(initial=5))
        try:
            yield tf.wait_signal("never")
        except tf.FlowCancelled:
            return [got, (yield tf.call(undo))]

    def fail(batch):
        for op in batch.operations:
            mark = (getattr(op, "log_length", None), getattr(op, "status", None))
            if type(op) is Turn and mark not in seen:
                seen.add(mark)
                raise OSError("disk full")

    store.before = fail

    async def scenario(engine):
        id = await engine.start(f)
        while "wait_signal:never#0" not in (await engine.get(id)).waiting:
            await trio.sleep(1)
        await engine.cancel(id)
        found = await engine.wait(id)
        return found.result, [each.tag for each in await engine.log(id)]

    result, tags = live(app, scenario)
    assert result == [3, "undone"]
    assert tags == ["sleep#0", "call:flaky#0", "cancel", "call:undo#0"]
    assert len(attempts) == 3


def test_cancelled_block_hands_its_work_back(new_app, live):
    """An engine that is cancelled from outside, as by Ctrl-C, counts as no crash."""
    store = MemoryStore()
    app = new_app(store)

    @app.flow
    def f(_):
        yield tf.call(trio.sleep, 1000)

    async def main():
        with trio.move_on_after(5):
            async with app.open(**virtual_settings()) as engine:
                await engine.start(f)
                await trio.sleep_forever()

    run_virtually(main)
    store.open()
    (record,) = store.instances()
    assert (record.status, record.owner, record.crashes) == ("running", None, 0)
    assert store.workers() == []
    store.close()
