"""The activities of a batch, inserted before anything else is locked, and their horizon."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import attrs

from triggerflow.store.acts import EmitActivity
from triggerflow.store.operations import Append, Turn
from triggerflow.store.postgres.columns import Ints, Texts, columns

if TYPE_CHECKING:
    from triggerflow.store.postgres.wire import Answer, Db

# CID and namespace.
Name = tuple[str, str]

_PUBLISH: Final = (
    "SELECT pg_advisory_xact_lock_shared((%s::bigint << 40)"
    " | CASE WHEN is_called THEN last_value ELSE 0 END) FROM activity_seq"
)
# Numbers in the batch's order, rows in the order of CIDs: two batches wait for each other in
# one direction only. A number is given out after it was published which one came before.
_INSERT: Final = (
    "INSERT INTO activity (seq, cid, types, actors, document, received, cause, depth,"
    " namespace, source, received_digest) SELECT n.seq, n.cid, n.types, n.actors, n.document,"
    " n.received, n.cause, n.depth, n.namespace, n.source, n.digest"
    " FROM (SELECT nextval('activity_seq') AS seq, u.* FROM unnest(%s, %s, %s, %s, %s, %s, %s,"
    " %s, %s, %s, %s) AS u (cid, types, actors, document, received, cause, depth, registry,"
    " namespace, source, digest)"
    " WHERE u.registry IS NULL OR u.registry ="
    " (SELECT value FROM meta WHERE name = 'registry')) n"
    " ORDER BY n.cid, n.namespace ON CONFLICT (cid, namespace) DO NOTHING RETURNING seq"
)
_KNOWN: Final = (
    "SELECT a.cid, a.namespace, a.seq, EXISTS (SELECT 1 FROM outbox o WHERE o.activity = a.seq"
    " AND o.trigger_spec IS NULL) FROM activity a WHERE a.cid = ANY(%s)"
)


@attrs.define(slots=True)
class Cid:
    """An activity that this batch is about.

    Attributes:
        fresh: this batch inserted it, and nothing of the batch has said yet that it is its.
        deferred: it waits for its dispatch.
    """

    seq: int
    fresh: bool
    deferred: bool


class Activities:
    """The activities of a batch: inserted before anything else is locked.

    Those that turns emit are inserted here too, though it isn't decided yet which turns win;
    what nobody claims in the end is taken back.
    """

    def __init__(self, db: Db, turns: list[Any], appends: list[Any], lock_class: int) -> None:
        self.db = db
        self.found: dict[Name, Cid] = {}
        self.registry = 0
        self.horizon = 0
        rows: dict[Name, tuple[Any, ...]] = {}
        for op in turns:
            for act in op.acts if isinstance(op, Turn) else ():
                if isinstance(act, EmitActivity) and (act.cid, act.namespace) not in rows:
                    rows[act.cid, act.namespace] = _row(act, op.number, act.depth, None)
        for op in appends:
            if (op.cid, op.namespace) not in rows:
                needed = None if op.firings is None else op.registry
                rows[op.cid, op.namespace] = _row(op, None, 0, needed)
        self._lock_class = lock_class
        self._rows = list(rows.values())
        self._asked: list[Answer] = []

    def insert(self) -> None:
        """Send it off."""
        ask = self.db.execute
        if self._rows:
            ask(_PUBLISH, self._lock_class)
            self._asked = [
                ask(_INSERT, *columns("tttbfiiittb", self._rows)),
                ask(_KNOWN, Texts([row[0] for row in self._rows])),
                ask("SELECT value FROM meta WHERE name = 'registry'"),
            ]

    def take(self) -> None:
        """Take what came of it."""
        if self._asked:
            fresh, known, registry = self._asked
            inserted = set(fresh.firsts())
            self.found = {
                (cid, namespace): Cid(seq, seq in inserted, deferred)
                for cid, namespace, seq, deferred in known.rows()
            }
            self.registry = registry.one()

    def claim(self, name: Name) -> int | None:
        """The number of an activity if it is new, from now on it isn't; else None."""
        found = self.found.get(name)
        if found is None or not found.fresh:
            return None
        found.fresh = False
        return found.seq

    def take_back(self) -> None:
        """Remove those that only a turn wanted which lost."""
        left = [found.seq for found in self.found.values() if found.fresh]
        if left:
            self.db.execute("DELETE FROM activity WHERE seq = ANY(%s)", Ints(left))


def _row(
    of: Append | EmitActivity, cause: int | None, depth: int, registry: int | None
) -> tuple[Any, ...]:
    about = (of.cid, of.types, of.actors, of.document, of.received, cause, depth, registry)
    if isinstance(of, Append):
        return (*about, of.namespace, of.source, of.digest)
    return (*about, of.namespace, None, None)
