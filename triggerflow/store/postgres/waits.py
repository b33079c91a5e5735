"""Waits for activities: opened, found by a pivot, told when one meets them.

What catches up, and what moves the position of all others, is as in `store.sqlite.waits`.
There one writer at a time is a matter of course. Here whoever opens waits, closes some or
moves the position holds one lock (see `flow`): so ids are given out and the position moves in
the order of the commits, and a wait that is opened after somebody asked for the newest one has
a larger id. The newest is the last one that was committed, so whoever asks sees it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

import attrs

from triggerflow.store.operations import Outcome, Verdict
from triggerflow.store.postgres import kin
from triggerflow.store.postgres.columns import Ints, columns
from triggerflow.store.posts import Post
from triggerflow.store.waits import Standing as Position
from triggerflow.store.waits import WaitRecord

if TYPE_CHECKING:
    from triggerflow.store.postgres.standing import Items, Standing
    from triggerflow.store.postgres.wire import Db
    from triggerflow.store.waits import Watched

# So many paths are named; with more of them a document is looked at whole.
_MOST_PATHS: Final = 1000
_COLUMNS: Final = (
    "w.id, w.instance, w.generation, w.tag, w.action, w.pattern, w.digest, w.scanned, w.upto,"
    " i.namespace"
)
_FROM: Final = "FROM wait w JOIN instance i ON i.id = w.instance"
_WATCHED: Final = "(SELECT value FROM meta WHERE name = 'watched')"
_NEWEST: Final = "(SELECT value FROM meta WHERE name = 'wait')"

# Where no wait is open, everything was looked at that is settled.
_BEGIN: Final = (
    "UPDATE meta SET value = greatest(value,"
    " horizon('activity'::regclass::oid::bigint & 8388607))"
    " WHERE name = 'watched' AND (SELECT id FROM wait ORDER BY id LIMIT 1) IS NULL"
)
_OPEN: Final = (
    "INSERT INTO wait (id, instance, generation, tag, action, pattern, digest, position,"
    f" scanned, upto) SELECT {_NEWEST} + u.k, u.i, u.g, u.t, u.a, u.p, u.d, u.n, u.n,"
    f" {_WATCHED}"
    " FROM unnest(%s, %s, %s, %s, %s, %s, %s, %s) AS u (k, i, g, t, a, p, d, n)"
)
_FILE: Final = (
    f"INSERT INTO wait_key (path, value, wait) SELECT u.p, u.v, {_NEWEST} + u.k"
    " FROM unnest(%s, %s, %s) AS u (p, v, k) ON CONFLICT DO NOTHING"
)
# One that doesn't catch up is as far as all are, whatever it says of itself.
_DELAY: Final = (
    "UPDATE wait SET upto = %s, scanned = CASE WHEN scanned < upto THEN scanned"
    f" ELSE greatest(scanned, {_WATCHED}) END WHERE upto < %s AND "
)
_PATHS: Final = (
    "WITH RECURSIVE used (path) AS ((SELECT path FROM wait_key ORDER BY path LIMIT 1)"
    " UNION ALL SELECT (SELECT k.path FROM wait_key k WHERE k.path > used.path"
    " ORDER BY k.path LIMIT 1) FROM used WHERE used.path IS NOT NULL)"
    f" SELECT path FROM used WHERE path IS NOT NULL LIMIT {_MOST_PATHS + 1}"
)
# The rows that a page begins with come first: the pivots are gone through in their order.
_UNDER: Final = (
    f"SELECT (f.at - 1)::bigint, {_COLUMNS} FROM (SELECT k.at, x.wait FROM unnest(%s, %s, %s)"
    " WITH ORDINALITY AS k (path, value, after, at) CROSS JOIN LATERAL (SELECT y.wait"
    " FROM wait_key y WHERE y.path = k.path AND y.value = k.value AND y.wait > k.after"
    " ORDER BY y.wait LIMIT %s) x LIMIT %s) f JOIN wait w ON w.id = f.wait"
    " JOIN instance i ON i.id = w.instance ORDER BY f.at, f.wait"
)


# --- opening and closing


@attrs.frozen
class Opened:
    """A wait to be opened; `action` and the others are those of its row."""

    instance: int
    generation: int
    tag: str
    action: str
    pattern: bytes
    digest: bytes | None
    position: int
    pivots: tuple[tuple[str, str], ...]


def open_all(db: Db, new: Sequence[Opened]) -> None:
    """Open waits, in their order. The lock is held."""
    if not new:
        return
    db.execute(_BEGIN)
    rows = [
        (
            at,
            each.instance,
            each.generation,
            each.tag,
            each.action,
            each.pattern,
            each.digest,
            each.position,
        )
        for at, each in enumerate(new, 1)
    ]
    db.execute(_OPEN, *columns("iiittbbi", rows))
    keys = [(*pivot, at) for at, each in enumerate(new, 1) for pivot in each.pivots]
    if keys:
        db.execute(_FILE, *columns("tti", keys))
    db.execute("UPDATE meta SET value = value + %s WHERE name = 'wait'", len(new))


def close(db: Db, calls: Sequence[tuple[int, int, str]]) -> None:
    """Close waits that nobody waits under any more: (instance, generation, tag)."""
    if calls:
        db.execute(
            "DELETE FROM wait w USING unnest(%s, %s, %s) AS k (instance, generation, tag)"
            " WHERE w.instance = k.instance AND w.generation = k.generation"
            " AND w.tag = k.tag",
            *columns("iit", calls),
        )


# --- hits, and how far everything is


def watch(s: Standing, items: Items, outcomes: list[Any]) -> None:
    """Decide and write what activities met; see `operations.Watched`."""
    for index, op in items:
        told = kin.post(s, _hits(s, op))
        if op.caught_up:
            s.db.execute(
                "UPDATE wait SET scanned = greatest(scanned, %s) WHERE id = ANY(%s)",
                op.position,
                Ints(op.caught_up),
            )
        if op.passed_over:
            _fall_behind(s, op.passed_over, op.position)
        if op.newest is not None:
            _move(s.db, op.position, op.newest)
        outcomes[index] = Outcome(
            Verdict.APPLIED, told=tuple(told.owners), ended=tuple(told.ended)
        )


def _hits(s: Standing, op: Watched) -> list[Post]:
    """Close what was met; what their instances must hear."""
    if not op.hits:
        return []
    watched: int = s.db.execute(f"SELECT {_WATCHED}").one()
    rows = {
        id: row
        for id, *row in s.db.execute(
            "SELECT id, instance, tag, action, scanned, upto FROM wait WHERE id = ANY(%s)",
            Ints([hit.wait for hit in op.hits]),
        ).rows()
    }
    s.fetch([row[0] for row in rows.values()])
    letters: list[Post] = []
    closed: list[int] = []
    for hit in op.hits:
        if hit.wait not in rows:
            continue
        number, tag, action, scanned, upto = rows[hit.wait]
        if (scanned if scanned < upto else max(scanned, watched)) < hit.since:
            # Others may have passed over it before: it finds its first one by itself.
            _fall_behind(s, [hit.wait], hit.seq)
            if upto < hit.seq:
                start = scanned if scanned < upto else max(scanned, watched)
                rows[hit.wait] = [number, tag, action, start, hit.seq]
            continue
        del rows[hit.wait]
        closed.append(hit.wait)
        if action == "tell":
            letters.append((number, "activity", tag, hit.payload, op.at))
        else:
            letters += kin.cancel(s.rows[number], op.at)
    if closed:
        s.db.execute("DELETE FROM wait WHERE id = ANY(%s)", Ints(closed))
    kin.mark(s, letters)
    return letters


def _fall_behind(s: Standing, waits: Sequence[int], position: int) -> None:
    """Waits have activities up to this one to be held against them, by themselves."""
    # By somebody else, it may be.
    s.loud = True
    s.db.execute(f"{_DELAY} id = ANY(%s)", position, position, Ints(waits))


def _move(db: Db, position: int, newest: int) -> None:
    """Move the position of all that don't catch up; newer ones catch up to it."""
    db.execute(f"{_DELAY} id > %s AND {_WATCHED} < %s", position, position, newest, position)
    db.execute(
        "UPDATE meta SET value = %s WHERE name = 'watched' AND value < %s", position, position
    )


