"""Messages and unblocking."""

from __future__ import annotations

from triggerflow.store.operations import (
    Start,
    Terminate,
    Unblock,
)
from triggerflow.store.records import CRASH_LIMIT
from triggerflow.testing.store_checks.bench import (
    APPLIED,
    CONFLICT,
    DUPLICATE,
    FENCED,
    GONE,
    Bench,
    check,
    same,
)

# --- messages --------------------------------------------------------------------------------


@check
def send_to_unknown(w: Bench) -> None:
    """A message to an instance that doesn't exist is gone, and nothing is stored."""
    w.start("i1")
    gone, landed = w.commit(w.send("nobody"), w.send("i1"))
    same("verdicts", (gone.verdict, landed.verdict), (GONE, APPLIED))
    same("messages", w.store.counts().inbox, 1)


@check
def send_to_ended(w: Bench) -> None:
    """A message to an instance that has ended is gone, and nothing is stored."""
    worker = w.worker()
    for status in ("done", "failed", "cancelled"):
        mine = w.owned(worker, status)
        w.end(worker, mine, status)
        for kind in ("signal", "cancel", "complete"):
            found = w.ask(w.send(status, kind=kind, dedup=kind, digest=b"d"))
            same(f"{kind} to {status}", found.verdict, GONE)
        same(f"inbox of {status}", w.messages(mine), [])
        same(f"status of {status}", w.get(status).status, status)


@check
def send_lands_in_order(w: Bench) -> None:
    """Messages wait unread, in the order in which they came, with all their parts."""
    w.start("i1", "i2")
    found = w.commit(
        w.send("i1", "a", b"1"),
        w.send("i2", "a", b"2"),
        w.send("i1", "b", b"3", kind="complete", dedup="d", digest=b"d"),
    )
    found += w.commit(w.send("i1", "c", b"4"))
    one = w.get("i1")
    rows = w.store.inbox(one.number)
    parts = [(r.kind, r.name, r.payload, r.at) for r in rows]
    same(
        "inbox",
        parts,
        [
            ("signal", "a", b"1", w.now),
            ("complete", "b", b"3", w.now),
            ("signal", "c", b"4", w.now),
        ],
    )
    same("numbers", [r.id for r in rows], [each.inbox for each in (found[0], *found[2:])])
    same("after the first", w.messages(one, rows[0].id), [b"3", b"4"])
    first = found[0]
    same("outcome", (first.instance, first.number, first.owner), ("i1", one.number, None))


@check
def send_wakes_parked(w: Bench) -> None:
    """A message to a parked instance makes it runnable; the next claim brings both."""
    worker = w.worker()
    w.park(worker, w.owned(worker, "i1"))
    same("nothing to claim", w.claim(worker).claimed, ())
    w.ask(w.send("i1"))
    same("status", w.get("i1").status, "running")
    claimed = w.claim(worker).claimed
    same("claimed", [each.id for each in claimed], ["i1"])
    same("its inbox", [row.payload for row in claimed[0].inbox], [b"yes"])


@check
def send_wakes_who_awaits(w: Bench) -> None:
    """A signal that a parked instance doesn't wait for is kept and wakes nobody."""
    worker = w.worker()
    w.park(worker, w.owned(worker, "i1"), awaits=("reply", "answer"))
    w.park(worker, w.owned(worker, "i2"), awaits=())
    w.commit(w.send("i1", "other"), w.send("i2", "other"))
    same("asleep", [w.get(id).status for id in ("i1", "i2")], ["waiting"] * 2)
    same("nothing to claim", w.claim(worker).claimed, ())
    same("kept", w.messages(w.get("i1")), [b"yes"])
    w.commit(w.send("i1", "answer"), w.send("i2", kind="cancel"))
    claimed = w.claim(worker).claimed
    same("awake", [each.id for each in claimed], ["i1", "i2"])
    same("inbox", [row.name for row in claimed[0].inbox], ["other", "answer"])


@check
def send_wakes_for_another_build(w: Bench) -> None:
    """Where builds differ, any signal wakes: another one may wait for it."""
    worker = w.worker()
    w.park(worker, w.owned(worker, "i1"), awaits=("reply",))
    w.worker(build="build-b")
    w.ask(w.send("i1", "other"))
    same("with two builds", w.get("i1").status, "running")


@check
def send_wakes_for_whoever_comes_after(w: Bench) -> None:
    """The worker that parked it is gone, and its build with it: any signal wakes."""
    worker = w.worker()
    w.park(worker, w.owned(worker, "i1"), awaits=("reply",))
    w.store.forget_worker(worker[0])
    w.worker()
    w.ask(w.send("i1", "other"))
    same("after it is gone", w.get("i1").status, "running")


