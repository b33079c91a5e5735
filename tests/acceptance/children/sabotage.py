"""Takes one guard away from the engine, in this process, to show that the audit would notice.

Only the children of `test_sigkill.py` import this; the library knows nothing of it.
"""

from __future__ import annotations

import os
import sqlite3
from typing import Any

VARIABLE = "TRIGGERFLOW_TEST_SABOTAGE"


def apply() -> None:
    """Do what the environment asks for, if anything."""
    wanted = os.environ.get(VARIABLE, "")
    if wanted:
        ways = {"pair": _pair, "fence": _fence, "token": _token}
        (ways | {"order": _order, "apart": _apart})[wanted]()


class _Lying:
    """A connection that answers one question with rows of our own."""

    def __init__(self, db: sqlite3.Connection, question: str, answer: list[Any]) -> None:
        self._db = db
        self._question = question
        self._answer = answer

    def execute(self, sql: str, *values: Any) -> Any:
        if sql.startswith(self._question):
            return iter(self._answer)
        return self._db.execute(sql, *values)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._db, name)


def _pair() -> None:
    """No duplicate is found before the append, and no index refuses a second pair."""
    from triggerflow.store.sqlite import arrivals, schema

    found = arrivals.append

    def append(db: Any, *rest: Any) -> None:
        found(_Lying(db, "SELECT cid, seq FROM activity", []), *rest)

    arrivals.append = append
    whole = schema.migrations()
    weak = [
        ("CREATE UNIQUE INDEX firing_pair", "CREATE INDEX firing_pair"),
        ("cid TEXT NOT NULL UNIQUE", "cid TEXT NOT NULL"),
        ("public_id TEXT NOT NULL UNIQUE", "public_id TEXT NOT NULL"),
    ]

    def migrations() -> tuple[tuple[int, str, str], ...]:
        changed = []
        for number, name, sql in whole:
            for old, new in weak:
                # The first only: of the CIDs, the activity's, not the trigger's.
                sql = sql.replace(old, new, 1)
            changed.append((number, name, sql))
        return tuple(changed)

    schema.migrations = migrations  # type: ignore[assignment]


def _fence() -> None:
    """Every worker's epoch holds, and every turn finds owner, generation and length as told."""
    from triggerflow.store.sqlite import turns, workers

    workers.fence = workers.is_current = lambda *_: True
    found = turns.turns

    def believing(db: Any, worker: int, items: Any, outcomes: Any) -> None:
        # The last one is no guard: whether its pending set stands in rows.
        told = [(op.number, worker, op.generation, op.log_length, False) for _, op in items]
        lying = _Lying(db, "SELECT id, owner, generation, log_length, pending", told)
        found(lying, worker, items, outcomes)  # type: ignore[arg-type]

    turns.turns = believing


def _token() -> None:
    """Every worker's epoch holds, and every answer finds its task as it was claimed."""
    from triggerflow.store.sqlite import tasks, workers

    workers.fence = workers.is_current = lambda *_: True
    finish = tasks.finish

    def believing(db: Any, worker: int, items: Any, outcomes: Any) -> None:
        told = [(op.task, worker, op.token) for _, op in items]
        lying = _Lying(db, "SELECT id, owner, token FROM task", told)
        finish(lying, worker, items, outcomes)  # type: ignore[arg-type]

    tasks.finish = believing


def _order() -> None:
    """Plain steps run as soon as they are armed, before the turn that arms them commits."""
    from triggerflow.engine import executor
    from triggerflow.engine.performer import is_async

    turn, take = executor.Executor._turn, executor.take

    def hasty(self: Any, run: Any) -> None:
        def early(run: Any, replay: Any, **rest: Any) -> Any:
            taken = take(run, replay, **rest)
            for tag in taken.perform:
                self._starter.perform(run, replay, tag)
            taken.perform = []
            return taken

        performer = self.performer

        def at_once(attempt: Any) -> None:
            if is_async(attempt.fn):
                type(performer).start(performer, attempt)
                return
            performer._run_plain(attempt)
            performer._token.run_sync_soon(performer._finished, [attempt])

        performer.start = at_once
        executor.take = early
        try:
            turn(self, run)
        finally:
            executor.take = take

    executor.Executor._turn = hasty


def _apart() -> None:
    """A transaction step's rows are committed first, and its result after them."""
    from triggerflow.store.sqlite import transactions

    keep = transactions._Held.keep

    def apart(self: Any, result: bytes) -> Any:
        self._db.set_authorizer(None)
        self._db.execute("COMMIT")
        transactions.between()  # type: ignore[attr-defined]
        self._db.execute("BEGIN IMMEDIATE")
        return keep(self, result)

    transactions._Held.keep = apart  # type: ignore[method-assign]
