"""The blocking client: the same verbs from any thread, and nobody is left hanging."""

from __future__ import annotations

import os
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import trio

import triggerflow as tf
from triggerflow.store.sqlite import SqliteStore
from triggerflow.testing.crash import Crash

FOLLOW = {"type": "Follow", "actor": "https://a.example/ann"}


@pytest.fixture
def app(new_app, make_store):
    """An app with a flow that waits and one that doesn't."""
    app = new_app(make_store())

    @app.flow
    def waits(given):
        return [given, (yield tf.wait_signal("go"))]

    @app.flow
    def doubled(n):
        return (yield tf.call(lambda n: 2 * n, n).using(name="double"))

    app.trigger("t", on="Follow", start=waits)
    return app


def test_every_verb_works_without_await(app):
    """append, start, signal, wait, get, log, instances, cancel, retry, complete, idle."""
    with app.client() as client:
        (firing,) = client.append(FOLLOW).firings
        many = client.append_many([FOLLOW, {"type": 1}])
        assert many[0].duplicate
        assert isinstance(many[1], tf.Rejected)
        client.run_until_idle()
        assert client.get(firing.instance_id).status == "waiting"
        assert client.signal(firing.instance_id, "go", 1, dedup="d")
        assert client.wait(firing.instance_id, timeout=10).result == [FOLLOW, 1]
        assert [entry.tag for entry in client.log(firing.instance_id)] == ["wait_signal:go#0"]
        assert client.wait(client.start("doubled", 4)).result == 8
        id = client.start("waits", 3, key="k")
        assert client.cancel(id)
        assert client.wait(id).status == "cancelled"
        with pytest.raises(tf.InstanceConflict):
            client.retry(id)
        assert [each.status for each in client.instances(flow="waits")] == ["done", "cancelled"]


def test_client_serves_many_threads(app):
    """Threads may share a client; each gets its own answers."""
    with app.client() as client, ThreadPoolExecutor(16) as pool:

        def use(n):
            return client.wait(client.start("doubled", n)).result

        assert list(pool.map(use, range(200))) == [2 * n for n in range(200)]


@pytest.mark.timeout(15)
def test_idleness_may_be_awaited_by_many_threads(app):
    """Each thread that waits for idleness gets it."""
    with app.client() as client, ThreadPoolExecutor(8) as pool:
        found = [pool.submit(client.run_until_idle) for _ in range(8)]
        try:
            for each in found:
                each.result(timeout=5)
        except TimeoutError:
            # Let the pool end, then tell.
            client.close()
            raise


def test_errors_come_to_the_caller_that_caused_them(app):
    """A refused verb raises in its own thread; the client lives on."""
    with app.client() as client:
        with pytest.raises(tf.UnknownFlow):
            client.start("nobody")
        with pytest.raises(tf.ActivityRejected):
            client.append({"type": "x"})
        with pytest.raises(tf.WaitTimedOut):
            client.wait(client.start("waits"), timeout=0.01)
        with pytest.raises(tf.UnknownInstance):
            list(client.instances()) and client.get("a" * 20)
        assert client.wait(client.start("doubled", 1)).result == 2


def test_exceptions_of_the_block_come_out_as_they_are(app):
    """What the ``with`` block raises is what the caller sees, and the client is closed."""
    with pytest.raises(LookupError, match="mine"), app.client() as client:
        raise LookupError("mine")
    with pytest.raises(tf.EngineClosed):
        client.get("x")


def test_client_that_is_not_open_says_so(app):
    """Before and after the block every verb raises `EngineClosed`."""
    client = app.client()
    for _ in range(2):
        for verb in (
            lambda: client.start("waits"),
            lambda: client.append(FOLLOW),
            lambda: list(client.instances()),
            client.run_until_idle,
        ):
            with pytest.raises(tf.EngineClosed):
                verb()
        with client:
            assert client.wait(client.start("doubled", 1)).result == 2
    client.close()
    client.close()


def test_failure_to_open_is_raised_by_with(new_app, tmp_path):
    """A store that can't be opened raises `StoreError` where the client is entered."""
    (tmp_path / "dir.db").mkdir()
    client = new_app(SqliteStore(tmp_path / "dir.db")).client()
    with pytest.raises(tf.StoreError):
        client.__enter__()
    with pytest.raises(tf.EngineClosed):
        client.start("f")
    client.close()


