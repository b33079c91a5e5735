"""GenDurable 0.2.15: failures, leases, children, drain, callers, retention (15-23, 28-34).

Each test has the number of its line in docs/reference/conformance.md, and runs on memory and
on SQLite. What needs queues, keys with limits or rates (24-27) comes with those. Where
triggerflow decides otherwise, the docstring says why that is better.
"""

# ruff: noqa: ASYNC110 - what is polled tells nobody

from __future__ import annotations

from typing import Any

import pytest
import trio

import triggerflow as tf
from triggerflow.core import driver
from triggerflow.store.operations import Turn
from triggerflow.testing.crash import crash_everywhere
from triggerflow.testing.time import run_virtually, virtual_settings

DAY = 86_400.0


async def result_of(engine: Any, flow: Any, input: Any = None) -> Any:
    """What an instance of a flow returns."""
    return (await engine.wait(await engine.start(flow, input))).result


class Gated:
    """A step whose runs each wait for a gate of their own."""

    def __init__(self) -> None:
        self.gates: list[trio.Event] = []

    async def step(self) -> int:
        mine = len(self.gates)
        self.gates.append(trio.Event())
        await self.gates[mine].wait()
        return mine

    async def begun(self, runs: int) -> None:
        while len(self.gates) < runs:
            await trio.sleep(1)


# --- failures


def test_15_a_failing_step_is_tried_again_and_then_given_up_by_the_flow(system):
    """Two retries, then the flow catches what is left and ends well; attempts are counted."""
    attempts = []

    def step():
        attempts.append(tf.step_context().attempt)
        raise ValueError("no")

    def f(_):
        try:
            yield tf.call(step).using(retry=tf.RetryPolicy(max_attempts=3))
        except tf.StepFailed as failed:
            return ["gave up", failed.failure.type]

    async def scenario(engine):
        return await result_of(engine, "f")

    assert system.live(system.app(f), scenario) == ["gave up", "ValueError"]
    assert attempts == [1, 2, 3]


@pytest.mark.parametrize("raised", [KeyError, GeneratorExit], ids=lambda each: each.__name__)
def test_16_whatever_a_step_raises_reaches_the_flow_at_once(system, raised):
    """Also what is no `Exception`: no lease has to run out, no time passes."""

    async def step():
        raise raised("odd")

    def f(_):
        try:
            yield tf.call(step)
        except tf.StepFailed as failed:
            return failed.failure.type

    async def scenario(engine):
        began = trio.current_time()
        found = await result_of(engine, "f")
        return found, trio.current_time() - began

    found, took = system.live(system.app(f), scenario)
    assert found == raised.__name__
    assert took < 5


@pytest.mark.parametrize("where", ["step", "flow"])
def test_17_what_cant_be_kept_is_a_failure_and_no_crash_loop(system, where):
    """A step's result goes to the flow as its failure; a flow's own fails it. Each ran once."""
    ran = []

    def step(bad):
        ran.append("step")
        return object() if bad else 1

    def f(_):
        try:
            yield tf.call(step, where == "step").using(retry=tf.RetryPolicy(max_attempts=9))
        except tf.StepFailed as failed:
            return ["caught", failed.failure.type]
        return object()

    async def scenario(engine):
        ended = await engine.wait(await engine.start("f"))
        return ended.status, ended.result, ended.failure and ended.failure.type

    expected = {
        "step": ("done", ["caught", "EncodingRefused"], None),
        "flow": ("failed", None, "EncodingRefused"),
    }
    assert system.live(system.app(f), scenario) == expected[where]
    assert ran == ["step"]


# --- leases


def test_18_a_dead_workers_step_is_taken_over_with_a_higher_attempt(system):
    """The next worker runs it again and the step knows that it is not the first."""
    attempts = []

    async def step():
        attempts.append(tf.step_context().attempt)
        if len(attempts) == 1:
            await trio.sleep_forever()
        return "done"

    def f(_):
        return (yield tf.call(step))

    async def die(engine):
        id = await engine.start("f")
        while not attempts:
            await trio.sleep(1)
        return id

    id = system.killed(system.app(f), die)

    async def go_on(engine):
        return (await engine.wait(id)).result

    assert system.live(system.app(f), go_on) == "done"
    assert attempts == [1, 2]


