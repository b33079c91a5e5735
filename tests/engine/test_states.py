"""States of triggers: paused, draining, resumed; across processes, edits, crashes."""

# ruff: noqa: ASYNC110 - what is polled tells nobody

from __future__ import annotations

import pytest
import trio

import triggerflow as tf
from triggerflow.engine import backfill as walks
from triggerflow.store.sqlite import MemoryStore, SqliteStore
from triggerflow.testing.crash import crash_everywhere


def act(n, type="Follow"):
    return {"type": type, "actor": "https://a.example/ann", "n": n}


def define(app, *, guard=None, version=1, **options):
    """A trigger `t` on Follow that starts a flow which returns the activity's number."""

    @app.flow
    def numbered(activity):
        yield tf.now()
        return activity["n"]

    app.trigger("t", on="Follow", start=numbered, guard=guard, version=version, **options)
    return app


async def results(engine):
    return [each.result async for each in engine.instances()]


def test_a_paused_trigger_is_planned_and_starts_nothing(new_app, live, make_store):
    """Its firings say `paused`, without instance and error; resume starts them in order."""
    app = define(new_app(make_store()))

    async def scenario(engine):
        await engine.append(act(0))
        await engine.pause("t")
        for n in range(1, 6):
            (firing,) = (await engine.append(act(n))).firings
            found = (firing.outcome, firing.instance_id, firing.error, firing.source)
            assert found == ("paused", None, None, "live")
        await engine.run_until_idle()
        assert await results(engine) == [0]
        walk = await engine.resume("t")
        assert (walk.kind, walk.state) == ("resume", "running")
        await engine.run_until_idle()
        found = await engine.get_backfill(walk.id)
        assert (found.state, found.looked, found.fired, found.share) == ("done", 5, 5, 1.0)
        (firing,) = await engine.firings(activity=tf.cid_of(act(3)))
        assert (firing.outcome, firing.source) == ("started", "resume")
        assert [each.outcome for each in firing.before] == ["paused"]
        (firing,) = (await engine.append(act(9))).firings
        assert firing.outcome == "started"
        await engine.run_until_idle()
        return await results(engine)

    assert live(app, scenario) == [0, 1, 2, 3, 4, 5, 9]


def test_resume_can_drop_what_was_paused(new_app, live, make_store):
    """Without `catch_up` they become `skipped`, for good; redispatch still reaches them."""
    app = define(new_app(make_store()))

    async def scenario(engine):
        await engine.pause("t")
        for n in range(3):
            await engine.append(act(n))
        walk = await engine.resume("t", catch_up=False)
        assert walk.kind == "skip"
        await engine.run_until_idle()
        found = await engine.get_backfill(walk.id)
        assert (found.looked, found.fired, found.unstarted) == (3, 0, 3)
        assert await engine.resume("t") is None
        assert await results(engine) == []
        again = await engine.redispatch(tf.cid_of(act(1)), outcome="skipped")
        assert again == tf.Redispatched(1, {"started": 1})
        await engine.run_until_idle()
        return await results(engine)

    assert live(app, scenario) == [1]


def test_a_draining_trigger_meets_nothing_and_stays_listed(new_app, live, make_store):
    """Nothing is recorded, what runs goes on, and resuming it catches nothing up."""
    app = new_app(make_store())

    @app.flow
    def slow(activity):
        yield tf.sleep(60)
        return activity["n"]

    app.trigger("t", on="Follow", start=slow)

    async def scenario(engine):
        await engine.append(act(0))
        await engine.drain_trigger("t")
        assert (await engine.append(act(1))).firings == ()
        (record,) = engine._store.registry()[1]
        assert (record.name, record.state) == ("t", "draining")
        assert await engine.resume("t") is None
        await engine.append(act(2))
        await trio.sleep(100)
        assert await results(engine) == [0, 2]
        await engine.backfill("t")
        await engine.run_until_idle()
        await trio.sleep(100)
        return await results(engine)

    assert live(app, scenario) == [0, 2, 1]


def test_the_state_outlives_restarts_and_edits(new_app, live, make_store):
    """A new spec under a paused name is paused; each firing is resumed by its own spec."""
    store = make_store()

    async def pause(engine):
        await engine.pause("t")
        await engine.append(act(1))

    live(define(new_app(store)), pause)

    async def edit(engine):
        (firing,) = (await engine.append(act(2))).firings
        assert firing.outcome == "paused"
        await engine.resume("t")
        await engine.run_until_idle()
        first, second = [(await engine.firings(activity=tf.cid_of(act(n))))[0] for n in (1, 2)]
        assert first.trigger_cid != second.trigger_cid
        return await results(engine)

    assert live(define(new_app(store), version=2), edit) == [1, 2]


