"""One conformance suite for every store, ours and a stranger's; it needs no test runner.

Each check opens a store over new, empty data and holds it to one promise of
`triggerflow.store.operations` or `triggerflow.store.protocol`; its docstring is the
promise. A check that fails raises an ``AssertionError`` that names the check and says what
was expected and what was found, whatever the store itself raised.

    check_store(lambda: MyStore(new_empty_place()))

`STORE_CHECKS` has them one by one, for a test runner that likes to name them. Bytes are
opaque to a store, so documents, inputs and values here are short texts.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from typing import Any, Final

import attrs

from triggerflow.store.operations import (
    Append,
    Batch,
    Block,
    Claim,
    Dispatch,
    LogRow,
    NewInstance,
    Operation,
    Outcome,
    PlannedFiring,
    Release,
    Send,
    Start,
    Turn,
    Verdict,
)
from triggerflow.store.protocol import Store
from triggerflow.store.records import CRASH_LIMIT, SUSPECT, Claimed, InstanceRecord

MakeStore = Callable[[], Store]
Worker = tuple[int, int]

STORE_CHECKS: Final[dict[str, Callable[[MakeStore], None]]] = {}

APPLIED, DUPLICATE, CONFLICT = Verdict.APPLIED, Verdict.DUPLICATE, Verdict.CONFLICT
STALE, GONE, FENCED = Verdict.STALE, Verdict.GONE, Verdict.FENCED

_NOON: Final = 1_700_000_000.0
_LEASE: Final = 30.0
_FLOWS: Final = frozenset({("welcome", 1)})


def check_store(make_store: MakeStore) -> None:
    """Hold a store to all of its promises.

    Args:
        make_store: gives a new, unopened store over new, empty data, each time.

    Raises:
        AssertionError: a promise is broken; the message names the check.
    """
    for check in STORE_CHECKS.values():
        check(make_store)


def _check(promise: Callable[[_Bench], None]) -> Callable[[_Bench], None]:
    name = promise.__name__

    def check(make_store: MakeStore) -> None:
        store = make_store()
        try:
            store.open()
            promise(_Bench(store))
        except AssertionError as error:
            raise AssertionError(f"{name}: {error}\n  promise: {promise.__doc__}") from error
        except Exception as error:
            raise AssertionError(
                f"{name}: expected no error, found {type(error).__name__}: {error}\n"
                f"  promise: {promise.__doc__}"
            ) from error
        finally:
            store.close()

    check.__name__ = check.__qualname__ = name
    check.__doc__ = promise.__doc__
    STORE_CHECKS[name] = check
    return promise


def _same(what: str, found: object, expected: object) -> None:
    if found != expected:
        raise AssertionError(f"{what}: expected {expected!r}, found {found!r}")


def _true(what: str, holds: object) -> None:
    if not holds:
        raise AssertionError(f"expected that {what}; found that it doesn't hold")


class _Bench:
    """An open store, and the few words in which the checks talk to it."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.now = _NOON

    def commit(self, *operations: Operation, worker: Worker | None = None) -> list[Outcome]:
        found = self.store.commit(Batch(list(operations), self.now, worker))
        _same("number of outcomes", len(found), len(operations))
        return found

    def ask(self, operation: Operation, worker: Worker | None = None) -> Outcome:
        return self.commit(operation, worker=worker)[0]

    def reopen(self, *, crash: bool = False) -> None:
        if crash:
            self.store.abandon()
        else:
            self.store.close()
        self.store.open()

    # --- arrivals

    def triggers(self, *names: str, spec: str = "one") -> int:
        rows = [(name, f"cid-{name}-{spec}", f"{name} {spec}".encode()) for name in names]
        return self.store.sync_triggers(rows, now=self.now)

    def new(self, id: str, flow: str = "welcome", version: int | None = 1, **parts: Any) -> Any:
        given: dict[str, Any] = {"input": b"input", "seed": b"seed", "created": self.now}
        return NewInstance(id, flow, version, **(given | parts))

    def append(
        self, name: str, firings: Iterable[PlannedFiring] | None = (), registry: int = 1
    ) -> Append:
        planned = None if firings is None else tuple(firings)
        return Append(
            f"cid-{name}", name.encode(), '["Follow"]', '["ann"]', self.now, registry, planned
        )

    def fires(self, trigger: str, id: str, spec: str = "one") -> PlannedFiring:
        return PlannedFiring(f"cid-{trigger}-{spec}", self.new(id))

    # --- instances

    def start(self, *ids: str, flow: str = "welcome", version: int | None = 1) -> None:
        for name in ids:
            found = self.ask(Start(self.new(name, flow, version)))
            _same(f"start of {name}", found.verdict, APPLIED)

    def worker(
        self, build: str = "build-a", flows: Iterable[tuple[str, int]] = _FLOWS
    ) -> Worker:
        return self.store.register_worker(build=build, flows=flows, now=self.now)

    def claim(self, worker: Worker, **parts: Any) -> Outcome:
        given: dict[str, Any] = {
            "limit": 10,
            "blocked": 1,
            "build": "build-a",
            "flows": _FLOWS,
            "now": self.now,
        }
        found = self.ask(Claim(**(given | parts)), worker)
        _same("claim", found.verdict, APPLIED)
        return found

    def owned(self, worker: Worker, id: str) -> Claimed:
        """A new instance, owned by the worker."""
        self.start(id)
        claimed = self.claim(worker).claimed
        _same("claimed", [each.id for each in claimed], [id])
        return claimed[0]

    def turn(self, of: Claimed | InstanceRecord, *tags: str, **parts: Any) -> Turn:
        given: dict[str, Any] = {
            "number": of.number,
            "generation": of.generation,
            "log_length": of.log_length,
            "entries": tuple(LogRow(tag, tag.encode(), False, None, self.now) for tag in tags),
            "pending": b"pending",
            "status": "running",
            "at": self.now,
            "started": self.now,
        }
        return Turn(**(given | parts))

    def block(self, of: Claimed | InstanceRecord, build: str = "build-a", **parts: Any) -> Any:
        given: dict[str, Any] = {"cause": "diverged", "reason": "the code changed"}
        return Block(of.number, of.generation, of.log_length, build=build, **(given | parts))

    def do(self, worker: Worker, operation: Operation) -> Outcome:
        found = self.ask(operation, worker)
        _same(type(operation).__name__, found.verdict, APPLIED)
        return found

    def park(self, worker: Worker, of: Claimed, **parts: Any) -> None:
        self.do(worker, self.turn(of, **({"status": "waiting"} | parts)))

    def end(self, worker: Worker, of: Claimed, status: str = "done", **parts: Any) -> None:
        self.do(worker, self.turn(of, status=status, value=b"value", **parts))

    def send(self, id: str, name: str = "reply", payload: bytes = b"yes", **parts: Any) -> Send:
        given: dict[str, Any] = {"kind": "signal", "at": self.now}
        return Send(id, name=name, payload=payload, **(given | parts))

    def crash(self, times: int, **claim: Any) -> None:
        """Let workers die so many times, each while it owns all it can claim."""
        for _ in range(times):
            worker = self.worker()
            _true(
                "there is something to claim", self.claim(worker, alone=True, **claim).claimed
            )
            self.reopen(crash=True)
            self.store.reap(now=self.now, lease=_LEASE)

    # --- asking

    def get(self, id: str) -> InstanceRecord:
        found = self.store.instance(id)
        if found is None:
            raise AssertionError(f"instance {id}: expected to be there, found nothing")
        return found

    def tags(self, of: Claimed | InstanceRecord) -> list[tuple[int, str]]:
        return [(r.position, r.tag) for r in self.store.log(of.number, of.generation)]

    def messages(self, of: Claimed | InstanceRecord, after: int = 0) -> list[bytes]:
        return [row.payload for row in self.store.inbox(of.number, after)]

    def everything(self) -> tuple[object, ...]:
        """All that a refused operation must leave as it is."""
        rows = self.store.instances(limit=1000)
        return (
            rows,
            [self.store.log(row.number, row.generation) for row in rows],
            [self.store.inbox(row.number) for row in rows],
            self.store.outbox(1000),
            self.store.registry(),
            self.store.counts(),
        )


