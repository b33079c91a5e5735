"""What every check uses: a store over empty data, and short words for what is done to it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Final

from triggerflow.store.newcomer import NewInstance
from triggerflow.store.operations import (
    Append,
    Batch,
    Block,
    Claim,
    LogRow,
    Operation,
    Outcome,
    PlannedFiring,
    Send,
    Start,
    Turn,
    Verdict,
)
from triggerflow.store.protocol import Store
from triggerflow.store.records import Claimed, InstanceRecord, NewTrigger

MakeStore = Callable[[], Store]
Worker = tuple[int, int]

STORE_CHECKS: Final[dict[str, Callable[[MakeStore], None]]] = {}

APPLIED, DUPLICATE, CONFLICT = Verdict.APPLIED, Verdict.DUPLICATE, Verdict.CONFLICT
STALE, GONE, FENCED = Verdict.STALE, Verdict.GONE, Verdict.FENCED

NOON: Final = 1_700_000_000.0
LEASE: Final = 30.0
FLOWS: Final = frozenset({("welcome", 1)})


def check(promise: Callable[[Bench], None]) -> Callable[[Bench], None]:
    name = promise.__name__

    def held(make_store: MakeStore) -> None:
        store = make_store()
        try:
            store.open()
            promise(Bench(store))
        except AssertionError as error:
            raise AssertionError(f"{name}: {error}\n  promise: {promise.__doc__}") from error
        except Exception as error:
            raise AssertionError(
                f"{name}: expected no error, found {type(error).__name__}: {error}\n"
                f"  promise: {promise.__doc__}"
            ) from error
        finally:
            store.close()

    held.__name__ = held.__qualname__ = name
    held.__doc__ = promise.__doc__
    STORE_CHECKS[name] = held
    return promise


def same(what: str, found: object, expected: object) -> None:
    if found != expected:
        raise AssertionError(f"{what}: expected {expected!r}, found {found!r}")


def true(what: str, holds: object) -> None:
    if not holds:
        raise AssertionError(f"expected that {what}; found that it doesn't hold")


class Bench:
    """An open store, and the few words in which the checks talk to it."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.now = NOON

    def commit(self, *operations: Operation, worker: Worker | None = None) -> list[Outcome]:
        found = self.store.commit(Batch(list(operations), self.now, worker))
        same("number of outcomes", len(found), len(operations))
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
        rows = [
            NewTrigger(
                name, f"cid-{name}-{spec}", f"{name} {spec}".encode(), f"means {name} {spec}"
            )
            for name in names
        ]
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
            same(f"start of {name}", found.verdict, APPLIED)

    def worker(
        self, build: str = "build-a", flows: Iterable[tuple[str, int]] = FLOWS
    ) -> Worker:
        return self.store.register_worker(build=build, flows=flows, now=self.now)

    def claim(self, worker: Worker, **parts: Any) -> Outcome:
        given: dict[str, Any] = {
            "limit": 10,
            "blocked": 1,
            "build": "build-a",
            "flows": FLOWS,
            "now": self.now,
        }
        found = self.ask(Claim(**(given | parts)), worker)
        same("claim", found.verdict, APPLIED)
        return found

    def owned(self, worker: Worker, id: str) -> Claimed:
        """A new instance, owned by the worker."""
        self.start(id)
        claimed = self.claim(worker).claimed
        same("claimed", [each.id for each in claimed], [id])
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
        same(type(operation).__name__, found.verdict, APPLIED)
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
            true("there is something to claim", self.claim(worker, alone=True, **claim).claimed)
            self.reopen(crash=True)
            self.store.reap()

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
