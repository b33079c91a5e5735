"""The index: who is asked about an activity, in what order, and what can't be registered."""

from __future__ import annotations

import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from triggerflow.core.activity import Activity
from triggerflow.errors import DuplicateTrigger
from triggerflow.triggers import Trigger, TriggerIndex, define_trigger

ANN = "https://a.example/ann"


def trigger(name: str, on: Any, **parts: Any) -> Trigger:
    return define_trigger(name, on=on, start=parts.pop("start", name), **parts)


def activity(types: Any, actor: Any = ANN, **fields: Any) -> Activity:
    return Activity.read("bafy", {"type": types, "actor": actor, **fields})


def names(triggers: Any) -> list[str]:
    return [each.name for each in triggers]


def test_candidates_by_type() -> None:
    """A type finds its own triggers and those on every type, in order of registration."""
    index = TriggerIndex(
        [
            trigger("a", "Follow"),
            trigger("b", "*"),
            trigger("c", ["Like", "Follow"]),
            trigger("d", "Like"),
        ]
    )
    assert names(index.candidates(["Follow"])) == ["a", "b", "c"]
    assert names(index.candidates(["Like"])) == ["b", "c", "d"]
    assert names(index.candidates(["Like", "Follow"])) == ["a", "b", "c", "d"]
    assert names(index.candidates(["Undo"])) == ["b"]
    assert names(index.candidates(["*"])) == ["b"]
    assert names(index.candidates(["follow"])) == ["b"]
    assert names(index.candidates([])) == ["b"]


def test_without_stars_an_unknown_type_finds_none() -> None:
    """A type that nobody listens to costs nothing and finds nothing, "*" itself included."""
    index = TriggerIndex([trigger("a", "Follow")])
    assert names(index.candidates(["Like"])) == []
    assert names(index.candidates(["*"])) == []
    assert names(TriggerIndex().candidates(["Like"])) == []


def test_match_asks_type_pattern_and_scope() -> None:
    """All three must hold; each alone keeps a trigger away."""
    index = TriggerIndex(
        [
            trigger("type", "Follow"),
            trigger("pattern", "*", match={"object": {"type": ["Person"]}}),
            trigger("scope", "*", actors="https://a.example/*"),
            trigger(
                "all",
                "Follow",
                match={"object": {"type": ["Person"]}},
                actors="https://a.example/*",
            ),
        ]
    )
    person = {"type": "Person"}
    assert names(index.match(activity("Follow", object=person))) == [
        "type",
        "pattern",
        "scope",
        "all",
    ]
    assert names(index.match(activity("Like", object=person))) == ["pattern", "scope"]
    assert names(index.match(activity("Follow", object="x"))) == ["type", "scope"]
    elsewhere = activity("Follow", "https://evil.com/ann", object=person)
    assert names(index.match(elsewhere)) == ["type", "pattern"]
    both = activity("Follow", [ANN, "https://evil.com/ann"], object=person)
    assert names(index.match(both)) == ["type", "pattern"]


def test_match_runs_no_guard() -> None:
    """A guard that raises isn't the index's business: the pipeline runs it."""

    def raises(document: dict[str, Any]) -> bool:
        raise AssertionError(document)

    index = TriggerIndex([trigger("a", "Follow", guard=raises)])
    assert names(index.match(activity("Follow"))) == ["a"]


def test_one_name_twice_is_refused() -> None:
    """Two triggers of one name are refused, whatever they mean, even one object given twice."""
    one = trigger("a", "Follow")
    for two in (trigger("a", "Like"), trigger("a", "Follow"), one):
        with pytest.raises(DuplicateTrigger) as caught:
            TriggerIndex([one, trigger("b", "Undo"), two])
        assert (caught.value.first, caught.value.second) == ("a", "a")
        assert "one name is registered twice" in str(caught.value)


def test_one_meaning_twice_is_refused() -> None:
    """Two triggers that differ in nothing but the name are refused, naming both."""
    parts: dict[str, Any] = {"match": {"x": [1]}, "start": "f"}
    one = trigger("a", ["Like", "Follow"], **parts)
    two = trigger("b", ["Follow", "Like"], **{**parts, "match": {"x": [1.0]}})
    with pytest.raises(DuplicateTrigger) as caught:
        TriggerIndex([one, trigger("c", "*"), two])
    assert (caught.value.first, caught.value.second) == ("a", "b")
    assert "'a'" in str(caught.value)
    assert "'b'" in str(caught.value)


def test_near_twins_are_welcome() -> None:
    """Another version, flow or value (1 and True too) makes another trigger."""
    index = TriggerIndex(
        [
            trigger("a", "Like", start="f"),
            trigger("b", "Like", start="f", version=2),
            trigger("c", "Like", start="g"),
            trigger("d", "Like", start="f", match={"x": [1]}),
            trigger("e", "Like", start="f", match={"x": [True]}),
        ]
    )
    assert len(index) == 5


def test_it_lists_what_it_holds() -> None:
    """An index is iterated in order of registration and asked by name."""
    triggers = [trigger("b", "Like"), trigger("a", "Follow")]
    index = TriggerIndex(iter(triggers))
    assert list(index) == triggers
    assert index.get("a") is triggers[1]
    assert index.get("z") is None


TYPES = ["A", "B", "C", "*"]
type_lists = st.just(["*"]) | st.lists(st.sampled_from(TYPES[:3]), min_size=1, max_size=3)


@given(
    st.lists(type_lists, max_size=8), st.lists(st.sampled_from(TYPES), min_size=1, max_size=4)
)
def test_candidates_equal_a_plain_scan(listening: list[list[str]], types: list[str]) -> None:
    """The index finds what asking every trigger in turn would find."""
    triggers = [trigger(f"t{at}", on) for at, on in enumerate(listening)]
    expected = [each for each in triggers if each.on == ("*",) or set(each.on) & set(types)]
    assert list(TriggerIndex(triggers).candidates(types)) == expected


def test_a_thousand_triggers() -> None:
    """A thousand triggers are defined and indexed in well under a second or two."""
    start = time.perf_counter()
    triggers = [
        trigger(f"t{at}", f"type.{at % 50}", match={"x": [at]}, actors="https://*.example/*")
        for at in range(1_000)
    ]
    index = TriggerIndex(triggers)
    assert time.perf_counter() - start < 3
    found = index.match(activity("type.7", "https://b.example/x", x=107))
    assert names(found) == ["t107"]


def test_order_holds_over_many_triggers() -> None:
    """Merged lists come in order of registration, also where a set's own order differs."""
    triggers = [trigger(f"t{at}", "B" if at % 7 == 1 else "A") for at in range(20_000, 20_200)]
    index = TriggerIndex([*triggers, trigger("every", "*")])
    assert list(index.candidates(["B", "A"])) == list(index)
    found = names(index.candidates(["B"]))
    assert found == [*(f"t{at}" for at in range(20_000, 20_200) if at % 7 == 1), "every"]
