"""Appends, deferred dispatches and starts."""

from __future__ import annotations

from triggerflow.store.operations import (
    Claim,
    Dispatch,
    PlannedFiring,
    Start,
)
from triggerflow.testing.store_checks.bench import (
    APPLIED,
    CONFLICT,
    DUPLICATE,
    FLOWS,
    GONE,
    STALE,
    Bench,
    check,
    same,
    true,
)

# --- appending -------------------------------------------------------------------------------


@check
def append_applies(w: Bench) -> None:
    """An append stores the activity, its firings and their instances, and says so."""
    registry = w.triggers("a", "b")
    failed = PlannedFiring("cid-b-one", None, "guard broke", "guard_error")
    found = w.ask(w.append("x", [w.fires("a", "i1"), failed], registry))
    same("verdict", found.verdict, APPLIED)
    activity = w.store.activity("cid-x")
    true("the activity is there", activity is not None)
    if activity is not None:
        same("seq", found.seq, activity.seq)
        same(
            "activity",
            (activity.document, activity.types, activity.actors, activity.received),
            (b"x", '["Follow"]', '["ann"]', w.now),
        )
    firings = [
        (f.trigger, f.trigger_cid, f.instance, f.error, f.outcome, f.at, f.registry)
        for f in w.store.firings("cid-x")
    ]
    same(
        "firings",
        firings,
        [
            ("a", "cid-a-one", "i1", None, "started", w.now, registry),
            ("b", "cid-b-one", None, "guard broke", "guard_error", w.now, registry),
        ],
    )
    same("firings of the outcome", found.firings, tuple(w.store.firings("cid-x")))
    made = w.get("i1")
    same(
        "instance",
        (made.status, made.owner, made.generation, made.log_length, made.crashes, made.version),
        ("running", None, 1, 0, 0, 1),
    )
    same("input and seed", (made.input, made.seed), (b"input", b"seed"))
    same("origin", (made.activity, made.trigger, made.trigger_cid), ("cid-x", "a", "cid-a-one"))
    same("times", (made.created, made.started, made.ended), (w.now, None, None))


@check
def append_keeps_order(w: Bench) -> None:
    """Sequence numbers and instance numbers grow in the order of the operations."""
    registry = w.triggers("a")
    found = w.commit(*(w.append(n, [w.fires("a", f"i-{n}")], registry) for n in "zyx"))
    found += w.commit(w.append("w", [w.fires("a", "i-w")], registry))
    numbers = [each.seq or 0 for each in found]
    same("sequence", numbers, sorted(set(numbers)))
    same("instances", [i.id for i in w.store.instances()], ["i-z", "i-y", "i-x", "i-w"])


@check
def append_again_gives_first_firings(w: Bench) -> None:
    """A duplicate append starts nothing and returns the first firings and number."""
    registry = w.triggers("a", "b")
    first = w.ask(w.append("x", [w.fires("a", "i1")], registry))
    again = w.ask(w.append("x", [w.fires("a", "i2"), w.fires("b", "i3")], registry))
    same("verdict", again.verdict, DUPLICATE)
    same("seq", again.seq, first.seq)
    same("firings", again.firings, first.firings)
    same("instances", [i.id for i in w.store.instances()], ["i1"])
    same("activities", w.store.counts().activities, 1)


@check
def append_twice_in_one_batch(w: Bench) -> None:
    """Of two equal activities in one batch the first wins; the second gets its firings."""
    registry = w.triggers("a")
    first, again, other = w.commit(
        w.append("x", [w.fires("a", "i1")], registry),
        w.append("x", [w.fires("a", "i2")], registry),
        w.append("y", [w.fires("a", "i3")], registry),
    )
    verdicts = [each.verdict for each in (first, again, other)]
    same("verdicts", verdicts, [APPLIED, DUPLICATE, APPLIED])
    same("duplicate", (again.seq, again.firings), (first.seq, first.firings))
    same("instances", [i.id for i in w.store.instances()], ["i1", "i3"])


