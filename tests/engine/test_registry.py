"""The registry: what can't be read stops nobody, what is gone can be retired."""

from __future__ import annotations

import logging

import pytest

import triggerflow as tf
from triggerflow.core.codec import encode_document
from triggerflow.store.records import NewTrigger
from triggerflow.testing.time import run_virtually, virtual_settings

ANN = "https://a.example/ann"


def act(kind="Join", **fields):
    return {"type": kind, "actor": ANN, **fields}


def app_of(new_app, store, *names, **parts):
    app = new_app(store)

    @app.flow
    def keep(activity):
        return activity["type"]
        yield

    for name in names:
        app.trigger(name, on="Join", start=keep, version=len(name), **parts)
    return app


def register(store, name, block):
    store.open()
    store.sync_triggers([NewTrigger(name, tf.cid_of({"n": name}), block, name)], now=1.0)
    store.close()


NEWER = {"name": "newer", "on": ["Join"], "start": "keep", "version": 1, "wormhole": {"x": 1}}


@pytest.mark.parametrize(
    ("block", "deferred"),
    [
        (encode_document(NEWER), True),
        (encode_document({**NEWER, "on": ["Le*"]}), False),
        (encode_document({**NEWER, "namespace": "shop"}), False),
        (encode_document({**NEWER, "on": {"any": "form"}}), True),
        (encode_document([1, 2]), True),
        (b"\xff not cbor", False),
    ],
)
def test_a_trigger_that_can_not_be_read_stops_no_other(
    new_app, live, make_store, caplog, block, deferred
):
    """It is told in the log, and what it may meet is left to a worker that can read it."""
    store = make_store()
    register(store, "newer", block)
    app = app_of(new_app, store, "mine")

    async def scenario(engine):
        found = await engine.append(act())
        await engine.run_until_idle()
        explained = await engine.explain(found.cid)
        return found, explained, len(store.outbox(10))

    with caplog.at_level(logging.WARNING, "triggerflow"):
        found, explained, waiting = live(app, scenario)
    assert [(each.trigger, each.outcome) for each in found.firings] == [("mine", "started")]
    assert waiting == deferred
    fates = {
        each.trigger: (each.outcome, each.reason and each.reason.what)
        for each in explained.triggers
    }
    assert fates["mine"] == ("started", None)
    assert fates["newer"] == ("deferred" if deferred else "no", "unreadable")
    assert "trigger 'newer'" in caplog.text


def test_a_worker_that_can_read_it_carries_it_out(new_app, live, make_store, monkeypatch):
    """What was left to a newer triggerflow is dispatched once there is one."""
    from triggerflow.triggers import Trigger

    store = make_store()
    register(store, "newer", encode_document(NEWER))

    async def append(engine):
        return (await engine.append(act())).firings

    assert live(app_of(new_app, store), append) == ()
    honest = Trigger.from_spec

    def newer(spec, guard_fn=None):
        return honest({k: v for k, v in spec.items() if k != "wormhole"}, guard_fn)

    monkeypatch.setattr(Trigger, "from_spec", newer)
    monkeypatch.setattr(
        Trigger, "trigger_cid", property(lambda self: tf.cid_of({"n": self.name}))
    )

    async def work(engine):
        await engine.run_until_idle()
        return [(each.trigger, each.outcome) for each in await engine.firings()]

    assert live(app_of(new_app, store), work) == [("newer", "started")]
    assert store.counts is not None


def test_a_trigger_is_retired(new_app, live, make_store):
    """One that the app has is refused; one that it lacks meets nothing more."""
    store = make_store()

    async def one(engine):
        with pytest.raises(tf.DefinitionError, match="this app defines the trigger"):
            await engine.retire("bb")
        return (await engine.append(act(n=1))).firings

    assert len(live(app_of(new_app, store, "a", "bb"), one)) == 1 + 1

    async def two(engine):
        before = (await engine.append(act(n=2))).firings
        await engine.retire("bb")
        after = (await engine.append(act(n=3))).firings
        with pytest.raises(tf.DefinitionError, match="no current trigger of this name"):
            await engine.retire("bb")
        return [[each.trigger for each in found] for found in (before, after)]

    assert live(app_of(new_app, store, "a"), two) == [["a", "bb"], ["a"]]

    async def three(engine):
        return [each.trigger for each in (await engine.append(act(n=4))).firings]

    assert live(app_of(new_app, store, "a", "bb"), three) == ["a", "bb"]


