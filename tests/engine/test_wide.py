"""Pending sets of hundreds: stored by what changes, and the same after every crash."""

from __future__ import annotations

import pytest
import trio

import triggerflow as tf
from triggerflow.core.log import IN_ROWS, decode_pending
from triggerflow.engine import requests
from triggerflow.store.operations import Turn
from triggerflow.testing.crash import crash_everywhere

MANY = 100


def fan(new_app, store=None):
    """An app whose flow waits for many children, timers and signals at once."""
    app = new_app(store)

    @app.flow
    def kid(number):
        return (yield tf.wait_signal("go")) + number

    @app.flow
    def wide(_):
        kids = tf.gather(*[tf.child(kid, n) for n in range(MANY)], return_failures=True)
        naps = tf.gather(*[tf.sleep(60 + n) for n in range(MANY)])
        calls = tf.gather(*[tf.wait_signal(f"s{n}", timeout=1000) for n in range(MANY)])
        found = yield tf.gather(kids, naps, calls)
        return [len(found[0]), sum(found[0]), len(found[1]), found[2]]

    return app, wide


async def answer(engine, id):
    """Signal all that it waits for, the last first."""
    async for each in engine.instances(flow="kid", status="waiting"):
        await engine.signal(each.id, "go", 1)
    for number in reversed(range(MANY)):
        try:
            await engine.signal(id, f"s{number}", number, dedup="once")
        except tf.InstanceEnded:
            return


EXPECTED = [MANY, MANY + sum(range(MANY)), MANY, list(range(MANY))]


def test_wide_set_is_written_by_what_changes(new_app, live, watched, make_store):
    """After the first turn, a turn writes the requests that it took, not all the others."""
    watched = watched(make_store())
    app, wide = fan(new_app, watched)

    async def scenario(engine):
        id = await engine.start(wide)
        await engine.run_until_idle()
        number = watched.instance(id).number
        await answer(engine, id)
        found = await engine.wait(id)
        turns = [op for op in watched.operations(Turn) if op.number == number]
        return found.result, turns

    result, turns = live(app, scenario, keep_warm=1000)
    assert result == EXPECTED
    first, *later = [op for op in turns if op.pending == IN_ROWS]
    assert first.afresh
    assert len(first.changed) == 3 * MANY
    assert not any(op.afresh for op in later)
    gone = [tag for op in later for tag, request in op.changed if request is None]
    assert len(gone) == len(set(gone))
    assert len(gone) >= 2 * MANY
    assert len(turns[-1].changed) == 0


@pytest.mark.parametrize("keep_warm", [0, 100])
def test_wide_set_outlives_restarts(new_app, live, make_sqlite, keep_warm):
    """Whoever takes it over, warm or cold, waits for what is left of it."""
    store = make_sqlite()
    app, wide = fan(new_app, store=store)

    async def begin(engine):
        id = await engine.start(wide)
        await engine.run_until_idle()
        return id

    async def some(engine):
        for number in range(0, MANY, 3):
            await engine.signal(id, f"s{number}", number)
        await engine.run_until_idle()
        return await engine.get(id)

    async def rest(engine):
        await engine.run_until_idle()
        await answer(engine, id)
        return (await engine.wait(id)).result

    id = live(app, begin, keep_warm=keep_warm)
    shown = live(app, some, keep_warm=keep_warm)
    assert len(shown.waiting) == 3 * MANY - len(range(0, MANY, 3))
    store.open()
    try:
        stored = decode_pending(app.codec.decode(store.instance(id).pending))
    finally:
        store.close()
    assert list(stored) == list(shown.waiting)
    assert live(app, rest, keep_warm=keep_warm) == EXPECTED


def test_wide_set_grows_and_shrinks(new_app, live, make_store, monkeypatch):
    """Across the bounds in both directions, with calls in back-off, and a cancel at the end."""
    monkeypatch.setattr(requests, "_WIDE", 4)
    monkeypatch.setattr(requests, "_NARROW", 2)
    app = new_app(make_store())
    tries = []

    def flaky(number):
        tries.append(number)
        if tries.count(number) < 3:
            raise OSError(number)
        return number

    @app.flow
    def breathing(_):
        again = tf.RetryPolicy(max_attempts=5, initial=1, jitter=False)
        sums = []
        for width in (1, 9, 3, 5, 2, 8):
            calls = [tf.call(flaky, n).using(retry=again) for n in range(width)]
            sums.append(sum((yield tf.gather(*calls, tf.sleep(100)))[:-1]))
            tries.clear()
        try:
            yield tf.gather(*[tf.wait_signal(f"s{n}") for n in range(20)])
        except tf.FlowCancelled:
            yield tf.set_attributes(sums=sum(sums))
            raise

    async def scenario(engine):
        id = await engine.start(breathing)
        await trio.sleep(1000)
        await engine.cancel(id)
        return await engine.wait(id)

    found = live(app, scenario, always_replay=False)
    assert (found.status, found.attributes) == ("cancelled", {"sums": 0 + 36 + 3 + 10 + 1 + 28})


@pytest.mark.parametrize("widths", [(0, 0), (2, 1)])
def test_wide_set_survives_a_crash_at_each_commit(monkeypatch, make_store, widths):
    """With sets of a few counted as wide, a kill around any commit changes no end."""
    monkeypatch.setattr(requests, "_WIDE", widths[0])
    monkeypatch.setattr(requests, "_NARROW", widths[1])

    def make_app(store):
        app = tf.App(store, build="one", entry_points=False)

        @app.flow
        def kid(number):
            yield tf.sleep(number)
            return number

        @app.flow
        def mixed(_):
            kids = [tf.child(kid, n) for n in range(4)]
            won = yield tf.race(tf.gather(*kids, count=2), tf.sleep(1000))
            calls = [tf.call(str, n) for n in range(3)]
            texts = yield tf.gather(*calls, tf.wait_signal("go", timeout=50, default="none"))
            return [sorted(each.value for each in won.value), texts]

        return app

    async def scenario(engine):
        id = await engine.start("mixed", 1, key="one")
        return (await engine.wait(id)).result

    report = crash_everywhere(make_app, scenario, make_store)
    assert report.end == [[0, 1], ["0", "1", "2", "none"]]
