"""Firings that started nothing: dispatched again by hand, by a retry policy, or given up."""

# ruff: noqa: ASYNC110 - what is polled tells nobody

from __future__ import annotations

import pytest
import trio

import triggerflow as tf
from triggerflow.engine.redispatch import AGAIN
from triggerflow.store.operations import Redispatch
from triggerflow.store.sqlite import MemoryStore, SqliteStore
from triggerflow.testing.crash import crash_everywhere


def act(n, type="Follow"):
    return {"type": type, "actor": "https://a.example/ann", "n": n}


class Moody:
    """A guard that fails for as long as it is told to."""

    def __init__(self, fails=10**9):
        self.fails = fails
        self.asked = 0
        self.answer = True

    def guard(self, document):
        self.asked += 1
        if self.fails > 0:
            self.fails -= 1
            raise ValueError(f"no {document['n']}")
        return self.answer


def define(app, mood, **options):
    @app.flow
    def numbered(activity):
        yield tf.now()
        return activity["n"]

    @app.flow
    def buried(letter):
        yield tf.now()
        return letter

    guard = tf.Guard("moody", 1, mood.guard)
    app.trigger("t", on="Follow", start=numbered, guard=guard, **options)
    return app


async def results(engine):
    return [each.result async for each in engine.instances()]


def test_a_failed_firing_is_dispatched_again(new_app, live, make_store):
    """By hand: the error is kept, a repeat of the append gets the new firing."""
    mood = Moody(2)
    app = define(new_app(make_store()), mood)

    async def scenario(engine):
        for n in range(3):
            await engine.append(act(n))
        dry = await engine.redispatch(dry_run=True)
        assert dry == tf.Redispatched(2, {"started": 2})
        assert await results(engine) in ([2], [None])
        assert await engine.redispatch() == tf.Redispatched(2, {"started": 2})
        assert await engine.redispatch() == tf.Redispatched(0, {})
        await engine.run_until_idle()
        (firing,) = await engine.firings(activity=tf.cid_of(act(0)))
        assert (firing.outcome, firing.error, firing.source) == ("started", None, "redispatch")
        assert [each.error for each in firing.before] == [
            "guard moody@1 raised ValueError: no 0"
        ]
        again = await engine.append(act(0))
        assert again.firings[0].instance_id == firing.instance_id
        return await results(engine)

    assert live(app, scenario) == [2, 0, 1]


def test_what_is_chosen(new_app, live):
    """By activity, by trigger, by outcome, so many at most, in the order of the activities."""
    mood = Moody()
    app = define(new_app(), mood)
    app.trigger("other", on="Like", start="numbered", guard=app.triggers[0].guard)

    async def scenario(engine):
        for n in range(6):
            await engine.append(act(n, "Like" if n % 2 else "Follow"))
        mood.fails = 0
        assert (await engine.redispatch(tf.cid_of(act(4)))).looked == 1
        assert (await engine.redispatch(trigger="other", limit=2)).looked == 2
        assert (await engine.redispatch(trigger="nobody")).looked == 0
        assert (await engine.redispatch(outcome="paused")).looked == 0
        await engine.run_until_idle()
        assert await results(engine) == [4, 1, 3]
        assert (await engine.redispatch(outcome=["guard_error", "failed"])).looked == 3
        for wrong in ("started", "deferred", "no"):
            with pytest.raises(tf.DefinitionError, match="expected some of"):
                await engine.redispatch(outcome=wrong)
        await engine.run_until_idle()
        return await results(engine)

    assert "started" not in AGAIN
    assert live(app, scenario) == [4, 1, 3, 0, 2, 5]


def test_a_guard_that_says_no_later(new_app, live):
    """The firing is no error any more, and starts nothing; a redispatch can ask again."""
    mood = Moody(1)
    app = define(new_app(), mood)

    async def scenario(engine):
        await engine.append(act(0))
        mood.answer = False
        assert (await engine.redispatch()).outcomes == {"guard_no": 1}
        assert (await engine.redispatch()).looked == 0
        mood.answer = True
        assert (await engine.redispatch(outcome="guard_no")).outcomes == {"started": 1}
        (firing,) = await engine.firings(activity=tf.cid_of(act(0)))
        return [each.outcome for each in firing.before]

    assert live(app, scenario) == ["guard_error", "guard_no"]


