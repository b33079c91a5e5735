"""Writing turns and blocks: the only code that extends a log."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from triggerflow.store.acts import ContinueAsNew
from triggerflow.store.operations import APPLIED, FENCED, Block, Outcome, Turn, Verdict
from triggerflow.store.posts import Admitted, Told
from triggerflow.store.records import ENDED
from triggerflow.store.sqlite import (
    acts,
    generations,
    kin,
    places,
    requests,
    tasks,
    waits,
    waking,
)
from triggerflow.store.sqlite.progress import clear, clear_instances

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
    standing = {}
    in_rows = set()
    for number, owner, generation, length, wide in db.execute(
        "SELECT id, owner, generation, log_length, pending = x'' FROM instance"
        " WHERE id IN (SELECT value FROM json_each(?))",
        (numbers,),
    ):
        standing[number] = owner, generation, length
        if wide:
            in_rows.add(number)
    won: list[tuple[int, Turn]] = []
    blocks: list[Block] = []
    checking = acts.Checking(db)
    for index, op in items:
        if standing.pop(op.number, None) != (worker, op.generation, op.log_length):
            # Once is enough: a second turn in this batch builds on a log that is gone.
            outcomes[index] = FENCED
            continue
        if isinstance(op, Block):
            blocks.append(op)
        else:
            if op.acts:
                refusals = checking.refusals(op)
                if refusals:
                    outcomes[index] = Outcome(Verdict.CONFLICT, refusals=refusals)
                    continue
            checking.won(op)
            won.append((index, op))
        outcomes[index] = APPLIED
    if won:
        requests.write(db, [op for _, op in won], in_rows)
        _write(db, worker, won, outcomes)
    for op in blocks:
        _block(db, op)


def _write(
    db: sqlite3.Connection, worker: int, won: list[tuple[int, Turn]], outcomes: list[Any]
) -> None:
    told = Told()
    emitted: set[int] = set()
    if any(op.acts or op.status in ENDED for _, op in won):
        told, emitted = acts.carry_out(db, worker, won)
    # What they were told is found here, if they are about to park.
    woken = waking.unheard(db, [op for _, op in won if op.status == "waiting"])
    for index, op in won:
        if op.number in woken:
            outcomes[index] = _WOKEN
    entries = [
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
        for _, op in won
        for position, row in enumerate(op.entries, op.log_length)
    ]
    if entries:
        db.executemany(
            "INSERT INTO log (instance, generation, position, tag, value, failed, digest, at)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            entries,
        )
    # A turn that stays changes no indexed column, which makes it several times cheaper.
    staying = [op for _, op in won if op.status == "running" or op.number in woken]
    if staying:
        db.executemany(
            "UPDATE instance SET log_length = ?, pending = ?, crashes = crashes * ?,"
            " turns = turns + 1, started = coalesce(started, ?) WHERE id = ?",
            [
                (
                    op.log_length + len(op.entries),
                    op.pending,
                    not op.entries,
                    op.started,
                    op.number,
                )
                for op in staying
            ],
        )
    consumed = [(each,) for _, op in won for each in op.consumed]
    if consumed:
        db.executemany("DELETE FROM inbox WHERE id = ? AND dedup IS NULL", consumed)
        db.executemany("UPDATE inbox SET consumed = 1 WHERE id = ?", consumed)
    for op in staying:
        for act in op.acts:
            if isinstance(act, ContinueAsNew):
                generations.turn_over(db, op, act)
    leaving = [op for _, op in won if op.status != "running" and op.number not in woken]
    if leaving:
        _leave(db, worker, leaving)
    clear(db, [(op.number, op.generation, tag) for _, op in won for tag in op.progress_over])
    ended = [(op.number,) for op in leaving if op.status in ENDED]
    if ended:
        clear_instances(db, ended)
        tasks.clear_instances(db, ended)
        waits.clear_instances(db, ended)
        db.executemany("DELETE FROM tried WHERE instance = ?", ended)
    # A failed instance may be retried: its unread messages are still wanted then, and a
    # repeat must still be known.
    kin.clear_inboxes(
        db, [op.number for op in leaving if op.status in ENDED and op.status != "failed"]
    )
    if ended:
        over = [(op.number, op.status == "failed") for op in leaving if op.status in ENDED]
        admitted: Admitted = {}
        places.release(db, over, admitted)
        told.woken(admitted)
    if told or emitted:
        # One turn passes on what the whole batch has told.
        first = won[0][0]
        outcomes[first] = Outcome(
            Verdict.APPLIED,
            woken=outcomes[first].woken,
            told=tuple(told.owners),
            ended=tuple(told.ended),
            emitted=bool(emitted),
        )


def _leave(db: sqlite3.Connection, worker: int, leaving: list[Turn]) -> None:
    """Instances that park or end have no owner any more."""
    db.executemany(
        "UPDATE instance SET status = ?, owner = NULL, log_length = ?, pending = ?, due = ?,"
        " value = ?, ended = ?, crashes = crashes * ?, started = coalesce(started, ?),"
        " turns = turns + 1, awaits = ?, parked_by = ? WHERE id = ?",
        [
            (
                op.status,
                op.log_length + len(op.entries),
                op.pending,
                op.due,
                op.value,
                op.at if op.status in ENDED else None,
                not op.entries,
                op.started,
                None if op.awaits is None else json.dumps(op.awaits),
                worker,
                op.number,
            )
            for op in leaving
        ],
    )


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
