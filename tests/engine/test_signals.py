"""Signals in full: all at once, a look into the inbox, by key, and declared ones."""

from __future__ import annotations

import pytest
import trio

import triggerflow as tf
from triggerflow.engine import executor
from triggerflow.engine.turn import take


def test_all_takes_everything_that_is_there(new_app, live):
    """`all=True` takes every message of the names that has come, in order, in one entry."""
    app = new_app()

    @app.flow
    def packs(_):
        yield tf.wait_signal("go")
        one = yield tf.wait_signal("item", all=True)
        both = yield tf.wait_signal(["item", "other"], all=True)
        none = yield tf.wait_signal("item", all=True, timeout=5, default="nothing")
        return [one, [[s.name, s.payload] for s in both], none]

    async def scenario(engine):
        id = await engine.start(packs)
        for number in range(3):
            await engine.signal(id, "item", number)
        await engine.signal(id, "go")
        await engine.run_until_idle()
        await engine.signal(id, "other", "x")
        found = await engine.wait(id)
        return found.result, [e.tag for e in await engine.log(id)], await engine.replay(id)

    result, tags, again = live(app, scenario)
    assert result == [[0, 1, 2], [["other", "x"]], "nothing"]
    assert tags == [
        "wait_signal:go#0",
        "wait_signal:item#0",
        "wait_signal:item|other#0",
        "wait_signal:item#1",
    ]
    assert again == tf.Done(result)


def test_inbox_looks_and_consumes_nothing(new_app, live):
    """`inbox()` gives what is there, by name if asked; the messages stay."""
    app = new_app()

    @app.flow
    def curious(_):
        yield tf.wait_signal("go")
        every = yield tf.inbox()
        some = yield tf.inbox("b")
        first = yield tf.wait_signal("a")
        left = yield tf.inbox()
        return [
            [s.name for s in every],
            [s.payload for s in some],
            first,
            [s.name for s in left],
        ]

    async def scenario(engine):
        id = await engine.start(curious)
        for name, payload in (("a", 1), ("b", 2), ("a", 3), ("go", None)):
            await engine.signal(id, name, payload)
        found = await engine.wait(id)
        return found.result, await engine.replay(id)

    result, again = live(app, scenario)
    assert result == [["a", "b", "a"], [2], 1, ["b", "a"]]
    assert again == tf.Done(result)


def test_signal_by_business_key(new_app, live):
    """A signal finds the live instance by its key; an ambiguous or unknown key says so."""
    app = new_app()

    @app.flow
    def order(_):
        return (yield tf.wait_signal("paid"))

    @app.flow
    def parcel(_):
        return (yield tf.wait_signal("paid"))

    async def scenario(engine):
        id = await engine.start(order, key="7")
        await engine.signal(name="paid", payload=1, key="7")
        assert (await engine.wait(id)).result == 1
        with pytest.raises(tf.UnknownInstance, match="key '7'"):
            await engine.signal(name="paid", key="7")
        one, other = await engine.start(order, key="8"), await engine.start(parcel, key="8")
        with pytest.raises(tf.UnknownInstance, match="several"):
            await engine.signal(name="paid", key="8")
        await engine.signal(name="paid", payload=2, key="8", flow="parcel")
        assert (await engine.wait(other)).result == 2
        assert (await engine.get(one)).status == "waiting"
        with pytest.raises(tf.DefinitionError):
            await engine.signal(name="paid")

    live(app, scenario)


def test_declared_signals_are_checked_before_the_inbox(new_app, live):
    """A flow that declares its signals refuses others, and bad payloads, unstored."""
    app = new_app()

    def positive(payload):
        if payload["sum"] <= 0:
            raise ValueError("a sum is above 0")

    @app.flow(signals={"paid": positive, "note": None, "flag": lambda payload: payload is True})
    def order(_):
        return (yield tf.wait_signal("paid"))

    @app.flow(signals=["any"])
    def other(_):
        yield tf.wait_signal("any")

    async def scenario(engine):
        id = await engine.start(order)
        for name, payload, words in (
            ("payed", {"sum": 1}, "takes 'paid', 'note', 'flag'"),
            ("paid", {"sum": 0}, "ValueError: a sum is above 0"),
            ("paid", 5, "TypeError"),
            ("flag", 1, "returned False"),
        ):
            with pytest.raises(tf.SignalRefused, match=words):
                await engine.signal(id, name, payload)
        assert await engine.signal(id, "note", "x")
        await engine.signal(id, "paid", {"sum": 3})
        assert (await engine.wait(id)).result == {"sum": 3}
        await engine.signal(await engine.start(other), "any")

    live(app, scenario)


@pytest.mark.parametrize("signals", ["reply", 5, {"a/b": None}, {"a": 5}])
def test_bad_declarations_are_refused(new_app, signals):
    """A declaration that can't be meant is refused where it is written."""
    app = new_app()
    with pytest.raises(tf.DefinitionError, match="flow 'f'"):

        @app.flow(name="f", signals=signals)
        def flow(_):
            yield tf.sleep(1)


@pytest.fixture
def turns(monkeypatch):
    """Counts the turns that are taken."""
    taken = []

    def counted(run, replay, **rest):
        taken.append(run.id)
        return take(run, replay, **rest)

    monkeypatch.setattr(executor, "take", counted)
    return taken


def test_signal_that_nobody_awaits_costs_no_turn(new_app, live, turns):
    """A parked flow sleeps through other signals, and finds them when it looks."""
    app = new_app()

    @app.flow
    def picky(_):
        won = yield tf.race(tf.wait_signal("a"), tf.wait_signal(["b", "c"], timeout=60))
        left = yield tf.inbox()
        later = yield tf.wait_signal("other")
        return [won.index, [each.payload for each in left], later]

    async def scenario(engine):
        id = await engine.start(picky)
        await engine.run_until_idle()
        before = len(turns)
        for number in range(50):
            await engine.signal(id, "other", number)
            await engine.run_until_idle()
        asleep = len(turns) - before
        waiting = (await engine.get(id)).status
        await engine.signal(id, "c", "go")
        return asleep, waiting, (await engine.wait(id)).result

    assert live(app, scenario) == (0, "waiting", [1, list(range(50)), 0])


def test_signal_that_nobody_awaits_costs_no_turn_while_a_step_runs(new_app, live, turns):
    """An owned flow takes no turn for them either, and reads each once."""
    app = new_app()
    go, begun = trio.Event(), trio.Event()

    async def long():
        begun.set()
        await go.wait()

    @app.flow
    def busy(_):
        yield tf.call(long)
        return [(yield tf.wait_signal("other")), (yield tf.wait_signal("other", all=True))]

    async def scenario(engine):
        id = await engine.start(busy)
        await begun.wait()
        before = len(turns)
        for number in range(50):
            await engine.signal(id, "other", number)
        asleep = len(turns) - before
        go.set()
        return asleep, (await engine.wait(id)).result

    assert live(app, scenario) == (0, [0, list(range(1, 50))])
