"""Generations: the triggers that are current together.

A `TriggerIndex` never changes. Whoever adds or removes a trigger makes the next generation,
which shares with this one all but what the change touches, and swaps it: an append sees one
generation from beginning to end.

From an activity to its triggers the cheapest question comes first: the type, then the one
condition that a trigger is filed under, then the whole pattern, once for all triggers that
share it, then the scope. Guards are code that may hang or raise, so the pipeline runs them,
outside of here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from triggerflow.errors import DuplicateTrigger
from triggerflow.triggers.index.drawers import Drawer
from triggerflow.triggers.index.filings import Entry
from triggerflow.triggers.index.nodes import Posting
from triggerflow.triggers.index.parts import Edit, Map, Part, drop, put

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterable, Iterator

    from triggerflow.core.activity import Activity
    from triggerflow.triggers.index.filings import Filing
    from triggerflow.triggers.index.nodes import Hits
    from triggerflow.triggers.trigger import Trigger

# At the end of a type it stands for whatever follows; alone for every type.
_STAR: Final = "*"


class TriggerIndex:
    """The triggers of one generation, in the order of their registration.

    It promises that no two of them have one name, and that no two mean the same. It does not
    run guards: what `match` returns is still subject to them.

    Raises:
        DuplicateTrigger: two triggers are the same; the error names both.
    """

    __slots__ = ("_by_name", "_by_type", "_by_type_head", "_heads", "_next", "_size")

    def __init__(self, triggers: Iterable[Trigger] = ()) -> None:
        edit = Edit()
        self._by_name: Map[str, Entry] = Part(edit)
        self._by_type: Map[Hashable, Drawer] = Part(edit)
        # those on types with a star, by what stands before it: "" for every type
        self._by_type_head: Map[Hashable, Drawer] = Part(edit)
        # length of such a beginning -> how many have it
        self._heads: dict[int, int] = {}
        self._next = 0
        self._size = 0
        for trigger in triggers:
            self._add(trigger, edit)

    def __len__(self) -> int:
        return self._size

    def __iter__(self) -> Iterator[Trigger]:
        entries = sorted(self._by_name.values(), key=_serial_of)
        return (entry.trigger for entry in entries)

    def get(self, name: str) -> Trigger | None:
        """Return the trigger of this name, or None."""
        entry = self._by_name.get(name)
        return None if entry is None else entry.trigger

    def changed(
        self, *, added: Iterable[Trigger] = (), removed: Iterable[str] = ()
    ) -> TriggerIndex:
        """Return the next generation: without some triggers, then with others at the end.

        It costs what changes, not what there is.

        Args:
            added: the new ones; to supersede one of the same name, remove that.
            removed: names; those that no trigger has are passed over.

        Raises:
            DuplicateTrigger: two triggers would be the same.
        """
        made, edit = TriggerIndex(), Edit()
        for slot in TriggerIndex.__slots__:
            setattr(made, slot, getattr(self, slot))
        made._heads = self._heads.copy()
        for name in removed:
            entry = made._by_name.get(name)
            if entry is not None:
                made._remove(entry, edit)
        for trigger in added:
            made._add(trigger, edit)
        return made

    def match(self, activity: Activity) -> list[Trigger]:
        """Return the triggers whose type, pattern and scope the activity meets, in order."""
        drawers = self._drawers(activity.namespace, activity.types)
        document = activity.document
        hits: Hits = {}
        for drawer in drawers:
            drawer.collect(document, hits)
        if not hits:
            return []
        filings: dict[int, Filing] = {}
        for hit in hits.values():
            if type(hit) is Posting:
                for filing in hit:
                    filings[id(filing)] = filing
            else:
                filings[id(hit)] = hit  # type: ignore[assignment]
        # one pattern may be filed for several of the activity's types
        known: dict[str, bool] = {}
        met: dict[int, Trigger] = {}
        for filing in filings.values():
            pattern = filing.test
            if pattern is not None:
                holds = known.get(pattern.text)
                if holds is None:
                    holds = known[pattern.text] = pattern(document)
                if not holds:
                    continue
            for entry in filing.entries():
                trigger = entry.trigger
                if trigger.actors is None or trigger.actors(activity.actors):
                    met[entry.serial] = trigger
        return [met[serial] for serial in sorted(met)]

    def _drawers(self, namespace: str, types: Iterable[str]) -> Iterable[Drawer]:
        """The drawers of these types in a namespace, each once."""
        found: dict[int, Drawer] = {}
        for name in types:
            drawer = self._by_type.get(_label(namespace, name))
            if drawer is not None:
                found[id(drawer)] = drawer
            for length in self._heads:
                drawer = self._by_type_head.get(_label(namespace, name[:length]))
                if drawer is not None:
                    found[id(drawer)] = drawer
        return found.values()

    # --- while it is made: nobody else has it yet

    def _add(self, trigger: Trigger, edit: Edit) -> None:
        if first := self._by_name.get(trigger.name):
            raise DuplicateTrigger(
                first.trigger.name,
                trigger.name,
                "one name is registered twice"
                + (
                    " with one meaning"
                    if first.trigger.meaning_cid == trigger.meaning_cid
                    else ""
                ),
            )
        entry = Entry(self._next, trigger)
        self._next += 1
        self._size += 1
        self._by_name = put(self._by_name, trigger.name, entry, edit)
        for name in trigger.on:
            label = _label(trigger.namespace, name.removesuffix(_STAR))
            if not name.endswith(_STAR):
                self._by_type = _put_in(self._by_type, label, entry, edit)
                continue
            if self._by_type_head.get(label) is None:
                length = len(name) - 1
                self._heads[length] = self._heads.get(length, 0) + 1
            self._by_type_head = _put_in(self._by_type_head, label, entry, edit)

    def _remove(self, entry: Entry, edit: Edit) -> None:
        self._size -= 1
        trigger = entry.trigger
        self._by_name = drop(self._by_name, trigger.name, edit)
        for name in trigger.on:
            label = _label(trigger.namespace, name.removesuffix(_STAR))
            if not name.endswith(_STAR):
                self._by_type = _take_out(self._by_type, label, entry, edit)
                continue
            self._by_type_head = _take_out(self._by_type_head, label, entry, edit)
            if self._by_type_head.get(label) is None:
                length = len(name) - 1
                self._heads[length] -= 1
                if not self._heads[length]:
                    del self._heads[length]


def _label(namespace: str, name: str) -> Hashable:
    """What a drawer is known by: a thousand tenants may have the same triggers each."""
    return (namespace, name) if namespace else name


def _put_in(
    drawers: Map[Hashable, Drawer], key: Hashable, entry: Entry, edit: Edit
) -> Map[Hashable, Drawer]:
    """The drawers, one of them with another entry; it is made if it isn't there."""
    drawer = drawers.get(key)
    own = Drawer(edit) if drawer is None else drawer.own(edit)
    own.add(entry)
    return drawers if own is drawer else put(drawers, key, own, edit)


def _take_out(
    drawers: Map[Hashable, Drawer], key: Hashable, entry: Entry, edit: Edit
) -> Map[Hashable, Drawer]:
    """The drawers, one of them without an entry that is in it; an empty one goes."""
    drawer = drawers.get(key)
    assert drawer is not None
    own = drawer.own(edit)
    own.remove(entry)
    return put(drawers, key, own, edit) if own else drop(drawers, key, edit)


def _serial_of(entry: Entry) -> int:
    return entry.serial
