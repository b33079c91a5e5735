"""`cancel_on`: a later activity cancels what an earlier one started."""

from __future__ import annotations

import pytest
import trio

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


# --- beside what else a trigger may say


@pytest.mark.parametrize(
    "control",
    [
        {"debounce": {"period": 60}},
        {"batch": {"size": 5, "wait": 60}},
        {"throttle": {"limit": 1, "period": 1000}},
        {"concurrency": 1},
    ],
    ids=["debounced", "batched", "throttled", "without a place"],
)
def test_held_instance_is_cancelled_before_it_begins(new_app, make_store, live, control):
    """What is held has run nothing: a cancel ends it there and then, and it never begins."""
    app = new_app(make_store())
    began = []

    @app.flow
    def ship(activity):
        began.append((yield tf.side_effect(lambda: activity["order"]["id"])))
        yield tf.wait_signal("never")

    app.trigger("ship", on="OrderPlaced", start=ship, cancel_on=CANCELLED, control=control)

    async def main(engine):
        # Where one goes through, the second one is held.
        through = "throttle" in control or "concurrency" in control
        if through:
            await placed(engine, 1)
            await engine.run_until_idle()
        (held,) = await placed(engine, 2)
        await engine.run_until_idle()
        await engine.append(cancelled(2))
        ended = await engine.wait(held)
        await trio.sleep(2000)
        await engine.run_until_idle()
        return ended.status, ended.failure.message, len(engine._store.waits()) - through

    assert live(app, main) == ("cancelled", "cancelled while it was held", 0)
    assert 2 not in began


def test_values_are_those_of_the_activity_that_began_the_group(new_app, make_store, live):
    """Of activities that were debounced into one instance, the first says what cancels it."""
    app = new_app(make_store())

    @app.flow
    def ship(activity):
        yield tf.wait_signal("never")

    app.trigger(
        "ship",
        on="OrderPlaced",
        start=ship,
        cancel_on=CANCELLED,
        control={"debounce": {"period": 60}},
    )

    async def main(engine):
        (id,) = await placed(engine, 1)
        await engine.append(ordered(2))
        await engine.append(cancelled(2))
        await engine.run_until_idle()
        before = (await engine.get(id)).status
        await engine.append(cancelled(1))
        return before, (await engine.wait(id)).status

    assert live(app, main) == ("waiting", "cancelled")


def test_only_activities_of_its_namespace_count(new_app, make_store, live):
    """A wait and `cancel_on` see the activities of their instance's namespace alone."""
    app = new_app(make_store())

    @app.flow
    def f(activity):
        return (yield tf.wait_activity({"type": ["Paid"]}))["n"]

    app.trigger("a", on="A", start=f, namespace="one", cancel_on={"on": "Stop"})

    async def main(engine):
        def append(namespace, **document):
            return engine.append({"actor": "x", **document}, namespace=namespace)

        ids = []
        for n in (1, 2):
            found = await append("one", type="A", n=n)
            ids.append(found.firings[0].instance_id)
        ids.append(await engine.start(f, {}, cancel_on={"on": "Stop"}))
        await engine.run_until_idle()
        for namespace in ("", "two"):
            await append(namespace, type="Paid", n=0)
        await append("two", type="Stop")
        await engine.run_until_idle()
        before = [(await engine.get(id)).status for id in ids]
        await append("one", type="Paid", n=7)
        after = [(await engine.wait(id)).result for id in ids]
        return before, after, engine._store.waits()

    assert live(app, main) == (["waiting", "waiting", "done"], [7, 7, 0], [])


def test_signals_and_cancels_have_none():
    """A trigger that starts nothing has nothing to cancel."""
    with pytest.raises(tf.DefinitionError, match="cancel_on= beside cancel="):
        tf.define_trigger(
            "t", on="A", cancel={"flow": "f", "key": "$.id"}, cancel_on={"on": "B"}
        )


def test_it_may_come_from_a_file(new_app, tmp_path):
    """A file writes it as code does; the trigger is the same one."""
    path = tmp_path / "triggers.toml"
    path.write_text(
        '[[trigger]]\nname = "t"\non = "A"\nstart = "f"\n'
        '[[trigger.cancel_on]]\non = "B"\nmatch = {"id.$" = "$.id", cid."of.$" = "$$.cid"}\n'
    )
    (found,) = new_app().load_triggers(path)
    cancel_on = {"on": "B", "match": {"id.$": "$.id", "cid": {"of.$": "$$.cid"}}}
    made = tf.define_trigger("t", on="A", start="f", cancel_on=cancel_on)
    assert found.trigger_cid == made.trigger_cid
    assert found.cancel_on == made.cancel_on


def test_what_is_known_about_the_activity_may_be_meant(new_app, make_store, live):
    """A path that begins with `$$` looks at the CID, the actors and so on."""
    app = new_app(make_store())

    @app.flow
    def f(_):
        yield tf.wait_signal("never")

    app.trigger("t", on="A", start=f, cancel_on={"on": "B", "match": {"of.$": "$$.cid"}})

    async def main(engine):
        first = await engine.append({"type": "A", "actor": "x"})
        await engine.append({"type": "B", "actor": "x", "of": first.cid})
        ended = await engine.wait(first.firings[0].instance_id)
        with pytest.raises(tf.DefinitionError, match=r"has no \$\$\.cid"):
            await engine.start(f, {}, cancel_on={"on": "B", "match": {"of.$": "$$.cid"}})
        return ended.status

    assert live(app, main) == "cancelled"


def test_backfilled_instance_is_cancelled_by_what_came_then(new_app, make_store, live):
    """It waits from the activity that started it on, so from the past."""
    store = make_store()

    async def before(engine):
        for id in (1, 2):
            await engine.append(ordered(id))
        await engine.append(cancelled(1))

    live(new_app(store), before)
    app = new_app(store, build="two")

    @app.flow
    def ship(_):
        yield tf.wait_signal("never")

    app.trigger("ship", on="OrderPlaced", start=ship, cancel_on=CANCELLED, start_at="horizon")

    async def after(engine):
        await trio.sleep(60)
        await engine.run_until_idle()
        found = [each async for each in engine.instances()]
        return sorted((each.input["order"]["id"], each.status) for each in found)

    assert live(app, after) == [(1, "cancelled"), (2, "waiting")]