@pytest.mark.parametrize("system", ["sqlite"], indirect=True)
def test_18_a_long_step_stays_its_workers_own(system):
    """A step of many leases is run once, though another worker watches all the time.

    On SQLite alone: a memory store belongs to one process. What has not begun for want of a
    thread is kept alive as well: a lease is a worker's, not an instance's.
    """
    attempts = []

    async def long():
        attempts.append(tf.step_context().attempt)
        await trio.sleep(200)
        return "done"

    def f(_):
        return (yield tf.call(long))

    other = system.app(f)

    async def scenario(engine):
        id = await engine.start("f")
        async with other.open(inline=True, lease=30, clock=engine._clock):
            return (await engine.wait(id)).result

    assert system.live(system.app(f), scenario, lease=30) == "done"
    assert attempts == [1]


@pytest.mark.parametrize("outcome", ["done", "failed", "next", "parks", "continues", "retries"])
def test_19_no_outcome_of_a_stale_worker_counts(system, take_away, outcome):
    """Whatever would have followed from the late result: not a row of the instance changes."""
    gated = Gated()

    async def step():
        mine = await gated.step()
        if outcome == "retries":
            raise OSError
        return mine

    def f(state):
        if state is not None:
            return state
        policy = tf.RetryPolicy(max_attempts=5)
        yield tf.call(step).using(retry=policy if outcome == "retries" else None)
        if outcome == "failed":
            raise ValueError
        if outcome == "next":
            yield tf.sleep(100)
        if outcome == "parks":
            yield tf.wait_signal("go")
        if outcome == "continues":
            yield tf.continue_as_new("new")

    async def scenario(engine):
        id = await engine.start("f")
        await gated.begun(1)
        # Its next commit tells it: from the theft on nothing of it may land.
        assert take_away(engine) == 1
        before = engine._store.instance(id)
        gated.gates[0].set()
        await gated.begun(2)
        after = engine._store.instance(id)
        assert await engine.log(id) == []
        kept = [
            (each.status, each.generation, each.log_length, each.crashes, each.pending)
            for each in (before, after)
        ]
        assert kept[0] == kept[1]
        assert kept[0][:4] == ("running", 1, 0, 1)
        await engine.terminate(id)

    system.live(system.app(f), scenario)


def test_20_a_stale_fan_out_spawns_nothing_and_takes_nothing(system, take_away):
    """Children, consumed signals and the end that would have followed are refused with it."""
    gated = Gated()

    def kid(n):
        return n
        yield

    def f(_):
        run = yield tf.call(gated.step)
        got = yield tf.wait_signal("go")
        refs = []
        for n in range(3):
            refs.append((yield tf.spawn("kid", n)))
        return [run, got, (yield tf.gather(*map(tf.join, refs)))]

    async def scenario(engine):
        id = await engine.start("f")
        await engine.signal(id, "go", "kept")
        await gated.begun(1)
        take_away(engine)
        gated.gates[0].set()
        await gated.begun(2)
        assert len([each async for each in engine.instances()]) == 1
        assert engine._store.counts().inbox == 1
        gated.gates[1].set()
        result = (await engine.wait(id)).result
        return result, len([each async for each in engine.instances()])

    app = system.app(kid, f)
    assert system.live(app, scenario) == ([1, "kept", [0, 1, 2]], 4)


def test_20_a_stale_end_of_a_child_does_not_release_its_parent(system, take_away):
    """The parent hears only of the end that was committed."""
    gated = Gated()

    def kid(_):
        return (yield tf.call(gated.step))

    def parent(_):
        return (yield tf.child("kid"))

    async def scenario(engine):
        id = await engine.start("parent")
        await gated.begun(1)
        take_away(engine)
        gated.gates[0].set()
        await gated.begun(2)
        assert (await engine.get(id)).waiting == ("child:kid#0",)
        assert await engine.log(id) == []
        gated.gates[1].set()
        return (await engine.wait(id)).result

    assert system.live(system.app(kid, parent), scenario) == 1


