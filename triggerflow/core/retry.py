"""What follows a failed attempt of a step: again after a while, or no more.

Back-off is exponential; its jitter is deterministic (a hash of instance, tag and attempt)
and is taken below the cap, so that a crash in between changes no due time and the longest
wait is known.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable
from datetime import timedelta
from typing import Final

import attrs

from triggerflow.core.durations import seconds
from triggerflow.core.failure import type_name
from triggerflow.errors import DefinitionError, TriggerflowError

Classes = tuple[type[BaseException], ...]


@attrs.define(eq=False)
class RetryAfter(TriggerflowError):
    """A step raises this to say when its next attempt may come, such as from a 429 answer."""

    delay: timedelta | float

    def __str__(self) -> str:
        return f"retry after {seconds(self.delay):g} s"


# So many classes of an exception are told elsewhere, the nearest ones.
_MOST_CLASSES: Final = 64


@attrs.frozen
class Raised:
    """What a policy must know of an exception that was raised in another process.

    Attributes:
        classes: the qualified names of its class and of those that it derives from.
        after: the delay of a `RetryAfter`, in seconds; else None.
    """

    classes: tuple[str, ...]
    after: float | None = None

    @classmethod
    def of(cls, error: BaseException) -> Raised:
        """The same of an exception that is here.

        Raises:
            DefinitionError: it is a `RetryAfter` whose delay is no duration.
        """
        after = seconds(error.delay, "RetryAfter") if isinstance(error, RetryAfter) else None
        return cls(tuple(map(type_name, type(error).__mro__[:_MOST_CLASSES])), after)


def _classes(value: type[BaseException] | Iterable[type[BaseException]]) -> Classes:
    classes = (value,) if isinstance(value, type) else tuple(value)
    for each in classes:
        if not (isinstance(each, type) and issubclass(each, BaseException)):
            raise DefinitionError("RetryPolicy", f"found {each!r}, expected exception classes")
    return classes


def _duration(value: timedelta | float) -> float:
    return seconds(value, "RetryPolicy")


@attrs.frozen
class RetryPolicy:
    """When a failed step is tried again.

    Attributes:
        max_attempts: attempts in all, the first included; attempts that a crash cut off
            don't count.
        initial: wait before the second attempt, seconds or a timedelta.
        factor: what each further wait is multiplied by.
        cap: the longest wait.
        jitter: share of each wait, from 0 to 1, that is taken off by chance.
        retry_on: exception classes that are worth another attempt.
        give_up_on: exception classes that are not, even where `retry_on` has them.
        total_timeout: no attempt begins later than this after the call was made.
    """

    max_attempts: int = 3
    initial: float = attrs.field(default=1.0, converter=_duration)
    factor: float = 2.0
    cap: float = attrs.field(default=300.0, converter=_duration)
    jitter: float = 0.1
    retry_on: Classes = attrs.field(default=(Exception,), converter=_classes)
    give_up_on: Classes = attrs.field(default=(), converter=_classes)
    total_timeout: float | None = attrs.field(
        default=None, converter=attrs.converters.optional(_duration)
    )

    def __attrs_post_init__(self) -> None:
        if type(self.max_attempts) is not int or self.max_attempts < 1:
            raise DefinitionError(
                "RetryPolicy", f"max_attempts is {self.max_attempts!r}, expected 1 or more"
            )
        if not isinstance(self.jitter, int | float) or not 0 <= self.jitter <= 1:
            raise DefinitionError("RetryPolicy", f"jitter is {self.jitter!r}, expected 0 to 1")
        if not isinstance(self.factor, int | float) or not 1 <= self.factor < math.inf:
            raise DefinitionError(
                "RetryPolicy", f"factor is {self.factor!r}, expected 1 or more"
            )

    def delay(
        self,
        error: BaseException | Raised,
        failed: int,
        chance: bytes,
        elapsed: float = 0.0,
    ) -> float | None:
        """Seconds until the next attempt, or None when this failure is final.

        Args:
            error: what the attempt raised; of one that ran elsewhere, what is told of it.
                Classes are compared by their qualified names then.
            failed: how many attempts have failed, this one included.
            chance: what the jitter is derived from: equal input, equal wait.
            elapsed: seconds since the call was made.
        """
        if failed >= self.max_attempts:
            return None
        wait = self._wait(error, failed, chance)
        if wait is None or self.total_timeout is None:
            return wait
        return wait if elapsed + wait <= self.total_timeout else None

    def _wait(self, error: BaseException | Raised, failed: int, chance: bytes) -> float | None:
        if isinstance(error, RetryAfter):
            return seconds(error.delay, "RetryAfter")
        if isinstance(error, Raised) and error.after is not None:
            return error.after
        if _is_one_of(error, self.give_up_on) or not _is_one_of(error, self.retry_on):
            return None
        try:
            wait = min(self.cap, self.initial * float(self.factor) ** (failed - 1))
        except OverflowError:  # beyond any float, and so beyond the cap
            wait = self.cap
        digest = hashlib.sha256(chance + failed.to_bytes(4, "big")).digest()
        return wait * (1 - self.jitter * int.from_bytes(digest[:4], "big") / 2**32)


def _is_one_of(error: BaseException | Raised, classes: Classes) -> bool:
    if isinstance(error, Raised):
        return any(type_name(each) in error.classes for each in classes)
    return isinstance(error, classes)
