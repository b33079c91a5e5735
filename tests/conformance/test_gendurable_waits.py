"""GenDurable 0.2.15: signals, timeouts and keys (lines 1-14).

Each test has the number of its line in docs/reference/conformance.md, and runs on memory and
on SQLite. A step of GenDurable's machine that awaits is here a yield of `wait_signal`, and its
next step what follows that yield. Where triggerflow decides otherwise, the docstring says why
that is better.
"""

from __future__ import annotations

from typing import Any

import pytest
import trio

import triggerflow as tf
from triggerflow.store.operations import Turn


def waits(_: Any) -> Any:
    return (yield tf.wait_signal("go"))


async def idle(engine: Any, flow: Any, input: Any = None, **options: Any) -> str:
    """Start an instance and drive it as far as it goes."""
    id: str = await engine.start(flow, input, **options)
    await engine.run_until_idle()
    return id


async def unread(engine: Any, id: str) -> list[str]:
    """Names of the messages that nobody has taken."""
    number = engine._store.instance(id).number
    return [each.name for each in engine._store.inbox(number)]


# --- signals


def test_01_await_parks_and_a_signal_wakes_it_with_its_payload(system):
    """Parked it costs no place; woken it has the payload; at its end the inbox is empty."""

    async def scenario(engine):
        id = await idle(engine, "waits")
        found = await engine.get(id)
        assert (found.status, found.waiting) == ("waiting", ("wait_signal:go#0",))
        assert engine.statistics().owned == 0
        await engine.signal(id, "go", {"n": 7})
        done = await engine.wait(id)
        return done.result, await unread(engine, id)

    assert system.live(system.app(waits), scenario) == ({"n": 7}, [])


def test_02_a_signal_that_came_before_any_worker_is_taken_at_the_first_await(system):
    """Stored while nobody worked, it is there when the flow comes to its wait."""

    async def send(engine):
        id = await engine.start("waits")
        await engine.signal(id, "go", "early")
        return id

    id = system.live(system.app(waits), send, work=False)

    async def work(engine):
        return (await engine.wait(id)).result

    assert system.live(system.app(waits), work) == "early"


def test_03_a_signal_that_nobody_waits_for_moves_nothing(system, noting):
    """It stays in the inbox and the flow is not moved: the instance waits as before.

    In GenDurable it doesn't even wake. Here a worker looks once, which costs a claim and a
    turn without an entry: which names an instance waits for is known to its pending set, and
    no column repeats it.
    """
    drives = []

    def f(_):
        drives.append(1)
        first = yield tf.wait_signal("go")
        return [first, (yield tf.wait_signal("other"))]

    store = noting(system.store())

    async def scenario(engine):
        id = await idle(engine, "f")
        turns = store.count(Turn)
        await engine.signal(id, "other", 1)
        await engine.run_until_idle()
        assert (await engine.get(id)).waiting == ("wait_signal:go#0",)
        assert await unread(engine, id) == ["other"]
        await trio.sleep(500)
        assert store.count(Turn) <= turns + 1
        assert (await engine.get(id)).log_length == 0
        assert drives == [1]
        await engine.signal(id, "go", 0)
        return (await engine.wait(id)).result

    assert system.live(system.app(f, store=store), scenario) == [0, 1]


@pytest.mark.parametrize("sent", ["paid", "cancelled"])
def test_04_any_one_of_a_set_wakes_and_tells_which(system, sent):
    """A wait for several names takes the first that comes; the flow branches on its name."""

    def f(_):
        got = yield tf.wait_signal(["paid", "cancelled", "expired"])
        if got.name == "paid":
            return ["ship", got.payload]
        return ["drop", got.payload]

    async def scenario(engine):
        id = await idle(engine, "f")
        await engine.signal(id, sent, 1)
        return (await engine.wait(id)).result

    expected = {"paid": ["ship", 1], "cancelled": ["drop", 1]}
    assert system.live(system.app(f), scenario) == expected[sent]


