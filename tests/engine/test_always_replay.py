"""`always_replay`: what isn't deterministic shows at once, in any test."""

from __future__ import annotations

import itertools

import triggerflow as tf


def test_deterministic_flows_notice_nothing(new_app, live):
    """Every kind of effect comes to the same end when each turn begins with a re-drive."""
    app = new_app()

    async def twice(n):
        return 2 * n

    def branch(n):
        found = yield tf.call(twice, n)
        yield tf.sleep(n)
        return found

    @app.flow
    def flow(_):
        name = yield tf.uuid4()
        all_of = yield tf.gather(branch(1), branch(2), tf.call(twice, 3))
        won = yield tf.race(tf.wait_signal("never"), late=tf.sleep(10))
        seen = yield tf.side_effect(lambda: 7)
        policy = tf.RetryPolicy(max_attempts=2, initial=1)
        yield tf.call(fails_once).using(retry=policy)
        return [str(name), all_of, won.name, seen]

    calls = itertools.count()

    def fails_once():
        if next(calls) == 0:
            raise ValueError("once")

    async def scenario(engine):
        id = await engine.start(flow, key="k")
        return (await engine.wait(id)).result[1:], await engine.log(id)

    result, log = live(app, scenario, always_replay=True)
    assert result == [[2, 4, 6], "late", 7]
    assert len({entry.tag for entry in log}) == len(log)


def test_what_is_not_deterministic_blocks_at_once(new_app, live):
    """A flow that asks for something else each time it is driven is blocked, with words."""
    app = new_app()
    drives = itertools.count()

    async def step(n):
        return n

    @app.flow
    def moody(_):
        drive = next(drives)
        yield tf.call(step, drive)
        yield tf.sleep(1)
        return drive

    async def scenario(engine):
        id = await engine.start(moody)
        await engine.run_until_idle()
        return await engine.get(id)

    found = live(app, scenario, always_replay=True)
    assert (found.status, found.cause) == ("blocked", "diverged")
    assert "call:step#0" in found.reason
