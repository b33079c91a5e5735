"""Queued calls: run by whoever serves the queue, answered once, never lost."""

from __future__ import annotations

import contextlib
import threading

import pytest
import trio

import triggerflow as tf
from triggerflow.core.answers import Answer
from triggerflow.store.posts import Told
from triggerflow.store.sqlite import MemoryStore, SqliteStore
from triggerflow.store.sqlite import tasks as stored_tasks
from triggerflow.store.tasks import ClaimTasks, FinishTask
from triggerflow.testing.crash import Crash, crash_everywhere
from triggerflow.testing.time import run_virtually, virtual_settings

LEASE = 30.0
GPU = ["gpu"]
AGAIN = tf.RetryPolicy(max_attempts=3, initial=10, jitter=0)


class _Shared:
    """One memory store for several engines: none closes it for the others."""

    def __init__(self, store):
        self.store = store

    def __getattr__(self, name):
        return getattr(self.store, name)

    def close(self):
        pass

    abandon = close


@pytest.fixture(params=["memory", "sqlite"])
def one_place(request, tmp_path):
    """Give each engine its store, all of them over the same data."""
    if request.param == "memory":
        store = MemoryStore()
        return lambda: _Shared(store)
    return lambda: SqliteStore(tmp_path / "one.db")


def virtually(scenario, *, hung=50_000.0):
    async def main():
        with trio.fail_after(hung):
            return await scenario()

    return run_virtually(main)


def opened(app, **settings):
    return app.open(**(virtual_settings() | {"lease": LEASE} | settings))


def serving(app, *queues, **settings):
    return opened(app, queues=queues or GPU, only_queues=True, **settings)


async def until(condition):
    while True:
        found = condition()
        if hasattr(found, "__await__"):
            found = await found
        if found:
            return found
        await trio.sleep(0.25)


def flow_app(new_app, store, body, *steps):
    """An app with one flow, `f`, and registered steps."""
    app = new_app(store)
    app.register(*steps)
    app.flow(name="f")(body)
    return app


def step_app(new_app, store, *steps):
    app = new_app(store, build="steps")
    app.register(*steps)
    return app


def stub(name):
    """A step's registration where only its name is needed: it may never run here."""

    def never(*args):
        raise AssertionError(f"{name} ran where it isn't served")

    return tf.step(name=name)(never)


# --- flows here, the queue there


def test_a_step_runs_where_its_queue_is_served(new_app, one_place):
    """The flow's worker lends the name, the queue's the code; the instance waits as a row."""
    seen = []
    render = stub("render")

    def flow(n):
        picture = yield tf.call(render, n, size=[n, 2]).using(queue="gpu")
        return [picture, n]

    @tf.step(name="render")
    def real(n, size):
        context = tf.step_context()
        seen.append((context.instance, context.generation, context.tag, context.attempt))
        size.append(3)
        return {"n": n, "size": size, "key": context.idempotency_key}

    async def scenario():
        async with opened(flow_app(new_app, one_place(), flow, render), keep_warm=0) as flows:
            id = await flows.start("f", 7)
            await flows.run_until_idle()
            parked = await flows.get(id)
            record = flows._store.instance(id)
            assert (parked.status, parked.waiting) == ("waiting", ("call:render#0",))
            assert (record.owner, record.due, len(flows._executor.warm)) == (None, None, 0)
            (task,) = await flows.tasks("gpu")
            assert (task.step, task.state, task.attempt) == ("render", "ready", 0)
            assert await flows.tasks("cpu") == ()
            async with serving(step_app(new_app, one_place(), real)) as queue:
                done = await flows.wait(id)
                assert queue.statistics().owned == 0
            assert await flows.tasks() == ()
            assert await flows.replay(id) == tf.Done(done.result)
            (entry,) = await flows.log(id)
            return id, done.result, entry.tag

    id, (picture, n), tag = virtually(scenario)
    assert seen == [(id, 1, "call:render#0", 1)]
    assert (n, picture["n"], picture["size"], tag) == (7, 7, [7, 2, 3], "call:render#0")
    assert picture["key"]


def test_a_worker_that_only_serves_queues_owns_nothing(new_app, one_place):
    """It claims no instance and keeps none that it starts, though it knows the flow."""
    app = flow_app(new_app, one_place(), lambda n: (yield tf.sleep(1)), stub("render"))

    async def scenario():
        async with serving(app) as queue:
            id = await queue.start("f")
            await trio.sleep(60)
            assert (await queue.get(id)).log_length == 0
            assert queue._store.instance(id).owner is None
            assert not queue.statistics().owned
            await queue.run_until_idle()

    virtually(scenario)


def test_other_queues_and_steps_are_left_alone(new_app, one_place):
    """A worker takes what it serves and knows; an unknown step waits until one comes."""
    ran = []
    names = ("paint", "render")
    stubs = {name: stub(name) for name in names}

    def flow(_):
        return (
            yield tf.gather(
                tf.call(stubs["render"], 1).using(queue="gpu"),
                tf.call(stubs["paint"], 2).using(queue="gpu"),
                tf.call(stubs["render"], 3).using(queue="cpu"),
            )
        )

    @tf.step
    def render(n):
        ran.append(("render", n))
        return n

    @tf.step
    def paint(n):
        ran.append(("paint", n))
        return n

    async def scenario():
        async with opened(flow_app(new_app, one_place(), flow, *stubs.values())) as flows:
            id = await flows.start("f")
            async with serving(step_app(new_app, one_place(), render)):
                await until(lambda: ran)
                await trio.sleep(10)
                assert ran == [("render", 1)]
                left = {(task.queue, task.step) for task in await flows.tasks()}
                assert left == {("gpu", "paint"), ("cpu", "render")}
            async with serving(step_app(new_app, one_place(), render, paint), "gpu", "cpu"):
                return (await flows.wait(id)).result

    assert virtually(scenario) == [1, 2, 3]
    assert sorted(ran) == [("paint", 2), ("render", 1), ("render", 3)]


