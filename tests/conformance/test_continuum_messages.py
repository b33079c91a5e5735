"""Continuum 0.7.2: signals, timers, starts, chains of runs, cancels (lines 7-20).

Each test has the number of its line in docs/reference/conformance.md, and runs on memory and
on SQLite. Where triggerflow decides otherwise, the docstring says why that is better.
"""

from __future__ import annotations

import contextlib
from typing import Any

import pytest
import trio

import triggerflow as tf
from triggerflow.store.operations import Turn
from triggerflow.testing.crash import crash_everywhere

LIMIT = 600.0


def double(n: int) -> int:
    return 2 * n


def waits(_: Any) -> Any:
    return (yield tf.wait_signal("go"))


def waits_for(*names: str) -> tf.Flow:
    """A flow that waits for one signal after the other and returns them in that order."""

    def f(_):
        got = []
        for name in names:
            got.append((yield tf.wait_signal(name)))
        return got

    return tf.flow(name="f")(f)


async def idle(engine: Any, flow: Any, input: Any = None) -> str:
    """Start an instance and drive it as far as it goes."""
    id: str = await engine.start(flow, input)
    await engine.run_until_idle()
    return id


async def tags(engine: Any, id: str) -> list[str]:
    return [each.tag for each in await engine.log(id)]


# --- signals


@pytest.mark.parametrize("parked", [False, True], ids=["before", "parked"])
def test_07_signals_out_of_order_find_their_own_waits(system, parked):
    """The second first: each waits in the inbox for the wait of its name, early or parked."""

    async def scenario(engine):
        id = await idle(engine, "f") if parked else await engine.start("f")
        for name in ("b", "a"):
            await engine.signal(id, name, name.upper())
        return (await engine.wait(id)).result

    assert system.live(system.app(waits_for("a", "b")), scenario) == ["A", "B"]


def test_07_one_name_is_first_come_first_served(system):
    """Three of one name come in the order in which they were sent, one a wait."""

    async def scenario(engine):
        id = await engine.start("f")
        for n in range(3):
            await engine.signal(id, "go", n)
        return (await engine.wait(id)).result

    assert system.live(system.app(waits_for("go", "go", "go")), scenario) == [0, 1, 2]


def test_07_a_signal_during_a_timer_waits_for_its_wait(system):
    """What comes while the flow sleeps wakes nobody, and is there after the sleep."""

    def f(_):
        began = yield tf.now()
        yield tf.sleep(100)
        slept = (yield tf.now()) - began
        return [slept.total_seconds(), (yield tf.wait_signal("go"))]

    async def scenario(engine):
        id = await idle(engine, "f")
        await engine.signal(id, "go", "early")
        await engine.run_until_idle()
        assert (await engine.get(id)).waiting == ("sleep#0",)
        return (await engine.wait(id)).result

    assert system.live(system.app(f), scenario) == [100.0, "early"]


def test_08_a_signal_that_is_there_leaves_one_entry_and_no_timer(system, noting):
    """The wait is answered in the turn that reaches it: nothing is armed, nothing is left."""

    def f(_):
        return (yield tf.wait_signal("go", timeout=50))

    store = noting(system.store())
    app = system.app(f, store=store)

    async def begin(engine):
        id = await engine.start("f")
        await engine.signal(id, "go", 1)
        return id

    id = system.live(app, begin, work=False)

    async def scenario(engine):
        done = await engine.wait(id)
        await trio.sleep(LIMIT)
        assert (done.result, done.due) == (1, None)
        assert await engine.replay(id) == tf.Done(1)
        return await tags(engine, id)

    assert system.live(app, scenario) == ["wait_signal:go#0"]
    assert store.count(Turn) == 1


def test_09_the_timeout_wins(system):
    """Nothing came in time: the flow is told, and what comes later is not that wait's."""

    def f(_):
        try:
            yield tf.wait_signal("go", timeout=10)
        except tf.TimedOut:
            return ["too late", (yield tf.wait_signal("go"))]

    async def scenario(engine):
        id = await idle(engine, "f")
        await trio.sleep(11)
        assert (await engine.get(id)).waiting == ("wait_signal:go#1",)
        await engine.signal(id, "go", "for the second")
        result = (await engine.wait(id)).result
        (first, second) = await engine.log(id)
        assert first.failure.kind == "timed_out"
        assert second.value == "for the second"
        return result

    assert system.live(system.app(f), scenario) == ["too late", "for the second"]


