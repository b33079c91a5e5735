"""Transactions of steps on SQLite: what a statement may do, and who ends what, by hazard."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import attrs
import pytest

from triggerflow.core.codec import ValueCodec
from triggerflow.core.log import Pending, encode_pending
from triggerflow.errors import StoreError, TimedOut, TransactionError
from triggerflow.store.operations import Batch, Claim, NewInstance, Start, Turn, Verdict
from triggerflow.store.sqlite import MemoryStore, SqliteStore, schema, transactions
from triggerflow.store.sqlite.locks import FairLock
from triggerflow.store.transactions import Transact

NOW = 1_700_000_000.0
TAG = "call:book#0"
PATIENCE = 60.0
FOREVER = "WITH RECURSIVE t(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM t) "


class Desk:
    """A store whose one worker owns one instance, which waits for a transaction."""

    def __init__(self, store: Any) -> None:
        self.store = store
        store.open()
        self.worker = store.register_worker(build="b", flows=[("f", 1)], now=NOW)
        self.start("one")
        claim = Claim(1, 0, "b", frozenset({("f", 1)}), NOW)
        (of,) = self.commit(claim).claimed
        pending = ValueCodec().encode(encode_pending({TAG: Pending()}))
        self.commit(Turn(of.number, of.generation, 0, (), pending, "running", NOW, NOW))
        self.step = Transact(of.number, of.generation, TAG, 0, self.worker, NOW, PATIENCE)
        # A table of the user's, made by other means.
        self.do(lambda tx: tx.execute("CREATE TABLE seats (seat TEXT PRIMARY KEY, who TEXT)"))

    def commit(self, operation: Any) -> Any:
        return self.store.commit(Batch([operation], NOW, self.worker))[0]

    def start(self, id: str) -> None:
        self.commit(Start(NewInstance(id, "f", 1, b"\xf6", b"seed", NOW)))

    def run(self, work: Callable[[Any], object], **parts: Any) -> Any:
        """A transaction with that work, its result a constant."""
        gave_up = parts.pop("gave_up", lambda: None)

        def whole(tx: Any) -> bytes:
            work(tx)
            return b"\xf6"

        return self.store.transact(attrs.evolve(self.step, **parts), whole, gave_up=gave_up)

    def do(self, work: Callable[[Any], object]) -> None:
        """The same as a user's own business: no message of it is left."""
        assert self.run(work).verdict is Verdict.APPLIED
        with self.store._locks.turn():
            self.store._db.execute("DELETE FROM inbox WHERE name = ?", (TAG,))

    def rows(self, sql: str = "SELECT seat, who FROM seats ORDER BY seat") -> list[Any]:
        return self.store._read(lambda db: db.execute(sql).fetchall())


@pytest.fixture(params=["memory", "sqlite"])
def desk(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Desk]:
    made = Desk(MemoryStore() if request.param == "memory" else SqliteStore(tmp_path / "a.db"))
    yield made
    made.store.close()


# --- what a statement may do --------------------------------------------------------------

REFUSED = {
    "INSERT INTO log (instance) VALUES (1)": "insert into 'log'",
    "UPDATE instance SET owner = NULL": "update 'instance'",
    "delete from INBOX": "delete from 'inbox'",
    "REPLACE INTO worker_flow VALUES (1, 'x', 1)": "'worker_flow'",
    "DROP TABLE firing": "firing",
    "ALTER TABLE activity ADD COLUMN mine": "alter 'activity'",
    "CREATE INDEX mine ON log (tag)": "make an index on 'log'",
    "DROP INDEX firing_pair": "firing",
    "CREATE TRIGGER mine AFTER INSERT ON log BEGIN SELECT 1; END": "make a trigger on 'log'",
    "UPDATE sqlite_sequence SET seq = 0": "update 'sqlite_sequence'",
    "INSERT INTO onto_log VALUES (1)": "insert into 'log'",
    "CREATE TEMP TABLE mine (n)": "temporary tables",
    "PRAGMA user_version = 7": "PRAGMA user_version",
    "PRAGMA writable_schema = ON": "PRAGMA writable_schema",
    "PRAGMA journal_mode = DELETE": "PRAGMA journal_mode",
    "ATTACH ':memory:' AS other": "attach another database",
    "DETACH main": "detach a database",
    "COMMIT": "commit or roll back by hand",
    "ROLLBACK": "commit or roll back by hand",
    "BEGIN": "commit or roll back by hand",
    "SAVEPOINT a": "use savepoints",
    "ANALYZE": "'sqlite_stat1'|analyze",
}


