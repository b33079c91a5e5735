"""Documents: strict DAG-CBOR both ways, and one CID for one document."""

from __future__ import annotations

import base64
import collections
import enum
import json
import math
import os
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from triggerflow.core.codec import (
    CID,
    Limits,
    cid_of,
    cid_of_block,
    decode_document,
    encode_document,
    encode_normalised,
    from_atproto_json,
    normalise,
    parse_json,
)
from triggerflow.core.codec import strict as strict_codec
from triggerflow.errors import DecodingRefused, EncodingRefused

DATA = Path(__file__).parents[2].parent / "shared" / "data"
RAW = "bafkreiccldh766hwcnuxnf2wh6jgzepf2nlu2lvcllt63eww5p6chi4ity"
LINK = CID.parse(RAW)


def data_file(name: str) -> Path:
    """Return a file of real input; without it a test is skipped, but never in CI."""
    path = DATA / name
    if not path.exists():
        if os.environ.get("CI") == "true":
            pytest.fail(f"{path} is missing")
        pytest.skip(f"{path} is missing")
    return path


texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
floats = st.floats(allow_nan=False, allow_infinity=False).filter(
    lambda x: x != 0 or math.copysign(1, x) > 0
)
scalars = (
    st.none()
    | st.booleans()
    | st.integers(-(2**64), 2**64 - 1)
    | floats
    | texts
    | st.binary(max_size=20)
    | st.binary(max_size=40).map(lambda b: CID(b"\x01\x55\x00" + bytes((len(b),)) + b))
    # Bytes that libipld takes for a link.
    | st.binary(min_size=32, max_size=32).map(lambda b: b"\x01\x71\x12\x20" + b)
)
documents = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(texts, inner, max_size=5),
    max_leaves=25,
)


def same(left: Any, right: Any) -> bool:
    """Tell equality that sees types: 1, 1.0 and True differ."""
    if type(left) is not type(right):
        return False
    if isinstance(left, dict):
        return left.keys() == right.keys() and all(same(left[k], right[k]) for k in left)
    if isinstance(left, list):
        return len(left) == len(right) and all(map(same, left, right))
    return bool(left == right)


def reordered(value: Any) -> Any:
    """Return the same document with all its keys put in the other way round."""
    if isinstance(value, dict):
        return {key: reordered(value[key]) for key in reversed(value)}
    if isinstance(value, list):
        return [reordered(item) for item in value]
    return value


# --- properties --------------------------------------------------------------------------


@given(documents)
def test_round_trip(doc: Any) -> None:
    """What is encoded comes back with the same values and types, and encodes the same."""
    data = encode_document(doc)
    back = decode_document(data)
    assert same(back, doc)
    assert encode_document(back) == data


@given(documents)
def test_two_roads_one_encoding(doc: Any) -> None:
    """The fast encoder and the plain one agree to the byte, and so do the decoders."""
    data = encode_document(doc)
    assert strict_codec.encode(doc, Limits()) == data
    assert same(strict_codec.decode(data, Limits(), "x"), decode_document(data))


@given(documents)
def test_key_order_never_counts(doc: Any) -> None:
    """A document with its keys in another order has the same CID."""
    assert cid_of(reordered(doc)) == cid_of(doc)


@given(documents)
def test_normalise_is_idempotent(doc: Any) -> None:
    """Normalising twice is normalising once, and never touches the original."""
    before = encode_document(doc)
    once = normalise(doc)
    assert same(normalise(once), once)
    assert encode_document(doc) == before
    assert encode_normalised(doc) == encode_document(once)
    assert cid_of(doc) == cid_of_block(encode_document(once))


@given(st.binary(max_size=60))
def test_any_bytes(data: bytes) -> None:
    """Random bytes are refused, or are exactly what encoding the result gives."""
    try:
        doc = decode_document(data)
    except DecodingRefused:
        return
    assert encode_document(doc) == data


@given(documents, st.data())
def test_damaged_blocks(doc: Any, data: st.DataObject) -> None:
    """A block with one byte changed is refused, or is the one block of another document."""
    block = bytearray(encode_document(doc))
    at = data.draw(st.integers(0, len(block) - 1))
    block[at] ^= data.draw(st.integers(1, 255))
    try:
        other = decode_document(bytes(block))
    except DecodingRefused:
        return
    assert encode_document(other) == bytes(block)


# --- other people's vectors --------------------------------------------------------------


