"""Child flows: started once, joined, cancelled, and told apart from their neighbours."""

from __future__ import annotations

import pytest

import triggerflow as tf


def double(number):
    return number * 2


@pytest.fixture
def app(new_app, make_store):
    """An app with a few children."""
    app = new_app(make_store())

    @app.flow
    def doubled(number):
        return (yield tf.call(double, number))

    @app.flow
    def patient(name):
        try:
            return (yield tf.wait_signal("go"))
        except tf.FlowCancelled:
            yield tf.side_effect(lambda: None)
            raise

    @app.flow
    def broken(_):
        yield tf.sleep(1)
        raise ValueError("no luck")

    return app


def test_child_returns_its_result(app, live):
    """A parent gets its child's result, and the child knows its parent."""

    @app.flow
    def parent(_):
        return (yield tf.child("doubled", 21))

    async def main(engine):
        id = await engine.start(parent, correlation_id="c", namespace="n")
        done = await engine.wait(id)
        (child,) = [each async for each in engine.instances(flow="doubled")]
        assert (child.parent, child.status, child.result) == (id, "done", 42)
        assert (child.correlation_id, child.namespace) == ("c", "n")
        return done.result, [entry.tag for entry in await engine.log(id)]

    assert live(app, main) == (42, ["child:doubled#0"])


def test_spawn_then_join(app, live):
    """A spawned child runs beside its parent; its ref joins it, more than once."""

    @app.flow
    def parent(_):
        refs = []
        for number in range(3):
            refs.append((yield tf.spawn("doubled", number)))
        first = yield tf.gather(*map(tf.join, refs))
        again = yield tf.join(refs[2])
        return first, again, refs[0]

    async def main(engine):
        done = await engine.wait(await engine.start(parent))
        first, again, ref = done.result
        assert isinstance(ref, tf.ChildRef)
        return first, again

    assert live(app, main) == ([0, 2, 4], 4)


def test_failure_of_a_child_is_raised(app, live):
    """A failed child raises `ChildFailed` with the original as data, or is a value."""

    @app.flow
    def parent(_):
        try:
            yield tf.child("broken")
        except tf.ChildFailed as failed:
            assert failed.flow == "broken"
            message = failed.failure.message
        (value,) = yield tf.gather(tf.child("broken"), return_failures=True)
        return message, str(value)

    async def main(engine):
        return (await engine.wait(await engine.start(parent))).result

    message, value = live(app, main)
    assert message == "no luck"
    assert value == "child flow 'broken' failed: ValueError: no luck"


def test_timed_out_child_is_no_timeout_of_its_parent(app, live):
    """A child that fails with its own `TimedOut` fails its join; the join did not time out."""

    @app.flow
    def slow(_):
        yield tf.wait_signal("never", timeout=1)

    @app.flow
    def parent(_):
        ref = yield tf.spawn("slow")
        return (yield tf.join(ref, timeout=100, default="default"))

    async def main(engine):
        return await engine.wait(await engine.start(parent))

    found = live(app, main)
    assert found.status == "failed"
    assert found.failure.type == "ChildFailed"


def test_join_times_out_and_is_tried_again(app, live):
    """A join's timeout leaves the child alone; a later join still gets its result."""

    @app.flow
    def parent(_):
        ref = yield tf.spawn("patient", "a")
        early = yield tf.join(ref, timeout=5, default="not yet")
        yield tf.signal(ref, "go", 7)
        return early, (yield tf.join(ref))

    async def main(engine):
        return (await engine.wait(await engine.start(parent))).result

    assert live(app, main) == ["not yet", 7]


def test_losing_child_is_cancelled_and_losing_join_is_not(app, live):
    """A `child` that loses a race gets a cancel; a `join` that loses leaves its child be."""

    @app.flow
    def parent(_):
        ref = yield tf.spawn("patient", "joined")
        won = yield tf.race(tf.child("patient", "lost"), tf.join(ref), tf.sleep(1))
        return won.index

    async def main(engine):
        id = await engine.start(parent)
        assert (await engine.wait(id)).result == 2
        await engine.run_until_idle()
        return {each.input: each.status async for each in engine.instances(flow="patient")}

    assert live(app, main) == {"joined": "waiting", "lost": "cancelled"}


def test_child_that_loses_in_the_turn_that_armed_it_never_starts(app, live):
    """A race that is decided at once starts no child."""

    @app.flow
    def parent(_):
        return (yield tf.race(tf.child("patient", "late"), _now())).index

    def _now():
        return 1
        yield

    async def main(engine):
        result = (await engine.wait(await engine.start(parent))).result
        return result, [each async for each in engine.instances(flow="patient")]

    assert live(app, main) == (1, [])


