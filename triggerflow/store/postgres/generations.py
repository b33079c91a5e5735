"""Writing generations: the next one of an instance, and the end of old ones' logs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from triggerflow.store.postgres.clearing import clear_instances
from triggerflow.store.postgres.columns import Ints, columns

if TYPE_CHECKING:
    from triggerflow.store.acts import ContinueAsNew
    from triggerflow.store.operations import Turn
    from triggerflow.store.postgres.standing import Standing


def begin_next(s: Standing, turns: Sequence[tuple[Turn, ContinueAsNew]]) -> None:
    """Insert the next generations; old logs that nobody keeps go.

    The turns' own entries land after this, under the generation that ends. The instances'
    rows are written by `turn_over`, once they have.
    """
    if not turns:
        return
    s.db.execute(
        "INSERT INTO generation (instance, generation, seed, input, positions)"
        " SELECT * FROM unnest(%s, %s, %s, %s, %s)",
        *columns(
            "iibbb",
            [
                (turn.number, turn.generation + 1, act.seed, act.input, act.positions)
                for turn, act in turns
            ],
        ),
    )
    oldest = columns(
        "ii", [(turn.number, turn.generation + 2 - act.keep) for turn, act in turns]
    )
    s.db.execute(
        "DELETE FROM log l USING unnest(%s, %s) AS u (i, g)"
        " WHERE l.instance = u.i AND l.generation < u.g",
        *oldest,
    )
    # The first generation's row stays: it says with what input a key is held.
    s.db.execute(
        "DELETE FROM generation g USING unnest(%s, %s) AS u (i, g)"
        " WHERE g.instance = u.i AND g.generation < u.g AND g.generation > 1",
        *oldest,
    )


def turn_over(s: Standing, turns: Sequence[tuple[Turn, ContinueAsNew]]) -> None:
    """The instances begin their next generation: runnable, with an empty log."""
    if not turns:
        return
    numbers = [turn.number for turn, _ in turns]
    s.loud = True
    # What cancels the instance stays.
    s.db.execute("DELETE FROM wait WHERE instance = ANY(%s) AND generation > 0", Ints(numbers))
    # The next generation may wait under the same tags.
    for consumed in ("NOT consumed", "dedup IS NOT NULL"):
        s.db.execute(
            f"DELETE FROM inbox WHERE instance = ANY(%s) AND {consumed} AND kind = 'complete'",
            Ints(numbers),
        )
    clear_instances(s, numbers)
    # One cancel is lawful in each generation: one that this turn took was this one's own.
    rows = s.db.execute(
        "UPDATE instance i SET generation = u.g, version = u.v, log_length = 0, pending = NULL,"
        " started = NULL, crashes = 0, owner = NULL, due = NULL, cancelled = EXISTS"
        " (SELECT 1 FROM inbox x WHERE x.instance = i.id AND x.kind = 'cancel'"
        " AND NOT x.consumed)"
        " FROM unnest(%s, %s, %s) AS u (i, g, v) WHERE i.id = u.i RETURNING i.id, i.cancelled",
        *columns(
            "iii", [(turn.number, turn.generation + 1, act.version) for turn, act in turns]
        ),
    ).rows()
    cancelled = dict(rows)
    ids = set()
    for turn, _ in turns:
        found = s.rows[turn.number]
        found.generation, found.log_length, found.owner = turn.generation + 1, 0, None
        found.cancelled = cancelled[turn.number]
        ids.add(found.id)
    for name in [n for n, (_, kind) in s.dedups.items() if n[0] in ids and kind == "complete"]:
        del s.dedups[name]
