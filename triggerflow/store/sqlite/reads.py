"""Reading: rows into records."""

from __future__ import annotations

import json
from collections import defaultdict
from typing import TYPE_CHECKING, Any, Final

import attrs

from triggerflow.core.log import IN_ROWS
from triggerflow.store.records import (
    ActivityRecord,
    Counts,
    InboxRow,
    InstanceRecord,
    LogRecord,
    OutboxRow,
)
from triggerflow.store.sqlite.requests import whole

if TYPE_CHECKING:
    import sqlite3

# The documents of a page of activities are no larger together, but for the last one.
_LARGEST_PAGE: Final = 8 * 1024 * 1024

# What an `InstanceRecord` is made of; `i` is the instance.
INSTANCE = (
    "SELECT i.id, i.public_id, i.flow, i.version, i.status, i.namespace, i.key,"
    " i.correlation_id, p.public_id, i.generation, i.log_length, i.pending, i.due, i.owner,"
    " i.crashes, i.cause, i.reason, i.value, i.attributes, i.created, i.ended, i.started,"
    " g.input, g.seed, a.cid, t.name, t.cid, g.positions, i.turns, i.priority, i.held,"
    " CASE i.held WHEN 0 THEN NULL WHEN 3 THEN NULL"
    " WHEN 4 THEN (SELECT w.key FROM place w WHERE w.instance = i.id AND w.state = 1)"
    " ELSE (SELECT c.key FROM gathering c WHERE c.instance = i.id) END FROM instance i"
    " JOIN generation g ON g.instance = i.id AND g.generation = i.generation"
    " LEFT JOIN instance p ON p.id = i.parent LEFT JOIN activity a ON a.seq = i.activity"
    " LEFT JOIN trigger_spec t ON t.id = i.trigger_spec"
)


def instance(db: sqlite3.Connection, id: str) -> InstanceRecord | None:
    """One instance by its public id."""
    row = db.execute(f"{INSTANCE} WHERE i.public_id = ?", (id,)).fetchone()
    return None if row is None else record(db, row)


def record(db: sqlite3.Connection, row: tuple[Any, ...]) -> InstanceRecord:
    """What `INSTANCE` selected, with the pending set where it stands in rows."""
    found = InstanceRecord(*row)
    if found.pending == IN_ROWS:
        return attrs.evolve(found, pending=whole(db, found.number, IN_ROWS))
    return found


def ids(db: sqlite3.Connection, prefix: str, limit: int) -> list[str]:
    """Public ids with a prefix."""
    last = prefix + "\U0010ffff"
    found = db.execute(
        "SELECT public_id FROM instance WHERE public_id >= ? AND public_id < ? LIMIT ?",
        (prefix, last, limit),
    )
    return [each for (each,) in found]


def holders(db: sqlite3.Connection, key: str, namespace: str, flow: str | None) -> list[str]:
    """Public ids of the live instances that hold a key."""
    rows = db.execute(
        "SELECT public_id FROM instance WHERE namespace = ? AND key = ?"
        " AND (? IS NULL OR flow = ?) AND status IN ('running', 'waiting', 'blocked')",
        (namespace, key, flow, flow),
    )
    return [each for (each,) in rows]


def log_of(db: sqlite3.Connection, number: int, generation: int) -> list[LogRecord]:
    """The log of one generation."""
    rows = db.execute(
        "SELECT position, tag, value, failed, digest, at FROM log"
        " WHERE instance = ? AND generation = ? ORDER BY position",
        (number, generation),
    )
    return [LogRecord(*row) for row in rows]


def inbox_of(db: sqlite3.Connection, numbers: str) -> dict[int, list[InboxRow]]:
    """Unread messages of the instances whose numbers stand in a JSON list."""
    found: dict[int, list[InboxRow]] = defaultdict(list)
    for number, *row in db.execute(
        "SELECT instance, id, kind, name, payload, at FROM inbox WHERE consumed = 0"
        " AND instance IN (SELECT value FROM json_each(?)) ORDER BY id",
        (numbers,),
    ):
        found[number].append(InboxRow(*row))
    return found


