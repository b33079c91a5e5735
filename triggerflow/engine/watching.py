"""Waits for activities: held against what was appended, in order, from where each begins.

A wait is a row of the commit that opened it. Whoever works scans from that row's position up
to the newest activity, and notes how far it came, so that a wait misses nothing that was
appended before, while or after it was opened. Two workers may scan at once: the row is
closed by the first hit, and both find the same one, since both go in order.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final

from triggerflow.core.codec import decode_document
from triggerflow.store.operations import Outcome, Satisfy, Scanned
from triggerflow.triggers import compile_pattern

if TYPE_CHECKING:
    from triggerflow.core.codec import ValueCodec
    from triggerflow.engine.clock import Clock
    from triggerflow.engine.committer import Committer
    from triggerflow.store.protocol import Store
    from triggerflow.store.records import ActivityRecord, WaitRecord

_PAGE: Final = 200
_COMPILED: Final = 10_000


class Watching:
    """Scans activities for the waits that they meet. Runs on the loop's thread.

    Attributes:
        open: there may be open waits.
    """

    def __init__(
        self,
        *,
        store: Store,
        committer: Committer,
        codec: ValueCodec,
        clock: Clock,
        told: Callable[[Outcome], None],
    ) -> None:
        """
        Args:
            told: called with the outcome of each hit.
        """
        self.open = True
        self._store = store
        self._committer = committer
        self._codec = codec
        self._clock = clock
        self._told = told
        self._pattern = lru_cache(_COMPILED)(lambda blob: compile_pattern(codec.decode(blob)))

    async def scan(self) -> None:
        """Hold every open wait against all activities that it has not seen."""
        while True:
            self.open = False
            waits = await self._committer.run(self._store.waits)
            if not waits:
                return
            self.open = True
            after = min(wait.scanned for wait in waits)
            rows = await self._committer.run(lambda: self._store.activities(after, _PAGE))  # noqa: B023
            if not rows:
                return
            await self._page(waits, rows)

    async def _page(self, waits: list[WaitRecord], rows: list[ActivityRecord]) -> None:
        left = {wait.id: wait for wait in waits}
        operations: list[Any] = []
        for row in rows:
            # Retention may have taken the document.
            document = None if row.document is None else decode_document(row.document)
            for wait in list(left.values()) if document is not None else ():
                if row.seq <= wait.scanned or row.namespace != wait.namespace:
                    continue
                if self._pattern(wait.pattern)(document):
                    del left[wait.id]
                    payload = self._codec.frame([wait.generation, row.seq, document])
                    operations.append(Satisfy(wait.id, payload, self._clock.now()))
        if left:
            operations.append(Scanned(tuple(left), rows[-1].seq))
        for outcome in await self._committer.ask_all(operations):
            self._told(outcome)
