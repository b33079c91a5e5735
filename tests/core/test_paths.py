"""Paths into documents: what RFC 9535 says of singular queries, and nothing else."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from triggerflow.core.paths import ABSENT, Path, compile_path
from triggerflow.errors import DefinitionError

DOCUMENT = {
    "type": "Follow",
    "object": {"id": "x", "tags": [{"name": "a"}, {"name": "b"}], "none": None},
    "a key": {"it's": 1, 'say "hi"': 2, "": 3},
    "größe": 7,
    "_9": 8,
    "😀": 9,
    "a\\b": 10,
    "\t": 11,
}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("$", DOCUMENT),
        ("$.type", "Follow"),
        ("$.object.id", "x"),
        ("$.object.tags[0].name", "a"),
        ("$.object.tags[-1]['name']", "b"),
        ("$.object.none", None),
        ("$['a key'][\"it's\"]", 1),
        (r"$['a key']['it\'s']", 1),
        ("$['a key']['say \"hi\"']", 2),
        ("$['a key']['']", 3),
        ("$.größe", 7),
        ("$._9", 8),
        ("$.😀", 9),
        (r"$['\ud83d\ude00']", 9),
        (r"$['a\\b']", 10),
        (r"$['\t']", 11),
        ("$ .object [ 'id' ]", "x"),
        ("$.absent", ABSENT),
        ("$.object.tags[2]", ABSENT),
        ("$.object.tags[-3]", ABSENT),
        ("$.object.tags.name", ABSENT),
        ("$.object[0]", ABSENT),
        ("$.type[0]", ABSENT),
        ("$.object.none.deeper", ABSENT),
    ],
)
def test_value_at_a_path(text: str, value: object) -> None:
    assert compile_path(text, "key")(DOCUMENT) == value


@pytest.mark.parametrize(
    "text",
    [
        "",
        "object.id",
        " $.a",
        "$.",
        "$..a",
        "$.*",
        "$[*]",
        "$[1:2]",
        "$[?@.a]",
        "$['a','b']",
        "$.a ",
        "$.9a",
        "$.a-b",
        "$[01]",
        "$[-0]",
        "$[+1]",
        "$[1.0]",
        "$[9007199254740992]",
        "$[" + "9" * 9999 + "]",
        "$['a]",
        "$['a'",
        r"$['\x']",
        r"$['\ud83d']",
        r"$['\u12']",
        "$['a\nb']",
        r"""$['\"']""",
        "$[a]",
        "$a",
    ],
)
def test_other_queries_are_refused_with_the_place(text: str) -> None:
    with pytest.raises(DefinitionError) as refused:
        compile_path(text, "trigger 'x', debounce key")
    assert str(refused.value).startswith("trigger 'x', debounce key: ")
    assert len(str(refused.value)) < 500


@pytest.mark.parametrize("found", [None, 7, b"$.a", ["$.a"]])
def test_no_text_is_refused(found: object) -> None:
    with pytest.raises(DefinitionError, match="begins with"):
        compile_path(found, "key")


KEYS = st.text(st.characters(exclude_categories=["Cs"]), max_size=6)


@given(st.lists(KEYS | st.integers(-(2**53) + 1, 2**53 - 1), max_size=5))
def test_text_of_a_path_is_read_back(parts: list[str | int]) -> None:
    path = Path(tuple(parts))
    assert compile_path(str(path), "key") == path
