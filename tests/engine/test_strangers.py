"""What a stranger tripped over: renamed triggers, idle workers, long timers, odd plugins."""

from __future__ import annotations

import threading

import pytest
import trio

import triggerflow as tf
from triggerflow.store.sqlite import MemoryStore, SqliteStore

FOLLOW = {"type": "Follow", "actor": "a:b"}


def with_trigger(new_app, store, name, **parts):
    app = new_app(store)

    @app.flow
    def welcome(_):
        return "done"
        yield

    app.trigger(name, on="Follow", start=welcome, **parts)
    return app


def test_a_trigger_may_be_renamed(new_app, live):
    """The new name takes the old one's place: everything opens, and nothing fires twice."""
    store = MemoryStore()

    async def append(engine):
        found = await engine.append({**FOLLOW, "n": len(counted)})
        counted.append(1)
        return [firing.trigger for firing in found.firings]

    counted = []
    assert live(with_trigger(new_app, store, "welcome"), append) == ["welcome"]
    assert live(with_trigger(new_app, store, "greet"), append) == ["greet"]
    assert live(new_app(store), append) == ["greet"]
    assert live(with_trigger(new_app, store, "welcome"), append) == ["welcome"]


def test_a_rename_reaches_an_engine_that_is_open(new_app, live):
    """An engine with the old name goes on appending, with the new one's triggers."""
    store = MemoryStore()

    async def scenario(engine):
        await engine.append(FOLLOW)
        app = with_trigger(new_app, store, "greet")
        rows = [
            tf.define_trigger("greet", on="Follow", start="welcome"),
        ]
        assert app.triggers == tuple(rows)
        store.sync_triggers([new_row(each) for each in rows], now=1.0)
        found = await engine.append({**FOLLOW, "n": 2})
        return [firing.trigger for firing in found.firings]

    assert live(with_trigger(new_app, store, "welcome"), scenario) == ["greet"]


def new_row(trigger):
    from triggerflow.store.records import NewTrigger

    spec = tf.encode_document(trigger.spec())
    return NewTrigger(trigger.name, trigger.trigger_cid, spec, trigger.meaning_cid)


def test_a_deferred_activity_is_not_seen_by_newer_triggers(new_app, live):
    """Only the triggers that were current at the append meet the activity."""
    store = MemoryStore()

    async def append(engine):
        await engine.append(FOLLOW)

    async def look(engine):
        await engine.run_until_idle()
        return [firing.trigger for firing in (await engine.append(FOLLOW)).firings]

    live(new_app(store), append, work=False, deferred=True)
    assert live(with_trigger(new_app, store, "newer"), look) == []

    store = MemoryStore()
    app = with_trigger(new_app, store, "old")
    live(app, append, work=False, deferred=True)
    changed = with_trigger(new_app, store, "old", version=2)
    assert live(changed, look) == ["old"]


def test_idle_workers_leave_each_other_alone(new_app, real, tmp_path):
    """Two workers with nothing to do commit nothing but their signs of life."""

    async def scenario(one):
        app = with_trigger(new_app, SqliteStore(tmp_path / "x.db"), "t")
        async with app.open() as other:
            await trio.sleep(0.3)
            before = one._committer.commits, other._committer.commits
            await trio.sleep(1.0)
            after = one._committer.commits, other._committer.commits
        return [b - a for a, b in zip(before, after, strict=True)]

    async def opened():
        app = with_trigger(new_app, SqliteStore(tmp_path / "x.db"), "t")
        async with app.open() as engine:
            return await scenario(engine)

    # A claim a heartbeat of the other is lawful; a hundred a second are not.
    assert max(real(opened)) <= 6


def test_timers_end_with_their_instance(new_app, live):
    """A race against a week leaves no timer behind, nor does a step's time limit."""
    app = new_app()

    def quick(n):
        return n

    @app.flow
    def hasty(n):
        won = yield tf.race(tf.call(quick, n), late=tf.sleep(tf.days(7)))
        yield tf.call(quick, n).using(timeout=3600)
        return won.value

    async def scenario(engine):
        ids = [await engine.start(hasty, n) for n in range(200)]
        results = [(await engine.wait(id)).result for id in ids]
        return results, len(engine._executor._timers), len(engine._executor._timers._heap)

    results, left, kept = live(app, scenario)
    assert results == list(range(200))
    assert left == 0
    assert kept <= 2 * 64 + 2


