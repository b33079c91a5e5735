"""Claiming: how an instance gets an owner."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from triggerflow.store import orphans
from triggerflow.store.operations import Claim, Outcome, Verdict
from triggerflow.store.records import SUSPECT, Claimed
from triggerflow.store.sqlite import admission, progress, requests
from triggerflow.store.sqlite.reads import inbox_of, log_of, next_due

if TYPE_CHECKING:
    import sqlite3


def claim(
    db: sqlite3.Connection, worker: int, items: Sequence[tuple[int, Any]], outcomes: list[Any]
) -> None:
    """Decide and write claims; see `operations.Claim`."""
    for index, op in items:
        outcomes[index] = _claim(db, worker, op)


def _claim(db: sqlite3.Connection, worker: int, op: Claim) -> Outcome:
    _know(db, op.flows)
    _wake_due(db, op)
    numbers, suspects, more = _runnable(db, op)
    claimed: tuple[Claimed, ...] = ()
    if numbers:
        chosen = json.dumps(numbers)
        db.execute(
            "UPDATE instance SET owner = ?, status = 'running', wake = 0, cause = NULL,"
            " reason = NULL, version = coalesce(version, (SELECT max(k.version)"
            " FROM temp.known k WHERE k.flow = instance.flow))"
            " WHERE id IN (SELECT value FROM json_each(?))",
            (worker, chosen),
        )
        claimed = _read(db, op, chosen)
    if len(numbers) < op.limit:
        _block_orphans(db)
    return Outcome(
        Verdict.APPLIED,
        claimed=claimed,
        next_due=next_due(db),
        more=more,
        suspects=suspects,
    )


def _wake_due(db: sqlite3.Connection, op: Claim) -> None:
    """What is parked until now becomes runnable; what is held until now goes on."""
    due = db.execute(
        "SELECT id, held FROM instance WHERE status = 'waiting' AND due IS NOT NULL"
        " AND due <= ? ORDER BY due LIMIT ?",
        (op.now, op.limit),
    ).fetchall()
    db.executemany(
        "UPDATE instance SET status = 'running' WHERE id = ?",
        [(number,) for number, held in due if not held],
    )
    admission.go_on(db, [(number, held) for number, held in due if held], op.now)


def _know(db: sqlite3.Connection, flows: frozenset[tuple[str, int]]) -> None:
    """The worker's flows as a table of this connection."""
    db.execute(
        "CREATE TEMP TABLE IF NOT EXISTS known"
        " (flow TEXT, version INTEGER, PRIMARY KEY (flow, version)) WITHOUT ROWID"
    )
    if set(db.execute("SELECT flow, version FROM temp.known")) != flows:
        db.execute("DELETE FROM temp.known")
        db.executemany("INSERT INTO temp.known VALUES (?, ?)", sorted(flows))


_KNOWN = (
    "EXISTS (SELECT 1 FROM temp.known k WHERE k.flow = instance.flow"
    " AND (instance.version IS NULL OR k.version = instance.version))"
)
_UNTRIED = "NOT EXISTS (SELECT 1 FROM tried t WHERE t.instance = instance.id AND t.build = ?)"
_FREE = (
    "SELECT id FROM instance WHERE status = 'running' AND owner IS NULL"
    f" AND {_KNOWN} AND {_UNTRIED} AND crashes {{}} ? ORDER BY priority DESC, id LIMIT ?"
)

_BLOCKED = (
    "SELECT id FROM instance WHERE status = 'blocked' AND cause <> 'crash_limit'"
    f" AND {_KNOWN} AND {_UNTRIED} AND crashes {{}} ? ORDER BY id LIMIT ?"
)


def _runnable(db: sqlite3.Connection, op: Claim) -> tuple[list[int], bool, bool]:
    """What to claim, whether suspects wait for an empty worker, and whether more is there."""
    suspect = (
        db.execute(_FREE.format(">="), (op.build, SUSPECT, 1)).fetchone()
        or db.execute(_BLOCKED.format(">="), (op.build, SUSPECT, 1)).fetchone()
    )
    if suspect is not None and op.alone:
        return [suspect[0]], False, True
    share = min(op.blocked, op.limit)
    blocked = [n for (n,) in db.execute(_BLOCKED.format("<"), (op.build, SUSPECT, share))]
    left = op.limit - len(blocked)
    free = [n for (n,) in db.execute(_FREE.format("<"), (op.build, SUSPECT, left))]
    more = len(free) == left or len(blocked) == share > 0
    return free + blocked, suspect is not None, more


def _read(db: sqlite3.Connection, op: Claim, chosen: str) -> tuple[Claimed, ...]:
    inboxes = inbox_of(db, chosen)
    said = progress.of_many(db, chosen)
    found = []
    for row in db.execute(
        "SELECT i.id, i.public_id, i.flow, i.version, i.generation, i.log_length, i.pending,"
        " i.crashes, i.cancelled, g.input, g.seed, i.started, i.namespace, i.correlation_id,"
        " i.depth, i.chain, i.origin, i.attributes, g.positions, i.turns FROM instance i"
        " JOIN generation g ON g.instance = i.id AND g.generation = i.generation"
        " WHERE i.id IN (SELECT value FROM json_each(?)) ORDER BY i.id",
        (chosen,),
    ).fetchall():
        number, _, _, _, generation, length = row[:6]
        warm = op.warm.get(number) == (generation, row[-1])
        log = None if warm else tuple(log_of(db, number, generation)) if length else ()
        inbox = tuple(inboxes.get(number, ()))
        progressed = tuple(said.get((number, generation), ()))
        pending = row[6] if warm else requests.whole(db, number, row[6])
        fields = [
            *row[:6],
            pending,
            row[7],
            bool(row[8]),
            *row[9:12],
            log,
            inbox,
            progressed,
            *row[12:],
        ]
        found.append(Claimed(*fields))
    return tuple(found)


_KNOWERS = (
    "SELECT 1 FROM worker_flow f JOIN worker w ON w.id = f.worker WHERE f.flow = instance.flow"
    " AND (instance.version IS NULL OR f.version = instance.version)"
)


def _block_orphans(db: sqlite3.Connection) -> None:
    """Runnable instances that no registered worker will take become visible as blocked.

    Either none knows the flow, or each that does was tried and diverged: then one that had
    fitted is gone. Nothing counts as tried by this, so a worker that fits takes them.
    """
    left = db.execute(
        f"SELECT id, flow, version, EXISTS ({_KNOWERS}) FROM instance"
        f" WHERE status = 'running' AND owner IS NULL AND NOT EXISTS ({_KNOWERS} AND NOT EXISTS"
        " (SELECT 1 FROM tried t WHERE t.instance = instance.id AND t.build = w.build))"
        " LIMIT 1000"
    ).fetchall()
    for number, flow, version, known in left:
        cause, reason = _why(db, number, flow, version, known=bool(known))
        db.execute(
            "UPDATE instance SET status = 'blocked', cause = ?, reason = ? WHERE id = ?",
            (cause, reason, number),
        )


def _why(
    db: sqlite3.Connection, number: int, flow: str, version: int | None, *, known: bool
) -> tuple[str, str]:
    if known:
        tried = db.execute("SELECT build FROM tried WHERE instance = ? ORDER BY 1", (number,))
        return orphans.all_tried([build for (build,) in tried])
    versions = db.execute(
        "SELECT DISTINCT version FROM worker_flow WHERE flow = ? ORDER BY 1", (flow,)
    )
    return orphans.unknown(flow, version, [each for (each,) in versions])
