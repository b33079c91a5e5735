"""Patterns: exact values, arrays, refusals and the normal form."""

from __future__ import annotations

import itertools
from typing import Any

import pytest

from triggerflow.errors import PatternError
from triggerflow.triggers import compile_pattern
from triggerflow.triggers.pattern import compiled
from triggerflow.triggers.pattern.conditions import (
    Absent,
    AnythingBut,
    Conditions,
    Equals,
    EqualsIgnoreCase,
    Exists,
    InNetwork,
    Leaf,
    Numeric,
    Prefix,
    Suffix,
    Wildcard,
)

# --- what matches -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("pattern", "document", "expected"),
    [
        ({"a": ["x"]}, {"a": "x"}, True),
        ({"a": ["x", "y"]}, {"a": "y"}, True),
        ({"a": ["x"]}, {"a": "X"}, False),
        ({"a": ["x"]}, {"a": "xy"}, False),
        ({"a": ["x"]}, {"b": "x"}, False),
        ({"a": ["x"]}, {}, False),
        ({"a": ["x"]}, {"a": {"x": "x"}}, False),
        ({"a": [""]}, {"a": ""}, True),
        ({"a": ["x"], "b": ["y"]}, {"a": "x", "b": "y"}, True),
        ({"a": ["x"], "b": ["y"]}, {"a": "x", "b": "z"}, False),
        ({"a": {"b": ["x"]}}, {"a": {"b": "x", "c": 1}}, True),
        ({"a": {"b": ["x"]}}, {"a": "x"}, False),
        ({"a": {"b": ["x"]}}, {"a": None}, False),
        ({"a": {"b": {"c": [1]}}}, {"a": {"b": {"c": 1}}}, True),
        # a key with dots is a key
        ({"a.b": ["x"]}, {"a": {"b": "x"}}, False),
        ({"a": {"b": ["x"]}}, {"a.b": "x"}, False),
        ({"a.b": ["x"]}, {"a.b": "x"}, True),
        ({"": ["x"]}, {"": "x"}, True),
    ],
)
def test_fields(pattern: object, document: object, expected: bool) -> None:
    """Fields are ANDed, the values of a leaf ORed, keys taken as they are."""
    assert compile_pattern(pattern)(document) is expected


VALUES = [None, False, True, 0, 1, 2, 0.5, "", "0", "1", "true", "null", "1.0", 2**53 + 1]


@pytest.mark.parametrize(("wanted", "value"), list(itertools.product(VALUES, VALUES)))
def test_values_match_only_with_their_type(wanted: object, value: object) -> None:
    """1, "1" and true are three values; null is not false, nor 0, nor absent."""
    same = type(wanted) is type(value) and wanted == value
    assert compile_pattern({"a": [wanted]})({"a": value}) is same
    assert compile_pattern({"a": [wanted]})({"a": ["no", [value]]}) is same


@pytest.mark.parametrize(
    ("wanted", "value", "expected"),
    [
        (1, 1.0, True),
        (1.0, 1, True),
        (0, -0.0, True),
        (-0.0, 0, True),
        (1.5, 1.5, True),
        (2**53, float(2**53), True),
        (2**53 + 1, float(2**53), False),
        (1e300, 1e300, True),
        (1, float("nan"), False),
        (1, 10**400, False),
    ],
)
def test_numbers_compare_by_value(wanted: float, value: float, expected: bool) -> None:
    """Integers and floats of one value are one value; no rounding makes others equal."""
    assert compile_pattern({"a": [wanted]})({"a": value}) is expected


def test_null_needs_an_explicit_null() -> None:
    """A null pattern matches a null, not an absent field and not an empty array."""
    pattern = compile_pattern({"a": {"b": [None]}})
    assert pattern({"a": {"b": None}})
    assert not pattern({"a": {}})
    assert not pattern({"a": None})
    assert not pattern({"a": {"b": []}})


TWO = {"a": {"x": [1], "y": [2]}}


