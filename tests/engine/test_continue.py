"""`continue_as_new`: a new generation under the same id, with what belongs to it."""

from __future__ import annotations

import pytest
import trio

import triggerflow as tf


@pytest.fixture
def app(new_app, make_store):
    return new_app(make_store())


def test_endless_flow_has_a_short_log(app, live):
    """Each generation has a log of its own, and old ones go."""

    @app.flow
    def count(number):
        got = yield tf.wait_signal("next")
        if got == "stop":
            return number
        yield tf.continue_as_new(number + 1)

    async def main(engine):
        id = await engine.start(count, 0)
        for _ in range(5):
            await engine.signal(id, "next")
        await engine.signal(id, "next", "stop")
        done = await engine.wait(id)
        record = engine._store.instance(id)
        kept = [len(engine._store.log(record.number, each)) for each in range(1, 7)]
        return done.result, done.generation, done.log_length, kept

    # The present generation's log and the one before it are kept.
    assert live(app, main) == (5, 6, 1, [0, 0, 0, 0, 1, 1])


def test_signals_and_children_go_along(app, live):
    """Unread signals, and children that weren't joined, belong to the next generation."""

    @app.flow
    def child(name):
        yield tf.wait_signal("go")
        return name

    @app.flow
    def parent(state):
        if state is None:
            early = yield tf.spawn("child", "early")
            late = yield tf.spawn("child", "late")
            yield tf.signal(early, "go")
            yield tf.join(early)
            yield tf.wait_signal("turn over")
            yield tf.continue_as_new({"refs": [early, late]})
        early, late = state["refs"]
        kept = yield tf.wait_signal("kept")
        yield tf.signal(late, "go")
        return kept, (yield tf.gather(tf.join(early), tf.join(late)))

    async def main(engine):
        id = await engine.start(parent)
        await engine.signal(id, "kept", 1)
        await engine.signal(id, "turn over")
        return (await engine.wait(id)).result

    assert live(app, main) == [1, ["early", "late"]]


def test_in_a_branch_it_is_refused(app, live):
    """A branch can't end its flow's generation."""

    def branch():
        yield tf.continue_as_new(1)

    @app.flow
    def f(_):
        try:
            yield tf.gather(branch())
        except tf.EffectMisused as misused:
            return str(misused)

    async def main(engine):
        return (await engine.wait(await engine.start(f))).result

    assert "inside a branch" in live(app, main)


def test_debts_must_be_paid_or_dropped(app, live):
    """With compensations left it is refused, unless they are dropped by name."""

    def pay():
        return 1

    def refund(result):
        raise AssertionError

    @app.flow
    def f(state):
        if state:
            return state, (yield tf.compensate_all())
        yield tf.call(pay).using(compensate=refund)
        try:
            yield tf.continue_as_new("refused")
        except tf.EffectMisused as misused:
            yield tf.continue_as_new(str(misused), compensations="drop")

    async def main(engine):
        return (await engine.wait(await engine.start(f))).result

    words, owed = live(app, main)
    assert "1 compensations are left" in words
    assert owed == []


def test_next_generation_takes_the_latest_version(new_app, make_store, live):
    """An instance is pinned to its version until it continues as new."""
    store = make_store()
    old, new = new_app(store, build="old"), new_app(store, build="new")

    def first(state):
        yield tf.wait_signal("next")
        yield tf.continue_as_new("went on")

    def second(state):
        yield tf.now()
        return 2, state

    for app in (old, new):
        app.register(tf.flow(name="f", version=1)(first))
    new.register(tf.flow(name="f", version=2)(second))

    async def begin(engine):
        id = await engine.start("f")
        await engine.run_until_idle()
        return id

    id = live(old, begin)

    async def go_on(engine):
        assert (await engine.get(id)).version == 1
        await engine.signal(id, "next")
        done = await engine.wait(id)
        return done.version, done.result

    assert live(new, go_on) == (2, [2, "went on"])


def test_patches_and_seeds_are_a_generations_own(app, live):
    """`uuid4` differs from one generation to the next, and is the same in a replay."""

    @app.flow
    def f(seen):
        seen = [*(seen or []), str((yield tf.uuid4()))]
        if len(seen) < 3:
            yield tf.continue_as_new(seen)
        return seen

    async def main(engine):
        id = await engine.start(f)
        result = (await engine.wait(id)).result
        return result, (await engine.replay(id)).result

    result, replayed = live(app, main)
    assert len(set(result)) == 3
    assert replayed == result


def test_killed_between_generations(app, killed, live):
    """A worker that dies after the turn-over leaves exactly one successor."""

    @app.flow
    def f(state):
        if state is None:
            yield tf.continue_as_new(1)
        yield tf.wait_signal("go")
        return state

    async def before(engine):
        id = await engine.start(f)
        await engine.run_until_idle()
        return id

    id = killed(app, before)

    async def after(engine):
        await engine.signal(id, "go")
        done = await engine.wait(id)
        return done.result, done.generation, len([e async for e in engine.instances()])

    assert live(app, after) == (1, 2, 1)


def test_drive_tells_it(app):
    """The pure face: a flow that continues as new is `Continued`, and more log is too much."""

    def f(_):
        yield tf.sleep(1)
        yield tf.continue_as_new({"n": 1})

    assert tf.drive(f, None, [("sleep#0", None)]) == tf.Continued({"n": 1})
    with pytest.raises(tf.Diverged, match="continues as new here"):
        tf.drive(f, None, [("sleep#0", None), ("sleep#1", None)])


def test_completion_is_for_the_generation_that_was_read(app, live):
    """A result from outside for a call of one generation can't reach the next one's."""

    async def never():
        await trio.sleep_forever()

    @app.flow
    def f(state):
        if state is None:
            yield tf.race(tf.call(never), tf.wait_signal("next"))
            yield tf.continue_as_new("second")
        return (yield tf.race(tf.call(never), tf.sleep(5))).index

    async def main(engine):
        id = await engine.start(f)
        while not (await engine.get(id)).waiting:
            await trio.lowlevel.checkpoint()
        tag = "race#0[0]/call:never#0"
        read = engine._record

        async def late(given):
            record = await read(given)
            await engine.signal(id, "next")
            while (await read(id)).generation == 1:
                await trio.lowlevel.checkpoint()
            return record

        engine._record = late
        with pytest.raises(tf.InstanceConflict, match="later generation"):
            await engine.complete(id, tag, "for the first")
        engine._record = read
        return (await engine.wait(id)).result

    assert live(app, main) == 1
