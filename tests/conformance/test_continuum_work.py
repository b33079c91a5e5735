"""Continuum 0.7.2: children, leases, steps, drain, clusters, retention (lines 21, 26-33, 37).

Each test has the number of its line in docs/reference/conformance.md, and runs on memory and
on SQLite. Where triggerflow decides otherwise, the docstring says why that is better.
"""

# ruff: noqa: ASYNC110 - what is polled tells nobody

from __future__ import annotations

import itertools
from typing import Any

import pytest
import trio

import triggerflow as tf
from triggerflow.core.children import MOST_DEPTH
from triggerflow.store.records import CRASH_LIMIT

DAY = 86_400.0


def double(n: int) -> int:
    return 2 * n


async def result_of(engine: Any, flow: Any, input: Any = None) -> Any:
    """What an instance of a flow returns."""
    return (await engine.wait(await engine.start(flow, input))).result


# --- children


def test_21_fan_out_comes_back_in_order_with_failures_as_values(system):
    """Five children end in another order and one fails: five results, in order of asking."""

    def kid(n):
        yield tf.sleep(10 - n)
        if n == 3:
            raise ValueError(n)
        return n

    def parent(_):
        refs = []
        for n in range(5):
            refs.append((yield tf.spawn("kid", n)))
        found = yield tf.gather(*map(tf.join, refs), return_failures=True)
        return [each.failure.type if isinstance(each, Exception) else each for each in found]

    async def scenario(engine):
        return await result_of(engine, "parent")

    app = system.app(kid, parent)
    assert system.live(app, scenario) == [0, 1, 2, "ValueError", 4]


def test_21_nesting_has_a_loud_limit(system):
    """A flow that starts itself fails at a named depth, and nothing below it is there."""

    def deeper(n):
        try:
            return (yield tf.child("deeper", n + 1))
        except tf.ChildFailed as failed:
            return [n, failed.failure.type]

    async def scenario(engine):
        found = await result_of(engine, "deeper", 0)
        return found, len([each async for each in engine.instances()])

    found = system.live(system.app(deeper), scenario)
    assert found == ([MOST_DEPTH, "TooDeep"], MOST_DEPTH + 1)


def test_21_a_cancel_reaches_the_deepest_child(system):
    """Nothing is cut off: as deep as children can be nested, a cancel gets there.

    Continuum stops its cascade at a bound and says so. Better: there is no bound to hit.
    """

    def deeper(n):
        if n == 0:
            return (yield tf.wait_signal("never"))
        return (yield tf.child("deeper", n - 1))

    async def scenario(engine):
        root = await engine.start("deeper", 20)
        await engine.run_until_idle()
        await engine.cancel(root)
        await engine.run_until_idle()
        return [each.status async for each in engine.instances()]

    assert system.live(system.app(deeper), scenario) == ["cancelled"] * 21


# --- leases


def test_26_result_of_a_lost_lease_changes_nothing(system, take_away):
    """A worker that was taken for dead brings a late result: refused; the next run counts."""
    begun: list[trio.Event] = []

    async def step():
        mine = len(begun)
        begun.append(trio.Event())
        await begun[mine].wait()
        return ["stale", "fresh"][mine]

    def f(_):
        first = yield tf.call(step)
        yield tf.wait_signal("go")
        return first

    async def scenario(engine):
        id = await engine.start("f")
        while len(begun) < 1:
            await trio.sleep(1)
        assert take_away(engine) == 1
        begun[0].set()
        while len(begun) < 2:
            await trio.sleep(1)
        assert (await engine.log(id)) == []
        begun[1].set()
        await engine.signal(id, "go")
        done = await engine.wait(id)
        return done.result, [each.tag for each in await engine.log(id)]

    expected = ("fresh", ["call:step#0", "wait_signal:go#0"])
    assert system.live(system.app(f), scenario) == expected


def test_26_a_completed_call_is_not_flipped_by_its_late_failure(system):
    """What came first stays: a failure that comes after a result from outside is dropped."""
    fails = trio.Event()

    async def step():
        with trio.CancelScope(shield=True):
            await fails.wait()
        raise OSError("too late")

    def f(_):
        got = yield tf.call(step)
        yield tf.sleep(10)
        return got

    async def scenario(engine):
        id = await engine.start("f")
        await trio.sleep(1)
        await engine.complete(id, "call:step#0", "from outside")
        await trio.sleep(1)
        fails.set()
        done = await engine.wait(id)
        with pytest.raises(tf.InstanceConflict):
            await engine.complete(id, "call:step#0", "again")
        return done.status, done.result

    assert system.live(system.app(f), scenario) == ("done", "from outside")


