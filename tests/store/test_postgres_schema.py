"""Opening a PostgreSQL store: migrations, newer schemas, URLs, and what is in the way."""

from __future__ import annotations

import re
import threading
from typing import Any

import psycopg
import pytest

from triggerflow.errors import SchemaTooNew, StoreError
from triggerflow.store.operations import Batch, NewInstance, Start
from triggerflow.store.postgres import PostgresStore, retention, schema
from triggerflow.store.postgres.connection import place_of

NOW = 1_700_000_000.0
NEWEST = schema.migrations()[-1][0]


class Fresh:
    """A schema that isn't there yet."""

    def __init__(self, places: Any) -> None:
        self.places = places
        self.name = "fresh"
        self.drop()

    def drop(self) -> None:
        self.places.ask(f"DROP SCHEMA IF EXISTS {self.name} CASCADE")

    def store(self) -> PostgresStore:
        return PostgresStore(f"{self.places.url}?schema={self.name}")

    def make(self) -> None:
        store = self.store()
        store.open()
        store.commit(Batch([Start(NewInstance("i1", "f", 1, b"", b"", NOW))], NOW))
        store.close()

    def version(self) -> int | None:
        found = self.tables("meta")
        if not found:
            return None
        return self.places.ask(f"SELECT value FROM {self.name}.meta WHERE name = 'schema'")[0][
            0
        ]

    def tables(self, name: str = "%") -> list[str]:
        rows = self.places.ask(
            "SELECT tablename FROM pg_tables WHERE schemaname = %s AND tablename LIKE %s",
            self.name,
            name,
        )
        return [name for (name,) in rows]


@pytest.fixture
def fresh(places: Any) -> Any:
    made = Fresh(places)
    yield made
    made.drop()


def test_migrations_are_numbered_from_one() -> None:
    """Migrations have numbers of their own, from 1 on."""
    numbers = [number for number, _, _ in schema.migrations()]
    assert numbers == list(range(1, len(numbers) + 1))


def test_opening_migrates_and_opening_again_keeps(fresh: Fresh) -> None:
    """An opened database has the newest schema; a second opening changes nothing."""
    fresh.make()
    assert fresh.version() == NEWEST
    store = fresh.store()
    store.open()
    assert [each.id for each in store.instances()] == ["i1"]
    assert store.counts().schema == NEWEST
    store.close()


