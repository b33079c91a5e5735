"""Retention: ended instances are removed whole, documents are taken from their activities.

What stays for ever is what tells a repeat: an activity's row with its CID, and its firings,
which keep the ids of removed instances as text.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from triggerflow.store.records import ENDED, Position, Pruned, RemovedRecord
from triggerflow.store.sqlite.kin import clear_inboxes

if TYPE_CHECKING:
    import sqlite3

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


def old(
    db: sqlite3.Connection,
    flow: str,
    before: Mapping[int | None, float],
    after: Position | None,
    limit: int,
) -> tuple[list[Any], Position | None]:
    """A page of instances to remove, and where the next page begins; see `Store.prune`."""
    rows = db.execute(
        "SELECT i.id, i.ended, i.version, i.public_id, i.activity, i.trigger_spec, p.status"
        " FROM instance i LEFT JOIN instance p ON p.id = i.parent"
        " WHERE i.flow = ? AND i.ended < ? AND (i.ended, i.id) > (?, ?)"
        " AND i.ended IS NOT NULL ORDER BY i.ended, i.id LIMIT ?",
        (flow, max(before.values()), *(after or _FIRST), limit),
    ).fetchall()
    found: list[Any] = []
    left = _MOST_ROWS
    for row in rows:
        number, ended, version, _, _, _, parent = row
        # Its parent may still ask for it.
        held = parent is not None and parent not in ENDED
        if held or ended >= before.get(version, before.get(None, _FIRST[0])):
            continue
        length = db.execute("SELECT count(*) FROM log WHERE instance = ?", (number,))
        left -= length.fetchone()[0]
        if left < 0 and found:
            return found, (found[-1][1], found[-1][0])
        found.append(row)
    return found, (rows[-1][1], rows[-1][0]) if len(rows) == limit else None


def prune(
    db: sqlite3.Connection,
    flow: str,
    before: Mapping[int | None, float],
    *,
    now: float,
    after: Position | None,
    limit: int,
) -> Pruned:
    """Remove a page of ended instances; see `Store.prune`."""
    found, following = old(db, flow, before, after, limit)
    numbers = [(number,) for number, *_ in found]
    db.executemany(
        "UPDATE firing SET removed = ? WHERE activity = ? AND trigger_spec = ?"
        " AND instance = ?",
        [
            (now, activity, trigger, id)
            for _, _, _, id, activity, trigger, _ in found
            if activity is not None
        ],
    )
    db.executemany(
        "UPDATE firing SET removed = ? WHERE trigger_spec = ?"
        " AND activity IN (SELECT activity FROM gathered WHERE instance = ?)",
        [(now, trigger, number) for number, _, _, _, _, trigger, _ in found],
    )
    clear_inboxes(db, [number for (number,) in numbers])
    for table in OWNED:
        db.executemany(f"DELETE FROM {table} WHERE instance = ?", numbers)
    db.executemany("DELETE FROM instance WHERE id = ?", numbers)
    return Pruned(len(found), following)


_OLD_DOCUMENTS: Final = (
    "SELECT a.seq, a.received, EXISTS (SELECT 1 FROM outbox o WHERE o.activity = a.seq)"
    " OR EXISTS (SELECT 1 FROM firing f WHERE f.activity = a.seq"
    " AND (f.outcome = 'paused' OR f.due IS NOT NULL)) FROM activity a"
    " WHERE a.document IS NOT NULL AND a.received < ?"
    " AND (a.received, a.seq) > (?, ?) ORDER BY a.received, a.seq LIMIT ?"
)


def old_documents(
    db: sqlite3.Connection, before: float, after: Position | None, limit: int
) -> tuple[list[tuple[int]], Position | None]:
    """A page of documents to take; see `Store.prune_documents`."""
    rows = db.execute(_OLD_DOCUMENTS, (before, *(after or _FIRST), limit)).fetchall()
    # Where the dispatch was put off, or will be tried again, a worker needs the document.
    found = [(seq,) for seq, _, needed in rows if not needed]
    return found, (rows[-1][1], rows[-1][0]) if len(rows) == limit else None


def prune_documents(
    db: sqlite3.Connection, before: float, *, after: Position | None, limit: int
) -> Pruned:
    """Take a page of documents; see `Store.prune_documents`."""
    found, following = old_documents(db, before, after, limit)
    db.executemany("UPDATE activity SET document = NULL WHERE seq = ?", found)
    return Pruned(len(found), following)


def removed(db: sqlite3.Connection, prefix: str) -> RemovedRecord | None:
    """The one removed instance whose id begins so; see `Store.removed`."""
    rows = db.execute(
        # Several activities may have been gathered in it: the first one opened it.
        "SELECT f.instance, a.cid, t.name, f.removed, min(f.id) FROM firing f"
        " JOIN activity a ON a.seq = f.activity JOIN trigger_spec t ON t.id = f.trigger_spec"
        " WHERE f.removed IS NOT NULL AND f.instance >= ? AND f.instance < ?"
        " GROUP BY f.instance LIMIT 2",
        (prefix, prefix + "\U0010ffff"),
    ).fetchall()
    return RemovedRecord(*rows[0][:4]) if len(rows) == 1 else None
