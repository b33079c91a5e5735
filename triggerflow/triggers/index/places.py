"""Places: under which conditions of a pattern an index can find it.

A place is a path of the document and a *probe*: something that is done to a value there, and
the key that must come out. It is necessary, never sufficient: a document that matches the
pattern has a value at the path whose probe gives the key, but one that has may not match.

==============  ==================================  =========================================
probe           files                               what a value is turned into
==============  ==================================  =========================================
TEXT            equality                            the string itself
NUMBER          equality; 1 and 1.0 are one         the number itself
CONSTANT        true, false, null                   itself
FOLDED          equality, any case                  its case fold
HEAD, TAIL      prefix, suffix, wildcard            its first or last characters
FOLDED_HEAD,    the same, any case                  those of its case fold
FOLDED_TAIL
NETWORK         cidr                                the block around it, if it is an address
CELL            ranges with two bounds              the cell of 2**size integers it is in
ABOVE, BELOW    ranges with one bound               whether it is as large, or as small
ANY_TEXT        other wildcards                     nothing: every string will do
ANYTHING        exists, anything-but                nothing: every value will do
==============  ==================================  =========================================

A probe comes in sizes (characters, bits), and each size in use costs every value at its path a
look-up. So there are few: a longer prefix is filed under its beginning of the next smaller
size. That bounds what a string of a megabyte costs to some thirty slices of at most 256
characters, whatever was registered.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from triggerflow.triggers.pattern.conditions import (
    Absent,
    AnythingBut,
    Equals,
    EqualsIgnoreCase,
    Exists,
    InNetwork,
    Numeric,
    Prefix,
    Suffix,
    Wildcard,
)
from triggerflow.triggers.pattern.folding import forms_of

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable

    from triggerflow.triggers.pattern.conditions import KeyPath, Leaf, Number, Operator


class Probe:
    """What is done to a value; see the table above. Integers: an enum's members hash slowly."""

    TEXT: Final = 0
    NUMBER: Final = 1
    CONSTANT: Final = 2
    # beyond these more is done to a value than to look it up
    HEAD: Final = 3
    TAIL: Final = 4
    FOLDED: Final = 5
    FOLDED_HEAD: Final = 6
    FOLDED_TAIL: Final = 7
    NETWORK: Final = 8
    ANY_TEXT: Final = 9
    CELL: Final = 10
    ABOVE: Final = 11
    BELOW: Final = 12
    ANYTHING: Final = 13


# Where in the document, what is done to the value there, how large, what must come out.
Place: TypeAlias = "tuple[KeyPath, int, int, Hashable]"
Spot: TypeAlias = "tuple[int, int, Hashable]"

# The lengths of affixes that are looked up.
_SIZES: Final = (*range(1, 17), 20, 24, 28, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 256)
LONGEST: Final = _SIZES[-1]
# Cells have 1, 8, 64 ... integers; beyond that a range is as good as one with no bound.
_CELL_STEP: Final = 3
_LARGEST_CELL: Final = 66
_WIDTH: Final = {4: 32, 6: 128}


def places_of(leaf: Leaf) -> list[Place] | None:
    """Return the places that together see every value for which the leaf holds.

    Returns:
        None when the leaf may hold without a value: no place sees that.
    """
    path = leaf.path
    if len(leaf.any_of) == 1:
        (only,) = leaf.any_of
        if type(only) is Equals and len(only.values) == 1 and type(only.values[0]) is str:
            return [(path, Probe.TEXT, 0, only.values[0])]  # by far the commonest leaf
    places: list[Place] = []
    for operator in leaf.any_of:
        if type(operator) is Absent:
            return None
        places += [(path, *spot) for spot in _SPOTS[type(operator)](operator)]
    # two operators may have one place: a pattern that stood there twice would be taken out once
    return list(dict.fromkeys(places))


def _equals(operator: Equals) -> list[Spot]:
    spots: list[Spot] = []
    for value in operator.values:
        if type(value) is str:
            spots.append((Probe.TEXT, 0, value))
        elif value is None or type(value) is bool:
            spots.append((Probe.CONSTANT, 0, value))
        else:
            spots.append((Probe.NUMBER, 0, value))
    return spots


