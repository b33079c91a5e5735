"""Writing turns and blocks: the only code that extends a log."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from triggerflow.store.operations import APPLIED, FENCED, Block, Outcome, Turn, Verdict
from triggerflow.store.records import ENDED

if TYPE_CHECKING:
    import sqlite3

_WOKEN = Outcome(Verdict.APPLIED, woken=True)


def turns(
    db: sqlite3.Connection,
    worker: int,
    items: Sequence[tuple[int, Any]],
    outcomes: list[Any],
) -> None:
    """Decide and write turns and blocks; see `operations.Turn` and `operations.Block`.

    The worker's epoch was checked before; here owner, generation and log length are.
    """
    numbers = json.dumps([op.number for _, op in items])
    standing = {
        number: (owner, generation, length)
        for number, owner, generation, length in db.execute(
            "SELECT id, owner, generation, log_length FROM instance"
            " WHERE id IN (SELECT value FROM json_each(?))",
            (numbers,),
        )
    }
    won: list[tuple[int, Turn]] = []
    blocks: list[Block] = []
    for index, op in items:
        if standing.get(op.number) != (worker, op.generation, op.log_length):
            outcomes[index] = FENCED
            continue
        if isinstance(op, Block):
            blocks.append(op)
        else:
            won.append((index, op))
        outcomes[index] = APPLIED
    if won:
        _write(db, worker, won, outcomes)
    for op in blocks:
        _block(db, op)


def _write(
    db: sqlite3.Connection, worker: int, won: list[tuple[int, Turn]], outcomes: list[Any]
) -> None:
    woken = _unseen(db, [op for _, op in won if op.status == "waiting"])
    entries: list[tuple[Any, ...]] = []
    rows: list[tuple[Any, ...]] = []
    consumed: list[tuple[int]] = []
    ended: list[tuple[int]] = []
    for index, op in won:
        position = op.log_length
        for row in op.entries:
            entries.append(
                (
                    op.number,
                    op.generation,
                    position,
                    row.tag,
                    row.value,
                    row.failed,
                    row.digest,
                    row.at,
                )
            )
            position += 1
        status = op.status
        owner: int | None = worker
        over: float | None = None
        if status == "waiting":
            if op.number in woken:
                status = "running"
                outcomes[index] = _WOKEN
            else:
                owner = None
        elif status in ENDED:
            owner, over = None, op.at
            ended.append((op.number,))
        rows.append(
            (
                status,
                owner,
                position,
                op.pending,
                op.due,
                op.value,
                over,
                not op.entries,
                op.started,
                op.number,
            )
        )
        consumed.extend((each,) for each in op.consumed)
    if entries:
        db.executemany(
            "INSERT INTO log (instance, generation, position, tag, value, failed, digest, at)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            entries,
        )
    db.executemany(
        "UPDATE instance SET status = ?, owner = ?, log_length = ?, pending = ?, due = ?,"
        " value = ?, ended = ?, crashes = crashes * ?, started = coalesce(started, ?)"
        " WHERE id = ?",
        rows,
    )
    if consumed:
        db.executemany("DELETE FROM inbox WHERE id = ? AND dedup IS NULL", consumed)
        db.executemany("UPDATE inbox SET consumed = 1 WHERE id = ?", consumed)
    if ended:
        db.executemany("DELETE FROM inbox WHERE instance = ?", ended)
        db.executemany("DELETE FROM tried WHERE instance = ?", ended)


def _unseen(db: sqlite3.Connection, parking: list[Turn]) -> set[int]:
    """Which of these instances have messages that their turn hadn't seen.

    The row's lock is the file's: a sender either wrote before this, and is seen here, or
    comes after, and finds the instance parked.
    """
    if not parking:
        return set()
    seen = {op.number: op.inbox_seen for op in parking}
    newest = db.execute(
        "SELECT instance, max(id) FROM inbox WHERE consumed = 0"
        " AND instance IN (SELECT value FROM json_each(?)) GROUP BY instance",
        (json.dumps(list(seen)),),
    )
    return {number for number, last in newest if last > seen[number]}


def _block(db: sqlite3.Connection, op: Block) -> None:
    db.execute(
        "UPDATE instance SET status = 'blocked', owner = NULL, cause = ?, reason = ?"
        " WHERE id = ?",
        (op.cause, op.reason, op.number),
    )
    db.execute("INSERT OR IGNORE INTO tried VALUES (?, ?)", (op.number, op.build))


def release(
    db: sqlite3.Connection, worker: int, items: Sequence[tuple[int, Any]], outcomes: list[Any]
) -> None:
    """Hand instances back; see `operations.Release`."""
    for index, op in items:
        db.execute(
            "UPDATE instance SET owner = NULL WHERE owner = ? AND status = 'running'"
            " AND id IN (SELECT value FROM json_each(?))",
            (worker, json.dumps(op.numbers)),
        )
        outcomes[index] = APPLIED


def woken(db: sqlite3.Connection, worker: int) -> list[int]:
    """A worker's instances whose inbox somebody else wrote to."""
    return [
        number
        for (number,) in db.execute(
            "SELECT id FROM instance WHERE status = 'running' AND owner = ? AND wake = 1",
            (worker,),
        )
    ]