def test_what_was_deferred_before_meets_a_retired_trigger(new_app, make_store):
    """Retiring takes nothing from what was appended before it."""
    store = make_store()

    async def main():
        app = app_of(new_app, store, "a")
        settings = virtual_settings()
        async with app.open(**{**settings, "work": False, "deferred": True}) as engine:
            await engine.append(act(n=1))
        async with app_of(new_app, store).open(**{**settings, "work": False}) as engine:
            await engine.retire("a")
            await engine.append(act(n=2))
        async with app.open(**{**settings, "register": False}) as engine:
            await engine.run_until_idle()
            return [each.trigger for each in await engine.firings()]

    assert run_virtually(main) == ["a"]


def test_the_owner_is_part_of_the_trigger(new_app, live, make_store):
    """`same_as_owner` admits the app's own actors; another owner makes another trigger."""
    store = make_store()
    scope = {"same_as_owner": True}
    with pytest.raises(tf.DefinitionError, match="the app has no owner"):
        app_of(new_app, store, "a", actors=scope)
    cids = []
    for owner in (ANN, ["https://b.example/ben"], {"": ANN, "shop": "ben"}):
        app = tf.App(store, build="one", entry_points=False, owner=owner)

        @app.flow
        def keep(activity):
            return None
            yield

        cids.append(app.trigger("a", on="Join", start=keep, actors=scope).trigger_cid)
    assert cids[0] == cids[2] != cids[1]

    async def scenario(engine):
        found = await engine.append_many([act(), {"type": "Join", "actor": [ANN, "ben"]}])
        return [len(each.firings) for each in found]

    assert live(app, scenario) == [1, 0]
    with pytest.raises(tf.DefinitionError, match="is a glob"):
        tf.App(owner="https://*.example/*")


def test_guards_by_name(new_app, live):
    """A trigger may name a guard of the app; two functions under one name are refused."""
    app = new_app()

    @app.flow
    def keep(activity):
        return None
        yield

    @app.guard(version=2)
    def big(document):
        return document["n"] > 5

    assert big == tf.Guard("big", 2)
    app.trigger("t", on="Join", start=keep, guard="big@2")
    with pytest.raises(tf.DefinitionError, match="stands for two functions"):
        app.guard(lambda document: True, name="big", version=2)
    with pytest.raises(tf.DefinitionError, match="is a lambda"):
        app.guard(lambda document: True)

    async def scenario(engine):
        return [len((await engine.append(act(n=n))).firings) for n in (1, 9)]

    assert live(app, scenario) == [0, 1]


def test_a_file_is_loaded_whole_or_not_at_all(new_app, tmp_path):
    """One trigger that clashes with the app's own leaves none of the file."""
    app = app_of(new_app, None, "a")
    path = tmp_path / "t.toml"
    one = "[[trigger]]\nname='{}'\non='X'\nstart='keep'\n"
    path.write_text(one.format("new") + one.format("a"))
    with pytest.raises(tf.DuplicateTrigger):
        app.load_triggers(path)
    assert [each.name for each in app.triggers] == ["a"]
    path.write_text(one.format("new"))
    (made,) = app.load_triggers(path)
    assert app.load_triggers(path) == (made,)
    assert [each.name for each in app.triggers] == ["a", "new"]


def test_firings_page_by_page(new_app, live, make_store):
    """The newest first, narrowed by activity, trigger and outcome, a page at a time."""
    app = app_of(new_app, make_store(), "a", "bb")
    app.trigger("bad", on="Join", start="keep", input="$.x")

    async def scenario(engine):
        found = await engine.append_many([act(n=n) for n in range(5)])
        pages, after = [], None
        while page := await engine.firings(limit=4, after=after):
            pages.append([each.trigger for each in page])
            after = page[-1]
        failed = await engine.firings(outcome="failed")
        started = await engine.firings(outcome="started", trigger="bb")
        of_one = await engine.firings(activity=found[2].cid)
        return pages, failed, started, of_one, found[2]

    pages, failed, started, of_one, third = live(app, scenario)
    assert [len(page) for page in pages] == [4, 4, 4, 3]
    assert pages[0] == ["bad", "bb", "a", "bad"]
    assert len(failed) == len(started) == 5
    assert tuple(reversed(of_one)) == third.firings