@pytest.mark.parametrize("verb", ["cancel", "terminate"])
def test_cancel_cascades(app, live, verb):
    """Cancelling or terminating a parent cancels its children, but for abandoned ones."""

    @app.flow
    def middle(_):
        yield tf.child("patient", "grandchild")

    @app.flow
    def parent(_):
        yield tf.spawn("patient", "abandoned", abandon=True)
        yield tf.spawn("patient", "spawned")
        yield tf.child("middle")

    async def main(engine):
        id = await engine.start(parent)
        await engine.run_until_idle()
        await getattr(engine, verb)(id)
        await engine.run_until_idle()
        assert (await engine.get(id)).status == "cancelled"
        return {each.input: each.status async for each in engine.instances(flow="patient")}

    assert live(app, main) == {
        "abandoned": "waiting",
        "spawned": "cancelled",
        "grandchild": "cancelled",
    }


def test_parent_that_ends_leaves_its_children_alone(app, live):
    """A parent that returns without joining cancels nobody."""

    @app.flow
    def parent(_):
        yield tf.spawn("patient", "free")

    async def main(engine):
        await engine.wait(await engine.start(parent))
        await engine.run_until_idle()
        return [each.status async for each in engine.instances(flow="patient")]

    assert live(app, main) == ["waiting"]


def test_cancel_from_the_flow(app, live):
    """`cancel(ref)` ends one child; its join raises, and the failure's kind says why."""

    @app.flow
    def parent(_):
        ref = yield tf.spawn("patient", "a")
        yield tf.cancel(ref)
        yield tf.cancel(ref)
        try:
            yield tf.join(ref)
        except tf.ChildFailed as failed:
            return failed.failure.kind

    async def main(engine):
        return (await engine.wait(await engine.start(parent))).result

    assert live(app, main) == "cancelled"


def test_key_of_a_child_is_unique(app, live):
    """A child whose key is held fails at its yield, whoever holds it; the flow goes on."""

    @app.flow
    def parent(_):
        yield tf.spawn("patient", "a", key="one")
        try:
            yield tf.spawn("patient", "b", key="one")
        except tf.StepFailed as failed:
            first = failed.failure.type
        try:
            yield tf.child("patient", "c", key="other")
        except tf.ChildFailed as failed:
            return first, failed.failure.type

    async def main(engine):
        await engine.start("patient", "holder", key="other")
        found = await engine.wait(await engine.start(parent))
        return found.result, [each.input async for each in engine.instances(flow="patient")]

    assert live(app, main) == (["KeyTaken", "KeyTaken"], ["holder", "a"])


def test_nesting_has_a_limit(app, live):
    """A flow that starts itself fails at a named depth instead of filling the store."""

    @app.flow
    def again(_):
        return (yield tf.child("again"))

    async def main(engine):
        found = await engine.wait(await engine.start("again"))
        count = len([each async for each in engine.instances(flow="again")])
        return found.failure.message, count

    message, count = live(app, main)
    assert "over the limit of 32" in message
    assert count == 33


def test_foreign_child_is_refused(app, live):
    """Only the parent may join a child; others hear who may."""

    @app.flow
    def thief(ref):
        yield tf.join(ref)

    @app.flow
    def parent(_):
        ref = yield tf.spawn("patient", "a")
        yield tf.child("thief", ref)

    async def main(engine):
        return (await engine.wait(await engine.start(parent))).failure.message

    assert "let its own parent join it" in live(app, main)


def test_child_of_an_unknown_flow_blocks(app, live):
    """A child of a flow that nobody knows is blocked, and its parent waits."""

    @app.flow
    def parent(_):
        yield tf.child("nobody")

    async def main(engine):
        id = await engine.start(parent)
        await engine.run_until_idle()
        (child,) = [each async for each in engine.instances(flow="nobody")]
        return (await engine.get(id)).status, child.status, child.cause

    assert live(app, main) == ("waiting", "blocked", "unknown_flow")


def test_parent_is_killed_while_its_child_runs(app, killed, live):
    """A restarted parent means the same child and gets its result."""

    @app.flow
    def parent(_):
        return (yield tf.child("patient", "a"))

    async def before(engine):
        id = await engine.start(parent)
        await engine.run_until_idle()
        return id

    id = killed(app, before)

    async def after(engine):
        (child,) = [each async for each in engine.instances(flow="patient")]
        await engine.signal(child.id, "go", "well")
        done = await engine.wait(id)
        return done.result, len([each async for each in engine.instances()])

    assert live(app, after) == ("well", 2)


