"""`wait_activity` and `emit`: flows that listen and speak."""

from __future__ import annotations

import pytest
import trio

import triggerflow as tf
from triggerflow.store.sqlite import SqliteStore


def follow(name, **more):
    return {"type": "Follow", "actor": f"https://a.example/{name}", **more}


def accept(name):
    return {"type": "Accept", "actor": f"https://a.example/{name}"}


@pytest.fixture
def app(new_app, make_store):
    return new_app(make_store())


def test_later_activity_is_waited_for(app, live):
    """A flow gets the document of the first later activity that meets its pattern."""

    @app.flow
    def f(activity):
        actor = activity["actor"]
        got = yield tf.wait_activity({"type": ["Accept"], "actor": [actor]})
        return got["actor"]

    app.trigger("t", on="Follow", start=f)

    async def main(engine):
        (firing,) = (await engine.append(follow("ann"))).firings
        await engine.run_until_idle()
        await engine.append(accept("ben"))
        await engine.run_until_idle()
        assert (await engine.get(firing.instance_id)).status == "waiting"
        await engine.append(accept("ann"))
        return (await engine.wait(firing.instance_id)).result

    assert live(app, main) == "https://a.example/ann"


def test_early_activity_is_not_lost(app, live):
    """One that came after the flow began but before it waited counts; an older one doesn't."""

    @app.flow
    def f(activity):
        yield tf.wait_signal("now")
        first = yield tf.wait_activity({"type": ["Accept"]})
        second = yield tf.wait_activity({"type": ["Accept"]}, timeout=5, default=None)
        return first["actor"], second and second["actor"]

    app.trigger("t", on="Follow", start=f)

    async def main(engine):
        await engine.append(accept("too-early"))
        (firing,) = (await engine.append(follow("ann"))).firings
        await engine.append(accept("one"))
        await engine.append(accept("two"))
        await engine.signal(firing.instance_id, "now")
        return (await engine.wait(firing.instance_id)).result

    assert live(app, main) == ["https://a.example/one", "https://a.example/two"]


def test_by_hand_and_from_a_position(app, live):
    """A flow that is started by hand waits from then on, or from a stated number."""

    @app.flow
    def f(after):
        got = yield tf.wait_activity(
            {"type": ["Accept"]}, after=after, timeout=5, default={"actor": None}
        )
        return got["actor"]

    async def main(engine):
        await engine.append(accept("one"))
        await engine.append(accept("two"))
        return [
            (await engine.wait(await engine.start(f, after))).result for after in (None, 0, 1)
        ]

    assert live(app, main) == [None, "https://a.example/one", "https://a.example/two"]


def test_timeout_closes_the_wait(app, live):
    """A wait that timed out, lost or whose flow ended leaves no row behind."""

    @app.flow
    def f(_):
        with pytest.raises(tf.TimedOut):
            yield tf.wait_activity({"type": ["Accept"]}, timeout=5)
        yield tf.race(tf.wait_activity({"type": ["Undo"]}), tf.sleep(1))

    @app.flow
    def stopped(_):
        yield tf.wait_activity({"type": ["Accept"]})

    async def main(engine):
        ended = await engine.start(stopped)
        await engine.run_until_idle()
        assert len(engine._store.waits()) == 1
        await engine.terminate(ended)
        done = await engine.wait(await engine.start(f))
        return done.status, engine._store.waits()

    assert live(app, main) == ("done", [])


def test_wait_survives_a_kill(app, killed, live):
    """A wait is durable: what comes while nobody works is found afterwards."""

    @app.flow
    def f(_):
        return (yield tf.wait_activity({"type": ["Accept"]}))["actor"]

    async def before(engine):
        id = await engine.start(f)
        await engine.run_until_idle()
        return id

    id = killed(app, before)

    async def append_only(engine):
        await engine.append(accept("ann"))

    live(app, append_only, work=False)

    async def after(engine):
        return (await engine.wait(id)).result

    assert live(app, after) == "https://a.example/ann"


def test_next_generation_waits_after_what_the_last_one_got(app, live):
    """An equal wait in the next generation doesn't get the same activity again."""

    @app.flow
    def f(seen):
        got = yield tf.wait_activity({"type": ["Accept"]})
        seen = [*(seen or []), got["actor"][-1]]
        if len(seen) == 3:
            return seen
        yield tf.continue_as_new(seen)

    async def main(engine):
        id = await engine.start(f)
        for name in "abc":
            await engine.append(accept(name))
        return (await engine.wait(id)).result

    assert live(app, main) == ["a", "b", "c"]


def test_bad_pattern_is_refused_where_it_stands():
    """A pattern that EventBridge refuses is an error at once."""
    with pytest.raises(tf.PatternError):
        tf.wait_activity({"type": "Accept"})


