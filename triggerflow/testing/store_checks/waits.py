"""Checks of waits for activities: opened, found by a pivot, hit once, as far as they are."""

from __future__ import annotations

from triggerflow.store.acts import CloseWait, ContinueAsNew, OpenWait
from triggerflow.store.operations import Dispatch, PlannedFiring, Send, Start, Terminate
from triggerflow.store.records import Claimed
from triggerflow.store.waits import Hit, NewWait, WaitRecord, Watched
from triggerflow.testing.store_checks.acts import kinds, turn
from triggerflow.testing.store_checks.bench import (
    NOON,
    Bench,
    Worker,
    check,
    same,
    true,
)

RESIDUE = ("", "")
ANN, BEN = ('["name"]', "sann"), ('["name"]', "sben")
NINE = ('["n"]', "n9")
FAR = 2**40


def opened(
    w: Bench, mine: Claimed, worker: Worker, tag: str, *pivots: tuple[str, str], after: int = 0
) -> WaitRecord:
    """A wait of an owned instance, as the store has it."""
    w.do(worker, turn(mine, OpenWait(tag, b"\x01", after, b"digest", pivots or (RESIDUE,))))
    (found,) = (each for each in w.store.waits_of(mine.number) if each.tag == tag)
    return found


def append(w: Bench, *names: str) -> None:
    w.commit(*(w.append(name, registry=0) for name in names))


def watched(w: Bench, position: int, **parts: object) -> list[tuple[int, int | None]]:
    found = w.ask(Watched(position, NOON, **parts))  # type: ignore[arg-type]
    return list(found.told)


def hit(wait: WaitRecord, seq: int, since: int = 0) -> Hit:
    return Hit(wait.id, seq, since, b"\x03")


def behind(w: Bench) -> list[tuple[str, int, int]]:
    return [(each.tag, each.scanned, each.upto) for each in w.store.waits_behind()]


@check
def wait_is_open_until_it_is_hit_or_closed(w: Bench) -> None:
    """A wait is a row; a hit tells the instance once, and closes it."""
    worker = w.worker()
    mine = w.owned(worker, "i1")
    first = opened(w, mine, worker, "w#0", ANN)
    opened(w, mine, worker, "w#1", BEN)
    expected = WaitRecord(first.id, mine.number, 1, "w#0", "tell", b"\x01", b"digest", 0, 0)
    same("as it is kept", first, expected)
    same("told", watched(w, 1, hits=(hit(first, 1),)), [(mine.number, worker[0])])
    same("again", watched(w, 1, hits=(hit(first, 1),)), [])
    same("its inbox", kinds(w, mine), [("activity", "w#0")])
    same("open", [each.tag for each in w.store.waits()], ["w#1"])
    w.do(worker, turn(mine, CloseWait("w#1")))
    same("open", w.store.waits(), [])
    same("paths", w.store.standing().paths, ())
    again = opened(w, mine, worker, "w#1", BEN)
    true("a new number", again.id > first.id + 1)


@check
def hit_wakes_a_parked_instance(w: Bench) -> None:
    """What a parked instance waits for makes it runnable."""
    worker = w.worker()
    mine = w.owned(worker, "i1")
    act = OpenWait("w#0", b"\x01", 0)
    w.do(worker, turn(mine, act, status="waiting", awaits=()))
    (wait,) = w.store.waits()
    watched(w, 1, hits=(hit(wait, 1),))
    same("claimed", [each.id for each in w.claim(worker).claimed], ["i1"])


