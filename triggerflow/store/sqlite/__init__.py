"""The default store: one SQLite file, shared fairly by any number of processes."""

from triggerflow.store.sqlite.memory import MemoryStore as MemoryStore
from triggerflow.store.sqlite.store import SqliteStore as SqliteStore

__all__ = ["MemoryStore", "SqliteStore"]
