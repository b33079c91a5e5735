"""Connections: where the database is, how one is made, and the few words of the backend."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

import attrs
import psycopg
from psycopg import sql

from triggerflow.errors import StoreError
from triggerflow.store.postgres.columns import register

DEFAULT_SCHEMA: Final = "triggerflow"
_MOST_PREPARED: Final = 400
# The number of the transaction that is open.
NUMBER: Final = "SELECT pg_current_xact_id()::text"
# Every statement of ours has its index, so each is planned once, without a look at its values.
# A plan that was made while a table was small, and walks through it, would be kept while it
# grows.
_PLANS: Final = ("enable_seqscan", "enable_hashjoin", "enable_mergejoin", "jit")


@attrs.frozen
class Place:
    """Where the store is.

    Attributes:
        conninfo: the URL as libpq understands it.
        schema: the schema that holds triggerflow's tables.
        url: for messages: without a password.
    """

    conninfo: str
    schema: str
    url: str

    def connect(self, name: str, **options: Any) -> psycopg.Connection[Any]:
        """A new connection, each statement its own transaction unless it begins one."""
        return psycopg.connect(
            self.conninfo,
            autocommit=True,
            prepare_threshold=options.pop("prepare_threshold", 0),
            application_name=f"triggerflow {name}",
            **options,
        )

    def ours(self, name: str) -> Db:
        """A new connection for our own statements."""
        connection = self.connect(name)
        try:
            connection.prepared_max = _MOST_PREPARED
            register(connection.adapters)
            settings = [
                sql.SQL("SET search_path TO {}, pg_catalog").format(
                    sql.Identifier(self.schema)
                ),
                sql.SQL("SET default_transaction_isolation TO 'read committed'"),
                sql.SQL("SET plan_cache_mode TO force_generic_plan"),
                *(sql.SQL(f"SET {each} TO off") for each in _PLANS),
            ]
            connection.execute(sql.SQL("; ").join(settings), prepare=False)
        except BaseException:
            connection.close()
            raise
        return Db(connection)


def place_of(url: str) -> Place:
    """Where a URL points: ``postgresql://user@host:port/database?schema=name``.

    Raises:
        StoreError: it isn't such a URL.
    """
    parts = urlsplit(url)
    shown = parts
    if parts.password is not None:
        user, _, host = parts.netloc.rpartition("@")
        shown = parts._replace(netloc=f"{user.partition(':')[0]}:***@{host}")
    given = parse_qsl(parts.query, keep_blank_values=True)
    schemas = [value for name, value in given if name == "schema"]
    rest = [(name, value) for name, value in given if name != "schema"]
    if len(schemas) > 1 or "" in schemas:
        raise StoreError(
            urlunsplit(shown), "names no schema, or several", "write ?schema=name once"
        )
    # libpq knows %20, but no plus.
    query = urlencode(rest).replace("+", "%20")
    conninfo = urlunsplit(parts._replace(query=query))
    try:
        psycopg.conninfo.conninfo_to_dict(conninfo)
    except psycopg.Error as error:
        raise StoreError(
            urlunsplit(shown),
            f"is no URL of a database: {str(error).strip()}",
            "write postgresql://user@host:port/database?schema=name",
        ) from error
    return Place(conninfo, schemas[0] if schemas else DEFAULT_SCHEMA, urlunsplit(shown))


class Answer:
    """What a statement gives, once somebody asks."""

    __slots__ = ("_cursor",)

    def __init__(self, cursor: psycopg.Cursor[Any]) -> None:
        self._cursor = cursor

    def rows(self) -> list[tuple[Any, ...]]:
        """All rows."""
        return self._cursor.fetchall()

    def row(self) -> tuple[Any, ...] | None:
        """The first row, or None."""
        return self._cursor.fetchone()

    def one(self) -> Any:
        """The first value of the one row that there must be."""
        return self._cursor.fetchall()[0][0]

    def firsts(self) -> list[Any]:
        """The first value of each row."""
        return [row[0] for row in self._cursor.fetchall()]

    @property
    def count(self) -> int:
        """How many rows were changed."""
        return self._cursor.rowcount


class Db:
    """A connection for our own statements.

    Inside `pipeline`, statements go out without waiting for the answers of those before; only
    who asks an `Answer` waits.

    Attributes:
        number: that of the transaction that is open, once it was asked for.
    """

    __slots__ = ("connection", "number")

    def __init__(self, connection: psycopg.Connection[Any]) -> None:
        self.connection = connection
        self.number = ""

    def execute(self, text: str, *values: Any) -> Answer:
        """Send a statement."""
        cursor = self.connection.cursor(binary=True)
        cursor.execute(text, values)
        return Answer(cursor)

    @contextmanager
    def pipeline(self) -> Iterator[None]:
        """Don't wait for each answer."""
        with self.connection.pipeline():
            yield

    @contextmanager
    def snapshot(self) -> Iterator[None]:
        """Let what is asked inside see one and the same picture."""
        self.connection.execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
        try:
            yield
        finally:
            if not self.lost:
                self.connection.execute("COMMIT")

    @property
    def lost(self) -> bool:
        """Whether the server is out of reach."""
        return self.connection.closed

    def close(self) -> None:
        """Close it."""
        self.connection.close()
