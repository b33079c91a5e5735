"""The trigger registry: which specs are current, in which state, and the generation of both.

A state belongs to a name: a new spec of the name takes it over. `trigger_spec` has what is
current, `trigger_past` what was, so that the triggers of any generation can be told.

Whoever writes what was planned with a generation stands by it until its end (`stand_by`), and
who changes the registry waits for all of them (`take`): so nothing that was planned before a
change lands after it, and no walk over history misses what was under way.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

from triggerflow.store.postgres import backfills, places
from triggerflow.store.records import TriggerRecord

if TYPE_CHECKING:
    from triggerflow.store.postgres.wire import Db
    from triggerflow.store.records import NewTrigger

# The table's own number tells the stores of one database apart.
_KEY: Final = "('meta'::regclass::oid::bigint & 2147483647)::int, 0"


def stand_by(db: Db) -> None:
    """Let nobody change the registry until this transaction ends."""
    db.execute(f"SELECT pg_advisory_xact_lock_shared({_KEY})")


def take(db: Db) -> None:
    """Be the only one to change it, or to write what was planned with it."""
    db.execute(f"SELECT pg_advisory_xact_lock({_KEY})")


def generation(db: Db) -> int:
    """The registry generation."""
    number: int = db.execute("SELECT value FROM meta WHERE name = 'registry'").one()
    return number


def _next_generation(db: Db) -> int:
    number = generation(db) + 1
    db.execute("UPDATE meta SET value = %s WHERE name = 'registry'", number)
    return number


def sync(db: Db, triggers: Sequence[NewTrigger], now: float) -> int:
    """Make triggers current; see `Store.sync_triggers`. The registry must be taken."""
    rows: list[Any] = db.execute(
        "SELECT name, meaning, cid, state, options FROM trigger_spec"
    ).rows()
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
                "UPDATE trigger_spec SET options = %s WHERE cid = %s", each.options, each.cid
            )
            continue
        state = states.get(each.name, states.get(each.meaning, "active"))
        if each.name in states or each.meaning in states:
            # One of the same meaning is the same trigger under its old name: two would
            # start everything twice.
            _supersede(db, each.name, each.meaning, number)
        db.execute(
            "INSERT INTO trigger_spec (cid, name, meaning, spec, state, registered, registry,"
            " options) VALUES (%s, %s, %s, %s, %s, %s, %s, %s)"
            " ON CONFLICT (cid) DO UPDATE SET state = excluded.state, retired = NULL,"
            " registry = excluded.registry, options = excluded.options",
            each.cid,
            each.name,
            each.meaning,
            each.spec,
            state,
            now,
            number,
            each.options,
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


def _supersede(db: Db, name: str, meaning: str | None, number: int) -> None:
    which = "(name = %s OR meaning = %s) AND state <> 'superseded'"
    db.execute(
        "INSERT INTO trigger_past (trigger_spec, since, until, state)"
        f" SELECT id, registry, %s, state FROM trigger_spec WHERE {which}",
        number,
        name,
        meaning,
    )
    db.execute(
        f"UPDATE trigger_spec SET state = 'superseded', retired = %s WHERE {which}",
        number,
        name,
        meaning,
    )


def retire(db: Db, name: str) -> bool:
    """Make a trigger no longer current; see `Store.retire_trigger`."""
    if known(db, name)[0] is None:
        return False
    _supersede(db, name, None, _next_generation(db))
    return True


def set_state(
    db: Db, name: str, state: str, now: float, *, catch_up: bool | None
) -> int | None:
    """Change a trigger's state; see `Store.set_trigger_state`."""
    row = db.execute(
        "SELECT id, state FROM trigger_spec WHERE name = %s AND state <> 'superseded'", name
    ).row()
    if row is not None and row[1] != state:
        number = _next_generation(db)
        spec, before = row
        was = "skipped" if before == "paused" and catch_up is False else before
        db.execute(
            "INSERT INTO trigger_past (trigger_spec, since, until, state)"
            " SELECT id, registry, %s, %s FROM trigger_spec WHERE id = %s",
            number,
            was,
            spec,
        )
        db.execute(
            "UPDATE trigger_spec SET state = %s, registry = %s WHERE id = %s",
            state,
            number,
            spec,
        )
    if state == "paused":
        backfills.stop_resuming(db, name, "it was paused again", now)
    if state != "active" or catch_up is None:
        return None
    return backfills.take_up(db, name, now, catch_up=catch_up)


def known(db: Db, name: str) -> tuple[str | None, list[str]]:
    """The state of a name's trigger, None where it has none, and all names there are."""
    rows = db.execute("SELECT name, state FROM trigger_spec").rows()
    state = next((state for each, state in rows if each == name and _is(state)), None)
    return state, sorted({each for each, _ in rows})


def current(db: Db) -> tuple[TriggerRecord, ...]:
    """All that are not superseded, in order of registration."""
    rows = db.execute(
        "SELECT id, cid, name, spec, state, options FROM trigger_spec"
        " WHERE state <> 'superseded' ORDER BY id"
    ).rows()
    return tuple(TriggerRecord(*row) for row in rows)


def at(db: Db, registry: int) -> tuple[TriggerRecord, ...]:
    """Those of an earlier generation, with their states of then, in order of registration."""
    rows = db.execute(
        "SELECT id, cid, name, spec, state, options FROM trigger_spec"
        " WHERE state <> 'superseded' AND registry <= %s UNION ALL"
        " SELECT t.id, t.cid, t.name, t.spec, p.state, t.options FROM trigger_past p"
        " JOIN trigger_spec t ON t.id = p.trigger_spec WHERE p.since <= %s AND p.until > %s"
        " ORDER BY 1",
        registry,
        registry,
        registry,
    ).rows()
    return tuple(TriggerRecord(*row) for row in rows)
