"""Columns: lists of values as arrays, so that one statement writes the rows of a whole batch.

A statement's ``unnest(%s, %s)`` makes rows of them again. Each is encoded in PostgreSQL's
binary form in one go: psycopg's own lists ask each value what it is, one by one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from struct import Struct
from typing import Any, Final

from psycopg import pq
from psycopg.abc import Buffer
from psycopg.adapt import AdaptersMap, Dumper
from psycopg.types.bool import BoolBinaryDumper
from psycopg.types.numeric import FloatBinaryDumper, Int8BinaryDumper
from psycopg.types.string import BytesBinaryDumper, StrBinaryDumper

_HEAD: Final = Struct("!iiIii").pack
_LENGTH: Final = Struct("!i").pack
_NULL: Final = _LENGTH(-1)
_INT: Final = Struct("!iq").pack
_FLOAT: Final = Struct("!id").pack
_BOOL: Final = Struct("!i?").pack


class Column:
    """A column of values, None among them; each kind is a class of its own."""

    __slots__ = ("values",)

    def __init__(self, values: Iterable[Any]) -> None:
        self.values = values if isinstance(values, Sequence) else list(values)


class Ints(Column):
    """A ``BIGINT[]``."""

    __slots__ = ()


class Floats(Column):
    """A ``DOUBLE PRECISION[]``."""

    __slots__ = ()


class Bools(Column):
    """A ``BOOLEAN[]``."""

    __slots__ = ()


class Texts(Column):
    """A ``TEXT[]``."""

    __slots__ = ()


class Blobs(Column):
    """A ``BYTEA[]``."""

    __slots__ = ()


def _text(value: str) -> bytes:
    raw = value.encode()
    if b"\0" in raw:
        raise ValueError(
            f"PostgreSQL keeps no text with a NUL character in it: found {value!r:.60}"
        )
    return _LENGTH(len(raw)) + raw


_ENCODERS: Final[dict[type[Column], tuple[str, Callable[[Any], bytes]]]] = {
    Ints: ("int8", lambda value: _INT(8, value)),
    Floats: ("float8", lambda value: _FLOAT(8, value)),
    Bools: ("bool", lambda value: _BOOL(1, bool(value))),
    Texts: ("text", _text),
    Blobs: ("bytea", lambda value: _LENGTH(len(value)) + value),
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


def register(adapters: AdaptersMap) -> None:
    """Let a connection take columns, and plain values in their binary form."""
    for kind, (name, encode) in _ENCODERS.items():
        found = adapters.types[name]
        adapters.register_dumper(kind, _dumper(found.oid, found.array_oid, encode))
    # An int is always a BIGINT: else each size of it is a statement of its own.
    adapters.register_dumper(int, Int8BinaryDumper)
    adapters.register_dumper(float, FloatBinaryDumper)
    adapters.register_dumper(str, StrBinaryDumper)
    adapters.register_dumper(bytes, BytesBinaryDumper)
    adapters.register_dumper(bool, BoolBinaryDumper)


def _dumper(item: int, array: int, encode: Callable[[Any], bytes]) -> type[Dumper]:
    class ColumnDumper(Dumper):
        format = pq.Format.BINARY
        oid = array

        def dump(self, obj: Column) -> Buffer:
            values = obj.values
            if not values:
                return _HEAD(0, 0, item, 0, 0)[:12]
            parts = [_NULL if value is None else encode(value) for value in values]
            return _HEAD(1, None in values, item, len(values), 1) + b"".join(parts)

    return ColumnDumper
