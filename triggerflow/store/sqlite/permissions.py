"""What a transaction step's statements may do: SQLite asks, while it prepares each of them."""

from __future__ import annotations

import sqlite3
from typing import Final

from triggerflow.store.sqlite import schema

_WRITES: Final = {
    sqlite3.SQLITE_INSERT: "insert into",
    sqlite3.SQLITE_UPDATE: "update",
    sqlite3.SQLITE_DELETE: "delete from",
    sqlite3.SQLITE_CREATE_TABLE: "create",
    sqlite3.SQLITE_DROP_TABLE: "drop",
    sqlite3.SQLITE_CREATE_VTABLE: "create",
    sqlite3.SQLITE_DROP_VTABLE: "drop",
}
# Here the table is the second of what SQLite tells.
_ON_TABLES: Final = {
    sqlite3.SQLITE_CREATE_INDEX: "make an index on",
    sqlite3.SQLITE_DROP_INDEX: "drop an index of",
    sqlite3.SQLITE_CREATE_TRIGGER: "make a trigger on",
    sqlite3.SQLITE_DROP_TRIGGER: "drop a trigger of",
    sqlite3.SQLITE_ALTER_TABLE: "alter",
}
_HARMLESS: Final = frozenset(
    {
        sqlite3.SQLITE_SELECT,
        sqlite3.SQLITE_READ,
        sqlite3.SQLITE_FUNCTION,
        sqlite3.SQLITE_RECURSIVE,
        sqlite3.SQLITE_CREATE_VIEW,
        sqlite3.SQLITE_DROP_VIEW,
        # A part of making an index.
        sqlite3.SQLITE_REINDEX,
    }
)
# These only read, but for one, which ends with the transaction.
_PRAGMAS: Final = frozenset(
    {
        "table_info",
        "table_xinfo",
        "table_list",
        "index_list",
        "index_info",
        "index_xinfo",
        "foreign_key_list",
        "foreign_key_check",
        "defer_foreign_keys",
    }
)
_NAMES: Final = {
    sqlite3.SQLITE_TRANSACTION: "begin, commit or roll back by hand",
    sqlite3.SQLITE_SAVEPOINT: "use savepoints",
    sqlite3.SQLITE_ATTACH: "attach another database",
    sqlite3.SQLITE_DETACH: "detach a database",
    sqlite3.SQLITE_ANALYZE: "analyze the database",
}


def refusal(action: int, first: str | None, second: str | None, home: str | None) -> str | None:
    """Why a statement may not do this, or None.

    Args:
        action: one of SQLite's authorizer codes.
        first: what it is about, such as a table; its meaning depends on the code.
        second: the same.
        home: the name of the database: ``main``, ``temp``.
    """
    if action in _HARMLESS:
        return None
    if action == sqlite3.SQLITE_PRAGMA:
        fine = (first or "").lower() in _PRAGMAS
        return None if fine else f"it may not use PRAGMA {first}"
    if home == "temp":
        return "it may not make or change temporary tables: they outlive it"
    if action in _WRITES:
        return _of_table(_WRITES[action], first)
    if action in _ON_TABLES:
        return _of_table(_ON_TABLES[action], second)
    return f"it may not {_NAMES.get(action, f'do this (action {action})')}"


def _of_table(verb: str, table: str | None) -> str | None:
    if (table or "").lower() in schema.tables():
        return f"it may not {verb} {table!r}, a table of triggerflow's own"
    return None
