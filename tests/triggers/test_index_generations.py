"""Hot reload: a change costs what it changes, and whoever reads a generation sees it whole."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from triggerflow.core.activity import Activity
from triggerflow.errors import DuplicateTrigger
from triggerflow.triggers import Trigger, TriggerIndex, define_trigger
from triggerflow.triggers.index.parts import Edit, Part, Parts, drop, put


def trigger(at: int, **parts: Any) -> Trigger:
    match = parts.pop("match", {"x": [at], "y": ["same"]})
    return define_trigger(f"t{at}", on="T", match=match, start="f", version=at + 1, **parts)


def names(index: TriggerIndex, **fields: Any) -> list[str]:
    given = Activity.read("bafy", {"type": "T", "actor": "ann", **fields})
    return [each.name for each in index.match(given)]


def reachable(found: Any) -> dict[int, Any]:
    """Everything that an index is made of, by identity, triggers left out."""
    seen: dict[int, Any] = {}
    todo = [found]
    while todo:
        each = todo.pop()
        if isinstance(each, str | int | bool | type(None) | Trigger | Edit) or id(each) in seen:
            continue
        seen[id(each)] = each
        if isinstance(each, dict):
            todo += each.values()
        if isinstance(each, list | tuple):
            todo += each
        slots = [slot for kind in type(each).__mro__ for slot in getattr(kind, "__slots__", ())]
        todo += [getattr(each, slot) for slot in slots if slot not in ("trigger", "test")]
    return seen


def test_a_change_makes_few_new_parts() -> None:
    """Of an index of 20,000, one more or one less makes new what would fit on a page."""
    index = TriggerIndex(trigger(at) for at in range(20_000))
    before = reachable(index)
    for changed in (
        index.changed(added=[trigger(20_000)]),
        index.changed(removed=["t7"]),
        index.changed(added=[trigger(20_001, match=None)], removed=["t8"]),
    ):
        fresh = [each for at, each in reachable(changed).items() if at not in before]
        assert sum(len(each) for each in fresh if isinstance(each, dict | list)) < 5_000


def test_an_older_generation_stays_what_it_was() -> None:
    """Adding and removing leave earlier generations as they were, in content and in order."""
    first = TriggerIndex(trigger(at, match={"x": ["a"]}) for at in range(3))
    second = first.changed(added=[trigger(3, match={"x": ["a"]})], removed=["t1"])
    third = second.changed(added=[trigger(1, match={"x": ["a"]})])
    assert names(first, x="a") == ["t0", "t1", "t2"]
    assert names(second, x="a") == ["t0", "t2", "t3"]
    assert names(third, x="a") == ["t0", "t2", "t3", "t1"]
    assert [each.name for each in third] == ["t0", "t2", "t3", "t1"]
    assert (len(first), len(second), len(third)) == (3, 3, 4)
    assert first.get("t3") is None
    assert second.get("t1") is None


def test_a_refused_change_changes_nothing() -> None:
    """A twin among the added is refused, and the generation is as before."""
    index = TriggerIndex([trigger(0), trigger(1)])
    twin = define_trigger("twin", on="T", match={"x": [1], "y": ["same"]}, start="f", version=2)
    for added in ([trigger(2), twin], [trigger(2), trigger(0)]):
        with pytest.raises(DuplicateTrigger):
            index.changed(added=added, removed=["t9"])
    assert [each.name for each in index] == ["t0", "t1"]
    assert names(index, x=1, y="same") == ["t1"]
    assert names(index, x=2, y="same") == []
    # once the one is gone, the other is welcome
    assert names(index.changed(added=[twin], removed=["t1"]), x=1, y="same") == ["twin"]


def test_readers_see_one_generation_while_others_are_made() -> None:
    """Threads that match while triggers come and go see one generation, whole."""
    index = TriggerIndex(trigger(at, match={"x": ["a"]}) for at in range(50))
    current = [index]
    stop = threading.Event()
    wrong: list[Any] = []

    def read() -> None:
        while not stop.is_set():
            seen = current[0]
            found = names(seen, x="a")
            if found != [each.name for each in seen]:
                wrong.append(found)

    readers = [threading.Thread(target=read) for _ in range(2)]
    for each in readers:
        each.start()
    for at in range(50, 250):
        current[0] = current[0].changed(
            added=[trigger(at, match={"x": ["a"]})], removed=[f"t{at - 50}"]
        )
    stop.set()
    for each in readers:
        each.join()
    assert wrong == []
    assert names(current[0], x="a") == [f"t{at}" for at in range(200, 250)]


def test_a_large_map_is_cut_and_shares_its_parts() -> None:
    """A map that grows large holds what a dict would, and leaves the ones before alone."""
    edit = Edit()
    whole: Any = Part(edit)
    for at in range(10_000):
        whole = put(whole, at, str(at), edit)
    assert isinstance(whole, Parts)
    other = Edit()
    changed = drop(put(whole, 5, "five", other), 7, other)
    assert (whole.get(5), whole.get(7)) == ("5", "7")
    assert (changed.get(5), changed.get(7), changed.get(10_000)) == ("five", None, None)
    assert sorted(map(int, whole.values())) == list(range(10_000))
    assert dict(whole.items()) == {at: str(at) for at in range(10_000)}
    shared = sum(one is two for one, two in zip(whole.parts, changed.parts, strict=True))
    assert shared == len(whole.parts) - 2
    assert put(changed, 1, "one", other) is changed