# --- appending ---------------------------------------------------------------------------


@_check
def append_applies(w: _Bench) -> None:
    """An append stores the activity, its firings and their instances, and says so."""
    registry = w.triggers("a", "b")
    failed = PlannedFiring("cid-b-one", None, "guard broke", "guard_error")
    found = w.ask(w.append("x", [w.fires("a", "i1"), failed], registry))
    _same("verdict", found.verdict, APPLIED)
    activity = w.store.activity("cid-x")
    _true("the activity is there", activity is not None)
    if activity is not None:
        _same("seq", found.seq, activity.seq)
        _same(
            "activity",
            (activity.document, activity.types, activity.actors, activity.received),
            (b"x", '["Follow"]', '["ann"]', w.now),
        )
    firings = [
        (f.trigger, f.trigger_cid, f.instance, f.error, f.outcome, f.at, f.registry)
        for f in w.store.firings("cid-x")
    ]
    _same(
        "firings",
        firings,
        [
            ("a", "cid-a-one", "i1", None, "started", w.now, registry),
            ("b", "cid-b-one", None, "guard broke", "guard_error", w.now, registry),
        ],
    )
    _same("firings of the outcome", found.firings, tuple(w.store.firings("cid-x")))
    made = w.get("i1")
    _same(
        "instance",
        (made.status, made.owner, made.generation, made.log_length, made.crashes, made.version),
        ("running", None, 1, 0, 0, 1),
    )
    _same("input and seed", (made.input, made.seed), (b"input", b"seed"))
    _same(
        "origin", (made.activity, made.trigger, made.trigger_cid), ("cid-x", "a", "cid-a-one")
    )
    _same("times", (made.created, made.started, made.ended), (w.now, None, None))


@_check
def append_keeps_order(w: _Bench) -> None:
    """Sequence numbers and instance numbers grow in the order of the operations."""
    registry = w.triggers("a")
    found = w.commit(*(w.append(n, [w.fires("a", f"i-{n}")], registry) for n in "zyx"))
    found += w.commit(w.append("w", [w.fires("a", "i-w")], registry))
    numbers = [each.seq or 0 for each in found]
    _same("sequence", numbers, sorted(set(numbers)))
    _same("instances", [i.id for i in w.store.instances()], ["i-z", "i-y", "i-x", "i-w"])


@_check
def append_again_gives_first_firings(w: _Bench) -> None:
    """A duplicate append starts nothing and returns the first firings and number."""
    registry = w.triggers("a", "b")
    first = w.ask(w.append("x", [w.fires("a", "i1")], registry))
    again = w.ask(w.append("x", [w.fires("a", "i2"), w.fires("b", "i3")], registry))
    _same("verdict", again.verdict, DUPLICATE)
    _same("seq", again.seq, first.seq)
    _same("firings", again.firings, first.firings)
    _same("instances", [i.id for i in w.store.instances()], ["i1"])
    _same("activities", w.store.counts().activities, 1)


@_check
def append_twice_in_one_batch(w: _Bench) -> None:
    """Of two equal activities in one batch the first wins; the second gets its firings."""
    registry = w.triggers("a")
    first, again, other = w.commit(
        w.append("x", [w.fires("a", "i1")], registry),
        w.append("x", [w.fires("a", "i2")], registry),
        w.append("y", [w.fires("a", "i3")], registry),
    )
    verdicts = [each.verdict for each in (first, again, other)]
    _same("verdicts", verdicts, [APPLIED, DUPLICATE, APPLIED])
    _same("duplicate", (again.seq, again.firings), (first.seq, first.firings))
    _same("instances", [i.id for i in w.store.instances()], ["i1", "i3"])


@_check
def append_with_stale_registry(w: _Bench) -> None:
    """An append planned with another registry generation stores nothing; neighbours land."""
    old = w.triggers("a")
    registry = w.triggers("a", spec="two")
    stale, again, landed = w.commit(
        w.append("x", [w.fires("a", "i1")], old),
        w.append("x", [w.fires("a", "i2")], old),
        w.append("y", [w.fires("a", "i3", "two")], registry),
    )
    _same("verdicts", [stale.verdict, again.verdict, landed.verdict], [STALE, STALE, APPLIED])
    _same("the stale activity", w.store.activity("cid-x"), None)
    _same("instances", [i.id for i in w.store.instances()], ["i3"])
    found = w.ask(w.append("y", [], old))
    _same("a stale duplicate", (found.verdict, found.firings), (DUPLICATE, landed.firings))


@_check
def append_deferred(w: _Bench) -> None:
    """A deferred append writes an outbox row for all triggers, and no firing."""
    w.triggers("a")
    found = w.ask(w.append("x", None))
    _same("outcome", (found.verdict, found.firings), (APPLIED, None))
    rows = [(r.seq, r.cid, r.document, r.trigger_cid) for r in w.store.outbox(10)]
    _same("outbox", rows, [(found.seq, "cid-x", b"x", None)])
    _same("firings", w.store.firings("cid-x"), [])
    _same("counts", (w.store.counts().outbox, w.store.counts().firings), (1, 0))


@_check
def append_deferred_again(w: _Bench) -> None:
    """A duplicate of an activity whose dispatch is deferred says so: firings None."""
    registry = w.triggers("a")
    first, again = w.commit(w.append("x", None), w.append("x", None))
    _same("verdicts", (first.verdict, again.verdict), (APPLIED, DUPLICATE))
    _same("firings of the second in the batch", again.firings, None)
    _same("firings before the dispatch", w.ask(w.append("x", None)).firings, None)
    _same("outbox rows", len(w.store.outbox(10)), 1)
    row = w.store.outbox(10)[0]
    w.ask(Dispatch(row.id, row.seq, registry, w.now, (w.fires("a", "i1"),)))
    late = w.ask(w.append("x", None))
    _same("firings after it", late.firings, tuple(w.store.firings("cid-x")))
    _same("how many", len(late.firings or ()), 1)


@_check
def append_hands_over_one_trigger(w: _Bench) -> None:
    """A firing whose guard this process lacks becomes an outbox row of that trigger."""
    registry = w.triggers("a", "b")
    deferred = PlannedFiring("cid-b-one", outcome="deferred")
    found = w.ask(w.append("x", [w.fires("a", "i1"), deferred], registry))
    _same("firings", [f.trigger for f in found.firings or ()], ["a"])
    rows = [(r.cid, r.trigger_cid) for r in w.store.outbox(10)]
    _same("outbox", rows, [("cid-x", "cid-b-one")])


@_check
def append_of_unknown_flow(w: _Bench) -> None:
    """A firing may land an instance blocked, with cause and reason and no version."""
    registry = w.triggers("a")
    blocked = w.new(
        "i1", "ghost", None, status="blocked", cause="unknown_flow", reason="no such flow"
    )
    w.ask(w.append("x", [PlannedFiring("cid-a-one", blocked)], registry))
    made = w.get("i1")
    _same(
        "instance",
        (made.status, made.version, made.cause, made.reason),
        ("blocked", None, "unknown_flow", "no such flow"),
    )


@_check
def batch_is_one_transaction(w: _Bench) -> None:
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
    _true("the unknown trigger raises", raised is not None)
    _same("the store", w.everything(), before)
    _same("the activity before the error", w.store.activity("cid-x"), None)
    found = w.ask(w.append("x", [w.fires("a", "i1")], registry))
    _same("the next batch", found.verdict, APPLIED)


@_check
def batch_decides_in_order(w: _Bench) -> None:
    """One batch: turns, then starts, messages, releases, claims, whatever their order."""
    worker = w.worker()
    w.ask(Start(w.new("i1", key="k")))
    mine = w.claim(worker).claimed[0]
    claim, sent, started, ended = w.commit(
        Claim(10, 1, "build-a", _FLOWS, w.now),
        w.send("i2"),
        Start(w.new("i2", key="k", input=b"other")),
        w.turn(mine, status="done", value=b"value"),
        worker=worker,
    )
    verdicts = [each.verdict for each in (claim, sent, started, ended)]
    _same("verdicts", verdicts, [APPLIED] * 4)
    _same("claimed", [each.id for each in claim.claimed], ["i2"])
    _same("its inbox", [row.payload for row in claim.claimed[0].inbox], [b"yes"])