# --- children


def test_21_a_fan_out_joins_also_with_a_failure_and_with_nobody(system):
    """Four join though one fails; none at all goes on at once."""

    def kid(n):
        yield tf.sleep(n)
        if n == 2:
            raise ValueError
        return n

    def parent(count):
        refs = []
        for n in range(count):
            refs.append((yield tf.spawn("kid", n)))
        found = yield tf.gather(*map(tf.join, refs), return_failures=True)
        return [each if isinstance(each, int) else "failed" for each in found]

    async def scenario(engine):
        four = await result_of(engine, "parent", 4)
        began = trio.current_time()
        return four, await result_of(engine, "parent", 0), trio.current_time() - began

    four, none, took = system.live(system.app(kid, parent), scenario)
    assert (four, none) == ([0, 1, "failed", 3], [])
    assert took < 1


def test_22_children_that_end_together_wake_their_parent_once(system, noting):
    """Ten ends in one commit are counted each once, and cost the parent one turn, not ten."""
    together = trio.Event()

    async def step(n):
        await together.wait()
        return n

    def kid(n):
        return (yield tf.call(step, n))

    def parent(_):
        refs = []
        for n in range(10):
            refs.append((yield tf.spawn("kid", n)))
        return (yield tf.gather(*map(tf.join, refs)))

    store = noting(system.store())

    def turns_of(number):
        return sum(
            type(each) is Turn and each.number == number
            for batch in store.commits
            for each in batch
        )

    async def scenario(engine):
        id = await engine.start("parent")
        await trio.sleep(5)
        number = engine._store.instance(id).number
        before = turns_of(number)
        together.set()
        result = (await engine.wait(id)).result
        return result, turns_of(number) - before

    result, turns = system.live(system.app(kid, parent, store=store), scenario)
    assert result == list(range(10))
    assert turns <= 2


def test_23_no_crash_leaves_an_orphan(system):
    """Killed at every commit of a fan-out: each child is there once, with its parent."""

    def kid(n):
        yield tf.sleep(1)
        return n

    def parent(_):
        refs = []
        for n in range(3):
            refs.append((yield tf.spawn("kid", n)))
        return (yield tf.gather(*map(tf.join, refs)))

    async def scenario(engine):
        found = [each.id async for each in engine.instances(flow="parent")]
        id = found[0] if found else await engine.start("parent")
        done = await engine.wait(id)
        kids = [each.input async for each in engine.instances(parent=id)]
        return done.result, sorted(kids), len([each async for each in engine.instances()])

    report = crash_everywhere(
        lambda store: system.app(kid, parent, store=store), scenario, system.new_store
    )
    assert report.end == ([0, 1, 2], [0, 1, 2], 4)


# --- drain


def test_28_a_graceful_stop_finishes_what_runs_and_leaves_the_rest_runnable(system):
    """One step in flight ends and is recorded; three that wait are left to the next worker."""
    attempts = []

    async def step(n):
        attempts.append((n, tf.step_context().attempt))
        await trio.sleep(5)
        return n

    def f(n):
        return (yield tf.call(step, n))

    async def stop(engine):
        ids = [await engine.start("f", n) for n in range(4)]
        await trio.sleep(1)
        return ids, await engine.drain(timeout=60)

    ids, drained = system.live(system.app(f), stop, capacity=1, patience=0)
    assert (drained.finished, drained.abandoned) == (1, 0)
    with system.reading() as store:
        records = {each.id: each for each in store.instances()}
    assert [records[id].status for id in ids] == ["done", "running", "running", "running"]
    assert {each.owner for each in records.values()} == {None}

    async def work(engine):
        return [(await engine.wait(id)).result for id in ids]

    assert system.live(system.app(f), work) == [0, 1, 2, 3]
    assert sorted(attempts) == [(n, 1) for n in range(4)]


# --- jobs and callers


