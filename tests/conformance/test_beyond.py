"""Openings that none of the systems to cover takes: what of them holds here.

The letters are those of the last table in docs/reference/conformance.md, which names the tests
of the other letters, too.
"""

from __future__ import annotations

import pytest

import triggerflow as tf


def test_d_attempts_are_a_steps_own_and_a_flow_may_have_a_budget(system):
    """Each call counts its own attempts; a race with a sleep bounds what all take together."""
    tries: list[tuple[str, int]] = []

    def flaky(name):
        tries.append((name, tf.step_context().attempt))
        if sum(each == name for each, _ in tries) < 3 or name == "never":
            raise OSError
        return name

    def work():
        policy = tf.RetryPolicy(max_attempts=100, initial=10, factor=1, jitter=0)
        for name in ("a", "b", "never"):
            yield tf.call(flaky, name).using(retry=policy)

    def f(_):
        won = yield tf.race(work(), budget=tf.sleep(100))
        return won.name

    async def scenario(engine):
        return (await engine.wait(await engine.start("f"))).result

    assert system.live(system.app(f), scenario) == "budget"
    expected = [(name, attempt) for name in "ab" for attempt in (1, 2, 3)]
    assert tries[:7] == [*expected, ("never", 1)]
    assert len(tries) < 15


def test_e_one_mailbox_does_all_four(system):
    """Early arrival, the first of several names, FIFO, and a repeat told from a conflict."""

    def f(_):
        got = []
        for _ in range(3):
            each = yield tf.wait_signal(["a", "b"])
            got.append([each.name, each.payload])
        return got

    async def send(engine):
        id = await engine.start("f")
        for name, payload, key in (("b", 1, "k1"), ("a", 2, "k2"), ("a", 3, "k3")):
            assert await engine.signal(id, name, payload, dedup=key)
        assert not await engine.signal(id, "b", 1, dedup="k1")
        with pytest.raises(tf.SignalConflict):
            await engine.signal(id, "b", "other", dedup="k1")
        return id

    id = system.live(system.app(f), send, work=False)

    async def work(engine):
        return (await engine.wait(id)).result

    assert system.live(system.app(f), work) == [["b", 1], ["a", 2], ["a", 3]]


def test_g_some_of_several_children_by_a_deadline(system):
    """The first two of four end the join; where they don't come in time, the deadline does."""

    def kid(n):
        yield tf.sleep(n)
        return n

    def parent(lengths):
        refs = []
        for each in lengths:
            refs.append((yield tf.spawn("kid", each)))
        joined = tf.gather(*map(tf.join, refs), count=2)
        won = yield tf.race(quorum=joined, deadline=tf.sleep(50))
        return [won.name, won.value and [each.value for each in won.value]]

    async def scenario(engine):
        ids = [await engine.start("parent", each) for each in ([30, 10, 99, 20], [10, 80, 90])]
        return [(await engine.wait(id)).result for id in ids]

    expected = [["quorum", [10, 20]], ["deadline", None]]
    assert system.live(system.app(kid, parent), scenario) == expected


def test_h_a_step_costs_no_replay_of_those_before(system):
    """A flow that parks two hundred times runs its code once: linear work, not squared."""
    passed = []

    def f(_):
        for n in range(200):
            yield tf.wait_signal("go")
            passed.append(n)

    async def scenario(engine):
        id = await engine.start("f")
        for _ in range(200):
            await engine.run_until_idle()
            await engine.signal(id, "go")
        return (await engine.wait(id)).status

    assert system.live(system.app(f), scenario) == "done"
    assert passed == list(range(200))
