"""Which later activities cancel what a trigger started: patterns with values of the first one.

A part has the activity types it is on, and a pattern in which a field whose name ends with
``.$`` holds a path into the activity that started the instance (a pick, see `mapping`). The
value there becomes the one that is welcome::

    {"on": "OrderCancelled", "match": {"order": {"id.$": "$.order.id"}}}

``$.order.id`` is 17, so only ``{"order": {"id": [17]}}`` cancels. Everything else in it is
as in any pattern. A path that finds nothing, or no plain value, is an error of that firing.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

import attrs

from triggerflow.errors import DefinitionError, PatternError
from triggerflow.triggers.mapping import NoValue, compile_pick
from triggerflow.triggers.pattern import compile_pattern

if TYPE_CHECKING:
    from triggerflow.triggers.mapping import Source

_MARK: Final = ".$"
_MOST: Final = 16
_FIELDS: Final = {"on", "match"}
_EXAMPLE: Final = 'write {"on": "OrderCancelled", "match": {"order": {"id.$": "$.order.id"}}}'


@attrs.frozen
class CancelOn:
    """One part, checked.

    Attributes:
        on: the activity types, sorted; one that ends with ``*`` stands for all that begin so.
        match: the pattern with its paths, in one form, or None.
    """

    on: tuple[str, ...]
    match: dict[str, Any] | None

    def spec(self) -> dict[str, Any]:
        """The part as a trigger's spec has it."""
        spec: dict[str, Any] = {"on": list(self.on)}
        if self.match is not None:
            spec["match"] = self.match
        return spec

    def filled(self, activity: Source) -> dict[str, Any]:
        """What is waited for, with the values of this activity, as `waits.Watch` reads it.

        Raises:
            NoValue: a path finds nothing, or no plain value.
        """
        match = None if self.match is None else _filled(self.match, activity)
        return {"on": list(self.on), "match": match}


def compile_cancel_on(given: object, what: str) -> tuple[CancelOn, ...]:
    """Check ``cancel_on=``: one part, or a list of them; None for none.

    Raises:
        DefinitionError: a part can't work; the error names it.
        PatternError: its pattern breaks a rule; the error has the path inside it.
    """
    if given is None:
        return ()
    parts = [given] if isinstance(given, Mapping) else given
    if not isinstance(parts, list | tuple) or not parts:
        raise DefinitionError(
            what, f"found {given!r:.80}, expected a part or a non-empty list of them", _EXAMPLE
        )
    if len(parts) > _MOST:
        raise DefinitionError(what, f"has {len(parts)} parts, at most {_MOST} are possible", "")
    return tuple(_part(part, f"{what}[{index}]") for index, part in enumerate(parts))


def _part(given: object, what: str) -> CancelOn:
    if not isinstance(given, Mapping) or not {"on"} <= given.keys() <= _FIELDS:
        raise DefinitionError(what, f"found {given!r:.80}, expected on and match", _EXAMPLE)
    on = _types(given["on"], what)
    match = given.get("match")
    if match is None:
        return CancelOn(on, None)
    if not isinstance(match, Mapping):
        raise DefinitionError(f"{what}.match", f"found {match!r:.80}, expected a dict", "")
    source = _checked(match, f"{what}.match")
    try:
        # The rules don't depend on which values come.
        compile_pattern(_filled(source, None))
    except PatternError as error:
        problem = f"{error.problem} (in {what})"
        raise PatternError(error.path, problem, error.remedy) from None
    return CancelOn(on, source)


def _types(on: object, what: str) -> tuple[str, ...]:
    types = [on] if isinstance(on, str) else on
    if not isinstance(types, list | tuple) or not types:
        raise DefinitionError(what, f"on={on!r:.80} is no activity type or list of them", "")
    for name in types:
        if not isinstance(name, str) or not name or "*" in name[:-1]:
            raise DefinitionError(
                what,
                f"on has {name!r:.80}, expected a type, exactly or with a `*` at its end",
                'write on="OrderCancelled", or on="*" for every type',
            )
    return ("*",) if "*" in types else tuple(sorted(set(types)))


def _checked(given: Any, what: str) -> Any:
    """A template with its paths in one form, as JSON would bring it back."""
    if isinstance(given, Mapping):
        made: dict[Any, Any] = {}
        for key, value in given.items():
            if not isinstance(key, str) or not key.endswith(_MARK):
                made[key] = _checked(value, what)
                continue
            if key.removesuffix(_MARK) in given:
                raise DefinitionError(
                    what, f"has {key!r:.80} beside the same without a path", ""
                )
            made[key] = str(compile_pick(value, f"{what}, {key!r:.80}"))
        return made
    if isinstance(given, list | tuple):
        return [_checked(each, what) for each in given]
    return given


def _filled(template: Any, activity: Source | None) -> Any:
    """A template with its values; without an activity any will do."""
    if isinstance(template, list):
        return [_filled(each, activity) for each in template]
    if not isinstance(template, dict):
        return template
    made: dict[Any, Any] = {}
    for key, value in template.items():
        if isinstance(key, str) and key.endswith(_MARK):
            made[key.removesuffix(_MARK)] = [
                "" if activity is None else _value(value, activity)
            ]
        else:
            made[key] = _filled(value, activity)
    return made


def _value(path: str, activity: Source) -> Any:
    found = compile_pick(path, "cancel_on")(activity)
    if type(found) not in (str, int, float, bool, type(None)):
        raise NoValue(
            f"{path} is {json.dumps(found, default=str)[:60]}, expected a text, a number, a "
            "boolean or null"
        )
    return found
