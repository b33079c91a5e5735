"""Transaction steps: the user's rows and the call's result are one commit, whatever happens."""

from __future__ import annotations

import contextlib
import logging
import sqlite3
import threading

import pytest
import trio

import triggerflow as tf
from triggerflow.errors import StoreError
from triggerflow.store.operations import Verdict
from triggerflow.store.sqlite import MemoryStore, SqliteStore
from triggerflow.store.sqlite import transactions as sqlite_transactions
from triggerflow.testing import crash_everywhere
from triggerflow.testing.crash import CrashingStore

PATIENCE = 60.0
SEATS = "CREATE TABLE IF NOT EXISTS seats (seat TEXT, who TEXT)"


@tf.transaction
def book(tx, seat, who="ann"):
    tx.execute(SEATS)
    tx.execute("INSERT INTO seats (seat, who) VALUES (?, ?)", (seat, who))
    return {"seat": seat}


def seats(store):
    """The user's rows, as they are stored."""

    def look(db):
        with contextlib.suppress(sqlite3.OperationalError):
            return db.execute("SELECT seat, who FROM seats ORDER BY rowid").fetchall()
        return []

    return store._read(look)


class Held:
    """A store whose transactions begin only when a test lets them."""

    def __init__(self, store):
        self.store = store
        self.waits, self.go = threading.Event(), threading.Event()
        self.outcomes = []
        self.ended = threading.Event()

    def __getattr__(self, name):
        return getattr(self.store, name)

    def transact(self, step, work, *, gave_up):
        self.waits.set()
        assert self.go.wait(PATIENCE)
        try:
            found = self.store.transact(step, work, gave_up=gave_up)
            self.outcomes.append(found)
            return found
        finally:
            self.ended.set()


async def _until(condition):
    while True:
        found = condition()
        if hasattr(found, "__await__"):
            found = await found
        if found:
            return
        await trio.sleep(0.005)


async def _heard(event):
    assert await trio.to_thread.run_sync(event.wait, PATIENCE)


# --- what it is ----------------------------------------------------------------------------


def test_rows_and_result_are_there_together(new_app, live, make_store):
    """The flow gets what the step returned; one entry, no message left, the rows stored."""
    app = new_app(make_store())
    contexts = []

    @tf.transaction(name="reserve", timeout=0.5)
    def some(tx, seat, *, who):
        contexts.append(tf.step_context())
        tx.execute(SEATS)
        tx.executemany("INSERT INTO seats VALUES (?, ?)", [(seat, who)])
        return [seat, tx.execute("SELECT count(*) FROM seats").fetchone()[0]]

    @app.flow
    def f(seat):
        first = yield tf.call(some, seat, who="ann")
        return [first, (yield tf.call(some, "9C", who="bob"))]

    async def scenario(engine):
        id = await engine.start(f, "4A")
        found = await engine.wait(id)
        record = app.store.instance(id)
        assert app.store.inbox(record.number) == []
        assert seats(app.store) == [("4A", "ann"), ("9C", "bob")]
        return found, [(each.tag, each.value) for each in await engine.log(id)]

    found, log = live(app, scenario)
    assert found.result == [["4A", 1], ["9C", 2]]
    assert log == [("call:reserve#0", ["4A", 1]), ("call:reserve#1", ["9C", 2])]
    assert [(each.tag, each.attempt) for each in contexts] == [
        ("call:reserve#0", 1),
        ("call:reserve#1", 1),
    ]


def test_many_at_once_on_threads(new_app, real, make_store):
    """A hundred instances, with other work between: each books once, and all end."""
    app = new_app(make_store())

    @app.flow
    def f(n):
        yield tf.call(abs, n)
        yield tf.gather(tf.call(book, f"{n}A"), tf.call(book, f"{n}B"), tf.call(abs, n))

    async def scenario():
        async with app.open() as engine:
            ids = [await engine.start(f, n) for n in range(50)]
            for id in ids:
                assert (await engine.wait(id)).status == "done"
            return seats(app.store)

    assert sorted(real(scenario)) == sorted((f"{n}{x}", "ann") for n in range(50) for x in "AB")


