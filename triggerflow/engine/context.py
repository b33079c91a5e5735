"""What a step can learn about itself while it runs."""

from __future__ import annotations

import base64
import hashlib
from contextvars import ContextVar
from typing import Any, Final

import attrs

from triggerflow.errors import NoStep


@attrs.frozen
class StepContext:
    """Which attempt this is.

    Attributes:
        instance: public id of the instance.
        generation: its generation.
        tag: the effect's tag.
        attempt: 1 for the first attempt; attempts cut off by a crash count.
    """

    instance: str
    generation: int
    tag: str
    attempt: int
    _pulse: Any = attrs.field(default=None, eq=False, repr=False)

    @property
    def idempotency_key(self) -> str:
        """A key that is the same for every attempt of this step and for no other step.

        Hand it to the service that you call, so that it knows a repeat when it sees one.
        """
        return idempotency_key(self.instance, self.generation, self.tag)

    @property
    def details(self) -> Any:
        """What an earlier attempt of this step said last by `heartbeat`, or None.

        It is there after a failed attempt and after a crash, in whatever process.
        """
        return None if self._pulse is None else self._pulse.details()

    def heartbeat(self, details: Any = None) -> None:
        """Say how far the step is, and learn whether its result is still wanted.

        It may be called as often as you like, from any thread: writes are coalesced, the
        newest details win. They are stored a moment later, so a crash may lose the last ones.

        Args:
            details: a log value of at most 16 KiB, for the next attempt to go on from;
                None stores nothing and leaves what was said before.

        Raises:
            AttemptOver: the attempt is cancelled, timed out, or no longer ours: nobody wants
                its result. Clean up and let it escape.
            EncodingRefused: the details are no log value, or too large.
        """
        if self._pulse is not None:
            self._pulse.beat(details)


# The attempt that runs here. A step that doesn't ask for its context doesn't pay for one.
CURRENT: Final[ContextVar[Any]] = ContextVar("triggerflow_step")


def step_context() -> StepContext:
    """The context of the step that runs here.

    Raises:
        NoStep: none does.
    """
    try:
        attempt = CURRENT.get()
    except LookupError:
        raise NoStep from None
    return StepContext(
        attempt.owner.id,
        attempt.owner.generation,
        attempt.tag,
        attempt.number,
        attempt.heartbeats and attempt.heartbeats.pulse_of(attempt),
    )


def idempotency_key(instance: str, generation: int, tag: str) -> str:
    """H(instance, generation, tag), as 26 letters and digits."""
    digest = hashlib.sha256(f"{instance}\0{generation}\0{tag}".encode()).digest()
    return base64.b32encode(digest[:16]).decode().rstrip("=").lower()
