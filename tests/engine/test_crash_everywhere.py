"""A crash at every commit point changes nothing about the end; and the harness would see it."""

from __future__ import annotations

import contextlib

import pytest
import trio

import triggerflow as tf
from triggerflow.core.log import decode_pending, kind_of
from triggerflow.engine import executor as executor_module
from triggerflow.engine import turn as turn_module
from triggerflow.store.operations import Turn
from triggerflow.store.sqlite import MemoryStore
from triggerflow.testing import crash as crash_module
from triggerflow.testing.crash import CrashingStore, crash_everywhere
from triggerflow.testing.time import run_virtually, virtual_settings

FOLLOW = {"type": "Follow", "actor": "https://a.example/ann", "n": 1}


def audit(store):
    """What must hold in a store, however the engines before died."""
    codec = tf.App(MemoryStore(), entry_points=False).codec
    pairs = set()
    for record in store.instances(limit=1000):
        assert record.status in ("done", "failed", "cancelled"), record
        assert record.owner is None
        log = store.log(record.number, record.generation)
        assert [row.position for row in log] == list(range(record.log_length))
        tags = [row.tag for row in log if row.tag != "retried"]
        assert len(tags) == len(set(tags)), f"a tag stands twice: {tags}"
        times = [row.at for row in log]
        assert times == sorted(times)
        assert store.inbox(record.number) == []
        kept = {} if record.pending is None else decode_pending(codec.decode(record.pending))
        assert not [tag for tag in kept if kind_of(tag) == "call"]
        if record.activity is not None:
            pair = (record.activity, record.trigger_cid)
            assert pair not in pairs, f"{pair} started twice"
            pairs.add(pair)
    assert store.outbox(10) == []
    for cid, _ in pairs:
        firings = store.firings(cid)
        found = [firing.trigger_cid for firing in firings]
        assert len(found) == len(set(found))
        for firing in firings:
            assert firing.error is not None or store.instance(firing.instance) is not None


# --- the scenario of the issue: two calls, a race, and a signal


def make_app(store):
    app = tf.App(store, build="one", entry_points=False)

    def reserve(n):
        return {"reserved": n}

    async def charge(held):
        await trio.sleep(1)
        return [held["reserved"], tf.step_context().idempotency_key]

    async def slow():
        await trio.sleep(500)
        return "slow"

    @app.flow
    def order(activity):
        held = yield tf.call(reserve, activity["n"])
        paid = yield tf.call(charge, held)
        won = yield tf.race(tf.call(slow), timer=tf.sleep(5))
        answer = yield tf.wait_signal("answer", timeout=1000, default="none")
        return [held, paid, won.name, answer]

    app.trigger("t", on="Follow", start=order)
    return app


async def scenario(engine):
    appended = await engine.append(FOLLOW)
    (firing,) = appended.firings
    id = firing.instance_id
    with contextlib.suppress(tf.InstanceEnded):
        await engine.signal(id, "answer", {"yes": True}, dedup="one")
    found = await engine.wait(id)
    assert (await engine.replay(id)) == tf.Done(found.result)
    tags = [entry.tag for entry in await engine.log(id)]
    return found.status, found.result, tags, len(appended.firings)


def test_two_calls_a_race_and_a_signal(make_any_store):
    """Every commit point, before and after it: one end, and a store in order."""
    report = crash_everywhere(make_app, scenario, make_any_store, audit=audit)
    status, result, tags, firings = report.end
    assert status == "done"
    assert result[2:] == ["timer", {"yes": True}]
    assert tags == [
        "call:reserve#0",
        "call:charge#0",
        "race#0[timer]/sleep#0",
        "wait_signal:answer#0",
    ]
    assert firings == 1
    assert report.points >= 7
    assert report.runs == 2 * report.points


# --- everything else at once