def test_an_old_spec_is_dispatched_by_itself(new_app, live):
    """The firing of a superseded trigger starts what that one would have started."""
    store, mood = MemoryStore(), Moody(1)
    app = new_app(store)

    @app.flow
    def before(activity):
        yield tf.now()
        return "before"

    app.trigger("t", on="Follow", start=before, guard=tf.Guard("moody", 1, mood.guard))
    live(app, lambda engine: engine.append(act(0)))

    app = define(new_app(store), mood)
    app.register(before)

    async def scenario(engine):
        assert (await engine.redispatch()).outcomes == {"started": 1}
        await engine.run_until_idle()
        return await results(engine)

    assert live(app, scenario) == ["before"]


def test_what_stays_as_it_is(new_app, live):
    """Of a paused trigger, without a document, without the guard's code: counted, untouched."""
    store, mood = MemoryStore(), Moody(2)
    app = define(new_app(store), mood)

    async def scenario(engine):
        await engine.append(act(0))
        await engine.pause("t")
        assert (await engine.redispatch()).outcomes == {"paused": 1}
        await engine.resume("t")
        await trio.sleep(1)
        store.prune_documents(engine._clock.now())
        assert (await engine.redispatch()).outcomes == {"removed": 1}
        await engine.append(act(1))
        (firing,) = await engine.firings(activity=tf.cid_of(act(0)))
        assert (firing.outcome, firing.before) == ("guard_error", ())

    live(app, scenario)

    async def stranger(engine):
        found = (await engine.redispatch(tf.cid_of(act(1)))).outcomes
        return found, engine._store.unstarted(["guard_error"])[-1].changes

    assert live(new_app(store), stranger) == ({"unknown_guard": 1}, 0)


def test_two_processes_redispatch_the_same(new_app, tmp_path):
    """Both plan the same firings; each starts once, the slower one is told so."""
    path = tmp_path / "two.db"
    mood = Moody(30)

    async def main():
        apps = [define(new_app(SqliteStore(path)), mood) for _ in range(2)]
        async with apps[0].open(work=False) as one, apps[1].open(work=False) as two:
            await one.append_many([act(n) for n in range(30)])
            found = []

            async def again(engine):
                found.append((await engine.redispatch()).outcomes)

            async with trio.open_nursery() as nursery:
                nursery.start_soon(again, one)
                nursery.start_soon(again, two)
            started = sum(each.get("started", 0) for each in found)
            return started, len(await results(one))

    assert trio.run(main) == (30, 30)


def test_a_redispatch_that_raced_is_refused(new_app, live):
    """A plan for what the firing was an instant ago changes nothing; nor does one of before
    a pause.
    """
    store, mood = MemoryStore(), Moody()
    app = define(new_app(store), mood)

    async def scenario(engine):
        await engine.append(act(0))
        (row,) = store.unstarted(["guard_error"])
        mood.fails = 0
        (plan,), _ = await engine._redispatcher.plan([row], "redispatch")
        (twin,), _ = await engine._redispatcher.plan([row], "redispatch")
        assert type(plan) is Redispatch
        await engine.pause("t")
        assert (await engine._committer.ask(plan)).verdict.value == "stale"
        await engine.resume("t")
        await engine._arrivals.look_again()
        (plan,), _ = await engine._redispatcher.plan([row], "redispatch")
        twin.registry = plan.registry
        found = await engine._committer.ask_all([plan, twin])
        assert [each.verdict.value for each in found] == ["applied", "gone"]
        assert (await engine._committer.ask(twin)).verdict.value == "gone"
        await engine.run_until_idle()
        return await results(engine)

    assert live(app, scenario) == [0]


def test_a_crash_anywhere_in_a_redispatch(new_app, make_store):
    """Each firing starts once, and its history has one line more."""
    mood = Moody()

    async def scenario(engine):
        cids = [tf.cid_of(act(n)) for n in range(3)]
        if not await engine.firings(activity=cids[2]):
            mood.fails = 10**9
            await engine.append_many([act(n) for n in range(3)])
        mood.fails = 0
        await engine.redispatch()
        await engine.run_until_idle()
        found = [(await engine.firings(activity=cid))[0] for cid in cids]
        return [(each.outcome, len(each.before)) for each in found], await results(engine)

    report = crash_everywhere(lambda store: define(new_app(store), mood), scenario, make_store)
    assert report.end == ([("started", 1)] * 3, [0, 1, 2])


