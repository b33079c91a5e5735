"""Each guard matters: with one of them taken away, the suite's check of it fails."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from typing import Any

import attrs
import pytest

from triggerflow.store.sqlite import MemoryStore, SqliteStore, arrivals, schema, turns, workers
from triggerflow.testing import STORE_CHECKS, check_store

Sabotage = Callable[[pytest.MonkeyPatch], None]


def fence_everyone_lets_pass(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(workers, "fence", lambda *_: True)


def turns_ignore(part: str) -> Sabotage:
    """Turns and blocks are decided as if their worker had stated `part` rightly."""

    def sabotage(patch: pytest.MonkeyPatch) -> None:
        honest = turns.turns

        def careless(db: Any, worker: int, items: Any, outcomes: Any) -> None:
            for index, op in items:
                standing = db.execute(
                    "SELECT owner, generation, log_length FROM instance WHERE id = ?",
                    (op.number,),
                ).fetchone()
                found = dict(zip(("owner", "generation", "log_length"), standing, strict=True))
                if part == "owner":
                    honest(db, found["owner"], [(index, op)], outcomes)
                else:
                    liar = attrs.evolve(op, **{part: found[part]})
                    honest(db, worker, [(index, liar)], outcomes)

        patch.setattr(turns, "turns", careless)

    return sabotage


def schema_without(*guards: tuple[str, str]) -> Sabotage:
    """The schema lacks these constraints."""

    def sabotage(patch: pytest.MonkeyPatch) -> None:
        found = []
        for number, name, sql in schema.migrations():
            for guard, weaker in guards:
                assert number != 1 or guard in sql, guard
                sql = sql.replace(guard, weaker)
            found.append((number, name, sql))
        patch.setattr(schema, "migrations", lambda: tuple(found))

    return sabotage


def blind_to(*questions: str) -> Sabotage:
    """These questions to the database find nothing."""

    def sabotage(patch: pytest.MonkeyPatch) -> None:
        class Blind(sqlite3.Connection):
            def execute(self, sql: str, *values: Any) -> sqlite3.Cursor:
                blind = any(question in sql for question in questions)
                return super().execute(
                    f"SELECT * FROM ({sql}) WHERE 0" if blind else sql, *values
                )

        connect = sqlite3.connect
        patch.setattr(sqlite3, "connect", lambda *a, **kw: connect(*a, **kw, factory=Blind))

    return sabotage


def both(*parts: Sabotage) -> Sabotage:
    def sabotage(patch: pytest.MonkeyPatch) -> None:
        for part in parts:
            part(patch)

    return sabotage


PAIR = ("CREATE UNIQUE INDEX firing_pair", "CREATE INDEX firing_pair")
CID = (
    "seq INTEGER PRIMARY KEY AUTOINCREMENT,\n    cid TEXT NOT NULL UNIQUE",
    "seq INTEGER PRIMARY KEY AUTOINCREMENT,\n    cid TEXT NOT NULL",
)
FIRED = "SELECT trigger_spec FROM firing WHERE activity"
KNOWN = "SELECT cid, seq FROM activity WHERE cid IN"

GUARDS: dict[str, tuple[Sabotage, str]] = {
    "the epoch of a turn": (fence_everyone_lets_pass, "turn_needs_the_epoch"),
    "the epoch after a reaping": (fence_everyone_lets_pass, "reap_fences_the_dead"),
    "the owner": (turns_ignore("owner"), "turn_needs_the_owner"),
    "the owner, parked": (turns_ignore("owner"), "turn_needs_an_owned_instance"),
    "the generation": (turns_ignore("generation"), "turn_needs_the_generation"),
    "the log length": (turns_ignore("log_length"), "turn_needs_the_log_length"),
    "the unique pair": (schema_without(PAIR), "pair_is_unique"),
    "the fired pairs of a dispatch": (
        both(schema_without(PAIR), blind_to(FIRED)),
        "pair_fires_once",
    ),
    "the fired pairs, index in place": (blind_to(FIRED), "pair_fires_once"),
    "the duplicate activity": (
        both(schema_without(CID), blind_to(KNOWN)),
        "append_again_gives_first_firings",
    ),
    "the duplicate activity, CID unique": (blind_to(KNOWN), "append_again_gives_first_firings"),
    "the inbox when parking": (
        lambda patch: patch.setattr(turns, "_unseen", lambda *_: set()),
        "turn_with_unseen_message_stays",
    ),
    "the registry generation": (
        lambda patch: patch.setattr(arrivals, "registry", lambda _: 1),
        "append_with_stale_registry",
    ),
}


@pytest.mark.parametrize("guard", GUARDS)
def test_check_fails_without_its_guard(guard: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The check passes with the guard, and fails by name once it is taken away."""
    sabotage, check = GUARDS[guard]
    STORE_CHECKS[check](MemoryStore)
    sabotage(monkeypatch)
    with pytest.raises(AssertionError, match=f"^{check}: .*expected.*found"):
        STORE_CHECKS[check](MemoryStore)


def test_a_pair_fires_twice_only_without_both_guards(monkeypatch: pytest.MonkeyPatch) -> None:
    """The unique pair stands behind the duplicate check: without the check it refuses."""
    blind_to(FIRED)(monkeypatch)
    with pytest.raises(AssertionError, match="IntegrityError"):
        STORE_CHECKS["pair_fires_once"](MemoryStore)


def test_check_store_runs_every_check(monkeypatch: pytest.MonkeyPatch) -> None:
    """`check_store` gives every check a store of its own and stops at the first failure."""
    made: list[MemoryStore] = []

    def make_store() -> MemoryStore:
        made.append(MemoryStore())
        return made[-1]

    seen: list[str] = []
    for name in list(STORE_CHECKS):
        monkeypatch.setitem(STORE_CHECKS, name, lambda make, n=name: (make(), seen.append(n)))
    check_store(make_store)
    assert seen == list(STORE_CHECKS)
    assert len(made) == len(seen)

    def broken(_: object) -> None:
        raise AssertionError("expected this")

    monkeypatch.setitem(STORE_CHECKS, seen[3], broken)
    with pytest.raises(AssertionError, match="expected this"):
        check_store(make_store)


def test_every_check_states_its_promise() -> None:
    """Checks have a one-line promise, and are callable by name."""
    for name, check in STORE_CHECKS.items():
        assert check.__name__ == name
        assert check.__doc__
        assert "\n" not in check.__doc__


def test_a_failure_says_which_promise(tmp_path: Any) -> None:
    """Whatever a store raises, the failure is an AssertionError with name and promise."""

    class Broken(SqliteStore):
        def counts(self) -> Any:
            raise RuntimeError("disk on fire")

    with pytest.raises(AssertionError) as caught:
        STORE_CHECKS["counts_count"](lambda: Broken(tmp_path / "x.db"))
    text = str(caught.value)
    assert text.startswith("counts_count: expected no error, found RuntimeError: disk on fire")
    assert "promise: Counts tell" in text
