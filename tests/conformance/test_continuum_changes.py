"""Continuum 0.7.2: sagas, and changes of code (lines 22-25, 34, 36).

Each test has the number of its line in docs/reference/conformance.md, and runs on memory and
on SQLite. Where triggerflow decides otherwise, the docstring says why that is better.
"""

from __future__ import annotations

from typing import Any

import attrs
import pytest
import trio

import triggerflow as tf
from triggerflow.flows.flow import code_hash


def double(n: int) -> int:
    return 2 * n


async def idle(engine: Any, flow: Any, input: Any = None) -> str:
    """Start an instance and drive it as far as it goes."""
    id: str = await engine.start(flow, input)
    await engine.run_until_idle()
    return id


# --- sagas


class Trip:
    """Steps that book and cancel, and what they did."""

    def __init__(self):
        self.did = []

    def book(self, what):
        self.did.append(f"+{what}")
        return what.upper()

    def cancel(self, result, what):
        self.did.append(f"-{what}")
        if what == "broken":
            raise OSError("no line")
        return result

    def booked(self, what):
        return tf.call(self.book, what).using(compensate=self.cancel)


def ended(system, flow):
    async def scenario(engine):
        id = await engine.start(flow.__name__)
        return await engine.wait(id), await engine.log(id)

    return system.live(system.app(flow), scenario)


def test_22_happy_path_undoes_nothing(system):
    """A saga that ends well runs no compensation."""
    trip = Trip()

    def f(_):
        yield trip.booked("car")

    assert ended(system, f)[0].status == "done"
    assert trip.did == ["+car"]


def test_22_one_by_hand_then_all_never_doubles_and_goes_backwards(system):
    """What was undone by hand is off the stack; the rest is undone last first, once."""
    trip = Trip()

    def f(_):
        for what in ("a", "b"):
            yield trip.booked(what)
        special = trip.booked("special")
        yield special
        yield trip.booked("c")
        yield tf.compensate(special)
        return [(yield tf.compensate_all()), (yield tf.compensate_all())]

    assert ended(system, f)[0].result == [["C", "B", "A"], []]
    assert trip.did[4:] == ["-special", "-c", "-b", "-a"]


def test_22_failed_compensation_fails_no_flow(system):
    """It is recorded and given back as a value; what was still owed is undone all the same."""
    trip = Trip()

    def f(_):
        yield trip.booked("a")
        yield trip.booked("broken")
        found = yield tf.compensate_all()
        return [isinstance(each, tf.StepFailed) for each in found]

    done, _ = ended(system, f)
    assert (done.status, done.result) == ("done", [True, False])
    assert trip.did[2:] == ["-broken", "-a"]


def test_22_tampered_compensation_drifts(system):
    """An entry of an unwinding that the code would not have made is refused at its position."""
    trip = Trip()

    def f(_):
        yield trip.booked("a")
        return (yield tf.compensate_all())

    done, log = ended(system, f)
    assert tf.drive(f, None, log) == tf.Done(done.result)
    other = attrs.evolve(log[1], tag=log[1].tag.replace("compensate:cancel", "call:cancel"))
    assert other != log[1]
    with pytest.raises(tf.Diverged) as caught:
        tf.drive(f, None, [log[0], other])
    assert caught.value.position == 1


def test_23_killed_in_the_midst_of_undoing_goes_on_with_the_rest(system):
    """A restarted worker undoes what was left, last first, and nothing a second time."""
    did, stuck = [], trio.Event()

    def book(what):
        return what

    async def cancel(_, what):
        did.append(what)
        if what == "b" and did.count("b") == 1:
            stuck.set()
            await trio.sleep_forever()

    def f(_):
        for what in "abc":
            yield tf.call(book, what).using(compensate=cancel)
        return len((yield tf.compensate_all()))

    async def begin(engine):
        id = await engine.start("f")
        await stuck.wait()
        return id

    id = system.killed(system.app(f), begin)

    async def go_on(engine):
        return (await engine.wait(id)).result

    assert system.live(system.app(f), go_on) == 3
    assert did == ["c", "b", "b", "a"]


def test_23_in_parallel_all_begin_before_any_ends(system):
    """`parallel=True` arms every compensation at once: each waits here for all the others."""
    begun, all_there = [], trio.Event()

    def book(what):
        return what

    async def cancel(_, what):
        begun.append(what)
        if len(begun) == 3:
            all_there.set()
        await all_there.wait()
        return what

    def f(_):
        for what in "abc":
            yield tf.call(book, what).using(compensate=cancel)
        return (yield tf.compensate_all(parallel=True))

    assert ended(system, f)[0].result == ["c", "b", "a"]


# --- changes of code


def test_24_patch_decisions(system):
    """Fresh: true. Passed before: false, without an entry. Each id by itself, once."""

    def before(_):
        yield tf.wait_signal("go")
        yield tf.call(double, 1)
        return (yield tf.wait_signal("end"))

    def after(_):
        yield tf.wait_signal("go")
        found = [(yield tf.patched("one"))]
        yield tf.call(double, 1)
        yield tf.wait_signal("end")
        found.append((yield tf.patched("one")))
        found.append((yield tf.patched("two")))
        return found

    async def begin(engine):
        passed = await engine.start("f")
        await engine.signal(passed, "go")
        return passed, await idle(engine, "f")

    passed, fresh = system.live(system.app(tf.flow(name="f")(before)), begin)

    async def go_on(engine):
        found = []
        for id in (passed, fresh):
            await engine.signal(id, "go")
            await engine.signal(id, "end")
            done = await engine.wait(id)
            tags = [each.tag for each in await engine.log(id) if "patched" in each.tag]
            found.append((done.result, tags))
            assert await engine.replay(id) == tf.Done(done.result)
        return found

    assert system.live(system.app(tf.flow(name="f")(after), build="two"), go_on) == [
        ([False, False, True], ["patched:two"]),
        ([True, True, True], ["patched:one", "patched:two"]),
    ]


