"""
CIDs: the names of documents, made from their own bytes.

A block's CID is CIDv1, codec ``dag-cbor``, sha2-256, in lower base32 (``bafyrei...``).
Links *inside* documents may name anything, so `CID` reads the other forms too, each of
them strictly: one link has one binary form here, and `str` gives it one text.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from typing import Final

import attrs

from triggerflow.errors import DecodingRefused

_BASE32: Final = "abcdefghijklmnopqrstuvwxyz234567"
_BASE58: Final = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"
# 15 bits become three characters at once: base64.b32encode takes three times as long.
_TRIPLES: Final = [a + b + c for a in _BASE32 for b in _BASE32 for c in _BASE32]

# Links in the wild have 36 bytes; "identity" ones hold their content. The bound keeps
# base58, which is quadratic, from being fed a megabyte.
_LONGEST: Final = 4096


def _refused(problem: str, remedy: str = "") -> DecodingRefused:
    return DecodingRefused("CID", problem, remedy)


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """Read one unsigned varint; the multiformats spec allows 9 bytes, shortest form."""
    value = shift = 0
    for end in range(at, min(at + 9, len(data))):
        byte = data[end]
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            if byte == 0 and end > at:
                raise _refused(f"the number at byte {at} is not in its shortest form")
            return value, end + 1
        shift += 7
    raise _refused(f"the number at byte {at} has no end")


def _check(data: bytes) -> None:
    if type(data) is not bytes:
        raise _refused(f"found {type(data).__name__}, expected bytes")
    if len(data) > _LONGEST:
        raise _refused(f"{len(data)} bytes are too long, the limit is {_LONGEST}")
    if data[:2] == b"\x12\x20":  # version 0: a bare sha2-256 multihash
        if len(data) != 34:
            raise _refused(f"version 0 takes 34 bytes, found {len(data)}")
        return
    version, at = _varint(data, 0)
    if version != 1:
        raise _refused(f"version {version} is not known")
    _, at = _varint(data, at)
    _, at = _varint(data, at)
    length, at = _varint(data, at)
    if len(data) - at != length:
        raise _refused(f"the digest should have {length} bytes, found {len(data) - at}")


@attrs.frozen(repr=False, order=False)
class CID:
    """
    A link to a block, in binary form; immutable and hashable, equal by its bytes.

    It guarantees that the bytes are one well-formed CID of version 0 or 1. It does not
    promise that the codec or the hash function is one that triggerflow can use.

    Args:
        binary: the CID's bytes, without multibase prefix and without the zero byte that
            DAG-CBOR puts before it.

    Raises:
        DecodingRefused: the bytes are not one CID.
    """

    _binary: bytes = attrs.field()

    def __attrs_post_init__(self) -> None:
        _check(self._binary)

    @classmethod
    def from_bytes(cls, data: bytes) -> CID:
        """
        Read a CID in binary form.

        Raises:
            DecodingRefused: the bytes are not one CID.
        """
        return cls(data)

    @classmethod
    def parse(cls, text: str) -> CID:
        """
        Read a CID's text: ``b`` base32, ``z`` base58, ``f`` base16, or version 0 (``Qm``).

        Raises:
            DecodingRefused: the text is not one CID, or not in its one canonical spelling.
        """
        if type(text) is not str:
            raise _refused(f"found {type(text).__name__}, expected str")
        if len(text) > 2 * _LONGEST:
            raise _refused(f"{len(text)} characters are too long")
        if len(text) == 46 and text.startswith("Qm"):
            return cls(_from_base58(text))
        prefix, rest = text[:1], text[1:]
        try:
            if prefix == "b":
                binary = _from_base32(rest)
            elif prefix == "z":
                binary = _from_base58(rest)
            elif prefix == "f" and rest == rest.lower():
                binary = binascii.unhexlify(rest)
            else:
                raise _refused(
                    f"{text[:80]!r} does not start like a CID",
                    "base32 (b...), base58 (z... or Qm...) and base16 (f...) are read",
                )
        except ValueError:  # binascii.Error and UnicodeError are ValueErrors too
            raise _refused(f"{text[:80]!r} is not well-formed in its base") from None
        if binary[:1] == b"\x12":
            raise _refused("version 0 takes no multibase prefix")
        return cls(binary)

    def __bytes__(self) -> bytes:
        return self._binary

    def __str__(self) -> str:
        if self._binary[0] == 0x12:
            return _to_base58(self._binary)
        return "b" + _to_base32(self._binary)

    def __repr__(self) -> str:
        return f"CID.parse({str(self)!r})"


def cid_of_block(data: bytes) -> str:
    """
    Return the CID of a DAG-CBOR block as text; the bytes are hashed as they are.

    To name a *document* use `triggerflow.core.codec.cid_of`, which normalises it first.
    """
    # "bafyrei" holds version, codec, hash and length but for two zero bits; they and the
    # digest are 258 bits. Twelve more make 18 triples, of which two characters are padding.
    number = int.from_bytes(hashlib.sha256(data).digest(), "big") << 12
    text = f"bafyrei{_TRIPLES[number >> 255]}{_TRIPLES[number >> 240 & 32767]}"
    for shift in (180, 120, 60, 0):
        word = number >> shift & 0xFFFFFFFFFFFFFFF
        text += (
            f"{_TRIPLES[word >> 45]}{_TRIPLES[word >> 30 & 32767]}"
            f"{_TRIPLES[word >> 15 & 32767]}{_TRIPLES[word & 32767]}"
        )
    return text[:-2]


def _to_base32(data: bytes) -> str:
    return base64.b32encode(data).decode("ascii").rstrip("=").lower()


def _from_base32(text: str) -> bytes:
    if text != text.lower():
        raise ValueError
    data = base64.b32decode(text.upper() + "=" * (-len(text) % 8))
    # b32decode ignores left-over bits, which would give one CID several spellings.
    if _to_base32(data) != text:
        raise ValueError
    return data


def _to_base58(data: bytes) -> str:
    number, text = int.from_bytes(data, "big"), ""
    while number:
        number, digit = divmod(number, 58)
        text = _BASE58[digit] + text
    return "1" * (len(data) - len(data.lstrip(b"\0"))) + text


def _from_base58(text: str) -> bytes:
    number = 0
    for character in text:
        digit = _BASE58.find(character)
        if digit < 0:
            raise _refused(f"{character!r} is not a base58 digit")
        number = number * 58 + digit
    zeros = len(text) - len(text.lstrip("1"))
    return b"\0" * zeros + number.to_bytes((number.bit_length() + 7) // 8, "big")
