"""Waits for activities: told when one meets them, and how far they have been looked at."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from triggerflow.store.operations import APPLIED, Outcome, Verdict
from triggerflow.store.postgres import kin
from triggerflow.store.postgres.columns import Ints
from triggerflow.store.records import WaitRecord

if TYPE_CHECKING:
    from triggerflow.store.postgres.standing import Items, Standing
    from triggerflow.store.postgres.wire import Db


def satisfy(s: Standing, items: Items, outcomes: list[Any]) -> None:
    """Decide and write what met a wait; see `operations.Satisfy`."""
    letters: list[kin.Letter] = []
    met: list[tuple[int, int]] = []
    closed: list[int] = []
    for index, op in items:
        found = s.waits.pop(op.wait, None)
        if found is None:
            outcomes[index] = Outcome(Verdict.GONE)
            continue
        number, _, tag = found.call
        closed.append(op.wait)
        met.append((index, number))
        letters.append((number, "activity", tag, op.payload, op.at))
    if closed:
        s.db.execute("DELETE FROM wait WHERE id = ANY(%s)", Ints(closed))
    owners = dict(kin.post(s, letters).owners)
    for index, number in met:
        told = ((number, owners[number]),)
        outcomes[index] = Outcome(Verdict.APPLIED, number=number, told=told)


def scanned(db: Db, items: Items, outcomes: list[Any]) -> None:
    """Note how far waits were looked at; see `operations.Scanned`."""
    for index, op in items:
        db.execute(
            "UPDATE wait SET scanned = greatest(scanned, %s) WHERE id IN"
            " (SELECT id FROM wait WHERE id = ANY(%s) ORDER BY id FOR UPDATE)",
            op.position,
            Ints(op.waits),
        )
        outcomes[index] = APPLIED


def waits(db: Db) -> list[WaitRecord]:
    """Open waits of instances that go on."""
    rows = db.execute(
        "SELECT w.id, w.instance, w.generation, w.tag, w.pattern, w.scanned, i.namespace"
        " FROM wait w JOIN instance i ON i.id = w.instance ORDER BY w.id"
    ).rows()
    return [WaitRecord(*row) for row in rows]
