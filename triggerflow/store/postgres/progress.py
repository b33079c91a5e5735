"""Progress: what running steps said last, one row a call, gone with the call."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from triggerflow.store.operations import APPLIED, FENCED, Outcome, Verdict
from triggerflow.store.postgres.columns import Ints, columns
from triggerflow.store.postgres.standing import Call, Items, Standing
from triggerflow.store.records import ENDED, ProgressRecord

if TYPE_CHECKING:
    from triggerflow.store.postgres.wire import Answer, Db


def write(s: Standing, items: Items, outcomes: list[Any]) -> None:
    """Decide and write heartbeats; see `operations.Heartbeat`."""
    rows = []
    for index, op in items:
        found = s.rows.get(op.number)
        if found is not None and (found.owner, found.generation) == (s.worker, op.generation):
            rows.append((op.number, op.generation, op.tag, op.details, op.at))
            outcomes[index] = APPLIED
        elif found is not None and found.status in ENDED:
            outcomes[index] = Outcome(Verdict.GONE, detail=found.status)
        else:
            outcomes[index] = FENCED
    keep(s.db, rows)


def keep(db: Db, rows: Sequence[tuple[int, int, str, bytes, float]]) -> None:
    """Keep what calls said last: (instance, generation, tag, details, time)."""
    # One statement can't write one row twice: the last word counts.
    last = {row[:3]: row for row in rows}
    if last:
        db.execute(
            "INSERT INTO progress (instance, generation, tag, details, at)"
            " SELECT * FROM unnest(%s, %s, %s, %s, %s)"
            " ON CONFLICT (instance, generation, tag)"
            " DO UPDATE SET details = excluded.details, at = excluded.at",
            *columns("iitbf", sorted(last.values())),
        )


def clear(db: Db, calls: Sequence[Call]) -> None:
    """Forget calls that no longer pend."""
    if calls:
        db.execute(
            "DELETE FROM progress p USING unnest(%s, %s, %s) AS k (instance, generation, tag)"
            " WHERE p.instance = k.instance AND p.generation = k.generation AND p.tag = k.tag",
            *columns("iit", calls),
        )


def of(db: Db, number: int, generation: int) -> list[ProgressRecord]:
    """What the calls of one generation said last."""
    rows = db.execute(
        "SELECT tag, details, at FROM progress WHERE instance = %s AND generation = %s",
        number,
        generation,
    ).rows()
    return [ProgressRecord(*row) for row in rows]


def ask_many(db: Db, numbers: Sequence[int]) -> Answer:
    """Ask what the calls of these instances said last; see `many`."""
    return db.execute(
        "SELECT instance, generation, tag, details FROM progress WHERE instance = ANY(%s)",
        Ints(numbers),
    )


def many(answer: Answer) -> dict[tuple[int, int], list[tuple[str, bytes]]]:
    """(instance, generation) -> (tag, details)."""
    found: dict[tuple[int, int], list[tuple[str, bytes]]] = defaultdict(list)
    for number, generation, tag, details in answer.rows():
        found[number, generation].append((tag, details))
    return found
