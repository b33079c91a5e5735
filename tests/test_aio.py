"""Embedding: asyncio programs, servers that fork, plain threads; nobody hangs."""

from __future__ import annotations

import asyncio
import inspect
import os
import subprocess
import sys
import textwrap
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import trio

import triggerflow as tf
from triggerflow.aio import AsyncioClient
from triggerflow.client import Client
from triggerflow.engine.engine import Engine
from triggerflow.store.sqlite import MemoryStore, SqliteStore
from triggerflow.testing.crash import Crash

FOLLOW = {"type": "Follow", "actor": "https://a.example/ann"}
ROOT = Path(__file__).resolve().parents[1]


def run(scenario, limit=20):
    """Run a coroutine function on a new asyncio loop; one that hangs is an error."""

    async def main():
        async with asyncio.timeout(limit):
            return await scenario()

    return asyncio.run(main(), debug=True)


def engine_threads():
    return [each for each in threading.enumerate() if each.name == "triggerflow-client"]


def wait_for_their_end(threads, limit=20):
    for each in threads:
        each.join(limit)
        assert not each.is_alive()


@pytest.fixture(autouse=True)
def _no_thread_is_left():
    """Each test ends the engines' threads that it began."""
    before = engine_threads()
    yield
    wait_for_their_end([each for each in engine_threads() if each not in before])


def define(app):
    @app.flow
    def waits(given):
        return [given, (yield tf.wait_signal("go"))]

    @app.flow
    def doubled(n):
        return (yield tf.call(lambda n: 2 * n, n).using(name="double"))

    app.trigger("t", on="Follow", start=waits)
    return app


@pytest.fixture(params=["memory", "sqlite"])
def store(request, tmp_path):
    return MemoryStore() if request.param == "memory" else SqliteStore(tmp_path / "s.db")


@pytest.fixture
def app(store):
    return define(tf.App(store, build="one", entry_points=False))


async def parked(client, flow="waits"):
    """Start an instance and wait until it is parked."""
    id = await client.start(flow)
    await client.run_until_idle()
    return id


async def until(condition):
    """Let the loop turn until something holds."""
    while not condition():  # noqa: ASYNC110 - it holds in the engine's thread
        await asyncio.sleep(0)


def waiters(client):
    """How many tasks of the engine's loop are at work on this client's calls."""
    return len(client._thread._nursery.child_tasks)


# --- the verbs ---------------------------------------------------------------------------


def test_every_verb_can_be_awaited(app):
    """append, start, signal, wait, get, log, replay, instances, cancel, retry, idle."""

    async def main():
        async with AsyncioClient(app) as client:
            (firing,) = (await client.append(FOLLOW)).firings
            many = await client.append_many([FOLLOW, {"type": 1}])
            assert many[0].duplicate
            assert isinstance(many[1], tf.Rejected)
            await client.run_until_idle()
            id = firing.instance_id
            assert (await client.get(id)).status == "waiting"
            assert isinstance(await client.replay(id), tf.Suspended)
            assert await client.signal(id, "go", 1, dedup="d")
            assert (await client.wait(id, timeout=10)).result == [FOLLOW, 1]
            assert [each.tag for each in await client.log(id)] == ["wait_signal:go#0"]
            other = await client.start("waits", 3, key="k")
            assert await client.cancel(other)
            assert (await client.wait(other)).status == "cancelled"
            for verb in (client.retry, client.unblock):
                with pytest.raises(tf.InstanceConflict):
                    await verb(other)
            with pytest.raises(tf.InstanceConflict):
                await client.complete(other, "call:x#0", 1)
            found = [each.status async for each in client.instances(flow="waits")]
            assert found == ["done", "cancelled"]

    run(main)


