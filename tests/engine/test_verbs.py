"""The verbs: what each does, refuses, and says."""

# ruff: noqa: ASYNC109 - `id` is a word of the glossary; what is polled tells nobody

from __future__ import annotations

import contextlib
from datetime import UTC, datetime

import pytest
import trio

import triggerflow as tf
from triggerflow.store.sqlite import MemoryStore, SqliteStore

FOLLOW = {"type": "Follow", "actor": "https://a.example/ann"}


@pytest.fixture
def app(new_app, make_store):
    """An app with the flows that most tests need."""
    app = new_app(make_store())

    @app.flow
    def echo(given):
        return given
        yield

    @app.flow
    def waits(given):
        return [given, (yield tf.wait_signal("go"))]

    @app.flow
    def naps(_):
        yield tf.sleep(tf.days(30))
        return "awake"

    @app.flow
    def broken(_):
        raise ValueError("own code")
        yield

    app.trigger("follows", on="Follow", start=waits)
    return app


def tags_of(log):
    return [entry.tag for entry in log]


# --- start


def test_start_of_an_unknown_flow_names_the_nearest(app, live):
    """Nothing is stored, and the message helps."""

    async def scenario(engine):
        with pytest.raises(tf.UnknownFlow, match="'waits'"):
            await engine.start("wait")
        with pytest.raises(tf.UnknownFlow, match="version 7"):
            await engine.start("waits", version=7)
        return [each async for each in engine.instances()]

    assert live(app, scenario) == []


def test_start_round_trips_its_input(app, live):
    """The flow gets what the codec makes of its input; the rest is refused with its path."""

    async def scenario(engine):
        with pytest.raises(tf.EncodingRefused, match=r"input\.a\[1\]"):
            await engine.start("echo", {"a": [1, {1, 2}]})
        found = await engine.wait(await engine.start("echo", {"t": (1, 2)}))
        return found.input, found.result

    assert live(app, scenario) == ({"t": [1, 2]}, {"t": [1, 2]})


def test_key_is_held_by_one_live_instance(app, live):
    """Same input: the first one's id. Another: `KeyTaken`. After the end the key is free."""

    async def scenario(engine):
        first = await engine.start("waits", 1, key="k")
        assert await engine.start("waits", 1, key="k") == first
        assert await engine.start("echo", 5, key="k") != first
        with pytest.raises(tf.KeyTaken) as caught:
            await engine.start("waits", 2, key="k")
        assert caught.value.id == first
        await engine.signal(first, "go")
        await engine.wait(first)
        again = await engine.start("waits", 2, key="k")
        return again != first

    assert live(app, scenario)


def test_concurrent_starts_with_a_key_make_one_instance(app, live):
    """However many start at once, there is one instance, and all get its id."""

    async def scenario(engine):
        ids = []

        async def start():
            ids.append(await engine.start("waits", 1, key="k"))

        async with trio.open_nursery() as nursery:
            for _ in range(20):
                nursery.start_soon(start)
        return len(ids), len(set(ids)), len([1 async for _ in engine.instances()])

    assert live(app, scenario) == (20, 1, 1)


def test_start_pins_a_version(new_app, live):
    """A name means the latest version, an object its own; instances keep theirs."""
    store = MemoryStore()

    def make(*versions):
        app = new_app(store, build=str(versions))
        flows = {}
        for version in versions:

            def fn(_, version=version):
                yield tf.wait_signal("go")
                return version

            flows[version] = app.flow(name="f", version=version)(fn)
        return app, flows

    old, _ = make(1)

    async def begin(engine):
        return await engine.start("f")

    first = live(old, begin)
    new, flows = make(1, 2)

    async def scenario(engine):
        ids = [
            first,
            await engine.start("f"),
            await engine.start("f", version=1),
            await engine.start(flows[1]),
            await engine.start(flows[2]),
        ]
        for id in ids:
            await engine.signal(id, "go")
        return [(await engine.wait(id)).result for id in ids]

    assert live(new, scenario) == [1, 2, 1, 1, 2]


