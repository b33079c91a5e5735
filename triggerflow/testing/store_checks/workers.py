"""Workers and the trigger registry."""

from __future__ import annotations

from triggerflow.store.operations import (
    Claim,
    Release,
)
from triggerflow.store.records import CRASH_LIMIT, NewTrigger
from triggerflow.testing.store_checks.bench import (
    APPLIED,
    DUPLICATE,
    FENCED,
    FLOWS,
    LEASE,
    Bench,
    Worker,
    check,
    same,
    true,
)

# --- workers ---------------------------------------------------------------------------------


@check
def release_hands_back(w: Bench) -> None:
    """Released instances are runnable again, no crash counted; others' are left alone."""
    one, two = w.worker(), w.worker()
    mine = w.owned(one, "i1")
    yours = w.owned(two, "i2")
    parked = w.owned(one, "i3")
    w.park(one, parked)
    w.do(one, Release((mine.number, yours.number, parked.number)))
    found = [(i.status, i.owner, i.crashes) for i in w.store.instances()]
    same(
        "instances", found, [("running", None, 0), ("running", two[0], 0), ("waiting", None, 0)]
    )
    same("claimable", [c.id for c in w.claim(two).claimed], ["i1"])


@check
def forget_worker_hands_back(w: Bench) -> None:
    """A worker that is given up hands all back without a crash, and can act no more."""
    worker = w.worker()
    mine = w.owned(worker, "i1")
    w.store.forget_worker(worker[0])
    found = w.get("i1")
    same("instance", (found.status, found.owner, found.crashes), ("running", None, 0))
    same("workers", w.store.workers(), [])
    same("its turn", w.ask(w.turn(mine, "now#0"), worker).verdict, FENCED)


@check
def close_gives_workers_up(w: Bench) -> None:
    """Closing hands back what workers owned, and counts no crash; the data stay."""
    worker = w.worker()
    mine = w.owned(worker, "i1")
    w.do(worker, w.turn(mine, "now#0"))
    w.reopen()
    same("workers", w.store.workers(), [])
    same("reaped", w.store.reap(), 0)
    found = w.get("i1")
    same("instance", (found.status, found.owner, found.crashes), ("running", None, 0))
    same("log", w.tags(mine), [(0, "now#0")])


@check
def workers_are_listed(w: Bench) -> None:
    """Workers are listed with build, epoch, age, life, and how many instances they own."""
    one, two = w.worker(), w.worker("build-b")
    w.owned(one, "i1")
    w.now += 5
    w.do(one, Release(()))
    found = [(r.id, r.epoch, r.build, r.seen, r.alive, r.owned) for r in w.store.workers()]
    same(
        "workers",
        found,
        [(*one, "build-a", w.now, True, 1), (*two, "build-b", w.now - 5, True, 0)],
    )


@check
def reap_frees_the_dead(w: Bench) -> None:
    """A worker whose process is gone is reaped without waiting for its lease."""
    worker = w.worker()
    owned, parked = w.owned(worker, "i1"), w.owned(worker, "i2")
    w.park(worker, parked)
    w.reopen(crash=True)
    same("alive", [each.alive for each in w.store.workers()], [False])
    same("freed", w.store.reap(), 1)
    found = [(i.status, i.owner, i.crashes) for i in w.store.instances()]
    same("instances", found, [("running", None, 1), ("waiting", None, 0)])
    same("a second time", w.store.reap(), 0)
    same("workers", w.store.workers(), [])
    later = w.worker()
    same("claimed", [c.number for c in w.claim(later).claimed], [owned.number])


@check
def reap_fences_the_dead(w: Bench) -> None:
    """After its reaping a worker's whole batch is fenced, even if nobody took over yet."""
    late = w.worker()
    mine = w.owned(late, "i1")
    w.start("i2")
    shown = w.now
    w.now += LEASE + 1
    same("freed", w.store.reap({late[0]: shown}), 1)
    before = w.everything()
    found = w.commit(
        w.turn(mine, "now#0", status="done"),
        w.block(mine),
        Release((mine.number,)),
        Claim(10, 1, "build-a", FLOWS, w.now),
        worker=late,
    )
    outcomes = [(each.verdict, each.detail) for each in found]
    same("outcomes", outcomes, [(FENCED, "worker")] * 4)
    same("the store", w.everything(), before)
    landed = w.ask(w.send("i1"), late)
    same("a message, that anybody may send", landed.verdict, APPLIED)


