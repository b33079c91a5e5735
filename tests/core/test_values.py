"""Log values: a closed set, safe both ways, with digests that never change."""

from __future__ import annotations

import collections
import copy
import dataclasses
import enum
import math
import os
import subprocess
import sys
import threading
import time
from datetime import UTC, date, datetime, timedelta, timezone
from datetime import time as clock_time
from decimal import Decimal
from fractions import Fraction
from typing import Any, Optional
from uuid import UUID
from zoneinfo import ZoneInfo

import attrs
import cbor2
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from triggerflow.core.codec import CID, Limits, ValueCodec, list_of
from triggerflow.errors import DecodingRefused, DefinitionError, EncodingRefused

LINK = CID.parse("bafkreiccldh766hwcnuxnf2wh6jgzepf2nlu2lvcllt63eww5p6chi4ity")
CODEC = ValueCodec()

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
zones = st.integers(-1439, 1439).map(lambda m: timezone(timedelta(minutes=m)))
scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.integers(-(2**2048), 2**2048)
    | st.floats()
    | texts
    | st.binary(max_size=40)
    | st.datetimes(timezones=zones).map(lambda t: t.replace(fold=0))
    | st.dates()
    | st.timedeltas()
    | st.decimals()
    | st.uuids()
    | st.just(LINK)
)
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(texts, inner, max_size=5),
    max_leaves=25,
)


def same(left: Any, right: Any) -> bool:
    """Tell equality to the last bit: types, NaN, signs of zero, exponents, offsets."""
    if type(left) is not type(right):
        return False
    if isinstance(left, dict):
        return list(left) == list(right) and all(same(left[k], right[k]) for k in left)
    if isinstance(left, list):
        return len(left) == len(right) and all(map(same, left, right))
    if isinstance(left, (float, Decimal, datetime)):
        return repr(left) == repr(right)
    return bool(left == right)


def shuffled(value: Any) -> Any:
    """Return the value with all keys the other way round, and lists as tuples."""
    if isinstance(value, dict):
        return {key: shuffled(value[key]) for key in reversed(value)}
    if isinstance(value, list):
        return tuple(map(shuffled, value))
    return value


# --- round trips -------------------------------------------------------------------------


@given(values)
def test_round_trip(value: Any) -> None:
    """What is encoded comes back the same to the last bit, dict order included."""
    data = CODEC.encode(value)
    assert same(CODEC.decode(data), value)
    assert CODEC.encode(CODEC.decode(data)) == data
    assert same(CODEC.copy(value), value)


@given(values)
def test_plain_values_need_no_copy(value: Any) -> None:
    """What is_plain says yes to is immutable and comes back the same."""
    if CODEC.is_plain(value):
        assert CODEC.copy(value) is value
        assert same(CODEC.decode(CODEC.encode(value)), value)
        assert copy.deepcopy(value) is value or not isinstance(value, (list, dict))


def test_what_is_plain() -> None:
    """Scalars are plain; containers, zones and what encode refuses are not."""
    now, day = datetime(2026, 11, 22, 4, tzinfo=UTC), date(2026, 11, 22)
    plain = (None, True, 1, 2**100, 1.5, math.nan, "a", "\u00e9", b"a", LINK, now, day)
    for value in (*plain, timedelta(1), Decimal(1), UUID(int=1)):
        assert CODEC.is_plain(value)
    moments = (now.replace(tzinfo=None), now.astimezone(ZoneInfo("Europe/Berlin")))
    others = ([], {}, (), (1,), "\ud800", 2**5000, set(), object(), bytearray(), Point(1, 2))
    for other in (*moments, *others):
        assert not CODEC.is_plain(other)


def test_tuples_become_lists() -> None:
    """A tuple comes back as a list, at any depth, also beside rarer types."""
    assert CODEC.copy((1, (2, [3, ()]))) == [1, [2, [3, []]]]
    assert CODEC.copy({"a": (1, (Decimal(1),))}) == {"a": [1, [Decimal(1)]]}


def test_copy_shares_nothing() -> None:
    """Changing the original can't change the copy."""
    inner = [1]
    copied = CODEC.copy({"a": inner})
    inner.append(2)
    assert copied == {"a": [1]}