@check
def waits_are_found_under_their_pivots(w: Bench) -> None:
    """Each pivot finds its waits by id, a page at a time; the paths in use are known."""
    worker = w.worker()
    mine = w.owned(worker, "i1")
    both = opened(w, mine, worker, "both", ANN, BEN)
    ann = opened(w, mine, worker, "ann", ANN)
    opened(w, mine, worker, "nine", NINE)
    rest = opened(w, mine, worker, "rest")

    def under(*pivots: tuple[str, str, int], limit: int = 10) -> list[tuple[int, str]]:
        return [(at, wait.tag) for at, wait in w.store.waits_under(pivots, limit)]

    standing = w.store.standing()
    same("paths", sorted(standing.paths or ()), ["", '["n"]', '["name"]'])
    same("newest", standing.newest, rest.id)
    same("of ann", under((*ANN, 0)), [(0, "both"), (0, "ann")])
    same("after the first", under((*ANN, both.id)), [(0, "ann")])
    asked = ((*RESIDUE, 0), (*BEN, 0), ("", "n9", 0), ('["n"]', "sann", 0), (*ANN, 0))
    expected = [(0, "rest"), (1, "both"), (4, "both"), (4, "ann")]
    same("of several", under(*asked), expected)
    same("a page", under(*asked, limit=2), expected[:2])
    watched(w, 1, hits=(hit(both, 1),))
    same("closed", under((*BEN, 0), (*ANN, 0)), [(1, "ann")])
    same("by id", [each.tag for each in w.store.waits(ann.id, 1)], ["nine"])


@check
def more_paths_than_can_be_named_are_none(w: Bench) -> None:
    """A thousand paths are named; where there are more, nobody has to know them."""
    worker = w.worker()
    mine = w.owned(worker, "i1")
    pivots = [(f'["k{n}"]', "n1") for n in range(1001)]
    opened(w, mine, worker, "many", *pivots[:1000])
    same("a thousand", len(w.store.standing().paths or ()), 1000)
    opened(w, mine, worker, "one more", pivots[1000])
    same("more", w.store.standing().paths, None)


@check
def first_wait_begins_where_everything_is(w: Bench) -> None:
    """Where none was open, a new wait has to look at nothing but what is its own."""
    append(w, "a", "b", "c")
    worker = w.worker()
    mine = w.owned(worker, "i1")
    wait = opened(w, mine, worker, "w#0", after=1)
    same("position", w.store.standing().position, 3)
    same("it and the end", (wait.scanned, wait.upto), (1, 3))
    same("behind", behind(w), [("w#0", 1, 3)])
    true("standing says so", w.store.standing().behind)
    watched(w, 2, caught_up=(wait.id,))
    same("half way", behind(w), [("w#0", 2, 3)])
    watched(w, 3, caught_up=(wait.id,))
    true("caught up", not w.store.standing().behind)


@check
def position_moves_with_its_hits(w: Bench) -> None:
    """Position and hits are one commit; it never goes back, and nothing else is moved."""
    append(w, "a", "b", "c")
    worker = w.worker()
    mine = w.owned(worker, "i1")
    wait = opened(w, mine, worker, "w#0", after=3)
    append(w, "d", "e")
    newest = w.store.standing().newest
    watched(w, 5, hits=(hit(wait, 4, 3),), newest=newest)
    same("open", w.store.waits(), [])
    same("position", w.store.standing().position, 5)
    watched(w, 4, newest=newest)
    same("not back", w.store.standing().position, 5)


@check
def wait_that_could_not_be_seen_catches_up(w: Bench) -> None:
    """Who moves the position says which waits he saw; newer ones look for themselves."""
    worker = w.worker()
    mine = w.owned(worker, "i1")
    opened(w, mine, worker, "seen")
    newest = w.store.standing().newest
    append(w, "a", "b", "c")
    new = opened(w, mine, worker, "new", after=1)
    watched(w, 3, newest=newest)
    same("behind", behind(w), [("new", 1, 3)])
    watched(w, 3, hits=(hit(new, 2, 1),))
    same("open", [each.tag for each in w.store.waits()], ["seen"])


@check
def hit_of_a_wait_that_is_behind_only_makes_it_look(w: Bench) -> None:
    """A wait gets its first activity: a later one doesn't count before it has caught up."""
    append(w, "a", "b", "c")
    worker = w.worker()
    mine = w.owned(worker, "i1")
    wait = opened(w, mine, worker, "w#0", after=0)
    append(w, "d")
    same("told", watched(w, 4, hits=(hit(wait, 4, 3),)), [])
    same("it has to look at this one too", behind(w), [("w#0", 0, 4)])
    watched(w, 1, caught_up=(wait.id,))
    same("its first", watched(w, 2, hits=(hit(wait, 2, 1),)), [(mine.number, worker[0])])


