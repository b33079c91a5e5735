"""Continuum 0.7.2: replay and drift (lines 1-6, 38).

Each test has the number of its line in docs/reference/conformance.md, and runs on memory and
on SQLite. Where triggerflow decides otherwise, the docstring says why that is better.
"""

# ruff: noqa: ASYNC110 - what is polled tells nobody

from __future__ import annotations

import contextlib
from typing import Any

import attrs
import pytest
import trio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import triggerflow as tf


def double(n: int) -> int:
    return 2 * n


async def idle(engine: Any, flow: Any, input: Any = None) -> str:
    """Start an instance and drive it as far as it goes."""
    id: str = await engine.start(flow, input)
    await engine.run_until_idle()
    return id


# --- replay


def test_01_replay_equals_the_live_result_and_calls_no_producer(system):
    """The record gives the live result again, in another process too; nothing is run for it."""
    ran = []

    def produce():
        ran.append("produce")
        return len(ran)

    def step(n):
        ran.append("step")
        return n

    def everything(_):
        token = yield tf.side_effect(produce)
        both = yield tf.gather(tf.call(step, 1), tf.sleep(60))
        chance = [str((yield tf.uuid4())), (yield tf.random()), str((yield tf.now()))]
        return [token, both, chance, (yield tf.wait_signal("go"))]

    async def first(engine):
        id = await idle(engine, "everything")
        await engine.signal(id, "go", {"a": [1, None]})
        done = await engine.wait(id)
        assert await engine.replay(id) == tf.Done(done.result)
        return id, done.result

    id, result = system.live(system.app(everything), first)
    assert ran == ["produce", "step"]

    async def later(engine):
        return await engine.replay(id)

    assert system.live(system.app(everything, build="two"), later, work=False) == tf.Done(
        result
    )
    assert ran == ["produce", "step"]


def _original():
    return [tf.call(double, 1), tf.sleep(1), tf.call(double, 2)]


DRIFTS = {
    # what the code yields now, and the position at which record and code part
    "another kind": (lambda: [tf.call(double, 1), tf.call(double, 1), tf.call(double, 2)], 1),
    "another name": (lambda: [tf.call(abs, 1), tf.sleep(1), tf.call(double, 2)], 0),
    "another argument": (lambda: [tf.call(double, 1), tf.sleep(1), tf.call(double, 3)], 2),
    "swapped": (lambda: [tf.sleep(1), tf.call(double, 1), tf.call(double, 2)], 0),
    "left over": (lambda: [tf.call(double, 1), tf.sleep(1)], 2),
}


@pytest.mark.parametrize("drift", DRIFTS)
def test_02_drift_is_told_and_destroys_nothing(system, drift):
    """A changed flow blocks with the place; Continuum fails the run.

    Better: the run's work is kept, and it goes on by itself when the right code is back.
    """
    effects, position = DRIFTS[drift]

    def made_of(effects):
        def f(_):
            got = []
            for each in effects():
                got.append((yield each))
            return [*got, (yield tf.wait_signal("go"))]

        return tf.flow(name="f")(f)

    async def park(engine):
        id = await idle(engine, "f")
        await trio.sleep(2)
        return id

    id = system.live(system.app(made_of(_original), build="right"), park)

    async def send(engine):
        await engine.signal(id, "go", "end")
        await engine.run_until_idle()
        with pytest.raises(tf.Diverged) as caught:
            await engine.replay(id)
        return await engine.get(id), caught.value.position

    found, at = system.live(system.app(made_of(effects), build="wrong"), send)
    assert (found.status, found.cause, found.log_length) == ("blocked", "diverged", 3)
    assert at == position

    async def wait(engine):
        return (await engine.wait(id)).result

    right = system.app(made_of(_original), build="right")
    assert system.live(right, wait) == [2, None, 4, "end"]


def test_02_drift_behind_a_long_prefix_is_told_at_its_place(system):
    """Continuum looks behind its snapshots; here a drift deep in a log is found as well."""

    def made(odd):
        def f(_):
            for n in range(100):
                yield tf.call(double, -1 if odd and n == 80 else n)
            yield tf.wait_signal("go")

        return tf.flow(name="f")(f)

    async def park(engine):
        return await idle(engine, "f")

    id = system.live(system.app(made(odd=False)), park)

    async def look(engine):
        with pytest.raises(tf.Diverged) as caught:
            await engine.replay(id)
        return caught.value.position

    assert system.live(system.app(made(odd=True), build="two"), look, work=False) == 80