def test_atproto_fixtures() -> None:
    """AT Protocol's fixtures give its bytes and its CIDs, and decode to the same model."""
    for fixture in json.loads(data_file("atproto-data-model-fixtures.json").read_bytes()):
        doc = from_atproto_json(fixture["json"])
        text = fixture["cbor_base64"]
        block = base64.b64decode(text + "=" * (-len(text) % 4))
        assert encode_document(doc) == block
        assert cid_of(doc) == cid_of_block(block) == fixture["cid"]
        assert same(decode_document(block), doc)


def test_atproto_valid() -> None:
    """AT Protocol's valid records have CIDs; integer-like floats are integers."""
    for case in json.loads(data_file("atproto-data-model-valid.json").read_bytes()):
        cid_of(from_atproto_json(parse_json(json.dumps(case["json"]))))
    assert cid_of({"a": 123.0}) == cid_of({"a": 123})


def test_github_documents() -> None:
    """Real webhooks survive the way out and back."""
    for line in data_file("github-webhooks.jsonl").read_bytes().splitlines():
        doc = parse_json(line)
        assert decode_document(encode_document(doc)) == doc


# --- malformed blocks --------------------------------------------------------------------

MALFORMED = {
    "empty": "",
    "two items": "0000",
    "trailing byte": "a000",
    "trailing break": "80ff",
    "break alone": "ff",
    "int in two bytes": "1800",
    "int 23 in two bytes": "1817",
    "int in three bytes": "1900ff",
    "int in five bytes": "1a0000ffff",
    "int in nine bytes": "1b00000000ffffffff",
    "negative in two bytes": "3800",
    "negative in three bytes": "3900ff",
    "negative in nine bytes": "3b00000000ffffffff",
    "text length in two bytes": "780161",
    "bytes length in two bytes": "580161",
    "list length in two bytes": "980100",
    "map length in two bytes": "b801616100",
    "text length in nine bytes": "7b000000000000000161",
    "indefinite bytes": "5f4161ff",
    "indefinite text": "7f6161ff",
    "indefinite list": "9f00ff",
    "indefinite map": "bf616100ff",
    "indefinite inside": "a161619f00ff",
    "reserved 28": "1c",
    "reserved 29": "3d00",
    "reserved 30": "5e",
    "reserved 31 of an int": "1f",
    "reserved tag": "df00",
    "half float": "f93c00",
    "half nan": "f97e00",
    "half infinity": "f97c00",
    "single float": "fa3fc00000",
    "single nan": "fa7fc00000",
    "nan": "fb7ff8000000000000",
    "nan with payload": "fb7ff0000000000001",
    "negative nan": "fbfff8000000000000",
    "infinity": "fb7ff0000000000000",
    "minus infinity": "fbfff0000000000000",
    "minus zero": "fb8000000000000000",
    "minus zero inside": "a16161fb8000000000000000",
    "undefined": "f7",
    "undefined inside": "81f7",
    "simple 0": "e0",
    "simple 19": "f3",
    "simple 32": "f820",
    "simple 255": "f8ff",
    "simple in two bytes": "f816",
    "false in two bytes": "f814",
    "duplicate key": "a2616101616102",
    "duplicate empty key": "a260006000",
    "keys out of order": "a2616201616102",
    "longer key first": "a262616101616202",
    "keys out of order inside": "81a2616201616102",
    "int key": "a10102",
    "bytes key": "a1416100",
    "null key": "a1f600",
    "list key": "a18000",
    "tagged key": "a1d82a45000155000000",
    "tag 0": "c06161",
    "tag 1": "c100",
    "tag 2": "c24101",
    "tag 3": "c34101",
    "tag 4": "c4820001",
    "tag 24": "d8184100",
    "tag 41": "d82980",
    "tag 43": "d82b4100",
    "tag 55799": "d9d9f700",
    "tag 42 in three bytes": "d9002a450001550000",
    "tag 42 in nine bytes": "db000000000000002a450001550000",
    "link of text": "d82a6100",
    "link of int": "d82a00",
    "link of list": "d82a80",
    "link empty": "d82a40",
    "link of zero byte only": "d82a4100",
    "link without zero byte": "d82a4401550000",
    "link with other multibase": "d82a450101550000",
    "link cut short": "d82a4400015500",
    "link too long": "d82a46000155000000",
    "link version 2": "d82a450002550000",
    "link with long varint": "d82a4600810055000000",
    "link of nothing": "d82a",
    "link twice tagged": "d82ad82a450001550000",
    "link in long bytes head": "d82a5805000155000000",
    "text cut short": "6261",
    "bytes cut short": "4261",
    "list cut short": "8200",
    "map cut short": "a16161",
    "map without value": "a2616100",
    "head cut short": "19",
    "float cut short": "fb00",
    "invalid utf-8": "61ff",
    "overlong utf-8": "62c080",
    "surrogate in utf-8": "63eda080",
    "beyond unicode": "64f4908080",
    "utf-8 cut": "61c3",
    "invalid utf-8 in key": "a161ff00",
    "bytes bomb": "5b1000000000000000",
    "text bomb": "7b1000000000000000",
    "list bomb": "9b1000000000000000",
    "map bomb": "bb1000000000000000",
    "list bomb 2**64-1": "9bffffffffffffffff",
    "map bomb 2**63": "bb8000000000000000",
    "list bomb 2**32": "9affffffff",
    "129 lists": "81" * 128 + "80",
    "129 maps": "a160" * 128 + "a0",
}