# --- signal


def test_signal_repeats_and_conflicts_are_told_apart(app, live):
    """An equal dedup key and payload is dropped; with another payload it is refused."""

    async def scenario(engine):
        id = await engine.start("waits")
        assert await engine.signal(id, "other", {"a": 1, "b": (2,)}, dedup="d")
        assert not await engine.signal(id, "other", {"b": [2], "a": 1}, dedup="d")
        with pytest.raises(tf.SignalConflict):
            await engine.signal(id, "other", {"a": 2}, dedup="d")
        assert await engine.signal(id, "go", 1, dedup="d")
        await engine.wait(id)

    live(app, scenario)


def test_dedup_key_outlives_its_consumption(new_app, live):
    """A repeat that comes after the flow took the first is still known as one."""
    app = new_app()

    @app.flow
    def f(_):
        got = [(yield tf.wait_signal("go"))]
        got.append((yield tf.wait_signal("go", timeout=10, default="none")))
        return got

    async def scenario(engine):
        id = await engine.start(f)
        assert await engine.signal(id, "go", 1, dedup="d")
        await engine.run_until_idle()
        assert not await engine.signal(id, "go", 1, dedup="d")
        return (await engine.wait(id)).result

    assert live(app, scenario) == [1, "none"]


def test_signal_to_nobody_is_refused(app, live):
    """Unknown and ended instances take no signals, and say so."""

    async def scenario(engine):
        with pytest.raises(tf.UnknownInstance):
            await engine.signal("a" * 20, "go")
        with pytest.raises(tf.UnknownInstance):
            await engine.signal("zz", "go")
        id = await engine.start("echo")
        await engine.wait(id)
        with pytest.raises(tf.InstanceEnded, match="done"):
            await engine.signal(id, "go")
        with pytest.raises(tf.EncodingRefused, match="payload"):
            await engine.signal(id, "go", object())

    live(app, scenario)


# --- cancel


@pytest.fixture
def cleaner(new_app, make_store):
    """A flow that cleans up when it is cancelled, and what it did."""
    app = new_app(make_store())
    app.done = []

    async def work():
        try:
            await trio.sleep(100)
        finally:
            app.done.append("stopped")

    def undo(what):
        app.done.append(what)
        return what

    @app.flow
    def parked(_):
        try:
            yield tf.wait_signal("go")
        except tf.FlowCancelled:
            yield tf.sleep(5)
            yield tf.call(undo, "undone")
            raise

    @app.flow
    def working(_):
        try:
            yield tf.call(work)
        except tf.FlowCancelled:
            yield tf.call(undo, "undone")
            raise

    @app.flow
    def stubborn(_):
        try:
            yield tf.wait_signal("go")
        except tf.FlowCancelled:
            return "done all the same"

    return app


@pytest.mark.parametrize("flow", ["parked", "working"])
def test_cancel_lets_the_flow_clean_up(cleaner, live, flow):
    """It gets `FlowCancelled` at its yield; what it yields then is shielded."""

    async def scenario(engine):
        id = await engine.start(flow)
        await trio.sleep(1)
        assert await engine.cancel(id) is True
        assert await engine.cancel(id) is False
        found = await engine.wait(id)
        with pytest.raises(tf.InstanceEnded):
            await engine.cancel(id)
        return found.status, found.failure.kind, tags_of(await engine.log(id))

    status, kind, tags = live(cleaner, scenario)
    assert (status, kind) == ("cancelled", "cancelled")
    assert tags[0] == "cancel"
    assert tags[-1] == "call:undo#0"
    assert cleaner.done.count("undone") == 1
    assert ("stopped" in cleaner.done) == (flow == "working")


def test_cancel_may_be_swallowed(cleaner, live):
    """A flow that returns after its cancel is done: the cancel is a request."""

    async def scenario(engine):
        id = await engine.start("stubborn")
        await engine.run_until_idle()
        await engine.cancel(id)
        found = await engine.wait(id)
        return found.status, found.result

    assert live(cleaner, scenario) == ("done", "done all the same")


