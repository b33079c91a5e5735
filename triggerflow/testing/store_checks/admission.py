"""Checks of rates and places: who may begin, who waits, and who gets the next place."""

from __future__ import annotations

from typing import Any

from triggerflow.core.admission_request import Admission, Pace, Place
from triggerflow.store.acts import CancelChild, ContinueAsNew, SpawnChild
from triggerflow.store.operations import Dispatch, Outcome, Start, Terminate
from triggerflow.store.records import Claimed, Hold, NewTrigger
from triggerflow.testing.store_checks.bench import (
    APPLIED,
    CONFLICT,
    NOON,
    Bench,
    Worker,
    check,
    same,
    true,
)
from triggerflow.testing.store_checks.gathering import arrive, bounce, fires, taken

ONE = Admission(places=(Place("p", "k", 1),))


def placed(limit: int = 1, key: str = "k", mode: Any = "wait", **parts: Any) -> Admission:
    return Admission(places=(Place("p", key, limit, mode),), **parts)


def begin(w: Bench, *ids: str, asked: Admission = ONE) -> None:
    for id in ids:
        found = w.ask(Start(w.new(id, admission=asked)))
        same(f"start of {id}", found.verdict, APPLIED)


def claimed(w: Bench, worker: Worker, *ids: str, at: float | None = None) -> list[Claimed]:
    found = taken(w, worker, w.now if at is None else at)
    same("claimed", [each.id for each in found], list(ids))
    return found


def reason(w: Bench, id: str, asked: Admission) -> str | None:
    found = w.ask(w.append(id, [fires(w, id, asked)], w.triggers("a")))
    (fired,) = found.firings or ()
    same("outcome", (fired.outcome, fired.instance), ("limited", None))
    same("no instance", w.store.instance(id), None)
    return fired.error


def ask_to_end(w: Bench, id: str) -> Outcome:
    return w.ask(w.send(id, "", b"", kind="cancel"))


# --- rates


@check
def rate_limit_drops_what_is_more(w: Bench) -> None:
    """So many start in a period; the firing of one that is dropped says so, for ever."""
    asked = Admission(rate_limit=Pace("r", '"x"', 2, 60.0, 2))
    for id in ("i1", "i2"):
        same("within", arrive(w, id, asked), ("started", id))
    said = reason(w, "i3", asked)
    true("it says which", said and "2 in 60 s" in said and '"x"' in said)
    (again,) = w.ask(w.append("i3", [fires(w, "i3", asked)])).firings or ()
    same("a repeat", again.error, said)
    w.now = NOON + 29
    reason(w, "i4", asked)
    w.now = NOON + 30
    same("again", arrive(w, "i5", asked), ("started", "i5"))
    other = Admission(rate_limit=Pace("r", '"y"', 2, 60.0, 2))
    same("another key", arrive(w, "i6", other), ("started", "i6"))


@check
def rate_limit_survives_crashes_and_clocks(w: Bench) -> None:
    """What was used up stays so after a restart, and no longer where the clock is set back."""
    asked = Admission(rate_limit=Pace("r", "", 1, 60.0, 1))
    arrive(w, "i1", asked)
    w.reopen(crash=True)
    w.now = NOON - 1000
    reason(w, "i2", asked)
    w.now = NOON - 941
    reason(w, "i3", asked)
    w.now = NOON - 940
    same("a period later", arrive(w, "i4", asked), ("started", "i4"))


@check
def throttle_gives_turns_in_order(w: Bench) -> None:
    """Who comes when it is not free yet is held until its turn, in order of arrival."""
    worker = w.worker()
    asked = Admission(throttle=Pace("t", "", 2, 10.0, 2))
    for n in range(5):
        same("started", arrive(w, f"i{n}", asked), ("started", f"i{n}"))
    dues = [w.get(f"i{n}").due for n in range(5)]
    same("turns", dues, [None, None, NOON + 5, NOON + 10, NOON + 15])
    same("held", w.get("i2").hold, Hold("throttle", NOON + 5, None))
    claimed(w, worker, "i0", "i1")
    w.reopen(crash=True)
    worker = w.worker()
    w.store.reap()
    found = [each.id for each in taken(w, worker, NOON + 12)]
    same("due by now", found, ["i0", "i1", "i2", "i3"])
    w.now = NOON - 1000
    arrive(w, "late", asked)
    same("after those before it", w.get("late").due, NOON + 20)


# --- places


