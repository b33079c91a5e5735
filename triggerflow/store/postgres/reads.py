"""Reading: rows into records."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

import attrs

from triggerflow.core.log import IN_ROWS
from triggerflow.store.postgres.columns import Ints
from triggerflow.store.postgres.requests import whole
from triggerflow.store.records import (
    ActivityRecord,
    Counts,
    InboxRow,
    InstanceRecord,
    LogRecord,
    OutboxRow,
)

if TYPE_CHECKING:
    from triggerflow.store.postgres.wire import Answer, Db

# What an `InstanceRecord` is made of; `i` is the instance.
INSTANCE: Final = (
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
# Greater than every text with a prefix, in the collation C.
LAST: Final = "\U0010ffff"


def instance(db: Db, id: str) -> InstanceRecord | None:
    """One instance by its public id."""
    row = db.execute(f"{INSTANCE} WHERE i.public_id = %s", id).row()
    return None if row is None else records(db, [row])[0]


def records(db: Db, rows: Sequence[tuple[Any, ...]]) -> list[InstanceRecord]:
    """What `INSTANCE` selected, with the pending sets that stand in rows."""
    found = [InstanceRecord(*row) for row in rows]
    pending = whole(db, [each.number for each in found if each.pending == IN_ROWS])
    return [
        attrs.evolve(each, pending=pending[each.number]) if each.number in pending else each
        for each in found
    ]


def ids(db: Db, prefix: str, limit: int) -> list[str]:
    """Public ids with a prefix."""
    return db.execute(
        "SELECT public_id FROM instance WHERE public_id >= %s AND public_id < %s"
        " ORDER BY public_id LIMIT %s",
        prefix,
        prefix + LAST,
        limit,
    ).firsts()


def holders(db: Db, key: str, namespace: str, flow: str | None) -> list[str]:
    """Public ids of the live instances that hold a key."""
    return db.execute(
        "SELECT public_id FROM instance WHERE namespace = %s AND key = %s"
        " AND (%s::text IS NULL OR flow = %s)"
        " AND status IN ('running', 'waiting', 'blocked')",
        namespace,
        key,
        flow,
        flow,
    ).firsts()


def log_of(db: Db, number: int, generation: int) -> list[LogRecord]:
    """The log of one generation."""
    rows = db.execute(
        "SELECT position, tag, value, failed, digest, at FROM log"
        " WHERE instance = %s AND generation = %s ORDER BY position",
        number,
        generation,
    ).rows()
    return [LogRecord(*row) for row in rows]


def ask_inbox(db: Db, numbers: Sequence[int]) -> Answer:
    """Ask for the unread messages of instances; see `inbox_of`."""
    return db.execute(
        "SELECT instance, id, kind, name, payload, at FROM inbox WHERE NOT consumed"
        " AND instance = ANY(%s) ORDER BY id",
        Ints(numbers),
    )


def inbox_of(answer: Answer) -> dict[int, list[InboxRow]]:
    """Unread messages by instance."""
    found: dict[int, list[InboxRow]] = defaultdict(list)
    for number, *row in answer.rows():
        found[number].append(InboxRow(*row))
    return found


def inbox_after(db: Db, number: int, after: int) -> list[InboxRow]:
    """Unread messages of one instance above a row number."""
    rows = db.execute(
        "SELECT id, kind, name, payload, at FROM inbox WHERE NOT consumed AND instance = %s"
        " AND id > %s ORDER BY id",
        number,
        after,
    ).rows()
    return [InboxRow(*row) for row in rows]


_ACTIVITY: Final = (
    "SELECT seq, cid, types, actors, document, received, namespace, source, depth,"
    " received_digest FROM activity"
)
# The documents of a page of activities are no larger together, but for the last one.
_LARGEST_PAGE: Final = 8 * 1024 * 1024
_PAGE: Final = (
    "SELECT seq, cid, types, actors, document, received, namespace, source, depth,"
    " received_digest FROM (SELECT a.*, sum(coalesce(octet_length(a.document), 0)) OVER"
    " (ORDER BY a.seq ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING) AS before"
    " FROM (SELECT * FROM activity WHERE seq > %s AND seq <= %s ORDER BY seq LIMIT %s) a) p"
    " WHERE coalesce(p.before, 0) <= %s ORDER BY seq"
)


def activity(db: Db, cid: str, namespace: str) -> ActivityRecord | None:
    """One activity by its CID."""
    row = db.execute(f"{_ACTIVITY} WHERE cid = %s AND namespace = %s", cid, namespace).row()
    return None if row is None else ActivityRecord(*row)


def newest_activities(db: Db, limit: int) -> list[ActivityRecord]:
    """The last activities, the newest first."""
    rows = db.execute(f"{_ACTIVITY} ORDER BY seq DESC LIMIT %s", limit).rows()
    return [ActivityRecord(*row) for row in rows]


def activities(db: Db, lock_class: int, after: int, limit: int) -> list[ActivityRecord]:
    """Activities above a sequence number, in order, as far as they are settled."""
    # First the horizon, then the rows: what is settled was committed before the second
    # statement begins, so it sees it. One statement for both would look at an older picture.
    horizon = db.execute("SELECT horizon(%s)", lock_class).one()
    if horizon <= after:
        return []
    rows = db.execute(_PAGE, after, horizon, limit, _LARGEST_PAGE).rows()
    return [ActivityRecord(*row) for row in rows]


def recorded(db: Db, step: str, key: str) -> bytes | None:
    """The result that is recorded under a user's key."""
    row = db.execute("SELECT value FROM recorded WHERE step = %s AND key = %s", step, key).row()
    return None if row is None else row[0]