def test_09_the_signal_wins_and_ends_the_timer(system):
    """One that came before the deadline is taken, also by a worker that wakes after it.

    Continuum decides by the journal's next event; here too a signal that is there beats a
    timer that is due, and its timer never fires again.
    """

    def f(_):
        got = yield tf.wait_signal("go", timeout=10, default="too late")
        yield tf.sleep(100)
        return got

    async def begin(engine):
        return await idle(engine, "f")

    async def send(engine):
        await engine.signal(id, "go", "in time")

    id = system.live(system.app(f), begin)
    system.live(system.app(f), send, work=False)

    async def late(engine):
        await trio.sleep(50)
        result = (await engine.wait(id)).result
        return result, await tags(engine, id)

    assert system.live(system.app(f), late) == ("in time", ["wait_signal:go#0", "sleep#0"])


def test_10_nobody_there_and_already_ended(system):
    """No such instance, and an ended one: each has its own error, and nothing is stored."""

    async def scenario(engine):
        with pytest.raises(tf.UnknownInstance):
            await engine.signal("z" * 20, "go")
        id = await idle(engine, "waits")
        await engine.signal(id, "go", 1)
        await engine.wait(id)
        with pytest.raises(tf.InstanceEnded, match="done"):
            await engine.signal(id, "go", 2)
        return engine._store.counts().inbox

    assert system.live(system.app(waits), scenario) == 0


def test_11_no_wake_up_is_lost_between_a_commit_and_its_news(system):
    """Killed after any commit, before anybody hears of it: step, timer, signal still come."""

    def f(_):
        first = yield tf.call(double, 1)
        yield tf.sleep(30)
        return [first, (yield tf.wait_signal("go"))]

    def app_on(store):
        return system.app(f, store=store)

    async def scenario(engine):
        found = [each async for each in engine.instances()]
        id = found[0].id if found else await engine.start("f")
        # Asked for again after a crash: the sender repeats what it doesn't know to be stored.
        with contextlib.suppress(tf.InstanceEnded):
            await engine.signal(id, "go", "sent", dedup="once")
        return (await engine.wait(id)).result, await tags(engine, id)

    report = crash_everywhere(app_on, scenario, system.new_store)
    assert report.end == ([2, "sent"], ["call:double#0", "sleep#0", "wait_signal:go#0"])
    assert report.points >= 5


def test_12_repeats_are_known_by_their_key_also_across_generations(system):
    """Delivered once, then told as a repeat, also after the flow continued as new."""

    def f(generation):
        yield tf.wait_signal("go")
        if not generation:
            yield tf.continue_as_new(1)
        return "two"

    async def scenario(engine):
        id = await idle(engine, "f", 0)
        assert await engine.signal(id, "go", "x", dedup="d1") is True
        assert await engine.signal(id, "go", "x", dedup="d1") is False
        await engine.run_until_idle()
        assert (await engine.get(id)).generation == 2
        assert await engine.signal(id, "go", "x", dedup="d1") is False
        await engine.run_until_idle()
        assert (await engine.get(id)).status == "waiting"
        await engine.signal(id, "go", "x", dedup="d2")
        return (await engine.wait(id)).result

    assert system.live(system.app(f), scenario) == "two"


def test_12_without_a_key_nothing_is_a_repeat(system):
    """Three equal signals are three; one key with two payloads is refused, which is beyond."""

    async def scenario(engine):
        id = await engine.start("f")
        await engine.signal(id, "other", 1, dedup="d")
        with pytest.raises(tf.SignalConflict):
            await engine.signal(id, "other", 2, dedup="d")
        for _ in range(3):
            assert await engine.signal(id, "go", 1)
        return (await engine.wait(id)).result

    assert system.live(system.app(waits_for("go", "go", "go")), scenario) == [1, 1, 1]


# --- starts


def test_13_concurrent_starts_under_one_key_are_one(system):
    """Eight at once give one instance, seven its id; another input is refused by name.

    Continuum ignores that the input differs. Better: whoever asks for something else hears it.
    """
    found: list[str] = []

    async def scenario(engine):
        async def start():
            found.append(await engine.start("waits", {"n": 1}, key="order-1"))

        async with trio.open_nursery() as nursery:
            for _ in range(8):
                nursery.start_soon(start)
        with pytest.raises(tf.KeyTaken, match=found[0]):
            await engine.start("waits", {"n": 2}, key="order-1")
        return len([each async for each in engine.instances()])

    assert system.live(system.app(waits), scenario) == 1
    assert len(found) == 8
    assert len(set(found)) == 1


