"""Writing turns and blocks: the only code that extends a log."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from triggerflow.store.acts import ContinueAsNew
from triggerflow.store.operations import APPLIED, FENCED, Block, Outcome, Turn, Verdict
from triggerflow.store.postgres import acts, generations, places, requests, waking
from triggerflow.store.postgres.clearing import clear_inboxes, clear_instances, clear_waits
from triggerflow.store.postgres.columns import Ints, columns
from triggerflow.store.postgres.progress import clear
from triggerflow.store.posts import Admitted, Told
from triggerflow.store.records import ENDED

if TYPE_CHECKING:
    from triggerflow.store.postgres.activities import Activities
    from triggerflow.store.postgres.incoming import Triggers
    from triggerflow.store.postgres.standing import Items, Standing
    from triggerflow.store.postgres.wire import Db


def turns(
    s: Standing,
    activities: Activities,
    triggers: Triggers,
    items: Items,
    outcomes: list[Any],
) -> None:
    """Decide and write turns and blocks; see `operations.Turn` and `operations.Block`.

    The worker's epoch was checked before; here owner, generation and log length are.
    """
    won: list[tuple[int, Turn]] = []
    blocks: list[Block] = []
    taken: set[int] = set()
    checking = acts.Checking(s)
    for index, op in items:
        if op.number in taken or not _may(s, op):
            # Once is enough: a second turn in this batch builds on a log that is gone.
            outcomes[index] = FENCED
            taken.add(op.number)
            continue
        taken.add(op.number)
        if isinstance(op, Block):
            blocks.append(op)
        else:
            if op.acts:
                refusals = checking.refusals(op)
                if refusals:
                    outcomes[index] = Outcome(Verdict.CONFLICT, refusals=refusals)
                    continue
            checking.won(op)
            won.append((index, op))
        outcomes[index] = APPLIED
    checking.settle()
    if won:
        requests.write(s, [op for _, op in won])
        _write(s, acts.Writing(s, activities, triggers, activities.horizon), won, outcomes)
    _block(s, blocks)


def _may(s: Standing, op: Turn | Block) -> bool:
    """Whether the worker owns what the operation is about, as it says it stands."""
    found = s.rows.get(op.number)
    return found is not None and (found.owner, found.generation, found.log_length) == (
        s.worker,
        op.generation,
        op.log_length,
    )


def _write(
    s: Standing, writing: acts.Writing, won: list[tuple[int, Turn]], outcomes: list[Any]
) -> None:
    told = Told()
    if any(op.acts or op.status in ENDED for _, op in won):
        for index, op in won:
            for act in op.acts:
                writing.act(index, op, act)
        told = writing.write(won)
    # What they were told is found here, if they are about to park.
    woken = {op.number for _, op in won if op.status == "waiting" and waking.unheard(s, op)}
    for index, op in won:
        if op.number in woken:
            outcomes[index] = Outcome(Verdict.APPLIED, woken=True)
    _log(s.db, [op for _, op in won])
    staying = [op for _, op in won if op.status == "running" or op.number in woken]
    _stay(s, staying)
    _consume(s.db, [each for _, op in won for each in op.consumed])
    generations.turn_over(
        s, [(op, act) for op in staying for act in op.acts if isinstance(act, ContinueAsNew)]
    )
    leaving = [op for _, op in won if op.status != "running" and op.number not in woken]
    _leave(s, leaving)
    clear(s.db, [(op.number, op.generation, tag) for _, op in won for tag in op.progress_over])
    told.woken(_end(s, [op for op in leaving if op.status in ENDED]))
    if told or writing.emitted:
        # One turn passes on what the whole batch has told.
        first = won[0][0]
        outcomes[first] = Outcome(
            Verdict.APPLIED,
            woken=outcomes[first].woken,
            told=tuple(told.owners),
            ended=tuple(told.ended),
            emitted=bool(writing.emitted),
        )


def _log(db: Db, won: Sequence[Turn]) -> None:
    entries = [
        (op.number, op.generation, at, row.tag, row.value, row.failed, row.digest, row.at)
        for op in won
        for at, row in enumerate(op.entries, op.log_length)
    ]
    if entries:
        db.execute(
            "INSERT INTO log (instance, generation, position, tag, value, failed, digest, at)"
            " SELECT * FROM unnest(%s, %s, %s, %s, %s, %s, %s, %s)",
            *columns("iiitbobf", entries),
        )


def _stay(s: Standing, staying: Sequence[Turn]) -> None:
    """A turn that stays changes no indexed column, which makes it several times cheaper."""
    if not staying:
        return
    s.db.execute(
        "UPDATE instance i SET log_length = u.n, pending = u.p,"
        " crashes = CASE WHEN u.e THEN 0 ELSE i.crashes END, turns = i.turns + 1,"
        " started = coalesce(i.started, u.s)"
        " FROM unnest(%s, %s, %s, %s, %s) AS u (i, n, p, e, s) WHERE i.id = u.i",
        *columns(
            "iibof",
            [
                (
                    op.number,
                    op.log_length + len(op.entries),
                    op.pending,
                    bool(op.entries),
                    op.started,
                )
                for op in staying
            ],
        ),
    )
    for op in staying:
        s.rows[op.number].log_length = op.log_length + len(op.entries)


def _leave(s: Standing, leaving: Sequence[Turn]) -> None:
    """Instances that park or end have no owner any more."""
    if not leaving:
        return
    s.db.execute(
        "UPDATE instance i SET status = u.status, owner = NULL, log_length = u.n,"
        " pending = u.p, due = u.due, value = u.v, ended = u.ended,"
        " crashes = CASE WHEN u.e THEN 0 ELSE i.crashes END,"
        " started = coalesce(i.started, u.s), turns = i.turns + 1, awaits = u.a,"
        " parked_by = u.by FROM unnest(%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s)"
        " AS u (i, status, n, p, due, v, ended, e, s, a, by) WHERE i.id = u.i",
        *columns(
            "itibfbfofti",
            [
                (
                    op.number,
                    op.status,
                    op.log_length + len(op.entries),
                    op.pending,
                    op.due,
                    op.value,
                    op.at if op.status in ENDED else None,
                    bool(op.entries),
                    op.started,
                    None if op.awaits is None else json.dumps(op.awaits),
                    s.worker,
                )
                for op in leaving
            ],
        ),
    )
    for op in leaving:
        found = s.rows[op.number]
        found.status, found.owner, found.value = op.status, None, op.value
        found.awaits = None if op.awaits is None else json.dumps(op.awaits)
        found.parked_by = s.worker
        found.log_length = op.log_length + len(op.entries)


def _consume(db: Db, messages: list[int]) -> None:
    if messages:
        db.execute("DELETE FROM inbox WHERE id = ANY(%s) AND dedup IS NULL", Ints(messages))
        db.execute(
            "UPDATE inbox SET consumed = TRUE WHERE id = ANY(%s) AND dedup IS NOT NULL",
            Ints(messages),
        )


def _end(s: Standing, ended: Sequence[Turn]) -> Admitted:
    """What goes with an end; who got a place by it."""
    admitted: Admitted = {}
    if not ended:
        return admitted
    # Somebody may wait for it.
    s.loud = True
    numbers = [op.number for op in ended]
    clear_instances(s, numbers)
    clear_waits(s.db, numbers)
    # A failed instance may be retried: its unread messages are still wanted then, and a
    # repeat must still be known.
    clear_inboxes(s.db, [op.number for op in ended if op.status != "failed"])
    s.drop_keys({s.rows[number].id for number in numbers})
    if s.flow:
        places.release(s.db, [(op.number, op.status == "failed") for op in ended], admitted)
        s.admit(admitted)
    return admitted


def _block(s: Standing, blocks: Sequence[Block]) -> None:
    if not blocks:
        return
    s.loud = True
    s.db.execute(
        "UPDATE instance i SET status = 'blocked', owner = NULL, cause = u.c, reason = u.r"
        " FROM unnest(%s, %s, %s) AS u (i, c, r) WHERE i.id = u.i",
        *columns("itt", [(op.number, op.cause, op.reason) for op in blocks]),
    )
    s.db.execute(
        "INSERT INTO tried (instance, build) SELECT * FROM unnest(%s, %s)"
        " ON CONFLICT DO NOTHING",
        *columns("it", [(op.number, op.build) for op in blocks]),
    )
    for op in blocks:
        s.rows[op.number].status, s.rows[op.number].owner = "blocked", None


def release(s: Standing, items: Items, outcomes: list[Any]) -> None:
    """Hand instances back; see `operations.Release`."""
    numbers = []
    for index, op in items:
        outcomes[index] = APPLIED
        for number in op.numbers:
            found = s.rows.get(number)
            if found is not None and (found.owner, found.status) == (s.worker, "running"):
                found.owner = None
                numbers.append(number)
    if numbers:
        s.loud = True
        s.db.execute("UPDATE instance SET owner = NULL WHERE id = ANY(%s)", Ints(numbers))


def woken(db: Db, worker: int) -> list[int]:
    """A worker's instances whose inbox somebody else wrote to."""
    return db.execute(
        "SELECT id FROM instance WHERE status = 'running' AND owner = %s AND wake", worker
    ).firsts()