@pytest.mark.parametrize("client", [AsyncioClient, Client])
def test_verbs_are_the_engines_with_signature_and_description(client):
    """Nothing is written twice: a verb of the engine that is missing here is an oversight."""
    own = {"begin", "end", "resolve_id"}
    verbs = {
        name: verb
        for name, verb in inspect.getmembers(Engine, inspect.iscoroutinefunction)
        if not name.startswith("_") and name not in own
    }
    if client is AsyncioClient:  # of the other one it is a plain iterator
        verbs["instances"] = Engine.instances
    missing = [name for name in verbs if not hasattr(client, name)]
    assert not missing, f"add `{missing[0]} = _verb(Engine.{missing[0]})` to {client.__name__}"
    for name, verb in verbs.items():
        here = getattr(client, name)
        assert inspect.signature(here) == inspect.signature(verb)
        assert inspect.getdoc(here) == inspect.getdoc(verb)


def test_many_tasks_share_a_client(app):
    """Each of 500 tasks gets its own answers, and its own errors."""

    async def main():
        async with AsyncioClient(app) as client:

            async def use(n):
                if n % 5 == 0:
                    with pytest.raises(tf.UnknownFlow):
                        await client.start("nobody")
                return (await client.wait(await client.start("doubled", n))).result

            return await asyncio.gather(*(use(n) for n in range(500)))

    assert run(main) == [2 * n for n in range(500)]


def test_instances_come_a_page_at_a_time(app, store, monkeypatch):
    """An iteration that ends early has cost one page; a whole one misses none."""
    pages = []

    async def main():
        async with AsyncioClient(app, work=False) as client:
            for n in range(200):
                await client.start("doubled", n)
            genuine = store.instances
            monkeypatch.setattr(
                store, "instances", lambda **where: pages.append(where) or genuine(**where)
            )
            async for each in client.instances():
                assert each.input == 0
                break
            assert len(pages) == 1
            found = [each.input async for each in client.instances(flow="doubled")]
            assert found == list(range(200))
            assert [each async for each in client.instances(status="done")] == []

    run(main)


def test_client_of_a_writer_leaves_the_work(app):
    """``work=False`` writes and asks; another client does the work."""

    async def write():
        async with AsyncioClient(app, work=False) as client:
            id = await client.start("doubled", 2)
            await client.run_until_idle()
            assert (await client.get(id)).status == "running"
            return id

    async def work():
        async with AsyncioClient(app) as client:
            return (await client.wait(id)).result

    if isinstance(app.store, SqliteStore):
        id = run(write)
        assert run(work) == 4


# --- cancelling --------------------------------------------------------------------------


def test_cancelling_a_task_cancels_its_verb(app):
    """The verb inside ends too, the instance and the client go on."""

    async def main():
        async with AsyncioClient(app) as client:
            id = await parked(client)
            tasks = [asyncio.create_task(client.wait(id)) for _ in range(10)]
            await until(lambda: waiters(client) == 10)
            for task in tasks[1:]:
                task.cancel()
            ended = await asyncio.gather(*tasks[1:], return_exceptions=True)
            assert {type(each) for each in ended} == {asyncio.CancelledError}
            await until(lambda: waiters(client) == 1)
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0):
                    await client.wait(id)
            await client.signal(id, "go", 1)
            assert (await tasks[0]).result == [None, 1]

    run(main)


def test_call_cancelled_before_it_began_does_nothing(app):
    """A cancel that overtakes nothing but its own call finds it at its first checkpoint."""

    async def main():
        async with AsyncioClient(app) as client:
            task = asyncio.create_task(client.start("waits", key="k"))
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert [each async for each in client.instances()] == []

    run(main)


def test_appends_cancelled_anywhere_are_whole_or_not_there(app):
    """300 appends cancelled at some point of their way: appended again, each fired once."""
    documents = [FOLLOW | {"n": n} for n in range(300)]

    async def main():
        async with AsyncioClient(app) as client:
            tasks = [asyncio.create_task(client.append(each)) for each in documents]
            for turn, task in enumerate(tasks):
                if turn % 3 == 0:
                    await asyncio.sleep(0)
                task.cancel()
            first = await asyncio.gather(*tasks, return_exceptions=True)
            again = await asyncio.gather(*(client.append(each) for each in documents))
            for before, now in zip(first, again, strict=True):
                if not isinstance(before, asyncio.CancelledError):
                    assert before.firings == now.firings
            ids = {each.firings[0].instance_id for each in again}
            assert len(ids) == len(documents)
            assert {each.id async for each in client.instances()} == ids
            await client.run_until_idle()
            for id in ids:
                await client.signal(id, "go")
                assert (await client.wait(id)).status == "done"

    run(main, 60)


