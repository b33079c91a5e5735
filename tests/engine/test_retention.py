"""Retention in an engine: who goes when, who stays, and that a crash leaves no half of one."""

# ruff: noqa: ASYNC110 - what is polled tells nobody

from __future__ import annotations

import math

import pytest
import trio

import triggerflow as tf
from triggerflow.engine.retention import limits
from triggerflow.store.operations import Turn
from triggerflow.store.sqlite import MemoryStore
from triggerflow.testing.crash import crash_everywhere

FOLLOW = {"type": "Follow", "actor": "https://a.example/ann"}
DAY = 86_400.0
MONTHS = {"hung": 400 * DAY}


def _app(new_app, store=None, **options):
    app = new_app(store, **options)

    @app.flow(name="short", retention=tf.days(1))
    def short(n):
        return (yield tf.call(abs, n))

    @app.flow(name="plain")
    def plain(n):
        yield tf.call(abs, -1)
        if n == "fail":
            raise ValueError(n)
        return (yield tf.wait_signal("go", default=None, timeout=1))

    @app.flow(name="kept", retention=None)
    def kept(_):
        yield tf.now()

    @app.flow(name="parked", retention=tf.days(1))
    def parked(_):
        yield tf.wait_signal("never")

    return app


async def _ids(engine):
    return [each.id async for each in engine.instances()]


def test_ended_instances_go_when_their_time_has_come(new_app, live, make_store):
    """By their flow's retention, else the app's; None keeps for ever; the living stay."""
    app = _app(new_app, make_store(), retention=tf.days(10))

    async def scenario(engine):
        short = await engine.start("short", -1)
        plain = await engine.start("plain")
        kept = await engine.start("kept")
        parked = await engine.start("parked")
        for id in (short, plain, kept):
            await engine.wait(id)
        await trio.sleep(0.9 * DAY)
        assert await _ids(engine) == [short, plain, kept, parked]
        await trio.sleep(0.3 * DAY)
        assert await _ids(engine) == [plain, kept, parked]
        await trio.sleep(9 * DAY)
        assert await _ids(engine) == [kept, parked]
        await trio.sleep(300 * DAY)
        assert await _ids(engine) == [kept, parked]
        with pytest.raises(tf.UnknownInstance, match="no instance"):
            await engine.get(short)
        await engine.run_until_idle()

    live(app, scenario, **MONTHS)


def test_failed_and_terminated_ones_count_as_ended(new_app, live):
    """They have ended too; one that was retried counts from its later end."""
    app = _app(new_app, retention=tf.days(10))

    async def scenario(engine):
        failed, again = [await engine.start("plain", "fail") for _ in range(2)]
        ended = await engine.start("parked")
        for id in (failed, again):
            assert (await engine.wait(id)).status == "failed"
        await engine.terminate(ended)
        await trio.sleep(8 * DAY)
        assert await _ids(engine) == [failed, again]
        await engine.retry(again)
        await trio.sleep(3 * DAY)
        assert await _ids(engine) == [again]
        await trio.sleep(8 * DAY)
        return await _ids(engine)

    assert live(app, scenario, **MONTHS) == []


def test_a_repeat_still_gets_the_first_firing(new_app, live, make_store):
    """After its removal `get` says so; the same activity starts nothing, its document gone."""
    app = _app(new_app, make_store(), retention=tf.days(1), activity_retention=tf.days(2))
    app.trigger("t", on="Follow", start="plain")

    async def scenario(engine):
        first = await engine.append(FOLLOW)
        id = first.firings[0].instance_id
        await engine.wait(id)
        await trio.sleep(3 * DAY)
        assert await _ids(engine) == []
        assert engine._store.activity(first.cid).document is None
        again = await engine.append(FOLLOW)
        assert (again.duplicate, again.firings) == (True, first.firings)
        await engine.run_until_idle()
        assert await _ids(engine) == []
        for verb in (
            engine.get,
            engine.log,
            engine.replay,
            engine.wait,
            engine.cancel,
            engine.retry,
            engine.unblock,
            engine.terminate,
        ):
            for name in (id, id[:6]):
                with pytest.raises(tf.InstanceRemoved, match="removed by retention") as caught:
                    await verb(name)
                assert caught.value.id == id
                assert (caught.value.activity, caught.value.trigger) == (first.cid, "t")
        with pytest.raises(tf.UnknownInstance, match="no instance"):
            await engine.get("z" * 20)

    live(app, scenario, **MONTHS)


