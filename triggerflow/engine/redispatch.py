"""Redispatch: firings that started nothing are planned again, each by its own trigger's spec.

Three ask for it: a person (`Engine.redispatch`), a trigger that is resumed, and a dispatch
that failed and is due again. All of them plan here, with the function that plans appends, and
none can start anything twice: a firing is written over only while it has no instance and is
what it was when it was read.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final

from triggerflow.engine.arrivals import Met, activity_of
from triggerflow.pipeline.admission import newest
from triggerflow.store.operations import PlannedFiring, Redispatch, Verdict

if TYPE_CHECKING:
    from triggerflow.engine.arrivals import Arrivals
    from triggerflow.engine.clock import Clock
    from triggerflow.engine.committer import Committer
    from triggerflow.store.history import Unstarted
    from triggerflow.store.operations import Outcome

# What may be dispatched again. All else has started something, or is about to.
AGAIN: Final = frozenset(
    {"failed", "guard_error", "guard_no", "paused", "skipped", "limited", "dispatch_failed"}
)
# Those that stand for an error.
ERRORS: Final = ("guard_error", "failed")
_MOST_PLANS: Final = 20


class Redispatcher:
    """Plans firings again and writes them over. Runs on the loop's thread."""

    def __init__(
        self,
        *,
        committer: Committer,
        arrivals: Arrivals,
        clock: Clock,
        begun: Callable[[Outcome], None],
    ) -> None:
        """
        Args:
            begun: called with each outcome, which has whom it told something.
        """
        self._committer = committer
        self._arrivals = arrivals
        self._clock = clock
        self._begun = begun

    async def plan(
        self, rows: Sequence[Unstarted], source: str
    ) -> tuple[list[Redispatch], Counter[str]]:
        """What firings become.

        Returns:
            What to write, and how many stay as they are, by the reason: ``paused`` (their
            trigger is), ``removed`` (their document is), ``unknown_guard`` (this process
            lacks its code), ``unreadable`` (their trigger is, here).
        """
        now, registry = self._clock.now(), self._arrivals.registry
        found: list[Redispatch] = []
        left: Counter[str] = Counter()
        todo: list[tuple[Unstarted, Met]] = []

        def write(row: Unstarted, planned: PlannedFiring) -> None:
            found.append(Redispatch(row.id, row.changes, planned, registry, now, source))

        for row in rows:
            if row.state == "paused":
                if source == "retry":
                    write(row, _stays(row, "paused"))
                else:
                    left["paused"] += 1
            elif row.document is None:
                if source == "retry":
                    write(row, _stays(row, "failed", "its activity's document was removed"))
                else:
                    left["removed"] += 1
            elif (trigger := self._arrivals.one(row.spec, row.options)) is None:
                left["unreadable"] += 1
            else:
                attempts = row.attempts + 1 if source == "retry" else 1
                todo.append((row, Met(activity_of(row), row.document, (trigger,), attempts)))
        firings = await self._arrivals.planned([met for _, met in todo], now=now)
        for (row, _), planned in zip(todo, firings, strict=True):
            for new in (each.instance for each in planned):
                if new is not None and new.admission is not None:
                    current = self._arrivals.named(row.trigger)
                    new.admission = newest(new.admission, current)
            if not planned:
                write(row, _stays(row, "guard_no"))
            elif planned[0].outcome != "deferred":
                write(row, planned[0])
            elif source == "resume":
                # Who resumes has the code of the present spec; nobody else has this one's.
                write(row, _stays(row, "guard_error", "its guard's code is no more"))
            else:
                left["unknown_guard"] += 1
        return found, left

    async def carry_out(
        self, rows: Sequence[Unstarted], source: str, *, dry_run: bool = False
    ) -> Counter[str]:
        """Write firings over; how many there are of each outcome, or reason to stay."""
        todo = list(rows)
        counts: Counter[str] = Counter()
        for _ in range(_MOST_PLANS):
            found, left = await self.plan(todo, source)
            if dry_run:
                return left + Counter(each.planned.outcome for each in found)
            outcomes = await self._committer.ask_all(found, self._begun)
            stale = set()
            for each, outcome in zip(found, outcomes, strict=True):
                if outcome.verdict is Verdict.STALE:
                    stale.add(each.firing)
                elif outcome.verdict is Verdict.GONE:
                    # Somebody else was faster.
                    counts["changed"] += 1
                else:
                    counts.update(record.outcome for record in outcome.firings or ())
            counts += left
            todo = [row for row in todo if row.id in stale]
            if not todo:
                break
            await self._arrivals.look_again()
        return counts


def _stays(row: Unstarted, outcome: str, error: str | None = None) -> PlannedFiring:
    return PlannedFiring(row.trigger_cid, None, error, outcome, attempts=row.attempts)
