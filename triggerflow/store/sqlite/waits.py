"""Waits for activities: opened, found by a pivot, told when one meets them.

An open wait is one of two kinds. It *catches up* while ``scanned < upto``: somebody holds the
activities from its own position on against it. All others are as far as ``meta.watched``, one
position for all of them, moved in one commit with what was hit up to there. What is opened
while a page of activities is looked at could be passed over by the one who looked: so
whoever moves the position says which wait was the newest when he began, and newer ones catch
up to the new position by themselves.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, Final

from triggerflow.store.operations import Outcome, Verdict
from triggerflow.store.posts import Post
from triggerflow.store.records import ENDED
from triggerflow.store.sqlite import kin
from triggerflow.store.waits import Standing, WaitRecord

if TYPE_CHECKING:
    import sqlite3

    from triggerflow.store.acts import OpenWait
    from triggerflow.store.waits import Hit, NewWait, Watched

# So many paths are named; with more of them a document is looked at whole.
_MOST_PATHS: Final = 1000
# Tags of waits that no effect of the flow stands behind; their generation is 0.
_CANCEL: Final = "cancel_on#{}"
_COLUMNS: Final = (
    "w.id, w.instance, w.generation, w.tag, w.action, w.pattern, w.digest, w.scanned, w.upto,"
    " i.namespace"
)
_FROM: Final = "FROM wait w JOIN instance i ON i.id = w.instance"


# --- opening and closing


def arm(db: sqlite3.Connection, instance: int, generation: int, act: OpenWait) -> None:
    """Open a wait of a flow's; see `acts.OpenWait`."""
    row = (instance, generation, act.tag, "tell", act.pattern, act.digest, act.position)
    _open(db, row, act.pivots)


def arm_cancels(
    db: sqlite3.Connection, instance: int, position: int, new: Sequence[NewWait]
) -> None:
    """Open the waits that cancel a new instance, from the activity that started it on."""
    for number, each in enumerate(new):
        tag = _CANCEL.format(number)
        _open(db, (instance, 0, tag, "cancel", each.pattern, None, position), each.pivots)


def _open(
    db: sqlite3.Connection, row: tuple[Any, ...], pivots: Iterable[tuple[str, str]]
) -> None:
    cursor = db.execute(
        "INSERT INTO wait (instance, generation, tag, action, pattern, digest, position,"
        " scanned, upto) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?7, ?8)",
        (*row, _start(db)),
    )
    db.executemany(
        "INSERT INTO wait_key (path, value, wait) VALUES (?, ?, ?)",
        [(path, value, cursor.lastrowid) for path, value in pivots],
    )


def _start(db: sqlite3.Connection) -> int:
    """How far all others are; where there is no other, everything was looked at."""
    if db.execute("SELECT min(id) FROM wait").fetchone()[0] is None:
        db.execute(
            "UPDATE meta SET value = coalesce((SELECT seq FROM sqlite_sequence"
            " WHERE name = 'activity'), 0) WHERE name = 'watched'"
        )
    return _watched(db)


def _watched(db: sqlite3.Connection) -> int:
    found: int = db.execute("SELECT value FROM meta WHERE name = 'watched'").fetchone()[0]
    return found


def close(db: sqlite3.Connection, instance: int, generation: int, tag: str) -> None:
    """Close a wait that nobody waits under any more."""
    db.execute(
        "DELETE FROM wait WHERE instance = ? AND generation = ? AND tag = ?",
        (instance, generation, tag),
    )


def clear_instances(db: sqlite3.Connection, numbers: Sequence[tuple[int]]) -> None:
    """Close all waits of instances that have ended."""
    db.executemany("DELETE FROM wait WHERE instance = ?", numbers)


def clear_generation(db: sqlite3.Connection, instance: int) -> None:
    """Close the waits of a generation that ends; what cancels the instance stays."""
    db.execute("DELETE FROM wait WHERE instance = ? AND generation > 0", (instance,))


# --- hits, and how far everything is


def watch(
    db: sqlite3.Connection, items: Sequence[tuple[int, Watched]], outcomes: list[Any]
) -> None:
    """Decide and write what activities met; see `operations.Watched`."""
    for index, op in items:
        letters = [letter for hit in op.hits for letter in _hit(db, hit, op.at)]
        told = kin.post(db, letters)
        if op.caught_up:
            db.execute(
                "UPDATE wait SET scanned = max(scanned, ?)"
                " WHERE id IN (SELECT value FROM json_each(?))",
                (op.position, json.dumps(op.caught_up)),
            )
        for wait in op.passed_over:
            _fall_behind(db, wait, op.position)
        if op.newest is not None:
            _move(db, op.position, op.newest)
        outcomes[index] = Outcome(
            Verdict.APPLIED, told=tuple(told.owners), ended=tuple(told.ended)
        )