@check
def place_is_taken_until_the_end(w: Bench) -> None:
    """As many as there are places run; the others wait, and get one when one ends."""
    worker = w.worker()
    begin(w, "i1", "i2", "i3", "i4", asked=placed(2))
    same("waits", w.get("i3").hold, Hold("place", None, "k"))
    one, two = claimed(w, worker, "i1", "i2")
    same("none is free", claimed(w, worker), [])
    done = w.turn(one, status="done", value=b"v")
    (found,) = w.commit(done, worker=worker)
    same("told", found.told, ((w.get("i3").number, None),))
    claimed(w, worker, "i3")
    found = w.ask(Terminate("i2", b"end", NOON))
    same("told", found.told, ((w.get("i4").number, None),))
    claimed(w, worker, "i4")
    begin(w, "other", asked=placed(2, "another key"))
    claimed(w, worker, "other")
    true("it was ended", two.id == "i2" and w.get("i2").status == "cancelled")


@check
def place_goes_to_the_highest_then_the_oldest(w: Bench) -> None:
    """Of those who wait, priority decides, and then age."""
    worker = w.worker()
    begin(w, "first")
    for id, priority in (("low", -1), ("old", 5), ("young", 5), ("plain", 0)):
        begin(w, id, asked=placed(priority=priority))
    (mine,) = claimed(w, worker, "first")
    for id in ("old", "young", "plain", "low"):
        w.end(worker, mine)
        (mine,) = claimed(w, worker, id)


@check
def priority_orders_claims(w: Bench) -> None:
    """Of what is runnable the highest is claimed first, and then the oldest."""
    worker = w.worker()
    for id, priority in (("a", 0), ("b", -5), ("c", 7), ("d", 7), ("e", 0)):
        begin(w, id, asked=Admission(priority=priority))
    same("priority", w.get("c").priority, 7)
    for expected in (["c", "d"], ["a", "e"], ["b"]):
        same("next", sorted(e.id for e in taken(w, worker, NOON, limit=2)), expected)


@check
def place_is_kept_while_it_lives(w: Bench) -> None:
    """Parked, blocked, with its owner dead, or in its next generation: its place is its own."""
    worker = w.worker()
    begin(w, "i1", "i2")
    (mine,) = claimed(w, worker, "i1")
    w.park(worker, mine, due=NOON + 5)
    claimed(w, worker)
    (mine,) = claimed(w, worker, "i1", at=NOON + 5)
    following = ContinueAsNew(1, b"more", b"seed", None)
    w.do(worker, w.turn(mine, acts=(following,)))
    (mine,) = claimed(w, worker, "i1")
    w.do(worker, w.block(mine))
    claimed(w, worker)
    found = w.claim(w.worker("build-b"), build="build-b").claimed
    same("unblocked elsewhere", [each.id for each in found], ["i1"])
    w.reopen(crash=True)
    w.store.reap()
    worker = w.worker("build-b")
    (mine,) = w.claim(worker, build="build-b").claimed
    same("still waits", w.get("i2").hold, Hold("place", None, "k"))
    w.end(worker, mine)
    claimed(w, worker, "i2")


@check
def place_is_given_back_by_a_failure_and_asked_for_again(w: Bench) -> None:
    """A failed one that is retried waits for a place like any other, ahead of younger ones."""
    worker = w.worker()
    begin(w, "i1", "i2", "i3")
    (mine,) = claimed(w, worker, "i1")
    w.end(worker, mine, "failed")
    (next_one,) = claimed(w, worker, "i2")
    retry = w.send("i1", "", b"", kind="retry")
    same("retried", w.ask(retry).verdict, APPLIED)
    same("waits", (w.get("i1").status, w.get("i1").hold), ("waiting", Hold("place", None, "k")))
    same("once", w.ask(retry).verdict, CONFLICT)
    claimed(w, worker)
    w.end(worker, next_one)
    (mine,) = claimed(w, worker, "i1")
    same("its inbox", [row.kind for row in mine.inbox], ["retry"])
    w.end(worker, mine, "failed", consumed=tuple(row.id for row in mine.inbox))
    (last,) = claimed(w, worker, "i3")
    w.end(worker, last)
    w.ask(retry)
    (mine,) = claimed(w, worker, "i1")
    begin(w, "i4")
    claimed(w, worker)


