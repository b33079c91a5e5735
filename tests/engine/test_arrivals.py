"""Activities on their way in: validated, matched, judged, and dispatched, once."""

from __future__ import annotations

import logging
import threading

import pytest
import trio

import triggerflow as tf
from triggerflow.store.operations import Append, Verdict
from triggerflow.store.sqlite import MemoryStore, SqliteStore

ANN = "https://a.example/ann"
FOLLOW = {"type": "Follow", "actor": ANN, "object": {"n": 1}}


def add_flow(app, name="seen"):
    @app.flow(name=name)
    def seen(activity):
        return activity
        yield

    return seen


def outcomes(appended):
    return [(firing.trigger, firing.outcome) for firing in appended.firings]


# --- guards and scope


def test_guard_that_says_no_leaves_nothing(new_app, live):
    """A false guard is no firing at all; its neighbours fire."""
    app = new_app()
    flow = add_flow(app)

    def big(document):
        return document["object"]["n"] > 9

    app.trigger("no", on="Follow", start=flow, guard=big)
    app.trigger("yes", on="Follow", start=flow)

    async def scenario(engine):
        return outcomes(await engine.append(FOLLOW))

    assert live(app, scenario) == [("yes", "started")]


@pytest.mark.parametrize("error", [ValueError, SystemExit, KeyboardInterrupt, RecursionError])
def test_guard_that_raises_is_an_error_on_its_own_firing(new_app, real, make_sqlite, error):
    """Whatever it raises, the appender hears nothing of it, and its neighbours fire."""
    app = new_app(make_sqlite())
    flow = add_flow(app)

    def bad(document):
        raise error("judge")

    app.trigger("bad", on="Follow", start=flow, guard=bad)
    app.trigger("good", on="Follow", start=flow, guard=tf.Guard("yes", 1, lambda _: True))

    async def scenario():
        async with app.open() as engine:
            found = await engine.append(FOLLOW)
            again = await engine.append(FOLLOW)
            return found, again

    found, again = real(scenario)
    assert outcomes(found) == [("bad", "guard_error"), ("good", "started")]
    assert error.__name__ in found.firings[0].error
    assert again.duplicate
    assert again.firings == found.firings


def test_guard_that_hangs_is_given_up(new_app, real, make_sqlite):
    """Past its limit a guard is an error on its firing; those after it are still judged."""
    app = new_app(make_sqlite())
    flow = add_flow(app)
    release = threading.Event()

    def yes(document):
        return True

    def hangs(document):
        return release.wait(20)

    app.trigger("a-good", on="Follow", start=flow, guard=yes)
    app.trigger("b-hangs", on="Follow", start=flow, guard=hangs)
    app.trigger("c-good", on="Follow", start=flow, guard=tf.Guard("c", 1, yes))

    async def scenario():
        async with app.open(guard_limit=0.2) as engine:
            try:
                return await engine.append(FOLLOW)
            finally:
                release.set()

    assert outcomes(real(scenario)) == [
        ("a-good", "started"),
        ("b-hangs", "guard_error"),
        ("c-good", "started"),
    ]


def test_guard_can_not_change_what_others_see(new_app, live):
    """Each guard has a document of its own; the flow gets what was appended."""
    app = new_app()
    flow = add_flow(app)
    seen = []

    def vandal(document):
        seen.append(document["object"].get("mine"))
        document["object"]["mine"] = True
        document["type"] = "Other"
        return True

    app.trigger("one", on="Follow", start=flow, guard=tf.Guard("one", 1, vandal))
    app.trigger("two", on="Follow", start=flow, guard=tf.Guard("two", 1, vandal))
    given = {**FOLLOW, "object": {"n": 1}}

    async def scenario(engine):
        found = await engine.append(given)
        return [(await engine.wait(firing.instance_id)).result for firing in found.firings]

    assert live(app, scenario) == [FOLLOW, FOLLOW]
    assert seen == [None, None]
    assert given == FOLLOW


def test_scope_is_asked_of_every_actor(new_app, live):
    """With several actors all must be in scope; `*` does not cross a slash."""
    app = new_app()
    flow = add_flow(app)
    app.trigger("mine", on="Follow", start=flow, actors=["https://*.example/*"])

    async def scenario(engine):
        found = []
        for actor in (ANN, [ANN, "https://b.example/bob"], [ANN, "https://evil.test/x"]):
            found.append(len((await engine.append({**FOLLOW, "actor": actor})).firings))
        found.append(len((await engine.append({**FOLLOW, "actor": f"{ANN}/deep"})).firings))
        return found

    assert live(app, scenario) == [1, 1, 0, 0]


# --- plugins


class _Veto:
    @tf.hookimpl
    def triggerflow_validate(self, activity):
        if "spam" in activity.types:
            raise ValueError("no spam here")
        if "odd" in activity.types:
            raise tf.ActivityRejected("activity.type", "odd", "even", "parity")


