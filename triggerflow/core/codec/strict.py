"""
DAG-CBOR in plain Python: slow, exact, and the word that counts when there is doubt.

libipld is twenty times faster, but it writes bytes that look like a CID as a link, reads
a link as bytes, and says little about what is wrong. What holds bytes or links, and what
it refuses, comes here: this encoder knows the path, this decoder the offset. The rules
are those of ipld/ipld's DAG-CBOR specification, strict in both directions.
"""

from __future__ import annotations

import math
import struct
from typing import Any, Final

from triggerflow.core.cid import CID
from triggerflow.core.codec.walk import (
    Limits,
    Refusal,
    not_utf8,
    too_deep,
    too_large,
    wrong_key,
)
from triggerflow.errors import DecodingRefused

_DOUBLE: Final = struct.Struct(">d")
_EXPECTED: Final = "None, bool, int, float, str, bytes, list, dict or CID"
_REMEDIES: Final[dict[str, str]] = {
    "tuple": "turn it into a list",
    "set": "sort it into a list",
    "frozenset": "sort it into a list",
    "bytearray": "turn it into bytes",
    "memoryview": "turn it into bytes",
    "datetime": "write it as text, such as value.isoformat()",
    "date": "write it as text, such as value.isoformat()",
    "Decimal": "write it as text",
    "UUID": "write it as text",
}


def wrong_type(value: object, expected: str, remedies: dict[str, str]) -> Refusal:
    """Word the refusal of a value whose exact type is outside a model."""
    kind = type(value)
    name = kind.__qualname__
    for base in (bool, int, float, str, bytes, list, tuple, dict):
        if issubclass(kind, base):
            plain = base.__name__
            remedy = (
                remedies.get(name) or remedies.get(plain) or f"turn it into a plain {plain}"
            )
            if kind is not base:
                name = f"{name}, a subclass of {plain}"
            return Refusal(name, expected, remedy)
    return Refusal(name, expected, remedies.get(name, ""))


def wrong_float(value: float) -> Refusal | None:
    """Return a refusal for the floats that DAG-CBOR has no form for."""
    if not math.isfinite(value):
        return Refusal(repr(value), "a finite number", "write None, or a text that says why")
    if value == 0.0 and math.copysign(1.0, value) < 0:
        return Refusal("-0.0", "0.0 or 0", "normalise the document first")
    return None


def _head(major: int, argument: int) -> bytes:
    if argument < 24:
        return bytes((major << 5 | argument,))
    if argument < 0x100:
        return bytes((major << 5 | 24, argument))
    if argument < 0x10000:
        return struct.pack(">BH", major << 5 | 25, argument)
    if argument < 0x100000000:
        return struct.pack(">BI", major << 5 | 26, argument)
    return struct.pack(">BQ", major << 5 | 27, argument)


def encode(value: object, limits: Limits) -> bytes:
    """
    Encode a model value as one DAG-CBOR block.

    Raises:
        Refusal: it is outside the model or the limits; its steps lead to the place.
    """
    out = bytearray()
    _write(value, out, limits, limits.depth)
    return bytes(out)


def _text(value: str, limits: Limits) -> bytes:
    if len(value) > limits.size:
        raise too_large(limits, f"a text of {len(value):,} characters")
    refusal = not_utf8(value)
    if refusal is not None:
        raise refusal
    return value.encode()


def _write(value: Any, out: bytearray, limits: Limits, depth: int) -> None:
    kind = type(value)
    if kind is str:
        text = _text(value, limits)
        out += _head(3, len(text)) + text
    elif kind is dict:
        if depth == 0:
            raise too_deep(limits)
        _write_map(value, out, limits, depth - 1)
    elif kind is list:
        if depth == 0:
            raise too_deep(limits)
        out += _head(4, len(value))
        for index, item in enumerate(value):
            try:
                _write(item, out, limits, depth - 1)
            except Refusal as refusal:
                refusal.steps.append(index)
                raise
    elif value is None:
        out.append(0xF6)
    elif kind is bool:
        out.append(0xF5 if value else 0xF4)
    elif kind is int:
        if not -(2**64) <= value < 2**64:
            raise Refusal(
                f"an integer of {value.bit_length()} bits",
                "an integer from -2**64 to 2**64 - 1",
                "write it as text",
            )
        out += _head(0, value) if value >= 0 else _head(1, -1 - value)
    elif kind is float:
        wrong = wrong_float(value)
        if wrong is not None:
            raise wrong
        out.append(0xFB)
        out += _DOUBLE.pack(value)
    elif kind is bytes:
        if len(value) > limits.size:
            raise too_large(limits, f"{len(value):,} bytes")
        out += _head(2, len(value)) + value
    elif kind is CID:
        link = b"\0" + bytes(value)
        out += b"\xd8\x2a" + _head(2, len(link)) + link
    else:
        raise wrong_type(value, _EXPECTED, _REMEDIES)
    if len(out) > limits.size:
        raise too_large(limits)


def _write_map(value: dict[Any, Any], out: bytearray, limits: Limits, depth: int) -> None:
    keys: list[tuple[int, bytes, str]] = []
    for key in value:
        if type(key) is not str:
            raise wrong_key(key)
        try:
            text = _text(key, limits)
        except Refusal as refusal:
            refusal.found += " of a key"
            raise
        keys.append((len(text), text, key))
    out += _head(5, len(keys))
    for length, text, key in sorted(keys):
        out += _head(3, length) + text
        try:
            _write(value[key], out, limits, depth)
        except Refusal as refusal:
            refusal.steps.append(key)
            raise


