"""Lines to the server: a connection that is made anew where it was lost, with patience."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Final, TypeVar

import psycopg

from triggerflow.errors import StoreError

if TYPE_CHECKING:
    from triggerflow.store.postgres.wire import Db

T = TypeVar("T")

# Seconds between attempts to reach the server again: five in all, and then it is an error.
_PAUSES: Final = (0.0, 0.05, 0.1, 0.2, 0.4, 0.8, 1.5, 2.0)


class Line:
    """One connection, for one caller at a time.

    Args:
        url: for messages.
        connect: makes a connection anew.
        closed: set when the store is closed: then nobody waits for the server any more.
    """

    def __init__(self, url: str, connect: Callable[[], Db], closed: threading.Event) -> None:
        self.url = url
        self.closed = closed
        self._connect = connect
        self._db: Db | None = None

    @property
    def db(self) -> Db | None:
        """The connection as it stands, or None."""
        return self._db

    def open(self) -> Db:
        """Connect, at the first attempt or not at all."""
        self._db = self._connect()
        return self._db

    def close(self) -> None:
        """Close the connection."""
        db, self._db = self._db, None
        if db is not None:
            db.close()

    def reach(self) -> Db:
        """The connection; a new one where it was lost.

        Raises:
            StoreError: the server can't be reached for a while.
        """
        if self._db is not None and not self._db.lost:
            return self._db
        problem: Exception | None = None
        for pause in _PAUSES:
            if self.closed.wait(pause):
                break
            try:
                self._db = self._connect()
            except psycopg.OperationalError as error:
                problem = error
            else:
                return self._db
        if self.closed.is_set():
            raise StoreError(self.url, "is not open")
        raise StoreError(
            self.url,
            f"the server can't be reached: {str(problem).strip()}",
            "nothing of this was written; it is tried again at the next write",
        ) from problem

    def read(self, work: Callable[[Db], T]) -> T:
        """Ask something, once more where the connection was lost meanwhile.

        Raises:
            StoreError: the server can't be reached, or refused a statement.
        """
        while True:
            db = self.reach()
            try:
                return work(db)
            except (psycopg.Error, ValueError) as error:
                if not db.lost:
                    raise StoreError(
                        self.url, f"{type(error).__name__}: {str(error).strip()}"
                    ) from error


def landed(line: Line, xid: str, error: Exception) -> bool:
    """Whether a transaction was committed whose commit nobody confirmed.

    Args:
        line: asks; it may have been the transaction's own, and is made anew then.
        xid: the transaction's number.
        error: how its connection was lost.

    Raises:
        StoreError: nobody can tell.
    """
    for pause in _PAUSES:
        if line.closed.wait(pause):
            break
        try:
            fate = line.reach().execute("SELECT pg_xact_status(%s::text::xid8)", xid).one()
        except (psycopg.Error, StoreError):
            continue
        # Its server process may still be at it.
        if fate in ("committed", "aborted"):
            return bool(fate == "committed")
    raise StoreError(
        line.url,
        f"the connection was lost in a commit ({str(error).strip()}), and the server can't be "
        "asked how it ended",
        "whether this was written is unknown; what is repeated is recognised",
    ) from error
