r"""Wildcards: how a text with stars is read, matched, and how complex it may be.

``*`` stands for any characters, none too; ``\*`` and ``\\`` for a star and a backslash.
Matching takes each part at its first place after the part before: that is right because only
the parts' order counts, and it never goes back, so that it costs one pass over the value
whatever the text is. The bound on complexity is EventBridge's, whose automaton would be slow:
what a single field may hold here, it may hold there.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any

from triggerflow.triggers.pattern.scalars import OperandError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

# EventBridge's limit: wildcard prefixes that one value can be in the middle of at once.
MAX_COMPLEXITY = 10
# Longer wildcards than EventBridge takes as a whole pattern: not worth the look.
_MAX_LENGTH = 4096


def read_wildcard(text: str) -> tuple[str, ...]:
    r"""The parts between the stars, unescaped.

    Raises:
        OperandError: two stars in a row, or a backslash that escapes neither ``*`` nor ``\``.
    """
    parts: list[str] = []
    part: list[str] = []
    at = 0
    while at < len(text):
        found = text[at]
        if found == "*":
            if text.startswith("**", at):
                raise OperandError(
                    f"two stars in a row, at character {at}",
                    r"one star stands for any characters; write \* for a star itself",
                )
            parts.append("".join(part))
            part = []
        elif found == "\\":
            at += 1
            if text[at : at + 1] not in ("*", "\\"):
                raise OperandError(
                    f"a bad escape at character {at - 1}",
                    r"a backslash stands before * or \ only; write \\ for a backslash itself",
                )
            part.append(text[at])
        else:
            stop = at + 1
            while stop < len(text) and text[stop] not in "*\\":
                stop += 1
            part.append(text[at:stop])
            at = stop - 1
        at += 1
    return (*parts, "".join(part))


def wildcard_test(parts: tuple[str, ...]) -> Callable[[Any], bool]:
    """Hold for a string of these parts in this order: one pass, no way back."""
    head, *inner, tail = parts if len(parts) > 1 else (parts[0], parts[0])
    shortest = sum(map(len, parts))
    middle = tuple(part for part in inner if part)
    whole = len(parts) == 1

    def holds(value: Any) -> bool:
        if type(value) is not str:
            return False
        if whole:
            return value == head
        if len(value) < shortest or not value.startswith(head) or not value.endswith(tail):
            return False
        at, stop = len(head), len(value) - len(tail)
        for part in middle:
            at = value.find(part, at, stop)
            if at < 0:
                return False
            at += len(part)
        return True

    return holds


def complexity(wildcards: Iterable[tuple[str, ...]]) -> int:
    """How many wildcard prefixes one value can be in the middle of at once, at the worst.

    Every star that was passed stays open, and so does each beginning of a part after a star
    that the last characters read could be: repeated sequences count again. Wildcards of one
    field that begin differently are never open together.

    Args:
        wildcards: the parts of each, all for one field.
    """
    starred = sorted(parts for parts in set(wildcards) if len(parts) > 1)
    if sum(len(part) for parts in starred for part in parts) > _MAX_LENGTH:
        return MAX_COMPLEXITY + 1
    worst = 1
    open_together: list[tuple[str, ...]] = []
    for parts in starred:  # sorted, so that one beginning with another's head comes later
        while open_together and not parts[0].startswith(open_together[-1][0]):
            open_together.pop()
        open_together.append(parts)
        stars = sum(len(each) - 1 for each in open_together)
        if stars > MAX_COMPLEXITY:
            return stars
        after_stars = [
            part + ('"' if last else "")  # the end of a value is a character like any other
            for each in open_together
            for part, last in zip(each[1:], [False] * (len(each) - 2) + [True], strict=True)
        ]
        worst = max(worst, stars + _most_open(after_stars))
    return worst


def _most_open(words: list[str]) -> int:
    """How many beginnings of these words can end at one place, by Aho and Corasick."""
    step: list[dict[str, int]] = [{}]
    words_here = [0]
    for word in words:
        node = 0
        for letter in word:
            if letter not in step[node]:
                step[node][letter] = len(step)
                step.append({})
                words_here.append(0)
            node = step[node][letter]
            words_here[node] += 1
    suffix = [0] * len(step)
    total = words_here[:]
    queue = deque(step[0].values())
    while queue:
        node = queue.popleft()
        for letter, child in step[node].items():
            back = suffix[node]
            while back and letter not in step[back]:
                back = suffix[back]
            suffix[child] = step[back].get(letter, 0)
            total[child] += total[suffix[child]]
            queue.append(child)
    return max(total)