# --- asking


def standing(db: Db) -> Position:
    """How far everything is; see `Store.standing`."""
    # One statement, so all of it is of one moment.
    position, newest, behind, paths = db.execute(
        f"SELECT {_WATCHED}, {_NEWEST}, (SELECT id FROM wait WHERE scanned < upto"
        f" ORDER BY scanned, id LIMIT 1) IS NOT NULL, ARRAY({_PATHS})"
    ).row() or (0, 0, False, [])
    return Position(
        position, newest, tuple(paths) if len(paths) <= _MOST_PATHS else None, behind
    )


def waits_under(
    db: Db, pivots: Sequence[tuple[str, str, int]], limit: int
) -> list[tuple[int, WaitRecord]]:
    """Waits filed under one of these pivots; see `Store.waits_under`."""
    if not pivots:
        return []
    rows = db.execute(_UNDER, *columns("tti", pivots), limit, limit).rows()
    return [(index, WaitRecord(*row)) for index, *row in rows]


def waits_behind(
    db: Db, after: tuple[int, int] | None, limit: int, *, nearest_first: bool
) -> list[WaitRecord]:
    """Waits that catch up; see `Store.waits_behind`."""
    if nearest_first:
        where, order, first = "(w.scanned, w.id) < (%s, %s)", "DESC", (2**63 - 1, 0)
    else:
        where, order, first = "(w.scanned, w.id) > (%s, %s)", "ASC", (-1, 0)
    rows = db.execute(
        f"SELECT {_COLUMNS} {_FROM} WHERE w.scanned < w.upto AND {where}"
        f" ORDER BY w.scanned {order}, w.id {order} LIMIT %s",
        *(after or first),
        limit,
    ).rows()
    return [WaitRecord(*row) for row in rows]


def waits(db: Db, after: int, limit: int) -> list[WaitRecord]:
    """Open waits by id; see `Store.waits`."""
    rows = db.execute(
        f"SELECT {_COLUMNS} {_FROM} WHERE w.id > %s ORDER BY w.id LIMIT %s", after, limit
    ).rows()
    return [WaitRecord(*row) for row in rows]


def waits_of(db: Db, number: int) -> list[WaitRecord]:
    """The open waits of an instance; see `Store.waits_of`."""
    rows = db.execute(
        f"SELECT {_COLUMNS} {_FROM} WHERE w.instance = %s ORDER BY w.id", number
    ).rows()
    return [WaitRecord(*row) for row in rows]
