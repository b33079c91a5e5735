"""Admission: whether an arrival starts something, joins something, or is refused; and when.

Decided in the order of `core.admission_pairs.ORDER`, in the transaction that writes it: first
whatever may join or refuse, then what acts on others. What is held goes on here too, when its
time has come.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from triggerflow.core.codec import list_of
from triggerflow.store.holding import (
    FOR_A_PLACE,
    GROUPS,
    REST,
    SWEEP,
    THROTTLED,
    Beginning,
    Verdict,
)
from triggerflow.store.postgres import gathering, kin, places
from triggerflow.store.posts import Admitted, Told

if TYPE_CHECKING:
    from triggerflow.core.admission_request import Admission, Pace
    from triggerflow.store.newcomer import NewInstance
    from triggerflow.store.postgres.standing import Standing
    from triggerflow.store.postgres.wire import Db


def judge(
    s: Standing,
    new: NewInstance,
    asked: Admission,
    *,
    activity: int | None,
    now: float,
    admitted: Admitted,
) -> Verdict | None:
    """What may keep an arrival from starting an instance; None if it is to start one."""
    gather = asked.gather
    group = None if gather is None else gathering.find(s.db, gather, new.input, now)
    if gather is not None and group is not None:
        if group.over:
            _close(s, group.number, now, admitted)
        else:
            gathering.join(
                s.db,
                group,
                gather,
                asked.throttle,
                input=new.input,
                activity=activity,
                chain=new.chain,
                now=now,
            )
            if not gather.listed:
                places.rekey(s.db, group.number, asked.places)
            if group.full:
                _close(s, group.number, now, admitted)
            return Verdict(gather.joined, group.id, None)
    for place in asked.places:
        if place.mode == "skip":
            holder = places.holder(s.db, place)
            if holder is not None:
                return Verdict("limited", None, f"singleton: {holder} is under way")
    rate = asked.rate_limit
    if rate is not None and not _take(s.db, rate, now):
        key = f" for the key {rate.key}" if rate.key else ""
        return Verdict("limited", None, f"rate_limit: {rate}{key} is used up")
    return None


def enter(
    s: Standing,
    number: int,
    new: NewInstance,
    asked: Admission,
    *,
    activity: int | None,
    now: float,
    registry: int,
    told: Told,
) -> Beginning:
    """Let an instance begin that has a number, and no row yet."""
    for place in asked.places:
        if place.mode == "cancel":
            letters = kin.cancels(s, places.earlier(s.db, place), now)
            told.add(kin.post(s, letters))
    places.reserve(s.db, number, asked.places, priority=asked.priority, registry=registry)
    gather = asked.gather
    input = None
    if gather is not None:
        input = list_of([new.input]) if gather.listed else None
        if gather.size != 1:
            gathering.open_group(
                s.db,
                number,
                gather,
                asked.throttle,
                input=new.input,
                activity=activity,
                now=now,
            )
            return Beginning(GROUPS[gather.kind], gather.due(now, now), input)
    turn = now if asked.throttle is None else _reserve(s.db, asked.throttle, now)
    if turn > now:
        return Beginning(THROTTLED, turn, input)
    admitted: Admitted = {}
    places.proceed(s.db, number, admitted)
    held = 0 if admitted.pop(number, 0) is None else FOR_A_PLACE
    s.admit(admitted)
    told.woken(admitted)
    return Beginning(held, None, input)


def go_on(s: Standing, due: Iterable[tuple[int, int]], now: float) -> None:
    """Held instances whose time has come: (number, what it is held for)."""
    admitted: Admitted = {}
    for number, held in due:
        if held == THROTTLED:
            _proceed(s, number, admitted)
        else:
            _close(s, number, now, admitted)
    s.admit(admitted)


def _close(s: Standing, number: int, now: float, admitted: Admitted) -> None:
    """A group is complete: its instance waits for its turn, then for its places."""
    throttle = gathering.close(s.db, number)
    turn = now if throttle is None else _reserve(s.db, throttle, now)
    if turn > now:
        s.db.execute(
            "UPDATE instance SET held = %s, due = %s WHERE id = %s", THROTTLED, turn, number
        )
        if number in s.rows:
            s.rows[number].held = THROTTLED
    else:
        _proceed(s, number, admitted)


def _proceed(s: Standing, number: int, admitted: Admitted) -> None:
    places.proceed(s.db, number, admitted)
    if number in s.rows and number not in admitted:
        s.rows[number].held = FOR_A_PLACE


# --- rates


def _take(db: Db, pace: Pace, now: float) -> bool:
    row = _owed(db, pace)
    at, debt = row or (now, 0.0)
    taken = pace.taken(at, debt, now)
    if taken is not None:
        _keep(db, pace, now, taken, new=row is None)
    elif now < at:
        # The clock was set back: the debt shrinks from here on.
        _keep(db, pace, now, debt, new=False)
    return taken is not None


def _reserve(db: Db, pace: Pace, now: float) -> float:
    row = _owed(db, pace)
    turn, at, debt = pace.reserved(*(row or (now, 0.0)), now)
    _keep(db, pace, at, debt, new=row is None)
    return turn


def _owed(db: Db, pace: Pace) -> tuple[float, float] | None:
    row: tuple[float, float] | None = db.execute(
        "SELECT at, debt FROM rate WHERE scope = %s AND key = %s", pace.scope, pace.key
    ).row()
    return row


def _keep(db: Db, pace: Pace, at: float, debt: float, *, new: bool) -> None:
    if new:
        db.execute(
            "DELETE FROM rate WHERE (scope, key) IN (SELECT scope, key FROM rate"
            " WHERE settled < %s ORDER BY settled LIMIT %s)",
            at - REST,
            SWEEP,
        )
    db.execute(
        "INSERT INTO rate (scope, key, at, debt, settled) VALUES (%s, %s, %s, %s, %s)"
        " ON CONFLICT (scope, key) DO UPDATE SET at = excluded.at, debt = excluded.debt,"
        " settled = excluded.settled",
        pace.scope,
        pace.key,
        at,
        debt,
        pace.settled(at, debt),
    )
