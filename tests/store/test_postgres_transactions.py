"""Transactions of steps on PostgreSQL: what a statement may do, and who ends what."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any

import attrs
import psycopg
import pytest

from triggerflow.core.codec import ValueCodec
from triggerflow.core.log import Pending, encode_pending
from triggerflow.errors import StoreError, TimedOut, TransactionError
from triggerflow.store.operations import Batch, Claim, NewInstance, Start, Turn, Verdict
from triggerflow.store.postgres import held, transactions
from triggerflow.store.postgres.placeholders import translate
from triggerflow.store.transactions import Transact

NOW = 1_700_000_000.0
TAG = "call:book#0"
PATIENCE = 60.0


class Desk:
    """A store whose one worker owns one instance, which waits for a transaction."""

    def __init__(self, postgres: Any) -> None:
        self.places = postgres.places
        url = postgres()
        self.store, self.other = postgres.store(url), postgres.store(url)
        self.store.open()
        self.other.open()
        self.schema = self.store._place.schema
        self.worker = self.store.register_worker(build="b", flows=[("f", 1)], now=NOW)
        self.commit(Start(NewInstance("one", "f", 1, b"\xf6", b"seed", NOW)))
        (of,) = self.commit(Claim(1, 0, "b", frozenset({("f", 1)}), NOW)).claimed
        pending = ValueCodec().encode(encode_pending({TAG: Pending()}))
        self.commit(Turn(of.number, of.generation, 0, (), pending, "running", NOW, NOW))
        self.number = of.number
        self.step = Transact(of.number, of.generation, TAG, 0, self.worker, NOW, PATIENCE)
        self.places.ask(
            f"CREATE TABLE {self.schema}_own.seats (seat TEXT PRIMARY KEY, who TEXT)"
        )

    def commit(self, operation: Any) -> Any:
        return self.store.commit(Batch([operation], NOW, self.worker))[0]

    def run(self, work: Callable[[Any], object], **parts: Any) -> Any:
        """A transaction with that work, its result a constant."""
        gave_up = parts.pop("gave_up", lambda: None)

        def whole(tx: Any) -> bytes:
            work(tx)
            return b"\xf6"

        return self.store.transact(attrs.evolve(self.step, **parts), whole, gave_up=gave_up)

    def rows(self) -> list[Any]:
        return self.places.ask(f"SELECT seat, who FROM {self.schema}_own.seats ORDER BY seat")

    def messages(self) -> list[str]:
        return [row.name for row in self.store.inbox(self.number)]

    def kill(self, tx: Any) -> None:
        process = tx._held._connection.info.backend_pid
        self.places.ask("SELECT pg_terminate_backend(%s, 5000)", process)


@pytest.fixture
def desk(postgres: Any) -> Iterator[Desk]:
    made = Desk(postgres)
    yield made
    made.store.close()
    made.other.close()


BOOK = "INSERT INTO seats VALUES ('4A', 'ann')"

# --- what a statement may do --------------------------------------------------------------

WRITES = [
    "INSERT INTO {0}.tried VALUES (1, 'x')",
    "UPDATE {0}.instance SET owner = NULL",
    "DELETE FROM {0}.inbox",
    "TRUNCATE {0}.log",
    "DROP TABLE {0}.firing",
    "ALTER TABLE {0}.activity ADD COLUMN mine TEXT",
    "CREATE INDEX mine ON {0}.log (tag)",
    "WITH gone AS (DELETE FROM {0}.wait RETURNING 1) SELECT * FROM gone",
]


@pytest.mark.parametrize("text", WRITES)
def test_own_tables_can_only_be_read(desk: Desk, text: str) -> None:
    """Whatever a step did to triggerflow's tables, it comes to nothing, and is told by name."""
    before = desk.store.instances(), desk.store.counts()

    def tries(tx: Any) -> None:
        tx.execute(BOOK)
        tx.execute(text.format(desk.schema))

    with pytest.raises(TransactionError, match=r"it may not write to '\w+', a table of"):
        desk.run(tries)
    assert desk.rows() == []
    assert (desk.store.instances(), desk.store.counts()) == before
    assert desk.run(lambda tx: tx.execute(BOOK)).verdict is Verdict.APPLIED


