"""The schema's version, and how a file gets to the newest one."""

from __future__ import annotations

import sqlite3
from functools import cache
from importlib import resources

from triggerflow.errors import InternalError, SchemaTooNew


@cache
def migrations() -> tuple[tuple[int, str, str], ...]:
    """(number, name, SQL) of every migration, in order."""
    found = []
    for file in resources.files("triggerflow.store.sqlite.migrations").iterdir():
        if file.name.endswith(".sql"):
            number, _, name = file.name.removesuffix(".sql").partition("_")
            found.append((int(number), name, file.read_text(encoding="utf-8")))
    return tuple(sorted(found))


@cache
def tables() -> frozenset[str]:
    """The names of the tables that are triggerflow's own."""
    db = sqlite3.connect(":memory:", isolation_level=None)
    try:
        migrate(db, "memory://")
        found = db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")
        return frozenset(name for (name,) in found)
    finally:
        db.close()


def version(db: sqlite3.Connection) -> int:
    """The schema version of an open database; 0 for an empty one."""
    number: int = db.execute("PRAGMA user_version").fetchone()[0]
    return number


def check(db: sqlite3.Connection, url: str) -> None:
    """Refuse a schema that this code doesn't know.

    Raises:
        SchemaTooNew: a newer triggerflow migrated the file.
    """
    newest = migrations()[-1][0]
    found = version(db)
    if found > newest:
        raise SchemaTooNew(
            url,
            f"its schema has version {found}, this triggerflow knows {newest}",
            "upgrade triggerflow; nothing was changed",
        )


def migrate(db: sqlite3.Connection, url: str) -> None:
    """Apply what is missing. Must be called under the turnstile.

    A migration that fails leaves the version as it was.
    """
    check(db, url)
    for number, _, sql in migrations():
        if number <= version(db):
            continue
        db.execute("BEGIN IMMEDIATE")
        try:
            for statement in _statements(sql):
                db.execute(statement)
            db.execute(f"PRAGMA user_version = {number:d}")
        except BaseException:
            db.execute("ROLLBACK")
            raise
        db.execute("COMMIT")


def _statements(sql: str) -> list[str]:
    found, buffer = [], ""
    for line in sql.splitlines(keepends=True):
        buffer += line
        if sqlite3.complete_statement(buffer):
            found.append(buffer)
            buffer = ""
    if buffer.strip():
        raise InternalError(f"a migration's last statement has no end: {buffer.strip():.80}")
    return found