def test_29_a_job_is_tried_again_exhausted_or_given_up(system):
    """Ends well at the second attempt; fails after the last; fails at once where it says so.

    Job classes come later; the policy of a call does the same already.
    """
    ran: list[str] = []

    def step(kind):
        ran.append(kind)
        if kind == "cancels":
            raise PermissionError("never")
        if kind == "exhausts" or ran.count(kind) < 2:
            raise OSError("not yet")
        return "ok"

    def job(kind):
        policy = tf.RetryPolicy(max_attempts=3, give_up_on=PermissionError)
        return (yield tf.call(step, kind).using(retry=policy))

    async def scenario(engine):
        found = {}
        for kind in ("retries", "exhausts", "cancels"):
            ended = await engine.wait(await engine.start("job", kind))
            found[kind] = (ended.status, ran.count(kind))
        return found

    assert system.live(system.app(job), scenario) == {
        "retries": ("done", 2),
        "exhausts": ("failed", 3),
        "cancels": ("failed", 1),
    }


def test_30_a_callers_wait_can_be_repeated_and_is_told_when_nobody_will_answer(system):
    """Not over yet, and later done; unknown at once; an engine that closes says so.

    GenDurable answers `busy` when the engine stops. Better: "not yet" and "this engine won't
    tell" are two things, and the second is `EngineClosed`.
    """
    told = []

    def f(_):
        yield tf.sleep(100)
        return "done"

    async def scenario(engine):
        began = trio.current_time()
        with pytest.raises(tf.UnknownInstance):
            await engine.wait("z" * 20, timeout=1000)
        assert trio.current_time() == began
        id = await engine.start("f")
        with pytest.raises(tf.WaitTimedOut, match="waiting"):
            await engine.wait(id, timeout=10)
        assert (await engine.wait(id, timeout=1000)).result == "done"
        return await engine.start("f")

    async def waits(engine, id):
        try:
            await engine.wait(id)
        except tf.EngineClosed:
            told.append("closed")

    async def main():
        app = system.app(f)
        async with trio.open_nursery() as nursery, app.open(**virtual_settings()) as engine:
            id = await scenario(engine)
            nursery.start_soon(waits, engine, id)
            await trio.sleep(1)

    run_virtually(main)
    assert told == ["closed"]


@pytest.mark.parametrize("system", ["sqlite"], indirect=True)
def test_30_an_end_in_another_process_is_heard(system):
    """Who waits in a process that works for nobody learns what another one's worker did.

    On SQLite alone: a memory store belongs to one process. There is no watcher to be killed:
    an engine looks at the file itself.
    """

    def f(_):
        return (yield tf.wait_signal("go"))

    with system.app(f).client(work=False) as caller:
        id = caller.start("f")
        with system.app(f).client() as worker:
            worker.signal(id, "go", "heard")
            assert caller.wait(id, timeout=30).result == "heard"


def test_31_a_full_backlog_slows_and_loses_nothing(system):
    """Fifty appends at once through a backlog of two: each one that returned outlives a kill.

    GenDurable's asynchronous insert may lose rows. Here `append` returns when it is durable:
    group commit makes that cheap enough that no lossy way is needed.
    """
    app = system.app(backlog_flow)
    app.trigger("t", on="Note", start="backlog_flow")
    returned = []

    async def scenario(engine):
        async def append(n):
            found = await engine.append({"type": "Note", "actor": "ann", "n": n})
            returned.append(found.firings[0].instance_id)

        async with trio.open_nursery() as nursery:
            for n in range(50):
                nursery.start_soon(append, n)

    system.killed(app, scenario, backlog=2)

    async def later(engine):
        return sorted([(await engine.wait(id)).result for id in returned])

    assert system.live(system.app(backlog_flow), later) == list(range(50))


def backlog_flow(activity: Any) -> Any:
    return activity["n"]
    yield


# --- retention


