"""The trigger registry: which specs are current, in which state, and the generation of both.

A state belongs to a name: a new spec of the name takes it over. `trigger_spec` has what is
current, `trigger_past` what was, so that the triggers of any generation can be told.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from triggerflow.store.records import TriggerRecord
from triggerflow.store.sqlite import backfills, places

if TYPE_CHECKING:
    import sqlite3

    from triggerflow.store.records import NewTrigger


def generation(db: sqlite3.Connection) -> int:
    """The registry generation."""
    number: int = db.execute("SELECT value FROM meta WHERE name = 'registry'").fetchone()[0]
    return number


def _next_generation(db: sqlite3.Connection) -> int:
    number = generation(db) + 1
    db.execute("UPDATE meta SET value = ? WHERE name = 'registry'", (number,))
    return number


def sync(db: sqlite3.Connection, triggers: Sequence[NewTrigger], now: float) -> int:
    """Make triggers current; see `Store.sync_triggers`."""
    rows: list[Any] = db.execute(
        "SELECT name, meaning, cid, state, options FROM trigger_spec"
    ).fetchall()
    current = {name: (cid, options) for name, _, cid, state, options in rows if _is(state)}
    wanted = [each for each in triggers if current.get(each.name) != (each.cid, each.options)]
    if not wanted:
        return generation(db)
    names = {name for name, *_ in rows}
    states = {key: state for row in rows if _is(state := row[3]) for key in row[:2]}
    number = _next_generation(db)
    for each in wanted:
        if each.cid == current.get(each.name, (None,))[0]:
            db.execute(
                "UPDATE trigger_spec SET options = ? WHERE cid = ?", (each.options, each.cid)
            )
            continue
        state = states.get(each.name, states.get(each.meaning, "active"))
        if each.name in states or each.meaning in states:
            # One of the same meaning is the same trigger under its old name: two would
            # start everything twice.
            _supersede(db, each.name, each.meaning, number)
        db.execute(
            "INSERT INTO trigger_spec (cid, name, meaning, spec, state, registered, registry,"
            " options) VALUES (?, ?, ?, ?, ?, ?, ?, ?)"
            " ON CONFLICT (cid) DO UPDATE SET state = excluded.state, retired = NULL,"
            " registry = excluded.registry, options = excluded.options",
            (each.cid, each.name, each.meaning, each.spec, state, now, number, each.options),
        )
        if each.start is not None and each.name not in names:
            # An edit never fires history again, and nor does a trigger that comes back.
            backfills.begin(db, each.name, each.start, now)
        states[each.name] = states[each.meaning] = state
        names.add(each.name)
        for scope, limit in each.limits:
            places.set_limit(db, scope, limit, number)
    return number


def _is(state: str) -> bool:
    return state != "superseded"


def _supersede(db: sqlite3.Connection, name: str, meaning: str | None, number: int) -> None:
    # One by one: for an OR of both SQLite reads all triggers.
    for column, value in (("name", name), ("meaning", meaning)):
        which = f"{column} = ? AND state <> 'superseded'"
        db.execute(
            "INSERT INTO trigger_past (trigger_spec, since, until, state)"
            f" SELECT id, registry, ?, state FROM trigger_spec WHERE {which}",
            (number, value),
        )
        db.execute(
            f"UPDATE trigger_spec SET state = 'superseded', retired = ? WHERE {which}",
            (number, value),
        )


def retire(db: sqlite3.Connection, name: str) -> bool:
    """Make a trigger no longer current; see `Store.retire_trigger`."""
    if known(db, name)[0] is None:
        return False
    _supersede(db, name, None, _next_generation(db))
    return True


def set_state(
    db: sqlite3.Connection, name: str, state: str, now: float, *, catch_up: bool | None
) -> int | None:
    """Change a trigger's state; see `Store.set_trigger_state`."""
    row = db.execute(
        "SELECT id, state FROM trigger_spec WHERE name = ? AND state <> 'superseded'", (name,)
    ).fetchone()
    if row is not None and row[1] != state:
        number = _next_generation(db)
        spec, before = row
        was = "skipped" if before == "paused" and catch_up is False else before
        db.execute(
            "INSERT INTO trigger_past (trigger_spec, since, until, state)"
            " SELECT id, registry, ?, ? FROM trigger_spec WHERE id = ?",
            (number, was, spec),
        )
        db.execute(
            "UPDATE trigger_spec SET state = ?, registry = ? WHERE id = ?",
            (state, number, spec),
        )
    if state == "paused":
        backfills.stop_resuming(db, name, "it was paused again", now)
    if state != "active" or catch_up is None:
        return None
    return backfills.take_up(db, name, now, catch_up=catch_up)


def known(db: sqlite3.Connection, name: str) -> tuple[str | None, list[str]]:
    """The state of a name's trigger, None where it has none, and all names there are."""
    rows = db.execute("SELECT name, state FROM trigger_spec").fetchall()
    state = next((state for each, state in rows if each == name and _is(state)), None)
    return state, sorted({each for each, _ in rows})


def current(db: sqlite3.Connection) -> tuple[TriggerRecord, ...]:
    """All that are not superseded, in order of registration."""
    rows = db.execute(
        "SELECT id, cid, name, spec, state, options FROM trigger_spec"
        " WHERE state <> 'superseded' ORDER BY id"
    )
    return tuple(TriggerRecord(*row) for row in rows)


def at(db: sqlite3.Connection, registry: int) -> tuple[TriggerRecord, ...]:
    """Those of an earlier generation, with their states of then, in order of registration."""
    rows = db.execute(
        "SELECT id, cid, name, spec, state, options FROM trigger_spec"
        " WHERE state <> 'superseded' AND registry <= ?1 UNION ALL"
        " SELECT t.id, t.cid, t.name, t.spec, p.state, t.options FROM trigger_past p"
        " JOIN trigger_spec t ON t.id = p.trigger_spec WHERE p.since <= ?1 AND p.until > ?1"
        " ORDER BY 1",
        (registry,),
    )
    return tuple(TriggerRecord(*row) for row in rows)