@pytest.mark.parametrize("vector", MALFORMED.values(), ids=MALFORMED.keys())
def test_malformed_blocks(vector: str) -> None:
    """Each thing that DAG-CBOR forbids is refused by both decoders, links present or not."""
    block = bytes.fromhex(vector)
    with pytest.raises(DecodingRefused, match="document"):
        decode_document(block)
    with pytest.raises(DecodingRefused):
        strict_codec.decode(block, Limits(), "document")
    if block:
        beside_a_link = b"\x82" + encode_document(LINK) + block
        with pytest.raises(DecodingRefused):
            decode_document(beside_a_link)


def test_errors_name_the_offset() -> None:
    """A refused block says at which byte it is wrong, and what."""
    with pytest.raises(DecodingRefused, match=r"reply: at byte 4: duplicate key 'a'"):
        decode_document(bytes.fromhex("a2616101616102"), what="reply")
    with pytest.raises(DecodingRefused, match="at byte 1: 1 more bytes"):
        decode_document(b"\x00\x00")


@pytest.mark.parametrize(
    "vector",
    ["00", "20", "40", "60", "80", "a0", "f4", "f5", "f6", "1bffffffffffffffff",
     "3bffffffffffffffff", "fb3ff8000000000000", "d82a450001550000", "81" * 127 + "80",
     "fb0000000000000000", "fb3ff0000000000000", "42d82a", "62d8aa"],
)  # fmt: skip
def test_well_formed_blocks(vector: str) -> None:
    """Any model value may stand at the top, and integral floats are left as they are."""
    block = bytes.fromhex(vector)
    assert encode_document(decode_document(block)) == block


def test_decoder_input() -> None:
    """Buffers are read like bytes; texts and numbers are refused."""
    assert decode_document(bytearray(b"\xa0")) == {}
    assert decode_document(memoryview(b"\xa0")) == {}
    for other in ("\xa0", None, 5):
        with pytest.raises(DecodingRefused, match="expected bytes"):
            decode_document(other)  # type: ignore[arg-type]


# --- values that aren't documents --------------------------------------------------------


class Text(str):
    __slots__ = ()


class Number(int):
    pass


class Ratio(float):
    pass


class Raw(bytes):
    pass


class Items(list):
    pass


class Fields(dict):
    pass


class Color(enum.IntEnum):
    RED = 1


class Mood(enum.StrEnum):
    GLAD = "glad"


Point = collections.namedtuple("Point", "x y")  # noqa: PYI024 - the untyped one

FOREIGN: dict[str, Any] = {
    "str subclass": Text("a"),
    "int subclass": Number(1),
    "float subclass": Ratio(1.5),
    "bytes subclass": Raw(b"a"),
    "list subclass": Items([1]),
    "dict subclass": Fields(a=1),
    "ordered dict": collections.OrderedDict(a=1),
    "int enum": Color.RED,
    "str enum": Mood.GLAD,
    "named tuple": Point(1, 2),
    "tuple": (1, 2),
    "set": {1},
    "frozenset": frozenset({1}),
    "bytearray": bytearray(b"a"),
    "memoryview": memoryview(b"a"),
    "nan": math.nan,
    "infinity": math.inf,
    "minus infinity": -math.inf,
    "too large": 2**64,
    "too small": -(2**64) - 1,
    "huge": 10**5000,
    "lone surrogate": "a\ud800",
    "lone surrogate in a key": {"\udfff": 1},
    "int key": {1: 1},
    "bytes key": {b"a": 1},
    "none key": {None: 1},
    "tuple key": {(1,): 1},
    "str subclass key": {Text("a"): 1},
    "object": object(),
    "function": len,
    "type": int,
    "ellipsis": ...,
    "complex": 1j,
    "generator": (x for x in ()),
    "mixed keys": {"a": 1, 2: 2},
}


