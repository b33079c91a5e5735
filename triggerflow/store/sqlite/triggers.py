"""What `SqliteStore` offers about triggers: registry, states, firings, backfills."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, TypeVar

from triggerflow.store.sqlite import backfills, firings, registry

if TYPE_CHECKING:
    import sqlite3

    from triggerflow.store.history import (
        BackfillRecord,
        FiringChange,
        PastActivity,
        Span,
        Unstarted,
    )
    from triggerflow.store.records import NewTrigger, TriggerRecord

T = TypeVar("T")


class Triggers(ABC):
    """The verbs about triggers; `triggerflow.store.protocol.Store` has what they promise."""

    @abstractmethod
    def _write(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Work in a write transaction."""

    @abstractmethod
    def _read(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Read."""

    # --- writing

    def sync_triggers(self, triggers: Sequence[NewTrigger], *, now: float) -> int:
        """Make triggers current; see `Store.sync_triggers`."""
        return self._write(lambda db: registry.sync(db, triggers, now))

    def retire_trigger(self, name: str) -> bool:
        """See `Store.retire_trigger`."""
        return self._write(lambda db: registry.retire(db, name))

    def set_trigger_state(
        self, name: str, state: str, *, now: float, catch_up: bool | None = None
    ) -> int | None:
        """Pause, drain or resume; see `Store.set_trigger_state`."""
        return self._write(
            lambda db: registry.set_state(db, name, state, now, catch_up=catch_up)
        )

    def open_backfill(self, name: str, span: Span, *, now: float) -> int | None:
        """Open a backfill; see `Store.open_backfill`."""
        return self._write(lambda db: backfills.begin(db, name, span, now))

    def set_backfill(
        self, number: int, state: str, *, now: float, reason: str | None = None
    ) -> str | None:
        """Pause, go on with or cancel one; see `Store.set_backfill`."""
        return self._write(lambda db: backfills.set_state(db, number, state, reason, now))

    # --- asking

    def registry(self) -> tuple[int, tuple[TriggerRecord, ...]]:
        """Generation and current triggers; see `Store.registry`."""

        def both(db: sqlite3.Connection) -> tuple[int, tuple[TriggerRecord, ...]]:
            # One snapshot: the generation must be the one of these triggers.
            db.execute("BEGIN")
            try:
                return registry.generation(db), registry.current(db)
            finally:
                db.execute("COMMIT")

        return self._read(both)

    def triggers_at(self, number: int) -> tuple[TriggerRecord, ...]:
        """See `Store.triggers_at`."""
        return self._read(lambda db: registry.at(db, number))

    def trigger_state(self, name: str) -> tuple[str | None, list[str]]:
        """See `Store.trigger_state`."""
        return self._read(lambda db: registry.known(db, name))

    def unstarted(
        self,
        outcomes: Iterable[str],
        *,
        activity: str | None = None,
        trigger: str | None = None,
        after: tuple[int, int] = (0, 0),
        last: int | None = None,
        limit: int = 100,
    ) -> list[Unstarted]:
        """See `Store.unstarted`."""
        return self._read(
            lambda db: firings.unstarted(
                db,
                tuple(outcomes),
                activity=activity,
                trigger=trigger,
                after=after,
                last=last,
                limit=limit,
            )
        )

    def due_dispatches(
        self, now: float, *, after: tuple[float, int] = (0.0, 0), limit: int = 100
    ) -> list[Unstarted]:
        """See `Store.due_dispatches`."""
        return self._read(lambda db: firings.due(db, now, after, limit))

    def next_dispatch(self, after: float) -> float | None:
        """See `Store.next_dispatch`."""
        return self._read(lambda db: firings.next_due(db, after))

    def firing_history(self, cid: str, trigger_cid: str) -> list[FiringChange]:
        """See `Store.firing_history`."""
        return self._read(lambda db: firings.history(db, cid, trigger_cid))

    def backfills(
        self, *, open_only: bool = False, number: int | None = None
    ) -> list[BackfillRecord]:
        """See `Store.backfills`."""
        return self._read(lambda db: backfills.listed(db, open_only=open_only, number=number))

    def past(
        self, trigger_cid: str, after: int, last: int, *, limit: int = 500, size: int = 2**21
    ) -> list[PastActivity]:
        """See `Store.past`."""
        return self._read(lambda db: backfills.past(db, trigger_cid, after, last, limit, size))

    def span(self, span: Span) -> tuple[int, int]:
        """See `Store.span`."""
        return self._read(lambda db: backfills.span_of(db, span))
