"""Flow control beside keys, dedup, mappings, pauses, backfills and dead letters."""

from __future__ import annotations

import pytest
import trio

import triggerflow as tf


def note(n, kind="Note", **fields):
    return {"type": kind, "actor": "https://a.example/ann", "n": n, **fields}


def app_of(new_app, store=None, lasts=0, flow=None, trigger="all", **options):
    app = new_app(store)

    @app.flow(**(flow or {}))
    def runs(given):
        yield tf.sleep(lasts)
        return [each["n"] for each in given] if isinstance(given, list) else given["n"]

    if trigger is not None:
        app.trigger(trigger, on="Note", start=runs, **options)
    return app


async def fire(engine, n, kind="Note", **fields):
    return (await engine.append(note(n, kind, **fields))).firings[0]


async def all_of(engine, **wanted):
    return [each async for each in engine.instances(**wanted)]


async def results(engine):
    return [each.result for each in await all_of(engine)]


GATHERS = [
    {"debounce": {"period": 5, "collect": "all"}},
    {"batch": {"size": 3, "wait": 5}},
]
BOTH = pytest.mark.parametrize("control", GATHERS, ids=["debounce", "batch"])


# --- dedup


@BOTH
def test_what_joins_has_fired_and_is_deduped(new_app, live, make_store, control):
    """A repeat of one that was gathered joins nothing: it would count twice."""
    app = app_of(new_app, make_store(), dedup="$.id", control=control)

    async def scenario(engine):
        first = await fire(engine, 1, id=1)
        assert (await fire(engine, 2, id=2)).outcome in ("debounced", "batched")
        again = await fire(engine, 3, id=2)
        assert (again.outcome, again.instance_id) == ("deduped", first.instance_id)
        await trio.sleep(20)
        return await results(engine)

    assert live(app, scenario) == [[1, 2]]


@pytest.mark.parametrize(
    "control",
    [{"rate_limit": {"limit": 1, "period": 10}}, {"singleton": {"mode": "skip"}}],
    ids=["rate_limit", "singleton"],
)
def test_what_was_limited_has_not_fired(new_app, live, make_store, control):
    """Its repeat starts, and one that is dispatched again by hand counts for dedup."""
    app = app_of(new_app, make_store(), lasts=5, dedup="$.id", control=control)

    async def scenario(engine):
        await fire(engine, 1, id=1)
        assert (await fire(engine, 2, id=2)).outcome == "limited"
        assert (await fire(engine, 3, id=3)).outcome == "limited"
        await trio.sleep(20)
        assert (await fire(engine, 4, id=2)).outcome == "started"
        await trio.sleep(20)
        found = await engine.redispatch(outcome="limited")
        assert dict(found.outcomes) == {"deduped": 1, "started": 1}
        await trio.sleep(20)
        assert (await fire(engine, 5, id=3)).outcome == "deduped"
        return await results(engine)

    assert live(app, scenario) == [1, 4, 3]


# --- business keys


@BOTH
def test_an_open_group_is_joined_whoever_holds_the_business_key(
    new_app, live, make_store, control
):
    """The held instance has the key, and what joins it asks for none."""
    app = app_of(new_app, make_store(), lasts=50, key="$.k", control=control)

    async def scenario(engine):
        first = await fire(engine, 1, k="a")
        assert (await engine.get(first.instance_id)).key == "a"
        joined = await fire(engine, 2, k="a")
        assert joined.outcome in ("debounced", "batched"), joined.error
        assert joined.instance_id == first.instance_id
        await trio.sleep(20)
        late = await fire(engine, 3, k="a")
        assert late.outcome == "failed"
        assert first.instance_id in late.error
        assert (await fire(engine, 4, k="b")).outcome == "started"
        assert (await fire(engine, 5, k="a")).outcome in ("debounced", "batched")
        await trio.sleep(200)
        return await results(engine)

    assert live(app, scenario) == [[1, 2], [4, 5]]


