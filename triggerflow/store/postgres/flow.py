"""Whether a batch may have to do with flow control, and the lock that it takes then.

Places, groups, rates and dedup keys are decided one batch at a time: whoever might touch them
takes one advisory lock of the store's, before any instance is locked, and whatever it reads
afterwards is what the one before it has left. Batches that have nothing to do with them never
wait for it. Whether an instance had places when it was made never changes while it is under
way, so that it may be asked before the instance is locked.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any, Final

from triggerflow.store.acts import CancelChild, SpawnChild
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
    " AND due IS NOT NULL AND due <= %s)"
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
    planned = list(plans(ops(Append, Dispatch, Redispatch, Advance)))
    new = [each for one in planned for each in newcomers(one)]
    new += [op.instance for op in ops(Start)]
    new += [act.instance for act in acts if isinstance(act, SpawnChild)]
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
    if not (sure or ids or ending or due is not None):
        return None
    when = None if due is None else float(due)
    return db.execute(_ASK, sure, Ints(ending), Texts(ids), Ints(parents), when)