@pytest.mark.parametrize("ended", [False, True], ids=["pending", "recorded"])
@pytest.mark.parametrize("asked", [("kid", 2), ("other", 1)], ids=["input", "flow"])
def test_03_changed_child_or_its_input_drifts(system, asked, ended):
    """Which child was asked for is compared, in the log and while it is still waited for."""

    def kid(n):
        return [n, (yield tf.wait_signal("go"))]

    def other(n):
        return n
        yield

    def parent_of(flow, n):
        def parent(_):
            found = yield tf.child(flow, n)
            return [found, (yield tf.wait_signal("end"))]

        return tf.flow(parent)

    async def park(engine):
        id = await idle(engine, "parent")
        (child,) = [each.id async for each in engine.instances(parent=id)]
        if ended:
            await engine.signal(child, "go")
            await engine.wait(child)
            await engine.run_until_idle()
        return id

    id = system.live(system.app(kid, other, parent_of("kid", 1)), park)

    async def look(engine):
        await engine.signal(id, "end")
        await engine.run_until_idle()
        return await engine.get(id)

    found = system.live(system.app(kid, other, parent_of(*asked), build="two"), look)
    assert (found.status, found.cause) == ("blocked", "diverged")
    assert f"child:{asked[0]}" in found.reason


def test_03_a_next_generation_owes_nothing_to_old_code(system):
    """Continuum checks the input of a continue event at each replay; here there is none.

    Better: a turn-over is the commit that ends the old log and stores the new input, so code
    that would continue otherwise changes only what comes after it.
    """

    def made(step):
        def f(n):
            if (yield tf.wait_signal("next")) == "end":
                return n
            yield tf.continue_as_new(n + step)

        return tf.flow(name="f")(f)

    async def begin(engine):
        id = await idle(engine, "f", 0)
        await engine.signal(id, "next")
        await engine.run_until_idle()
        return id

    id = system.live(system.app(made(1)), begin)

    async def go_on(engine):
        assert (await engine.get(id)).input == 1
        await engine.signal(id, "next")
        await engine.signal(id, "next", "end")
        done = await engine.wait(id)
        return done.status, done.result, done.generation

    assert system.live(system.app(made(10), build="two"), go_on) == ("done", 11, 3)


KINDS = ("call", "side_effect", "sleep", "gather", "uuid4", "patched")


