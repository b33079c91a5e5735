"""The schema's version, and how a database gets to the newest one.

All of triggerflow's tables stand in one PostgreSQL schema of their own. Whoever migrates holds
an advisory lock, so any number of processes may open a new database at once; what is missing
is applied in one transaction, so a migration that fails leaves everything as it was.
"""

from __future__ import annotations

from functools import cache
from importlib import resources
from typing import TYPE_CHECKING, Any

from psycopg import sql

from triggerflow.errors import SchemaTooNew

if TYPE_CHECKING:
    import psycopg

# Any number will do, as long as it stays.
_LOCK = 0x7472_6967_6765_7266


@cache
def migrations() -> tuple[tuple[int, str, str], ...]:
    """(number, name, SQL) of every migration, in order."""
    found = []
    for file in resources.files("triggerflow.store.postgres.migrations").iterdir():
        if file.name.endswith(".sql"):
            number, _, name = file.name.removesuffix(".sql").partition("_")
            found.append((int(number), name, file.read_text(encoding="utf-8")))
    return tuple(sorted(found))


def version(connection: psycopg.Connection[Any], schema: str) -> int:
    """The version of triggerflow's schema in a database; 0 where it has none."""
    there = connection.execute(
        "SELECT 1 FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace"
        " WHERE n.nspname = %s AND c.relname = 'meta'",
        (schema,),
    ).fetchone()
    if there is None:
        return 0
    found = connection.execute(
        sql.SQL("SELECT value FROM {}.meta WHERE name = 'schema'").format(
            sql.Identifier(schema)
        )
    ).fetchone()
    return 0 if found is None else int(found[0])


def tables(connection: psycopg.Connection[Any], schema: str) -> dict[int, str]:
    """Triggerflow's own tables: the server's number of each, and its name."""
    rows = connection.execute(
        "SELECT c.oid::bigint, c.relname FROM pg_class c"
        " JOIN pg_namespace n ON n.oid = c.relnamespace"
        " WHERE n.nspname = %s AND c.relkind IN ('r', 'p', 'S')",
        (schema,),
    )
    return dict(rows.fetchall())


def check(found: int, url: str) -> None:
    """Refuse a schema that this code doesn't know.

    Raises:
        SchemaTooNew: a newer triggerflow migrated the database.
    """
    newest = migrations()[-1][0]
    if found > newest:
        raise SchemaTooNew(
            url,
            f"its schema has version {found}, this triggerflow knows {newest}",
            "upgrade triggerflow; nothing was changed",
        )


def migrate(connection: psycopg.Connection[Any], schema: str, url: str) -> None:
    """Apply what is missing.

    Raises:
        SchemaTooNew: a newer triggerflow migrated the database.
    """
    newest = migrations()[-1][0]
    found = version(connection, schema)
    check(found, url)
    if found == newest:
        return
    with connection.transaction():
        connection.execute("SELECT pg_advisory_xact_lock(%s)", (_LOCK,))
        # Somebody else may have done it while we waited.
        found = version(connection, schema)
        check(found, url)
        if not found:
            _make(connection, schema)
        connection.execute(
            sql.SQL("SET LOCAL search_path TO {}, pg_catalog").format(sql.Identifier(schema))
        )
        for number, _, text in migrations():
            if number > found:
                connection.execute(text.encode(), prepare=False)
                connection.execute(
                    "UPDATE meta SET value = %s WHERE name = 'schema'", (number,)
                )


def _make(connection: psycopg.Connection[Any], schema: str) -> None:
    there = connection.execute(
        "SELECT 1 FROM pg_namespace WHERE nspname = %s", (schema,)
    ).fetchone()
    # Where a database administrator has made it, nobody else may have to be allowed to.
    if there is None:
        connection.execute(sql.SQL("CREATE SCHEMA {}").format(sql.Identifier(schema)))
