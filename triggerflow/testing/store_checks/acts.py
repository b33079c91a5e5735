"""Checks of what turns do towards others: children, signals, activities, waits, generations."""

from __future__ import annotations

from typing import Any

import attrs

from triggerflow.store.acts import (
    AwaitChild,
    CancelChild,
    ContinueAsNew,
    EmitActivity,
    OpenWait,
    RecordResult,
    SendMessage,
    SetAttributes,
    SpawnChild,
)
from triggerflow.store.newcomer import NewInstance
from triggerflow.store.operations import Outcome, Terminate, Turn
from triggerflow.store.records import Claimed
from triggerflow.testing.store_checks.bench import (
    APPLIED,
    CONFLICT,
    FENCED,
    NOON,
    Bench,
    Worker,
    check,
    same,
    true,
)

NONE = b"\xf6"


def turn(mine: Claimed, *acts: Any, status: str = "running", **more: Any) -> Turn:
    return Turn(
        mine.number,
        mine.generation,
        mine.log_length,
        (),
        b"\x80",
        status,
        NOON,
        NOON,
        acts=acts,
        **more,
    )


def newcomer(id: str, key: str | None = None) -> NewInstance:
    return NewInstance(id, "welcome", 1, NONE, b"seed", NOON, key=key, depth=1)


def spawn(
    id: str, *, key: str | None = None, awaited: bool = True, abandoned: bool = False
) -> Any:
    return SpawnChild(f"child:{id}", newcomer(id, key), awaited, abandoned)


def kinds(w: Bench, mine: Claimed) -> list[tuple[str, str]]:
    return [(row.kind, row.name) for row in w.store.inbox(mine.number)]


def status_of(w: Bench, id: str) -> str | None:
    record = w.store.instance(id)
    return None if record is None else record.status


def family(w: Bench, worker: Worker, *acts: Any) -> tuple[Claimed, Claimed]:
    """A parent and its child, both owned."""
    parent = w.owned(worker, "parent")
    same("spawned", w.do(worker, turn(parent, *(acts or (spawn("kid"),)))).verdict, APPLIED)
    (kid,) = w.claim(worker).claimed
    return parent, kid


def together(w: Bench, worker: Worker, *turns: Turn) -> list[Outcome]:
    return w.commit(*turns, worker=worker)


@check
def child_starts_with_its_parents_turn(w: Bench) -> None:
    """A child lands runnable, and knows its parent; a refused turn starts none."""
    worker = w.worker()
    _, kid = family(w, worker)
    record = w.store.instance("kid")
    true("the child is there", record is not None)
    same("parent and depth", (record and record.parent, kid.depth), ("parent", 1))


@check
def key_of_a_child_refuses_the_whole_turn(w: Bench) -> None:
    """A key that is held, in the store or in this batch, refuses the turn and names the tag."""
    worker = w.worker()
    one, two = w.owned(worker, "one"), w.owned(worker, "two")
    first, second = together(
        w, worker, turn(one, spawn("a", key="k")), turn(two, spawn("b"), spawn("c", key="k"))
    )
    same("the first", first.verdict, APPLIED)
    same("the second", second.verdict, CONFLICT)
    refusals = [(each.tag, each.why, each.detail) for each in second.refusals]
    same("why", refusals, [("child:c", "key", "a")])
    same("what it would have started", (status_of(w, "b"), status_of(w, "c")), (None, None))


@check
def child_that_is_there_is_waited_for(w: Bench) -> None:
    """A second start of the same child, after a retry, waits for the first."""
    worker = w.worker()
    parent, kid = family(w, worker, spawn("kid", key="k", awaited=False))
    w.do(worker, turn(kid, status="done", value=b"\x01"))
    again = w.do(worker, turn(parent, spawn("kid", key="k")))
    same("again", again.verdict, APPLIED)
    same("told", kinds(w, parent), [("child_done", "kid")])


