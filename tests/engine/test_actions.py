"""What triggers do: mapped inputs, keys, signals, cancels, dedup, depth, namespaces."""

from __future__ import annotations

import hashlib
import threading

import pytest
import trio

import triggerflow as tf
from triggerflow.testing.time import run_virtually, virtual_settings

ANN = "https://a.example/ann"


def act(kind="Join", **fields):
    return {"type": kind, "actor": ANN, **fields}


def request_app(new_app, store=None, **parts):
    """An app with a flow that waits for its answer, started by Join under the key `$.id`."""
    app = new_app(store)

    @app.flow
    def request(activity):
        try:
            return (yield tf.wait_signal("answer"))
        except tf.FlowCancelled:
            yield tf.set_attributes(undone=True)
            raise

    app.trigger("join", on="Join", start=request, key="$.id", **parts)
    return app


def outcomes(found):
    return [(each.trigger, each.outcome) for each in found.firings]


# --- inputs


def test_an_input_is_mapped(new_app, live, make_store):
    """The flow gets what the mapping makes; without one, the whole document."""
    app = new_app(make_store())

    @app.flow
    def keep(given):
        return given
        yield

    app.trigger("whole", on="Join", start=keep)
    app.trigger("path", on="Join", start=keep, input="$.object.id")
    mapping = {"who.$": "$.actor", "kind": "new", "about": {"type.$": "$$.type"}}
    app.trigger("made", on="Join", start=keep, input=mapping)

    async def scenario(engine):
        found = await engine.append(act(object={"id": 7}))
        return [(await engine.wait(each.instance_id)).result for each in found.firings]

    assert live(app, scenario) == [
        act(object={"id": 7}),
        7,
        {"who": ANN, "kind": "new", "about": {"type": ["Join"]}},
    ]


def test_an_absent_path_is_an_error_on_its_own_firing(new_app, live, make_store):
    """The firing says which path; its neighbours fire, and a repeat gives the same firings."""
    app = new_app(make_store())

    @app.flow
    def keep(given):
        return given
        yield

    app.trigger("bad", on="Join", start=keep, input={"a.$": "$.object.id"})
    app.trigger("good", on="Join", start=keep)
    app.trigger("keyless", on="Join", start=keep, key="$.object.key")
    app.trigger("undedupable", on="Join", start=keep, dedup="$.id")

    async def scenario(engine):
        found = await engine.append(act())
        return found, await engine.append(act())

    found, again = live(app, scenario)
    assert outcomes(found) == [
        ("bad", "failed"),
        ("good", "started"),
        ("keyless", "failed"),
        ("undedupable", "failed"),
    ]
    assert [each.error for each in found.firings] == [
        "the activity has no $.object.id",
        None,
        "the activity has no $.object.key",
        "the activity has no $.id",
    ]
    assert again.firings == found.firings


def test_a_mapping_bomb_is_an_error_on_its_own_firing(new_app, live):
    """A mapping that would make gigabytes of a large document is cut off by the limit."""
    app = new_app()

    @app.flow
    def keep(given):
        return None
        yield

    app.trigger("bomb", on="Join", start=keep, input={f"f{n}.$": "$" for n in range(2000)})
    app.trigger("good", on="Join", start=keep)

    async def scenario(engine):
        return await engine.append(act(text="x" * 900_000))

    found = live(app, scenario)
    assert outcomes(found) == [("bomb", "failed"), ("good", "started")]
    assert "at most 1,048,576 bytes" in found.firings[0].error


# --- keys


def test_a_key_is_held_by_one_live_instance(new_app, live, make_store):
    """An equal input meets the holder, another one fails by name; an ended one holds none."""
    app = request_app(new_app, make_store(), input={"id.$": "$.id", "n.$": "$.n"})

    async def scenario(engine):
        one, same, other = await engine.append_many(
            [act(id="a", n=1), act(id="a", n=1, x=2), act(id="a", n=2)]
        )
        later = await engine.append(act(id="a", n=1, x=3))
        (first,) = one.firings
        await engine.signal(key="a", name="answer")
        await engine.wait(first.instance_id)
        fresh = await engine.append(act(id="a", n=1, x=4))
        return one, same, other, later, fresh

    one, same, other, later, fresh = live(app, scenario)
    holder = one.firings[0].instance_id
    assert outcomes(one) == outcomes(fresh) == [("join", "started")]
    assert fresh.firings[0].instance_id != holder
    for found in (same, later):
        assert outcomes(found) == [("join", "deduped")]
        assert found.firings[0].instance_id == holder
    assert outcomes(other) == [("join", "failed")]
    assert f"is held by instance {holder}" in other.firings[0].error


