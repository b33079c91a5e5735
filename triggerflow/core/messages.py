"""Effects towards others: messages to another instance, activities, search attributes."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Final

from triggerflow.core.children import ChildRef
from triggerflow.core.effects import MISSING, Effect, TimedWait
from triggerflow.core.tags import checked_name
from triggerflow.errors import DefinitionError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import timedelta

# What a search attribute may be.
_ATTRIBUTES: Final = (str, int, float, bool)
# Stores number activities with 64 bits.
_LARGEST: Final = 2**63


class SendSignal(Effect[None]):
    """A message to another instance: see `signal`."""

    __slots__ = ("name", "payload", "target")
    kind = "signal"
    settles = True
    snapshots = True

    def __init__(self, target: str, name: str, payload: Any) -> None:
        super().__init__()
        self.target = target
        self.name = name
        self.payload = payload

    @property
    def key(self) -> str:
        return f"signal:{self.name}"

    def request(self) -> tuple[tuple[Any, ...], dict[str, Any]]:
        return (self.target, self.name, self.payload), {}


class Emit(Effect[str]):
    """An append from inside a flow: see `emit`."""

    __slots__ = ("activity",)
    kind = "emit"
    settles = True
    snapshots = True

    def __init__(self, activity: Mapping[str, Any]) -> None:
        super().__init__()
        self.activity = activity

    def request(self) -> tuple[tuple[Any, ...], dict[str, Any]]:
        return (self.activity,), {}


class WaitActivity(TimedWait[Any]):
    """A wait for a later activity: see `wait_activity`.

    The log keeps ``[seq, document]``: where an equal wait goes on from, and what came.
    """

    __slots__ = ("after", "pattern")
    kind = "wait_activity"
    snapshots = True

    def __init__(
        self,
        pattern: Mapping[str, Any],
        *,
        after: int | None,
        timeout: float | None,
        default: Any,
    ) -> None:
        super().__init__(timeout, default)
        self.pattern = pattern
        self.after = after

    def request(self) -> tuple[tuple[Any, ...], dict[str, Any]]:
        return (self.pattern,), {}

    def received(self, value: Any) -> Any:
        return value[1]


class SetAttributes(Effect[None]):
    """Search attributes: see `set_attributes`."""

    __slots__ = ("values",)
    kind = "set_attributes"
    settles = True

    def __init__(self, values: dict[str, Any]) -> None:
        super().__init__()
        self.values = values


def signal(target: ChildRef[Any] | str, name: str, payload: Any = None) -> SendSignal:
    """Send a signal to another instance, exactly once: it lands with this turn's commit.

    Args:
        target: a child, or an instance's whole id.
        name: the signal's name.
        payload: what it carries.

    Raises (at the yield):
        StepFailed: there is no such instance, or it has ended; its failure names which.
    """
    id = target.id if isinstance(target, ChildRef) else target
    if not isinstance(id, str) or not id:
        raise DefinitionError(
            "signal", f"found the target {target!r:.80}, expected a ChildRef or an instance id"
        )
    return SendSignal(id, checked_name(name, "signal"), payload)


def emit(activity: Mapping[str, Any]) -> Emit:
    """Append an activity from inside a flow, exactly once; its CID comes back.

    It lands with this turn's commit, and its triggers are dispatched right after. It carries
    its cause, this instance, and how many emitted activities led to it.

    Raises (at the yield):
        StepFailed: it is no activity, a plugin vetoed it, or too many emitted activities led
            to it (a loop of triggers).
    """
    return Emit(activity)


def set_attributes(**values: str | float | bool | None) -> SetAttributes:
    """Set search attributes of this instance, by which `Engine.instances` finds it.

    They are merged with those that it has; None removes one. A flow can't read them.

    Raises:
        DefinitionError: a value is no text, finite number or bool.
        StepFailed: at the yield: they can't be encoded, or are too large together.
    """
    for name, value in values.items():
        # Nothing equals a NaN, so nobody could look for it; infinities are no JSON either.
        finite = type(value) is not float or math.isfinite(value)
        if value is not None and not (type(value) in _ATTRIBUTES and finite):
            raise DefinitionError(
                f"set_attributes({name}=)",
                f"found {value!r:.80}, expected a text, a finite number, a bool or None",
            )
    return SetAttributes(values)


def activity_wait(
    pattern: Mapping[str, Any],
    *,
    after: int | None = None,
    timeout: timedelta | float | None = None,
    default: Any = MISSING,
) -> WaitActivity:
    """The effect behind `triggerflow.triggers.wait_activity`, which checks the pattern."""
    if after is not None and not (type(after) is int and 0 <= after < _LARGEST):
        raise DefinitionError(
            "wait_activity(after=)", f"found {after!r:.80}, expected an activity's number"
        )
    limit, fallback = TimedWait.limits("wait_activity", timeout, default)
    return WaitActivity(pattern, after=after, timeout=limit, default=fallback)