@check
def send_tells_owner(w: Bench) -> None:
    """An owner hears once of messages that others wrote, and of none that it wrote itself."""
    worker = w.worker()
    mine = w.owned(worker, "i1")
    own = w.ask(w.send("i1", payload=b"own"), worker)
    same("owner", own.owner, worker[0])
    same("after its own", w.store.woken(worker[0]), [])
    other = w.ask(w.send("i1", payload=b"other"))
    same("owner", other.owner, worker[0])
    told = [(n, [row.payload for row in rows]) for n, rows in w.store.woken(worker[0])]
    same("woken", told, [(mine.number, [b"own", b"other"])])
    same("a second time", w.store.woken(worker[0]), [])
    same("still owned", w.get("i1").owner, worker[0])


@check
def send_leaves_blocked(w: Bench) -> None:
    """A blocked instance keeps the message and stays blocked."""
    worker = w.worker()
    mine = w.owned(worker, "i1")
    w.do(worker, w.block(mine))
    same("verdict", w.ask(w.send("i1")).verdict, APPLIED)
    found = w.get("i1")
    same("instance", (found.status, found.cause), ("blocked", "diverged"))
    same("inbox", w.messages(mine), [b"yes"])


@check
def cancel_twice(w: Bench) -> None:
    """A second cancel is a duplicate, in one batch or later; a claim says cancelled."""
    worker = w.worker()
    w.start("i1")
    found = w.commit(w.send("i1", kind="cancel"), w.send("i1", kind="cancel"))
    found += w.commit(w.send("i1", kind="cancel"))
    same("verdicts", [each.verdict for each in found], [APPLIED, DUPLICATE, DUPLICATE])
    claimed = w.claim(worker).claimed[0]
    same("cancelled", claimed.cancelled, True)
    same("messages", [row.kind for row in claimed.inbox], ["cancel"])


@check
def send_with_dedup_key(w: Bench) -> None:
    """An equal dedup key is a duplicate with the same payload, a conflict with another."""
    w.start("i1", "i2")
    found = w.commit(
        w.send("i1", payload=b"1", dedup="d", digest=b"1"),
        w.send("i1", payload=b"1", dedup="d", digest=b"1"),
        w.send("i1", payload=b"2", dedup="d", digest=b"2"),
        w.send("i1", "other", payload=b"3", dedup="d", digest=b"3"),
        w.send("i2", payload=b"4", dedup="d", digest=b"4"),
    )
    expected = [APPLIED, DUPLICATE, CONFLICT, APPLIED, APPLIED]
    same("in one batch", [each.verdict for each in found], expected)
    later = w.commit(
        w.send("i1", payload=b"1", dedup="d", digest=b"1"),
        w.send("i1", payload=b"2", dedup="d", digest=b"2"),
    )
    same("later", [each.verdict for each in later], [DUPLICATE, CONFLICT])
    same("inbox", w.messages(w.get("i1")), [b"1", b"3"])


@check
def dedup_outlives_consumption(w: Bench) -> None:
    """A dedup key is remembered after its message was consumed."""
    worker = w.worker()
    mine = w.owned(worker, "i1")
    sent = w.ask(w.send("i1", payload=b"1", dedup="d", digest=b"1"))
    w.do(worker, w.turn(mine, "wait_signal:reply#0", consumed=(sent.inbox or 0,)))
    same("inbox", w.messages(mine), [])
    again = w.ask(w.send("i1", payload=b"1", dedup="d", digest=b"1"))
    other = w.ask(w.send("i1", payload=b"2", dedup="d", digest=b"2"))
    same("verdicts", (again.verdict, other.verdict), (DUPLICATE, CONFLICT))
    same("inbox afterwards", w.messages(mine), [])
    same("messages", w.store.counts().inbox, 0)


@check
def retry_needs_a_failure(w: Bench) -> None:
    """A retry of what hasn't failed is a conflict, and changes nothing."""
    worker = w.worker()
    w.end(worker, w.owned(worker, "done"))
    w.do(worker, w.block(w.owned(worker, "blocked")))
    w.park(worker, w.owned(worker, "parked"))
    w.owned(worker, "owned")
    w.start("runnable")
    before = w.everything()
    for name in ("done", "blocked", "parked", "owned", "runnable"):
        same(f"retry of {name}", w.ask(w.send(name, kind="retry")).verdict, CONFLICT)
    same("the store", w.everything(), before)
    same("retry of nobody", w.ask(w.send("nobody", kind="retry")).verdict, GONE)


@check
def retry_revives(w: Bench) -> None:
    """A failed instance that is retried runs again, its log kept, its failure forgotten."""
    worker = w.worker()
    mine = w.owned(worker, "i1")
    w.end(worker, mine, "failed", entries=w.turn(mine, "call:a#0").entries)
    first, again = w.commit(w.send("i1", kind="retry"), w.send("i1", kind="retry"))
    same("verdicts", (first.verdict, again.verdict), (APPLIED, CONFLICT))
    found = w.get("i1")
    same(
        "instance",
        (found.status, found.owner, found.value, found.ended, found.log_length),
        ("running", None, None, None, 1),
    )
    claimed = w.claim(worker).claimed[0]
    same("claimed", (claimed.id, [row.kind for row in claimed.inbox]), ("i1", ["retry"]))
    same("its log", [row.tag for row in claimed.log or ()], ["call:a#0"])