@pytest.mark.parametrize("sql", REFUSED)
def test_what_may_not_be_done_is_refused_by_name(desk: Desk, sql: str) -> None:
    """What could break triggerflow's record is refused, and the rest of the step stands."""
    desk.do(lambda tx: tx.execute("CREATE VIEW onto_log AS SELECT instance FROM log"))
    # A view's trigger is a way round, which must be closed too.
    desk.do(
        lambda tx: tx.execute(
            "CREATE TRIGGER write_log INSTEAD OF INSERT ON onto_log BEGIN"
            " INSERT INTO log (instance, generation, position, tag, value, failed, at)"
            " VALUES (1, 1, 0, 't', x'f6', 0, 0); END"
        )
    )

    def tries(tx: Any) -> None:
        tx.execute("INSERT INTO seats VALUES ('4A', 'ann')")
        with pytest.raises(TransactionError, match=REFUSED[sql]) as caught:
            tx.execute(sql)
        assert str(caught.value).startswith(f"transaction of {TAG}: it may not ")
        tx.execute("INSERT INTO seats VALUES ('4B', 'ann')")

    assert desk.run(tries).verdict is Verdict.APPLIED
    assert desk.rows() == [("4A", "ann"), ("4B", "ann")]
    assert desk.rows("SELECT count(*) FROM log") == [(0,)]


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT count(*) FROM log",
        "SELECT * FROM seats JOIN instance ON instance.public_id = seats.who",
        "PRAGMA table_info(instance)",
        "CREATE TABLE other (id INTEGER PRIMARY KEY AUTOINCREMENT, n)",
        "CREATE INDEX seats_who ON seats (who)",
        "ALTER TABLE seats ADD COLUMN price",
        "CREATE TRIGGER t AFTER INSERT ON seats BEGIN DELETE FROM seats WHERE who = ''; END",
        "INSERT INTO seats VALUES ('1A', 'x') ON CONFLICT DO NOTHING RETURNING seat",
        "WITH t(n) AS (SELECT 1) UPDATE seats SET who = (SELECT n FROM t)",
        "DROP TABLE seats",
    ],
)
def test_the_users_own_is_free(desk: Desk, sql: str) -> None:
    """One's own tables may be made, changed and written; triggerflow's may be read."""
    assert desk.run(lambda tx: tx.execute(sql)).verdict is Verdict.APPLIED


def test_names_of_own_tables_come_from_the_schema() -> None:
    """Whatever a migration makes is protected, without a list to forget."""
    assert {"activity", "firing", "instance", "log", "inbox", "worker"} <= schema.tables()
    assert "sqlite_sequence" in schema.tables()


def test_rows_come_back_as_they_are(desk: Desk) -> None:
    """Rows, counts and rowids; values by position or by name; many at once."""

    def work(tx: Any) -> None:
        many = ((f"{n}A", "ann") for n in range(3))
        assert tx.executemany("INSERT INTO seats VALUES (?, ?)", many).rowcount == 3
        tx.executemany("INSERT INTO seats VALUES (:s, :w)", [{"s": "9A", "w": "bob"}])
        found = tx.execute("SELECT seat FROM seats WHERE who = :who", {"who": "ann"})
        assert found.fetchone() == ("0A",)
        assert list(found) == [("1A",), ("2A",)]
        assert found.fetchone() is None
        assert tx.execute("DELETE FROM seats WHERE who = ?", ["ann"]).rowcount == 3
        last = tx.execute("INSERT INTO seats VALUES ('5A', 'eve') RETURNING seat")
        assert last.lastrowid is not None
        assert last.fetchall() == [("5A",)]

    desk.do(work)
    assert desk.rows() == [("5A", "eve"), ("9A", "bob")]


def test_the_databases_errors_come_as_they_are(desk: Desk) -> None:
    """A step may catch a broken constraint and go on; only the statement is undone."""

    def work(tx: Any) -> None:
        tx.execute("INSERT INTO seats VALUES ('4A', 'ann')")
        with pytest.raises(sqlite3.IntegrityError):
            tx.execute("INSERT INTO seats VALUES ('4A', 'bob')")
        with pytest.raises(sqlite3.OperationalError, match="no such table"):
            tx.execute("SELECT * FROM chairs")

    desk.do(work)
    assert desk.rows() == [("4A", "ann")]


