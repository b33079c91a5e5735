"""Pending sets in rows of their own: a set of thousands changes by one request a turn.

A small set is one blob in the instance's row, which is cheaper. Where `IN_ROWS` stands there,
the set is here, one row a request, in the order of arming.
"""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

from triggerflow.core.log import IN_ROWS, join_pending
from triggerflow.store.postgres.columns import Ints, columns

if TYPE_CHECKING:
    from collections.abc import Sequence

    from triggerflow.store.operations import Turn
    from triggerflow.store.postgres.standing import Standing
    from triggerflow.store.postgres.wire import Db


def write(s: Standing, turns: Sequence[Turn]) -> None:
    """Write what these turns changed."""
    cleared: list[int] = []
    gone: list[tuple[int, str]] = []
    kept: dict[tuple[int, str], bytes] = {}
    for op in turns:
        wide = op.pending == IN_ROWS
        if s.rows[op.number].wide and (not wide or op.afresh):
            cleared.append(op.number)
        for tag, request in op.changed if wide else ():
            if request is None:
                gone.append((op.number, tag))
            else:
                kept[op.number, tag] = request
    if cleared:
        s.db.execute("DELETE FROM request WHERE instance = ANY(%s)", Ints(cleared))
    if gone:
        s.db.execute(
            "DELETE FROM request r USING unnest(%s, %s) AS u (instance, tag)"
            " WHERE r.instance = u.instance AND r.tag = u.tag",
            *columns("it", gone),
        )
    if kept:
        s.db.execute(
            "INSERT INTO request (instance, tag, data) SELECT * FROM unnest(%s, %s, %s)"
            " ON CONFLICT (instance, tag) DO UPDATE SET data = excluded.data",
            *columns("itb", [(*key, data) for key, data in kept.items()]),
        )


def whole(db: Db, numbers: Sequence[int]) -> dict[int, bytes]:
    """The pending sets of instances that have them in rows."""
    found: dict[int, list[bytes]] = defaultdict(list)
    if numbers:
        for number, data in db.execute(
            "SELECT instance, data FROM request WHERE instance = ANY(%s) ORDER BY id",
            Ints(numbers),
        ).rows():
            found[number].append(data)
    return {number: join_pending(found[number]) for number in numbers}