def test_a_worker_holds_no_more_than_it_has_threads(new_app, live, make_store):
    """Of a hundred tasks so many run at once; the rest stays for others, oldest first."""
    app = new_app(make_store())
    now, most, order = [0], [0], []

    @app.step
    async def work(n):
        order.append(n)
        now[0] += 1
        most[0] = max(most[0], now[0])
        await trio.sleep(1)
        now[0] -= 1
        return n

    @app.flow(name="f")
    def f(_):
        return (yield tf.gather(*(tf.call(work, n).using(queue="gpu") for n in range(100))))

    async def scenario(engine):
        return (await engine.wait(await engine.start(f))).result

    assert live(app, scenario, queues=GPU, threads=4) == list(range(100))
    assert most == [4]
    # Of one claim, trio starts whichever it likes first.
    assert all(abs(place - n) < 4 for place, n in enumerate(order))


# --- what can't be queued


@pytest.mark.parametrize("form", ["function", "closure", "lambda", "transaction", "undo"])
def test_only_registered_steps_can_be_queued(new_app, live, form):
    """What no other worker could find is refused at its yield, by name, with the remedy."""
    app = new_app()
    known = stub("known")

    def plain():
        pass

    @tf.transaction
    def booked(tx):
        pass

    calls = {
        "function": lambda: tf.call(abs, 1),
        "closure": lambda: tf.call(plain),
        "lambda": lambda: tf.call(lambda: 1).using(name="mine"),
        "transaction": lambda: tf.call(booked),
        "undo": lambda: tf.call(known).using(compensate=plain),
    }

    @app.flow(name="f")
    def f(_):
        try:
            yield calls[form]().using(queue="gpu")
        except tf.DefinitionError as error:
            return str(error)

    async def scenario(engine):
        return (await engine.wait(await engine.start(f))).result

    said = live(app, scenario)
    assert "is no registered step" in said
    assert "@app.step" in said
    assert "queue='gpu'" in said


def test_a_step_of_another_app_is_refused(new_app, live, make_store):
    """A step that this app doesn't register fails its call, and the flow may go on."""
    app = new_app(make_store())
    stray, known = tf.step(name="stray")(abs), tf.step(name="known")(abs)
    app.register(known)

    @app.flow(name="f")
    def f(_):
        try:
            yield tf.call(stray, -1).using(queue="gpu")
        except tf.StepFailed as failed:
            first = failed.failure.message
        # The next one was made while the first was refused.
        return [first, (yield tf.call(known, -2).using(queue="gpu"))]

    async def scenario(engine):
        done = await engine.wait(await engine.start(f))
        assert await engine.replay(done.id) == tf.Done(done.result)
        return done.result

    said, result = live(app, scenario, queues=GPU)
    assert "step 'stray' is not registered in this app" in said
    assert "app.register()" in said
    assert result == 2


def test_steps_are_named_once(new_app):
    """A step may be registered twice; another one under its name is refused."""
    app = new_app()
    made = app.step(name="media.render")(abs)
    app.register(made)
    assert app.steps == (made,)
    with pytest.raises(tf.DefinitionError, match="registered twice"):
        app.step(name="media.render")(divmod)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"queues": "gpu"}, "expected several names"),
        ({"queues": ["a/b"]}, "may not hold"),
        ({"queues": GPU, "work": False}, "leave work=False out"),
        ({"only_queues": True}, "there is no queue"),
        ({"queues": GPU}, "no registered step"),
    ],
)
def test_settings_that_cannot_serve_are_refused(new_app, live, settings, said):
    """Queues without a worker, a step, or a list of names are refused when the app opens."""
    with pytest.raises(tf.DefinitionError, match=said):
        live(new_app(), None, **settings)


@pytest.mark.parametrize("bad", [lambda: (yield), "render", tf.step(abs)])
def test_what_is_no_function_is_no_step(bad):
    """Generators, texts and steps are refused where they are decorated."""
    with pytest.raises(tf.DefinitionError):
        tf.step(name="x")(bad)


def test_a_step_is_its_function(new_app, live):
    """It can be called in tests, and without a queue it runs where its flow is driven."""
    app = new_app()

    @app.step(name="doubled")
    async def double(n):
        """Twice."""
        return 2 * n

    @app.flow(name="f")
    def f(n):
        return (yield tf.call(double, n))

    async def scenario(engine):
        done = await engine.wait(await engine.start(f, 4))
        return await double(3), done.result, [e.tag for e in await engine.log(done.id)]

    assert live(app, scenario) == (6, 8, ["call:doubled#0"])
    assert double.__doc__ == "Twice."


# --- failures


