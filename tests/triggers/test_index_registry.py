"""Real activities through large registries of generated triggers: the same as asking each.

The triggers are drawn from the documents themselves: 70 % ask for equality, the others use
every other operator. `benchmarks/matching.py check` does the same with 100,000.
"""

from __future__ import annotations

import importlib.util
import json
import os
from collections import Counter
from pathlib import Path
from types import ModuleType
from typing import Any

import attrs
import pytest

from triggerflow.core.activity import Activity
from triggerflow.errors import ActivityRejected, PatternError
from triggerflow.triggers import Trigger, TriggerIndex, define_trigger

ROOT = Path(__file__).parents[2]
DATA = ROOT.parent / "shared" / "data"
COUNT = int(os.environ.get("TRIGGERFLOW_INDEX_TRIGGERS", "4000"))


@pytest.fixture(scope="module")
def sets() -> ModuleType:
    """The benchmarks' generator of triggers."""
    file = ROOT / "benchmarks" / "trigger_sets.py"
    spec = importlib.util.spec_from_file_location("trigger_sets", file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def sample() -> list[dict[str, Any]]:
    """A few activities of many shapes, for where the real ones aren't at hand."""
    person = {"type": "Person", "id": "https://a.example/ann", "ip": "10.1.2.3", "score": 4.5}
    return [
        {
            "type": kind,
            "actor": f"https://a.example/{at}",
            "object": {
                "action": ["opened", "closed", "labeled"][at % 3],
                "number": at * 7,
                "draft": at % 2 == 0,
                "milestone": None if at % 5 else "v1.0",
                "labels": [{"name": f"label-{n}", "color": f"{n:06x}"} for n in range(at % 4)],
                "sender": person | {"login": f"Ann-{at}", "ip": f"10.{at}.2.3"},
                "tags": ["a", ["b", ["Straße"]], []],
            },
        }
        for at in range(30)
        for kind in (f"github.issues.{at % 4}", "Create")
    ]


def documents() -> list[dict[str, Any]]:
    """The webhooks and the ActivityStreams examples, as far as they are beside the checkout."""
    found = []
    for name in ("github-webhooks.jsonl", "activitystreams2-examples.jsonl"):
        if (DATA / name).exists():
            lines = (DATA / name).read_text("utf-8").splitlines()
            found += [json.loads(line) for line in lines]
    return [each.get("document", each) for each in found] or sample()


def activities(given: list[Any]) -> list[Activity]:
    found = []
    for at, each in enumerate(given):
        try:
            found.append(Activity.read(f"cid-{at}", each))
        except ActivityRejected:
            continue
    return found


def drawn(sets: ModuleType, kind: str, given: list[Activity]) -> list[Trigger]:
    """Triggers of a set; of some the type is widened to its beginning."""
    found = []
    for at, each in enumerate(sets.Sets([one.document for one in given]).draw(kind, COUNT)):
        try:
            made = define_trigger(start="flow", **each)
        except PatternError:
            continue
        first = made.on[0]
        wide = at % 20 == 0 and "." in first
        found.append(
            attrs.evolve(made, on=(first[: first.rindex(".") + 1] + "*",)) if wide else made
        )
    return found


@pytest.mark.parametrize("kind", ["mixed", "dense", "selective"])
def test_the_same_matches_as_asking_every_trigger(sets: ModuleType, kind: str) -> None:
    """Every document meets the same triggers, in the same order, as asked one by one."""
    given = activities(documents()) + activities(sample())[:10]
    triggers = drawn(sets, kind, given)
    index = TriggerIndex(triggers)
    by_type: dict[str, list[int]] = {}
    for at, each in enumerate(triggers):
        for name in each.on:
            by_type.setdefault(name, []).append(at)
    met = 0
    for activity in given:
        near = {
            at
            for name, filed in by_type.items()
            if name in activity.types
            or (name[-1] == "*" and any(each.startswith(name[:-1]) for each in activity.types))
            for at in filed
        }
        expected = [
            triggers[at].name
            for at in sorted(near)
            if (match := triggers[at].match) is None or match(activity.document)
        ]
        assert [each.name for each in index.match(activity)] == expected
        met += len(expected)
    assert met > len(given) / 4


def test_the_sets_use_every_operator(sets: ModuleType) -> None:
    """70 % of the triggers ask for equality only; the others have all there is."""
    triggers = drawn(sets, "mixed", activities(sample()))
    used = Counter(
        frozenset(
            type(operator).__name__
            for leaf in each.match.conditions.every_leaf()
            for operator in leaf.any_of
        )
        for each in triggers
        if each.match is not None
    )
    assert 0.6 < used[frozenset({"Equals"})] / len(triggers) < 0.8
    assert frozenset().union(*used) == {
        *("Absent", "AnythingBut", "Equals", "EqualsIgnoreCase", "Exists", "InNetwork"),
        *("Numeric", "Prefix", "Suffix", "Wildcard"),
    }
    assert any(each.match.conditions.choices for each in triggers if each.match)