def test_the_owner_is_told_without_polling(new_app, live, make_store):
    """On virtual time nothing else moves the clock: the result is taken at once."""
    app = new_app(make_store())

    @app.flow
    def f(_):
        for n in range(20):
            yield tf.call(book, str(n))

    async def scenario(engine):
        before = trio.current_time()
        await engine.wait(await engine.start(f))
        return trio.current_time() - before

    assert live(app, scenario) == 0


def test_replay_is_strict(new_app, live):
    """A transaction's entry replays like any other call's, in always_replay mode too."""
    app = new_app()

    @app.flow
    def f(_):
        one = yield tf.call(book, "1")
        yield tf.sleep(5)
        return [one, (yield tf.call(book, "2"))]

    async def scenario(engine):
        return (await engine.wait(await engine.start(f))).result

    found = live(app, scenario, always_replay=True)
    assert found == [{"seat": "1"}, {"seat": "2"}]


# --- failures ------------------------------------------------------------------------------


def test_an_exception_rolls_back_and_the_policy_decides(new_app, live, make_store):
    """Rows of failed attempts are gone; the last attempt's stay."""
    app = new_app(make_store())
    attempts = []

    @tf.transaction
    def flaky(tx):
        attempts.append(tf.step_context().attempt)
        book.fn(tx, f"try {len(attempts)}")
        if len(attempts) < 3:
            raise RuntimeError("not yet")
        return "booked"

    @app.flow
    def f(_):
        return (yield tf.call(flaky).using(retry=tf.RetryPolicy(max_attempts=3)))

    async def scenario(engine):
        found = await engine.wait(await engine.start(f))
        return found.result, seats(app.store)

    assert live(app, scenario) == ("booked", [("try 3", "ann")])
    assert attempts == [1, 2, 3]


def test_without_a_policy_it_is_tried_once(new_app, live, make_store):
    """The step's own exception reaches the flow as StepFailed, SystemExit too; no rows."""
    app = new_app(make_store())

    @tf.transaction
    def fails(tx, kind):
        book.fn(tx, "4A")
        raise {"value": ValueError, "exit": SystemExit}[kind]("no")

    @app.flow
    def f(kind):
        try:
            yield tf.call(fails, kind)
        except tf.StepFailed as failed:
            return failed.failure.type

    async def scenario(engine):
        found = [
            (await engine.wait(await engine.start(f, kind))).result
            for kind in ("value", "exit")
        ]
        return found, seats(app.store)

    assert live(app, scenario) == (["ValueError", "SystemExit"], [])


@pytest.mark.parametrize("kind", ["object", "large", "coroutine"])
def test_a_result_that_cannot_be_kept_fails_for_good(new_app, live, make_store, kind):
    """It is rolled back, named, and not tried again: another attempt would give the same."""
    app = new_app(make_store())
    attempts = []

    async def asynchronous():
        pass

    @tf.transaction
    def odd(tx):
        attempts.append(1)
        book.fn(tx, "4A")
        return {"object": object, "large": lambda: b"x" * 2**25, "coroutine": asynchronous}[
            kind
        ]()

    @app.flow
    def f(_):
        try:
            yield tf.call(odd).using(retry=tf.RetryPolicy(max_attempts=5))
        except tf.StepFailed as failed:
            return [failed.failure.type, failed.failure.message]

    async def scenario(engine):
        found = await engine.wait(await engine.start(f))
        return found.result, seats(app.store)

    (type, message), rows = live(app, scenario)
    assert type == ("DefinitionError" if kind == "coroutine" else "EncodingRefused")
    assert "odd" in message
    assert rows == []
    assert attempts == [1]


def test_a_refused_statement_is_the_steps_failure(new_app, live):
    """Writing to triggerflow's tables fails the step, names the table, and nothing lands."""
    app = new_app()

    @tf.transaction
    def cheat(tx):
        book.fn(tx, "4A")
        tx.execute("DELETE FROM log")

    @app.flow
    def f(_):
        try:
            yield tf.call(cheat)
        except tf.StepFailed as failed:
            return [failed.failure.type, failed.failure.message]

    async def scenario(engine):
        found = await engine.wait(await engine.start(f))
        return found.result, seats(app.store)

    (type, message), rows = live(app, scenario)
    assert type == "TransactionError"
    assert "it may not delete from 'log', a table of triggerflow's own" in message
    assert rows == []


