"""Sagas: what was done is undone, once, last first, after a crash too."""

from __future__ import annotations

import contextlib
import threading

import pytest
import trio

import triggerflow as tf


@pytest.fixture
def done():
    """What the steps have done, in order."""
    return []


@pytest.fixture
def steps(done):
    """A step that does something, and one that undoes it."""

    def book(what):
        done.append(f"book {what}")
        return f"ticket {what}"

    def cancel(ticket, what):
        done.append(f"cancel {what} ({ticket})")
        return f"undone {what}"

    def fail(what):
        done.append(f"fail {what}")
        raise ValueError(what)

    return book, cancel, fail


@pytest.fixture
def app(new_app, make_store):
    return new_app(make_store())


def run(app, live, flow):
    """How an instance of a flow ends."""

    async def main(engine):
        return await engine.wait(await engine.start(flow))

    return live(app, main)


def test_nothing_is_undone_where_all_goes_well(app, live, done, steps):
    """A flow that ends well runs no compensation."""
    book, cancel, _ = steps

    @app.flow
    def trip(_):
        yield tf.call(book, "hotel").using(compensate=cancel)

    assert run(app, live, trip).status == "done"
    assert done == ["book hotel"]


def test_last_first_and_each_once(app, live, done, steps):
    """`compensate_all` undoes the last first, with (result, *args), and owes nothing then."""
    book, cancel, fail = steps

    @app.flow
    def trip(_):
        try:
            for what in ("hotel", "car"):
                yield tf.call(book, what).using(compensate=cancel)
            yield tf.call(fail, "flight").using(compensate=cancel)
        except tf.StepFailed:
            first = yield tf.compensate_all()
            return first, (yield tf.compensate_all())

    found = run(app, live, trip)
    assert found.result == [["undone car", "undone hotel"], []]
    assert done[2:] == [
        "fail flight",
        "cancel car (ticket car)",
        "cancel hotel (ticket hotel)",
    ]


def test_one_by_hand(app, live, done, steps):
    """`compensate(effect)` undoes that call and takes it off; a second time is refused."""
    book, cancel, _ = steps

    @app.flow
    def trip(_):
        hotel = tf.call(book, "hotel").using(compensate=cancel)
        yield hotel
        yield tf.call(book, "car").using(compensate=cancel)
        undone = yield tf.compensate(hotel)
        try:
            yield tf.compensate(hotel)
        except tf.EffectMisused as misused:
            return undone, str(misused), (yield tf.compensate_all())

    undone, words, rest = run(app, live, trip).result
    assert (undone, rest) == ("undone hotel", ["undone car"])
    assert "was undone before" in words


def test_failing_compensation_is_recorded_and_the_rest_go_on(app, live, done, steps):
    """A compensation that fails comes back as its `StepFailed`, between the others."""
    book, cancel, _ = steps

    def broken(ticket, what):
        raise OSError("no line")

    @app.flow
    def trip(_):
        yield tf.call(book, "a").using(compensate=cancel)
        yield tf.call(book, "b").using(compensate=broken)
        yield tf.call(book, "c").using(compensate=cancel)
        found = yield tf.compensate_all()
        return [str(each) for each in found]

    assert run(app, live, trip).result == [
        "undone c",
        "step 'broken' failed: OSError: no line",
        "undone a",
    ]


def test_all_at_once(app, live, done, steps):
    """`compensate_all(parallel=True)` arms all of them in one turn, in the order of undoing."""
    book, cancel, _ = steps

    @app.flow
    def trip(_):
        for what in "abc":
            yield tf.call(book, what).using(compensate=cancel)
        return (yield tf.compensate_all(parallel=True))

    async def main(engine):
        id = await engine.start(trip)
        found = await engine.wait(id)
        return found.result, [entry.tag for entry in await engine.log(id)]

    result, tags = live(app, main)
    assert result == ["undone c", "undone b", "undone a"]
    assert set(tags[3:]) == {f"compensate_all#0[{n}]/compensate:cancel#0" for n in range(3)}


def test_compensation_is_retried_like_its_call(app, live, done, steps):
    """A compensation has the retry policy of the call that it undoes."""
    book, _, _ = steps
    tries = []

    def wavering(ticket, what):
        tries.append(1)
        if len(tries) < 3:
            raise OSError
        return "at last"

    @app.flow
    def trip(_):
        policy = tf.RetryPolicy(max_attempts=5)
        yield tf.call(book, "a").using(compensate=wavering, retry=policy)
        return (yield tf.compensate_all())

    assert run(app, live, trip).result == ["at last"]


def test_loser_of_a_race_is_refunded(app, live, done, steps):
    """A branch that loses undoes what it did before the race returns."""
    book, cancel, _ = steps

    def slow_branch():
        yield tf.call(book, "slow").using(compensate=cancel)
        yield tf.sleep(1000)

    @app.flow
    def trip(_):
        won = yield tf.race(slow_branch(), tf.sleep(1))
        done.append("race is over")
        return won.index

    assert run(app, live, trip).result == 1
    # The flow runs once live; replays in this test's process would add more.
    assert done == ["book slow", "cancel slow (ticket slow)", "race is over"]


def test_winner_passes_its_debts_to_its_parent(app, live, done, steps):
    """What a branch that ended well owes, its parent can undo."""
    book, cancel, _ = steps

    def branch(what):
        yield tf.call(book, what).using(compensate=cancel)
        return what

    @app.flow
    def trip(_):
        yield tf.gather(branch("a"), branch("b"))
        return sorted((yield tf.compensate_all()))

    assert run(app, live, trip).result == ["undone a", "undone b"]


