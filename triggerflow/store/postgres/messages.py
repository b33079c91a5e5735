"""Writing messages: signals, cancels, retries and completions, from anybody."""

from __future__ import annotations

from typing import Any

from triggerflow.store.holding import FOR_A_PLACE
from triggerflow.store.operations import Outcome, Send, Terminate, Unblock, Verdict
from triggerflow.store.postgres import kin, places, waking
from triggerflow.store.postgres.columns import Ints, columns
from triggerflow.store.postgres.standing import Items, Stand, Standing
from triggerflow.store.posts import Admitted, Told


def send(s: Standing, sender: int | None, items: Items, outcomes: list[Any]) -> None:
    """Decide and write messages; see `operations.Send`.

    The targets' rows are locked before a message gets its number, so whoever parks one of
    them meanwhile either sees the message or is woken by it.
    """
    rows: list[tuple[Any, ...]] = []
    woken: list[tuple[int, str, str]] = []
    cancelled: list[int] = []
    for index, op in items:
        target = s.by_id.get(op.instance)
        refused = _refused(s, op, target)
        if refused is not None or target is None:
            outcomes[index] = refused
            continue
        number, owner = target.number, target.owner
        if op.kind == "cancel" and target.held:
            # None of its code has run: there is nothing to wake for it.
            told = kin.post(s, [(number, op.kind, op.name, op.payload, op.at)])
            outcomes[index] = _applied(target.id, number, told)
            continue
        if op.kind == "cancel":
            target.cancelled = True
            cancelled.append(number)
        message = s.next_message()
        rows.append((message, number, op.kind, op.name, op.payload, op.dedup, op.digest, op.at))
        if op.dedup is not None:
            s.dedups[op.instance, op.name, op.dedup] = (op.digest, op.kind)
        if target.status == "failed":
            _retry(s, target)
            if op.instance in s.key_of:
                name, holder = s.key_of[op.instance]
                s.keys[name] = holder
        elif owner is None or owner != sender:
            woken.append((number, op.kind, op.name))
        outcomes[index] = Outcome(
            Verdict.APPLIED, instance=target.id, number=number, owner=owner, inbox=message
        )
    _write(s, rows, woken, cancelled)


def _write(
    s: Standing,
    rows: list[tuple[Any, ...]],
    woken: list[tuple[int, str, str]],
    cancelled: list[int],
) -> None:
    ask = s.db.execute
    if rows:
        ask(
            "INSERT INTO inbox (id, instance, kind, name, payload, dedup, digest, at)"
            " SELECT * FROM unnest(%s, %s, %s, %s, %s, %s, %s, %s)",
            *columns("iittbtbf", rows),
        )
    waking.wake(s, woken)
    if cancelled:
        ask("UPDATE instance SET cancelled = TRUE WHERE id = ANY(%s)", Ints(cancelled))


def _retry(s: Standing, target: Stand) -> None:
    s.loud = True
    target.status, target.owner = "running", None
    s.db.execute(
        "UPDATE instance SET status = 'running', owner = NULL, ended = NULL, value = NULL"
        " WHERE id = %s",
        target.number,
    )
    if s.flow and places.asks_for_any(s.db, target.number):
        # It gave its places back when it failed.
        admitted: Admitted = {}
        places.proceed(s.db, target.number, admitted)
        s.admit(admitted)
        if target.number not in admitted:
            target.status, target.held = "waiting", FOR_A_PLACE


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
    if op.kind == "cancel" and target.cancelled and not target.held:
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
    number, owner = target.number, target.owner
    told = Told()
    letters = kin.end_at_once(s, {number: (op.value, op.at)}, told)
    told.add(kin.post(s, letters))
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
