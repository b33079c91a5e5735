"""The trigger registry: which specs are current, and the generation that says so."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import sqlite3

    from triggerflow.store.records import NewTrigger


def generation(db: sqlite3.Connection) -> int:
    """The registry generation."""
    number: int = db.execute("SELECT value FROM meta WHERE name = 'registry'").fetchone()[0]
    return number


def sync(db: sqlite3.Connection, triggers: Sequence[NewTrigger], now: float) -> int:
    """Make triggers current; see `Store.sync_triggers`."""
    number = generation(db)
    current = dict(
        db.execute("SELECT name, cid FROM trigger_spec WHERE state <> 'superseded'").fetchall()
    )
    wanted = [each for each in triggers if current.get(each.name) != each.cid]
    if not wanted:
        return number
    number += 1
    db.execute("UPDATE meta SET value = ? WHERE name = 'registry'", (number,))
    for each in wanted:
        # One of the same meaning is the same trigger under its old name: two would start
        # everything twice.
        # Two statements: for an OR of both SQLite reads all triggers.
        for column, value in (("name", each.name), ("meaning", each.meaning)):
            db.execute(
                "UPDATE trigger_spec SET state = 'superseded', retired = ?"
                f" WHERE {column} = ? AND state <> 'superseded'",
                (number, value),
            )
        db.execute(
            "INSERT INTO trigger_spec (cid, name, meaning, spec, state, registered, registry)"
            " VALUES (?, ?, ?, ?, 'active', ?, ?)"
            " ON CONFLICT (cid) DO UPDATE SET state = 'active', retired = NULL,"
            " registry = excluded.registry",
            (each.cid, each.name, each.meaning, each.spec, now, number),
        )
    return number
