"""Retention: what goes, what stays, and that it is found out afterwards."""

from __future__ import annotations

from triggerflow.store.operations import Dispatch, Terminate
from triggerflow.testing.store_checks.bench import (
    APPLIED,
    DUPLICATE,
    GONE,
    Bench,
    check,
    same,
    true,
)


@check
def prune_removes_what_ended_long_ago(w: Bench) -> None:
    """An instance that ended before the time goes whole; a later one stays as it is."""
    worker = w.worker()
    for status in ("done", "failed", "cancelled"):
        old = w.owned(worker, f"old-{status}")
        w.do(worker, w.turn(old, "now#0"))
        w.ask(w.send(old.id, dedup="d", digest=b"d"))
        w.do(worker, w.turn(w.get(old.id), "a#0", status=status, value=b"value"))
    w.now += 10
    late = w.owned(worker, "late")
    w.end(worker, late)
    before = w.get("late")
    found = w.store.prune("welcome", {1: w.now - 5}, now=w.now)
    same("pruned", (found.removed, found.next), (3, None))
    same("left", w.store.instances(), [before])
    same("log", w.tags(old), [])
    same("a signal", w.ask(w.send("old-failed", dedup="d", digest=b"d")).verdict, GONE)
    same("unread", w.store.counts().inbox, 0)


@check
def prune_leaves_the_living(w: Bench) -> None:
    """Running, waiting and blocked instances stay, however old they are."""
    worker = w.worker()
    w.owned(worker, "running")
    w.park(worker, w.owned(worker, "waiting"))
    w.do(worker, w.block(w.owned(worker, "blocked")))
    w.start("runnable")
    before = w.everything()
    w.now += 1e9
    same("pruned", w.store.prune("welcome", {None: w.now}, now=w.now).removed, 0)
    same("the store", w.everything(), before)


@check
def prune_leaves_what_was_retried(w: Bench) -> None:
    """A failed instance that goes on again has not ended, and counts from its next end."""
    worker = w.worker()
    w.end(worker, w.owned(worker, "i1"), "failed")
    w.ask(w.send("i1", kind="retry"))
    w.now += 100
    same("while it runs", w.store.prune("welcome", {1: w.now}, now=w.now).removed, 0)
    (again,) = w.claim(worker).claimed
    w.do(worker, w.turn(again, status="done", value=b"value", at=w.now))
    same("after its end", w.store.prune("welcome", {1: w.now}, now=w.now).removed, 0)
    same("later", w.store.prune("welcome", {1: w.now + 1}, now=w.now).removed, 1)


@check
def prune_goes_by_flow_and_version(w: Bench) -> None:
    """Each version has its own time; None stands for those that aren't named; no other flow."""
    for version in (1, 2, 3):
        w.start(f"v{version}", version=version)
    w.start("unbound", version=None)
    w.start("other", flow="goodbye")
    for id in ("v1", "v2", "v3", "unbound", "other"):
        w.ask(Terminate(id, b"value", w.now))
    later, never = w.now + 1, float("-inf")
    found = w.store.prune("welcome", {1: later, 2: never}, now=w.now)
    same("of version 1", found.removed, 1)
    same("left", [i.id for i in w.store.instances()], ["v2", "v3", "unbound", "other"])
    same("rest", w.store.prune("welcome", {2: never, None: later}, now=w.now).removed, 2)
    same("left", [i.id for i in w.store.instances()], ["v2", "other"])


@check
def prune_goes_page_by_page(w: Bench) -> None:
    """Oldest end first, so many at a time; each page says where the next begins."""
    worker = w.worker()
    for number in range(5):
        w.end(worker, w.owned(worker, f"i{number}"), at=w.now + number // 2)
    left, after = [], None
    while True:
        found = w.store.prune("welcome", {1: w.now + 9}, now=w.now, after=after, limit=2)
        left.append([i.id for i in w.store.instances()])
        after = found.next
        if after is None:
            break
    same("left after each page", left, [["i2", "i3", "i4"], ["i4"], []])


@check
def firings_outlive_their_instances(w: Bench) -> None:
    """A repeated append gets the first firings, removed instances and all; nothing starts."""
    registry = w.triggers("a")
    first = w.ask(w.append("x", [w.fires("a", "i1")], registry))
    worker = w.worker()
    same("before", w.store.removed("i1"), None)
    w.end(worker, w.claim(worker).claimed[0])
    w.now += 10
    same("pruned", w.store.prune("welcome", {1: w.now}, now=w.now).removed, 1)
    again = w.ask(w.append("x", [w.fires("a", "i1")], registry))
    same("again", (again.verdict, again.firings), (DUPLICATE, first.firings))
    same("instances", w.store.instances(), [])
    found = w.store.removed("i1")
    true("the firing tells that it was removed", found is not None)
    if found is not None:
        same("removed", (found.id, found.activity, found.trigger), ("i1", "cid-x", "a"))
        same("when", found.at, w.now)
    same("by prefix", w.store.removed("i"), found)
    same("another", w.store.removed("i2"), None)


@check
def keys_and_ids_after_pruning(w: Bench) -> None:
    """Numbers of removed instances are never given again."""
    worker = w.worker()
    old = w.owned(worker, "i1")
    w.end(worker, old)
    w.store.prune("welcome", {1: w.now + 1}, now=w.now)
    true("a new number", w.owned(worker, "i2").number > old.number)


@check
def documents_go_and_rows_stay(w: Bench) -> None:
    """An old document is taken; CID, types, actors and the duplicate check stay."""
    w.triggers("a")
    old = w.append("old")
    w.ask(old)
    w.now += 10
    w.ask(w.append("new"))
    same("taken", w.store.prune_documents(w.now).removed, 1)
    found = w.store.activity("cid-old")
    true("its row is there", found is not None)
    if found is not None:
        same("row", (found.types, found.actors, found.document), (old.types, old.actors, None))
    fresh = w.store.activity("cid-new")
    same("the new one", fresh and fresh.document, b"new")
    same("a repeat", w.ask(w.append("old")).verdict, DUPLICATE)
    same("once more", w.store.prune_documents(w.now).removed, 0)


@check
def documents_that_the_outbox_needs_stay(w: Bench) -> None:
    """While its dispatch is put off a document stays, then it goes; others don't wait."""
    registry = w.triggers("a")
    w.ask(w.append("late", None, registry))
    w.ask(w.append("done", (), registry))
    w.now += 10
    same("taken", w.store.prune_documents(w.now).removed, 1)
    (row,) = w.store.outbox(10)
    same("its document", row.document, b"late")
    done = Dispatch(row.id, row.seq, registry, w.now, (w.fires("a", "i1"),))
    same("dispatch", w.ask(done).verdict, APPLIED)
    same("taken", w.store.prune_documents(w.now).removed, 1)


@check
def documents_go_page_by_page(w: Bench) -> None:
    """So many are looked at at a time; those that stay don't hold up the pages behind."""
    registry = w.triggers("a")
    for number in range(5):
        w.ask(w.append(f"x{number}", None if number < 2 else (), registry))
    removed, after = [], None
    while True:
        found = w.store.prune_documents(w.now + 1, after=after, limit=2)
        removed.append(found.removed)
        after = found.next
        if after is None:
            break
    same("taken a page", removed, [0, 2, 1])
