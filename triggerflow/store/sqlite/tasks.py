"""Tasks: queued calls, from the turn that arms one to the answer that its flow gets."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, Final

from triggerflow.core.answers import Answer
from triggerflow.core.codec import ValueCodec
from triggerflow.core.failure import Failure
from triggerflow.core.tags import name_of
from triggerflow.store.operations import APPLIED, Outcome, Verdict
from triggerflow.store.records import (
    CRASH_LIMIT,
    SUSPECT,
    ClaimedTask,
    TaskCount,
    TaskRecord,
)
from triggerflow.store.sqlite import kin, progress
from triggerflow.store.sqlite.reads import recorded

if TYPE_CHECKING:
    import sqlite3

    from triggerflow.store.acts import CloseTask, OpenTask, RearmTask
    from triggerflow.store.operations import Turn
    from triggerflow.store.tasks import ClaimTasks, FinishTask

# An answer that the store itself gives holds texts and numbers only.
_CODEC: Final = ValueCodec()
_WITHDRAWN: Final = Outcome(Verdict.GONE, detail="withdrawn")
_LOST: Final = Outcome(Verdict.FENCED, detail="token")


# --- what turns do


def arm(db: sqlite3.Connection, turn: Turn, act: OpenTask) -> None:
    """Offer a call to a queue."""
    db.execute(
        "INSERT INTO task (instance, generation, tag, queue, step, args, due, armed, timeout,"
        " key) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?7, ?8, ?9)",
        (
            turn.number,
            turn.generation,
            act.tag,
            act.queue,
            act.step,
            act.args,
            act.at,
            act.timeout,
            act.key,
        ),
    )


def rearm(db: sqlite3.Connection, turn: Turn, act: RearmTask) -> None:
    """Offer it again, from a time on."""
    db.execute(
        "UPDATE task SET due = ? WHERE instance = ? AND generation = ? AND tag = ?",
        (act.due, turn.number, turn.generation, act.tag),
    )


def withdraw(db: sqlite3.Connection, turn: Turn, act: CloseTask) -> None:
    """Nobody waits for it any more: an attempt that runs is fenced from now on."""
    _remove(db, [(turn.number, turn.generation, act.tag)])


def _remove(db: sqlite3.Connection, calls: Sequence[tuple[int, int, str]]) -> None:
    db.executemany("DELETE FROM task WHERE instance = ? AND generation = ? AND tag = ?", calls)
    progress.clear(db, calls)


def clear_instances(db: sqlite3.Connection, numbers: Iterable[tuple[int]]) -> None:
    """Forget what instances had queued whose generation has ended, answers unread included."""
    rows = list(numbers)
    db.executemany("DELETE FROM task WHERE instance = ?", rows)
    db.executemany("DELETE FROM task_answer WHERE instance = ?", rows)
    db.executemany(
        "DELETE FROM inbox WHERE instance = ? AND consumed = 0 AND kind = 'task'", rows
    )


# --- claims


def claim(
    db: sqlite3.Connection, worker: int, items: Sequence[tuple[int, Any]], outcomes: list[Any]
) -> None:
    """Decide and write claims; see `operations.ClaimTasks`."""
    for index, op in items:
        outcomes[index] = _claim(db, worker, op)


_SUSPECT: Final = (
    "SELECT id FROM task WHERE owner IS NULL AND due IS NOT NULL AND due <= ?"
    f" AND crashes >= {SUSPECT:d} AND queue IN (SELECT value FROM json_each(?))"
    " AND step IN (SELECT value FROM json_each(?)) ORDER BY due, id LIMIT 1"
)
_READY: Final = (
    "SELECT due, id FROM task WHERE queue = ? AND step = ? AND owner IS NULL"
    f" AND due IS NOT NULL AND crashes < {SUSPECT:d} ORDER BY due, id LIMIT ?"
)


def _claim(db: sqlite3.Connection, worker: int, op: ClaimTasks) -> Outcome:
    queues, steps = sorted(op.queues), sorted(op.steps)
    suspect = db.execute(_SUSPECT, (op.now, json.dumps(queues), json.dumps(steps))).fetchone()
    if suspect is not None and op.alone:
        return Outcome(Verdict.APPLIED, tasks=_take(db, worker, [suspect[0]]), more=True)
    # Each pair has its rows in order in one index, so a step that nobody here knows, however
    # much of it there is, costs nothing.
    found = sorted(
        row
        for queue in queues
        for step in steps
        for row in db.execute(_READY, (queue, step, op.limit + 1))
    )
    due = [id for when, id in found if when <= op.now]
    later = next((when for when, _ in found if when > op.now), None)
    return Outcome(
        Verdict.APPLIED,
        tasks=_take(db, worker, due[: op.limit]),
        more=len(due) > op.limit,
        suspects=suspect is not None,
        next_due=later,
    )


def _take(db: sqlite3.Connection, worker: int, ids: list[int]) -> tuple[ClaimedTask, ...]:
    if not ids:
        return ()
    db.execute("UPDATE meta SET value = value + ? WHERE name = 'token'", (len(ids),))
    (last,) = db.execute("SELECT value FROM meta WHERE name = 'token'").fetchone()
    db.executemany(
        "UPDATE task SET owner = ?, token = ?, attempt = attempt + 1 WHERE id = ?",
        [(worker, token, id) for token, id in enumerate(ids, last - len(ids) + 1)],
    )
    listed = json.dumps(ids)
    rows = db.execute(
        "SELECT t.id, t.token, t.instance, i.public_id, t.generation, t.tag, t.queue, t.step,"
        " t.args, t.attempt, t.crashes, t.timeout, t.key, p.details FROM task t"
        " JOIN instance i ON i.id = t.instance LEFT JOIN progress p"
        " ON p.instance = t.instance AND p.generation = t.generation AND p.tag = t.tag"
        " WHERE t.id IN (SELECT value FROM json_each(?)) ORDER BY t.token",
        (listed,),
    ).fetchall()
    found = []
    for *row, key, details in rows:
        known = None if key is None else recorded(db, name_of(row[5]), key)
        fields = [*row, known, details]
        found.append(ClaimedTask(*fields))
    return tuple(found)


# --- what workers say of those that they hold


def _standing(
    db: sqlite3.Connection, items: Sequence[tuple[int, Any]]
) -> dict[int, tuple[int | None, int]]:
    """Task -> (owner, token), of those that are there."""
    rows = db.execute(
        "SELECT id, owner, token FROM task WHERE id IN (SELECT value FROM json_each(?))",
        (json.dumps([op.task for _, op in items]),),
    )
    return {id: (owner, token) for id, owner, token in rows}


def beat(
    db: sqlite3.Connection, worker: int, items: Sequence[tuple[int, Any]], outcomes: list[Any]
) -> None:
    """Decide and write progress; see `operations.TaskHeartbeat`."""
    standing = _standing(db, items)
    rows = []
    for index, op in items:
        found = standing.get(op.task)
        if found == (worker, op.token):
            rows.append((op.number, op.generation, op.tag, op.details, op.at))
            outcomes[index] = APPLIED
        else:
            outcomes[index] = _WITHDRAWN if found is None else _LOST
    progress.keep(db, rows)


def finish(
    db: sqlite3.Connection, worker: int, items: Sequence[tuple[int, Any]], outcomes: list[Any]
) -> None:
    """Decide and write answers; see `operations.FinishTask`."""
    standing = _standing(db, items)
    won: list[tuple[int, FinishTask]] = []
    for index, op in items:
        # Once is enough: a second answer in this batch finds nothing to answer.
        if standing.get(op.task) == (worker, op.token):
            del standing[op.task]
            won.append((index, op))
    for _, op in won:
        _answer(db, op)
    letters = [(op.number, "task", op.tag, op.payload, op.at) for _, op in won]
    owners = dict(kin.post(db, letters).owners)
    for index, op in won:
        told = ((op.number, owners.get(op.number)),)
        outcomes[index] = Outcome(Verdict.APPLIED, number=op.number, told=told)
    for index, op in items:
        if outcomes[index] is None:
            outcomes[index] = _refused(db, op, standing)


def _answer(db: sqlite3.Connection, op: FinishTask) -> None:
    call = (op.number, op.generation, op.tag)
    db.execute(
        "INSERT INTO task_answer (instance, generation, tag, token, digest)"
        " VALUES (?, ?, ?, ?, ?) ON CONFLICT DO UPDATE"
        " SET token = excluded.token, digest = excluded.digest",
        (*call, op.token, op.digest),
    )
    if op.final:
        _remove(db, [call])
    else:
        # Its process lived to tell, so no crash is on it any more.
        db.execute(
            "UPDATE task SET owner = NULL, due = NULL, crashes = 0 WHERE id = ?", (op.task,)
        )


def _refused(
    db: sqlite3.Connection, op: FinishTask, standing: dict[int, tuple[int | None, int]]
) -> Outcome:
    last = db.execute(
        "SELECT token, digest FROM task_answer WHERE instance = ? AND generation = ?"
        " AND tag = ?",
        (op.number, op.generation, op.tag),
    ).fetchone()
    if last is not None and last[0] == op.token:
        return Outcome(Verdict.DUPLICATE if last[1] == op.digest else Verdict.CONFLICT)
    return _LOST if op.task in standing else _WITHDRAWN


def held(db: sqlite3.Connection, worker: int) -> set[tuple[int, int]]:
    """(task, token) of all that a worker holds."""
    return set(db.execute("SELECT id, token FROM task WHERE owner = ?", (worker,)))


def hand_back(db: sqlite3.Connection, worker: int) -> None:
    """Let others have what a worker holds, without counting a crash."""
    db.execute("UPDATE task SET owner = NULL WHERE owner = ?", (worker,))


def free(db: sqlite3.Connection, worker: int, seen: float) -> int:
    """Free what a dead worker held, one crash counted for each; how many there were.

    Args:
        seen: its last sign of life.
    """
    freed = db.execute(
        "UPDATE task SET owner = NULL, crashes = crashes + 1 WHERE owner = ?", (worker,)
    ).rowcount
    if not freed:
        return 0
    lost = db.execute(
        "SELECT instance, generation, tag, step, crashes FROM task WHERE owner IS NULL"
        f" AND due IS NOT NULL AND crashes >= {SUSPECT:d} AND crashes >= ?",
        (CRASH_LIMIT,),
    ).fetchall()
    letters = []
    for number, generation, tag, step, crashes in lost:
        failure = Failure(
            "CrashLimit",
            f"the worker that ran step {step!r} died {crashes} times, the last ones with "
            "nothing else in the process: mend the step, then retry the instance",
        )
        answer = Answer(generation, failure=failure)
        letters.append((number, "task", tag, answer.encode(_CODEC), seen))
    _remove(db, [row[:3] for row in lost])
    kin.post(db, letters)
    return freed


# --- asking

_TASK: Final = (
    "SELECT t.id, i.public_id, t.generation, t.tag, t.queue, t.step, t.attempt, t.due,"
    " t.armed, t.owner, t.token, t.crashes FROM task t JOIN instance i ON i.id = t.instance"
)


def of_queue(
    db: sqlite3.Connection, queue: str | None, after: int, limit: int
) -> list[TaskRecord]:
    """Tasks of one queue, or of all, in the order in which they were armed."""
    where, values = ("", ()) if queue is None else (" AND t.queue = ?", (queue,))
    rows = db.execute(
        f"{_TASK} WHERE t.id > ?{where} ORDER BY t.id LIMIT ?", (after, *values, limit)
    )
    return [TaskRecord(*row) for row in rows]


def of_instance(db: sqlite3.Connection, number: int) -> list[TaskRecord]:
    """The tasks of one instance."""
    rows = db.execute(f"{_TASK} WHERE t.instance = ? ORDER BY t.id", (number,))
    return [TaskRecord(*row) for row in rows]


def backlog(db: sqlite3.Connection) -> list[TaskCount]:
    """How many tasks each step has in each queue, and how many of them run."""
    rows = db.execute(
        "SELECT queue, step, count(*), count(owner), min(armed) FROM task"
        " GROUP BY queue, step ORDER BY queue, step"
    )
    return [TaskCount(*row) for row in rows]