def test_retries_go_over_workers_with_their_back_off(new_app, one_place):
    """The flow's policy decides: due times hold, any worker takes the next attempt."""
    begun = []
    render = stub("render")

    def flow(_):
        return (yield tf.call(render).using(queue="gpu", retry=AGAIN))

    def worker(name):
        @tf.step(name="render")
        async def real():
            begun.append((name, tf.step_context().attempt, trio.current_time()))
            if len(begun) < 3:
                raise OSError(name)
            return name

        return step_app(new_app, one_place(), real)

    async def scenario():
        async with opened(flow_app(new_app, one_place(), flow, render)) as flows:
            id = await flows.start("f")
            async with serving(worker("one")):
                await until(lambda: begun)
                await trio.sleep(2)
            (task,) = await flows.tasks()
            assert (task.state, task.attempt, task.worker) == ("ready", 1, None)
            assert task.due > task.armed + 9
            async with serving(worker("two")):
                return (await flows.wait(id)).result

    assert virtually(scenario) == "two"
    assert [(name, attempt) for name, attempt, _ in begun] == [
        ("one", 1),
        ("two", 2),
        ("two", 3),
    ]
    times = [at for _, _, at in begun]
    assert times[1] - times[0] >= 10
    assert times[2] - times[1] >= 20


class Broken(Exception):
    """For policies that judge by class."""


class Worse(Broken):
    """One that derives from it."""


@pytest.mark.parametrize(
    ("raised", "policy", "attempts", "kind"),
    [
        (OSError("x"), AGAIN, 3, "OSError"),
        (OSError("x"), None, 1, "OSError"),
        (Worse("x"), tf.RetryPolicy(give_up_on=Broken), 1, "test_queues.Worse"),
        (Worse("x"), tf.RetryPolicy(retry_on=Broken, max_attempts=2), 2, "test_queues.Worse"),
        (KeyError("x"), tf.RetryPolicy(retry_on=Broken), 1, "KeyError"),
        (KeyError("x"), tf.RetryPolicy(retry_on=LookupError, max_attempts=2), 2, "KeyError"),
        (SystemExit(3), AGAIN, 1, "SystemExit"),
        (tf.RetryAfter("soon"), AGAIN, 1, "DefinitionError"),
        (OSError("x"), tf.RetryPolicy(max_attempts=9, total_timeout=2), 2, "OSError"),
    ],
)
def test_the_policy_judges_what_it_is_told(
    new_app, live, make_store, raised, policy, attempts, kind
):
    """Classes, limits and RetryAfter count as they do where the step runs at home."""
    app = new_app(make_store())
    begun = []

    @app.step
    def work():
        begun.append(1)
        raise raised

    @app.flow(name="f")
    def f(queue):
        effect = tf.call(work).using(retry=policy)
        yield effect.using(queue=queue) if queue else effect

    async def scenario(engine, queue=None):
        del begun[:]
        done = await engine.wait(await engine.start(f, queue))
        assert done.status == "failed"
        return len(begun), done.failure.message

    async def both(engine):
        return await scenario(engine, "gpu"), await scenario(engine)

    queued, home = live(app, both, queues=GPU)
    assert queued == home
    assert queued[0] == attempts
    assert f": {kind}" in queued[1] or kind.partition(".")[2] in queued[1]


def test_retry_after_is_obeyed_from_afar(new_app, live):
    """The delay that a queued step names is kept."""
    app = new_app()
    begun = []

    @app.step
    async def work():
        begun.append(trio.current_time())
        if len(begun) == 1:
            raise tf.RetryAfter(tf.hours(2))
        return "done"

    @app.flow(name="f")
    def f(_):
        return (yield tf.call(work).using(queue="gpu", retry=AGAIN))

    async def scenario(engine):
        return (await engine.wait(await engine.start(f))).result

    assert live(app, scenario, queues=GPU, hung=1e5) == "done"
    assert begun[1] - begun[0] >= 7200


@pytest.mark.parametrize("colour", ["plain", "async"])
def test_a_timeout_holds_where_the_step_runs(new_app, real, make_store, colour):
    """An attempt that takes too long fails there; the policy has its say, then `TimedOut`."""
    app = new_app(make_store())
    begun, free = [], threading.Event()

    async def slow():
        begun.append(1)
        if len(begun) == 1:
            await trio.sleep_forever()
        return "done"

    def slow_plain():
        begun.append(1)
        if len(begun) == 1:
            free.wait(0.3)
        return "done"

    work = app.step(name="work")(slow if colour == "async" else slow_plain)

    @app.flow(name="f")
    def f(policy):
        again = AGAIN.__class__(max_attempts=2, initial=0) if policy else None
        try:
            call = tf.call(work).using(queue="gpu", timeout=0.2)
            return (yield call.using(retry=again) if again else call)
        except tf.TimedOut:
            return "timed out"

    async def scenario():
        async with app.open(queues=GPU) as engine:
            first = (await engine.wait(await engine.start(f, False))).result
            del begun[:]
            return first, (await engine.wait(await engine.start(f, True))).result

    assert real(scenario) == ("timed out", "done")


def test_a_result_that_cannot_be_kept_is_a_failure_by_name(new_app, live, make_store):
    """What no log could hold fails the call once: another attempt would bring the same."""
    app = new_app(make_store())
    begun = []

    @app.step
    def work():
        begun.append(1)
        return {1, 2}

    @app.flow(name="f")
    def f(_):
        yield tf.call(work).using(queue="gpu", retry=AGAIN)

    async def scenario(engine):
        return (await engine.wait(await engine.start(f))).failure.message

    assert "EncodingRefused" in live(app, scenario, queues=GPU)
    assert begun == [1]


def test_a_result_of_the_largest_size_arrives(new_app, live):
    """What one log value can hold, the answer of a queue can carry."""
    app = new_app()
    size = app.codec.limits.size - 16

    @app.step
    def work():
        return "x" * size

    @app.flow(name="f")
    def f(_):
        return len((yield tf.call(work).using(queue="gpu")))

    async def scenario(engine):
        return (await engine.wait(await engine.start(f))).result

    assert live(app, scenario, queues=GPU) == size


