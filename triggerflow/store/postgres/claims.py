"""Claiming: how an instance gets an owner.

Rows that another transaction has locked are passed over: whoever holds them says so when they
can be claimed. So any number of workers claim at once, and none waits for another.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from triggerflow.core.log import IN_ROWS
from triggerflow.store import orphans
from triggerflow.store.operations import Claim, Outcome, Verdict
from triggerflow.store.postgres import admission, progress, requests
from triggerflow.store.postgres.columns import Column, Ints, Texts, columns
from triggerflow.store.postgres.reads import NEXT_DUE, ask_inbox, inbox_of
from triggerflow.store.records import SUSPECT, Claimed, LogRecord

if TYPE_CHECKING:
    from triggerflow.store.postgres.standing import Items, Standing
    from triggerflow.store.postgres.wire import Db


def claim(s: Standing, items: Items, outcomes: list[Any]) -> None:
    """Decide and write claims; see `operations.Claim`."""
    for index, op in items:
        outcomes[index] = _claim(s, op)


def _claim(s: Standing, op: Claim) -> Outcome:
    ask = s.db.execute
    ask(
        "UPDATE instance SET status = 'running' WHERE id IN (SELECT id FROM instance"
        " WHERE status = 'waiting' AND held = 0 AND due IS NOT NULL AND due <= %s"
        " ORDER BY due LIMIT %s FOR UPDATE SKIP LOCKED)",
        op.now,
        op.limit,
    )
    if s.flow:
        # What is held until now goes on.
        held = ask(
            "SELECT id, held FROM instance WHERE status = 'waiting' AND held > 0"
            " AND due IS NOT NULL AND due <= %s ORDER BY due LIMIT %s FOR UPDATE",
            op.now,
            op.limit,
        )
        admission.go_on(s, held.rows(), op.now)
    numbers, suspects, more = _runnable(s.db, op)
    claimed: tuple[Claimed, ...] = ()
    if numbers:
        ask(
            "UPDATE instance i SET owner = %s, status = 'running', wake = FALSE, cause = NULL,"
            " reason = NULL, version = coalesce(i.version, (SELECT max(k.version)"
            " FROM unnest(%s, %s) AS k (flow, version) WHERE k.flow = i.flow))"
            " WHERE i.id = ANY(%s)",
            s.worker,
            *_known(op),
            Ints(numbers),
        )
        claimed = _read(s.db, op, numbers)
    if len(numbers) < op.limit:
        _block_orphans(s)
    return Outcome(
        Verdict.APPLIED,
        claimed=claimed,
        next_due=ask(NEXT_DUE).one(),
        more=more,
        suspects=suspects,
    )


# OFFSET 0: looked up row by row, however many rows the table has.
_FITS: Final = (
    "((flow, version) IN (SELECT * FROM unnest(%s, %s)) OR version IS NULL AND flow = ANY(%s))"
    " AND NOT EXISTS (SELECT 1 FROM tried t WHERE t.instance = instance.id AND t.build = %s"
    " OFFSET 0)"
)
_FREE: Final = (
    "SELECT id FROM instance WHERE status = 'running' AND owner IS NULL"
    f" AND {_FITS} AND crashes {{}} {SUSPECT:d} ORDER BY priority DESC, id"
    " LIMIT %s FOR UPDATE SKIP LOCKED"
)
_BLOCKED: Final = (
    "SELECT id FROM instance WHERE status = 'blocked' AND cause <> 'crash_limit'"
    f" AND {_FITS} AND crashes {{}} {SUSPECT:d} ORDER BY id LIMIT %s FOR UPDATE SKIP LOCKED"
)


def _known(op: Claim) -> list[Column]:
    """The worker's flows as two columns."""
    if not op.flows:
        return [Texts([]), Ints([])]
    return columns("ti", sorted(op.flows))


_SUSPECTS: Final = (
    "SELECT EXISTS (SELECT 1 FROM instance WHERE status = 'running' AND owner IS NULL"
    f" AND {_FITS} AND crashes >= {SUSPECT:d}) OR EXISTS (SELECT 1 FROM instance"
    f" WHERE status = 'blocked' AND cause <> 'crash_limit' AND {_FITS}"
    f" AND crashes >= {SUSPECT:d})"
)


