"""JSON: strict in, readable out."""

from __future__ import annotations

import contextlib
import json
import math
import os
import sys
import time
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import UUID

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from triggerflow.core.codec import (
    CID,
    Limits,
    from_atproto_json,
    parse_json,
    to_json_model,
)
from triggerflow.errors import DecodingRefused

DATA = Path(__file__).parents[2].parent / "shared" / "data"
RAW = "bafkreiccldh766hwcnuxnf2wh6jgzepf2nlu2lvcllt63eww5p6chi4ity"

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
models = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**64), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | texts,
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(texts, inner, max_size=5),
    max_leaves=20,
)


def data_file(name: str) -> Path:
    """Return a file of real input; without it a test is skipped, but never in CI."""
    path = DATA / name
    if not path.exists():
        if os.environ.get("CI") == "true":
            pytest.fail(f"{path} is missing")
        pytest.skip(f"{path} is missing")
    return path


@given(models, st.booleans(), st.sampled_from([None, 1]))
def test_reads_what_json_writes(value: Any, ascii_only: bool, indent: int | None) -> None:
    """Every lawful document is read as `json` reads it, as text and as bytes."""
    text = json.dumps(value, ensure_ascii=ascii_only, indent=indent)
    assert repr(parse_json(text)) == repr(json.loads(text))
    assert repr(parse_json(text.encode())) == repr(json.loads(text))


@given(st.text(alphabet='{}[]",:\\ud8910eE+-.ntrfalsui \n', max_size=30))
def test_never_another_error(text: str) -> None:
    """Whatever the text, it is read or refused with the one error."""
    with contextlib.suppress(DecodingRefused):
        parse_json(text)


REFUSED = {
    "duplicate key": ('{"a": 1, "a": 1}', "input: duplicate key 'a'"),
    "duplicate inside": ('{"x": [0, {"a": {}, "b": 2, "a": 3}]}', "input.x[1]: duplicate"),
    "duplicate by escape": ('{"a": 1, "\\u0061": 2}', "duplicate key 'a'"),
    "duplicate empty key": ('{"": 1, "": 2}', "duplicate key ''"),
    "nan": ('{"a": [NaN]}', "input.a[0]: NaN is not JSON"),
    "infinity": ('{"a": Infinity}', "input.a: Infinity"),
    "minus infinity": ("-Infinity", "input: -Infinity"),
    "overflow": ('{"when": {"x y": 1e400}}', 'input.when["x y"]: 1e400 is too large'),
    "minus overflow": ("[-1e400]", "input[0]"),
    "long overflow": ("1" + "0" * 400 + ".0", "too large"),
    "huge exponent": ("1e999999999999", "too large"),
    "int too large": ('{"n": 18446744073709551616}', "input.n: an integer of 20 digits"),
    "int too small": ("[-18446744073709551617]", "input[0]: an integer of 20 digits"),
    "5,000 digits": ("[1, " + "9" * 5000 + "]", "input[1]: an integer of 5000 digits"),
    "lone high": ('{"a": "x\\ud800"}', "input.a: a lone surrogate (U+D800) at character 1"),
    "lone low": ('["\\uDFFF"]', "input[0]: a lone surrogate (U+DFFF)"),
    "swapped pair": ('"\\udc00\\ud800"', "U+DC00"),
    "lone in key": ('{"b": {"\\ud83d": 1}}', "input.b: a lone surrogate (U+D83D)"),
    "raw surrogate": ('"\ud800"', "lone surrogate"),
    "raw surrogate bytes": (b'"\xed\xa0\x80"', "invalid UTF-8 at byte 1, line 1"),
    "invalid utf-8": (b'{\n"a": "\xff"}', "invalid UTF-8 at byte 8, line 2"),
    "latin-1": ('"\u00e9"'.encode("latin-1"), "invalid UTF-8"),
    "byte order mark": (b"\xef\xbb\xbf{}", "byte order mark"),
    "byte order mark text": ("\ufeff{}", "byte order mark"),
    "utf-16": ("{}".encode("utf-16"), "invalid UTF-8"),
    "utf-16 le": ("{}".encode("utf-16-le"), "not JSON"),
    "empty": ("", "empty"),
    "empty bytes": (b"", "empty"),
    "white space": (" \n\t\r", "empty"),
    "two values": ("{} {}", "line 1, column 4: extra data"),
    "trailing text": ("[1]\nx", "line 2, column 1"),
    "trailing comma": ("[1,]", "line 1"),
    "trailing comma in object": ('{"a": 1,}', "not JSON"),
    "single quotes": ("{'a': 1}", "column 2"),
    "comment": ("[1] // x", "not JSON"),
    "leading zero": ("[01]", "not JSON"),
    "plus": ("+1", "not JSON"),
    "bare point": (".5", "not JSON"),
    "point at end": ("[1.]", "not JSON"),
    "hex": ("0x10", "not JSON"),
    "raw control": ('"\x01"', "not JSON"),
    "raw newline": ('"a\nb"', "not JSON"),
    "bad escape": ('"\\x41"', "not JSON"),
    "cut escape": ('"\\u12"', "not JSON"),
    "odd digits escape": ('"\\u00_1"', "not JSON"),
    "unclosed": ('{"a": [1', "not JSON"),
    "unclosed text": ('"a', "not JSON"),
    "no-break space": ("\u00a0{}", "not JSON"),
    "foreign digits": ("\u0661", "not JSON"),
    "python": ("True", "not JSON"),
    "number key": ("{1: 2}", "not JSON"),
    "129 lists": ("[" * 129 + "]" * 129, "more than 128 levels"),
    "129 objects": ('{"a":' * 129 + "1" + "}" * 129, "more than 128 levels"),
    "unclosed lists": ("[" * 100_000, "more than 128 levels"),
    "100,000 lists": ("[" * 100_000 + "]" * 100_000, "more than 128 levels"),
    "100,000 objects": ('{"a":' * 100_000 + "1" + "}" * 100_000, "more than 128 levels"),
    "too large": (" " * 5_000_000 + "1", "the limit is 4,194,304"),
    "not a text": (5, "expected str or bytes"),
    "bytearray": (bytearray(b"{}"), "expected str or bytes"),
}