# --- deferred dispatch -------------------------------------------------------------------


@_check
def dispatch_applies_once(w: _Bench) -> None:
    """A deferred dispatch writes its firings and removes the row; the next finds it gone."""
    registry = w.triggers("a")
    seq = w.ask(w.append("x", None)).seq or 0
    row = w.store.outbox(10)[0]
    first, again = w.commit(
        Dispatch(row.id, seq, registry, w.now, (w.fires("a", "i1"),)),
        Dispatch(row.id, seq, registry, w.now, (w.fires("a", "i2"),)),
    )
    _same("in one batch", (first.verdict, again.verdict), (APPLIED, GONE))
    late = w.ask(Dispatch(row.id, seq, registry, w.now, (w.fires("a", "i3"),)))
    _same("later", late.verdict, GONE)
    _same("outbox", w.store.outbox(10), [])
    _same("instances", [i.id for i in w.store.instances()], ["i1"])
    _same("origin", (w.get("i1").activity, w.get("i1").trigger), ("cid-x", "a"))
    _same("firings", [f.instance for f in w.store.firings("cid-x")], ["i1"])


@_check
def dispatch_with_stale_registry(w: _Bench) -> None:
    """A dispatch planned with an older registry changes nothing and keeps its row."""
    old = w.triggers("a")
    seq = w.ask(w.append("x", None)).seq or 0
    w.triggers("b")
    row = w.store.outbox(10)[0]
    found = w.ask(Dispatch(row.id, seq, old, w.now, (w.fires("a", "i1"),)))
    _same("verdict", found.verdict, STALE)
    _same("outbox", w.store.outbox(10), [row])
    _same("instances", w.store.instances(), [])


@_check
def pair_fires_once(w: _Bench) -> None:
    """A pair (activity, trigger) that has fired is left as it is by a later dispatch."""
    registry = w.triggers("a", "b")
    deferred = PlannedFiring("cid-b-one", outcome="deferred")
    seq = w.ask(w.append("x", [w.fires("a", "i1"), deferred], registry)).seq or 0
    row = w.store.outbox(10)[0]
    found = w.ask(
        Dispatch(row.id, seq, registry, w.now, (w.fires("a", "i2"), w.fires("b", "i3")))
    )
    _same("verdict", found.verdict, APPLIED)
    firings = [(f.trigger, f.instance) for f in w.store.firings("cid-x")]
    _same("firings", firings, [("a", "i1"), ("b", "i3")])
    _same("instances", [i.id for i in w.store.instances()], ["i1", "i3"])


@_check
def pair_is_unique(w: _Bench) -> None:
    """Nothing writes one pair (activity, trigger) twice, not even a plan that has it twice."""
    registry = w.triggers("a")
    try:
        w.ask(w.append("x", [w.fires("a", "i1"), w.fires("a", "i2")], registry))
    except Exception:  # noqa: BLE001
        _same("after the refusal", (w.store.instances(), w.store.counts().firings), ([], 0))
    else:
        found = (len(w.store.instances()), w.store.counts().firings)
        _same("instances and firings", found, (1, 1))


@_check
def outbox_pages(w: _Bench) -> None:
    """The outbox is read oldest first, in pages."""
    w.triggers("a")
    w.commit(*(w.append(name, None) for name in "cab"))
    first = w.store.outbox(2)
    _same("first page", [r.cid for r in first], ["cid-c", "cid-a"])
    _same("second page", [r.cid for r in w.store.outbox(2, first[-1].id)], ["cid-b"])


# --- starting ----------------------------------------------------------------------------


@_check
def start_applies(w: _Bench) -> None:
    """A start makes one runnable instance with what the caller described."""
    new = w.new("i1", key="k", namespace="n", correlation_id="c", input=b"in", seed=b"s")
    found = w.ask(Start(new))
    made = w.get("i1")
    _same("outcome", (found.verdict, found.instance), (APPLIED, "i1"))
    _same("number", found.number, made.number)
    _same(
        "instance",
        (made.flow, made.version, made.status, made.key, made.namespace, made.correlation_id),
        ("welcome", 1, "running", "k", "n", "c"),
    )
    _same("input and seed", (made.input, made.seed), (b"in", b"s"))
    _same("origin", (made.activity, made.trigger, made.parent), (None, None, None))


@_check
def start_with_taken_key(w: _Bench) -> None:
    """A live key refuses: a duplicate with the same input, a conflict with another."""
    w.ask(Start(w.new("i1", key="k")))
    same, other = w.commit(
        Start(w.new("i2", key="k")), Start(w.new("i3", key="k", input=b"other"))
    )
    _same("same input", (same.verdict, same.instance), (DUPLICATE, "i1"))
    _same("other input", (other.verdict, other.instance), (CONFLICT, "i1"))
    _same("instances", [i.id for i in w.store.instances()], ["i1"])


@_check
def start_key_taken_in_one_batch(w: _Bench) -> None:
    """Of several starts with one key in one batch the first wins."""
    found = w.commit(
        Start(w.new("i1", key="k")),
        Start(w.new("i2", key="k")),
        Start(w.new("i3", key="k", input=b"other")),
        Start(w.new("i4", key="l")),
    )
    _same(
        "outcomes",
        [(each.verdict, each.instance) for each in found],
        [(APPLIED, "i1"), (DUPLICATE, "i1"), (CONFLICT, "i1"), (APPLIED, "i4")],
    )


@_check
def start_key_is_held_by_parked_and_blocked(w: _Bench) -> None:
    """A key is held as long as its instance lives: running, waiting or blocked."""
    worker = w.worker()
    w.ask(Start(w.new("i1", key="k")))
    mine = w.claim(worker).claimed[0]
    _same("owned", w.ask(Start(w.new("i2", key="k"))).verdict, DUPLICATE)
    w.park(worker, mine)
    _same("parked", w.ask(Start(w.new("i3", key="k"))).verdict, DUPLICATE)
    w.ask(w.send("i1"))
    mine = w.claim(worker).claimed[0]
    w.do(worker, w.block(mine))
    _same("blocked", w.ask(Start(w.new("i4", key="k"))).verdict, DUPLICATE)


@_check
def start_key_is_free_after_end(w: _Bench) -> None:
    """Once its instance has ended, however it ended, a key can be used again."""
    worker = w.worker()
    for number, status in enumerate(("done", "failed", "cancelled", "done")):
        found = w.ask(Start(w.new(f"i{number}", key="k", input=status.encode())))
        _same(f"start number {number}", found.verdict, APPLIED)
        w.end(worker, w.claim(worker).claimed[0], status)


@_check
def start_key_belongs_to_flow_and_namespace(w: _Bench) -> None:
    """Keys of other flows and other namespaces don't meet."""
    found = w.commit(
        Start(w.new("i1", key="k")),
        Start(w.new("i2", "other", key="k")),
        Start(w.new("i3", key="k", namespace="n")),
        Start(w.new("i4")),
        Start(w.new("i5")),
    )
    _same("verdicts", [each.verdict for each in found], [APPLIED] * 5)


# --- messages ----------------------------------------------------------------------------


@_check
def send_to_unknown(w: _Bench) -> None:
    """A message to an instance that doesn't exist is gone, and nothing is stored."""
    w.start("i1")
    gone, landed = w.commit(w.send("nobody"), w.send("i1"))
    _same("verdicts", (gone.verdict, landed.verdict), (GONE, APPLIED))
    _same("messages", w.store.counts().inbox, 1)


@_check
def send_to_ended(w: _Bench) -> None:
    """A message to an instance that has ended is gone, and nothing is stored."""
    worker = w.worker()
    for status in ("done", "failed", "cancelled"):
        mine = w.owned(worker, status)
        w.end(worker, mine, status)
        for kind in ("signal", "cancel", "complete"):
            found = w.ask(w.send(status, kind=kind, dedup=kind, digest=b"d"))
            _same(f"{kind} to {status}", found.verdict, GONE)
        _same(f"inbox of {status}", w.messages(mine), [])
        _same(f"status of {status}", w.get(status).status, status)