def searchable(value: object) -> str:
    """A search attribute's value as text: 1 and 1.0 are one, 1, "1" and true are three."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return json.dumps(value, ensure_ascii=False)


def outbox(db: Db, limit: int, after: int) -> list[OutboxRow]:
    """Deferred dispatches, oldest first."""
    rows = db.execute(
        "SELECT o.id, o.activity, a.cid, a.document, o.registry, t.cid, t.spec, a.types,"
        " a.actors, a.source, a.namespace, a.depth, t.options, p.state FROM outbox o"
        " JOIN activity a ON a.seq = o.activity"
        " LEFT JOIN trigger_spec t ON t.id = o.trigger_spec"
        " LEFT JOIN trigger_past p ON p.trigger_spec = o.trigger_spec"
        " AND p.since <= o.registry AND p.until > o.registry"
        " WHERE o.id > %s ORDER BY o.id LIMIT %s",
        after,
        limit,
    ).rows()
    return [OutboxRow(*row) for row in rows]


def runnable(db: Db) -> bool:
    """Whether an instance waits for an owner."""
    found = db.execute(
        "SELECT 1 FROM instance WHERE status = 'running' AND owner IS NULL LIMIT 1"
    )
    return found.row() is not None


NEXT_DUE: Final = "SELECT min(due) FROM instance WHERE status = 'waiting' AND due IS NOT NULL"


def next_due(db: Db) -> float | None:
    """When the next parked instance is due."""
    due: float | None = db.execute(NEXT_DUE).one()
    return due


def counts(db: Db) -> Counts:
    """How much the store holds."""

    def one(text: str) -> int:
        found: int = db.execute(text).one()
        return found

    return Counts(
        one("SELECT count(*) FROM activity"),
        one("SELECT count(*) FROM firing"),
        dict(db.execute("SELECT status, count(*) FROM instance GROUP BY status").rows()),
        one("SELECT count(*) FROM outbox"),
        one("SELECT count(*) FROM inbox WHERE NOT consumed"),
        one("SELECT value FROM meta WHERE name = 'schema'"),
        db.execute(
            "SELECT min(created) FROM instance WHERE status = 'running' AND owner IS NULL"
        ).one(),
    )
