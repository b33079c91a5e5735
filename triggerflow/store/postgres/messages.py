"""Writing messages: signals, cancels, retries and completions, from anybody."""

from __future__ import annotations

from typing import Any

from triggerflow.store.operations import Outcome, Send, Terminate, Unblock, Verdict
from triggerflow.store.postgres import kin, tasks, waking
from triggerflow.store.postgres.columns import Ints, columns
from triggerflow.store.postgres.standing import Items, Stand, Standing
from triggerflow.store.postgres.turns import clear_inboxes


def send(s: Standing, sender: int | None, items: Items, outcomes: list[Any]) -> None:
    """Decide and write messages; see `operations.Send`.

    The targets' rows are locked before a message gets its number, so whoever parks one of
    them meanwhile either sees the message or is woken by it.
    """
    rows: list[tuple[Any, ...]] = []
    woken: list[tuple[int, str, str]] = []
    cancelled: list[int] = []
    retried: list[int] = []
    for index, op in items:
        target = s.by_id.get(op.instance)
        refused = _refused(s, op, target)
        if refused is not None or target is None:
            outcomes[index] = refused
            continue
        number, owner = target.number, target.owner
        if op.kind == "cancel":
            target.cancelled = True
            cancelled.append(number)
        message = s.next_message()
        rows.append((message, number, op.kind, op.name, op.payload, op.dedup, op.digest, op.at))
        if op.dedup is not None:
            s.dedups[op.instance, op.name, op.dedup] = (op.digest, op.kind)
        if target.status == "failed":
            target.status, target.owner = "running", None
            retried.append(number)
            if op.instance in s.key_of:
                name, holder = s.key_of[op.instance]
                s.keys[name] = holder
        elif owner is None or owner != sender:
            woken.append((number, op.kind, op.name))
        outcomes[index] = Outcome(
            Verdict.APPLIED, instance=target.id, number=number, owner=owner, inbox=message
        )
    _write(s, rows, woken, cancelled, retried)


def _write(
    s: Standing,
    rows: list[tuple[Any, ...]],
    woken: list[tuple[int, str, str]],
    cancelled: list[int],
    retried: list[int],
) -> None:
    ask = s.db.execute
    if rows:
        ask(
            "INSERT INTO inbox (id, instance, kind, name, payload, dedup, digest, at)"
            " SELECT * FROM unnest(%s, %s, %s, %s, %s, %s, %s, %s)",
            *columns("iittbtbf", rows),
        )
    if retried:
        s.loud = True
        ask(
            "UPDATE instance SET status = 'running', owner = NULL, ended = NULL, value = NULL"
            " WHERE id = ANY(%s)",
            Ints(retried),
        )
    waking.wake(s, woken)
    if cancelled:
        ask("UPDATE instance SET cancelled = TRUE WHERE id = ANY(%s)", Ints(cancelled))


def _refused(s: Standing, op: Send, target: Stand | None) -> Outcome | None:
    if target is None:
        return Outcome(Verdict.GONE)
    id, number = target.id, target.number
    if op.kind == "retry":
        if target.status != "failed":
            return Outcome(Verdict.CONFLICT, instance=id, detail=target.status)
        held = s.key_of.get(id)
        if held is not None and held[0] in s.keys:
            return Outcome(Verdict.CONFLICT, instance=id, detail="key taken")
        return None
    if not target.live:
        return Outcome(Verdict.GONE, instance=id, detail=target.status)
    if op.generation not in (None, target.generation):
        return Outcome(Verdict.CONFLICT, instance=id, detail="generation")
    if op.kind == "cancel" and target.cancelled:
        return Outcome(Verdict.DUPLICATE, instance=id, number=number)
    if op.dedup is not None:
        known = s.dedups.get((op.instance, op.name, op.dedup))
        if known is not None:
            verdict = Verdict.DUPLICATE if known[0] == op.digest else Verdict.CONFLICT
            return Outcome(verdict, instance=id, number=number)
    return None


def unblock(s: Standing, op: Unblock) -> Outcome:
    """Decide and write an unblock; see `operations.Unblock`."""
    target = s.by_id.get(op.instance)
    if target is None:
        return Outcome(Verdict.GONE)
    if target.status != "blocked":
        return Outcome(Verdict.CONFLICT, instance=op.instance, detail=target.status)
    s.loud = True
    target.status = "running"
    s.db.execute("DELETE FROM tried WHERE instance = %s", target.number)
    s.db.execute(
        "UPDATE instance SET status = 'running', cause = NULL, reason = NULL, crashes = 0"
        " WHERE id = %s",
        target.number,
    )
    return Outcome(Verdict.APPLIED, instance=op.instance, number=target.number)


def terminate(s: Standing, op: Terminate) -> Outcome:
    """Decide and write a termination; see `operations.Terminate`."""
    target = s.by_id.get(op.instance)
    if target is None:
        return Outcome(Verdict.GONE)
    if not target.live:
        return Outcome(Verdict.GONE, instance=op.instance, detail=target.status)
    s.loud = True
    number, owner = target.number, target.owner
    target.status, target.owner, target.value = "cancelled", None, op.value
    s.db.execute(
        "UPDATE instance SET status = 'cancelled', owner = NULL, value = %s, ended = %s,"
        " due = NULL, cause = NULL, reason = NULL WHERE id = %s",
        op.value,
        op.at,
        number,
    )
    s.db.execute("DELETE FROM wait WHERE instance = %s", number)
    tasks.clear_instances(s, [number])
    clear_inboxes(s.db, [number])
    letters = kin.cancel_children(s, [(number, op.at)])
    kin.mark(s, letters)
    letters += kin.tell_parents(s, [(number, "cancelled", op.value, op.at)])
    return Outcome(
        Verdict.APPLIED,
        instance=op.instance,
        number=number,
        owner=owner,
        told=tuple(kin.post(s, letters)),
    )