def make_wide_app(store):
    app = tf.App(store, build="one", entry_points=False)

    def flaky(n):
        # Attempts that fail are counted by what is durable, so it fails alike everywhere.
        if tf.step_context().attempt < 3:
            raise OSError(n)
        return n

    async def part(n):
        await trio.sleep(n)
        return n

    def undo():
        return "undone"

    @app.flow
    def wide(n):
        picked = yield tf.side_effect(lambda: "picked")
        token = yield tf.uuid4()
        chance = yield tf.random()
        got = yield tf.gather(tf.call(part, 3), tf.call(part, 1), inner(n))
        flaky_result = yield tf.call(flaky, n).using(
            retry=tf.RetryPolicy(max_attempts=9, initial=7)
        )
        again = yield tf.call(part, 1)
        return [picked, got, flaky_result, again, token.version, 0 <= chance < 1]

    def inner(n):
        yield tf.sleep(2)
        return (yield tf.side_effect(lambda: n * 2))

    @app.flow
    def stopped(_):
        try:
            yield tf.wait_signal("never")
        except tf.FlowCancelled:
            yield tf.call(undo)
            raise

    return app


async def wide_scenario(engine):
    if not await _ended(engine, "wide"):
        await engine.start("wide", 21, key="w")
    if not await _ended(engine, "stopped"):
        stopped = await engine.start("stopped", key="s")
        with contextlib.suppress(tf.InstanceEnded):
            await engine.cancel(stopped)
    await _wait_all(engine)
    ends = []
    for each in [each async for each in engine.instances()]:
        log = await engine.log(each.id)
        replayed = await engine.replay(each.id)
        if each.status == "done":
            assert replayed == tf.Done(each.result)
        ends.append((each.flow, each.status, each.result, sorted(e.tag for e in log)))
    return ends


async def _ended(engine, flow):
    return [each async for each in engine.instances(flow=flow) if each.is_over]


async def _wait_all(engine):
    for id in [each.id async for each in engine.instances()]:
        await engine.wait(id)


def test_gather_retries_side_effects_and_a_cancel(make_any_store):
    """The same for branches, chance, side effects, back-off and a cancel that compensates."""
    report = crash_everywhere(make_wide_app, wide_scenario, make_any_store, audit=audit)
    wide, stopped = report.end
    assert wide[:3] == ("wide", "done", ["picked", [3, 1, 42], 21, 1, 4, True])
    assert stopped[1] == "cancelled"
    assert stopped[3] == ["call:undo#0", "cancel"]
    assert report.points >= 10


def make_waiting(store):
    app = tf.App(store, build="one", entry_points=False)

    def note(what):
        return what

    @app.flow
    def order(activity):
        id = activity["id"]
        try:
            paid = yield tf.wait_activity({"type": ["Paid"], "id": [id]})
            yield tf.emit({"type": "Sent", "actor": "shop", "id": id})
            seen = yield tf.wait_activity({"type": ["Seen"]}, timeout=50, default=None)
            return [paid["sum"], seen]
        except tf.FlowCancelled:
            yield tf.call(note, id)
            raise

    @app.flow
    def parcel(activity):
        return (yield tf.wait_activity({"type": ["Paid"]}, after=0))["sum"]

    cancels = {"on": "Cancelled", "match": {"id.$": "$.id"}}
    app.trigger("order", on="Order", start=order, cancel_on=[cancels])
    app.trigger("parcel", on="Sent", start=parcel, cancel_on=[cancels])
    return app


async def waiting_scenario(engine):
    ids = []
    for id in ("kept", "cancelled", "late"):
        found = await engine.append({"type": "Order", "actor": "ann", "id": id})
        ids.append(found.firings[0].instance_id)
    for id, kind in (("kept", "Paid"), ("cancelled", "Cancelled"), ("late", "Paid")):
        await engine.append({"type": kind, "actor": "bank", "id": id, "sum": 7})
    await engine.run_until_idle()
    await engine.append({"type": "Cancelled", "actor": "ann", "id": "late"})
    ends = [await engine.wait(id, timeout=1000) for id in ids]
    await engine.run_until_idle()
    parcels = [each async for each in engine.instances(flow="parcel")]
    return [(each.status, each.result) for each in ends], [each.result for each in parcels]


def audit_waiting(store):
    """No wait, and nothing where it was filed, outlives its instance."""
    audit(store)
    assert store.waits() == []
    assert store.standing().paths == ()


def test_waits_and_cancel_on_survive_every_crash():
    """Waits, what they met and what cancelled land once each, wherever the engine dies."""
    report = crash_everywhere(make_waiting, waiting_scenario, MemoryStore, audit=audit_waiting)
    ended = [("done", [7, None]), ("cancelled", None), ("cancelled", None)]
    assert report.end == (ended, [7, 7])
    assert report.points >= 20


