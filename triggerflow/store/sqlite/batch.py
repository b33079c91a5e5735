"""The order in which a batch is decided, and who must be fenced before."""

from __future__ import annotations

import sqlite3
from typing import Any, Final

from triggerflow.store.operations import (
    Advance,
    Append,
    Batch,
    Block,
    Claim,
    Dispatch,
    Heartbeat,
    Outcome,
    Redispatch,
    Release,
    Send,
    Start,
    Terminate,
    Turn,
    Unblock,
    Verdict,
)
from triggerflow.store.sqlite import (
    advances,
    arrivals,
    claims,
    messages,
    progress,
    redispatches,
    tasks,
    turns,
    waits,
    workers,
)
from triggerflow.store.tasks import ClaimTasks, FinishTask, TaskHeartbeat
from triggerflow.store.waits import Watched

_NEEDS_WORKER: Final = (
    Heartbeat,
    Turn,
    Block,
    TaskHeartbeat,
    FinishTask,
    Advance,
    Release,
    Claim,
    ClaimTasks,
)
_CLAIMS: Final = {Claim, ClaimTasks}
_WORKER_FENCED: Final = Outcome(Verdict.FENCED, detail="worker")


def carry_out(db: sqlite3.Connection, batch: Batch) -> list[Outcome]:
    """Decide and write a batch in the transaction that is open; one outcome an operation."""
    outcomes: list[Any] = [None] * len(batch.operations)
    groups: dict[type, list[tuple[int, Any]]] = {}
    for index, op in enumerate(batch.operations):
        kind = Turn if type(op) is Block else type(op)
        groups.setdefault(kind, []).append((index, op))
    worker = None
    if batch.worker is not None and any(
        type(op) in _NEEDS_WORKER or getattr(op, "own", False) for op in batch.operations
    ):
        number, epoch = batch.worker
        # A claim that finds nothing must write nothing: idle workers would wake each other
        # for ever.
        if groups.keys() <= _CLAIMS:
            may = workers.is_current(db, number, epoch)
        else:
            may = workers.fence(db, number, epoch, batch.now)
        worker = number if may else None
    if worker is None:
        for kind in _NEEDS_WORKER:
            for index, _ in groups.pop(kind, ()):
                outcomes[index] = _WORKER_FENCED
    if Heartbeat in groups and worker is not None:
        # Before the turn that may end what they are about.
        progress.write(db, worker, groups[Heartbeat], outcomes)
    if Turn in groups and worker is not None:
        turns.turns(db, worker, groups[Turn], outcomes)
    if Append in groups:
        arrivals.append(db, worker, groups[Append], outcomes)
    if Start in groups:
        arrivals.start(db, worker, groups[Start], outcomes)
    if Dispatch in groups:
        arrivals.dispatch(db, groups[Dispatch], outcomes)
    if Redispatch in groups:
        redispatches.redispatch(db, groups[Redispatch], outcomes)
    if Advance in groups and worker is not None:
        advances.advance(db, worker, groups[Advance], outcomes)
    if Send in groups:
        messages.send(
            db, None if batch.worker is None else batch.worker[0], groups[Send], outcomes
        )
    if Watched in groups:
        waits.watch(db, groups[Watched], outcomes)
    for index, op in groups.get(Unblock, ()):
        outcomes[index] = messages.unblock(db, op)
    for index, op in groups.get(Terminate, ()):
        outcomes[index] = messages.terminate(db, op)
    if TaskHeartbeat in groups and worker is not None:
        tasks.beat(db, worker, groups[TaskHeartbeat], outcomes)
    if FinishTask in groups and worker is not None:
        # After the turns: one that withdraws its task comes before the answer.
        tasks.finish(db, worker, groups[FinishTask], outcomes)
    if Release in groups and worker is not None:
        turns.release(db, worker, groups[Release], outcomes)
    if Claim in groups and worker is not None:
        claims.claim(db, worker, groups[Claim], outcomes)
    if ClaimTasks in groups and worker is not None:
        tasks.claim(db, worker, groups[ClaimTasks], outcomes)
    return outcomes