@check
def retry_with_taken_key(w: Bench) -> None:
    """A retry is refused while another live instance holds the key."""
    worker = w.worker()
    w.ask(Start(w.new("i1", key="k")))
    w.end(worker, w.claim(worker).claimed[0], "failed")
    w.ask(Start(w.new("i2", key="k")))
    same("verdict", w.ask(w.send("i1", kind="retry")).verdict, CONFLICT)
    same("status", w.get("i1").status, "failed")
    w.end(worker, w.claim(worker).claimed[0])
    same("once it is free", w.ask(w.send("i1", kind="retry")).verdict, APPLIED)


@check
def retries_of_one_key_in_one_batch(w: Bench) -> None:
    """Of two failed instances of one key that are retried in one batch, one is refused."""
    worker = w.worker()
    for name in ("i1", "i2"):
        w.ask(Start(w.new(name, key="k")))
        w.end(worker, w.claim(worker).claimed[0], "failed")
    found = w.commit(w.send("i1", kind="retry"), w.send("i2", kind="retry"))
    same("verdicts", [each.verdict for each in found], [APPLIED, CONFLICT])
    same("statuses", [w.get(name).status for name in ("i1", "i2")], ["running", "failed"])


# --- terminating -------------------------------------------------------------------------


@check
def terminate_ends_at_once(w: Bench) -> None:
    """A termination ends what runs, waits or is blocked, and fences its owner."""
    worker = w.worker()
    owned = w.owned(worker, "i1")
    parked = w.owned(worker, "i2")
    w.park(worker, parked)
    blocked = w.owned(worker, "i3")
    w.do(worker, w.block(blocked))
    w.ask(w.send("i1"))
    for name in ("i1", "i2", "i3"):
        found = w.ask(Terminate(name, b"why", w.now + 1))
        same(f"verdict of {name}", found.verdict, APPLIED)
        row = w.get(name)
        same(
            name,
            (row.status, row.owner, row.value, row.ended, row.cause),
            ("cancelled", None, b"why", w.now + 1, None),
        )
    same("inbox", w.messages(owned), [])
    late, neighbour = w.commit(w.turn(owned, "now#0"), Start(w.new("n")), worker=worker)
    same("its owner's turn", (late.verdict, neighbour.verdict), (FENCED, APPLIED))
    same("nothing left but the neighbour", [c.id for c in w.claim(worker).claimed], ["n"])


@check
def terminate_needs_a_live_one(w: Bench) -> None:
    """An unknown or ended instance can't be terminated."""
    worker = w.worker()
    w.end(worker, w.owned(worker, "i1"))
    before = w.everything()
    unknown, ended = w.commit(Terminate("none", b"v", 1.0), Terminate("i1", b"v", 1.0))
    same("unknown", (unknown.verdict, unknown.instance), (GONE, None))
    same("ended", (ended.verdict, ended.detail), (GONE, "done"))
    same("everything", w.everything(), before)


# --- unblocking ------------------------------------------------------------------------------


@check
def unblock_forgets_what_was_tried(w: Bench) -> None:
    """An unblocked instance is runnable for every build again, tried ones included."""
    worker = w.worker()
    w.do(worker, w.block(w.owned(worker, "i1")))
    again, twice = w.commit(Unblock("i1"), Unblock("i1"))
    same("verdicts", (again.verdict, twice.verdict), (APPLIED, CONFLICT))
    found = w.get("i1")
    same(
        "instance",
        (found.status, found.owner, found.cause, found.reason),
        ("running", None, None, None),
    )
    same("outcome", (again.instance, again.number), ("i1", found.number))
    same("claimed", [c.id for c in w.claim(worker).claimed], ["i1"])


@check
def unblock_lifts_the_crash_limit(w: Bench) -> None:
    """An instance at its crash limit runs again once it is unblocked, its crashes forgotten."""
    w.start("i1")
    w.crash(CRASH_LIMIT)
    same("verdict", w.ask(Unblock("i1")).verdict, APPLIED)
    found = w.claim(w.worker()).claimed
    same("claimed", [(c.id, c.crashes) for c in found], [("i1", 0)])


@check
def unblock_needs_a_blocked_one(w: Bench) -> None:
    """Unblocking what is not blocked is a conflict, what is not there gone; nothing changes."""
    worker = w.worker()
    w.end(worker, w.owned(worker, "done"))
    w.park(worker, w.owned(worker, "parked"))
    w.owned(worker, "owned")
    w.start("runnable")
    before = w.everything()
    for name in ("done", "parked", "owned", "runnable"):
        same(f"unblock of {name}", w.ask(Unblock(name)).verdict, CONFLICT)
    same("unblock of nobody", w.ask(Unblock("nobody")).verdict, GONE)
    same("the store", w.everything(), before)
