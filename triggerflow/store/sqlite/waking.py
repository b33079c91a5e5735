"""Whom a message wakes: a parked instance need not hear of signals that it doesn't wait for.

Without this, n signals of a name that nobody awaits would cost n turns, each of which reads
all of them. They stay in the inbox, for whenever the instance wakes.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import sqlite3

    from triggerflow.store.operations import Turn


def wake(db: sqlite3.Connection, messages: Iterable[tuple[int, str, str]]) -> list[int]:
    """Wake the instances that these messages are for.

    A parked instance becomes runnable; an owned one is told by its owner; a blocked or held one
    stays.

    Args:
        messages: number of the instance, kind and name.

    Returns:
        The numbers of those that were woken.
    """
    woken: dict[int, None] = {}
    names: dict[int, set[str]] = {}
    for number, kind, name in messages:
        if kind == "signal":
            names.setdefault(number, set()).add(name)
        else:
            woken[number] = None
    woken.update(dict.fromkeys(_interested(db, names)))
    db.executemany(
        "UPDATE instance SET wake = 1, status = CASE WHEN status = 'waiting' AND held = 0"
        " THEN 'running' ELSE status END WHERE id = ?",
        [(number,) for number in woken],
    )
    return list(woken)


def _interested(db: sqlite3.Connection, names: dict[int, set[str]]) -> list[int]:
    if not names:
        return []
    rows = db.execute(
        "SELECT id, awaits, parked_by FROM instance WHERE status = 'waiting'"
        " AND awaits IS NOT NULL AND id IN (SELECT value FROM json_each(?))",
        (json.dumps(list(names)),),
    ).fetchall()
    deaf = {
        number: parked_by
        for number, awaits, parked_by in rows
        if names[number].isdisjoint(json.loads(awaits))
    }
    if deaf:
        builds = dict(db.execute("SELECT id, build FROM worker"))
        deaf = {number: by for number, by in deaf.items() if _agreed(builds, by)}
    return [number for number in names if number not in deaf]


def _agreed(builds: dict[int, str], parked_by: int) -> bool:
    """Whether all workers have the code that decided what is awaited.

    Another build might wait for this very signal, so it must have a look.
    """
    return parked_by in builds and len(set(builds.values())) == 1


def unheard(db: sqlite3.Connection, parking: list[Turn]) -> set[int]:
    """Which of these instances have messages that their turn hadn't seen, and should.

    The row's lock is the file's: a sender either wrote before this, and is seen here, or
    comes after, and finds the instance parked.
    """
    if not parking:
        return set()
    found = set()
    turns = {op.number: op for op in parking}
    for number, kind, name in db.execute(
        "SELECT i.instance, i.kind, i.name FROM json_each(?) t JOIN inbox i"
        " ON i.instance = json_extract(t.value, '$[0]')"
        " AND i.id > json_extract(t.value, '$[1]') AND i.consumed = 0",
        (json.dumps([[op.number, op.inbox_seen] for op in parking]),),
    ):
        awaits = turns[number].awaits
        if kind != "signal" or awaits is None or name in awaits:
            found.add(number)
    return found
