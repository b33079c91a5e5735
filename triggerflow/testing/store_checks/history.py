"""States of triggers, firings that are taken up again, and walks over history."""

from __future__ import annotations

from typing import Any

from triggerflow.store.history import Span
from triggerflow.store.operations import Advance, Dispatch, PlannedFiring, Redispatch
from triggerflow.store.records import NewTrigger
from triggerflow.testing.store_checks.bench import (
    APPLIED,
    CONFLICT,
    FENCED,
    GONE,
    STALE,
    Bench,
    Worker,
    check,
    same,
    true,
)

PAUSED = PlannedFiring("cid-a-one", outcome="paused")


def _failed(w: Bench, activity: str, registry: int, **parts: Any) -> None:
    planned = PlannedFiring("cid-a-one", None, "it broke", "guard_error", **parts)
    same("append", w.ask(w.append(activity, [planned], registry)).verdict, APPLIED)


def _again(w: Bench, id: str, registry: int, **parts: Any) -> Redispatch:
    (row, *_) = w.store.unstarted(["guard_error", "paused"])
    given: dict[str, Any] = {"planned": w.fires("a", id), "at": w.now} | parts
    return Redispatch(row.id, row.changes, registry=registry, **given)


def _advance(w: Bench, worker: Worker, walk: int, cursor: int, to: int, **parts: Any) -> Any:
    given: dict[str, Any] = {"registry": w.store.registry()[0], "at": w.now} | parts
    return w.ask(Advance(walk, cursor, to, **given), worker)


@check
def states_move_the_generation(w: Bench) -> None:
    """Each change of state is a new generation; what is planned before it is stale."""
    first = w.triggers("a", "b")
    same("pause", w.store.set_trigger_state("a", "paused", now=w.now), None)
    number, records = w.store.registry()
    true("the generation grew", number > first)
    same("states", [each.state for each in records], ["paused", "active"])
    same("planned before", w.ask(w.append("x", [w.fires("a", "i1")], first)).verdict, STALE)
    w.store.set_trigger_state("a", "paused", now=w.now)
    same("paused twice", w.store.registry()[0], number)
    w.store.set_trigger_state("b", "draining", now=w.now)
    same("then", [e.state for e in w.store.triggers_at(number)], ["paused", "active"])
    same("at first", [e.state for e in w.store.triggers_at(first)], ["active", "active"])
    same("before", w.store.triggers_at(first - 1), ())
    w.reopen()
    same("kept", [e.state for e in w.store.registry()[1]], ["paused", "draining"])
    same("a's", w.store.trigger_state("a"), ("paused", ["a", "b"]))
    same("nobody's", w.store.trigger_state("c")[0], None)


@check
def states_belong_to_names(w: Bench) -> None:
    """A new spec of a name takes its state over; one that comes back has a past with gaps."""
    first = w.triggers("a")
    w.store.set_trigger_state("a", "paused", now=w.now)
    second = w.triggers("a", spec="two")
    same("state", [e.state for e in w.store.registry()[1]], ["paused"])
    third = w.triggers("a")
    for number, spec in ((first, "one"), (second, "two"), (third, "one")):
        found = [e.cid for e in w.store.triggers_at(number)]
        same(f"at {number}", found, [f"cid-a-{spec}"])


@check
def options_are_no_new_trigger(w: Bench) -> None:
    """Other options change the generation and the record, and supersede nothing."""
    first = w.triggers("a")
    row = NewTrigger("a", "cid-a-one", b"a one", "means a one", b"options")
    second = w.store.sync_triggers([row], now=w.now)
    true("the generation grew", second > first)
    (record,) = w.store.registry()[1]
    same("record", (record.cid, record.options), ("cid-a-one", b"options"))
    same("again", w.store.sync_triggers([row], now=w.now), second)


@check
def deferred_dispatches_know_the_generation(w: Bench) -> None:
    """One planned before a change of state is stale and stays; its row says what was then."""
    registry = w.triggers("a")
    w.store.set_trigger_state("a", "paused", now=w.now)
    paused = w.store.registry()[0]
    late = PlannedFiring("cid-a-one", outcome="deferred")
    w.ask(w.append("x", [late], paused))
    same("state of then", [row.state for row in w.store.outbox(9)], [None])
    w.store.set_trigger_state("a", "active", now=w.now, catch_up=False)
    (row,) = w.store.outbox(9)
    same("state of then", row.state, "skipped")
    firings = (w.fires("a", "i1"),)
    stale = Dispatch(row.id, row.seq, row.registry, w.now, firings, paused)
    same("stale", w.ask(stale).verdict, STALE)
    same("still there", len(w.store.outbox(9)), 1)
    fresh = Dispatch(row.id, row.seq, row.registry, w.now, firings, w.store.registry()[0])
    same("fresh", w.ask(fresh).verdict, APPLIED)
    true("generations differ", registry < paused)


