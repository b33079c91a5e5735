"""
JSON in, with its traps closed, and the two forms that JSON takes for people and AT Protocol.

`json.loads` keeps the last of two equal keys, reads NaN, turns 1e400 into infinity, keeps
lone surrogates and fails on deep nesting with a RecursionError. Each of these would give
two readers of one text two documents, and so two CIDs. Here they are refused, by place.
"""

from __future__ import annotations

import base64
import binascii
import json
import math
import re
from datetime import date, timedelta
from decimal import Decimal
from typing import Any, Final
from uuid import UUID

import attrs

from triggerflow.core.cid import CID
from triggerflow.core.codec.walk import Limits, not_utf8, shallow, step_text
from triggerflow.errors import DecodingRefused

_JSON_LIMITS: Final = Limits()
# White space and \uXXXX escapes make a text larger than what it says.
_TEXT_TO_DOCUMENT: Final = 4
# Levels that the scanner may take on any stack, whatever the recursion limit is set to.
_SAFE_NESTING: Final = 900
# The closing quote is optional: an unclosed string must not be searched from each quote on.
_STRINGS: Final = re.compile(r'"[^"\\]*(?:\\.[^"\\]*)*"?', re.DOTALL)
_BRACKETS: Final = re.compile(r"[\[{]+|[\]}]+")
_ESCAPED_SURROGATE: Final = re.compile(r"\\u[dD][89a-fA-F]")
_DEEPEST_OUTPUT: Final = 300


@attrs.frozen(eq=False)
class _Flaw:
    """Stands in a parsed document for what was refused, so that its path can be told."""

    problem: str
    remedy: str = ""


class _Hooks:
    """What `json` calls while it parses; `flawed` tells whether the result must be searched."""

    __slots__ = ("flawed",)

    def __init__(self) -> None:
        self.flawed = False

    def flaw(self, problem: str, remedy: str = "") -> _Flaw:
        self.flawed = True
        return _Flaw(problem, remedy)

    def pairs(self, pairs: list[tuple[str, Any]]) -> dict[str, Any] | _Flaw:
        fields = dict(pairs)
        if len(fields) == len(pairs):
            return fields
        seen: set[str] = set()
        for key, _ in pairs:
            if key in seen:
                break
            seen.add(key)
        return self.flaw(
            f"duplicate key {key[:60]!a}", "readers differ on which value counts: send one"
        )

    def constant(self, name: str) -> _Flaw:
        return self.flaw(f"{name} is not JSON", "send null, or a text that says why")

    def integer(self, text: str) -> int | _Flaw:
        # The length comes first: int() is quadratic, and refuses 4,300 digits by itself.
        if len(text) <= 21 and -(2**64) <= (number := int(text)) < 2**64:
            return number
        return self.flaw(
            f"an integer of {len(text.lstrip('-'))} digits is outside -2**64 to 2**64 - 1",
            "send it as text",
        )

    def fraction(self, text: str) -> float | _Flaw:
        number = float(text)
        if math.isfinite(number):
            return number
        return self.flaw(f"{text[:40]} is too large for a 64-bit float", "send it as text")