@pytest.mark.parametrize("zone", ["Europe/Berlin", "America/New_York", "Asia/Kathmandu", "UTC"])
def test_zones_come_back_as_offsets(zone: str) -> None:
    """A datetime of a zone comes back aware and equal."""
    for month in (1, 7):
        value = datetime(2026, month, 1, 12, 30, 5, 123456, tzinfo=ZoneInfo(zone))
        back = CODEC.copy(value)
        assert back == value
        assert back.utcoffset() == value.utcoffset()
    old = datetime(1880, 1, 1, tzinfo=ZoneInfo("Europe/Berlin"))  # an offset with seconds
    assert CODEC.copy(old) == old


def test_repeated_hours_are_refused() -> None:
    """An hour that a zone has twice could not come back equal, so it needs an offset."""
    value = datetime(2026, 10, 25, 2, 30, tzinfo=ZoneInfo("Europe/Berlin"))
    with pytest.raises(EncodingRefused, match=r"astimezone\(datetime.UTC\)"):
        CODEC.encode(value)
    assert CODEC.copy(value.astimezone(UTC)) == value.astimezone(UTC)


@pytest.mark.parametrize("bits", [64, 65, 2048, 4096])
def test_wide_integers(bits: int) -> None:
    """Integers of up to 4,096 bits are values, wider ones are refused at their place."""
    for number in (2**bits - 1, -(2**bits) + 1):
        assert CODEC.copy([number]) == [number]
    for number in (2**4096, -(2**4096), 10**100_000):
        for value in (number, [number], {"a": (number, Decimal(1))}):
            with pytest.raises(EncodingRefused, match="at most 4,096 bits"):
                CODEC.encode(value)
        with pytest.raises(DecodingRefused):
            CODEC.decode(cbor2.dumps([number]))
        with pytest.raises(DecodingRefused):
            CODEC.decode(cbor2.dumps(number))
        with pytest.raises(EncodingRefused):
            CODEC.digest((number,), {})


# --- refusals ----------------------------------------------------------------------------


class Text(str):
    __slots__ = ()


class Number(int):
    pass


class Ratio(float):
    pass


class Raw(bytes):
    pass


class Color(enum.IntEnum):
    RED = 1


class Mood(enum.Enum):
    GLAD = "glad"
    SAD = "sad"


class Moment(datetime):
    pass


class Money(Decimal):
    pass


Point = collections.namedtuple("Point", "x y")  # noqa: PYI024 - the untyped one


@attrs.frozen
class Unregistered:
    x: int = 1


@dataclasses.dataclass
class Data:
    x: int = 1


FOREIGN: dict[str, tuple[Any, str]] = {
    "str subclass": (Text("a"), "plain str"),
    "int subclass": (Number(1), "plain int"),
    "float subclass": (Ratio(1), "plain float"),
    "bytes subclass": (Raw(b""), "plain bytes"),
    "int enum": (Color.RED, "pass its .value"),
    "enum": (Mood.GLAD, "pass its .value"),
    "named tuple": (Point(1, 2), "plain tuple"),
    "ordered dict": (collections.OrderedDict(a=1), "plain dict"),
    "default dict": (collections.defaultdict(int), "plain dict"),
    "counter": (collections.Counter("a"), "plain dict"),
    "deque": (collections.deque(), "deque"),
    "datetime subclass": (Moment.now(UTC), "plain datetime"),
    "Decimal subclass": (Money(1), "plain Decimal"),
    "naive datetime": (datetime(2026, 1, 1), "tzinfo=datetime.UTC"),  # noqa: DTZ001
    "time": (clock_time(1), "isoformat"),
    "set": ({1}, "their order differs from process to process: sort it into a list"),
    "frozenset": (frozenset(), "their order differs from process to process"),
    "dict keys": ({}.keys(), "dict_keys"),
    "generator": ((x for x in ()), "turn it into a list"),
    "range": (range(3), "turn it into a list"),
    "function": (test_what_is_plain, "pass its name"),
    "lambda": (lambda: 1, "pass its name"),
    "builtin": (len, "pass its name"),
    "class": (int, "pass its name"),
    "object": (object(), "found object"),
    "exception": (ValueError("x"), "pass its text"),
    "bytearray": (bytearray(), "turn it into bytes"),
    "memoryview": (memoryview(b""), "turn it into bytes"),
    "complex": (1j, "two floats"),
    "fraction": (Fraction(1, 2), "two integers"),
    "lone surrogate": ("a\ud800b", "U+D800"),
    "lone surrogate in a key": ({"\ud800": 1}, "of a key"),
    "int key": ({1: 2}, "turn the keys into str"),
    "none key": ({None: 2}, "turn the keys into str"),
    "str subclass key": ({Text("a"): 2}, "turn the keys into str"),
    "attrs": (Unregistered(), "register the class with app.register"),
    "dataclass": (Data(), "dataclasses.asdict"),
    "cbor tag": (cbor2.CBORTag(0, "2026"), "CBORTag"),
    "cbor undefined": (cbor2.undefined, "found"),
    "cbor simple": (cbor2.CBORSimpleValue(5), "CBORSimpleValue"),
    "ellipsis": (..., "found ellipsis"),
    "thread": (threading.Lock(), "lock"),
}


