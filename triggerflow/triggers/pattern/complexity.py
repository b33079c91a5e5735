"""How complex the wildcards of one field may be: event-ruler's measure, and its bound.

event-ruler reads a value letter by letter and keeps every place of a wildcard that the letters
so far can lead to. Its cost is the number of places that are open at once; the measure is that
number at the worst, over all values. EventBridge refuses a pattern that comes to more than ten.
Our matching goes to one place at a time and needs no such bound: it is here so that a pattern
that is taken here is taken there.

A place is what a wildcard has read, stars included. A star stays open once it is reached, so a
value can open all stars of all wildcards that begin alike; the letters after them open more. A
value counts with its quotes, as event-ruler holds it: all wildcards begin with one, and those
that end together end with one. The wildcards of one ``anything-but`` are one pattern there:
places that they share count once.
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Final, TypeAlias

import attrs

if TYPE_CHECKING:
    from collections.abc import Iterable

# A wildcard's parts between the stars, unescaped.
Parts: TypeAlias = "tuple[str, ...]"

# event-ruler's limit for one pattern, and EventBridge's.
MAX_COMPLEXITY: Final = 10
# Longer wildcards than EventBridge takes as a whole pattern, and more letters than it takes to
# measure shorter ones: not worth the look.
_MAX_LENGTH: Final = 4096
_MAX_READ: Final = 16 * _MAX_LENGTH
_QUOTE: Final = '"'


@attrs.define(eq=False)
class _Place:
    """A place in the wildcards of one pattern.

    Attributes:
        letters: the places that one more letter leads to.
        star: the place behind a star that stands here: open as soon as this one is.
        is_star: any letter leads back here.
        end: the end of the value, if a wildcard ends here; one place for all of a pattern.
    """

    letters: dict[str, _Place] = attrs.field(factory=dict)
    star: _Place | None = None
    is_star: bool = False
    end: _Place | None = None


def too_complex(patterns: Iterable[Iterable[Parts]]) -> bool:
    """Whether the wildcards of one field are more than EventBridge takes.

    Args:
        patterns: each wildcard on its own, and the wildcards of each ``anything-but`` together.
    """
    return complexity(patterns) > MAX_COMPLEXITY


def complexity(patterns: Iterable[Iterable[Parts]]) -> int:
    """How many places can be open at once, at the worst; at the bound it stops counting.

    Args:
        patterns: as `too_complex` takes them.
    """
    listed = [list(pattern) for pattern in patterns]
    if (
        sum(len(part) for pattern in listed for parts in pattern for part in parts)
        > _MAX_LENGTH
    ):
        return MAX_COMPLEXITY + 1
    begun: set[_Place] = set()
    planted: list[tuple[Parts, list[_Place]]] = []
    for pattern in listed:
        root, end = _Place(), _Place()
        planted += [(parts, _plant(parts, root, end)) for parts in pattern]
        begun.add(root)
        if root.star is not None:
            begun.add(root.star)
    worst = len(begun)
    to_read = _MAX_READ
    heads = {parts[0] + _QUOTE for parts, _ in planted}
    for places, texts in itertools.chain([(begun, heads)], _opened(planted)):
        worst = max(worst, len(places))
        for text in texts:
            to_read -= len(text)
            if worst > MAX_COMPLEXITY or to_read < 0:
                return max(worst, MAX_COMPLEXITY + 1)
            worst = max(worst, _most_open(places, text))
    return worst


def _plant(parts: Parts, root: _Place, end: _Place) -> list[_Place]:
    """Add a wildcard to the places of its pattern; return those behind its stars."""
    place = root
    stars: list[_Place] = []
    for at, part in enumerate(parts):
        if at:
            if place.star is None:
                place.star = _Place(is_star=True)
            place = place.star
            stars.append(place)
        for letter in part:
            place = place.letters.setdefault(letter, _Place())
    place.end = end
    return stars


def _opened(
    planted: list[tuple[Parts, list[_Place]]],
) -> Iterable[tuple[set[_Place], set[str]]]:
    """Yield the stars that one value can open together, and the texts behind them.

    They are those of all wildcards whose text before the first star begins one text.
    """
    begin_alike: list[tuple[Parts, list[_Place]]] = []
    starred = sorted((each for each in planted if each[1]), key=_head_of)
    for head, group in itertools.groupby(starred, key=_head_of):
        while begin_alike and not head.startswith(_head_of(begin_alike[-1])):
            begin_alike.pop()
        begin_alike += group
        yield (
            {star for _, stars in begin_alike for star in stars},
            {text for parts, _ in begin_alike for text in (*parts[1:-1], parts[-1] + _QUOTE)},
        )


def _head_of(planted: tuple[Parts, list[_Place]]) -> str:
    return planted[0][0]


def _most_open(places: set[_Place], text: str) -> int:
    """How many places are open at once, at the worst, while this text is read from these."""
    worst = 0
    for letter in text:
        reached: set[_Place] = set()
        for place in places:
            if place.is_star:
                reached.add(place)
            if place.end is not None and letter == _QUOTE:
                reached.add(place.end)
            after = place.letters.get(letter)
            if after is not None:
                reached.add(after)
                if after.star is not None:
                    reached.add(after.star)
        places = reached
        worst = max(worst, len(places))
        if worst > MAX_COMPLEXITY:
            break
    return worst