def test_many_open_an_empty_database_at_once(fresh: Fresh) -> None:
    """Eight that open it together all succeed, with one schema."""
    gate = threading.Barrier(8)
    found: list[object] = []

    def opens(number: int) -> None:
        store = fresh.store()
        try:
            gate.wait(60)
            store.open()
            store.commit(Batch([Start(NewInstance(f"i{number}", "f", 1, b"", b"", NOW))], NOW))
            found.append(store.counts().schema)
            store.close()
        except BaseException as error:
            found.append(error)

    threads = [threading.Thread(target=opens, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert found == [NEWEST] * 8
    assert fresh.places.ask(f"SELECT count(*) FROM {fresh.name}.instance") == [(8,)]


def test_a_newer_schema_is_refused(fresh: Fresh) -> None:
    """What a newer triggerflow wrote is refused, naming both versions, and left alone."""
    fresh.make()
    fresh.places.ask(f"UPDATE {fresh.name}.meta SET value = 99 WHERE name = 'schema'")
    store = fresh.store()
    with pytest.raises(SchemaTooNew, match=f"version 99, this triggerflow knows {NEWEST}"):
        store.open()
    assert fresh.version() == 99
    with pytest.raises(StoreError, match="not open"):
        store.instances()


@pytest.mark.parametrize("bad", ["NO SUCH WORD;", "INSERT INTO nowhere VALUES (1);"])
def test_a_failing_migration_leaves_the_version(
    fresh: Fresh, monkeypatch: pytest.MonkeyPatch, bad: str
) -> None:
    """One that fails halfway changes nothing; the database opens again afterwards."""
    fresh.make()
    real = schema.migrations()
    broken = (NEWEST + 1, "broken", f"CREATE TABLE half (id BIGINT);\n{bad}\n")
    monkeypatch.setattr(schema, "migrations", lambda: (*real, broken))
    with pytest.raises(StoreError):
        fresh.store().open()
    assert fresh.version() == NEWEST
    assert not fresh.tables("half")
    mended = (NEWEST + 1, "mended", "CREATE TABLE whole (id BIGINT);\n")
    monkeypatch.setattr(schema, "migrations", lambda: (*real, mended))
    store = fresh.store()
    store.open()
    assert [each.id for each in store.instances()] == ["i1"]
    store.close()
    assert fresh.version() == NEWEST + 1
    assert fresh.tables("whole")


def test_a_first_migration_that_fails_leaves_nothing(
    fresh: Fresh, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the very first one fails, not even the schema stays behind."""
    monkeypatch.setattr(schema, "migrations", lambda: ((1, "x", "CREATE TABLE t (a);\nNO;\n"),))
    with pytest.raises(StoreError):
        fresh.store().open()
    assert fresh.places.ask("SELECT 1 FROM pg_namespace WHERE nspname = %s", fresh.name) == []
    monkeypatch.undo()
    fresh.make()


def test_two_schemas_of_one_database_are_two_stores(postgres: Any) -> None:
    """Neither rows, nor news, nor workers, nor settled numbers of one are the other's."""
    one, two = postgres.store(), postgres.store()
    one.open()
    two.open()
    try:
        worker = one.register_worker(build="b", flows=(), now=NOW)
        two.changed()
        one.commit(Batch([Start(NewInstance("i1", "f", 1, b"", b"", NOW))], NOW))
        assert not two.changed()
        assert two.instances() == []
        assert two.workers() == []
        assert [(each.id, each.alive) for each in one.workers()] == [(worker[0], True)]
    finally:
        one.close()
        two.close()


def test_retention_knows_every_table_of_an_instance(fresh: Fresh) -> None:
    """Each table with rows under an instance's number is among those that retention clears."""
    fresh.make()
    rows = fresh.places.ask(
        "SELECT table_name FROM information_schema.columns WHERE table_schema = %s"
        " AND column_name = 'instance' AND data_type = 'bigint'",
        fresh.name,
    )
    assert {name for (name,) in rows} - {"inbox"} == set(retention.OWNED)


# --- where it is ----------------------------------------------------------------------------


def test_a_password_is_never_shown() -> None:
    """The URL in messages has no password; the one for the server has."""
    found = place_of(
        "postgresql://ann:s3cret@db.example:5433/shop?schema=flows&sslmode=require"
    )
    assert found.url == (
        "postgresql://ann:***@db.example:5433/shop?schema=flows&sslmode=require"
    )
    assert found.schema == "flows"
    assert found.conninfo == "postgresql://ann:s3cret@db.example:5433/shop?sslmode=require"


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("postgresql://h/d?schema=", "names no schema, or several"),
        ("postgresql://h/d?schema=a&schema=b", "names no schema, or several"),
        ("postgresql://h/d?nonsense=1", "is no URL of a database"),
    ],
)
def test_a_url_that_makes_no_sense_is_refused(url: str, words: str) -> None:
    """It is refused by name before anything is opened."""
    with pytest.raises(StoreError, match=words):
        PostgresStore(url)


def test_a_server_that_is_not_there_says_so() -> None:
    """Nobody listens on that port: a StoreError that says what to look at, at once."""
    store = PostgresStore("postgresql://nobody:s3cret@127.0.0.1:1/none")
    with pytest.raises(StoreError, match="can't be opened") as caught:
        store.open()
    assert "is the server up" in str(caught.value)
    assert "s3cret" not in str(caught.value)


def test_a_text_that_postgresql_cannot_keep(postgres: Any) -> None:
    """A NUL character in an id or a key is refused with its name; its neighbours can land."""
    store = postgres.store()
    store.open()
    try:
        with pytest.raises(StoreError, match="NUL character"):
            store.commit(Batch([Start(NewInstance("i\0", "f", 1, b"", b"", NOW))], NOW))
        store.commit(Batch([Start(NewInstance("i1", "f", 1, b"\0", b"", NOW))], NOW))
        assert [each.id for each in store.instances()] == ["i1"]
    finally:
        store.close()


def test_statements_read_no_clock() -> None:
    """The database is never asked for the time: it gets it as a value."""
    for _, name, text in schema.migrations():
        assert not re.search(r"\bnow\s*\(|clock_timestamp|CURRENT_", text), name


def test_the_third_migration_keeps_what_is_there(
    fresh: Fresh, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Activities keep their numbers, superseded triggers their time, attributes their page."""
    migrations = schema.migrations()
    monkeypatch.setattr(schema, "migrations", lambda: migrations[:2])
    with psycopg.connect(fresh.places.url, autocommit=True) as db:
        schema.migrate(db, fresh.name, fresh.places.url)
        db.execute(f"SET search_path TO {fresh.name}")
        db.execute(
            "INSERT INTO activity (seq, cid, types, actors, document, received)"
            " VALUES (nextval('activity_seq'), 'cid-a', '[]', '[]', 'd', 1.5)"
        )
        db.execute(
            "INSERT INTO trigger_spec (cid, name, meaning, spec, state, registered, registry,"
            " retired) VALUES ('cid-t', 't', 'm', '', 'superseded', 1, 1, 2)"
        )
        db.execute(
            "INSERT INTO instance (id, public_id, flow, version, status, created, attributes)"
            " VALUES (nextval('instance_id'), 'i1', 'f', 1, 'running', 7.5, 'a')"
        )
        db.execute("INSERT INTO generation VALUES (1, 1, 's', 'i')")
        db.execute("INSERT INTO attribute VALUES ('city', '\"Rome\"', 1), ('city', '1', 99)")
    monkeypatch.setattr(schema, "migrations", lambda: migrations)
    store = fresh.store()
    store.open()
    try:
        (kept,) = store.activities(0, 10)
        assert (kept.seq, kept.cid, kept.namespace, kept.received) == (1, "cid-a", "", 1.5)
        assert [each.state for each in store.triggers_at(1)] == ["active"]
        assert store.triggers_at(2) == ()
        (found,) = store.instances(attributes={"city": "Rome"})
        assert (found.id, found.hold) == ("i1", None)
    finally:
        store.close()
    assert fresh.version() == NEWEST


def test_waits_from_before_are_filed_under_everything(
    fresh: Fresh, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Open waits keep their positions, are found by every activity, and get new numbers."""
    migrations = schema.migrations()
    monkeypatch.setattr(schema, "migrations", lambda: migrations[:3])
    with psycopg.connect(fresh.places.url, autocommit=True) as db:
        schema.migrate(db, fresh.name, fresh.places.url)
        db.execute(f"SET search_path TO {fresh.name}")
        db.execute(
            "INSERT INTO activity (seq, cid, types, actors, received)"
            " SELECT nextval('activity_seq'), 'cid' || n, '[]', '[]', 0"
            " FROM generate_series(1, 7) n"
        )
        db.execute(
            "INSERT INTO instance (id, public_id, flow, version, status, created, namespace)"
            " VALUES (1, 'i1', 'f', 1, 'running', 0, ''),"
            " (2, 'i2', 'f', 1, 'running', 0, 'shop')"
        )
        db.execute(
            "INSERT INTO wait (instance, generation, tag, pattern, position, scanned)"
            " VALUES (1, 1, 'w#0', 'p', 2, 5), (2, 1, 'w#1', 'p', 2, 7),"
            " (2, 1, 'w#2', 'p', 2, 7)"
        )
        db.execute("DELETE FROM wait WHERE tag = 'w#2'")
    monkeypatch.setattr(schema, "migrations", lambda: migrations)
    store = fresh.store()
    store.open()
    try:
        found = [(each.id, each.tag, each.scanned, each.upto) for each in store.waits()]
        assert found == [(1, "w#0", 5, 7), (2, "w#1", 7, 7)]
        residue = [("", "", 0), ("", "\nshop", 0)]
        assert [(at, each.id) for at, each in store.waits_under(residue, 10)] == [
            (0, 1),
            (1, 2),
        ]
        standing = store.standing()
        assert (standing.position, standing.newest, standing.paths) == (7, 3, ("",))
        assert [each.id for each in store.waits_behind()] == [1]
    finally:
        store.close()