def test_a_whole_batch_with_one_business_key_in_one_commit(new_app, live, make_store):
    """As one by one, so together."""
    app = app_of(new_app, make_store(), key="$.k", control={"batch": {"size": 3, "wait": 5}})

    async def scenario(engine):
        found = await engine.append_many(note(n, k="a") for n in range(3))
        assert [each.firings[0].outcome for each in found] == ["started", "batched", "batched"]
        await trio.sleep(20)
        return await results(engine)

    assert live(app, scenario) == [[0, 1, 2]]


@pytest.mark.parametrize("together", [True, False])
def test_a_group_that_is_cancelled_takes_nothing_more(new_app, live, make_store, together):
    """What comes after the cancel opens another group, also where all come in one commit."""
    app = app_of(new_app, make_store(), key="$.k", control={"batch": {"size": 9, "wait": 5}})
    app.trigger("undo", on="Undo", cancel={"flow": "runs", "key": "$.k"})
    acts = [note(1, k="a"), note(2, "Undo", k="a"), note(3, k="a")]

    async def scenario(engine):
        if together:
            found = await engine.append_many(acts)
        else:
            found = [await engine.append(each) for each in acts]
        outcomes = [each.firings[0].outcome for each in found]
        assert outcomes == ["started", "cancelled", "started"]
        await trio.sleep(20)
        return [(each.status, each.result) for each in await all_of(engine)]

    assert live(app, scenario) == [("cancelled", None), ("done", [3])]


@pytest.mark.parametrize("together", [True, False])
def test_one_that_is_superseded_while_held_frees_its_business_key(
    new_app, live, make_store, together
):
    """At once, also for those who come in the same commit."""
    app = app_of(
        new_app,
        make_store(),
        lasts=5,
        key="$.k",
        control={"singleton": {"mode": "cancel"}, "throttle": {"limit": 1, "period": 9}},
    )
    app.trigger("tell", on="Tell", signal={"flow": "runs", "key": "$.k", "name": "hello"})
    acts = [note(0, k="z"), note(1, k="a"), note(2, k="b"), note(3, "Tell", k="a")]
    acts.append(note(4, k="a"))

    async def scenario(engine):
        if together:
            found = await engine.append_many(acts)
        else:
            found = [await engine.append(each) for each in acts]
        firings = [each.firings[0] for each in found]
        expected = ["started", "started", "started", "failed", "started"]
        assert [each.outcome for each in firings] == expected, firings
        await trio.sleep(200)
        return [each.result for each in await all_of(engine, status="done")]

    assert live(app, scenario) == [4]


# --- namespaces


@pytest.mark.parametrize(
    "control",
    [{"concurrency": 1}, {"rate_limit": {"limit": 1, "period": 100}}, None],
    ids=["concurrency", "rate_limit", "flow"],
)
def test_namespaces_share_no_rates_and_no_places(new_app, live, make_store, control):
    """Neither a trigger's nor a flow's."""
    app = new_app(make_store())

    @app.flow(concurrency=1 if control is None else None)
    def runs(given):
        yield tf.sleep(50)

    for name in ("a", "b"):
        app.trigger(f"in-{name}", on="Note", start=runs, namespace=name, control=control)

    async def scenario(engine):
        for name in ("a", "b"):
            found = await engine.append(note(1), namespace=name)
            assert [each.outcome for each in found.firings] == ["started"]
        await trio.sleep(1)
        assert [each.held for each in await all_of(engine)] == [None, None]

    live(app, scenario)


# --- mapped inputs


@BOTH
def test_what_is_gathered_are_the_mapped_inputs(new_app, live, make_store, control):
    """The trigger's keys are read from the document, the flow gets what was mapped."""
    key = next(iter(control))
    control = {key: control[key] | {"key": "$.k"}}
    app = app_of(new_app, make_store(), input={"n.$": "$.deep.n"}, control=control)

    async def scenario(engine):
        for n in range(4):
            await fire(engine, n, k=n % 2, deep={"n": n + 100})
        await trio.sleep(20)
        return await results(engine)

    assert live(app, scenario) == [[100, 102], [101, 103]]


