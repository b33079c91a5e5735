"""The wall clock is set: no timer is lost or early by it, and no worker dies of it."""

# ruff: noqa: ASYNC110 - what is polled tells nobody

from __future__ import annotations

import pytest
import trio

import triggerflow as tf
from triggerflow.engine.clock import LoopClock
from triggerflow.engine.silence import Silence
from triggerflow.engine.timers import Timers
from triggerflow.store.records import WorkerRecord
from triggerflow.store.sqlite import MemoryStore, SqliteStore
from triggerflow.testing.time import run_virtually, virtual_settings

HOUR, YEAR = 3600.0, 31_536_000.0
JUMPS = [-HOUR, -60.0, -1.0, 1.0, 49.0, 51.0, HOUR, YEAR]


class JumpingClock(LoopClock):
    """A wall clock that a test sets, over a loop clock that nobody can set."""

    recheck = 1.0

    def __init__(self) -> None:
        super().__init__()
        self.offset = 0.0

    def now(self) -> float:
        return super().now() + self.offset


# --- timers


def _sleepers(new_app, store):
    app = new_app(store)

    @app.flow
    def parked(_):
        before = yield tf.now()
        yield tf.sleep(100)
        return [before, (yield tf.now())]

    @app.flow
    def owned(_):
        before = yield tf.now()
        yield tf.race(tf.sleep(100), tf.call(trio.sleep, 10 * HOUR))
        return [before, (yield tf.now())]

    @app.flow
    def waits(_):
        before = yield tf.now()
        assert (yield tf.wait_signal("go", timeout=100, default="none")) == "none"
        return [before, (yield tf.now())]

    @app.flow
    def backs_off(_):
        before = yield tf.now()
        tries = tf.RetryPolicy(max_attempts=2, initial=100, jitter=False)
        yield tf.call(fails).using(retry=tries)
        return [before, (yield tf.now())]

    failed = []

    async def fails():
        if not failed:
            failed.append(True)
            raise OSError

    return app


@pytest.mark.parametrize("jump", JUMPS)
@pytest.mark.parametrize("flow", ["parked", "owned", "waits", "backs_off"])
def test_a_timer_follows_the_wall_clock(new_app, live, make_store, flow, jump):
    """It fires when the clock shows its due time: never before, and a second after at most."""
    app = _sleepers(new_app, make_store())
    clock = JumpingClock()

    async def scenario(engine):
        began = trio.current_time()
        id = await engine.start(flow)
        await trio.sleep(50)
        clock.offset += jump
        found = await engine.wait(id)
        entries = [each.at for each in await engine.log(id)]
        assert entries == sorted(entries)
        times = [each.timestamp() for each in found.result]
        return (*times, trio.current_time() - began)

    before, after, took = live(app, scenario, clock=clock, hung=3 * HOUR)
    assert after >= before + 100
    due = max(50.0, 100 - jump)
    assert due <= took <= due + 1.1


@pytest.mark.parametrize("jump", [-HOUR, HOUR])
def test_a_timer_outlives_a_restart_under_another_clock(new_app, live, killed, jump):
    """A clock that was set while no worker ran neither loses the timer nor turns time back."""
    store = MemoryStore()
    clock = JumpingClock()

    async def starts(engine):
        id = await engine.start("parked")
        await engine.run_until_idle()
        return id

    id = killed(_sleepers(new_app, store), starts, clock=clock)
    again = JumpingClock()
    again.offset = jump

    async def waits(engine):
        return (await engine.wait(id)).result, [each.at for each in await engine.log(id)]

    (before, after), times = live(_sleepers(new_app, store), waits, clock=again, hung=3 * HOUR)
    assert after.timestamp() >= before.timestamp() + 100
    assert times == sorted(times)


def test_a_clock_set_back_while_timers_fire_loses_none(new_app, live):
    """Between the look at the heap and the turn the clock goes back: the timer comes again."""
    app = _sleepers(new_app, MemoryStore())
    clock = JumpingClock()

    async def scenario(engine):
        id = await engine.start("owned")
        await trio.sleep(1)
        executor = engine._executor
        fire = executor._timers.fire

        def fire_and_set_back(now):
            if executor._timers.next() <= now and not clock.offset:
                clock.offset = -HOUR
            fire(now)

        executor._timers.fire = fire_and_set_back
        before, after = (await engine.wait(id)).result
        return (after - before).total_seconds(), trio.current_time()

    length, took = live(app, scenario, clock=clock, hung=3 * HOUR)
    assert length >= 100
    assert HOUR < took < HOUR + 110


def test_what_is_set_while_timers_fire_waits():
    """A timer that sets itself again, as late as before, can't hold the loop."""
    timers = Timers(lambda: None)
    fired = []

    def again():
        fired.append(True)
        timers.at(5, again)

    timers.at(5, again)
    timers.fire(10)
    assert (len(fired), timers.next(), len(timers)) == (1, 5, 1)
    timers.fire(10)
    assert len(fired) == 2