def inbox_after(db: sqlite3.Connection, number: int, after: int) -> list[InboxRow]:
    """Unread messages of one instance above a row number."""
    rows = db.execute(
        "SELECT id, kind, name, payload, at FROM inbox WHERE consumed = 0"
        " AND instance = ? AND id > ? ORDER BY id",
        (number, after),
    )
    return [InboxRow(*row) for row in rows]


_ACTIVITY = (
    "SELECT seq, cid, types, actors, document, received, namespace, source, depth,"
    " received_digest FROM activity"
)


def activity(db: sqlite3.Connection, cid: str, namespace: str) -> ActivityRecord | None:
    """One activity by its CID."""
    row = db.execute(
        f"{_ACTIVITY} WHERE cid = ? AND namespace = ?", (cid, namespace)
    ).fetchone()
    return None if row is None else ActivityRecord(*row)


def newest_activities(db: sqlite3.Connection, limit: int) -> list[ActivityRecord]:
    """The last activities, the newest first."""
    rows = db.execute(f"{_ACTIVITY} ORDER BY seq DESC LIMIT ?", (limit,))
    return [ActivityRecord(*row) for row in rows]


def activities(db: sqlite3.Connection, after: int, limit: int) -> list[ActivityRecord]:
    """Activities above a sequence number, in order; see `Store.activities`."""
    rows = db.execute(
        f"{_ACTIVITY} WHERE seq > ? ORDER BY seq LIMIT ?",
        (after, limit),
    )
    found = []
    left = _LARGEST_PAGE
    for row in rows:
        found.append(ActivityRecord(*row))
        left -= len(found[-1].document or b"")
        if left < 0:
            break
    rows.close()
    return found


def recorded(db: sqlite3.Connection, step: str, key: str) -> bytes | None:
    """The result that is recorded under a user's key."""
    row = db.execute(
        "SELECT value FROM recorded WHERE step = ? AND key = ?", (step, key)
    ).fetchone()
    return None if row is None else row[0]


def searchable(value: object) -> str:
    """A search attribute's value as text: 1 and 1.0 are one, 1, "1" and true are three."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return json.dumps(value, ensure_ascii=False)


def outbox(db: sqlite3.Connection, limit: int, after: int) -> list[OutboxRow]:
    """Deferred dispatches, oldest first."""
    rows = db.execute(
        "SELECT o.id, o.activity, a.cid, a.document, o.registry, t.cid, t.spec, a.types,"
        " a.actors, a.source, a.namespace, a.depth, t.options, p.state FROM outbox o"
        " JOIN activity a ON a.seq = o.activity"
        " LEFT JOIN trigger_spec t ON t.id = o.trigger_spec"
        " LEFT JOIN trigger_past p ON p.trigger_spec = o.trigger_spec"
        " AND p.since <= o.registry AND p.until > o.registry"
        " WHERE o.id > ? ORDER BY o.id LIMIT ?",
        (after, limit),
    )
    return [OutboxRow(*row) for row in rows]


def runnable(db: sqlite3.Connection) -> bool:
    """Whether an instance waits for an owner."""
    found = db.execute(
        "SELECT 1 FROM instance WHERE status = 'running' AND owner IS NULL LIMIT 1"
    )
    return found.fetchone() is not None


def next_due(db: sqlite3.Connection) -> float | None:
    """When the next parked instance is due."""
    due: float | None = db.execute(
        "SELECT min(due) FROM instance WHERE status = 'waiting' AND due IS NOT NULL"
    ).fetchone()[0]
    return due


def counts(db: sqlite3.Connection) -> Counts:
    """How much the store holds."""

    def one(sql: str) -> Any:
        return db.execute(sql).fetchone()[0]

    return Counts(
        one("SELECT count(*) FROM activity"),
        one("SELECT count(*) FROM firing"),
        dict(db.execute("SELECT status, count(*) FROM instance GROUP BY status")),
        one("SELECT count(*) FROM outbox"),
        one("SELECT count(*) FROM inbox WHERE consumed = 0"),
        one("PRAGMA user_version"),
        one("SELECT min(created) FROM instance WHERE status = 'running' AND owner IS NULL"),
    )
