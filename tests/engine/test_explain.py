"""`explain` tells what an append does, with the same code, and writes nothing."""

from __future__ import annotations

import threading

import pytest
import trio
import trio.lowlevel

import triggerflow as tf
from triggerflow.store.sqlite import MemoryStore
from triggerflow.testing.time import run_virtually, virtual_settings

ANN = "https://a.example/ann"


def act(kind="Join", **fields):
    return {"type": kind, "actor": ANN, **fields}


def full_app(new_app, store):
    """An app whose triggers meet every fate."""
    app = new_app(store)

    @app.flow
    def keep(activity):
        yield tf.wait_signal("later")

    def young(document):
        return document["age"] < 30

    def broken(document):
        raise ValueError("no judge")

    app.trigger("starts", on="Join", start=keep)
    app.trigger("once", on="Join", start=keep, dedup="$.id")
    app.trigger("keyed", on="Join", start=keep, key="$.id")
    app.trigger("pattern", on="Join", match={"object": {"kind": ["club"]}}, start=keep)
    app.trigger("typo", on="join", start=keep)
    app.trigger("other", on="Leave", start=keep)
    app.trigger("actors", on="Join", actors=["https://*.other/*"], start=keep)
    app.trigger("space", on="Join", namespace="shop", start=keep)
    app.trigger("guard", on="Join", guard=young, start=keep)
    app.trigger("raises", on="Join", guard=broken, start=keep)
    app.trigger("mapping", on="Join", input="$.nothing", start=keep)
    app.trigger("signal", on="Join", signal={"flow": keep, "key": "$.id", "name": "go"})
    app.trigger("nobody", on="Join", cancel={"flow": keep, "key": "$.nobody"})
    return app


JOIN = act(id="a", age=40, nobody="b", object={"kimd": "club"})


def told(explanation):
    """Trigger -> its outcome, or why not."""
    return {
        each.trigger: each.outcome if each.outcome != "no" else f"no {each.reason.what}"
        for each in explanation.triggers
    }


FATES = {
    "starts": "started",
    "once": "started",
    "keyed": "started",
    "pattern": "no pattern",
    "typo": "no type",
    "other": "no type",
    "actors": "no actors",
    "space": "no namespace",
    "guard": "no guard",
    "raises": "guard_error",
    "mapping": "failed",
    "signal": "signalled",
    "nobody": "failed",
}


def counted(store):
    counts = store.counts()
    return counts.activities, counts.firings, counts.instances, counts.inbox, counts.outbox


def test_every_fate_before_and_after(new_app, live, make_store):
    """A document, its append and the stored activity tell one story; nothing is written."""
    store = make_store()
    app = full_app(new_app, store)

    async def scenario(engine):
        before = await engine.explain(JOIN)
        empty = counted(store)
        appended = await engine.append(JOIN)
        await engine.run_until_idle()
        there = counted(store)
        after = await engine.explain(JOIN)
        by_cid = await engine.explain(appended.cid)
        similar = await engine.explain({**JOIN, "n": 2})
        return before, empty, appended, there, after, by_cid, similar, counted(store)

    before, empty, appended, there, after, by_cid, similar, last = live(app, scenario)
    assert told(before) == FATES
    assert empty == (0, 0, {}, 0, 0)
    assert there == last
    fired = [(each.trigger, each.outcome, each.instance_id) for each in appended.firings]
    for each in (before, after, by_cid):
        assert [(t.trigger, t.outcome, t.instance_id) for t in each.fired] == fired
    assert (before.seq, after.seq) == (None, appended.seq)
    assert told(after) == FATES
    assert after == by_cid
    assert {each.recorded for each in after.fired} == {True}
    assert told(similar) == {**FATES, "once": "deduped", "keyed": "failed"}
    (once,) = [each for each in similar.fired if each.trigger == "once"]
    assert once.earlier == appended.cid
    reasons = {each.trigger: each.reason for each in before.triggers}
    assert reasons["pattern"].near == ("kimd",)
    assert reasons["pattern"].mismatch.path == "match.object.kind"
    assert reasons["typo"].near == ("Join",)
    assert reasons["other"].near == ()
    assert f"{ANN} meets none of the globs" in reasons["actors"].words


