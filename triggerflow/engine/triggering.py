"""The verbs about triggers: their states, their history, and firings that started nothing."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterable
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from triggerflow.engine.redispatch import AGAIN, ERRORS
from triggerflow.engine.starting import Starting
from triggerflow.engine.walks import Backfill, Redispatched
from triggerflow.errors import DefinitionError, UnknownTrigger
from triggerflow.store.firings import DOES
from triggerflow.store.history import Span
from triggerflow.triggers import Position

if TYPE_CHECKING:
    from triggerflow.engine.history import History
    from triggerflow.engine.redispatch import Redispatcher
    from triggerflow.store.history import BackfillRecord

_PAGE: Final = 200


class Triggering(Starting, ABC):
    """States, backfills, redispatch. `Engine` builds on it."""

    _history: History
    _redispatcher: Redispatcher

    @abstractmethod
    def _walk_came(self) -> None:
        """There is a walk over history to do, for a worker."""

    # --- verbs: states of triggers

    async def pause(self, trigger: Any) -> None:
        """Let a trigger start nothing: what it meets is recorded as ``paused``.

        The state belongs to the trigger's name, holds in every process, and outlives restarts
        and edits. What runs goes on; its backfills stand still.

        Raises:
            UnknownTrigger: the store has no current trigger of this name.
        """
        await self._set_state(trigger, "paused")

    async def drain_trigger(self, trigger: Any) -> None:
        """Let a trigger meet nothing more, as if it were removed, but keep it listed.

        What runs goes on; nothing is recorded, and `resume` doesn't catch it up: backfill it.

        Raises:
            UnknownTrigger: the store has no current trigger of this name.
        """
        await self._set_state(trigger, "draining")

    async def resume(self, trigger: Any, *, catch_up: bool = True) -> Backfill | None:
        """Make a paused or draining trigger active again.

        What it met while it was paused is dispatched now, by a worker, in the order of the
        activities, each by the spec that met it. What arrives from now on doesn't wait for it.

        Args:
            catch_up: False drops that instead: those firings become ``skipped``.

        Returns:
            The walk over the paused firings; None where there are none.

        Raises:
            UnknownTrigger: the store never had a trigger of this name.
        """
        return await self._set_state(trigger, "active", catch_up=catch_up)

    async def _set_state(
        self, trigger: Any, state: str, *, catch_up: bool | None = None
    ) -> Backfill | None:
        name = trigger_name(trigger)
        now = self._clock.now()
        found, names = await self._reader.ask(lambda: self._store.trigger_state(name))
        if found is None and (catch_up is None or name not in names):
            raise UnknownTrigger(name, tuple(names))
        number = await self._committer.run(
            lambda: self._store.set_trigger_state(name, state, now=now, catch_up=catch_up)
        )
        self._walk_came()
        return None if number is None else await self._backfill(number)

    # --- verbs: backfills

    async def backfill(
        self,
        trigger: Any,
        since: object = "horizon",
        *,
        until: object = None,
        dry_run: bool = False,
    ) -> Backfill:
        """Let a trigger meet activities that were appended before it was there.

        Workers go through history beside the live traffic, which comes first. A pair of
        activity and trigger that has fired, however, never fires again. The backfill ends at
        the newest activity that there is now: later ones meet the trigger as they come.

        Args:
            trigger: the trigger, or its name.
            since: ``"horizon"`` (the first activity), a sequence number, or an aware
                datetime: then the activities that were received at that time or later.
            until: a sequence number, counted in, or an aware datetime, not counted in.
            dry_run: look only, at once and here, and write nothing.

        Returns:
            The backfill, which has only begun; a dry run's is done, and has no id.

        Raises:
            UnknownTrigger: the store has no current trigger of this name.
            DefinitionError: `since` or `until` is no place in history.
        """
        name = trigger_name(trigger)
        span = span_of(since, until)
        now = self._clock.now()
        if dry_run:
            return await self._dry_run(name, span, now)
        number = await self._committer.run(
            lambda: self._store.open_backfill(name, span, now=now)
        )
        if number is None:
            raise await self._no_trigger(name)
        self._walk_came()
        return await self._backfill(number)

    async def _dry_run(self, name: str, wanted: Span, now: float) -> Backfill:
        await self._arrivals.look_again()
        trigger = self._arrivals.named(name)
        if trigger is None:
            raise await self._no_trigger(name)
        first, last = await self._reader.ask(lambda: self._store.span(wanted))
        span = Span(first, last, wanted.received_from, wanted.received_until)
        to, counts = first - 1, Counter[str]()
        while to < last:
            page = await self._history.page(trigger, span, to)
            to = page.to
            fired = sum(planned.outcome in DOES for _, planned in page.firings)
            counts.update(
                looked=page.looked,
                known=page.known,
                removed=page.removed,
                fired=fired,
                unstarted=len(page.firings) - fired,
            )
        return Backfill.dry(name, trigger.trigger_cid, span, counts, now)

    async def backfills(self) -> tuple[Backfill, ...]:
        """All backfills, and walks over paused firings, that there ever were, oldest first."""
        return tuple(map(Backfill.of, await self._reader.ask(self._store.backfills)))

    async def get_backfill(self, id: int) -> Backfill:
        """One of them, as it stands.

        Raises:
            DefinitionError: there is none of this id.
        """
        return await self._backfill(id)

    async def pause_backfill(self, id: int) -> Backfill:
        """Let one stand still; one that has ended stays as it is."""
        return await self._set_backfill(id, "paused")

    async def resume_backfill(self, id: int) -> Backfill:
        """Let one go on from where it stands."""
        return await self._set_backfill(id, "running")

    async def cancel_backfill(self, id: int) -> Backfill:
        """End one where it stands; what it fired stays, what it left paused stays paused."""
        return await self._set_backfill(id, "cancelled", "it was cancelled")

    async def _set_backfill(self, id: int, state: str, reason: str | None = None) -> Backfill:
        now = self._clock.now()
        await self._committer.run(
            lambda: self._store.set_backfill(id, state, now=now, reason=reason)
        )
        self._walk_came()
        return await self._backfill(id)

    async def _backfill(self, id: int) -> Backfill:
        found: list[BackfillRecord] = await self._reader.ask(
            lambda: self._store.backfills(number=id)
        )
        if not found:
            raise DefinitionError(f"backfill {id!r}", "there is none of this id")
        return Backfill.of(found[0])

    # --- verbs: firings

    async def redispatch(
        self,
        activity_cid: str | None = None,
        *,
        trigger: Any = None,
        outcome: str | Iterable[str] = ERRORS,
        limit: int | None = None,
        dry_run: bool = False,
    ) -> Redispatched:
        """Dispatch firings again that started nothing, each by its own trigger's spec.

        It goes in the order of the activities, and returns when it is through. One that has
        an instance is never touched; what a firing was before is kept, see `firings`.

        Args:
            activity_cid: only those of this activity.
            trigger: only those of triggers that have, or had, this name.
            outcome: which ones; errors by default. ``paused``, ``skipped``, ``limited`` and
                ``guard_no`` can be named too. What belongs to a paused trigger stays.
            limit: how many at most.
            dry_run: say what would become of them, and write nothing.

        Raises:
            DefinitionError: an outcome can't be dispatched again.
        """
        wanted = (outcome,) if isinstance(outcome, str) else tuple(outcome)
        for each in wanted:
            if each not in AGAIN:
                raise DefinitionError(
                    "redispatch(outcome=)",
                    f"found {each!r:.80}, expected some of {', '.join(sorted(AGAIN))}",
                    "others have started something, or are about to",
                )
        name = None if trigger is None else trigger_name(trigger)
        counts: Counter[str] = Counter()
        looked, after = 0, (0, 0)
        await self._arrivals.look_again()
        while limit is None or looked < limit:
            size = _PAGE if limit is None else min(_PAGE, limit - looked)
            rows = await self._reader.ask(
                partial(
                    self._store.unstarted,
                    wanted,
                    activity=activity_cid,
                    trigger=name,
                    after=after,
                    limit=size,
                )
            )
            if not rows:
                break
            after, looked = rows[-1].cursor, looked + len(rows)
            counts += await self._redispatcher.carry_out(rows, "redispatch", dry_run=dry_run)
        if not dry_run and looked:
            self._walk_came()
            self._work_came()
        return Redispatched(looked, dict(counts))

    async def _no_trigger(self, name: str) -> UnknownTrigger:
        _, names = await self._reader.ask(lambda: self._store.trigger_state(name))
        return UnknownTrigger(name, tuple(names))


def trigger_name(trigger: Any) -> str:
    """The name of a trigger that is given as itself or by its name.

    Raises:
        DefinitionError: it is neither.
    """
    name = trigger if isinstance(trigger, str) else getattr(trigger, "name", None)
    if not isinstance(name, str):
        raise DefinitionError("trigger", f"found {trigger!r:.80}, expected one or its name")
    return name


def span_of(since: object, until: object) -> Span:
    """The part of history between two places.

    Raises:
        DefinitionError: one of them is no place, or there is nothing after it.
    """
    first = Position.of(since, "backfill(since=)")
    if first is None:
        raise DefinitionError(
            "backfill(since=)",
            "found 'latest', after which there is nothing",
            'a trigger starts there by itself; give "horizon", a number or a datetime',
        )
    if until is None or until == "latest":
        return Span(first.seq, None, first.received)
    if until == "horizon":
        raise DefinitionError("backfill(until=)", "found 'horizon', before which is nothing")
    end = Position.of(until, "backfill(until=)")
    assert end is not None
    if end.received is None:
        return Span(first.seq, end.seq, first.received)
    return Span(first.seq, None, first.received, end.received)