@pytest.mark.parametrize(("value", "says"), FOREIGN.values(), ids=FOREIGN.keys())
@pytest.mark.parametrize("beside", [None, Decimal(1)], ids=["plain", "Decimal beside"])
def test_foreign_values(value: Any, says: str, beside: Any) -> None:
    """What is outside the closed set is refused at its place, with a remedy."""
    with pytest.raises(EncodingRefused) as caught:
        CODEC.encode({"items": [beside, (0, {"when": value})]}, "input")
    assert caught.value.path == "input.items[1][1].when"
    assert says in str(caught.value)
    for refuse in (CODEC.encode, CODEC.copy):
        with pytest.raises(EncodingRefused) as caught:
            refuse(value, "result")
        assert caught.value.path == "result"
    with pytest.raises(EncodingRefused) as caught:
        CODEC.digest((1, value), {"b": beside}, "charge")
    assert caught.value.path == "charge[1]"
    with pytest.raises(EncodingRefused) as caught:
        CODEC.digest((beside,), {"card": value}, "charge")
    assert caught.value.path == "charge.card"


# --- bombs -------------------------------------------------------------------------------


def nested(levels: int, make: Any) -> Any:
    """Build containers inside one another, without recursion."""
    value: Any = 1
    for _ in range(levels):
        value = make(value)
    return value


@pytest.mark.parametrize(
    "make", [lambda v: [v], lambda v: (v,), lambda v: {"a": v}], ids=["list", "tuple", "dict"]
)
@pytest.mark.parametrize("core", [1, Decimal(1)])
def test_depth(make: Any, core: Any) -> None:
    """128 levels are the last to pass; 100,000 are an error like any other."""
    value = nested(127, make)
    assert CODEC.decode(CODEC.encode([value, core]))
    for levels in (129, 1000, 8000, 100_000):
        value = nested(levels, make)
        for refuse in (CODEC.encode, CODEC.copy):
            with pytest.raises(EncodingRefused, match="128 levels"):
                refuse([core, value])
        with pytest.raises(EncodingRefused, match="128 levels"):
            CODEC.digest((value, core), {})


def test_cycles() -> None:
    """A structure that contains itself is refused as too deep."""
    items: list[Any] = []
    items.append(items)
    fields: dict[str, Any] = {}
    fields["me"] = [Decimal(1), fields]
    node = Node("a", [])
    node.children.append(node)
    codec = ValueCodec([Node])
    for value in (items, fields, node):
        with pytest.raises(EncodingRefused, match="does not contain itself") as caught:
            codec.encode(value)
        assert len(caught.value.path) < 300


def test_size() -> None:
    """The size limit is exact, and shared parts can't grow past it unseen."""
    codec = ValueCodec(limits=Limits(size=1000))
    assert codec.copy("x" * 997) == "x" * 997
    assert codec.copy(["x" * 996]) == ["x" * 996]
    for value in ("x" * 998, b"x" * 998, ["x" * 997], [0] * 998, [Decimal(1), "x" * 990]):
        with pytest.raises(EncodingRefused, match="at most 1,000 bytes"):
            codec.encode(value)
        with pytest.raises(EncodingRefused):
            codec.digest((value,), {})
    # Several of them, in a list, are what a request may be.
    assert codec.decode(CODEC.encode([["x" * 996], ["x" * 996]]))
    with pytest.raises(DecodingRefused):
        codec.decode(CODEC.encode(["x" * 997] * 5))
    laughs: Any = ["lol"]
    for _ in range(40):
        laughs = [laughs] * 10
    for bomb in (laughs, ["x" * 10**6] * 10**5, [{"k" * 10**6: 1}] * 10**5):
        for beside in (1, Decimal(1)):
            begun = time.process_time()
            with pytest.raises(EncodingRefused, match="at most 16,777,216 bytes"):
                CODEC.encode([beside, bomb])
            assert time.process_time() - begun < 20


