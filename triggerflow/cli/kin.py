"""Who belongs to an instance: its parent, its children, and what it listens for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import attrs

from triggerflow.cli.described import decoded
from triggerflow.core.children import child_id
from triggerflow.core.tags import kind_of

if TYPE_CHECKING:
    from collections.abc import Iterable

    from triggerflow.core.codec import ValueCodec
    from triggerflow.store.protocol import Store
    from triggerflow.store.records import InstanceRecord
    from triggerflow.store.waits import Standing, WaitRecord

_STARTS = frozenset({"child", "spawn"})


@attrs.frozen
class Listening:
    """What an open `wait_activity` waits for.

    Attributes:
        after: sequence number up to which activities were looked at.
    """

    pattern: Any
    after: int


@attrs.frozen
class Kin:
    """An instance's parent and children, as far as they are still there.

    Attributes:
        children: the first of them, oldest first.
        more: whether there are more than those.
        tags: child's id -> the tag under which this generation started it.
    """

    parent: InstanceRecord | None
    children: list[InstanceRecord]
    more: bool
    tags: dict[str, str]

    @classmethod
    def of(cls, store: Store, record: InstanceRecord, tags: Iterable[str], most: int) -> Kin:
        """Look them up.

        Args:
            tags: those of the log and of the pending set.
            most: how many children at most.
        """
        parent = None if record.parent is None else store.instance(record.parent)
        found = store.instances(parent=record.id, limit=most + 1)
        return cls(parent, found[:most], len(found) > most, children_by_id(record, tags))


def children_by_id(record: InstanceRecord, tags: Iterable[str]) -> dict[str, str]:
    """Id -> tag of the children that these effects started."""
    return {
        child_id(record.id, record.generation, tag): tag
        for tag in tags
        if kind_of(tag) in _STARTS
    }


def listening(
    store: Store, record: InstanceRecord, tags: Iterable[str], codec: ValueCodec
) -> dict[str, Listening]:
    """Tag -> what is listened for, for the open waits among these tags."""
    if not any(kind_of(tag) == "wait_activity" for tag in tags):
        return {}
    standing = store.standing()
    return {
        row.tag: Listening(decoded(row.pattern, codec), _looked_at(row, standing))
        for row in store.waits_of(record.number)
        if row.generation == record.generation
    }


def _looked_at(row: WaitRecord, standing: Standing) -> int:
    return row.scanned if row.scanned < row.upto else max(row.scanned, standing.position)