# --- retries of a dispatch ---------------------------------------------------------------

POLICY = tf.RetryPolicy(4, initial=10, factor=2, jitter=0)


def test_a_failed_dispatch_is_tried_again(new_app, live, make_store):
    """After the policy's waits, durably; each attempt is in its history."""
    mood = Moody(2)
    app = define(new_app(make_store()), mood, retry=POLICY)

    async def scenario(engine):
        began = trio.current_time()
        (firing,) = (await engine.append(act(0))).firings
        assert (firing.outcome, firing.due) == ("guard_error", engine._clock.now() + 10)
        await engine.run_until_idle()
        while not await results(engine):
            await trio.sleep(1)
        assert 30 <= trio.current_time() - began <= 31
        (firing,) = await engine.firings(activity=tf.cid_of(act(0)))
        assert (firing.outcome, firing.source, firing.due) == ("started", "retry", None)
        assert (firing.attempts, [each.attempts for each in firing.before]) == (3, [1, 2])
        await engine.run_until_idle()
        return await results(engine)

    assert live(app, scenario) == [0]


def test_a_dispatch_that_fails_for_good(new_app, live, make_store):
    """It is `failed`, and its dead letter starts, with the activity, the trigger, the error."""
    mood = Moody()
    app = define(new_app(make_store()), mood, retry=POLICY, dead_letter="buried")

    async def scenario(engine):
        await engine.append(act(0))
        await trio.sleep(1000)
        (firing,) = await engine.firings(activity=tf.cid_of(act(0)))
        assert (firing.outcome, firing.instance_id, firing.due) == ("failed", None, None)
        assert (firing.attempts, mood.asked) == (4, 4)
        letter = await engine.get(firing.dead_letter)
        assert (letter.flow, letter.trigger, letter.activity) == (
            "buried",
            "t",
            tf.cid_of(act(0)),
        )
        # By hand it gets another series, and no second letter.
        assert (await engine.redispatch()).outcomes == {"guard_error": 1}
        await trio.sleep(1000)
        again = (await engine.firings(activity=tf.cid_of(act(0))))[0]
        assert (again.outcome, again.dead_letter) == ("failed", firing.dead_letter)
        return await results(engine)

    (letter,) = live(app, scenario)
    assert letter == {
        "activity": act(0),
        "activity_cid": tf.cid_of(act(0)),
        "trigger": "t",
        "error": "guard moody@1 raised ValueError: no 0",
    }


def test_a_dead_letter_without_retries(new_app, live):
    """One attempt, then the letter; what is too large to be told of is named by its CID."""
    app = define(new_app(), Moody(), dead_letter="buried")
    room = 1024 * 1024 - len(tf.encode_document(act(0) | {"text": ""}))
    large = act(0) | {"text": "x" * (room - 10)}

    async def scenario(engine):
        (firing,) = (await engine.append(large)).firings
        assert firing.outcome == "failed"
        await engine.run_until_idle()
        return (await engine.get(firing.dead_letter)).result

    found = live(app, scenario)
    assert (found["activity"], found["activity_cid"]) == (None, tf.cid_of(large))


def test_a_guard_that_hangs_is_tried_again(new_app):
    """A hang counts as a failure like any other."""
    import threading

    asked, never = [], threading.Event()

    def hanging(document):
        asked.append(document["n"])
        if len(asked) == 1:
            never.wait(30)
        return True

    app = new_app()

    @app.flow
    def numbered(activity):
        yield tf.now()
        return activity["n"]

    retry = tf.RetryPolicy(2, initial=0.05)
    app.trigger("t", on="Follow", start=numbered, guard=hanging, retry=retry)

    async def main():
        async with app.open(guard_limit=0.2) as engine:
            (firing,) = (await engine.append(act(0))).firings
            assert "took longer" in firing.error
            with trio.fail_after(20):
                while not await results(engine):
                    await trio.sleep(0.01)
        never.set()

    trio.run(main)