def test_05_a_pack_out_of_order_is_gathered_and_done_once(system):
    """b, a, c are all needed: whatever the order, they sum to 7 and are worked on once.

    GenDurable awaits again until its pack is whole; here `gather` waits for each name.
    """
    worked = []

    def work(numbers):
        worked.append(numbers)
        return sum(numbers)

    def f(_):
        found = yield tf.gather(*(tf.wait_signal(name) for name in "abc"))
        return (yield tf.call(work, found))

    async def scenario(engine):
        id = await idle(engine, "f")
        for name, n in (("b", 2), ("a", 1), ("c", 4)):
            assert not worked
            await engine.signal(id, name, n)
            await engine.run_until_idle()
        return (await engine.wait(id)).result

    assert system.live(system.app(f), scenario) == 7
    assert worked == [[1, 2, 4]]


def test_06_waiting_again_beside_what_was_seen_parks_without_spinning(system, noting):
    """Messages that were looked at but not taken don't wake it again; a new one does."""

    def f(_):
        seen = yield tf.inbox()
        while len(seen) < 3:
            yield tf.wait_signal("more")
            seen = yield tf.inbox()
        return [each.payload for each in seen]

    store = noting(system.store())

    async def scenario(engine):
        id = await engine.start("f")
        await engine.signal(id, "part", 1)
        await engine.signal(id, "part", 2)
        await engine.run_until_idle()
        turns = store.count(Turn)
        await trio.sleep(500)
        assert (await engine.get(id)).status == "waiting"
        assert store.count(Turn) == turns
        await engine.signal(id, "part", 3)
        await engine.signal(id, "more")
        return (await engine.wait(id)).result

    assert system.live(system.app(f, store=store), scenario) == [1, 2, 3]


def test_07_a_retried_step_sees_the_same_signal(system):
    """Each attempt of the step after a wait gets the payload that was taken once."""
    seen = []

    def step(payload):
        seen.append((payload, tf.step_context().attempt))
        if len(seen) < 3:
            raise OSError
        return payload

    def f(_):
        got = yield tf.wait_signal("go")
        return (yield tf.call(step, got).using(retry=tf.RetryPolicy(max_attempts=3)))

    async def scenario(engine):
        id = await idle(engine, "f")
        await engine.signal(id, "go", "first")
        await engine.signal(id, "go", "second")
        return (await engine.wait(id)).result

    assert system.live(system.app(f), scenario) == "first"
    assert seen == [("first", 1), ("first", 2), ("first", 3)]


def test_08_a_timeout_wakes_with_nothing_and_is_no_failure(system):
    """The flow goes on with its default, at the deadline and not half a minute after it.

    GenDurable's deadline is swept every 30 s; here each has its own timer.
    """

    def f(_):
        got = yield tf.wait_signal("go", timeout=90, default="nothing")
        return [got, (yield tf.now()).timestamp()]

    async def scenario(engine):
        id = await engine.start("f")
        created = (await engine.get(id)).created
        got, at = (await engine.wait(id)).result
        return got, at - created

    got, took = system.live(system.app(f), scenario)
    assert got == "nothing"
    assert 90 <= took <= 91


def test_08_a_signal_before_the_deadline_wins(system):
    """It is taken, and the deadline passes unnoticed."""

    def f(_):
        got = yield tf.wait_signal("go", timeout=90, default="nothing")
        yield tf.sleep(200)
        return got

    async def scenario(engine):
        id = await idle(engine, "f")
        await trio.sleep(89)
        await engine.signal(id, "go", "just in time")
        done = await engine.wait(id)
        return done.result, done.log_length

    assert system.live(system.app(f), scenario) == ("just in time", 2)


def test_09_only_what_is_past_its_deadline_expires(system):
    """Of three that wait one is overdue, one not yet, and one has no deadline at all."""

    def f(timeout):
        if timeout is None:
            return (yield tf.wait_signal("go"))
        return (yield tf.wait_signal("go", timeout=timeout, default="expired"))

    async def begin(engine):
        return [await idle(engine, "f", timeout) for timeout in (10, 1000, None)]

    ids = system.live(system.app(f), begin)

    async def later(engine):
        await trio.sleep(500)
        return [(await engine.get(id)).status for id in ids]

    assert system.live(system.app(f), later) == ["done", "waiting", "waiting"]