@_check
def send_lands_in_order(w: _Bench) -> None:
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
    _same(
        "inbox",
        parts,
        [
            ("signal", "a", b"1", w.now),
            ("complete", "b", b"3", w.now),
            ("signal", "c", b"4", w.now),
        ],
    )
    _same("numbers", [r.id for r in rows], [each.inbox for each in (found[0], *found[2:])])
    _same("after the first", w.messages(one, rows[0].id), [b"3", b"4"])
    first = found[0]
    _same("outcome", (first.instance, first.number, first.owner), ("i1", one.number, None))


@_check
def send_wakes_parked(w: _Bench) -> None:
    """A message to a parked instance makes it runnable; the next claim brings both."""
    worker = w.worker()
    w.park(worker, w.owned(worker, "i1"))
    _same("nothing to claim", w.claim(worker).claimed, ())
    w.ask(w.send("i1"))
    _same("status", w.get("i1").status, "running")
    claimed = w.claim(worker).claimed
    _same("claimed", [each.id for each in claimed], ["i1"])
    _same("its inbox", [row.payload for row in claimed[0].inbox], [b"yes"])


@_check
def send_tells_owner(w: _Bench) -> None:
    """An owner hears once of messages that others wrote, and of none that it wrote itself."""
    worker = w.worker()
    mine = w.owned(worker, "i1")
    own = w.ask(w.send("i1", payload=b"own"), worker)
    _same("owner", own.owner, worker[0])
    _same("after its own", w.store.woken(worker[0]), [])
    other = w.ask(w.send("i1", payload=b"other"))
    _same("owner", other.owner, worker[0])
    told = [(n, [row.payload for row in rows]) for n, rows in w.store.woken(worker[0])]
    _same("woken", told, [(mine.number, [b"own", b"other"])])
    _same("a second time", w.store.woken(worker[0]), [])
    _same("still owned", w.get("i1").owner, worker[0])


@_check
def send_leaves_blocked(w: _Bench) -> None:
    """A blocked instance keeps the message and stays blocked."""
    worker = w.worker()
    mine = w.owned(worker, "i1")
    w.do(worker, w.block(mine))
    _same("verdict", w.ask(w.send("i1")).verdict, APPLIED)
    found = w.get("i1")
    _same("instance", (found.status, found.cause), ("blocked", "diverged"))
    _same("inbox", w.messages(mine), [b"yes"])


@_check
def cancel_twice(w: _Bench) -> None:
    """A second cancel is a duplicate, in one batch or later; a claim says cancelled."""
    worker = w.worker()
    w.start("i1")
    found = w.commit(w.send("i1", kind="cancel"), w.send("i1", kind="cancel"))
    found += w.commit(w.send("i1", kind="cancel"))
    _same("verdicts", [each.verdict for each in found], [APPLIED, DUPLICATE, DUPLICATE])
    claimed = w.claim(worker).claimed[0]
    _same("cancelled", claimed.cancelled, True)
    _same("messages", [row.kind for row in claimed.inbox], ["cancel"])


@_check
def send_with_dedup_key(w: _Bench) -> None:
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
    _same("in one batch", [each.verdict for each in found], expected)
    later = w.commit(
        w.send("i1", payload=b"1", dedup="d", digest=b"1"),
        w.send("i1", payload=b"2", dedup="d", digest=b"2"),
    )
    _same("later", [each.verdict for each in later], [DUPLICATE, CONFLICT])
    _same("inbox", w.messages(w.get("i1")), [b"1", b"3"])


@_check
def dedup_outlives_consumption(w: _Bench) -> None:
    """A dedup key is remembered after its message was consumed."""
    worker = w.worker()
    mine = w.owned(worker, "i1")
    sent = w.ask(w.send("i1", payload=b"1", dedup="d", digest=b"1"))
    w.do(worker, w.turn(mine, "wait_signal:reply#0", consumed=(sent.inbox or 0,)))
    _same("inbox", w.messages(mine), [])
    again = w.ask(w.send("i1", payload=b"1", dedup="d", digest=b"1"))
    other = w.ask(w.send("i1", payload=b"2", dedup="d", digest=b"2"))
    _same("verdicts", (again.verdict, other.verdict), (DUPLICATE, CONFLICT))
    _same("inbox afterwards", w.messages(mine), [])
    _same("messages", w.store.counts().inbox, 0)


@_check
def retry_needs_a_failure(w: _Bench) -> None:
    """A retry of what hasn't failed is a conflict, and changes nothing."""
    worker = w.worker()
    w.end(worker, w.owned(worker, "done"))
    w.do(worker, w.block(w.owned(worker, "blocked")))
    w.park(worker, w.owned(worker, "parked"))
    w.owned(worker, "owned")
    w.start("runnable")
    before = w.everything()
    for name in ("done", "blocked", "parked", "owned", "runnable"):
        _same(f"retry of {name}", w.ask(w.send(name, kind="retry")).verdict, CONFLICT)
    _same("the store", w.everything(), before)
    _same("retry of nobody", w.ask(w.send("nobody", kind="retry")).verdict, GONE)


@_check
def retry_revives(w: _Bench) -> None:
    """A failed instance that is retried runs again, its log kept, its failure forgotten."""
    worker = w.worker()
    mine = w.owned(worker, "i1")
    w.end(worker, mine, "failed", entries=w.turn(mine, "call:a#0").entries)
    first, again = w.commit(w.send("i1", kind="retry"), w.send("i1", kind="retry"))
    _same("verdicts", (first.verdict, again.verdict), (APPLIED, CONFLICT))
    found = w.get("i1")
    _same(
        "instance",
        (found.status, found.owner, found.value, found.ended, found.log_length),
        ("running", None, None, None, 1),
    )
    claimed = w.claim(worker).claimed[0]
    _same("claimed", (claimed.id, [row.kind for row in claimed.inbox]), ("i1", ["retry"]))
    _same("its log", [row.tag for row in claimed.log or ()], ["call:a#0"])


@_check
def retry_with_taken_key(w: _Bench) -> None:
    """A retry is refused while another live instance holds the key."""
    worker = w.worker()
    w.ask(Start(w.new("i1", key="k")))
    w.end(worker, w.claim(worker).claimed[0], "failed")
    w.ask(Start(w.new("i2", key="k")))
    _same("verdict", w.ask(w.send("i1", kind="retry")).verdict, CONFLICT)
    _same("status", w.get("i1").status, "failed")
    w.end(worker, w.claim(worker).claimed[0])
    _same("once it is free", w.ask(w.send("i1", kind="retry")).verdict, APPLIED)


@_check
def retries_of_one_key_in_one_batch(w: _Bench) -> None:
    """Of two failed instances of one key that are retried in one batch, one is refused."""
    worker = w.worker()
    for name in ("i1", "i2"):
        w.ask(Start(w.new(name, key="k")))
        w.end(worker, w.claim(worker).claimed[0], "failed")
    found = w.commit(w.send("i1", kind="retry"), w.send("i2", kind="retry"))
    _same("verdicts", [each.verdict for each in found], [APPLIED, CONFLICT])
    _same("statuses", [w.get(name).status for name in ("i1", "i2")], ["running", "failed"])


# --- turns -------------------------------------------------------------------------------


def _refused(
    w: _Bench, breach: Callable[[Worker, Claimed], tuple[Worker, Turn, Block]]
) -> None:
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
        _same("refused and neighbour", (found.verdict, landed.verdict), (FENCED, APPLIED))
        _same("the instance", (w.get("i1"), w.tags(mine), w.messages(mine)), before)
        _same("the neighbour", w.get(f"n{number}").status, "running")
    _same("the true owner", w.do(worker, w.turn(mine, "call:b#0")).verdict, APPLIED)
    _same("its log", w.tags(mine), [(0, "call:a#0"), (1, "call:b#0")])


@_check
def turn_needs_the_owner(w: _Bench) -> None:
    """A turn or block of a worker that doesn't own the instance is fenced."""

    def breach(_: Worker, mine: Claimed) -> tuple[Worker, Turn, Block]:
        return w.worker("build-b"), w.turn(mine, "call:x#0", status="done"), w.block(mine)

    _refused(w, breach)