@pytest.mark.parametrize(
    ("pattern", "document", "expected"),
    [
        # a leaf inside arrays, at any depth
        ({"a": [1]}, {"a": [0, 1]}, True),
        ({"a": [1]}, {"a": [[0], [[1]]]}, True),
        ({"a": [1]}, {"a": []}, False),
        ({"a": [1]}, {"a": [[], [[]]]}, False),
        ({"a": [1]}, {"a": [{"a": 1}]}, False),
        ({"a": {"x": [1]}}, {"a": [{"x": 0}, {"x": [3, 1]}]}, True),
        ({"a": {"x": [1]}}, {"a": [[[{"x": 1}]]]}, True),
        ({"a": {"x": [1]}}, {"a": ["x", 1, None]}, False),
        # two fields: the same element
        (TWO, {"a": {"x": 1, "y": 2}}, True),
        (TWO, {"a": [{"x": 1, "y": 2}]}, True),
        (TWO, {"a": [{"x": 1}, {"y": 2}]}, False),
        (TWO, {"a": [{"x": 1, "y": 3}, {"x": 3, "y": 2}]}, False),
        (TWO, {"a": [{"x": 1, "y": 3}, {"x": 1, "y": 2}]}, True),
        (TWO, {"a": [[{"x": 1}, {"y": 2}], [{"y": 2, "x": 1}]]}, True),
        (TWO, {"a": [[{"x": 1}], [{"y": 2}]]}, False),
        (TWO, {"a": [{"x": [0, 1], "y": [2, 0]}]}, True),
        # different arrays are independent of one another
        ({"a": {"x": [1]}, "b": {"y": [2]}}, {"a": [0, {"x": 1}], "b": [{"y": 2}, 0]}, True),
        # arrays inside an element's field
        (
            {"a": {"x": [1], "b": {"y": [2], "z": [3]}}},
            {"a": [{"x": 1, "b": [{"y": 2}, {"z": 3}]}, {"b": {"y": 2, "z": 3}}]},
            False,
        ),
        (
            {"a": {"x": [1], "b": {"y": [2], "z": [3]}}},
            {"a": [{"x": 1, "b": [{"y": 2, "z": 4}, {"y": 2, "z": 3}]}]},
            True,
        ),
    ],
)
def test_arrays_are_crushed_and_consistent(
    pattern: object, document: object, expected: bool
) -> None:
    """A leaf holds if any element does; two fields must hold in one and the same element."""
    assert compile_pattern(pattern)(document) is expected


@pytest.mark.parametrize("document", [None, 1, "a", [{"a": 1}], [], True])
def test_only_objects_match(document: object) -> None:
    """A document that isn't an object matches nothing and raises nothing."""
    assert compile_pattern({"a": [1]})(document) is False


# --- what is refused ----------------------------------------------------------------

SURROGATE = "\ud800"


@pytest.mark.parametrize(
    ("pattern", "path", "problem"),
    [
        (None, "match", "found null, expected an object"),
        ([], "match", "found a list, expected an object"),
        ("x", "match", "found a string, expected an object"),
        ({}, "match", "an empty object is not allowed"),
        ({"a": {}}, "match.a", "an empty object is not allowed"),
        ({"a": {"b": {"c": {}}}}, "match.a.b.c", "an empty object is not allowed"),
        (
            {"object": {"type": "Person"}},
            "match.object.type",
            "found a string, expected a list",
        ),
        ({"a": 1}, "match.a", "found a number, expected a list"),
        ({"a": True}, "match.a", "found a boolean, expected a list"),
        ({"a": None}, "match.a", "found null, expected a list"),
        ({"a": ("x",)}, "match.a", "found a Python tuple, expected a list"),
        ({"a": []}, "match.a", "an empty list is not allowed"),
        ({"a": [["x"]]}, "match.a[0]", "found a list, expected a string, number"),
        ({"a": ["x", []]}, "match.a[1]", "found a list, expected a string, number"),
        ({"a": [float("nan")]}, "match.a[0]", "found nan, expected a finite number"),
        ({"a": [1, float("-inf")]}, "match.a[1]", "found -inf, expected a finite number"),
        ({"a": [2**64]}, "match.a[0]", "an integer outside 64 bits"),
        ({"a": [-(10**5000)]}, "match.a[0]", "an integer outside 64 bits"),
        ({"a": [b"x"]}, "match.a[0]", "found a Python bytes"),
        ({"a": [SURROGATE]}, "match.a[0]", "lone surrogate"),
        ({SURROGATE: ["x"]}, "match", "lone surrogate"),
        ({1: ["x"]}, "match", "found a key that is a number, expected a string"),
        ({"a": {None: ["x"]}}, "match.a", "found a key that is null, expected a string"),
        ({"a b": {"c.d": 1}}, 'match["a b"]["c.d"]', "found a number"),
        ({"a": {"$or": [{"b": [1]}]}}, 'match.a["$or"]', "at least two objects"),
        ({"$or": [{"a": [1]}, {"b": [2, []]}]}, "match.b[1]", "found a list"),
        (
            {"a": [{"numeric": ["<", float("nan")]}]},
            "match.a[0]",
            "found nan, expected a finite",
        ),
        ({"a": [{"anything-but": [2**64]}]}, "match.a[0]", "an integer outside 64 bits"),
        ({"a": [{"prefix": SURROGATE}]}, "match.a[0]", "lone surrogate"),
        ({"a": [{"anything-but": {"suffix": [SURROGATE]}}]}, "match.a[0]", "lone surrogate"),
        ({"a": [{}]}, "match.a[0]", "exactly one key, found none"),
        (
            {"a": [{"prefix": "x", "suffix": "y"}]},
            "match.a[0]",
            "exactly one key, found 'prefix'",
        ),
        ({"a": [{"regex": "x"}]}, "match.a[0]", "unknown operator 'regex'"),
        ({"a": ["x", {"Prefix": "x"}]}, "match.a[1]", "unknown operator 'Prefix'"),
        ({"a": [{1: "x"}]}, "match.a[0]", "unknown operator 'a number'"),
    ],
)
def test_refused(pattern: object, path: str, problem: str) -> None:
    """What breaks a rule is refused at compile time, with its path and the reason."""
    with pytest.raises(PatternError) as caught:
        compile_pattern(pattern)
    assert caught.value.path == path
    assert problem in caught.value.problem
    assert f"pattern at {path}: " in str(caught.value)