def parse_json(text: str | bytes, *, what: str = "input", limits: Limits = _JSON_LIMITS) -> Any:
    """
    Read strict JSON (RFC 8259 in UTF-8, no byte order mark) into the document model.

    Numbers with a fraction or an exponent become floats, as they are: `normalise` decides
    on integral ones.

    Args:
        text: one JSON value with nothing but white space around it.
        what: what to call it in an error.
        limits: depth; size is that of the encoded document, a text may be four times as
            large.

    Raises:
        DecodingRefused: it isn't JSON (line and column are told), or has duplicate keys,
            numbers out of range, lone surrogates or too many levels (the path is told).
    """
    if not isinstance(text, (str, bytes)):
        raise DecodingRefused(what, f"found {type(text).__name__}, expected str or bytes")
    text = _unicode(text, what, limits)
    hooks = _Hooks()
    # The scanner recurses, so its depth is bounded first, by whatever tells it cheapest.
    brackets = text.count("[") + text.count("{")
    if brackets > _SAFE_NESTING and _nesting(text, limits.depth) > limits.depth:
        raise _deep(what, limits)
    try:
        value = json.loads(
            text,
            object_pairs_hook=hooks.pairs,
            parse_constant=hooks.constant,
            parse_int=hooks.integer,
            parse_float=hooks.fraction,
        )
    except json.JSONDecodeError as error:
        raise DecodingRefused(
            what,
            f"not JSON at line {error.lineno}, column {error.colno}: {_lower(error.msg)}",
        ) from None
    except RecursionError:
        raise DecodingRefused(what, "nested too deep for the stack at hand") from None
    if brackets > limits.depth and not shallow(value, limits.depth):
        raise _deep(what, limits)
    if hooks.flawed:
        _tell_flaw(value, what)
    if _ESCAPED_SURROGATE.search(text):
        _refuse_surrogates(value, what)
    return value


def _unicode(given: str | bytes, what: str, limits: Limits) -> str:
    if len(given) > limits.size * _TEXT_TO_DOCUMENT:
        raise DecodingRefused(
            what,
            f"{len(given):,} bytes of JSON, the limit is {limits.size * _TEXT_TO_DOCUMENT:,}",
        )
    if isinstance(given, bytes):
        try:
            text = given.decode()
        except UnicodeDecodeError as error:
            line = given.count(b"\n", 0, error.start) + 1
            raise DecodingRefused(
                what, f"invalid UTF-8 at byte {error.start}, line {line}"
            ) from None
    else:
        text = given
        if not text.isascii() and (refusal := not_utf8(text)) is not None:
            raise DecodingRefused(what, f"{refusal.found} of the JSON text")
    if text.startswith("\ufeff"):
        raise DecodingRefused(what, "it starts with a byte order mark", "send plain UTF-8")
    if not text.strip(" \t\r\n"):
        raise DecodingRefused(what, "empty, expected one JSON value")
    return text


def _lower(message: str) -> str:
    return message[:1].lower() + message[1:]


def _deep(what: str, limits: Limits) -> DecodingRefused:
    return DecodingRefused(what, f"more than {limits.depth} levels of nesting")


def _nesting(text: str, enough: int) -> int:
    """Return how deep the brackets outside strings go; stop once it is more than enough."""
    depth = deepest = 0
    for match in _BRACKETS.finditer(_STRINGS.sub("", text)):
        run = match[0]
        if run[0] in "[{":
            depth += len(run)
            if depth > deepest:
                deepest = depth
                if deepest > enough:
                    break
        else:
            depth -= len(run)
    return deepest


def _tell_flaw(value: Any, what: str) -> None:
    """Find what a hook put in the place of something refused, and raise it with its path."""
    if isinstance(value, _Flaw):
        raise DecodingRefused(what, value.problem, value.remedy)
    for step, item in _items(value):
        _tell_flaw(item, what + step_text(step))


def _refuse_surrogates(value: Any, what: str) -> None:
    if isinstance(value, str):
        refusal = not_utf8(value)
        if refusal is not None:
            raise DecodingRefused(what, refusal.found, "send the pair, or U+FFFD")
    for step, item in _items(value):
        if isinstance(step, str) and (refusal := not_utf8(step)) is not None:
            raise DecodingRefused(what, f"{refusal.found} of a key")
        _refuse_surrogates(item, what + step_text(step))


def _items(value: Any) -> list[tuple[str | int, Any]]:
    if isinstance(value, dict):
        return [*value.items()]
    if isinstance(value, list):
        return [*enumerate(value)]
    return []


