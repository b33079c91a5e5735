"""Columns: lists of values as arrays, so that one statement writes the rows of a whole batch.

A statement's ``unnest(%s, %s)`` makes rows of them again. Each is encoded in PostgreSQL's
binary form in one go: psycopg's own lists ask each value what it is, one by one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from struct import Struct
from typing import Any, ClassVar, Final

_HEAD: Final = Struct("!iiIii").pack
_LENGTH: Final = Struct("!i").pack
_NULL: Final = _LENGTH(-1)
_EMPTY: Final = Struct("!iiI").pack
_INT: Final = Struct("!iq").pack
_FLOAT: Final = Struct("!id").pack
_BOOL: Final = Struct("!i?").pack


def _text(value: str) -> bytes:
    raw = value.encode()
    if b"\0" in raw:
        raise ValueError(
            f"PostgreSQL keeps no text with a NUL character in it: found {value!r:.60}"
        )
    return _LENGTH(len(raw)) + raw


class Column:
    """A column of values, None among them; each kind is a class of its own.

    Attributes:
        item: the server's number of the values' type, which never changes.
        array: that of an array of them.
    """

    __slots__ = ("values",)
    item: ClassVar[int]
    array: ClassVar[int]

    def __init__(self, values: Iterable[Any]) -> None:
        self.values = values if isinstance(values, Sequence) else list(values)

    def encoded(self) -> bytes:
        """The array in its binary form."""
        values, one = self.values, _ENCODERS[type(self)]
        if not values:
            return _EMPTY(0, 0, self.item)
        parts = [_NULL if value is None else one(value) for value in values]
        return _HEAD(1, None in values, self.item, len(values), 1) + b"".join(parts)


class Ints(Column):
    """A ``BIGINT[]``."""

    __slots__ = ()
    item = 20
    array = 1016


class Floats(Column):
    """A ``DOUBLE PRECISION[]``."""

    __slots__ = ()
    item = 701
    array = 1022


class Bools(Column):
    """A ``BOOLEAN[]``."""

    __slots__ = ()
    item = 16
    array = 1000


class Texts(Column):
    """A ``TEXT[]``."""

    __slots__ = ()
    item = 25
    array = 1009


class Blobs(Column):
    """A ``BYTEA[]``."""

    __slots__ = ()
    item = 17
    array = 1001


_ENCODERS: Final[dict[type[Column], Callable[[Any], bytes]]] = {
    Ints: lambda value: _INT(8, value),
    Floats: lambda value: _FLOAT(8, value),
    Bools: lambda value: _BOOL(1, bool(value)),
    Texts: _text,
    Blobs: lambda value: _LENGTH(len(value)) + value,
}
_KINDS: Final[dict[str, type[Column]]] = {
    "i": Ints,
    "f": Floats,
    "o": Bools,
    "t": Texts,
    "b": Blobs,
}


def columns(kinds: str, rows: Sequence[tuple[Any, ...]]) -> list[Column]:
    """Rows as columns, for one ``unnest``.

    Args:
        kinds: a letter for each: int, float, t(ext), b(lob), o for true or false.
        rows: at least one.
    """
    return [
        _KINDS[kind](values)
        for kind, values in zip(kinds, zip(*rows, strict=True), strict=True)
    ]