def test_client_of_a_writer_leaves_the_work(app):
    """``client(work=False)`` writes and asks; another client does the work."""
    with app.client(work=False) as writer:
        id = writer.start("doubled", 2)
        writer.run_until_idle()
        assert writer.get(id).status == "running"
    with app.client() as worker:
        assert worker.wait(id).result == 4


@pytest.mark.timeout(20)
def test_engine_that_dies_leaves_no_caller_hanging(new_app, make_sqlite, watched):
    """Callers that wait are told; the block ends with what killed the engine."""
    store = watched(make_sqlite())
    app = new_app(store)

    @app.flow
    def waits(_):
        yield tf.wait_signal("go")

    found = []
    client = app.client()
    client.__enter__()
    id = client.start(waits)
    client.run_until_idle()

    def wait():
        try:
            client.wait(id)
        except BaseException as error:
            found.append(error)

    thread = threading.Thread(target=wait)
    thread.start()

    def die(batch):
        raise Crash

    store.before = die
    with pytest.raises((Crash, tf.EngineClosed)):
        client.signal(id, "go")
    thread.join(10)
    assert not thread.is_alive()
    assert isinstance(found[0], Crash | tf.EngineClosed)
    with pytest.raises((Crash, tf.EngineClosed)):
        client.get(id)
    with pytest.raises(Crash):
        client.close()


@pytest.mark.timeout(20)
def test_call_while_a_dying_engine_still_cleans_up_is_refused(new_app, make_sqlite, watched):
    """Between the death of an engine and the end of its loop callers get `EngineClosed`."""
    store = watched(make_sqlite())
    app = new_app(store)
    cleaning, go_on = threading.Event(), threading.Event()

    async def lingers():
        try:
            await trio.sleep_forever()
        finally:
            with trio.CancelScope(shield=True):
                cleaning.set()
                await trio.to_thread.run_sync(go_on.wait)

    @app.flow
    def f(_):
        yield tf.call(lingers)

    client = app.client()
    client.__enter__()
    id = client.start(f)

    def die(batch):
        raise Crash

    while not client._engine._executor.owned or not any(
        attempt.scope
        for run in list(client._engine._executor.owned.values())
        for attempt in run.attempts.values()
    ):
        client.get(id)
    store.before = die
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(client.signal, id, "go")
        assert cleaning.wait(10)
        late = pool.submit(client.get, id) if first.done() else None
        try:
            with pytest.raises((Crash, tf.EngineClosed)):
                client.get(id)
        finally:
            go_on.set()
        with pytest.raises((Crash, tf.EngineClosed)):
            first.result(10)
        if late is not None:
            with pytest.raises((Crash, tf.EngineClosed)):
                late.result(10)
    with pytest.raises(Crash):
        client.close()


def test_closing_tells_those_who_wait(app):
    """A thread that waits while another one closes the client gets `EngineClosed`."""
    client = app.client()
    client.__enter__()
    id = client.start("waits")
    client.run_until_idle()
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(client.wait, id)
        while not client._engine._waiters:
            client.get(id)
        client.close()
        with pytest.raises(tf.EngineClosed):
            waiting.result(10)


def test_instances_are_read_a_page_at_a_time(app, monkeypatch):
    """The iterator asks for a page when it gets there: an early end costs one page."""
    with app.client(work=False) as client:
        for n in range(350):
            client.start("doubled", n)
        pages = []
        genuine = client._engine._store.instances
        monkeypatch.setattr(
            client._engine._store,
            "instances",
            lambda **where: pages.append(where) or genuine(**where),
        )
        found = client.instances()
        assert [next(found).input for _ in range(3)] == [0, 1, 2]
        assert len(pages) == 1
        assert [each.input for each in found] == list(range(3, 350))


def test_child_of_a_fork_is_refused(new_app, make_sqlite):
    """A store that was opened before a fork is refused in the child, in words."""
    store = make_sqlite()
    store.open()
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            store.sync_triggers([], now=0.0)
            os.write(writer, b"nothing was raised")
        except tf.StoreError as error:
            os.write(writer, str(error).encode())
        finally:
            os._exit(0)
    os.close(writer)
    os.waitpid(child, 0)
    said = os.read(reader, 1000).decode()
    os.close(reader)
    store.close()
    assert "fork" in said