# --- signals and cancels


def test_signal_and_cancel_find_the_instance_by_its_key(new_app, live, make_store):
    """A signal with its mapped payload, a cancel, and what there is nobody for."""
    app = request_app(new_app, make_store())
    to = {"flow": "request", "key": "$.object"}
    app.trigger("yes", on="Accept", signal={**to, "name": "answer", "payload": "$.words"})
    app.trigger("undo", on="Undo", cancel=to)

    async def scenario(engine):
        await engine.append_many([act(id="a"), act(id="b")])
        accepted = await engine.append(act("Accept", object="a", words="yes"))
        undone = await engine.append(act("Undo", object="b"))
        nobody = await engine.append(act("Undo", object="c"))
        a = await engine.wait(accepted.firings[0].instance_id)
        b = await engine.wait(undone.firings[0].instance_id)
        late = await engine.append(act("Accept", object="a", words="again"))
        return accepted, undone, nobody, late, a, b

    accepted, undone, nobody, late, a, b = live(app, scenario)
    assert outcomes(accepted) == [("yes", "signalled")]
    assert outcomes(undone) == [("undo", "cancelled")]
    assert (a.key, a.result) == ("a", "yes")
    assert (b.key, b.status, b.attributes) == ("b", "cancelled", {"undone": True})
    for found in (nobody, late):
        assert [each.outcome for each in found.firings] == ["failed"]
        assert "no live instance of flow 'request' holds the key" in found.firings[0].error


def test_one_batch_starts_signals_and_cancels(new_app, live, make_store):
    """What an activity of the same commit started is found by those after it, in order."""
    app = request_app(new_app, make_store())
    to = {"flow": "request", "key": "$.object"}
    app.trigger("yes", on="Accept", signal={**to, "name": "answer", "payload": "$.n"})
    app.trigger("undo", on="Undo", cancel=to)

    async def scenario(engine):
        early, join, first, second, other, undo, again = await engine.append_many(
            [
                act("Accept", object="a", n=0),
                act(id="a"),
                act("Accept", object="a", n=1),
                act("Accept", object="a", n=2),
                act(id="b"),
                act("Undo", object="b"),
                act("Undo", object="b", n=2),
            ]
        )
        ends = [await engine.wait(each.firings[0].instance_id) for each in (join, other)]
        return [outcomes(each)[0][1] for each in (early, first, second, undo, again)], ends

    found, (a, b) = live(app, scenario)
    assert found == ["failed", "signalled", "signalled", "cancelled", "cancelled"]
    assert a.result == 1
    assert b.status == "cancelled"


def test_a_signal_that_the_flow_does_not_take_is_refused(new_app, real, make_sqlite):
    """A declared flow takes its own signals only; its validator is code, and contained."""
    app = new_app(make_sqlite())
    release = threading.Event()

    def positive(payload):
        if payload == "hang":
            release.wait(20)
        return payload > 0

    @app.flow(signals={"answer": positive})
    def request(activity):
        return (yield tf.wait_signal("answer"))

    to = {"flow": request, "key": "$.id"}
    app.trigger("join", on="Join", start=request, key="$.id")
    app.trigger("wrong", on="Accept", signal={**to, "name": "other"})
    app.trigger("right", on="Accept", signal={**to, "name": "answer", "payload": "$.n"})

    async def scenario():
        async with app.open(guard_limit=0.3) as engine:
            (firing,) = (await engine.append(act(id="a"))).firings
            try:
                rows = [
                    await engine.append(act("Accept", id="a", n=n))
                    for n in (-1, "x", "hang", 5)
                ]
            finally:
                release.set()
            return rows, (await engine.wait(firing.instance_id)).result

    rows, result = real(scenario)
    assert result == 5
    assert all("it takes 'answer'" in each.firings[0].error for each in rows)
    right = [each.firings[1] for each in rows]
    assert [each.outcome for each in right] == ["failed", "failed", "guard_error", "signalled"]
    assert "returned False" in right[0].error
    assert "TypeError" in right[1].error
    assert "the validator of flow request took longer" in right[2].error


# --- dedup


