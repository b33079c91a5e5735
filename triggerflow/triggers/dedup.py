"""Dedup: when two activities mean one thing to a trigger.

The pair (activity, trigger) fires once in any case. With ``dedup=`` two different activities
with equal values at some paths count as one: within a window from the first firing on, or for
ever. Which is first is decided in the store's own transaction.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

import attrs

from triggerflow.core.codec import encode_document
from triggerflow.core.durations import seconds
from triggerflow.errors import DefinitionError
from triggerflow.triggers.mapping import Pick, compile_picks, picks_source

if TYPE_CHECKING:
    from triggerflow.core.activity import Activity

_FIELDS: Final = ("key", "window", "across_versions")


@attrs.frozen
class Dedup:
    """What counts as the same.

    Attributes:
        key: the values that must be equal.
        window: seconds from the first firing on; None for ever.
        across_versions: an edited trigger goes on with what its name has seen.
    """

    key: tuple[Pick, ...]
    window: float | None = None
    across_versions: bool = False

    def spec(self) -> dict[str, Any]:
        """As a trigger's spec has it."""
        found: dict[str, Any] = {"key": picks_source(self.key)}
        if self.window is not None:
            found["window"] = self.window
        if self.across_versions:
            found["across_versions"] = True
        return found

    def digest(self, activity: Activity) -> bytes:
        """The values as one digest: 1, "1" and true are three, 1 and 1.0 are one.

        Raises:
            NoValue: a path finds nothing.
        """
        return hashlib.sha256(encode_document([pick(activity) for pick in self.key])).digest()


def compile_dedup(given: object, what: str) -> Dedup:
    """Compile a trigger's ``dedup=``: a path, a list of paths, or a dict with more.

    Raises:
        DefinitionError: a field is missing, unknown or can't work.
    """
    fields: Mapping[Any, Any] = given if isinstance(given, Mapping) else {"key": given}
    if unknown := [str(name) for name in fields if name not in _FIELDS]:
        raise DefinitionError(
            what, f"has unknown fields: {', '.join(unknown)}", f"known: {', '.join(_FIELDS)}"
        )
    if fields.get("key") is None:
        raise DefinitionError(what, "has no key", 'write {"key": "$.id"}')
    across = fields.get("across_versions", False)
    if not isinstance(across, bool):
        raise DefinitionError(what, f"across_versions is {across!r:.80}, expected a bool", "")
    window = fields.get("window")
    if window is not None:
        window = seconds(window, f"{what}.window")
        if window == 0:
            raise DefinitionError(f"{what}.window", "is 0: nothing would ever count", "")
        window = int(window) if window.is_integer() else window
    return Dedup(compile_picks(fields["key"], f"{what}.key"), window, across)
