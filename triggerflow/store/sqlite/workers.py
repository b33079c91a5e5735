"""Workers: registered, fenced, reaped."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING

from triggerflow.store.records import CRASH_LIMIT, WorkerRecord
from triggerflow.store.sqlite import tasks

if TYPE_CHECKING:
    import sqlite3


def register(
    db: sqlite3.Connection,
    *,
    build: str,
    flows: Iterable[tuple[str, int]],
    serves: Iterable[tuple[str, str]],
    now: float,
) -> int:
    """Insert a worker's row; its epoch is 1."""
    cursor = db.execute(
        "INSERT INTO worker (epoch, build, pid, started, seen) VALUES (1, ?, ?, ?, ?)",
        (build, os.getpid(), now, now),
    )
    worker = cursor.lastrowid or 0
    db.executemany(
        "INSERT OR IGNORE INTO worker_flow VALUES (?, ?, ?)",
        [(worker, flow, version) for flow, version in flows],
    )
    db.executemany(
        "INSERT OR IGNORE INTO worker_queue VALUES (?, ?, ?)",
        [(worker, queue, step) for queue, step in serves],
    )
    return worker


def fence(db: sqlite3.Connection, worker: int, epoch: int, now: float) -> bool:
    """Whether the worker may still act; its heartbeat as well."""
    found = db.execute(
        "UPDATE worker SET seen = ? WHERE id = ? AND epoch = ?", (now, worker, epoch)
    )
    return found.rowcount == 1


def is_current(db: sqlite3.Connection, worker: int, epoch: int) -> bool:
    """Whether the worker may still act, without a sign of life."""
    found = db.execute("SELECT 1 FROM worker WHERE id = ? AND epoch = ?", (worker, epoch))
    return found.fetchone() is not None


def remove(db: sqlite3.Connection, worker: int) -> None:
    """Take a worker's row away; it must own nothing any more."""
    db.execute("DELETE FROM worker_flow WHERE worker = ?", (worker,))
    db.execute("DELETE FROM worker_queue WHERE worker = ?", (worker,))
    db.execute("DELETE FROM worker WHERE id = ?", (worker,))


def hand_back(db: sqlite3.Connection, worker: int) -> None:
    """Make runnable what a worker owns or holds, without counting a crash."""
    db.execute(
        "UPDATE instance SET owner = NULL WHERE owner = ? AND status = 'running'", (worker,)
    )
    tasks.hand_back(db, worker)
    _free_walks(db, worker)


def _free_walks(db: sqlite3.Connection, worker: int) -> int:
    found = db.execute(
        "UPDATE backfill SET owner = NULL WHERE ended IS NULL AND owner = ?", (worker,)
    )
    return found.rowcount


def reap(
    db: sqlite3.Connection, *, silent: Mapping[int, float], alive: Callable[[int], bool]
) -> int:
    """Free what dead workers owned; see `Store.reap`."""
    freed = held = 0
    for worker, seen in db.execute("SELECT id, seen FROM worker").fetchall():
        # A sign of life since the caller looked saves it.
        if alive(worker) and silent.get(worker) != seen:
            continue
        db.execute("UPDATE worker SET epoch = epoch + 1 WHERE id = ?", (worker,))
        freed += db.execute(
            "UPDATE instance SET owner = NULL, crashes = crashes + 1"
            " WHERE owner = ? AND status = 'running'",
            (worker,),
        ).rowcount
        held += tasks.free(db, worker, seen) + _free_walks(db, worker)
        db.execute("UPDATE outbox SET owner = NULL WHERE owner = ?", (worker,))
        remove(db, worker)
    if freed:
        db.execute(
            "UPDATE instance SET status = 'blocked', cause = 'crash_limit', reason ="
            " 'its worker died ' || crashes || ' times while it ran; the last ones with"
            " nothing else in the process: mend the flow or step, then unblock it'"
            " WHERE status = 'running' AND owner IS NULL AND crashes >= ?",
            (CRASH_LIMIT,),
        )
    return freed + held


def all_of(db: sqlite3.Connection, alive: Callable[[int], bool]) -> list[WorkerRecord]:
    """Every registered worker."""
    serves: dict[int, list[tuple[str, str]]] = defaultdict(list)
    for worker, queue, step in db.execute("SELECT worker, queue, step FROM worker_queue"):
        serves[worker].append((queue, step))
    return [
        WorkerRecord(
            worker, epoch, build, pid, seen, alive(worker), owned, holds, tuple(serves[worker])
        )
        for worker, epoch, build, pid, seen, owned, holds in db.execute(
            "SELECT w.id, w.epoch, w.build, w.pid, w.seen, (SELECT count(*) FROM instance"
            " WHERE owner = w.id AND status = 'running'),"
            " (SELECT count(*) FROM task WHERE owner = w.id) FROM worker w ORDER BY w.id"
        ).fetchall()
    ]
