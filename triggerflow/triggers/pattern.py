"""Patterns: EventBridge event patterns, compiled to closures over the raw document.

A pattern is a document in which every leaf is a list of the values that are welcome there::

    {"object": {"type": ["Person", "Group"]}, "public": [true]}

Fields are ANDed, the values of one leaf are ORed. This first form knows exact values; the
other operators of EventBridge are refused by name, never ignored.

What holds, as in EventBridge:

* A value is welcome only with its type: ``1`` and ``1.0`` are one value, but ``1``, ``"1"``
  and ``true`` are three. ``null`` is welcome where the document has a null, not
  where it has nothing.
* Arrays are crushed, at any depth: a leaf holds if any element does. They are *consistent*: two
  fields below one array must hold in the same element of it. The closures recurse through the
  elements, which gives both without bookkeeping: every node of the document is looked at by
  the one pattern node with its path, so a match costs at most one walk over the document.

What differs, on purpose:

* A key with dots is a plain key. EventBridge joins keys with dots, so that ``{"a.b": [1]}`` and
  ``{"a": {"b": [1]}}`` are one pattern there; here they are two.
* Numbers are compared exactly, not as 64-bit floats: ``2**53 + 1`` is not ``2**53``.
* A document that isn't an object matches nothing.

Only compiling recurses over what a user nests, and it stops at the depth of the deepest
document; matching goes as deep as the pattern, whatever the document does.
"""

from __future__ import annotations

import difflib
import json
import math
import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NoReturn, TypeAlias

import attrs

from triggerflow.errors import PatternError

if TYPE_CHECKING:
    from collections.abc import Iterator

# What the document has at some path -> is it welcome there?
Test: TypeAlias = Callable[[Any], bool]
Scalar: TypeAlias = "str | int | float | bool | None"

# No document is nested deeper, so no deeper pattern could ever match.
MAX_DEPTH = 128

# EventBridge's operators. The ones that we learn move from here into a table of compilers:
# `_leaf` is the only place that meets them.
NOT_YET = (
    "anything-but",
    "cidr",
    "equals-ignore-case",
    "exists",
    "numeric",
    "prefix",
    "suffix",
    "wildcard",
)
_ONLY_EXACT = "not supported yet: only exact values"

# What DAG-CBOR can hold: a document with another integer can't exist.
_INTEGERS = range(-(2**64), 2**64)
_PLAIN_KEY = re.compile(r"[\w@:-]{1,60}")


@attrs.frozen
class Pattern:
    """A compiled pattern: call it with a document to learn whether it matches.

    Two patterns are equal when their sources are, and the source is a normal form: the order
    of keys and of welcome values, repeated values and ``1.0`` for ``1`` make no difference.

    Attributes:
        text: the source as canonical JSON.
        paths: the key path of every leaf, sorted.
    """

    text: str
    paths: tuple[tuple[str, ...], ...] = attrs.field(eq=False, repr=False)
    _test: Test = attrs.field(eq=False, repr=False)

    def __call__(self, document: object) -> bool:
        """Tell whether the document matches. No JSON value makes it raise."""
        return isinstance(document, dict) and self._test(document)

    @property
    def source(self) -> dict[str, Any]:
        """The pattern in normal form, as a copy of its own; `compile_pattern` takes it back."""
        source: dict[str, Any] = json.loads(self.text)
        return source


def compile_pattern(pattern: object) -> Pattern:
    """Compile an EventBridge event pattern.

    Args:
        pattern: nested dicts; every leaf is a non-empty list of strings, numbers, booleans
            and None.

    Raises:
        PatternError: the pattern breaks a rule; the error has the path and a remedy.
    """
    if not isinstance(pattern, dict):
        raise PatternError(
            "match", f"found {_kind(pattern)}, expected an object", 'write {"field": ["value"]}'
        )
    paths: list[tuple[str, ...]] = []
    source, test = _object(pattern, (), paths)
    text = json.dumps(source, sort_keys=True, separators=(",", ":"))
    return Pattern(text, tuple(sorted(paths)), test)


# --- compiling ---------------------------------------------------------------------------


def _object(
    pattern: dict[Any, Any], keys: tuple[str, ...], paths: list[tuple[str, ...]]
) -> tuple[dict[str, Any], Test]:
    where = _path(keys)
    if not pattern:
        raise PatternError(
            where,
            "an empty object is not allowed",
            "leave the field out to accept anything there"
            if keys
            else "leave match out to accept every document",
        )
    if len(keys) >= MAX_DEPTH:
        raise PatternError(
            _path(keys[:3]) + "...",
            f"nested deeper than {MAX_DEPTH} objects",
            "no document is nested that deep",
        )
    source: dict[str, Any] = {}
    fields: list[tuple[str, Test]] = []
    for key, value in pattern.items():
        if not isinstance(key, str):
            raise PatternError(
                where, f"found a key that is {_kind(key)}, expected a string", "quote it"
            )
        here = (*keys, key)
        if key == "$or":
            raise PatternError(
                _path(here), f'"$or" is {_ONLY_EXACT}', "register one trigger for each branch"
            )
        _check_text(key, where)
        test: Test
        if isinstance(value, dict):
            source[key], test = _object(value, here, paths)
        elif isinstance(value, list):
            source[key], test = _leaf(value, here)
            paths.append(here)
        else:
            raise PatternError(
                _path(here),
                f"found {_kind(value)}, expected a list of values or an object",
                "put the value into a list",
            )
        fields.append((key, test))
    return source, _all_of(tuple(fields))


