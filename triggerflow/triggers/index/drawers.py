"""Drawers: the triggers of one type, each filed under one of the conditions of its pattern.

A condition is as good as few documents meet it and few filings share its place. Nobody knows
the documents to come, so the choice is made by what is filed already, times a weight for the
kind of condition, when a pattern is registered. It is a matter of speed alone: whatever is
chosen, a document that matches the pattern finds it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from triggerflow.triggers.index.filings import Entry, Group, grouped
from triggerflow.triggers.index.nodes import Posting
from triggerflow.triggers.index.parts import Edit, Map, Part, drop, put
from triggerflow.triggers.index.places import Place, Probe, places_of, weight
from triggerflow.triggers.index.shelves import Shelf

if TYPE_CHECKING:
    from collections.abc import Iterator

    from triggerflow.triggers.index.filings import Filing
    from triggerflow.triggers.index.nodes import Hits
    from triggerflow.triggers.pattern import Conditions, Pattern

# The document itself: where those stand that ask for nothing that a place could see.
EVERY_DOCUMENT: Final[Place] = ((), Probe.ANYTHING, 0, "")


class Drawer:
    """The triggers of one type, or of all types with one beginning."""

    __slots__ = ("_filings", "_shelf", "edit")

    def __init__(self, edit: Edit) -> None:
        self.edit = edit
        # by the pattern's source, which is a normal form; "" for triggers without one
        self._filings: Map[str, Filing] = Part(edit)
        self._shelf = Shelf(edit)

    def __bool__(self) -> bool:
        return bool(self._filings)

    def collect(self, document: dict[str, Any], hits: Hits) -> None:
        """Collect every filing whose pattern the document may match."""
        self._shelf.collect(document, hits)

    def own(self, edit: Edit) -> Drawer:
        """Return the drawer that this edit may change: itself, or a copy."""
        if self.edit is edit:
            return self
        copy = Drawer(edit)
        copy._filings, copy._shelf = self._filings, self._shelf.own(edit)
        return copy

    def add(self, entry: Entry) -> None:
        """File a trigger; the drawer is the edit's own.

        Raises:
            DuplicateTrigger: one in it means the same.
        """
        source = _source(entry)
        before = self._filings.get(source)
        if before is None:
            for place in self._best_places(entry.match):
                self._shelf.swap(place, None, entry)
            self._filings = put(self._filings, source, entry, self.edit)
        else:
            group = grouped(before, self.edit).joined(entry, self.edit)
            self._replace(source, before, group)

    def remove(self, entry: Entry) -> None:
        """Take out a trigger that is in it; the drawer is the edit's own."""
        source = _source(entry)
        before = self._filings.get(source)
        if isinstance(before, Group):
            self._replace(source, before, before.without(entry, self.edit))
        else:
            self._replace(source, entry, None)

    def _replace(self, source: str, before: Filing, after: Filing | None) -> None:
        if after is before:
            return
        # what would be best has changed since it was filed, so it's looked for everywhere
        for place in dict.fromkeys(_every_place(before.match)):
            self._shelf.swap(place, before, after)
        if after is None:
            self._filings = drop(self._filings, source, self.edit)
        else:
            self._filings = put(self._filings, source, after, self.edit)

    def _best_places(self, pattern: Pattern | None) -> list[Place]:
        if pattern is not None:
            conditions = pattern.conditions
            if len(conditions.leaves) == 1 and not conditions.choices:
                only = places_of(conditions.leaves[0])
                if only is not None:
                    return only
            elif best := self._best(conditions):
                return best[1]
        return [EVERY_DOCUMENT]

    def _best(self, conditions: Conditions) -> tuple[float, list[Place]] | None:
        """The best leaf, or the best of every branch of a choice, with what it costs."""
        best: tuple[float, list[Place]] | None = None
        for leaf in conditions.leaves:
            places = places_of(leaf)
            if places is not None:
                cost = sum(map(self._cost, places))
                if best is None or cost < best[0]:
                    best = cost, places
        for choice in conditions.choices:
            total: float = 0
            together: list[Place] = []
            for branch in choice:
                found = self._best(branch)
                if found is None:
                    break
                total += found[0]
                together += found[1]
            else:
                if best is None or total < best[0]:
                    best = total, list(dict.fromkeys(together))
        return best

    def _cost(self, place: Place) -> float:
        posted = self._shelf.at(place)
        if posted is None:
            return weight(place)
        return weight(place) * (len(posted) + 1 if type(posted) is Posting else 2)


def _source(entry: Entry) -> str:
    return "" if entry.match is None else entry.match.text


def _every_place(pattern: Pattern | None) -> Iterator[Place]:
    """Each place where a pattern may stand."""
    yield EVERY_DOCUMENT
    if pattern is not None:
        for leaf in pattern.conditions.every_leaf():
            yield from places_of(leaf) or ()
