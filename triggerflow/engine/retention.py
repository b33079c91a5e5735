"""Retention: a task of a working engine that removes what has been kept long enough.

It goes through the store page by page. A page is one transaction of its own, bounded in
instances and rows, and after each the task rests for longer than the page took: whoever
waits for the committer hardly notices it.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Final

import trio

from triggerflow.errors import EngineClosed

if TYPE_CHECKING:
    from collections.abc import Iterable

    from triggerflow.engine.clock import Clock
    from triggerflow.engine.committer import Committer
    from triggerflow.flows.flow import Flow
    from triggerflow.store.protocol import Store
    from triggerflow.store.records import Position, Pruned

log: Final = logging.getLogger("triggerflow")

# Rounds come so often that what is due goes within a tenth of its retention, in these bounds.
_SOONEST: Final = 60.0
_LATEST: Final = 3600.0
_SHORTEST_REST: Final = 0.1
# A page takes at most a tenth of the committer's time.
_REST: Final = 9
# A wall clock that runs ahead of the loop's by more was set.
_JUMP: Final = 60.0


class Retention:
    """Removes ended instances and old documents. Runs on the loop's thread."""

    def __init__(
        self,
        *,
        store: Store,
        committer: Committer,
        clock: Clock,
        flows: Iterable[Flow],
        instances: float,
        documents: float,
        rested: Callable[[], None],
    ) -> None:
        """
        Args:
            instances: seconds that instances are kept whose flow doesn't say.
            documents: seconds that documents are kept.
            rested: called after each page: nothing of it waits in the committer any more.
        """
        self._store = store
        self._committer = committer
        self._clock = clock
        self._rested = rested
        self._documents = documents
        self._limits = limits(flows, instances)
        shortest = min(
            [documents, *(each for kept in self._limits.values() for each in kept.values())]
        )
        self._every = min(_LATEST, max(_SOONEST, shortest / 10))
        self._nothing_to_do = math.isinf(shortest)
        self._ahead = math.inf
        self._distrusted = -math.inf

    async def run(self) -> None:
        """Go round until cancelled."""
        if self._nothing_to_do:
            return
        while True:
            try:
                if self._trusts_the_clock():
                    await self._round()
            except EngineClosed:
                return
            except Exception:
                # What is due goes in the next round.
                log.exception("retention could not remove what is due; trying again later")
            await trio.sleep(self._every)

    def _trusts_the_clock(self) -> bool:
        """A clock that leapt ahead may be put right again; what is removed can't be."""
        ahead = self._clock.now() - trio.current_time()
        if ahead > self._ahead + _JUMP:
            self._distrusted = trio.current_time() + _LATEST
            log.warning("the clock leapt ahead: nothing is removed by age for an hour")
        self._ahead = ahead
        return trio.current_time() >= self._distrusted

    async def _round(self) -> None:
        now = self._clock.now()
        for flow, kept in self._limits.items():
            before = {version: now - limit for version, limit in kept.items()}
            await self._pages(partial(self._store.prune, flow, before, now=now))
        if not math.isinf(self._documents):
            await self._pages(partial(self._store.prune_documents, now - self._documents))

    async def _pages(self, page: Callable[..., Pruned]) -> None:
        after: Position | None = None
        while True:
            began = trio.current_time()
            found = await self._committer.run(partial(page, after=after))
            self._rested()
            if found.next is None:
                return
            after = found.next
            await trio.sleep(max(_SHORTEST_REST, _REST * (trio.current_time() - began)))


def limits(flows: Iterable[Flow], default: float) -> dict[str, dict[int | None, float]]:
    """Flow -> version -> seconds that its ended instances are kept.

    None stands for the versions that aren't registered here: they follow the newest one that
    is. A flow that is not registered at all is none of our business, and one whose instances
    are kept for ever is left out.
    """
    found: dict[str, dict[int | None, float]] = {}
    for flow in sorted(flows, key=lambda each: each.version):
        kept = default if flow.retention is None else flow.retention
        found.setdefault(flow.name, {}).update({flow.version: kept, None: kept})
    return {
        name: kept
        for name, kept in found.items()
        if not all(math.isinf(each) for each in kept.values())
    }
