"""What cancels an instance that is about to start: waits that land with it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import attrs

from triggerflow.core.codec import encode_document
from triggerflow.errors import PatternError
from triggerflow.store.waits import NewWait
from triggerflow.triggers import CancelOn, Watch
from triggerflow.triggers.mapping import NoValue

if TYPE_CHECKING:
    from triggerflow.triggers.mapping import Source


@attrs.frozen
class Given:
    """The input of an instance that is started by hand, in an activity's place."""

    document: Any

    @property
    def about(self) -> dict[str, Any]:
        """Nothing: no activity started it."""
        return {}


def cancelling_waits(
    parts: Iterable[CancelOn], activity: Source, namespace: str
) -> tuple[NewWait, ...]:
    """The waits of `parts`, with the values of what starts the instance.

    Raises:
        NoValue: a path finds nothing, or no value that a pattern could have.
    """
    found = []
    for part in parts:
        try:
            content = part.filled(activity)
            watch = Watch.read("cancel", content)
        except (NoValue, PatternError) as error:
            raise NoValue(f"cancel_on: {error}") from None
        found.append(NewWait(encode_document(content), watch.pivots_in(namespace)))
    return tuple(found)
