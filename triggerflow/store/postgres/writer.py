"""Transactions that outlive their connection: redone where they were lost, never doubled.

Three things may happen to a transaction that are no fault of what it does. Two batches meet in
a unique index, or (which their order of locking forbids, but a user's own statements may
bring about) wait for each other: the loser is redone. The connection is lost before the commit
was asked for: nothing has happened, and it is redone on a new one. It is lost afterwards:
nobody said how the commit ended, and the server is asked for the fate of that very transaction.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, TypeVar

import psycopg
from psycopg import errors

from triggerflow.errors import StoreError
from triggerflow.store.postgres.connection import NUMBER
from triggerflow.store.postgres.lines import Line, landed

if TYPE_CHECKING:
    from triggerflow.store.postgres.wire import Db

T = TypeVar("T")

# Who loses so often meets more than a rival.
_MOST_RACES: Final = 10
_RACES: Final = (errors.UniqueViolation, errors.DeadlockDetected, errors.SerializationFailure)


class Writer:
    """Does whole transactions on one line."""

    def __init__(self, line: Line) -> None:
        self.line = line

    def run(self, work: Callable[[Db], T]) -> T:
        """Have `work` done in one transaction.

        Raises:
            StoreError: the server can't be reached, or refused a statement.
        """
        races = 0
        while True:
            db = self.line.reach()
            attempt = _Attempt(db)
            try:
                return attempt.run(work)
            except _RACES as race:
                races += 1
                if races > _MOST_RACES:
                    raise self._failed(race) from race
            except (psycopg.Error, ValueError) as error:
                if not db.lost:
                    raise self._failed(error) from error
                if attempt.committing and landed(self.line, attempt.xid, error):
                    found: T = attempt.found
                    return found

    def _failed(self, error: Exception) -> StoreError:
        text = str(error).strip()
        return StoreError(self.line.url, f"{type(error).__name__}: {text}")


class _Attempt:
    """One transaction.

    Attributes:
        committing: its commit was asked for.
        xid: its number.
        found: what the work returned.
    """

    def __init__(self, db: Db) -> None:
        self.committing = False
        self.xid = ""
        self.found: Any = None
        self._db = db

    def run(self, work: Callable[[Db], T]) -> T:
        db = self._db
        try:
            with db.pipeline():
                db.execute("BEGIN")
                db.number = ""
                self.found = found = work(db)
                if not db.number:
                    db.number = db.execute(NUMBER).one()
                self.xid = db.number
                self.committing = True
                db.execute("COMMIT")
        except BaseException:
            db.roll_back()
            raise
        return found
