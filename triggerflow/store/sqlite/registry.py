"""The trigger registry: which specs are current, and the generation that says so."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import sqlite3


def generation(db: sqlite3.Connection) -> int:
    """The registry generation."""
    number: int = db.execute("SELECT value FROM meta WHERE name = 'registry'").fetchone()[0]
    return number


def sync(db: sqlite3.Connection, triggers: Sequence[tuple[str, str, bytes]], now: float) -> int:
    """Make triggers current; see `Store.sync_triggers`."""
    number = generation(db)
    current = dict(
        db.execute("SELECT name, cid FROM trigger_spec WHERE state <> 'superseded'").fetchall()
    )
    wanted = [each for each in triggers if current.get(each[0]) != each[1]]
    if not wanted:
        return number
    number += 1
    db.execute("UPDATE meta SET value = ? WHERE name = 'registry'", (number,))
    for name, cid, spec in wanted:
        db.execute(
            "UPDATE trigger_spec SET state = 'superseded'"
            " WHERE name = ? AND state <> 'superseded'",
            (name,),
        )
        db.execute(
            "INSERT INTO trigger_spec (cid, name, spec, state, registered, registry)"
            " VALUES (?, ?, ?, 'active', ?, ?)"
            " ON CONFLICT (cid) DO UPDATE SET state = 'active'",
            (cid, name, spec, now, number),
        )
    return number
