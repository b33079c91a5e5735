"""Whether a batch may have to do with flow control or waits, and the locks that it takes then.

Places, groups, rates and dedup keys are decided one batch at a time: whoever might touch them
takes one advisory lock of the store's, before any instance is locked, and whatever it reads
afterwards is what the one before it has left. Batches that have nothing to do with them never
wait for it. Whether an instance had places when it was made never changes while it is under
way, so that it may be asked before the instance is locked.

Waits for activities have another such lock, taken right after it: by whoever opens waits, may
close some, or says how far they are. What it reads after that is what the one before it has
left: ids of waits and the position of all are in the order of commits (see `waits`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any, Final

from triggerflow.store.acts import CancelChild, CloseWait, ContinueAsNew, OpenWait, SpawnChild
from triggerflow.store.operations import (
    Advance,
    Append,
    Claim,
    Dispatch,
    PlannedFiring,
    Redispatch,
    Send,
    Start,
    Terminate,
)
from triggerflow.store.postgres.columns import Ints, Texts
from triggerflow.store.postgres.places import LOCK
from triggerflow.store.records import ENDED
from triggerflow.store.waits import Watched

if TYPE_CHECKING:
    from triggerflow.store.newcomer import NewInstance
    from triggerflow.store.operations import Turn
    from triggerflow.store.postgres.wire import Answer, Db

_CONTROLLED: Final = "(i.held > 0 OR EXISTS (SELECT 1 FROM place p WHERE p.instance = i.id))"
_ASK: Final = (
    f"SELECT {LOCK}::text WHERE %s"
    " OR EXISTS (SELECT 1 FROM unnest(%s) AS u JOIN place p ON p.instance = u)"
    f" OR EXISTS (SELECT 1 FROM unnest(%s) AS u JOIN instance i ON i.public_id = u"
    f" WHERE {_CONTROLLED}) OR EXISTS (SELECT 1 FROM unnest(%s) AS u"
    f" JOIN instance i ON i.parent = u WHERE {_CONTROLLED})"
    " OR EXISTS (SELECT 1 FROM instance WHERE status = 'waiting' AND held > 0"
    " AND due IS NOT NULL AND due <= %s) OR EXISTS (SELECT 1 FROM unnest(%s) AS u"
    " JOIN wait w ON w.id = u AND w.action = 'cancel' JOIN instance i ON i.id = w.instance"
    f" WHERE {_CONTROLLED})"
)
# The table's own number tells the stores of one database apart.
_WAITS: Final = "pg_advisory_xact_lock(('wait'::regclass::oid::bigint & 2147483647)::int, 0)"
# Only its own turns open waits of an instance that is under way, and one that is held has had
# no turn: so this may be asked before the instances are locked.
_ASK_WAITS: Final = (
    f"SELECT {_WAITS}::text WHERE %s"
    " OR EXISTS (SELECT 1 FROM unnest(%s) AS u JOIN wait w ON w.instance = u)"
    " OR EXISTS (SELECT 1 FROM unnest(%s) AS u JOIN instance i ON i.public_id = u"
    " JOIN wait w ON w.instance = i.id WHERE i.held > 0)"
    " OR EXISTS (SELECT 1 FROM unnest(%s) AS u JOIN instance i ON i.parent = u"
    " JOIN wait w ON w.instance = i.id WHERE i.held > 0)"
)


def plans(ops: Iterable[Any]) -> Iterator[PlannedFiring]:
    """What appends, dispatches, redispatches and advances have planned."""
    for op in ops:
        if isinstance(op, Append | Dispatch):
            yield from op.firings or ()
        elif isinstance(op, Redispatch):
            yield op.planned
        elif isinstance(op, Advance):
            yield from (planned for _, planned in op.firings)
            yield from (each.planned for each in op.again)


def newcomers(planned: PlannedFiring) -> list[NewInstance]:
    """The instances that a firing may start."""
    return [new for new in (planned.instance, planned.dead_letter) if new is not None]


def lock(
    db: Db, ops: Callable[..., list[Any]], turns: list[Turn], acts: list[Any]
) -> Answer | None:
    """Take the lock if it may be needed: then there is a row. None if it surely isn't.

    Args:
        db: the connection.
        ops: gives the batch's operations of some kinds.
        turns: its turns.
        acts: their acts.
    """
    planned, new = _arriving(ops, acts)
    sure = any(each.admission is not None for each in new) or any(
        one.once is not None or one.letter is not None for one in planned
    )
    sends = [op.instance for op in ops(Send) if op.kind in ("cancel", "retry")]
    terminated = [op.instance for op in ops(Terminate)]
    ids = sends + [act.child for act in acts if isinstance(act, CancelChild)]
    ending = [op.number for op in turns if op.status in ENDED]
    parents = [op.number for op in turns if op.status == "cancelled"]
    due = max((op.now for op in ops(Claim)), default=None)
    sure = sure or bool(terminated)
    hits = [hit.wait for op in ops(Watched) for hit in op.hits]
    if not (sure or ids or ending or hits or due is not None):
        return None
    when = None if due is None else float(due)
    return db.execute(_ASK, sure, Ints(ending), Texts(ids), Ints(parents), when, Ints(hits))


def lock_waits(
    db: Db, ops: Callable[..., list[Any]], turns: list[Turn], acts: list[Any]
) -> None:
    """Take the lock of the waits, where the batch opens some, may close some, or moves them.

    Args:
        db: the connection.
        ops: gives the batch's operations of some kinds.
        turns: its turns.
        acts: their acts.
    """
    planned, new = _arriving(ops, acts)
    # An arrival's flow control, and a letter, may end others that are held.
    sure = any(each.cancel_on or each.admission is not None for each in new)
    sure = sure or any(one.letter is not None for one in planned)
    sure = sure or any(isinstance(act, OpenWait | CloseWait) for act in acts)
    sure = sure or bool(ops(Watched, Terminate))
    ids = [op.instance for op in ops(Send) if op.kind == "cancel"]
    ids += [act.child for act in acts if isinstance(act, CancelChild)]
    over = [
        op.number
        for op in turns
        if op.status in ENDED or any(isinstance(act, ContinueAsNew) for act in op.acts)
    ]
    parents = [op.number for op in turns if op.status == "cancelled"]
    if sure or ids or over:
        db.execute(_ASK_WAITS, sure, Ints(over), Texts(ids), Ints(parents))


def _arriving(
    ops: Callable[..., list[Any]], acts: list[Any]
) -> tuple[list[PlannedFiring], list[NewInstance]]:
    """The batch's planned firings, and all instances that it may start."""
    planned = list(plans(ops(Append, Dispatch, Redispatch, Advance)))
    new = [each for one in planned for each in newcomers(one)]
    new += [op.instance for op in ops(Start)]
    new += [act.instance for act in acts if isinstance(act, SpawnChild)]
    return planned, new