# --- withdrawn


def withdrawals(new_app, one_place, flow, act):
    """Run `flow` until its step runs elsewhere, `act`, and see the attempt stopped."""
    ended, causes = [], []
    render = stub("render")

    @tf.step(name="render")
    async def real():
        try:
            await trio.sleep_forever()
        finally:
            # Out of the cancelled scope nothing can be awaited, but asked.
            try:
                tf.step_context().heartbeat("late")
            except tf.AttemptOver as over:
                causes.append(over.cause)
            ended.append(trio.current_time())

    async def scenario():
        async with (
            opened(flow_app(new_app, one_place(), lambda n: flow(render), render)) as flows,
            serving(step_app(new_app, one_place(), real)) as queue,
        ):
            id = await flows.start("f", key="k")
            await until(lambda: queue._executor.tasks.held)
            (task,) = await flows.tasks()
            assert (task.state, task.attempt) == ("running", 1)
            await act(flows, id)
            await until(lambda: ended)
            assert not queue._executor.tasks.held
            assert await flows.tasks() == ()
            record = flows._store.instance(id)
            assert flows._store.progress(record.number, record.generation) == []
            found = await flows.wait(id)
            return found.status, found.result, [e.tag for e in await flows.log(id)]

    found = virtually(scenario)
    assert causes == ["withdrawn"]
    return found


def test_a_loser_is_withdrawn_while_it_runs(new_app, one_place):
    """The attempt elsewhere hears that it lost, and what it would bring is refused."""

    def flow(render):
        won = yield tf.race(tf.call(render).using(queue="gpu"), timer=tf.sleep(5))
        yield tf.sleep(100)
        return won.name

    async def act(flows, id):
        del flows, id

    assert withdrawals(new_app, one_place, flow, act)[1] == "timer"


def test_cancel_and_terminate_withdraw(new_app, one_place):
    """An instance that is cancelled, with or without its leave, leaves no task behind."""

    def flow(render):
        yield tf.call(render).using(queue="gpu")

    async def cancel(flows, id):
        assert await flows.cancel(id)

    assert withdrawals(new_app, one_place, flow, cancel)[0] == "cancelled"


def test_terminate_withdraws(new_app, one_place):
    """An instance that is ended by hand leaves no task behind."""

    def flow(render):
        yield tf.call(render).using(queue="gpu")

    async def terminate(flows, id):
        await flows.terminate(id)

    assert withdrawals(new_app, one_place, flow, terminate)[0] == "cancelled"


def test_a_completion_from_outside_withdraws(new_app, one_place):
    """`complete` decides a queued call: its value is the result, its attempt is over."""

    def flow(render):
        found = yield tf.call(render).using(queue="gpu")
        yield tf.sleep(100)
        return found

    async def complete(flows, id):
        await flows.complete(id, "call:render#0", "by hand")

    found = withdrawals(new_app, one_place, flow, complete)
    assert found == ("done", "by hand", ["call:render#0", "sleep#0"])


def test_a_call_that_failed_for_good_leaves_no_task(new_app, live, make_store):
    """Once the flow has heard of it, neither task nor progress stays, though it goes on."""
    app = new_app(make_store())

    @app.step
    def work():
        tf.step_context().heartbeat("half")
        raise OSError

    @app.flow(name="f")
    def f(_):
        try:
            yield tf.call(work).using(queue="gpu")
        except tf.StepFailed:
            yield tf.wait_signal("go")

    async def scenario(engine):
        id = await engine.start(f)
        await engine.run_until_idle()
        record = engine._store.instance(id)
        assert record.status == "waiting"
        return await engine.tasks(), engine._store.progress(record.number, 1)

    assert live(app, scenario, queues=GPU) == ((), [])


def test_an_answer_of_another_generation_is_dropped(new_app, live, make_store):
    """Equal tags in two generations are two calls: the answer of one is none of the other."""
    store = make_store()
    work = stub("work")
    app = flow_app(new_app, store, lambda _: (yield tf.call(work).using(queue="gpu")), work)

    async def scenario(engine):
        id = await engine.start("f")
        await engine.run_until_idle()
        number = store.instance(id).number
        answer = Answer(2, app.codec.encode("no")).encode(app.codec)
        stored_tasks.kin.post(store._db, [(number, "task", "call:work#0", answer, 1.0)])
        await engine.run_until_idle()
        found = await engine.get(id)
        return found.status, found.log_length, store.inbox(number)

    assert live(app, scenario) == ("waiting", 0, [])


def test_a_plain_step_hears_that_it_is_withdrawn(new_app, real, tmp_path):
    """A thread can't be stopped; its next heartbeat says so, and its result changes nothing."""
    heard, begun, free = [], threading.Event(), threading.Event()
    render = stub("render")

    @tf.step(name="render")
    def body():
        begun.set()
        free.wait(10)
        try:
            tf.step_context().heartbeat("on")
        except tf.AttemptOver as over:
            heard.append(over.cause)
        return "late"

    def flow(_):
        won = yield tf.race(tf.call(render).using(queue="gpu"), word=tf.wait_signal("stop"))
        yield tf.wait_signal("end")
        return won.name

    def store():
        return SqliteStore(tmp_path / "x.db")

    async def scenario():
        async with (
            flow_app(new_app, store(), flow, render).open() as flows,
            step_app(new_app, store(), body).open(queues=GPU) as queue,
        ):
            id = await flows.start("f")
            await until(begun.is_set)
            await flows.signal(id, "stop")
            await until(lambda: not queue._executor.tasks.held)
            free.set()
            await until(lambda: heard)
            await flows.signal(id, "end")
            done = await flows.wait(id)
            return done.result, [entry.tag for entry in await flows.log(id)]

    result, tags = real(scenario)
    assert (result, heard) == ("word", ["withdrawn"])
    assert tags == ["race#0[word]/wait_signal:stop#0", "wait_signal:end#0"]


