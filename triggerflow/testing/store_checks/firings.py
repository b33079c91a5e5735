"""Checks of firings: dedup keys, business keys, letters, rehearsals, retired triggers."""

from __future__ import annotations

import attrs

from triggerflow.store.firings import Letter, Once
from triggerflow.store.operations import Append, PlannedFiring
from triggerflow.store.records import NewTrigger
from triggerflow.testing.store_checks.bench import (
    APPLIED,
    NOON,
    STALE,
    Bench,
    check,
    same,
    true,
)

NONE = b"\xf6"


def once(w: Bench, id: str, window: float | None = None, scope: str = "s") -> PlannedFiring:
    planned = w.fires("a", id)
    planned.once = Once(scope, b"key", window)
    return planned


def letter(key: str, kind: str = "signal", name: str = "go") -> PlannedFiring:
    sent = Letter("", "welcome", key, kind, name if kind == "signal" else "", NONE)
    outcome = "signalled" if kind == "signal" else "cancelled"
    return PlannedFiring("cid-a-one", outcome=outcome, letter=sent)


@check
def dedup_key_fires_once(w: Bench) -> None:
    """Of several firings under one dedup key, in a batch and later, the first one starts."""
    registry = w.triggers("a")
    found = w.commit(
        w.append("x", [once(w, "i1")], registry),
        w.append("y", [once(w, "i2")], registry),
        w.append("z", [once(w, "i3", scope="other")], registry),
    )
    found.append(w.ask(w.append("late", [once(w, "i4")], registry)))
    fired = [each.firings[0] for each in found if each.firings]
    same("outcomes", [f.outcome for f in fired], ["started", "deduped", "started", "deduped"])
    same("earlier", [f.earlier for f in fired], [None, "cid-x", None, "cid-x"])
    same("instances", [f.instance for f in fired], ["i1", "i1", "i3", "i1"])
    same("as stored", tuple(w.store.firings("cid-late")), found[3].firings)
    same("what was started", sorted(i.id for i in w.store.instances()), ["i1", "i3"])


@check
def dedup_window_ends(w: Bench) -> None:
    """A dedup window counts from the firing; at its end the next one fires, and counts anew."""
    registry = w.triggers("a")
    outcomes = []
    for name, at in (("x", 0.0), ("y", 9.9), ("z", 10.0), ("w", 19.0), ("v", 20.0)):
        append = w.append(name, [once(w, f"i-{name}", 10.0)], registry)
        append.received = NOON + at
        outcomes.append((w.ask(append).firings or ())[0].outcome)
    same("outcomes", outcomes, ["started", "deduped", "started", "deduped", "started"])


@check
def started_key_is_held(w: Bench) -> None:
    """A firing whose business key is held is deduped for an equal input, else failed."""
    registry = w.triggers("a")

    def fires(id: str, input: bytes) -> PlannedFiring:
        return PlannedFiring("cid-a-one", w.new(id, key="k", input=input))

    found = w.commit(
        w.append("x", [fires("i1", b"one")], registry),
        w.append("y", [fires("i2", b"one")], registry),
        w.append("z", [fires("i3", b"two")], registry),
    )
    found.append(w.ask(w.append("late", [fires("i4", b"one")], registry)))
    fired = [each.firings[0] for each in found if each.firings]
    same("outcomes", [f.outcome for f in fired], ["started", "deduped", "failed", "deduped"])
    same("instances", [f.instance for f in fired], ["i1", "i1", None, "i1"])
    true("the failed one says who holds the key", "instance i1" in (fired[2].error or ""))


@check
def letter_reaches_the_holder(w: Bench) -> None:
    """A letter wakes the live instance that holds the key, a newborn too; else it failed."""
    registry = w.triggers("a")
    new = PlannedFiring("cid-a-one", w.new("i1", key="k"))
    found = w.commit(
        w.append("early", [letter("k")], registry),
        w.append("x", [new], registry),
        w.append("y", [letter("k")], registry),
        w.append("z", [letter("k", "cancel")], registry),
        w.append("z2", [letter("k", "cancel")], registry),
    )
    outcomes = [(each.firings or ())[0].outcome for each in found]
    same("outcomes", outcomes, ["failed", "started", "signalled", "cancelled", "cancelled"])
    record = w.store.instance("i1")
    assert record is not None
    inbox = [(row.kind, row.name) for row in w.store.inbox(record.number)]
    same("inbox", inbox, [("signal", "go"), ("cancel", "")])
    told = [each for outcome in found for each in outcome.told]
    same("who is told", told, [(record.number, None)])


