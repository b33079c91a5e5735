"""CIDs: one link, one binary form, one text."""

from __future__ import annotations

import base64
import copy
import hashlib
import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from triggerflow.core.cid import CID, cid_of_block
from triggerflow.errors import DecodingRefused

EMPTY_MAP = "bafyreigbtj4x7ip5legnfznufuopl4sg4knzc2cof6duas4b3q2fy6swua"
V0 = "QmdfTbBqBPQ7VNxZEYEj14VmRuZBkqFbiwReogJgS1zR1n"
RAW = "bafkreiccldh766hwcnuxnf2wh6jgzepf2nlu2lvcllt63eww5p6chi4ity"


def test_empty_map() -> None:
    """The CID of the empty map is the one that every implementation knows."""
    assert cid_of_block(b"\xa0") == EMPTY_MAP


@given(st.binary(max_size=200))
def test_block_cid_is_the_plain_recipe(block: bytes) -> None:
    """The fast path gives what version, codec, hash and RFC 4648 base32 give."""
    binary = b"\x01\x71\x12\x20" + hashlib.sha256(block).digest()
    text = "b" + base64.b32encode(binary).decode().rstrip("=").lower()
    assert cid_of_block(block) == text
    assert str(CID.parse(text)) == text
    assert bytes(CID.parse(text)) == binary


@pytest.mark.parametrize("text", [EMPTY_MAP, V0, RAW, "bafkqaaa"])
def test_text_round_trip(text: str) -> None:
    """A canonical text comes back as it was, and so do its bytes."""
    link = CID.parse(text)
    assert str(link) == text
    assert CID.from_bytes(bytes(link)) == link
    assert repr(link) == f"CID.parse({text!r})"


@pytest.mark.parametrize("prefix", ["z", "f"])
def test_other_bases_give_the_same_link(prefix: str) -> None:
    """Base58 and base16 spell the same link, which is shown in base32."""
    binary = bytes(CID.parse(RAW))
    spelled = binary.hex()
    if prefix == "z":
        digits = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"
        number, spelled = int.from_bytes(binary, "big"), ""
        while number:
            number, digit = divmod(number, 58)
            spelled = digits[digit] + spelled
    assert str(CID.parse(prefix + spelled)) == RAW


@pytest.mark.parametrize(
    "text",
    [
        "",
        ".",
        "b",
        "z",
        "f",
        "bafyrei",
        EMPTY_MAP[:-1],
        EMPTY_MAP + "a",
        EMPTY_MAP.upper(),
        "b" + EMPTY_MAP[1:].upper(),
        EMPTY_MAP + "=",
        EMPTY_MAP[:-1] + "b",  # left-over bits
        " " + EMPTY_MAP,
        EMPTY_MAP + "\n",
        V0[:-1],
        "Qm" + "0" * 44,
        "z" + V0,
        "f0171122",
        "f01551",
        "F01550000",
        "f0155000",
        "f01ABCD00",
        "b\u0131",
        "\ud800",
        "x" * 100_000,
        "z" + "2" * 100_000,
        "uAXASIA",
    ],
    ids=lambda text: ascii(text[:24]),
)
def test_refused_texts(text: str) -> None:
    """What is not one canonical CID is refused, whatever its size."""
    with pytest.raises(DecodingRefused, match="CID"):
        CID.parse(text)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\0",
        b"\x01",
        b"\x01\x71",
        b"\x01\x71\x12\x20" + bytes(31),
        b"\x01\x71\x12\x20" + bytes(33),
        b"\x02\x71\x12\x20" + bytes(32),
        b"\0\x01\x71\x12\x20" + bytes(32),
        b"\x81\0\x71\x12\x20" + bytes(32),  # a version in two bytes
        b"\x12\x20" + bytes(31),
        b"\x12\x20" + bytes(33),
        b"\x80" * 40,
        b"\x01\x71\x12\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",
        b"\x01\x55\0\xff\xff\x7f" + bytes(70_000),
    ],
)
def test_refused_bytes(data: bytes) -> None:
    """Bytes that aren't exactly one CID are refused."""
    with pytest.raises(DecodingRefused):
        CID.from_bytes(data)


@pytest.mark.parametrize("other", [None, 1, "x", bytearray(b"\x01\x55\0\0")])
def test_other_types(other: object) -> None:
    """Only bytes and text are read, by their exact type."""
    with pytest.raises(DecodingRefused):
        CID.from_bytes(other)  # type: ignore[arg-type]
    if not isinstance(other, str):
        with pytest.raises(DecodingRefused):
            CID.parse(other)  # type: ignore[arg-type]


def test_a_cid_is_a_value() -> None:
    """CIDs are equal by content, hashable, immutable, and survive pickle and copy."""
    first, second = CID.parse(RAW), CID.parse(RAW)
    assert first == second
    assert hash(first) == hash(second)
    assert first != CID.parse(EMPTY_MAP)
    assert first != RAW
    assert first != bytes(first)
    assert len({first, second}) == 1
    assert pickle.loads(pickle.dumps(first)) == first
    assert copy.deepcopy(first) == first
    with pytest.raises(AttributeError):
        first._binary = b""  # type: ignore[misc]
    with pytest.raises(AttributeError):
        first.other = 1  # type: ignore[attr-defined]