@_check
def turn_needs_the_generation(w: _Bench) -> None:
    """A turn or block of another generation is fenced."""

    def breach(worker: Worker, mine: Claimed) -> tuple[Worker, Turn, Block]:
        other = attrs.evolve(mine, generation=2)
        return worker, w.turn(other, "call:x#0", status="done"), w.block(other)

    _refused(w, breach)


@_check
def turn_needs_the_log_length(w: _Bench) -> None:
    """A turn or block of a stale cached log is fenced, be it shorter or longer."""

    def breach(worker: Worker, mine: Claimed) -> tuple[Worker, Turn, Block]:
        shorter = attrs.evolve(mine, log_length=0)
        longer = attrs.evolve(mine, log_length=2)
        return worker, w.turn(shorter, "call:x#0", status="done"), w.block(longer)

    _refused(w, breach)


@_check
def turn_needs_the_epoch(w: _Bench) -> None:
    """A turn or block of a worker with another epoch is fenced, and says worker."""

    def breach(worker: Worker, mine: Claimed) -> tuple[Worker, Turn, Block]:
        late = (worker[0], worker[1] + 1)
        found = w.ask(w.turn(mine, "call:x#0"), late)
        _same("outcome", (found.verdict, found.detail), (FENCED, "worker"))
        return late, w.turn(mine, "call:x#0", status="done"), w.block(mine)

    _refused(w, breach)


@_check
def turn_needs_a_worker(w: _Bench) -> None:
    """Without a worker, turns, blocks, releases and claims are fenced; the rest lands."""
    worker = w.worker()
    mine = w.owned(worker, "i1")
    found = w.commit(
        w.turn(mine, "call:x#0"),
        w.block(mine),
        Release((mine.number,)),
        Claim(10, 1, "build-a", _FLOWS, w.now),
        Start(w.new("i2")),
    )
    _same("verdicts", [each.verdict for each in found], [FENCED] * 4 + [APPLIED])
    _same("owner", w.get("i1").owner, worker[0])


@_check
def turn_needs_an_owned_instance(w: _Bench) -> None:
    """A former owner can't touch an instance that it parked, or that has ended."""
    worker = w.worker()
    parked, ended = w.owned(worker, "i1"), w.owned(worker, "i2")
    w.park(worker, parked)
    w.end(worker, ended)
    before = w.everything()
    for mine in (parked, ended):
        for operation in (w.turn(mine, "call:x#0"), w.turn(mine), w.block(mine)):
            _same("verdict", w.ask(operation, worker).verdict, FENCED)
    _same("the store", w.everything(), before)


@_check
def turns_of_one_instance_in_one_batch(w: _Bench) -> None:
    """The second turn of a batch on one instance meets the log that the first one left."""
    worker = w.worker()
    mine = w.owned(worker, "i1")
    found = w.commit(
        w.turn(mine, "call:a#0"), w.turn(mine, "call:b#0"), w.block(mine), worker=worker
    )
    _same("verdicts", [each.verdict for each in found], [APPLIED, FENCED, FENCED])
    _same("log", w.tags(mine), [(0, "call:a#0")])
    _same("status", w.get("i1").status, "running")


@_check
def turn_extends_the_log(w: _Bench) -> None:
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
    _same(
        "log",
        parts,
        [
            (0, "call:a#0", b"value", False, b"digest", w.now),
            (1, "call:b#0", b"failure", True, None, w.now + 1),
        ],
    )
    w.do(worker, w.turn(attrs.evolve(one, log_length=2), "now#0", "call:c#0"))
    longer = w.store.log(one.number, 1)
    _same("what stood there", longer[:2], first)
    _same(
        "what came", [(r.position, r.tag) for r in longer[2:]], [(2, "now#0"), (3, "call:c#0")]
    )
    _same("lengths", (w.get("i1").log_length, w.get("i2").log_length), (4, 1))
    _same("the other log", w.tags(two), [(0, "sleep#0")])
    _same("another generation", w.store.log(one.number, 2), [])


@_check
def turn_keeps_running(w: _Bench) -> None:
    """A running turn stays owned; the pending set is replaced, the first start time kept."""
    worker = w.worker()
    mine = w.owned(worker, "i1")
    w.do(worker, w.turn(mine, pending=b"one", started=w.now + 1))
    w.do(worker, w.turn(mine, pending=b"two", started=w.now + 2))
    found = w.get("i1")
    _same("owner and status", (found.owner, found.status), (worker[0], "running"))
    _same("pending and start", (found.pending, found.started), (b"two", w.now + 1))


@_check
def turn_parks(w: _Bench) -> None:
    """A waiting turn frees the instance, with its due time and pending set."""
    worker = w.worker()
    mine = w.owned(worker, "i1")
    found = w.do(worker, w.turn(mine, status="waiting", due=w.now + 60, pending=b"p"))
    _same("woken", found.woken, False)
    parked = w.get("i1")
    _same(
        "instance",
        (parked.status, parked.owner, parked.due, parked.pending),
        ("waiting", None, w.now + 60, b"p"),
    )
    _same("next due", w.store.next_due(), w.now + 60)


@_check
def turn_with_unseen_message_stays(w: _Bench) -> None:
    """A turn that would park over a message that it hasn't seen says woken, still owned."""
    worker = w.worker()
    mine = w.owned(worker, "i1")
    seen = w.ask(w.send("i1", payload=b"seen")).inbox or 0
    unseen = w.ask(w.send("i1", payload=b"unseen")).inbox or 0
    found = w.do(worker, w.turn(mine, "now#0", status="waiting", inbox_seen=seen))
    _same("woken", found.woken, True)
    _same("instance", (w.get("i1").status, w.get("i1").owner), ("running", worker[0]))
    _same("its entry", w.tags(mine), [(0, "now#0")])
    mine = attrs.evolve(mine, log_length=1)
    found = w.do(worker, w.turn(mine, status="waiting", inbox_seen=unseen))
    _same("woken once both are seen", found.woken, False)
    _same("instance", (w.get("i1").status, w.get("i1").owner), ("waiting", None))
    _same("messages stay", w.messages(mine), [b"seen", b"unseen"])


@_check
def turn_consumes(w: _Bench) -> None:
    """A turn takes the messages that it names out of the inbox, and no others."""
    worker = w.worker()
    mine = w.owned(worker, "i1")
    w.start("i2")
    sent = [w.ask(w.send("i1", payload=bytes([n]))).inbox or 0 for n in range(3)]
    w.ask(w.send("i2", payload=b"other"))
    w.do(worker, w.turn(mine, consumed=(sent[0], sent[2])))
    _same("inbox", w.messages(mine), [b"\1"])
    _same("another's", w.messages(w.get("i2")), [b"other"])


@_check
def turn_ends(w: _Bench) -> None:
    """A turn that ends keeps value and time, frees the instance and clears its inbox."""
    worker = w.worker()
    for status in ("done", "failed", "cancelled"):
        mine = w.owned(worker, status)
        w.ask(w.send(status))
        w.ask(w.send(status, dedup="d", digest=b"d"))
        w.do(worker, w.turn(mine, "now#0", status=status, value=b"v", at=w.now + 1))
        found = w.get(status)
        _same(
            status,
            (found.status, found.owner, found.value, found.ended, found.log_length),
            (status, None, b"v", w.now + 1, 1),
        )
        _same(f"inbox of {status}", w.messages(mine), [])
    _same("nothing left to claim", w.claim(worker).claimed, ())
    _same("messages", w.store.counts().inbox, 0)


@_check
def block_blocks(w: _Bench) -> None:
    """A block keeps cause and reason, frees the instance and leaves its log and inbox."""
    worker = w.worker()
    mine = w.owned(worker, "i1")
    w.ask(w.send("i1"))
    w.do(worker, w.turn(mine, "now#0"))
    mine = attrs.evolve(mine, log_length=1)
    w.do(worker, w.block(mine))
    found = w.get("i1")
    _same(
        "instance",
        (found.status, found.owner, found.cause, found.reason, found.log_length),
        ("blocked", None, "diverged", "the code changed", 1),
    )
    _same("log and inbox", (w.tags(mine), w.messages(mine)), ([(0, "now#0")], [b"yes"]))


