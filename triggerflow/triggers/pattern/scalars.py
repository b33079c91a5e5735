"""Plain values of a pattern: which are taken, their normal form, and their names in errors."""

from __future__ import annotations

import json
import math
import re
from json.encoder import encode_basestring_ascii
from typing import TYPE_CHECKING

import attrs

if TYPE_CHECKING:
    from triggerflow.triggers.pattern.conditions import KeyPath, Number, Scalar

# What DAG-CBOR can hold: a document with another integer can't exist.
_INTEGERS = range(-(2**64), 2**64)
_PLAIN_KEY = re.compile(r"[\w@:-]{1,60}")

quoted = encode_basestring_ascii


@attrs.define(eq=False)
class OperandError(Exception):
    """A value or an operand breaks a rule; who knows the path makes a PatternError of it."""

    problem: str
    remedy: str = ""


def read_scalar(entry: object) -> Scalar:
    """Return the value in normal form, so that one meaning has one source.

    Raises:
        OperandError: it is no JSON scalar, or no document can hold it.
    """
    if entry is None or isinstance(entry, bool):
        return entry
    kind = type(entry)
    if kind is str:
        text = str(entry)
        check_text(text)
        return text
    if kind is int or kind is float:
        return read_number(entry)
    remedy = "write its values into the list itself" if kind in (list, tuple) else ""
    raise OperandError(
        f"found {kind_of(entry)}, expected a string, number, boolean or null", remedy
    )


def read_number(entry: object) -> Number:
    """Return the number in normal form: an integral float is its integer.

    Raises:
        OperandError: it is no number, or no document can hold it.
    """
    if isinstance(entry, float) and type(entry) is float:
        if not math.isfinite(entry):
            raise OperandError(
                f"found {entry!r}, expected a finite number", "no document can hold it"
            )
        return int(entry) if entry.is_integer() and int(entry) in _INTEGERS else entry
    if isinstance(entry, int) and type(entry) is int:
        if entry not in _INTEGERS:
            raise OperandError("found an integer outside 64 bits", "no document can hold it")
        return entry
    raise OperandError(f"found {kind_of(entry)}, expected a number")


def rank(value: Scalar) -> int:
    """The order of JSON types in normal form; it keeps True apart from 1."""
    if value is None:
        return 0
    if isinstance(value, bool):
        return 1
    return 3 if isinstance(value, str) else 2


def scalar_text(value: Scalar) -> str:
    """The value as JSON."""
    if isinstance(value, str):
        return quoted(value)
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    return repr(value)


def in_order(values: dict[tuple[int, Scalar], Scalar]) -> list[Scalar]:
    """Values keyed by (rank, value), sorted by both."""
    return [values[key] for key in sorted(values, key=_sortable)]


def _sortable(key: tuple[int, Scalar]) -> tuple[int, float | str]:
    level, value = key
    return (level, value if value is not None else 0)


def check_text(text: str) -> None:
    """Refuse what strict UTF-8 can't say.

    Raises:
        OperandError: the text has a lone surrogate.
    """
    if text.isascii():
        return
    try:
        text.encode()
    except UnicodeEncodeError:
        raise OperandError(
            f"{text!r:.80} has a lone surrogate", "no document can hold it"
        ) from None


def path_text(keys: KeyPath) -> str:
    """A path inside the pattern, as errors and explanations name it: ``match.object.type``."""
    shown = keys if len(keys) <= 20 else keys[:3]
    return (
        "match"
        + "".join(
            f".{key}" if _PLAIN_KEY.fullmatch(key) else f"[{json.dumps(key[:60])}]"
            for key in shown
        )
        + ("..." if shown is not keys else "")
    )


def kind_of(value: object) -> str:
    """What a value is, for messages."""
    if value is None:
        return "null"
    names = {dict: "an object", list: "a list", str: "a string", bool: "a boolean"}
    found = type(value)
    if found in (int, float):
        return "a number"
    return names.get(found) or f"a Python {found.__name__}"
