"""What an attempt on a queue came to, as it travels from its worker to the flow's owner."""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs

from triggerflow.core.failure import Failure
from triggerflow.core.retry import Raised

if TYPE_CHECKING:
    from triggerflow.core.codec import ValueCodec


@attrs.frozen
class Answer:
    """A value, or a failure and what a retry policy must know of it.

    Attributes:
        generation: which generation of the instance asked.
        value: the encoded result, or None.
        recorded: the result was recorded before under a key of the user's.
        failure: how it failed, or None.
        raised: what was raised; None where no other attempt helps.
    """

    generation: int
    value: bytes | None = None
    recorded: bool = False
    failure: Failure | None = None
    raised: Raised | None = None

    def encode(self, codec: ValueCodec) -> bytes:
        """The answer in bytes; its value stands at their end as it is."""
        failure = None if self.failure is None else self.failure.to_record()
        raised = self.raised and [list(self.raised.classes), self.raised.after]
        has_value = self.value is not None
        head = codec.pack([self.generation, has_value, self.recorded, failure, raised])
        # Not in one CBOR item: a value of the largest size must not grow beyond it.
        return len(head).to_bytes(4, "big") + head + (self.value or b"")

    @classmethod
    def decode(cls, payload: bytes, codec: ValueCodec) -> Answer:
        """The answer that `encode` wrote."""
        end = 4 + int.from_bytes(payload[:4], "big")
        generation, has_value, recorded, failure, raised = codec.decode(payload[4:end])
        return cls(
            generation,
            payload[end:] if has_value else None,
            recorded,
            None if failure is None else Failure.from_record(failure),
            None if raised is None else Raised(tuple(raised[0]), raised[1]),
        )
