"""Turns and blocks: who may write a log, and when."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import attrs

from triggerflow.core.log import IN_ROWS
from triggerflow.store.acts import ContinueAsNew
from triggerflow.store.operations import (
    Block,
    Claim,
    LogRow,
    Operation,
    Release,
    Start,
    Terminate,
    Turn,
)
from triggerflow.store.records import Claimed
from triggerflow.testing.store_checks.bench import (
    APPLIED,
    FENCED,
    FLOWS,
    Bench,
    Worker,
    check,
    same,
)

# --- turns -----------------------------------------------------------------------------------


def _refused(w: Bench, breach: Callable[[Worker, Claimed], tuple[Worker, Turn, Block]]) -> None:
    """A turn and a block that break their precondition change nothing; neighbours land."""
    worker = w.worker()
    mine = w.owned(worker, "i1")
    w.do(worker, w.turn(mine, "call:a#0"))
    sent = w.ask(w.send("i1"))
    mine = attrs.evolve(mine, log_length=1)
    who, turn, block = breach(worker, mine)
    turn = attrs.evolve(turn, consumed=(sent.inbox or 0,))
    before = (w.get("i1"), w.tags(mine), w.messages(mine))
    operations: tuple[Operation, ...] = (turn, block)
    for number, operation in enumerate(operations):
        found, landed = w.commit(operation, Start(w.new(f"n{number}")), worker=who)
        same("refused and neighbour", (found.verdict, landed.verdict), (FENCED, APPLIED))
        same("the instance", (w.get("i1"), w.tags(mine), w.messages(mine)), before)
        same("the neighbour", w.get(f"n{number}").status, "running")
    same("the true owner", w.do(worker, w.turn(mine, "call:b#0")).verdict, APPLIED)
    same("its log", w.tags(mine), [(0, "call:a#0"), (1, "call:b#0")])


@check
def turn_needs_the_owner(w: Bench) -> None:
    """A turn or block of a worker that doesn't own the instance is fenced."""

    def breach(_: Worker, mine: Claimed) -> tuple[Worker, Turn, Block]:
        return w.worker("build-b"), w.turn(mine, "call:x#0", status="done"), w.block(mine)

    _refused(w, breach)


@check
def turn_needs_the_generation(w: Bench) -> None:
    """A turn or block of another generation is fenced."""

    def breach(worker: Worker, mine: Claimed) -> tuple[Worker, Turn, Block]:
        other = attrs.evolve(mine, generation=2)
        return worker, w.turn(other, "call:x#0", status="done"), w.block(other)

    _refused(w, breach)


@check
def turn_needs_the_log_length(w: Bench) -> None:
    """A turn or block of a stale cached log is fenced, be it shorter or longer."""

    def breach(worker: Worker, mine: Claimed) -> tuple[Worker, Turn, Block]:
        shorter = attrs.evolve(mine, log_length=0)
        longer = attrs.evolve(mine, log_length=2)
        return worker, w.turn(shorter, "call:x#0", status="done"), w.block(longer)

    _refused(w, breach)


@check
def turn_needs_the_epoch(w: Bench) -> None:
    """A turn or block of a worker with another epoch is fenced, and says worker."""

    def breach(worker: Worker, mine: Claimed) -> tuple[Worker, Turn, Block]:
        late = (worker[0], worker[1] + 1)
        found = w.ask(w.turn(mine, "call:x#0"), late)
        same("outcome", (found.verdict, found.detail), (FENCED, "worker"))
        return late, w.turn(mine, "call:x#0", status="done"), w.block(mine)

    _refused(w, breach)


@check
def turn_needs_a_worker(w: Bench) -> None:
    """Without a worker, turns, blocks, releases and claims are fenced; the rest lands."""
    worker = w.worker()
    mine = w.owned(worker, "i1")
    found = w.commit(
        w.turn(mine, "call:x#0"),
        w.block(mine),
        Release((mine.number,)),
        Claim(10, 1, "build-a", FLOWS, w.now),
        Start(w.new("i2")),
    )
    same("verdicts", [each.verdict for each in found], [FENCED] * 4 + [APPLIED])
    same("owner", w.get("i1").owner, worker[0])


@check
def turn_needs_an_owned_instance(w: Bench) -> None:
    """A former owner can't touch an instance that it parked, or that has ended."""
    worker = w.worker()
    parked, ended = w.owned(worker, "i1"), w.owned(worker, "i2")
    w.park(worker, parked)
    w.end(worker, ended)
    before = w.everything()
    for mine in (parked, ended):
        for operation in (w.turn(mine, "call:x#0"), w.turn(mine), w.block(mine)):
            same("verdict", w.ask(operation, worker).verdict, FENCED)
    same("the store", w.everything(), before)