# --- chains of generations


def test_14_chain_has_one_id_and_its_last_result(system):
    """Three generations share id and correlation id; who waits for the first gets the last's.

    Continuum makes a new run of each; here it is one instance, so nobody follows a chain.
    """

    def f(n):
        yield tf.wait_signal("next")
        if n < 2:
            yield tf.continue_as_new(n + 1)
        return f"end {n}"

    async def scenario(engine):
        id = await engine.start("f", 0, correlation_id="c-1")
        found = []

        async def wait():
            found.append(await engine.wait(id))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(wait)
            for _ in range(3):
                await engine.run_until_idle()
                await engine.signal(id, "next")
        (done,) = found
        return done.id == id, done.correlation_id, done.result, done.generation

    assert system.live(system.app(f), scenario) == (True, "c-1", "end 2", 3)


def test_15_crash_in_the_midst_of_a_turn_over_leaves_one_successor(system):
    """Killed at every commit, before and after it: one instance, each generation once."""
    ran: list[int] = []

    def note(n):
        ran.append(n)

    def f(n):
        yield tf.call(note, n)
        if n < 2:
            yield tf.continue_as_new(n + 1)
        return n

    async def scenario(engine):
        found = [each async for each in engine.instances()]
        id = found[0].id if found else await engine.start("f", 0)
        done = await engine.wait(id)
        count = len([each async for each in engine.instances()])
        return done.result, done.generation, done.log_length, count

    report = crash_everywhere(
        lambda store: system.app(f, store=store), scenario, system.new_store
    )
    assert report.end == (2, 3, 1, 1)
    assert set(ran) == {0, 1, 2}


@pytest.mark.parametrize("joined", [True, False])
def test_16_children_go_along_and_a_cancel_reaches_them(system, joined):
    """A child that wasn't awaited is the next generation's: to join, and to cancel.

    In Continuum the successor can't await it. Better: a `ChildRef` is a value, so it can.
    """

    def kid(_):
        return (yield tf.wait_signal("go"))

    def parent(ref):
        if ref is None:
            spawned = yield tf.spawn("kid")
            yield tf.wait_signal("next")
            yield tf.continue_as_new(spawned)
        return (yield tf.join(ref))

    async def scenario(engine):
        id = await idle(engine, "parent")
        await engine.signal(id, "next")
        await engine.run_until_idle()
        (child,) = [each.id async for each in engine.instances(parent=id)]
        if joined:
            await engine.signal(child, "go", "from the child")
            return (await engine.wait(id)).result
        assert await engine.cancel(id)
        ends = [(await engine.wait(each)).status for each in (id, child)]
        assert (await engine.get(id)).generation == 2
        return ends

    expected = "from the child" if joined else ["cancelled", "cancelled"]
    assert system.live(system.app(kid, parent), scenario) == expected


def test_17_unread_signals_go_along(system):
    """What the old generation didn't take, the new one does, in order; the id stays good."""

    def f(generation):
        if not generation:
            yield tf.wait_signal("next")
            yield tf.continue_as_new(1)
        got = []
        for _ in range(3):
            got.append((yield tf.wait_signal("go")))
        return got

    async def scenario(engine):
        id = await idle(engine, "f", 0)
        await engine.signal(id, "go", "a")
        await engine.signal(id, "go", "b")
        await engine.signal(id, "next")
        await engine.run_until_idle()
        await engine.signal(id, "go", "c")
        return (await engine.wait(id)).result

    assert system.live(system.app(f), scenario) == ["a", "b", "c"]


def test_18_successor_is_of_the_current_version_and_keeps_what_it_had(system):
    """The newest version takes over; namespace, attributes and correlation id stay."""

    def old(_):
        yield tf.set_attributes(city="Graz")
        yield tf.wait_signal("next")
        yield tf.continue_as_new("went on")

    def new(state):
        return (yield tf.wait_signal("go", timeout=1, default=[2, state]))

    async def begin(engine):
        id = await engine.start("f", namespace="shop", correlation_id="c")
        await engine.run_until_idle()
        return id

    first = tf.flow(name="f", version=1)(old)
    id = system.live(system.app(first), begin)

    async def go_on(engine):
        assert (await engine.get(id)).version == 1
        await engine.signal(id, "next")
        done = await engine.wait(id)
        assert (done.version, done.result) == (2, [2, "went on"])
        return done.namespace, done.correlation_id, done.attributes

    app = system.app(first, tf.flow(name="f", version=2)(new), build="two")
    assert system.live(app, go_on) == ("shop", "c", {"city": "Graz"})


