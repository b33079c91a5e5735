r"""Wildcards: how a text with stars is read and matched.

``*`` stands for any characters, none too; ``\*`` and ``\\`` for a star and a backslash.
Matching takes each part at its first place after the part before: that is right because only
the parts' order counts, and it never goes back, so that it costs one pass over the value
whatever the text is. `complexity` says which wildcards are refused all the same.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from triggerflow.triggers.pattern.scalars import OperandError

if TYPE_CHECKING:
    from collections.abc import Callable

# A bound that is told in a word. EventBridge has only the measure of `complexity`, which lets
# nine through where no two parts share a letter.
MAX_STARS: Final = 8


def read_wildcard(text: str) -> tuple[str, ...]:
    r"""The parts between the stars, unescaped.

    Raises:
        OperandError: two stars in a row, too many stars, or a backslash that escapes neither
            ``*`` nor ``\``.
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
    if len(parts) > MAX_STARS:
        raise OperandError(
            f"found {len(parts)} stars in one wildcard, expected at most {MAX_STARS}",
            "use fewer stars, or prefix and suffix",
        )
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