HOSTILE = {
    "empty": "",
    "two items": "0000",
    "two small texts": "61616161",
    "trailing byte": "8000",
    "trailing after a text": "78016100",
    "cut int": "19",
    "cut text": "6261",
    "cut list": "8201",
    "break": "ff",
    "reserved": "1c",
    "indefinite list": "9f01ff",
    "indefinite text": "7f6161ff",
    "indefinite map": "bf616101ff",
    "duplicate key": "a2616101616102",
    "int key": "a10102",
    "bytes key": "a1416101",
    "list key": "a18001",
    "float key": "a1fb3ff000000000000001",
    "null key inside": "81a1f601",
    "undefined": "f7",
    "undefined inside": "81f7",
    "simple": "e0",
    "simple inside": "a16161f820",
    "invalid utf-8": "61ff",
    "surrogate": "63eda080",
    "surrogate inside": "8163eda080",
    "tag 0 of int": "c000",
    "tag 0 of text": "c06161",
    "tag 0 naive": "c073" + b"2026-11-22T00:00:00".hex(),
    "tag 0 with Z": "c074" + b"2026-11-22T00:00:00Z".hex(),
    "tag 0 week": "c068" + b"2026-W01".hex(),
    "tag 1": "c100",
    "tag 2 of text": "c26161",
    "tag 3 of list": "c380",
    "tag 4": "c4820001",
    "tag 4 bomb": "c4821b7fffffffffffffff01",
    "tag 5 bomb": "c5821a7fffffff01",
    "tag 6": "c600",
    "tag 24": "d8184100",
    "tag 25": "d81900",
    "tag 28": "d81c80",
    "tag 29": "d81d00",
    "cycle": "d81c81d81d00",
    "rational": "d81e820102",
    "rational of zero": "d81e820100",
    "regex": "d823" + "6d" + b"(a+)+b(((((()".hex(),
    "mime": "d8246161",
    "tag 37 short": "d8254100",
    "tag 37 of text": "d8256161",
    "link of nothing": "d82a40",
    "link of text": "d82a6161",
    "link without zero": "d82a4401550000",
    "link broken": "d82a420001",
    "ip address": "d90104447f000001",
    "ip 52": "d834447f000001",
    "date 100": "d86400",
    "date of int": "d903ec00",
    "date odd": "d903ec6832303236" + b"1122".hex(),
    "set": "d9010281" + "01",
    "string references": "d9010082616161d81900",
    "unknown tag": "d9012c00",
    "large tag": "db7fffffffffffffff00",
    "tag 55799": "d9d9f700",
    "complex": "d9a7f8820102",
    "object of int": "d81b00",
    "object of one": "d81b816161",
    "object of three": "d81b836161a000",
    "object unknown": "d81b826161a0",
    "object by int": "d81b8200a0",
    "object by list": "d81b8280a0",
    "object builtin": "d81b82" + "6b" + b"builtins:Exc"[:11].hex() + "a0",
    "object with list": "d81b82" + "6161" + "80",
    "decimal of int": "d81b8267" + b"decimal".hex() + "00",
    "decimal of words": "d81b8267" + b"decimal".hex() + "6161",
    "decimal with space": "d81b8267" + b"decimal".hex() + "622031",
    "decimal with underscore": "d81b8267" + b"decimal".hex() + "63315f31",
    "decimal without end": "d81b8267" + b"decimal".hex() + "78181e"[:4]
    + "18" + b"1E9999999999999999999999".hex(),
    "timedelta of int": "d81b8269" + b"timedelta".hex() + "00",
    "timedelta of two": "d81b8269" + b"timedelta".hex() + "820000",
    "timedelta of bools": "d81b8269" + b"timedelta".hex() + "83f4f4f4",
    "timedelta too long": "d81b8269" + b"timedelta".hex() + "831b7fffffffffffffff0000",
    "timedelta odd": "d81b8269" + b"timedelta".hex() + "83001a0001518000",
    "bytes bomb": "5b1000000000000000",
    "text bomb": "7b1000000000000000",
    "list bomb": "9b1000000000000000",
    "map bomb": "bb1000000000000000",
    "list bomb 2**64-1": "9bffffffffffffffff",
    "bignum bomb": "c25b1000000000000000",
    "200 lists": "81" * 200 + "00",
    "100,000 lists": "81" * 100_000 + "00",
    "100,000 maps": "a16161" * 100_000 + "00",
    "100,000 tags": "c1" * 100_000 + "00",
    "100,000 objects": "d81b826161" * 100_000 + "a0",
}  # fmt: skip


