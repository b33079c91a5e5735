"""States, backfills and redispatch beside all else that a trigger may say."""

from __future__ import annotations

import triggerflow as tf
from triggerflow.store.records import NewTrigger
from triggerflow.store.sqlite import MemoryStore


def act(n, type="Order", **more):
    return {"type": type, "actor": "https://a.example/ann", "n": n, **more}


def shop(app, **options):
    """Orders wait for their payment, which a trigger signals to them."""

    @app.flow
    def order(activity):
        return (yield tf.wait_signal("paid"))

    app.trigger("order", on="Order", start=order, key="$.n")
    signal = {"flow": "order", "key": "$.n", "name": "paid", "payload": "$.sum"}
    app.trigger("paid", on="Payment", signal=signal, **options)
    return app


async def results(engine):
    return [each.result async for each in engine.instances()]


def test_a_paused_signal_is_sent_on_resume(new_app, live, make_store):
    """It wakes the instance that waits in this very worker."""
    app = shop(new_app(make_store()))

    async def scenario(engine):
        await engine.append(act(1))
        await engine.pause("paid")
        (firing,) = (await engine.append(act(1, "Payment", sum=7))).firings
        assert (firing.outcome, firing.instance_id) == ("paused", None)
        await engine.run_until_idle()
        assert await results(engine) == [None]
        walk = await engine.resume("paid")
        await engine.run_until_idle()
        assert (await engine.get_backfill(walk.id)).fired == 1
        (firing,) = await engine.firings(trigger="paid")
        assert (firing.outcome, firing.source) == ("signalled", "resume")
        return await results(engine)

    assert live(app, scenario) == [7]


def test_a_signal_to_nobody_is_sent_again_once_somebody_is_there(new_app, live, make_store):
    """`redispatch` decides anew who holds the key, and says what came of it."""
    app = shop(new_app(make_store()))

    async def scenario(engine):
        (firing,) = (await engine.append(act(1, "Payment", sum=7))).firings
        assert firing.outcome == "failed"
        assert (await engine.redispatch()).outcomes == {"failed": 1}
        await engine.append(act(1))
        await engine.run_until_idle()
        assert (await engine.redispatch()).outcomes == {"signalled": 1}
        await engine.run_until_idle()
        (firing,) = await engine.firings(trigger="paid")
        assert [each.outcome for each in firing.before] == ["failed", "failed"]
        return await results(engine)

    assert live(app, scenario) == [7]


def test_a_backfill_of_signals(new_app, live, make_store):
    """History is signalled, in its order; what has no receiver is a failed firing."""
    store = make_store()
    app = new_app(store)
    app.register(shop(new_app()).flows.get("order"))
    app.trigger("order", on="Order", start="order", key="$.n")

    async def before(engine):
        for n in (1, 2):
            await engine.append(act(n))
        for n in (2, 3):
            await engine.append(act(n, "Payment", sum=n * 10))

    live(app, before)

    async def scenario(engine):
        walk = await engine.backfill("paid")
        await engine.run_until_idle()
        done = await engine.get_backfill(walk.id)
        assert (done.looked, done.fired, done.unstarted) == (4, 1, 1)
        return await results(engine)

    assert live(shop(new_app(store)), scenario) == [None, 20]


def test_a_backfill_heeds_dedup_and_namespaces(new_app, live):
    """What fired under a key counts as deduped; other namespaces' activities aren't met."""
    store = MemoryStore()

    async def before(engine):
        for n in range(4):
            await engine.append(act(n, half=n // 2))
        await engine.append(act(9, half=9), namespace="other")

    live(new_app(store), before, work=False)
    app = new_app(store)

    @app.flow
    def numbered(activity):
        yield tf.now()
        return activity["n"]

    app.trigger("t", on="Order", start=numbered, dedup="$.half", start_at="horizon")

    async def scenario(engine):
        await engine.run_until_idle()
        (walk,) = await engine.backfills()
        assert (walk.looked, walk.fired, walk.unstarted) == (5, 2, 2)
        found = [each.outcome for each in await engine.firings(trigger="t")]
        assert sorted(found) == ["deduped", "deduped", "started", "started"]
        return await results(engine)

    assert live(app, scenario) == [0, 2]


def test_a_mapping_that_fails_goes_to_the_dead_letter_at_once(new_app, live):
    """No retry makes a field appear; the letter says which one was missing."""
    app = new_app()

    @app.flow
    def plain(found):
        yield tf.now()

    @app.flow
    def bury(letter):
        yield tf.now()
        return letter["error"]

    policy = tf.RetryPolicy(5)
    app.trigger("t", on="Order", start=plain, input="$.no", retry=policy, dead_letter=bury)

    async def scenario(engine):
        (firing,) = (await engine.append(act(1))).firings
        assert (firing.outcome, firing.due) == ("failed", None)
        await engine.run_until_idle()
        return (await engine.get(firing.dead_letter)).result

    assert "$.no" in live(app, scenario)


def test_explain_tells_of_a_pause(new_app, live):
    """What would be recorded is what it says; a draining trigger isn't among them."""
    app = shop(new_app())

    async def scenario(engine):
        await engine.pause("order")
        (order,) = (await engine.explain(act(1))).fired
        assert (order.trigger, order.outcome) == ("order", "paused")
        await engine.drain_trigger("order")
        assert (await engine.explain(act(1))).fired == ()
        assert (await engine.append(act(1))).firings == ()

    live(app, scenario)


def test_retiring_ends_a_backfill_and_keeps_the_past(new_app, live):
    """The walk is cancelled; what was deferred before the retirement is still dispatched."""
    store = MemoryStore()

    async def before(engine):
        await engine.append(act(1))
        await engine.backfill("order")

    live(shop(new_app(store)), before, work=False, deferred=True)

    async def retire(engine):
        await engine.retire("order")
        await engine.run_until_idle()
        (walk,) = await engine.backfills()
        assert (walk.state, walk.reason) == (
            "cancelled",
            "its trigger was superseded or retired",
        )
        (firing,) = await engine.firings(trigger="order")
        return firing.outcome

    app = new_app(store)
    app.register(shop(new_app()).flows.get("order"))
    assert live(app, retire) == "started"


def test_a_trigger_that_cannot_be_read_here_holds_nobody_up(new_app, live):
    """Its walks are left to a worker that can; others go on."""
    store = MemoryStore()
    app = shop(new_app(store))
    spec = tf.encode_document({"name": "new", "on": ["Order"], "version": 1, "sorcery": True})

    async def scenario(engine):
        store.sync_triggers([NewTrigger("new", "cid-new", spec, "m-new")], now=1.0)
        await engine.append(act(1))
        await engine.backfill("new")
        walk = await engine.backfill("order")
        await engine.run_until_idle()
        assert (await engine.get_backfill(walk.id)).state == "done"
        assert (await engine.backfills())[0].state == "running"
        assert (await engine.redispatch(trigger="new")).looked == 0

    live(app, scenario)
