"""Connections: where the database is, and how one is made."""

from __future__ import annotations

from typing import Any, Final
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

import attrs
import psycopg
from psycopg import sql

from triggerflow.errors import StoreError
from triggerflow.store.postgres.wire import Db

DEFAULT_SCHEMA: Final = "triggerflow"
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
            application_name=f"triggerflow {name}",
            **options,
        )

    def ours(self, name: str) -> Db:
        """A new connection for our own statements."""
        connection = self.connect(name)
        try:
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
