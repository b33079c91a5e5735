"""Checks of groups: what is gathered into one held instance, and when it is let go."""

from __future__ import annotations

from typing import Any

from triggerflow.core.admission_request import Admission, Gather, Pace, Place
from triggerflow.core.codec import list_of
from triggerflow.store.operations import Dispatch, Outcome, PlannedFiring, Terminate
from triggerflow.store.records import Claimed, Hold
from triggerflow.testing.store_checks.bench import (
    APPLIED,
    DUPLICATE,
    GONE,
    NOON,
    Bench,
    Worker,
    check,
    same,
    true,
)


def bounce(key: str = "k", **parts: Any) -> Gather:
    given: dict[str, Any] = {"period": 5.0, "max_wait": None, "listed": False, "most": 1000}
    return Gather("debounce", "group", key, size=None, **(given | parts))


def pack(key: str = "k", **parts: Any) -> Gather:
    given: dict[str, Any] = {"period": 60.0, "size": 3, "most": 1000}
    return Gather("batch", "group", key, max_wait=None, listed=True, **(given | parts))


def fires(w: Bench, id: str, asked: Admission, **parts: Any) -> PlannedFiring:
    given: dict[str, Any] = {"input": id.encode(), "admission": asked}
    return PlannedFiring("cid-a-one", w.new(id, **(given | parts)))


def arrive(w: Bench, id: str, asked: Admission, **parts: Any) -> tuple[str, str | None]:
    """An activity that fires once: the outcome, and the instance that it started or joined."""
    firing = fires(w, id, asked, **parts)
    found = w.ask(w.append(id, [firing], w.triggers("a")))
    same("append", found.verdict, APPLIED)
    return told(w, id, found)


def told(w: Bench, id: str, found: Outcome) -> tuple[str, str | None]:
    (fired,) = found.firings or ()
    same("kept", w.store.firings(f"cid-{id}"), [fired])
    return fired.outcome, fired.instance


def gather(w: Bench, id: str, asked: Gather, **parts: Any) -> tuple[str, str | None]:
    return arrive(w, id, Admission(asked), **parts)


def taken(w: Bench, worker: Worker, at: float, limit: int = 10) -> list[Claimed]:
    w.now = at
    return list(w.claim(worker, limit=limit).claimed)


@check
def debounce_holds_and_keeps_the_last(w: Bench) -> None:
    """The first arrival opens a held instance, the next ones move its time and its input."""
    worker = w.worker()
    same("first", gather(w, "i1", bounce()), ("started", "i1"))
    record = w.get("i1")
    same("held", record.hold, Hold("debounce", NOON + 5, "k"))
    same("as", (record.status, record.pending, record.owner), ("waiting", None, None))
    w.now = NOON + 4
    same("next", gather(w, "i2", bounce()), ("debounced", "i1"))
    same("moved", w.get("i1").due, NOON + 9)
    same("next due", w.store.next_due(), NOON + 9)
    same("no instance", w.store.instance("i2"), None)
    same("too early", taken(w, worker, NOON + 8.9), [])
    (mine,) = taken(w, worker, NOON + 9)
    same("claimed", (mine.id, mine.input), ("i1", b"i2"))
    same("admitted", w.get("i1").hold, None)
    same("what comes now", gather(w, "i3", bounce()), ("started", "i3"))


@check
def debounce_waits_no_longer_than_its_most(w: Bench) -> None:
    """Arrivals move its time up to the longest wait after the first, and no further."""
    asked = bounce(max_wait=12.0)
    for n, due in enumerate((5, 9, 12, 12)):
        w.now = NOON + 4 * n if n < 3 else NOON + 11
        gather(w, f"i{n}", asked)
        same("due", w.get("i0").due, NOON + due)
    w.now = NOON + 12
    same("too late to join", gather(w, "late", asked), ("started", "late"))
    same("let go by it", w.get("i0").status, "running")


