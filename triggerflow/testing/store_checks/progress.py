"""Heartbeats: what a step said of its progress, who may say it, and when it goes."""

from __future__ import annotations

from typing import Any

import attrs

from triggerflow.store.operations import Heartbeat, Terminate
from triggerflow.store.records import Claimed, InstanceRecord
from triggerflow.testing.store_checks.bench import (
    APPLIED,
    FENCED,
    GONE,
    Bench,
    check,
    same,
)


def _beat(of: Claimed | InstanceRecord, details: bytes, tag: str = "call:a#0") -> Heartbeat:
    return Heartbeat(of.number, of.generation, tag, details, 5.0)


def _said(w: Bench, of: Claimed | InstanceRecord) -> list[tuple[str, bytes]]:
    found = w.store.progress(of.number, of.generation)
    return sorted((each.tag, each.details) for each in found)


@check
def heartbeat_newest_wins(w: Bench) -> None:
    """A call's details replace those that it said before, other calls keep theirs."""
    worker = w.worker()
    mine = w.owned(worker, "i1")
    w.commit(_beat(mine, b"1"), _beat(mine, b"x", "call:b#0"), worker=worker)
    w.commit(_beat(mine, b"2"), _beat(mine, b"3"), worker=worker)
    same("said", _said(w, mine), [("call:a#0", b"3"), ("call:b#0", b"x")])
    same("when", [each.at for each in w.store.progress(mine.number, 1)], [5.0, 5.0])


@check
def heartbeat_needs_the_owner(w: Bench) -> None:
    """Without epoch, ownership or generation a heartbeat changes nothing, and says so."""
    worker = w.worker()
    mine = w.owned(worker, "i1")
    w.do(worker, _beat(mine, b"mine"))
    elder = attrs.evolve(mine, generation=2)
    same("another owner", w.ask(_beat(mine, b"no"), w.worker("build-b")).verdict, FENCED)
    same("another generation", w.ask(_beat(elder, b"no"), worker).verdict, FENCED)
    w.store.reap({each.id: each.seen for each in w.store.workers()})
    found = w.ask(_beat(mine, b"no"), worker)
    same("a reaped worker", (found.verdict, found.detail), (FENCED, "worker"))
    same("said", _said(w, mine), [("call:a#0", b"mine")])


@check
def heartbeat_is_claimed(w: Bench) -> None:
    """The next owner gets what was said, after a crash too."""
    worker = w.worker()
    mine = w.owned(worker, "i1")
    w.do(worker, _beat(mine, b"half"))
    w.reopen(crash=True)
    w.store.reap()
    (again,) = w.claim(w.worker()).claimed
    same("claimed", again.progress, (("call:a#0", b"half"),))


@check
def heartbeat_goes_with_its_call(w: Bench) -> None:
    """A turn takes what it names; the end of an instance, by a turn or by hand, takes all."""
    worker = w.worker()
    mine = w.owned(worker, "i1")
    w.commit(_beat(mine, b"1"), _beat(mine, b"2", "call:b#0"), worker=worker)
    w.do(worker, w.turn(mine, "call:a#0", progress_over=("call:a#0",)))
    same("one left", _said(w, mine), [("call:b#0", b"2")])
    # In one batch, the last word comes before the turn that it is about.
    end: Any = w.turn(attrs.evolve(mine, log_length=1), status="done", value=b"value")
    found = w.commit(end, _beat(mine, b"late"), worker=worker)
    same("both", [each.verdict for each in found], [APPLIED, APPLIED])
    same("after the end", _said(w, mine), [])
    same("too late", w.ask(_beat(mine, b"late"), worker).verdict, GONE)
    other = w.owned(worker, "i2")
    w.do(worker, _beat(other, b"1"))
    w.ask(Terminate("i2", b"value", w.now))
    same("terminated", _said(w, other), [])
