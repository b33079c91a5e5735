"""A year of timers on a virtual clock: all fire, none early, in their order."""

from __future__ import annotations

import random

import pytest
import trio

import triggerflow as tf
from triggerflow.core.tags import kind_of
from triggerflow.engine.clock import LoopClock
from triggerflow.store.sqlite import MemoryStore
from triggerflow.testing.time import run_virtually, virtual_settings

DAY = tf.days(1).total_seconds()
YEAR = 365 * DAY
FLOWS = 670


def make_app(store):
    app = tf.App(store, build="one", entry_points=False)

    def flaky():
        if tf.step_context().attempt == 1:
            raise OSError
        return "in the end"

    @app.flow
    def patient(waits):
        sleep, timeout, back_off = waits
        yield tf.sleep(sleep)
        late = yield tf.wait_signal("never", timeout=timeout, default="late")
        once = tf.RetryPolicy(max_attempts=2, initial=back_off, cap=back_off, jitter=0)
        return [late, (yield tf.call(flaky).using(retry=once))]

    return app


def fired(store, created):
    """(when it was due, when it fired) of every timer, in the order of the commits."""
    ask = (
        "SELECT l.instance, l.tag, l.at, g.input FROM log l JOIN generation g"
        " ON g.instance = l.instance ORDER BY l.id"
    )
    codec = tf.App(MemoryStore(), entry_points=False).codec
    before = dict.fromkeys(range(1, FLOWS + 1), created)
    places = {"sleep": 0, "wait_signal": 1, "call": 2}
    found = []
    for instance, tag, at, input in store._read(lambda db: db.execute(ask).fetchall()):
        due = before[instance] + codec.decode(input)[places[kind_of(tag)]]
        found.append((due, at))
        before[instance] = at
    return found


@pytest.mark.parametrize("keep_warm", [1000, 0])
def test_year_of_timers(keep_warm):
    """Thousands of sleeps, timeouts and retries: each at its time, none before another's."""
    chance = random.Random(20_260_401)
    store, clock = MemoryStore(), LoopClock()

    async def main():
        async with make_app(store).open(
            **virtual_settings(clock), keep_warm=keep_warm
        ) as engine:
            created = clock.now()
            async with trio.open_nursery() as callers:
                for number in range(FLOWS):
                    # Most at the same hour of some day, as people set them, some at any time.
                    days = [chance.uniform(0, 121) for _ in range(3)]
                    waits = [each if number % 10 == 0 else int(each) for each in days]
                    callers.start_soon(engine.start, "patient", [each * DAY for each in waits])
            await trio.sleep(YEAR)
            ends = {(each.status, str(each.result)) async for each in engine.instances()}
            return created, ends, fired(store, created)

    created, ends, timers = run_virtually(main)
    assert ends == {("done", "['late', 'in the end']")}
    assert len(timers) == 3 * FLOWS
    # Floats near 1.7e9 are a quarter of a microsecond apart.
    assert all(-1e-5 < at - due < 1e-3 for due, at in timers)
    assert [due for due, _ in timers] == sorted(due for due, _ in timers)
    assert timers[-1][1] - created > 0.8 * YEAR


def test_timers_that_were_due_while_nobody_worked():
    """A worker that comes back after months fires all that was due, and nothing else."""
    store, clock = MemoryStore(), LoopClock()

    async def main():
        settings = virtual_settings(clock)
        async with make_app(store).open(**settings) as engine, trio.open_nursery() as callers:
            for number in range(FLOWS):
                callers.start_soon(engine.start, "patient", [number % 300 * DAY, YEAR, 1])
        await trio.sleep(100.5 * DAY)
        async with make_app(store).open(**virtual_settings(clock)) as engine:
            await engine.run_until_idle()
            return [(each.input[0], each.waiting) async for each in engine.instances()]

    found = run_virtually(main)
    assert len(found) == FLOWS
    for sleep, waiting in found:
        due = sleep <= 100.5 * DAY
        assert waiting == (("wait_signal:never#0",) if due else ("sleep#0",))
