"""Waits of flows for later activities: temporary triggers, with a pattern of their own."""

from __future__ import annotations

from copy import deepcopy
from functools import cached_property
from typing import TYPE_CHECKING, Any

import attrs

from triggerflow.core.effects import MISSING
from triggerflow.core.messages import WaitActivity, activity_wait
from triggerflow.errors import DefinitionError
from triggerflow.triggers.pattern import Pattern, compile_pattern
from triggerflow.triggers.pivots import in_namespace, pivots_of

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import timedelta

    from triggerflow.triggers.pivots import Pivot


def wait_activity(
    pattern: Mapping[str, Any],
    *,
    after: int | None = None,
    timeout: timedelta | float | None = None,
    default: Any = MISSING,
) -> WaitActivity:
    """Wait for an activity that meets a pattern; its document comes back.

    One that was appended since the flow began counts, so none is missed for having come
    early. A later wait for an equal pattern goes on after the one that came.

    Args:
        pattern: an EventBridge pattern over the whole document, its ``type`` included.
        after: a sequence number: only later activities count. The default is the activity
            that started the flow, or whatever was newest when it was started by hand.
        timeout: how long to wait; None for ever.
        default: what comes back when the timeout passes.

    Raises:
        DefinitionError: `after` is no number of an activity.
        PatternError: the pattern breaks the rules; at once, not at the yield.
        TimedOut: at the yield: the timeout passed and no ``default=`` was given.
    """
    compile_pattern(pattern)
    # What was checked is what is waited for, whatever becomes of the flow's own dict.
    pattern = deepcopy(pattern)
    return activity_wait(pattern, after=after, timeout=timeout, default=default)


@attrs.frozen
class Watch:
    """An open wait, compiled: call it with an activity's types and document.

    Attributes:
        pattern: what the document must match; None for any.
        types: the activity must have one of these; one that ends with ``*`` stands for all
            that begin so. None for any.
    """

    pattern: Pattern | None
    types: tuple[str, ...] | None = None

    def __call__(self, types: tuple[str, ...], document: object) -> bool:
        """Tell whether the activity meets it."""
        if self.types is not None and not any(_is_one(name, types) for name in self.types):
            return False
        return self.pattern is None or self.pattern(document)

    def pivots_in(self, namespace: str) -> tuple[Pivot, ...]:
        """Where it is filed: every activity of the namespace that meets it has one of these."""
        return in_namespace(self._pivots, namespace)

    @cached_property
    def _pivots(self) -> tuple[Pivot, ...]:
        types = self.types
        if types is not None and any(name.endswith("*") for name in types):
            types = None
        return pivots_of(None if self.pattern is None else self.pattern.conditions, types)

    @classmethod
    def read(cls, action: str, content: Any) -> Watch:
        """Compile what is stored of a wait.

        Args:
            action: ``tell`` (the content is a pattern) or ``cancel`` (it is an object with
                ``on`` and ``match``).

        Raises:
            PatternError: the pattern breaks a rule, or has an operator that this version
                doesn't know.
            DefinitionError: it is nothing that this version stores.
        """
        if action == "tell":
            return cls(compile_pattern(content))
        if action != "cancel" or not isinstance(content, dict) or content.keys() != _CANCEL:
            raise DefinitionError(
                "stored wait",
                f"its action is {action!r:.40}, and what it waits for has another form",
                "it may come from a newer triggerflow: update this one",
            )
        match = content["match"]
        types = None if content["on"] == ["*"] else tuple(content["on"])
        return cls(None if match is None else compile_pattern(match), types)


_CANCEL = {"on", "match"}


def _is_one(name: str, types: tuple[str, ...]) -> bool:
    if name.endswith("*"):
        return any(each.startswith(name[:-1]) for each in types)
    return name in types