def test_a_trigger_that_comes_back_starts_where_it_is(new_app, live, make_store):
    """A -> B -> A: what came under B is not A's, though a backfill can make it so."""
    store = make_store()

    async def append(engine, n):
        await engine.append(act(n))
        await engine.run_until_idle()
        return len(await results(engine))

    for n, version in enumerate((1, 2, 1)):
        app = define(new_app(store), version=version, start_at="horizon")
        # start_at counts for the first one alone: its name was new.
        assert live(app, lambda engine, n=n: append(engine, n)) == n + 1

    async def fill(engine):
        walk = await engine.backfill("t")
        await engine.run_until_idle()
        found = await engine.get_backfill(walk.id)
        assert (found.looked, found.known, found.fired) == (3, 2, 1)
        return sorted(await results(engine))

    assert live(define(new_app(store)), fill) == [0, 1, 1, 2]


def test_a_pause_in_one_process_holds_in_the_others(new_app, tmp_path):
    """Two engines on one file: what was planned before the pause is planned again after it."""
    path = tmp_path / "two.db"

    async def main():
        first = define(new_app(SqliteStore(path)))
        second = define(new_app(SqliteStore(path)))
        async with first.open() as one, second.open(work=False) as two:
            await two.append(act(0))
            await one.pause("t")
            (firing,) = (await two.append(act(1))).firings
            assert firing.outcome == "paused"
            await two.resume("t")
            with trio.fail_after(20):
                # The other process has the worker that takes it up.
                while len(await results(one)) < 2 or None in await results(one):
                    await trio.sleep(0.01)
            return await results(one)

    assert trio.run(main) == [0, 1]


def test_a_pause_while_guards_are_judged(new_app, live):
    """An append whose guard runs as the trigger is paused fires as paused."""
    store = MemoryStore()
    holder = {}

    def pausing(document):
        if document["n"] == 1:
            store.set_trigger_state("t", "paused", now=1.0)
        return True

    app = define(new_app(store), guard=pausing)

    async def scenario(engine):
        holder["engine"] = engine
        (firing,) = (await engine.append(act(1))).firings
        return firing.outcome

    assert live(app, scenario) == "paused"


def test_pausing_again_stops_the_catching_up(new_app, live, monkeypatch):
    """What is left stays paused, and the next resume takes it up; none starts twice."""
    monkeypatch.setattr(walks, "_FIRINGS", 2)
    app = define(new_app())

    async def scenario(engine):
        await engine.pause("t")
        for n in range(7):
            await engine.append(act(n))
        walk = await engine.resume("t")
        while (await engine.get_backfill(walk.id)).fired < 2:
            await trio.lowlevel.checkpoint()
        await engine.pause("t")
        await engine.run_until_idle()
        stopped = await engine.get_backfill(walk.id)
        assert stopped.state == "cancelled"
        assert 2 <= stopped.fired < 7
        assert len(await results(engine)) == stopped.fired
        rest = await engine.resume("t")
        await engine.run_until_idle()
        assert (await engine.get_backfill(rest.id)).fired == 7 - stopped.fired
        return await results(engine)

    assert live(app, scenario) == list(range(7))


def test_what_is_dropped_stays_dropped(new_app, live, monkeypatch):
    """A pause and a resume while a skip is on its way: the old ones go, the new ones start."""
    monkeypatch.setattr(walks, "_FIRINGS", 2)
    store = MemoryStore()
    app = define(new_app(store))

    async def away(engine):
        await engine.pause("t")
        for n in range(5):
            await engine.append(act(n))
        await engine.resume("t", catch_up=False)
        await engine.pause("t")
        await engine.append(act(5))
        await engine.resume("t")

    live(app, away, work=False)

    async def scenario(engine):
        await engine.run_until_idle()
        skip, resume = await engine.backfills()
        assert (skip.kind, skip.state, skip.unstarted) == ("skip", "done", 5)
        assert (resume.kind, resume.state, resume.fired) == ("resume", "done", 1)
        return await results(engine)

    assert live(define(new_app(store)), scenario) == [5]