@_check
def crashes_are_reset_by_an_entry(w: _Bench) -> None:
    """A committed entry sets the crash count to nothing; a turn without one does not."""
    w.start("i1")
    w.crash(1)
    worker = w.worker()
    mine = w.claim(worker).claimed[0]
    _same("after a death", mine.crashes, 1)
    w.do(worker, w.turn(mine))
    _same("after an empty turn", w.get("i1").crashes, 1)
    w.do(worker, w.turn(mine, "now#0"))
    _same("after an entry", w.get("i1").crashes, 0)


# --- claims ------------------------------------------------------------------------------


@_check
def claim_gives_everything(w: _Bench) -> None:
    """A claim brings all that is needed to drive: input, seed, log, pending set, inbox."""
    worker = w.worker()
    mine = w.owned(worker, "i1")
    row = LogRow("call:a#0", b"v", True, b"d", w.now)
    w.park(worker, mine, entries=(row,), pending=b"p", started=w.now + 1)
    w.ask(w.send("i1"))
    (found,) = w.claim(worker).claimed
    _same(
        "claimed",
        (found.number, found.id, found.flow, found.version, found.generation),
        (mine.number, "i1", "welcome", 1, 1),
    )
    _same(
        "its state",
        (found.log_length, found.pending, found.crashes, found.cancelled, found.started),
        (1, b"p", 0, False, w.now + 1),
    )
    _same("input and seed", (found.input, found.seed), (b"input", b"seed"))
    _same("log", list(found.log or ()), w.store.log(mine.number, 1))
    _same("inbox", list(found.inbox), w.store.inbox(mine.number))
    _same("owner", w.get("i1").owner, worker[0])


@_check
def claim_takes_oldest_first(w: _Bench) -> None:
    """A claim takes at most so many, oldest first, and nothing that is owned already."""
    w.start("i1", "i2", "i3", "i4", "i5")
    one, two = w.worker(), w.worker()
    _same("first", [c.id for c in w.claim(one, limit=2).claimed], ["i1", "i2"])
    _same("second", [c.id for c in w.claim(two, limit=2).claimed], ["i3", "i4"])
    _same("third", [c.id for c in w.claim(one, limit=2).claimed], ["i5"])
    _same("fourth", w.claim(two, limit=2).claimed, ())


@_check
def claim_says_when_there_is_more(w: _Bench) -> None:
    """A claim that leaves something claimable behind says that there may be more."""
    w.start("i1", "i2", "i3")
    one, two = w.worker(), w.worker("build-b")
    _same("one is left", w.claim(one, limit=2).more, True)
    w.claim(one, limit=2)
    _same("nothing is left", w.claim(one, limit=2).more, False)
    for name in ("i1", "i2"):
        w.do(one, w.block(w.get(name)))
    _same("a blocked one is left", w.claim(two, build="build-b", blocked=1).more, True)


@_check
def claim_takes_known_flows(w: _Bench) -> None:
    """A claim takes instances of flows and versions that the worker knows, no others."""
    w.worker("build-b", [("other", 1), ("welcome", 2)])
    w.start("i1", flow="other")
    w.start("i2", version=2)
    w.start("i3")
    found = w.claim(w.worker())
    _same("claimed", [each.id for each in found.claimed], ["i3"])
    _same("the others", [w.get(name).status for name in ("i1", "i2")], ["running"] * 2)


@_check
def claim_fills_in_the_version(w: _Bench) -> None:
    """An instance without a version gets the worker's latest one, for good."""
    w.start("i1", version=None)
    flows = [("welcome", 1), ("welcome", 3)]
    found = w.claim(w.worker(flows=flows), flows=frozenset(flows))
    _same("claimed", [(each.id, each.version) for each in found.claimed], [("i1", 3)])
    _same("stored", w.get("i1").version, 3)


@_check
def claim_skips_a_tried_build(w: _Bench) -> None:
    """A blocked instance isn't tried again with a build that it was tried with."""
    worker = w.worker()
    w.do(worker, w.block(w.owned(worker, "i1")))
    _same("same build", w.claim(worker).claimed, ())
    _same("a new worker of it", w.claim(w.worker()).claimed, ())
    other = w.worker("build-b")
    (again,) = w.claim(other, build="build-b").claimed
    _same("another build", again.id, "i1")
    found = w.get("i1")
    _same("instance", (found.status, found.cause, found.reason), ("running", None, None))
    w.do(other, w.block(again, "build-b"))
    _same("the first build", w.claim(worker).claimed, ())
    _same("the second build", w.claim(other, build="build-b").claimed, ())
    third = w.claim(w.worker("build-c"), build="build-c").claimed
    _same("a third build", [each.id for each in third], ["i1"])


@_check
def claim_forgets_tried_builds_at_the_end(w: _Bench) -> None:
    """An instance that ended and was retried may block and be tried by any build again."""
    one, two = w.worker(), w.worker("build-b")
    w.do(one, w.block(w.owned(one, "i1")))
    w.end(two, w.claim(two, build="build-b").claimed[0], "failed")
    w.ask(w.send("i1", kind="retry"))
    _same("the first build", [c.id for c in w.claim(one).claimed], ["i1"])


@_check
def claim_takes_few_blocked(w: _Bench) -> None:
    """Of blocked instances a claim takes at most its blocked share, within its limit."""
    one, two = w.worker(), w.worker("build-b")
    for name in ("b1", "b2", "b3"):
        w.do(one, w.block(w.owned(one, name)))
    w.start("i1", "i2", "i3")
    _same("no share", w.claim(two, build="build-b", limit=0, blocked=0).claimed, ())
    found = [c.id for c in w.claim(two, build="build-b", limit=3, blocked=2).claimed]
    _true(f"at most 3 are claimed, not {found}", len(found) <= 3)
    blocked = [name for name in found if name.startswith("b")]
    _true(f"runnable ones leave room for a blocked one in {found}", blocked)
    _true(f"at most 2 of {found} were blocked", len(blocked) <= 2)
    _true(f"the oldest come first in {blocked}", blocked == ["b1", "b2"][: len(blocked)])


@_check
def claim_leaves_crash_limit(w: _Bench) -> None:
    """An instance at its crash limit is claimed by nobody, whatever the build."""
    w.start("i1")
    w.crash(CRASH_LIMIT)
    _same("status", w.get("i1").status, "blocked")
    worker = w.worker("build-b")
    found = w.claim(worker, build="build-b", blocked=5, alone=True)
    _same("claimed", found.claimed, ())


@_check
def claim_flips_due_timers(w: _Bench) -> None:
    """A claim takes parked instances that are due, and says when the next one is."""
    worker = w.worker()
    for name, due in (("i1", 10.0), ("i2", 20.0), ("i3", None), ("i4", 30.0)):
        w.park(worker, w.owned(worker, name), due=None if due is None else w.now + due)
    found = w.claim(worker, now=w.now + 9)
    _same("too early", (found.claimed, found.next_due), ((), w.now + 10))
    _same("the clock is the caller's", w.claim(worker).claimed, ())
    found = w.claim(worker, now=w.now + 20)
    _same("due", sorted(each.id for each in found.claimed), ["i1", "i2"])
    _same("next due", found.next_due, w.now + 30)
    _same("status", w.get("i1").status, "running")
    _same("without a timer", w.get("i3").status, "waiting")


@_check
def claim_skips_warm_logs(w: _Bench) -> None:
    """A log that the worker has, at that generation and length, isn't read again."""
    worker = w.worker()
    mine = w.owned(worker, "i1")
    w.park(worker, mine, entries=w.turn(mine, "now#0").entries)
    w.ask(w.send("i1", payload=b"1"))
    (warm,) = w.claim(worker, warm={mine.number: (1, 1)}).claimed
    _same("warm", (warm.log, [row.payload for row in warm.inbox]), (None, [b"1"]))
    for standing in ((1, 0), (1, 2), (2, 1)):
        w.do(worker, Release((mine.number,)))
        (cold,) = w.claim(worker, warm={mine.number: standing}).claimed
        _same(f"cold at {standing}", [row.tag for row in cold.log or ()], ["now#0"])


