"""News between workers: LISTEN and NOTIFY, on one connection a worker.

A notification says that something was written, not what. It is sent after the commit, by a
transaction of its own which waits for no disk: inside a batch's transaction it would make all
committers of the database queue up. If its sender dies in between nothing is lost but time,
as with one that was lost on its way: every now and then who asks is told to look all the same.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

import psycopg
from psycopg import sql

if TYPE_CHECKING:
    from triggerflow.store.postgres.wire import Db

# `changed` is asked fifty times a second by whoever has nothing else to do.
_FLOOR: Final = 50


class News:
    """The listening connection.

    Args:
        connect: makes a connection anew.
        channel: the name under which workers of one store hear each other.
    """

    def __init__(self, connect: Callable[[], Db], channel: str) -> None:
        self._connect = connect
        self._channel = channel
        self._db: Db | None = None
        self._asked = 0
        self._owed = False

    @property
    def db(self) -> Db | None:
        """The connection as it stands, or None."""
        return self._db

    def open(self) -> None:
        """Listen from now on."""
        db = self._connect()
        try:
            db.execute("SET synchronous_commit TO off")
            db.connection.execute(sql.SQL("LISTEN {}").format(sql.Identifier(self._channel)))
        except BaseException:
            db.close()
            raise
        self._db = db

    def close(self) -> None:
        """Listen no more."""
        db, self._db = self._db, None
        if db is not None:
            db.close()

    def tell(self) -> None:
        """Let the others know that something was written."""
        self._owed = True
        self._pay()

    def _pay(self) -> None:
        db = self._db
        if not self._owed or db is None or db.lost:
            return
        try:
            db.execute("SELECT pg_notify(%s, '')", self._channel)
        except psycopg.Error:
            # It is told later, or found by those who look all the same.
            return
        self._owed = False

    def heard(self) -> bool:
        """Whether another worker has written something since the last call, as far as known."""
        self._asked += 1
        try:
            if self._db is None or self._db.lost:
                self.open()
                # What was told meanwhile nobody heard.
                self._asked = 0
                return True
            self._pay()
            mine = self._db.connection.info.backend_pid
            found = [process != mine for process in self._db.heard()]
        except psycopg.Error:
            found = [True]
        if any(found) or self._asked >= _FLOOR:
            self._asked = 0
            return True
        return False
