"""What instances hear of one another, and whom a write concerns beside those it was about."""

from __future__ import annotations

from functools import cache
from typing import Final

import attrs

from triggerflow.core.codec import ValueCodec
from triggerflow.core.failure import Failure
from triggerflow.store.records import ENDED

# A message on its way into an inbox: instance, kind, name, payload, time.
Post = tuple[int, str, str, bytes, float]

# None, encoded: a cancel carries nothing.
NONE: Final = b"\xf6"
# How an inbox row says what became of a child.
KINDS: Final = {status: f"child_{status}" for status in ENDED}

# Who was admitted, in order.
Admitted = dict[int, None]


@attrs.define
class Told:
    """Whom a write concerns beside those that it was about.

    Attributes:
        owners: (number, owner) of instances that got a message or became runnable.
        ended: public ids of those that ended without a turn.
    """

    owners: list[tuple[int, int | None]] = attrs.field(factory=list)
    ended: list[str] = attrs.field(factory=list)

    def __bool__(self) -> bool:
        return bool(self.owners or self.ended)

    def add(self, other: Told) -> None:
        """These, too."""
        self.owners += other.owners
        self.ended += other.ended

    def woken(self, admitted: Admitted) -> None:
        """These were admitted: they wait for an owner."""
        self.owners += [(number, None) for number in admitted]


@cache
def cancelled_while_held() -> bytes:
    """The failure of an instance that was cancelled before it was admitted."""
    failure = Failure("FlowCancelled", "cancelled while it was held", kind="cancelled")
    return ValueCodec().encode(failure.to_record())
