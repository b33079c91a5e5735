"""Why a trigger doesn't meet an activity: the first condition that fails, in words.

The conditions are asked in the order of the index: namespace, type, pattern, actors. A trigger
without a reason here is one that the index finds.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import attrs

from triggerflow.triggers.trigger import covers

if TYPE_CHECKING:
    from triggerflow.core.activity import Activity
    from triggerflow.triggers import Trigger
    from triggerflow.triggers.pattern import Mismatch

_WIDTH: Final = 80
# How many names are compared, and how long one must be for a slip to be told from a word.
_LOOKED_AT: Final = 50
_LONG_ENOUGH: Final = 5


@attrs.frozen
class Reason:
    """Why a trigger did not, or would not, fire.

    Attributes:
        what: ``namespace``, ``type``, ``pattern``, ``actors``, ``guard``, ``newer`` (than the
            activity) or ``unreadable``.
        words: the same for people.
        mismatch: the first field of the pattern that fails, and what is there.
        near: names that are nearly the ones that were wanted.
    """

    what: str
    words: str
    mismatch: Mismatch | None = None
    near: tuple[str, ...] = ()


def why_not(activity: Activity, trigger: Trigger) -> Reason | None:
    """The first condition that the activity fails; None when it meets the trigger."""
    if trigger.namespace != activity.namespace:
        return Reason(
            "namespace",
            f"is for namespace {trigger.namespace!r}, this is in {activity.namespace!r}",
        )
    if not covers(trigger.on, activity.types):
        return _type(activity, trigger)
    if trigger.match is not None:
        mismatch = trigger.match.explain(activity.document)
        if mismatch is not None:
            return Reason("pattern", str(mismatch), mismatch, mismatch.near)
    if trigger.actors is not None:
        for actor in activity.actors:
            objection = trigger.actors.objection(actor)
            if objection is not None:
                return Reason("actors", f"{_cut(actor)} {objection}")
    return None


def guard_said_no(trigger: Trigger) -> Reason:
    """The guard passed on it."""
    key = "" if trigger.guard is None else trigger.guard.key
    return Reason("guard", f"guard {key} said no")


def _type(activity: Activity, trigger: Trigger) -> Reason:
    near = tuple(
        name
        for name in activity.types[:_LOOKED_AT]
        if any(_one_slip(wanted.rstrip("*"), name) for wanted in trigger.on[:_LOOKED_AT])
    )
    words = f"is on {_several(trigger.on)}, this is {_several(activity.types)}"
    if near:
        words += f": did you mean {' or '.join(map(_cut, near))}?"
    return Reason("type", words, None, near)


def _one_slip(wanted: str, found: str) -> bool:
    """Tell whether two names differ in case only, or in one character of a longer name."""
    wanted, found = wanted.casefold(), found.casefold()
    if wanted == found:
        return True
    short, long = sorted((wanted, found), key=len)
    if len(long) < _LONG_ENOUGH or len(long) - len(short) > 1:
        return False
    at = next((n for n, (a, b) in enumerate(zip(short, long, strict=False)) if a != b), None)
    if at is None:
        return True
    return short[at + (len(short) == len(long)) :] == long[at + 1 :]


def _several(names: tuple[str, ...]) -> str:
    shown = ", ".join(map(_cut, names[:3]))
    return shown if len(names) <= 3 else f"{shown} and {len(names) - 3} more"


def _cut(text: str) -> str:
    return text if len(text) <= _WIDTH else f"{text[: _WIDTH - 1]}…"
