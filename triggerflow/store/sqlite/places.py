"""Places: who has one, who waits for one, and who gets the next.

An instance's places are taken one after the other. A pool counts what is taken of one scope
and key, so that asking costs a look-up however many there are. After every change here, either
all places of a pool are taken or nobody waits for one: whoever arrives may simply queue up.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from triggerflow.store.holding import FOR_A_PLACE, GIVEN_BACK, RESERVED, TAKEN, WAITS
from triggerflow.store.posts import Admitted

if TYPE_CHECKING:
    import sqlite3

    from triggerflow.core.admission_request import Place


def reserve(
    db: sqlite3.Connection,
    number: int,
    places: Sequence[Place],
    *,
    priority: int,
    registry: int,
) -> None:
    """Note which places an instance will ask for; one that skips others takes it at once."""
    for rank, place in enumerate(places):
        state = RESERVED
        if place.mode == "skip":
            state = TAKEN
            _open(db, place.scope, place.key, place.limit, registry)
            _count(db, place.scope, place.key, 1)
        db.execute(
            "INSERT INTO place (instance, rank, scope, key, cap, registry, priority, state)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            (number, rank, place.scope, place.key, place.limit, registry, priority, state),
        )


def rekey(db: sqlite3.Connection, number: int, places: Sequence[Place]) -> None:
    """A group keeps its newest input: it will ask for the places of that one."""
    db.executemany(
        "UPDATE place SET key = ? WHERE instance = ? AND scope = ? AND state = ?",
        [
            (place.key, number, place.scope, RESERVED)
            for place in places
            if place.mode == "wait"
        ],
    )


def proceed(db: sqlite3.Connection, number: int, admitted: Admitted) -> None:
    """Let an instance take its next place, and the ones after it.

    With the last one it becomes runnable, and is added to `admitted`. Without, it is held. Both
    are noted in its row, if it has one by now.
    """
    row = db.execute(
        "SELECT rank, scope, key, cap, registry FROM place WHERE instance = ? AND state <> ?"
        " ORDER BY rank LIMIT 1",
        (number, TAKEN),
    ).fetchone()
    if row is None:
        admitted[number] = None
        db.execute(
            "UPDATE instance SET status = 'running', held = 0, due = NULL WHERE id = ?",
            (number,),
        )
        return
    rank, scope, key, cap, registry = row
    _set_state(db, number, rank, WAITS)
    _open(db, scope, key, cap, registry)
    fill(db, scope, key, admitted)
    if number not in admitted:
        db.execute(
            "UPDATE instance SET status = 'waiting', held = ?, due = NULL WHERE id = ?",
            (FOR_A_PLACE, number),
        )


def fill(db: sqlite3.Connection, scope: str, key: str, admitted: Admitted) -> None:
    """Give free places to those who wait: the highest priority first, then the oldest."""
    while True:
        pool = db.execute(
            "SELECT cap, taken FROM pool WHERE scope = ? AND key = ?", (scope, key)
        ).fetchone()
        if pool is None or pool[1] >= pool[0]:
            return
        waits = db.execute(
            "SELECT instance, rank FROM place WHERE scope = ? AND key = ? AND state = ?"
            " ORDER BY priority DESC, instance LIMIT 1",
            (scope, key, WAITS),
        ).fetchone()
        if waits is None:
            if pool[1] == 0:
                db.execute("DELETE FROM pool WHERE scope = ? AND key = ?", (scope, key))
            return
        number, rank = waits
        _count(db, scope, key, 1)
        _set_state(db, number, rank, TAKEN)
        proceed(db, number, admitted)


def holder(db: sqlite3.Connection, place: Place) -> str | None:
    """Public id of one that has a place, if all are taken; else None."""
    pool = db.execute(
        "SELECT taken FROM pool WHERE scope = ? AND key = ?", (place.scope, place.key)
    ).fetchone()
    if pool is None or pool[0] < place.limit:
        return None
    row = db.execute(
        "SELECT i.public_id FROM place p JOIN instance i ON i.id = p.instance"
        " WHERE p.scope = ? AND p.key = ? AND p.state = ? LIMIT 1",
        (place.scope, place.key, TAKEN),
    ).fetchone()
    return "" if row is None else row[0]


def earlier(db: sqlite3.Connection, place: Place) -> list[int]:
    """Who has a place of this scope and key, or is to get one, and wasn't cancelled yet."""
    return [
        number
        for (number,) in db.execute(
            "SELECT p.instance FROM place p JOIN instance i ON i.id = p.instance"
            " WHERE p.scope = ? AND p.key = ? AND p.state < ? AND i.cancelled = 0",
            (place.scope, place.key, GIVEN_BACK),
        ).fetchall()
    ]


def asks_for_any(db: sqlite3.Connection, number: int) -> bool:
    """Whether an instance must have places before it runs."""
    row = db.execute("SELECT 1 FROM place WHERE instance = ? LIMIT 1", (number,)).fetchone()
    return row is not None


def release(
    db: sqlite3.Connection, ended: Iterable[tuple[int, bool]], admitted: Admitted
) -> None:
    """Instances have ended: their places go to those who wait.

    Args:
        ended: (number, whether it failed): a failed one may be retried, and asks again then.
    """
    failed = dict(ended)
    freed: dict[tuple[str, str], None] = {}
    over: list[tuple[int]] = []
    kept: list[tuple[int, int]] = []
    for number, scope, key, state in db.execute(
        "SELECT instance, scope, key, state FROM place"
        " WHERE instance IN (SELECT value FROM json_each(?)) ORDER BY instance, rank",
        (json.dumps(list(failed)),),
    ).fetchall():
        if state == TAKEN:
            _count(db, scope, key, -1)
            freed[scope, key] = None
        if failed[number]:
            kept.append((GIVEN_BACK, number))
        else:
            over.append((number,))
    db.executemany("UPDATE place SET state = ? WHERE instance = ?", kept)
    db.executemany("DELETE FROM place WHERE instance = ?", over)
    for scope, key in freed:
        fill(db, scope, key, admitted)


def set_limit(db: sqlite3.Connection, scope: str, limit: int, registry: int) -> None:
    """A scope has another limit from now on: for those, too, who wait there already."""
    admitted: Admitted = {}
    db.execute(
        "UPDATE place SET cap = ?, registry = ? WHERE scope = ?", (limit, registry, scope)
    )
    db.execute(
        "UPDATE pool SET cap = ?, registry = ? WHERE scope = ?", (limit, registry, scope)
    )
    for (key,) in db.execute("SELECT key FROM pool WHERE scope = ?", (scope,)).fetchall():
        fill(db, scope, key, admitted)


def _open(db: sqlite3.Connection, scope: str, key: str, cap: int, registry: int) -> None:
    """The pool is there, with the newest limit that is known."""
    db.execute(
        "INSERT INTO pool (scope, key, cap, registry) VALUES (?, ?, ?, ?)"
        " ON CONFLICT DO UPDATE SET cap = excluded.cap, registry = excluded.registry"
        " WHERE excluded.registry >= registry AND excluded.cap <> cap",
        (scope, key, cap, registry),
    )


def _count(db: sqlite3.Connection, scope: str, key: str, change: int) -> None:
    db.execute(
        "UPDATE pool SET taken = taken + ? WHERE scope = ? AND key = ?", (change, scope, key)
    )


def _set_state(db: sqlite3.Connection, number: int, rank: int, state: int) -> None:
    db.execute(
        "UPDATE place SET state = ? WHERE instance = ? AND rank = ?", (state, number, rank)
    )