@check
def end_of_a_child_is_told_to_who_waits(w: Bench) -> None:
    """A parked parent hears of an awaited child's end and becomes runnable."""
    worker = w.worker()
    parent, kid = family(w, worker)
    w.do(worker, turn(parent, status="waiting"))
    outcome = w.do(worker, turn(kid, status="failed", value=b"\xa0"))
    same("told", [number for number, _ in outcome.told], [parent.number])
    same("inbox", kinds(w, parent), [("child_failed", "kid")])
    same("the parent", status_of(w, "parent"), "running")


@check
def end_of_a_child_that_nobody_awaits_is_not_told(w: Bench) -> None:
    """A spawned child leaves nothing in its parent's inbox, until it is joined."""
    worker = w.worker()
    parent, kid = family(w, worker, spawn("kid", awaited=False))
    w.do(worker, turn(kid, status="done", value=b"\x01"))
    same("before", kinds(w, parent), [])
    w.do(worker, turn(parent, AwaitChild("kid")))
    same("after", kinds(w, parent), [("child_done", "kid")])


@check
def joining_and_ending_in_one_batch_meet(w: Bench) -> None:
    """A child that ends in the batch in which its parent joins and parks is told of, once."""
    for order in (0, 1):
        worker = w.worker()
        parent = w.owned(worker, f"parent{order}")
        w.do(worker, turn(parent, spawn(f"kid{order}", awaited=False)))
        (kid,) = w.claim(worker).claimed
        turns = [
            turn(parent, AwaitChild(f"kid{order}"), status="waiting"),
            turn(kid, status="done", value=b"\x01"),
        ]
        outcomes = together(w, worker, *(turns[::-1] if order else turns))
        same("verdicts", [each.verdict for each in outcomes], [APPLIED, APPLIED])
        same("told", kinds(w, parent), [("child_done", f"kid{order}")])
        same("the parent", status_of(w, f"parent{order}"), "running")


@check
def cancelled_parent_cancels_its_children(w: Bench) -> None:
    """Those that live get one cancel each, but for the abandoned; so does a termination."""
    worker = w.worker()
    parent = w.owned(worker, "parent")
    w.do(worker, turn(parent, spawn("kid"), spawn("free", abandoned=True)))
    kid, free = w.claim(worker).claimed
    w.do(worker, turn(parent, status="cancelled", value=b"\xa0"))
    same("cancels", (kinds(w, kid), kinds(w, free)), ([("cancel", "")], []))
    other = w.owned(worker, "other")
    w.do(worker, turn(other, spawn("ward")))
    (ward,) = w.claim(worker).claimed
    outcome = w.do(worker, Terminate("other", b"\xa0", NOON))
    same("told", [number for number, _ in outcome.told], [ward.number])
    same("cancels", kinds(w, ward), [("cancel", "")])


@check
def cancel_of_a_child_comes_once(w: Bench) -> None:
    """A second cancel, or one for a child that has ended, changes nothing."""
    worker = w.worker()
    parent, kid = family(w, worker)
    for _ in range(2):
        w.do(worker, turn(parent, CancelChild("kid", NONE, NOON, forget=True)))
    same("cancels", kinds(w, kid), [("cancel", "")])
    w.do(worker, turn(kid, status="cancelled", value=b"\xa0"))
    same("nobody waits any more", kinds(w, parent), [])
    same("after its end", w.do(worker, turn(parent, CancelChild("kid", NONE, NOON))).told, ())


@check
def signal_of_a_turn_lands_with_it(w: Bench) -> None:
    """A signal reaches its target with the turn, a child of the same turn included."""
    worker = w.worker()
    sender, target = w.owned(worker, "sender"), w.owned(worker, "target")
    w.do(worker, turn(target, status="waiting"))
    acts = (
        SendMessage("signal:a", "target", "a", b"\x01", NOON),
        spawn("kid"),
        SendMessage("signal:b", "kid", "b", b"\x02", NOON),
    )
    same("verdict", w.do(worker, turn(sender, *acts)).verdict, APPLIED)
    same(
        "the target", (kinds(w, target), status_of(w, "target")), ([("signal", "a")], "running")
    )
    kid = next(each for each in w.claim(worker).claimed if each.id == "kid")
    same("the child", kinds(w, kid), [("signal", "b")])


