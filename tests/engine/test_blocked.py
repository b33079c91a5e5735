"""Blocked instances: nothing is lost, the reason is told, and the right code heals them."""

# ruff: noqa: ASYNC110 - `id` is a word of the glossary; what is polled tells nobody

from __future__ import annotations

import pytest
import trio

import triggerflow as tf
from triggerflow.store.sqlite import MemoryStore

FOLLOW = {"type": "Follow", "actor": "https://a.example/ann"}


async def _look(engine):
    await engine.run_until_idle()
    return [each async for each in engine.instances()]


async def _park(engine):
    id = await engine.start("f")
    await engine.run_until_idle()
    return id


# --- unknown


def test_unknown_flow_heals_when_an_app_knows_it(new_app, live, make_store):
    """A trigger's flow that nobody here knows: blocked, told, and run by whoever knows it."""
    store = make_store()
    without = new_app(store, build="without")
    without.trigger("t", on="Follow", start="late")

    async def append(engine):
        await engine.append(FOLLOW)
        return await _look(engine)

    (blocked,) = live(without, append)
    assert (blocked.status, blocked.cause) == ("blocked", "unknown_flow")
    assert "late" in blocked.reason
    knows = new_app(store, build="knows")

    @knows.flow
    def late(activity):
        return (yield tf.call(len, activity))

    async def work(engine):
        return await engine.wait(blocked.id)

    found = live(knows, work)
    assert (found.status, found.result, found.cause, found.reason) == ("done", 2, None, None)


def _versions(new_app, store, *versions):
    app = new_app(store, build=str(versions))
    for version in versions:

        @app.flow(name="f", version=version)
        def f(_, version=version):
            yield tf.wait_signal("go")
            return version

    return app


@pytest.mark.parametrize("parked", [True, False])
def test_unknown_version_waits_for_a_worker_that_has_it(new_app, live, make_store, parked):
    """An instance keeps its version: a worker without it says so, one with it goes on."""
    store = make_store()

    async def start(engine):
        id = await engine.start("f", version=2)
        await engine.run_until_idle()
        return id

    id = live(_versions(new_app, store, 1, 2), start, work=parked)

    async def send(engine):
        await engine.signal(id, "go")
        return await _look(engine)

    (blocked,) = live(_versions(new_app, store, 1, 3), send)
    assert (blocked.status, blocked.cause) == ("blocked", "unknown_version")
    assert "version 2" in blocked.reason

    async def work(engine):
        return (await engine.wait(id)).result

    assert live(_versions(new_app, store, 2), work) == 2


# --- diverged

_DRIVES: list[str] = []


def _reserve(n):
    return n


def _charge(n):
    return n


def _notify(n):
    return n


CHANGES = {
    "renamed": (lambda: [tf.call(_reserve, 1), tf.call(_notify, 2)]),
    "argument": (lambda: [tf.call(_reserve, 1), tf.call(_charge, 3)]),
    "removed": (lambda: [tf.call(_reserve, 1)]),
    "added": (lambda: [tf.call(_reserve, 1), tf.call(_notify, 1), tf.call(_charge, 2)]),
    "swapped": (lambda: [tf.call(_charge, 2), tf.call(_reserve, 1)]),
}


def _original():
    return [tf.call(_reserve, 1), tf.call(_charge, 2)]


def _changing(new_app, store, build, steps, *, drives=None):
    app = new_app(store, build=build)

    @app.flow(name="f")
    def f(_):
        if drives is not None:
            drives.append(build)
        got = []
        for step in steps():
            got.append((yield step))
        got.append((yield tf.wait_signal("go")))
        return got

    return app


@pytest.mark.parametrize("change", CHANGES)
def test_changed_flow_blocks_a_parked_instance_and_the_right_code_heals_it(
    new_app, live, make_store, change
):
    """Each of five changes is seen at the claim; the reason is readable; no work is lost."""
    store = make_store()

    id = live(_changing(new_app, store, "right", _original), _park)

    async def send(engine):
        await engine.signal(id, "go", 9)
        (found,) = await _look(engine)
        with pytest.raises(tf.Diverged):
            await engine.replay(id)
        return found

    blocked = live(_changing(new_app, store, "wrong", CHANGES[change]), send)
    assert (blocked.status, blocked.cause) == ("blocked", "diverged")
    for words in ("recorded:", "your code now:", "position", "what to do:", __file__):
        assert words in blocked.reason
    assert blocked.log_length == 2

    async def work(engine):
        found = await engine.wait(id)
        return found.status, found.result, found.cause

    assert live(_changing(new_app, store, "right", _original), work) == (
        "done",
        [1, 2, 9],
        None,
    )


