"""One scenario that uses every effect, with a crash at each of its commit points."""

from __future__ import annotations

import contextlib

import triggerflow as tf
from triggerflow.core import children, effects, messages, sagas
from triggerflow.core.effects import Effect
from triggerflow.store.sqlite import MemoryStore, acts, kin
from triggerflow.testing.crash import crash_everywhere

FOLLOW = {"type": "Follow", "actor": "https://a.example/ann"}
ACCEPT = {"type": "Accept", "actor": "https://a.example/ann"}
_BROKEN = (AssertionError, tf.TriggerflowError, BaseExceptionGroup)


def make_app(store):
    """A parent that does everything once, over two generations."""
    app = tf.App(store, build="one", entry_points=False)

    def plus(a, b):
        return a + b

    def flaky():
        if tf.step_context().attempt < 2:
            raise OSError
        return "in the end"

    def undo(result, *args):
        return ["undone", result]

    @app.flow
    def doubled(n):
        yield tf.sleep(1)
        return (yield tf.call(plus, n, n))

    @app.flow
    def patient(_):
        return (yield tf.wait_signal("word"))

    @app.flow
    def stuck(_):
        yield tf.wait_signal("never")

    @app.flow
    def heard(activity):
        yield tf.set_attributes(heard=activity["type"])
        return activity["n"]

    def loser():
        yield tf.call(plus, 7, 7).using(compensate=undo)
        yield tf.sleep(1000)

    def first(activity):
        found = [(yield tf.patched("new"))]
        yield tf.set_attributes(part=1)
        found.append((yield tf.call(plus, 1, 2)))
        found.append((yield tf.call(flaky).using(retry=tf.RetryPolicy(max_attempts=9))))
        found.append((yield tf.call(plus, 2, 2).using(idempotency_key="k")))
        found.append((yield tf.gather(tf.call(plus, 3, 3), tf.child("doubled", 4))))
        won = yield tf.race(loser(), tf.child("stuck"), timer=tf.sleep(2))
        found.append(won.name)
        ref = yield tf.spawn("patient", key="p")
        yield tf.signal(ref, "word", "spoken")
        found.append((yield tf.join(ref)))
        stuck = yield tf.spawn("stuck", abandon=True)
        yield tf.cancel(stuck)
        try:
            yield tf.join(stuck)
        except tf.ChildFailed as failed:
            found.append(failed.failure.kind)
        paid = tf.call(plus, 5, 5).using(compensate=undo)
        yield paid
        found.append((yield tf.compensate(paid)))
        yield tf.call(plus, 6, 6).using(compensate=undo)
        yield tf.call(plus, 8, 8).using(compensate=undo)
        found.append((yield tf.compensate_all()))
        found.append((yield tf.side_effect(lambda: "picked")))
        late = yield tf.spawn("doubled", 50)
        yield tf.continue_as_new({"found": found, "late": late})

    def second(state):
        found = state["found"]
        found.append((yield tf.join(state["late"])))
        cid = yield tf.emit({**ACCEPT, "n": 9})
        got = yield tf.wait_activity({"type": ["Accept"]})
        found.append((cid == tf.cid_of(got), got["n"]))
        found.append([each.name for each in (yield tf.inbox("answer"))])
        found.append((yield tf.wait_signal(["answer", "other"], timeout=1000)).payload)
        yield tf.sleep_until((yield tf.now()).timestamp() + 3)
        token, chance = (yield tf.uuid4()), (yield tf.random())
        found.append(token.version == 4 and 0 <= chance < 1)
        return found

    @app.flow
    def everything(input):
        if "found" in input:
            return (yield from second(input))
        return (yield from first(input))

    app.trigger("start", on="Follow", start=everything)
    app.trigger("hear", on="Accept", start=heard)
    return app


