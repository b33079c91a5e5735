"""What a planned firing comes to: deduped, held up by a business key, or done.

Decided in the transaction that writes it, so that of two activities which mean one thing
exactly one fires, whoever appends them and however closely.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

from triggerflow.store.decided import Decision, counts, key_held, nobody
from triggerflow.store.firings import DOES
from triggerflow.store.posts import Post, Told
from triggerflow.store.sqlite import gathering, kin

if TYPE_CHECKING:
    import sqlite3

    from triggerflow.store.firings import Letter, Once
    from triggerflow.store.newcomer import NewInstance
    from triggerflow.store.operations import PlannedFiring

_HOLDER: Final = (
    "SELECT id, public_id, cancelled FROM instance WHERE namespace = ? AND flow = ?"
    " AND key = ? AND status IN ('running', 'waiting', 'blocked')"
)


Keys = dict[tuple[str, str, str], "NewInstance"]


def decide(
    db: sqlite3.Connection,
    planned: PlannedFiring,
    keys: Keys,
    numbers: dict[str, int],
    at: float,
) -> Decision:
    """Decide one firing; nothing is written.

    Args:
        keys: business keys that this batch has given out.
        numbers: public id -> number of the instances of this batch that have one.
    """
    if planned.outcome not in DOES:
        return Decision(planned.outcome, planned.error)
    if planned.once is not None:
        row = db.execute(
            "SELECT activity, instance, until FROM dedup WHERE scope = ? AND key = ?",
            (planned.once.scope, planned.once.key),
        ).fetchone()
        if row is not None and counts(row[2], at):
            return Decision("deduped", None, row[1], row[0])
    if planned.letter is not None:
        return _addressed(db, planned.letter, planned.outcome, keys, numbers)
    new = planned.instance
    if new is None:
        return Decision(planned.outcome)
    if _joins(db, new):
        # It starts nothing, so it asks for no business key: the group has it.
        return Decision(planned.outcome, None, new.id)
    rival = None if new.key is None else holder(db, new, keys)
    if rival is None:
        return Decision(planned.outcome, None, new.id)
    return key_held(new, rival[0], same=rival[1])


def _joins(db: sqlite3.Connection, new: NewInstance) -> bool:
    """Whether there is an open group that takes an arrival."""
    gather = None if new.admission is None else new.admission.gather
    if gather is None:
        return False
    group = gathering.find(db, gather, new.input, new.created)
    return group is not None and not group.over


def _addressed(
    db: sqlite3.Connection, letter: Letter, outcome: str, keys: Keys, numbers: dict[str, int]
) -> Decision:
    name = (letter.namespace, letter.flow, letter.key)
    newborn = keys.get(name)
    if newborn is not None:
        return Decision(outcome, None, newborn.id, None, numbers[newborn.id])
    row = db.execute(_HOLDER, name).fetchone()
    if row is None:
        return nobody(letter)
    return Decision(outcome, None, row[1], None, row[0])


def remember(
    db: sqlite3.Connection, once: Once, seq: int, decision: Decision, at: float
) -> None:
    """Note that it has fired, and forget some that nobody will ask for any more."""
    db.execute(
        "INSERT INTO dedup (scope, key, activity, instance, until) VALUES (?, ?, ?, ?, ?)"
        " ON CONFLICT (scope, key) DO UPDATE SET activity = excluded.activity,"
        " instance = excluded.instance, until = excluded.until",
        (
            once.scope,
            once.key,
            seq,
            decision.instance,
            None if once.window is None else at + once.window,
        ),
    )
    # Two for each new one: so the table holds no more than those that count.
    db.execute(
        "DELETE FROM dedup WHERE (scope, key) IN"
        " (SELECT scope, key FROM dedup WHERE until <= ? ORDER BY until LIMIT 2)",
        (at,),
    )


def deliver(db: sqlite3.Connection, letters: list[tuple[int, Letter, float]]) -> Told:
    """Put letters into inboxes; whoever is concerned.

    One that was asked to end before is left alone.
    """
    asked = {
        number
        for (number,) in db.execute(
            "SELECT id FROM instance WHERE cancelled = 1"
            " AND id IN (SELECT value FROM json_each(?))",
            (json.dumps([number for number, letter, _ in letters if letter.kind == "cancel"]),),
        )
    }
    posts: list[Post] = []
    for number, letter, at in letters:
        if letter.kind == "cancel":
            if number in asked:
                continue
            asked.add(number)
            db.execute("UPDATE instance SET cancelled = 1 WHERE id = ?", (number,))
        posts.append((number, letter.kind, letter.name, letter.payload, at))
    return kin.post(db, posts)


def holder(db: sqlite3.Connection, new: NewInstance, keys: Keys) -> tuple[str, bool] | None:
    """Who holds the key of a new instance, and whether with the same input; None if nobody.

    Args:
        keys: what this batch has given out already.
    """
    name = (new.namespace, new.flow, new.key or "")
    earlier = keys.get(name)
    if earlier is not None:
        return earlier.id, new.has_input(earlier.input, earlier.digest)
    row: Any = db.execute(
        "SELECT i.public_id, g.input, g.digest FROM instance i"
        " JOIN generation g ON g.instance = i.id AND g.generation = 1"
        " WHERE i.namespace = ? AND i.flow = ? AND i.key = ?"
        " AND i.status IN ('running', 'waiting', 'blocked')",
        name,
    ).fetchone()
    return None if row is None else (row[0], new.has_input(row[1], row[2]))