def test_cancel_before_the_first_turn_performs_nothing(cleaner, live):
    """An instance that never ran is cancelled at its first yield; its step is not run."""

    async def start(engine):
        id = await engine.start("working")
        assert await engine.cancel(id)
        return id

    id = live(cleaner, start, work=False)

    async def scenario(engine):
        found = await engine.wait(id)
        return found.status, tags_of(await engine.log(id))

    assert live(cleaner, scenario) == ("cancelled", ["cancel", "call:undo#0"])
    assert cleaner.done == ["undone"]


# --- complete


def test_complete_gives_a_pending_call_its_result(new_app, live):
    """A result from outside ends the attempt that runs; the tag must be a pending call's."""
    app = new_app()
    stopped = []

    async def by_hand():
        try:
            await trio.sleep_forever()
        finally:
            stopped.append(True)

    @app.flow
    def f(_):
        won = yield tf.race(tf.call(by_hand), tf.sleep(1000))
        return won.value

    async def scenario(engine):
        id = await engine.start(f)
        await trio.sleep(1)
        for wrong in ("call:by_hand#0", "race#0[1]/sleep#0", "nonsense", ""):
            with pytest.raises(tf.InstanceConflict, match="by_hand"):
                await engine.complete(id, wrong, 1)
        await engine.complete(id, "race#0[0]/call:by_hand#0", {"by": ("hand",)})
        found = await engine.wait(id)
        with pytest.raises((tf.InstanceConflict, tf.InstanceEnded)):
            await engine.complete(id, "race#0[0]/call:by_hand#0", 2)
        return found.result

    assert live(app, scenario) == {"by": ["hand"]}
    assert stopped == [True]


# --- retry


def test_retry_gives_a_failed_step_fresh_attempts(new_app, live, make_store):
    """The failure at the tail is voided; the step runs again under the same key."""
    app = new_app(make_store())
    keys = []

    def flaky():
        keys.append(tf.step_context().idempotency_key)
        if len(keys) <= 4:
            raise OSError("down")
        return "up"

    @app.flow
    def f(_):
        yield tf.call(abs, -1)
        return (yield tf.call(flaky).using(retry=tf.RetryPolicy(max_attempts=2, initial=1)))

    async def scenario(engine):
        id = await engine.start(f)
        for _ in range(2):
            assert (await engine.wait(id)).status == "failed"
            await engine.retry(id)
        found = await engine.wait(id)
        assert found.failure is None
        assert (await engine.replay(id)) == tf.Done("up")
        return found.status, found.result, tags_of(await engine.log(id))

    status, result, tags = live(app, scenario)
    assert (status, result) == ("done", "up")
    assert tags == [
        "call:abs#0",
        "call:flaky#0",
        "retried",
        "call:flaky#0",
        "retried",
        "call:flaky#0",
    ]
    assert len(keys) == 5
    assert len(set(keys)) == 1


@pytest.mark.parametrize("at_once", [True, False], ids=["at once", "after a step"])
def test_retry_goes_on_once_the_flows_own_code_is_mended(new_app, live, at_once):
    """What was done stays done: mended code goes on from the entry at which it raised."""
    store = MemoryStore()
    calls = []

    def make(build, *, mended):
        app = new_app(store, build=build)

        def step():
            calls.append(1)
            return 5

        @app.flow(name="f")
        def f(_):
            if at_once and not mended:
                raise ValueError("own code")
            got = yield tf.call(step)
            if not mended:
                raise ValueError("own code")
            return got

        return app

    async def fails(engine):
        id = await engine.start("f")
        assert (await engine.wait(id)).status == "failed"
        await engine.retry(id)
        assert (await engine.wait(id)).status == "failed"
        return id

    id = live(make("one", mended=False), fails)

    async def scenario(engine):
        await engine.retry(id)
        found = await engine.wait(id)
        return found.status, found.result, (await engine.replay(id)) == tf.Done(5)

    assert live(make("two", mended=True), scenario) == ("done", 5, True)
    assert calls == [1]