def _hit(db: sqlite3.Connection, hit: Hit, at: float) -> list[Post]:
    row = db.execute(
        "SELECT instance, tag, action, scanned, upto FROM wait WHERE id = ?", (hit.wait,)
    ).fetchone()
    if row is None:
        return []
    number, tag, action, scanned, upto = row
    if (scanned if scanned < upto else max(scanned, _watched(db))) < hit.since:
        # Others may have passed over it before: it finds its first one by itself.
        _fall_behind(db, hit.wait, hit.seq)
        return []
    db.execute("DELETE FROM wait WHERE id = ?", (hit.wait,))
    if action == "tell":
        return [(number, "activity", tag, hit.payload, at)]
    status, cancelled = db.execute(
        "SELECT status, cancelled FROM instance WHERE id = ?", (number,)
    ).fetchone()
    return [] if cancelled or status in ENDED else kin.cancels(db, [number], at)


def _fall_behind(db: sqlite3.Connection, wait: int, position: int) -> None:
    """A wait has activities up to this one to be held against it, by itself."""
    _delay(db, "id = ?3", wait, position)


def _move(db: sqlite3.Connection, position: int, newest: int) -> None:
    """Move the position of all that don't catch up; newer ones catch up to it."""
    # Nothing is written where nothing moves, or workers would wake one another for ever.
    if position > _watched(db):
        _delay(db, "id > ?3", newest, position)
        db.execute("UPDATE meta SET value = ? WHERE name = 'watched'", (position,))


def _delay(db: sqlite3.Connection, which: str, wait: int, position: int) -> None:
    # One that doesn't catch up is as far as all are, whatever it says of itself.
    db.execute(
        "UPDATE wait SET upto = ?1,"
        " scanned = CASE WHEN scanned < upto THEN scanned ELSE max(scanned, ?2) END"
        f" WHERE {which} AND upto < ?1",
        (position, _watched(db), wait),
    )


# --- asking


def standing(db: sqlite3.Connection) -> Standing:
    """How far everything is; see `Store.standing`."""
    # The newest wait comes first: whatever is opened from here on is newer.
    newest = db.execute("SELECT seq FROM sqlite_sequence WHERE name = 'wait'").fetchone()
    position = _watched(db)
    paths = [
        path
        for (path,) in db.execute(
            "WITH RECURSIVE used (path) AS (SELECT min(path) FROM wait_key UNION ALL"
            " SELECT (SELECT min(path) FROM wait_key WHERE path > used.path) FROM used"
            " WHERE used.path IS NOT NULL)"
            " SELECT path FROM used WHERE path IS NOT NULL LIMIT ?",
            (_MOST_PATHS + 1,),
        )
    ]
    return Standing(
        position,
        0 if newest is None else newest[0],
        tuple(paths) if len(paths) <= _MOST_PATHS else None,
        db.execute("SELECT 1 FROM wait WHERE scanned < upto LIMIT 1").fetchone() is not None,
    )


def waits_under(
    db: sqlite3.Connection, pivots: Sequence[tuple[str, str, int]], limit: int
) -> list[tuple[int, WaitRecord]]:
    """Waits filed under one of these pivots; see `Store.waits_under`."""
    rows = db.execute(
        f"SELECT k.key, {_COLUMNS} FROM json_each(?) k CROSS JOIN wait_key x"
        " ON x.path = json_extract(k.value, '$[0]')"
        " AND x.value = json_extract(k.value, '$[1]')"
        " AND x.wait > json_extract(k.value, '$[2]')"
        " CROSS JOIN wait w ON w.id = x.wait CROSS JOIN instance i"
        " ON i.id = w.instance LIMIT ?",
        (json.dumps(pivots), limit),
    )
    return [(index, WaitRecord(*row)) for index, *row in rows]


def waits_behind(
    db: sqlite3.Connection, after: tuple[int, int] | None, limit: int, *, nearest_first: bool
) -> list[WaitRecord]:
    """Waits that catch up; see `Store.waits_behind`."""
    if nearest_first:
        where, order, first = "(w.scanned, w.id) < (?, ?)", "DESC", (2**63 - 1, 0)
    else:
        where, order, first = "(w.scanned, w.id) > (?, ?)", "ASC", (-1, 0)
    rows = db.execute(
        f"SELECT {_COLUMNS} {_FROM} WHERE w.scanned < w.upto AND {where}"
        f" ORDER BY w.scanned {order}, w.id {order} LIMIT ?",
        (*(after or first), limit),
    )
    return [WaitRecord(*row) for row in rows]


def waits(db: sqlite3.Connection, after: int, limit: int) -> list[WaitRecord]:
    """Open waits by id; see `Store.waits`."""
    rows = db.execute(
        f"SELECT {_COLUMNS} {_FROM} WHERE w.id > ? ORDER BY w.id LIMIT ?", (after, limit)
    )
    return [WaitRecord(*row) for row in rows]


def waits_of(db: sqlite3.Connection, number: int) -> list[WaitRecord]:
    """The open waits of an instance; see `Store.waits_of`."""
    rows = db.execute(
        f"SELECT {_COLUMNS} {_FROM} WHERE w.instance = ? ORDER BY w.id", (number,)
    )
    return [WaitRecord(*row) for row in rows]