def test_plugin_may_veto_before_anything_is_stored(new_app, live):
    """`ActivityRejected` names the plugin; no trigger ever sees the activity."""
    store = MemoryStore()
    app = new_app(store, plugins=[_Veto()])
    asked = []

    def asked_of(document):
        asked.append(document)

    app.trigger("t", on="*", start=add_flow(app), guard=asked_of)

    async def scenario(engine):
        with pytest.raises(tf.ActivityRejected, match="no spam here") as caught:
            await engine.append({**FOLLOW, "type": "spam"})
        with pytest.raises(tf.ActivityRejected, match="parity"):
            await engine.append({**FOLLOW, "type": "odd"})
        assert isinstance(caught.value.__cause__, ValueError)
        found = await engine.append_many([{**FOLLOW, "type": "spam"}, FOLLOW])
        assert isinstance(found[0], tf.Rejected)
        assert isinstance(found[1], tf.Appended)
        return caught.value.by, store.counts().activities

    by, stored = live(app, scenario)
    assert by not in ("", "triggerflow")
    assert stored == 1
    assert asked == [FOLLOW]


def test_appended_hook_comes_after_the_commit_once(new_app, live, caplog):
    """Plugins see each activity once, with its firings durable; what they raise is logged."""
    store = MemoryStore()
    seen = []

    class Listener:
        @tf.hookimpl
        def triggerflow_appended(self, activity, firings):
            seen.append((activity.cid, [store.instance(f.instance_id).flow for f in firings]))
            raise RuntimeError("listener is broken")

    class Other:
        @tf.hookimpl
        def triggerflow_appended(self, activity):
            seen.append(activity.cid)

    app = new_app(store, plugins=[Listener(), Other()])
    app.trigger("t", on="Follow", start=add_flow(app))

    async def scenario(engine):
        found = await engine.append(FOLLOW)
        again = await engine.append_many([FOLLOW, FOLLOW])
        return found.cid, [each.duplicate for each in again]

    with caplog.at_level(logging.ERROR, "triggerflow"):
        cid, duplicates = live(app, scenario)
    assert duplicates == [True, True]
    assert sorted(seen, key=str) == sorted([(cid, ["seen"]), cid], key=str)
    assert "triggerflow_appended" in caplog.text


# --- the registry


def test_append_is_planned_again_when_the_registry_has_moved(new_app, real, tmp_path, watched):
    """A trigger that another app registers meanwhile fires on the very next append."""
    path = tmp_path / "shared.db"
    store = watched(SqliteStore(path))
    one = new_app(store)
    one.trigger("old", on="Follow", start=add_flow(one))
    two = new_app(SqliteStore(path))
    two.trigger("new", on="Follow", start=add_flow(two, "other"))

    async def scenario():
        async with one.open(work=False) as engine:
            assert len((await engine.append({**FOLLOW, "n": 0})).firings) == 1
            async with two.open(work=False):
                pass
            return await engine.append(FOLLOW)

    found = real(scenario)
    assert [firing.trigger for firing in found.firings] == ["old", "new"]
    verdicts = [
        outcome.verdict
        for batch, outcomes in store.batches
        for op, outcome in zip(batch.operations, outcomes, strict=True)
        if type(op) is Append
    ]
    assert verdicts == [Verdict.APPLIED, Verdict.STALE, Verdict.APPLIED]


def test_flow_that_this_process_lacks_gives_a_blocked_instance(new_app, live):
    """The firing stands, and the instance waits for a worker that knows the flow."""
    app = new_app()
    app.trigger("t", on="Follow", start="elsewhere")

    async def scenario(engine):
        (firing,) = (await engine.append(FOLLOW)).firings
        found = await engine.get(firing.instance_id)
        return firing.error, found.status, found.cause, "elsewhere" in found.reason

    assert live(app, scenario) == (None, "blocked", "unknown_flow", True)


def test_new_spec_supersedes_the_old_one_of_its_name(new_app, live):
    """An edited trigger is a new one; an old activity's repeat tells its first firings."""
    store = MemoryStore()

    def make(flow, version):
        app = new_app(store, build=flow)
        app.trigger("t", on="Follow", start=add_flow(app, flow), version=version)
        return app

    async def append(engine):
        return await engine.append(FOLLOW)

    async def append_both(engine):
        return await engine.append(FOLLOW), await engine.append({**FOLLOW, "n": 2})

    first = live(make("one", 1), append)
    repeat, fresh = live(make("two", 2), append_both)
    assert repeat.duplicate
    assert repeat.firings == first.firings
    assert len(fresh.firings) == 1
    assert fresh.firings[0].trigger_cid != first.firings[0].trigger_cid
    back, _ = live(make("one", 1), append_both)
    assert back.firings == first.firings


# --- deferred dispatch


def make_deferring(new_app, store, *, guard=None, known=True):
    app = new_app(store, build=str((guard, known)))
    if known:
        add_flow(app)
    app.trigger("t", on="Follow", start="seen", guard=guard)
    return app


