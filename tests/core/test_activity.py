"""How `type` and `actor` are read: what is accepted, what is rejected, with what words."""

from __future__ import annotations

import json
import os
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from triggerflow.core.activity import Activity, read_actors, read_types
from triggerflow.errors import ActivityRejected

DATA = Path(__file__).parents[2].parent / "shared" / "data"

A = "http://example.org/ann"
B = "http://example.org/bob"

NO_TYPE = "activity.type is missing, expected a non-empty string or a list of those"
NO_ACTOR = (
    "activity.actor is missing, expected an id string, an object with an `id`, "
    "or a list of those"
)
NO_ACTOR_ID = (
    "activity.actor.id is missing, expected a non-empty string, since an embedded actor "
    "counts by its `id`"
)


def examples(name: str) -> list[dict[str, Any]]:
    path = DATA / name
    if not path.exists():
        if os.environ.get("CI") == "true":
            pytest.fail(f"{name} is missing beside the checkout")
        pytest.skip(f"{name} is not beside the checkout")
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def words(document: object) -> str:
    """Say what `Activity.read` rejects the document with, or "" where it accepts."""
    try:
        Activity.read("bafy", document)
    except ActivityRejected as rejected:
        return str(rejected).removeprefix("activity rejected by triggerflow: ")
    return ""


@pytest.mark.parametrize(
    ("document", "types", "actors"),
    [
        ({"type": "Like", "actor": A}, ("Like",), (A,)),
        ({"type": ["Like", "x:Like"], "actor": A}, ("Like", "x:Like"), (A,)),
        ({"type": ["b", "a", "b"], "actor": A}, ("b", "a"), (A,)),
        ({"type": "Like", "actor": {"id": A, "type": "Person"}}, ("Like",), (A,)),
        ({"type": "Like", "actor": [B, {"id": A}]}, ("Like",), (B, A)),
        ({"type": "Like", "actor": [B, {"id": A}, A, {"id": B}]}, ("Like",), (B, A)),
        ({"type": " ", "actor": "ann"}, (" ",), ("ann",)),
    ],
)
def test_accepted_shapes(
    document: dict[str, Any], types: tuple[str, ...], actors: tuple[str, ...]
) -> None:
    """Every accepted shape becomes strings, in the document's order, each once."""
    before = json.dumps(document)
    activity = Activity.read("bafy", document)
    assert (activity.types, activity.actors) == (types, actors)
    assert (read_types(document), read_actors(document)) == (types, actors)
    assert activity.document is document
    assert json.dumps(document) == before


@pytest.mark.parametrize(
    ("document", "path", "found"),
    [
        ([], "activity", "an empty list"),
        ([{"type": "Like", "actor": A}], "activity", "a list"),
        (None, "activity", "null"),
        ("Like", "activity", "a string"),
        (b"", "activity", "a Python bytes"),
        ({}, "activity.type", "missing"),
        ({"@type": "Like", "actor": A}, "activity.type", "missing (its `@type` is not read)"),
        ({"type": None, "actor": A}, "activity.type", "null"),
        ({"type": "", "actor": A}, "activity.type", "an empty string"),
        ({"type": 16, "actor": A}, "activity.type", "the number 16"),
        ({"type": 10**5000, "actor": A}, "activity.type", "a huge number"),
        ({"type": 1.5, "actor": A}, "activity.type", "the number 1.5"),
        ({"type": False, "actor": A}, "activity.type", "false"),
        ({"type": {"id": "Like"}, "actor": A}, "activity.type", "an object"),
        ({"type": [], "actor": A}, "activity.type", "an empty list"),
        ({"type": ["Like", 3], "actor": A}, "activity.type[1]", "the number 3"),
        ({"type": ["Like", ""], "actor": A}, "activity.type[1]", "an empty string"),
        ({"type": [["Like"]], "actor": A}, "activity.type[0]", "a list"),
        ({"type": "Like"}, "activity.actor", "missing"),
        ({"type": "Like", "actor": None}, "activity.actor", "null"),
        ({"type": "Like", "actor": ""}, "activity.actor", "an empty string"),
        ({"type": "Like", "actor": 90}, "activity.actor", "the number 90"),
        ({"type": "Like", "actor": []}, "activity.actor", "an empty list"),
        ({"type": "Like", "actor": {}}, "activity.actor.id", "missing"),
        (
            {"type": "Like", "actor": {"@id": A}},
            "activity.actor.id",
            "missing (its `@id` is not read)",
        ),
        ({"type": "Like", "actor": {"id": ""}}, "activity.actor.id", "an empty string"),
        ({"type": "Like", "actor": {"id": [A]}}, "activity.actor.id", "a list"),
        ({"type": "Like", "actor": [A, {"name": "b"}]}, "activity.actor[1].id", "missing"),
        ({"type": "Like", "actor": [A, None]}, "activity.actor[1]", "null"),
        ({"type": "Like", "actor": [[A]]}, "activity.actor[0]", "a list"),
    ],
)
def test_rejected_shapes(document: object, path: str, found: str) -> None:
    """Every other shape is rejected, naming the path and what was found there."""
    with pytest.raises(ActivityRejected) as caught:
        Activity.read("bafy", document)
    assert (caught.value.path, caught.value.found) == (path, found)
    assert caught.value.expected
    assert caught.value.by == "triggerflow"