@check
def turns_of_one_instance_in_one_batch(w: Bench) -> None:
    """The second turn of a batch on one instance meets the log that the first one left."""
    worker = w.worker()
    mine = w.owned(worker, "i1")
    found = w.commit(
        w.turn(mine, "call:a#0"), w.turn(mine, "call:b#0"), w.block(mine), worker=worker
    )
    same("verdicts", [each.verdict for each in found], [APPLIED, FENCED, FENCED])
    same("log", w.tags(mine), [(0, "call:a#0")])
    same("status", w.get("i1").status, "running")


@check
def turn_extends_the_log(w: Bench) -> None:
    """Entries stand in order with growing positions; what stood there before stays."""
    worker = w.worker()
    w.start("i1", "i2")
    one, two = w.claim(worker).claimed
    rows = (
        LogRow("call:a#0", b"value", False, b"digest", w.now),
        LogRow("call:b#0", b"failure", True, None, w.now + 1),
    )
    w.commit(w.turn(one, entries=rows), w.turn(two, "sleep#0"), worker=worker)
    first = w.store.log(one.number, 1)
    parts = [(r.position, r.tag, r.value, r.failed, r.digest, r.at) for r in first]
    same(
        "log",
        parts,
        [
            (0, "call:a#0", b"value", False, b"digest", w.now),
            (1, "call:b#0", b"failure", True, None, w.now + 1),
        ],
    )
    w.do(worker, w.turn(attrs.evolve(one, log_length=2), "now#0", "call:c#0"))
    longer = w.store.log(one.number, 1)
    same("what stood there", longer[:2], first)
    same(
        "what came", [(r.position, r.tag) for r in longer[2:]], [(2, "now#0"), (3, "call:c#0")]
    )
    same("lengths", (w.get("i1").log_length, w.get("i2").log_length), (4, 1))
    same("the other log", w.tags(two), [(0, "sleep#0")])
    same("another generation", w.store.log(one.number, 2), [])


@check
def turn_keeps_running(w: Bench) -> None:
    """A running turn stays owned; the pending set is replaced, the first start time kept."""
    worker = w.worker()
    mine = w.owned(worker, "i1")
    w.do(worker, w.turn(mine, pending=b"one", started=w.now + 1))
    w.do(worker, w.turn(mine, pending=b"two", started=w.now + 2))
    found = w.get("i1")
    same("owner and status", (found.owner, found.status), (worker[0], "running"))
    same("pending and start", (found.pending, found.started), (b"two", w.now + 1))


@check
def turn_keeps_pending_in_rows(w: Bench) -> None:
    """A pending set in rows changes by what a turn names, in the order of arming."""
    worker = w.worker()
    mine = w.owned(worker, "i1")

    def turn(*changed: tuple[str, bytes | None], **parts: object) -> bytes | None:
        w.do(worker, w.turn(mine, **({"pending": IN_ROWS, "changed": changed} | parts)))
        return w.get("i1").pending

    same("all", turn(("a", b"\1"), ("b", b"\2"), ("c", b"\3"), afresh=True), b"\x83\1\2\3")
    same("one gone, one new", turn(("b", None), ("d", b"\4")), b"\x83\1\3\4")
    same("another request", turn(("a", b"\5"), ("x", None)), b"\x83\5\3\4")
    (listed,) = w.store.instances()
    same("in a listing", listed.pending, b"\x83\5\3\4")
    w.do(worker, Release((mine.number,)))
    (again,) = w.claim(worker).claimed
    same("to the next owner", again.pending, b"\x83\5\3\4")
    same("afresh", turn(("z", b"\6"), afresh=True), b"\x81\6")
    same("whole again", turn(pending=b"whole"), b"whole")
    same("nothing of the old", turn(("y", b"\7")), b"\x81\7")


@check
def turn_that_ends_leaves_no_rows(w: Bench) -> None:
    """Whatever ends an instance, or its generation, its pending set in rows goes."""
    worker = w.worker()
    for how in ("turn", "terminate", "prune", "continue"):
        mine = w.owned(worker, how)
        parts: dict[str, Any] = {"pending": IN_ROWS, "changed": (("a", b"\1"),)}
        w.do(worker, w.turn(mine, afresh=True, **parts))
        if how == "terminate":
            w.ask(Terminate(how, b"value", w.now))
        elif how == "continue":
            go_on = ContinueAsNew(1, b"input", b"seed", None)
            w.do(worker, w.turn(mine, acts=(go_on,), **parts))
        elif how == "turn":
            w.end(worker, mine, pending=b"\x80")
        else:
            w.end(worker, mine, **parts)
            w.store.prune("welcome", {1: w.now + 1}, now=w.now)
            same(how, w.store.instance(how), None)
            continue
        same(how, w.get(how).pending, None if how == "continue" else b"\x80")


@check
def turn_is_counted(w: Bench) -> None:
    """Each turn counts, with an entry or without."""
    worker = w.worker()
    mine = w.owned(worker, "i1")
    same("at first", (mine.turns, w.get("i1").turns), (0, 0))
    w.do(worker, w.turn(mine))
    w.park(worker, attrs.evolve(mine, turns=1))
    same("after two", w.get("i1").turns, 2)