def _runnable(db: Db, op: Claim) -> tuple[list[int], bool, bool]:
    """What to claim, whether suspects wait for an empty worker, and whether more is there."""
    fits = (*_known(op), Texts(sorted({flow for flow, _ in op.flows})), op.build)
    if op.alone:
        free = db.execute(_FREE.format(">="), *fits, 1)
        stuck = db.execute(_BLOCKED.format(">="), *fits, 1)
        alone = free.row() or stuck.row()
        if alone is not None:
            return [alone[0]], False, True
    share = min(op.blocked, op.limit)
    suspects = db.execute(_SUSPECTS, *fits, *fits)
    blocked = db.execute(_BLOCKED.format("<"), *fits, share).firsts() if share else []
    left = op.limit - len(blocked)
    found = db.execute(_FREE.format("<"), *fits, left).firsts()
    more = len(found) == left or len(blocked) == share > 0
    return found + blocked, suspects.one(), more


def _read(db: Db, op: Claim, numbers: list[int]) -> tuple[Claimed, ...]:
    inbox_ask = ask_inbox(db, numbers)
    said_ask = progress.ask_many(db, numbers)
    rows = db.execute(
        "SELECT i.id, i.public_id, i.flow, i.version, i.generation, i.log_length, i.pending,"
        " i.crashes, i.cancelled, g.input, g.seed, i.started, i.namespace, i.correlation_id,"
        " i.depth, i.chain, i.origin, i.attributes, g.positions, i.turns FROM instance i"
        " JOIN generation g ON g.instance = i.id AND g.generation = i.generation"
        " WHERE i.id = ANY(%s) ORDER BY i.id",
        Ints(numbers),
    ).rows()
    inboxes, said = inbox_of(inbox_ask), progress.many(said_ask)
    warm = {row[0] for row in rows if op.warm.get(row[0]) == (row[4], row[-1])}
    cold = [(row[0], row[4]) for row in rows if row[5] and row[0] not in warm]
    logs = _logs(db, cold)
    wide = [row[0] for row in rows if row[6] == IN_ROWS and row[0] not in warm]
    pending = requests.whole(db, wide)
    found = []
    for row in rows:
        number, generation = row[0], row[4]
        log = None if number in warm else tuple(logs.get(number, ()))
        inbox = tuple(inboxes.get(number, ()))
        progressed = tuple(said.get((number, generation), ()))
        requested = pending.get(number, row[6])
        fields = [*row[:6], requested, *row[7:12], log, inbox, progressed, *row[12:]]
        found.append(Claimed(*fields))
    return tuple(found)


def _logs(db: Db, cold: list[tuple[int, int]]) -> dict[int, list[LogRecord]]:
    """The logs of these generations."""
    found: dict[int, list[LogRecord]] = {number: [] for number, _ in cold}
    if cold:
        for number, *row in db.execute(
            "SELECT l.instance, l.position, l.tag, l.value, l.failed, l.digest, l.at"
            " FROM unnest(%s, %s) AS k (instance, generation) JOIN log l"
            " ON l.instance = k.instance AND l.generation = k.generation"
            " ORDER BY l.instance, l.position",
            *columns("ii", cold),
        ).rows():
            found[number].append(LogRecord(*row))
    return found


_KNOWERS: Final = (
    "SELECT 1 FROM worker_flow f JOIN worker w ON w.id = f.worker WHERE f.flow = i.flow"
    " AND (i.version IS NULL OR f.version = i.version)"
)


def _block_orphans(s: Standing) -> None:
    """Runnable instances that no registered worker will take become visible as blocked.

    Either none knows the flow, or each that does was tried and diverged: then one that had
    fitted is gone. Nothing counts as tried by this, so a worker that fits takes them.
    """
    left = s.db.execute(
        f"SELECT i.id, i.flow, i.version, EXISTS ({_KNOWERS}) FROM instance i"
        f" WHERE i.status = 'running' AND i.owner IS NULL AND NOT EXISTS ({_KNOWERS}"
        " AND NOT EXISTS (SELECT 1 FROM tried t WHERE t.instance = i.id AND t.build = w.build))"
        " ORDER BY i.id LIMIT 1000 FOR UPDATE OF i SKIP LOCKED"
    ).rows()
    blocked = []
    for number, flow, version, known in left:
        cause, reason = _why(s.db, number, flow, version, known=known)
        blocked.append((number, cause, reason))
    if blocked:
        s.loud = True
        s.db.execute(
            "UPDATE instance i SET status = 'blocked', cause = u.c, reason = u.r"
            " FROM unnest(%s, %s, %s) AS u (i, c, r) WHERE i.id = u.i",
            *columns("itt", blocked),
        )


def _why(
    db: Db, number: int, flow: str, version: int | None, *, known: bool
) -> tuple[str, str]:
    if known:
        tried = db.execute("SELECT build FROM tried WHERE instance = %s", number).firsts()
        return orphans.all_tried(sorted(tried))
    return orphans.unknown(
        flow,
        version,
        db.execute(
            "SELECT DISTINCT version FROM worker_flow WHERE flow = %s ORDER BY 1", flow
        ).firsts(),
    )
