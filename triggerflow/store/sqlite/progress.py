"""Progress: what running steps said last, one row a call, gone with the call."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from triggerflow.store.operations import APPLIED, FENCED, Outcome, Verdict
from triggerflow.store.records import ENDED, ProgressRecord

if TYPE_CHECKING:
    import sqlite3


def write(
    db: sqlite3.Connection, worker: int, items: Sequence[tuple[int, Any]], outcomes: list[Any]
) -> None:
    """Decide and write heartbeats; see `operations.Heartbeat`."""
    standing = {
        number: (owner, generation, status)
        for number, owner, generation, status in db.execute(
            "SELECT id, owner, generation, status FROM instance"
            " WHERE id IN (SELECT value FROM json_each(?))",
            (json.dumps([op.number for _, op in items]),),
        )
    }
    rows = []
    for index, op in items:
        owner, generation, status = standing.get(op.number, (None, 0, ""))
        if (owner, generation) == (worker, op.generation):
            rows.append((op.number, op.generation, op.tag, op.details, op.at))
            outcomes[index] = APPLIED
        elif status in ENDED:
            outcomes[index] = Outcome(Verdict.GONE, detail=status)
        else:
            outcomes[index] = FENCED
    keep(db, rows)


def keep(db: sqlite3.Connection, rows: Iterable[tuple[int, int, str, bytes, float]]) -> None:
    """Keep what calls said last: (instance, generation, tag, details, time)."""
    db.executemany(
        "INSERT INTO progress (instance, generation, tag, details, at) VALUES (?, ?, ?, ?, ?)"
        " ON CONFLICT DO UPDATE SET details = excluded.details, at = excluded.at",
        rows,
    )


def clear(db: sqlite3.Connection, calls: Iterable[tuple[int, int, str]]) -> None:
    """Forget calls that no longer pend: (instance, generation, tag)."""
    db.executemany(
        "DELETE FROM progress WHERE instance = ? AND generation = ? AND tag = ?", calls
    )


def clear_instances(db: sqlite3.Connection, numbers: Iterable[tuple[int]]) -> None:
    """Forget instances that have ended."""
    db.executemany("DELETE FROM progress WHERE instance = ?", numbers)


def of(db: sqlite3.Connection, number: int, generation: int) -> list[ProgressRecord]:
    """What the calls of one generation said last."""
    rows = db.execute(
        "SELECT tag, details, at FROM progress WHERE instance = ? AND generation = ?",
        (number, generation),
    )
    return [ProgressRecord(*row) for row in rows]


def of_many(
    db: sqlite3.Connection, numbers: str
) -> dict[tuple[int, int], list[tuple[str, bytes]]]:
    """(instance, generation) -> (tag, details), for the numbers in a JSON list."""
    found: dict[tuple[int, int], list[tuple[str, bytes]]] = defaultdict(list)
    for number, generation, tag, details in db.execute(
        "SELECT instance, generation, tag, details FROM progress"
        " WHERE instance IN (SELECT value FROM json_each(?))",
        (numbers,),
    ):
        found[number, generation].append((tag, details))
    return found
