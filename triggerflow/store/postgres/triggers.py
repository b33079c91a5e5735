"""What `PostgresStore` offers about triggers: registry, states, firings, backfills."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, TypeVar

from triggerflow.store.postgres import backfills, firings, registry

if TYPE_CHECKING:
    from triggerflow.store.history import (
        BackfillRecord,
        FiringChange,
        PastActivity,
        Span,
        Unstarted,
    )
    from triggerflow.store.postgres.wire import Db
    from triggerflow.store.records import NewTrigger, TriggerRecord

T = TypeVar("T")


class Triggers(ABC):
    """The verbs about triggers; `triggerflow.store.protocol.Store` has what they promise."""

    @abstractmethod
    def _write(self, work: Callable[[Db], tuple[T, bool]]) -> T:
        """Work in a write transaction; others are told where the work says so."""

    @abstractmethod
    def _read(self, work: Callable[[Db], T]) -> T:
        """Read."""

    def _alone(self, work: Callable[[Db], T]) -> T:
        """Work that nobody's plans may overlap with; others are told."""

        def all_of_it(db: Db) -> tuple[T, bool]:
            registry.take(db)
            return work(db), True

        return self._write(all_of_it)

    # --- writing

    def sync_triggers(self, triggers: Sequence[NewTrigger], *, now: float) -> int:
        """Make triggers current; see `Store.sync_triggers`."""

        def work(db: Db) -> tuple[int, bool]:
            registry.take(db)
            before = registry.generation(db)
            number = registry.sync(db, triggers, now)
            return number, number != before

        return self._write(work)

    def retire_trigger(self, name: str) -> bool:
        """See `Store.retire_trigger`."""
        return self._alone(lambda db: registry.retire(db, name))

    def set_trigger_state(
        self, name: str, state: str, *, now: float, catch_up: bool | None = None
    ) -> int | None:
        """Pause, drain or resume; see `Store.set_trigger_state`."""
        return self._alone(
            lambda db: registry.set_state(db, name, state, now, catch_up=catch_up)
        )

    def open_backfill(self, name: str, span: Span, *, now: float) -> int | None:
        """Open a backfill; see `Store.open_backfill`."""
        return self._alone(lambda db: backfills.begin(db, name, span, now))

    def set_backfill(
        self, number: int, state: str, *, now: float, reason: str | None = None
    ) -> str | None:
        """Pause, go on with or cancel one; see `Store.set_backfill`."""
        return self._alone(lambda db: backfills.set_state(db, number, state, reason, now))

    # --- asking

    def registry(self) -> tuple[int, tuple[TriggerRecord, ...]]:
        """Generation and current triggers; see `Store.registry`."""

        def both(db: Db) -> tuple[int, tuple[TriggerRecord, ...]]:
            # One snapshot: the generation must be the one of these triggers.
            with db.snapshot():
                return registry.generation(db), registry.current(db)

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
