"""Writing generations: the next one of an instance, and the end of old ones' logs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from triggerflow.store.sqlite import requests, tasks, waits
from triggerflow.store.sqlite.progress import clear_instances

if TYPE_CHECKING:
    import sqlite3

    from triggerflow.store.acts import ContinueAsNew
    from triggerflow.store.operations import Turn


def begin_next(db: sqlite3.Connection, turn: Turn, act: ContinueAsNew) -> None:
    """Insert the next generation; old logs that nobody keeps go.

    The turn's own entries land after this, under the generation that ends. Its instance row
    is written by `turn_over`, once they have.
    """
    following = turn.generation + 1
    db.execute(
        "INSERT INTO generation (instance, generation, seed, input, positions)"
        " VALUES (?, ?, ?, ?, ?)",
        (turn.number, following, act.seed, act.input, act.positions),
    )
    oldest = following - act.keep + 1
    db.execute("DELETE FROM log WHERE instance = ? AND generation < ?", (turn.number, oldest))
    # The first generation's row stays: it says with what input a key is held.
    db.execute(
        "DELETE FROM generation WHERE instance = ? AND generation < ? AND generation > 1",
        (turn.number, oldest),
    )


def turn_over(db: sqlite3.Connection, turn: Turn, act: ContinueAsNew) -> None:
    """The instance begins its next generation: runnable, with an empty log."""
    db.execute("DELETE FROM tried WHERE instance = ?", (turn.number,))
    waits.clear_generation(db, turn.number)
    # The next generation may wait under the same tags.
    db.execute("DELETE FROM inbox WHERE instance = ? AND kind = 'complete'", (turn.number,))
    requests.clear(db, [(turn.number,)])
    tasks.clear_instances(db, [(turn.number,)])
    clear_instances(db, [(turn.number,)])
    # One cancel is lawful in each generation: one that this turn took was this one's own.
    db.execute(
        "UPDATE instance SET generation = ?, version = ?, log_length = 0, pending = NULL,"
        " started = NULL, crashes = 0, owner = NULL, due = NULL, cancelled = EXISTS"
        " (SELECT 1 FROM inbox WHERE instance = ?3 AND kind = 'cancel' AND consumed = 0)"
        " WHERE id = ?3",
        (turn.generation + 1, act.version, turn.number),
    )