def test_deferred_dispatch_is_carried_out_by_a_worker(new_app, live, make_store):
    """The append says that nothing has fired yet; a worker fires each pair once."""
    store = make_store()

    async def append(engine):
        found = await engine.append_many({**FOLLOW, "n": n} for n in range(250))
        again = await engine.append({**FOLLOW, "n": 0})
        assert again.duplicate
        return [each.firings for each in found]

    firings = live(make_deferring(new_app, store), append, work=False, deferred=True)
    assert set(firings) == {None}

    async def work(engine):
        await engine.run_until_idle()
        found = await engine.append({**FOLLOW, "n": 0})
        assert len(found.firings) == 1
        return [each.status async for each in engine.instances()]

    assert live(make_deferring(new_app, store), work) == ["done"] * 250
    store.open()
    assert store.outbox(10) == []
    assert store.counts().firings == 250
    store.close()


def test_worker_that_defers_dispatches_itself(new_app, live):
    """`deferred=True` on a worker puts the dispatch off for a moment, no more."""
    app = make_deferring(new_app, MemoryStore())

    async def scenario(engine):
        found = await engine.append(FOLLOW)
        await engine.run_until_idle()
        return found.firings, [each.status async for each in engine.instances()]

    assert live(app, scenario, deferred=True) == (None, ["done"])


def test_guard_without_code_here_is_left_to_a_worker_that_has_it(new_app, live, make_store):
    """A trigger whose guard this process lacks gets an outbox row; others fire at once."""
    store = make_store()

    def judged(document):
        return document["object"]["n"] == 1

    with_code = make_deferring(new_app, store, guard=tf.Guard("g", 1, judged))

    async def register(engine):
        pass

    live(with_code, register, work=False)
    bare = new_app(store, build="bare")
    bare.trigger("at-once", on="Follow", start=add_flow(bare))

    async def append(engine):
        found = await engine.append(FOLLOW)
        await engine.append({**FOLLOW, "object": {"n": 2}})
        await engine.run_until_idle()
        return outcomes(found)

    assert live(bare, append) == [("at-once", "started")]
    store.open()
    assert len(store.outbox(10)) == 2
    store.close()

    async def work(engine):
        await engine.run_until_idle()
        return await engine.append(FOLLOW), await engine.append({**FOLLOW, "object": {"n": 2}})

    one, two = live(make_deferring(new_app, store, guard=tf.Guard("g", 1, judged)), work)
    assert sorted(outcomes(one)) == [("at-once", "started"), ("t", "started")]
    assert outcomes(two) == [("at-once", "started")]
    store.open()
    assert store.outbox(10) == []
    store.close()


def test_trigger_that_was_replaced_still_waits_for_its_own_guard(new_app, live):
    """What an append owed to a trigger is decided by that trigger's own spec and guard."""
    store = MemoryStore()

    def old_app():
        return make_deferring(new_app, store, guard=tf.Guard("g", 1, lambda _: True))

    async def nothing(engine):
        pass

    live(old_app(), nothing, work=False)
    bare = new_app(store, build="bare")

    async def append(engine):
        await engine.append(FOLLOW)

    live(bare, append, work=False)
    new = make_deferring(new_app, store, guard=tf.Guard("g", 2, lambda _: True))

    async def work(engine):
        await engine.run_until_idle()
        return await engine.append(FOLLOW)

    assert live(new, work).firings == ()
    (firing,) = live(old_app(), work).firings
    assert (firing.outcome, firing.error) == ("started", None)


def test_two_workers_dispatch_a_deferred_row_once(new_app, real, tmp_path):
    """Both see it in the outbox; one transaction wins, and the pair has one instance."""
    path = tmp_path / "shared.db"
    apps = [make_deferring(new_app, SqliteStore(path)) for _ in range(3)]

    async def scenario():
        async with (
            apps[0].open(work=False, deferred=True) as writer,
            apps[1].open() as one,
            apps[2].open() as two,
        ):
            await writer.append_many({**FOLLOW, "n": n} for n in range(150))
            while len([1 async for _ in writer.instances(status="done")]) < 150:
                await one.run_until_idle()
                await two.run_until_idle()
            return len([1 async for _ in writer.instances()])

    assert real(scenario) == 150


def test_concurrent_appends_of_one_activity_fire_once(new_app, live):
    """However many append it at once, one is first; all get the same firings."""
    app = new_app()
    app.trigger("t", on="Follow", start=add_flow(app))

    async def scenario(engine):
        found = []

        async def append():
            found.append(await engine.append(FOLLOW))

        async with trio.open_nursery() as nursery:
            for _ in range(30):
                nursery.start_soon(append)
        return (
            [each.duplicate for each in found].count(False),
            len({each.firings for each in found}),
            len([1 async for _ in engine.instances()]),
        )

    assert live(app, scenario) == (1, 1, 1)