def test_failed_branch_undoes_its_own(app, live, done, steps):
    """In a gather, the branch that fails and the siblings that it cancels undo their own."""
    book, cancel, fail = steps

    def sibling():
        yield tf.call(book, "sibling").using(compensate=cancel)
        yield tf.wait_signal("never")

    def failing():
        yield tf.call(book, "failing").using(compensate=cancel)
        yield tf.sleep(1)
        yield tf.call(fail, "x")

    @app.flow
    def trip(_):
        try:
            yield tf.gather(sibling(), failing())
        except tf.StepFailed:
            return (yield tf.compensate_all())

    assert run(app, live, trip).result == []
    assert sorted(done[3:]) == [
        "cancel failing (ticket failing)",
        "cancel sibling (ticket sibling)",
    ]


def test_cancelled_flow_can_compensate(app, live, done, steps):
    """After a cancel a flow undoes what it did, and a second cancel doesn't stop it."""
    book, cancel, _ = steps

    @app.flow
    def trip(_):
        try:
            yield tf.call(book, "a").using(compensate=cancel)
            yield tf.wait_signal("never")
        except tf.FlowCancelled:
            yield tf.compensate_all()
            raise

    async def main(engine):
        id = await engine.start(trip)
        await engine.run_until_idle()
        assert await engine.cancel(id)
        return (await engine.wait(id)).status

    assert live(app, main) == "cancelled"
    assert done == ["book a", "cancel a (ticket a)"]


def test_cancel_waits_for_the_compensation_in_hand(app, live, done, steps):
    """A cancel that comes while something is undone is heard once that is done."""
    book, _, _ = steps
    begun, go_on = trio.Event(), trio.Event()

    async def slowly(ticket, what):
        begun.set()
        await go_on.wait()
        done.append("undone")

    @app.flow
    def trip(_):
        hotel = tf.call(book, "a").using(compensate=slowly)
        yield hotel
        yield tf.compensate(hotel)
        done.append("not heard of")

    async def main(engine):
        id = await engine.start(trip)
        await begun.wait()
        await engine.cancel(id)
        while "cancel" not in [entry.tag for entry in await engine.log(id)]:
            await trio.lowlevel.checkpoint()
        go_on.set()
        return (await engine.wait(id)).status

    assert live(app, main) == "cancelled"
    assert done == ["book a", "undone"]


def test_call_without_a_result_is_undone_after_its_attempt(app, real, done):
    """A charge in flight when its branch loses is undone with None, once it has ended."""
    begun, go_on = threading.Event(), threading.Event()

    def charge(amount):
        begun.set()
        assert go_on.wait(10)
        done.append("charged")

    def refund(result, amount):
        done.append(f"refund {amount}, result {result}")

    @app.flow
    def pay(_):
        won = yield tf.race(tf.call(charge, 5).using(compensate=refund), tf.wait_signal("stop"))
        return won.index

    async def main():
        async with app.open() as engine:
            id = await engine.start(pay)
            await trio.to_thread.run_sync(begun.wait)
            await engine.signal(id, "stop")
            while "race#0[0]/compensate:refund#0" not in (await engine.get(id)).waiting:
                await trio.lowlevel.checkpoint()
            assert done == []
            go_on.set()
            return (await engine.wait(id)).result

    assert real(main) == 1
    assert done == ["charged", "refund 5, result None"]


def test_timed_out_call_is_owed_and_a_failed_one_is_not(app, live, done, steps):
    """Nobody knows what a timed-out attempt did, so it is undone; a failed step is not."""
    _, cancel, fail = steps

    async def hangs(what):
        await trio.sleep_forever()

    @app.flow
    def trip(_):
        for step in (fail, hangs):
            with contextlib.suppress(tf.StepFailed, tf.TimedOut):
                yield tf.call(step, step.__name__).using(compensate=cancel, timeout=5)
        return (yield tf.compensate_all())

    assert run(app, live, trip).result == ["undone hangs"]


def test_killed_in_the_middle_of_undoing(app, killed, live, done, steps):
    """A restarted worker goes on with the next compensation."""
    book, cancel, _ = steps

    async def blocks(ticket, what):
        done.append("begun")
        if done.count("begun") == 1:
            stuck.set()
            await trio.sleep_forever()

    stuck = trio.Event()

    @app.flow
    def trip(_):
        yield tf.call(book, "a").using(compensate=cancel)
        yield tf.call(book, "b").using(compensate=blocks)
        yield tf.call(book, "c").using(compensate=cancel)
        return len((yield tf.compensate_all()))

    async def before(engine):
        id = await engine.start(trip)
        await stuck.wait()
        return id

    id = killed(app, before)

    async def after(engine):
        return (await engine.wait(id)).result

    assert live(app, after) == 3
    assert done[3:] == ["cancel c (ticket c)", "begun", "begun", "cancel a (ticket a)"]


def test_arguments_are_those_of_the_yield(app, live, done):
    """A flow that changes an argument after the yield doesn't change what is undone."""

    def add(items):
        return list(items)

    def drop(result, items):
        done.append((result, items))

    @app.flow
    def trip(_):
        items = ["a"]
        result = yield tf.call(add, items).using(compensate=drop)
        items.append("b")
        result.append("c")
        yield tf.compensate_all()

    run(app, live, trip)
    assert done == [(["a"], ["a"])]
