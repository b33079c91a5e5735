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

    @property
    def idempotency_key(self) -> str:
        """A key that is the same for every attempt of this step and for no other step.

        Hand it to the service that you call, so that it knows a repeat when it sees one.
        """
        return idempotency_key(self.instance, self.generation, self.tag)


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
    return StepContext(attempt.owner.id, attempt.owner.generation, attempt.tag, attempt.number)


def idempotency_key(instance: str, generation: int, tag: str) -> str:
    """H(instance, generation, tag), as 26 letters and digits."""
    digest = hashlib.sha256(f"{instance}\0{generation}\0{tag}".encode()).digest()
    return base64.b32encode(digest[:16]).decode().rstrip("=").lower()