def test_27_deaths_count_and_the_last_one_blocks_without_another_run(system):
    """Each death is an attempt more; after five the step is not run again, until `unblock`.

    Continuum counts deaths among the attempts of a step, and fails it. Better: a policy counts
    what the step did wrong, the crash limit what it did to its worker; nothing is destroyed,
    and a mended step goes on.
    """
    attempts = []

    async def deadly():
        attempts.append(tf.step_context().attempt)
        if len(attempts) <= CRASH_LIMIT:
            await trio.sleep_forever()
        return "mended"

    def f(_):
        return (yield tf.call(deadly).using(retry=tf.RetryPolicy(max_attempts=2)))

    async def die(engine):
        found = [each async for each in engine.instances()]
        id = found[0].id if found else await engine.start("f")
        while len(attempts) < death:
            await trio.sleep(1)
        return id

    for death in range(1, CRASH_LIMIT + 1):
        id = system.killed(system.app(f), die)
    assert attempts == [1, 2, 3, 4, 5]

    async def look(engine):
        await engine.run_until_idle()
        found = await engine.get(id)
        assert (found.status, found.cause, found.log_length) == ("blocked", "crash_limit", 0)
        assert len(attempts) == CRASH_LIMIT
        await engine.unblock(id)
        return (await engine.wait(id)).result

    assert system.live(system.app(f), look) == "mended"


def test_27_stale_attempt_of_the_same_worker_is_refused(system):
    """An attempt that overran can't answer for the one that followed it."""
    ends = [trio.Event(), trio.Event()]
    begun = []

    async def step():
        mine = len(begun)
        begun.append(mine)
        if mine == 0:
            with trio.CancelScope(shield=True):
                await ends[0].wait()
        await ends[1].wait()
        return f"attempt {mine}"

    def f(_):
        policy = tf.RetryPolicy(max_attempts=2, initial=1, jitter=0)
        return (yield tf.call(step).using(retry=policy, timeout=10))

    async def scenario(engine):
        id = await engine.start("f")
        await trio.sleep(12)
        ends[0].set()
        await trio.sleep(3)
        ends[1].set()
        done = await engine.wait(id)
        return done.result, len(await engine.log(id))

    assert system.live(system.app(f), scenario) == ("attempt 1", 1)


# --- steps


def test_28_recorded_result_skips_the_step_and_a_race_has_one_winner(system):
    """Under one key a step's first result serves all; of two at once both get the winner's."""
    ran = []

    async def charge(n):
        ran.append(n)
        await trio.sleep(n)
        return f"receipt {n}"

    def pay(n):
        return (yield tf.call(charge, n).using(idempotency_key="order-1"))

    async def scenario(engine):
        ids = [await engine.start("pay", n) for n in (2, 1)]
        both = [(await engine.wait(id)).result for id in ids]
        assert sorted(ran) == [1, 2]
        later = await result_of(engine, "pay", 3)
        return both, later, [each.value for each in await engine.log(ids[0])]

    found = system.live(system.app(pay), scenario)
    assert found == (["receipt 1", "receipt 1"], "receipt 1", ["receipt 1"])
    assert sorted(ran) == [1, 2]


def test_29_result_that_cant_be_kept_is_final_and_told_with_its_path(system):
    """A local handle deep in a result: one run whatever the policy, and where it stands."""
    ran = []

    def step():
        ran.append(1)
        return {"rows": [1, {"handle": object()}]}

    def f(_):
        try:
            yield tf.call(step).using(retry=tf.RetryPolicy(max_attempts=5))
        except tf.StepFailed as failed:
            return failed.failure.message

    async def scenario(engine):
        return await result_of(engine, "f")

    words = system.live(system.app(f), scenario)
    assert "handle" in words
    assert "rows" in words
    assert "object" in words
    assert len(ran) == 1


def test_29_error_texts_are_capped_and_harmless(system):
    """A huge message, and one that is no text, become a failure that the log can keep."""

    def step(kind):
        raise ValueError("x" * 1_000_000 if kind == "huge" else "\ud800")

    def f(kind):
        yield tf.call(step, kind)

    async def scenario(engine):
        found = []
        for kind in ("huge", "odd"):
            failed = await engine.wait(await engine.start("f", kind))
            (entry,) = await engine.log(failed.id)
            found.append((failed.status, len(entry.failure.message)))
        return found

    (huge, odd) = system.live(system.app(f), scenario)
    assert huge[0] == odd[0] == "failed"
    assert huge[1] < 10_000