def test_a_key_may_be_used_again(new_app, live):
    """A removed holder hinders nobody; what it knew of repeated signals is gone with it."""
    app = new_app(retention=60)

    @app.flow
    def one(n):
        return [n, (yield tf.wait_signal("go"))]

    async def scenario(engine):
        found = []
        for n in range(2):
            id = await engine.start(one, n, key="k")
            assert await engine.signal(id, "go", n, dedup="same")
            found.append((await engine.wait(id)).result)
            await trio.sleep(600)
        return found

    assert live(app, scenario) == [[0, 0], [1, 1]]


def test_documents_go_and_the_living_replay_without_them(new_app, live):
    """A flow's input is its own: its activity's document may go while it runs."""
    app = new_app(activity_retention=60)

    @app.flow
    def slow(activity):
        yield tf.sleep(1000)
        return activity["actor"]

    app.trigger("t", on="Follow", start=slow)

    async def scenario(engine):
        found = await engine.append(FOLLOW)
        await trio.sleep(900)
        assert engine._store.activity(found.cid).document is None
        id = found.firings[0].instance_id
        assert isinstance(await engine.replay(id), tf.Suspended)
        return (await engine.wait(id)).result

    assert live(app, scenario, always_replay=True) == FOLLOW["actor"]


def test_without_retention_nothing_goes(new_app, live):
    """The default keeps everything, and asks the store nothing."""
    app = new_app()

    @app.flow
    def f(_):
        yield tf.now()

    async def scenario(engine):
        id = await engine.start(f)
        await engine.wait(id)
        await engine.run_until_idle()
        commits = engine._committer.commits
        await trio.sleep(1000 * DAY)
        assert engine._committer.commits == commits
        return await _ids(engine) == [id]

    assert live(app, scenario, hung=2000 * DAY)


def test_only_workers_remove(new_app, live):
    """An engine that leaves the work to others leaves this work to them as well."""
    store = MemoryStore()

    async def ends(engine):
        await engine.wait(await engine.start("short", -1))
        return engine._store.instances()[0].ended

    live(_app(new_app, store), ends)

    async def waits(engine):
        await trio.sleep(30 * DAY)
        return len(await _ids(engine))

    assert live(_app(new_app, store), waits, work=False, **MONTHS) == 1
    assert live(_app(new_app, store), waits, **MONTHS) == 0


def test_pages_leave_room_for_others(new_app, live, watched):
    """Many that are due go in pages; between two of them other work is committed."""
    store = watched(MemoryStore())
    app = _app(new_app, store)
    pages = []
    found = store.store.prune

    def prune(*args, **named):
        pages.append(len(store.operations(Turn)))
        return found(*args, **named)

    store.prune = prune

    async def scenario(engine):
        ids = [await engine.start("short", -n) for n in range(500)]
        for id in ids:
            await engine.wait(id)
        pages.clear()
        await trio.sleep(1.2 * DAY)
        assert await _ids(engine) == []
        return len(pages)

    # A round each 0.1 days, and two more pages in the round that found them.
    assert live(app, scenario, **MONTHS) > 12


def test_trouble_with_the_store_only_puts_it_off(new_app, live, watched, caplog):
    """A round that fails is logged; the next one removes what is due."""
    store = watched(MemoryStore())
    app = _app(new_app, store)
    found = store.store.prune
    failures = []

    def prune(*args, **named):
        if len(failures) < 3:
            failures.append(True)
            raise OSError("disk full")
        return found(*args, **named)

    store.prune = prune

    async def scenario(engine):
        await engine.wait(await engine.start("short", -1))
        await trio.sleep(2 * DAY)
        await engine.run_until_idle()
        return await _ids(engine)

    assert live(app, scenario, **MONTHS) == []
    assert "retention could not remove" in caplog.text


