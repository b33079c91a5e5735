"""The memory store: SQLite's own in-memory database.

One implementation serves both, so that a flow which works in memory works on disk and no
behaviour can drift apart. Nothing outlives the object; `close` keeps the data, so that a
test can open it again as a restarted process would.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable
from typing import TypeVar

from triggerflow.errors import StoreError
from triggerflow.store.sqlite import schema
from triggerflow.store.sqlite.locks import NoLocks
from triggerflow.store.sqlite.store import SqliteStore
from triggerflow.store.sqlite.transactions import Transactions

T = TypeVar("T")


class MemoryStore(SqliteStore):
    """Like `SqliteStore`, in this process's memory: for tests and trials."""

    def __init__(self) -> None:
        super().__init__(":memory:")
        self.url = "memory://"
        self._kept: sqlite3.Connection | None = None

    def open(self) -> None:
        """Make the database, or take up the one that `close` kept."""
        if self._db is not None:
            return
        self._locks = NoLocks()
        kept = self._kept
        if kept is None:
            self._kept = kept = self._connect()
            schema.migrate(kept, self.url)
        self._db = kept
        self._transactions = Transactions(self.url, self._locks, lambda: kept, shared=True)
        self._pid = os.getpid()

    def abandon(self) -> None:
        """Let go, and keep the data."""
        self._end_transactions()
        self._workers.clear()
        self._db = self._locks = None

    def changed(self) -> bool:
        """Nobody else can write here."""
        return False

    def _read(self, work: Callable[[sqlite3.Connection], T]) -> T:
        db = self._db
        if db is None:
            raise StoreError(self.url, "is not open")
        self._check_process()
        # One connection serves both sides, so a read waits for the transaction in flight.
        with self._lock().turn():
            return work(db)