def test_retry_of_what_has_not_failed_is_refused(app, live):
    """Done, waiting and cancelled instances are not retried; nor one whose key is taken now."""

    async def scenario(engine):
        done = await engine.start("echo")
        await engine.wait(done)
        waiting = await engine.start("waits")
        await engine.run_until_idle()
        cancelled = await engine.start("naps")
        await engine.cancel(cancelled)
        await engine.wait(cancelled)
        for id in (done, waiting, cancelled):
            with pytest.raises(tf.InstanceConflict):
                await engine.retry(id)
        with pytest.raises(tf.UnknownInstance):
            await engine.retry("b" * 20)

    live(app, scenario)


def test_retry_waits_for_its_key(new_app, live):
    """A failed instance whose key another one holds now can't come back beside it."""
    app = new_app()

    @app.flow
    def f(fails):
        if fails:
            raise ValueError
        yield tf.wait_signal("go")

    async def scenario(engine):
        failed = await engine.start(f, True, key="k")
        await engine.wait(failed)
        await engine.start(f, False, key="k")
        with pytest.raises(tf.InstanceConflict, match="key"):
            await engine.retry(failed)

    live(app, scenario)


# --- get, log, instances


def test_ids_can_be_shortened(app, live):
    """A unique prefix will do; one that fits none or several is refused, naming candidates."""

    async def scenario(engine):
        ids = [await engine.start("waits", n) for n in range(40)]
        first = ids[0]
        assert (await engine.get(first[:12])).id == first
        assert await engine.signal(first[:12], "go", 1)
        assert (await engine.wait(first[:12])).result == [0, 1]
        heads = [id[0] for id in ids]
        shared = next(head for head in heads if heads.count(head) > 1)
        with pytest.raises(tf.UnknownInstance) as caught:
            await engine.get(shared)
        assert len(caught.value.candidates) > 1
        for wrong in ("", "%", "_", "a" * 20, "a" * 30):
            with pytest.raises(tf.UnknownInstance):
                await engine.get(wrong)

    live(app, scenario)


def test_instance_as_the_user_sees_it(app, live):
    """An instance carries what started it, what it waits for, and how it ended."""

    async def scenario(engine):
        appended = await engine.append(FOLLOW)
        (firing,) = appended.firings
        await engine.run_until_idle()
        waiting = await engine.get(firing.instance_id)
        assert (waiting.status, waiting.waiting) == ("waiting", ("wait_signal:go#0",))
        assert waiting.activity == appended.cid
        assert waiting.trigger == "follows"
        assert waiting.trigger_cid == firing.trigger_cid
        assert waiting.input == FOLLOW
        assert not waiting.is_over
        assert waiting.ended is None
        await engine.signal(waiting.id, "go")
        done = await engine.wait(waiting.id)
        assert (done.status, done.waiting, done.due) == ("done", (), None)
        assert done.is_over
        assert done.created <= done.started <= done.ended
        failed = await engine.wait(await engine.start("broken"))
        assert failed.failure.type == "ValueError"
        assert failed.result is None

    live(app, scenario)


def test_log_holds_the_entries_in_order(new_app, live):
    """Values, failures, digests and times, as they were recorded."""
    app = new_app()

    def bad():
        raise KeyError("k")

    @app.flow
    def f(_):
        yield tf.call(abs, -3)
        with contextlib.suppress(tf.StepFailed):
            yield tf.call(bad)
        yield tf.sleep(5)

    async def scenario(engine):
        id = await engine.start(f)
        await engine.wait(id)
        return await engine.log(id)

    log = live(app, scenario)
    assert tags_of(log) == ["call:abs#0", "call:bad#0", "sleep#0"]
    assert [entry.value for entry in log] == [3, None, None]
    assert log[1].failure.type == "KeyError"
    assert [entry.digest is None for entry in log] == [False, False, True]
    assert log[2].at - log[1].at >= 5


