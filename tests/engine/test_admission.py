"""Flow control in an engine: crashes, edits, restarts, children, and what one sees of it."""

from __future__ import annotations

import math

import pytest
import trio

import triggerflow as tf
from triggerflow.core.codec import decode_document
from triggerflow.store.sqlite import MemoryStore
from triggerflow.testing.crash import crash_everywhere

NOTE = {"type": "Note", "actor": "https://a.example/ann"}


def app_of(new_app, store=None, lasts=5, flow=None, **control):
    app = new_app(store)

    def look_at(given):
        return given["n"] if isinstance(given, dict) else [each["n"] for each in given]

    @app.flow(**(flow or {}))
    def runs(given):
        found = yield tf.call(look_at, given)
        yield tf.sleep(lasts)
        yield tf.call(abs, -1)
        return found

    if control:
        app.trigger("all", on="Note", start=runs, control=tf.Control(**control))
    else:
        app.trigger("all", on="Note", start=runs)
    return app


async def fire(engine, n, **fields):
    found = await engine.append({**NOTE, "n": n, **fields})
    return found.firings[0]


async def all_of(engine):
    return [each async for each in engine.instances()]


def at_once(records):
    """How many were under way at once at most: from the first turn to the end."""
    moments = [(each.started, 1) for each in records if each.started is not None]
    moments += [(each.ended or math.inf, -1) for each in records if each.started is not None]
    most = now = 0
    for _, change in sorted(moments):
        now += change
        most = max(most, now)
    return most


# --- crashes