@check
def turn_parks(w: Bench) -> None:
    """A waiting turn frees the instance, with its due time and pending set."""
    worker = w.worker()
    mine = w.owned(worker, "i1")
    found = w.do(worker, w.turn(mine, status="waiting", due=w.now + 60, pending=b"p"))
    same("woken", found.woken, False)
    parked = w.get("i1")
    same(
        "instance",
        (parked.status, parked.owner, parked.due, parked.pending),
        ("waiting", None, w.now + 60, b"p"),
    )
    same("next due", w.store.next_due(), w.now + 60)


@check
def turn_with_unseen_message_stays(w: Bench) -> None:
    """A turn that would park over a message that it hasn't seen says woken, still owned."""
    worker = w.worker()
    mine = w.owned(worker, "i1")
    seen = w.ask(w.send("i1", payload=b"seen")).inbox or 0
    unseen = w.ask(w.send("i1", payload=b"unseen")).inbox or 0
    found = w.do(worker, w.turn(mine, "now#0", status="waiting", inbox_seen=seen))
    same("woken", found.woken, True)
    same("instance", (w.get("i1").status, w.get("i1").owner), ("running", worker[0]))
    same("its entry", w.tags(mine), [(0, "now#0")])
    mine = attrs.evolve(mine, log_length=1)
    found = w.do(worker, w.turn(mine, status="waiting", inbox_seen=unseen))
    same("woken once both are seen", found.woken, False)
    same("instance", (w.get("i1").status, w.get("i1").owner), ("waiting", None))
    same("messages stay", w.messages(mine), [b"seen", b"unseen"])


@check
def turn_parks_over_what_it_does_not_await(w: Bench) -> None:
    """An unseen signal keeps a turn from parking only if its instance waits for it."""
    worker = w.worker()
    mine = w.owned(worker, "i1")
    w.ask(w.send("i1", "other"))
    found = w.do(worker, w.turn(mine, status="waiting", awaits=("reply",)))
    same("woken by another name", found.woken, False)
    w.ask(w.send("i1", "reply"))
    mine = w.claim(worker).claimed[0]
    found = w.do(worker, w.turn(mine, status="waiting", awaits=("reply",)))
    same("woken by its own", found.woken, True)


@check
def turn_consumes(w: Bench) -> None:
    """A turn takes the messages that it names out of the inbox, and no others."""
    worker = w.worker()
    mine = w.owned(worker, "i1")
    w.start("i2")
    sent = [w.ask(w.send("i1", payload=bytes([n]))).inbox or 0 for n in range(3)]
    w.ask(w.send("i2", payload=b"other"))
    w.do(worker, w.turn(mine, consumed=(sent[0], sent[2])))
    same("inbox", w.messages(mine), [b"\1"])
    same("another's", w.messages(w.get("i2")), [b"other"])


@check
def turn_ends(w: Bench) -> None:
    """A turn that ends keeps value and time and frees the instance; its inbox is cleared."""
    worker = w.worker()
    for status in ("done", "failed", "cancelled"):
        mine = w.owned(worker, status)
        w.ask(w.send(status))
        w.ask(w.send(status, dedup="d", digest=b"d"))
        w.do(worker, w.turn(mine, "now#0", status=status, value=b"v", at=w.now + 1))
        found = w.get(status)
        same(
            status,
            (found.status, found.owner, found.value, found.ended, found.log_length),
            (status, None, b"v", w.now + 1, 1),
        )
        # What failed may be retried, and wants its unread messages then.
        left = [b"yes", b"yes"] if status == "failed" else []
        same(f"inbox of {status}", w.messages(mine), left)
    same("nothing left to claim", w.claim(worker).claimed, ())


@check
def block_blocks(w: Bench) -> None:
    """A block keeps cause and reason, frees the instance and leaves its log and inbox."""
    worker = w.worker()
    mine = w.owned(worker, "i1")
    w.ask(w.send("i1"))
    w.do(worker, w.turn(mine, "now#0"))
    mine = attrs.evolve(mine, log_length=1)
    w.do(worker, w.block(mine))
    found = w.get("i1")
    same(
        "instance",
        (found.status, found.owner, found.cause, found.reason, found.log_length),
        ("blocked", None, "diverged", "the code changed", 1),
    )
    same("log and inbox", (w.tags(mine), w.messages(mine)), ([(0, "now#0")], [b"yes"]))


@check
def crashes_are_reset_by_an_entry(w: Bench) -> None:
    """A committed entry sets the crash count to nothing; a turn without one does not."""
    w.start("i1")
    w.crash(1)
    worker = w.worker()
    mine = w.claim(worker).claimed[0]
    same("after a death", mine.crashes, 1)
    w.do(worker, w.turn(mine))
    same("after an empty turn", w.get("i1").crashes, 1)
    w.do(worker, w.turn(mine, "now#0"))
    same("after an entry", w.get("i1").crashes, 0)
