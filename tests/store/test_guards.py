"""Each guard matters: with one of them taken away, the suite's check of it fails."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from typing import Any

import attrs
import pytest

from triggerflow.store.operations import Batch
from triggerflow.store.sqlite import (
    MemoryStore,
    SqliteStore,
    arrivals,
    firing,
    schema,
    transactions,
    turns,
    waking,
    workers,
)
from triggerflow.testing import STORE_CHECKS, check_store, store_checks

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
        honest = schema.migrations()
        for number, name, sql in honest:
            for guard, weaker in guards:
                sql = sql.replace(guard, weaker)
            found.append((number, name, sql))
        for guard, _ in guards:
            assert any(guard in sql for _, _, sql in honest), guard
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


def transactions_ignore(part: str) -> Sabotage:
    """A step's transaction is judged as if its worker had stated `part` rightly."""

    def sabotage(patch: pytest.MonkeyPatch) -> None:
        honest = transactions.forbidden

        def careless(db: Any, step: Any) -> Any:
            owner, generation = db.execute(
                "SELECT owner, generation FROM instance WHERE id = ?", (step.number,)
            ).fetchone()
            right: dict[str, Any] = {
                "worker": (owner or step.worker[0], step.worker[1]),
                "generation": generation,
            }
            return honest(db, attrs.evolve(step, **{part: right[part]}))

        patch.setattr(transactions, "forbidden", careless)

    return sabotage


def transactions_forgive(detail: str) -> Sabotage:
    """A step's transaction runs although this part of its precondition doesn't hold."""

    def sabotage(patch: pytest.MonkeyPatch) -> None:
        honest = transactions.forbidden

        def careless(db: Any, step: Any) -> Any:
            found = honest(db, step)
            return None if found is not None and found.detail == detail else found

        patch.setattr(transactions, "forbidden", careless)

    return sabotage


PAIR = ("CREATE UNIQUE INDEX firing_pair", "CREATE INDEX firing_pair")
CID = (
    "depth INTEGER NOT NULL DEFAULT 0,\n    UNIQUE (cid, namespace)",
    "depth INTEGER NOT NULL DEFAULT 0",
)
FIRED = "SELECT trigger_spec FROM firing WHERE activity"
ANSWERED = "SELECT kind FROM inbox"
DEDUPED = "FROM dedup WHERE scope = ? AND key"
HELD = "SELECT i.public_id, g.input, g.digest FROM instance i"
KNOWN = "SELECT cid, namespace, seq FROM activity WHERE cid IN"

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
        lambda patch: patch.setattr(waking, "unheard", lambda *_: set()),
        "turn_with_unseen_message_stays",
    ),
    "the build that parked": (
        lambda patch: patch.setattr(waking, "_agreed", lambda *_: True),
        "send_wakes_for_another_build",
    ),
    "the build that parked and is gone": (
        lambda patch: patch.setattr(waking, "_agreed", lambda *_: True),
        "send_wakes_for_whoever_comes_after",
    ),
    "the epoch of a transaction": (
        lambda patch: patch.setattr(workers, "is_current", lambda *_: True),
        "transaction_needs_the_epoch",
    ),
    "the epoch of a transaction, reaped": (
        lambda patch: patch.setattr(transactions, "forbidden", lambda *_: None),
        "transaction_of_the_reaped_is_fenced",
    ),
    "the owner of a transaction": (
        transactions_ignore("worker"),
        "transaction_needs_the_owner",
    ),
    "the status in a transaction": (
        transactions_forgive("owner"),
        "transaction_needs_a_live_instance",
    ),
    "the generation of a transaction": (
        transactions_ignore("generation"),
        "transaction_needs_the_generation",
    ),
    "the tag of a transaction": (
        transactions_forgive("tag"),
        "transaction_needs_its_tag_to_pend",
    ),
    "the attempt of a transaction": (
        transactions_forgive("tag"),
        "transaction_needs_its_own_attempt",
    ),
    "the result that is there": (blind_to(ANSWERED), "transaction_runs_once"),
    "the result by hand": (blind_to(ANSWERED), "transaction_of_a_completed_call"),
    "the cancel before a transaction": (
        blind_to(ANSWERED),
        "transaction_of_a_cancelled_instance",
    ),
    "the time limit": (
        lambda patch: (
            patch.setattr(transactions._Held, "give_up", lambda *_: True),
            patch.setattr(store_checks.transactions, "PATIENCE", 0.5),
        ),
        "transaction_that_overruns_is_rolled_back",
    ),
    "the commit by hand": (
        lambda patch: patch.setattr(transactions, "refusal", lambda *_: None),
        "transaction_is_not_ended_by_hand",
    ),
    "the dedup key": (blind_to(DEDUPED), "dedup_key_fires_once"),
    "the window of a dedup key": (
        lambda patch: patch.setattr(firing, "counts", lambda *_: True),
        "dedup_window_ends",
    ),
    "the business key of a firing": (blind_to(HELD), "started_key_is_held"),
    "the rollback of a rehearsal": (
        lambda patch: patch.setattr(
            SqliteStore, "rehearse", lambda self, op, more=(): self.commit(Batch([op], 0.0))[0]
        ),
        "rehearsal_writes_nothing",
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