def test_the_next_generation_has_no_tasks_of_the_last(new_app, live, make_store):
    """continue_as_new ends with nothing queued, and equal tags begin anew."""
    store = make_store()
    app = new_app(store)
    seen = []

    @app.step
    def work(n):
        seen.append((tf.step_context().generation, tf.step_context().attempt))
        return n + 1

    @app.flow(name="f")
    def f(n):
        n = yield tf.call(work, n).using(queue="gpu")
        if n < 3:
            yield tf.continue_as_new(n)
        return n

    async def scenario(engine):
        done = await engine.wait(await engine.start(f, 0))
        count = store._db.execute("SELECT count(*) FROM task_answer").fetchone()
        return done.result, await engine.tasks(), count

    assert live(app, scenario, queues=GPU) == (3, (), (0,))
    assert seen == [(1, 1), (2, 1), (3, 1)]


# --- crashes, lost leases, lost answers


def make_app(store):
    """Two queued calls side by side, retried, recorded, compensated."""
    app = tf.App(store, build="one", entry_points=False)

    @app.step
    def flaky(n):
        if tf.step_context().attempt < 2:
            tf.step_context().heartbeat("half")
            raise OSError(n)
        return n

    @app.step
    async def slow(n):
        await trio.sleep(2)
        return [n]

    @app.step
    def undo(result, n):
        return ["undone", result, n]

    def loser():
        yield tf.call(slow, 8).using(queue="gpu", compensate=undo)
        yield tf.sleep(10_000)

    @app.flow
    def order(_):
        found = yield tf.gather(
            tf.call(flaky, 1).using(queue="gpu", retry=tf.RetryPolicy(max_attempts=9)),
            tf.call(slow, 2).using(queue="gpu", idempotency_key="two"),
        )
        won = yield tf.race(loser(), timer=tf.sleep(30))
        both = yield tf.race(tf.call(slow, 5).using(queue="gpu"), timer=tf.sleep(1))
        return [found, won.name, both.name]

    return app


async def scenario(engine):
    done = await engine.wait(await engine.start("order", key="k"), timeout=20_000)
    assert await engine.replay(done.id) == tf.Done(done.result)
    await engine.run_until_idle()
    return done.result, sorted(entry.tag for entry in await engine.log(done.id))


def audit(store):
    """Whoever died where: no tag twice, no task, no answer, no progress, no letter left."""
    for record in store.instances(limit=10):
        assert record.status == "done"
        tags = [row.tag for row in store.log(record.number, 1)]
        assert len(tags) == len(set(tags)), tags
        assert store.inbox(record.number) == []
        assert store.progress(record.number, 1) == []
    assert store.tasks() == []
    for table in ("task", "task_answer"):
        assert store._db.execute(f"SELECT count(*) FROM {table}").fetchone() == (0,)


def test_a_crash_at_every_commit_point_changes_nothing(make_store):
    """Before and after each claim, answer and turn: one end, each result once."""
    report = crash_everywhere(make_app, scenario, make_store, audit=audit, queues=GPU)
    result, tags = report.end
    assert result == [[1, [2]], "timer", "timer"]
    assert len(tags) == 6, tags
    assert report.points >= 20


def broken():
    """Run the scenario on an engine that was broken; whether anybody noticed."""
    try:
        report = crash_everywhere(make_app, scenario, MemoryStore, audit=audit, queues=GPU)
    except (AssertionError, tf.TriggerflowError, BaseExceptionGroup):
        return True
    return report.end[0] != [[1, [2]], "timer", "timer"]


def test_harness_sees_an_answer_apart_from_its_commit(monkeypatch):
    """With the end of the task in one commit and its letter nowhere, the flow never ends."""
    kin = stored_tasks.kin
    monkeypatch.setattr(kin, "post", lambda *_: Told())
    assert broken()


def test_harness_sees_tasks_that_a_dead_worker_keeps(monkeypatch):
    """With a dead worker's tasks not freed, nobody runs them."""
    monkeypatch.setattr(stored_tasks, "free", lambda *_: 0)
    monkeypatch.setattr("triggerflow.store.sqlite.workers.tasks.free", lambda *_: 0)
    assert broken()


async def dying(app, when, **settings):
    """A worker of the queue that dies as soon as `when` holds."""
    with contextlib.suppress(Crash):
        async with serving(app, **settings) as engine:
            await until(lambda: when(engine))
            engine._fatal(Crash())
            await trio.sleep_forever()


