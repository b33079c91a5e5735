"""Triggers: their CIDs, their specs, and every refusal of a part that can't work."""

from __future__ import annotations

import base64
import functools
import hashlib
from collections.abc import AsyncIterator, Iterator
from datetime import timedelta
from typing import Any

import pytest

from triggerflow.errors import DefinitionError, PatternError, TriggerflowError
from triggerflow.triggers import Guard, Trigger, compile_pattern, compile_scope, define_trigger


def not_a_robot(document: dict[str, Any]) -> bool:
    return bool(document["actor"] != "robot")


def other(document: dict[str, Any]) -> bool:
    return bool(document)


async def later(document: dict[str, Any]) -> bool:
    return bool(document)


def stepwise(document: dict[str, Any]) -> Iterator[bool]:
    yield bool(document)


async def stream(document: dict[str, Any]) -> AsyncIterator[bool]:
    yield bool(document)


def of_two(document: dict[str, Any], more: int) -> bool:
    return bool(document) and bool(more)


def of_none() -> bool:
    return True


class Judge:
    def __call__(self, document: dict[str, Any]) -> bool:
        return bool(document)

    def method(self, document: dict[str, Any]) -> bool:
        return bool(document)


class LateJudge:
    async def __call__(self, document: dict[str, Any]) -> bool:
        return bool(document)


class Named:
    def __init__(self, name: object) -> None:
        self.name = name


FULL: dict[str, Any] = {
    "on": ["Follow", "Like"],
    "match": {"object": {"type": ["Person", "Group"]}},
    "actors": ["https://*.example/*", "acct:*@a.example"],
    "guard": not_a_robot,
    "start": "welcome",
}


def full(**changes: Any) -> Trigger:
    parts = {**FULL, **changes}
    return define_trigger(parts.pop("name", "welcome-follower"), **parts)


def test_a_whole_trigger() -> None:
    """All parts arrive, in normal form."""
    trigger = full()
    assert trigger.name == "welcome-follower"
    assert trigger.on == ("Follow", "Like")
    assert trigger.match == compile_pattern(FULL["match"])
    assert trigger.actors == compile_scope(FULL["actors"])
    assert trigger.guard == Guard("not_a_robot", 1, not_a_robot)
    assert trigger.guard is not None
    assert trigger.guard.fn is not_a_robot
    assert (trigger.start, trigger.version) == ("welcome", 1)


def test_the_spec() -> None:
    """The spec has what changes the meaning; what isn't used is left out."""
    assert full().spec() == {
        "name": "welcome-follower",
        "on": ["Follow", "Like"],
        "match": {"object": {"type": ["Group", "Person"]}},
        "actors": ["acct:*@a.example", "https://*.example/*"],
        "guard": "not_a_robot@1",
        "start": "welcome",
        "version": 1,
    }
    assert define_trigger("t", on="*", start="f").spec() == {
        "name": "t",
        "on": ["*"],
        "start": "f",
        "version": 1,
    }


def test_the_cid_is_pinned() -> None:
    """One spec has one CID for ever: a change here would fire the past again."""
    trigger = define_trigger("t", on="Follow", start="f")
    block = b"\xa4\x62on\x81\x66Follow\x64name\x61t\x65start\x61f\x67version\x01"
    cid = bytes.fromhex("01711220") + hashlib.sha256(block).digest()
    assert trigger.trigger_cid == "b" + base64.b32encode(cid).decode().lower().rstrip("=")
    assert trigger.trigger_cid == "bafyreidtsjxelbnkklemamdgusrcst7loal2iltjxxkggnspniaxrm64si"


@pytest.mark.parametrize(
    "changes",
    [
        {"on": ["Like", "Follow"]},
        {"on": ("Like", "Follow", "Like")},
        {"match": {"object": {"type": ["Group", "Person", "Group"]}}},
        {"match": compile_pattern({"object": {"type": ["Person", "Group"]}})},
        {"actors": ["acct:*@a.example", "HTTPS://*.EXAMPLE:443/*"]},
        {"actors": compile_scope(FULL["actors"])},
        {"guard": Guard("not_a_robot", 1, other)},
        {"guard": Guard("not_a_robot")},
        {"start": Named("welcome")},
        {"version": 1},
    ],
)
def test_what_means_the_same_has_the_same_cid(changes: dict[str, Any]) -> None:
    """Order, spelling and the code behind a guard's name don't move the CID."""
    assert full(**changes).trigger_cid == full().trigger_cid
    assert full(**changes) == full()