def test_a_failed_instance_goes_on_after_retry(new_app, live, make_store):
    """`retry` voids the failure entry; the fresh attempt of the same tag may commit."""
    app = new_app(make_store())
    world = {"fails": True}

    @tf.transaction
    def once(tx):
        book.fn(tx, "4A")
        if world["fails"]:
            raise RuntimeError("down")
        return "up"

    @app.flow
    def f(_):
        return (yield tf.call(once))

    async def scenario(engine):
        id = await engine.start(f)
        assert (await engine.wait(id)).status == "failed"
        world["fails"] = False
        await engine.retry(id)
        await engine.run_until_idle()
        return (await engine.wait(id)).result, seats(app.store)

    assert live(app, scenario) == ("up", [("4A", "ann")])


class _NoTransactions:
    """A stranger's backend, which has no `transact`."""

    def __init__(self, store):
        self.store = store

    def __getattr__(self, name):
        if name == "transact":
            raise AttributeError(name)
        return getattr(self.store, name)


class _Inherits(MemoryStore):
    """A stranger's backend that took the protocol's default."""

    from triggerflow.store.protocol import Store

    transact = Store.transact


@pytest.mark.parametrize("make", [lambda: _NoTransactions(MemoryStore()), _Inherits])
def test_a_store_without_transactions_says_so(new_app, live, make):
    """The step fails by name, for good, with what to do; the function isn't run."""
    app = new_app(make())
    runs = []

    @tf.transaction
    def step(tx):
        runs.append(1)

    @app.flow
    def f(_):
        try:
            yield tf.call(step).using(retry=tf.RetryPolicy(max_attempts=5))
        except tf.StepFailed as failed:
            return failed.failure.message

    async def scenario(engine):
        return (await engine.wait(await engine.start(f))).result

    assert "offers no transactions to steps; make it a plain step" in live(app, scenario)
    assert runs == []
    with pytest.raises(StoreError, match="offers no transactions"):
        _Inherits().transact(None, None)


# --- time limits ---------------------------------------------------------------------------


def test_a_step_that_stands_still_holds_nobody_up(new_app, real, make_store):
    """Past its limit the turn is given up: others write, and the call fails with TimedOut."""
    app = new_app(make_store())
    begun, go = threading.Event(), threading.Event()
    late = []

    @tf.transaction(timeout=0.05)
    def stands(tx):
        book.fn(tx, "4A")
        begun.set()
        assert go.wait(PATIENCE)
        try:
            book.fn(tx, "4B")
        except tf.TransactionError as error:
            late.append(str(error))
        return "swallowed"

    @app.flow
    def f(_):
        try:
            yield tf.call(stands)
        except tf.TimedOut as error:
            return [error.tag, error.still_running]

    async def scenario():
        async with app.open() as engine:
            id = await engine.start(f)
            await _heard(begun)
            # This commit waits for the turn, which nothing but the limit gives up.
            await engine.append({"type": "Follow", "actor": "ann"})
            go.set()
            return (await engine.wait(id)).result, seats(app.store)

    (tag, _), rows = real(scenario)
    assert tag == "call:stands#0"
    assert rows == []
    assert late == [] or "its 0.05 s have passed" in late[0]


def test_a_step_that_never_ends_is_given_up_for_good(new_app, real, make_store):
    """A thread that runs on gets one more timeout; then the call fails, its place is filled."""
    app = new_app(make_store())
    go = threading.Event()

    @tf.transaction(timeout=0.05)
    def stands(tx):
        assert go.wait(PATIENCE)

    @app.flow
    def f(_):
        try:
            yield tf.call(stands).using(retry=tf.RetryPolicy(max_attempts=5))
        except tf.TimedOut as error:
            assert error.still_running
            return (yield tf.call(book, "4A"))

    async def scenario():
        async with app.open(threads=1) as engine:
            found = await engine.wait(await engine.start(f))
            go.set()
            return found.result, seats(app.store)

    assert real(scenario) == ({"seat": "4A"}, [("4A", "ann")])


