"""What cancels an instance that is about to start: waits that land with it."""

from __future__ import annotations

from collections.abc import Iterable

from triggerflow.core.codec import encode_document
from triggerflow.errors import PatternError
from triggerflow.store.newcomer import NewWait
from triggerflow.triggers import CancelOn, NoValue, Watch


def cancelling_waits(parts: Iterable[CancelOn], document: object) -> tuple[NewWait, ...]:
    """The waits of `parts`, with the values of the document that starts the instance.

    Raises:
        NoValue: a path finds nothing, or no value that a pattern could have.
    """
    found = []
    for part in parts:
        content = part.filled(document)
        try:
            pivots = Watch.read("cancel", content).pivots
        except PatternError as error:
            raise NoValue(f"cancel_on: {error}") from None
        found.append(NewWait(encode_document(content), pivots))
    return tuple(found)