@pytest.mark.parametrize("vector", HOSTILE.values(), ids=HOSTILE.keys())
def test_hostile_bytes(vector: str) -> None:
    """Bytes of strangers are refused: no foreign object, no bomb, no crash."""
    data = bytes.fromhex(vector)
    begun = time.process_time()
    with pytest.raises(DecodingRefused, match=r"value|class|CID"):
        CODEC.decode(data)
    if data:
        with pytest.raises(DecodingRefused):
            CODEC.decode(b"\x82\x01" + data)
    assert time.process_time() - begun < 1


@given(st.binary(max_size=40))
def test_any_bytes(data: bytes) -> None:
    """Random bytes are refused or are a value that can be encoded again."""
    try:
        value = CODEC.decode(data)
    except DecodingRefused:
        return
    assert same(CODEC.copy(value), value)


@given(values, st.data())
def test_damaged_bytes(value: Any, data: st.DataObject) -> None:
    """One changed byte gives another value of the closed set, or a refusal."""
    encoded = bytearray(CODEC.encode(value))
    encoded[data.draw(st.integers(0, len(encoded) - 1))] ^= data.draw(st.integers(1, 255))
    try:
        other = CODEC.decode(bytes(encoded))
    except DecodingRefused:
        return
    assert same(CODEC.copy(other), other)


def test_decode_input() -> None:
    """Buffers are read like bytes; texts and numbers are refused."""
    assert CODEC.decode(bytearray(b"\x01")) == 1
    assert CODEC.decode(memoryview(b"\x80")) == []
    with pytest.raises(DecodingRefused, match="expected bytes"):
        CODEC.decode("\x01")  # type: ignore[arg-type]


# --- digests -----------------------------------------------------------------------------


@given(values, values)
def test_digest_ignores_order(left: Any, right: Any) -> None:
    """The order of keys and keyword arguments doesn't count, nor does list or tuple."""
    digest = CODEC.digest((left,), {"a": right, "bb": left})
    assert len(digest) == 16
    assert digest == CODEC.digest((shuffled(left),), {"bb": shuffled(left), "a": right})
    assert digest == CODEC.digest((CODEC.copy(left),), {"a": CODEC.copy(right), "bb": left})


def ordered(value: Any) -> Any:
    """Return the value with its keys sorted and its tuples as lists."""
    if isinstance(value, dict):
        return {key: ordered(value[key]) for key in sorted(value)}
    if isinstance(value, (list, tuple)):
        return [ordered(item) for item in value]
    return value


@settings(max_examples=300)
@given(values, values)
def test_digest_tells_values_apart(left: Any, right: Any) -> None:
    """Two values have one digest exactly when they differ in key order at most."""
    equal = same(ordered(left), ordered(right))
    assert (CODEC.digest((left,), {}) == CODEC.digest((right,), {})) is equal
    assert CODEC.digest(([left],), {}) != CODEC.digest((left,), {})