@check
def wait_that_cannot_be_read_is_left_behind(w: Bench) -> None:
    """Who passes over a wait leaves it to others, from where all were; others go on."""
    worker = w.worker()
    mine = w.owned(worker, "i1")
    first = opened(w, mine, worker, "new language")
    opened(w, mine, worker, "old language")
    newest = w.store.standing().newest
    append(w, "a", "b")
    watched(w, 1, newest=newest)
    watched(w, 2, passed_over=(first.id,), newest=newest)
    same("behind", behind(w), [("new language", 1, 2)])
    same("position", w.store.standing().position, 2)
    later = opened(w, mine, worker, "later", after=0)
    same("furthest first", w.store.waits_behind()[0].tag, "later")
    near = [each.tag for each in w.store.waits_behind(nearest_first=True)]
    same("nearest first", near, ["new language", "later"])
    rest = w.store.waits_behind((1, first.id), nearest_first=True)
    same("a page of those", [each.id for each in rest], [later.id])


@check
def nothing_is_written_where_nothing_moves(w: Bench) -> None:
    """A position that is old by now wakes no other worker."""
    worker = w.worker()
    mine = w.owned(worker, "i1")
    opened(w, mine, worker, "w#0")
    append(w, "a")
    watched(w, 1, newest=FAR)
    before = w.store.standing()
    watched(w, 1, newest=FAR)
    same("standing", w.store.standing(), before)


def cancelling(w: Bench, id: str) -> None:
    new = w.new(id, cancel_on=(NewWait(b"\x01", (ANN,)), NewWait(b"\x02", (BEN,))))
    true("it says that it opened some", w.ask(Start(new)).opened)


@check
def started_instance_is_cancelled_by_its_wait(w: Bench) -> None:
    """Waits that cancel land with their instance; a hit cancels it once, from anywhere."""
    append(w, "before")
    cancelling(w, "i1")
    first, second = w.store.waits()
    kept = [(each.action, each.pattern, each.scanned) for each in (first, second)]
    same("kept", kept, [("cancel", b"\x01", 1), ("cancel", b"\x02", 1)])
    worker = w.worker()
    (mine,) = w.claim(worker).claimed
    append(w, "a")
    hits = (hit(first, 2, 1), hit(second, 2, 1))
    same("told once", watched(w, 2, hits=hits), [(mine.number, worker[0])])
    same("inbox", kinds(w, mine), [("cancel", "")])
    same("closed", w.store.waits(), [])
    again = w.ask(Send("i1", "cancel", "", b"\xf6", NOON))
    same("a second cancel", again.verdict.value, "duplicate")


@check
def wait_lands_with_the_firing(w: Bench) -> None:
    """Inline or deferred, it waits from the activity that started the instance on."""
    registry = w.triggers("welcome")
    waits = (NewWait(b"\x01", (ANN,)),)

    def planned(id: str) -> PlannedFiring:
        return PlannedFiring("cid-welcome-one", w.new(id, cancel_on=waits))

    found, later, none = w.commit(
        w.append("a", (planned("i1"),), registry),
        w.append("b", None, registry),
        w.append("c", (), registry),
    )
    true("it says so", found.opened)
    (row,) = w.store.outbox(10)
    dispatched = w.ask(Dispatch(row.id, row.seq, row.registry, NOON, (planned("i2"),)))
    true("the dispatch says so", dispatched.opened)
    positions = [each.scanned for each in w.store.waits()]
    same("positions", positions, [found.seq, later.seq])
    true("the third is there", none.seq == 3)


@check
def waits_go_with_the_end_of_their_instance(w: Bench) -> None:
    """However it ends, in that very commit; a next generation keeps what cancels it."""
    worker = w.worker()

    def begun(id: str) -> Claimed:
        cancelling(w, id)
        (mine,) = w.claim(worker).claimed
        opened(w, mine, worker, "w#0")
        return mine

    for status in ("done", "failed", "cancelled"):
        w.do(worker, turn(begun(status), status=status))
        same(f"after {status}", w.store.waits(), [])
    begun("stopped")
    w.commit(Terminate("stopped", b"\xf6", NOON))
    same("after a termination", w.store.waits(), [])
    same("paths", w.store.standing().paths, ())
    mine = begun("next")
    w.do(worker, turn(mine, ContinueAsNew(1, b"\x18\x2a", b"new", b"\x80")))
    same("kept", [each.action for each in w.store.waits()], ["cancel", "cancel"])