@check
def reap_leaves_the_living(w: Bench) -> None:
    """Of the silent ones, who shows no new sign of life is reaped; age alone is nothing."""
    idle, busy = w.worker(), w.worker()
    w.owned(idle, "i1")
    w.owned(busy, "i2")
    shown = {each.id: each.seen for each in w.store.workers()}
    same("signs of life", shown, {idle[0]: w.now, busy[0]: w.now})
    w.now += 1e9
    same("without a silent one", w.store.reap(), 0)
    w.do(busy, Release(()))
    same("freed", w.store.reap(shown), 1)
    found = [(i.owner, i.crashes) for i in w.store.instances()]
    same("instances", found, [(None, 1), (busy[0], 0)])
    same("workers", [each.id for each in w.store.workers()], [busy[0]])


@check
def reap_blocks_at_the_crash_limit(w: Bench) -> None:
    """At the crash limit, not before, an instance is blocked with cause and reason."""
    w.start("i1")
    for number in range(1, CRASH_LIMIT + 1):
        same("status", w.get("i1").status, "running")
        w.crash(1)
        same("crashes", w.get("i1").crashes, number)
    found = w.get("i1")
    same("instance", (found.status, found.cause), ("blocked", "crash_limit"))
    true("there is a reason", found.reason)
    same("a message", w.ask(w.send("i1")).verdict, APPLIED)
    same("status after it", w.get("i1").status, "blocked")


@check
def epochs_are_never_reused(w: Bench) -> None:
    """No later worker gets the (id, epoch) of an earlier one, not even of a forgotten one."""
    seen: list[Worker] = []
    for _ in range(3):
        seen.append(w.worker())
        w.store.forget_worker(seen[-1][0])
        seen.append(w.worker())
        w.reopen(crash=True)
        w.store.reap()
    same("workers", len(set(seen)), len(seen))


# --- triggers --------------------------------------------------------------------------------


@check
def sync_is_idempotent(w: Bench) -> None:
    """The registry generation grows when something changes, and only then."""
    same("at first", w.store.registry(), (0, ()))
    same("nothing to make current", w.triggers(), 0)
    first = w.triggers("a", "b")
    true("the first triggers make it grow", first > 0)
    same("again", (w.triggers("a", "b"), w.triggers("b")), (first, first))
    generation, found = w.store.registry()
    same("generation", generation, first)
    parts = [(t.name, t.cid, t.spec, t.state) for t in found]
    same(
        "triggers",
        parts,
        [("a", "cid-a-one", b"a one", "active"), ("b", "cid-b-one", b"b one", "active")],
    )


@check
def sync_supersedes_by_name(w: Bench) -> None:
    """A changed trigger supersedes the one of its name, and no other; firings stay."""
    first = w.triggers("a", "b")
    w.ask(w.append("x", [w.fires("a", "i1")], first))
    second = w.triggers("a", spec="two")
    true("the generation grows", second > first)
    generation, found = w.store.registry()
    same("generation", generation, second)
    same("current", sorted(t.cid for t in found), ["cid-a-two", "cid-b-one"])
    same("firing", [f.trigger_cid for f in w.store.firings("cid-x")], ["cid-a-one"])
    landed = w.ask(w.append("y", [w.fires("a", "i2", "two")], second))
    same("an append planned with the new one", landed.verdict, APPLIED)


@check
def sync_supersedes_by_meaning(w: Bench) -> None:
    """A trigger under a new name takes the place of its old name; both never fire."""
    w.store.sync_triggers([NewTrigger("old", "cid-1", b"1", "the meaning")], now=w.now)
    number = w.store.sync_triggers([NewTrigger("new", "cid-2", b"2", "the meaning")], now=w.now)
    same("current", [t.name for t in w.store.registry()[1]], ["new"])
    same("generation", w.store.registry()[0], number)
    w.store.sync_triggers([NewTrigger("old", "cid-1", b"1", "the meaning")], now=w.now)
    same("and back", [t.name for t in w.store.registry()[1]], ["old"])


@check
def triggers_of_an_earlier_generation(w: Bench) -> None:
    """What was current at a generation can still be asked for."""
    first = w.triggers("a", "b")
    second = w.triggers("a", spec="two")
    third = w.triggers("c")
    found = [
        [(t.name, t.cid) for t in w.store.triggers_at(number)]
        for number in (first, second, third)
    ]
    a, b = ("a", "cid-a-one"), ("b", "cid-b-one")
    two, c = ("a", "cid-a-two"), ("c", "cid-c-one")
    same("by generation", found, [[a, b], [b, two], [b, two, c]])


@check
def sync_goes_back(w: Bench) -> None:
    """An old spec can be made current again, and its pairs have still fired."""
    first = w.triggers("a")
    w.ask(w.append("x", [w.fires("a", "i1")], first))
    second = w.triggers("a", spec="two")
    third = w.triggers("a")
    true("the generation grows each time", first < second < third)
    same("current", [t.cid for t in w.store.registry()[1]], ["cid-a-one"])
    again = w.ask(w.append("x", [w.fires("a", "i2")], third))
    same("the old pair", (again.verdict, len(again.firings or ())), (DUPLICATE, 1))