def test_30_jitter_lives_at_the_cap_and_never_above_it(system):
    """Waits at the longest back-off still differ, and none is longer than the cap."""
    at: list[float] = []

    def step():
        at.append(trio.current_time())
        raise OSError

    def f(_):
        policy = tf.RetryPolicy(max_attempts=12, initial=50, factor=10, cap=60, jitter=0.5)
        yield tf.call(step).using(retry=policy)

    async def scenario(engine):
        return (await engine.wait(await engine.start("f"))).status

    assert system.live(system.app(f), scenario) == "failed"
    waited = [later - earlier for earlier, later in itertools.pairwise(at)][1:]
    assert len(at) == 12
    # The clock's own grain comes on top: it is looked at once a second at the latest.
    assert all(29 <= each <= 61 for each in waited)
    assert len({round(each, 3) for each in waited}) > 5


def test_30_retries_have_a_horizon_and_bad_policies_are_refused(system):
    """No attempt begins later than the total time; what can't be meant is refused at once."""
    at: list[float] = []

    def step():
        at.append(trio.current_time())
        raise OSError

    def f(_):
        policy = tf.RetryPolicy(
            max_attempts=1000, initial=10, factor=1, jitter=0, total_timeout=55
        )
        yield tf.call(step).using(retry=policy)

    async def scenario(engine):
        return (await engine.wait(await engine.start("f"))).status

    assert system.live(system.app(f), scenario) == "failed"
    assert len(at) == 6
    assert at[-1] - at[0] <= 55
    for bad in ({"max_attempts": 0}, {"jitter": 2}, {"factor": 0.5}, {"initial": -1}):
        with pytest.raises(tf.DefinitionError):
            tf.RetryPolicy(**bad)


def test_31_no_more_are_taken_than_there_is_capacity(system):
    """Of twelve that are runnable a worker with three places has three; all get through."""
    running, most = set(), []

    async def step(n):
        running.add(n)
        most.append(len(running))
        await trio.sleep(5)
        running.discard(n)
        return n

    def f(n):
        return (yield tf.call(step, n))

    async def scenario(engine):
        ids = [await engine.start("f", n) for n in range(12)]
        await trio.sleep(1)
        assert engine.statistics().owned == 3
        return [(await engine.wait(id)).result for id in ids]

    assert system.live(system.app(f), scenario, capacity=3, patience=0) == list(range(12))
    assert max(most) == 3


def test_31_what_is_due_later_is_left_alone(system):
    """A timer of the future takes no place and no turn, whatever else is done meanwhile."""
    drives = []

    def later(_):
        drives.append(1)
        yield tf.sleep(1000)
        return "late"

    def quick(n):
        return (yield tf.call(double, n))

    async def park(engine):
        id = await engine.start("later")
        await engine.run_until_idle()
        return id

    id = system.live(system.app(later, quick), park)
    assert drives == [1]

    async def work(engine):
        for n in range(20):
            await result_of(engine, "quick", n)
            await trio.sleep(10)
        assert (drives, engine.statistics().owned) == ([1], 0)
        return (await engine.wait(id)).result

    assert system.live(system.app(later, quick), work) == "late"


# --- drain, and several workers


def test_32_drain(system):
    """Not ready first; steps may end; the overdue one is given up and fenced; repeats are told.

    Continuum refuses a start while it drains. Better: starts and signals are stored as ever,
    since another worker will take them; only the driving has stopped.
    """
    ended = []

    async def step(length):
        with trio.CancelScope(shield=length > 100):
            await trio.sleep(length)
        ended.append(length)
        return length

    def f(length):
        got = yield tf.call(step, length)
        yield tf.wait_signal("go")
        return got

    async def scenario(engine):
        short, long = [await engine.start("f", length) for length in (5, 200)]
        await trio.sleep(1)
        began = trio.current_time()
        found = []
        async with trio.open_nursery() as nursery:

            async def drain():
                found.append(await engine.drain(timeout=10))

            nursery.start_soon(drain)
            nursery.start_soon(drain)
            await trio.sleep(1)
            assert (engine.ready, engine.state) == (False, "draining")
        assert trio.current_time() - began == 10
        assert (engine.state, await engine.drain()) == ("drained", found[0])
        late = await engine.start("f", 1)
        await trio.sleep(300)
        assert len(await engine.log(short)) == 1
        assert len(await engine.log(long)) == 0
        assert (await engine.get(late)).log_length == 0
        return found, late

    found, late = system.live(system.app(f), scenario)
    assert found == [tf.Drained(finished=1, handed_back=1, abandoned=1)] * 2
    assert 5 in ended

    async def work(engine):
        await engine.signal(late, "go")
        return (await engine.wait(late)).result

    assert system.live(system.app(f), work) == 1