@check
def append_with_stale_registry(w: Bench) -> None:
    """An append planned with another registry generation stores nothing; neighbours land."""
    old = w.triggers("a")
    registry = w.triggers("a", spec="two")
    stale, again, landed = w.commit(
        w.append("x", [w.fires("a", "i1")], old),
        w.append("x", [w.fires("a", "i2")], old),
        w.append("y", [w.fires("a", "i3", "two")], registry),
    )
    same("verdicts", [stale.verdict, again.verdict, landed.verdict], [STALE, STALE, APPLIED])
    same("the stale activity", w.store.activity("cid-x"), None)
    same("instances", [i.id for i in w.store.instances()], ["i3"])
    found = w.ask(w.append("y", [], old))
    same("a stale duplicate", (found.verdict, found.firings), (DUPLICATE, landed.firings))


@check
def append_deferred(w: Bench) -> None:
    """A deferred append writes an outbox row for all triggers, and no firing."""
    w.triggers("a")
    found = w.ask(w.append("x", None))
    same("outcome", (found.verdict, found.firings), (APPLIED, None))
    rows = [(r.seq, r.cid, r.document, r.trigger_cid) for r in w.store.outbox(10)]
    same("outbox", rows, [(found.seq, "cid-x", b"x", None)])
    same("firings", w.store.firings("cid-x"), [])
    same("counts", (w.store.counts().outbox, w.store.counts().firings), (1, 0))


@check
def append_deferred_again(w: Bench) -> None:
    """A duplicate of an activity whose dispatch is deferred says so: firings None."""
    registry = w.triggers("a")
    first, again = w.commit(w.append("x", None), w.append("x", None))
    same("verdicts", (first.verdict, again.verdict), (APPLIED, DUPLICATE))
    same("firings of the second in the batch", again.firings, None)
    same("firings before the dispatch", w.ask(w.append("x", None)).firings, None)
    same("outbox rows", len(w.store.outbox(10)), 1)
    row = w.store.outbox(10)[0]
    w.ask(Dispatch(row.id, row.seq, registry, w.now, (w.fires("a", "i1"),)))
    late = w.ask(w.append("x", None))
    same("firings after it", late.firings, tuple(w.store.firings("cid-x")))
    same("how many", len(late.firings or ()), 1)


@check
def append_hands_over_one_trigger(w: Bench) -> None:
    """A firing whose guard this process lacks becomes an outbox row of that trigger."""
    registry = w.triggers("a", "b")
    deferred = PlannedFiring("cid-b-one", outcome="deferred")
    found = w.ask(w.append("x", [w.fires("a", "i1"), deferred], registry))
    same("firings", [f.trigger for f in found.firings or ()], ["a"])
    rows = [(r.cid, r.trigger_cid) for r in w.store.outbox(10)]
    same("outbox", rows, [("cid-x", "cid-b-one")])


@check
def append_of_unknown_flow(w: Bench) -> None:
    """A firing may land an instance blocked, with cause and reason and no version."""
    registry = w.triggers("a")
    blocked = w.new(
        "i1", "ghost", None, status="blocked", cause="unknown_flow", reason="no such flow"
    )
    w.ask(w.append("x", [PlannedFiring("cid-a-one", blocked)], registry))
    made = w.get("i1")
    same(
        "instance",
        (made.status, made.version, made.cause, made.reason),
        ("blocked", None, "unknown_flow", "no such flow"),
    )


@check
def batch_is_one_transaction(w: Bench) -> None:
    """An error in the middle of a batch leaves nothing of it, and the store goes on."""
    registry = w.triggers("a")
    worker = w.worker()
    mine = w.owned(worker, "i0")
    before = w.everything()
    unknown = PlannedFiring("cid-of-no-trigger", w.new("i3"))
    raised: Exception | None = None
    try:
        w.commit(
            w.turn(mine, "call:a#0"),
            w.append("x", [w.fires("a", "i1")], registry),
            w.append("y", [w.fires("a", "i2"), unknown], registry),
            w.append("z", None),
            Start(w.new("i4")),
            w.send("i0"),
            worker=worker,
        )
    except Exception as error:  # noqa: BLE001
        raised = error
    true("the unknown trigger raises", raised is not None)
    same("the store", w.everything(), before)
    same("the activity before the error", w.store.activity("cid-x"), None)
    found = w.ask(w.append("x", [w.fires("a", "i1")], registry))
    same("the next batch", found.verdict, APPLIED)