def test_a_hung_guard_holds_up_a_page_once(new_app, real, make_sqlite):
    """A guard that hangs is waited for once a page, and guards of others are still asked."""
    release = threading.Event()
    app = new_app(make_sqlite())

    @app.flow
    def welcome(_):
        return 1
        yield

    app.trigger(
        "hangs", on="Slow", start=welcome, guard=tf.Guard("h", 1, lambda _: release.wait())
    )
    app.trigger("works", on="Fast", start=welcome, guard=tf.Guard("w", 1, lambda _: True))

    async def opened():
        async with app.open(guard_limit=0.5) as engine:
            return await scenario(engine)

    async def scenario(engine):
        page = [{"type": "Slow", "actor": "a:b", "n": n} for n in range(20)]
        page.insert(10, {"type": "Fast", "actor": "a:b"})
        began = trio.current_time()
        found = await engine.append_many(page)
        return trio.current_time() - began, [each.firings[0].outcome for each in found]

    took, outcomes = real(opened)
    release.set()
    assert outcomes.count("guard_error") == 20
    assert outcomes[10] == "started"
    assert took < 5


def test_a_validating_plugin_changes_nothing(new_app, live):
    """What a plugin does to the document it looks at reaches neither trigger nor flow."""

    class Meddles:
        @tf.hookimpl
        def triggerflow_validate(self, activity):
            activity.document["x"] = "mutated"

    app = new_app(plugins=[Meddles()])

    @app.flow
    def welcome(activity):
        return activity
        yield

    app.trigger("all", on="Follow", start=welcome)
    app.trigger("x", on="Follow", start=welcome, match={"x": ["mutated"]})

    async def scenario(engine):
        found = await engine.append(FOLLOW)
        (firing,) = found.firings
        return firing.trigger, (await engine.wait(firing.instance_id)).result

    assert live(app, scenario) == ("all", FOLLOW)


def test_a_plugin_that_exits_vetoes(new_app, live):
    """SystemExit from a validating plugin is a veto, and ends nobody's engine."""

    class Exits:
        @tf.hookimpl
        def triggerflow_validate(self, activity):
            raise SystemExit(3)

    async def scenario(engine):
        with pytest.raises(tf.ActivityRejected):
            await engine.append(FOLLOW)
        return "alive"

    assert live(new_app(plugins=[Exits()]), scenario) == "alive"


def test_what_effects_give_back_is_a_value(new_app, live):
    """A `Won` or a `Signal` may be returned, and passed to a step."""
    app = new_app()

    def name_of(won):
        return won.name

    @app.flow
    def flow(_):
        won = yield tf.race(fast=tf.sleep(1), slow=tf.sleep(9))
        name = yield tf.call(name_of, won)
        signal = yield tf.wait_signal(["a", "b"])
        return [won, name, signal]

    async def scenario(engine):
        id = await engine.start(flow)
        await engine.signal(id, "b", 5)
        return (await engine.wait(id)).result

    assert live(app, scenario) == [tf.Won(0, "fast", None), "fast", tf.Signal("b", 5)]


@pytest.mark.parametrize("url", ["sqlite:///:memory:", "sqlite:///x.db?mode=ro"])
def test_urls_that_mean_something_else_are_refused(url):
    """A SQLite URL is a path; what looks like more is refused, with the way out."""
    with pytest.raises(tf.StoreError, match="memory://"):
        tf.App(url, entry_points=False).make_store()


@pytest.mark.parametrize(
    "settings", [{"threads": 0}, {"lease": -1}, {"lease": "x"}, {"capacity": 0}, {"drain": -1}]
)
def test_settings_that_cannot_work_are_refused(new_app, live, settings):
    """A setting out of range is refused by name when the app is opened."""

    async def nothing(engine):
        raise AssertionError

    with pytest.raises(tf.DefinitionError, match=next(iter(settings))):
        live(new_app(), nothing, **settings)


def test_arguments_of_the_wrong_kind_are_refused(new_app, live):
    """What is no flow, id, status, key or page of documents is refused with words."""
    app = new_app()

    @app.flow
    def flow(_):
        return 1
        yield

    async def scenario(engine):
        for wrong in (
            lambda: engine.start(5),
            lambda: engine.start(flow, key=""),
            lambda: engine.get(5),
            lambda: engine.append_many(FOLLOW),
        ):
            with pytest.raises(tf.DefinitionError):
                await wrong()
        with pytest.raises(tf.DefinitionError, match="running, waiting"):
            engine.instances(status="nope")
        await engine.start(flow)
        return [each.flow async for each in engine.instances(flow=flow)]

    assert live(app, scenario) == ["flow"]
    with pytest.raises(tf.DefinitionError, match="lambda"):
        app.flow(lambda _: None)
