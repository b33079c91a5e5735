"""Suspects: instances and queued calls whose workers died twice, in one worker.

Each is tried alone, and none waits for ever.
"""

from __future__ import annotations

import pytest
import trio
import trio.lowlevel

import triggerflow as tf
from triggerflow.store.operations import Claim
from triggerflow.store.sqlite import MemoryStore
from triggerflow.store.tasks import ClaimTasks


@pytest.fixture
def beside(new_app, watched):
    """An app whose steps note who else is there when they begin and when they end."""
    store = watched(MemoryStore())
    app = new_app(store)
    app.seen = {}
    app.store = store

    @app.step
    async def work(name):
        executor = app.engine._executor

        def look():
            return len(executor.owned) + len(executor.tasks.held)

        first = look()
        await trio.sleep(5)
        app.seen[name] = max(first, look())
        return name

    @app.flow
    def here(name):
        return (yield tf.call(work, name))

    @app.flow
    def queued(name):
        return (yield tf.call(work, name).using(queue="gpu"))

    return app


def suspected(store, table, where="1"):
    store.open()
    store._db.execute(f"UPDATE {table} SET crashes = 2 WHERE {where}")


def test_suspects_of_both_kinds_get_their_turns_alone(beside, live):
    """Three of each kind, among innocents of each kind: each ran alone, and all ended."""
    app = beside

    async def begin(engine):
        ids = [await engine.start("queued", f"task{n}") for n in range(6)]
        await engine.run_until_idle()
        return ids

    ids = live(app, begin)

    async def start(engine):
        return [await engine.start("here", f"here{n}") for n in range(6)]

    ids += live(app, start, work=False)
    suspected(app.store, "task", "id % 2")
    app.store._db.execute("UPDATE instance SET crashes = 2 WHERE flow = 'here' AND id % 2")

    async def end(engine):
        app.engine = engine
        return [(await engine.wait(id, timeout=600)).result for id in ids]

    found = live(app, end, queues=["gpu"])
    assert found == [f"task{n}" for n in range(6)] + [f"here{n}" for n in range(6)]
    assert sorted(app.seen.values())[:6] == [1] * 6
    alone = {name for name, most in app.seen.items() if most == 1}
    assert len([name for name in alone if name.startswith("task")]) >= 3
    assert len([name for name in alone if name.startswith("here")]) >= 3


@pytest.mark.parametrize(("tasks", "instances"), [(1, 20), (20, 1)])
def test_suspects_of_one_kind_starve_none_of_the_other(beside, live, tasks, instances):
    """Where suspects of one kind come and come, one of the other still gets its turn."""
    app = beside

    async def begin(engine):
        ids = [await engine.start("queued", f"task{n}") for n in range(tasks)]
        await engine.run_until_idle()
        return ids

    queued = live(app, begin)

    async def start(engine):
        return [await engine.start("here", f"here{n}") for n in range(instances)]

    here = live(app, start, work=False)
    suspected(app.store, "task")
    app.store._db.execute("UPDATE instance SET crashes = 2 WHERE flow = 'here'")

    async def end(engine):
        app.engine = engine
        await engine.wait((queued if tasks == 1 else here)[0], timeout=600)
        return len(app.seen)

    assert live(app, end, queues=["gpu"]) <= 3


@pytest.mark.parametrize("kind", [Claim, ClaimTasks])
def test_start_that_lands_beside_a_claim_of_a_suspect_leaves_it_alone(beside, live, kind):
    """A flow that is started while a suspect is on its way here isn't owned beside it."""
    app = beside

    async def begin(engine):
        id = await engine.start("queued" if kind is ClaimTasks else "here", "suspect")
        if kind is ClaimTasks:
            await engine.run_until_idle()
        return id

    id = live(app, begin, work=kind is ClaimTasks)
    suspected(app.store, "task" if kind is ClaimTasks else "instance", "1")

    async def end(engine):
        app.engine = engine
        others = []

        async def start():
            others.append(await engine.start("here", "other"))

        async with trio.open_nursery() as nursery:

            def before(batch):
                claims = [op for op in batch.operations if type(op) is kind and op.alone]
                if claims and not others and not nursery.child_tasks:
                    nursery.start_soon(start)

            app.store.before = before
            engine._work_came()
            await trio.lowlevel.checkpoint()
            await engine.wait(id, timeout=60)
            await trio.lowlevel.checkpoint()
        for other in others:
            await engine.wait(other, timeout=60)
        return len(others)

    assert live(app, end, queues=["gpu"]) == 1
    assert app.seen["suspect"] == 1
