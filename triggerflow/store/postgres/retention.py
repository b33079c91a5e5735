"""Retention: ended instances are removed whole, documents are taken from their activities.

What stays for ever is what tells a repeat: an activity's row with its CID, and its firings,
which keep the ids of removed instances as text.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from triggerflow.store.postgres.clearing import clear_inboxes
from triggerflow.store.postgres.columns import Ints, columns
from triggerflow.store.postgres.reads import LAST
from triggerflow.store.records import ENDED, Position, Pruned, RemovedRecord

if TYPE_CHECKING:
    from triggerflow.store.postgres.wire import Db

# Every table with rows of an instance under its number, but for `instance` itself and
# `inbox`, whose indexes are partial. A test compares this with the schema.
OWNED: Final = (
    "log",
    "request",
    "generation",
    "tried",
    "wait",
    "task",
    "task_answer",
    "progress",
    "attribute",
    "place",
    "gathering",
    "gathered",
)

# The log rows of so many are removed in one transaction, and of one instance at least: it
# is removed whole or not at all.
_MOST_ROWS: Final = 5000
# Before every time that a row can have.
_FIRST: Final[Position] = (-1e300, 0)

_OLD: Final = (
    "SELECT i.id, i.ended, i.version, i.public_id, i.activity, i.trigger_spec, p.status,"
    " (SELECT count(*) FROM log l WHERE l.instance = i.id)"
    " FROM instance i LEFT JOIN instance p ON p.id = i.parent"
    " WHERE i.flow = %s AND i.ended < %s AND (i.ended, i.id) > (%s, %s)"
    " AND i.ended IS NOT NULL ORDER BY i.ended, i.id LIMIT %s"
)


def old(
    db: Db,
    flow: str,
    before: Mapping[int | None, float],
    after: Position | None,
    limit: int,
    *,
    lock: bool = False,
) -> tuple[list[Any], Position | None]:
    """A page of instances to remove, and where the next page begins; see `Store.prune`.

    Args:
        lock: nobody may retry one of them meanwhile. What somebody else holds is passed over.
    """
    held_by_us = " FOR UPDATE OF i SKIP LOCKED" if lock else ""
    first = float(max(before.values()))
    since, number = after or _FIRST
    rows = db.execute(_OLD + held_by_us, flow, first, float(since), number, limit).rows()
    found: list[Any] = []
    left = _MOST_ROWS
    for row in rows:
        _, ended, version, _, _, _, parent, length = row
        # Its parent may still ask for it.
        held = parent is not None and parent not in ENDED
        if held or ended >= before.get(version, before.get(None, _FIRST[0])):
            continue
        left -= length
        if left < 0 and found:
            return found, (found[-1][1], found[-1][0])
        found.append(row)
    return found, (rows[-1][1], rows[-1][0]) if len(rows) == limit else None


def prune(
    db: Db,
    flow: str,
    before: Mapping[int | None, float],
    *,
    now: float,
    after: Position | None,
    limit: int,
) -> Pruned:
    """Remove a page of ended instances; see `Store.prune`."""
    found, following = old(db, flow, before, after, limit, lock=True)
    if not found:
        return Pruned(0, following)
    numbers = [row[0] for row in found]
    fired = [
        (activity, trigger, id, now)
        for _, _, _, id, activity, trigger, *_ in found
        if activity is not None
    ]
    if fired:
        db.execute(
            "UPDATE firing f SET removed = u.at FROM unnest(%s, %s, %s, %s) AS u (a, t, i, at)"
            " WHERE f.activity = u.a AND f.trigger_spec = u.t AND f.instance = u.i",
            *columns("iitf", fired),
        )
    triggers = [(row[0], row[5], now) for row in found if row[5] is not None]
    if triggers:
        db.execute(
            "UPDATE firing f SET removed = u.at FROM unnest(%s, %s, %s) AS u (i, t, at)"
            " JOIN gathered g ON g.instance = u.i"
            " WHERE f.activity = g.activity AND f.trigger_spec = u.t",
            *columns("iif", triggers),
        )
    clear_inboxes(db, numbers)
    for table in OWNED:
        db.execute(f"DELETE FROM {table} WHERE instance = ANY(%s)", Ints(numbers))
    db.execute("DELETE FROM instance WHERE id = ANY(%s)", Ints(numbers))
    return Pruned(len(found), following)


_OLD_DOCUMENTS: Final = (
    "SELECT a.seq, a.received, EXISTS (SELECT 1 FROM outbox o WHERE o.activity = a.seq)"
    " OR EXISTS (SELECT 1 FROM firing f WHERE f.activity = a.seq"
    " AND (f.outcome = 'paused' OR f.due IS NOT NULL)) FROM activity a"
    " WHERE a.document IS NOT NULL AND a.received < %s"
    " AND (a.received, a.seq) > (%s, %s) ORDER BY a.received, a.seq LIMIT %s"
)


def old_documents(
    db: Db, before: float, after: Position | None, limit: int
) -> tuple[list[int], Position | None]:
    """A page of documents to take; see `Store.prune_documents`."""
    since, number = after or _FIRST
    rows = db.execute(_OLD_DOCUMENTS, float(before), float(since), number, limit).rows()
    # Where the dispatch was put off, or will be tried again, a worker needs the document.
    found = [seq for seq, _, needed in rows if not needed]
    return found, (rows[-1][1], rows[-1][0]) if len(rows) == limit else None


def prune_documents(db: Db, before: float, *, after: Position | None, limit: int) -> Pruned:
    """Take a page of documents; see `Store.prune_documents`."""
    found, following = old_documents(db, before, after, limit)
    if found:
        db.execute(
            "UPDATE activity SET document = NULL WHERE seq IN"
            " (SELECT seq FROM activity WHERE seq = ANY(%s) ORDER BY cid FOR UPDATE)",
            Ints(found),
        )
    return Pruned(len(found), following)


def removed(db: Db, prefix: str) -> RemovedRecord | None:
    """The one removed instance whose id begins so; see `Store.removed`."""
    rows = db.execute(
        # Several activities may have been gathered in it: the first one opened it.
        "SELECT DISTINCT ON (f.instance) f.instance, a.cid, t.name, f.removed FROM firing f"
        " JOIN activity a ON a.seq = f.activity JOIN trigger_spec t ON t.id = f.trigger_spec"
        " WHERE f.removed IS NOT NULL AND f.instance >= %s AND f.instance < %s"
        " ORDER BY f.instance, f.id LIMIT 2",
        prefix,
        prefix + LAST,
    ).rows()
    return RemovedRecord(*rows[0]) if len(rows) == 1 else None
