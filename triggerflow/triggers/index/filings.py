"""Filings: the triggers of one pattern, which stand in the index as one thing.

A pattern that one trigger has is filed as its entry, without anything around it: a hundred
thousand triggers mostly have a pattern each. Those that share one are filed as a group, and a
document is held against the pattern once for all of them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

from triggerflow.errors import DuplicateTrigger
from triggerflow.triggers.index.parts import Edit, Map, Part, drop, put
from triggerflow.triggers.pattern.conditions import Equals

if TYPE_CHECKING:
    from collections.abc import Iterable

    from triggerflow.triggers.pattern import Pattern
    from triggerflow.triggers.trigger import Trigger


class Entry:
    """A trigger in an index.

    Attributes:
        serial: grows with each registration, so that matches come in that order.
        test: what a document that finds it must still meet; None where to find it is enough.
    """

    __slots__ = ("serial", "test", "trigger")

    def __init__(self, serial: int, trigger: Trigger) -> None:
        self.serial = serial
        self.trigger = trigger
        self.test = None if _is_met_where_found(trigger.match) else trigger.match

    @property
    def match(self) -> Pattern | None:
        """The pattern that it is filed under."""
        return self.trigger.match

    def entries(self) -> Iterable[Entry]:
        """The triggers that are filed here."""
        return (self,)


class Group:
    """Several triggers on one type with one pattern, or without any.

    It promises that no two of them mean the same: that takes the same types and pattern, so
    they would meet here.
    """

    __slots__ = ("_by_meaning", "edit", "match", "test")

    def __init__(
        self,
        match: Pattern | None,
        test: Pattern | None,
        by_meaning: Map[str, Entry],
        edit: Edit,
    ) -> None:
        self.match = match
        self.test = test
        self._by_meaning = by_meaning
        self.edit = edit

    def entries(self) -> Iterable[Entry]:
        """The triggers that are filed here."""
        return self._by_meaning.values()

    def joined(self, entry: Entry, edit: Edit) -> Group:
        """Return the group with one more; itself if this edit made it.

        Raises:
            DuplicateTrigger: one in it means the same.
        """
        meaning = entry.trigger.meaning_cid
        if twin := self._by_meaning.get(meaning):
            raise DuplicateTrigger(
                twin.trigger.name,
                entry.trigger.name,
                "they differ in nothing but the name and would start everything twice; drop "
                "one, or give it another version= if that is meant",
            )
        return self._with(put(self._by_meaning, meaning, entry, edit), edit)

    def without(self, entry: Entry, edit: Edit) -> Group | None:
        """Return the group with one less, or None if nothing is left."""
        left = drop(self._by_meaning, entry.trigger.meaning_cid, edit)
        return self._with(left, edit) if left else None

    def _with(self, by_meaning: Map[str, Entry], edit: Edit) -> Group:
        if self.edit is not edit:
            return Group(self.match, self.test, by_meaning, edit)
        self._by_meaning = by_meaning
        return self


Filing: TypeAlias = "Entry | Group"


def grouped(filing: Filing, edit: Edit) -> Group:
    """The filing as a group."""
    if isinstance(filing, Group):
        return filing
    alone: Part[str, Entry] = Part(edit)
    alone[filing.trigger.meaning_cid] = filing
    return Group(filing.match, filing.test, alone, edit)


def _is_met_where_found(pattern: Pattern | None) -> bool:
    """Whether a document with a value that it is filed under matches: it asks for no more."""
    if pattern is None:
        return True
    leaves, choices = pattern.conditions.leaves, pattern.conditions.choices
    return (
        len(leaves) == 1
        and not choices
        and len(leaves[0].any_of) == 1
        and type(leaves[0].any_of[0]) is Equals
    )