@check
def held_for_a_place_ends_at_once(w: Bench) -> None:
    """Cancelled or terminated, it takes no place; the one that has it keeps it."""
    worker = w.worker()
    begin(w, "i1", "i2", "i3", "i4")
    w.ask(w.send("i2"))
    same("ended", ask_to_end(w, "i2").ended, ("i2",))
    same("over", w.get("i2").status, "cancelled")
    w.ask(Terminate("i3", b"end", NOON))
    (mine,) = claimed(w, worker, "i1")
    w.end(worker, mine)
    claimed(w, worker, "i4")


@check
def last_place_goes_to_one(w: Bench) -> None:
    """Starts and appends of one commit, or of two, never share a place."""
    worker = w.worker()
    registry = w.triggers("a")
    operations: list[Any] = [
        w.append(f"a{n}", [fires(w, f"a{n}", placed(2))], registry) for n in range(3)
    ]
    operations += [Start(w.new(f"s{n}", admission=placed(2))) for n in range(3)]
    for each in operations:
        each.own = True
    found = w.commit(*operations, worker=worker)
    same("owned", [e.id for each in found for e in each.claimed], ["a0", "a1"])
    held = [w.get(id).hold is not None for id in ("a2", "s0", "s1", "s2")]
    same("held", held, [True] * 4)


@check
def places_are_taken_one_after_the_other(w: Bench) -> None:
    """An instance with two places runs when it has both, and gives both back."""
    worker = w.worker()

    def both(first: str, second: str) -> Admission:
        return Admission(places=(Place("p", first, 1), Place("q", second, 1)))

    begin(w, "i1", asked=both("a", "x"))
    begin(w, "i2", asked=both("b", "x"))
    begin(w, "i3", asked=both("b", "y"))
    begin(w, "i4", asked=both("a", "y"))
    (mine,) = claimed(w, worker, "i1")
    same("waits for the second", w.get("i2").hold, Hold("place", None, "x"))
    same("waits for the first", w.get("i3").hold, Hold("place", None, "b"))
    w.end(worker, mine)
    two, four = claimed(w, worker, "i2", "i4")
    w.end(worker, two)
    same("now for the second", w.get("i3").hold, Hold("place", None, "y"))
    w.end(worker, four)
    claimed(w, worker, "i3")


@check
def limit_may_change_while_they_run(w: Bench) -> None:
    """A lower limit lets no more in until enough have ended; a higher one does at once."""
    worker = w.worker()

    def sync(limit: int) -> int:
        spec = f"limit {limit}"
        row = NewTrigger("t", f"cid-{limit}", spec.encode(), spec, limits=(("p", limit),))
        return w.store.sync_triggers([row], now=w.now)

    sync(3)
    begin(w, *(f"i{n}" for n in range(6)), asked=placed(3))
    running = claimed(w, worker, "i0", "i1", "i2")
    sync(1)
    for each in running[:2]:
        w.end(worker, each)
        claimed(w, worker)
    w.end(worker, running[2])
    claimed(w, worker, "i3")
    sync(3)
    claimed(w, worker, "i4", "i5")
    registry = w.triggers("a")
    seq = w.ask(w.append("old", None)).seq or 0
    sync(2)
    (row,) = w.store.outbox(10)
    w.ask(Dispatch(row.id, seq, registry, w.now, (fires(w, "old", placed(9)),)))
    claimed(w, worker)
    same("a plan of old triggers changes nothing", w.get("old").hold, Hold("place", None, "k"))
    begin(w, "new", asked=placed(4))
    claimed(w, worker, "old")


@check
def singleton_skips(w: Bench) -> None:
    """While one has the place, held or running, others start nothing; then one may again."""
    worker = w.worker()
    asked = placed(mode="skip")
    same("first", arrive(w, "i1", asked), ("started", "i1"))
    true("it names the holder", "i1" in (reason(w, "i2", asked) or ""))
    (mine,) = claimed(w, worker, "i1")
    reason(w, "i3", asked)
    w.end(worker, mine)
    held = placed(mode="skip", gather=bounce("a"))
    same("opens a group", arrive(w, "i4", held), ("started", "i4"))
    same("joins it", arrive(w, "i5", held), ("debounced", "i4"))
    other = placed(mode="skip", gather=bounce("b"))
    true("a held one has it", "i4" in (reason(w, "i6", other) or ""))
    ask_to_end(w, "i4")
    same("then", arrive(w, "i7", other), ("started", "i7"))