@check
def debounce_gathers_all(w: Bench) -> None:
    """With a list, the input is all of them in order of arrival."""
    worker = w.worker()
    for name in ("i1", "i2", "i3"):
        gather(w, name, bounce(listed=True))
    same("for now", w.get("i1").input, list_of([b"i1"]))
    (mine,) = taken(w, worker, NOON + 5)
    same("input", mine.input, list_of([b"i1", b"i2", b"i3"]))
    same("as stored", w.get("i1").input, mine.input)


@check
def keys_and_scopes_have_groups_of_their_own(w: Bench) -> None:
    """Another key opens another group."""
    gather(w, "i1", bounce("1"))
    same("another key", gather(w, "i2", bounce('"1"')), ("started", "i2"))
    same("the same", gather(w, "i3", bounce("1")), ("debounced", "i1"))


@check
def batch_starts_when_it_is_full(w: Bench) -> None:
    """The last one that it waits for makes it runnable in that very commit."""
    worker = w.worker()
    same("first", gather(w, "i1", pack()), ("started", "i1"))
    same("held", w.get("i1").hold, Hold("batch", NOON + 60, "k"))
    w.now = NOON + 1
    same("second", gather(w, "i2", pack()), ("batched", "i1"))
    same("not moved", w.get("i1").due, NOON + 60)
    same("not yet", taken(w, worker, NOON + 1), [])
    same("third", gather(w, "i3", pack()), ("batched", "i1"))
    same("runnable", (w.get("i1").status, w.get("i1").due), ("running", None))
    same("fourth", gather(w, "i4", pack()), ("started", "i4"))
    (mine,) = taken(w, worker, NOON + 1)
    same("input", mine.input, list_of([b"i1", b"i2", b"i3"]))


@check
def batch_starts_when_its_time_has_come(w: Bench) -> None:
    """What is gathered by then is its input; what comes after is another's."""
    worker = w.worker()
    gather(w, "i1", pack())
    gather(w, "i2", pack())
    (mine,) = taken(w, worker, NOON + 60)
    same("input", mine.input, list_of([b"i1", b"i2"]))
    same("next", gather(w, "i3", pack()), ("started", "i3"))


@check
def batch_whose_time_has_passed_takes_no_more(w: Bench) -> None:
    """Whoever comes late opens the next one, though no worker has looked meanwhile."""
    gather(w, "i1", pack())
    w.now = NOON + 61
    same("late", gather(w, "i2", pack()), ("started", "i2"))
    same("let go", w.get("i1").status, "running")
    same("the next one's time", w.get("i2").due, NOON + 121)


@check
def batch_of_one_starts_at_once(w: Bench) -> None:
    """A batch of one is never held; its input is a list all the same."""
    worker = w.worker()
    registry = w.triggers("a")
    append = w.append("i1", [fires(w, "i1", Admission(pack(size=1)))], registry)
    append.own = True
    (found,) = w.commit(append, worker=worker)
    same("owned", [(each.id, each.input) for each in found.claimed], [("i1", list_of([b"i1"]))])
    same("as stored", w.get("i1").input, list_of([b"i1"]))


@check
def batches_in_one_commit_are_full(w: Bench) -> None:
    """1,000 arrivals in one commit fill exactly ten batches of 100, in order."""
    worker = w.worker()
    registry = w.triggers("a")
    asked = Admission(pack(size=100, most=10_000))
    names = [f"i{n:03}" for n in range(1000)]
    found = w.commit(*(w.append(each, [fires(w, each, asked)], registry) for each in names))
    outcomes = [told(w, name, each)[0] for name, each in zip(names, found, strict=True)]
    same("started", outcomes.count("started"), 10)
    same("joined", outcomes.count("batched"), 990)
    mine = taken(w, worker, NOON, limit=50)
    same("instances", [each.id for each in mine], names[::100])
    for first, each in zip(range(0, 1000, 100), mine, strict=True):
        part = [name.encode() for name in names[first : first + 100]]
        same("input", each.input, list_of(part))


