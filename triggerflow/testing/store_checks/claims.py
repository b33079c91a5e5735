"""Claims: who gets which instance."""

from __future__ import annotations

from triggerflow.store.operations import (
    LogRow,
    Release,
)
from triggerflow.store.records import CRASH_LIMIT, SUSPECT
from triggerflow.testing.store_checks.bench import (
    Bench,
    check,
    same,
    true,
)

# --- claims ----------------------------------------------------------------------------------


@check
def claim_gives_everything(w: Bench) -> None:
    """A claim brings all that is needed to drive: input, seed, log, pending set, inbox."""
    worker = w.worker()
    mine = w.owned(worker, "i1")
    row = LogRow("call:a#0", b"v", True, b"d", w.now)
    w.park(worker, mine, entries=(row,), pending=b"p", started=w.now + 1)
    w.ask(w.send("i1"))
    (found,) = w.claim(worker).claimed
    same(
        "claimed",
        (found.number, found.id, found.flow, found.version, found.generation),
        (mine.number, "i1", "welcome", 1, 1),
    )
    same(
        "its state",
        (found.log_length, found.pending, found.crashes, found.cancelled, found.started),
        (1, b"p", 0, False, w.now + 1),
    )
    same("input and seed", (found.input, found.seed), (b"input", b"seed"))
    same("log", list(found.log or ()), w.store.log(mine.number, 1))
    same("inbox", list(found.inbox), w.store.inbox(mine.number))
    same("owner", w.get("i1").owner, worker[0])


@check
def claim_takes_oldest_first(w: Bench) -> None:
    """A claim takes at most so many, oldest first, and nothing that is owned already."""
    w.start("i1", "i2", "i3", "i4", "i5")
    one, two = w.worker(), w.worker()
    same("first", [c.id for c in w.claim(one, limit=2).claimed], ["i1", "i2"])
    same("second", [c.id for c in w.claim(two, limit=2).claimed], ["i3", "i4"])
    same("third", [c.id for c in w.claim(one, limit=2).claimed], ["i5"])
    same("fourth", w.claim(two, limit=2).claimed, ())


@check
def claim_says_when_there_is_more(w: Bench) -> None:
    """A claim that leaves something claimable behind says that there may be more."""
    w.start("i1", "i2", "i3")
    one, two = w.worker(), w.worker("build-b")
    same("one is left", w.claim(one, limit=2).more, True)
    w.claim(one, limit=2)
    same("nothing is left", w.claim(one, limit=2).more, False)
    for name in ("i1", "i2"):
        w.do(one, w.block(w.get(name)))
    same("a blocked one is left", w.claim(two, build="build-b", blocked=1).more, True)


@check
def claim_takes_known_flows(w: Bench) -> None:
    """A claim takes instances of flows and versions that the worker knows, no others."""
    w.worker("build-b", [("other", 1), ("welcome", 2)])
    w.start("i1", flow="other")
    w.start("i2", version=2)
    w.start("i3")
    found = w.claim(w.worker())
    same("claimed", [each.id for each in found.claimed], ["i3"])
    same("the others", [w.get(name).status for name in ("i1", "i2")], ["running"] * 2)


@check
def claim_fills_in_the_version(w: Bench) -> None:
    """An instance without a version gets the worker's latest one, for good."""
    w.start("i1", version=None)
    flows = [("welcome", 1), ("welcome", 3)]
    found = w.claim(w.worker(flows=flows), flows=frozenset(flows))
    same("claimed", [(each.id, each.version) for each in found.claimed], [("i1", 3)])
    same("stored", w.get("i1").version, 3)


@check
def claim_skips_a_tried_build(w: Bench) -> None:
    """A blocked instance isn't tried again with a build that it was tried with."""
    worker = w.worker()
    w.do(worker, w.block(w.owned(worker, "i1")))
    same("same build", w.claim(worker).claimed, ())
    same("a new worker of it", w.claim(w.worker()).claimed, ())
    other = w.worker("build-b")
    (again,) = w.claim(other, build="build-b").claimed
    same("another build", again.id, "i1")
    found = w.get("i1")
    same("instance", (found.status, found.cause, found.reason), ("running", None, None))
    w.do(other, w.block(again, "build-b"))
    same("the first build", w.claim(worker).claimed, ())
    same("the second build", w.claim(other, build="build-b").claimed, ())
    third = w.claim(w.worker("build-c"), build="build-c").claimed
    same("a third build", [each.id for each in third], ["i1"])


@check
def claim_forgets_tried_builds_at_the_end(w: Bench) -> None:
    """An instance that ended and was retried may block and be tried by any build again."""
    one, two = w.worker(), w.worker("build-b")
    w.do(one, w.block(w.owned(one, "i1")))
    w.end(two, w.claim(two, build="build-b").claimed[0], "failed")
    w.ask(w.send("i1", kind="retry"))
    same("the first build", [c.id for c in w.claim(one).claimed], ["i1"])


@check
def claim_takes_few_blocked(w: Bench) -> None:
    """Of blocked instances a claim takes at most its blocked share, within its limit."""
    one, two = w.worker(), w.worker("build-b")
    for name in ("b1", "b2", "b3"):
        w.do(one, w.block(w.owned(one, name)))
    w.start("i1", "i2", "i3")
    same("no share", w.claim(two, build="build-b", limit=0, blocked=0).claimed, ())
    found = [c.id for c in w.claim(two, build="build-b", limit=3, blocked=2).claimed]
    true(f"at most 3 are claimed, not {found}", len(found) <= 3)
    blocked = [name for name in found if name.startswith("b")]
    true(f"runnable ones leave room for a blocked one in {found}", blocked)
    true(f"at most 2 of {found} were blocked", len(blocked) <= 2)
    true(f"the oldest come first in {blocked}", blocked == ["b1", "b2"][: len(blocked)])