def test_instances_are_filtered_and_paged(app, live):
    """All of them come, oldest first, over any number of pages; filters narrow them down."""

    async def scenario(engine):
        ids = [await engine.start("echo", n) for n in range(250)]
        kept = [await engine.start("waits", n, key=f"k{n}") for n in range(3)]
        await engine.run_until_idle()
        everything = [each.id async for each in engine.instances()]
        assert everything == ids + kept
        done = [each.input async for each in engine.instances(status="done")]
        assert done == list(range(250))
        waits = [each.id async for each in engine.instances(flow="waits")]
        assert waits == kept
        assert [each.id async for each in engine.instances(key="k1")] == [kept[1]]
        assert [1 async for _ in engine.instances(status="done", flow="waits")] == []

    live(app, scenario)


def test_instances_are_found_by_where_they_come_from(app, live):
    """Namespace, correlation id, statuses and times of creation narrow a listing down."""

    async def scenario(engine):
        began = engine._clock.now()
        await engine.start("echo", 1, namespace="shop", correlation_id="order-7")
        await trio.sleep(60)
        await engine.start("waits", 2, namespace="shop")
        await engine.start("echo", 3, correlation_id="order-7")
        await engine.run_until_idle()

        async def inputs(**where):
            return [each.input async for each in engine.instances(**where)]

        assert await inputs(namespace="shop") == [1, 2]
        assert await inputs(namespace="") == [3]
        assert await inputs(correlation_id="order-7", newest_first=True) == [3, 1]
        assert await inputs(status=["waiting", "running"]) == [2]
        assert await inputs(status=("waiting", "done"), newest_first=True) == [3, 2, 1]
        later = datetime.fromtimestamp(began + 30, UTC)
        assert await inputs(created_after=later) == [2, 3]
        assert await inputs(created_before=began + 30) == [1]
        assert await inputs(parent="nobody") == []

    live(app, scenario)


@pytest.mark.parametrize(
    "where",
    [
        {"created_after": datetime(2026, 1, 1)},  # noqa: DTZ001
        {"created_before": "yesterday"},
        {"status": ["waiting", "nope"]},
    ],
    ids=["naive", "text", "status"],
)
def test_filters_of_the_wrong_kind_are_refused(app, live, where):
    """A naive datetime could mean several moments: it is refused, like what is no status."""

    async def scenario(engine):
        with pytest.raises(tf.DefinitionError, match=r"expected (an aware datetime|running)"):
            engine.instances(**where)

    live(app, scenario)


# --- wait


def test_wait_gives_up_in_time_and_can_go_on(app, live):
    """`WaitTimedOut` names the status; the instance goes on and can be waited for again."""

    async def scenario(engine):
        id = await engine.start("naps")
        with pytest.raises(tf.WaitTimedOut, match="waiting"):
            await engine.wait(id, timeout=60)
        return (await engine.wait(id)).result

    assert live(app, scenario, hung=1e9) == "awake"


def test_any_number_of_tasks_may_wait(app, live):
    """All of them get the end, also who comes after it."""

    async def scenario(engine):
        id = await engine.start("waits")
        found = []

        async def wait(timeout):
            try:
                found.append((await engine.wait(id, timeout=timeout)).status)
            except tf.WaitTimedOut:
                found.append("gave up")

        async with trio.open_nursery() as nursery:
            for n in range(50):
                nursery.start_soon(wait, 5 if n % 5 == 0 else None)
            await trio.sleep(10)
            await engine.signal(id, "go")
        await wait(None)
        return sorted(set(found)), found.count("done"), found.count("gave up")

    assert live(app, scenario) == (["done", "gave up"], 41, 10)