def test_25_swallowing_all_exceptions_is_refused_at_registration(system):
    """Continuum finds a swallowed control throw when it happens; here it never gets that far.

    Better: a flow is suspended by its own yield, not by an exception, so none can leak; what
    could be swallowed is a cancel, and the lint refuses that before anything runs.
    """

    def f(_):
        try:
            yield tf.wait_signal("go")
        except BaseException:
            return "swallowed"

    with pytest.raises(tf.DefinitionError, match="FlowCancelled"):
        system.app(f)

    def rethrows(_):
        try:
            yield tf.wait_signal("go")
        except BaseException:
            raise

    assert system.app(rethrows).flows.get("rethrows", 1)


def test_25_no_suspension_can_be_swallowed(system):
    """A flow that catches everything is parked, evicted, restarted: it sees only its signal."""
    caught = []

    @tf.trusted
    def f(_):
        try:
            got = yield tf.wait_signal("go")
        except BaseException as error:
            caught.append(type(error).__name__)
            got = "swallowed"
        return [got, (yield tf.call(double, 2))]

    async def begin(engine):
        return await idle(engine, "f")

    id = system.live(system.app(f), begin, keep_warm=0)

    async def go_on(engine):
        await engine.signal(id, "go", "payload")
        return (await engine.wait(id)).result

    assert system.live(system.app(f), go_on, keep_warm=0) == ["payload", 4]
    # Its generator was closed when it was evicted; what it did then was dropped.
    assert caught


def test_34_unknown_version_waits_for_a_worker_that_knows_it(system):
    """It stays put with its messages; a worker that has the version goes on with them.

    Continuum leaves it suspended; here it is `blocked` with its cause, which an operator sees.
    """

    def made(version):
        def f(_):
            return [version, (yield tf.wait_signal("go"))]

        return tf.flow(name="f", version=version)(f)

    async def begin(engine):
        return await idle(engine, "f")

    id = system.live(system.app(made(1)), begin)

    async def strange(engine):
        await engine.signal(id, "go", "kept")
        await engine.run_until_idle()
        return await engine.get(id)

    found = system.live(system.app(made(2), build="two"), strange)
    assert (found.status, found.cause) == ("blocked", "unknown_version")

    async def work(engine):
        return (await engine.wait(id)).result

    assert system.live(system.app(made(1), made(2), build="three"), work) == [1, "kept"]


def test_34_running_instance_keeps_its_version_and_layout_is_no_change(system):
    """A new version takes only what starts later; white space and comments change no hash."""

    def old(_):
        yield tf.wait_signal("go")
        return "old"

    def new(_):
        yield tf.wait_signal("go")
        return "new"

    async def begin(engine):
        return await idle(engine, "f")

    first = tf.flow(name="f", version=1)(old)
    id = system.live(system.app(first), begin)

    async def go_on(engine):
        later = await engine.start("f")
        for each in (id, later):
            await engine.signal(each, "go")
        return [(await engine.wait(each)).result for each in (id, later)]

    app = system.app(first, tf.flow(name="f", version=2)(new), build="two")
    assert system.live(app, go_on) == ["old", "new"]
    names: dict[str, Any] = {}
    for name, gap in (("a", ""), ("b", "\n\n    # why\n")):
        exec(f"def f(x):{gap}\n    y = yield x\n    return  (y)", names)
        names[name] = names["f"]
    exec("def f(x):\n    y = yield x\n    return [y]", names)
    assert code_hash(names["a"]) == code_hash(names["b"]) != code_hash(names["f"])


def test_36_failed_instance_goes_on_by_hand(system):
    """`retry` tries the failed step again and the flow ends well; the log says that it did.

    Continuum makes a new task with an operator and a reason. Here it stays the same instance
    and idempotency key, so the service behind the step still knows the repeat; who asked is
    the caller's log.
    """
    keys, broken = [], [True]

    def answer():
        keys.append(tf.step_context().idempotency_key)
        if broken:
            raise OSError("down")
        return 42

    def f(_):
        first = yield tf.call(double, 2)
        return first - 4 + (yield tf.call(answer))

    async def scenario(engine):
        id = await engine.start("f")
        failed = await engine.wait(id)
        assert (failed.status, failed.failure.type) == ("failed", "StepFailed")
        # The dry run: what the record and this code come to, with nothing written.
        assert isinstance(await engine.replay(id), tf.Failed)
        assert (await engine.get(id)).log_length == 2
        broken.clear()
        await engine.retry(id)
        done = await engine.wait(id)
        with pytest.raises(tf.InstanceConflict, match="retry"):
            await engine.retry(id)
        return done.result, [each.tag for each in await engine.log(id)]

    result, tags = system.live(system.app(f), scenario)
    assert result == 42
    assert tags == ["call:double#0", "call:answer#0", "retried", "call:answer#0"]
    assert len(keys) == 2
    assert len(set(keys)) == 1