def test_the_w3c_examples() -> None:
    """Of the 141 W3C examples 20 are activities; each odd class has its words and its count."""
    lines = examples("activitystreams2-examples.jsonl")
    counts = Counter(words(line["document"]) for line in lines)
    assert counts == {
        "": 20,
        "activity is a list, expected an object with a `type` and an `actor`": 1,
        NO_TYPE: 9,
        NO_TYPE.replace("missing", "missing (its `@type` is not read)"): 1,
        NO_TYPE.replace("missing", "the number 16"): 1,
        NO_ACTOR: 89,
        NO_ACTOR_ID: 19,
        NO_ACTOR.replace("missing", "the number 90"): 1,
    }


@pytest.mark.parametrize(
    ("file", "types", "actors"),
    [
        (
            "core-ex20-jsonld.json",
            ("Like", "http://schema.org/LikeAction"),
            ("http://example.org/profiles/joe",),
        ),
        ("simple0023.json", ("Undo",), ("http://example.org/sally",)),
        (
            "vocabulary-ex61-jsonld.json",
            ("Offer",),
            ("http://joe.example.org", "http://sally.example.org"),
        ),
    ],
)
def test_w3c_examples_by_name(
    file: str, types: tuple[str, ...], actors: tuple[str, ...]
) -> None:
    """Types in a list, an embedded actor, and a mixed list of actors are read as they stand."""
    documents = {
        line["file"]: line["document"] for line in examples("activitystreams2-examples.jsonl")
    }
    activity = Activity.read("bafy", documents[file])
    assert (activity.types, sorted(activity.actors)) == (types, sorted(actors))


def test_the_github_webhooks() -> None:
    """Every one of the 164 webhook payloads is an activity with one type and one actor."""
    lines = examples("github-webhooks.jsonl")
    activities = [Activity.read("bafy", line) for line in lines]
    assert len(activities) == 164
    assert {(len(a.types), len(a.actors)) for a in activities} == {(1, 1)}


scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3)
anything = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["id", "type", "actor", "@id", "x"]), inner, max_size=4
        )
    ),
    max_leaves=12,
)
near_misses = st.fixed_dictionaries({}, optional={"type": anything, "actor": anything})


@given(anything | near_misses)
def test_no_json_value_crashes(document: object) -> None:
    """Any JSON value is either read into non-empty strings or rejected with words."""
    try:
        activity = Activity.read("bafy", document)
    except ActivityRejected as rejected:
        assert str(rejected)
        return
    for names in (activity.types, activity.actors):
        assert names
        assert all(isinstance(name, str) and name for name in names)
        assert len(set(names)) == len(names)


def test_deep_nesting_is_rejected_without_recursion() -> None:
    """An actor nested 100,000 lists deep is a rejected shape, not a crash."""
    deep: Any = A
    for _ in range(100_000):
        deep = [deep]
    assert words({"type": "Like", "actor": deep}).startswith("activity.actor[0] is a list")


def test_an_activity_can_be_hashed_and_compared() -> None:
    """Activities are values known by their CID: hashable though the document is a dict."""
    document = {"type": "Like", "actor": A}
    one, two = Activity.read("bafy", document), Activity.read("bafy", dict(document))
    assert one == two
    assert len({one, two}) == 1
    assert one != Activity.read("bafz", document)
