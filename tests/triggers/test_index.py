"""The index: who is asked about an activity, in what order, and what can't be registered."""

from __future__ import annotations

import time
from typing import Any

import attrs
import pytest

from triggerflow.core.activity import Activity
from triggerflow.errors import DuplicateTrigger
from triggerflow.triggers import Pattern, Trigger, TriggerIndex, define_trigger

ANN = "https://a.example/ann"


def trigger(name: str, on: Any, **parts: Any) -> Trigger:
    return define_trigger(name, on=on, start=parts.pop("start", name), **parts)


def activity(types: Any, actor: Any = ANN, **fields: Any) -> Activity:
    return Activity.read("bafy", {"type": types, "actor": actor, **fields})


def names(triggers: Any) -> list[str]:
    return [each.name for each in triggers]


def met(index: TriggerIndex, *types: str) -> list[str]:
    """The names of the triggers that an activity of these types meets."""
    return names(index.match(activity(list(types))))


def on_head(name: str, *on: str, **parts: Any) -> Trigger:
    """A trigger on types with a star at the end."""
    return attrs.evolve(trigger(name, "x", **parts), on=on)


def test_types_find_their_own() -> None:
    """A type finds its own triggers and those on every type, in order of registration."""
    index = TriggerIndex(
        [
            trigger("a", "Follow"),
            trigger("b", "*"),
            trigger("c", ["Like", "Follow"]),
            trigger("d", "Like"),
        ]
    )
    assert met(index, "Follow") == ["a", "b", "c"]
    assert met(index, "Like") == ["b", "c", "d"]
    assert met(index, "Like", "Follow") == ["a", "b", "c", "d"]
    assert met(index, "Undo") == ["b"]
    assert met(index, "*") == ["b"]
    assert met(index, "follow") == ["b"]


def test_without_stars_an_unknown_type_finds_none() -> None:
    """A type that nobody listens to costs nothing and finds nothing, "*" itself included."""
    index = TriggerIndex([trigger("a", "Follow")])
    assert met(index, "Like") == []
    assert met(index, "*") == []
    assert met(TriggerIndex(), "Like") == []


def test_a_star_at_the_end_takes_what_begins_so() -> None:
    """`com.github.*` takes every type that begins so, the beginning itself too."""
    index = TriggerIndex(
        [
            on_head("a", "com.github.*"),
            on_head("b", "com.*", "org.*"),
            trigger("c", "com.github.push"),
            trigger("d", "*"),
            on_head("e", "com.github.push*"),
        ]
    )
    assert met(index, "com.github.push") == ["a", "b", "c", "d", "e"]
    assert met(index, "com.github.pushed") == ["a", "b", "d", "e"]
    assert met(index, "com.github.") == ["a", "b", "d"]
    assert met(index, "com.github") == ["b", "d"]
    assert met(index, "org.x", "com.github.y") == ["a", "b", "d"]
    assert met(index, "com") == ["d"]
    # a star inside an activity's type is a character like any other
    assert met(index, "com.github.*") == ["a", "b", "d"]
    left = index.changed(removed=["b", "d"])
    assert met(left, "com.x") == []
    assert met(left, "com.github.x") == ["a"]


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


def test_namespaces_are_apart() -> None:
    """Equal triggers of many namespaces: an activity is held against those of its own alone."""
    index = TriggerIndex(
        trigger(f"{on}-{space}", on, start="f", match={"x": [1], "y": [1]}, namespace=space)
        for space in ("", *(f"tenant-{at}" for at in range(100)))
        for on in ("A", "A*", "*")
    )

    def found(space: str) -> list[str]:
        return names(index.match(attrs.evolve(activity("A", x=1, y=1), namespace=space)))

    assert found("") == ["A-", "A*-", "*-"]
    assert found("tenant-7") == ["A-tenant-7", "A*-tenant-7", "*-tenant-7"]
    assert found("tenant-x") == []
    left = index.changed(removed=["A-tenant-7", "A*-tenant-7", "*-"])
    inside = attrs.evolve(activity("AB", x=1, y=1), namespace="tenant-7")
    assert names(left.match(inside)) == ["*-tenant-7"]
    assert names(left.match(activity("AB", x=1, y=1))) == ["A*-"]


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
    assert met(index, "B", "A") == names(index)
    assert met(index, "B") == [
        *(f"t{at}" for at in range(20_000, 20_200) if at % 7 == 1),
        "every",
    ]


def test_values_keep_their_types() -> None:
    """1, "1" and true are three values, and 1.0 is 1, also where triggers are filed."""
    index = TriggerIndex(
        [
            trigger("number", "T", match={"x": [1]}),
            trigger("text", "T", match={"x": ["1"]}),
            trigger("truth", "T", match={"x": [True]}),
            trigger("nothing", "T", match={"x": [None]}),
        ]
    )

    def found(value: Any) -> list[str]:
        return names(index.match(activity("T", x=value)))

    assert found(1) == found(1.0) == ["number"]
    assert found("1") == ["text"]
    assert found(True) == ["truth"]
    assert found(None) == ["nothing"]
    assert found(0) == found(False) == found({}) == found([]) == []
    assert found([None, [[1], "1"]]) == ["number", "text", "nothing"]


def test_triggers_of_one_pattern_ask_it_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever shares a pattern, on several types too, costs one look at the document."""
    asked = []
    call = Pattern.__call__

    def counted(self: Pattern, document: object) -> bool:
        asked.append(self.text)
        return call(self, document)

    monkeypatch.setattr(Pattern, "__call__", counted)
    triggers = [
        trigger(f"t{at}", ["A", "B"] if at % 2 else ["A"], match={"x": [{"prefix": "y"}]})
        for at in range(100)
    ]
    index = TriggerIndex(triggers)
    assert len(index.match(activity(["A", "B"], x="yes"))) == 100
    assert len(asked) == 1
    assert index.match(activity(["A", "B"], x="no")) == []
    assert len(asked) == 1


def test_no_closure_is_built_before_it_is_needed() -> None:
    """A pattern that no document came near to costs no closures, nor one that is all found."""
    index = TriggerIndex(
        trigger(f"t{at}", "A", match={"x": [at], "y": ["same"]} if at < 8 else {"x": [at]})
        for at in range(10)
    )
    assert names(index.match(activity("A", x=3, y="same"))) == ["t3"]
    assert names(index.match(activity("A", x=9))) == ["t9"]
    assert [each.name for each in index if _is_built(each)] == ["t3"]


def _is_built(each: Trigger) -> bool:
    try:
        # not through attrs' getter, which would build it
        object.__getattribute__(each.match, "_test")
    except AttributeError:
        return False
    return True
