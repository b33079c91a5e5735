"""Kill the engine at every commit point in turn, and see that the end is the same.

A commit point is any write of the store. At each one the engine dies twice: once before
the write (nothing of it is stored) and once after it (it is stored, and nobody heard of
it). Then a new engine opens on what is left, and the scenario runs again from its top.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Final

import attrs

from triggerflow.app import App
from triggerflow.engine.clock import LoopClock
from triggerflow.engine.engine import Engine
from triggerflow.store.protocol import Store
from triggerflow.testing.time import run_virtually, virtual_settings

_WRITES: Final = frozenset(
    {
        "commit",
        "register_worker",
        "forget_worker",
        "reap",
        "sync_triggers",
        "set_trigger_state",
        "open_backfill",
        "set_backfill",
        "transact",
        "prune",
        "prune_documents",
    }
)
# A scenario that still hasn't ended after so many restarts never will.
_MOST_STARTS: Final = 20


class Crash(BaseException):
    """What a dying engine sees; no ``except Exception`` can catch it."""


class CrashingStore:
    """A store that dies at one of its writes, before or after it.

    Attributes:
        writes: how many writes were begun.
        crashed: whether it has died.
    """

    def __init__(self, store: Store, *, at: int | None = None, after: bool = False) -> None:
        self.store = store
        self.writes = 0
        self.crashed = False
        self._at = at
        self._after = after
        self._dead = False

    def open(self) -> None:
        """Open what is left, as a new process does."""
        self._dead = False
        self.store.open()

    def __getattr__(self, name: str) -> Any:
        found = getattr(self.store, name)
        return self._dying(found) if name in _WRITES else found

    def _dying(self, write: Callable[..., Any]) -> Callable[..., Any]:
        def attempt(*args: Any, **kwargs: Any) -> Any:
            if self._dead:
                # A dead process writes nothing any more.
                raise Crash
            self.writes += 1
            if self.writes != self._at:
                return write(*args, **kwargs)
            self.crashed = self._dead = True
            if self._after:
                write(*args, **kwargs)
            raise Crash

        return attempt


@attrs.frozen
class CrashReport:
    """What `crash_everywhere` did.

    Attributes:
        points: how many commit points the scenario has.
        runs: how many runs with a crash there were.
        end: what the scenario returned, every time.
    """

    points: int
    runs: int
    end: Any


def crash_everywhere(
    make_app: Callable[[Any], App],
    scenario: Callable[[Engine], Awaitable[Any]],
    make_store: Callable[[], Store],
    *,
    audit: Callable[[Store], None] | None = None,
    **settings: Any,
) -> CrashReport:
    """Run a scenario with a crash at each of its commit points, on virtual time.

    Args:
        make_app: makes the app anew for a store, as a restarted process would.
        scenario: drives the engine and returns the end to compare. It runs again from its
            top after a crash, so it uses verbs that may be repeated: ``append``,
            ``start(key=)``, ``signal(dedup=)``.
        make_store: makes a new, empty store.
        audit: looks at the store after each run, and raises if it finds something wrong.
        settings: more of the engine's, such as ``queues=["gpu"]``.

    Raises:
        AssertionError: a run ended differently, or never.
    """
    counting = CrashingStore(make_store())
    end = _run(make_app, scenario, counting, settings)
    _finish(counting, audit)
    points = counting.writes
    runs = 0
    for at in range(1, points + 1):
        for after in (False, True):
            store = CrashingStore(make_store(), at=at, after=after)
            found = _run(make_app, scenario, store, settings)
            side = "after" if after else "before"
            if found != end:
                raise AssertionError(
                    f"a crash {side} commit point {at} of {points} changed the end: "
                    f"expected {end!r}, found {found!r}"
                )
            _finish(store, audit)
            runs += 1
    return CrashReport(points, runs, end)


def _finish(store: CrashingStore, audit: Callable[[Store], None] | None) -> None:
    if audit is not None:
        store.store.open()
        try:
            audit(store.store)
        finally:
            store.store.close()


def _run(
    make_app: Callable[[Any], App],
    scenario: Callable[[Engine], Awaitable[Any]],
    store: CrashingStore,
    settings: dict[str, Any] | None = None,
) -> Any:
    clock = LoopClock()

    async def lives() -> Any:
        for _ in range(_MOST_STARTS):
            try:
                options = virtual_settings(clock) | (settings or {})
                async with make_app(store).open(**options) as engine:
                    return await scenario(engine)
            except Crash:
                continue
            except BaseExceptionGroup as group:
                if group.subgroup(Crash) is None:
                    raise
        raise AssertionError(f"the scenario did not end within {_MOST_STARTS} starts")

    return run_virtually(lives)
