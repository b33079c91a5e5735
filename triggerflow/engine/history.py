"""History, planned: what a trigger would make of activities that are there already.

Backfills and their dry runs look here; nothing is written.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import attrs
import trio

from triggerflow.engine.arrivals import Met, activity_of
from triggerflow.triggers import TriggerIndex

if TYPE_CHECKING:
    from triggerflow.engine.arrivals import Arrivals
    from triggerflow.engine.clock import Clock
    from triggerflow.engine.reader import Reader
    from triggerflow.store.history import PastActivity, Span
    from triggerflow.store.operations import PlannedFiring
    from triggerflow.store.protocol import Store
    from triggerflow.triggers import Trigger

# Activities that are matched before others on the loop have their turn.
_BREATH: Final = 25


@attrs.define
class Page:
    """Some activities, and what follows from them.

    Attributes:
        to: the sequence number up to which all were looked at.
        looked: how many of them are in question; `known` of those have fired, `removed` have
            no document any more.
        firings: (sequence number, plan).
    """

    to: int
    looked: int = 0
    known: int = 0
    removed: int = 0
    firings: tuple[tuple[int, PlannedFiring], ...] = ()


class History:
    """Reads pages of activities and plans them with one trigger. Runs on the loop's thread."""

    def __init__(
        self, *, store: Store, reader: Reader, arrivals: Arrivals, clock: Clock
    ) -> None:
        self._store = store
        self._reader = reader
        self._arrivals = arrivals
        self._clock = clock

    async def page(self, trigger: Trigger, span: Span, after: int) -> Page:
        """The page of a span that follows `after`; its end is the span's where none is left."""
        last = span.last or 0
        rows = await self._reader.ask(
            lambda: self._store.past(trigger.trigger_cid, after, last)
        )
        page = Page(rows[-1].seq if rows else last)
        index = TriggerIndex((trigger,))
        met: list[tuple[int, Met]] = []
        for number, row in enumerate(rows):
            if not _is_in(row, span):
                continue
            page.looked += 1
            if row.known:
                page.known += 1
            elif row.document is None:
                page.removed += 1
            else:
                activity = activity_of(row)
                if index.match(activity):
                    met.append((row.seq, Met(activity, row.document, (trigger,))))
            if number % _BREATH == _BREATH - 1:
                await trio.lowlevel.checkpoint()
        plans = await self._arrivals.planned([each for _, each in met], now=self._clock.now())
        page.firings = tuple(
            (seq, planned)
            for (seq, _), firings in zip(met, plans, strict=True)
            for planned in firings
        )
        return page


def _is_in(row: PastActivity, span: Span) -> bool:
    """Whether its time is in the span: an activity counts by the time that stands on it."""
    if span.received_from is not None and row.received < span.received_from:
        return False
    return span.received_until is None or row.received < span.received_until