def test_a_long_statement_times_out_and_is_tried_again(new_app, real, make_store):
    """The policy holds for TimedOut as for anything; `.using(timeout=)` sets the limit."""
    app = new_app(make_store())
    attempts = []

    @tf.transaction(timeout=10)
    def counts(tx):
        attempts.append(tf.step_context().attempt)
        book.fn(tx, "4A")
        if len(attempts) < 3:
            tx.execute(
                "WITH RECURSIVE t(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM t)"
                " SELECT count(*) FROM t"
            )
        return "counted"

    @app.flow
    def f(_):
        policy = tf.RetryPolicy(max_attempts=3, initial=0.01)
        return (yield tf.call(counts).using(retry=policy, timeout=0.2))

    async def scenario():
        async with app.open() as engine:
            return (await engine.wait(await engine.start(f))).result, seats(app.store)

    assert real(scenario) == ("counted", [("4A", "ann")])
    assert attempts == [1, 2, 3]


@pytest.mark.parametrize("timeout", [0, 11])
def test_a_limit_that_cannot_be_is_refused_by_name(new_app, live, timeout):
    """`.using(timeout=)` beyond ten seconds would stop everybody: the call fails at once."""
    app = new_app()

    @app.flow
    def f(_):
        try:
            yield tf.call(book, "4A").using(timeout=timeout)
        except tf.StepFailed as failed:
            return failed.failure.message

    async def scenario(engine):
        return (await engine.wait(await engine.start(f))).result, seats(app.store)

    message, rows = live(app, scenario)
    assert "call:book#0: using(timeout=): found" in message
    assert "at most 10 s for a transaction step" in message
    assert rows == []


def test_a_limit_leaves_the_lease_alone(new_app, real, watched):
    """A transaction takes a third of the lease at most: heartbeats wait for it."""
    asked = []

    class Asked(Held):
        def transact(self, step, work, *, gave_up):
            asked.append(step.limit)
            return self.store.transact(step, work, gave_up=gave_up)

    app = new_app(Asked(MemoryStore()))

    @app.flow
    def f(_):
        yield tf.call(book, "4A")
        yield tf.call(book, "4B").using(timeout=0.25)

    async def scenario():
        async with app.open(lease=1.5) as engine:
            await engine.wait(await engine.start(f))

    real(scenario)
    assert asked == [0.5, 0.25]


# --- what happens meanwhile -----------------------------------------------------------------


def _racing(app):
    @app.flow(name="f")
    def f(_):
        won = yield tf.race(booked=tf.call(book, "4A"), told=tf.wait_signal("no"))
        return won.name


@pytest.mark.parametrize("how", ["race", "terminate", "cancel", "complete"])
def test_who_was_overtaken_leaves_nothing(new_app, real, make_store, how):
    """A race lost, a terminate, a cancel or a result by hand before it begins: no rows."""
    store = Held(make_store())
    app = new_app(store)
    _racing(app)
    tag = "race#0[booked]/call:book#0"

    async def scenario():
        async with app.open() as engine:
            id = await engine.start("f")
            await _heard(store.waits)
            if how == "race":
                await engine.signal(id, "no")
            elif how == "terminate":
                await engine.terminate(id)
            elif how == "cancel":
                await engine.cancel(id)
            else:
                await engine.complete(id, tag, "by hand")
            found = await engine.wait(id)
            store.go.set()
            await _heard(store.ended)
            # The engine is as sound as before.
            store.waits.clear()
            other = await engine.start("f")
            assert (await engine.wait(other)).result == "booked"
            return found.status, found.result, seats(store)

    expected = {
        "race": ("done", "told"),
        "terminate": ("cancelled", None),
        "cancel": ("cancelled", None),
        "complete": ("done", "booked"),
    }
    assert real(scenario) == (*expected[how], [("4A", "ann")])
    assert store.outcomes[0].verdict is Verdict.FENCED


def test_a_message_that_nobody_has_read_comes_first(new_app, real, make_store):
    """A cancel by another process, not yet noticed: the transaction finds it, and stops."""
    store = Held(make_store())
    app = new_app(store)
    _racing(app)

    async def scenario():
        async with app.open() as engine:
            id = await engine.start("f")
            await _heard(store.waits)
            # As another process does: this engine isn't told.
            engine._message_sent = lambda *_: None
            await engine.cancel(id)
            store.go.set()
            return (await engine.wait(id)).status, seats(store)

    assert real(scenario) == ("cancelled", [])
    assert [each.verdict for each in store.outcomes] == [Verdict.GONE]


