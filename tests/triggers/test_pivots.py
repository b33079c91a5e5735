"""Pivots: what a pattern matches has one of its pivots, at a cost of the document's size."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from triggerflow.triggers import Looked, Watch, compile_pattern, pivots, pivots_of

RESIDUE = ("", "")
A, TYPE = '["a"]', '["type"]'

COUNTED = pivots


def of(pattern: dict[str, Any]) -> tuple[tuple[str, str], ...]:
    return pivots_of(compile_pattern(pattern).conditions)


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ({"a": ["x"]}, [(A, "sx")]),
        ({"a": [1]}, [(A, "n1")]),
        ({"a": [1.0]}, [(A, "n1")]),
        ({"a": [1.5]}, [(A, "n1.5")]),
        ({"a": ["1"]}, [(A, "s1")]),
        ({"a": [True]}, [(A, "true")]),
        ({"a": [None, False]}, [(A, "false"), (A, "null")]),
        ({"a": [{"wildcard": "x\\*"}]}, [(A, "sx*")]),
        ({"a": [{"wildcard": "x"}, "y"]}, [(A, "sx"), (A, "sy")]),
        # An id before a type, a type before a boolean's two values.
        ({"type": ["Accept"], "a": [7]}, [(A, "n7")]),
        ({"type": ["Accept"], "a": [{"prefix": "x"}]}, [(TYPE, "sAccept")]),
        ({"type": ["Accept"], "a": [True, False]}, [(TYPE, "sAccept")]),
        ({"a": {"b": [1]}, "c": [1, 2]}, [('["a","b"]', "n1")]),
        # Each branch of a choice has its own; it helps only if all of them have one.
        ({"$or": [{"a": ["x"]}, {"b": [1]}]}, [(A, "sx"), ('["b"]', "n1")]),
        ({"$or": [{"a": ["x"]}, {"b": [{"exists": True}]}]}, [RESIDUE]),
        ({"type": ["T"], "$or": [{"a": ["x"]}, {"b": [{"exists": True}]}]}, [(TYPE, "sT")]),
        # Without any equality everything may match.
        ({"a": [{"exists": False}]}, [RESIDUE]),
        ({"a": ["x", {"exists": False}]}, [RESIDUE]),
        ({"a": ["x", {"prefix": "y"}]}, [RESIDUE]),
        ({"a": [{"anything-but": ["x"]}]}, [RESIDUE]),
        ({"a": [{"equals-ignore-case": "x"}]}, [RESIDUE]),
        # Too many ways, too long a path.
        ({"a": list(range(33)), "type": ["T"]}, [(TYPE, "sT")]),
        ({"a": list(range(33))}, [RESIDUE]),
        ({"k" * 400: ["x"]}, [RESIDUE]),
    ],
)
def test_the_rarest_equality_is_chosen(pattern: dict[str, Any], expected: Any) -> None:
    """Ids before types before constants; `$or` has one for each branch; else the residue."""
    assert list(of(pattern)) == expected


def test_long_texts_are_hashed() -> None:
    """A megabyte is no key; neither is a text with a zero byte, which SQLite would cut."""
    for text in ("x" * 1_000_000, "a\0b"):
        ((_, value),) = of({"a": [text]})
        assert len(value) == 65
        assert (A, value) in Looked([A]).pivots({"a": text}, ())
    assert of({"a": ["x" * 101]}) != of({"a": ["x" * 102]})


def test_types_of_an_activity_are_a_place_of_their_own() -> None:
    """What stands on types is filed under them, unless one ends with a star."""
    watch = Watch(None, ("A", "B"))
    assert watch.pivots_in("") == (("types", "sA"), ("types", "sB"))
    assert Looked(["types"]).pivots({"type": "C"}, ("B",)) == {("types", "sB")}
    assert Watch(None, ("A", "b.*")).pivots_in("") == (RESIDUE,)
    assert Watch(compile_pattern({"a": [1]}), ("A", "b.*")).pivots_in("") == ((A, "n1"),)
    assert Watch(None, tuple(map(str, range(100)))).pivots_in("") == (RESIDUE,)


def test_arrays_are_crushed() -> None:
    """Values in arrays, at any depth, are found; objects and bytes are no values."""
    looked = Looked(['["a","b"]', A, ""])
    document = {"a": [{"b": [1, [2.0]]}, [{"b": None}, "x"], {"c": 1}, b"y"], "b": 5}
    expected = {RESIDUE, (A, "sx")} | {('["a","b"]', f"{v}") for v in ("n1", "n2", "null")}
    assert looked.pivots(document, ("T",)) == expected
    whole = Looked(None).pivots(document, ("T",))
    assert whole == expected | {("types", "sT"), ('["a","c"]', "n1"), ('["b"]', "n5")}


keys = st.sampled_from(["a", "b", "type"])
scalars = st.sampled_from(["x", "xy", "1", "", 0, 1, 1.0, 1.5, 2**63, 1e300, True, False, None])
operators = (
    st.sampled_from([{"exists": True}, {"exists": False}])
    | st.builds(lambda text: {"prefix": text}, st.sampled_from(["x", "1"]))
    | st.builds(lambda value: {"anything-but": [value]}, st.sampled_from(["x", 1]))
    | st.builds(lambda text: {"wildcard": text}, st.sampled_from(["x", "x*", "*y"]))
)
leaves = st.lists(scalars | scalars | operators, min_size=1, max_size=2)
fields = st.recursive(
    st.dictionaries(keys, leaves, min_size=1, max_size=2),
    lambda inner: st.dictionaries(keys, leaves | inner, min_size=1, max_size=2),
    max_leaves=4,
)
patterns = fields | st.builds(
    lambda more, branches: more | {"$or": branches},
    st.dictionaries(st.sampled_from(["c", "d"]), leaves, max_size=1),
    st.lists(fields, min_size=2, max_size=3),
)
documents = st.dictionaries(
    st.sampled_from(["a", "b", "c", "d", "type"]),
    st.recursive(
        scalars,
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys, inner, max_size=3),
        max_leaves=6,
    ),
    max_size=4,
)


@given(patterns, documents)
def test_what_matches_has_a_pivot(pattern: dict[str, Any], document: dict[str, Any]) -> None:
    """No pattern is missed by looking up its pivots, whichever paths are looked at."""
    compiled = compile_pattern(pattern)
    found = pivots_of(compiled.conditions)
    paths = {path for path, _ in found}
    some, whole = (Looked(each).pivots(document, ()) for each in (paths, None))
    assert some <= whole
    assert some == {each for each in whole if each[0] in paths}
    if compiled(document):
        assert some & set(found)


@pytest.mark.parametrize("paths", [[A, '["a","b"]', '["a","b","c"]'], None])
def test_bomb_costs_work_of_its_own_size(paths: list[str] | None, lines_run: Any) -> None:
    """However its elements are nested, they are looked at once each."""
    looked = Looked(paths)
    bombs = (
        {"a": list(range(4_000))},
        {"a": [{"b": n} for n in range(4_000)]},
        {"a": [[[n] for n in range(100)] for _ in range(40)]},
        {"a": [{"b": [{"c": n} for n in range(100)]} for _ in range(40)]},
        {f"k{n}": n for n in range(4_000)} | {"a": 1},
    )
    for bomb in bombs:
        assert lines_run(lambda bomb=bomb: looked.pivots(bomb, ())) < 30 * 4_000


def test_deep_document_is_walked() -> None:
    """As deep as documents may be."""
    document: Any = 1
    for _ in range(128):
        document = {"a": [document]}
    path = '["' + '","'.join("a" * 60) + '"]'
    assert len(Looked(None).pivots(document, ())) == 1
    assert Looked([path]).pivots(document, ()) == set()