def test_many_waits_and_many_activities(app, live):
    """Two hundred waits over more activities than a page each get their own."""

    @app.flow
    def f(number):
        got = yield tf.wait_activity({"type": ["Accept"], "n": [number]})
        return got["n"]

    async def main(engine):
        ids = [await engine.start(f, number) for number in range(200)]
        await engine.append_many({**accept("x"), "n": number} for number in range(450))
        return [(await engine.wait(id)).result for id in ids]

    assert live(app, main) == list(range(200))


def test_replaced_wait_does_not_get_what_the_old_pattern_met(new_app, make_store, live):
    """New code waits under the same tag for something else: the old one's hit is dropped."""
    store = make_store()

    def make(build, kind):
        app = new_app(store, build=build)

        @app.flow(name="f")
        def f(_):
            yield tf.wait_signal("go")
            return (yield tf.wait_activity({"type": [kind]}))["actor"]

        return app

    async def before(engine):
        id = await engine.start("f")
        await engine.signal(id, "go")
        await engine.run_until_idle()
        return id

    id = live(make("one", "Accept"), before)

    async def hit(engine):
        # Looked at by one that owns nothing: what was met stays in the inbox.
        await engine.append(accept("old"))
        await engine._watching.scan()

    live(make("one", "Accept"), hit, work=False)
    record = store_of(store, id)
    assert [row.kind for row in record] == ["activity"]

    async def after(engine):
        await engine.run_until_idle()
        waiting = (await engine.get(id)).status
        await engine.append({"type": "Reject", "actor": "ann"})
        ended = await engine.wait(id)
        return waiting, ended.status, ended.result, engine._store.waits()

    assert live(make("two", "Reject"), after) == ("waiting", "done", "ann", [])


def store_of(store, id):
    store.open()
    try:
        return store.inbox(store.instance(id).number)
    finally:
        store.close()


def test_equal_pattern_of_new_code_keeps_what_was_met(new_app, make_store, live):
    """Code that is otherwise new but waits for the same gets what came meanwhile."""
    store = make_store()

    def make(build, pattern):
        app = new_app(store, build=build)

        @app.flow(name="f")
        def f(_):
            return (yield tf.wait_activity(pattern))["actor"]

        return app

    async def before(engine):
        id = await engine.start("f")
        await engine.run_until_idle()
        return id

    id = live(make("one", {"type": ["Accept"]}), before)

    async def hit(engine):
        await engine.append(accept("ann"))

    live(make("one", {"type": ["Accept"]}), hit, work=False)

    async def after(engine):
        return (await engine.wait(id)).result

    assert live(make("two", {"type": ["Accept"]}), after) == "https://a.example/ann"


@pytest.mark.parametrize("late", [-1, 0, 1])
def test_met_and_timed_out_at_the_same_moment_is_one_of_both(app, live, late):
    """Whatever comes first, the flow sees one end of the wait, and nothing is left over."""

    @app.flow
    def f(_):
        got = yield tf.wait_activity({"type": ["Accept"]}, timeout=10, default=None)
        again = yield tf.wait_activity({"type": ["Accept"]}, timeout=100, default=None)
        return got and got["actor"], again and again["actor"]

    async def main(engine):
        id = await engine.start(f)
        await engine.run_until_idle()
        await trio.sleep(10 + late)
        await engine.append(accept("ann"))
        found = await engine.wait(id)
        record = engine._store.instance(id)
        return found.result, engine._store.waits(), engine._store.inbox(record.number)

    (first, second), waits, inbox = live(app, main)
    # Once in any case: what the first one didn't get is the second one's.
    assert [first, second].count("https://a.example/ann") == 1
    assert (waits, inbox) == ([], [])
    if late:
        assert (first is None) == (late > 0)


@pytest.mark.parametrize(
    ("pattern", "early", "met"),
    [
        ({"actor": [{"prefix": "https://a.example/"}]}, {"actor": "b"}, {}),
        ({"$or": [{"n": [1]}, {"m": [2]}]}, {"n": 2, "m": 1}, {"n": 0, "m": 2}),
        ({"n": [{"exists": False}], "m": [1]}, {"n": 1, "m": 1}, {"m": 1}),
        ({"n": [{"exists": False}]}, {"n": 1}, {}),
    ],
    ids=["prefix", "or", "absent and equal", "absent"],
)
def test_patterns_of_every_shape_are_met(app, live, pattern, early, met):
    """Without any equality, with a choice, with what must be absent."""

    @app.flow
    def f(_):
        return (yield tf.wait_activity(pattern))

    async def main(engine):
        id = await engine.start(f)
        await engine.append(accept("x") | early)
        await engine.run_until_idle()
        assert (await engine.get(id)).status == "waiting"
        await engine.append(accept("x") | met)
        return (await engine.wait(id)).result

    assert live(app, main) == accept("x") | met