def to_json_model(value: Any) -> Any:
    """
    Turn any value into what `json.dumps` can write, for people and other programs to read.

    Bytes become ``{"$bytes": ...}`` and links ``{"$link": ...}`` as in AT Protocol; dates,
    durations, Decimals and UUIDs become text, attrs instances dicts of their fields, floats
    that JSON can't write the texts ``NaN``, ``Infinity``, ``-Infinity``. Nothing is refused:
    what is unknown becomes its `repr`, shortened. It isn't meant to be read back.
    """
    return _model(value, _DEEPEST_OUTPUT)


def _model(value: Any, depth: int) -> Any:
    if value is None or type(value) in (str, bool, int):
        return value
    if isinstance(value, float):
        if math.isfinite(value):
            return float(value)
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    if isinstance(value, bytes):
        return {"$bytes": base64.b64encode(value).decode("ascii").rstrip("=")}
    if isinstance(value, CID):
        return {"$link": str(value)}
    if isinstance(value, date):  # datetime is one too
        return value.isoformat()
    if isinstance(value, (Decimal, UUID, timedelta)):
        return str(value)
    if depth == 0:
        return "..."
    if isinstance(value, dict):
        return {
            key if isinstance(key, str) else str(key): _model(item, depth - 1)
            for key, item in value.items()
        }
    if isinstance(value, (list, tuple)):
        return [_model(item, depth - 1) for item in value]
    if attrs.has(type(value)):
        return {
            field.name: _model(getattr(value, field.name, None), depth - 1)
            for field in attrs.fields(type(value))
        }
    if isinstance(value, (str, int)):
        return str(value)
    shown = repr(value)
    return shown if len(shown) <= 200 else shown[:197] + "..."


def from_atproto_json(value: Any, *, what: str = "input", limits: Limits = _JSON_LIMITS) -> Any:
    """
    Turn the ``{"$link": ...}`` and ``{"$bytes": ...}`` of parsed JSON into `CID` and bytes.

    Only these two wrappers are read, strictly: one key, a text, well-formed. The rest of
    AT Protocol's rules (no floats, ``$type``, blobs) isn't checked.

    Returns:
        A new value; nothing mutable is shared with the given one.

    Raises:
        DecodingRefused: a wrapper is wrong; its path is told.
    """
    return _unwrapped(value, what, limits, limits.depth)


def _unwrapped(value: Any, what: str, limits: Limits, depth: int) -> Any:
    if not isinstance(value, (dict, list)):
        return value
    if depth == 0:
        raise _deep(what[:200], limits)
    if isinstance(value, list):
        return [
            _unwrapped(item, f"{what}[{index}]", limits, depth - 1)
            for index, item in enumerate(value)
        ]
    for wrapper, read in (("$link", _link), ("$bytes", _bytes)):
        if wrapper in value:
            if len(value) != 1:
                raise DecodingRefused(what, f"other keys beside {wrapper}")
            content = value[wrapper]
            if not isinstance(content, str):
                raise DecodingRefused(
                    what, f"{wrapper} holds {type(content).__name__}, expected text"
                )
            return read(content, what)
    return {
        key: _unwrapped(item, what + step_text(key), limits, depth - 1)
        for key, item in value.items()
    }


def _link(text: str, what: str) -> CID:
    try:
        return CID.parse(text)
    except DecodingRefused as error:
        raise DecodingRefused(what, f"$link holds no CID: {error.problem}") from None


def _bytes(text: str, what: str) -> bytes:
    bare = text.rstrip("=")
    try:
        data = base64.b64decode(bare + "=" * (-len(bare) % 4), validate=True)
    except (binascii.Error, ValueError):
        raise DecodingRefused(what, "$bytes holds no base64 (RFC 4648, standard)") from None
    # Left-over bits and odd padding would give one value several spellings.
    padded = base64.b64encode(data).decode("ascii")
    if text not in (padded, padded.rstrip("=")):
        raise DecodingRefused(what, "$bytes holds base64 in an unusual form")
    return data
