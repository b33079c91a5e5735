"""Values as deep and as large as they may be, with what the engine puts round them."""

from __future__ import annotations

import pytest

import triggerflow as tf

DEEPEST = 127
MEGABYTE = 1024 * 1024


def nested(depth):
    value = 1
    for _ in range(depth):
        value = [value]
    return value


def ok(*_args, **_named):
    return "ok"


@pytest.mark.parametrize(
    ("args", "named"),
    [
        ((nested(DEEPEST),), {}),
        (("x" * 9 * MEGABYTE,), {"more": "x" * 9 * MEGABYTE}),
    ],
    ids=["deep", "large"],
)
def test_arguments_at_the_limit_harm_no_engine(new_app, make_store, live, args, named):
    """They are kept with a list round them, which the loop must be able to read again."""
    app = new_app(make_store())

    @app.step
    def step(*_args, **_named):
        return "ok"

    @app.flow
    def flow(_):
        here = yield tf.call(ok, *args, **named)
        return here, (yield tf.call(step, *args, **named).using(queue="gpu"))

    async def main(engine):
        return (await engine.wait(await engine.start(flow), timeout=60)).result

    assert live(app, main, queues=["gpu"]) == ["ok", "ok"]


def test_deep_activity_reaches_the_waits_and_stops_none(new_app, make_store, live):
    """A document of the greatest depth is an activity like any other, for waits too."""
    app = new_app(make_store())

    @app.flow
    def flow(_):
        first = yield tf.wait_activity({"type": ["A"]})
        second = yield tf.wait_activity({"type": ["B"]})
        return first["object"] == nested(DEEPEST), second["type"]

    async def main(engine):
        id = await engine.start(flow)
        await engine.run_until_idle()
        for kind, what in (("A", nested(DEEPEST)), ("B", 1)):
            await engine.append(
                {"type": kind, "actor": "https://a.example/ann", "object": what}
            )
        return (await engine.wait(id, timeout=60)).result

    assert live(app, main) == [True, "B"]


@pytest.mark.parametrize("names", ["n", ["n", "m"]], ids=["one", "several"])
def test_all_signals_are_as_many_as_a_value_holds(new_app, make_store, live, names):
    """More than fit are left for the next wait; the instance isn't blocked by them."""
    app = new_app(make_store())

    @app.flow
    def flow(_):
        yield tf.wait_signal("go")
        got = []
        while sum(got) < 4:
            got.append(len((yield tf.wait_signal(names, all=True))))
        return got

    async def main(engine):
        id = await engine.start(flow)
        for _ in range(4):
            await engine.signal(id, "n", "x" * 6 * MEGABYTE)
        await engine.signal(id, "go")
        return (await engine.wait(id, timeout=60)).result

    assert live(app, main) == [2, 2]


def test_deep_signals_are_taken_with_their_names(new_app, make_store, live):
    """The name beside a payload of the greatest depth is no level too many."""
    app = new_app(make_store())

    @app.flow
    def flow(_):
        yield tf.wait_signal("go")
        seen = yield tf.inbox()
        one = yield tf.wait_signal(["n", "m"])
        rest = yield tf.wait_signal(["n", "m"], all=True)
        return len(seen), one.name, len(rest)

    async def main(engine):
        id = await engine.start(flow)
        for _ in range(3):
            await engine.signal(id, "n", nested(DEEPEST + 1))
        await engine.signal(id, "go")
        return (await engine.wait(id, timeout=60)).result

    assert live(app, main) == [3, "n", 2]


def test_inbox_that_is_too_large_fails_the_look(new_app, make_store, live):
    """It fails as a value that can't be kept, with a reason; the flow goes on."""
    app = new_app(make_store())

    @app.flow
    def flow(_):
        yield tf.wait_signal("go")
        try:
            yield tf.inbox()
        except tf.StepFailed as failed:
            return failed.failure.type

    async def main(engine):
        id = await engine.start(flow)
        for _ in range(7):
            await engine.signal(id, "n", "x" * 8 * MEGABYTE)
        await engine.signal(id, "go")
        return (await engine.wait(id, timeout=60)).result

    assert live(app, main) == "EncodingRefused"


@pytest.mark.parametrize(
    ("given", "returned"),
    [("x" * 12 * MEGABYTE, "y" * 12 * MEGABYTE), (1, nested(DEEPEST + 1))],
    ids=["large", "deep"],
)
@pytest.mark.parametrize("replayed", [False, True])
def test_compensation_gets_a_result_beside_its_arguments(
    new_app, make_store, live, given, returned, replayed
):
    """Each may be as large or deep as a value may be: what was done is undone all the same."""
    app = new_app(make_store())
    undone = []

    def charge(_given):
        return returned

    def refund(result, what):
        undone.append((result == returned, what == given))

    @app.flow
    def flow(_):
        yield tf.call(charge, given).using(compensate=refund)
        found = yield tf.compensate_all()
        yield tf.sleep(1)
        return found

    async def main(engine):
        return (await engine.wait(await engine.start(flow), timeout=60)).result

    assert live(app, main, always_replay=replayed) == [None]
    assert undone == [(True, True)]