def test_a_rollback_by_the_database_is_noticed(desk: Desk) -> None:
    """After INSERT OR ROLLBACK the next statement would be durable alone: it is refused."""

    def work(tx: Any) -> None:
        tx.execute("INSERT INTO seats VALUES ('4A', 'ann')")
        with pytest.raises(sqlite3.IntegrityError):
            tx.execute("INSERT OR ROLLBACK INTO seats VALUES ('4A', 'bob')")
        with pytest.raises(TransactionError, match="has rolled it back"):
            tx.execute("INSERT INTO seats VALUES ('4C', 'bob')")

    with pytest.raises(TransactionError, match="has rolled it back"):
        desk.run(work)
    assert desk.rows() == []
    assert desk.store.inbox(1) == []


def test_foreign_keys_are_kept(desk: Desk) -> None:
    """Foreign keys hold, those too that are looked at when it commits: the step's error."""
    desk.do(
        lambda tx: tx.execute(
            "CREATE TABLE bags (seat REFERENCES seats DEFERRABLE INITIALLY DEFERRED)"
        )
    )
    with pytest.raises(sqlite3.IntegrityError):
        desk.run(lambda tx: tx.execute("INSERT INTO bags VALUES ('4A')"))
    assert desk.rows("SELECT * FROM bags") == []
    assert desk.store.inbox(1) == []
    desk.start("others are as before")


# --- the time limit ------------------------------------------------------------------------


@pytest.mark.parametrize(
    "work",
    [
        lambda tx: tx.execute(f"{FOREVER}SELECT count(*) FROM t"),
        lambda tx: tx.execute(f"{FOREVER}INSERT INTO seats SELECT n, 'x' FROM t"),
        lambda tx: [tx.execute("SELECT 1") for _ in iter(int, 1)],
        lambda tx: tx.executemany("UPDATE seats SET who = ?", [("x",)] * 2_000_000),
    ],
    ids=["a query", "an insert", "many statements", "executemany"],
)
def test_a_statement_that_runs_on_is_interrupted(desk: Desk, work: Any) -> None:
    """Past the limit the statement itself is stopped, and others write at once."""

    def overruns(tx: Any) -> None:
        tx.execute("INSERT INTO seats VALUES ('4A', 'ann')")
        work(tx)

    with pytest.raises(TimedOut, match=TAG):
        desk.run(overruns, limit=0.05)
    desk.start("another")
    assert desk.rows() == []
    assert desk.store.inbox(1) == []


def test_a_step_that_swallows_the_error_goes_on_in_vain(desk: Desk) -> None:
    """Whatever it does with the dead transaction, nothing of it lands, and it has timed out."""
    seen = []

    def overruns(tx: Any) -> None:
        for _ in range(3):
            try:
                tx.execute(f"{FOREVER}SELECT count(*) FROM t")
            except TransactionError as error:
                seen.append(str(error))
        try:
            tx.execute("INSERT INTO seats VALUES ('4A', 'ann')")
        except TransactionError:
            seen.append("refused")

    with pytest.raises(TimedOut):
        desk.run(overruns, limit=0.05)
    assert len(seen) == 4
    assert "its 0.05 s have passed, and everything in it was rolled back" in seen[0]
    assert desk.rows() == []


def test_a_late_thread_never_touches_the_next_transaction(desk: Desk) -> None:
    """A thread that was given up uses its transaction while the next one runs: refused."""
    late, over, done = threading.Event(), threading.Event(), threading.Event()
    seen: list[object] = []

    def overruns(tx: Any) -> None:
        assert late.wait(PATIENCE)
        try:
            tx.execute("INSERT INTO seats VALUES ('4A', 'late')")
        except TransactionError as error:
            seen.append(error)
        done.set()

    def first() -> None:
        try:
            desk.run(overruns, limit=0.02, gave_up=over.set)
        except TimedOut as error:
            seen.append(error)

    thread = threading.Thread(target=first)
    thread.start()
    assert over.wait(PATIENCE)

    def second(tx: Any) -> None:
        late.set()
        assert done.wait(PATIENCE)
        tx.execute("INSERT INTO seats VALUES ('4A', 'ann')")

    desk.do(second)
    thread.join(PATIENCE)
    assert [type(each) for each in seen] == [TransactionError, TimedOut]
    assert desk.rows() == [("4A", "ann")]