def test_dedup_for_ever_and_in_a_window(new_app, live, make_store):
    """Two activities of one meaning fire once; after the window the next one fires."""
    app = new_app(make_store())

    @app.flow
    def keep(given):
        return given["n"]
        yield

    app.trigger("ever", on="Join", start=keep, dedup="$.id")
    app.trigger("hour", on="Join", start=keep, dedup={"key": "$.id", "window": tf.hours(1)})
    app.trigger("always", on="Join", start=keep)

    async def scenario(engine):
        found = await engine.append_many([act(id="a", n=n) for n in range(3)])
        await trio.sleep(3599)
        found.append(await engine.append(act(id="a", n=3)))
        await trio.sleep(2)
        found += await engine.append_many([act(id="a", n=4), act(id="a", n=5)])
        found.append(await engine.append(act(id=["a"], n=6)))
        return found

    found = live(app, scenario, hung=10_000)
    by_trigger = list(zip(*(each.firings for each in found), strict=True))
    words = [[firing.outcome for firing in row] for row in by_trigger]
    assert words[0] == ["started", *["deduped"] * 5, "started"]
    assert words[1] == [
        "started",
        "deduped",
        "deduped",
        "deduped",
        "started",
        "deduped",
        "started",
    ]
    assert words[2] == ["started"] * 7
    assert {each.earlier for each in by_trigger[0][1:6]} == {found[0].cid}
    assert {each.instance_id for each in by_trigger[0][:6]} == {found[0].firings[0].instance_id}
    assert by_trigger[1][5].earlier == found[4].cid
    assert by_trigger[0][1].error is None


@pytest.mark.parametrize("across", [True, False])
def test_dedup_across_versions(new_app, live, make_store, across):
    """An edited trigger begins anew, or goes on with what its name has seen, as asked."""
    store = make_store()

    def run(version):
        app = new_app(store)

        @app.flow
        def keep(given):
            return None
            yield

        dedup = {"key": "$.id", "across_versions": across}
        app.trigger("t", on="Join", start=keep, dedup=dedup, version=version)

        async def scenario(engine):
            return await engine.append(act(id="a", n=version))

        return live(app, scenario)

    first, second = run(1), run(2)
    assert outcomes(first) == [("t", "started")]
    assert outcomes(second) == [("t", "deduped" if across else "started")]


def test_a_firing_that_failed_does_not_dedup(new_app, live, make_store):
    """Only what was done counts: a signal to nobody leaves the next one free."""
    app = request_app(new_app, make_store())
    signal = {"flow": "request", "key": "$.id", "name": "answer"}
    app.trigger("yes", on="Accept", signal=signal, dedup="$.id")

    async def scenario(engine):
        found = [await engine.append(act("Accept", id="a", n=1))]
        await engine.append(act(id="a"))
        found += await engine.append_many([act("Accept", id="a", n=n) for n in (2, 3)])
        return [each.firings[0].outcome for each in found]

    assert live(app, scenario) == ["failed", "signalled", "deduped"]


def test_concurrent_appends_of_one_meaning_fire_once(new_app, real, make_sqlite):
    """A hundred tasks of two engines on one file append at once: one firing starts."""
    store_path = make_sqlite().path

    def app_of():
        app = new_app(f"sqlite:///{store_path}")

        @app.flow
        def keep(given):
            return None
            yield

        app.trigger("once", on="Join", start=keep, dedup="$.id")
        return app

    found = []

    async def scenario():
        async with (
            app_of().open() as one,
            app_of().open() as two,
            trio.open_nursery() as nursery,
        ):

            async def append(engine, n):
                found.append(await engine.append(act(id="a", n=n)))

            for n in range(100):
                nursery.start_soon(append, (one, two)[n % 2], n)

    real(scenario)
    words = sorted(firing.outcome for each in found for firing in each.firings)
    assert words == ["deduped"] * 99 + ["started"]
    (winner,) = [each for each in found if each.firings[0].outcome == "started"]
    assert {each.firings[0].earlier for each in found} == {None, winner.cid}


# --- loops


def test_max_depth_cuts_a_loop_with_a_record(new_app, live, make_store):
    """A emits B, B emits A; the trigger with a limit stops it, and its firing says so."""
    app = new_app(make_store())

    @app.flow
    def ping(activity):
        yield tf.emit({**activity, "type": "Pong", "n": activity["n"] + 1})

    @app.flow
    def pong(activity):
        yield tf.emit({**activity, "type": "Ping", "n": activity["n"] + 1})

    app.trigger("ping", on="Ping", start=ping, max_depth=4)
    app.trigger("pong", on="Pong", start=pong)

    async def scenario(engine):
        await engine.append(act("Ping", n=0))
        await engine.run_until_idle()
        cut = await engine.firings(outcome="too_deep")
        return [each.status async for each in engine.instances()], cut

    statuses, (cut,) = live(app, scenario)
    assert statuses == ["done"] * 6
    assert (cut.trigger, cut.instance_id) == ("ping", None)
    assert "6 emitted activities led to this one, and its max_depth is 4" in cut.error