# --- bytes to values ---------------------------------------------------------------------

_SHORTEST: Final = {24: 24, 25: 0x100, 26: 0x10000, 27: 0x100000000}
_WIDTHS: Final = {24: 1, 25: 2, 26: 4, 27: 8}


def decode(data: bytes, limits: Limits, what: str) -> Any:
    """
    Decode one DAG-CBOR block; whatever DAG-CBOR forbids is refused.

    Raises:
        DecodingRefused: with the offset of what is wrong.
    """
    if not data:
        raise DecodingRefused(what, "no bytes at all, expected one DAG-CBOR block")
    reader = _Reader(data, limits, what)
    value = reader.read(limits.depth)
    if reader.at != len(data):
        raise reader.refused(reader.at, f"{len(data) - reader.at} more bytes after the end")
    return value


class _Reader:
    """One pass over one block; `at` is the offset of the next byte."""

    __slots__ = ("at", "data", "limits", "what")

    def __init__(self, data: bytes, limits: Limits, what: str) -> None:
        self.data, self.limits, self.what = data, limits, what
        self.at = 0

    def refused(self, at: int, problem: str) -> DecodingRefused:
        return DecodingRefused(self.what, f"at byte {at}: {problem}")

    def take(self, length: int) -> bytes:
        """Return the next bytes; a length beyond the end is refused, never allocated."""
        end = self.at + length
        if end > len(self.data):
            left = len(self.data) - self.at
            raise self.refused(self.at, f"{length} bytes are announced, {left} are left")
        taken = self.data[self.at : end]
        self.at = end
        return taken

    def head(self) -> tuple[int, int, int]:
        """Read a head: major type, additional information, argument in shortest form."""
        start = self.at
        byte = self.take(1)[0]
        major, info = byte >> 5, byte & 31
        if info < 24:
            return major, info, info
        if info == 31:
            raise self.refused(start, "indefinite lengths and breaks are not allowed")
        if info > 27:
            raise self.refused(start, f"additional information {info} is reserved")
        argument = int.from_bytes(self.take(_WIDTHS[info]), "big")
        if major != 7 and argument < _SHORTEST[info]:
            raise self.refused(start, "an integer or length is not in its shortest form")
        return major, info, argument

    def read(self, depth: int) -> Any:
        start = self.at
        major, info, argument = self.head()
        if major == 0:
            return argument
        if major == 1:
            return -1 - argument
        if major == 2:
            return self.take(argument)
        if major == 3:
            return self.text(argument)
        if major == 7:
            return self.simple(start, info, argument)
        if major == 6:
            return self.link(start, argument)
        if depth == 0:
            raise self.refused(start, f"more than {self.limits.depth} levels of nesting")
        # Each item takes a byte at least, so a count beyond the end is a lie.
        if argument * (major - 3) > len(self.data) - self.at:
            raise self.refused(start, f"{argument} items are announced, more than can follow")
        if major == 4:
            return [self.read(depth - 1) for _ in range(argument)]
        return self.map(argument, depth - 1)

    def map(self, length: int, depth: int) -> dict[str, Any]:
        result: dict[str, Any] = {}
        last: tuple[int, bytes] = (-1, b"")
        for _ in range(length):
            start = self.at
            major, _, size = self.head()
            if major != 3:
                raise self.refused(start, "a map key is not text")
            key = self.text(size)
            order = (size, self.data[self.at - size : self.at])
            if order == last:
                raise self.refused(start, f"duplicate key {key[:60]!r}")
            if order < last:
                raise self.refused(
                    start, f"key {key[:60]!r} is out of order (shorter first, then bytewise)"
                )
            last = order
            result[key] = self.read(depth)
        return result

    def text(self, length: int) -> str:
        start = self.at
        try:
            return self.take(length).decode()
        except UnicodeDecodeError as error:
            raise self.refused(start + error.start, "invalid UTF-8") from None

    def simple(self, start: int, info: int, argument: int) -> bool | float | None:
        if info == 27:
            value: float = _DOUBLE.unpack(argument.to_bytes(8, "big"))[0]
            wrong = wrong_float(value)
            if wrong is not None:
                raise self.refused(start, f"{wrong.found} is not allowed")
            return value
        if info in (25, 26):
            raise self.refused(start, "a float of fewer than 64 bits")
        if info in (20, 21):
            return info == 21
        if info == 22:
            return None
        name = "undefined" if info == 23 else f"simple value {argument}"
        raise self.refused(start, f"{name} is not allowed")

    def link(self, start: int, tag: int) -> CID:
        if tag != 42:
            raise self.refused(start, f"tag {tag} is not allowed, only 42 (a link)")
        major, _, length = self.head()
        if major != 2:
            raise self.refused(start, "a link must hold bytes")
        link = self.take(length)
        if link[:1] != b"\0":
            raise self.refused(start, "a link must begin with a zero byte")
        try:
            return CID(link[1:])
        except DecodingRefused as error:
            raise self.refused(start, f"not a CID: {error.problem}") from None