def test_own_tables_can_be_read(desk: Desk) -> None:
    """By their full names: a step finds its own tables by the user's search path."""
    seen: list[Any] = []
    text = f"SELECT public_id FROM {desk.schema}.instance"
    desk.run(lambda tx: seen.append(tx.execute(text).fetchall()))
    assert seen == [[("one",)]]


@pytest.mark.parametrize(
    "text",
    [
        "COMMIT",
        "  -- a word\n  commit",
        "/* a word */ ROLLBACK",
        "END",
        "ABORT",
        "BEGIN",
        "START TRANSACTION",
        "SAVEPOINT a",
        "RELEASE a",
        "PREPARE TRANSACTION 'a'",
        "DISCARD ALL",
        "LISTEN news",
    ],
)
def test_it_is_not_ended_by_hand(desk: Desk, text: str) -> None:
    """The statement is refused by name, and the rest of the step stands."""

    def tries(tx: Any) -> None:
        tx.execute(BOOK)
        with pytest.raises(TransactionError, match="it may not "):
            tx.execute(text)
        tx.execute("INSERT INTO seats VALUES ('4B', 'ann')")

    assert desk.run(tries).verdict is Verdict.APPLIED
    assert desk.rows() == [("4A", "ann"), ("4B", "ann")]


@pytest.mark.parametrize(
    "text",
    ["INSERT INTO seats VALUES ('9Z', 'eve'); COMMIT", "DO $$ BEGIN COMMIT; END $$"],
)
def test_a_commit_hidden_in_a_statement_fails(desk: Desk, text: str) -> None:
    """Two statements in one, or a block that commits, are the database's own errors."""

    def tries(tx: Any) -> None:
        tx.execute(BOOK)
        tx.execute(text)

    with pytest.raises(psycopg.Error):
        desk.run(tries)
    assert desk.rows() == []
    assert desk.messages() == []


def test_rows_come_back_as_they_are(desk: Desk) -> None:
    """Rows and counts; values by position or by name, in SQLite's form or psycopg's."""

    def work(tx: Any) -> None:
        many = ((f"{n}A", "ann") for n in range(3))
        assert tx.executemany("INSERT INTO seats VALUES (?, ?)", many).rowcount == 3
        tx.executemany("INSERT INTO seats VALUES (:s, :w)", [{"s": "9A", "w": "bob"}])
        tx.execute("INSERT INTO seats VALUES (%s, %s)", ("8A", "sue"))
        found = tx.execute("SELECT seat FROM seats WHERE who = :who ORDER BY 1", {"who": "ann"})
        assert found.fetchone() == ("0A",)
        assert list(found) == [("1A",), ("2A",)]
        assert found.fetchone() is None
        assert tx.execute("DELETE FROM seats WHERE who = ?", ["ann"]).rowcount == 3
        last = tx.execute("INSERT INTO seats VALUES ('5A', 'eve') RETURNING seat")
        assert last.fetchall() == [("5A",)]

    desk.run(work)
    assert desk.rows() == [("5A", "eve"), ("8A", "sue"), ("9A", "bob")]


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("a = ?", "a = %s"),
        ("a = :b", "a = %(b)s"),
        ("a = '?' AND \"x?\" = ?", "a = '?' AND \"x?\" = %s"),
        ("a::text = ? -- really?\n", "a::text = %s -- really?\n"),
        ("a LIKE 'x%' AND b = ?", "a LIKE 'x%%' AND b = %s"),
        ("$$ ? $$ || ?", "$$ ? $$ || %s"),
        ("a = %s AND b ? 'c'", "a = %s AND b ? 'c'"),
        ("/* :no */ :yes", "/* :no */ %(yes)s"),
    ],
)
def test_placeholders_of_either_backend_will_do(given: str, expected: str) -> None:
    """Quoted texts, names, comments and casts have none in them."""
    assert translate(given, (1,)) == expected
    assert translate(given, ()) == given


def test_the_databases_errors_come_as_they_are(desk: Desk) -> None:
    """A broken constraint leaves the step as the database's own error."""

    def work(tx: Any) -> None:
        tx.execute(BOOK)
        tx.execute("INSERT INTO seats VALUES ('4A', 'bob')")

    with pytest.raises(psycopg.errors.UniqueViolation):
        desk.run(work)
    assert desk.rows() == []