def test_a_dead_workers_task_runs_elsewhere(new_app, one_place):
    """A crash costs the policy no attempt, counts for the step, and leaves its bookmark."""
    seen = []
    render = stub("render")

    def flow(_):
        return (yield tf.call(render).using(queue="gpu"))

    @tf.step(name="render")
    async def hangs():
        tf.step_context().heartbeat("half")
        seen.append(tf.step_context().attempt)
        await trio.sleep_forever()

    @tf.step(name="render")
    def real():
        seen.append((tf.step_context().attempt, tf.step_context().details))
        return "done"

    async def scenario():
        async with opened(flow_app(new_app, one_place(), flow, render)) as flows:
            id = await flows.start("f")

            async def said(_):
                return await flows.progress(id)

            await dying(step_app(new_app, one_place(), hangs), said)
            async with serving(step_app(new_app, one_place(), real)):
                return (await flows.wait(id)).result

    assert virtually(scenario) == "done"
    assert seen == [1, (2, "half")]


@pytest.mark.parametrize("side", ["before", "after"])
def test_a_worker_dies_at_its_answer(new_app, one_place, watched, side):
    """Before its commit the step runs again; after it, never: the result is one."""
    ran = []
    render = stub("render")

    def flow(_):
        return (yield tf.call(render).using(queue="gpu"))

    def body(name):
        @tf.step(name="render")
        def real():
            ran.append(name)
            return name

        return real

    store = watched(one_place())

    def die(batch, _=None):
        if any(type(op) is FinishTask for op in batch.operations):
            raise Crash

    setattr(store, side, die)

    async def scenario():
        async with opened(flow_app(new_app, one_place(), flow, render)) as flows:
            id = await flows.start("f")
            await flows.run_until_idle()
            with contextlib.suppress(Crash):
                async with serving(step_app(new_app, store, body("one"))):
                    await trio.sleep_forever()
            async with serving(step_app(new_app, one_place(), body("two"))):
                done = await flows.wait(id)
                await trio.sleep(5)
                return done.result, [entry.value for entry in await flows.log(id)]

    winner = "two" if side == "before" else "one"
    assert virtually(scenario) == (winner, [winner])
    assert ran == (["one", "two"] if side == "before" else ["one"])


def test_an_answer_whose_own_answer_was_lost_is_told_again(new_app, live, watched, make_store):
    """The commit landed, the store said it failed: the repeat succeeds, and adds no row."""
    store = watched(make_store())
    app = new_app(store)
    failed, ran = [], []

    def once(batch, _):
        if not failed and any(type(op) is FinishTask for op in batch.operations):
            failed.append(True)
            raise OSError("the line broke")

    store.after = once

    @app.step
    def work():
        ran.append(1)
        return "done"

    @app.flow(name="f")
    def f(_):
        return [(yield tf.call(work).using(queue="gpu")), (yield tf.sleep(20))]

    async def scenario(engine):
        done = await engine.wait(await engine.start(f))
        return done.result, [entry.tag for entry in await engine.log(done.id)]

    found = live(app, scenario, queues=GPU, lease=LEASE)
    assert found == (["done", None], ["call:work#0", "sleep#0"])
    assert ran == [1]
    verdicts = [
        outcome.verdict.value
        for batch, outcomes in store.batches
        for op, outcome in zip(batch.operations, outcomes, strict=True)
        if type(op) is FinishTask
    ]
    assert (failed, verdicts) == ([True], ["applied", "duplicate"])


class _Standstill:
    """A store that its worker can't write to while it stands still."""

    def __init__(self, store):
        self.store = store
        self.still = False

    def __getattr__(self, name):
        found = getattr(self.store, name)
        if name not in ("commit", "reap", "register_worker"):
            return found

        def write(*args, **named):
            if self.still:
                raise OSError("it stands still")
            return found(*args, **named)

        return write


def test_a_worker_that_lost_its_lease_cannot_answer(new_app, one_place):
    """Another worker has the task; the late result is refused, the old worker goes on."""
    ran = []
    render = stub("render")
    gate = trio.Event()

    def flow(_):
        return (yield tf.call(render).using(queue="gpu"))

    def body(name, waits):
        @tf.step(name="render")
        async def real():
            ran.append(name)
            if waits and ran == ["one"]:
                # Nothing stops this one: it is late for sure.
                with trio.CancelScope(shield=True):
                    await gate.wait()
            return name

        return real

    still = _Standstill(one_place())

    async def scenario():
        async with (
            opened(flow_app(new_app, one_place(), flow, render)) as flows,
            serving(step_app(new_app, still, body("one", True))) as one,
        ):
            id = await flows.start("f")
            await until(lambda: ran)
            first = one._committer.worker
            still.still = True
            async with serving(step_app(new_app, one_place(), body("two", False))):
                done = await flows.wait(id)
                still.still = False
                gate.set()
                await until(lambda: one._committer.worker != first)
                await trio.sleep(5)
                values = [entry.value for entry in await flows.log(id)]
            # Born again, it serves again.
            again = await flows.wait(await flows.start("f"))
            return done.result, values, again.result

    assert virtually(scenario) == ("two", ["two"], "one")
    assert ran == ["one", "two", "one"]


def test_a_drained_worker_hands_its_tasks_back(new_app, one_place):
    """What runs on past the limit is another's at once, and no crash is counted."""
    seen = []
    render = stub("render")

    def flow(_):
        return (yield tf.call(render).using(queue="gpu"))

    @tf.step(name="render")
    async def hangs():
        seen.append("hangs")
        await trio.sleep_forever()

    @tf.step(name="render")
    def real():
        return tf.step_context().attempt

    async def scenario():
        async with opened(flow_app(new_app, one_place(), flow, render)) as flows:
            id = await flows.start("f")
            async with serving(step_app(new_app, one_place(), hangs)) as queue:
                await until(lambda: seen)
                drained = await queue.drain(timeout=1)
            (task,) = await flows.tasks()
            assert (task.state, task.crashes, task.worker) == ("ready", 0, None)
            async with serving(step_app(new_app, one_place(), real)):
                return drained.abandoned, (await flows.wait(id)).result

    assert virtually(scenario) == (1, 2)


