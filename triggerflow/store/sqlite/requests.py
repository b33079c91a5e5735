"""Pending sets in rows of their own: a set of thousands changes by one request a turn.

A small set is one blob in the instance's row, which is cheaper. Where `IN_ROWS` stands there,
the set is here, one row a request, in the order of arming.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from triggerflow.core.log import IN_ROWS, join_pending

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterable

    from triggerflow.store.operations import Turn


def write(db: sqlite3.Connection, turns: Iterable[Turn], in_rows: set[int]) -> None:
    """Write what these turns changed.

    Args:
        in_rows: numbers of the instances whose set was in rows before.
    """
    for op in turns:
        wide = op.pending == IN_ROWS
        if op.number in in_rows and (not wide or op.afresh):
            clear(db, [(op.number,)])
        if wide:
            _change(db, op)


def _change(db: sqlite3.Connection, op: Turn) -> None:
    gone = [(op.number, tag) for tag, request in op.changed if request is None]
    kept = [(op.number, tag, request) for tag, request in op.changed if request is not None]
    db.executemany("DELETE FROM request WHERE instance = ? AND tag = ?", gone)
    db.executemany(
        "INSERT INTO request (instance, tag, data) VALUES (?, ?, ?)"
        " ON CONFLICT (instance, tag) DO UPDATE SET data = excluded.data",
        kept,
    )


def clear(db: sqlite3.Connection, instances: Iterable[tuple[int]]) -> None:
    """These instances wait for nothing any more, or their set is a blob again."""
    db.executemany("DELETE FROM request WHERE instance = ?", instances)


def whole(db: sqlite3.Connection, number: int, pending: bytes | None) -> bytes | None:
    """An instance's pending set, wherever it stands."""
    if pending != IN_ROWS:
        return pending
    rows = db.execute("SELECT data FROM request WHERE instance = ? ORDER BY id", (number,))
    return join_pending([data for (data,) in rows])


def around(
    db: sqlite3.Connection, number: int, pending: bytes | None, tag: str
) -> bytes | None:
    """A pending set that holds the request under the tag, if it is pending at all."""
    if pending != IN_ROWS:
        return pending
    rows = db.execute("SELECT data FROM request WHERE instance = ? AND tag = ?", (number, tag))
    return join_pending([data for (data,) in rows])