@pytest.mark.parametrize("value", FOREIGN.values(), ids=FOREIGN.keys())
@pytest.mark.parametrize("beside", [None, b"bytes"], ids=["plain", "bytes beside"])
def test_foreign_values(value: Any, beside: Any) -> None:
    """A value outside the model is refused at its place by all that take documents."""
    doc = {"items": [0, {"when": value, "beside": beside}]}
    for refuse in (encode_document, encode_normalised, cid_of):
        with pytest.raises(EncodingRefused) as caught:
            refuse(doc, what="input")
        assert caught.value.path == "input.items[1].when"
        with pytest.raises(EncodingRefused):
            refuse(value)


# Ranges and texts are left to the encoder; types never are.
LATER = {"too large", "too small", "huge", "lone surrogate", "lone surrogate in a key"}


@pytest.mark.parametrize("name", sorted(FOREIGN.keys() - LATER))
def test_normalise_refuses_foreign_values(name: str) -> None:
    """Normalising never copies what isn't of the model."""
    with pytest.raises(EncodingRefused) as caught:
        normalise({"a": [FOREIGN[name]]})
    assert caught.value.path == "document.a[0]"


def test_paths() -> None:
    """Odd keys are quoted, so that a path can be read and used."""
    with pytest.raises(EncodingRefused) as caught:
        encode_document({"a": {'odd "key"\n': [{"3": {"_x": {}}}, (1,)]}})
    assert caught.value.path == 'document.a["odd \\"key\\"\\n"][1]'
    assert "turn it into a list" in str(caught.value)
    with pytest.raises(EncodingRefused) as caught:
        encode_document({"": {"3": {"": {"\ud800": 1}}}})
    assert caught.value.path == 'document[""]["3"][""]'


@pytest.mark.parametrize("zero", [-0.0, [-0.0], {"a": -0.0}, [b"", -0.0]])
def test_minus_zero(zero: Any) -> None:
    """-0.0 has no encoding; normalising makes it 0."""
    with pytest.raises(EncodingRefused, match=r"-0\.0"):
        encode_document(zero)
    assert cid_of(zero) == cid_of(normalise(zero))
    assert same(normalise(-0.0), 0)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (1.0, 1),
        (-1.0, -1),
        (0.0, 0),
        (2.0**53 - 1, 2**53 - 1),
        (-(2.0**53) + 1, -(2**53) + 1),
        (2.0**53, 2.0**53),
        (-(2.0**53), -(2.0**53)),
        (1e300, 1e300),
        (0.5, 0.5),
        (True, True),
        ([1.0, {"a": 2.0}], [1, {"a": 2}]),
    ],
)
def test_normalise(value: Any, expected: Any) -> None:
    """Integral floats within 2**53 - 1 become integers, others stay."""
    assert same(normalise(value), expected)


def test_normalise_shares_nothing() -> None:
    """Changing the original after normalising can't change the copy."""
    inner: list[Any] = [1, {"a": [b"x", LINK]}]
    doc = {"list": inner, "again": inner}
    copied = normalise(doc)
    inner[1]["a"].append(2)
    inner.append(3)
    assert copied == {"list": [1, {"a": [b"x", LINK]}], "again": [1, {"a": [b"x", LINK]}]}
    assert copied["list"] is not copied["again"]


# --- links and bytes ---------------------------------------------------------------------

LOOK_ALIKES = [
    bytes(LINK),
    b"\0" + bytes(LINK),
    b"\x12\x20" + bytes(32),
    b"\x01\x55\0\0",
    b"\xd8\x2a",
    encode_document(LINK),
    RAW.encode(),
]


@pytest.mark.parametrize("raw", LOOK_ALIKES)
def test_bytes_that_look_like_a_link(raw: bytes) -> None:
    """Bytes stay bytes, even those that are a binary CID; links stay links."""
    for doc in (raw, {"a": raw}, [raw, LINK], {"a": LINK, "b": [raw]}):
        back = decode_document(encode_document(doc))
        assert same(back, doc)
    assert encode_document(bytes(LINK)) != encode_document(LINK)
    assert cid_of([bytes(LINK)]) != cid_of([LINK])


def test_text_that_looks_like_a_link() -> None:
    """The two bytes of a link's tag may stand inside other things."""
    doc = {"\u062a": ["\u0600\u062a*", b"\xd8\x2a\xd8\x2a"], "n": 0xD82A, "f": -1.5}
    assert same(decode_document(encode_document(doc)), doc)


# --- bombs -------------------------------------------------------------------------------