def test_wait_for_nobody_is_refused(app, live):
    """An id that nobody has is an error, not a wait for ever."""

    async def scenario(engine):
        for id in ("c" * 20, "c"):
            with pytest.raises(tf.UnknownInstance):
                await engine.wait(id)

    live(app, scenario)


# --- run_until_idle


def test_idle_is_when_nothing_can_go_on_now(app, live):
    """Steps, back-off now due and fresh instances count; future timers and open waits don't."""

    async def scenario(engine):
        began = trio.current_time()
        ids = [await engine.start("echo", n) for n in range(300)]
        ids.append(await engine.start("waits"))
        ids.append(await engine.start("naps"))
        await engine.run_until_idle()
        states = [(await engine.get(id)).status for id in ids]
        took = trio.current_time() - began
        return states[:300].count("done"), states[300:], took

    done, others, took = live(app, scenario)
    assert (done, others) == (300, ["waiting", "waiting"])
    assert took < 60


def test_idle_waits_for_steps_that_run(new_app, live):
    """A step in flight is work: idleness comes after it and what follows from it."""
    app = new_app()

    async def step():
        await trio.sleep(100)
        return 1

    @app.flow
    def f(_):
        yield tf.call(step)
        yield tf.call(step)

    async def scenario(engine):
        id = await engine.start(f)
        await engine.run_until_idle()
        return (await engine.get(id)).status

    assert live(app, scenario) == "done"


# --- append


def test_append_many_tells_each_ones_fate(app, live):
    """More than a commit's worth, duplicates and rejects among it: each has its own result."""

    async def scenario(engine):
        documents = [{**FOLLOW, "n": n % 1200} for n in range(2300)]
        documents[5] = {"type": "Follow"}
        documents[1500] = {**FOLLOW, "bad": {1, 2}}
        documents[2299] = 7
        found = await engine.append_many(documents)
        assert len(found) == 2300
        rejected = {each.index: each.error for each in found if isinstance(each, tf.Rejected)}
        assert sorted(rejected) == [5, 1500, 2299]
        assert isinstance(rejected[5], tf.ActivityRejected)
        assert isinstance(rejected[1500], tf.EncodingRefused)
        fresh = [each for each in found if isinstance(each, tf.Appended) and not each.duplicate]
        cids = {each.cid for each in found if isinstance(each, tf.Appended)}
        assert len(fresh) == len(cids) == 1200
        assert found[0].cid == found[1200].cid
        assert found[1200].duplicate
        assert found[1200].firings == found[0].firings
        assert await engine.append_many([]) == []
        return len([1 async for _ in engine.instances()])

    assert live(app, scenario) == 1200


def test_append_many_takes_any_iterable(app, live):
    """A generator is read as it goes."""

    async def scenario(engine):
        return len(await engine.append_many({**FOLLOW, "n": n} for n in range(3)))

    assert live(app, scenario) == 3


def test_append_of_what_can_not_be_stored_stores_nothing(app, live):
    """A refused activity leaves neither a document nor an instance."""

    async def scenario(engine):
        for bad in (
            {"type": "Follow"},
            {"actor": "x"},
            [],
            None,
            {**FOLLOW, "x": float("nan")},
        ):
            with pytest.raises(tf.TriggerflowError):
                await engine.append(bad)
        return [1 async for _ in engine.instances()]

    assert live(app, scenario) == []


# --- an app that only writes and asks


def test_writer_leaves_the_driving_to_a_worker(new_app, live, make_store):
    """With work=False nothing runs here; a worker in another app object does it later."""
    store = make_store()

    def make():
        app = new_app(store)

        @app.flow(name="f")
        def f(given):
            return [given, (yield tf.wait_signal("go"))]

        app.trigger("t", on="Follow", start=f)
        return app

    async def write(engine):
        (firing,) = (await engine.append(FOLLOW)).firings
        ids = [firing.instance_id, await engine.start("f", 1), await engine.start("later", 2)]
        for id in ids:
            await engine.signal(id, "go", "s")
        await engine.run_until_idle()
        with pytest.raises(tf.WaitTimedOut):
            await engine.wait(ids[1], timeout=5)
        assert (await engine.get(ids[0])).status == "running"
        assert (await engine.get(ids[2])).cause == "unknown_flow"
        return ids

    ids = live(make(), write, work=False)

    async def work(engine):
        return [(await engine.wait(id)).result for id in ids[:2]]

    assert live(make(), work) == [[FOLLOW, "s"], [1, "s"]]