@check
def batch_closes_before_it_is_too_large(w: Bench) -> None:
    """An arrival that would make it too large begins the next one; the full one starts."""
    asked = pack(size=100, most=50)
    for name in ("i1", "i2"):
        gather(w, name, asked, input=b"x" * 20)
    same("too large", gather(w, "i3", asked, input=b"x" * 20), ("started", "i3"))
    same("let go", (w.get("i1").status, len(w.get("i1").input)), ("running", 41))
    same("goes on", gather(w, "i4", asked, input=b"y"), ("batched", "i3"))


@check
def repeat_joins_nothing(w: Bench) -> None:
    """An activity that is there already is in no batch again, within a commit or later."""
    registry = w.triggers("a")
    asked = Admission(pack())

    def once() -> Any:
        return w.append("i1", [fires(w, "i1", asked)], registry)

    found = w.commit(once(), once())
    same("verdicts", [each.verdict for each in found], [APPLIED, DUPLICATE])
    same("later", w.ask(once()).verdict, DUPLICATE)
    gather(w, "i2", pack())
    same("still open", w.get("i1").status, "waiting")
    gather(w, "i3", pack())
    same("input", w.get("i1").input, list_of([b"i1", b"i2", b"i3"]))
    again = w.ask(w.append("i2", [fires(w, "i2", asked)], registry))
    same("first firing", told(w, "i2", again), ("batched", "i1"))


@check
def deferred_dispatch_gathers_too(w: Bench) -> None:
    """A dispatch from the outbox joins the same groups, and a pair that fired does so once."""
    registry = w.triggers("a")
    gather(w, "i1", pack())
    found = w.ask(w.append("i2", None, registry))
    (row,) = w.store.outbox(10)
    firing = fires(w, "i2", Admission(pack()))
    dispatch = Dispatch(row.id, found.seq or 0, registry, w.now, (firing,))
    verdicts = [each.verdict for each in w.commit(dispatch, dispatch)]
    same("once", verdicts, [APPLIED, GONE])
    (fired,) = w.store.firings("cid-i2")
    same("joined", (fired.outcome, fired.instance), ("batched", "i1"))
    gather(w, "i3", pack())
    same("input", w.get("i1").input, list_of([b"i1", b"i2", b"i3"]))


@check
def group_takes_a_clock_that_jumps(w: Bench) -> None:
    """Set back, it waits no longer than its period from then on; set forward, it is due."""
    asked = bounce(max_wait=12.0)
    gather(w, "i1", asked)
    w.now = NOON - 1000
    same("back", gather(w, "i2", asked), ("debounced", "i1"))
    same("due", w.get("i1").due, NOON - 995)
    w.now = NOON - 990
    gather(w, "i3", asked)
    same("due and let go by the next", w.get("i1").status, "running")
    w.now = NOON
    gather(w, "b1", pack("b"))
    w.now = NOON - 1000
    gather(w, "b2", pack("b"))
    same("a batch, too", w.get("b1").due, NOON - 940)


@check
def group_survives_a_crash(w: Bench) -> None:
    """An open group is there after a restart, and goes on being filled."""
    gather(w, "i1", pack())
    gather(w, "b1", bounce("b", listed=True))
    w.reopen(crash=True)
    same("joins", gather(w, "i2", pack()), ("batched", "i1"))
    same("joins", gather(w, "b2", bounce("b", listed=True)), ("debounced", "b1"))
    w.reopen(crash=True)
    gather(w, "i3", pack())
    worker = w.worker()
    found = {each.id: each.input for each in taken(w, worker, NOON + 5)}
    same("inputs", found, {"i1": list_of([b"i1", b"i2", b"i3"]), "b1": list_of([b"b1", b"b2"])})


@check
def group_needs_no_documents(w: Bench) -> None:
    """Retention may take the documents of what is gathered; the inputs stay."""
    for name in ("i1", "i2"):
        gather(w, name, pack())
    same("taken", w.store.prune_documents(NOON + 1).removed, 2)
    gather(w, "i3", pack())
    same("input", w.get("i1").input, list_of([b"i1", b"i2", b"i3"]))


