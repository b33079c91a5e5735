"""`explain`: the first field that fails, what was wanted there, and what is there instead."""

from __future__ import annotations

from typing import Any

import pytest

from triggerflow.triggers import compile_pattern

FOLLOW = {
    "type": "Follow",
    "object": {"type": "Person", "name": "Ann"},
    "tags": [{"name": "a", "n": 1}, {"name": "b", "n": 2}],
}


@pytest.mark.parametrize(
    ("pattern", "text"),
    [
        ({"type": ["Like"]}, 'match.type: expected "Like", found "Follow" at $.type'),
        (
            {"type": ["Like", 1, None, {"prefix": "x"}]},
            'match.type: expected null or 1 or "Like" or prefix "x", found "Follow" at $.type',
        ),
        ({"to": ["x"]}, 'match.to: expected "x", "to" is absent'),
        (
            {"objct": {"type": ["Person"]}},
            'match.objct.type: expected "Person", "objct" is absent, did you mean "object"?',
        ),
        (
            {"object": {"nmae": ["Ann"]}},
            'match.object.nmae: expected "Ann", "nmae" is absent, did you mean "name"?',
        ),
        (
            {"object": {"type": {"id": ["x"]}}},
            'match.object.type.id: expected "x", found "Person" at $.object.type',
        ),
        ({"object": ["x"]}, 'match.object: expected "x", found an object at $.object'),
        (
            {"tags": {"name": ["c"]}},
            'match.tags.name: expected "c", found "a" at $.tags[0].name, "b" at $.tags[1].name',
        ),
        (
            {"tags": {"name": ["a"], "n": [2]}},
            (
                'match.tags.name: expected "a", there is one, '
                "but not in the same array element as the fields before it"
            ),
        ),
        (
            {"object": {"name": [{"exists": False}]}},
            'match.object.name: expected no value, found "Ann" at $.object.name',
        ),
        (
            {"object": {"name": [{"numeric": [">", 1, "<=", 5]}]}},
            ('match.object.name: expected a number > 1 and <= 5, found "Ann" at $.object.name'),
        ),
        (
            {"object": {"name": [{"anything-but": {"prefix": ["A", "B"]}}]}},
            (
                'match.object.name: expected anything but prefix "A", prefix "B", '
                'found "Ann" at $.object.name'
            ),
        ),
        (
            {"object": {"name": [{"cidr": "10.0.0.0/8"}, {"wildcard": "x*"}]}},
            (
                'match.object.name: expected an address in 10.0.0.0/8 or wildcard "x*", '
                'found "Ann" at $.object.name'
            ),
        ),
        (
            {"object": {"name": [{"equals-ignore-case": "x"}, {"suffix": "y"}]}},
            (
                'match.object.name: expected "x" ignoring case or suffix "y", '
                'found "Ann" at $.object.name'
            ),
        ),
        ({"to": [{"exists": True}]}, 'match.to: expected any value, "to" is absent'),
        (
            {"type": ["Follow"], "object": {"$or": [{"type": ["x"]}, {"name": ["y"]}]}},
            (
                'match.object["$or"]: no branch holds: '
                'match.object.name: expected "y", found "Ann" at $.object.name; '
                'match.object.type: expected "x", found "Person" at $.object.type'
            ),
        ),
        (
            {"tags": {"n": [1], "$or": [{"name": ["b"]}, {"x": [1]}]}},
            (
                'match.tags["$or"]: no branch holds: '
                'match.tags.name: expected "b", there is one, '
                "but not in the same array element as the fields before it; "
                'match.tags.x: expected 1, "x" is absent'
            ),
        ),
    ],
)
def test_explained(pattern: dict[str, Any], text: str) -> None:
    """The words name the path, what was expected and what was found, or what is missing."""
    assert str(compile_pattern(pattern).explain(FOLLOW)) == text


def test_the_first_field_in_order_of_paths() -> None:
    """Of several fields that fail the first path is named, whatever the order of writing."""
    pattern = compile_pattern({"type": ["x"], "object": {"type": ["y"]}, "a": ["z"]})
    mismatch = pattern.explain(FOLLOW)
    assert mismatch is not None
    assert mismatch.path == "match.a"
    assert mismatch.missing == "a"
    assert mismatch.expected == ('"z"',)


def test_a_match_is_not_explained() -> None:
    """What matches has no mismatch, absences in chosen elements included."""
    assert (
        compile_pattern({"tags": {"n": [1], "x": [{"exists": False}]}}).explain(FOLLOW) is None
    )


def test_an_absence_fails_beside_what_chose_the_element() -> None:
    """The absent field is named when its element has it."""
    mismatch = compile_pattern({"tags": {"n": [1], "name": [{"exists": False}]}}).explain(
        FOLLOW
    )
    assert mismatch is not None
    assert mismatch.path == "match.tags.name"
    assert str(mismatch).startswith('match.tags.name: expected no value, found "a" at ')


def test_choices_that_exclude_each_other() -> None:
    """Two `$or` that hold each, but in no combination, are named so."""
    pattern = compile_pattern(
        {
            "tags": {"$or": [{"n": [1]}, {"x": [1]}]},
            "$or": [{"tags": {"name": ["b"]}}, {"y": [1]}],
        }
    )
    mismatch = pattern.explain(FOLLOW)
    assert mismatch is not None
    assert mismatch.apart
    assert mismatch.path.endswith('["$or"]')


@pytest.mark.parametrize("document", [None, [], "x", 1])
def test_what_is_no_object(document: object) -> None:
    """A document that isn't an object is explained as a whole."""
    mismatch = compile_pattern({"a": ["x"]}).explain(document)
    assert mismatch is not None
    assert mismatch.path == "match"
    assert "expected an object" in str(mismatch)


LONG = "x" * 100_000


@pytest.mark.parametrize(
    "document",
    [
        {"a": LONG},
        {"a": [LONG] * 1000},
        {"a": {LONG: LONG}},
        {LONG + str(at): at for at in range(50)},
        {"a": [[[LONG]]] * 1000},
        {"a": 10**4000},
        {"a": b"bytes"},
        {"a": [{}] * 100_000},
        {"a": [[], {}]},
    ],
)
@pytest.mark.parametrize(
    "pattern",
    [
        {"a": [LONG + "y"]},
        {"a": {LONG: [1]}},
        {"a": [{"anything-but": {"prefix": [LONG + "y"]}}, LONG * 2], "b": [{"prefix": LONG}]},
        {"$or": [{"a": [LONG + "y"], "b": [1]}, {"b": [LONG]}, {"c": [LONG]}, {"d": [LONG]}]},
    ],
)
def test_an_explanation_is_short(pattern: dict[str, Any], document: dict[str, Any]) -> None:
    """Megabytes in the document or the pattern are never echoed."""
    mismatch = compile_pattern(pattern).explain(document)
    assert len(repr(mismatch)) < 6000
    assert len(str(mismatch)) < 2000