DISTINCT: list[tuple[tuple[Any, ...], dict[str, Any]]] = [
    ((), {}),
    ((1,), {}),
    ((1.0,), {}),
    ((True,), {}),
    (("1",), {}),
    ((b"1",), {}),
    ((Decimal(1),), {}),
    ((Decimal("1.0"),), {}),
    ((0,), {}),
    ((0.0,), {}),
    ((-0.0,), {}),
    ((False,), {}),
    ((None,), {}),
    (("",), {}),
    ((b"",), {}),
    (([],), {}),
    (({},), {}),
    ((1, 2), {}),
    ((2, 1), {}),
    (((1, 2),), {}),
    (((1,), (2,)), {}),
    (([1], {"a": 2}), {}),
    ((1,), {"a": 2}),
    ((), {"a": 2}),
    (({"a": 2},), {}),
    (([1, {"a": 2}],), {}),
    ((timedelta(1),), {}),
    (("timedelta", [1, 0, 0]), {}),
    ((UUID(int=1),), {}),
    ((UUID(int=1).bytes,), {}),
    ((LINK,), {}),
    ((b"\0" + bytes(LINK),), {}),
    ((date(2026, 1, 1),), {}),
    (("2026-01-01",), {}),
    ((math.nan,), {}),
    ((math.inf,), {}),
    ((2**64,), {}),
    (("x" * 300,), {}),
    (("x" * 301,), {}),
]


def test_digests_differ() -> None:
    """Calls that look alike have digests of their own."""
    digests = {CODEC.digest(args, kwargs) for args, kwargs in DISTINCT}
    assert len(digests) == len(DISTINCT)


def test_digests_never_change() -> None:
    """Digests stand in logs for ever: these are the ones of the first release."""
    found = {
        "int": CODEC.digest((1,), {}).hex(),
        "text": CODEC.digest(("caf\u00e9", None, True), {}).hex(),
        "mixed": CODEC.digest(({"b": 1.5, "a": [1, "x"]},), {"n": Decimal("1.50")}).hex(),
        "times": CODEC.digest((datetime(2026, 1, 2, tzinfo=UTC), timedelta(1)), {}).hex(),
    }
    assert found == {
        "int": "ac38783f6a3b2fe3b579718d6ba8493a",
        "text": "40392bcdc103a7cc27be6914013d9337",
        "mixed": "fe3bfe37c787c8bb01e7a4a0604d1617",
        "times": "1c1f561704afe8d88a021273d3edb347",
    }


def test_encodings_never_change() -> None:
    """Bytes in stores are read for ever: these are the ones of the first release."""
    codec = ValueCodec([Item])
    value = {"n": -1, "at": datetime(2026, 1, 2, tzinfo=UTC), "d": Decimal("1.50"),
             "u": UUID(int=1), "s": timedelta(1, 2, 3), "day": date(2026, 1, 2)}  # fmt: skip
    first = (
        "a6616e20626174c07819323032362d30312d30325430303a30303a30302b30303a303061"
        "64d81b8267646563696d616c64312e35306175d825500000000000000000000000000000"
        "00016173d81b826974696d6564656c74618301020363646179d903ec6a323032362d3031"
        "2d3032"
    )
    assert codec.encode(value).hex() == first
    assert same(codec.decode(bytes.fromhex(first)), value)
    assert codec.encode(Item("a")) == tagged(
        f"{__name__}:Item", {"sku": "a", "price": 0}
    ).replace(b"\x00", b"\xd8\x1b\x82gdecimala0")


def test_digest_is_the_same_in_every_process() -> None:
    """Hash randomisation has no part in a digest."""
    code = (
        "from triggerflow.core.codec import ValueCodec;"
        "print(ValueCodec().digest(({'b': [1.5], 'a': 'x', 'ccc': None},), {'k': 2}).hex())"
    )
    found = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    }
    expected = CODEC.digest(({"ccc": None, "a": "x", "b": [1.5]},), {"k": 2}).hex()
    assert {line.strip() for line in found} == {expected}


# --- registered classes ------------------------------------------------------------------


@attrs.frozen
class Item:
    sku: str
    price: Decimal = Decimal(0)


@attrs.frozen
class Order:
    id: UUID
    items: list[Item]
    tags: tuple[str, ...] = ()
    first: Item | None = None
    second: Optional[Item] = None  # noqa: UP045 - the older spelling
    mood: Mood = Mood.GLAD
    moods: dict[str, list[Mood]] = attrs.field(factory=dict)
    pair: tuple[int, Mood] | None = None
    anything: Any = None
    _secret: str = "s"
    count: int = attrs.field(init=False, default=0)


