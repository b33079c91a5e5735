"""A page of activities, filed under their pivots: which is the first that a wait meets?"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Final

import attrs

from triggerflow.core.codec import decode_document
from triggerflow.errors import TriggerflowError
from triggerflow.triggers import in_namespace

if TYPE_CHECKING:
    from triggerflow.store.records import ActivityRecord
    from triggerflow.store.waits import WaitRecord
    from triggerflow.triggers import Looked, Pivot, Watch

log: Final = logging.getLogger("triggerflow")


@attrs.frozen(eq=False)
class Sighted:
    """An activity that a wait may meet."""

    seq: int
    namespace: str
    types: tuple[str, ...]
    document: dict[str, Any]


class Page:
    """Activities in their order.

    Attributes:
        last: number of the last one, whether its document is still there or not.
    """

    def __init__(self, rows: Iterable[ActivityRecord], looked: Looked) -> None:
        """Decode the documents; those that retention took, or nobody can read, meet nothing."""
        self.last = 0
        self._activities: list[Sighted] = []
        self._at: dict[Pivot, list[int]] = {}
        for row in rows:
            self.last = row.seq
            if row.document is None:
                continue
            try:
                found = Sighted(
                    row.seq,
                    row.namespace,
                    tuple(json.loads(row.types)),
                    decode_document(row.document),
                )
            except TriggerflowError:
                log.exception("activity %s can't be read, and meets no wait", row.seq)
                continue
            index = len(self._activities)
            self._activities.append(found)
            pivots = looked.pivots(found.document, found.types)
            for pivot in in_namespace(pivots, row.namespace):
                self._at.setdefault(pivot, []).append(index)

    @property
    def pivots(self) -> list[Pivot]:
        """All that these activities have, as far as they are looked at."""
        return list(self._at)

    def first(
        self, watch: Watch, wait: WaitRecord, under: Pivot | None = None
    ) -> Sighted | None:
        """The first activity that a wait meets, above what was held against it by itself.

        Args:
            under: the pivot under which the wait was found.
        """
        pivots = watch.pivots_in(wait.namespace)
        indexes: Iterable[int]
        if under is not None and under not in pivots:
            # Another version filed it.
            indexes = range(len(self._activities))
        elif len(pivots) == 1:
            indexes = self._at.get(pivots[0], ())
        else:
            indexes = sorted({index for pivot in pivots for index in self._at.get(pivot, ())})
        for index in indexes:
            each = self._activities[index]
            if (
                each.seq > wait.scanned
                and each.namespace == wait.namespace
                and watch(each.types, each.document)
            ):
                return each
        return None