@check
def batch_decides_in_order(w: Bench) -> None:
    """One batch: turns, then starts, messages, releases, claims, whatever their order."""
    worker = w.worker()
    w.ask(Start(w.new("i1", key="k")))
    mine = w.claim(worker).claimed[0]
    claim, sent, started, ended = w.commit(
        Claim(10, 1, "build-a", FLOWS, w.now),
        w.send("i2"),
        Start(w.new("i2", key="k", input=b"other")),
        w.turn(mine, status="done", value=b"value"),
        worker=worker,
    )
    verdicts = [each.verdict for each in (claim, sent, started, ended)]
    same("verdicts", verdicts, [APPLIED] * 4)
    same("claimed", [each.id for each in claim.claimed], ["i2"])
    same("its inbox", [row.payload for row in claim.claimed[0].inbox], [b"yes"])


# --- deferred dispatch -----------------------------------------------------------------------


@check
def dispatch_applies_once(w: Bench) -> None:
    """A deferred dispatch writes its firings and removes the row; the next finds it gone."""
    registry = w.triggers("a")
    seq = w.ask(w.append("x", None)).seq or 0
    row = w.store.outbox(10)[0]
    first, again = w.commit(
        Dispatch(row.id, seq, registry, w.now, (w.fires("a", "i1"),)),
        Dispatch(row.id, seq, registry, w.now, (w.fires("a", "i2"),)),
    )
    same("in one batch", (first.verdict, again.verdict), (APPLIED, GONE))
    late = w.ask(Dispatch(row.id, seq, registry, w.now, (w.fires("a", "i3"),)))
    same("later", late.verdict, GONE)
    same("outbox", w.store.outbox(10), [])
    same("instances", [i.id for i in w.store.instances()], ["i1"])
    same("origin", (w.get("i1").activity, w.get("i1").trigger), ("cid-x", "a"))
    same("firings", [f.instance for f in w.store.firings("cid-x")], ["i1"])


@check
def dispatch_remembers_its_generation(w: Bench) -> None:
    """An outbox row says at which generation it was written; its firings keep that."""
    old = w.triggers("a")
    seq = w.ask(w.append("x", None)).seq or 0
    w.triggers("b")
    row = w.store.outbox(10)[0]
    same("the row", (row.registry, row.trigger_cid, row.spec), (old, None, None))
    found = w.ask(Dispatch(row.id, seq, row.registry, w.now, (w.fires("a", "i1"),)))
    same("verdict", found.verdict, APPLIED)
    same("firings", [(f.trigger, f.registry) for f in w.store.firings("cid-x")], [("a", old)])


@check
def pair_fires_once(w: Bench) -> None:
    """A pair (activity, trigger) that has fired is left as it is by a later dispatch."""
    registry = w.triggers("a", "b")
    deferred = PlannedFiring("cid-b-one", outcome="deferred")
    seq = w.ask(w.append("x", [w.fires("a", "i1"), deferred], registry)).seq or 0
    row = w.store.outbox(10)[0]
    found = w.ask(
        Dispatch(row.id, seq, registry, w.now, (w.fires("a", "i2"), w.fires("b", "i3")))
    )
    same("verdict", found.verdict, APPLIED)
    firings = [(f.trigger, f.instance) for f in w.store.firings("cid-x")]
    same("firings", firings, [("a", "i1"), ("b", "i3")])
    same("instances", [i.id for i in w.store.instances()], ["i1", "i3"])


@check
def pair_is_unique(w: Bench) -> None:
    """Nothing writes one pair (activity, trigger) twice, not even a plan that has it twice."""
    registry = w.triggers("a")
    try:
        w.ask(w.append("x", [w.fires("a", "i1"), w.fires("a", "i2")], registry))
    except Exception:  # noqa: BLE001
        same("after the refusal", (w.store.instances(), w.store.counts().firings), ([], 0))
    else:
        found = (len(w.store.instances()), w.store.counts().firings)
        same("instances and firings", found, (1, 1))