def test_a_clock_that_leaps_ahead_removes_nothing_at_once(
    new_app, real, turned_clock, monkeypatch, caplog
):
    """What a wrong clock calls old may be young: nothing goes until it has proved right."""
    monkeypatch.setattr("triggerflow.engine.retention._SOONEST", 0.01)
    monkeypatch.setattr("triggerflow.engine.retention._LATEST", 0.05)
    clock = turned_clock()
    store = MemoryStore()
    removed = []
    found = store.prune
    store.prune = lambda *args, **named: removed.append(clock.time) or found(*args, **named)
    app = _app(new_app, store)

    async def scenario():
        async with app.open(clock=clock) as engine:
            id = await engine.start("short", -1)
            await engine.wait(id)
            while not removed:
                await trio.sleep(0.005)
            clock.time += 2 * DAY
            monkeypatch.setattr("triggerflow.engine.retention._LATEST", math.inf)
            while "leapt ahead" not in caplog.text:
                await trio.sleep(0.005)
            assert await _ids(engine) == [id]
            # Meanwhile somebody puts it right.
            clock.time -= 2 * DAY
            assert all(each < 1_700_000_000 + DAY for each in removed)

    real(scenario)


# --- crashes


def _crash_app(store):
    app = tf.App(store, build="one", entry_points=False, retention=60, activity_retention=60)

    @app.flow
    def f(n):
        yield tf.call(abs, -1)
        return (yield tf.wait_signal("go"))

    app.trigger("t", on="Follow", start=f)
    return app


async def _crash_scenario(engine):
    found = [await engine.append({**FOLLOW, "n": n}) for n in range(3)]
    ids = [each.firings[0].instance_id for each in found]
    for id in ids:
        try:
            await engine.signal(id, "go", 1, dedup="d")
            await engine.wait(id)
        except tf.InstanceEnded:
            continue
        except tf.InstanceRemoved:
            continue
    store = engine._store
    with trio.fail_after(10_000):
        while store.instances() or any(store.activity(each.cid).document for each in found):
            await trio.sleep(10)
    return [store.firings(each.cid)[0].instance for each in found]


def _whole(store):
    """Every number in any table is that of an instance: none was left behind."""
    db = store._db
    numbers = {number for (number,) in db.execute("SELECT id FROM instance")}
    for table in ("log", "generation", "inbox", "tried", "wait", "task"):
        owners = {number for (number,) in db.execute(f"SELECT instance FROM {table}")}
        assert owners <= numbers, table


def test_a_crash_never_leaves_half_an_instance(make_store):
    """Killed at every write, before and after it: whole or gone, and gone in the end."""
    report = crash_everywhere(_crash_app, _crash_scenario, make_store, audit=_whole)
    assert len(set(report.end)) == 3


# --- settings


def test_limits_by_flow_and_version(new_app):
    """Versions not registered follow the newest; flows kept for ever are not asked for."""
    app = new_app(retention=50)

    @app.flow(name="a", version=1, retention=10)
    def a1(_):
        yield tf.now()

    @app.flow(name="a", version=3, retention=None)
    def a3(_):
        yield tf.now()

    @app.flow(name="b")
    def b(_):
        yield tf.now()

    @app.flow(name="c", retention=None)
    def c(_):
        yield tf.now()

    found = limits(app.flows, 50)
    assert found == {"a": {1: 10, 3: math.inf, None: math.inf}, "b": {1: 50, None: 50}}
    assert limits(app.flows, math.inf) == {"a": {1: 10, 3: math.inf, None: math.inf}}


@pytest.mark.parametrize("bad", [-1, "soon", math.inf, math.nan, True, [1]])
def test_what_is_no_retention_is_refused(new_app, bad):
    """A clear error names the flow or the argument, and what was found."""
    with pytest.raises(tf.DefinitionError, match=r"flow 'f'.*retention=") as caught:
        tf.flow(name="f", retention=bad)(lambda _: None)
    assert repr(bad) in str(caught.value)
    for name in ("retention", "activity_retention"):
        with pytest.raises(tf.DefinitionError, match=f"App\\({name}=\\)"):
            new_app(**{name: bad})


def test_retention_is_no_part_of_the_build(new_app):
    """Keeping instances longer is no new code: blocked ones are not tried again for it."""

    def f(_):
        yield tf.now()

    builds = set()
    for retention in ("app", None, 5):
        app = tf.App(MemoryStore(), entry_points=False)
        app.register(tf.flow(retention=retention)(f))
        builds.add(app.build)
    assert len(builds) == 1