def test_a_retry_of_a_paused_trigger_waits_for_its_resume(new_app, live):
    """Due while paused, it becomes a paused firing, and costs no attempt."""
    mood = Moody(1)
    app = define(new_app(), mood, retry=POLICY)

    async def scenario(engine):
        await engine.append(act(0))
        await engine.pause("t")
        await trio.sleep(1000)
        (firing,) = await engine.firings(activity=tf.cid_of(act(0)))
        assert (firing.outcome, firing.due, mood.asked) == ("paused", None, 1)
        await engine.resume("t")
        await engine.run_until_idle()
        return await results(engine)

    assert live(app, scenario) == [0]


def test_retries_outlive_restarts_and_follow_the_stored_policy(new_app, live, make_store):
    """Whoever works then tries again; a document that a retry needs is kept meanwhile."""
    store, mood = make_store(), Moody(1)
    app = define(new_app(store, activity_retention=1), mood, retry=POLICY)

    async def begin(engine):
        await engine.append(act(0))
        await engine.run_until_idle()
        return engine._clock.now()

    live(app, begin)

    async def go_on(engine):
        await trio.sleep(100)
        await engine.run_until_idle()
        return await results(engine)

    assert live(define(new_app(store, activity_retention=1), mood, retry=POLICY), go_on) == [0]


def test_a_changed_policy_is_no_new_trigger(new_app, live):
    """Retry and dead letter are outside the CID; the store follows the last who registered."""
    store, mood = MemoryStore(), Moody()
    first = define(new_app(store), mood)
    second = define(new_app(store), mood, retry=POLICY, dead_letter="buried")
    assert first.triggers[0].trigger_cid == second.triggers[0].trigger_cid

    async def look(engine):
        (record,) = store.registry()[1]
        return store.registry()[0], record.options

    assert live(first, look) == (1, None)
    number, options = live(second, look)
    assert number == 2
    assert options is not None
    assert live(second, look) == (2, options)


@pytest.mark.parametrize(
    "retry",
    [3, tf.RetryPolicy(retry_on=ValueError), tf.RetryPolicy(total_timeout=9)],
)
def test_policies_that_a_trigger_cannot_have(new_app, retry):
    """Classes and total times are refused by name."""
    with pytest.raises(tf.DefinitionError, match="trigger 't'"):
        define(new_app(), Moody(), retry=retry)


def test_one_name_with_two_policies(new_app):
    """Registering the same trigger with another policy is an error, not a silent choice."""
    app = define(new_app(), Moody())
    guard = app.triggers[0].guard
    with pytest.raises(tf.DuplicateTrigger):
        app.trigger("t", on="Follow", start="numbered", guard=guard, retry=POLICY)


def test_a_crash_anywhere_between_retries(new_app, make_store):
    """Attempts, history and dead letter are the same wherever the process dies."""
    mood = Moody()
    policy = tf.RetryPolicy(3, initial=10, jitter=0)

    async def scenario(engine):
        await engine.append(act(0))
        while (await engine.firings(activity=tf.cid_of(act(0))))[0].due is not None:
            await trio.sleep(5)
        await engine.run_until_idle()
        (firing,) = await engine.firings(activity=tf.cid_of(act(0)))
        letters = [each["error"] for each in await results(engine)]
        return firing.outcome, firing.attempts, len(firing.before), letters

    report = crash_everywhere(
        lambda store: define(new_app(store), mood, retry=policy, dead_letter="buried"),
        scenario,
        make_store,
    )
    assert report.end == ("failed", 3, 2, ["guard moody@1 raised ValueError: no 0"])


def test_retries_that_others_must_do_hide_none(new_app, live):
    """A hundred due ones whose guard isn't here, and behind them one whose guard is."""
    store, mood, mine = MemoryStore(), Moody(), Moody(1)
    policy = tf.RetryPolicy(9, initial=10, jitter=0)

    async def fail(engine):
        await engine.append_many([act(n) for n in range(120)])

    live(define(new_app(store), mood, retry=policy), fail, work=False)
    app = new_app(store)

    @app.flow
    def numbered(activity):
        yield tf.now()
        return activity["n"]

    guard = tf.Guard("mine", 1, mine.guard)
    app.trigger("mine", on="Like", start=numbered, guard=guard, retry=policy)

    async def scenario(engine):
        await engine.append(act(7, "Like"))
        await trio.sleep(100)
        return await results(engine)

    assert live(app, scenario) == [7]
