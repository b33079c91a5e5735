"""How a step is run: what `using` may say, and what it may not."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

import attrs

from triggerflow.core.durations import seconds
from triggerflow.core.ids import is_key
from triggerflow.core.retry import RetryPolicy
from triggerflow.core.step import Step
from triggerflow.core.tags import checked_name
from triggerflow.errors import DefinitionError

if TYPE_CHECKING:
    from datetime import timedelta


@attrs.frozen
class Options:
    """How a step is run; nothing here is part of its digest.

    Attributes:
        name: the step's name in tags, where the function has none of its own.
        retry: what follows a failed attempt; None tries once.
        timeout: seconds that one attempt may take; None for no limit.
        compensate: the step that undoes this one.
        idempotency_key: a result that is recorded under it is taken instead of a run.
        queue: workers that serve it run the step; None runs it where its flow is driven.
    """

    name: str | None = None
    retry: RetryPolicy | None = None
    timeout: float | None = None
    compensate: Callable[..., Any] | None = None
    idempotency_key: str | None = None
    queue: str | None = None

    def over(self, old: Options) -> Options:
        """These, and the old ones where these say nothing."""
        return Options(
            self.name if self.name is not None else old.name,
            self.retry if self.retry is not None else old.retry,
            self.timeout if self.timeout is not None else old.timeout,
            self.compensate if self.compensate is not None else old.compensate,
            self.idempotency_key if self.idempotency_key is not None else old.idempotency_key,
            self.queue if self.queue is not None else old.queue,
        )


DEFAULT_OPTIONS: Final = Options()


def checked_options(
    name: str | None,
    retry: RetryPolicy | None,
    timeout: timedelta | float | None,
    compensate: Callable[..., Any] | None,
    idempotency_key: str | None,
    queue: str | None,
) -> Options:
    """Options as `using` takes them; None is not given.

    Raises:
        DefinitionError: one is what it can't be.
    """
    if name is not None:
        checked_name(name, "using(name=)")
    if retry is not None and not isinstance(retry, RetryPolicy):
        raise DefinitionError("using(retry=)", f"found {retry!r}, expected a RetryPolicy")
    if compensate is not None and not _is_named_step(compensate):
        # Here and not where it is undone: the others that are owed must not suffer.
        raise DefinitionError(
            "using(compensate=)", f"found {compensate!r:.80}, expected a step with a name"
        )
    if idempotency_key is not None and not is_key(idempotency_key):
        raise DefinitionError(
            "using(idempotency_key=)", f"found {idempotency_key!r:.80}, expected a text"
        )
    if queue is not None:
        checked_name(queue, "using(queue=)")
    limit = None if timeout is None else seconds(timeout, "using(timeout=)")
    return Options(name, retry, limit, compensate, idempotency_key, queue)


def _is_named_step(fn: object) -> bool:
    """Whether it is a step under a plain name, which tags can hold."""
    name = getattr(fn, "__name__", None)
    return isinstance(fn, Step) or (
        callable(fn) and isinstance(name, str) and name.isidentifier()
    )