@pytest.mark.parametrize(("text", "says"), REFUSED.values(), ids=REFUSED.keys())
def test_refused(text: Any, says: str) -> None:
    """Each trap of JSON is refused, and the error says where and what."""
    with pytest.raises(DecodingRefused) as caught:
        parse_json(text)
    assert says in str(caught.value)
    str(caught.value).encode()  # printable anywhere


def test_recursion_limit_is_no_matter() -> None:
    """Deep nesting is refused also where someone has raised the recursion limit."""
    before = sys.getrecursionlimit()
    sys.setrecursionlimit(10**6)
    try:
        with pytest.raises(DecodingRefused, match="128 levels"):
            parse_json('["]",' * 800_000)
    finally:
        sys.setrecursionlimit(before)


def test_brackets_in_texts_are_no_levels() -> None:
    """Only brackets outside strings nest; many shallow ones are fine."""
    doc = {"a": ["[" * 5000, '"{' * 5000, "\\"], "b": [[] for _ in range(5000)]}
    assert parse_json(json.dumps(doc)) == doc
    assert parse_json("[" * 128 + "]" * 128)


@pytest.mark.parametrize(
    "text", ['"' + '\\"' * 1_000_000, "[" * 2000 + '"' + '\\"' * 1_000_000]
)
def test_hostile_text_takes_linear_time(text: str) -> None:
    """A string that never ends is not searched again from each of its quotes."""
    begun = time.process_time()
    with pytest.raises(DecodingRefused):
        parse_json(text)
    assert time.process_time() - begun < 2


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("18446744073709551615", 2**64 - 1),
        ("-18446744073709551616", -(2**64)),
        ("9007199254740993", 2**53 + 1),
        ("1.0", 1.0),
        ("-0.0", -0.0),
        ("-0", 0),
        ("1E2", 100.0),
        ("1e-400", 0.0),
        ('"\\ud83d\\ude00"', "\U0001f600"),
        ('"\\\\ud800"', "\\ud800"),
        ('"\\u0000"', "\0"),
        (" [ ] \r\n", []),
        ('{"a": {"a": 1}}', {"a": {"a": 1}}),
    ],
)
def test_accepted(text: str, value: Any) -> None:
    """Edge cases that are lawful are read exactly, types and signs included."""
    assert repr(parse_json(text)) == repr(value)