# --- the host's loop ---------------------------------------------------------------------


class Slow:
    """A store that opens and closes only when it is let."""

    def __init__(self, store):
        self.store = store
        self.called = {name: threading.Event() for name in ("open", "register", "close")}
        self.go_on = {name: threading.Event() for name in self.called}
        self.go_on["register"].set()

    def __getattr__(self, name):
        return getattr(self.store, name)

    def open(self):
        self.called["open"].set()
        assert self.go_on["open"].wait(20)
        self.store.open()

    def register_worker(self, **who):
        self.called["register"].set()
        assert self.go_on["register"].wait(20)
        return self.store.register_worker(**who)

    def close(self):
        self.called["close"].set()
        assert self.go_on["close"].wait(20)
        self.store.close()


@pytest.fixture
def slow(store):
    return Slow(store)


@pytest.fixture
def slow_app(slow):
    return define(tf.App(slow, build="one", entry_points=False))


def test_loop_turns_while_the_client_opens_and_closes(slow_app, slow):
    """A store that takes its time holds up one task, not the loop."""

    async def main():
        client = AsyncioClient(slow_app)
        for name in ("open", "close"):
            task = asyncio.create_task(getattr(client, name)())
            await until(slow.called[name].is_set)
            assert not task.done()
            with pytest.raises(tf.EngineClosed):
                await client.get("x" * 20)
            slow.go_on[name].set()
            await task

    run(main)


def test_engine_goes_on_while_the_loop_is_blocked(app):
    """A callback that blocks the host's loop delays no step."""
    ran = threading.Event()

    @app.flow
    def sets(_):
        yield tf.call(ran.set)

    async def main():
        async with AsyncioClient(app) as client:
            # Handed over, its answer not awaited; then the loop stands still.
            task = asyncio.create_task(client.start("sets"))
            await asyncio.sleep(0)
            assert ran.wait(20)
            await task

    run(main)


@pytest.mark.parametrize("at", ["open", "register"])
def test_cancelled_opening_leaves_nothing_open(slow_app, slow, at):
    """The task that gave up gets its cancel once the half-open engine has ended."""

    async def main():
        slow.go_on["open" if at == "register" else "register"].set()
        slow.go_on[at].clear()
        client = AsyncioClient(slow_app)
        task = asyncio.create_task(client.open())
        await until(slow.called[at].is_set)
        task.cancel()
        slow.go_on[at].set()
        await until(slow.called["close"].is_set)
        assert not task.done()
        slow.go_on["close"].set()
        with pytest.raises(asyncio.CancelledError):
            await task
        wait_for_their_end(engine_threads())
        async with client:
            assert (await client.wait(await client.start("doubled", 1))).result == 2

    run(main)


@pytest.mark.parametrize("cancels", [1, 2])
def test_cancelled_closing_closes_all_the_same(slow_app, slow, cancels):
    """The first cancel waits for the engine's end; a second one is heard at once."""
    closed = []
    genuine = slow.store.close

    async def main():
        slow.go_on["open"].set()
        slow.store.close = lambda: [genuine(), closed.append(True)]
        client = await AsyncioClient(slow_app).open()
        task = asyncio.create_task(client.close())
        await until(slow.called["close"].is_set)
        for _ in range(cancels):
            task.cancel()
            await asyncio.sleep(0)
            await asyncio.sleep(0)
        assert task.done() == (cancels == 2)
        slow.go_on["close"].set()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert cancels == 2 or closed
        with pytest.raises(tf.EngineClosed):
            await client.run_until_idle()

    run(main)
    wait_for_their_end(engine_threads())
    assert closed


def test_exceptions_of_the_block_come_out_as_they_are(app):
    """What the block raises is what the caller sees, and the client is closed."""
    client = AsyncioClient(app)

    async def main():
        with pytest.raises(LookupError, match="mine"):
            async with client:
                raise LookupError("mine")
        with pytest.raises(tf.EngineClosed):
            await client.get("x")

    run(main)