@pytest.mark.parametrize("whose", ["flow", "trigger"])
def test_a_place_belongs_to_the_input_that_runs(new_app, live, make_store, whose):
    """A debounce that keeps the last input asks for that one's place, not the first one's.

    Else two that work on one thing would be under way at once.
    """
    one = tf.Concurrency(1, key="$.k")
    app = app_of(
        new_app,
        make_store(),
        lasts=100,
        flow={"concurrency": one} if whose == "flow" else {},
        control={"debounce": {"period": 5}} | ({"concurrency": one} if whose != "flow" else {}),
    )

    async def scenario(engine):
        await fire(engine, 1, k="a")
        await trio.sleep(6)
        await fire(engine, 2, k="b")
        await fire(engine, 3, k="a")
        await trio.sleep(6)
        _, second = await all_of(engine)
        assert second.held is not None
        await fire(engine, 4, k="b")
        await trio.sleep(6)
        *_, third = await all_of(engine)
        assert third.held is None
        await trio.sleep(300)
        return await results(engine)

    assert live(app, scenario) == [1, 3, 4]


# --- pauses


def test_a_pause_gathers_nothing_and_a_resume_all_in_order(new_app, live, make_store):
    """What was held before the pause comes due; what was paused is gathered on resume."""
    store = make_store()
    app = app_of(new_app, store, control={"debounce": {"period": 5, "collect": "all"}})

    async def scenario(engine):
        await fire(engine, 1)
        await engine.pause("all")
        for n in range(2, 5):
            assert (await fire(engine, n)).outcome == "paused"
        await trio.sleep(20)
        assert await results(engine) == [[1]]
        walk = await engine.resume("all")
        await engine.run_until_idle()
        found = await engine.get_backfill(walk.id)
        assert (found.looked, found.fired, found.unstarted) == (3, 3, 0)
        await fire(engine, 5)
        await trio.sleep(20)
        outcomes = [each.outcome for each in await engine.firings(trigger="all")]
        assert outcomes[::-1] == ["started", "started", "debounced", "debounced", "debounced"]
        return await results(engine)

    assert live(app, scenario) == [[1], [2, 3, 4, 5]]


@pytest.mark.parametrize("drains", [True, False], ids=["drained", "retired"])
def test_what_is_held_outlives_its_trigger(new_app, live, make_store, drains):
    """A group comes due, and one that waits for a place gets it."""
    control = {"batch": {"size": 2, "wait": 50}, "concurrency": 1}
    store = make_store()
    app = app_of(new_app, store, lasts=5, control=control)
    other = app_of(new_app, store, lasts=5, trigger=None)

    async def bring(engine):
        for n in range(5):
            await fire(engine, n)

    async def scenario(engine):
        if drains:
            await engine.drain_trigger("all")
        else:
            await engine.retire("all")
        assert not (await engine.append(note(9))).firings
        await trio.sleep(100)
        return await results(engine)

    live(app, bring, work=False)
    assert live(app if drains else other, scenario) == [[0, 1], [2, 3], [4]]


# --- history


def test_a_backfill_goes_through_the_same_control(new_app, live, make_store):
    """250 activities are two batches of 100 and one of 50, and all 250 have fired."""
    store = make_store()

    async def bring(engine):
        await engine.append_many(note(n) for n in range(250))

    async def scenario(engine):
        walk = await engine.backfill("all")
        await trio.sleep(60)
        found = await engine.get_backfill(walk.id)
        assert (found.looked, found.fired, found.unstarted, found.known) == (250, 250, 0, 0)
        return [len(each) for each in await results(engine)]

    live(new_app(store), bring, work=False)
    app = app_of(new_app, store, control={"batch": {"size": 100, "wait": 50}})
    assert live(app, scenario) == [100, 100, 50]