def test_a_misspelt_operator_names_the_nearest() -> None:
    """A typo in an operator's name gets the name that was probably meant."""
    with pytest.raises(PatternError, match="did you mean 'prefix'"):
        compile_pattern({"a": [{"prefx": "x"}]})


# --- normal form --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("one", "two"),
    [
        ({"a": [1]}, {"a": [1.0]}),
        ({"a": [0]}, {"a": [-0.0]}),
        ({"a": [2**60]}, {"a": [2.0**60]}),
        ({"a": ["x", "y"]}, {"a": ["y", "x", "y"]}),
        ({"a": [1, "1", True, None]}, {"a": [None, True, "1", 1.0]}),
        ({"a": [1], "b": {"c": [2]}}, {"b": {"c": [2]}, "a": [1]}),
        ({"a": ["x", {"prefix": "y"}]}, {"a": [{"prefix": "y"}, "x", {"prefix": "y"}]}),
        ({"a": [{"anything-but": ["x"]}]}, {"a": [{"anything-but": "x"}]}),
        ({"a": [{"anything-but": [2, 1.0]}]}, {"a": [{"anything-but": [1, 2, 2]}]}),
        (
            {"a": [{"anything-but": {"prefix": ["y", "x", "y"]}}]},
            {"a": [{"anything-but": {"prefix": ["x", "y"]}}]},
        ),
        ({"a": [{"numeric": ["=", 5.0]}]}, {"a": [5]}),
        ({"a": [{"numeric": [">", 5.0]}]}, {"a": [{"numeric": [">", 5]}]}),
        ({"a": [{"exactly": "x"}]}, {"a": ["x"]}),
        ({"$or": [{"a": [1]}, {"b": [2]}]}, {"$or": [{"b": [2]}, {"a": [1.0]}]}),
    ],
)
def test_one_meaning_has_one_source(one: object, two: object) -> None:
    """Order, repetition and the kind of an integral number make no difference."""
    assert compile_pattern(one) == compile_pattern(two)
    assert hash(compile_pattern(one)) == hash(compile_pattern(two))
    assert compile_pattern(one).text == compile_pattern(two).text


@pytest.mark.parametrize(
    ("one", "two"),
    [
        ({"a": [1]}, {"a": [True]}),
        ({"a": [0]}, {"a": [False]}),
        ({"a": [1]}, {"a": ["1"]}),
        ({"a": [None]}, {"a": ["null"]}),
        ({"a": {"b": [1]}}, {"a.b": [1]}),
        ({"a": [1]}, {"a": [1, True]}),
        ({"a": [{"prefix": "x"}]}, {"a": [{"suffix": "x"}]}),
        ({"a": [{"prefix": "x"}]}, {"a": [{"prefix": {"equals-ignore-case": "x"}}]}),
        ({"a": [{"exists": True}]}, {"a": [{"exists": False}]}),
    ],
)
def test_other_meanings_are_unequal(one: object, two: object) -> None:
    """Patterns that Python's own == would mix up (1 and True) stay apart."""
    assert compile_pattern(one) != compile_pattern(two)


def test_paths_and_source() -> None:
    """`paths` has every leaf's keys, sorted; `source` is a copy that nobody else holds."""
    pattern = compile_pattern({"b": [2, 1, 2.0], "a": {"c.d": ["x"], "a": [None]}})
    assert pattern.paths == (("a", "a"), ("a", "c.d"), ("b",))
    assert pattern.source == {"a": {"a": [None], "c.d": ["x"]}, "b": [1, 2]}
    pattern.source["b"].append(3)
    assert pattern.source["b"] == [1, 2]


# --- bombs --------------------------------------------------------------------------


def nested(depth: int, leaf: Any, wrap: str) -> Any:
    value = leaf
    for _ in range(depth):
        value = {"a": value} if wrap == "object" else [value]
    return value