def test_a_generator_of_rows_does_not_hold_the_guard(desk: Desk) -> None:
    """A generator that stands still can't keep the transaction from being ended."""
    over = threading.Event()

    def rows() -> Iterator[Any]:
        yield ("4A", "ann")
        assert over.wait(PATIENCE)

    def overruns(tx: Any) -> None:
        tx.executemany("INSERT INTO seats VALUES (?, ?)", rows())

    with pytest.raises(TimedOut):
        desk.run(overruns, limit=0.02, gave_up=over.set)
    assert desk.rows() == []


def test_a_commit_in_progress_is_not_interrupted(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever has begun to commit is past all limits: what it says is what is so."""
    entered, tried, interrupted = (threading.Event() for _ in range(3))
    give_up = transactions._Held.give_up

    class Guard:
        """Tells when the watch has found it held and comes again: it could interrupt now."""

        def __init__(self, guard: Any) -> None:
            self.guard, self.asked = guard, 0

        def acquire(self, timeout: float) -> bool:
            self.asked += 1
            if self.asked == 3:
                tried.set()
            return self.guard.acquire(timeout=timeout)

        def release(self) -> None:
            self.guard.release()

        def __enter__(self) -> None:
            self.guard.acquire()

        def __exit__(self, *_: object) -> None:
            self.guard.release()

    def watched(self: Any, reason: Exception) -> bool:
        # The limit passes while the commit stands in the middle of it.
        assert entered.wait(PATIENCE)
        self._guard = Guard(self._guard)
        return give_up(self, reason)

    monkeypatch.setattr(transactions._Held, "give_up", watched)

    class Slow:
        def __init__(self, db: Any) -> None:
            self.db = db

        def execute(self, sql: str, *values: Any) -> Any:
            if sql == "COMMIT":
                entered.set()
                assert tried.wait(PATIENCE)
            return self.db.execute(sql, *values)

        def interrupt(self) -> None:
            interrupted.set()

        def __getattr__(self, name: str) -> Any:
            return getattr(self.db, name)

    def work(tx: Any) -> None:
        tx._held._db = Slow(tx._held._db)
        tx.execute("INSERT INTO seats VALUES ('4A', 'ann')")

    assert desk.run(work, limit=0.01).verdict is Verdict.APPLIED
    assert not interrupted.is_set()
    assert desk.rows() == [("4A", "ann")]
    assert len(desk.store.inbox(1)) == 1


def test_a_rollback_in_progress_is_not_interrupted(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A step that fails just as its limit passes is rolled back whole: the file is free."""
    interrupted = threading.Event()

    class Rolling:
        """Its rollback stands until the watch has had every chance to interrupt it."""

        def __init__(self, db: Any, held: Any) -> None:
            self.db, self.held = db, held

        def execute(self, sql: str, *values: Any) -> Any:
            if sql == "ROLLBACK":
                for _ in range(50):
                    self.held._guard.acquire(timeout=0.001)
                assert not interrupted.is_set()
            return self.db.execute(sql, *values)

        def interrupt(self) -> None:
            interrupted.set()
            self.db.interrupt()

        def __getattr__(self, name: str) -> Any:
            return getattr(self.db, name)

    def fails(tx: Any) -> None:
        tx._held._db = Rolling(tx._held._db, tx._held)
        tx.execute("INSERT INTO seats VALUES ('4A', 'ann')")
        raise ZeroDivisionError

    with pytest.raises((ZeroDivisionError, TimedOut)):
        desk.run(fails, limit=0.01)
    desk.start("another")
    assert desk.rows() == []


def test_a_rollback_that_fails_frees_the_file(tmp_path: Path) -> None:
    """The connection is closed before the turn is given up, and the next one is new."""
    desk = Desk(SqliteStore(tmp_path / "a.db"))

    class Broken:
        def __init__(self, db: Any) -> None:
            self.db = db

        def execute(self, sql: str, *values: Any) -> Any:
            if sql == "ROLLBACK":
                raise sqlite3.OperationalError("disk I/O error")
            return self.db.execute(sql, *values)

        def __getattr__(self, name: str) -> Any:
            return getattr(self.db, name)

    def fails(tx: Any) -> None:
        tx._held._db = Broken(tx._held._db)
        tx.execute("INSERT INTO seats VALUES ('4A', 'ann')")
        raise ZeroDivisionError

    with pytest.raises(StoreError, match=r"disk I/O error|closed database"):
        desk.run(fails)
    desk.start("another")
    assert desk.rows() == []
    desk.do(lambda tx: tx.execute("INSERT INTO seats VALUES ('4B', 'bob')"))
    assert desk.rows() == [("4B", "bob")]
    desk.store.close()


# --- closing, forking, waiting -------------------------------------------------------------


@pytest.mark.parametrize("how", ["abandon", "close"])
def test_closing_ends_what_runs_and_refuses_what_waits(tmp_path: Path, how: str) -> None:
    """A store that is left rolls back, frees the turn, and the file is at once usable."""
    desk = Desk(SqliteStore(tmp_path / "a.db"))
    begun, go = threading.Event(), threading.Event()
    seen: list[BaseException] = []

    def stands(tx: Any) -> None:
        tx.execute("INSERT INTO seats VALUES ('4A', 'ann')")
        begun.set()
        assert go.wait(PATIENCE)

    def attempt() -> None:
        try:
            desk.run(stands)
        except StoreError as error:
            seen.append(error)

    threads = [threading.Thread(target=attempt) for _ in range(3)]
    for thread in threads:
        thread.start()
    assert begun.wait(PATIENCE)
    getattr(desk.store, how)()
    # Before the thread has even come back.
    again = SqliteStore(tmp_path / "a.db")
    again.open()
    assert again._read(lambda db: db.execute("SELECT * FROM seats").fetchall()) == []
    again.commit(Batch([Start(NewInstance("x", "f", 1, b"", b"", NOW))], NOW))
    go.set()
    for thread in threads:
        thread.join(PATIENCE)
    assert [str(each) for each in seen] == [f"store {desk.store.url}: is not open"] * 3
    again.close()


def test_a_closed_store_says_so(desk: Desk) -> None:
    """A transaction on a store that isn't open is refused by name."""
    desk.store.abandon()
    with pytest.raises(StoreError, match="is not open"):
        desk.run(lambda tx: None)
    desk.store.open()
    # Its worker is gone: it was this store's.
    assert desk.run(lambda tx: None).verdict in (Verdict.APPLIED, Verdict.FENCED)


def test_the_fair_lock_keeps_the_order() -> None:
    """Threads get it in the order in which they asked, however fast one asks again."""
    lock, order = FairLock(), []
    lock.acquire()
    threads = []
    for number in range(5):
        thread = threading.Thread(target=lambda n=number: (lock.acquire(), order.append(n)))
        thread.start()
        threads.append(thread)
        while len(lock._waiting) <= number:
            pass
    for number in range(5):
        lock.release()
        threads[number].join(PATIENCE)
    assert order == list(range(5))
    lock.release()
    assert not lock._held


def test_a_busy_committer_and_transactions_alternate(desk: Desk) -> None:
    """One that waits is behind one commit, and the committer behind one transaction."""
    order: list[str] = []
    begun, go = threading.Event(), threading.Event()

    def first(tx: Any) -> None:
        begun.set()
        assert go.wait(PATIENCE)
        order.append("transaction")

    def transact(work: Callable[[Any], object]) -> None:
        desk.run(work)

    threads = [threading.Thread(target=transact, args=(first,))]
    threads[0].start()
    assert begun.wait(PATIENCE)
    locks = desk.store._locks
    turn = getattr(locks, "_thread", None) or locks._write
    gate = desk.store._transactions._gate

    def second(tx: Any) -> None:
        order.append("transaction")

    # Two more wait at the gate, then the committer at the turn: it is the next all the same.
    for waiting in (1, 2):
        # Their call has been answered by then: the order is what counts.
        threads.append(threading.Thread(target=transact, args=(second,)))
        threads[-1].start()
        while len(gate._waiting) < waiting:
            pass

    def commit() -> None:
        with locks.turn():
            order.append(f"commit before {len(gate._waiting)} more")

    threads.append(threading.Thread(target=commit))
    threads[-1].start()
    while not turn._waiting:
        pass
    go.set()
    for thread in threads:
        thread.join(PATIENCE)
    assert order[:2] == ["transaction", "commit before 1 more"]