@check
def a_firing_is_written_over_once(w: Bench) -> None:
    """Of two plans for one firing the first lands; what it was is kept, for ever."""
    registry = w.triggers("a")
    _failed(w, "x", registry)
    same("stale", w.ask(_again(w, "i1", registry - 1)).verdict, STALE)
    plan = _again(w, "i1", registry)
    twin = _again(w, "i1", registry)
    same("two", [e.verdict for e in w.commit(plan, twin)], [APPLIED, GONE])
    same("later", w.ask(twin).verdict, GONE)
    (firing,) = w.store.firings("cid-x")
    same("it", (firing.instance, firing.error, firing.source), ("i1", None, "redispatch"))
    same("instances", [each.id for each in w.store.instances()], ["i1"])
    before = w.store.firing_history("cid-x", "cid-a-one")
    same("before", [(e.outcome, e.error) for e in before], [("guard_error", "it broke")])
    same("left", w.store.unstarted(["guard_error"]), [])


@check
def a_firing_that_fails_again(w: Bench) -> None:
    """It keeps each of its errors, and a plan for an earlier one is refused."""
    registry = w.triggers("a")
    _failed(w, "x", registry)
    first = _again(w, "i1", registry)
    worse = PlannedFiring("cid-a-one", None, "again", "guard_error", attempts=2)
    same("worse", w.ask(_again(w, "", registry, planned=worse)).verdict, APPLIED)
    same("the first plan", w.ask(first).verdict, GONE)
    same("the next", w.ask(_again(w, "i1", registry)).verdict, APPLIED)
    before = w.store.firing_history("cid-x", "cid-a-one")
    same("errors", [each.error for each in before], ["it broke", "again"])
    same("attempts", [each.attempts for each in before], [1, 2])


@check
def one_dead_letter_a_firing(w: Bench) -> None:
    """It starts beside the firing, which stays without an instance; a second one doesn't."""
    registry = w.triggers("a")
    _failed(w, "x", registry, dead_letter=w.new("letter"))
    planned = PlannedFiring("cid-a-one", None, "no", "guard_error", dead_letter=w.new("letter"))
    same("again", w.ask(_again(w, "", registry, planned=planned)).verdict, APPLIED)
    (firing,) = w.store.firings("cid-x")
    same("firing", (firing.instance, firing.dead_letter), (None, "letter"))
    same("instances", [each.id for each in w.store.instances()], ["letter"])


@check
def dispatches_that_are_due(w: Bench) -> None:
    """Those due by now, the longest due first; when the next one is; none once it is done."""
    registry = w.triggers("a")
    for name, wait in (("x", 20), ("y", 10), ("z", 30)):
        _failed(w, name, registry, due=w.now + wait)
    same("now", w.store.due_dispatches(w.now), [])
    same("next", w.store.next_dispatch(w.now), w.now + 10)
    found = w.store.due_dispatches(w.now + 20)
    same("due", [each.cid for each in found], ["cid-y", "cid-x"])
    last = found[0]
    rest = w.store.due_dispatches(w.now + 20, after=(last.due or 0, last.id), limit=1)
    same("page", [each.cid for each in rest], ["cid-x"])
    same("after", w.store.next_dispatch(w.now + 20), w.now + 30)
    plan = Redispatch(found[0].id, 0, w.fires("a", "i1"), registry, w.now, "retry")
    same("retry", w.ask(plan).verdict, APPLIED)
    same("left", [e.cid for e in w.store.due_dispatches(w.now + 20)], ["cid-x"])


@check
def unstarted_firings_page_by_page(w: Bench) -> None:
    """In the order of the activities, narrowed down by outcome, trigger, activity, end."""
    registry = w.triggers("a", "b")
    for name in ("x", "y", "z"):
        _failed(w, name, registry)
        w.ask(w.append(f"{name}2", [w.fires("b", f"i-{name}")], registry))
    page = w.store.unstarted(["guard_error"], limit=2)
    same("first", [each.cid for each in page], ["cid-x", "cid-y"])
    page = w.store.unstarted(["guard_error"], limit=2, after=page[-1].cursor)
    same("second", [each.cid for each in page], ["cid-z"])
    same("of b", w.store.unstarted(["guard_error"], trigger="b"), [])
    same("of a", len(w.store.unstarted(["guard_error"], trigger="a")), 3)
    same("of y", len(w.store.unstarted(["guard_error"], activity="cid-y")), 1)
    same("up to 1", len(w.store.unstarted(["guard_error"], last=1)), 1)
    same("paused", w.store.unstarted(["paused"]), [])
    same("document", page[0].document, b"z")


