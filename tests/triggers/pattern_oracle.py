"""An evaluator of event patterns that works quite differently from ours: as event-ruler does.

The document becomes a list of (path, value, membership): one for each value, with the element
that it stands in for every array above it. The pattern becomes its combinations of ``$or``
branches. A combination matches when a value can be chosen for each field, in the order of the
dotted paths, so that no array is left with two different elements. All choices are tried: slow,
and plain to see. Nothing of ours is imported, operators are written a second time.
"""

from __future__ import annotations

import ipaddress
import itertools
import re
from typing import Any

Membership = dict[int, int]


def matches(pattern: dict[str, Any], document: dict[str, Any]) -> bool:
    """Whether the document matches, by trying all."""
    fields = flatten(document)
    return any(
        search(sorted(leaves.items(), key=lambda leaf: ".".join(leaf[0])), fields, {})
        for leaves in combinations(pattern)
    )


def flatten(document: dict[str, Any]) -> list[tuple[tuple[str, ...], Any, Membership]]:
    """Every value with its path and its place in the arrays above it."""
    found: list[tuple[tuple[str, ...], Any, Membership]] = []
    arrays = itertools.count()

    def walk(value: Any, path: tuple[str, ...], membership: Membership) -> None:
        if isinstance(value, dict):
            for key, inner in value.items():
                walk(inner, (*path, key), membership)
        elif isinstance(value, list):
            array = next(arrays)
            for at, inner in enumerate(value):
                # a bare value is in the field, not in an element that other fields share
                inside = {array: at} if isinstance(inner, dict | list) else {}
                walk(inner, path, membership | inside)
        else:
            found.append((path, value, membership))

    walk(document, (), {})
    return found


def combinations(
    pattern: dict[str, Any], path: tuple[str, ...] = ()
) -> list[dict[tuple[str, ...], list[Any]]]:
    """The fields of the pattern, once for each way to take a branch of every ``$or``."""
    found: list[dict[tuple[str, ...], list[Any]]] = [{}]
    for key, value in pattern.items():
        if key == "$or" and isinstance(value, list) and isinstance(value[0], dict):
            options = [each for branch in value for each in combinations(branch, path)]
        elif isinstance(value, dict):
            options = combinations(value, (*path, key))
        else:
            options = [{(*path, key): value}]
        found = [one | other for one in found for other in options]
    return found


def search(
    leaves: list[tuple[tuple[str, ...], list[Any]]],
    fields: list[tuple[tuple[str, ...], Any, Membership]],
    chosen: Membership,
) -> bool:
    """Whether a value can be chosen for each field that is left."""
    if not leaves:
        return True
    (path, entries), *rest = leaves
    here = [
        (value, membership)
        for at, value, membership in fields
        if at == path
        and all(chosen.get(array, element) == element for array, element in membership.items())
    ]
    if {"exists": False} in entries and not here and search(rest, fields, chosen):
        return True
    return any(
        any(holds(entry, value) for entry in entries)
        and search(rest, fields, chosen | membership)
        for value, membership in here
    )


def holds(entry: Any, value: Any) -> bool:
    """Whether one entry of a field's list welcomes a value."""
    if not isinstance(entry, dict):
        return same(entry, value)
    ((name, operand),) = entry.items()
    text = isinstance(value, str)
    number = isinstance(value, int | float) and not isinstance(value, bool)
    match name:
        case "exists":
            return operand is True
        case "prefix" | "suffix" if isinstance(operand, dict):
            forms = cases(operand["equals-ignore-case"])
            before, after = ("", ".*") if name == "prefix" else (".*", "")
            return text and bool(re.fullmatch(f"(?s){before}{forms}{after}", value))
        case "prefix":
            return text and value[: len(operand)] == operand
        case "suffix":
            return text and value[max(0, len(value) - len(operand)) :] == operand
        case "equals-ignore-case":
            return text and bool(re.fullmatch(cases(operand), value))
        case "wildcard":
            return text and bool(re.fullmatch(starred(operand), value))
        case "cidr":
            return text and in_block(value, operand)
        case "numeric":
            pairs = zip(operand[::2], operand[1::2], strict=True)
            return number and all(compare(value, sign, bound) for sign, bound in pairs)
        case "anything-but" if isinstance(operand, dict):
            ((inner, texts),) = operand.items()
            texts = texts if isinstance(texts, list) else [texts]
            return not any(holds({inner: each}, value) for each in texts)
        case "anything-but":
            values = operand if isinstance(operand, list) else [operand]
            return not any(same(each, value) for each in values)
    raise AssertionError(name)


def same(wanted: Any, value: Any) -> bool:
    """JSON equality: types count, but not the kind of number."""
    return isinstance(wanted, bool) == isinstance(value, bool) and wanted == value


def cases(text: str) -> str:
    """A regular expression for the text in any case, character by character."""
    return "".join(
        f"(?:{'|'.join(map(re.escape, (letter, letter.lower(), letter.upper())))})"
        for letter in text
    )


def starred(text: str) -> str:
    """A regular expression for a wildcard."""
    tokens = re.findall(r"\\[*\\]|\*|[^*\\]+", text)
    return "(?s)" + "".join(
        ".*" if token == "*" else re.escape(token[1:] if token[0] == "\\" else token)
        for token in tokens
    )


def compare(value: float, sign: str, bound: float) -> bool:
    """One comparison of `numeric`."""
    return {
        "=": value == bound,
        "<": value < bound,
        "<=": value <= bound,
        ">": value > bound,
        ">=": value >= bound,
    }[sign]


def in_block(value: str, block: str) -> bool:
    """Whether the value is an address of the block."""
    try:
        return ipaddress.ip_address(value) in ipaddress.ip_network(block, strict=False)
    except ValueError:
        return False
