"""The registry: flows by name, versions side by side."""

from __future__ import annotations

from typing import Any

import pytest

from triggerflow.errors import DefinitionError, UnknownFlow
from triggerflow.flows import FlowRegistry, define_flow


def one(activity: Any) -> Any:
    yield activity


def other(activity: Any) -> Any:
    yield activity, 2


@pytest.fixture
def flows() -> FlowRegistry:
    return FlowRegistry()


def test_versions_live_side_by_side(flows: FlowRegistry) -> None:
    """Each version is found by its number; without one, the latest, whatever the order."""
    made = {version: define_flow(one, name="f", version=version) for version in (2, 10, 1)}
    for each in made.values():
        flows.add(each)
    assert [flows.get("f", version) for version in (1, 2, 10)] == [made[1], made[2], made[10]]
    assert flows.get("f") is made[10]
    assert flows.find("f") is made[10]
    assert len(flows) == 3


def test_a_flow_added_twice_counts_once(flows: FlowRegistry) -> None:
    """Registering one object again is harmless."""
    made = define_flow(one)
    flows.add(made)
    flows.add(made)
    assert list(flows) == [made]


def test_two_functions_of_one_name_and_version(flows: FlowRegistry) -> None:
    """A taken name and version is refused: both places are named, and the first stays."""
    first, second = define_flow(one, name="f"), define_flow(other, name="f")
    flows.add(first)
    with pytest.raises(DefinitionError) as caught:
        flows.add(second)
    text = str(caught.value)
    assert "flow f/1" in text
    assert first.location in text
    assert second.location in text
    assert "version=" in text
    assert flows.get("f") is first
    flows.add(define_flow(other, name="f", version=2))


def test_an_unknown_flow(flows: FlowRegistry) -> None:
    """An unknown name is refused with the nearest known ones; `find` gives None."""
    assert flows.find("welcome") is None
    with pytest.raises(UnknownFlow, match="flow welcome is not registered: none is registered"):
        flows.get("welcome")
    flows.add(define_flow(one, name="welcome"))
    with pytest.raises(UnknownFlow, match="did you mean 'welcome'"):
        flows.get("welcone")


def test_an_unknown_version(flows: FlowRegistry) -> None:
    """An unknown version of a known flow is refused by name and number."""
    flows.add(define_flow(one, name="welcome", version=2))
    assert flows.find("welcome", 1) is None
    with pytest.raises(UnknownFlow, match="welcome version 1") as caught:
        flows.get("welcome", 1)
    assert (caught.value.flow, caught.value.version) == ("welcome", 1)


def test_iteration_is_in_order(flows: FlowRegistry) -> None:
    """Flows come by name, then version, however they were added."""
    for name, version in (("b", 1), ("a", 10), ("a", 2), ("c", 1)):
        flows.add(define_flow(one, name=name, version=version))
    assert [each.label for each in flows] == ["a/2", "a/10", "b/1", "c/1"]


def test_an_empty_registry_is_empty(flows: FlowRegistry) -> None:
    """No flows: nothing to walk through."""
    assert list(flows) == []
    assert len(flows) == 0
