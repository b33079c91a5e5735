"""What goes with an instance's end: its calls, its progress, its unread messages."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from triggerflow.store.postgres.columns import Ints

if TYPE_CHECKING:
    from triggerflow.store.postgres.standing import Standing
    from triggerflow.store.postgres.wire import Db


_CALLS: Final = (
    "WITH gone AS (SELECT unnest(%s) AS id),"
    " a AS (DELETE FROM progress WHERE instance IN (SELECT id FROM gone)),"
    " b AS (DELETE FROM task WHERE instance IN (SELECT id FROM gone)),"
    " c AS (DELETE FROM task_answer WHERE instance IN (SELECT id FROM gone)),"
    " d AS (DELETE FROM tried WHERE instance IN (SELECT id FROM gone)),"
    " r AS (DELETE FROM request WHERE instance IN (SELECT id FROM gone)),"
    " e AS (DELETE FROM inbox WHERE instance IN (SELECT id FROM gone)"
    " AND NOT consumed AND kind = 'task') SELECT"
)


def clear_instances(s: Standing, numbers: Sequence[int]) -> None:
    """Forget what instances had in the generation that has ended, unread answers included."""
    if numbers:
        s.db.execute(_CALLS, Ints(numbers))
        s.drop_generation(set(numbers))


def clear_waits(db: Db, numbers: Sequence[int]) -> None:
    """Close all waits of instances that have ended."""
    if numbers:
        db.execute("DELETE FROM wait WHERE instance = ANY(%s)", Ints(numbers))


# Two parts, since each has an index of its own.
_INBOXES: Final = (
    "WITH gone AS (SELECT unnest(%s) AS id),"
    " a AS (DELETE FROM inbox WHERE instance IN (SELECT id FROM gone) AND NOT consumed),"
    " b AS (DELETE FROM inbox WHERE instance IN (SELECT id FROM gone)"
    " AND dedup IS NOT NULL) SELECT"
)


def clear_inboxes(db: Db, numbers: Sequence[int]) -> None:
    """Nobody reads these messages any more."""
    if numbers:
        db.execute(_INBOXES, Ints(numbers))