@_check
def claim_of_suspects(w: _Bench) -> None:
    """Whose owners died twice is claimed only by a worker that has nothing, and alone."""
    w.start("i1")
    w.crash(SUSPECT)
    w.start("i2", "i3")
    worker = w.worker()
    found = w.claim(worker, limit=1)
    _same("not alone", ([c.id for c in found.claimed], found.suspects), (["i2"], True))
    found = w.claim(w.worker(), alone=True)
    _same("alone", [(c.id, c.crashes) for c in found.claimed], [("i1", SUSPECT)])
    found = w.claim(w.worker(), alone=True)
    _same("the rest", ([c.id for c in found.claimed], found.suspects), (["i3"], False))


@_check
def claim_of_blocked_suspects(w: _Bench) -> None:
    """A blocked instance whose owners died twice is tried by another build alone, too."""
    w.start("i1")
    w.crash(SUSPECT)
    one, two = w.worker(), w.worker("build-b")
    w.do(one, w.block(w.claim(one, alone=True).claimed[0]))
    w.start("i2")
    found = [c.id for c in w.claim(two, build="build-b").claimed]
    _same("not alone", found, ["i2"])
    third = w.worker("build-c")
    found = [c.id for c in w.claim(third, build="build-c", alone=True).claimed]
    _same("alone", found, ["i1"])


@_check
def claim_blocks_unknown_flows(w: _Bench) -> None:
    """What no registered worker knows is blocked visibly, and heals when one comes."""
    w.start("i1", flow="ghost")
    w.start("i2", version=7)
    w.start("i3", flow="ghost", version=None)
    worker = w.worker()
    _same("claimed", w.claim(worker).claimed, ())
    found = [(w.get(name).status, w.get(name).cause) for name in ("i1", "i2", "i3")]
    unknown = ("blocked", "unknown_flow")
    _same("instances", found, [unknown, ("blocked", "unknown_version"), unknown])
    _true("the reason names the flow", "ghost" in (w.get("i1").reason or ""))
    _true("the reason names the version", "7" in (w.get("i2").reason or ""))
    flows = frozenset({("ghost", 1), ("welcome", 7)})
    knows = w.worker("build-b", flows)
    claimed = w.claim(knows, build="build-b", flows=flows, blocked=5).claimed
    _same("healed", [(c.id, c.version) for c in claimed], [("i1", 1), ("i2", 7), ("i3", 1)])


# --- workers -----------------------------------------------------------------------------


@_check
def release_hands_back(w: _Bench) -> None:
    """Released instances are runnable again, no crash counted; others' are left alone."""
    one, two = w.worker(), w.worker()
    mine = w.owned(one, "i1")
    yours = w.owned(two, "i2")
    parked = w.owned(one, "i3")
    w.park(one, parked)
    w.do(one, Release((mine.number, yours.number, parked.number)))
    found = [(i.status, i.owner, i.crashes) for i in w.store.instances()]
    _same(
        "instances", found, [("running", None, 0), ("running", two[0], 0), ("waiting", None, 0)]
    )
    _same("claimable", [c.id for c in w.claim(two).claimed], ["i1"])


@_check
def forget_worker_hands_back(w: _Bench) -> None:
    """A worker that is given up hands all back without a crash, and can act no more."""
    worker = w.worker()
    mine = w.owned(worker, "i1")
    w.store.forget_worker(worker[0])
    found = w.get("i1")
    _same("instance", (found.status, found.owner, found.crashes), ("running", None, 0))
    _same("workers", w.store.workers(), [])
    _same("its turn", w.ask(w.turn(mine, "now#0"), worker).verdict, FENCED)


@_check
def close_gives_workers_up(w: _Bench) -> None:
    """Closing hands back what workers owned, and counts no crash; the data stay."""
    worker = w.worker()
    mine = w.owned(worker, "i1")
    w.do(worker, w.turn(mine, "now#0"))
    w.reopen()
    _same("workers", w.store.workers(), [])
    _same("reaped", w.store.reap(now=w.now, lease=_LEASE), 0)
    found = w.get("i1")
    _same("instance", (found.status, found.owner, found.crashes), ("running", None, 0))
    _same("log", w.tags(mine), [(0, "now#0")])


@_check
def workers_are_listed(w: _Bench) -> None:
    """Workers are listed with build, epoch, age, life, and how many instances they own."""
    one, two = w.worker(), w.worker("build-b")
    w.owned(one, "i1")
    w.now += 5
    w.do(one, Release(()))
    found = [(r.id, r.epoch, r.build, r.seen, r.alive, r.owned) for r in w.store.workers()]
    _same(
        "workers",
        found,
        [(*one, "build-a", w.now, True, 1), (*two, "build-b", w.now - 5, True, 0)],
    )


@_check
def reap_frees_the_dead(w: _Bench) -> None:
    """A worker whose process is gone is reaped without waiting for its lease."""
    worker = w.worker()
    owned, parked = w.owned(worker, "i1"), w.owned(worker, "i2")
    w.park(worker, parked)
    w.reopen(crash=True)
    _same("alive", [each.alive for each in w.store.workers()], [False])
    _same("freed", w.store.reap(now=w.now, lease=_LEASE), 1)
    found = [(i.status, i.owner, i.crashes) for i in w.store.instances()]
    _same("instances", found, [("running", None, 1), ("waiting", None, 0)])
    _same("a second time", w.store.reap(now=w.now, lease=_LEASE), 0)
    _same("workers", w.store.workers(), [])
    later = w.worker()
    _same("claimed", [c.number for c in w.claim(later).claimed], [owned.number])


@_check
def reap_fences_the_dead(w: _Bench) -> None:
    """After its reaping a worker's whole batch is fenced, even if nobody took over yet."""
    late = w.worker()
    mine = w.owned(late, "i1")
    w.start("i2")
    w.now += _LEASE + 1
    _same("freed", w.store.reap(now=w.now, lease=_LEASE), 1)
    before = w.everything()
    found = w.commit(
        w.turn(mine, "now#0", status="done"),
        w.block(mine),
        Release((mine.number,)),
        Claim(10, 1, "build-a", _FLOWS, w.now),
        worker=late,
    )
    outcomes = [(each.verdict, each.detail) for each in found]
    _same("outcomes", outcomes, [(FENCED, "worker")] * 4)
    _same("the store", w.everything(), before)
    landed = w.ask(w.send("i1"), late)
    _same("a message, that anybody may send", landed.verdict, APPLIED)


@_check
def reap_leaves_the_living(w: _Bench) -> None:
    """Only a worker that stood still past its lease is reaped, though its process lives."""
    idle, busy = w.worker(), w.worker()
    w.owned(idle, "i1")
    w.owned(busy, "i2")
    _same("before the lease ends", w.store.reap(now=w.now + _LEASE, lease=_LEASE), 0)
    w.now += _LEASE + 1
    w.do(busy, Release(()))
    _same("freed", w.store.reap(now=w.now, lease=_LEASE), 1)
    found = [(i.owner, i.crashes) for i in w.store.instances()]
    _same("instances", found, [(None, 1), (busy[0], 0)])
    _same("workers", [each.id for each in w.store.workers()], [busy[0]])


@_check
def reap_blocks_at_the_crash_limit(w: _Bench) -> None:
    """At the crash limit, not before, an instance is blocked with cause and reason."""
    w.start("i1")
    for number in range(1, CRASH_LIMIT + 1):
        _same("status", w.get("i1").status, "running")
        w.crash(1)
        _same("crashes", w.get("i1").crashes, number)
    found = w.get("i1")
    _same("instance", (found.status, found.cause), ("blocked", "crash_limit"))
    _true("there is a reason", found.reason)
    _same("a message", w.ask(w.send("i1")).verdict, APPLIED)
    _same("status after it", w.get("i1").status, "blocked")


@_check
def epochs_are_never_reused(w: _Bench) -> None:
    """No later worker gets the (id, epoch) of an earlier one, not even of a forgotten one."""
    seen: list[Worker] = []
    for _ in range(3):
        seen.append(w.worker())
        w.store.forget_worker(seen[-1][0])
        seen.append(w.worker())
        w.reopen(crash=True)
        w.store.reap(now=w.now, lease=_LEASE)
    _same("workers", len(set(seen)), len(seen))


# --- triggers ----------------------------------------------------------------------------