def test_10_progress_takes_what_was_handed_out_and_the_end_clears_the_rest(system):
    """A wait takes one message; others survive it, and no row outlives the instance."""

    def f(_):
        yield tf.wait_signal("go")
        yield tf.wait_signal("end")

    async def scenario(engine):
        id = await idle(engine, "f")
        for name in ("go", "go", "never awaited"):
            await engine.signal(id, name)
        await engine.run_until_idle()
        between = await unread(engine, id)
        await engine.signal(id, "end")
        await engine.wait(id)
        return between, engine._store.counts().inbox

    assert system.live(system.app(f), scenario) == (["go", "never awaited"], 0)


def test_11_one_key_is_one_row_and_no_key_is_never_a_repeat(system):
    """Twice under a key is one message, told as a repeat; two without are two more."""

    async def scenario(engine):
        id = await idle(engine, "waits")
        stored = [await engine.signal(id, "later", 1, dedup=key) for key in ("k", "k")]
        stored += [await engine.signal(id, "later", 1) for _ in range(2)]
        return stored, len(await unread(engine, id))

    assert system.live(system.app(waits), scenario) == ([True, False, True, True], 3)


def test_12_no_target_stores_nothing(system):
    """An ended and an unknown instance are told apart, and neither leaves a row."""

    async def scenario(engine):
        id = await idle(engine, "waits")
        await engine.terminate(id)
        with pytest.raises(tf.InstanceEnded, match="cancelled"):
            await engine.signal(id, "go")
        with pytest.raises(tf.UnknownInstance):
            await engine.signal("nobody-of-this-id-is", "go")
        return engine._store.counts().inbox

    assert system.live(system.app(waits), scenario) == 0


# --- keys


def test_13_a_business_key_is_an_address_while_it_is_held(system):
    """A signal by key finds its holder; none holds it before the start nor after the end."""

    async def scenario(engine):
        with pytest.raises(tf.UnknownInstance, match="order-1"):
            await engine.signal(key="order-1", name="go")
        found = []
        for n in range(2):
            id = await idle(engine, "waits", n, key="order-1")
            await engine.signal(key="order-1", name="go", payload=n)
            found.append((await engine.wait(id)).result)
            with pytest.raises(tf.UnknownInstance, match="order-1"):
                await engine.signal(key="order-1", name="go")
        return found, engine._store.counts().inbox

    assert system.live(system.app(waits), scenario) == ([0, 1], 0)


def test_14_a_held_key_is_not_given_twice(system):
    """The same start again gives the holder's id, another input is refused.

    GenDurable answers `duplicate` to both, and can reserve a key beyond the end. Better: who
    repeats a start gets what it wanted, and whoever wants something else hears it. What must
    never start twice, ended or not, is an activity's content.
    """

    async def scenario(engine):
        first = await idle(engine, "waits", 1, key="k")
        assert await engine.start("waits", 1, key="k") == first
        with pytest.raises(tf.KeyTaken, match=first):
            await engine.start("waits", 2, key="k")
        assert await engine.start("waits", 2, key="k", namespace="other") != first
        await engine.signal(first, "go")
        await engine.wait(first)
        return await engine.start("waits", 1, key="k") == first

    assert system.live(system.app(waits), scenario) is False


def test_14_a_batch_knows_repeats_within_itself_and_of_before(system):
    """Of many activities each new one starts once, also where it stands twice in the batch."""
    app = system.app(waits)
    app.trigger("t", on="Note", start="waits")

    def note(n):
        return {"type": "Note", "actor": "ann", "n": n}

    async def scenario(engine):
        await engine.append(note(0))
        found = await engine.append_many([note(0), note(1), note(2), note(1)])
        await engine.run_until_idle()
        return [each.duplicate for each in found], engine._store.counts().instances

    expected = ([True, False, False, True], {"waiting": 3})
    assert system.live(app, scenario) == expected
