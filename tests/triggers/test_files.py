"""Triggers in files: read, refused with file, line and name, and written back alike."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from triggerflow.core.admission import Control, Debounce
from triggerflow.core.retry import RetryPolicy
from triggerflow.errors import DefinitionError
from triggerflow.triggers import Delivery, Guard, Trigger, define_trigger
from triggerflow.triggers.files import read_file, read_text, write_json, write_toml

TOML = """
# what comes in
[[trigger]]
name = "welcome-follower"
on = ["Follow", "com.github.*"]
match = {object = {type = ["Person"]}}
actors = {in = ["https://*.example/*"], not_in = ["https://bad.example/*"]}
guard = "grown_up@2"
start = "welcome"
key = "$.object.id"
dedup = {key = ["$.object.id"], window = 3600, across_versions = true}
max_depth = 3
namespace = "shop"
retry = {max_attempts = 5, initial = 0.5}
dead_letter = "bury"

[trigger.control.debounce]
period = 60
key = ["$.object.id", "$.actor"]
max_wait = 600.5
collect = "all"

[trigger.control.concurrency]
limit = 2

[trigger.input]
"who.$" = "$.actor"
kind = "new"

[[trigger]]
name = "answer"
version = 4
on = "Accept"
match = '{"object": [null, {"exists": false}]}'
signal = {flow = "request", key = "$.object", name = "answer", payload = "$.actor"}

[[trigger]]
name = "undo"
on = "Undo"
cancel = {flow = "request", key = "$.object"}
"""
GUARDS = {"grown_up@2": Guard("grown_up", 2, lambda document: True)}


def test_a_file_of_triggers(tmp_path: Path) -> None:
    """All fields arrive as in code, the guard with its function."""
    path = tmp_path / "triggers.toml"
    path.write_text(TOML)
    welcome, answer, undo = read_file(path, GUARDS)
    assert welcome == define_trigger(
        "welcome-follower",
        on=["Follow", "com.github.*"],
        match={"object": {"type": ["Person"]}},
        actors={"in": ["https://*.example/*"], "not_in": ["https://bad.example/*"]},
        guard=GUARDS["grown_up@2"],
        start="welcome",
        key="$.object.id",
        dedup={"key": "$.object.id", "window": 3600, "across_versions": True},
        max_depth=3,
        namespace="shop",
        input={"who.$": "$.actor", "kind": "new"},
        retry=RetryPolicy(5, initial=0.5),
        dead_letter="bury",
        control=Control(
            debounce=Debounce(
                60, key=["$.object.id", "$.actor"], max_wait=600.5, collect="all"
            ),
            concurrency=2,
        ),
    )
    assert welcome.guard is not None
    assert welcome.guard.fn is GUARDS["grown_up@2"].fn
    assert answer.version == 4
    assert answer.signal is not None
    assert undo.cancel is not None


@pytest.mark.parametrize("toml", [True, False])
def test_what_is_written_comes_back_alike(toml: bool) -> None:
    """Export, in TOML or JSON, loads to equal CIDs."""
    first = read_text(TOML, "a.toml", GUARDS, toml=True)
    text = write_toml(first) if toml else json.dumps(write_json(first))
    again = read_text(text, "b", GUARDS, toml=toml)
    assert [each.trigger_cid for each in again] == [each.trigger_cid for each in first]
    assert [each.delivery for each in again] == [each.delivery for each in first]
    assert again == first


texts = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=8)
leaves = st.one_of(
    texts, st.booleans(), st.none(), st.integers(-(2**63), 2**63 - 1), st.floats(-1e6, 1e6)
)
values = st.recursive(
    leaves,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(texts.filter(lambda key: not key.endswith(".$")), values, max_size=4))
def test_any_constant_comes_back_alike(constants: dict[str, Any]) -> None:
    """Whatever JSON a mapping holds, odd keys and control characters too, survives a file."""
    try:
        trigger = define_trigger("t", on="T", start="f", input=constants)
    except DefinitionError:
        return
    for toml in (True, False):
        text = write_toml([trigger]) if toml else json.dumps(write_json([trigger]))
        (again,) = read_text(text, "file", {}, toml=toml)
        assert again.trigger_cid == trigger.trigger_cid


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[[trigger]]\nname = 'a'\nstart = 'f'", ["t.toml:1: trigger 'a'", "no name or no on"]),
        ("x = 1", ["holds 'x', expected [[trigger]] tables alone"]),
        ("", ["holds nothing"]),
        ("[[trigger]\n", ["is no TOML", "line 1"]),
        (
            "\n[[trigger]]\nname='a'\non='T'\nstart='f'\n\n[[trigger]]\nname='a'\non='U'\nstart='g'",
            ["t.toml:7: trigger 'a': is there twice, first at t.toml:2"],
        ),
        ("[[trigger]]\nname='a'\non='T'\nstrat='f'", ["'strat'", "did you mean 'start'?"]),
        ("[[trigger]]\nname='a'\non='T'", ["does nothing"]),
        (
            "[[trigger]]\nname='a'\non='T'\nstart='f'\nretry={max_attempts=2, every=1}",
            ["trigger 'a'", "retry", "unknown fields: every", "it has max_attempts"],
        ),
        (
            "[[trigger]]\nname='a'\non='T'\nstart='f'\nretry={max_attempts='2'}",
            ["trigger 'a'", "max_attempts is '2'"],
        ),
        (
            "[[trigger]]\nname='a'\non='T'\nstart='f'\ncontrol={batch={size=2}}",
            ["trigger 'a'", "batch", "missing: wait"],
        ),
        (
            "[[trigger]]\nname='a'\non='T'\ncontrol={priority=1}\ncancel={flow='f',key='$.a'}",
            ["trigger 'a'", "has control= beside cancel=", "leave it out"],
        ),
        (
            "[[trigger]]\nname='a'\non='T'\nstart='f'\ncancel={flow='f',key='$.a'}",
            ["one of them"],
        ),
        ("[[trigger]]\non='T'\nstart='f'", ["t.toml:1: trigger 1: has no name"]),
        (
            "[[trigger]]\nname='a'\non='T'\nstart='f'\nguard='grown_upp@2'",
            ["its guard 'grown_upp@2' is not registered", "did you mean grown_up@2?"],
        ),
        ("[[trigger]]\nname='a'\non='T'\nstart='f'\nguard=7", ["7 is not name@version"]),
        ("[[trigger]]\nname='a'\non='T'\nstart='f'\nmatch={a=1}", ["trigger 'a'", "match.a"]),
        ("[[trigger]]\nname='a'\non='T'\nstart='f'\nmatch='{'", ["trigger 'a', match", "JSON"]),
        ("[[trigger]]\nname='a'\non='T'\nstart='f'\ninput={a=1979-05-27}", ["found date"]),
        (
            "[[trigger]]\nname='a'\non='T'\nstart='f'\ninput={a=nan}",
            ["trigger 'a'", "found nan"],
        ),
        ("trigger = [1]", ["trigger 1: found int"]),
        ("trigger = {name = 'a'}", ["expected [[trigger]] tables"]),
    ],
)
def test_refused_files(text: str, words: list[str]) -> None:
    """Each mistake is told with file, line and trigger, as far as they are known."""
    with pytest.raises(DefinitionError) as caught:
        read_text(text, "t.toml", GUARDS, toml=True)
    for each in words:
        assert each in str(caught.value)


def test_all_mistakes_are_told_at_once() -> None:
    """Whoever mends a file sees every trigger that can't work."""
    text = "".join(f"[[trigger]]\nname='t{n}'\non=7\nstart='f'\n" for n in range(3))
    with pytest.raises(DefinitionError, match="3 of 3 triggers can't work") as caught:
        read_text(text, "t.toml", {}, toml=True)
    assert [f"t.toml:{line}" in str(caught.value) for line in (1, 5, 9)] == [True] * 3