def test_a_refused_document_is_refused_alike(new_app, live):
    """Explain raises what append raises, and an unknown CID is told."""
    app = full_app(new_app, MemoryStore())

    async def scenario(engine):
        for bad in ({"type": "Join"}, [], {"type": "Join", "actor": "a", "x": {1}}):
            with pytest.raises(tf.TriggerflowError) as one:
                await engine.append(bad)
            with pytest.raises(tf.TriggerflowError) as two:
                await engine.explain(bad)
            assert str(one.value) == str(two.value)
        with pytest.raises(tf.UnknownActivity, match="no activity 'bafynone'"):
            await engine.explain("bafynone")

    live(app, scenario)


def test_a_newer_trigger_says_so(new_app, live, make_store):
    """One that was registered after the activity came meets it by backfill only."""
    store = make_store()

    def app_of(*names):
        app = new_app(store)

        @app.flow
        def keep(activity):
            return None
            yield

        for name in names:
            app.trigger(name, on="Join", start=keep, version=len(name))
        return app

    async def append(engine):
        return (await engine.append(act())).cid

    cid = live(app_of("a"), append)

    async def explain(engine):
        return told(await engine.explain(cid))

    assert live(app_of("a", "bb"), explain) == {"a": "started", "bb": "no newer"}


def test_an_edited_trigger_shows_what_the_old_one_did(new_app, live, make_store):
    """The firing of a superseded spec is told beside the current one."""
    store = make_store()

    def app_of(version):
        app = new_app(store)

        @app.flow
        def keep(activity):
            return None
            yield

        app.trigger("t", on="Join", start=keep, version=version)
        return app

    async def append(engine):
        return (await engine.append(act())).cid

    cid = live(app_of(1), append)

    async def explain(engine):
        return [(each.trigger, each.outcome) for each in (await engine.explain(cid)).triggers]

    assert live(app_of(2), explain) == [("t", "started"), ("t", "no")]


def test_without_registering_the_apps_triggers_are_proposed(new_app, make_sqlite):
    """`register=False` leaves the registry as it is, and explains as if they were current."""
    store = make_sqlite()
    app = full_app(new_app, store)

    async def main():
        settings = {**virtual_settings(), "work": False, "register": False}
        async with app.open(**settings) as engine:
            found = told(await engine.explain(JOIN))
            assert store.registry() == (0, ())
            appended = await engine.append(act(id="x"))
            return found, appended.firings

    found, firings = run_virtually(main)
    assert found == FATES
    assert firings == ()


def test_a_guard_that_hangs_is_given_up_in_explain_too(new_app, real, make_sqlite):
    """The time limit of guards holds for explaining as well."""
    app = new_app(make_sqlite())
    release = threading.Event()

    @app.flow
    def keep(activity):
        return None
        yield

    def hangs(document):
        return release.wait(20)

    app.trigger("hangs", on="Join", start=keep, guard=hangs)
    app.trigger("good", on="Join", start=keep)

    async def scenario():
        async with app.open(guard_limit=0.2) as engine:
            try:
                return told(await engine.explain(act()))
            finally:
                release.set()

    assert real(scenario) == {"hangs": "guard_error", "good": "started"}


def test_explaining_wakes_nobody(new_app, real, make_sqlite):
    """What the store rehearses is no write: another process doesn't notice."""
    path = make_sqlite().path

    async def scenario():
        app = full_app(new_app, f"sqlite:///{path}")
        async with app.open() as engine:
            other = app.make_store()
            other.open()
            try:
                other.changed()
                await trio.lowlevel.checkpoint()
                before = other.registry()[0]
                await engine.explain(JOIN)
                return before, other.registry()[0], other.counts().activities
            finally:
                other.abandon()

    before, after, activities = real(scenario)
    assert before == after
    assert activities == 0