@pytest.mark.parametrize(
    "changes",
    [
        {"on": "Follow"},
        {"on": "*"},
        {"on": ["follow", "Like"]},
        {"match": None},
        {"match": {"object": {"type": ["Person"]}}},
        {"match": {"object": {"type": ["Person", "Group", 1]}}},
        {"match": {"object": {"type": ["Person", "Group", True]}}},
        {"match": {"object": {"type": ["Person", "Group", "1"]}}},
        {"actors": None},
        {"actors": ["https://*.example/*"]},
        {"guard": None},
        {"guard": other},
        {"guard": Guard("not_a_robot", 2, not_a_robot)},
        {"start": "goodbye"},
        {"version": 2},
    ],
)
def test_what_means_something_else_has_another_cid(changes: dict[str, Any]) -> None:
    """Every field that changes the meaning moves both CIDs."""
    assert full(**changes).trigger_cid != full().trigger_cid
    assert full(**changes).meaning_cid != full().meaning_cid
    assert full(**changes) != full()


def test_the_name_moves_the_cid_and_not_the_meaning() -> None:
    """A renamed trigger is another one, but means the same."""
    assert full(name="b").trigger_cid != full().trigger_cid
    assert full(name="b").meaning_cid == full().meaning_cid


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"match": None, "actors": None, "guard": None, "on": "*"},
        {"version": 7, "guard": Guard("g", 12)},
        {"match": {"a.b": [1, 0.5, None, True, "1", 2**60], "ü": {"x": [""]}}},
    ],
)
def test_from_spec_round_trip(changes: dict[str, Any]) -> None:
    """A stored spec gives the trigger back, with its CID, and the guard by name."""
    trigger = full(**changes)
    again = Trigger.from_spec(trigger.spec())
    assert again == trigger
    assert again.trigger_cid == trigger.trigger_cid
    assert again.guard is None or again.guard.fn is None


def test_from_spec_takes_the_guards_code() -> None:
    """Where the process knows the guard, the rebuilt trigger has it."""
    again = Trigger.from_spec(full().spec(), guard_fn=other)
    assert again.guard is not None
    assert again.guard.fn is other


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"debounce": {"period": 5}}, "unknown fields: debounce"),
        ({"name": ...}, "missing fields: name"),
        ({"start": ...}, "missing fields: start"),
        ({"guard": "no_version"}, "is not name@version"),
        ({"guard": "g@0"}, "is not name@version"),
        ({"guard": "g@-1"}, "is not name@version"),
        ({"guard": "g@01"}, "is not name@version"),
        ({"guard": "g@"}, "is not name@version"),
        ({"guard": "g@" + "9" * 5000}, "no sensible version"),
        ({"guard": "@1"}, "non-empty string"),
        ({"guard": 7}, "is not name@version"),
        ({"version": "1"}, "version"),
        ({"on": "F*l"}, "at the end of a type only"),
        ({"match": {"a": 1}}, "match.a"),
    ],
)
def test_from_spec_refuses(change: dict[str, Any], words: str) -> None:
    """A spec of another version, or a damaged one, is refused by field."""
    spec = {**full().spec(), **change}
    spec = {field: value for field, value in spec.items() if value is not ...}
    with pytest.raises(TriggerflowError) as caught:
        Trigger.from_spec(spec)
    assert words in str(caught.value)


