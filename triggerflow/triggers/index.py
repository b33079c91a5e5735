"""The index: from an activity to the triggers that it meets.

An index is immutable. Whoever adds a trigger builds a new one and swaps it, so that an append
sees one generation from beginning to end.

Triggers are filed by activity type, those on every type apart. The cheapest question comes
first: type, then pattern, then actor scope. Guards are code that may hang or raise, so the
pipeline runs them, outside of here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from triggerflow.errors import DuplicateTrigger
from triggerflow.triggers.trigger import EVERY_TYPE

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from triggerflow.core.activity import Activity
    from triggerflow.triggers.trigger import Trigger


class TriggerIndex:
    """The triggers of one generation, in the order of their registration.

    It promises that no two of them have one name, and that no two mean the same. It does not
    run guards: what `match` returns is still subject to them.

    Raises:
        DuplicateTrigger: two triggers are the same; the error names both.
    """

    __slots__ = ("_by_name", "_by_prefix", "_by_type", "_on_every_type", "_triggers")

    def __init__(self, triggers: Iterable[Trigger] = ()) -> None:
        self._triggers = tuple(triggers)
        self._by_name = _distinct(self._triggers)
        filed: dict[str, list[int]] = {}
        for position, trigger in enumerate(self._triggers):
            for name in trigger.on:
                filed.setdefault(name, []).append(position)
        # positions, not triggers: they give back the order when several lists are merged
        self._on_every_type = tuple(filed.pop(EVERY_TYPE, ()))
        self._by_prefix: dict[int, dict[str, list[int]]] = {}
        for name in [name for name in filed if name.endswith("*")]:
            prefixes = self._by_prefix.setdefault(len(name) - 1, {})
            prefixes[name[:-1]] = filed.pop(name)
        self._by_type = {name: tuple(positions) for name, positions in filed.items()}

    def __len__(self) -> int:
        return len(self._triggers)

    def __iter__(self) -> Iterator[Trigger]:
        return iter(self._triggers)

    def get(self, name: str) -> Trigger | None:
        """Return the trigger of this name, or None."""
        return self._by_name.get(name)

    def candidates(self, types: Iterable[str]) -> Iterator[Trigger]:
        """Yield the triggers that listen to one of these types, each once, in order."""
        types = tuple(types)
        lists: list[Iterable[int]] = [
            self._by_type[name] for name in types if name in self._by_type
        ]
        for length, prefixes in self._by_prefix.items():
            lists += [prefixes[name[:length]] for name in types if name[:length] in prefixes]
        if self._on_every_type:
            lists.append(self._on_every_type)
        if len(lists) == 1:
            positions: Iterable[int] = lists[0]
        else:
            positions = sorted({position for found in lists for position in found})
        return (self._triggers[position] for position in positions)

    def match(self, activity: Activity) -> list[Trigger]:
        """Return the triggers whose namespace, type, pattern and scope it meets, in order."""
        return [
            trigger
            for trigger in self.candidates(activity.types)
            if trigger.namespace == activity.namespace
            and (trigger.match is None or trigger.match(activity.document))
            and (trigger.actors is None or trigger.actors(activity.actors))
        ]


def _distinct(triggers: tuple[Trigger, ...]) -> dict[str, Trigger]:
    names: dict[str, Trigger] = {}
    meanings: dict[str, Trigger] = {}
    for trigger in triggers:
        if first := names.get(trigger.name):
            raise DuplicateTrigger(
                first.name,
                trigger.name,
                "one name is registered twice"
                + (" with one meaning" if first.meaning_cid == trigger.meaning_cid else ""),
            )
        if first := meanings.get(trigger.meaning_cid):
            raise DuplicateTrigger(
                first.name,
                trigger.name,
                "they differ in nothing but the name and would start everything twice; drop "
                "one, or give it another version= if that is meant",
            )
        names[trigger.name] = meanings[trigger.meaning_cid] = trigger
    return names