def test_32_what_is_removed(system):
    """Past its time only, in pages of bounded size; never a child whose parent still joins."""
    pages = []

    def kid(_):
        return "kept"
        yield

    def parent(_):
        ref = yield tf.spawn("kid")
        yield tf.wait_signal("go")
        return (yield tf.join(ref))

    store = system.store()
    prune = store.prune

    def noted(*args, **named):
        found = prune(*args, **named)
        if found.removed:
            pages.append(found.removed)
        return found

    store.prune = noted
    app = system.app(kid, parent, store=store, retention=tf.days(1))

    async def scenario(engine):
        id = await engine.start("parent")
        for _ in range(450):
            await engine.start("kid")
        await trio.sleep(0.8 * DAY)
        assert engine._store.counts().instances == {"waiting": 1, "done": 451}
        await trio.sleep(1 * DAY)
        assert engine._store.counts().instances == {"waiting": 1, "done": 1}
        await engine.signal(id, "go")
        result = (await engine.wait(id)).result
        await trio.sleep(2 * DAY)
        return result, engine._store.counts().instances

    assert system.live(app, scenario, hung=10 * DAY) == ("kept", {})
    assert max(pages) <= 200
    assert sum(pages) == 452


# --- one commit for many, and virtual time


def test_33_outcomes_of_all_kinds_share_a_commit(system, noting):
    """Sixty results at once, in five ways: one transaction carries the turns of all."""
    together = trio.Event()

    async def step(kind):
        await together.wait()
        if kind == "retries" and tf.step_context().attempt == 1:
            raise OSError
        return kind

    def f(kind):
        yield tf.call(step, kind).using(retry=tf.RetryPolicy(max_attempts=2))
        if kind == "fails":
            raise ValueError
        if kind == "next":
            yield tf.call(step, kind)
        if kind == "parks":
            yield tf.wait_signal("go", timeout=10, default=None)
        return kind

    kinds = ("done", "fails", "next", "parks", "retries") * 12
    store = noting(system.store())

    async def scenario(engine):
        ids = [await engine.start("f", kind) for kind in kinds]
        await trio.sleep(5)
        store.commits.clear()
        together.set()
        ended = [await engine.wait(id) for id in ids]
        return [each.status for each in ended]

    found = system.live(system.app(f, store=store), scenario)
    assert found == ["failed" if kind == "fails" else "done" for kind in kinds]
    carried = [sum(type(each) is Turn for each in batch) for batch in store.commits]
    assert max(carried) == len(kinds)


def test_34_virtual_time_runs_back_offs_and_one_deadline(system):
    """A day of back-off takes no time to test; going past one deadline fires that one only."""
    tries = []

    def step():
        tries.append(trio.current_time())
        if len(tries) < 4:
            raise OSError
        return len(tries)

    def retried(_):
        policy = tf.RetryPolicy(max_attempts=4, initial=DAY / 4, cap=DAY, jitter=0)
        return (yield tf.call(step).using(retry=policy))

    def waits(timeout):
        return (yield tf.wait_signal("go", timeout=timeout, default="fired"))

    async def scenario(engine):
        assert await result_of(engine, "retried") == 4
        ids = [await engine.start("waits", timeout) for timeout in (10, 100)]
        await engine.run_until_idle()
        await trio.sleep(50)
        return [(await engine.get(id)).status for id in ids]

    found = system.live(system.app(retried, waits), scenario, hung=10 * DAY)
    assert found == ["done", "waiting"]
    assert tries[-1] - tries[0] >= 1.75 * DAY


def test_34_a_flow_that_runs_away_is_stopped_by_name(system, monkeypatch):
    """A loop without an end fails its own flow; its neighbour goes on."""
    monkeypatch.setattr(driver, "_MOST_EFFECTS", 1000)

    def runs_away(_):
        while True:
            yield tf.now()

    def quiet(n):
        return (yield tf.call(abs, n))

    async def scenario(engine):
        ids = [await engine.start("runs_away"), await engine.start("quiet", -1)]
        ended = [await engine.wait(id) for id in ids]
        return ended[0].status, ended[0].failure.type, ended[1].result

    found = system.live(system.app(runs_away, quiet), scenario)
    assert found == ("failed", "FlowRanAway", 1)