@check
def held_instance_is_woken_by_nothing(w: Bench) -> None:
    """A signal waits in its inbox; it runs when it is admitted, and has it then."""
    worker = w.worker()
    gather(w, "i1", bounce())
    w.ask(w.send("i1"))
    same("still held", (w.get("i1").status, w.get("i1").due), ("waiting", NOON + 5))
    same("nothing to claim", taken(w, worker, NOON + 1), [])
    (mine,) = taken(w, worker, NOON + 5)
    same("its inbox", [row.payload for row in mine.inbox], [b"yes"])


@check
def held_instance_is_cancelled_at_once(w: Bench) -> None:
    """A cancel ends it with no code run; what comes next opens another group."""
    worker = w.worker()
    gather(w, "i1", bounce())
    w.ask(w.send("i1"))
    cancel = w.send("i1", "", b"", kind="cancel")
    found = w.commit(cancel, w.send("i1"))
    same("verdicts", [each.verdict for each in found], [APPLIED, GONE])
    same("told", found[0].ended, ("i1",))
    record = w.get("i1")
    same("over", (record.status, record.ended, record.hold), ("cancelled", NOON, None))
    true("there is a failure", record.value)
    same("its inbox", w.messages(record), [])
    same("once", w.ask(cancel).verdict, GONE)
    same("next", gather(w, "i2", bounce()), ("started", "i2"))
    same("nothing of it runs", [e.id for e in taken(w, worker, NOON + 60)], ["i2"])


@check
def held_instance_is_terminated(w: Bench) -> None:
    """So does a termination."""
    gather(w, "i1", pack())
    gather(w, "i2", pack())
    found = w.ask(Terminate("i1", b"end", NOON))
    same("verdict", found.verdict, APPLIED)
    same("over", (w.get("i1").status, w.get("i1").value), ("cancelled", b"end"))
    same("next", gather(w, "i3", pack()), ("started", "i3"))


@check
def group_waits_for_its_turn_and_its_place(w: Bench) -> None:
    """A closed group is throttled first, and then waits for a place."""
    worker = w.worker()
    throttle = Pace("t", "", 1, 10.0, 1)
    asked = Admission(pack(size=2), throttle=throttle, places=(Place("p", "", 1),))
    for name in ("i1", "i2", "i3", "i4"):
        arrive(w, name, asked)
    (first,) = taken(w, worker, NOON)
    same("first", first.id, "i1")
    same("its turn", w.get("i3").hold, Hold("throttle", NOON + 10, None))
    same("no place", taken(w, worker, NOON + 10), [])
    same("waits", w.get("i3").hold, Hold("place", None, ""))
    w.end(worker, first)
    (second,) = taken(w, worker, NOON + 10)
    same("second", (second.id, second.input), ("i3", list_of([b"i3", b"i4"])))


@check
def gathered_activities_lie_behind_their_instance(w: Bench) -> None:
    """Its waits for activities begin after all that it was given; loops are counted."""
    worker = w.worker()
    for name in ("i1", "i2", "i3"):
        gather(w, name, pack())
    (mine,) = taken(w, worker, NOON)
    same("origin", mine.origin, 3)


@check
def pruned_group_is_noted_in_each_firing(w: Bench) -> None:
    """An activity that joined says later that its instance was removed."""
    worker = w.worker()
    for name in ("i1", "i2", "i3"):
        gather(w, name, pack())
    (mine,) = taken(w, worker, NOON)
    w.end(worker, mine)
    same("removed", w.store.prune("welcome", {1: NOON + 1}, now=NOON + 2).removed, 1)
    same("gone", w.store.instance("i1"), None)
    for name in ("i1", "i2", "i3"):
        same("firing", [f.instance for f in w.store.firings(f"cid-{name}")], ["i1"])
    true("it is known as removed", w.store.removed("i1"))