@pytest.mark.parametrize("change", ["renamed", "argument", "removed", "added", "swapped"])
def test_changed_call_in_flight_is_told_by_the_pending_set(
    new_app, live, killed, make_store, change
):
    """Killed with the call in flight and nothing in the log: still blocked, never run twice."""
    store = make_store()
    charged = []

    async def charge(n):
        charged.append(n)
        await trio.sleep(100 if len(charged) == 1 else 0)
        return n

    async def other(n):
        charged.append("other")
        return n

    ways = {
        "right": lambda: [tf.call(charge, 1)],
        "renamed": lambda: [tf.call(other, 1)],
        "argument": lambda: [tf.call(charge, 2)],
        "removed": list,
        "added": lambda: [tf.call(other, 1), tf.call(charge, 1)],
        "swapped": lambda: [tf.call(other, 1), tf.call(charge, 1)],
    }

    async def begin(engine):
        id = await engine.start("f")
        while not charged:
            await trio.sleep(0.1)
        return id

    id = killed(_changing(new_app, store, "right", ways["right"]), begin)
    (blocked,) = live(_changing(new_app, store, "wrong", ways[change]), _look)
    assert (blocked.status, blocked.cause) == ("blocked", "diverged")
    assert "in flight" in blocked.reason
    assert charged == [1]

    async def work(engine):
        await engine.signal(id, "go", 9)
        return (await engine.wait(id)).result

    assert live(_changing(new_app, store, "right", ways["right"]), work) == [1, 9]
    assert charged == [1, 1]


def test_a_build_is_tried_once(new_app, live):
    """Neither restarts nor signals make a build that diverged drive the instance again."""
    store = MemoryStore()
    drives = []

    id = live(_changing(new_app, store, "right", _original, drives=drives), _park)

    async def poke(engine):
        await engine.signal(id, "go", 9)
        for _ in range(5):
            await engine.run_until_idle()
        assert (await engine.get(id)).status == "blocked"

    for _ in range(3):
        live(_changing(new_app, store, "wrong", CHANGES["renamed"], drives=drives), poke)
    assert drives.count("wrong") == 1


def test_two_wrong_builds_do_not_play_ping_pong(new_app, live):
    """Each is tried once, in whatever order they come and go; a third one heals."""
    store = MemoryStore()
    drives = []

    id = live(_changing(new_app, store, "right", _original, drives=drives), _park)

    async def poke(engine):
        await engine.signal(id, "go", 9)
        await engine.run_until_idle()
        return (await engine.get(id)).status

    for build in ("a", "b", "a", "b", "a"):
        app = _changing(new_app, store, build, CHANGES["swapped"], drives=drives)
        assert live(app, poke) == "blocked"
    assert (drives.count("a"), drives.count("b")) == (1, 1)
    assert live(_changing(new_app, store, "mended", _original, drives=drives), poke) == "done"


def test_blocked_instance_keeps_its_messages(new_app, live):
    """Signals and a cancel that come while it is blocked are taken once it is healed."""
    store = MemoryStore()

    id = live(_changing(new_app, store, "right", _original), _park)

    async def poke(engine):
        assert await engine.signal(id, "go", "kept", dedup="d")
        await engine.run_until_idle()
        assert not await engine.signal(id, "go", "kept", dedup="d")
        with pytest.raises(tf.WaitTimedOut, match="blocked"):
            await engine.wait(id, timeout=10)

    live(_changing(new_app, store, "wrong", CHANGES["added"]), poke)

    async def work(engine):
        return (await engine.wait(id)).result

    assert live(_changing(new_app, store, "right", _original), work)[-1] == "kept"


def test_divergence_of_one_harms_no_other(new_app, live):
    """Neighbours claimed in the same batch go on."""
    store = MemoryStore()

    async def park(engine):
        ids = [await engine.start("f", n) for n in range(10)]
        await engine.run_until_idle()
        return ids

    def make(build, odd):
        app = new_app(store, build=build)

        @app.flow(name="f")
        def f(n):
            step = _charge if odd and n == 5 else _reserve
            yield tf.call(step, n)
            return (yield tf.wait_signal("go"))

        return app

    ids = live(make("one", False), park)

    async def go_on(engine):
        for id in ids:
            await engine.signal(id, "go", 1)
        return [each.status for each in await _look(engine)]

    found = live(make("two", True), go_on)
    assert found == ["done"] * 5 + ["blocked"] + ["done"] * 4


