"""Writing messages: signals, cancels, retries and completions, from anybody."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from triggerflow.store.holding import FOR_A_PLACE
from triggerflow.store.operations import Outcome, Send, Terminate, Unblock, Verdict
from triggerflow.store.posts import Admitted, Told
from triggerflow.store.records import ENDED
from triggerflow.store.sqlite import kin, places, tasks, waking
from triggerflow.store.sqlite.incoming import next_number

if TYPE_CHECKING:
    import sqlite3


def send(
    db: sqlite3.Connection,
    worker: int | None,
    items: Sequence[tuple[int, Any]],
    outcomes: list[Any],
) -> None:
    """Decide and write messages; see `operations.Send`."""
    ids = json.dumps([op.instance for _, op in items])
    targets = {
        row[1]: list(row)
        for row in db.execute(
            "SELECT id, public_id, status, owner, cancelled, generation, held FROM instance"
            " WHERE public_id IN (SELECT value FROM json_each(?))",
            (ids,),
        )
    }
    inbox = next_number(db, "inbox")
    rows: list[tuple[Any, ...]] = []
    woken: list[tuple[int, str, str]] = []
    cancelled: list[tuple[int]] = []
    for index, op in items:
        target = targets.get(op.instance)
        refused = _refused(db, op, target)
        if refused is not None or target is None:
            outcomes[index] = refused
            continue
        number, public_id, status, owner, *_, held = target
        if op.kind == "cancel" and held:
            # None of its code has run: there is nothing to wake for it.
            told = kin.post(db, [(number, op.kind, op.name, op.payload, op.at)])
            target[2] = "cancelled"
            outcomes[index] = _applied(public_id, number, told)
            continue
        if op.kind == "cancel":
            target[4] = 1
            cancelled.append((number,))
        row = (inbox, number, op.kind, op.name, op.payload, op.dedup, op.digest, op.at)
        if op.dedup is None:
            rows.append(row)
        else:
            # Written at once, so that the next of this batch meets it.
            db.execute(_INSERT, row)
        if status == "failed":
            target[2] = "running"
            # At once: it holds its key again, and the next of this batch must see that.
            db.execute(
                "UPDATE instance SET status = 'running', owner = NULL, ended = NULL,"
                " value = NULL WHERE id = ?",
                (number,),
            )
            if places.asks_for_any(db, number):
                # It gave its places back when it failed.
                admitted: Admitted = {}
                places.proceed(db, number, admitted)
                target[6] = 0 if number in admitted else FOR_A_PLACE
        elif owner is None or owner != worker:
            woken.append((number, op.kind, op.name))
        outcomes[index] = Outcome(
            Verdict.APPLIED, instance=public_id, number=number, owner=owner, inbox=inbox
        )
        inbox += 1
    db.executemany(_INSERT, rows)
    waking.wake(db, woken)
    if cancelled:
        db.executemany("UPDATE instance SET cancelled = 1 WHERE id = ?", cancelled)


_INSERT = (
    "INSERT INTO inbox (id, instance, kind, name, payload, dedup, digest, at)"
    " VALUES (?, ?, ?, ?, ?, ?, ?, ?)"
)


def _refused(db: sqlite3.Connection, op: Send, target: list[Any] | None) -> Outcome | None:
    if target is None:
        return Outcome(Verdict.GONE)
    number, public_id, status, _, cancelled, generation, held = target
    if op.kind == "retry":
        if status != "failed":
            return Outcome(Verdict.CONFLICT, instance=public_id, detail=status)
        if _key_taken(db, number):
            return Outcome(Verdict.CONFLICT, instance=public_id, detail="key taken")
        return None
    if status in ENDED:
        return Outcome(Verdict.GONE, instance=public_id, detail=status)
    if op.generation not in (None, generation):
        return Outcome(Verdict.CONFLICT, instance=public_id, detail="generation")
    if op.kind == "cancel" and cancelled and not held:
        return Outcome(Verdict.DUPLICATE, instance=public_id, number=number)
    if op.dedup is not None:
        known = db.execute(
            "SELECT digest FROM inbox WHERE instance = ? AND name = ? AND dedup = ?",
            (number, op.name, op.dedup),
        ).fetchone()
        if known is not None:
            same = known[0] == op.digest
            verdict = Verdict.DUPLICATE if same else Verdict.CONFLICT
            return Outcome(verdict, instance=public_id, number=number)
    return None


def _key_taken(db: sqlite3.Connection, number: int) -> bool:
    found = db.execute(
        "SELECT 1 FROM instance mine JOIN instance rival ON rival.namespace = mine.namespace"
        " AND rival.flow = mine.flow AND rival.key = mine.key"
        " AND rival.status IN ('running', 'waiting', 'blocked')"
        " WHERE mine.id = ? AND mine.key IS NOT NULL",
        (number,),
    ).fetchone()
    return found is not None


def unblock(db: sqlite3.Connection, op: Unblock) -> Outcome:
    """Decide and write an unblock; see `operations.Unblock`."""
    row = db.execute(
        "SELECT id, status FROM instance WHERE public_id = ?", (op.instance,)
    ).fetchone()
    if row is None:
        return Outcome(Verdict.GONE)
    number, status = row
    if status != "blocked":
        return Outcome(Verdict.CONFLICT, instance=op.instance, detail=status)
    db.execute("DELETE FROM tried WHERE instance = ?", (number,))
    db.execute(
        "UPDATE instance SET status = 'running', cause = NULL, reason = NULL, crashes = 0"
        " WHERE id = ?",
        (number,),
    )
    return Outcome(Verdict.APPLIED, instance=op.instance, number=number)


def terminate(db: sqlite3.Connection, op: Terminate) -> Outcome:
    """Decide and write a termination; see `operations.Terminate`."""
    row = db.execute(
        "SELECT id, status, owner FROM instance WHERE public_id = ?", (op.instance,)
    ).fetchone()
    if row is None:
        return Outcome(Verdict.GONE)
    number, status, owner = row
    if status in ENDED:
        return Outcome(Verdict.GONE, instance=op.instance, detail=status)
    told = Told()
    letters = kin.end_at_once(db, {number: (op.value, op.at)}, told)
    tasks.clear_instances(db, [(number,)])
    told.add(kin.post(db, letters))
    return _applied(op.instance, number, told, owner)


def _applied(instance: str, number: int, told: Told, owner: int | None = None) -> Outcome:
    return Outcome(
        Verdict.APPLIED,
        instance=instance,
        number=number,
        owner=owner,
        told=tuple(told.owners),
        ended=tuple(told.ended),
    )