def test_a_running_task_may_end_while_its_worker_drains(new_app, live):
    """A drain gives a queued step its time, and its answer lands."""
    app = new_app()

    @app.step
    async def work():
        await trio.sleep(3)
        return "done"

    @app.flow(name="f")
    def f(_):
        return (yield tf.call(work).using(queue="gpu"))

    async def scenario(engine):
        await engine.start(f)
        await until(lambda: engine._executor.tasks.held)
        found = await engine.drain(timeout=60)
        (record,) = engine._store.instances()
        return found.finished, found.abandoned, len(engine._store.inbox(record.number))

    assert live(app, scenario, queues=GPU) == (1, 0, 1)


def test_what_is_claimed_as_a_drain_begins_is_not_begun(new_app, one_place, watched):
    """A claim that lands on a draining worker starts no step, and another one runs it."""
    ran = []
    render = stub("render")

    def flow(_):
        return (yield tf.call(render).using(queue="gpu"))

    def body(name):
        @tf.step(name="render")
        def real():
            ran.append(name)
            return name

        return step_app(new_app, store if name == "one" else one_place(), real)

    store = watched(one_place())

    async def scenario():
        async with opened(flow_app(new_app, one_place(), flow, render)) as flows:
            id = await flows.start("f")
            await flows.run_until_idle()
            drained = trio.Event()
            async with trio.open_nursery() as nursery:

                async def drain(engine):
                    await engine.drain(timeout=1)
                    drained.set()

                def begin(batch, outcomes):
                    if (
                        any(each.tasks for each in outcomes)
                        and not engines[0]._executor.draining
                    ):
                        nursery.start_soon(drain, engines[0])
                        engines[0]._executor.draining = True
                        engines[0]._executor.tasks.draining = True

                engines = []
                store.after = begin
                async with serving(body("one")) as engine:
                    engines.append(engine)
                    await drained.wait()
            (task,) = await flows.tasks()
            assert (task.state, task.crashes, ran) == ("ready", 0, [])
            async with serving(body("two")):
                return (await flows.wait(id)).result

    assert virtually(scenario) == "two"


# --- a step that kills its worker


def test_a_step_that_kills_its_worker_fails_at_the_limit(new_app, one_place):
    """From two deaths on it runs alone; at the fifth its call fails, and innocents are done."""
    beside = []
    render = stub("render")

    def flow(kills):
        try:
            return (yield tf.call(render, kills).using(queue="gpu", retry=AGAIN))
        except tf.StepFailed as failed:
            return [failed.failure.type, failed.failure.message]

    @tf.step(name="render")
    async def real(kills):
        if kills:
            await trio.sleep(1)
            deadly.append(True)
            await trio.sleep_forever()
        await trio.sleep(3)
        return "innocent"

    deadly = []

    def kills(engine):
        if deadly:
            beside.append(len(engine._executor.tasks.held))
        return deadly

    async def scenario():
        async with opened(flow_app(new_app, one_place(), flow, render)) as flows:
            killer = await flows.start("f", True)
            others = [await flows.start("f", False) for _ in range(5)]
            await flows.run_until_idle()
            for _ in range(5):
                deadly.clear()
                await dying(step_app(new_app, one_place(), real), kills)
            found = await flows.wait(killer)
            async with serving(step_app(new_app, one_place(), real)):
                ends = [(await flows.wait(id)).result for id in others]
            return found.result, ends

    (kind, message), ends = virtually(scenario)
    assert kind == "CrashLimit"
    assert "died 5 times" in message
    assert "render" in message
    assert ends == ["innocent"] * 5
    assert beside == [6, 6, 1, 1, 1]


# --- what a call keeps


def test_a_key_of_the_users_spares_the_run(new_app, live, make_store):
    """A result that is recorded under the key is taken by queued calls, and made by them."""
    app = new_app(make_store())
    ran = []

    @app.step
    def charge(n):
        ran.append(n)
        return n

    @app.flow(name="f")
    def f(given):
        queue, n = given
        call = tf.call(charge, n).using(idempotency_key="order-1")
        return (yield call.using(queue=queue) if queue else call)

    async def scenario(engine):
        found = []
        for queue, n in (("gpu", 1), ("gpu", 2), (None, 3)):
            done = await engine.wait(await engine.start(f, [queue, n]))
            found.append(done.result)
        return found

    assert live(app, scenario, queues=GPU) == [1, 1, 1]
    assert ran == [1]


def test_two_results_under_one_key_are_one(new_app, live, make_store):
    """Two queued calls that both ran under one key both get the first result."""
    app = new_app(make_store())
    ran = []

    @app.step
    async def charge(n):
        ran.append(n)
        await trio.sleep(n)
        return n

    @app.flow(name="f")
    def f(_):
        calls = (tf.call(charge, n).using(queue="gpu", idempotency_key="k") for n in (1, 2))
        return (yield tf.gather(*calls))

    async def scenario(engine):
        return (await engine.wait(await engine.start(f))).result

    assert live(app, scenario, queues=GPU) == [1, 1]
    assert sorted(ran) == [1, 2]