@check
def singleton_cancels_those_before(w: Bench) -> None:
    """The one that runs is asked to end, those that are held end at once, the new one waits."""
    worker = w.worker()
    asked = placed(mode="cancel")
    arrive(w, "i1", asked)
    (mine,) = claimed(w, worker, "i1")
    found = w.ask(w.append("i2", [fires(w, "i2", asked)], 1))
    same("told", found.told, ((mine.number, worker[0]),))
    same("asked to end", [row.kind for row in w.store.inbox(mine.number)], ["cancel"])
    same("the new one", w.get("i2").hold, Hold("place", None, "k"))
    found = w.ask(w.append("i3", [fires(w, "i3", asked)], 1))
    same("ended", (found.ended, w.get("i2").status), (("i2",), "cancelled"))
    same("asked once", len(w.store.inbox(mine.number)), 1)
    throttled = placed(mode="cancel", throttle=Pace("t", "", 1, 10.0, 1))
    arrive(w, "i4", throttled)
    arrive(w, "i5", throttled)
    same("throttled", w.get("i5").hold, Hold("throttle", NOON + 10, None))
    arrive(w, "i6", asked)
    same("superseded", [w.get(f"i{n}").status for n in (3, 4, 5)], ["cancelled"] * 3)
    w.end(worker, mine, "cancelled")
    claimed(w, worker, "i6")


@check
def rate_and_singleton_leave_each_other_alone(w: Bench) -> None:
    """What is skipped takes nothing of the rate, and what is dropped cancels nothing."""
    pace = Pace("r", "", 2, 60.0, 2)
    skip = placed(mode="skip", rate_limit=pace)
    arrive(w, "i1", skip)
    reason(w, "i2", skip)
    ask = placed(key="c", mode="cancel", rate_limit=pace)
    same("one was left", arrive(w, "i3", ask), ("started", "i3"))
    true("now it is used up", "rate_limit" in (reason(w, "i4", ask) or ""))
    same("not cancelled", w.store.inbox(w.get("i3").number), [])


@check
def throttled_one_takes_its_place_at_its_turn(w: Bench) -> None:
    """Until its turn it has no place; then it gets one, or waits on."""
    worker = w.worker()
    asked = placed(throttle=Pace("t", "", 1, 10.0, 1))
    for id in ("i1", "i2"):
        arrive(w, id, asked)
    (mine,) = claimed(w, worker, "i1")
    w.end(worker, mine)
    begin(w, "other")
    (other,) = claimed(w, worker, "other")
    claimed(w, worker, at=NOON + 10)
    same("waits on", w.get("i2").hold, Hold("place", None, "k"))
    w.end(worker, other)
    claimed(w, worker, "i2")


@check
def held_child_is_kin_all_the_same(w: Bench) -> None:
    """A child may be held; its cancel ends it at once, and its parent hears of it."""
    worker = w.worker()
    begin(w, "first")
    claimed(w, worker, "first")
    parent = w.owned(worker, "parent")
    child = SpawnChild("child:welcome#0", w.new("child", admission=ONE), True, False)
    w.do(worker, w.turn(parent, acts=(child,)))
    same("held", w.get("child").hold, Hold("place", None, "k"))
    ask = CancelChild("child", b"", NOON)
    found = w.do(worker, w.turn(parent, acts=(ask,)))
    same("over", (found.ended, w.get("child").status), (("child",), "cancelled"))
    same("heard", [row.kind for row in w.store.inbox(parent.number)], ["child_cancelled"])
    grandchild = SpawnChild("child:welcome#1", w.new("second", admission=ONE), True, False)
    w.do(worker, w.turn(parent, acts=(grandchild,)))
    found = w.ask(Terminate("parent", b"end", NOON))
    same("with its parent", w.get("second").status, "cancelled")
    true("it is told", "second" in found.ended)


@check
def unknown_flow_waits_for_a_place_first(w: Bench) -> None:
    """An instance that nobody can run yet is held like any other, and blocked only then."""
    worker = w.worker()
    begin(w, "i1")
    new = w.new("i2", "strange", None, admission=ONE, status="blocked", cause="unknown_flow")
    w.ask(Start(new))
    same("held", (w.get("i2").status, w.get("i2").cause), ("waiting", None))
    (mine,) = claimed(w, worker, "i1")
    w.end(worker, mine)
    claimed(w, worker)
    same("blocked", (w.get("i2").status, w.get("i2").cause), ("blocked", "unknown_flow"))
    begin(w, "i3")
    same("it has the place", w.get("i3").hold, Hold("place", None, "k"))