def test_deferred_dispatches_see_both_moments(new_app, live, make_store):
    """Appended while active, dispatched while paused: paused. Appended in a skipped pause:
    skipped.
    """
    store = make_store()

    async def before(engine):
        await engine.append(act(1))
        await engine.pause("t")

    live(define(new_app(store)), before, work=False, deferred=True)

    async def during(engine):
        await engine.run_until_idle()
        (firing,) = await engine.firings(activity=tf.cid_of(act(1)))
        return firing.outcome

    assert live(define(new_app(store)), during) == "paused"

    async def skipped(engine):
        await engine.append(act(2))
        await engine.resume("t", catch_up=False)

    live(define(new_app(store)), skipped, work=False, deferred=True)

    async def after(engine):
        await engine.run_until_idle()
        found = [(await engine.firings(activity=tf.cid_of(act(n))))[0].outcome for n in (1, 2)]
        return found, await results(engine)

    assert live(define(new_app(store)), after) == (["skipped", "skipped"], [])


def test_a_deferred_dispatch_finds_a_trigger_that_went_and_came_back(new_app, live):
    """The triggers of an earlier generation are found, whatever became of them since."""
    store = MemoryStore()

    async def append(engine):
        await engine.append(act(1))

    live(define(new_app(store)), append, work=False, deferred=True)
    for version in (2, 1):

        async def nothing(engine):
            pass

        live(define(new_app(store), version=version), nothing, work=False)

    async def drain(engine):
        await engine.run_until_idle()
        return await results(engine)

    assert live(define(new_app(store)), drain) == [1]


def test_unknown_names(new_app, live):
    """A name that the store doesn't have is an error with the nearest ones."""
    app = define(new_app())

    async def scenario(engine):
        for verb in (engine.pause, engine.drain_trigger, engine.resume, engine.backfill):
            with pytest.raises(tf.UnknownTrigger, match=r"'tt' is not current.*'t'"):
                await verb("tt")
        with pytest.raises(tf.UnknownTrigger):
            await engine.backfill("tt", dry_run=True)
        with pytest.raises(tf.DefinitionError, match="expected one or its name"):
            await engine.pause(3)

    live(app, scenario)


def test_paused_documents_are_kept(new_app, live):
    """Retention takes no document that a paused firing will need."""
    app = define(new_app(activity_retention=60))

    async def scenario(engine):
        await engine.append(act(0))
        await engine.pause("t")
        await engine.append(act(1))
        await trio.sleep(10_000)
        found = [engine._store.activity(tf.cid_of(act(n))).document for n in (0, 1)]
        assert [each is None for each in found] == [True, False]
        await engine.resume("t")
        await trio.sleep(10_000)
        assert engine._store.activity(tf.cid_of(act(1))).document is None
        return await results(engine)

    assert live(app, scenario, hung=1e6) == [0, 1]


def test_a_crash_anywhere_while_resuming(new_app, make_store, monkeypatch):
    """Each paused firing starts once and in order, wherever the process dies."""
    monkeypatch.setattr(walks, "_FIRINGS", 2)

    async def scenario(engine):
        if not await engine.backfills():
            await engine.append(act(0))
            await engine.pause("t")
            for n in range(1, 5):
                await engine.append(act(n))
            await engine.resume("t")
        await engine.run_until_idle()
        return await results(engine)

    def audit(store):
        assert [
            each.outcome for n in range(5) for each in store.firings(tf.cid_of(act(n)))
        ] == ["started"] * 5
        assert sum(each.fired for each in store.backfills()) == 4

    report = crash_everywhere(
        lambda store: define(new_app(store)), scenario, make_store, audit=audit
    )
    assert report.end == [0, 1, 2, 3, 4]
    assert report.points > 12


def test_a_crash_anywhere_while_skipping(new_app, make_store, monkeypatch):
    """Every firing is dropped once, and none starts."""
    monkeypatch.setattr(walks, "_FIRINGS", 2)

    async def scenario(engine):
        if not await engine.backfills():
            await engine.pause("t")
            for n in range(5):
                await engine.append(act(n))
            await engine.resume("t", catch_up=False)
        await engine.run_until_idle()
        walk = (await engine.backfills())[-1]
        found = [
            (await engine.firings(activity=tf.cid_of(act(n))))[0].outcome for n in range(5)
        ]
        return walk.state, walk.unstarted, found, await results(engine)

    report = crash_everywhere(lambda store: define(new_app(store)), scenario, make_store)
    assert report.end == ("done", 5, ["skipped"] * 5, [])