def _equals_ignoring_case(operator: EqualsIgnoreCase) -> list[Spot]:
    text = operator.text
    if not _folds(text):
        return [(Probe.ANY_TEXT, 0, "")]
    if len(folded := text.casefold()) > LONGEST:
        return _affix(Probe.FOLDED_HEAD, folded)
    return [(Probe.FOLDED, 0, folded)]


def _prefix(operator: Prefix) -> list[Spot]:
    if not operator.ignore_case:
        return _affix(Probe.HEAD, operator.text)
    if not _folds(operator.text):
        return [(Probe.ANY_TEXT, 0, "")]
    return _affix(Probe.FOLDED_HEAD, operator.text.casefold())


def _suffix(operator: Suffix) -> list[Spot]:
    if not operator.ignore_case:
        return _affix(Probe.TAIL, operator.text)
    if not _folds(operator.text):
        return [(Probe.ANY_TEXT, 0, "")]
    return _affix(Probe.FOLDED_TAIL, operator.text.casefold())


def _affix(probe: int, text: str) -> list[Spot]:
    at = bisect_right(_SIZES, len(text))
    if not at:
        return [(Probe.ANY_TEXT, 0, "")]
    size = _SIZES[at - 1]
    ending = probe in (Probe.TAIL, Probe.FOLDED_TAIL)
    return [(probe, size, text[-size:] if ending else text[:size])]


def _folds(text: str) -> bool:
    """Whether every value that the text is met by has its case fold.

    The dotless i for one has not: its upper case is the ``I`` of ``i``.
    """
    return text.isascii() or all(
        len({form.casefold() for form in forms}) == 1 for forms in forms_of(text)
    )


def _wildcard(operator: Wildcard) -> list[Spot]:
    parts = operator.parts
    if len(parts) == 1:
        return [(Probe.TEXT, 0, parts[0])]
    if len(parts[0]) >= len(parts[-1]):
        return _affix(Probe.HEAD, parts[0])
    return _affix(Probe.TAIL, parts[-1])


def _numeric(operator: Numeric) -> list[Spot]:
    low, high = operator.low, operator.high
    if low is not None and high is not None:
        first, last = math.floor(low), math.floor(high)
        size = -(-(last - first).bit_length() // _CELL_STEP) * _CELL_STEP
        if size <= _LARGEST_CELL:  # so large a cell that the range touches two at the most
            cells = sorted({first >> size, last >> size})
            return [(Probe.CELL, size, cell) for cell in cells]
    if low is not None:
        return [(Probe.ABOVE, magnitude(low), True)]
    return [(Probe.BELOW, magnitude(high), True)] if high is not None else []


def _in_network(operator: InNetwork) -> list[Spot]:
    size = (operator.last - operator.first).bit_length()
    return [(Probe.NETWORK, size, (operator.version, operator.first >> size))]


def _exists(_: Exists | AnythingBut) -> list[Spot]:
    return [(Probe.ANYTHING, 0, "")]


_SPOTS: Final[dict[type[Operator], Callable[[Any], list[Spot]]]] = {
    AnythingBut: _exists,
    Equals: _equals,
    EqualsIgnoreCase: _equals_ignoring_case,
    Exists: _exists,
    InNetwork: _in_network,
    Numeric: _numeric,
    Prefix: _prefix,
    Suffix: _suffix,
    Wildcard: _wildcard,
}


def magnitude(number: Number) -> int:
    """A whole number that grows with the number: its length in bits, with its sign."""
    whole = math.floor(abs(number)).bit_length()
    return whole if number >= 0 else -whole - 1


def weight(place: Place) -> float:
    """How much more often than an equality's a place is hit, roughly."""
    _, probe, size, _ = place
    if probe in _BY_LENGTH:
        return 1 + 24 / size
    return _WEIGHTS[probe]


_BY_LENGTH: Final = frozenset({Probe.HEAD, Probe.TAIL, Probe.FOLDED_HEAD, Probe.FOLDED_TAIL})
_WEIGHTS: Final = {
    Probe.TEXT: 1,
    Probe.NUMBER: 1,
    Probe.CONSTANT: 16,
    Probe.FOLDED: 1,
    Probe.NETWORK: 4,
    Probe.CELL: 4,
    Probe.ABOVE: 32,
    Probe.BELOW: 32,
    Probe.ANY_TEXT: 64,
    Probe.ANYTHING: 64,
}