@attrs.define
class Node:
    name: str
    children: list[Node] = attrs.field(factory=list)


@attrs.define
class Sub(Item):
    more: tuple[Node, ...] = ()


@attrs.define
class Sloppy:
    name: str = None  # type: ignore[assignment]
    items: list[str] = "abc"  # type: ignore[assignment]
    pair: tuple[int, int] = (1, 2, 3)  # type: ignore[assignment]
    unknown: NoSuchType = (1, 2)  # type: ignore[name-defined]  # noqa: F821


@attrs.define
class Positive:
    n: int = attrs.field(validator=attrs.validators.gt(0))


@attrs.define
class Unset:
    x: int = attrs.field(init=False)


SHOP = ValueCodec([Item, Order, Node, Sub, Positive, Sloppy, Unset])


def test_instances_round_trip() -> None:
    """Nested instances, optional fields, tuples, enums and private names come back."""
    order = Order(
        UUID(int=7),
        [Item("a", Decimal("1.50")), Item("b")],
        ("x", "y"),
        Item("c"),
        None,
        Mood.SAD,
        {"k": [Mood.GLAD, Mood.SAD]},
        (1, Mood.SAD),
        {"deep": [Item("d"), {"e": Item("f")}, [1, [2]]]},
        secret="t",
    )
    object.__setattr__(order, "count", 5)
    back = SHOP.copy({"orders": [order]})["orders"][0]
    assert back == order
    assert type(back) is Order
    assert type(back.tags) is tuple
    assert type(back.pair) is tuple
    assert type(back.anything["deep"]) is list
    assert back.count == 5
    assert SHOP.encode(back) == SHOP.encode(order)
    assert SHOP.digest((order,), {}) == SHOP.digest((back,), {})
    assert SHOP.digest((Item("a"),), {}) != SHOP.digest((Item("b"),), {})


def test_recursive_and_inherited_classes() -> None:
    """A class may mention itself, and a subclass keeps what it is."""
    tree = Node("a", [Node("b"), Node("c", [Node("d")])])
    assert SHOP.copy(tree) == tree
    special = Sub("x", Decimal(1), (Node("n"),))
    back = SHOP.copy([special, Item("y")])
    assert back == [special, Item("y")]
    assert type(back[0]) is Sub
    assert SHOP.copy(Order(UUID(int=1), [special])).items == [special]


def test_sloppy_annotations_change_nothing() -> None:
    """Annotations that aren't true, or can't be resolved, don't coerce what a field holds."""
    back = SHOP.copy(Sloppy())
    assert (back.name, back.items, back.pair) == (None, "abc", (1, 2, 3))
    assert back.unknown == [1, 2]
    assert not hasattr(SHOP.copy(Unset()), "x")


def test_classes_of_functions() -> None:
    """Classes made inside a function find one another by name."""

    @attrs.frozen
    class Part:
        sizes: tuple[int, ...]

    @attrs.frozen
    class Whole:
        parts: tuple[Part, ...]

    codec = ValueCodec([Whole, Part])
    whole = Whole((Part((1, 2)), Part(())))
    assert codec.copy(whole) == whole


def test_paths_lead_into_instances() -> None:
    """A bad field is named through the instances around it."""
    order = Order(UUID(int=1), [Item("a"), Item({1})])  # type: ignore[arg-type]
    with pytest.raises(EncodingRefused) as caught:
        SHOP.encode({"order": order}, "input")
    assert caught.value.path == "input.order.items[1].sku"
    with pytest.raises(EncodingRefused) as caught:
        SHOP.encode(Order(UUID(int=1), [], anything=[Mood.SAD]))
    assert caught.value.path == "value.anything[0]"
    with pytest.raises(EncodingRefused, match=r"app\.register") as caught:
        ValueCodec([Order]).encode([Order(UUID(int=1), [Item("a")])])
    assert caught.value.path == "value[0].items[0]"


def test_what_can_not_be_read_is_not_written() -> None:
    """An instance that its own class would refuse is refused before it is stored."""
    bad = Positive(1)
    object.__setattr__(bad, "n", -1)
    with pytest.raises(EncodingRefused, match="can't be built again"):
        SHOP.encode({"a": bad})
    with pytest.raises(EncodingRefused, match="can't be built again"):
        SHOP.encode(Order(UUID(int=1), [], mood="no mood"))  # type: ignore[arg-type]


