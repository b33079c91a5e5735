"""Workers: registered, fenced, reaped."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Final

from triggerflow.store.postgres import locks, tasks
from triggerflow.store.postgres.columns import Ints, columns
from triggerflow.store.postgres.standing import Standing
from triggerflow.store.records import CRASH_LIMIT, WorkerRecord

if TYPE_CHECKING:
    from triggerflow.store.postgres.wire import Answer, Db

FENCE: Final = (
    "UPDATE worker SET seen = %s WHERE id = %s AND epoch = %s"
    " RETURNING id, pg_current_xact_id()::text"
)


def register(
    db: Db,
    *,
    build: str,
    flows: Iterable[tuple[str, int]],
    serves: Iterable[tuple[str, str]],
    now: float,
) -> int:
    """Insert a worker's row; its epoch is 1."""
    worker: int = db.execute(
        "INSERT INTO worker (epoch, build, pid, started, seen, server)"
        " VALUES (1, %s, %s, %s, %s, %s) RETURNING id",
        build,
        os.getpid(),
        now,
        now,
        locks.server(db),
    ).one()
    known = [(worker, flow, version) for flow, version in set(flows)]
    if known:
        db.execute(
            "INSERT INTO worker_flow (worker, flow, version) SELECT * FROM unnest(%s, %s, %s)",
            *columns("iti", known),
        )
    served = [(worker, queue, step) for queue, step in set(serves)]
    if served:
        db.execute(
            "INSERT INTO worker_queue (worker, queue, step) SELECT * FROM unnest(%s, %s, %s)",
            *columns("itt", served),
        )
    return worker


def fence(db: Db, worker: int, epoch: int, now: float) -> Answer:
    """Whether the worker may still act (then there is a row); its heartbeat as well.

    Its row is locked from here on: who reaps it waits for this batch, and this batch for a
    reaping that has begun. The row's last value is the transaction's number.
    """
    return db.execute(FENCE, now, worker, epoch)


def settle_in(db: Db, worker: int) -> None:
    """A worker holds its lock on this server from now on."""
    db.execute(
        "UPDATE worker SET server = pg_postmaster_start_time()::text WHERE id = %s"
        " AND server <> pg_postmaster_start_time()::text",
        worker,
    )


def remove(db: Db, worker: int) -> None:
    """Take a worker's row away; it must own nothing any more."""
    db.execute("DELETE FROM worker_flow WHERE worker = %s", worker)
    db.execute("DELETE FROM worker_queue WHERE worker = %s", worker)
    db.execute("DELETE FROM worker WHERE id = %s", worker)


def hand_back(db: Db, worker: int) -> None:
    """Make runnable what a worker owns or holds, without counting a crash."""
    db.execute("SELECT 1 FROM worker WHERE id = %s FOR UPDATE", worker)
    db.execute(
        "UPDATE instance SET owner = NULL WHERE id IN (SELECT id FROM instance"
        " WHERE owner = %s AND status = 'running' ORDER BY id FOR UPDATE)",
        worker,
    )
    tasks.hand_back(db, worker)
    _free_walks(db, worker)


def _free_walks(db: Db, worker: int) -> int:
    """Let others go on with a worker's walks over history; how many there were."""
    found = db.execute(
        "UPDATE backfill SET owner = NULL WHERE ended IS NULL AND owner = %s RETURNING id",
        worker,
    )
    return len(found.rows())


def reap(db: Db, *, silent: Mapping[int, float]) -> int:
    """Free what dead workers owned; see `Store.reap`."""
    rows = db.execute("SELECT id, seen, server FROM worker ORDER BY id").rows()
    living = locks.living(db, {worker: where for worker, _, where in rows})
    freed = 0
    for worker, seen, _ in rows:
        if worker not in living or silent.get(worker) == seen:
            freed += _reap(db, worker, seen)
    return freed


def _reap(db: Db, worker: int, seen: float) -> int:
    # The epoch first. A sign of life since the caller looked saves it: once this row is
    # locked, no more can come.
    fenced = db.execute(
        "UPDATE worker SET epoch = epoch + 1 WHERE id = %s AND seen = %s RETURNING id",
        worker,
        seen,
    )
    if fenced.row() is None:
        return 0
    s = Standing(db, None, {})
    s.lock(tasks.instances_at_the_limit(db, worker), worker)
    freed = db.execute(
        "UPDATE instance SET owner = NULL, crashes = crashes + 1"
        " WHERE owner = %s AND status = 'running' RETURNING id",
        worker,
    ).firsts()
    if freed:
        db.execute(
            "UPDATE instance SET status = 'blocked', cause = 'crash_limit', reason ="
            " 'its worker died ' || crashes || ' times while it ran; the last ones with"
            " nothing else in the process: mend the flow or step, then unblock it'"
            " WHERE id = ANY(%s) AND crashes >= %s",
            Ints(freed),
            CRASH_LIMIT,
        )
    held = tasks.free(s, worker, seen) + _free_walks(db, worker)
    db.execute("UPDATE outbox SET owner = NULL WHERE owner = %s", worker)
    remove(db, worker)
    return len(freed) + held


def all_of(db: Db) -> list[WorkerRecord]:
    """Every registered worker."""
    serves: dict[int, list[tuple[str, str]]] = defaultdict(list)
    for worker, queue, step in db.execute(
        "SELECT worker, queue, step FROM worker_queue"
    ).rows():
        serves[worker].append((queue, step))
    rows = db.execute(
        "SELECT w.id, w.epoch, w.build, w.pid, w.seen, w.server, (SELECT count(*)"
        " FROM instance WHERE owner = w.id AND status = 'running'),"
        " (SELECT count(*) FROM task WHERE owner = w.id) FROM worker w ORDER BY w.id"
    ).rows()
    living = locks.living(db, {row[0]: row[5] for row in rows})
    return [
        WorkerRecord(
            worker,
            epoch,
            build,
            pid,
            seen,
            worker in living,
            owned,
            holds,
            tuple(serves[worker]),
        )
        for worker, epoch, build, pid, seen, _, owned, holds in rows
    ]