def test_only_from_outside(new_app, live, make_store):
    """With a limit of 0, an emitted activity is not for this trigger."""
    app = new_app(make_store())

    @app.flow
    def again(activity):
        yield tf.emit({**activity, "n": activity["n"] + 1})

    app.trigger("t", on="Ping", start=again, max_depth=0)

    async def scenario(engine):
        await engine.append(act("Ping", n=0))
        await engine.run_until_idle()
        return [each.outcome for each in await engine.firings()]

    assert live(app, scenario) == ["too_deep", "started"]


# --- namespaces


def test_namespaces_are_apart(new_app, live, make_store):
    """One content in two namespaces is two activities; each meets its own triggers only."""
    app = new_app(make_store())

    @app.flow
    def keep(activity):
        yield tf.emit({**activity, "type": "Kept"})
        return (yield tf.wait_activity({"type": ["Go"]}))["n"]

    for name in ("", "shop", "club"):
        app.trigger(f"t-{name}", on="Join", start=keep, key="$.id", namespace=name)
    app.trigger("kept", on="Kept", signal={"flow": keep, "key": "$.id", "name": "x"})

    async def scenario(engine):
        shop = await engine.append(act(id="a"), namespace="shop")
        club = await engine.append(act(id="a"), namespace="club")
        again = await engine.append(act(id="a"), namespace="shop")
        await engine.run_until_idle()
        await engine.append(act("Go", n=1), namespace="club")
        await engine.append(act("Go", n=2), namespace="shop")
        ends = [await engine.wait(each.firings[0].instance_id) for each in (shop, club)]
        held = await engine.firings(trigger="kept")
        return shop, club, again, ends, held

    shop, club, again, ends, held = live(app, scenario)
    assert shop.cid == club.cid
    assert not shop.duplicate
    assert not club.duplicate
    assert again.duplicate
    assert again.firings == shop.firings
    assert (outcomes(shop), outcomes(club)) == (
        [("t-shop", "started")],
        [("t-club", "started")],
    )
    assert [(each.namespace, each.result) for each in ends] == [("shop", 2), ("club", 1)]
    assert held == ()


# --- envelopes


def test_words_beside_a_document(new_app, live, make_store):
    """A webhook's body stays as it came; type, actor and source come from beside it."""
    store = make_store()
    app = new_app(store)

    @app.flow
    def keep(given):
        return given
        yield

    app.trigger("t", on="push", actors=["https://*.example/*"], start=keep)
    app.trigger(
        "mapped", on="push", start=keep, input={"by.$": "$$.actor", "at.$": "$$.source"}
    )

    async def scenario(engine):
        body = {"ref": "main", "type": "ignored"}
        words = {"type": "push", "actor": ANN, "source": "hooks"}
        found = await engine.append(body, **words, received=b'{"ref": "main"}')
        again = await engine.append(body, **words)
        other = await engine.append(body, **{**words, "actor": "https://b.example/ben"})
        results = [(await engine.wait(each.instance_id)).result for each in found.firings]
        return found, again, other, results, store.activity(found.cid)

    _, again, other, results, record = live(app, scenario)
    assert results == [
        {"ref": "main", "type": "ignored"},
        {"by": [ANN], "at": "hooks"},
    ]
    assert again.duplicate
    assert not other.duplicate
    assert record.source == "hooks"
    assert record.digest == hashlib.sha256(b'{"ref": "main"}').digest()


def test_words_beside_survive_a_deferred_dispatch(new_app, make_sqlite):
    """A worker that dispatches later reads type and actor from the store, not the document."""
    store = make_sqlite()

    def app_of():
        app = new_app(store)

        @app.flow
        def keep(given):
            return given
            yield

        app.trigger("t", on="push", start=keep, input="$$.actor[0]", namespace="shop")
        return app

    async def main():
        settings = virtual_settings()
        async with app_of().open(**{**settings, "work": False, "deferred": True}) as engine:
            found = await engine.append([1], type="push", actor="ann", namespace="shop")
            assert found.firings is None
        async with app_of().open(**settings) as engine:
            await engine.run_until_idle()
            (firing,) = await engine.firings()
            return (await engine.wait(firing.instance_id)).result

    assert run_virtually(main) == "ann"