def tagged(name: str, fields: Any) -> bytes:
    """Write an object as a stranger might."""
    return cbor2.dumps(cbor2.CBORTag(27, [name, fields]))


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (tagged("shop:Item", {"sku": "a"}), "class 'shop:Item': not registered here"),
        (tagged(f"{__name__}:Item", {}), "field 'sku' is not recorded and has no default"),
        (tagged(f"{__name__}:Item", {"sku": "a", "x": 1}), "['x'] are recorded"),
        (tagged(f"{__name__}:Item", []), "not a map"),
        (tagged(f"{__name__}:Item", {"sku": cbor2.undefined}), "no log value"),
        (tagged(f"{__name__}:Item", {"sku": {b"a": 2}}), "no log value"),
        (tagged(f"{__name__}:Positive", {"n": -1}), "ValueError"),
        (tagged(f"{__name__}:Positive", {"n": "x"}), "TypeError"),
    ],
)
def test_objects_of_strangers(data: bytes, says: str) -> None:
    """Only registered classes are built, from exactly their fields."""
    with pytest.raises(DecodingRefused) as caught:
        SHOP.decode(data)
    assert says in str(caught.value)


def test_new_fields_take_their_default() -> None:
    """A class may gain a field with a default; old logs stay readable."""
    assert SHOP.decode(tagged(f"{__name__}:Item", {"sku": "a"})) == Item("a")


def test_deep_instances() -> None:
    """Instances count as levels; the deepest that can be written can be read."""

    def tree(levels: int) -> Node:
        node = Node("x", None)  # type: ignore[arg-type]
        for _ in range(levels - 1):
            node = Node("x", node)  # type: ignore[arg-type]
        return node

    assert SHOP.decode(SHOP.encode(tree(128)))
    with pytest.raises(EncodingRefused, match="128 levels"):
        SHOP.encode(tree(129))


def test_registering() -> None:
    """Only attrs classes can be registered, and one name means one class."""
    for other in (Data, int, Mood, "Item", None, Item("a")):
        with pytest.raises(DefinitionError, match="only attrs classes"):
            CODEC.register(other)  # type: ignore[arg-type]
    codec = ValueCodec([Item])
    codec.register(Item)
    twin = attrs.make_class("Item", ["x"])
    twin.__module__ = Item.__module__
    with pytest.raises(DefinitionError, match="another class with this qualified name"):
        codec.register(twin)
    with pytest.raises(DefinitionError):
        ValueCodec([Item, twin])


def test_codecs_are_apart() -> None:
    """What one app registers, another doesn't know."""
    data = SHOP.encode(Item("a"))
    with pytest.raises(DecodingRefused, match=r"app\.register"):
        CODEC.decode(data)


def test_tuples_count_as_lists_beside_floats_and_bytes() -> None:
    """A digest doesn't tell a tuple from a list, whatever else stands in them."""
    codec = ValueCodec()
    for one, other in (((0.5,), [0.5]), ((b"x", (0.5, 1)), [b"x", [0.5, 1]])):
        assert codec.digest((one,), {}) == codec.digest((other,), {})
        assert codec.digest((1,), {"k": one}) == codec.digest((1,), {"k": other})


def test_a_request_is_a_copy_and_a_digest() -> None:
    """The bytes of a request give the arguments back; its digest is that of `digest`."""
    codec = ValueCodec()
    for args, kwargs in (((1, "a", 0.5), {}), (({"b": [1], "a": b"x"},), {"k": -0.0})):
        data, digest = codec.request(args, kwargs)
        assert codec.decode(data) == [list(args), kwargs]
        assert digest == codec.digest(args, kwargs)


def test_a_list_of_values_that_are_encoded() -> None:
    """It reads as the list of them, whatever their number, each as deep as may be."""
    for count in (0, 1, 23, 24, 255, 256, 65_535, 65_536):
        assert CODEC.decode(list_of([b"\x01"] * count)) == [1] * count
    deepest = CODEC.encode(nested(128, lambda value: [value]))
    assert CODEC.decode(list_of([deepest, deepest])) == [CODEC.decode(deepest)] * 2
