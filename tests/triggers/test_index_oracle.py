"""The index against plain evaluation of every trigger, through generations.

The alphabet is small, so that patterns share places, values are hit, and documents that come
near a pattern are common.
"""

from __future__ import annotations

from typing import Any

import attrs
from hypothesis import given, settings
from hypothesis import strategies as st

from triggerflow.core.activity import Activity
from triggerflow.errors import PatternError
from triggerflow.triggers import Trigger, TriggerIndex, define_trigger

keys = st.sampled_from(["a", "b", "c"])
texts = st.sampled_from(
    [
        *"xXIk\u00df\u0131\u212a",
        *("", "xy", "yx", "SS", "ss", "10.0.0.7", "10.0.0.9", "::1"),
        # filed under the same beginning, which is shorter
        *("xyxyxyxyxyxyxyxyxyx", "xyxyxyxyxyxyxyxyxyz"),
    ]
)
numbers = st.sampled_from(
    [0, 1, 1.0, -1, -0.5, 2.5, 7, 8, 9, 63, 64, -64, 2**63, 1e308, -1e308]
)
scalars = texts | numbers | st.sampled_from([None, True, False])


def operator(name: str, operand: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """An operator with such operands."""
    return operand.map(lambda value: {name: value})


def ordered(pair: tuple[Any, Any]) -> list[Any]:
    """A range of two bounds; one of one number isn't empty."""
    low, high = sorted(pair)
    return [">=", low, "<=", high] if low < high else ["=", low]


ignoring_case = operator("equals-ignore-case", texts)
entries = (
    scalars
    | scalars
    | operator("prefix", texts | ignoring_case)
    | operator("suffix", texts | ignoring_case)
    | ignoring_case
    | operator(
        "wildcard", st.sampled_from(["*", "x*", "*x", "x*y", "*x*", "xy", "xyxyxy*yxyx"])
    )
    | operator("exists", st.booleans())
    | operator("cidr", st.sampled_from(["10.0.0.0/8", "10.0.0.8/30", "::/0", "0.0.0.0/0"]))
    | operator("numeric", st.tuples(st.sampled_from(["<", "<=", ">", ">="]), numbers).map(list))
    | operator("numeric", st.tuples(numbers, numbers).map(ordered))
    | operator("anything-but", texts | numbers)
    | operator("anything-but", operator("prefix", st.sampled_from(["x", "xy"])))
)
fields = st.dictionaries(
    keys, st.lists(entries, min_size=1, max_size=3), min_size=1, max_size=2
)
objects = st.recursive(
    fields,
    lambda inner: st.one_of(
        st.dictionaries(keys, inner, min_size=1, max_size=2),
        st.builds(
            lambda outer, branches: outer | {"$or": branches},
            st.dictionaries(keys, inner, max_size=1),
            st.lists(inner, min_size=2, max_size=3),
        ),
    ),
    max_leaves=4,
)
documents = st.dictionaries(
    keys,
    st.recursive(
        scalars,
        lambda inner: (
            st.lists(inner, max_size=4)
            | st.dictionaries(keys, inner, max_size=3)
            | st.lists(st.dictionaries(keys, inner, max_size=3), max_size=3)
        ),
        max_leaves=12,
    ),
    max_size=3,
)
types = st.sampled_from(["A", "AB", "B"])
listening = st.sampled_from(
    [("A",), ("A",), ("AB",), ("B",), ("A", "B"), ("A*",), ("AB*", "B"), ("*",)]
)
actors = st.none() | st.sampled_from(["https://a.example/*", "https://b.example/*"])
actor = st.sampled_from(["https://a.example/ann", "https://b.example/bob", "ann"])


@st.composite
def triggers(draw: st.DrawFn) -> Trigger:
    """A trigger whose name is still to be given; each version is another meaning."""
    match = draw(st.none() | objects | objects | objects)
    on = draw(listening)
    try:
        made = define_trigger("x", on="x", match=match, actors=draw(actors), start="f")
    except PatternError:
        made = define_trigger("x", on="x", start="f")
    return attrs.evolve(made, on=on)


def plain(registered: list[Trigger], activity: Activity) -> list[str]:
    """The names of those that an activity meets, asked one by one."""
    return [
        each.name
        for each in registered
        if any(
            name.startswith(on[:-1]) if on.endswith("*") else name == on
            for on in each.on
            for name in activity.types
        )
        and (each.match is None or each.match(activity.document))
        and (each.actors is None or each.actors(activity.actors))
    ]


# (triggers to add, positions of those to remove, counted in what is there)
changes = st.lists(
    st.tuples(st.lists(triggers(), max_size=6), st.lists(st.integers(0, 30), max_size=4)),
    min_size=1,
    max_size=5,
)
activities = st.lists(
    st.tuples(st.lists(types, min_size=1, max_size=2, unique=True), actor, documents),
    min_size=1,
    max_size=4,
)


@settings(max_examples=200, deadline=None)
@given(changes, activities)
def test_every_generation_equals_plain_evaluation(
    steps: list[tuple[list[Trigger], list[int]]],
    given_activities: list[tuple[list[str], str, dict[str, Any]]],
) -> None:
    """Whatever was added and removed, old generations included: the same, in the same order."""
    index, registered, count = TriggerIndex(), [], 0
    generations: list[tuple[TriggerIndex, list[Trigger]]] = [(index, [])]
    for added, removed in steps:
        gone = {registered[at].name for at in removed if at < len(registered)}
        fresh = []
        for each in added:
            count += 1
            # some under a name that has just become free
            name = sorted(gone)[0] if gone and count % 3 == 0 else f"t{count}"
            if name not in {other.name for other in fresh}:
                fresh.append(attrs.evolve(each, name=name, version=count))
        index = index.changed(added=fresh, removed=sorted(gone))
        registered = [each for each in registered if each.name not in gone] + fresh
        generations.append((index, registered))
    read = [
        Activity.read("bafy", {**document, "type": names, "actor": who})
        for names, who, document in given_activities
    ]
    for made, current in [*generations, (TriggerIndex(registered), registered)]:
        assert list(made) == current
        assert len(made) == len(current)
        for activity in read:
            assert [each.name for each in made.match(activity)] == plain(current, activity)


@settings(max_examples=100, deadline=None)
@given(st.lists(triggers(), max_size=10))
def test_what_is_removed_leaves_nothing_behind(given_triggers: list[Trigger]) -> None:
    """Of triggers that come and go nothing stays, beside one that stays or alone."""
    named = [
        attrs.evolve(each, name=f"t{at}", version=at + 1)
        for at, each in enumerate(given_triggers)
    ]
    index = TriggerIndex(named)
    for each in named:
        index = index.changed(removed=[each.name])
    assert list(index) == []
    for slot in ("_by_name", "_by_type", "_by_type_head", "_heads"):
        assert not getattr(index, slot)

    stays = define_trigger("stays", on="A", match={"only": ["this"]}, start="f")
    index = TriggerIndex([stays, *named])
    for each in reversed(named):
        index = index.changed(removed=[each.name])
    assert not index._by_type_head
    (shelf,) = (drawer._shelf for drawer in index._by_type.values())
    assert [*shelf._values] == ["this"]
    assert [*shelf._root.children] == ["only"]
    assert not shelf._root.has_probes
    assert not shelf._root.probed


VALUES: list[Any] = [
    *("", "x", "X", "xy", "yx", "xyx", "k", "K", "\u212a", "\u00df", "SS", "ss", "I", "i"),
    *("\u0131", "a" * 18, "a" * 300, "A" * 300, "a" * 299 + "b", "b" + "a" * 299),
    *("10.0.0.7", "10.255.0.1", "11.0.0.0", "::1", "0:0::1", "::ffff:10.0.0.7", "1"),
    *(0, 1, -1, 7, 8, 63, 64, 65, -7, -64, -65, 2**53, 2**64 - 1, -(2**64)),
    *(0.5, -0.5, -1.5, 7.5, 63.9, 1e300, -1e300, True, False, None),
]
BOUNDS = [-(2**64), -1e300, -65, -64, -1.5, -1, -0.5, 0, 0.5, 1, 7, 7.5, 63, 64, 2**53, 1e300]
OPERATORS: list[Any] = [
    *VALUES,
    *({kind: each} for kind in ("prefix", "suffix") for each in VALUES if type(each) is str),
    *({"equals-ignore-case": each} for each in VALUES if type(each) is str),
    *(
        {kind: {"equals-ignore-case": each}}
        for kind in ("prefix", "suffix")
        for each in VALUES
        if type(each) is str
    ),
    *({"wildcard": each} for each in ("*", "x*", "*x", "x*y", "yx*x", "x*yx", "*y*", "xy")),
    *({"cidr": each} for each in ("10.0.0.0/8", "10.0.0.0/29", "0.0.0.0/0", "::/0", "::/127")),
    *({"numeric": [sign, each]} for sign in ("<", "<=", ">", ">=", "=") for each in BOUNDS),
    *(
        {"numeric": [">=", low, "<", high]}
        for low in BOUNDS
        for high in BOUNDS
        if low < high and (low in (-64, 0.5, 7) or high in (-64, 0.5, 64))
    ),
    *({"anything-but": each} for each in ("x", [1, 7], {"prefix": "x"}, {"suffix": ["x"]})),
    *({"exists": each} for each in (True, False)),
]


def around(operator: Any) -> list[dict[str, Any]]:
    """Patterns with the operator in places that are filed in different ways."""
    return [
        {"a": [operator]},
        {"a": [operator, "other"]},
        {"b": {"a": [operator]}, "c": [1]},
        {"c": [1], "$or": [{"a": [operator]}, {"b": {"a": [operator]}}]},
    ]


def test_every_operator_with_every_value() -> None:
    """A hundred operators, in several surroundings, each against every value."""
    made = [
        define_trigger(f"t{at}-{place}", on="A", match=match, start="f", version=at * 9 + place)
        for at, each in enumerate(OPERATORS, 1)
        for place, match in enumerate(around(each))
    ]
    index = TriggerIndex(made)
    others = {"a": "zzz", "b": {"a": "zzz"}, "c": 2}
    for value in VALUES:
        for fields in (
            {"a": value, "c": 1},
            {"a": [[], [value, "zzz"]], "c": 2},
            {"b": {"a": value}, "c": 1},
            {"b": [{"a": "zzz"}, {"a": [value]}], "c": [2, 1]},
            {**others, "c": value},
        ):
            given_activity = Activity.read("bafy", {**fields, "type": "A", "actor": "ann"})
            assert [each.name for each in index.match(given_activity)] == plain(
                made, given_activity
            ), fields


def test_a_choice_beside_a_single_field_is_looked_at() -> None:
    """What is found by its only field outside a `$or` must still meet the `$or`."""
    index = TriggerIndex(
        [
            define_trigger(
                "t",
                on="A",
                match={"a": ["x"], "$or": [{"b": [{"exists": False}]}, {"b": ["y"]}]},
                start="f",
            )
        ]
    )

    def met(**fields: Any) -> list[str]:
        read = Activity.read("bafy", {"type": "A", "actor": "ann", **fields})
        return [each.name for each in index.match(read)]

    assert met(a="x", b="y") == met(a="x") == ["t"]
    assert met(a="x", b="z") == met(b="y") == []