@check
def an_advance_lands_whole_or_not(w: Bench) -> None:
    """Firings, counts and cursor are one; an advance from another place changes nothing."""
    for name in ("x", "y", "z"):
        w.ask(w.append(name, (), 0))
    w.triggers("a")
    walk = w.store.open_backfill("a", Span(), now=w.now) or 0
    worker = w.worker()
    firings = ((1, w.fires("a", "i1")), (2, PlannedFiring("cid-a-one", None, "e", "failed")))
    parts: dict[str, Any] = {"looked": 2, "firings": firings}
    same("stale", _advance(w, worker, walk, 0, 2, registry=0, **parts).verdict, STALE)
    before = w.everything()
    same("elsewhere", _advance(w, worker, walk, 1, 2, **parts).verdict, CONFLICT)
    same("nothing", w.everything(), before)
    same("it", _advance(w, worker, walk, 0, 2, **parts).verdict, APPLIED)
    same("twice", _advance(w, worker, walk, 0, 2, **parts).verdict, CONFLICT)
    again = ((2, w.fires("a", "i2")), (3, w.fires("a", "i3")))
    same("rest", _advance(w, worker, walk, 2, 3, looked=1, firings=again).verdict, APPLIED)
    (found,) = w.store.backfills(number=walk)
    same("state", (found.state, found.cursor, found.ended), ("done", 3, w.now))
    counts = (found.looked, found.fired, found.unstarted, found.known)
    same("counts", counts, (3, 2, 1, 1))
    same("instances", [each.id for each in w.store.instances()], ["i1", "i3"])
    same("source", [e.source for e in w.store.firings("cid-x")], ["backfill"])
    same("over", _advance(w, worker, walk, 3, 4).verdict, CONFLICT)


@check
def a_walk_belongs_to_one_worker(w: Bench) -> None:
    """Nobody else moves it while its worker is registered; a dead one's goes on elsewhere."""
    for name in ("x", "y", "z"):
        w.ask(w.append(name, (), 0))
    w.triggers("a")
    walk = w.store.open_backfill("a", Span(), now=w.now) or 0
    first, second = w.worker(), w.worker()
    same("first", _advance(w, first, walk, 0, 1).verdict, APPLIED)
    same("second", _advance(w, second, walk, 1, 2).verdict, CONFLICT)
    same("owner", w.store.backfills(open_only=True)[0].owner, first[0])
    w.store.forget_worker(first[0])
    same("gone", _advance(w, first, walk, 1, 2).verdict, FENCED)
    same("freed", w.store.backfills(open_only=True)[0].owner, None)
    same("second now", _advance(w, second, walk, 1, 2).verdict, APPLIED)
    w.reopen(crash=True)
    true("the dead one's is freed", w.store.reap() > 0)
    third = w.worker()
    same("third", _advance(w, third, walk, 2, 3).verdict, APPLIED)


@check
def walks_are_paused_and_cancelled(w: Bench) -> None:
    """A paused one stands still, a cancelled one has ended; an ended one stays as it is."""
    for name in ("x", "y"):
        w.ask(w.append(name, (), 0))
    w.triggers("a")
    walk = w.store.open_backfill("a", Span(), now=w.now) or 0
    worker = w.worker()
    same("pause", w.store.set_backfill(walk, "paused", now=w.now), "paused")
    same("still", _advance(w, worker, walk, 0, 1).verdict, CONFLICT)
    same("on", w.store.set_backfill(walk, "running", now=w.now), "running")
    same("moves", _advance(w, worker, walk, 0, 1).verdict, APPLIED)
    ended = w.store.set_backfill(walk, "cancelled", now=w.now, reason="enough")
    same("cancel", ended, "cancelled")
    same("on again", w.store.set_backfill(walk, "running", now=w.now), "cancelled")
    same("open", w.store.backfills(open_only=True), [])
    (found,) = w.store.backfills()
    same("reason", (found.reason, found.cursor), ("enough", 1))
    same("none", w.store.set_backfill(walk + 1, "paused", now=w.now), None)
    same("no trigger", w.store.open_backfill("b", Span(), now=w.now), None)