@check
def outbox_pages(w: Bench) -> None:
    """The outbox is read oldest first, in pages."""
    w.triggers("a")
    w.commit(*(w.append(name, None) for name in "cab"))
    first = w.store.outbox(2)
    same("first page", [r.cid for r in first], ["cid-c", "cid-a"])
    same("second page", [r.cid for r in w.store.outbox(2, first[-1].id)], ["cid-b"])


# --- starting --------------------------------------------------------------------------------


@check
def start_applies(w: Bench) -> None:
    """A start makes one runnable instance with what the caller described."""
    new = w.new("i1", key="k", namespace="n", correlation_id="c", input=b"in", seed=b"s")
    found = w.ask(Start(new))
    made = w.get("i1")
    same("outcome", (found.verdict, found.instance), (APPLIED, "i1"))
    same("number", found.number, made.number)
    same(
        "instance",
        (made.flow, made.version, made.status, made.key, made.namespace, made.correlation_id),
        ("welcome", 1, "running", "k", "n", "c"),
    )
    same("input and seed", (made.input, made.seed), (b"in", b"s"))
    same("origin", (made.activity, made.trigger, made.parent), (None, None, None))


@check
def start_with_taken_key(w: Bench) -> None:
    """A live key refuses: a duplicate with the same input, a conflict with another."""
    w.ask(Start(w.new("i1", key="k")))
    alike, other = w.commit(
        Start(w.new("i2", key="k")), Start(w.new("i3", key="k", input=b"other"))
    )
    same("same input", (alike.verdict, alike.instance), (DUPLICATE, "i1"))
    same("other input", (other.verdict, other.instance), (CONFLICT, "i1"))
    same("instances", [i.id for i in w.store.instances()], ["i1"])


@check
def start_key_taken_in_one_batch(w: Bench) -> None:
    """Of several starts with one key in one batch the first wins."""
    found = w.commit(
        Start(w.new("i1", key="k")),
        Start(w.new("i2", key="k")),
        Start(w.new("i3", key="k", input=b"other")),
        Start(w.new("i4", key="l")),
    )
    same(
        "outcomes",
        [(each.verdict, each.instance) for each in found],
        [(APPLIED, "i1"), (DUPLICATE, "i1"), (CONFLICT, "i1"), (APPLIED, "i4")],
    )


@check
def start_key_is_held_by_parked_and_blocked(w: Bench) -> None:
    """A key is held as long as its instance lives: running, waiting or blocked."""
    worker = w.worker()
    w.ask(Start(w.new("i1", key="k")))
    mine = w.claim(worker).claimed[0]
    same("owned", w.ask(Start(w.new("i2", key="k"))).verdict, DUPLICATE)
    w.park(worker, mine)
    same("parked", w.ask(Start(w.new("i3", key="k"))).verdict, DUPLICATE)
    w.ask(w.send("i1"))
    mine = w.claim(worker).claimed[0]
    w.do(worker, w.block(mine))
    same("blocked", w.ask(Start(w.new("i4", key="k"))).verdict, DUPLICATE)


@check
def start_key_is_free_after_end(w: Bench) -> None:
    """Once its instance has ended, however it ended, a key can be used again."""
    worker = w.worker()
    for number, status in enumerate(("done", "failed", "cancelled", "done")):
        found = w.ask(Start(w.new(f"i{number}", key="k", input=status.encode())))
        same(f"start number {number}", found.verdict, APPLIED)
        w.end(worker, w.claim(worker).claimed[0], status)


@check
def start_key_belongs_to_flow_and_namespace(w: Bench) -> None:
    """Keys of other flows and other namespaces don't meet."""
    found = w.commit(
        Start(w.new("i1", key="k")),
        Start(w.new("i2", "other", key="k")),
        Start(w.new("i3", key="k", namespace="n")),
        Start(w.new("i4")),
        Start(w.new("i5")),
    )
    same("verdicts", [each.verdict for each in found], [APPLIED] * 5)