def test_from_spec_refuses_what_is_no_spec() -> None:
    """Only a dict is a spec, and code for a guard that isn't there is a mistake."""
    with pytest.raises(DefinitionError, match="found list"):
        Trigger.from_spec([])
    with pytest.raises(DefinitionError, match="has no guard"):
        Trigger.from_spec(full(guard=None).spec(), guard_fn=other)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"on": []}, "on=[] is not an activity type"),
        ({"on": None}, "on=None is not an activity type"),
        ({"on": {"Follow"}}, "is not an activity type"),
        ({"on": ""}, "expected a non-empty string"),
        ({"on": ["Follow", 3]}, "on has 3"),
        ({"on": "Fol*low"}, "on has 'Fol*low', and a `*` stands at the end of a type only"),
        ({"on": "Follow**"}, "on has 'Follow**'"),
        ({"on": ["Like", "*low"]}, "on has '*low'"),
        ({"on": ["*", "Follow"]}, "'Follow' beside '*', which covers it"),
        ({"on": ["Fol*", "Follow"]}, "'Follow' beside 'Fol*', which covers it"),
        ({"on": ["Fol*", "F*"]}, "'Fol*' beside 'F*', which covers it"),
        ({"on": "\ud800"}, "its spec can't be encoded"),
        ({"actors": []}, "actors: the list is empty"),
        ({"actors": ["https://a.example/**"]}, "actors glob 'https://a.example/**'"),
        ({"start": None}, "start: is a NoneType, expected a flow"),
        ({"start": not_a_robot}, "start: is the function 'not_a_robot', expected a flow"),
        ({"start": Named(7)}, "expected a flow"),
        ({"start": ""}, "non-empty string"),
        ({"start": "a\nb"}, "control characters"),
        ({"version": 0}, "its version is not an integer from 1 up"),
        ({"version": True}, "its version is not an integer"),
        ({"version": 1.0}, "its version is not an integer"),
        ({"version": 2**63}, "its version is not an integer"),
        ({"guard": lambda document: document}, "its guard is a lambda"),
        ({"guard": functools.partial(of_two, more=1)}, "which has no plain name"),
        ({"guard": Judge()}, "which has no plain name"),
        ({"guard": bool}, "which has no plain name"),
        ({"guard": "not_a_robot"}, "which has no plain name"),
        ({"guard": later}, "guard 'later': it is a coroutine function"),
        ({"guard": stream}, "guard 'stream': it is a coroutine function"),
        ({"guard": stepwise}, "guard 'stepwise': it is a generator function"),
        ({"guard": of_two}, "guard 'of_two': it can't be called with one argument"),
        ({"guard": of_none}, "guard 'of_none': it can't be called with one argument"),
    ],
)
def test_refused_parts(changes: dict[str, Any], words: str) -> None:
    """A part that can't work is refused at definition, naming the trigger and the part."""
    with pytest.raises(DefinitionError) as caught:
        full(**changes)
    assert "trigger 'welcome-follower'" in str(caught.value)
    assert words in str(caught.value)


@pytest.mark.parametrize("name", ["", " ", " a", "a ", "a\x00", "a\nb", "\ud800", None, 7])
def test_refused_names(name: Any) -> None:
    """A name is non-empty printable text, since it is shown, stored and typed."""
    with pytest.raises(DefinitionError, match="a name "):
        define_trigger(name, on="*", start="f")


def test_a_bad_pattern_names_path_and_trigger() -> None:
    """A pattern's error keeps its path and says which trigger has it."""
    with pytest.raises(PatternError) as caught:
        full(match={"object": {"type": "Person"}})
    assert caught.value.path == "match.object.type"
    assert "trigger 'welcome-follower'" in str(caught.value)


def test_a_spec_too_large_is_refused_at_once() -> None:
    """A trigger that no store could hold fails at definition, by name."""
    with pytest.raises(DefinitionError, match="trigger 'welcome-follower': its spec can't be"):
        full(match={"a": ["x" * 2_000_000]})


@pytest.mark.parametrize(
    ("name", "version", "fn", "words"),
    [
        ("", 1, other, "non-empty string"),
        ("a@b", 1, other, "no `@`"),
        ("g", 0, other, "version"),
        ("g", 1, 7, "expected a function"),
        ("g", 1, LateJudge(), "coroutine function"),
        ("g", 1, functools.partial(later), "coroutine function"),
    ],
)
def test_refused_guards(name: str, version: int, fn: Any, words: str) -> None:
    """An explicit guard is checked like a bare function."""
    with pytest.raises(DefinitionError) as caught:
        Guard(name, version, fn)
    assert words in str(caught.value)


@pytest.mark.parametrize(
    "fn",
    [lambda document: document, functools.partial(of_two, more=1), Judge(), bool, len],
)
def test_an_explicit_guard_may_be_any_callable(fn: Any) -> None:
    """With a name and a version of its own, a lambda or a partial will do."""
    guard = full(guard=Guard("g", 3, fn)).guard
    assert guard is not None
    assert (guard.key, guard.fn) == ("g@3", fn)


def test_a_method_has_a_plain_name() -> None:
    """A bound method is known by its own name, without its class."""
    guard = full(guard=Judge().method).guard
    assert guard is not None
    assert guard.key == "method@1"


# --- what a trigger does, and to whom

MORE: dict[str, Any] = {
    "input": {"who.$": "$.actor", "n": [1.0, None]},
    "key": ["$.object.id", "$$.source"],
    "dedup": {"key": "$.id", "window": 60, "across_versions": True},
    "namespace": "shop",
    "max_depth": 0,
}