def test_a_leap_cuts_no_step_short(new_app, live):
    """The time limit of a plain step runs on a clock that nobody sets."""
    app = new_app()
    clock = JumpingClock()
    seen = []

    def step():
        # On the loop's thread, under virtual time: it takes none of it, whatever the wall says.
        clock.offset += HOUR
        seen.append(True)
        return "done"

    @app.flow
    def f(_):
        return (yield tf.call(step).using(timeout=10))

    async def scenario(engine):
        return (await engine.wait(await engine.start(f))).result

    assert live(app, scenario, clock=clock) == "done"
    assert len(seen) == 1


def test_a_leap_gives_up_no_thread(new_app, real):
    """A step in a thread is not taken for overdue because the wall clock leapt meanwhile."""
    import threading

    app = new_app()
    gate = threading.Event()
    began = threading.Event()

    class Leaping:
        recheck = 0.005
        offset = 0.0

        def now(self):
            return 1_700_000_000.0 + self.offset

        def steady(self):
            return 0.0

    clock = Leaping()

    def step():
        began.set()
        gate.wait(20)
        return "done"

    @app.flow
    def f(_):
        return (yield tf.call(step).using(timeout=10))

    async def scenario():
        async with app.open(clock=clock) as engine:
            id = await engine.start(f)
            while not began.is_set():
                await trio.sleep(0.005)
            clock.offset = HOUR
            # A timer that is due now shows that the leap was noticed.
            probe = await engine.start("probe")
            clock.offset += HOUR
            await engine.wait(probe)
            gate.set()
            return (await engine.wait(id)).result

    @app.flow
    def probe(_):
        yield tf.sleep(60)

    assert real(scenario) == "done"


# --- leases


def _world(new_app, path, gate, calls, name):
    app = new_app(SqliteStore(path))

    async def step():
        calls.append((name, tf.step_context().attempt))
        await gate.wait()
        return name

    @app.flow(name="f")
    def f(_):
        return (yield tf.call(step))

    return app


@pytest.mark.parametrize("jump", [-YEAR, -HOUR, 31.0, HOUR, YEAR])
@pytest.mark.parametrize("who", ["owner", "other", "both"])
def test_a_leap_fences_no_living_worker(new_app, tmp_path, who, jump):
    """However old a heartbeat looks by the wall clock, who goes on showing life stays alive."""
    path = tmp_path / "shared.db"
    calls = []

    async def main():
        clocks = JumpingClock(), JumpingClock()
        gate = trio.Event()

        def opened(name, clock):
            app = _world(new_app, path, gate, calls, name)
            return app.open(**(virtual_settings(clock) | {"lease": 30.0}))

        with trio.fail_after(HOUR):
            async with opened("one", clocks[0]) as one:
                id = await one.start("f")
                await trio.sleep(10)
                async with opened("two", clocks[1]) as two:
                    await trio.sleep(10)
                    workers = one._committer.worker, two._committer.worker
                    for clock, name in zip(clocks, ("owner", "other"), strict=True):
                        clock.offset += jump if who in (name, "both") else 0
                    await trio.sleep(200)
                    assert (one._committer.worker, two._committer.worker) == workers
                    assert calls == [("one", 1)]
                    gate.set()
                    # Both in one process under inline commits: nobody tells the other.
                    return (await one.wait(id)).result

    assert run_virtually(main) == "one"


@pytest.mark.parametrize("jump", [-YEAR, 0.0, HOUR])
def test_who_stands_still_dies_all_the_same(new_app, tmp_path, jump):
    """Silence is measured where it is heard: after the lease another worker takes over."""
    path = tmp_path / "shared.db"
    calls = []

    async def main():
        clocks = JumpingClock(), JumpingClock()
        gate = trio.Event()

        def opened(name, clock):
            app = _world(new_app, path, gate, calls, name)
            return app.open(**(virtual_settings(clock) | {"lease": 30.0}))

        with trio.fail_after(HOUR):
            async with opened("one", clocks[0]) as one:
                await one.start("f")
                await trio.sleep(10)
                async with opened("two", clocks[1]):
                    # Its heartbeats end here.
                    one._keeping.cancel()
                    clocks[1].offset += jump
                    await trio.sleep(29)
                    assert calls == [("one", 1)]
                    await trio.sleep(5)
                    assert calls == [("one", 1), ("two", 2)]
                    gate.set()

    run_virtually(main)


def _record(id, seen):
    return WorkerRecord(id, 1, "b", 1, seen, True, 0)


def test_silence_is_counted_from_the_first_look():
    """A sign of life begins anew; an old one means nothing to a listener that just came."""
    silence = Silence(30)
    for moment in range(100, 131):
        assert silence.look([_record(1, 5.0), _record(2, float(moment))], moment) == {}
    assert silence.look([_record(1, 5.0), _record(2, 131.0)], 131) == {1: 5.0}
    assert silence.look([_record(1, 4.0), _record(2, 131.0)], 132) == {}
    assert silence.look([], 500) == {}


def test_a_listener_that_slept_accuses_nobody():
    """If it stood still itself, as on a frozen machine, it listens before it judges."""
    silence = Silence(30)
    silence.look([_record(1, 5.0)], 0)
    assert silence.look([_record(1, 5.0)], 1000) == {}
    assert silence.look([_record(1, 5.0)], 1001) == {}
    assert silence.look([_record(1, 5.0)], 2000) == {}
    assert silence.look([_record(1, 5.0)], 2010) == {1: 5.0}