async def scenario(engine):
    (firing,) = (await engine.append(FOLLOW)).firings
    id = firing.instance_id
    with contextlib.suppress(tf.InstanceEnded):
        await engine.signal(id, "answer", "well", dedup="one")
    done = await engine.wait(id, timeout=5000)
    assert (await engine.replay(id)) == tf.Done(done.result)
    await engine.run_until_idle()
    ends = [
        (each.flow, each.status, str(each.result), str(each.attributes))
        async for each in engine.instances()
        if each.id != id
    ]
    return done.result, done.generation, sorted(ends)


def audit(store):
    """Whoever died where: no tag twice, nothing left over, every child has its parent."""
    for record in store.instances(limit=1000):
        assert record.status in ("done", "failed", "cancelled"), record
        for generation in (record.generation - 1, record.generation):
            tags = [row.tag for row in store.log(record.number, generation)]
            assert len(tags) == len(set(tags)), tags
        assert store.inbox(record.number) == []
        assert (record.parent is not None) == (record.flow in ("doubled", "patient", "stuck"))
    assert store.outbox(10) == []
    assert store.waits() == []


def test_scenario_uses_every_effect():
    """What a flow can yield is all there, so that a new effect has to come here too."""
    kinds = {
        each.kind
        for room in (effects, children, messages, sagas)
        for each in vars(room).values()
        if isinstance(each, type) and issubclass(each, Effect) and each.kind
    }
    names = set()

    def walk(code):
        names.update(code.co_names)
        for each in code.co_consts:
            if hasattr(each, "co_names"):
                walk(each)

    walk(make_app.__code__)
    assert kinds <= names, f"not used: {sorted(kinds - names)}"


def test_every_effect_survives_a_crash_at_every_commit_point(make_any_store):
    """Before and after each commit point: one end, the same children, nothing left over."""
    report = crash_everywhere(make_app, scenario, make_any_store, audit=audit)
    found, generation, others = report.end
    assert found == [
        True,
        3,
        "in the end",
        4,
        [6, 8],
        "timer",
        "spoken",
        "cancelled",
        ["undone", 10],
        [["undone", 16], ["undone", 12]],
        "picked",
        100,
        [True, 9],
        ["answer"],
        "well",
        True,
    ]
    assert generation == 2
    assert others == [
        ("doubled", "done", "100", "{}"),
        ("doubled", "done", "8", "{}"),
        ("heard", "done", "9", "{'heard': 'Accept'}"),
        ("patient", "done", "spoken", "{}"),
        ("stuck", "cancelled", "None", "{}"),
        ("stuck", "cancelled", "None", "{}"),
    ]
    assert report.points >= 25


# --- the harness sees it where a guarantee of these effects is taken away


def broken():
    """Run the scenario on an engine that was broken; whether anybody noticed."""
    try:
        report = crash_everywhere(make_app, scenario, MemoryStore, audit=audit)
    except _BROKEN:
        return True
    return report.end[0][:2] != [True, 3]


def test_harness_sees_children_that_are_not_told_of(monkeypatch):
    """With the end of a child not written for its parent, the parent never ends."""
    monkeypatch.setattr(kin, "tell_parents", lambda *_: [])
    assert broken()


def test_harness_sees_a_child_with_an_id_of_chance(monkeypatch):
    """With a child's id drawn anew at each drive, a restarted parent waits for another one."""
    from triggerflow.engine import clock, settling

    monkeypatch.setattr(settling, "child_id", lambda *_: clock.random_id())
    assert broken()


def test_harness_sees_an_emit_outside_of_its_turn(monkeypatch):
    """With the emitted activity not in the turn's own commit, it is lost."""
    monkeypatch.setattr(acts._Writing, "emit", lambda *_: False)
    assert broken()


def test_harness_sees_a_wait_without_a_row(monkeypatch):
    """With a wait that is kept in memory alone, what came before it is missed."""
    from triggerflow.engine import pending

    real = pending._armed

    def armed(drive, tag, waiting):
        if not isinstance(waiting.effect, messages.WaitActivity):
            real(drive, tag, waiting)

    monkeypatch.setattr(pending, "_armed", armed)
    assert broken()
