"""Opening: migrations, newer schemas, and files that are no database of ours."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

import triggerflow
from triggerflow.errors import SchemaTooNew, StoreError
from triggerflow.store.operations import Append, Batch, NewInstance, Start
from triggerflow.store.sqlite import SqliteStore, schema

NOW = 1_700_000_000.0
NEWEST = schema.migrations()[-1][0]


def make(path: Path) -> None:
    store = SqliteStore(path)
    store.open()
    store.commit(Batch([Start(NewInstance("i1", "f", 1, b"", b"", NOW))], NOW))
    store.close()


def pragma(path: Path, text: str) -> object:
    db = sqlite3.connect(path)
    try:
        row = db.execute(f"PRAGMA {text}").fetchone()
        return row and row[0]
    finally:
        db.close()


def test_migrations_are_numbered_from_one() -> None:
    """Migrations have numbers of their own from 1 on, each is read to its last statement."""
    found = schema.migrations()
    numbers = [number for number, _, _ in found]
    assert numbers[0] == 1
    assert numbers == sorted(set(numbers))
    for _, name, sql in found:
        assert "".join(schema._statements(sql)).strip() == sql.strip(), name


def test_an_opened_file_has_the_newest_schema(database: Path) -> None:
    """Opening migrates; opening again changes nothing and keeps the data."""
    make(database)
    assert pragma(database, "user_version") == NEWEST
    store = SqliteStore(database)
    store.open()
    assert [each.id for each in store.instances()] == ["i1"]
    assert store.counts().schema == NEWEST
    store.close()


@pytest.mark.parametrize("journal", ["wal", "delete"])
def test_a_newer_schema_is_refused(database: Path, journal: str) -> None:
    """A file that a newer triggerflow wrote is refused, naming both versions, and untouched."""
    make(database)
    pragma(database, f"journal_mode = {journal}")
    pragma(database, f"user_version = {NEWEST + 7}")
    before = database.read_bytes()
    store = SqliteStore(database)
    with pytest.raises(SchemaTooNew) as caught:
        store.open()
    assert f"version {NEWEST + 7}" in str(caught.value)
    assert f"knows {NEWEST}" in str(caught.value)
    assert database.read_bytes() == before
    # It is let go entirely: somebody else can have it to himself.
    assert pragma(database, "locking_mode = EXCLUSIVE") == "exclusive"
    with pytest.raises(StoreError, match="not open"):
        store.instances()


@pytest.mark.parametrize("bad", ["NO SUCH WORD;", "INSERT INTO nowhere VALUES (1);"])
def test_a_failing_migration_leaves_the_version(
    database: Path, monkeypatch: pytest.MonkeyPatch, bad: str
) -> None:
    """A migration that fails halfway changes nothing; the file opens again afterwards."""
    make(database)
    real = schema.migrations()
    broken = (NEWEST + 1, "broken", f"CREATE TABLE half (id INTEGER);\n{bad}\n")
    monkeypatch.setattr(schema, "migrations", lambda: (*real, broken))
    with pytest.raises(StoreError):
        SqliteStore(database).open()
    assert pragma(database, "user_version") == NEWEST
    assert pragma(database, "table_info(half)") is None
    mended = (NEWEST + 1, "mended", "CREATE TABLE whole (id INTEGER);\n")
    monkeypatch.setattr(schema, "migrations", lambda: (*real, mended))
    store = SqliteStore(database)
    store.open()
    assert [each.id for each in store.instances()] == ["i1"]
    store.close()
    assert pragma(database, "user_version") == NEWEST + 1
    assert pragma(database, "table_info(whole)") is not None


def test_a_first_migration_that_fails_leaves_an_empty_file(
    database: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the very first migration fails, no table stays behind."""
    monkeypatch.setattr(schema, "migrations", lambda: ((1, "x", "CREATE TABLE t (a);\nNO;\n"),))
    with pytest.raises(StoreError):
        SqliteStore(database).open()
    assert pragma(database, "user_version") == 0
    assert pragma(database, "table_info(t)") is None
    monkeypatch.undo()
    make(database)


def test_a_file_that_is_no_database(database: Path) -> None:
    """A file that isn't SQLite gives a StoreError that names it, and is kept as it is."""
    text = b"Dear diary, " * 1000
    database.write_bytes(text)
    with pytest.raises(StoreError, match="can't be opened") as caught:
        SqliteStore(database).open()
    assert str(database) in str(caught.value)
    assert database.read_bytes() == text


def test_a_corrupt_database(database: Path) -> None:
    """A SQLite file whose pages are rubbish gives a StoreError."""
    make(database)
    whole = database.read_bytes()
    database.write_bytes(whole[:100] + b"\xff" * (len(whole) - 100))
    with pytest.raises(StoreError):
        SqliteStore(database).open()


@pytest.mark.parametrize("shape", ["a directory", "below a file", "a broken link"])
def test_a_path_that_cannot_be(tmp_path: Path, shape: str) -> None:
    """A path where no file can stand gives a StoreError."""
    if shape == "a directory":
        path = tmp_path
    elif shape == "below a file":
        (tmp_path / "file").write_text("x")
        path = tmp_path / "file" / "flows.db"
    else:
        path = tmp_path / "flows.db"
        path.symlink_to(tmp_path / "nowhere" / "flows.db")
    with pytest.raises(StoreError):
        SqliteStore(path).open()


