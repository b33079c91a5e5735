"""Triggers in a TOML or JSON file: read, checked, and written so that they come back alike.

::

    [[trigger]]
    name = "welcome-follower"
    on = "Follow"
    match = {object = {type = ["Person"]}}
    actors = ["https://*.example/*"]
    start = "welcome"

The fields are those of `define_trigger`; a flow is named, a guard is ``name@version``, a
duration is a number of seconds, ``retry`` and ``control`` are tables. ``match`` and ``input``
may also be JSON in a text, which has null, as TOML has not. In JSON it is
``{"trigger": [{...}, ...]}``.
"""

from __future__ import annotations

import difflib
import json
import re
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final

from triggerflow.core.codec import parse_json
from triggerflow.errors import DecodingRefused, DefinitionError, TriggerflowError
from triggerflow.triggers.guard import Guard
from triggerflow.triggers.trigger import FIELDS, Trigger, define_trigger

_LISTED: Final = "trigger"
_HEADER: Final = re.compile(r"[ \t]*\[\[[ \t]*(?:trigger|\"trigger\"|'trigger')[ \t]*\]\]")
_BARE: Final = re.compile(r"[A-Za-z0-9_-]+")
# Fields that may hold JSON in a text.
_JSON_TEXT: Final = ("match", "input")
# What a file may say: what a trigger means, and how it is dispatched and where it starts.
_FIELDS: Final = (*FIELDS, "retry", "dead_letter", "start_at")


def read_file(path: Path, guards: Mapping[str, Guard]) -> list[Trigger]:
    """The triggers of a file, in its order.

    Args:
        guards: ``name@version`` -> guard: those that the file may name.

    Raises:
        DefinitionError: the file can't be read, or triggers in it can't work: each is named,
            with its line where that is known.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise DefinitionError(str(path), f"can't be read: {error}") from error
    return read_text(text, str(path), guards, toml=path.suffix != ".json")


def read_text(
    text: str, what: str, guards: Mapping[str, Guard], *, toml: bool
) -> list[Trigger]:
    """The triggers of a text; see `read_file`. `what` is the file's name, for errors."""
    listed = _listed(text, what, toml=toml)
    lines = _lines(text, listed, toml=toml)
    found: list[Trigger] = []
    problems: list[str] = []
    names: dict[str, str] = {}
    for number, fields in enumerate(listed):
        line = lines.get(number)
        place = what if line is None else f"{what}:{line}"
        name = fields.get("name") if isinstance(fields, dict) else None
        where = f"trigger {name!r:.80}" if isinstance(name, str) else f"trigger {number + 1}"
        try:
            if isinstance(name, str) and name in names:
                raise DefinitionError(where, f"is there twice, first at {names[name]}")
            found.append(_trigger(fields, where, guards))
            names[found[-1].name] = place
        except TriggerflowError as error:
            words = str(error)
            shown = words if where in words else f"{where}: {words}"
            problems.append(f"{place}: {shown}")
    if problems:
        raise DefinitionError(
            what,
            "\n  ".join([f"{len(problems)} of {len(listed)} triggers can't work:", *problems]),
        )
    return found


def _listed(text: str, what: str, *, toml: bool) -> list[Any]:
    try:
        table = tomllib.loads(text) if toml else parse_json(text, what="file")
    except (tomllib.TOMLDecodeError, DecodingRefused, RecursionError) as error:
        kind = "TOML" if toml else "JSON"
        raise DefinitionError(
            what, f"is no {kind}: {str(error) or type(error).__name__}"
        ) from error
    listed = table.get(_LISTED) if isinstance(table, dict) else None
    if not isinstance(listed, list) or len(table) != 1:
        example = "[[trigger]] tables" if toml else '{"trigger": [...]}'
        extra = "" if not isinstance(table, dict) else ", ".join(map(repr, table)) or "nothing"
        raise DefinitionError(what, f"holds {extra or 'a list'}, expected {example} alone")
    return listed