def test_appended_by_one_who_does_not_work(new_app, make_sqlite, real):
    """An engine that only writes tells nobody: the worker on the same file notices."""
    store = make_sqlite()
    app, other = new_app(store), new_app(SqliteStore(store.path))

    @app.flow
    def f(_):
        return (yield tf.wait_activity({"type": ["Accept"]}))["actor"]

    async def main():
        async with app.open() as worker, other.open(work=False) as writer:
            id = await worker.start(f)
            await worker.run_until_idle()
            await writer.append(accept("ann"))
            return (await worker.wait(id)).result

    assert real(main) == "https://a.example/ann"


def test_bad_stored_pattern_leaves_its_instance_its_timeout(app, live):
    """Whose wait can't be read still times out, and can be cancelled; others go on."""

    @app.flow
    def f(limit):
        options = {"timeout": limit, "default": None} if limit else {}
        got = yield tf.wait_activity({"type": ["Accept"]}, **options)
        return got and got["actor"]

    async def main(engine):
        bad = [await engine.start(f, limit) for limit in (50, None)]
        await engine.run_until_idle()
        db = engine._store
        db._write(lambda each: each.execute("UPDATE wait SET pattern = x'ff'"))
        good = await engine.start(f)
        await engine.append(accept("ann"))
        first = (await engine.wait(good)).result
        await engine.cancel(bad[1])
        ends = [(await engine.wait(id)) for id in bad]
        return first, [each.status for each in ends], db.waits()

    assert live(app, main) == ("https://a.example/ann", ["done", "cancelled"], [])


# --- emit


def test_emitted_activity_fires(app, live):
    """A flow appends an activity in its own commit; triggers meet it; its CID comes back."""

    @app.flow
    def first(activity):
        return (yield tf.emit(accept("bot")))

    @app.flow
    def second(activity):
        yield tf.now()
        return activity["actor"]

    app.trigger("one", on="Follow", start=first)
    app.trigger("two", on="Accept", start=second)

    async def main(engine):
        (firing,) = (await engine.append(follow("ann"))).firings
        cid = (await engine.wait(firing.instance_id)).result
        assert cid == tf.cid_of(accept("bot"))
        await engine.run_until_idle()
        again = await engine.append(accept("bot"))
        assert again.duplicate
        (fired,) = again.firings
        return (await engine.wait(fired.instance_id)).result

    assert live(app, main) == "https://a.example/bot"


def test_emitted_twice_fires_once(app, live):
    """Two flows that emit the same content append one activity."""

    @app.flow
    def speak(_):
        return (yield tf.emit(accept("bot")))

    @app.flow
    def hear(_):
        yield tf.now()

    app.trigger("t", on="Accept", start=hear)

    async def main(engine):
        for _ in range(2):
            await engine.wait(await engine.start(speak))
        await engine.run_until_idle()
        return len([each async for each in engine.instances(flow="hear")])

    assert live(app, main) == 1


def test_bad_activity_fails_at_the_yield(app, live):
    """An emitted document that is no activity is a failure of the effect."""

    @app.flow
    def speak(_):
        try:
            yield tf.emit({"type": "Follow"})
        except tf.StepFailed as failed:
            return failed.failure.type

    async def main(engine):
        return (await engine.wait(await engine.start(speak))).result

    assert live(app, main) == "ActivityRejected"


def test_loop_of_triggers_is_cut(app, live):
    """A flow whose emitted activity starts it again stops at a named depth."""

    @app.flow
    def echo(activity):
        yield tf.emit({**activity, "n": activity["n"] + 1})

    app.trigger("t", on="Follow", start=echo)

    async def main(engine):
        await engine.append(follow("ann", n=0))
        await engine.run_until_idle()
        ends = [(each.status, each.failure) async for each in engine.instances(flow="echo")]
        return len(ends), [status for status, _ in ends[:-1]], ends[-1][1].message

    count, before, message = live(app, main)
    assert count == 33
    assert set(before) == {"done"}
    assert "over the limit of 32" in message


def test_emit_wakes_a_wait(app, live):
    """What one flow emits, another one may wait for."""

    @app.flow
    def listen(_):
        return (yield tf.wait_activity({"type": ["Accept"]}))["actor"]

    @app.flow
    def speak(_):
        yield tf.emit(accept("bot"))

    async def main(engine):
        id = await engine.start(listen)
        await engine.run_until_idle()
        await engine.start(speak)
        return (await engine.wait(id)).result

    assert live(app, main) == "https://a.example/bot"


# --- signals from flows, attributes, recorded results


