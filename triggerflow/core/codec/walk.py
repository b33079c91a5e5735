"""
Walks over values before any native encoder sees them: shape, size, depth, and paths.

Both native libraries trust their input: cbor2 overruns the C stack at some 8,000 nested
lists, and a list that holds one large string ten thousand times is small in memory and
huge in bytes. So every value is surveyed first, level by level, without recursion. A value
that doesn't pass goes to a slower encoder, which says where and why, or finds it lawful.
"""

from __future__ import annotations

from typing import Any, Final

import attrs

from triggerflow.errors import EncodingRefused

_PLAIN_KEY: Final = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ_0123456789")
# Beyond this a path is cut in its middle: it is a cycle's, or nobody can read it.
_MOST_STEPS: Final = 24


@attrs.frozen
class Limits:
    """
    How large and how deep a value may be.

    Args:
        size: bytes, once encoded.
        depth: containers inside one another; at most 256, so that native code that
            recurses stays within the smallest thread stacks.
    """

    size: int = attrs.field(default=1024 * 1024, validator=attrs.validators.ge(1))
    depth: int = attrs.field(
        default=128, validator=[attrs.validators.ge(1), attrs.validators.le(256)]
    )


@attrs.frozen
class Framed(Limits):
    """The same for values with what the library puts round them, such as lists of arguments."""

    depth: int = 256 + 8

    @classmethod
    def of(cls, limits: Limits) -> Framed:
        """Wide enough for three of the largest values, a few levels down."""
        return cls(3 * limits.size + 1024, limits.depth + 8)


class Refusal(Exception):
    """
    A refusal on its way up: each container adds its key, so paths cost nothing until then.

    Never leaves the codec; `at` turns it into an `EncodingRefused`.
    """

    def __init__(self, found: str, expected: str, remedy: str = "") -> None:
        super().__init__(found)
        self.found, self.expected, self.remedy = found, expected, remedy
        self.steps: list[str | int] = []

    def at(self, what: str) -> EncodingRefused:
        """Name the place, seen from the root value that the caller knows as `what`."""
        steps = [step_text(step) for step in reversed(self.steps)]
        if len(steps) > _MOST_STEPS:
            steps[12:-4] = [f" ({len(steps) - 16} more) "]
        path = what + "".join(steps)
        return EncodingRefused(path, self.found, self.expected, self.remedy)


def step_text(step: str | int) -> str:
    """Spell one step of a path: ``.name``, ``["odd name"]`` or ``[3]``."""
    if not isinstance(step, str):
        return f"[{step!r}]"
    if step and not step[0].isdecimal() and _PLAIN_KEY.issuperset(step):
        return "." + step
    shown = step if len(step) <= 60 else step[:57] + "..."
    return "[" + ascii_quoted(shown) + "]"


def ascii_quoted(text: str) -> str:
    """Quote text so that it can be printed anywhere, lone surrogates included."""
    inner = text.replace("\\", "\\\\").replace('"', '\\"')
    return '"' + "".join(c if c.isprintable() else ascii(c)[1:-1] for c in inner) + '"'


def too_deep(limits: Limits) -> Refusal:
    """Word the refusal of a value that is nested beyond its limit, or contains itself."""
    return Refusal(
        f"more than {limits.depth} levels of nesting",
        f"at most {limits.depth}",
        "flatten it, and make sure that it does not contain itself",
    )


def too_large(limits: Limits, found: str = "") -> Refusal:
    """Word the refusal of a value that is larger than its limit."""
    return Refusal(
        found or f"more than {limits.size:,} bytes",
        f"at most {limits.size:,} bytes",
        "keep it in a file or a database and pass a reference to it",
    )


def wrong_key(key: object) -> Refusal:
    """Word the refusal of a mapping key that isn't exactly a string."""
    return Refusal(
        f"a key of type {type(key).__name__}", "keys of type str", "turn the keys into str"
    )


def not_utf8(text: str) -> Refusal | None:
    """Return a refusal when the text holds a lone surrogate, which UTF-8 can't carry."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        return Refusal(
            f"a lone surrogate (U+{ord(text[error.start]):04X}) at character {error.start}",
            "text that UTF-8 can carry",
            "decode it with errors='replace', or keep it as bytes",
        )
    return None


def survey(
    value: object,
    leaves: frozenset[type],
    containers: frozenset[type],
    limits: Limits,
    int_bits: int,
) -> list[float] | None:
    """
    Check in one pass without recursion that a value is plain: known types, size and depth.

    A cheap answer for the usual case: lengths of texts are counted in characters, and lone
    surrogates are left to the encoder.

    Args:
        value: any Python object.
        leaves: types that hold nothing, beside str, int and float.
        containers: which of dict, list and tuple may appear.
        limits: the bounds.
        int_bits: the widest integer that passes.

    Returns:
        The floats met on the way, for rules about floats, or None: not plain, look closely.
    """
    room = limits.size
    floats: list[float] = []
    level: list[Any] = [value]
    kind: type = type(value)
    if kind not in containers:
        level = [(value,)]  # a scalar, seen as the only item of its level
    for _ in range(limits.depth + (kind not in containers)):
        below: list[Any] = []
        add = below.append
        for container in level:
            # Every item takes a byte at least: a structure that shares its parts can't
            # grow past the limit before it is noticed.
            room -= len(container)
            if room < 0:
                return None
            if type(container) is dict:
                for key, item in container.items():
                    if type(key) is not str:
                        return None
                    kind = type(item)
                    if kind is str:
                        room -= len(key) + len(item)
                    else:
                        room -= len(key)
                        if kind in containers:
                            add(item)
                        elif kind is int:
                            if item.bit_length() > int_bits:
                                return None
                        elif kind is float:
                            floats.append(item)
                        elif kind not in leaves:
                            return None
                        elif kind is bytes:
                            room -= len(item)
            else:
                for item in container:
                    kind = type(item)
                    if kind is str:
                        room -= len(item)
                    elif kind in containers:
                        add(item)
                    elif kind is int:
                        if item.bit_length() > int_bits:
                            return None
                    elif kind is float:
                        floats.append(item)
                    elif kind not in leaves:
                        return None
                    elif kind is bytes:
                        room -= len(item)
        if not below:
            return floats if room >= 0 else None
        level = below
    return None


def shallow(doc: Any, depth: int) -> bool:
    """Tell whether a decoded document, of dicts and lists, has at most so many levels."""
    level = [doc] if type(doc) is dict or type(doc) is list else []
    for _ in range(depth):
        if not level:
            return True
        level = [
            item
            for container in level
            for item in (container.values() if type(container) is dict else container)
            if type(item) is dict or type(item) is list
        ]
    return not level