def test_name_and_limits() -> None:
    """The caller names the text and sets the depth."""
    with pytest.raises(DecodingRefused, match=r"^line 7\.a: duplicate") as caught:
        parse_json('{"a": {"b": 1, "b": 2}}', what="line 7")
    assert caught.value.what == "line 7.a"
    with pytest.raises(DecodingRefused, match="more than 3 levels"):
        parse_json("[[[[]]]]", limits=Limits(depth=3))
    assert parse_json("[[[]]]", limits=Limits(depth=3)) == [[[]]]


def test_real_files() -> None:
    """Real webhooks are read as `json` reads them."""
    for line in data_file("github-webhooks.jsonl").read_bytes().splitlines():
        assert parse_json(line) == json.loads(line)


# --- AT Protocol's wrappers --------------------------------------------------------------


def test_atproto_invalid() -> None:
    """Each invalid link and bytes wrapper of AT Protocol is refused, by its path."""
    checked = 0
    for case in json.loads(data_file("atproto-data-model-invalid.json").read_bytes()):
        if case["note"].startswith(("link", "bytes")):
            with pytest.raises(DecodingRefused, match=r"^input\.lnk: "):
                from_atproto_json(case["json"])
            checked += 1
    assert checked == 5


@pytest.mark.parametrize(
    "value",
    [
        {"$link": None},
        {"$link": ""},
        {"$link": [RAW]},
        {"$link": RAW.upper()},
        {"$link": RAW, "$bytes": ""},
        {"$link": {"$link": RAW}},
        {"$bytes": None},
        {"$bytes": "a"},
        {"$bytes": "ab_-"},
        {"$bytes": "YQ=", "x": 1},
        {"$bytes": "YQ="},
        {"$bytes": "YR"},
        {"$bytes": "Y Q"},
        {"$bytes": "YQ\n"},
        {"$bytes": "===="},
        {"$bytes": "\u00e9"},
    ],
)
def test_atproto_wrappers(value: Any) -> None:
    """A wrapper is one key with one well-formed text, or it is refused."""
    with pytest.raises(DecodingRefused, match=r"^doc\.a\[0\]: "):
        from_atproto_json({"a": [value]}, what="doc")


def test_atproto_values() -> None:
    """Wrappers become links and bytes; the rest is copied."""
    inner = [1]
    value = {"a": {"$link": RAW}, "b": [{"$bytes": "YQ"}, {"$bytes": "YQ=="}], "c": inner}
    result = from_atproto_json(value)
    assert result == {"a": CID.parse(RAW), "b": [b"a", b"a"], "c": [1]}
    assert result["c"] is not inner
    assert from_atproto_json({"$bytes": ""}) == b""
    deep: Any = []
    for _ in range(100_000):
        deep = [deep]
    with pytest.raises(DecodingRefused, match="levels"):
        from_atproto_json(deep)


# --- out, for people ---------------------------------------------------------------------


@attrs.frozen
class Order:
    id: UUID
    items: tuple[Any, ...] = ()


def test_to_json_model() -> None:
    """Every log value becomes something that JSON can say."""
    uuid = UUID(int=5)
    value = {
        "bytes": b"a",
        "link": CID.parse(RAW),
        "at": datetime(2026, 11, 22, 4, 5, tzinfo=UTC),
        "day": date(2026, 11, 22),
        "span": timedelta(hours=1),
        "price": Decimal("1.50"),
        "order": Order(uuid, (1, b"")),
        "floats": [1.5, math.nan, math.inf, -math.inf],
        "odd": [{1, 2}.__class__, {5: 1}],
    }
    assert json.loads(json.dumps(to_json_model(value), allow_nan=False)) == {
        "bytes": {"$bytes": "YQ"},
        "link": {"$link": RAW},
        "at": "2026-11-22T04:05:00+00:00",
        "day": "2026-11-22",
        "span": "1:00:00",
        "price": "1.50",
        "order": {"id": str(uuid), "items": [1, {"$bytes": ""}]},
        "floats": [1.5, "NaN", "Infinity", "-Infinity"],
        "odd": ["<class 'set'>", {"5": 1}],
    }


def test_to_json_model_never_fails() -> None:
    """Cycles end, and long representations are cut."""
    items: list[Any] = []
    items.append(items)
    json.dumps(to_json_model(items))
    assert len(to_json_model(set(range(1000)))) == 200


@given(models)
def test_to_json_model_leaves_json_alone(value: Any) -> None:
    """What JSON can say already stays as it is."""
    assert repr(to_json_model(value)) == repr(value)