def test_chance_is_the_same_after_a_crash():
    """What `uuid4`, `random` and `now` gave before a crash, they give after it."""

    def make(store):
        app = tf.App(store, build="one", entry_points=False)

        @app.flow
        def f(_):
            one = yield tf.uuid4()
            yield tf.call(abs, -1)
            return [str(one), str((yield tf.uuid4())), (yield tf.random())]

        app.trigger("t", on="Follow", start=f)
        return app

    async def run(engine):
        (firing,) = (await engine.append(FOLLOW)).firings
        found = await engine.wait(firing.instance_id)
        # The seed is chance itself, so runs differ; what a run said must replay.
        assert (await engine.replay(firing.instance_id)) == tf.Done(found.result)
        return found.status

    assert crash_everywhere(make, run, MemoryStore, audit=audit).end == "done"


# --- the harness fails where a guarantee is taken away


def _counted(calls):
    """An app whose two steps count in the world outside, keyed as a service would."""

    def make(store):
        app = tf.App(store, build="one", entry_points=False)

        def draw():
            calls.append("draw")
            return len(calls)

        def use(n):
            return n

        @app.flow
        def f(_):
            first = yield tf.call(draw)
            yield tf.call(use, first)
            yield tf.sleep(5)
            return first == (yield tf.call(use, first))

        app.trigger("t", on="Follow", start=f)
        return app

    return make


async def _follow(engine):
    (firing,) = (await engine.append(FOLLOW)).firings
    found = await engine.wait(firing.instance_id, timeout=1000)
    return found.status, found.result


_BROKEN = (AssertionError, tf.TriggerflowError, BaseExceptionGroup)


def test_harness_is_green_on_the_whole_engine():
    """The scenario that the broken engines below run is green as it stands."""
    assert crash_everywhere(_counted([]), _follow, MemoryStore, audit=audit).end == (
        "done",
        True,
    )


def test_harness_sees_a_step_that_is_performed_before_its_commit(monkeypatch):
    """With perform before commit, a step runs of which the store knows nothing."""

    def make(store):
        app = tf.App(store, build="one", entry_points=False)

        def charge():
            record = store.instances(limit=10)[-1]
            kept = {}
            if record.pending is not None:
                kept = decode_pending(app.codec.decode(record.pending))
            assert "call:charge#0" in kept, "charged, and the store knows nothing of it"
            return 1

        @app.flow
        def f(_):
            return (yield tf.call(charge))

        app.trigger("t", on="Follow", start=f)
        return app

    async def run(engine):
        (firing,) = (await engine.append(FOLLOW)).firings
        return (await engine.wait(firing.instance_id)).status

    assert crash_everywhere(make, run, MemoryStore, audit=audit).end == "done"

    def performs_first(self, run):
        replay = run.replay
        if run.busy or run.gone or replay is None:
            return
        taken = turn_module.take(run, replay, around=self._around, now=self._clock.now())
        early, taken.perform = taken.perform, []
        run.busy = True
        performer = self.performer

        def at_once(attempt):
            performer._run_plain(attempt)
            performer._token.run_sync_soon(performer._finished, [attempt])

        performer.start = at_once
        for tag in early:
            self._starter.perform(run, replay, tag)
        self._committer.submit(
            taken.operation, lambda outcome: self._landed(run, replay, taken, outcome)
        )

    monkeypatch.setattr(executor_module.Executor, "_turn", performs_first)
    report = None
    try:
        report = crash_everywhere(make, run, MemoryStore, audit=audit)
    except _BROKEN:
        return
    assert report.end != "done"


def test_harness_sees_results_that_are_not_persisted(monkeypatch):
    """With results left out of the log, the flow goes on and the audit finds the holes."""

    def forgetful(run, replay, **options):
        taken = turn_module.take(run, replay, **options)
        kept = tuple(row for row in taken.operation.entries if row.tag != "call:draw#0")
        taken.operation.entries = kept
        return taken

    monkeypatch.setattr(executor_module, "take", forgetful)
    with pytest.raises(_BROKEN):
        crash_everywhere(_counted([]), _follow, MemoryStore, audit=audit)


