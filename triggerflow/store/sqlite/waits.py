"""Waits for activities: told when one meets them, and how far they have been looked at."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from triggerflow.store.operations import APPLIED, Outcome, Verdict
from triggerflow.store.records import WaitRecord
from triggerflow.store.sqlite import kin

if TYPE_CHECKING:
    import sqlite3


def satisfy(
    db: sqlite3.Connection, items: Sequence[tuple[int, Any]], outcomes: list[Any]
) -> None:
    """Decide and write what met a wait; see `operations.Satisfy`."""
    for index, op in items:
        row = db.execute("SELECT instance, tag FROM wait WHERE id = ?", (op.wait,)).fetchone()
        if row is None:
            outcomes[index] = Outcome(Verdict.GONE)
            continue
        number, tag = row
        db.execute("DELETE FROM wait WHERE id = ?", (op.wait,))
        told = kin.post(db, [(number, "activity", tag, op.payload, op.at)])
        outcomes[index] = Outcome(Verdict.APPLIED, number=number, told=tuple(told.owners))


def scanned(
    db: sqlite3.Connection, items: Sequence[tuple[int, Any]], outcomes: list[Any]
) -> None:
    """Note how far waits were looked at; see `operations.Scanned`."""
    for index, op in items:
        db.execute(
            "UPDATE wait SET scanned = max(scanned, ?)"
            " WHERE id IN (SELECT value FROM json_each(?))",
            (op.position, json.dumps(op.waits)),
        )
        outcomes[index] = APPLIED


def waits(db: sqlite3.Connection) -> list[WaitRecord]:
    """Open waits of instances that go on."""
    rows = db.execute(
        "SELECT w.id, w.instance, w.generation, w.tag, w.pattern, w.scanned, i.namespace"
        " FROM wait w JOIN instance i ON i.id = w.instance ORDER BY w.id"
    )
    return [WaitRecord(*row) for row in rows]
