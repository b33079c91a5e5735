"""`cancel_on`: a later activity cancels what an earlier one started."""

from __future__ import annotations

import pytest

import triggerflow as tf

CANCELLED = {"on": "OrderCancelled", "match": {"order": {"id.$": "$.order.id"}}}


def ordered(id, **more):
    return {"type": "OrderPlaced", "actor": "shop", "order": {"id": id}, **more}


def cancelled(id, **more):
    return {"type": "OrderCancelled", "actor": "shop", "order": {"id": id}, **more}


@pytest.fixture
def app(new_app, make_store):
    app = new_app(make_store())

    @app.flow
    def ship(activity):
        try:
            return (yield tf.wait_signal("shipped"))
        except tf.FlowCancelled:
            yield tf.call(undone, activity["order"]["id"])
            raise

    app.undone = []

    def undone(id):
        app.undone.append(id)

    app.trigger("ship", on="OrderPlaced", start=ship, cancel_on=[CANCELLED])
    return app


async def placed(engine, *ids, **more):
    found = [await engine.append(ordered(id, **more)) for id in ids]
    return [each.firings[0].instance_id for each in found]


def test_only_the_order_that_is_meant_is_cancelled(app, live):
    """The pattern holds the value of the activity that started the instance; others go on."""

    async def main(engine):
        one, two = await placed(engine, 1, 2)
        await engine.run_until_idle()
        await engine.append(cancelled(1))
        ended = await engine.wait(one)
        await engine.run_until_idle()
        other = await engine.get(two)
        left = engine._store.waits()
        await engine.signal(two, "shipped", "ok")
        done = await engine.wait(two)
        return ended.status, other.status, len(left), done.result, engine._store.waits()

    assert live(app, main) == ("cancelled", "waiting", 1, "ok", [])
    assert app.undone == [1]


def test_values_of_each_kind_are_told_apart(app, live):
    """1, "1" and true are three orders; 1.0 is the same as 1."""

    async def main(engine):
        ids = await placed(engine, 1, "1", True, None, "x" * 500)
        await engine.run_until_idle()
        for value in (1.0, True, "x" * 500):
            await engine.append(cancelled(value))
        await engine.run_until_idle()
        return [(await engine.get(id)).status for id in ids]

    expected = ["cancelled", "waiting", "cancelled", "waiting", "cancelled"]
    assert live(app, main) == expected


def test_cancel_that_comes_at_once_is_not_missed(app, live):
    """What follows in the same batch, before any worker has seen the instance, counts."""

    async def main(engine):
        first, _, early = await engine.append_many([ordered(1), cancelled(1), cancelled(2)])
        (second,) = await placed(engine, 2)
        ended = await engine.wait(first.firings[0].instance_id)
        await engine.run_until_idle()
        assert early.seq < 4
        return ended.status, (await engine.get(second)).status

    assert live(app, main) == ("cancelled", "waiting")


def test_cancel_that_came_while_nobody_worked(app, live, killed):
    """Rows are durable: appended by one that does not work, killed, and taken up later."""

    async def append_only(engine):
        (id,) = await placed(engine, 1)
        return id

    id = killed(app, append_only, work=False)

    async def cancel(engine):
        await engine.append(cancelled(1))

    live(app, cancel, work=False)

    async def after(engine):
        return (await engine.wait(id)).status

    assert live(app, after) == "cancelled"


def test_second_hit_and_a_cancel_by_hand_are_one(app, live):
    """Whoever cancels first, the flow sees one cancel; the rows are gone with its end."""

    async def main(engine):
        one, two = await placed(engine, 1, 2)
        await engine.run_until_idle()
        await engine.cancel(one)
        await engine.append(cancelled(1))
        await engine.append_many([cancelled(2), cancelled(2, again=True)])
        await engine.cancel(two)
        ends = [(await engine.wait(id)).status for id in (one, two)]
        logs = [[entry.tag for entry in await engine.log(id)] for id in (one, two)]
        return ends, logs, engine._store.waits()

    ends, logs, left = live(app, main)
    assert ends == ["cancelled", "cancelled"]
    assert [log.count("cancel") for log in logs] == [1, 1]
    assert left == []


def test_path_that_finds_nothing_is_an_error_of_that_firing(app, live):
    """An absent path, and a value that is no plain one, fail the firing and nothing else."""

    @app.flow
    def other(_):
        yield tf.now()

    app.trigger("other", on="OrderPlaced", start=other)

    async def main(engine):
        errors = []
        for bad in ({"type": "OrderPlaced", "actor": "shop"}, ordered({"a": 1})):
            failed, fine = (await engine.append(bad)).firings
            errors.append((failed.instance_id, failed.error))
            assert (await engine.wait(fine.instance_id)).status == "done"
        return errors

    (none, absent), (also, thing) = live(app, main)
    assert none is also is None
    assert absent == "cancel_on: the activity has no $.order.id"
    assert "$.order.id is" in thing
    assert "expected a text" in thing


def test_types_without_a_pattern_and_with_a_star(new_app, make_store, live):
    """`on` alone is enough; it reads the types as triggers do, a list of them too."""
    app = new_app(make_store())

    @app.flow
    def f(_):
        yield tf.wait_signal("never")

    app.trigger("a", on="A", start=f, cancel_on={"on": ["Stop", "shop.order.*"]})
    app.trigger("b", on="B", start=f, cancel_on={"on": "*", "match": {"end": [True]}})

    async def main(engine):
        ids = []
        for name in ("A", "B", "A", "B"):
            (firing,) = (
                await engine.append({"type": name, "actor": "x"} | ids_of(ids))
            ).firings
            ids.append(firing.instance_id)
        await engine.run_until_idle()
        await engine.append({"type": ["Odd", "Stop"], "actor": "x"})
        await engine.run_until_idle()
        first = [(await engine.get(id)).status for id in ids]
        await engine.append({"type": "Odd", "actor": "x", "end": True})
        await engine.append({"type": "A", "actor": "x", "new": 1})
        await engine.append({"type": "shop.order.gone", "actor": "x"})
        await engine.run_until_idle()
        second = [(await engine.get(id)).status for id in ids]
        return first, second, engine._store.waits()

    def ids_of(ids):
        return {"n": len(ids)}

    first, second, left = live(app, main)
    assert first == ["cancelled", "waiting", "cancelled", "waiting"]
    assert second == ["cancelled"] * 4
    assert left == []