def test_harness_sees_a_result_that_is_used_before_it_is_durable(monkeypatch):
    """With a result logged one turn late, what followed from it outlives it."""
    held = {}

    def late(run, replay, **options):
        taken = turn_module.take(run, replay, **options)
        rows = (*held.pop(run, ()), *taken.operation.entries)
        if taken.operation.status == "running" and rows:
            held[run] = rows
            rows = ()
        taken.operation.entries = rows
        return taken

    monkeypatch.setattr(executor_module, "take", late)
    runs = []

    def draws_differ(store):
        app = tf.App(store, build="one", entry_points=False)

        def draw():
            runs.append(1)
            return len(runs)

        def use(n):
            # A service that keeps what it was told first.
            known = used.setdefault(tf.step_context().idempotency_key, n)
            assert known == n, "told two different things under one key"
            return n

        used = told.setdefault(store.store, {})

        @app.flow
        def f(_):
            first = yield tf.call(draw)
            yield tf.call(use, first)
            return "done"

        app.trigger("t", on="Follow", start=f)
        return app

    # By the store itself, not by its address, which another may get later.
    told = {}
    with pytest.raises(_BROKEN):
        crash_everywhere(draws_differ, _follow, MemoryStore, audit=audit)


class _Unfenced:
    """A store that lets every turn through: whose it is, and after what, is not asked."""

    def __init__(self, store):
        self.store = store

    def __getattr__(self, name):
        return getattr(self.store, name)

    def commit(self, batch):
        for op in batch.operations:
            if type(op) is Turn:
                self.store._write(lambda db, op=op: _let_in(db, batch, op))
        return self.store.commit(batch)


def _let_in(db, batch, op):
    (op.log_length,) = db.execute(
        "SELECT log_length FROM instance WHERE id = ?", (op.number,)
    ).fetchone()
    db.execute(
        "UPDATE instance SET owner = ?, status = 'running' WHERE id = ?",
        (batch.worker[0], op.number),
    )
    found = db.execute("SELECT epoch FROM worker WHERE id = ?", batch.worker[:1]).fetchone()
    batch.worker = (batch.worker[0], found[0])


def _lose_the_lease(db, worker):
    db.execute("UPDATE instance SET owner = NULL")
    db.execute("UPDATE worker SET epoch = epoch + 1 WHERE id = ?", (worker,))


def test_fence_is_what_keeps_a_dead_worker_out():
    """Two owners of one instance: with the fence a tag is logged once, without it twice."""

    async def step():
        await trio.sleep(10)
        return 1

    def owners(store, seen):
        def make():
            app = tf.App(seen, build="one", entry_points=False)

            @app.flow(name="f")
            def f(_):
                yield tf.call(step)
                yield tf.wait_signal("go")

            return app

        async def main():
            async with make().open(**virtual_settings()) as one:
                id = await one.start("f")
                await trio.sleep(1)
                # Another worker takes over, and the old one knows nothing of it.
                worker = one._committer.worker[0]
                store._write(lambda db: _lose_the_lease(db, worker))
                async with make().open(**virtual_settings()):
                    await trio.sleep(30)
                    record = store.instance(id)
                    return [row.tag for row in store.log(record.number, 1)]

        return run_virtually(main)

    store = MemoryStore()
    assert owners(store, store) == ["call:step#0"]
    store = MemoryStore()
    assert owners(store, _Unfenced(store)) == ["call:step#0", "call:step#0"]


class _CrashingTwice(CrashingStore):
    """Dies at one write, comes back, and dies again so many writes later."""

    def __init__(self, store, *, at, then, after):
        super().__init__(store, at=at, after=after)
        self.then = then

    def open(self):
        super().open()
        if self.crashed and self.then:
            self._at, self.then = self.writes + self.then, 0


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_second_crash_while_recovering_changes_nothing(after):
    """A crash in the midst of recovery from a crash: the same end, at every pair of points."""
    end = crash_module._run(make_app, scenario, CrashingStore(MemoryStore()))
    for at in range(1, 12):
        for then in range(1, 7):
            store = _CrashingTwice(MemoryStore(), at=at, then=then, after=after)
            found = crash_module._run(make_app, scenario, store)
            assert found[0] == end[0]
            # The key in the charge's result differs from instance id to instance id only.
            assert found[1:] == end[1:], (at, then)
            store.store.open()
            audit(store.store)
            store.store.close()
