"""Mappings: what a trigger takes out of an activity, and every way in which it can't."""

from __future__ import annotations

from typing import Any

import pytest

from triggerflow.core.activity import Activity
from triggerflow.errors import DefinitionError
from triggerflow.triggers.dedup import compile_dedup
from triggerflow.triggers.mapping import (
    NoValue,
    compile_pick,
    compile_picks,
    compile_template,
    key_text,
)

DOCUMENT = {
    "type": "Follow",
    "actor": "ann",
    "n": 7,
    "null": None,
    "half": 0.5,
    "yes": True,
    "object": {"id": "o1", "tags": ["a", "b"]},
}
ACTIVITY = Activity("bafy", DOCUMENT, ("Follow",), ("ann",), None, "tenant", 3)


@pytest.mark.parametrize(
    ("template", "made"),
    [
        ("$", DOCUMENT),
        ("$.object", DOCUMENT["object"]),
        ("$.object.tags[-1]", "b"),
        ("$.null", None),
        ("$$.type", ["Follow"]),
        ("$$.actor[0]", "ann"),
        ("$$.namespace", "tenant"),
        ("$$.depth", 3),
        ({}, {}),
        ({"who.$": "$.actor", "kind": "constant"}, {"who": "ann", "kind": "constant"}),
        ({"kind": "$.actor"}, {"kind": "$.actor"}),
        (
            {"deep": {"list": [1, None, {"id.$": "$.object.id"}]}},
            {"deep": {"list": [1, None, {"id": "o1"}]}},
        ),
        ({".$": "$.n"}, {"": 7}),
    ],
)
def test_a_template_makes_an_input(template: Any, made: Any) -> None:
    """A path gives the value there, a payload template its object."""
    compiled = compile_template(template, "input")
    assert compiled(ACTIVITY) == made
    assert compile_template(compiled.source, "input") == compiled


def test_paths_have_one_form() -> None:
    """Two spellings of one path are one mapping."""
    one = compile_template({"a.$": "$['object']['id']"}, "input")
    assert one == compile_template({"a.$": "$.object.id"}, "input")
    assert one.source == {"a.$": "$.object.id"}


@pytest.mark.parametrize(
    "template",
    ["$.objects", "$.object.tags[2]", "$.actor.id", "$$.source", {"a": [{"b.$": "$.nothing"}]}],
)
def test_an_absent_path_is_no_value(template: Any) -> None:
    """Nothing is made of what isn't there, and the path is named."""
    with pytest.raises(NoValue, match=r"the activity has no \$"):
        compile_template(template, "input")(ACTIVITY)


def nested(depth: int) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = {"a": value}
    return value


@pytest.mark.parametrize(
    ("template", "words"),
    [
        ("object", "a path begins with `$`"),
        ("$.a.*", "can't be read from character"),
        ("$..a", "can't be read from character"),
        ("$$", "nothing that is known"),
        ("$$.cids", "known are $$.cid"),
        (7, "found int, expected a path"),
        (["$.a"], "found list"),
        ({"a.$": 7}, "input.a.$: 7 is not a path"),
        ({"a.$": "x"}, "input.a.$: 'x' is not a path"),
        ({"a": 1, "a.$": "$.n"}, "sets 'a' twice"),
        ({1: 2}, "the key 1 is not a text"),
        ({"a": {1, 2}}, "input.a: found set"),
        ({"a": b"x"}, "found bytes"),
        (nested(100), "nested deeper than 64"),
        (nested(100_000), "nested deeper than 64"),
    ],
)
def test_refused_templates(template: Any, words: str) -> None:
    """What can't work is refused where it is written, with its place."""
    with pytest.raises(DefinitionError) as caught:
        compile_template(template, "input")
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("paths", "key"),
    [
        ("$.object.id", "o1"),
        ("$.n", "7"),
        (["$.object.id", "$.n"], '["o1",7]'),
        (["$.n"], "7"),
        ("$$.actor[0]", "ann"),
    ],
)
def test_keys(paths: Any, key: str) -> None:
    """A text or whole number is a key; several are one JSON list, which can't be mistaken."""
    assert key_text(compile_picks(paths, "key"), ACTIVITY) == key


@pytest.mark.parametrize("path", ["$.null", "$.half", "$.yes", "$.object", "$.object.tags"])
def test_what_is_no_key(path: str) -> None:
    """Other values have no one text; the path and the kind are told."""
    with pytest.raises(NoValue, match="expected a text or a whole number"):
        key_text(compile_picks(path, "key"), ACTIVITY)


def test_dedup_tells_values_apart() -> None:
    """1, "1" and true are three values; order and place of several count."""
    dedup = compile_dedup(["$.a", "$.b"], "dedup")
    values = [
        (1, 2),
        ("1", 2),
        (True, 2),
        (2, 1),
        (1, [2]),
        (None, 2),
        ("1,2", ""),
        ("", "1,2"),
    ]
    digests = {dedup.digest(Activity("c", {"a": a, "b": b}, ("T",), ("x",))) for a, b in values}
    assert len(digests) == len(values)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({}, "has no key"),
        ([], "the list of paths is empty"),
        ({"key": "$.a", "windows": 5}, "unknown fields: windows"),
        ({"key": "$.a", "window": 0}, "nothing would ever count"),
        ({"key": "$.a", "window": -1}, "from 0 up"),
        ({"key": "$.a", "window": "1 day"}, "expected a timedelta or seconds"),
        ({"key": "$.a", "across_versions": 1}, "expected a bool"),
        ("id", "is not a path"),
    ],
)
def test_refused_dedups(given: Any, words: str) -> None:
    """A dedup that can't work is refused where it is written."""
    with pytest.raises(DefinitionError) as caught:
        compile_dedup(given, "dedup")
    assert words in str(caught.value)


def test_a_pick_says_itself() -> None:
    """Its text is its path, for specs and for errors."""
    assert str(compile_pick("$['a b'].c", "x")) == '$["a b"].c'
    assert str(compile_pick("$$.actor[0]", "x")) == "$$.actor[0]"
