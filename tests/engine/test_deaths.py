"""Workers in threads of their own that die at random moments, and closings amid reads."""

from __future__ import annotations

import collections
import random
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
import trio

import triggerflow as tf
from triggerflow.store.sqlite import SqliteStore
from triggerflow.testing.crash import Crash

_RESULT = [1, [2, 3, None], 7, 4]


def _make(path, calls):
    app = tf.App(SqliteStore(path), build="one", entry_points=False)

    def step(n, k):
        calls[n, k] += 1
        return k

    async def slow(n, k):
        await trio.sleep(random.random() * 0.01)
        calls[n, k] += 1
        return k

    @app.flow(name="f")
    def f(n):
        first = yield tf.call(step, n, 1)
        both = yield tf.gather(tf.call(slow, n, 2), tf.call(step, n, 3), tf.sleep(0.01))
        signal = yield tf.wait_signal("go")
        won = yield tf.race(tf.call(slow, n, 4), tf.sleep(5))
        return [first, both, signal, won.value]

    return app


async def _dies_and_comes_back(path, calls, stop, deaths):
    while not stop.is_set():
        try:
            async with _make(path, calls).open(lease=5) as engine:
                with trio.move_on_after(random.uniform(0.1, 0.6)):
                    await stop.wait()
                if not stop.is_set():
                    deaths.append(True)
                    engine._fatal(Crash())
                    await trio.sleep_forever()
        except Crash:
            continue


async def _main(path):
    calls = collections.Counter()
    stop, deaths = trio.Event(), []
    async with trio.open_nursery() as nursery:
        for _ in range(3):
            nursery.start_soon(_dies_and_comes_back, path, calls, stop, deaths)
        async with _make(path, calls).open(work=False) as writer:
            ids = [await writer.start("f", n) for n in range(200)]
            for id in ids:
                await writer.signal(id, "go", 7)
            with trio.fail_after(60):
                found = [await writer.wait(id) for id in ids]
            stop.set()
            for each in found:
                assert each.result == _RESULT, each
                assert (await writer.replay(each.id)) == tf.Done(_RESULT)
                tags = [entry.tag for entry in await writer.log(each.id)]
                assert len(tags) == len(set(tags)) == 6
    # A step whose result was durable never ran again: deaths alone repeat one.
    assert max(calls.values()) <= 1 + len(deaths)


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2])
def test_workers_that_die_at_random_lose_nothing(seed):
    """Three workers on one file die again and again: every flow ends right, each entry once."""
    # In a process of its own: what a dying engine can break is the interpreter itself.
    done = subprocess.run(
        [sys.executable, "-X", "faulthandler", __file__, str(seed)],
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
        cwd=Path(tf.__file__).parents[1],
        env={"PYTHONPATH": str(Path(tf.__file__).parents[1])},
    )
    assert done.returncode == 0, done.stderr[-3000:]


def test_closing_amid_reads_is_safe(new_app, real, make_sqlite):
    """Tasks that read while the engine closes get `EngineClosed`, not a closed connection."""
    app = new_app(make_sqlite())
    told = []

    @app.flow
    def f(_):
        yield tf.wait_signal("go")

    async def reads(engine):
        with pytest.raises(tf.EngineClosed):
            while True:
                [each async for each in engine.instances()]
        told.append(True)

    async def scenario():
        for _ in range(20):
            async with trio.open_nursery() as nursery, app.open() as engine:
                for n in range(10):
                    await engine.start(f, n)
                for _ in range(5):
                    nursery.start_soon(reads, engine)
                await trio.lowlevel.checkpoint()

    real(scenario)
    assert len(told) == 100


if __name__ == "__main__":
    random.seed(int(sys.argv[1]))
    with tempfile.TemporaryDirectory() as folder:
        trio.run(_main, Path(folder, "store.db"))


@pytest.mark.parametrize("operation", ["open", "sync_triggers", "registry", "register_worker"])
def test_store_that_fails_while_it_opens_is_let_go_and_opens_later(
    tmp_path, monkeypatch, operation
):
    """A full disk at any point of the opening: its error comes out, and the file is free."""
    path = tmp_path / "t.db"
    app = _make(path, collections.Counter())
    app.trigger("t", on="Follow", start="f")
    store = app.store

    def fails(*_, **__):
        raise tf.StoreError(store.url, "the disk is full", "make room")

    async def main():
        with trio.fail_after(20):
            with monkeypatch.context() as broken:
                broken.setattr(store, operation, fails)
                with pytest.raises(tf.StoreError, match="the disk is full"):
                    async with app.open():
                        pytest.fail("it opened")
            async with app.open() as engine:
                await engine.start("f", 1)

    trio.run(main)