def test_client_serves_one_loop_after_another(tmp_path):
    """Closed in one loop it may be opened in the next; calls between are refused."""
    client = AsyncioClient(
        define(tf.App(f"sqlite:///{tmp_path}/s.db", build="one", entry_points=False))
    )

    async def main():
        with pytest.raises(tf.EngineClosed):
            await client.start("doubled", 1)
        async with client:
            assert (await client.wait(await client.start("doubled", 1))).result == 2
        await client.close()

    run(main)
    run(main)


def test_failure_to_open_is_raised_by_the_block(tmp_path):
    """A store that can't be opened raises `StoreError`; a later try may do better."""
    (tmp_path / "dir.db").mkdir()
    client = AsyncioClient(
        define(tf.App(SqliteStore(tmp_path / "dir.db"), build="one", entry_points=False))
    )

    async def main():
        with pytest.raises(tf.StoreError):
            await client.open()
        await client.close()
        (tmp_path / "dir.db").rmdir()
        async with client:
            assert (await client.wait(await client.start("doubled", 1))).result == 2

    run(main)


def test_other_loops_are_refused_in_words(app):
    """Another loop, a trio task, and a second opening each get an error that says so."""

    async def main():
        async with AsyncioClient(app) as client:
            with pytest.raises(tf.DefinitionError, match="open already"):
                await client.open()

            async def elsewhere():
                with pytest.raises(tf.DefinitionError, match="another event loop"):
                    await client.get("x")
                with pytest.raises(tf.DefinitionError, match="another event loop"):
                    async for _ in client.instances():
                        pass
                with pytest.raises(tf.DefinitionError, match="open already"):
                    await client.open()

            async def on_trio():
                with pytest.raises(tf.DefinitionError, match=r"no asyncio loop.*app\.open"):
                    await client.get("x")
                with pytest.raises(tf.DefinitionError, match="no asyncio loop"):
                    await AsyncioClient(app).open()

            await asyncio.to_thread(asyncio.run, elsewhere())
            await asyncio.to_thread(trio.run, on_trio)
            assert (await client.wait(await client.start("doubled", 1))).result == 2

    run(main)


@pytest.mark.filterwarnings("ignore:.*:ResourceWarning")
def test_loop_that_is_closed_under_calls_ends_the_engine(tmp_path):
    """It hands back and closes when it finds no listener; the next loop may open anew."""
    client = AsyncioClient(
        define(tf.App(f"sqlite:///{tmp_path}/s.db", build="one", entry_points=False))
    )
    loop = asyncio.new_event_loop()
    ids = []

    async def begin():
        await client.open()
        ids.append(await parked(client))

    async def left():
        await client.wait(ids[0])

    loop.run_until_complete(begin())
    task = loop.create_task(left())
    loop.call_soon(loop.stop)
    loop.run_forever()
    (thread,) = engine_threads()
    loop.close()
    # Somebody else answers the wait, so that the engine has something to say.
    other = define(tf.App(f"sqlite:///{tmp_path}/s.db", build="one", entry_points=False))
    with other.client(work=False) as writer:
        writer.signal(ids[0], "go", 1)
        wait_for_their_end([thread])
    task._log_destroy_pending = False
    del task

    async def again():
        async with client:
            return (await client.wait(ids[0])).result

    assert run(again) == [None, 1]


def test_closing_tells_those_who_wait(app):
    """Tasks that wait while another one closes the client get `EngineClosed`."""

    async def main():
        client = await AsyncioClient(app).open()
        id = await parked(client)
        tasks = [asyncio.create_task(client.wait(id)) for _ in range(5)]
        await until(lambda: waiters(client) == 5)
        await asyncio.gather(client.close(), client.close())
        for each in await asyncio.gather(*tasks, return_exceptions=True):
            assert isinstance(each, tf.EngineClosed)

    run(main)


# --- an engine that dies -----------------------------------------------------------------