def test_a_swallowed_error_is_noticed(desk: Desk) -> None:
    """PostgreSQL has taken all back by then: it says so, and nothing can land half."""

    def work(tx: Any) -> None:
        tx.execute(BOOK)
        with pytest.raises(psycopg.errors.UniqueViolation):
            tx.execute("INSERT INTO seats VALUES ('4A', 'bob')")
        with pytest.raises(TransactionError, match="rolls a transaction back after an error"):
            tx.execute("INSERT INTO seats VALUES ('4C', 'bob')")

    with pytest.raises(TransactionError, match="rolls a transaction back after an error"):
        desk.run(work)
    assert desk.rows() == []
    assert desk.messages() == []


def test_a_constraint_that_is_looked_at_late_is_the_steps_error(desk: Desk) -> None:
    """Deferred to the commit, it undoes the result as well."""

    def work(tx: Any) -> None:
        tx.execute(
            "CREATE TABLE bags (seat TEXT REFERENCES seats DEFERRABLE INITIALLY DEFERRED)"
        )
        tx.execute("INSERT INTO bags VALUES ('4A')")

    with pytest.raises(psycopg.errors.ForeignKeyViolation):
        desk.run(work)
    assert desk.messages() == []


def test_a_connection_is_clean_for_the_next_step(desk: Desk) -> None:
    """Settings and temporary tables of one step are not there for the next."""

    def spoils(tx: Any) -> None:
        tx.execute("SET search_path TO pg_catalog")
        tx.execute("CREATE TEMP TABLE mine (n INTEGER)")
        tx.execute("SELECT pg_advisory_lock(7)")
        raise LookupError

    def looks(tx: Any) -> None:
        tx.execute(BOOK)
        assert tx.execute("SELECT to_regclass('mine')").fetchone() == (None,)

    for _ in range(transactions.AT_ONCE + 1):
        with pytest.raises(LookupError):
            desk.run(spoils)
        desk.run(looks, tag=TAG)
        desk.places.ask(f"DELETE FROM {desk.schema}.inbox")
        desk.places.ask(f"DELETE FROM {desk.schema}_own.seats")


# --- others -------------------------------------------------------------------------------


def test_others_commit_while_it_works(desk: Desk) -> None:
    """A step holds up nobody: not even other turns of its own instance."""

    def work(tx: Any) -> None:
        tx.execute(BOOK)
        desk.other.commit(
            Batch([Start(NewInstance("two", "f", 1, b"\xf6", b"seed", NOW))], NOW)
        )
        (seen,) = [each for each in desk.store.instances() if each.id == "one"]
        turn = Turn(
            seen.number, 1, seen.log_length, (), seen.pending or b"", "running", NOW, NOW
        )
        assert desk.commit(turn).verdict is Verdict.APPLIED

    assert desk.run(work).verdict is Verdict.APPLIED


def test_a_worker_that_is_reaped_meanwhile_leaves_nothing(desk: Desk) -> None:
    """The check at the end finds the epoch gone, and all of it is rolled back."""

    def work(tx: Any) -> None:
        tx.execute(BOOK)
        desk.other.reap({each.id: each.seen for each in desk.other.workers()})

    found = desk.run(work)
    assert (found.verdict, found.detail) == (Verdict.FENCED, "worker")
    assert desk.rows() == []
    assert desk.messages() == []