def test_waiting_writer_hears_of_a_workers_end(new_app, real, tmp_path):
    """`wait` without working learns from the store that another app finished the instance."""
    path = tmp_path / "shared.db"

    def make():
        app = new_app(SqliteStore(path))

        @app.flow(name="f")
        def f(n):
            return (yield tf.call(abs, n))

        return app

    async def scenario():
        async with make().open() as worker, make().open(work=False) as writer:
            del worker
            return (await writer.wait(await writer.start("f", -4))).result

    assert real(scenario) == 4


# --- opening and closing


@pytest.mark.parametrize("inline", [True, False])
def test_every_verb_of_a_closed_engine_says_so(new_app, real, make_sqlite, inline):
    """After the block, writing and asking verbs alike raise `EngineClosed`."""
    app = new_app(make_sqlite())

    @app.flow
    def f(_):
        yield tf.wait_signal("go")

    async def drain(instances):
        return [each async for each in instances]

    async def scenario():
        async with app.open(inline=inline) as engine:
            id = await engine.start(f)
            await engine.run_until_idle()
        verbs = [
            lambda: engine.append(FOLLOW),
            lambda: engine.append_many([FOLLOW]),
            lambda: engine.start(f),
            lambda: engine.signal(id, "go"),
            lambda: engine.complete(id, "call:x#0"),
            lambda: engine.cancel(id),
            lambda: engine.retry(id),
            lambda: engine.get(id),
            lambda: engine.get(id[:8]),
            lambda: engine.log(id),
            lambda: drain(engine.instances()),
            lambda: engine.wait(id),
            lambda: engine.run_until_idle(),
        ]
        for verb in verbs:
            with pytest.raises(tf.EngineClosed), trio.fail_after(3):
                await verb()

    real(scenario)


def test_exceptions_of_the_block_come_out_as_they_are(app, live):
    """No exception group around what the block raised."""

    async def scenario(engine):
        await engine.start("waits")
        raise LookupError("mine")

    with pytest.raises(LookupError, match="mine"):
        live(app, scenario)


def test_store_that_can_not_be_opened_says_why(new_app, live, tmp_path):
    """`open` raises `StoreError` itself, not a group."""
    (tmp_path / "dir.db").mkdir()
    app = new_app(SqliteStore(tmp_path / "dir.db"))

    async def scenario(engine):
        raise AssertionError

    with pytest.raises(tf.StoreError):
        live(app, scenario)


def test_app_can_be_opened_again(app, live):
    """One app object after the other, or the same one: what is stored goes on."""

    async def begin(engine):
        return await engine.start("waits", 1)

    id = live(app, begin)

    async def end(engine):
        await engine.signal(id, "go", 2)
        return (await engine.wait(id)).result

    assert live(app, end) == [1, 2]


def test_closing_waits_a_moment_for_steps(new_app, live):
    """A step that ends within two seconds of closing is recorded; a longer one runs again."""
    store = MemoryStore()
    calls = []

    def make():
        app = new_app(store)

        async def step(n):
            calls.append(n)
            await trio.sleep(n)
            return n

        @app.flow(name="f")
        def f(n):
            return (yield tf.call(step, n))

        return app

    async def begin(engine):
        ids = [await engine.start("f", n) for n in (1, 100)]
        await trio.sleep(0.1)
        return ids

    ids = live(make(), begin)
    assert calls == [1, 100]

    async def end(engine):
        return [(await engine.wait(id)).result for id in ids]

    assert live(make(), end) == [1, 100]
    assert calls == [1, 100, 100]
