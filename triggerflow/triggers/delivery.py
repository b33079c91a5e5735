"""What a trigger says beside its meaning: how it is dispatched, and where in history it begins.

None of it is part of the CID: with another retry policy it is the same trigger still. So the
store keeps it beside the spec, for whichever process dispatches.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final

import attrs

from triggerflow.core.codec import decode_document, encode_document
from triggerflow.core.retry import Raised, RetryPolicy
from triggerflow.errors import DefinitionError

_PARTS: Final = ("max_attempts", "initial", "factor", "cap", "jitter")
# Guards are judged elsewhere, and what they raise travels as text.
_ANY: Final = Raised.of(RuntimeError())


@attrs.frozen
class Delivery:
    """How a trigger is dispatched.

    Attributes:
        retry: how often a guard that raises or hangs is asked again, or None: never.
        dead_letter: the flow that starts once that has failed for good, or None.
    """

    retry: RetryPolicy | None = None
    dead_letter: str | None = None

    @classmethod
    def checked(cls, retry: object, dead_letter: str | None, what: str) -> Delivery:
        """The delivery of these parts.

        Raises:
            DefinitionError: a trigger can't be retried so.
        """
        if isinstance(retry, Mapping):
            if unknown := sorted(str(part) for part in retry.keys() - set(_PARTS)):
                raise DefinitionError(
                    f"{what}, retry",
                    f"unknown fields: {', '.join(unknown)}",
                    f"it has {', '.join(_PARTS)}",
                )
            retry = RetryPolicy(**retry)
        if retry is not None and not isinstance(retry, RetryPolicy):
            raise DefinitionError(
                what, f"retry is {retry!r:.80}, expected a RetryPolicy", "tf.RetryPolicy(5)"
            )
        if retry is not None and retry != RetryPolicy(**_numbers(retry)):
            raise DefinitionError(
                what,
                "its retry policy has retry_on, give_up_on or total_timeout, which a "
                "trigger's can't have: it sees the error as text only, and no call",
                f"use {', '.join(_PARTS)}",
            )
        return cls(retry, dead_letter)

    def spec(self) -> dict[str, Any]:
        """As plain values, as a file of triggers has it; what isn't given is left out."""
        parts: dict[str, Any] = {}
        if self.retry is not None:
            parts["retry"] = _numbers(self.retry)
        if self.dead_letter is not None:
            parts["dead_letter"] = self.dead_letter
        return parts

    def encoded(self) -> bytes | None:
        """As the store keeps it; None for the default."""
        parts = self.spec()
        return encode_document(parts) if parts else None

    @classmethod
    def decoded(cls, options: bytes | None) -> Delivery:
        """From what the store kept."""
        if options is None:
            return cls()
        parts = decode_document(options)
        retry = parts.get("retry")
        policy = None if retry is None else RetryPolicy(**retry)
        return cls(policy, parts.get("dead_letter"))

    def delay(self, attempts: int, chance: bytes) -> float | None:
        """Seconds until the dispatch is tried again after so many attempts; None: no more."""
        return None if self.retry is None else self.retry.delay(_ANY, attempts, chance)


def _numbers(retry: RetryPolicy) -> dict[str, Any]:
    return {part: getattr(retry, part) for part in _PARTS}


@attrs.frozen
class Position:
    """A place in history: an activity's sequence number, or a time, in epoch seconds."""

    seq: int = 1
    received: float | None = None

    @classmethod
    def of(cls, given: object, what: str) -> Position | None:
        """The place that is meant; None for ``"latest"``, the place after the last activity.

        Args:
            given: ``"latest"``, ``"horizon"`` (the first activity that there is), a sequence
                number from 1 up, or an aware datetime.

        Raises:
            DefinitionError: it is none of these.
        """
        if given == "latest":
            return None
        if given == "horizon":
            return cls()
        if type(given) is int and given >= 1:
            return cls(given)
        if isinstance(given, datetime) and given.tzinfo is not None:
            return cls(received=given.timestamp())
        raise DefinitionError(
            what,
            f"found {given!r:.80}",
            'give "latest", "horizon", a sequence number from 1 up, or an aware datetime',
        )
