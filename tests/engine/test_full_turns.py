"""Turns that hold too much: the rest is the next one's, whole."""

from __future__ import annotations

import pytest
import trio

import triggerflow as tf
from triggerflow.engine import drive
from triggerflow.store.acts import SendMessage, SpawnChild
from triggerflow.store.operations import Turn, Verdict


@pytest.fixture
def few(monkeypatch):
    """Let a turn hold a few entries only, or a few bytes."""

    def limit(entries=10_000, size=16 * 1024 * 1024):
        monkeypatch.setattr(drive, "_MOST_ENTRIES", entries)
        monkeypatch.setattr(drive, "_MOST_BYTES", size)

    return limit


def test_result_that_fills_a_turn_by_itself_is_gone_on_from(new_app, make_store, live, few):
    """One result, on the short road, and more side effects than a turn holds: it goes on."""
    few(entries=3)
    app = new_app(make_store())

    @app.flow
    def flow(_):
        total = yield tf.call(abs, -1)
        for _ in range(10):
            total += yield tf.side_effect(lambda: 1)
        return total

    async def main(engine):
        return (await engine.wait(await engine.start(flow), timeout=60)).result

    assert live(app, main) == 11


def test_result_of_too_many_bytes_is_a_turn_of_its_own(new_app, make_store, live, watched, few):
    """A value that is as large as a turn may be lands, and the flow goes on after it."""
    few(size=1000)
    store = watched(make_store())
    app = new_app(store)

    def large():
        return "x" * 5000

    @app.flow
    def flow(_):
        first = yield tf.call(large)
        more = []
        for _ in range(3):
            more.append((yield tf.side_effect(large)))
        return len(first), [len(each) for each in more]

    async def main(engine):
        return (await engine.wait(await engine.start(flow), timeout=60)).result

    assert live(app, main) == [5000, [5000, 5000, 5000]]
    sizes = [sum(len(row.value) for row in op.entries) for op in store.operations(Turn)]
    assert max(sizes) < 6000


def test_what_a_turn_sends_counts_too(new_app, make_store, live, watched, few):
    """Signals leave entries of one byte each; what they carry fills a turn all the same."""
    few(size=1000)
    store = watched(make_store())
    app = new_app(store)

    @app.flow
    def target(_):
        for _ in range(6):
            yield tf.wait_signal("n")
        return 6

    @app.flow
    def flow(other):
        for _ in range(6):
            yield tf.signal(other, "n", "x" * 600)

    async def main(engine):
        other = await engine.start(target)
        await engine.start(flow, other)
        return (await engine.wait(other, timeout=60)).result

    assert live(app, main) == 6
    sent = [sum(type(act) is SendMessage for act in op.acts) for op in store.operations(Turn)]
    assert max(sent) == 2


def test_child_that_a_full_turn_did_not_settle_starts_in_the_next(
    new_app, make_store, live, watched, few
):
    """A turn that is full starts no child by halves: each is settled, and then started."""
    few(entries=3)
    store = watched(make_store())
    app = new_app(store)

    @app.flow
    def kid(number):
        return number
        yield

    @app.flow
    def flow(_):
        def late(number):
            yield tf.side_effect(lambda: number)
            return (yield tf.child(kid, number))

        return (yield tf.gather(*[late(number) for number in range(8)]))

    async def main(engine):
        return (await engine.wait(await engine.start(flow), timeout=60)).result

    assert live(app, main) == list(range(8))


def test_refused_child_of_a_full_turn_fails_once(new_app, make_store, live, watched, few):
    """A key that is taken fails the child, though its turn was full before it was settled."""
    few(entries=1)
    store = watched(make_store())
    app = new_app(store)

    @app.flow
    def patient(_):
        return (yield tf.wait_signal("go"))

    @app.flow
    def flow(_):
        def filler():
            yield tf.side_effect(int)
            yield tf.side_effect(int)

        def starter():
            try:
                yield tf.child(patient, key="k")
            except tf.ChildFailed as failed:
                return "KeyTaken" in str(failed)

        return (yield tf.gather(filler(), starter()))[1]

    async def main(engine):
        await engine.start(patient, key="k")
        await engine.run_until_idle()
        found = await engine.wait(await engine.start(flow), timeout=60)
        return found.result, found.failure

    assert live(app, main) == (True, None)
    refused = [
        outcome
        for _, outcomes in store.batches
        for outcome in outcomes
        if outcome.verdict is Verdict.CONFLICT
    ]
    assert len(refused) == 1
    starts = [
        [act.tag for act in op.acts if type(act) is SpawnChild] for op in store.operations(Turn)
    ]
    assert max(map(len, starts)) == 1


def test_death_between_two_parts_of_a_full_turn(new_app, make_sqlite, killed, live, few):
    """What was not settled is settled by whoever takes over, and once."""
    few(entries=5)
    store = make_sqlite()

    def make():
        app = new_app(store)

        @app.flow
        def kid(number):
            return (yield tf.wait_signal("go"))

        @app.flow
        def flow(_):
            refs = yield tf.gather(*[tf.spawn(kid, number) for number in range(12)])
            yield tf.wait_signal("go")
            return len({ref.id for ref in refs})

        return app

    async def begin(engine):
        id = await engine.start("flow")
        with trio.move_on_after(5):
            while (await engine.get(id)).log_length < 5:
                await trio.lowlevel.checkpoint()
        return id

    id = killed(make(), begin)

    async def end(engine):
        await engine.signal(id, "go")
        found = await engine.wait(id, timeout=60)
        kids = [each.id async for each in engine.instances(flow="kid")]
        return found.result, len(kids)

    assert live(make(), end) == (12, 12)