def test_a_lease_lost_before_it_begins(new_app, real, tmp_path, standstill):
    """The late worker's transaction leaves nothing; the new owner's books once."""
    path = tmp_path / "shared.db"
    store = Held(SqliteStore(path))
    still = standstill(store)
    one, two = new_app(still), new_app(SqliteStore(path))
    _racing(one)
    _racing(two)

    async def scenario():
        async with one.open(lease=0.3) as first:
            id = await first.start("f")
            await _heard(store.waits)
            still.still = True
            async with two.open(lease=0.3) as second:
                found = (await second.wait(id)).result
                store.go.set()
                await _heard(store.ended)
                return found, seats(two.store), [e.tag for e in await second.log(id)]

    tag = "race#0[booked]/call:book#0"
    assert real(scenario) == ("booked", [("4A", "ann")], [tag])
    assert [each.detail for each in store.outcomes] == ["worker"]


def test_a_lease_that_runs_out_between_begin_and_commit(new_app, real, tmp_path):
    """The reaper waits for the turn, so it comes before or after: the result is found."""
    path = tmp_path / "shared.db"
    begun, go = threading.Event(), threading.Event()
    runs = []

    def make():
        app = new_app(SqliteStore(path))

        @tf.transaction(timeout=10)
        def slowly(tx):
            runs.append(1)
            begun.set()
            assert go.wait(PATIENCE)
            return book.fn(tx, "4A")

        @app.flow(name="f")
        def f(_):
            return (yield tf.call(slowly))

        return app

    async def scenario():
        one, two = make(), make()
        two.store.open()
        async with one.open(lease=30, drain=0) as first:
            id = await first.start("f")
            await _heard(begun)
            first._executor.draining = True
            reaped = []

            def reap():
                reaped.append(
                    two.store.reap({each.id: each.seen for each in two.store.workers()})
                )

            async with trio.open_nursery() as nursery:
                nursery.start_soon(trio.to_thread.run_sync, reap)
                turn = two.store._locks._thread
                await _until(lambda: turn._waiting)
                # The owner hears of its commit only once it has lost everything.
                first._executor.receive = lambda *_: None
                go.set()
            two.store.close()
            async with two.open(lease=30) as second:
                found = (await second.wait(id)).result
                return reaped, found, seats(two.store)

    assert real(scenario) == ([1], {"seat": "4A"}, [("4A", "ann")])
    assert runs == [1]


def test_a_closing_engine_lets_go(new_app, real, tmp_path):
    """A step that stands is given up when its engine closes; the next engine runs it."""
    path = tmp_path / "shared.db"
    begun, go = threading.Event(), threading.Event()

    def make(stands):
        app = new_app(SqliteStore(path))

        @tf.transaction(timeout=0.3, name="book")
        def slowly(tx):
            found = book.fn(tx, "4A")
            begun.set()
            assert not stands or go.wait(PATIENCE)
            return found

        @app.flow(name="f")
        def f(_):
            return (yield tf.call(slowly))

        return app

    async def scenario():
        one, two = make(stands=True), make(stands=False)
        async with one.open(drain=0) as first:
            id = await first.start("f")
            await _heard(begun)
        async with two.open() as second:
            found = (await second.wait(id)).result
            go.set()
            return found, seats(two.store)

    assert real(scenario) == ({"seat": "4A"}, [("4A", "ann")])


# --- the store's trouble --------------------------------------------------------------------


class Troubled(Held):
    """A store that fails to run the first transactions, before or after their commit."""

    def __init__(self, store, fails, after):
        super().__init__(store)
        self.fails, self.after = fails, after

    def transact(self, step, work, *, gave_up):
        if not self.fails:
            found = self.store.transact(step, work, gave_up=gave_up)
            self.outcomes.append(found.verdict)
            return found
        self.fails -= 1
        if self.after:
            self.store.transact(step, work, gave_up=gave_up)
        raise StoreError("memory://", "disk I/O error")