class Dying:
    """A store whose commit dies once it is told to."""

    def __init__(self, store):
        self.store = store
        self.error = None

    def __getattr__(self, name):
        return getattr(self.store, name)

    def commit(self, batch):
        if self.error is not None:
            raise self.error
        return self.store.commit(batch)


@pytest.mark.parametrize("how", ["store", "bug", "exit"])
def test_engine_that_dies_tells_every_caller_why(store, how):
    """Pending calls, later ones and the block get its error; none of them hangs."""
    dying = Dying(store)
    app = define(tf.App(dying, build="one", entry_points=False))
    expected = {"store": Crash, "bug": ZeroDivisionError, "exit": tf.EngineClosed}[how]

    async def breaks():
        raise ZeroDivisionError

    async def use():
        async with AsyncioClient(app) as client:
            id = await parked(client)
            pending = [asyncio.create_task(client.wait(id)) for _ in range(5)]
            await until(lambda: waiters(client) == 5)
            if how == "bug":
                engine = client._thread.engine
                client._thread._post(lambda: engine._nursery.start_soon(breaks))
            else:
                dying.error = Crash("gone") if how == "store" else SystemExit(3)
                with pytest.raises(expected):
                    await client.signal(id, "go")
            for each in await asyncio.gather(*pending, return_exceptions=True):
                assert isinstance(each, expected)
            depths = []
            for _ in range(3):
                with pytest.raises(expected) as told:
                    await client.get(id)
                depths.append(len(inspect.getinnerframes(told.tb)))
            assert depths[1:] == depths[:-1]

    with pytest.raises(SystemExit if how == "exit" else expected):
        run(use)


def test_callers_on_threads_hear_why_as_well(store):
    """The blocking client's callers get the error of the engine, not just that it's closed."""
    dying = Dying(store)
    client = define(tf.App(dying, build="one", entry_points=False)).client().open()
    id = client.start("waits")
    client.run_until_idle()
    with ThreadPoolExecutor(1) as pool:
        pending = pool.submit(client.wait, id)
        while not client._thread._nursery.child_tasks:
            client.get(id)
        dying.error = Crash("gone")
        with pytest.raises(Crash):
            client.signal(id, "go")
        with pytest.raises(Crash):
            pending.result(20)
    with pytest.raises(Crash):
        client.get(id)
    with pytest.raises(Crash):
        client.close()
    with pytest.raises(tf.EngineClosed):
        client.get(id)


# --- plain threads -----------------------------------------------------------------------


def test_client_opened_by_many_threads_is_one_engine(app):
    """`open` before each use: the first opens, the others find it open, `close` ends it."""
    client = app.client()
    barrier = threading.Barrier(16)

    def handle(n):
        barrier.wait(20)
        assert client.open() is client
        return client.wait(client.open().start("doubled", n), timeout=20).result

    with ThreadPoolExecutor(16) as pool:
        assert sorted(pool.map(handle, range(16))) == [2 * n for n in range(16)]
    (thread,) = engine_threads()
    client.close()
    assert not thread.is_alive()
    with pytest.raises(tf.EngineClosed):
        client.start("doubled", 1)


def test_client_whose_opening_fails_can_be_opened_later(tmp_path):
    """Every `open` tries again, so a server heals when its store does."""
    (tmp_path / "dir.db").mkdir()
    client = define(
        tf.App(f"sqlite:///{tmp_path}/dir.db", build="one", entry_points=False)
    ).client()
    for _ in range(2):
        with pytest.raises(tf.StoreError):
            client.open()
    (tmp_path / "dir.db").rmdir()
    with client:
        assert client.wait(client.start("doubled", 2), timeout=20).result == 4


# --- servers that fork -------------------------------------------------------------------