def test_18_a_parent_awaits_the_last_generation_of_its_child(system):
    """A child that continues as new gives its parent the result of its last generation."""

    def kid(n):
        yield tf.sleep(1)
        if n < 3:
            yield tf.continue_as_new(n + 1)
        return n

    def parent(_):
        return (yield tf.child("kid", 0))

    async def scenario(engine):
        return (await engine.wait(await engine.start("parent"))).result

    assert system.live(system.app(kid, parent), scenario) == 3


# --- cancel


def test_19_a_cancel_that_is_there_first_lets_nothing_run(system):
    """Cancelled before any worker had it: no step is run, the only entry is the cancel."""
    ran = []

    def f(_):
        yield tf.call(ran.append, 1)

    async def ask(engine):
        id = await engine.start("f")
        assert await engine.cancel(id) is True
        assert await engine.cancel(id) is False
        return id

    id = system.live(system.app(f), ask, work=False)

    async def work(engine):
        return (await engine.wait(id)).status, await tags(engine, id)

    assert system.live(system.app(f), work) == ("cancelled", ["cancel"])
    assert ran == []


def test_19_a_step_hears_of_the_cancel_at_its_heartbeat(system):
    """The flow ends at once; a step that can't be stopped hears it when it next asks."""
    heard = []

    async def stubborn():
        with trio.CancelScope(shield=True):
            for _ in range(100):
                await trio.sleep(1)
                try:
                    tf.step_context().heartbeat()
                except tf.AttemptOver as over:
                    heard.append((trio.current_time(), type(over).__name__))
                    raise

    def f(_):
        yield tf.call(stubborn)

    async def scenario(engine):
        id = await engine.start("f")
        await trio.sleep(5.5)
        await engine.cancel(id)
        return (await engine.wait(id)).status

    assert system.live(system.app(f), scenario) == "cancelled"
    ((at, name),) = heard
    assert (name, at < 20) == ("AttemptOver", True)


def test_20_a_cancel_ends_all_that_was_armed(system):
    """Steps are dropped, timers never fire, late results change nothing; the flow may clean up.

    Continuum ends the run from outside. Better: `FlowCancelled` at the yield lets a flow undo
    what it did; `terminate` is the hard end.
    """
    ran = []

    async def slow():
        await trio.sleep(50)
        ran.append("slow")

    def f(_):
        try:
            yield tf.gather(tf.call(slow), tf.sleep(60), tf.wait_signal("go", timeout=70))
        except tf.FlowCancelled:
            yield tf.call(ran.append, "cleaned up")
            raise

    async def scenario(engine):
        id = await engine.start("f")
        await trio.sleep(1)
        assert await engine.cancel(id)
        ended = await engine.wait(id)
        before = await tags(engine, id)
        await trio.sleep(LIMIT)
        assert await engine.get(id) == ended
        assert await tags(engine, id) == before
        return ended.status, ended.waiting, ended.due, before

    status, waiting, due, log = system.live(system.app(f), scenario)
    assert (status, waiting, due) == ("cancelled", (), None)
    assert log == ["cancel", "call:append#0"]
    assert ran == ["cleaned up"]


def test_20_whoever_owns_it_a_cancel_lands(system):
    """Missing and ended are errors of their own; owned elsewhere is none.

    Continuum answers `owned_elsewhere` when the owner can't be reached. Better: a cancel is a
    message in the inbox, durable when the verb returns, whoever owns the instance and whether
    anybody does.
    """

    async def scenario(engine):
        with pytest.raises(tf.UnknownInstance):
            await engine.cancel("z" * 20)
        id = await idle(engine, "waits")
        await engine.signal(id, "go")
        await engine.wait(id)
        with pytest.raises(tf.InstanceEnded, match="done"):
            await engine.cancel(id)
        return await idle(engine, "waits")

    id = system.killed(system.app(waits), scenario)

    async def ask(engine):
        assert await engine.cancel(id)

    system.live(system.app(build="knows no flow"), ask, work=False)

    async def work(engine):
        return (await engine.wait(id)).status

    assert system.live(system.app(waits), work) == "cancelled"