def _lines(text: str, listed: list[Any], *, toml: bool) -> dict[int, int]:
    """Number of a trigger -> its line, as far as that is sure."""
    if toml:
        heads = [
            number for number, line in enumerate(text.splitlines(), 1) if _HEADER.match(line)
        ]
        return dict(enumerate(heads)) if len(heads) == len(listed) else {}
    found = {}
    for number, fields in enumerate(listed):
        name = fields.get("name") if isinstance(fields, dict) else None
        if isinstance(name, str):
            quoted = re.escape(json.dumps(name, ensure_ascii=False))
            hits = list(re.finditer(rf'"name"\s*:\s*{quoted}', text))
            if len(hits) == 1:
                found[number] = text.count("\n", 0, hits[0].start()) + 1
    return found


def _trigger(fields: object, where: str, guards: Mapping[str, Guard]) -> Trigger:
    if not isinstance(fields, dict):
        raise DefinitionError(where, f"found {type(fields).__name__}, expected a table")
    for field in fields:
        if field not in _FIELDS:
            close = difflib.get_close_matches(field, _FIELDS, n=1)
            remedy = f"did you mean {close[0]!r}?" if close else f"known: {', '.join(_FIELDS)}"
            raise DefinitionError(where, f"has the unknown field {field!r}", remedy)
    parts = dict(fields)
    for field in _JSON_TEXT:
        value = parts.get(field)
        if isinstance(value, str) and not value.startswith("$"):
            parts[field] = parse_json(value, what=f"{where}, {field}")
    guard = parts.get("guard")
    if guard is not None:
        if not isinstance(guard, str):
            raise DefinitionError(where, f"its guard {guard!r:.80} is not name@version")
        if guard not in guards:
            close = difflib.get_close_matches(guard, guards, n=3)
            raise DefinitionError(
                where,
                f"its guard {guard!r:.80} is not registered",
                f"did you mean {', '.join(close)}?" if close else "decorate it with @app.guard",
            )
        parts["guard"] = guards[guard]
    if "name" not in parts or "on" not in parts:
        raise DefinitionError(where, "has no name or no on")
    if not any(action in parts for action in ("start", "signal", "cancel")):
        raise DefinitionError(where, "does nothing", "give it start, signal or cancel")
    return define_trigger(parts.pop("name"), **parts)


# --- writing -----------------------------------------------------------------------------


def write_toml(triggers: Iterable[Trigger]) -> str:
    """A TOML file of triggers; `read_file` makes triggers with the same CIDs of it.

    Where they started is past, and left out.
    """
    parts = []
    for trigger in triggers:
        lines = ["[[trigger]]"]
        for field, value in _ordered(trigger).items():
            as_text = field in _JSON_TEXT and _has_null(value)
            shown = json.dumps(value, ensure_ascii=False) if as_text else value
            lines.append(f"{field} = {_toml(shown)}")
        parts.append("\n".join(lines) + "\n")
    return "\n".join(parts)


def write_json(triggers: Iterable[Trigger]) -> dict[str, Any]:
    """The same as a JSON model."""
    return {_LISTED: [_ordered(trigger) for trigger in triggers]}


def _ordered(trigger: Trigger) -> dict[str, Any]:
    spec = trigger.spec()
    if spec["version"] == 1:
        del spec["version"]
    spec.update(trigger.delivery.spec())
    return {field: spec[field] for field in _FIELDS if field in spec}


def _has_null(value: Any) -> bool:
    if isinstance(value, dict):
        return any(map(_has_null, value.values()))
    return value is None or (isinstance(value, list) and any(map(_has_null, value)))


def _toml(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return _quoted(value)
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, list):
        return f"[{', '.join(map(_toml, value))}]"
    pairs = (f"{_key(key)} = {_toml(item)}" for key, item in value.items())
    return f"{{{', '.join(pairs)}}}"


def _key(key: str) -> str:
    return key if _BARE.fullmatch(key) else _quoted(key)


def _quoted(text: str) -> str:
    # JSON's escapes are TOML's, but for DEL, which TOML wants escaped.
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")
