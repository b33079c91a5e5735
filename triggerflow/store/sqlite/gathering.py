"""Groups: arrivals with one key that are gathered into one held instance."""

from __future__ import annotations

from typing import TYPE_CHECKING

from triggerflow.core.codec import list_of
from triggerflow.store.holding import LIST_HEAD, Group, group_met, pace_of, pace_text

if TYPE_CHECKING:
    import sqlite3

    from triggerflow.core.admission_request import Gather, Pace


def find(db: sqlite3.Connection, gather: Gather, input: bytes, now: float) -> Group | None:
    """The group that is open for this scope and key."""
    row = db.execute(
        "SELECT g.instance, i.public_id, g.opened, g.count, g.bytes, i.due FROM gathering g"
        " JOIN instance i ON i.id = g.instance WHERE g.scope = ? AND g.key = ?",
        (gather.scope, gather.key),
    ).fetchone()
    return None if row is None else group_met(gather, input, now, row)


def join(
    db: sqlite3.Connection,
    group: Group,
    gather: Gather,
    throttle: Pace | None,
    *,
    input: bytes,
    activity: int | None,
    chain: int,
    now: float,
) -> None:
    """One more arrival: its input is kept, and the group's time moves."""
    # Where the clock was set back, the group counts as opened now.
    opened = min(group.opened, now)
    db.execute(
        "UPDATE gathering SET opened = ?, count = ?, bytes = ? WHERE scope = ? AND key = ?",
        (opened, group.count + 1, group.bytes + len(input), gather.scope, gather.key),
    )
    db.execute(
        "UPDATE instance SET due = ?, chain = max(chain, ?) WHERE id = ?",
        (gather.due(opened, now), chain, group.number),
    )
    if not gather.listed:
        # The newest input is the one that runs, so it is the one that is throttled.
        db.execute(
            "UPDATE gathering SET throttle = ? WHERE scope = ? AND key = ?",
            (pace_text(throttle), gather.scope, gather.key),
        )
        db.execute(
            "UPDATE generation SET input = ? WHERE instance = ? AND generation = 1",
            (input, group.number),
        )
    _keep(db, group.number, gather, input, activity)


def open_group(
    db: sqlite3.Connection,
    number: int,
    gather: Gather,
    throttle: Pace | None,
    *,
    input: bytes,
    activity: int | None,
    now: float,
) -> None:
    """A group begins with its first arrival."""
    db.execute(
        "INSERT INTO gathering (scope, key, instance, opened, count, bytes, listed, throttle)"
        " VALUES (?, ?, ?, ?, 1, ?, ?, ?)",
        (
            gather.scope,
            gather.key,
            number,
            now,
            LIST_HEAD + len(input),
            gather.listed,
            pace_text(throttle),
        ),
    )
    _keep(db, number, gather, input, activity)


def close(db: sqlite3.Connection, number: int) -> Pace | None:
    """A group takes no more, and its instance gets its input.

    Returns:
        What it waits for next, if it is throttled.
    """
    listed, throttle = db.execute(
        "SELECT listed, throttle FROM gathering WHERE instance = ?", (number,)
    ).fetchone()
    db.execute("DELETE FROM gathering WHERE instance = ?", (number,))
    rows = db.execute(
        "SELECT input, activity FROM gathered WHERE instance = ? ORDER BY id", (number,)
    ).fetchall()
    if listed:
        db.execute(
            "UPDATE generation SET input = ? WHERE instance = ? AND generation = 1",
            (list_of([input for input, _ in rows]), number),
        )
        db.execute("UPDATE gathered SET input = NULL WHERE instance = ?", (number,))
    # What it has been given is past: its waits for activities begin after all of it.
    db.execute(
        "UPDATE instance SET origin = max(origin, ?) WHERE id = ?",
        (max((activity or 0 for _, activity in rows), default=0), number),
    )
    return pace_of(throttle)


def drop(db: sqlite3.Connection, number: int) -> None:
    """A held instance has ended: what comes next opens another group."""
    db.execute("DELETE FROM gathering WHERE instance = ?", (number,))
    db.execute("UPDATE gathered SET input = NULL WHERE instance = ?", (number,))


def _keep(
    db: sqlite3.Connection, number: int, gather: Gather, input: bytes, activity: int | None
) -> None:
    db.execute(
        "INSERT INTO gathered (instance, activity, input) VALUES (?, ?, ?)",
        (number, activity, input if gather.listed else None),
    )
