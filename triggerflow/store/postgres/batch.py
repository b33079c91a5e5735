"""The order in which a batch is decided, and who must be fenced before."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

import attrs

from triggerflow.store.acts import SpawnChild
from triggerflow.store.operations import (
    Advance,
    Append,
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
from triggerflow.store.postgres import (
    advances,
    arrivals,
    claims,
    messages,
    progress,
    redispatches,
    registry,
    tasks,
    turns,
    waits,
    workers,
)
from triggerflow.store.postgres.activities import Activities
from triggerflow.store.postgres.incoming import Triggers
from triggerflow.store.postgres.standing import Items, Standing
from triggerflow.store.tasks import ClaimTasks, FinishTask, TaskHeartbeat
from triggerflow.store.waits import Watched

if TYPE_CHECKING:
    from triggerflow.store.operations import Batch
    from triggerflow.store.postgres.wire import Db
    from triggerflow.store.records import NewTrigger

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
# What was planned with a generation of the registry.
_PLANNED: Final = {Dispatch, Redispatch, Advance}
_WORKER_FENCED: Final = Outcome(Verdict.FENCED, detail="worker")


def carry_out(
    db: Db, batch: Batch, triggers: Triggers, lock_class: int
) -> tuple[list[Outcome], bool]:
    """Decide and write a batch in the transaction that is open.

    Args:
        db: the connection.
        batch: what to do.
        triggers: those that are known by now; more are noted.
        lock_class: where numbers of activities are published; see the schema's ``horizon``.

    Returns:
        One outcome an operation, and whether others have to be told.
    """
    return _carry_out(db, batch.operations, batch.worker, batch.now, triggers, lock_class)


def _carry_out(
    db: Db,
    operations: Sequence[Any],
    acting: tuple[int, int] | None,
    now: float,
    triggers: Triggers,
    lock_class: int,
) -> tuple[list[Outcome], bool]:
    outcomes: list[Any] = [None] * len(operations)
    groups: dict[type, Items] = {}
    for index, op in enumerate(operations):
        kind = Turn if type(op) is Block else type(op)
        groups.setdefault(kind, []).append((index, op))
    first = None
    if acting is not None and any(
        type(op) in _NEEDS_WORKER or getattr(op, "own", False) for op in operations
    ):
        first = workers.fence(db, *acting, now)
    ops = [op for _, op in groups.get(Turn, ())]
    appends = [op for _, op in groups.get(Append, ())]
    activities = Activities(db, ops, appends, lock_class)
    if appends or ops or not groups.keys().isdisjoint(_PLANNED):
        registry.stand_by(db)
    # All of this is under way at once: the fence, the CIDs, the locks in their order.
    activities.insert()
    worker = None if acting is None else acting[0]
    s = Standing(db, worker, groups)
    spawns = any(isinstance(act, SpawnChild) for op in ops for act in getattr(op, "acts", ()))
    horizon = (
        db.execute("SELECT horizon(%s)", lock_class) if Start in groups or spawns else None
    )
    s.gather()
    activities.take()
    activities.horizon = 0 if horizon is None else horizon.one()
    fenced = None if first is None else first.row()
    if fenced is None:
        s.worker = None
        for kind in _NEEDS_WORKER:
            for index, _ in groups.pop(kind, ()):
                outcomes[index] = _WORKER_FENCED
    else:
        db.number = fenced[-1]
    _decide(s, activities, triggers, worker, groups, outcomes)
    activities.take_back()
    return outcomes, s.loud


def rehearse(db: Db, op: Append, proposed: Sequence[NewTrigger], lock_class: int) -> Outcome:
    """Decide and write an append in a transaction that is taken back; see `Store.rehearse`."""
    registry.take(db)
    if op.registry != registry.generation(db):
        return Outcome(Verdict.STALE)
    op = attrs.evolve(op, registry=registry.sync(db, proposed, op.received))
    # What is registered here is gone afterwards, so no number of it may be noted.
    outcomes, _ = _carry_out(db, [op], None, op.received, {}, lock_class)
    return outcomes[0]


def _decide(
    s: Standing,
    activities: Activities,
    triggers: Triggers,
    sender: int | None,
    groups: dict[type, Items],
    outcomes: list[Any],
) -> None:
    if Heartbeat in groups:
        # Before the turn that may end what they are about.
        progress.write(s, groups[Heartbeat], outcomes)
    if Turn in groups:
        turns.turns(s, activities, triggers, groups[Turn], outcomes)
    if Append in groups:
        arrivals.append(s, activities, triggers, groups[Append], outcomes)
    if Start in groups:
        arrivals.start(s, triggers, activities.horizon, groups[Start], outcomes)
    if Dispatch in groups:
        arrivals.dispatch(s, triggers, groups[Dispatch], outcomes)
    if Redispatch in groups:
        redispatches.redispatch(s, triggers, groups[Redispatch], outcomes)
    if Advance in groups:
        advances.advance(s, triggers, groups[Advance], outcomes)
    if Send in groups:
        messages.send(s, sender, groups[Send], outcomes)
    if Watched in groups:
        waits.watch(s, groups[Watched], outcomes)
    for index, op in groups.get(Unblock, ()):
        outcomes[index] = messages.unblock(s, op)
    for index, op in groups.get(Terminate, ()):
        outcomes[index] = messages.terminate(s, op)
    if TaskHeartbeat in groups:
        tasks.beat(s, groups[TaskHeartbeat], outcomes)
    if FinishTask in groups:
        # After the turns: one that withdraws its task comes before the answer.
        tasks.finish(s, groups[FinishTask], outcomes)
    if Release in groups:
        turns.release(s, groups[Release], outcomes)
    if Claim in groups:
        claims.claim(s, groups[Claim], outcomes)
    if ClaimTasks in groups:
        tasks.claim(s, groups[ClaimTasks], outcomes)