def test_33_a_dead_workers_step_runs_elsewhere(system):
    """The next worker takes over what a dead one had, and its step runs once more."""
    ran = []

    async def step(build):
        ran.append(build)
        if build == "one":
            await trio.sleep_forever()
        return build

    def made(build):
        async def here():
            return await step(build)

        def f(_):
            return (yield tf.call(here))

        return system.app(f, build=build)

    async def die(engine):
        id = await engine.start("f")
        while not ran:
            await trio.sleep(1)
        return id

    id = system.killed(made("one"), die)

    async def wait(engine):
        return (await engine.wait(id)).result

    assert system.live(made("two"), wait) == "two"
    assert ran == ["one", "two"]


@pytest.mark.parametrize("system", ["sqlite"], indirect=True)
def test_33_two_workers_share_the_work_and_one_that_stops_hands_it_over(system):
    """Two workers on one file run each step once; what one drains the other has at once.

    On SQLite alone: a memory store belongs to one process.
    """
    ran: list[tuple[str, int]] = []

    def app_of(name):
        async def step(n):
            ran.append((name, n))
            await trio.sleep(5)
            return n

        def f(n):
            first = yield tf.call(step, n)
            return first + (yield tf.call(step, n + 100))

        return system.app(f)

    second = app_of("two")

    async def scenario(one):
        ids = [await one.start("f", n) for n in range(10)]
        await trio.sleep(1)
        async with second.open(inline=True, lease=1e9, clock=one._clock) as two:
            drained = await one.drain(timeout=5)
            assert drained.finished == 10
            with trio.fail_after(60):
                return [(await two.wait(id)).result for id in ids]

    assert system.live(app_of("one"), scenario) == [2 * n + 100 for n in range(10)]
    assert sorted(n for _, n in ran) == [*range(10), *range(100, 110)]
    assert {name for name, n in ran if n >= 100} == {"two"}


# --- retention


def test_37_what_retention_keeps(system):
    """Results under a key and firings outlive their instances, so nothing happens twice.

    Continuum keeps the keys of starts as well. Here a business key is free once its holder has
    ended: it says who has the key now, and a repeat for ever is an activity's own property.
    """
    ran = []

    def charge(n):
        ran.append(n)
        return f"receipt {n}"

    def pay(activity):
        return (yield tf.call(charge, activity["n"]).using(idempotency_key="order-1"))

    app = system.app(pay, retention=tf.days(1))
    app.trigger("t", on="Pay", start="pay")

    async def scenario(engine):
        first = await engine.append({"type": "Pay", "actor": "ann", "n": 1})
        await engine.wait(first.firings[0].instance_id)
        await trio.sleep(3 * DAY)
        assert [each async for each in engine.instances()] == []
        again = await engine.append({"type": "Pay", "actor": "ann", "n": 1})
        assert (again.duplicate, again.firings) == (True, first.firings)
        return await result_of(engine, "pay", {"n": 2})

    assert system.live(app, scenario, hung=30 * DAY) == "receipt 1"
    assert ran == [1]


def test_37_a_chain_goes_whole_and_a_child_not_before_its_parent(system):
    """All generations are one instance, and go as one; an ended child stays until its end."""

    def kid(_):
        return 1
        yield

    def parent(n):
        ref = yield tf.spawn("kid")
        yield tf.join(ref)
        if n < 2:
            yield tf.continue_as_new(n + 1)
        yield tf.sleep(tf.days(5))

    app = system.app(kid, parent, retention=tf.days(1))

    async def scenario(engine):
        id = await engine.start("parent", 0)
        found = []
        for days in (4, 1.5, 3):
            await trio.sleep(days * DAY)
            found.append(sorted([each.flow async for each in engine.instances()]))
        with pytest.raises(tf.UnknownInstance):
            await engine.get(id)
        return found

    children = ["kid"] * 3
    expected = [[*children, "parent"], ["parent"], []]
    assert system.live(app, scenario, hung=30 * DAY) == expected