def test_next_generation_is_cancelled_too(new_app, make_store, live):
    """`continue_as_new` keeps what cancels the instance."""
    app = new_app(make_store())

    @app.flow
    def f(n):
        yield tf.wait_signal("go")
        yield tf.continue_as_new(1)

    async def main(engine):
        id = await engine.start(
            f, {"id": 7}, cancel_on={"on": "Stop", "match": {"n.$": "$.id"}}
        )
        await engine.signal(id, "go")
        await engine.run_until_idle()
        await engine.append({"type": "Stop", "actor": "x", "n": 8})
        await engine.run_until_idle()
        between = await engine.get(id)
        await engine.append({"type": "Stop", "actor": "x", "n": 7})
        ended = await engine.wait(id)
        return between.status, between.generation, ended.status

    assert live(app, main) == ("waiting", 2, "cancelled")


def test_start_by_hand_refuses_what_cannot_work(app, live):
    """A path that the input lacks, or a bad pattern, is an error before anything is written."""

    async def main(engine):
        with pytest.raises(tf.DefinitionError, match=r"the input has no \$\.order\.id"):
            await engine.start("ship", {"order": 1}, cancel_on=CANCELLED)
        with pytest.raises(tf.PatternError):
            await engine.start("ship", {}, cancel_on={"on": "X", "match": {"a": 1}})
        return [each async for each in engine.instances()]

    assert live(app, main) == []


def test_blocked_instance_is_cancelled_when_it_goes_on(new_app, make_store, live):
    """An instance that no worker knows keeps the cancel; its flow sees it first."""
    store = make_store()
    app = new_app(store)
    app.trigger("ship", on="OrderPlaced", start="ship", cancel_on=CANCELLED)

    async def first(engine):
        (id,) = await placed(engine, 1)
        await engine.append(cancelled(1))
        await engine.run_until_idle()
        return id, (await engine.get(id)).status

    id, status = live(app, first)
    assert status == "blocked"
    knowing = new_app(store, build="two")

    @knowing.flow
    def ship(_):
        yield tf.wait_signal("shipped")

    async def second(engine):
        return (await engine.wait(id)).status

    assert live(knowing, second) == "cancelled"


def test_deferred_dispatch_opens_them_too(app, live):
    """Where the dispatch is put off, the wait lands with the instance."""

    async def main(engine):
        found = await engine.append_many([ordered(1), cancelled(1)])
        assert found[0].firings is None
        await engine.run_until_idle()
        return [each.status async for each in engine.instances()]

    assert live(app, main, deferred=True) == ["cancelled"]


def test_retention_leaves_no_wait(app, live):
    """An ended instance's rows are gone with its end, so retention finds none."""

    async def main(engine):
        (id,) = await placed(engine, 1)
        await engine.run_until_idle()
        await engine.terminate(id)
        return engine._store.waits(), engine._store.standing().paths

    assert live(app, main) == ([], ())


# --- what a trigger says


def test_it_is_part_of_what_the_trigger_means():
    """It is in the spec and the CID, comes back from it, and paths have one form."""

    def make(**more):
        return tf.define_trigger("t", on="A", start="f", **more)

    plain, one = make(), make(cancel_on=CANCELLED)
    same = make(
        cancel_on=[{"on": ["OrderCancelled"], "match": {"order": {"id.$": "$['order'].id"}}}]
    )
    assert "cancel_on" not in plain.spec()
    assert one.spec()["cancel_on"] == [
        {"on": ["OrderCancelled"], "match": {"order": {"id.$": "$.order.id"}}}
    ]
    assert len({plain.trigger_cid, one.trigger_cid, same.trigger_cid}) == 2
    assert tf.Trigger.from_spec(one.spec()) == one


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        ([], "non-empty list"),
        ("OrderCancelled", "expected a part"),
        ([{"match": {}}], "expected on and match"),
        ({"on": "A", "mach": {}}, "expected on and match"),
        ({"on": "A*B"}, "expected a type"),
        ({"on": []}, "no activity type"),
        ({"on": "A", "match": [1]}, "expected a dict"),
        ({"on": "A", "match": {"a.$": "order"}}, "begins with"),
        ({"on": "A", "match": {"a.$": ["$.b"]}}, "not a path"),
        ({"on": "A", "match": {"a.$": "$.b", "a": [1]}}, "beside the same"),
        ([{"on": "A"}] * 17, "at most 16"),
    ],
)
def test_what_cannot_work_is_refused_at_once(bad, words):
    """An error names the trigger and the part."""
    with pytest.raises(tf.DefinitionError, match="trigger 't', cancel_on") as caught:
        tf.define_trigger("t", on="A", start="f", cancel_on=bad)
    assert words in str(caught.value)


def test_bad_pattern_is_refused_at_once():
    """The error has the path inside the pattern, and says whose it is."""
    with pytest.raises(tf.PatternError, match=r"trigger 't', cancel_on\[0\]") as caught:
        tf.define_trigger(
            "t", on="A", start="f", cancel_on={"on": "B", "match": {"a": [{"x": 1}]}}
        )
    assert "a" in caught.value.path