PRELUDE = """
    import asyncio, os, sys, threading
    import triggerflow as tf
    from triggerflow.aio import AsyncioClient

    app = tf.App("sqlite:///s.db", build="one", entry_points=False)

    def mark(n):
        with open("marks", "ab", buffering=0) as file:
            file.write(f"{n} {os.getpid()}\\n".encode())
        return n

    @app.flow
    def flow(activity):
        return (yield tf.call(mark, activity["n"]))

    app.trigger("t", on="Follow", start=flow)

    def in_child(work, end=sys.exit):
        reader, writer = os.pipe()
        sys.stdout.flush()  # or the child says it again
        child = os.fork()
        if child == 0:
            try:
                said = repr(work())
            except Exception as error:
                said = f"{type(error).__name__}: {error}"
            os.write(writer, said.encode())
            os.close(writer)
            end(0)
        os.close(writer)
        with os.fdopen(reader) as file:
            said = file.read()
        assert os.waitpid(child, 0)[1] == 0
        return said

    def activity(n):
        return {"type": "Follow", "actor": "https://a.example/ann", "n": n}
"""


def in_process(code, folder, limit=60):
    """Run code in a process of its own, where it may fork; a hang is an error."""
    done = subprocess.run(
        [
            sys.executable,
            "-W",
            "ignore",
            "-c",
            textwrap.dedent(PRELUDE) + textwrap.dedent(code),
        ],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=limit,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return done.stdout


def test_app_made_before_the_fork_serves_every_child(tmp_path):
    """Four children, one file, the same activities in each: each step runs once in all."""
    code = """
    assert not os.path.exists("s.db")  # an app that isn't open has touched nothing
    client = app.client()
    children = []
    for child in range(4):
        pid = os.fork()
        if pid == 0:
            mine = [n for n in range(100) if n % 4 >= child]  # many come to several children
            firings = [client.open().append(activity(n)).firings for n in mine]
            for n, (firing,) in zip(mine, firings, strict=True):
                assert client.wait(firing.instance_id, timeout=40).result == n
            client.close()
            sys.exit()
        children.append(pid)
    for pid in children:
        assert os.waitpid(pid, 0)[1] == 0
    with client:
        found = list(client.instances())
        assert len(found) == 100 and {each.status for each in found} == {"done"}
    """
    in_process(code, tmp_path)
    marks = [line.split() for line in (tmp_path / "marks").read_text().splitlines()]
    assert Counter(int(n) for n, _ in marks) == Counter(range(100))
    assert len({pid for _, pid in marks}) > 1


def test_client_opened_before_the_fork_is_refused_in_the_child(tmp_path):
    """Its thread isn't there: an error says so at once, closing does nothing."""
    code = """
    with app.client() as client:
        (firing,) = client.append(activity(1)).firings
        print(in_child(lambda: client.get(firing.instance_id)))
        print(in_child(lambda: list(client.instances())))
        print(in_child(client.close))
        assert client.wait(firing.instance_id, timeout=20).result == 1
        print(in_child(client.open))
        (second,) = client.append(activity(2)).firings
        assert client.wait(second.instance_id, timeout=20).result == 2
    """
    *refused, closed, opened = in_process(code, tmp_path).splitlines()
    for each in (*refused, opened):
        assert each.startswith("StoreError: store sqlite:///s.db: was opened before")
        assert "fork first" in each
    assert closed == "None"


def test_asyncio_client_opened_before_the_fork_is_refused_in_the_child(tmp_path):
    """In the child's own loop the parent's client is refused; closing it does nothing."""
    code = """
    client = AsyncioClient(app)

    async def use():
        (firing,) = (await client.append(activity(1))).firings
        return (await client.wait(firing.instance_id, timeout=20)).result

    def elsewhere(make):
        # The child has the parent's running loop in this thread: use another.
        said = []
        def work():
            try:
                said.append(asyncio.run(make()))
            except tf.TriggerflowError as error:
                said.append(f"{type(error).__name__}: {error}")
        thread = threading.Thread(target=work)
        thread.start()
        thread.join(20)
        return said

    async def main():
        async with client:
            # Nothing of the parent's loop may be touched: its selector is shared.
            print(in_child(lambda: elsewhere(use), os._exit))
            print(in_child(lambda: elsewhere(client.close), os._exit))
            print(in_child(lambda: elsewhere(client.open), os._exit))
            assert await use() == 1

    asyncio.run(main())
    """
    refused, closed, opened = in_process(code, tmp_path).splitlines()
    for each in (refused, opened):
        assert "StoreError: store sqlite:///s.db: was opened before" in each
    assert closed == "[None]"