@check
def spans_of_history(w: Bench) -> None:
    """By number, by time, never beyond the newest; times hold where a clock went back."""
    for name, at in (("p", 10.0), ("q", 20.0), ("r", 90.0), ("s", 30.0), ("t", 40.0)):
        w.now = at
        w.ask(w.append(name, (), 0))
    spans = {
        Span(): (1, 5),
        Span(2, 3): (2, 3),
        Span(4, 99): (4, 5),
        Span(9): (9, 8),
        Span(received_from=25.0): (3, 5),
        Span(received_until=35.0): (1, 4),
        Span(received_from=95.0): (6, 5),
        Span(received_until=5.0): (1, 0),
    }
    same("spans", {each: w.store.span(each) for each in spans}, spans)
    w.triggers("a")
    walk = w.store.open_backfill("a", Span(9), now=w.now)
    (found,) = w.store.backfills(number=walk)
    same("nothing to do", found.state, "done")


@check
def pages_of_history(w: Bench) -> None:
    """In order, bounded in number and bytes, with what has fired or will, and what is gone."""
    registry = w.triggers("a")
    w.ask(w.append("x", [w.fires("a", "i1")], registry))
    w.now += 10
    late = PlannedFiring("cid-a-one", outcome="deferred")
    w.commit(w.append("y", [late], registry), w.append("z", (), registry))
    w.store.prune_documents(w.now)
    page = w.store.past("cid-a-one", 0, 3)
    same("known", [(e.seq, e.known) for e in page], [(1, True), (2, True), (3, False)])
    same("documents", [each.document for each in page], [None, b"y", b"z"])
    same("limit", [e.seq for e in w.store.past("cid-a-one", 0, 3, limit=2)], [1, 2])
    same("size", [e.seq for e in w.store.past("cid-a-one", 1, 3, size=1)], [2])
    same("span", [e.seq for e in w.store.past("cid-a-one", 1, 2)], [2])


@check
def a_start_counts_for_new_names(w: Bench) -> None:
    """A trigger that says where it starts is backfilled when its name is new, only then."""
    w.ask(w.append("x", (), 0))

    def sync(spec: str) -> list[str]:
        row = NewTrigger("a", f"cid-{spec}", spec.encode(), f"m-{spec}", None, Span())
        w.store.sync_triggers([row], now=w.now)
        return [each.trigger_cid or "" for each in w.store.backfills()]

    same("new", sync("one"), ["cid-one"])
    same("again", sync("one"), ["cid-one"])
    same("edited", sync("two"), ["cid-one"])
    same("back", sync("one"), ["cid-one"])


@check
def paused_firings_are_taken_up_or_dropped(w: Bench) -> None:
    """Resuming opens a walk if there is something; pausing again ends it, not a skip."""
    w.triggers("a")
    w.store.set_trigger_state("a", "paused", now=w.now)
    same("nothing", w.store.set_trigger_state("a", "active", now=w.now, catch_up=True), None)
    w.store.set_trigger_state("a", "paused", now=w.now)
    w.ask(w.append("x", [PAUSED], w.store.registry()[0]))
    walk = w.store.set_trigger_state("a", "active", now=w.now, catch_up=True)
    (found,) = w.store.backfills()
    same("walk", (found.id, found.kind, found.state), (walk, "resume", "running"))
    w.store.set_trigger_state("a", "paused", now=w.now)
    same("ended", [each.state for each in w.store.backfills()], ["cancelled"])
    walk = w.store.set_trigger_state("a", "active", now=w.now, catch_up=False) or 0
    dropped = PlannedFiring("cid-a-one", outcome="skipped")
    again = _again(w, "", w.store.registry()[0], planned=dropped, source="resume")
    found_ = _advance(w, w.worker(), walk, 0, 1, looked=1, again=(again,))
    same("dropped", found_.verdict, APPLIED)
    same("firing", [e.outcome for e in w.store.firings("cid-x")], ["skipped"])


@check
def documents_that_firings_need_stay(w: Bench) -> None:
    """Retention takes no document of a paused firing, nor of one that is tried again."""
    registry = w.triggers("a")
    w.ask(w.append("x", [PAUSED], registry))
    _failed(w, "y", registry, due=w.now + 10)
    _failed(w, "z", registry)
    same("taken", w.store.prune_documents(w.now + 1).removed, 1)
    found = w.store.unstarted(["paused", "guard_error"])
    same("documents", [each.document for each in found], [b"x", b"y", None])