def test_the_deepest_documents() -> None:
    """A pattern 128 deep matches a document 128 deep, objects or objects in arrays."""
    pattern = compile_pattern(nested(128, ["x"], "object"))
    assert pattern(nested(128, "x", "object"))
    assert not pattern(nested(127, "x", "object"))
    in_arrays: Any = "x"
    for _ in range(128):
        in_arrays = {"a": [[in_arrays]]}
    assert pattern(in_arrays)


def test_documents_may_nest_without_end() -> None:
    """Documents nested 20,000 deep, in arrays or objects, cost no recursion."""
    leaf = compile_pattern({"a": ["x"]})
    inner = compile_pattern({"a": {"b": ["x"]}})
    assert leaf({"a": nested(20_000, "x", "array")})
    assert inner({"a": nested(20_000, {"b": "x"}, "array")})
    deep = nested(20_000, "x", "object")
    assert not leaf(deep)
    while isinstance(deep, dict):  # or freeing it would recurse
        deep = deep.pop("a")


@pytest.mark.parametrize("depth", [129, 5_000])
def test_patterns_deeper_than_any_document_are_refused(depth: int) -> None:
    """A pattern bomb is refused with words, not with a RecursionError."""
    with pytest.raises(PatternError, match="nested deeper than 128 objects"):
        compile_pattern(nested(depth, ["x"], "object"))


# --- what an index reads, and when closures are built ---------------------------------


def test_conditions_tell_what_is_required_and_what_is_a_choice() -> None:
    """Leaves are ANDed, sorted by path; each `$or` is its branches, with whole paths."""
    pattern = compile_pattern(
        {
            "type": ["Note", "Like"],
            "object": {
                "id": [{"prefix": "https://"}, 5],
                "$or": [{"a": [{"exists": False}]}, {"b": [{"anything-but": {"suffix": "x"}}]}],
            },
        }
    )
    assert pattern.conditions == Conditions(
        (
            Leaf(("object", "id"), (Equals((5,)), Prefix("https://"))),
            Leaf(("type",), (Equals(("Like", "Note")),)),
        ),
        (
            (
                Conditions((Leaf(("object", "a"), (Absent(),)),)),
                Conditions((Leaf(("object", "b"), (AnythingBut((Suffix("x"),)),)),)),
            ),
        ),
    )
    assert [leaf.may_be_absent for leaf in pattern.conditions.every_leaf()] == [
        False,
        False,
        True,
        False,
    ]
    assert pattern.paths == (("object", "a"), ("object", "b"), ("object", "id"), ("type",))


def test_operators_keep_python_equality_out() -> None:
    """Conditions with 1 and with true are neither equal nor one key of a dictionary."""
    assert Equals((1,)) != Equals((True,))
    assert Equals((1,)) == Equals((1.0,))
    assert len({Equals((1,)), Equals((True,)), Equals((0,)), Equals((False,))}) == 4


def test_every_operator_as_data() -> None:
    """Each operator becomes a class of its own, with its operand read."""
    entries = [
        {"equals-ignore-case": "x"},
        {"suffix": {"equals-ignore-case": "x"}},
        {"wildcard": "a*\\*b"},
        {"numeric": [">", 1, "<=", 2.5]},
        {"numeric": ["<", 1]},
        {"exists": True},
        {"cidr": "10.1.2.3/24"},
        "::1",
    ]
    (leaf,) = compile_pattern({"a": entries}).conditions.leaves
    network = 10 << 24 | 1 << 16 | 2 << 8
    assert set(leaf.any_of) == {
        EqualsIgnoreCase("x"),
        Suffix("x", ignore_case=True),
        Wildcard("a*\\*b", ("a", "*b")),
        Numeric(1, True, 2.5, False),
        Numeric(high=1, high_open=True),
        Exists(),
        InNetwork("10.1.2.3/24", 4, network, network + 255),
        InNetwork("::1", 6, 1, 1),
    }


def test_closures_are_built_by_the_first_document(monkeypatch: pytest.MonkeyPatch) -> None:
    """Compiling checks and reads, and builds nothing; the first document builds, once."""
    built = []
    build = compiled.document_test
    monkeypatch.setattr(
        compiled, "document_test", lambda conditions: built.append(1) or build(conditions)
    )
    pattern = compile_pattern({"a": ["x"], "b": [{"wildcard": "*"}]})
    assert not pattern("no object")
    assert not built
    assert pattern({"a": "x", "b": "y"})
    assert not pattern({"a": "x"})
    assert len(built) == 1


def test_patterns_share_the_paths_of_their_fields() -> None:
    """Many patterns over few fields hold one tuple for each path."""
    one = compile_pattern({"object": {"type": ["x"]}})
    two = compile_pattern({"object": {"type": ["y"]}})
    assert one.conditions.leaves[0].path is two.conditions.leaves[0].path
