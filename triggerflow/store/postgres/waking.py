"""Whom a message wakes: a parked instance need not hear of signals that it doesn't wait for.

Without this, n signals of a name that nobody awaits would cost n turns, each of which reads
all of them. They stay in the inbox, for whenever the instance wakes.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import TYPE_CHECKING

from triggerflow.store.postgres.columns import Ints

if TYPE_CHECKING:
    from triggerflow.store.operations import Turn
    from triggerflow.store.postgres.standing import Standing


def wake(s: Standing, messages: Iterable[tuple[int, str, str]]) -> list[int]:
    """Wake the instances that these messages are for. Their rows are locked.

    A parked instance becomes runnable; an owned one is told by its owner; a blocked or held
    one stays.

    Args:
        s: what the batch has found.
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
    woken.update(dict.fromkeys(_interested(s, names)))
    if woken:
        s.loud = True
        s.db.execute(
            "UPDATE instance SET wake = TRUE,"
            " status = CASE WHEN status = 'waiting' AND held = 0 THEN 'running' ELSE status END"
            " WHERE id = ANY(%s)",
            Ints(list(woken)),
        )
    for number in woken:
        if s.rows[number].status == "waiting" and not s.rows[number].held:
            s.rows[number].status = "running"
    return list(woken)


def _interested(s: Standing, names: dict[int, set[str]]) -> list[int]:
    deaf = {}
    for number, each in names.items():
        found = s.rows[number]
        awaits = None if found.status != "waiting" else found.awaits
        if awaits is not None and each.isdisjoint(json.loads(awaits)):
            deaf[number] = found.parked_by
    if deaf:
        builds = dict(s.db.execute("SELECT id, build FROM worker").rows())
        deaf = {number: by for number, by in deaf.items() if _agreed(builds, by)}
    return [number for number in names if number not in deaf]


def _agreed(builds: dict[int, str], parked_by: int | None) -> bool:
    """Whether all workers have the code that decided what is awaited.

    Another build might wait for this very signal, so it must have a look.
    """
    return parked_by in builds and len(set(builds.values())) == 1


def unheard(s: Standing, op: Turn) -> bool:
    """Whether an instance that parks has messages that its turn hadn't seen, and should.

    Its row was locked before its inbox was read: a sender, who locks the row as well, either
    wrote before that, and is seen here, or comes after, and finds the instance parked.
    """
    return any(
        kind != "signal" or op.awaits is None or name in op.awaits
        for kind, name in s.unread.get(op.number, ())
    )