READ_ONLY = """
import os, sys
import triggerflow.store.sqlite.migrations
from triggerflow.errors import StoreError
from triggerflow.store.sqlite import SqliteStore, schema
schema.migrations()
if os.getuid() == 0:
    os.setresuid(65534, 65534, 65534)
try:
    SqliteStore(sys.argv[1]).open()
except StoreError as error:
    print(error)
"""


def test_a_read_only_directory() -> None:
    """A directory where nothing may be written gives a StoreError."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o555)
        found = subprocess.run(
            [sys.executable, "-c", READ_ONLY, str(Path(name) / "flows.db")],
            capture_output=True,
            text=True,
            timeout=60,
            cwd=Path(triggerflow.__file__).parents[1],
            check=False,
        )
        assert found.returncode == 0, found.stderr
        assert "can't be opened" in found.stdout
        assert list(Path(name).iterdir()) == []
        Path(name).chmod(0o755)


def test_missing_directories_are_made(tmp_path: Path) -> None:
    """The directory of a new file is made."""
    make(tmp_path / "a" / "b" / "flows.db")


def test_a_closed_store_says_so(database: Path) -> None:
    """Whatever is asked of a store that isn't open, the answer is a StoreError."""
    store = SqliteStore(database)
    deeds = [
        lambda: store.commit(Batch([], NOW)),
        lambda: store.instance("i1"),
        lambda: store.workers(),
        lambda: store.changed(),
        lambda: store.register_worker(build="b", flows=(), now=NOW),
        lambda: store.reap(),
    ]
    for deed in deeds:
        with pytest.raises(StoreError, match="not open"):
            deed()
    store.open()
    store.open()
    store.close()
    store.close()
    for deed in deeds:
        with pytest.raises(StoreError, match="not open"):
            deed()


def test_commits_are_flushed(database: Path) -> None:
    """The file is in WAL mode and every commit is flushed to the disk."""
    store = SqliteStore(database)
    store.open()
    assert store._db.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    assert store._db.execute("PRAGMA synchronous").fetchone() == (2,)
    store.close()


def test_waits_from_before_are_filed_under_everything(
    database: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Open waits keep their positions, are found by every activity, and get new numbers."""
    real = schema.migrations()
    monkeypatch.setattr(
        schema, "migrations", lambda: tuple(each for each in real if each[0] < 11)
    )
    store = SqliteStore(database)
    store.open()
    assert store._db is not None
    store._db.executemany(
        "INSERT INTO activity (seq, cid, types, actors, received) VALUES (?, ?, '[]', '[]', 0)",
        [(n, f"cid{n}") for n in range(1, 8)],
    )
    store._db.executemany(
        "INSERT INTO wait (id, instance, generation, tag, pattern, position, scanned)"
        " VALUES (?, ?, 1, ?, x'01', 2, ?)",
        [(3, 1, "w#0", 5), (9, 2, "w#1", 7)],
    )
    for id, namespace in (("i1", ""), ("i2", "shop")):
        new = NewInstance(id, "f", 1, b"", b"", NOW, namespace=namespace)
        store.commit(Batch([Start(new)], NOW))
    store.abandon()
    monkeypatch.undo()
    store = SqliteStore(database)
    store.open()
    found = [(each.id, each.tag, each.scanned, each.upto) for each in store.waits()]
    assert found == [(3, "w#0", 5, 7), (9, "w#1", 7, 7)]
    residue = [("", "", 0), ("", "\nshop", 0)]
    found = [(index, each.id) for index, each in store.waits_under(residue, 10)]
    assert found == [(0, 3), (1, 9)]
    standing = store.standing()
    assert (standing.position, standing.newest, standing.paths) == (7, 9, ("",))
    assert [each.id for each in store.waits_behind()] == [3]
    store.close()


def test_activities_keep_their_numbers_through_the_sixth_migration(
    database: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The table of activities is made anew; rows, numbers and what refers to them stay."""
    every = schema.migrations()
    monkeypatch.setattr(schema, "migrations", lambda: every[:5])
    db = sqlite3.connect(database, isolation_level=None)
    schema.migrate(db, "old")
    for seq in (3, 9):
        db.execute(
            "INSERT INTO activity (seq, cid, types, actors, document, received, depth)"
            " VALUES (?, ?, '[\"T\"]', '[\"a\"]', x'a0', ?, 2)",
            (seq, f"cid-{seq}", NOW),
        )
    db.execute(
        "INSERT INTO trigger_spec (cid, name, meaning, spec, state, registered, registry)"
        " VALUES ('t', 'name', 'm', x'', 'active', 1, 1)"
    )
    db.execute(
        "INSERT INTO firing (activity, trigger_spec, instance, outcome, registry, at)"
        " VALUES (9, 1, 'i1', 'started', 1, 1)"
    )
    db.close()
    monkeypatch.setattr(schema, "migrations", lambda: every)
    store = SqliteStore(database)
    store.open()
    found = store.activity("cid-9")
    assert found is not None
    assert (found.seq, found.depth, found.namespace) == (9, 2, "")
    assert [each.instance for each in store.firings("cid-9")] == ["i1"]
    append = Append("cid-new", b"\xa0", "[]", "[]", NOW, 0, ())
    assert store.commit(Batch([append], NOW))[0].seq == 10
    store.close()