@check
def signal_to_nobody_refuses_the_turn(w: Bench) -> None:
    """An unknown target, one that has ended, or one that ends in this batch: nothing lands."""
    worker = w.worker()
    sender, target, gone = (w.owned(worker, id) for id in ("sender", "target", "gone"))
    w.do(worker, turn(gone, status="done", value=NONE))
    for name in ("nobody", "gone"):
        acts = [
            SendMessage("signal:a", "target", "a", NONE, NOON),
            SendMessage("signal:b", name, "b", NONE, NOON),
        ]
        refused = w.ask(turn(sender, *acts), worker)
        same(
            name,
            (refused.verdict, [each.tag for each in refused.refusals]),
            (CONFLICT, ["signal:b"]),
        )
    _, late = together(
        w,
        worker,
        turn(target, status="done", value=NONE),
        turn(sender, SendMessage("signal:a", "target", "a", NONE, NOON)),
    )
    same("in one batch", late.verdict, CONFLICT)
    same("nothing landed", kinds(w, target), [])


@check
def emitted_activity_lands_with_its_turn(w: Bench) -> None:
    """It is appended once, with an outbox row, its cause and its depth."""
    worker = w.worker()
    mine = w.owned(worker, "i1")
    emit = EmitActivity("cid", b"\xa0", "[]", "[]", NOON, 3)
    true("told", w.do(worker, turn(mine, emit)).emitted)
    same("twice", w.do(worker, turn(mine, emit)).emitted, False)
    same("outbox", [row.cid for row in w.store.outbox(10)], ["cid"])


@check
def recorded_result_is_the_first(w: Bench) -> None:
    """A second result under a key refuses its turn, and brings the first one, batch or not."""
    worker = w.worker()
    one, two = w.owned(worker, "one"), w.owned(worker, "two")
    record = RecordResult("call:a#0", "a", "k", b"\x01", NOON)
    other = attrs.evolve(record, value=b"\x02")
    first, second = together(w, worker, turn(one, record), turn(two, other))
    same("verdicts", (first.verdict, second.verdict), (APPLIED, CONFLICT))
    same("the first", [each.value for each in second.refusals], [b"\x01"])
    later = w.ask(turn(two, other), worker)
    same("later", [each.value for each in later.refusals], [b"\x01"])
    same("kept", w.store.recorded("a", "k"), b"\x01")


@check
def attributes_are_found_by_value_and_kind(w: Bench) -> None:
    """1 and 1.0 are one value; 1, "1" and true are three; None takes one away."""
    worker = w.worker()
    mine = w.owned(worker, "i1")
    w.do(worker, turn(mine, SetAttributes(b"\xa0", {"n": 1, "gone": "x"})))
    w.do(worker, turn(mine, SetAttributes(b"\xa0", {"gone": None})))
    for value, found in ((1, 1), (1.0, 1), ("1", 0), (True, 0), (2, 0)):
        rows = w.store.instances(attributes={"n": value})
        same(f"n = {value!r}", len(rows), found)
    same("removed", w.store.instances(attributes={"gone": "x"}), [])


@check
def next_generation_begins_empty_and_runnable(w: Bench) -> None:
    """It has its own input, seed and log; what the old one waited for is gone."""
    worker = w.worker()
    mine = w.owned(worker, "i1")
    w.do(worker, turn(mine, OpenWait("w#0", b"\x01", 0)))
    w.do(worker, turn(mine, ContinueAsNew(1, b"\x18\x2a", b"new", b"\x80")))
    same("waits", w.store.waits(), [])
    (again,) = w.claim(worker).claimed
    same("generation and length", (again.generation, again.log_length), (2, 0))
    same(
        "input and seed", (again.input, again.seed, again.started), (b"\x18\x2a", b"new", None)
    )
    same("the old owner", w.ask(turn(mine), worker).verdict, FENCED)