def test_the_spec_of_more() -> None:
    """Each field that is used is in the spec, in normal form."""
    trigger = define_trigger("t", on="a.b.*", start="f", **MORE)
    assert trigger.spec() == {
        "name": "t",
        "on": ["a.b.*"],
        "start": "f",
        "version": 1,
        "input": {"who.$": "$.actor", "n": [1.0, None]},
        "key": ["$.object.id", "$$.source"],
        "dedup": {"key": "$.id", "window": 60, "across_versions": True},
        "namespace": "shop",
        "max_depth": 0,
    }
    assert Trigger.from_spec(trigger.spec()) == trigger
    signal = {"flow": "f", "key": "$.id", "name": "go", "payload": "$.x"}
    for action in ({"signal": signal}, {"cancel": {"flow": "f", "key": "$.id"}}):
        spec = define_trigger("t", on="T", **action).spec()
        assert spec == {"name": "t", "on": ["T"], "version": 1, **action}
        assert Trigger.from_spec(spec).spec() == spec


@pytest.mark.parametrize("field", MORE)
def test_each_field_moves_the_cids(field: str) -> None:
    """What changes the meaning is covered, field by field."""
    whole = define_trigger("t", on="T", start="f", **MORE)
    parts = {name: value for name, value in MORE.items() if name != field}
    less = define_trigger("t", on="T", start="f", **parts)
    assert less.trigger_cid != whole.trigger_cid
    assert less.meaning_cid != whole.meaning_cid


def test_one_form_for_one_meaning() -> None:
    """Spellings of paths, durations and scopes don't move the CID."""
    one = define_trigger("t", on="T", start="f", dedup=["$['id']"], key=["$.k"])
    two = define_trigger(
        "t",
        on="T",
        start=Named("f"),
        dedup={"key": "$.id", "across_versions": False},
        key="$.k",
    )
    assert one.trigger_cid == two.trigger_cid
    hour = define_trigger("t", on="T", start="f", dedup={"key": "$.id", "window": 3600.0})
    again = define_trigger(
        "t", on="T", start="f", dedup={"key": "$.id", "window": timedelta(hours=1)}
    )
    assert hour.trigger_cid == again.trigger_cid
    assert (
        define_trigger("t", on="T", start="f", actors={"in": ["a"]}).trigger_cid
        == define_trigger("t", on="T", start="f", actors="a").trigger_cid
    )


@pytest.mark.parametrize(
    ("parts", "words"),
    [
        ({}, "start: is a NoneType"),
        ({"start": "f", "cancel": {"flow": "f", "key": "$.a"}}, "has start and cancel"),
        ({"cancel": {"flow": "f", "key": "$.a"}, "input": "$.a"}, "has input= beside cancel="),
        ({"signal": {"flow": "f", "key": "$.a"}}, "signal: has no name"),
        ({"signal": {"flow": "f", "name": "n"}}, "signal: has no key"),
        ({"signal": {"flow": "f", "key": "$.a", "name": ""}}, "signal.name"),
        ({"signal": "go"}, "signal: found str, expected a dict"),
        ({"cancel": {"flow": 7, "key": "$.a"}}, "cancel.flow: is a int"),
        ({"cancel": {"flow": "f", "key": "a"}}, "cancel.key: 'a' is not a path"),
        ({"cancel": {"flow": "f", "key": "$.a", "name": "x"}}, "unknown fields: name"),
        ({"start": "f", "key": []}, "key: the list of paths is empty"),
        ({"start": "f", "input": "actor"}, "input: 'actor' is not a path"),
        ({"start": "f", "namespace": None}, "namespace=None"),
        ({"start": "f", "namespace": " x"}, "no spaces at its ends"),
        ({"start": "f", "max_depth": -1}, "max_depth is -1"),
        ({"start": "f", "max_depth": True}, "max_depth is True"),
        ({"start": "f", "max_depth": 33}, "from 0 to 32"),
        ({"start": "f", "guard": "big@x"}, "is not name@version"),
    ],
)
def test_refused_actions(parts: dict[str, Any], words: str) -> None:
    """An action that can't work is refused, naming the trigger and the part."""
    with pytest.raises(DefinitionError) as caught:
        define_trigger("t", on="T", **parts)
    assert "trigger 't'" in str(caught.value)
    assert words in str(caught.value)