@pytest.mark.parametrize(
    ("control", "expected"),
    [
        ({"debounce": {"period": 2, "collect": "all"}}, [[0, 1, 2, 3]]),
        ({"debounce": {"period": 2}, "throttle": {"limit": 1, "period": 9}}, [3]),
        ({"batch": {"size": 3, "wait": 3}, "concurrency": 1}, [[0, 1, 2], [3]]),
        ({"concurrency": 2}, [0, 1, 2, 3]),
        (
            {"throttle": {"limit": 1, "period": 3}, "concurrency": {"limit": 1, "key": "$.k"}},
            [0, 1, 2, 3],
        ),
        ({"rate_limit": {"limit": 3, "period": 1000}}, [0, 1, 2]),
        ({"singleton": {"mode": "skip"}}, [0]),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else "",
)
def test_a_crash_anywhere_changes_nothing(new_app, make_store, control, expected):
    """Whichever commit it dies at: the same instances with the same inputs, none too many."""
    limit = 2 if control.get("concurrency") == 2 else 1

    async def scenario(engine):
        for n in range(4):
            await fire(engine, n, k=n % 2)
        done = []
        while True:
            found = await all_of(engine)
            if found and all(each.is_over for each in found):
                break
            await trio.sleep(10)
        for each in found:
            assert each.status == "done"
            done.append(each.result)
        return done

    def audit(store):
        records = store.instances(limit=100)
        if "concurrency" in control and "key" not in str(control):
            assert at_once(records) <= limit
        assert store._db.execute("SELECT count(*) FROM pool").fetchone() == (0,)
        assert store._db.execute("SELECT count(*) FROM place").fetchone() == (0,)
        assert store._db.execute("SELECT count(*) FROM gathering").fetchone() == (0,)
        assert store._db.execute("SELECT count(*) FROM gathered WHERE input").fetchone() == (0,)
        outcomes = [
            firing.outcome
            for activity in store.activities(0, 100)
            for firing in store.firings(activity.cid)
        ]
        assert outcomes.count("started") == len(records)
        assert len(outcomes) == 4

    report = crash_everywhere(
        lambda store: app_of(new_app, store, **control),
        scenario,
        make_store,
        audit=audit,
    )
    assert report.end == expected
    assert report.points > 10


def test_cancel_of_the_one_before_survives_a_crash(new_app, make_store):
    """However often it dies, the last one runs, and those before it are cancelled or done."""

    async def scenario(engine):
        for n in range(3):
            await fire(engine, n)
            await trio.sleep(1)
        for each in await all_of(engine):
            await engine.wait(each.id)
        found = await all_of(engine)
        return found[-1].status, len(found)

    report = crash_everywhere(
        lambda store: app_of(new_app, store, singleton={"mode": "cancel"}),
        scenario,
        make_store,
        audit=lambda store: None,
    )
    assert report.end == ("done", 3)


# --- restarts and edits


def test_what_is_held_outlives_its_process(new_app, live, make_store):
    """A group, a throttled one, one that waits for a place: all go on in the next process."""
    store = make_store()

    def app():
        made = new_app(store)

        @made.flow
        def runs(given):
            yield tf.sleep(5)
            return given if isinstance(given, list) else given["n"]

        for name, control in (
            ("B", {"batch": {"size": 3, "wait": 60}}),
            ("T", {"throttle": {"limit": 1, "period": 20}}),
            ("C", {"concurrency": 1}),
        ):
            made.trigger(name, on=name, start=runs, control=control)
        return made

    clock = None

    async def bring(engine):
        nonlocal clock
        clock = engine._clock.now()
        for kind in "BTC":
            for n in range(2):
                await engine.append({"type": kind, "actor": "ann", "n": n})
        found = await all_of(engine)
        kinds = [each.held and each.held.kind for each in found]
        assert kinds == ["batch", None, "throttle", None, "place"]

    async def go_on(engine):
        await engine.append({"type": "B", "actor": "ann", "n": 2})
        await trio.sleep(100)
        found = await all_of(engine)
        assert [each.status for each in found] == ["done"] * 5
        assert len(found[0].result) == 3

    live(app(), bring)
    live(app(), go_on)


def test_an_edited_trigger_opens_groups_of_its_own_and_keeps_its_rate(
    new_app, live, make_store
):
    """An edit must not double a rate; what was gathered before it starts as it was."""
    store = make_store()
    control = {
        "debounce": {"period": 50, "key": "$.k", "collect": "all"},
        "rate_limit": {"limit": 2, "period": 1000},
    }

    async def before(engine):
        assert (await fire(engine, 1, k=1)).outcome == "started"
        assert (await fire(engine, 2, k=1)).outcome == "debounced"

    async def after(engine):
        assert (await fire(engine, 3, k=1)).outcome == "started"
        assert (await fire(engine, 4, k=1)).outcome == "debounced"
        limited = await fire(engine, 5, k=2)
        assert (limited.outcome, limited.instance_id) == ("limited", None)
        assert "2 in 1000 s" in limited.error
        await trio.sleep(200)
        return [each.result for each in await all_of(engine)]

    live(app_of(new_app, store, **control), before)
    edited = control | {"debounce": control["debounce"] | {"period": 60}}
    assert live(app_of(new_app, store, **edited), after) == [[1, 2], [3, 4]]


def test_an_edit_raises_a_limit_for_those_who_wait(new_app, live, make_store):
    """With the new app, those who waited under the old limit begin at once."""
    store = make_store()

    async def before(engine):
        for n in range(4):
            await fire(engine, n)
        await trio.sleep(1)
        assert [bool(each.held) for each in await all_of(engine)] == [False, True, True, True]

    async def after(engine):
        await trio.sleep(1)
        assert [bool(each.held) for each in await all_of(engine)] == [False, False, False, True]

    live(app_of(new_app, store, lasts=1000, concurrency=1), before)
    live(app_of(new_app, store, lasts=1000, concurrency=3), after)


def test_a_deferred_dispatch_is_controlled_alike(new_app, live, make_store):
    """What a process only appends is gathered by the worker that dispatches it."""
    store = make_store()

    async def bring(engine):
        for n in range(5):
            assert (await engine.append({**NOTE, "n": n})).firings is None

    async def work(engine):
        await trio.sleep(100)
        return [each.result for each in await all_of(engine)]

    control = {"batch": {"size": 2, "wait": 30}, "concurrency": 1}
    live(app_of(new_app, store, **control), bring, work=False, deferred=True)
    assert live(app_of(new_app, store, **control), work) == [[0, 1], [2, 3], [4]]


def test_emitted_activities_are_controlled_and_counted(new_app, live):
    """A flow's own activities are gathered too, and a loop through a batch keeps its depth."""
    app = new_app()
    chains = []

    @app.flow
    def echo(batch):
        yield tf.emit({**NOTE, "n": batch[0]["n"] + 1})
        yield tf.emit({**NOTE, "n": batch[0]["n"] + 100})

    app.trigger("all", on="Note", start=echo, control={"batch": {"size": 2, "wait": 1}})

    async def scenario(engine):
        await engine.append({**NOTE, "n": 0})
        await trio.sleep(3)
        store = engine._store
        chains.extend(
            chain for (chain,) in store._db.execute("SELECT chain FROM instance ORDER BY id")
        )

    live(app, scenario)
    assert chains[:3] == [0, 1, 2]


# --- what is held, and what one sees of it


def test_a_held_instance_is_seen_and_cancelled(new_app, live, make_store):
    """`get`, `instances` and a waiter see it; a cancel ends it and no code of it runs."""
    app = app_of(new_app, make_store(), debounce={"period": 50, "key": "$.k"})

    async def scenario(engine):
        fired = await fire(engine, 1, k="x")
        found = await engine.get(fired.instance_id)
        assert (found.status, found.waiting, found.started) == ("waiting", (), None)
        assert found.held.kind == "debounce"
        assert found.held.key == '"x"'
        assert found.held.until == found.due == found.created + 50
        assert [each.id async for each in engine.instances(status="waiting")] == [found.id]
        ended = []
        async with trio.open_nursery() as nursery:

            async def wait():
                ended.append(await engine.wait(found.id))

            nursery.start_soon(wait)
            await trio.sleep(1)
            await engine.signal(found.id, "hello")
            assert (await engine.get(found.id)).held
            assert await engine.cancel(found.id)
        (over,) = ended
        assert (over.status, over.held, over.log_length) == ("cancelled", None, 0)
        assert over.failure.kind == "cancelled"
        with pytest.raises(tf.InstanceEnded):
            await engine.cancel(found.id)
        again = await fire(engine, 2, k="x")
        assert again.outcome == "started"
        await engine.terminate(again.instance_id)
        await trio.sleep(100)
        assert [each.status for each in await all_of(engine)] == ["cancelled"] * 2

    live(app, scenario)


def test_a_waiter_hears_of_one_that_was_superseded(new_app, live):
    """A held instance that a newer one cancels is told to who waits for it, at once."""
    app = app_of(new_app, lasts=50, singleton={"mode": "cancel"})

    async def scenario(engine):
        first = await fire(engine, 1)
        await trio.sleep(1)
        second = await fire(engine, 2)
        async with trio.open_nursery() as nursery:
            ended = []

            async def wait(id):
                ended.append((await engine.wait(id, timeout=1)).status)

            nursery.start_soon(wait, first.instance_id)
            nursery.start_soon(wait, second.instance_id)
            await trio.sleep(0.1)
            third = await fire(engine, 3)
        assert ended == ["cancelled", "cancelled"]
        assert (await engine.wait(third.instance_id)).status == "done"

    live(app, scenario)


def test_a_batch_takes_the_deepest_documents(new_app, live, make_store):
    """A document as deep as may be spoils no batch."""
    app = new_app(make_store())
    deep = 1
    for _ in range(127):
        deep = [deep]

    @app.flow
    def count(batch):
        yield tf.now()
        return len(batch)

    app.trigger("all", on="Note", start=count, control={"batch": {"size": 2, "wait": 9}})

    async def scenario(engine):
        await fire(engine, 1)
        fired = await fire(engine, 2, deep=deep)
        return (await engine.wait(fired.instance_id, timeout=5)).result

    assert live(app, scenario) == 2


def test_an_append_of_a_thousand_makes_ten_batches(new_app, live, make_store):
    """However they share commits, 1,000 activities are ten batches of 100, in order."""
    app = app_of(new_app, make_store(), batch={"size": 100, "wait": 1000})

    async def scenario(engine):
        found = await engine.append_many({**NOTE, "n": n} for n in range(1000))
        again = await engine.append_many({**NOTE, "n": n} for n in range(1000))
        assert [each.firings for each in found] == [each.firings for each in again]
        await trio.sleep(10)
        return [each.result for each in await all_of(engine)]

    expected = [list(range(first, first + 100)) for first in range(0, 1000, 100)]
    assert live(app, scenario) == expected


# --- flows


def test_a_flow_limits_all_that_starts_it(new_app, live, make_store):
    """By hand, by a trigger, as a child: they share the flow's places."""
    app = new_app(make_store())

    @app.flow(concurrency=tf.Concurrency(1, "$.k"), priority="$.p")
    def worker(given):
        yield tf.sleep(5)
        return given["n"]

    @app.flow
    def parent(_):
        return (yield tf.child(worker, {"n": 9, "k": 1, "p": 1}))

    app.trigger("all", on="Note", start=worker)

    async def scenario(engine):
        ids = [await engine.start(worker, {"n": 0, "k": 1})]
        ids.append((await fire(engine, 1, k=1, p=0)).instance_id)
        ids.append(await engine.start(parent))
        ids.append(await engine.start(worker, {"n": 2, "k": 2}))
        await trio.sleep(1)
        found = await all_of(engine)
        held = {each.input["n"]: bool(each.held) for each in found if each.flow == "worker"}
        assert held == {0: False, 1: True, 2: False, 9: True}
        for id in ids:
            await engine.wait(id)
        ended = sorted((each.ended, each.result) for each in await all_of(engine))
        assert [result for _, result in ended] in ([0, 2, 9, 9, 1], [2, 0, 9, 9, 1])

    live(app, scenario)


def test_a_cancelled_parent_takes_its_held_child_along(new_app, live):
    """The child ends without having run, and its place is nobody's."""
    app = new_app()

    @app.flow(concurrency=1)
    def worker(_):
        yield tf.sleep(50)

    @app.flow
    def parent(_):
        yield tf.child(worker)

    async def scenario(engine):
        first = await engine.start(worker)
        mine = await engine.start(parent)
        await trio.sleep(1)
        await engine.cancel(mine)
        assert (await engine.wait(mine)).status == "cancelled"
        (child,) = [each async for each in engine.instances(parent=mine)]
        assert (child.status, child.started) == ("cancelled", None)
        other = await engine.start(worker)
        await engine.wait(first)
        await trio.sleep(1)
        assert (await engine.get(other)).held is None

    live(app, scenario)


def test_a_start_with_a_key_waits_for_a_place_once(new_app, live):
    """A held instance holds its business key, and a repeat of the start finds it."""
    app = app_of(new_app, flow={"concurrency": 1})

    async def scenario(engine):
        await engine.start("runs", {"n": 1})
        second = await engine.start("runs", {"n": 2}, key="k")
        assert await engine.start("runs", {"n": 2}, key="k") == second
        with pytest.raises(tf.KeyTaken):
            await engine.start("runs", {"n": 3}, key="k")
        assert (await engine.wait(second)).result == 2

    live(app, scenario)


def test_an_unknown_flow_is_no_way_round_a_trigger(new_app, live, make_store):
    """A process without the flow plans the trigger's control all the same."""
    store = make_store()
    control = {"concurrency": 1}
    stranger = new_app(store)
    stranger.trigger("all", on="Note", start="runs", control=control)

    async def bring(engine):
        for n in range(3):
            await fire(engine, n)
        found = [(each.status, bool(each.held)) for each in await all_of(engine)]
        assert found == [("blocked", False), ("waiting", True), ("waiting", True)]

    async def work(engine):
        await trio.sleep(100)
        assert [each.result for each in await all_of(engine)] == [0, 1, 2]
        assert at_once(engine._store.instances()) == 1

    live(stranger, bring, work=False)
    live(app_of(new_app, store, **control), work)


def test_a_trigger_names_itself_when_its_control_cannot_work(new_app):
    """Refusals say which trigger or flow, and which part."""
    app = new_app()
    with pytest.raises(tf.DefinitionError, match="trigger 't', period: found 0"):
        app.trigger("t", on="Note", start="f", control={"debounce": {"period": 0}})
    with pytest.raises(tf.DefinitionError, match="trigger 't', control: debounce and batch"):
        app.trigger(
            "t",
            on="Note",
            start="f",
            control={"debounce": {"period": 1}, "batch": {"size": 2, "wait": 3}},
        )
    with pytest.raises(tf.DefinitionError, match="flow 'f', limit: found 0"):
        app.flow(name="f", concurrency=0)(lambda: (yield tf.now()))


def test_a_control_is_part_of_a_trigger_and_none_is_not(new_app):
    """Another control is another trigger; one that controls nothing changes no CID."""

    def trigger(control):
        return tf.define_trigger("t", on="Note", start="f", control=control)

    plain, empty = trigger(None), trigger({})
    assert plain.trigger_cid == empty.trigger_cid
    assert "control" not in plain.spec()
    one, two = trigger({"concurrency": 1}), trigger({"concurrency": 2})
    assert len({plain.trigger_cid, one.trigger_cid, two.trigger_cid}) == 3
    stored = decode_document(tf.encode_document(one.spec()))
    assert tf.Trigger.from_spec(stored) == one
    assert tf.Trigger.from_spec(stored).trigger_cid == one.trigger_cid


def test_a_clock_that_is_set_back_only_delays(new_app, turned_clock):
    """What is due by the wall clock comes later where it is set back, and is not lost."""
    clock = turned_clock()
    app = app_of(new_app, MemoryStore(), lasts=0, debounce={"period": 50})

    async def main():
        async with app.open(clock=clock) as engine:
            fired = await fire(engine, 1)
            clock.time -= 1000
            assert (await fire(engine, 2)).outcome == "debounced"
            clock.time += 49
            await trio.sleep(0.05)
            assert (await engine.get(fired.instance_id)).held
            clock.time += 2
            with trio.fail_after(20):
                assert (await engine.wait(fired.instance_id)).result == 2

    trio.run(main)