def test_a_compensation_runs_on_the_same_queue(new_app, one_place):
    """What is undone is undone where it was done, once the call is withdrawn."""
    ran = []
    reserve, release = stub("reserve"), stub("release")

    def loser():
        yield tf.call(reserve, 1).using(queue="gpu", compensate=release)

    def flow(_):
        paid = yield tf.call(reserve, 0).using(queue="gpu", compensate=release)
        won = yield tf.race(loser(), timer=tf.sleep(5))
        return [paid, won.name, (yield tf.compensate_all())]

    @tf.step(name="reserve")
    async def take(n):
        ran.append(("reserve", n))
        if n:
            await trio.sleep_forever()
        return "seat"

    @tf.step(name="release")
    def give(result, n):
        ran.append(("release", result, n))
        return "free"

    async def scenario():
        async with (
            opened(flow_app(new_app, one_place(), flow, reserve, release)) as flows,
            serving(step_app(new_app, one_place(), take, give)),
        ):
            return (await flows.wait(await flows.start("f"))).result

    assert virtually(scenario) == ["seat", "timer", ["free"]]
    assert ran == [
        ("reserve", 0),
        ("reserve", 1),
        ("release", None, 1),
        ("release", "seat", 0),
    ]


@pytest.mark.parametrize("later", ["cpu", None])
def test_a_call_goes_on_where_it_was_armed(new_app, live, killed, make_store, later):
    """Changed code may name another queue, or none: what is in flight stays where it is."""
    store = make_store()
    ran = []

    def app_of(queue):
        app = new_app(store)

        @app.step
        def work(n):
            ran.append(queue)
            return n

        @app.flow(name="f")
        def f(_):
            first = tf.call(work, 1)
            yield first.using(queue=queue) if queue else first
            second = tf.call(work, 2)
            yield second.using(queue=queue) if queue else second

        return app

    async def begin(engine):
        id = await engine.start("f")
        await engine.run_until_idle()
        return id

    id = killed(app_of("gpu"), begin)

    async def look(engine):
        # What wakes it drives it with the changed code, which must not run the call here.
        await engine.signal(id, "wake")
        await engine.run_until_idle()
        return [(task.tag, task.queue) for task in await engine.tasks()]

    assert live(app_of(later), look) == [("call:work#0", "gpu")]
    assert ran == []

    async def end(engine):
        await engine.wait(id)

    live(app_of(later), end, queues=["gpu", "cpu"])
    assert len(ran) == 2


def test_a_queued_call_binds_even_in_back_off(new_app, live, killed):
    """Nobody here knows whether it runs by now: changed arguments block the instance."""
    store = MemoryStore()

    def app_of(n):
        app = new_app(store, build=f"build-{n}")

        @app.step
        def work(n):
            raise tf.RetryAfter(tf.days(1))

        @app.flow(name="f")
        def f(_):
            yield tf.call(work, n).using(queue="gpu", retry=AGAIN)

        return app

    async def begin(engine):
        id = await engine.start("f")
        await engine.run_until_idle()
        (task,) = await engine.tasks()
        assert (task.attempt, task.state) == (1, "ready")
        return id

    id = killed(app_of(1), begin, queues=GPU)

    async def wake(engine):
        await engine.signal(id, "wake")
        await engine.run_until_idle()
        found = await engine.get(id)
        return found.status, found.cause

    assert live(app_of(2), wake) == ("blocked", "diverged")


def test_a_failed_instance_may_be_retried(new_app, live, make_store):
    """`retry` offers the call anew, with fresh attempts and the same key."""
    app = new_app(make_store())
    keys = []

    @app.step
    def work():
        keys.append(tf.step_context().idempotency_key)
        if len(keys) == 1:
            raise OSError
        return "done"

    @app.flow(name="f")
    def f(_):
        return (yield tf.call(work).using(queue="gpu"))

    async def scenario(engine):
        id = await engine.start(f)
        assert (await engine.wait(id)).status == "failed"
        assert await engine.tasks() == ()
        await engine.retry(id)
        return (await engine.wait(id)).result

    assert live(app, scenario, queues=GPU) == "done"
    assert len(set(keys)) == 1


def test_strict_replay_takes_queued_calls(new_app, live, make_store):
    """With a re-drive before every turn, a queued, retried call comes to the same end."""
    store = make_store()

    async def run(engine):
        return await scenario(engine)

    found = live(make_app(store), run, queues=GPU, always_replay=True)
    assert found[0] == [[1, [2]], "timer", "timer"]


def test_an_idle_worker_of_a_queue_writes_nothing(new_app, live, watched):
    """Claims that find nothing write nothing, so that workers don't wake each other."""
    store = watched(MemoryStore())
    app = new_app(store)
    app.register(stub("work"))

    async def idle(engine):
        await engine.run_until_idle()
        before = store._db.total_changes
        for _ in range(5):
            engine._keeper.work_came()
            await engine.run_until_idle()
        return store._db.total_changes - before

    assert live(app, idle, queues=GPU) == 0
    assert store.operations(ClaimTasks)


def test_the_blocking_client_serves_and_lists(new_app, tmp_path):
    """`client(queues=)` runs queued calls, and `tasks` shows them."""
    app = new_app(SqliteStore(tmp_path / "x.db"))
    free = threading.Event()

    @app.step
    def work():
        free.wait(10)
        return "done"

    @app.flow(name="f")
    def f(_):
        return (yield tf.call(work).using(queue="gpu"))

    with app.client(queues=GPU) as client:
        id = client.start(f)
        while not client.statistics().tasks:
            pass
        (task,) = client.tasks(instance=id)
        free.set()
        assert client.wait(id, timeout=20).result == "done"
    assert (task.instance, task.step, task.state) == (id, "work", "running")