def test_the_check_at_the_end_is_what_keeps_it_out(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without it the rows of a worker that was reaped would land."""
    monkeypatch.setattr(held.Held, "_forbidden", lambda self: None)

    def work(tx: Any) -> None:
        tx.execute(BOOK)
        desk.other.reap({each.id: each.seen for each in desk.other.workers()})

    assert desk.run(work).verdict is Verdict.APPLIED
    assert desk.rows() == [("4A", "ann")]


def test_a_call_that_is_completed_meanwhile_is_not_done_twice(desk: Desk) -> None:
    """Somebody's answer that came while the step worked counts; the step's doesn't."""
    from triggerflow.store.operations import Send

    def work(tx: Any) -> None:
        tx.execute(BOOK)
        desk.other.commit(Batch([Send("one", "complete", TAG, b"\xf6", NOW)], NOW))

    assert desk.run(work).verdict is Verdict.DUPLICATE
    assert desk.rows() == []
    assert desk.messages() == [TAG]


# --- the time limit, and the server --------------------------------------------------------

FOREVER = "SELECT pg_sleep(600)"


@pytest.mark.parametrize(
    "work",
    [
        lambda tx: tx.execute(FOREVER),
        lambda tx: [tx.execute("SELECT 1") for _ in iter(int, 1)],
        lambda tx: tx.executemany("UPDATE seats SET who = ?", [("x",)] * 2_000_000),
    ],
    ids=["one statement", "many statements", "executemany"],
)
def test_a_statement_that_runs_on_is_ended(desk: Desk, work: Any) -> None:
    """Past the limit the statement itself is ended, and its locks are free."""

    def overruns(tx: Any) -> None:
        tx.execute(BOOK)
        work(tx)

    with pytest.raises(TimedOut, match=TAG):
        desk.run(overruns, limit=0.05)
    assert desk.rows() == []
    assert desk.run(lambda tx: tx.execute(BOOK)).verdict is Verdict.APPLIED


def test_a_thread_that_stands_still_keeps_nobody_out(desk: Desk) -> None:
    """As many as there are places overrun at once; the next one gets a place all the same."""
    go, over = threading.Event(), threading.Semaphore(0)
    found: list[Any] = []

    def stands(tx: Any) -> None:
        tx.execute("SELECT 1")
        assert go.wait(PATIENCE)

    def runs() -> None:
        try:
            desk.run(stands, limit=0.02, gave_up=over.release)
        except BaseException as error:
            found.append(type(error))

    threads = [threading.Thread(target=runs) for _ in range(transactions.AT_ONCE)]
    for thread in threads:
        thread.start()
    for _ in threads:
        assert over.acquire(timeout=PATIENCE)
    assert desk.run(lambda tx: tx.execute(BOOK)).verdict is Verdict.APPLIED
    go.set()
    for thread in threads:
        thread.join(PATIENCE)
    assert found == [TimedOut] * len(threads)


def test_closing_ends_what_runs_and_what_waits(desk: Desk) -> None:
    """A step that stands still can't keep the store open, nor can one that has no place."""
    go = threading.Event()
    inside = threading.Semaphore(0)
    found: list[Any] = []

    def stands(tx: Any) -> None:
        tx.execute("SELECT 1")
        inside.release()
        assert go.wait(PATIENCE)

    def runs() -> None:
        try:
            desk.run(stands)
        except BaseException as error:
            found.append(error)

    count = transactions.AT_ONCE + 2
    threads = [threading.Thread(target=runs) for _ in range(count)]
    for thread in threads:
        thread.start()
    for _ in range(transactions.AT_ONCE):
        assert inside.acquire(timeout=PATIENCE)
    while len(desk.store._transactions._waiting) < 2:
        pass
    desk.store.close()
    go.set()
    for thread in threads:
        thread.join(PATIENCE)
    assert [type(each) for each in found] == [StoreError] * count
    assert {"is not open" in str(each) for each in found} == {True}


def test_a_connection_lost_in_a_step_is_the_stores_failure(desk: Desk) -> None:
    """It is no failure of the step, whatever the step makes of it: nothing has happened."""

    def work(tx: Any) -> None:
        tx.execute(BOOK)
        desk.kill(tx)
        tx.execute("INSERT INTO seats VALUES ('4B', 'ann')")

    with pytest.raises(StoreError):
        desk.run(work)
    assert desk.rows() == []
    assert desk.messages() == []
    assert desk.run(lambda tx: tx.execute(BOOK)).verdict is Verdict.APPLIED


def test_a_commit_that_nobody_confirmed_is_recognised(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The connection ends between the commit and its answer: it landed, and says so."""
    keep = held.Held.keep

    def kept(one: Any, result: bytes) -> Any:
        found = keep(one, result)
        raise psycopg.OperationalError(f"lost, {found.verdict.value} or not")

    monkeypatch.setattr(held.Held, "keep", kept)
    assert desk.run(lambda tx: tx.execute(BOOK)).verdict is Verdict.APPLIED
    assert desk.rows() == [("4A", "ann")]
    assert desk.messages() == [TAG]
