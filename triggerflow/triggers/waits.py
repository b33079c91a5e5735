"""Waits of flows for later activities: temporary triggers, with a pattern of their own."""

from __future__ import annotations

from copy import deepcopy
from typing import TYPE_CHECKING, Any

from triggerflow.core.effects import MISSING
from triggerflow.core.messages import WaitActivity, activity_wait
from triggerflow.triggers.pattern import compile_pattern

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import timedelta


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
