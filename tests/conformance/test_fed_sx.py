"""fed-sx, the first system to cover: every row of its table, and every line derived from it.

The rows are those of table 1D in SEMANTICS.md, the lines those at the end of its section 3.
All tests run on memory and on SQLite. The two tables below say which test stands for what;
`test_every_line_has_its_test` keeps that list honest. Where DESIGN.md decides otherwise than
fed-sx does, the test's docstring says why that is better.

=================================================  =========================================
line of section 3                                  test
=================================================  =========================================
duplicate (activity, trigger) fires once           duplicate_append_fires_once,
                                                   duplicates_in_one_batch_fire_once,
                                                   concurrent_duplicates_fire_once,
                                                   duplicate_from_a_later_process_fires_once
rejected activity fires none                       activity_with_a_bad_actor_fires_none,
                                                   vetoed_activity_fires_none
guard/scope false drops                            guard_that_says_no_drops,
                                                   actor_out_of_scope_drops
unknown flow ... error, others still fire          unknown_flow_is_visible_and_others_fire
crashing first step ... error, others still fire   crashing_first_step_harms_nobody_else,
                                                   flow_that_raises_at_once_harms_nobody_else
failed resume leaves log unchanged                 failed_resume_keeps_the_entry (DESIGN.md)
done -> already_done                               signal_to_an_ended_instance_is_refused
immediate-done flow recorded                       immediately_done_flow_is_recorded
re-drive from stored log reproduces suspend tag    redrive_reproduces_the_suspend_tag
=================================================  =========================================

=================  =========================================================================
row of table 1D    test
=================  =========================================================================
Hook point         activity_with_a_bad_actor_fires_none, vetoed_activity_fires_none,
                   appended_hook_comes_after_the_commit
Match              registry_goes_by_type, guard_that_says_no_drops, actor_out_of_scope_drops,
                   guard_that_raises_is_an_error_on_its_own_firing
Dedup              duplicate_append_fires_once and its sisters,
                   append_that_fails_half_way_leaves_nothing,
                   errored_pair_counts_as_fired
Dispatch           unknown_flow_is_visible_and_others_fire, flow_sees_the_activity,
                   crashing_first_step_harms_nobody_else
Registry           new_spec_supersedes_the_old_one, newer_trigger_leaves_old_activities_alone,
                   equal_or_renamed_triggers_are_refused,
                   two_flows_of_one_name_and_version_are_refused, versions_stand_side_by_side
Driver             driver_is_pure, driver_refuses_entries_in_another_order
start              immediately_done_flow_is_recorded, start_of_an_unknown_flow_stores_nothing,
                   start_of_a_crashing_flow_is_a_failed_instance
resume             resume_redrives_from_the_top, failed_resume_keeps_the_entry,
                   no_such_instance, signal_to_an_ended_instance_is_refused,
                   resume_of_a_flow_that_is_gone_waits_for_it,
                   duplicate_resume_never_answers_the_next_wait,
                   reused_resume_key_with_another_value_is_refused
Persistence        everything_outlives_the_process
=================  =========================================================================
"""

from __future__ import annotations

import importlib
import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import triggerflow as tf
from triggerflow.store.sqlite import MemoryStore, SqliteStore

ANN = "https://a.example/ann"
FOLLOW = {"type": "Follow", "actor": ANN, "object": "https://b.example/bob"}
LIMIT = 20.0


class World:
    """One store, and apps that come and go on it as processes would."""

    def __init__(self, kind: str, folder: Path, postgres: Any = None) -> None:
        self.kind = kind
        self.path = folder / "world.db"
        self._memory = MemoryStore()
        self._postgres = postgres
        self._url = None if postgres is None else postgres()

    def store(self) -> Any:
        """The store, as a process that starts now sees it."""
        if self._postgres is not None:
            return self._postgres.store(self._url)
        return self._memory if self.kind == "memory" else SqliteStore(self.path)

    def app(self, *flows: Callable[..., Any], plugins: tuple[Any, ...] = ()) -> tf.App:
        """A fresh app on this store."""
        app = tf.App(store=self.store(), entry_points=False, plugins=plugins)
        for flow in flows:
            app.register(tf.flow(flow))
        return app

    def counts(self) -> tuple[int, int, int]:
        """How many activities, firings and instances are stored."""
        store = self.store()
        store.open()
        try:
            counts = store.counts()
        finally:
            store.close()
        return counts.activities, counts.firings, sum(counts.instances.values())

    def firings(self, cid: str) -> list[tuple[str, str | None, str]]:
        """The stored firings of an activity, as (trigger, instance, outcome)."""
        store = self.store()
        store.open()
        try:
            return [(f.trigger, f.instance, f.outcome) for f in store.firings(cid)]
        finally:
            store.close()