@pytest.mark.parametrize("after", [False, True])
def test_trouble_of_the_store_costs_no_attempt(new_app, live, make_store, caplog, after):
    """It is tried again; if the commit landed all the same, its result is found and taken."""
    store = Troubled(make_store(), 1, after)
    app = new_app(store)
    attempts = []

    @tf.transaction
    def step(tx):
        attempts.append(tf.step_context().attempt)
        return book.fn(tx, "4A")

    @app.flow
    def f(_):
        return (yield tf.call(step))

    async def scenario(engine):
        return (await engine.wait(await engine.start(f))).result, seats(store)

    with caplog.at_level(logging.WARNING):
        assert live(app, scenario) == ({"seat": "4A"}, [("4A", "ann")])
    assert "call:step#0 could not run: store memory://: disk I/O error" in caplog.text
    assert attempts == [1]
    assert store.outcomes == [Verdict.DUPLICATE if after else Verdict.APPLIED]


# --- a crash at every point -----------------------------------------------------------------


def make_booking(store):
    app = tf.App(store, build="one", entry_points=False)

    @tf.transaction
    def pay(tx, seat):
        """Takes the seat from the first payment that finds it free."""
        tx.execute(SEATS)
        taken = tx.execute("SELECT count(*) FROM seats WHERE seat = ?", (seat,)).fetchone()
        tx.execute("INSERT INTO seats VALUES (?, ?)", (seat, f"paid {taken[0]}"))
        return taken[0]

    @app.flow(name="booking")
    def booking(activity):
        n = activity["n"]
        first = yield tf.call(pay, f"{n}A")
        both = yield tf.gather(tf.call(pay, f"{n}B"), tf.call(abs, -n), tf.call(pay, f"{n}C"))
        return [first, *both]

    app.trigger("booking", on="Order", start=booking)
    return app


async def booking_scenario(engine):
    found = []
    for n in range(2):
        appended = await engine.append({"type": "Order", "actor": "ann", "n": n})
        found.append(await engine.wait(appended.firings[0].instance_id))
    return [each.result for each in found]


def audit_booking(store):
    """The user's rows are the results in the logs, one for one."""
    results = [
        entry.tag
        for record in store.instances(limit=100)
        for entry in store.log(record.number, record.generation)
        if ":pay#" in entry.tag
    ]
    rows = seats(store)
    assert len(rows) == len(results) == 6, f"{rows} for {results}"
    assert all(who == "paid 0" for _, who in rows), rows


def test_a_crash_at_every_point_changes_nothing(make_store):
    """Killed before and after every write, the transaction's included: rows are results."""
    report = crash_everywhere(make_booking, booking_scenario, make_store, audit=audit_booking)
    assert report.end == [[0, 0, 0, 0], [0, 0, 1, 0]]
    counting = CrashingStore(make_store())
    assert "transact" in dir(counting.store)
    # An append and three transactions an instance, and the turns between them.
    assert report.points >= 2 * (1 + 3 + 3)


def test_the_audit_notices_a_result_apart_from_its_rows(monkeypatch):
    """With the rows committed before the result, a crash between them books twice."""
    keep = sqlite_transactions._Held.keep
    dying = []

    def apart(self, result):
        self._db.set_authorizer(None)
        self._db.execute("COMMIT")
        self._db.execute("BEGIN IMMEDIATE")
        if dying and dying.pop():
            raise StoreError("memory://", "died between two commits")
        return keep(self, result)

    monkeypatch.setattr(sqlite_transactions._Held, "keep", apart)

    async def dies_once(engine):
        dying.append(True)
        return await booking_scenario(engine)

    with pytest.raises(AssertionError, match=r"paid 1|changed the end"):
        crash_everywhere(make_booking, dies_once, MemoryStore, audit=audit_booking)


def test_the_audit_notices_a_result_that_is_not_looked_for(monkeypatch):
    """If a call that is answered may run again, a crash after the commit books twice."""
    app_runs = []

    def careless(db, step):
        db.execute("DELETE FROM inbox WHERE name = ?", (step.tag,))

    monkeypatch.setattr(sqlite_transactions, "forbidden", careless)
    store = Troubled(MemoryStore(), 1, after=True)

    async def main():
        async with make_booking(store).open(inline=True) as engine:
            app_runs.append(await booking_scenario(engine))

    trio.run(main)
    with pytest.raises(AssertionError, match="paid 1"):
        store.open()
        audit_booking(store)
