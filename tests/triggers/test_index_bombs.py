"""Documents and registries made to hurt an index: work is bounded by sizes, and is counted.

A tracer counts the lines of the index package that run; strings count what is cut from them.
"""

from __future__ import annotations

from typing import Any

import attrs

import triggerflow.triggers.index
from triggerflow.core.activity import Activity
from triggerflow.triggers import Trigger, TriggerIndex, define_trigger
from triggerflow.triggers.index.nodes import Node
from triggerflow.triggers.index.places import LONGEST, places_of

MEBIBYTE = 1 << 20
COUNTED = triggerflow.triggers.index


def triggers(*matches: Any, on: Any = "T") -> list[Trigger]:
    return [
        define_trigger(f"t{at}", on=on, match=match, start="f", version=at + 1)
        for at, match in enumerate(matches)
    ]


def activity(types: Any = "T", **fields: Any) -> Activity:
    return Activity.read("bafy", {"type": types, "actor": "ann", **fields})


def names(index: TriggerIndex, given: Activity) -> list[str]:
    return [each.name for each in index.match(given)]


def test_equal_values_find_a_posting_once(lines_run: Any) -> None:
    """An array of one value, in hundreds of patterns, costs array plus patterns, no product."""
    index = TriggerIndex(
        triggers(*({"a": {"b": ["x"], "c": [{"exists": False}, at]}} for at in range(300)))
    )
    few = activity(a=[{"b": "x"}] * 10)
    many = activity(a=[{"b": "x"}] * 1000)
    assert names(index, many) == names(index, few)
    more = lines_run(lambda: index.match(many)) - lines_run(lambda: index.match(few))
    assert more < 990 * 30


def test_nested_arrays_and_objects_are_walked_once(lines_run: Any) -> None:
    """Arrays in arrays, and objects as deep as documents go: each value is seen once."""
    index = TriggerIndex(triggers({"a": ["x"]}, {"a": {"a": {"a": ["y"]}}}))
    deep: Any = "x"
    for _ in range(120):
        deep = [deep, deep] if len(str(deep)) < 20_000 else [deep]
    assert names(index, activity(a=deep)) == ["t0"]
    objects: Any = "y"
    for _ in range(120):
        objects = {"a": objects}
    before = lines_run(lambda: index.match(activity(a={"a": {"a": "y"}})))
    assert lines_run(lambda: index.match(activity(a=objects))) <= before + 20


class Cut(str):
    """A string that counts the characters that are cut from it."""

    __slots__ = ()
    cut = 0

    def __getitem__(self, at: Any) -> str:
        found = super().__getitem__(at)
        Cut.cut += len(found)
        return found


def test_a_mebibyte_costs_a_few_short_slices(monkeypatch: Any) -> None:
    """However many prefixes and suffixes of however many lengths: thirty slices of each."""
    operators: list[Any] = [{"prefix": "a" * length + "b"} for length in range(1, 2000, 3)]
    operators += [{"suffix": "b" + "a" * length} for length in range(1, 2000, 3)]
    operators += [
        {kind: {"equals-ignore-case": "A" * length + "c"}}
        for kind in ("prefix", "suffix")
        for length in range(1, 500, 3)
    ]
    index = TriggerIndex(triggers(*({"x": [operator]} for operator in operators)))
    assert names(index, activity(x="a" * MEBIBYTE)) == []
    long = Cut("a" * MEBIBYTE)
    # a document holds plain strings only; this one must be taken for such
    monkeypatch.setitem(Node.try_probes.__globals__, "type", lambda _: str)
    for drawer in index._by_type.values():
        drawer._shelf._root.children["x"].try_probes(long, {})
    assert 0 < Cut.cut <= 4 * 40 * LONGEST


def test_numbers_are_filed_by_magnitude(lines_run: Any) -> None:
    """Ranges that are far from a number aren't tried, however many there are."""
    index = TriggerIndex(
        triggers(
            *({"n": [{"numeric": [">", 10_000 + at]}]} for at in range(200)),
            *({"n": [{"numeric": [">=", 100 * at, "<", 100 * at + 5]}]} for at in range(200)),
            {"n": [{"numeric": ["<", 4]}]},
        )
    )
    assert names(index, activity(n=3)) == ["t200", "t400"]
    assert lines_run(lambda: index.match(activity(n=3))) < 300
    assert len(names(index, activity(n=10**6))) == 200
    # no document holds these; a caller may
    for strange in (float("inf"), float("-inf"), float("nan"), 10**400):
        plain = [each.name for each in index if each.match and each.match({"n": strange})]
        assert names(index, activity(n=strange)) == plain


def test_many_types_of_one_beginning_are_one_look(lines_run: Any) -> None:
    """An activity with thousands of types meets what listens to their beginning once."""
    (made,) = triggers({"a": ["x"]})
    index = TriggerIndex([attrs.evolve(made, on=("com.github.*",))])
    given = activity([f"com.github.{at}" for at in range(3000)], a=["x"] * 50)
    assert names(index, given) == ["t0"]
    assert lines_run(lambda: index.match(given)) < 3000 * 12 + 50 * 20


def test_a_thousand_branches_are_filed_by_their_best() -> None:
    """A `$or` is filed under one condition for each branch, and found through any."""
    branches = [{"a": [f"x{at}"], "b": [{"exists": True}]} for at in range(1000)]
    index = TriggerIndex(
        triggers({"$or": branches}, {"$or": [{"a": ["y"]}, {"c": [{"exists": False}]}]})
    )
    assert names(index, activity(a="x999", b=1, c=1)) == ["t0"]
    assert names(index, activity(a="y", c=1)) == ["t1"]
    assert names(index, activity(a="z")) == ["t1"]
    assert names(index, activity(a="x5", c=1)) == []


def test_a_pattern_of_absence_only_has_no_place() -> None:
    """What may hold without a value is asked about every document of its type."""
    index = TriggerIndex(triggers({"a": [{"exists": False}, "x"]}))
    (only,) = index
    assert only.match is not None
    assert places_of(only.match.conditions.leaves[0]) is None
    assert names(index, activity()) == ["t0"]
    assert names(index, activity(a="x")) == ["t0"]
    assert names(index, activity(a="y")) == []