@check
def claim_leaves_crash_limit(w: Bench) -> None:
    """An instance at its crash limit is claimed by nobody, whatever the build."""
    w.start("i1")
    w.crash(CRASH_LIMIT)
    same("status", w.get("i1").status, "blocked")
    worker = w.worker("build-b")
    found = w.claim(worker, build="build-b", blocked=5, alone=True)
    same("claimed", found.claimed, ())


@check
def claim_flips_due_timers(w: Bench) -> None:
    """A claim takes parked instances that are due, and says when the next one is."""
    worker = w.worker()
    for name, due in (("i1", 10.0), ("i2", 20.0), ("i3", None), ("i4", 30.0)):
        w.park(worker, w.owned(worker, name), due=None if due is None else w.now + due)
    found = w.claim(worker, now=w.now + 9)
    same("too early", (found.claimed, found.next_due), ((), w.now + 10))
    same("the clock is the caller's", w.claim(worker).claimed, ())
    found = w.claim(worker, now=w.now + 20)
    same("due", sorted(each.id for each in found.claimed), ["i1", "i2"])
    same("next due", found.next_due, w.now + 30)
    same("status", w.get("i1").status, "running")
    same("without a timer", w.get("i3").status, "waiting")


@check
def claim_skips_warm_logs(w: Bench) -> None:
    """What the worker has, at that generation and after that turn, isn't read again."""
    worker = w.worker()
    mine = w.owned(worker, "i1")
    w.park(worker, mine, entries=w.turn(mine, "now#0").entries)
    w.ask(w.send("i1", payload=b"1"))
    (warm,) = w.claim(worker, warm={mine.number: (1, 1)}).claimed
    same("warm", (warm.log, [row.payload for row in warm.inbox]), (None, [b"1"]))
    for standing in ((1, 0), (1, 2), (2, 1)):
        w.do(worker, Release((mine.number,)))
        (cold,) = w.claim(worker, warm={mine.number: standing}).claimed
        same(f"cold at {standing}", [row.tag for row in cold.log or ()], ["now#0"])


@check
def claim_of_suspects(w: Bench) -> None:
    """Whose owners died twice is claimed only by a worker that has nothing, and alone."""
    w.start("i1")
    w.crash(SUSPECT)
    w.start("i2", "i3")
    worker = w.worker()
    found = w.claim(worker, limit=1)
    same("not alone", ([c.id for c in found.claimed], found.suspects), (["i2"], True))
    found = w.claim(w.worker(), alone=True)
    same("alone", [(c.id, c.crashes) for c in found.claimed], [("i1", SUSPECT)])
    found = w.claim(w.worker(), alone=True)
    same("the rest", ([c.id for c in found.claimed], found.suspects), (["i3"], False))


@check
def claim_of_blocked_suspects(w: Bench) -> None:
    """A blocked instance whose owners died twice is tried by another build alone, too."""
    w.start("i1")
    w.crash(SUSPECT)
    one, two = w.worker(), w.worker("build-b")
    w.do(one, w.block(w.claim(one, alone=True).claimed[0]))
    w.start("i2")
    found = [c.id for c in w.claim(two, build="build-b").claimed]
    same("not alone", found, ["i2"])
    third = w.worker("build-c")
    found = [c.id for c in w.claim(third, build="build-c", alone=True).claimed]
    same("alone", found, ["i1"])


@check
def claim_blocks_what_all_have_tried(w: Bench) -> None:
    """Runnable for builds that are gone only: blocked visibly, and taken when one comes."""
    worker = w.worker()
    w.do(worker, w.block(w.owned(worker, "i1")))
    fits = w.worker("build-b")
    (mine,) = w.claim(fits, build="build-b").claimed
    w.park(fits, mine)
    w.ask(w.send("i1"))
    same("left for the other", w.claim(worker).claimed, ())
    same("status", w.get("i1").status, "running")
    w.store.forget_worker(fits[0])
    same("still not ours", w.claim(worker).claimed, ())
    found = w.get("i1")
    same("it says so", (found.status, found.cause), ("blocked", "diverged"))
    true("the reason names the build that was tried", "build-a" in (found.reason or ""))
    again = w.claim(w.worker("build-b"), build="build-b").claimed
    same("healed", [each.id for each in again], ["i1"])


@check
def claim_blocks_unknown_flows(w: Bench) -> None:
    """What no registered worker knows is blocked visibly, and heals when one comes."""
    w.start("i1", flow="ghost")
    w.start("i2", version=7)
    w.start("i3", flow="ghost", version=None)
    worker = w.worker()
    same("claimed", w.claim(worker).claimed, ())
    found = [(w.get(name).status, w.get(name).cause) for name in ("i1", "i2", "i3")]
    unknown = ("blocked", "unknown_flow")
    same("instances", found, [unknown, ("blocked", "unknown_version"), unknown])
    true("the reason names the flow", "ghost" in (w.get("i1").reason or ""))
    true("the reason names the version", "7" in (w.get("i2").reason or ""))
    flows = frozenset({("ghost", 1), ("welcome", 7)})
    knows = w.worker("build-b", flows)
    claimed = w.claim(knows, build="build-b", flows=flows, blocked=5).claimed
    same("healed", [(c.id, c.version) for c in claimed], [("i1", 1), ("i2", 7), ("i3", 1)])