def test_json_files_have_lines_too() -> None:
    """In JSON the line is that of the name, where it is there once."""
    text = '{"trigger": [\n{"name": "a", "on": "T", "start": "f"},\n{"name": "b", "on": 7}]}'
    with pytest.raises(DefinitionError, match=r"t.json:3: trigger 'b'"):
        read_text(text, "t.json", {}, toml=False)
    with pytest.raises(DefinitionError, match="is no JSON"):
        read_text('{"trigger": [], "trigger": []}', "t.json", {}, toml=False)


def test_bombs_are_refused(tmp_path: Path) -> None:
    """Deep nesting, and bytes that are no text, are errors and nothing worse."""
    for text, toml in (("a = " + "[" * 50_000, True), ('{"trigger": ' + "[" * 50_000, False)):
        with pytest.raises(DefinitionError, match="is no"):
            read_text(text, "t", {}, toml=toml)
    path = tmp_path / "t.toml"
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DefinitionError, match="can't be read"):
        read_file(path, {})
    with pytest.raises(DefinitionError, match="can't be read"):
        read_file(tmp_path / "nowhere.toml", {})


def test_a_spec_round_trip_of_all_fields() -> None:
    """What a store gives back is the trigger, field by field."""
    for trigger in read_text(TOML, "t", GUARDS, toml=True):
        again = Trigger.from_spec(trigger.spec())
        assert attrs.evolve(again, delivery=trigger.delivery) == trigger
        assert Delivery.decoded(trigger.delivery.encoded()) == trigger.delivery
        assert again.trigger_cid == trigger.trigger_cid