@pytest.fixture(params=["memory", "sqlite", pytest.param("postgres", marks=pytest.mark.slow)])
def world(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[World]:
    postgres = request.param == "postgres"
    found = request.getfixturevalue("postgres") if postgres else None
    yield World(request.param, tmp_path, found)


def settle(client: tf.Client, *, statuses: tuple[str, ...] = ()) -> list[tf.Instance]:
    """Drive everything that can be driven; all instances, oldest first."""
    client.run_until_idle()
    found = list(client.instances())
    if statuses:
        assert tuple(sorted(each.status for each in found)) == tuple(sorted(statuses))
    return found


def step(value: Any) -> Any:
    return value


def broken_step() -> None:
    raise RuntimeError("the step is broken")


def works(activity: Any) -> Any:
    value = yield tf.call(step, activity["actor"])
    return value


def at_once(activity: Any) -> Any:
    yield from ()
    return {"saw": activity["type"]}


def waits(activity: Any) -> Any:
    answer = yield tf.wait_signal("go")
    return answer


def waits_twice(activity: Any) -> Any:
    first = yield tf.wait_signal("go")
    second = yield tf.wait_signal("go")
    return [first, second]


# --- duplicates fire once -----------------------------------------------------------------


def test_duplicate_append_fires_once(world: World) -> None:
    """A second append starts nothing and returns the first firings."""
    app = world.app(works)
    app.trigger("welcome", on="Follow", start="works")
    with app.client() as client:
        first = client.append(FOLLOW)
        again = client.append(dict(reversed(FOLLOW.items())))
        assert not first.duplicate
        assert again.duplicate
        assert (again.cid, again.seq, again.firings) == (first.cid, first.seq, first.firings)
        settle(client, statuses=("done",))
        assert client.append(FOLLOW).firings == first.firings
    assert world.counts() == (1, 1, 1)


def test_duplicates_in_one_batch_fire_once(world: World) -> None:
    """The same document thrice in one append_many is one activity with one firing."""
    app = world.app(works)
    app.trigger("welcome", on="Follow", start="works")
    with app.client() as client:
        found = client.append_many([FOLLOW, FOLLOW, FOLLOW])
        assert [each.duplicate for each in found] == [False, True, True]
        assert len({each.firings for each in found}) == 1
        settle(client, statuses=("done",))
    assert world.counts() == (1, 1, 1)


def test_concurrent_duplicates_fire_once(world: World) -> None:
    """Twelve threads that append one document at once start one instance."""
    app = world.app(works)
    app.trigger("welcome", on="Follow", start="works")
    gate = threading.Barrier(12)
    found: list[tf.Appended] = []
    with app.client() as client:

        def append() -> None:
            gate.wait(LIMIT)
            found.append(client.append(FOLLOW))

        threads = [threading.Thread(target=append) for _ in range(12)]
        for each in threads:
            each.start()
        for each in threads:
            each.join(LIMIT)
        assert sorted(each.duplicate for each in found) == [False, *[True] * 11]
        assert len({each.firings for each in found}) == 1
        settle(client, statuses=("done",))
    assert world.counts() == (1, 1, 1)


_LATER = """
import json, sys
import triggerflow as tf

def step(value):
    return value

def works(activity):
    value = yield tf.call(step, activity["actor"])
    return value

app = tf.App(f"sqlite:///{sys.argv[1]}", entry_points=False)
app.register(tf.flow(works))
app.trigger("welcome", on="Follow", start="works")
with app.client() as client:
    found = client.append(json.loads(sys.argv[2]))
    client.run_until_idle()
    print(json.dumps([found.cid, found.duplicate, [f.instance_id for f in found.firings]]))
"""


def test_duplicate_from_a_later_process_fires_once(world: World) -> None:
    """Dedup is in the store: a later process (memory: a later app) starts nothing again."""
    app = world.app(works)
    app.trigger("welcome", on="Follow", start="works")
    with app.client() as client:
        first = client.append(FOLLOW)
        settle(client, statuses=("done",))
    if world.kind == "sqlite":
        home = str(Path(tf.__file__).parents[1])
        done = subprocess.run(
            [sys.executable, "-c", _LATER, str(world.path), json.dumps(FOLLOW)],
            env={**os.environ, "PYTHONPATH": home},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        cid, duplicate, instances = json.loads(done.stdout)
    else:
        later = world.app(works)
        later.trigger("welcome", on="Follow", start="works")
        with later.client() as client:
            again = client.append(FOLLOW)
            cid, duplicate = again.cid, again.duplicate
            instances = [each.instance_id for each in again.firings or ()]
    assert duplicate
    assert cid == first.cid
    assert instances == [each.instance_id for each in first.firings or ()]
    assert world.counts() == (1, 1, 1)


def test_append_that_fails_half_way_leaves_nothing(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Activity, firing and instance are one commit: fed-sx could die between two of them."""
    backend = "postgres" if world.kind == "postgres" else "sqlite"
    arrivals = importlib.import_module(f"triggerflow.store.{backend}.arrivals")

    app = world.app(works)
    app.trigger("welcome", on="Follow", start="works")
    whole = arrivals.append

    def fails_after_writing(*args: Any) -> None:
        whole(*args)
        raise OSError("the disk is full")

    with app.client() as client:
        with monkeypatch.context() as patch:
            patch.setattr(arrivals, "append", fails_after_writing)
            with pytest.raises(OSError, match="disk is full"):
                client.append(FOLLOW)
        assert list(client.instances()) == []
        again = client.append(FOLLOW)
        assert not again.duplicate
        settle(client, statuses=("done",))
    assert world.counts() == (1, 1, 1)


# --- rejected activities --------------------------------------------------------------------


@pytest.mark.parametrize(
    "document",
    [
        {"type": "Follow"},
        {"type": "Follow", "actor": 7},
        {"type": "Follow", "actor": []},
        {"type": "Follow", "actor": {"name": "Ann"}},
        {"actor": ANN},
        {"type": [], "actor": ANN},
    ],
    ids=["no actor", "number", "empty list", "no id", "no type", "no types"],
)
def test_activity_with_a_bad_actor_fires_none(world: World, document: Any) -> None:
    """What can't be read as an activity is refused by name; no guard, no row, no flow."""
    asked: list[Any] = []

    def notes(activity: Any) -> bool:
        asked.append(activity)
        return True

    app = world.app(works)
    app.trigger("all", on="*", start="works", guard=notes)
    with app.client() as client:
        with pytest.raises(tf.ActivityRejected):
            client.append(document)
        (found,) = client.append_many([document])
        assert isinstance(found, tf.Rejected)
        settle(client, statuses=())
        assert list(client.instances()) == []
    assert asked == []
    assert world.counts() == (0, 0, 0)


class Vetoes:
    """A plugin that refuses one actor and notes what was appended."""

    def __init__(self) -> None:
        self.appended: list[str] = []

    @tf.hookimpl
    def triggerflow_validate(self, activity: tf.Activity) -> None:
        if "https://spam.example/x" in activity.actors:
            raise ValueError("spam")

    @tf.hookimpl
    def triggerflow_appended(self, activity: tf.Activity, firings: Any) -> None:
        self.appended.append(activity.cid)


def test_vetoed_activity_fires_none(world: World) -> None:
    """A plugin's veto comes before the append: nothing is stored, nothing told or started."""
    plugin = Vetoes()
    app = world.app(works, plugins=(plugin,))
    app.trigger("all", on="*", start="works")
    spam = {**FOLLOW, "actor": "https://spam.example/x"}
    with app.client() as client:
        with pytest.raises(tf.ActivityRejected, match="vetoed: spam"):
            client.append(spam)
        refused, kept = client.append_many([spam, FOLLOW])
        assert isinstance(refused, tf.Rejected)
        assert isinstance(kept, tf.Appended)
        settle(client, statuses=("done",))
    assert plugin.appended == [kept.cid]
    assert world.counts() == (1, 1, 1)


class Raises:
    """A plugin whose hook after the commit is broken."""

    @tf.hookimpl
    def triggerflow_appended(self, activity: tf.Activity, firings: Any) -> None:
        raise RuntimeError("the listener is broken")


def test_appended_hook_comes_after_the_commit(world: World) -> None:
    """What listens to appends can undo nothing: its error is not the appender's."""
    app = world.app(works, plugins=(Raises(),))
    app.trigger("all", on="*", start="works")
    with app.client() as client:
        assert not client.append(FOLLOW).duplicate
        assert client.append(FOLLOW).duplicate
        settle(client, statuses=("done",))
    assert world.counts() == (1, 1, 1)


# --- matching -------------------------------------------------------------------------------


def test_registry_goes_by_type(world: World) -> None:
    """A trigger hears its own types, `*` all of them, in order of registration."""
    app = world.app(works)
    app.trigger("likes", on="Like", start="works")
    app.trigger("both", on=["Follow", "Like"], start="works")
    app.trigger("all", on="*", start="works")
    with app.client() as client:
        follow = client.append(FOLLOW)
        like = client.append({**FOLLOW, "type": "Like"})
        other = client.append({**FOLLOW, "type": ["Undo", "https://x.example/#Odd"]})
        assert [each.trigger for each in follow.firings or ()] == ["both", "all"]
        assert [each.trigger for each in like.firings or ()] == ["likes", "both", "all"]
        assert [each.trigger for each in other.firings or ()] == ["all"]
        settle(client, statuses=("done",) * 6)
    assert world.counts() == (3, 6, 6)


def test_guard_that_says_no_drops(world: World) -> None:
    """A guard's no leaves no firing; its neighbours fire, and it is not asked again."""
    asked: list[str] = []

    def never(activity: Any) -> bool:
        asked.append(activity["actor"])
        activity["actor"] = "changed by the guard"
        return False

    app = world.app(works)
    app.trigger("guarded", on="Follow", start="works", guard=never)
    app.trigger("free", on="Follow", start="works")
    with app.client() as client:
        found = client.append(FOLLOW)
        assert [each.trigger for each in found.firings or ()] == ["free"]
        assert client.append(FOLLOW).firings == found.firings
        (instance,) = settle(client, statuses=("done",))
        assert instance.result == ANN
    # A duplicate may be judged before the store knows it for one; it fires nothing either way.
    assert set(asked) == {ANN}
    assert world.counts() == (1, 1, 1)


def test_actor_out_of_scope_drops(world: World) -> None:
    """All actors must be in scope, or the trigger leaves no trace."""
    app = world.app(works)
    app.trigger("ours", on="Follow", start="works", actors=["https://*.example/*"])
    with app.client() as client:
        inside = client.append({**FOLLOW, "actor": "https://a.example/ann"})
        outside = client.append({**FOLLOW, "actor": "https://a.elsewhere/ann"})
        mixed = client.append({**FOLLOW, "actor": [ANN, "https://a.elsewhere/ann"]})
        assert [each.trigger for each in inside.firings or ()] == ["ours"]
        assert outside.firings == mixed.firings == ()
        settle(client, statuses=("done",))
    assert world.counts() == (3, 1, 1)


def test_guard_that_raises_is_an_error_on_its_own_firing(world: World) -> None:
    """A broken guard is visible on its firing, starts nothing, and harms no neighbour."""

    def broken(activity: Any) -> bool:
        raise LookupError("no such list")

    app = world.app(works)
    app.trigger("guarded", on="Follow", start="works", guard=broken)
    app.trigger("free", on="Follow", start="works")
    with app.client() as client:
        bad, good = client.append(FOLLOW).firings or ()
        assert (bad.trigger, bad.instance_id, bad.outcome) == ("guarded", None, "guard_error")
        assert bad.error is not None
        assert "LookupError: no such list" in bad.error
        assert good.error is None
        settle(client, statuses=("done",))
    assert world.counts() == (1, 2, 1)


def test_errored_pair_counts_as_fired(world: World) -> None:
    """fed-sx leaves it open; here a pair with an error is taken, and a duplicate shows it."""
    answers = [LookupError("no such list")]

    def broken_once(activity: Any) -> bool:
        if answers:
            raise answers.pop()
        return True

    app = world.app(works)
    app.trigger("guarded", on="Follow", start="works", guard=broken_once)
    with app.client() as client:
        first = client.append(FOLLOW)
        again = client.append(FOLLOW)
        assert again.duplicate
        assert again.firings == first.firings
        assert [each.outcome for each in first.firings or ()] == ["guard_error"]
        settle(client)
    assert world.counts() == (1, 1, 0)


# --- dispatch -------------------------------------------------------------------------------


def test_flow_sees_the_activity(world: World) -> None:
    """The instance's input is the activity's document, and it knows what started it."""
    app = world.app(works)
    made = app.trigger("welcome", on="Follow", start="works")
    with app.client() as client:
        found = client.append(FOLLOW)
        (instance,) = settle(client, statuses=("done",))
        assert instance.input == FOLLOW
        assert instance.result == ANN
        assert (instance.activity, instance.trigger) == (found.cid, "welcome")
        assert instance.trigger_cid == made.trigger_cid


def test_unknown_flow_is_visible_and_others_fire(world: World) -> None:
    """An unknown flow is a blocked instance that starts once a worker knows the flow."""
    app = world.app(works)
    app.trigger("lost", on="Follow", start="not_written_yet")
    app.trigger("free", on="Follow", start="works")
    with app.client() as client:
        lost, free = client.append(FOLLOW).firings or ()
        settle(client, statuses=("blocked", "done"))
        blocked = client.get(lost.instance_id or "")
        assert (blocked.status, blocked.cause) == ("blocked", "unknown_flow")
        assert "not_written_yet" in (blocked.reason or "")
        assert client.get(free.instance_id or "").status == "done"

    def not_written_yet(activity: Any) -> Any:
        yield from ()
        return "at last"

    later = world.app(works, not_written_yet)
    with later.client() as client:
        found = client.wait(blocked.id, timeout=LIMIT)
        assert (found.status, found.result) == ("done", "at last")
    assert world.counts() == (1, 2, 2)


def test_crashing_first_step_harms_nobody_else(world: World) -> None:
    """A first step that raises is a failed instance; the append returns, others fire."""

    def crashes(activity: Any) -> Any:
        yield tf.call(broken_step)

    app = world.app(crashes, works)
    app.trigger("bad", on="Follow", start="crashes")
    app.trigger("good", on="Follow", start="works")
    with app.client() as client:
        bad, good = client.append(FOLLOW).firings or ()
        settle(client, statuses=("done", "failed"))
        failed = client.get(bad.instance_id or "")
        assert failed.status == "failed"
        assert failed.failure is not None
        assert "the step is broken" in failed.failure.message
        assert client.get(good.instance_id or "").status == "done"
    assert world.counts() == (1, 2, 2)


def test_flow_that_raises_at_once_harms_nobody_else(world: World) -> None:
    """A flow that raises before its first yield is a failed instance, raised to nobody."""

    def explodes(activity: Any) -> Any:
        raise KeyError("object")
        yield

    app = world.app(explodes, works)
    app.trigger("bad", on="Follow", start="explodes")
    app.trigger("good", on="Follow", start="works")
    with app.client() as client:
        bad, good = client.append(FOLLOW).firings or ()
        settle(client, statuses=("done", "failed"))
        failed = client.get(bad.instance_id or "")
        assert failed.failure is not None
        assert failed.failure.type == "KeyError"
        assert client.log(failed.id) == []
        assert client.get(good.instance_id or "").status == "done"
    assert world.counts() == (1, 2, 2)


# --- the registries -------------------------------------------------------------------------


def test_new_spec_supersedes_the_old_one(world: World) -> None:
    """A changed trigger replaces the one of its name in the store: two never fire for one."""
    old = world.app(works, at_once)
    old.trigger("welcome", on="Follow", start="works")
    with old.client() as client:
        client.append(FOLLOW)
        settle(client, statuses=("done",))
    new = world.app(works, at_once)
    new.trigger("welcome", on="Follow", start="at_once")
    with new.client() as client:
        (firing,) = client.append({**FOLLOW, "id": "second"}).firings or ()
        settle(client, statuses=("done", "done"))
        assert client.get(firing.instance_id or "").flow == "at_once"
    with old.client() as client:
        (firing,) = client.append({**FOLLOW, "id": "third"}).firings or ()
        client.run_until_idle()
        assert client.get(firing.instance_id or "").flow == "works"
    assert world.counts() == (3, 3, 3)


def test_newer_trigger_leaves_old_activities_alone(world: World) -> None:
    """A trigger that is newer than an activity does not fire for its duplicates."""
    first = world.app(works)
    first.trigger("welcome", on="Follow", start="works")
    with first.client() as client:
        before = client.append(FOLLOW)
        settle(client, statuses=("done",))
    second = world.app(works)
    second.trigger("welcome", on="Follow", start="works", version=2)
    second.trigger("audit", on="*", start="works")
    with second.client() as client:
        again = client.append(FOLLOW)
        assert again.duplicate
        assert again.firings == before.firings
        settle(client, statuses=("done",))
    assert world.counts() == (1, 1, 1)


def test_equal_or_renamed_triggers_are_refused(world: World) -> None:
    """One app has one trigger a name, and no two that mean the same."""
    app = world.app(works)
    app.trigger("welcome", on="Follow", start="works")
    app.trigger("welcome", on="Follow", start="works")
    with pytest.raises(tf.DuplicateTrigger, match="welcome"):
        app.trigger("welcome", on="Like", start="works")
    with pytest.raises(tf.DuplicateTrigger, match="'welcome' and 'again'"):
        app.trigger("again", on="Follow", start="works")
    with app.client() as client:
        assert len(client.append(FOLLOW).firings or ()) == 1


def test_two_flows_of_one_name_and_version_are_refused(world: World) -> None:
    """fed-sx replaces silently and so changes flows under way; here that is an error."""

    def works(activity: Any) -> Any:
        yield from ()
        return "another"

    app = world.app(globals()["works"])
    with pytest.raises(tf.DefinitionError, match="defined twice"):
        app.register(tf.flow(works))
    with app.client() as client:
        client.start("works", FOLLOW)
        (found,) = settle(client, statuses=("done",))
        assert found.result == ANN


def test_versions_stand_side_by_side(world: World) -> None:
    """A new version takes new instances; a running one goes on with its own."""
    app = world.app(waits)
    with app.client() as client:
        old = client.start("waits", FOLLOW)
        settle(client, statuses=("waiting",))

    def waits_better(activity: Any) -> Any:
        answer = yield tf.wait_signal("better")
        return {"better": answer}

    later = world.app(waits)
    later.register(tf.flow(name="waits", version=2)(waits_better))
    with later.client() as client:
        new = client.start("waits", FOLLOW)
        client.signal(old, "go", 1)
        client.signal(new, "better", 2)
        done = client.wait(old, timeout=LIMIT), client.wait(new, timeout=LIMIT)
    assert [(each.version, each.result) for each in done] == [(1, 1), (2, {"better": 2})]


# --- the driver -----------------------------------------------------------------------------


def test_driver_is_pure() -> None:
    """drive(flow, input, log) answers alike every time, and runs no step."""
    ran: list[str] = []

    def charge(who: str) -> None:
        ran.append(who)

    def order(activity: Any) -> Any:
        paid = yield tf.call(charge, activity["actor"])
        answer = yield tf.wait_signal("go")
        return [paid, answer]

    for _ in range(2):
        assert tf.drive(order, FOLLOW, []) == tf.Suspended(("call:charge#0",))
        log = [("call:charge#0", "paid")]
        assert tf.drive(order, FOLLOW, log) == tf.Suspended(("wait_signal:go#0",))
        log.append(("wait_signal:go#0", "yes"))
        assert tf.drive(order, FOLLOW, log) == tf.Done(["paid", "yes"])
    assert ran == []


def test_driver_refuses_entries_in_another_order() -> None:
    """Entry k must be what the code waits for at k: two swapped entries are a divergence."""

    def order(activity: Any) -> Any:
        yield tf.wait_signal("one")
        yield tf.wait_signal("two")

    swapped = [("wait_signal:two#0", 2), ("wait_signal:one#0", 1)]
    with pytest.raises(tf.Diverged) as caught:
        tf.drive(order, None, swapped)
    assert (caught.value.position, caught.value.recorded) == (0, "wait_signal:two#0")
    left_over = [("wait_signal:one#0", 1), ("wait_signal:two#0", 2), ("wait_signal:x#0", 3)]
    with pytest.raises(tf.Diverged) as caught:
        tf.drive(order, None, left_over)
    assert (caught.value.position, caught.value.reason) == (2, "left_over")


def test_redrive_reproduces_the_suspend_tag(world: World) -> None:
    """Whoever has the code and the stored log gets to the very tag that the engine waits at."""

    def order(activity: Any) -> Any:
        yield tf.call(step, activity["actor"])
        first = yield tf.wait_signal("go")
        second = yield tf.wait_signal("go")
        return [first, second]

    app = world.app(order)
    with app.client() as client:
        ident = client.start("order", FOLLOW)
        client.signal(ident, "go", {"n": 1})
        settle(client, statuses=("waiting",))
        parked, log = client.get(ident), client.log(ident)
    assert parked.waiting == ("wait_signal:go#1",)
    assert tf.drive(order, parked.input, log) == tf.Suspended(parked.waiting)
    replay = tf.Replay(order, parked.input, log=log)
    assert tuple(replay.pending) == parked.waiting
    replay.resolve(tf.Entry("wait_signal:go#1", 2))
    assert replay.outcome == tf.Done([{"n": 1}, 2])
    again = world.app(order)
    with again.client() as client:
        client.run_until_idle()
        assert client.get(ident).waiting == parked.waiting
        client.signal(ident, "go", 2)
        assert client.wait(ident, timeout=LIMIT).result == [{"n": 1}, 2]


# --- start ----------------------------------------------------------------------------------


def test_immediately_done_flow_is_recorded(world: World) -> None:
    """A flow that never waits is an instance like any other: done, with result and times."""
    app = world.app(at_once)
    app.trigger("now", on="Follow", start="at_once")
    with app.client() as client:
        by_hand = client.start("at_once", FOLLOW)
        (firing,) = client.append(FOLLOW).firings or ()
        for ident in (by_hand, firing.instance_id or ""):
            found = client.wait(ident, timeout=LIMIT)
            assert (found.status, found.result) == ("done", {"saw": "Follow"})
            assert (found.log_length, found.waiting) == (0, ())
            assert found.started is not None
            assert found.ended is not None
            assert tf.drive(at_once, found.input, client.log(ident)) == tf.Done(found.result)
    assert world.counts() == (1, 1, 2)


def test_start_of_an_unknown_flow_stores_nothing(world: World) -> None:
    """no_such_flow: a caller hears of it at once, with the nearest names, and no id is made."""
    app = world.app(works)
    with app.client() as client, pytest.raises(tf.UnknownFlow, match="'works'"):
        client.start("worsk", FOLLOW)
    assert world.counts() == (0, 0, 0)


def test_start_of_a_crashing_flow_is_a_failed_instance(world: World) -> None:
    """fed-sx stores nothing of it; here the instance stays visible, and can be retried."""

    def explodes(activity: Any) -> Any:
        raise KeyError("object")
        yield

    app = world.app(explodes)
    with app.client() as client:
        ident = client.start("explodes", FOLLOW)
        failed = client.wait(ident, timeout=LIMIT)
        assert failed.status == "failed"
        assert failed.failure is not None
        assert failed.failure.type == "KeyError"

    def mended(activity: Any) -> Any:
        yield from ()
        return activity["object"]

    later = world.app()
    later.register(tf.flow(name="explodes")(mended))
    with later.client() as client:
        client.retry(ident)
        found = client.wait(ident, timeout=LIMIT)
        assert (found.status, found.result) == ("done", FOLLOW["object"])


# --- resume ---------------------------------------------------------------------------------


def test_resume_redrives_from_the_top(world: World) -> None:
    """A resume after a restart re-drives the flow, and runs no step a second time."""
    ran: list[str] = []

    def charge(who: str) -> str:
        ran.append(who)
        return "paid"

    def order(activity: Any) -> Any:
        paid = yield tf.call(charge, activity["actor"])
        answer = yield tf.wait_signal("go")
        return [paid, answer]

    with world.app(order).client() as client:
        ident = client.start("order", FOLLOW)
        settle(client, statuses=("waiting",))
        assert client.get(ident).waiting == ("wait_signal:go#0",)
    with world.app(order).client() as client:
        assert client.signal(ident, "go", {"ok": True})
        found = client.wait(ident, timeout=LIMIT)
        assert (found.status, found.result) == ("done", ["paid", {"ok": True}])
        assert [each.tag for each in client.log(ident)] == ["call:charge#0", "wait_signal:go#0"]
    assert ran == [ANN]


def test_failed_resume_keeps_the_entry(world: World) -> None:
    """A flow that raises on resume keeps the signal it was given, and is retried once mended.

    fed-sx leaves the log unchanged, so that another value may be tried. DESIGN.md keeps the
    entry, which is better: the sender was told that the signal is stored, so dropping it
    would lose an acknowledged message, and whoever reads the log would never learn which
    value the flow fell over. What is wrong is the code: once it is mended, `retry` goes on
    from that very entry, and nobody has to send anything again.
    """

    def shouts(activity: Any) -> Any:
        answer = yield tf.wait_signal("go")
        return answer["name"].upper()

    with world.app(shouts).client() as client:
        ident = client.start("shouts", FOLLOW)
        settle(client, statuses=("waiting",))
        client.signal(ident, "go", {"nome": "Ann"}, dedup="only")
        failed = client.wait(ident, timeout=LIMIT)
        assert failed.status == "failed"
        assert failed.failure is not None
        assert failed.failure.type == "KeyError"
        log = client.log(ident)
        assert [(each.tag, each.value) for each in log] == [
            ("wait_signal:go#0", {"nome": "Ann"})
        ]
        client.retry(ident)
        assert client.wait(ident, timeout=LIMIT).status == "failed"

    def mended(activity: Any) -> Any:
        answer = yield tf.wait_signal("go")
        return answer.get("name", answer.get("nome")).upper()

    later = world.app()
    later.register(tf.flow(name="shouts")(mended))
    with later.client() as client:
        client.retry(ident)
        found = client.wait(ident, timeout=LIMIT)
        assert (found.status, found.result) == ("done", "ANN")
        kept = client.log(ident)
        assert kept[0] == log[0]
        assert {each.tag for each in kept[1:]} == {"retried"}


def test_no_such_instance(world: World) -> None:
    """A resume of nobody is an error by name, and stores nothing."""
    app = world.app(waits)
    with app.client() as client:
        nobody = "a" * 20
        for verb in (
            lambda: client.signal(nobody, "go", 1),
            lambda: client.get(nobody),
            lambda: client.cancel(nobody),
            lambda: client.retry(nobody),
            lambda: client.wait(nobody, timeout=LIMIT),
        ):
            with pytest.raises(tf.UnknownInstance, match=nobody):
                verb()
    assert world.counts() == (0, 0, 0)


def test_signal_to_an_ended_instance_is_refused(world: World) -> None:
    """already_done: InstanceEnded, nothing stored, and result and log stay as they were."""
    app = world.app(waits)
    with app.client() as client:
        ident = client.start("waits", FOLLOW)
        client.signal(ident, "go", 1)
        done, log = client.wait(ident, timeout=LIMIT), client.log(ident)
        with pytest.raises(tf.InstanceEnded, match="done"):
            client.signal(ident, "go", 2)
        with pytest.raises(tf.InstanceEnded):
            client.cancel(ident)
        client.run_until_idle()
        assert (client.get(ident), client.log(ident)) == (done, log)
    store = world.store()
    store.open()
    try:
        assert store.counts().inbox == 0
    finally:
        store.close()


def test_resume_of_a_flow_that_is_gone_waits_for_it(world: World) -> None:
    """no_such_flow on resume: the signal is kept, the instance blocked, until the flow is back.

    fed-sx answers with an error and the value is lost to the flow.
    """
    with world.app(waits).client() as client:
        ident = client.start("waits", FOLLOW)
        settle(client, statuses=("waiting",))
    with world.app(works).client() as client:
        assert client.signal(ident, "go", "kept")
        client.run_until_idle()
        found = client.get(ident)
        assert (found.status, found.cause) == ("blocked", "unknown_flow")
        assert "waits" in (found.reason or "")
    with world.app(waits, works).client() as client:
        found = client.wait(ident, timeout=LIMIT)
        assert (found.status, found.result) == ("done", "kept")


def test_duplicate_resume_never_answers_the_next_wait(world: World) -> None:
    """A repeated signal is dropped, before it is consumed and after: fed-sx answers the next.

    Its `resume` has neither tag nor version, so a network's repeat of the first answer was
    taken for the second. A dedup key names the message; without one, two are two.
    """
    app = world.app(waits_twice)
    with app.client() as client:
        ident = client.start("waits_twice", FOLLOW)
        assert client.signal(ident, "go", "first", dedup="a") is True
        assert client.signal(ident, "go", "first", dedup="a") is False
        settle(client, statuses=("waiting",))
        assert client.signal(ident, "go", "first", dedup="a") is False
        (parked,) = settle(client, statuses=("waiting",))
        assert parked.waiting == ("wait_signal:go#1",)
    later = world.app(waits_twice)
    with later.client() as client:
        assert client.signal(ident, "go", "first", dedup="a") is False
        client.run_until_idle()
        assert client.get(ident).waiting == ("wait_signal:go#1",)
        assert client.signal(ident, "go", "first", dedup="b") is True
        assert client.wait(ident, timeout=LIMIT).result == ["first", "first"]
        keyless = client.start("waits_twice", FOLLOW)
        client.signal(keyless, "go", 1)
        client.signal(keyless, "go", 1)
        assert client.wait(keyless, timeout=LIMIT).result == [1, 1]


def test_reused_resume_key_with_another_value_is_refused(world: World) -> None:
    """One dedup key with two payloads is somebody's mistake: told, and nothing stored."""
    app = world.app(waits_twice)
    with app.client() as client:
        ident = client.start("waits_twice", FOLLOW)
        client.signal(ident, "go", "first", dedup="a")
        settle(client, statuses=("waiting",))
        with pytest.raises(tf.SignalConflict, match="'a'"):
            client.signal(ident, "go", "second", dedup="a")
        (parked,) = settle(client, statuses=("waiting",))
        assert parked.waiting == ("wait_signal:go#1",)


# --- persistence ----------------------------------------------------------------------------


def test_everything_outlives_the_process(world: World) -> None:
    """Activities, firings, parked and ended instances are all there after a restart."""
    app = world.app(waits, at_once)
    app.trigger("wait", on="Follow", start="waits")
    app.trigger("now", on="Follow", start="at_once")
    with app.client() as client:
        first = client.append(FOLLOW)
        before = settle(client, statuses=("waiting", "done"))
        logs = [client.log(each.id) for each in before]
    again = world.app(waits, at_once)
    again.trigger("wait", on="Follow", start="waits")
    again.trigger("now", on="Follow", start="at_once")
    with again.client() as client:
        assert settle(client) == before
        assert [client.log(each.id) for each in before] == logs
        assert client.append(FOLLOW).firings == first.firings
    stored = world.firings(first.cid)
    assert [(trigger, instance) for trigger, instance, _ in stored] == [
        (each.trigger, each.instance_id) for each in first.firings or ()
    ]
    assert world.counts() == (1, 2, 2)


def test_every_line_has_its_test() -> None:
    """The tables at the head of this file name tests that exist, and leave out none."""
    text = __doc__ or ""
    tests = {name.removeprefix("test_") for name in globals() if name.startswith("test_")}
    named = {name.removeprefix("test_") for name in re.findall(r"\b[a-z]+(?:_[a-z]+)+\b", text)}
    assert tests - named == set()
    assert {name for name in named if name.count("_") > 2} - tests == set()