def _leaf(entries: list[Any], keys: tuple[str, ...]) -> tuple[list[Scalar], Test]:
    where = _path(keys)
    if not entries:
        raise PatternError(
            where,
            "an empty list is not allowed: nothing could match",
            "name at least one value, or leave the field out",
        )
    # keyed with the type, since True == 1 for Python and never for a pattern
    values: dict[tuple[int, Scalar], Scalar] = {}
    for at, entry in enumerate(entries):
        if isinstance(entry, dict):
            _refuse_operator(entry, f"{where}[{at}]")
        value = _scalar(entry, f"{where}[{at}]")
        values[_rank(value), value] = value
    ordered = [values[key] for key in sorted(values, key=_order)]
    return ordered, _one_of(ordered)


def _refuse_operator(entry: dict[Any, Any], where: str) -> NoReturn:
    names = [key if isinstance(key, str) else _kind(key) for key in entry]
    if len(names) != 1:
        found = ", ".join(sorted(f"{name!r:.60}" for name in names[:8])) or "none"
        raise PatternError(
            where,
            f"an operator object has exactly one key, found {found}",
            "write each operator as an object of its own",
        )
    (name,) = names
    if name in NOT_YET:
        raise PatternError(
            where, f"operator {name!r} is {_ONLY_EXACT}", "list the values, or use a guard"
        )
    near = difflib.get_close_matches(name[:60].lower(), NOT_YET, n=1)
    raise PatternError(
        where,
        f"unknown operator {name!r:.80}",
        f"did you mean {near[0]!r}? (it is {_ONLY_EXACT})"
        if near
        else "only exact values are supported: strings, numbers, booleans and null",
    )


def _scalar(entry: object, where: str) -> Scalar:
    """Return the entry in normal form, so that one meaning has one source."""
    if entry is None or isinstance(entry, bool):
        return entry
    kind = type(entry)
    if kind is str:
        text = str(entry)
        _check_text(text, where)
        return text
    if isinstance(entry, float) and kind is float:
        if not math.isfinite(entry):
            raise PatternError(
                where, f"found {entry!r}, expected a finite number", "no document can hold it"
            )
        # an integral float equals its integer, and so do their patterns
        return int(entry) if entry.is_integer() and int(entry) in _INTEGERS else entry
    if isinstance(entry, int) and kind is int:
        if entry not in _INTEGERS:
            raise PatternError(
                where, "found an integer outside 64 bits", "no document can hold it"
            )
        return entry
    remedy = "write its values into the list itself" if kind in (list, tuple) else ""
    raise PatternError(
        where, f"found {_kind(entry)}, expected a string, number, boolean or null", remedy
    )


def _rank(value: Scalar) -> int:
    if value is None:
        return 0
    if isinstance(value, bool):
        return 1
    return 3 if isinstance(value, str) else 2


def _order(key: tuple[int, Scalar]) -> tuple[int, float | str]:
    rank, value = key
    return (rank, value if value is not None else 0)


def _check_text(text: str, where: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise PatternError(
            where, f"{text!r:.80} has a lone surrogate", "no document can hold it"
        ) from None


def _path(keys: tuple[str, ...]) -> str:
    return "match" + "".join(
        f".{key}" if _PLAIN_KEY.fullmatch(key) else f"[{json.dumps(key)[:80]}]" for key in keys
    )


def _kind(value: object) -> str:
    if value is None:
        return "null"
    names = {dict: "an object", list: "a list", str: "a string", bool: "a boolean"}
    found = type(value)
    if found in (int, float):
        return "a number"
    return names.get(found) or f"a Python {found.__name__}"


# --- what a compiled pattern does ----------------------------------------------------------


def _all_of(fields: tuple[tuple[str, Test], ...]) -> Test:
    """Hold for an object in which every field holds, or an array with one such element."""

    def fits(element: Any) -> bool:
        if type(element) is not dict:
            return False
        for key, test in fields:  # noqa: SIM110 - the same, for each field
            if key not in element or not test(element[key]):
                return False
        return True

    def holds(value: Any) -> bool:
        if type(value) is not list:
            return fits(value)
        for element in _elements(value):  # noqa: SIM110 - a generator costs a frame a level
            if fits(element):
                return True
        return False

    return holds


def _one_of(values: list[Scalar]) -> Test:
    """Hold for one of these values, or an array with one of them."""
    table: dict[type, set[Scalar]] = {}
    for value in values:
        table.setdefault(type(value), set()).add(value)
    # one set for both kinds of number: they hash alike and compare exactly
    if numbers := table.get(int, set()) | table.get(float, set()):
        table[int] = table[float] = numbers

    def holds(value: Any) -> bool:
        welcome = table.get(type(value))
        if welcome is not None:
            return value in welcome
        if type(value) is not list:
            return False
        for element in _elements(value):
            welcome = table.get(type(element))
            if welcome is not None and element in welcome:
                return True
        return False

    return holds


def _elements(array: list[Any]) -> Iterator[Any]:
    """Yield what an array holds with all arrays inside it crushed, however deep they nest."""
    open_arrays = [iter(array)]
    while open_arrays:
        for item in open_arrays[-1]:
            if type(item) is list:
                open_arrays.append(iter(item))
                break
            yield item
        else:
            open_arrays.pop()