@_check
def sync_is_idempotent(w: _Bench) -> None:
    """The registry generation grows when something changes, and only then."""
    _same("at first", w.store.registry(), (0, ()))
    _same("nothing to make current", w.triggers(), 0)
    first = w.triggers("a", "b")
    _true("the first triggers make it grow", first > 0)
    _same("again", (w.triggers("a", "b"), w.triggers("b")), (first, first))
    generation, found = w.store.registry()
    _same("generation", generation, first)
    parts = [(t.name, t.cid, t.spec, t.state) for t in found]
    _same(
        "triggers",
        parts,
        [("a", "cid-a-one", b"a one", "active"), ("b", "cid-b-one", b"b one", "active")],
    )


@_check
def sync_supersedes_by_name(w: _Bench) -> None:
    """A changed trigger supersedes the one of its name, and no other; firings stay."""
    first = w.triggers("a", "b")
    w.ask(w.append("x", [w.fires("a", "i1")], first))
    second = w.triggers("a", spec="two")
    _true("the generation grows", second > first)
    generation, found = w.store.registry()
    _same("generation", generation, second)
    _same("current", sorted(t.cid for t in found), ["cid-a-two", "cid-b-one"])
    _same("firing", [f.trigger_cid for f in w.store.firings("cid-x")], ["cid-a-one"])
    landed = w.ask(w.append("y", [w.fires("a", "i2", "two")], second))
    _same("an append planned with the new one", landed.verdict, APPLIED)


@_check
def sync_goes_back(w: _Bench) -> None:
    """An old spec can be made current again, and its pairs have still fired."""
    first = w.triggers("a")
    w.ask(w.append("x", [w.fires("a", "i1")], first))
    second = w.triggers("a", spec="two")
    third = w.triggers("a")
    _true("the generation grows each time", first < second < third)
    _same("current", [t.cid for t in w.store.registry()[1]], ["cid-a-one"])
    again = w.ask(w.append("x", [w.fires("a", "i2")], third))
    _same("the old pair", (again.verdict, len(again.firings or ())), (DUPLICATE, 1))


# --- asking ------------------------------------------------------------------------------


@_check
def ask_for_nothing(w: _Bench) -> None:
    """What isn't there is None or empty, never an error."""
    store = w.store
    _same(
        "one",
        (store.instance("nobody"), store.activity("cid-x"), store.next_due()),
        (None,) * 3,
    )
    many = (store.firings("cid-x"), store.log(7, 1), store.inbox(7), store.outbox(5))
    _same("many", many, ([], [], [], []))
    more = (store.woken(7), store.workers(), store.instances(), store.ids("x"))
    _same("more", more, ([], [], [], []))
    _same("reaped", store.reap(now=w.now, lease=_LEASE), 0)
    found = store.counts()
    _same("counts", (found.activities, found.firings, found.instances), (0, 0, {}))
    _same("the rest", (found.outbox, found.inbox, found.oldest_runnable), (0, 0, None))


@_check
def ids_by_prefix(w: _Bench) -> None:
    """Ids are found by prefix, letter by letter, no wildcards, at most so many."""
    w.start("abc", "abd", "b", "a%c", "a_c", "ABC")
    _same("a prefix", sorted(w.store.ids("ab")), ["abc", "abd"])
    _same("a whole id", w.store.ids("abc"), ["abc"])
    _same("a wildcard", w.store.ids("a%"), ["a%c"])
    _same("another", w.store.ids("a_"), ["a_c"])
    _same("limit", len(w.store.ids("a", limit=2)), 2)
    _same("none", w.store.ids("x"), [])


@_check
def instances_in_pages(w: _Bench) -> None:
    """Instances come in pages, oldest or newest first, each one exactly once."""
    w.start(*(f"i{n}" for n in range(7)))
    for newest in (False, True):
        seen: list[str] = []
        after = 0
        while page := w.store.instances(after=after, limit=3, newest_first=newest):
            _true("a page holds at most its limit", len(page) <= 3)
            seen += [each.id for each in page]
            after = page[-1].number
        expected = [f"i{n}" for n in range(7)]
        _same(f"newest_first={newest}", seen, expected[::-1] if newest else expected)


@_check
def instances_by_filter(w: _Bench) -> None:
    """Filters by status, flow and key narrow down, alone and together."""
    worker = w.worker()
    w.ask(Start(w.new("i1", key="k")))
    w.ask(Start(w.new("i2", "other", key="k")))
    w.ask(Start(w.new("i3")))
    w.park(worker, w.claim(worker, limit=1).claimed[0])

    def ids(**parts: Any) -> list[str]:
        return [each.id for each in w.store.instances(**parts)]

    _same("status", (ids(status="waiting"), ids(status="done")), (["i1"], []))
    _same("flow", ids(flow="welcome"), ["i1", "i3"])
    _same("key", ids(key="k"), ["i1", "i2"])
    _same("together", ids(key="k", flow="other", status="running"), ["i2"])
    _same("newest", ids(flow="welcome", newest_first=True, limit=1), ["i3"])
    _same("after", ids(flow="welcome", after=w.get("i1").number), ["i3"])


@_check
def counts_count(w: _Bench) -> None:
    """Counts tell activities, firings, instances by status, outbox, unread, oldest runnable."""
    registry = w.triggers("a")
    worker = w.worker()
    w.end(worker, w.owned(worker, "i1"))
    w.park(worker, w.owned(worker, "i2"))
    w.commit(w.append("x", [w.fires("a", "i3")], registry), w.append("y", None))
    w.now += 9
    w.start("i4")
    w.ask(w.send("i4"))
    found = w.store.counts()
    _same("rows", (found.activities, found.firings, found.outbox, found.inbox), (2, 1, 1, 1))
    _same("instances", found.instances, {"done": 1, "waiting": 1, "running": 2})
    _same("oldest runnable", found.oldest_runnable, w.now - 9)
    w.claim(worker)
    _same("once all is owned", w.store.counts().oldest_runnable, None)


@_check
def next_due_is_the_earliest(w: _Bench) -> None:
    """The next due time is that of the parked ones, not of running or ended ones."""
    worker = w.worker()
    for name, due in (("i1", 30.0), ("i2", 20.0), ("i3", None)):
        w.park(worker, w.owned(worker, name), due=None if due is None else w.now + due)
    _same("two timers", w.store.next_due(), w.now + 20)
    w.ask(w.send("i2"))
    _same("one was woken", w.store.next_due(), w.now + 30)
    (two,) = w.claim(worker).claimed
    w.end(worker, two)
    _same("it has ended", w.store.next_due(), w.now + 30)


@_check
def own_writes_are_no_news(w: _Bench) -> None:
    """`changed` tells of other processes; what this store wrote itself is no news."""
    w.store.changed()
    w.start("i1")
    w.triggers("a")
    w.store.forget_worker(w.worker()[0])
    w.get("i1")
    _same("changed", w.store.changed(), False)


@_check
def reads_from_other_threads(w: _Bench) -> None:
    """Reads work from any thread, at any time, and see what is committed."""
    found: list[object] = []
    stop = threading.Event()

    def read() -> None:
        try:
            while not stop.is_set():
                w.store.counts()
                w.store.registry()
                found[:] = [len(w.store.instances(limit=1000))]
            found[:] = [len(w.store.instances(limit=1000))]
        except Exception as error:  # noqa: BLE001
            found[:] = [error]

    threads = [threading.Thread(target=read, daemon=True) for _ in range(2)]
    for thread in threads:
        thread.start()
    for number in range(30):
        w.start(f"i{number}")
    stop.set()
    for thread in threads:
        thread.join(30)
    _same("seen at the end", found, [30])


@_check
def close_keeps_the_data(w: _Bench) -> None:
    """A closed store opens again with everything in it; so does one that crashed."""
    registry = w.triggers("a")
    w.ask(w.append("x", [w.fires("a", "i1")], registry))
    w.ask(w.send("i1", dedup="d", digest=b"d"))
    before = w.everything()
    for crash in (False, True):
        w.reopen(crash=crash)
        _same(f"crash={crash}", w.everything(), before)
    again = w.commit(w.append("x", []), w.send("i1", dedup="d", digest=b"d"))
    _same("what it remembers", [each.verdict for each in again], [DUPLICATE, DUPLICATE])