def test_a_redispatch_of_an_old_spec_brings_no_old_limit_back(new_app, live, make_store):
    """A limit belongs to the trigger's name, and the newest one counts."""
    store = make_store()
    limited = {"concurrency": 1}

    async def before(engine):
        await engine.pause("all")
        await fire(engine, 0)

    async def after(engine):
        await engine.resume("all", catch_up=False)
        await engine.run_until_idle()
        for n in range(1, 3):
            await fire(engine, n)
        assert (await engine.redispatch(outcome="skipped")).outcomes == {"started": 1}
        return [bool(each.held) for each in await all_of(engine)]

    live(app_of(new_app, store, lasts=1000, control=limited), before)
    app = app_of(new_app, store, lasts=1000, control={"concurrency": 3})
    assert live(app, after) == [False, False, False]


def test_a_flows_new_limit_counts_for_starts_by_hand_and_children(new_app, live, make_store):
    """Whoever asked before: a pool that is never empty doesn't keep the old limit."""
    store = make_store()

    async def before(engine):
        for n in range(3):
            await fire(engine, n)

    async def after(engine):
        await engine.start("runs", {"n": 4})
        await trio.sleep(1)
        return [bool(each.held) for each in await all_of(engine)]

    live(app_of(new_app, store, lasts=1000, flow={"concurrency": 1}), before)
    app = app_of(new_app, store, lasts=1000, flow={"concurrency": 3})
    assert sum(live(app, after)) == 1


# --- dead letters


def test_a_dead_letters_flow_has_its_own_control(new_app, live, make_store):
    """However it is started, a flow keeps to its limit."""
    app = new_app(make_store())

    @app.flow(concurrency=1)
    def bury(letter):
        yield tf.sleep(50)
        return letter["activity"]["n"]

    app.trigger("all", on="Note", start="none", input="$.missing", dead_letter=bury)

    async def scenario(engine):
        for n in range(2):
            assert (await fire(engine, n)).outcome == "failed"
        await trio.sleep(1)
        assert [bool(each.held) for each in await all_of(engine)] == [False, True]
        await trio.sleep(200)
        return await results(engine)

    assert live(app, scenario) == [0, 1]


# --- explain


def test_explain_says_what_control_would_do_and_takes_nothing(new_app, live, make_store):
    """No rate is taken, no group opened, and each outcome is the append's."""
    app = app_of(new_app, make_store(), lasts=50)
    for name, control in (
        ("bounced", {"debounce": {"period": 5}}),
        ("batched", {"batch": {"size": 2, "wait": 5}}),
        ("rated", {"rate_limit": {"limit": 1, "period": 100}}),
        ("single", {"singleton": {"mode": "skip"}}),
    ):
        app.trigger(name, on="Note", start="runs", control=control, input={"n.$": "$.n"})
    tables = ("instance", "gathering", "gathered", "rate", "pool", "place", "firing")

    async def scenario(engine):
        def counted():
            db = engine._store._db
            return [db.execute(f"SELECT count(*) FROM {each}").fetchone() for each in tables]

        async def told(n):
            found = await engine.explain(note(n))
            return {each.trigger: each.outcome for each in found.triggers}

        empty = counted()
        for _ in range(2):
            assert set((await told(1)).values()) == {"started"}
        assert counted() == empty
        await engine.append(note(1))
        there = counted()
        expected = {
            "all": "started",
            "bounced": "debounced",
            "batched": "batched",
            "rated": "limited",
            "single": "limited",
        }
        for _ in range(2):
            assert await told(2) == expected
        assert counted() == there
        await engine.pause("batched")
        assert await told(2) == expected | {"batched": "paused"}
        found = await engine.append(note(2))
        assert {each.trigger: each.outcome for each in found.firings} == await told(2)

    live(app, scenario)
