"""Writing between instances: what a child's end tells its parent, and cancels downwards.

A message that reaches an instance wakes it. One that is held is not woken, and a cancel ends
it there and then: none of its code has anything to clean up.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Final

from triggerflow.store.posts import KINDS, NONE, Admitted, Post, Told, cancelled_while_held
from triggerflow.store.sqlite import gathering, places, requests, waking
from triggerflow.store.sqlite.progress import clear_instances

if TYPE_CHECKING:
    import sqlite3


_INSERT: Final = "INSERT INTO inbox (instance, kind, name, payload, at) VALUES (?, ?, ?, ?, ?)"


def is_there(db: sqlite3.Connection, id: str) -> bool:
    """Whether an instance has this id already."""
    found = db.execute("SELECT 1 FROM instance WHERE public_id = ?", (id,)).fetchone()
    return found is not None


def post(db: sqlite3.Connection, letters: Sequence[Post]) -> Told:
    """Put messages into inboxes, and wake whom they are for (see `waking`).

    A cancel ends one that is held.
    """
    told = Told()
    while letters and any(kind == "cancel" for _, kind, *_ in letters):
        held = _held(db, letters)
        if not held:
            break
        more = end_at_once(db, held, told)
        letters = [*(each for each in letters if each[0] not in held), *more]
    if not letters:
        return told
    db.executemany(_INSERT, letters)
    numbers = waking.wake(db, [letter[:3] for letter in letters])
    told.owners += db.execute(
        "SELECT id, owner FROM instance WHERE id IN (SELECT value FROM json_each(?))",
        (json.dumps(numbers),),
    ).fetchall()
    return told


def _held(db: sqlite3.Connection, letters: Iterable[Post]) -> dict[int, tuple[bytes, float]]:
    """Those who are to be cancelled and are held: number -> failure record and time."""
    cancelled = {number: at for number, kind, _, _, at in letters if kind == "cancel"}
    return {
        number: (cancelled_while_held(), cancelled[number])
        for (number,) in db.execute(
            "SELECT id FROM instance WHERE id IN (SELECT value FROM json_each(?))"
            " AND held > 0 AND status = 'waiting'",
            (json.dumps(list(cancelled)),),
        ).fetchall()
    }


def end_at_once(
    db: sqlite3.Connection, ending: dict[int, tuple[bytes, float]], told: Told
) -> list[Post]:
    """End instances as cancelled, whatever they were at.

    Args:
        ending: number -> failure record and time.
        told: gets who became runnable by it, and their ids.

    Returns:
        What their parents and children must hear.
    """
    rows = [(number,) for number in ending]
    db.executemany(
        "UPDATE instance SET status = 'cancelled', owner = NULL, value = ?, ended = ?,"
        " due = NULL, cause = NULL, reason = NULL, held = 0 WHERE id = ?",
        [(value, at, number) for number, (value, at) in ending.items()],
    )
    db.executemany("DELETE FROM tried WHERE instance = ?", rows)
    db.executemany("DELETE FROM wait WHERE instance = ?", rows)
    requests.clear(db, rows)
    clear_inboxes(db, list(ending))
    clear_instances(db, rows)
    for number in ending:
        gathering.drop(db, number)
    told.ended += [
        id
        for (id,) in db.execute(
            "SELECT public_id FROM instance WHERE id IN (SELECT value FROM json_each(?))",
            (json.dumps(list(ending)),),
        )
    ]
    admitted: Admitted = {}
    places.release(db, [(number, False) for number in ending], admitted)
    told.woken(admitted)
    letters = cancel_children(db, [(number, at) for number, (_, at) in ending.items()], NONE)
    ended = [(number, "cancelled", value, at) for number, (value, at) in ending.items()]
    return letters + tell_parents(db, ended)


def clear_inboxes(db: sqlite3.Connection, numbers: list[int]) -> None:
    """Nobody reads these messages any more."""
    rows = [(number,) for number in numbers]
    # Two statements, since each has an index of its own.
    db.executemany("DELETE FROM inbox WHERE instance = ? AND consumed = 0", rows)
    db.executemany("DELETE FROM inbox WHERE instance = ? AND dedup IS NOT NULL", rows)


def tell_parents(
    db: sqlite3.Connection,
    ended: Sequence[tuple[int, str, bytes | None, float]],
    gone: frozenset[int] = frozenset(),
) -> list[Post]:
    """What parents that wait for one of these must hear.

    Args:
        ended: (number, status, result or failure record, time).
        gone: instances that end in this very batch, so that nobody reads their inbox.
    """
    if not ended:
        return []
    how = {number: (status, value, at) for number, status, value, at in ended}
    letters: list[Post] = []
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
) -> list[Post]:
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
) -> list[Post]:
    """Cancels for the live children of instances that end as cancelled."""
    letters: list[Post] = []
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
) -> list[Post]:
    """A cancel for one child, unless it has ended or has one already."""
    found = db.execute(
        "SELECT id FROM instance WHERE public_id = ? AND parent = ? AND cancelled = 0"
        " AND status NOT IN ('done', 'failed', 'cancelled')",
        (child, parent),
    ).fetchall()
    letters = _cancels(found, none, at)
    _mark(db, letters)
    return letters


def cancels(db: sqlite3.Connection, numbers: Iterable[int], at: float) -> list[Post]:
    """Cancels for these live instances, none of which has one already."""
    letters = _cancels([(number,) for number in numbers], NONE, at)
    _mark(db, letters)
    return letters


def _cancels(rows: list[tuple[int]], none: bytes, at: float) -> list[Post]:
    return [(number, "cancel", "", none, at) for (number,) in rows]


def _mark(db: sqlite3.Connection, letters: list[Post]) -> None:
    db.executemany(
        "UPDATE instance SET cancelled = 1 WHERE id = ?", [(number,) for number, *_ in letters]
    )