@check
def activity_is_known_within_its_namespace(w: Bench) -> None:
    """One CID in two namespaces is two activities, each with its own firings."""
    registry = w.triggers("a", "b")
    found = w.commit(
        attrs.evolve(w.append("x", [w.fires("a", "i1")], registry), namespace="one"),
        attrs.evolve(w.append("x", [w.fires("b", "i2")], registry), namespace="two"),
    )
    same("verdicts", [each.verdict for each in found], [APPLIED, APPLIED])
    same("firings", [f.trigger for f in w.store.firings("cid-x", "two")], ["b"])
    same("the namespace by default", w.store.activity("cid-x"), None)


@check
def activity_keeps_what_was_said(w: Bench) -> None:
    """Source, namespace and the digest of the received bytes are kept, for dispatch too."""
    append = Append(
        "cid-x", b"\xa0", '["T"]', '["ann"]', NOON, 0, None, False, "shop", "hooks", b"digest"
    )
    w.ask(append)
    record = w.store.activity("cid-x", "shop")
    assert record is not None
    same("the record", (record.source, record.digest, record.depth), ("hooks", b"digest", 0))
    (row,) = w.store.outbox(10)
    same(
        "the outbox row",
        (row.types, row.actors, row.source, row.namespace, row.depth),
        ('["T"]', '["ann"]', "hooks", "shop", 0),
    )
    same("the newest", [r.cid for r in w.store.newest_activities(5)], ["cid-x"])


@check
def rehearsal_writes_nothing(w: Bench) -> None:
    """A rehearsed append answers as the append would, and leaves no trace."""
    registry = w.triggers("a")
    before = w.everything()
    append = w.append("x", [once(w, "i1")], registry)
    rehearsed = w.store.rehearse(append)
    same("the store", w.everything(), before)
    proposed = NewTrigger("b", "cid-b-one", b"b one", "means b one")
    more = w.append("y", [w.fires("b", "i2")], registry)
    found = w.store.rehearse(more, [proposed])
    same("a proposed one", [f.trigger for f in found.firings or ()], ["b"])
    same("the registry", w.store.registry()[0], registry)
    stale = w.store.rehearse(w.append("z", [], registry - 1))
    same("a stale one", stale.verdict, STALE)
    same("the answer", w.ask(append).firings, rehearsed.firings)


@check
def retired_trigger_is_current_no_more(w: Bench) -> None:
    """Retiring grows the generation; earlier generations still have the trigger."""
    registry = w.triggers("a", "b")
    same("retired", w.store.retire_trigger("a"), True)
    same("again", w.store.retire_trigger("a"), False)
    same("never there", w.store.retire_trigger("c"), False)
    generation, current = w.store.registry()
    same("generation", generation, registry + 1)
    same("current", [each.name for each in current], ["b"])
    same("before", [each.name for each in w.store.triggers_at(registry)], ["a", "b"])
    same("stale", w.ask(w.append("x", [], registry)).verdict, STALE)
    same("back", w.triggers("a", "b"), registry + 2)


@check
def firings_are_listed(w: Bench) -> None:
    """Firings come newest first, narrowed and in pages."""
    registry = w.triggers("a", "b")
    for name in ("x", "y", "z"):
        failed = PlannedFiring("cid-b-one", None, "no", "failed")
        w.ask(w.append(name, [w.fires("a", f"i-{name}"), failed], registry))
    listed = w.store.fired()
    same(
        "all",
        [(f.activity[4:], f.trigger) for f in listed][:3],
        [("z", "b"), ("z", "a"), ("y", "b")],
    )
    page = w.store.fired(after=listed[1].number, limit=2)
    same("a page", page, listed[2:4])
    same("by outcome", len(w.store.fired(outcome="failed")), 3)
    same("by trigger", [f.activity for f in w.store.fired(trigger="a", limit=1)], ["cid-z"])
    same("by activity", len(w.store.fired(activity="cid-y", outcome="started")), 1)