def test_signal_from_a_flow(app, live):
    """A flow signals another instance, exactly once, in its own commit."""

    @app.flow
    def listen(_):
        first = yield tf.wait_signal("word")
        return first, (yield tf.wait_signal("word", timeout=5, default="no more"))

    @app.flow
    def speak(target):
        yield tf.signal(target, "word", {"n": 1})

    async def main(engine):
        id = await engine.start(listen)
        await engine.start(speak, id)
        return (await engine.wait(id)).result

    assert live(app, main) == [{"n": 1}, "no more"]


@pytest.mark.parametrize(
    ("target", "kind"), [("nobody", "UnknownInstance"), (None, "InstanceEnded")]
)
def test_signal_to_nobody_fails_at_the_yield(app, live, target, kind):
    """An unknown or ended target is a failure of the effect; the flow may go on."""

    @app.flow
    def ended(_):
        yield tf.now()

    @app.flow
    def speak(target):
        try:
            yield tf.signal(target, "word")
        except tf.StepFailed as failed:
            return failed.failure.type

    async def main(engine):
        gone = await engine.start(ended)
        await engine.wait(gone)
        return (await engine.wait(await engine.start(speak, target or gone))).result

    assert live(app, main) == kind


def test_refused_act_writes_nothing_of_its_turn(app, live):
    """A turn with an act that can't be done is taken again: its other acts land once."""

    @app.flow
    def listen(_):
        return (yield tf.wait_signal("word", all=True))

    @app.flow
    def speak(target):
        yield tf.signal(target, "word", 1)
        try:
            yield tf.signal("nobody", "word")
        except tf.StepFailed:
            yield tf.signal(target, "word", 2)

    async def main(engine):
        id = await engine.start(listen)
        await engine.wait(await engine.start(speak, id))
        await engine.run_until_idle()
        entries = await engine.log(id)
        return (await engine.wait(id)).result, len(entries)

    assert live(app, main) == ([1, 2], 1)


def test_attributes_are_found(app, live):
    """Instances are found by the attributes that their flow set; types are told apart."""

    @app.flow
    def f(n):
        yield tf.set_attributes(n=n, text=str(n), even=n % 2 == 0, gone=1)
        yield tf.set_attributes(gone=None, n=n + 10)
        yield tf.wait_signal("go")

    async def main(engine):
        for n in range(4):
            await engine.start(f, n)
        await engine.run_until_idle()

        async def found(**wanted):
            return [each.input async for each in engine.instances(attributes=wanted)]

        one = await found(n=11)
        assert await found(n=11.0) == one == [1]
        assert await found(n="11") == await found(even=1) == await found(gone=1) == []
        assert await found(text="1", even=False) == [1]
        (instance,) = [each async for each in engine.instances(attributes={"n": 12})]
        return await found(even=True), instance.attributes

    assert live(app, main) == ([0, 2], {"n": 12, "text": "2", "even": True})


def test_attribute_of_a_wrong_kind_is_refused():
    """A list can't be searched for."""
    with pytest.raises(tf.DefinitionError, match="tags="):
        tf.set_attributes(tags=["a"])


def test_recorded_result_is_taken_instead_of_a_run(app, live):
    """The first result under an idempotency key serves every later call of that step."""
    runs = []

    def charge(amount):
        runs.append(amount)
        return f"receipt {len(runs)}"

    @app.flow
    def pay(amount):
        return (yield tf.call(charge, amount).using(idempotency_key="order-1"))

    async def main(engine):
        return [
            (await engine.wait(await engine.start(pay, amount))).result for amount in (1, 2)
        ]

    assert live(app, main) == ["receipt 1", "receipt 1"]
    assert runs == [1]


def test_failed_run_records_nothing(app, live):
    """A failure under a key isn't kept: the next call runs the step."""
    runs = []

    def charge():
        runs.append(1)
        if len(runs) == 1:
            raise OSError
        return "ok"

    @app.flow
    def pay(_):
        return (yield tf.call(charge).using(idempotency_key="k"))

    async def main(engine):
        first = await engine.wait(await engine.start(pay))
        second = await engine.wait(await engine.start(pay))
        return first.status, second.result

    assert live(app, main) == ("failed", "ok")


def test_race_for_a_key_has_one_winner(app, live):
    """Two runs at once under one key: both flows get the result that was recorded first."""
    runs = []

    async def charge():
        import trio

        runs.append(1)
        mine = len(runs)
        await trio.sleep(1)
        return f"receipt {mine}"

    @app.flow
    def pay(_):
        return (yield tf.call(charge).using(idempotency_key="k"))

    async def main(engine):
        ids = [await engine.start(pay) for _ in range(2)]
        return [(await engine.wait(id)).result for id in ids]

    first, second = live(app, main)
    assert first == second
    assert len(runs) == 2
