"""The trigger registry: which specs are current, and the generation that says so."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from triggerflow.store.postgres.wire import Db
    from triggerflow.store.records import NewTrigger


def generation(db: Db) -> int:
    """The registry generation."""
    number: int = db.execute("SELECT value FROM meta WHERE name = 'registry'").one()
    return number


def sync(db: Db, triggers: Sequence[NewTrigger], now: float) -> tuple[int, bool]:
    """Make triggers current; see `Store.sync_triggers`. Whether anything changed, as well.

    Who changes the registry holds its row. Appends don't: one that read the generation before
    it grew lands as if it had come before.
    """
    number: int = db.execute("SELECT value FROM meta WHERE name = 'registry' FOR UPDATE").one()
    current = dict(
        db.execute("SELECT name, cid FROM trigger_spec WHERE state <> 'superseded'").rows()
    )
    wanted = [each for each in triggers if current.get(each.name) != each.cid]
    if not wanted:
        return number, False
    number += 1
    db.execute("UPDATE meta SET value = %s WHERE name = 'registry'", number)
    for each in wanted:
        # One of the same meaning is the same trigger under its old name: two would start
        # everything twice.
        db.execute(
            "UPDATE trigger_spec SET state = 'superseded', retired = %s"
            " WHERE (name = %s OR meaning = %s) AND state <> 'superseded'",
            number,
            each.name,
            each.meaning,
        )
        db.execute(
            "INSERT INTO trigger_spec (cid, name, meaning, spec, state, registered, registry)"
            " VALUES (%s, %s, %s, %s, 'active', %s, %s)"
            " ON CONFLICT (cid) DO UPDATE SET state = 'active', retired = NULL,"
            " registry = excluded.registry",
            each.cid,
            each.name,
            each.meaning,
            each.spec,
            now,
            number,
        )
    return number, True
