"""Writing between instances: what a child's end tells its parent, and cancels downwards."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Final

from triggerflow.store.records import ENDED
from triggerflow.store.sqlite import waking

if TYPE_CHECKING:
    import sqlite3

# Instance, kind, name, payload, time.
Letter = tuple[int, str, str, bytes, float]
Told = list[tuple[int, int | None]]

_INSERT: Final = "INSERT INTO inbox (instance, kind, name, payload, at) VALUES (?, ?, ?, ?, ?)"
# None, encoded: a cancel carries nothing.
NONE: Final = b"\xf6"
# How an inbox row says what became of a child.
KINDS: Final = {status: f"child_{status}" for status in ENDED}


def is_there(db: sqlite3.Connection, id: str) -> bool:
    """Whether an instance has this id already."""
    found = db.execute("SELECT 1 FROM instance WHERE public_id = ?", (id,)).fetchone()
    return found is not None


def post(db: sqlite3.Connection, letters: Sequence[Letter]) -> Told:
    """Put messages into inboxes, and wake whom they are for (see `waking`)."""
    if not letters:
        return []
    db.executemany(_INSERT, letters)
    numbers = waking.wake(db, [letter[:3] for letter in letters])
    return [
        (number, owner)
        for number, owner in db.execute(
            "SELECT id, owner FROM instance WHERE id IN (SELECT value FROM json_each(?))",
            (json.dumps(numbers),),
        )
    ]


def tell_parents(
    db: sqlite3.Connection,
    ended: Sequence[tuple[int, str, bytes | None, float]],
    gone: frozenset[int] = frozenset(),
) -> list[Letter]:
    """What parents that wait for one of these must hear.

    Args:
        ended: (number, status, result or failure record, time).
        gone: instances that end in this very batch, so that nobody reads their inbox.
    """
    if not ended:
        return []
    how = {number: (status, value, at) for number, status, value, at in ended}
    letters: list[Letter] = []
    for number, id, parent in db.execute(
        "SELECT c.id, c.public_id, c.parent FROM instance c JOIN instance p ON p.id = c.parent"
        " WHERE c.id IN (SELECT value FROM json_each(?)) AND c.awaited = 1"
        " AND p.status NOT IN ('done', 'failed', 'cancelled')",
        (json.dumps(list(how)),),
    ):
        status, value, at = how[number]
        if parent not in gone:
            letters.append((parent, KINDS[status], id, value or b"\xf6", at))
    return letters


def answer_joins(
    db: sqlite3.Connection, parent: int, children: Sequence[str], at: float
) -> list[Letter]:
    """Wait for these children from now on; those that have ended are told at once."""
    listed = json.dumps(children)
    db.execute(
        "UPDATE instance SET awaited = 1"
        " WHERE public_id IN (SELECT value FROM json_each(?)) AND parent = ?",
        (listed, parent),
    )
    return [
        (parent, KINDS[status], id, value or b"\xf6", at)
        for id, status, value in db.execute(
            "SELECT public_id, status, value FROM instance"
            " WHERE public_id IN (SELECT value FROM json_each(?)) AND parent = ?"
            " AND status IN ('done', 'failed', 'cancelled')",
            (listed, parent),
        )
    ]


def cancel_children(
    db: sqlite3.Connection, parents: Iterable[tuple[int, float]], none: bytes
) -> list[Letter]:
    """Cancels for the live children of instances that end as cancelled."""
    letters: list[Letter] = []
    for parent, at in parents:
        letters += _cancels(
            db.execute(
                "SELECT id FROM instance WHERE parent = ? AND abandoned = 0 AND cancelled = 0"
                " AND status NOT IN ('done', 'failed', 'cancelled')",
                (parent,),
            ).fetchall(),
            none,
            at,
        )
    _mark(db, letters)
    return letters


def cancel_one(
    db: sqlite3.Connection, parent: int, child: str, none: bytes, at: float
) -> list[Letter]:
    """A cancel for one child, unless it has ended or has one already."""
    found = db.execute(
        "SELECT id FROM instance WHERE public_id = ? AND parent = ? AND cancelled = 0"
        " AND status NOT IN ('done', 'failed', 'cancelled')",
        (child, parent),
    ).fetchall()
    letters = _cancels(found, none, at)
    _mark(db, letters)
    return letters


def cancels(db: sqlite3.Connection, numbers: Iterable[int], at: float) -> list[Letter]:
    """Cancels for these live instances, none of which has one already."""
    letters = _cancels([(number,) for number in numbers], NONE, at)
    _mark(db, letters)
    return letters


def _cancels(rows: list[tuple[int]], none: bytes, at: float) -> list[Letter]:
    return [(number, "cancel", "", none, at) for (number,) in rows]


def _mark(db: sqlite3.Connection, letters: list[Letter]) -> None:
    db.executemany(
        "UPDATE instance SET cancelled = 1 WHERE id = ?", [(number,) for number, *_ in letters]
    )