@settings(
    max_examples=8,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(program=st.lists(st.sampled_from(KINDS), min_size=2, max_size=12))
def test_04_random_programs_survive_a_restart_anywhere(system, program):
    """Whatever effects in whatever order: killed after 1, n/2 and n of them, the end is equal.

    Continuum restores a snapshot there; here the log alone brings the flow back.
    """
    made = []

    def produce():
        made.append(1)
        return "made"

    def flow_of(pause):
        def f(_):
            got = []
            for n, kind in enumerate(program):
                if n == pause:
                    yield tf.wait_signal("go")
                if kind == "call":
                    got.append((yield tf.call(double, n)))
                elif kind == "side_effect":
                    got.append((yield tf.side_effect(produce)))
                elif kind == "sleep":
                    yield tf.sleep(n)
                elif kind == "gather":
                    got.append((yield tf.gather(tf.call(double, n), tf.sleep(1))))
                elif kind == "uuid4":
                    got.append(len(str((yield tf.uuid4()))))
                else:
                    got.append((yield tf.patched(f"p{n}")))
            if pause == len(program):
                yield tf.wait_signal("go")
            return got

        return tf.flow(name="f")(f)

    ends = []
    for pause in {1, len(program) // 2, len(program)}:
        system.renew()
        made.clear()

        async def begin(engine, pause=pause):
            id = await engine.start("f")
            while (await engine.get(id)).waiting != ("wait_signal:go#0",):
                await trio.sleep(1)
            return id

        id = system.killed(system.app(flow_of(pause)), begin)

        async def go_on(engine, id=id):
            await engine.signal(id, "go")
            done = await engine.wait(id)
            assert await engine.replay(id) == tf.Done(done.result)
            return done.result

        ends.append(system.live(system.app(flow_of(pause), build="two"), go_on))
        assert len(made) == program.count("side_effect")
    assert all(each == ends[0] for each in ends)


def test_04_thousand_mixed_effects_replay(system):
    """A long history of calls and side effects is taken up after a kill in its midst."""
    ran = []

    def note(n):
        ran.append(n)
        return n

    def f(_):
        total = 0
        for n in range(500):
            total += yield tf.call(note, n)
            total += yield tf.side_effect(lambda n=n: note(-n), name="note")
            if n == 250:
                yield tf.wait_signal("go")
        return total

    async def begin(engine):
        return await idle(engine, "f")

    id = system.killed(system.app(f), begin)

    async def go_on(engine):
        await engine.signal(id, "go")
        done = await engine.wait(id)
        assert await engine.replay(id) == tf.Done(0)
        return done.result, done.log_length

    assert system.live(system.app(f), go_on) == (0, 1001)
    assert sorted(ran) == sorted([*range(500), *range(0, -500, -1)])


def test_05_replay_at_an_open_wait_suspends_without_asking_for_messages(system):
    """What lies in the inbox is no part of the record: replay stops where the log stops."""

    def f(_):
        first = yield tf.call(double, 4)
        return [first, (yield tf.wait_signal("go"))]

    async def begin(engine):
        return await idle(engine, "f")

    id = system.live(system.app(f), begin)

    async def look(engine):
        await engine.signal(id, "go", "unread")
        log = await engine.log(id)
        return await engine.replay(id), tf.drive(f, None, log)

    waiting = tf.Suspended(("wait_signal:go#0",))
    assert system.live(system.app(f), look, work=False) == (waiting, waiting)


def test_06_moved_lines_and_new_lambdas_do_not_drift(system):
    """A tag counts effects of one name, not lines: code that only moves fits every log."""

    def before(_):
        first = yield tf.call(double, 1)
        return [first, (yield tf.wait_signal("go")), (yield tf.call(double, 2))]

    def after(_):
        order = sorted([3, 1, 2], key=lambda n: -n)

        first = yield tf.call(double, order[-1])
        pick = lambda values: values[1]
        return [first, (yield tf.wait_signal("go")), (yield tf.call(double, pick(order)))]

    async def begin(engine):
        return await idle(engine, "f")

    id = system.killed(system.app(tf.flow(name="f")(before)), begin)

    async def go_on(engine):
        await engine.signal(id, "go", "on")
        return (await engine.wait(id)).result

    app = system.app(tf.flow(name="f")(after), build="two")
    assert system.live(app, go_on) == [2, "on", 4]


# --- what is said once, and what was once written


def test_38_what_is_said_once_is_silent_in_replay(system):
    """Continuum has an effect for log lines; here a `side_effect` speaks once."""
    said = []

    def f(_):
        yield tf.side_effect(lambda: said.append("hello"), name="say")
        yield tf.wait_signal("go")

    async def begin(engine):
        return await idle(engine, "f")

    id = system.killed(system.app(f), begin)

    async def go_on(engine):
        await engine.signal(id, "go")
        await engine.wait(id)
        await engine.replay(id)

    system.live(system.app(f), go_on, always_replay=True)
    assert said == ["hello"]


def charge(amount: int) -> int:
    return amount


def golden(order: Any) -> Any:
    """The flow of the golden log: one effect of most kinds. It must never change."""
    paid = yield tf.call(charge, order["amount"]).using(compensate=charge_back)
    token = yield tf.side_effect(lambda: "t", name="token")
    fast = yield tf.patched("fast")
    won = yield tf.race(tf.sleep(60), reply=tf.wait_signal(["yes", "no"]))
    some = yield tf.gather(tf.call(charge, 1), tf.call(charge, 2))
    with contextlib.suppress(tf.TimedOut):
        yield tf.wait_signal("never", timeout=5)
    undone = yield tf.compensate_all()
    return [paid, token, fast, won.name, won.value.name, some, undone]


def charge_back(result: int, amount: int) -> int:
    return -amount


# Tag, value, digest and seconds of each entry, as this version's first engine wrote them.
GOLDEN = (
    ("call:charge#0", 7, "8b59b58bc827052cf9e09597ac7684b7", 0),
    ("side_effect:token#0", "t", None, 0),
    ("patched:fast", True, None, 0),
    ("race#0[reply]/wait_signal:yes|no#0", ["no", [1]], "6bc37b31b759ab4cddaadf22fa7749a5", 0),
    ("gather#0[0]/call:charge#0", 1, "ac38783f6a3b2fe3b579718d6ba8493a", 0),
    ("gather#0[1]/call:charge#0", 2, "e30f7e51e257e9f7da46b7cfb9174bf9", 0),
    (
        "wait_signal:never#0",
        tf.Failure("TimedOut", "timed out", kind="timed_out"),
        "4ab7ef5fced97e6c64e337e95e00796d",
        5,
    ),
    ("compensate_all#0[0]/compensate:charge_back#0", -7, "26d960eebc93963fcbfa8f90953d53a9", 5),
)


def _golden_log():
    for tag, value, digest, at in GOLDEN:
        failure = value if isinstance(value, tf.Failure) else None
        yield tf.Entry(
            tag,
            None if failure else value,
            failure,
            None if digest is None else bytes.fromhex(digest),
            1_700_000_000.0 + at,
        )


def test_38_golden_log_replays_without_drift():
    """A log as it was once written fits for ever: tags and digests are a format."""
    log = list(_golden_log())
    done = tf.Done([7, "t", True, "reply", "no", [1, 2], [-7]])
    assert tf.drive(golden, {"amount": 7}, log) == done
    for position, entry in enumerate(log):
        if entry.digest is not None:
            wrong = attrs.evolve(entry, digest=bytes(16))
            with pytest.raises(tf.Diverged):
                tf.drive(golden, {"amount": 7}, [*log[:position], wrong, *log[position + 1 :]])