def test_child_that_ended_unheard_is_joined_later(app, killed, live):
    """A child that ended before anybody joined it still gives its result after a restart."""

    @app.flow
    def parent(_):
        ref = yield tf.spawn("doubled", 4)
        yield tf.wait_signal("join")
        return (yield tf.join(ref))

    async def before(engine):
        id = await engine.start(parent)
        await engine.run_until_idle()
        return id

    id = killed(app, before)

    async def after(engine):
        await engine.signal(id, "join")
        return (await engine.wait(id)).result

    assert live(app, after) == 8


def test_changed_input_of_a_child_diverges(app, new_app, make_store, live):
    """A child that is asked for with another input than the stored one blocks its parent."""
    store = make_store()
    first, second = new_app(store, build="one"), new_app(store, build="two")
    for each, value in ((first, 1), (second, 2)):

        @each.flow
        def parent(_, value=value):
            yield tf.child("nobody", value)

    async def begin(engine):
        id = await engine.start("parent")
        await engine.run_until_idle()
        return id

    id = live(first, begin)

    async def replay(engine):
        with pytest.raises(tf.Diverged) as diverged:
            await engine.replay(id)
        return diverged.value.reason

    assert live(second, replay) == "pending"


def test_retried_child_tells_again(app, live):
    """A failed child that is retried and ends well tells its parent once more."""
    tries = []

    def flaky():
        tries.append(1)
        if len(tries) == 1:
            raise ValueError("once")
        return "fine"

    @app.flow
    def wavering(_):
        return (yield tf.call(flaky))

    @app.flow
    def parent(_):
        ref = yield tf.spawn("wavering")
        try:
            yield tf.join(ref)
        except tf.ChildFailed:
            yield tf.wait_signal("again")
            return (yield tf.join(ref))

    async def main(engine):
        id = await engine.start(parent)
        await engine.run_until_idle()
        (child,) = [each async for each in engine.instances(flow="wavering")]
        await engine.retry(child.id)
        await engine.wait(child.id)
        await engine.signal(id, "again")
        return (await engine.wait(id)).result

    assert live(app, main) == "fine"


def test_thousands_of_children(app, live):
    """Two thousand children are spawned and joined; the log has one entry for each of both."""

    @app.flow
    def parent(count):
        refs = []
        for number in range(count):
            refs.append((yield tf.spawn("doubled", number)))
        return sum((yield tf.gather(*map(tf.join, refs))))

    async def main(engine):
        id = await engine.start(parent, 2000)
        done = await engine.wait(id)
        return done.result, done.log_length

    assert live(app, main) == (2 * sum(range(2000)), 4000)


def test_first_two_of_three_with_a_deadline(app, live):
    """`gather(count=)` in a race with a sleep joins k of n with a deadline."""

    @app.flow
    def parent(_):
        refs = yield tf.gather(*(tf.spawn("patient", name) for name in "abc"))
        yield tf.signal(refs[0], "go", "A")
        yield tf.signal(refs[2], "go", "C")
        won = yield tf.race(tf.gather(*map(tf.join, refs), count=2), tf.sleep(60))
        return won.index, sorted(each.value for each in won.value)

    async def main(engine):
        return (await engine.wait(await engine.start(parent))).result

    assert live(app, main) == [0, ["A", "C"]]


def test_retry_waits_for_the_same_child_again(app, live):
    """A retried parent doesn't start the child of its voided failure a second time."""
    tries = []

    def flaky():
        tries.append(1)
        if len(tries) == 1:
            raise ValueError("once")
        return "fine"

    def late():
        yield tf.sleep(10)
        return (yield tf.call(flaky))

    @app.flow
    def parent(_):
        return (yield tf.gather(tf.child("doubled", 4, key="k"), late()))

    @app.flow
    def other(_):
        return (yield tf.gather(tf.child("patient", 4), tf.call(flaky)))

    async def main(engine):
        first = await engine.start(other)
        failed = await engine.wait(first)
        await engine.retry(first)
        again = await engine.wait(first, timeout=100)
        tries.clear()
        second = await engine.start(parent)
        await engine.wait(second)
        await engine.retry(second)
        return failed.failure.type, again.failure.type, (await engine.wait(second)).result

    # A sibling of what failed was cancelled, and stays so; one that had ended has its result.
    assert live(app, main) == ("StepFailed", "ChildFailed", [8, "fine"])
