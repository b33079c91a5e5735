"""What retention of the SQLite store must clear, table by table, and what holds it back."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from triggerflow.errors import StoreError
from triggerflow.store.operations import Append, Batch, Claim, LogRow, NewInstance, Start, Turn
from triggerflow.store.sqlite import MemoryStore, SqliteStore, retention

NOW = 1_700_000_000.0
FLOWS = frozenset({("welcome", 1)})


@pytest.fixture(params=[SqliteStore, MemoryStore])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Any]:
    made = SqliteStore(tmp_path / "a.db") if request.param is SqliteStore else MemoryStore()
    made.open()
    yield made
    made.close()


def ended(store: Any, *ids: str, entries: int = 1) -> list[int]:
    """Instances that have ended, by their numbers."""
    worker = store.register_worker(build="b", flows=FLOWS, now=NOW)
    starts = [Start(NewInstance(id, "welcome", 1, b"input", b"seed", NOW)) for id in ids]
    store.commit(Batch(starts, NOW))
    (found,) = store.commit(Batch([Claim(1000, 0, "b", FLOWS, NOW)], NOW, worker))
    rows = tuple(LogRow(f"call:a#{n}", b"v", False, None, NOW) for n in range(entries))
    turns = [
        Turn(each.number, 1, 0, rows, b"p", "done", NOW, NOW, value=b"v")
        for each in found.claimed
    ]
    store.commit(Batch(turns, NOW, worker))
    return [each.number for each in found.claimed]


def tables(db: sqlite3.Connection) -> dict[str, list[tuple[str, str, bool]]]:
    """Every table with an instance's number: its columns, types, and what can't be NULL."""
    found = {}
    names = db.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()
    for (name,) in names:
        columns = db.execute(f"PRAGMA table_info({name})").fetchall()
        # A firing keeps the id as text, for ever.
        if any(each[1] == "instance" and each[2] == "INTEGER" for each in columns):
            found[name] = [(each[1], each[2], bool(each[3])) for each in columns]
    return found


def test_no_table_of_an_instance_is_forgotten(store: Any) -> None:
    """Whatever table has an `instance` column is empty of a removed one; a new table too."""
    gone, kept = ended(store, "gone", "kept")
    db = store._db
    db.execute("UPDATE instance SET ended = ended + 100 WHERE id = ?", (kept,))
    every = tables(db)
    assert {"log", "generation", "inbox", "tried", "wait", "task"} <= set(every)
    for name, columns in every.items():
        for number in (gone, kept):
            some: dict[str, Any] = {"TEXT": f"x{number}", "BLOB": b"x"}
            row = {
                column: number if column == "instance" else some.get(kind, 0)
                for column, kind, needed in columns
                if column != "id" and (needed or column == "instance")
            }
            marks = ", ".join("?" * len(row))
            db.execute(
                f"INSERT OR IGNORE INTO {name} ({', '.join(row)}) VALUES ({marks})",
                tuple(row.values()),
            )
    assert store.prune("welcome", {1: NOW + 50}, now=NOW).removed == 1
    for name in every:
        owners = {number for (number,) in db.execute(f"SELECT instance FROM {name}")}
        assert owners == {kept}, f"{name}: add it to retention.OWNED"
    assert [each.id for each in store.instances()] == ["kept"]


def test_an_ended_child_stays_while_its_parent_lives(store: Any) -> None:
    """Its parent may still join it; once the parent has ended too, the child goes."""
    parent, child = ended(store, "parent", "child")
    db = store._db
    db.execute("UPDATE instance SET parent = ? WHERE id = ?", (parent, child))
    for status in ("running", "waiting", "blocked"):
        db.execute(
            "UPDATE instance SET status = ?, ended = NULL WHERE id = ?", (status, parent)
        )
        assert store.prune("welcome", {1: NOW + 50}, now=NOW).removed == 0, status
    db.execute(
        "UPDATE instance SET status = 'failed', ended = ? WHERE id = ?", (NOW + 60, parent)
    )
    assert store.prune("welcome", {1: NOW + 50}, now=NOW).removed == 1
    assert [each.id for each in store.instances()] == ["parent"]
    assert store.prune("welcome", {1: NOW + 61}, now=NOW).removed == 1


def test_an_error_in_the_middle_removes_nothing(
    store: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where one table can't be cleared, every row of the instance is still there."""
    (number,) = ended(store, "i1")
    before = store.instances(), store.log(number, 1)
    monkeypatch.setattr(retention, "OWNED", (*retention.OWNED, "no_such_table"))
    with pytest.raises(StoreError):
        store.prune("welcome", {1: NOW + 50}, now=NOW)
    assert (store.instances(), store.log(number, 1)) == before


def test_a_transaction_is_bounded_in_rows(store: Any) -> None:
    """Long logs make shorter pages; one that is over the bound goes alone, and whole."""
    ended(store, "a", "b", "c", entries=2000)
    found = store.prune("welcome", {1: NOW + 50}, now=NOW)
    assert found.removed == 2
    rest = store.prune("welcome", {1: NOW + 50}, now=NOW, after=found.next)
    assert (rest.removed, rest.next) == (1, None)
    ended(store, "long", "short", entries=retention._MOST_ROWS + 1)
    found = store.prune("welcome", {1: NOW + 50}, now=NOW)
    assert (found.removed, [each.id for each in store.instances()]) == (1, ["short"])


def test_nothing_to_remove_writes_nothing(tmp_path: Path) -> None:
    """Workers go round often: a round without a find must not wake the other processes."""
    one, two = SqliteStore(tmp_path / "a.db"), SqliteStore(tmp_path / "a.db")
    one.open()
    two.open()
    one.commit(Batch([Append("cid", b"{}", "[]", "[]", NOW, 0, ())], NOW))
    two.changed()
    assert one.prune("welcome", {1: NOW}, now=NOW).removed == 0
    assert one.prune_documents(NOW).removed == 0
    assert not two.changed()
    one.close()
    two.close()