def nested(levels: int, *, maps: bool) -> Any:
    """Build lists or dicts inside one another, without recursion."""
    value: Any = {} if maps else []
    for _ in range(levels - 1):
        value = {"a": value} if maps else [value]
    return value


@pytest.mark.parametrize("maps", [False, True])
@pytest.mark.parametrize("beside", [[], [b"x"]])
def test_depth_limit(maps: bool, beside: list[Any]) -> None:
    """128 levels are the last to pass; 100,000 are an error like any other."""
    doc = [*beside, nested(127, maps=maps)]
    assert decode_document(encode_document(doc)) == doc
    assert cid_of(doc)
    for levels in (128, 1000, 100_000):
        doc = [*beside, nested(levels, maps=maps)]
        for refuse in (encode_document, encode_normalised, normalise, cid_of):
            with pytest.raises(EncodingRefused, match="128 levels"):
                refuse(doc)


@pytest.mark.parametrize("head", [b"\x81", b"\xa1\x60"])
@pytest.mark.parametrize("links", [b"", b"\x82\xd8\x2a\x45\0\x01\x55\0\0"])
def test_deep_blocks(head: bytes, links: bytes) -> None:
    """A block of 100,000 levels is refused, not run into."""
    for levels in (200, 1000, 100_000):
        with pytest.raises(DecodingRefused):
            decode_document(links + head * levels + b"\x80")


def test_recursion_limit_is_no_matter() -> None:
    """Deep blocks are refused also where someone has raised the recursion limit."""
    before = sys.getrecursionlimit()
    sys.setrecursionlimit(10**6)
    try:
        for block in (b"\x81" * 500_000, b"\xa1\x60" * 500_000):
            with pytest.raises(DecodingRefused, match="128 levels"):
                decode_document(block)
    finally:
        sys.setrecursionlimit(before)


def test_texts_full_of_high_bytes() -> None:
    """Text that isn't ASCII is no nesting, however long."""
    doc = {"\u65e5": ["\u672c" * 5000, [[]] * 300]}
    assert decode_document(encode_document(doc)) == doc


def test_cycles() -> None:
    """A structure that contains itself is refused as too deep."""
    items: list[Any] = []
    items.append(items)
    fields: dict[str, Any] = {}
    fields["me"] = [b"", fields]
    for doc in (items, fields):
        for refuse in (encode_document, normalise, cid_of):
            with pytest.raises(EncodingRefused):
                refuse(doc)


def test_size_limits_are_cheap() -> None:
    """Large values are refused before anything of their size is built."""
    large = "x" * 10_000_000
    wide = ["y" * 1_000_000] * 100_000
    laughs: Any = ["lol"]
    for _ in range(40):
        laughs = [laughs] * 10
    many = [0] * 5_000_000
    keys = [{"k" * 1_000_000: 1}] * 100_000
    for doc in (large, [large], {"a": large}, {large: 1}, wide, laughs, many, keys):
        for beside in (None, b""):
            begun = time.process_time()
            with pytest.raises(EncodingRefused):
                encode_document([beside, doc])
            with pytest.raises(EncodingRefused):
                cid_of([beside, doc])
            assert time.process_time() - begun < 2
    with pytest.raises(EncodingRefused, match="10,000,000 characters"):
        encode_document(large)


def test_size_limit_is_exact() -> None:
    """The limit counts encoded bytes, both ways."""
    limits = Limits(size=100)
    for doc in ("x" * 98, "\u00e9" * 49, b"x" * 98, [b"x" * 97], [0] * 98):
        data = encode_document(doc, limits=limits)
        assert len(data) == 100
        assert decode_document(data, limits=limits) == doc
    for doc in ("x" * 99, "\u00e9" * 50, b"x" * 99, [b"x" * 98], [0] * 99):
        with pytest.raises(EncodingRefused, match="at most 100 bytes"):
            encode_document(doc, limits=limits)
        with pytest.raises(DecodingRefused, match="the limit is 100"):
            decode_document(encode_document(doc), limits=limits)


def test_limits_have_limits() -> None:
    """A depth that native code can't bear can't be configured."""
    for wrong in ({"depth": 0}, {"depth": 10_000}, {"size": 0}):
        with pytest.raises(ValueError, match="must be"):
            Limits(**wrong)


def test_errors_are_for_people() -> None:
    """A refusal says where, what was found, what is expected and what to do."""
    with pytest.raises(EncodingRefused) as caught:
        encode_document({"tags": {"a", "b"}}, what="activity")
    assert str(caught.value) == (
        "activity.tags: found set, expected None, bool, int, float, str, bytes, list, dict "
        "or CID; sort it into a list"
    )