# --- crash_limit


def _deadly(new_app, store, deaths, running, *, mended=False):
    """An app in which one flow kills its process, and others just take their time."""
    app = new_app(store)

    async def innocent(n):
        running.append(n)
        await trio.sleep(10)
        running.remove(n)
        return n

    async def kill():
        if not mended:
            others = list(running)
            await trio.sleep(1)
            deaths.append(others)
            await trio.sleep_forever()
        return "mended"

    @app.flow
    def good(n):
        return (yield tf.call(innocent, n))

    @app.flow
    def killer(_):
        return (yield tf.call(kill))

    return app


def test_crash_limit_is_for_the_culprit_alone(new_app, live, killed, make_store):
    """Who was merely owned when a worker died is suspected, runs alone, and is cleared."""
    store = make_store()
    deaths = []
    starting = [True]

    async def until_death(engine):
        if starting.pop() if starting else False:
            for n in range(3):
                await engine.start("good", n)
            await engine.start("killer", None)
            await engine.start("good", 3)
        before = len(deaths)
        with trio.move_on_after(300):
            while len(deaths) == before:
                await trio.sleep(0.5)
        return len(deaths) > before

    kills = 0
    while killed(_deadly(new_app, store, deaths, []), until_death):
        kills += 1
        assert kills < 20

    async def look(engine):
        return {each.flow: each for each in await _look(engine)}, [
            each.result for each in await _look(engine) if each.flow == "good"
        ]

    found, results = live(_deadly(new_app, store, deaths, []), look)
    killer = found["killer"]
    assert (killer.status, killer.cause) == ("blocked", "crash_limit")
    assert "died" in killer.reason
    assert sorted(results) == [0, 1, 2, 3]
    assert kills == 5
    # From the third death on, nobody else was near.
    assert deaths[2:] == [[], [], []]

    async def unblock(engine):
        await engine.run_until_idle()
        assert (await engine.get(killer.id)).status == "blocked"
        await engine.unblock(killer.id)
        return (await engine.wait(killer.id)).result

    assert live(_deadly(new_app, store, deaths, [], mended=True), unblock) == "mended"


def test_committed_entry_clears_a_suspect(new_app, live, killed):
    """Deaths are counted since the last entry: who gets on is no suspect any more."""
    store = MemoryStore()
    begun = []

    def make(duration):
        app = new_app(store)

        async def step(n):
            begun.append((n, tf.step_context().attempt))
            await trio.sleep(duration if n == 1 else 0)

        @app.flow(name="f")
        def f(_):
            yield tf.call(step, 1)
            yield tf.call(step, 2)
            yield tf.wait_signal("go")

        return app

    async def start(engine):
        await engine.start("f")
        await trio.sleep(1)

    async def again(engine):
        await trio.sleep(1)

    killed(make(100), start)
    killed(make(100), again)
    killed(make(100), again)
    store.open()
    assert store.instances()[0].crashes >= 2
    store.close()
    live(make(0), again)
    store.open()
    assert store.instances()[0].crashes == 0
    store.close()
    # The attempt that a step sees counts those that a crash cut off.
    assert begun == [(1, 1), (1, 2), (1, 3), (1, 4), (2, 1)]


def test_parked_instances_are_not_suspected(new_app, killed):
    """A parked instance has no owner, so a worker's death says nothing about it."""
    store = MemoryStore()

    def make():
        app = new_app(store)

        @app.flow(name="f")
        def f(_):
            yield tf.wait_signal("go")

        return app

    async def start(engine):
        await engine.start("f")
        await engine.run_until_idle()

    for _ in range(3):
        killed(make(), start)
    store.open()
    assert [each.crashes for each in store.instances()] == [0, 0, 0]
    store.close()


def test_clean_close_counts_no_crash(new_app, live):
    """An engine that closes hands its instances back; nobody died."""
    store = MemoryStore()

    def make():
        app = new_app(store)

        @app.flow(name="f")
        def f(_):
            yield tf.call(trio.sleep, 1000)

        return app

    async def start(engine):
        await engine.start("f", key="k")
        await trio.sleep(1)

    for _ in range(3):
        live(make(), start)
    store.open()
    (record,) = store.instances()
    assert (record.crashes, record.owner, record.status) == (0, None, "running")
    store.close()
