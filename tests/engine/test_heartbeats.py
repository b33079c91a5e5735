"""Heartbeats: what a long step says outlives it, and it learns when to stop."""

# ruff: noqa: ASYNC110 - `id` is a word of the glossary; what is polled tells nobody

from __future__ import annotations

import threading

import pytest
import trio

import triggerflow as tf
from triggerflow.store.operations import Heartbeat
from triggerflow.store.sqlite import MemoryStore, SqliteStore
from triggerflow.testing.crash import crash_everywhere

AGAIN = tf.RetryPolicy(max_attempts=3, initial=1)


async def _until(condition):
    while not condition():
        await trio.sleep(0.001)


def one_call(app, effect):
    """A flow around one call."""

    @app.flow(name="around")
    def around(_):
        return (yield effect())

    return around


# --- what the next attempt finds


@pytest.mark.parametrize("colour", ["plain", "async"])
def test_next_attempt_reads_what_the_last_one_said(new_app, live, make_store, colour):
    """A failed attempt's last word reaches the next one, however often it failed."""
    app = new_app(make_store())
    seen = []

    def copy():
        context = tf.step_context()
        seen.append(context.details)
        context.heartbeat({"row": 10 * len(seen)})
        # Its own words don't come back to it: they are for the next one.
        assert context.details == seen[-1]
        if len(seen) < 3:
            raise OSError
        return "copied"

    async def copy_async():
        await trio.sleep(1)
        return copy()

    step = copy if colour == "plain" else copy_async
    f = one_call(app, lambda: tf.call(step).using(name="copy", retry=AGAIN))

    async def scenario(engine):
        id = await engine.start(f)
        found = (await engine.wait(id)).result
        return found, await engine.progress(id)

    assert live(app, scenario) == ("copied", {})
    assert seen == [None, {"row": 10}, {"row": 20}]


def test_details_survive_a_crash(new_app, live, killed, make_store):
    """A process that dies in the midst of a step leaves its bookmark to the next one."""
    store = make_store()
    seen = []

    def app_of(gate):
        app = new_app(store)

        async def copy():
            context = tf.step_context()
            seen.append((context.attempt, context.details))
            context.heartbeat([7, {"page": "b"}])
            if gate:
                await trio.sleep_forever()
            return "copied"

        one_call(app, lambda: tf.call(copy))
        return app

    async def begin(engine):
        id = await engine.start("around")
        while not await engine.progress(id):
            await trio.sleep(0.1)
        (said,) = (await engine.progress(id)).values()
        assert said.details == [7, {"page": "b"}]
        assert said.at == pytest.approx(engine._clock.now(), abs=1)
        return id

    id = killed(app_of(gate=True), begin)

    async def end(engine):
        return (await engine.wait(id)).result, await engine.progress(id)

    assert live(app_of(gate=False), end) == ("copied", {})
    assert seen == [(1, None), (2, [7, {"page": "b"}])]


def test_details_survive_parking_in_back_off(new_app, live, make_store):
    """While a call waits for its next attempt its progress can be seen, and isn't lost."""
    app = new_app(make_store())
    seen = []

    def copy():
        seen.append(tf.step_context().details)
        tf.step_context().heartbeat(len(seen))
        if len(seen) == 1:
            raise tf.RetryAfter(tf.days(1))

    f = one_call(app, lambda: tf.call(copy).using(retry=AGAIN))

    async def scenario(engine):
        id = await engine.start(f)
        await engine.run_until_idle()
        assert (await engine.get(id)).status == "waiting"
        parked = {tag: each.details for tag, each in (await engine.progress(id)).items()}
        await engine.wait(id)
        return parked

    # An hour of hanging is less than the day of back-off.
    assert live(app, scenario, hung=1e6, keep_warm=0) == {"call:copy#0": 1}
    assert seen == [None, 1]


def test_progress_goes_with_its_call_not_with_its_neighbours(new_app, live, make_store):
    """A call that ended or lost its race leaves no row; a running one keeps its own."""
    store = make_store()
    app = new_app(store)

    async def tell(seconds):
        tf.step_context().heartbeat(seconds)
        await trio.sleep(seconds)

    @app.flow
    def f(_):
        yield tf.call(tell, 1)
        yield tf.race(tf.call(tell, 100), tf.call(tell, 2))
        yield tf.call(tell, 50)

    async def scenario(engine):
        id = await engine.start(f)
        await trio.sleep(2)
        both = {each.details for each in (await engine.progress(id)).values()}
        await trio.sleep(3)
        number = store.instance(id).number
        rows = [row.tag for row in store.progress(number, 1)]
        await engine.wait(id)
        return both, rows, store.progress(number, 1)

    assert live(app, scenario) == ({100, 2}, ["call:tell#1"], [])


def test_failed_commit_of_the_turn_loses_no_progress_and_leaves_no_row(
    new_app, live, watched, caplog
):
    """Progress is forgotten with the turn that ends its call, once that has landed."""
    store = watched(MemoryStore())
    app = new_app(store)
    trouble = [1]

    async def tell():
        tf.step_context().heartbeat("told")
        await trio.sleep(1)

    def before(batch):
        if trouble and any(getattr(op, "progress_over", ()) for op in batch.operations):
            trouble.pop()
            raise OSError("full")

    store.before = before

    @app.flow
    def f(_):
        yield tf.call(tell)
        yield tf.wait_signal("go")

    async def scenario(engine):
        id = await engine.start(f)
        await trio.sleep(100)
        assert (await engine.get(id)).waiting == ("wait_signal:go#0",)
        return store.progress(store.instance(id).number, 1)

    assert live(app, scenario) == []
    assert not trouble


# --- cheap


def test_a_thousand_heartbeats_are_a_few_writes(new_app, live, watched):
    """What is said between two commits is one write, and the newest wins."""
    store = watched(MemoryStore())
    app = new_app(store)

    def busy():
        for row in range(1000):
            tf.step_context().heartbeat(row)
        raise OSError

    f = one_call(app, lambda: tf.call(busy).using(retry=tf.RetryPolicy(max_attempts=2)))

    async def scenario(engine):
        id = await engine.start(f)
        await trio.sleep(0.5)
        return {each.details for each in (await engine.progress(id)).values()}

    assert live(app, scenario) == {999}
    assert len(store.operations(Heartbeat)) == 1


def test_heartbeats_from_a_thread_never_overtake_each_other(new_app, real, watched, tmp_path):
    """From a real thread: never two writes in flight, none out of order, the last one lands."""
    store = watched(SqliteStore(tmp_path / "s.db"))
    app = new_app(store)
    held, go = threading.Event(), threading.Event()
    rows = 1000

    def busy():
        context = tf.step_context()
        for row in range(rows):
            context.heartbeat(row)
            if row == 0:
                # All others are said while the first write is in flight.
                held.wait(20)
        go.set()
        raise OSError

    def before(batch):
        if any(type(op) is Heartbeat and op.details == b"\x00" for op in batch.operations):
            held.set()
            go.wait(20)

    store.before = before
    f = one_call(app, lambda: tf.call(busy).using(retry=tf.RetryPolicy(max_attempts=1)))

    async def scenario():
        async with app.open() as engine:
            return (await engine.wait(await engine.start(f))).status

    assert real(scenario) == "failed"
    codec = app.codec
    said = [codec.decode(op.details) for op in store.operations(Heartbeat)]
    assert said == [0, rows - 1]


def test_heartbeat_without_details_writes_nothing(new_app, live, watched):
    """It only asks whether the result is still wanted; what was said before stays."""
    store = watched(MemoryStore())
    app = new_app(store)
    seen = []

    def step():
        context = tf.step_context()
        seen.append(context.details)
        if len(seen) == 1:
            context.heartbeat("said")
        context.heartbeat()
        if len(seen) < 3:
            raise OSError

    f = one_call(app, lambda: tf.call(step).using(retry=AGAIN))

    async def scenario(engine):
        return (await engine.wait(await engine.start(f))).status

    assert live(app, scenario) == "done"
    assert seen == [None, "said", "said"]
    assert len(store.operations(Heartbeat)) == 1


@pytest.mark.parametrize(
    ("details", "problem"),
    [(b"x" * 16_400, "at most 16,384 bytes"), (object(), "heartbeat")],
    ids=["large", "foreign"],
)
def test_details_that_cannot_be_kept_are_refused(new_app, live, details, problem):
    """The step gets a clear error; nothing is stored."""
    app = new_app()

    def step():
        tf.step_context().heartbeat(details)

    f = one_call(app, lambda: tf.call(step))

    async def scenario(engine):
        return (await engine.wait(await engine.start(f))).failure

    failure = live(app, scenario)
    assert problem in failure.message
    assert "details" in failure.message


# --- whose attempt is over


class _Long:
    """A plain step that works until somebody tells it to stop."""

    def __init__(self):
        self.begun = threading.Event()
        self.stopped = []
        self.calls = 0

    def step(self):
        self.calls += 1
        self.begun.set()
        context = tf.step_context()
        try:
            while True:
                context.heartbeat({"calls": self.calls})
                threading.Event().wait(0.001)
        except Exception:
            pass
        except BaseException as over:
            self.stopped.append(over)
            raise


def test_cancelled_step_in_a_thread_can_stop_itself(new_app, real, make_sqlite):
    """Nothing stops a thread, but its next heartbeat does; `except Exception` doesn't."""
    app = new_app(make_sqlite())
    long = _Long()
    f = one_call(app, lambda: tf.call(long.step).using(name="long", retry=AGAIN))

    async def scenario():
        async with app.open() as engine:
            id = await engine.start(f)
            await _until(long.begun.is_set)
            await engine.cancel(id)
            status = (await engine.wait(id)).status
            await _until(lambda: long.stopped)
            return status

    assert real(scenario) == "cancelled"
    (over,) = long.stopped
    assert isinstance(over, tf.AttemptOver)
    assert (over.tag, over.cause) == ("call:long#0", "cancelled")
    assert "was cancelled" in str(over)
    assert long.calls == 1


def test_loser_of_a_race_can_stop_itself(new_app, real, make_sqlite):
    """A race that is decided is told to the step that lost it."""
    app = new_app(make_sqlite())
    long = _Long()

    def quick():
        long.begun.wait(20)

    @app.flow
    def f(_):
        yield tf.race(tf.call(long.step).using(name="long"), tf.call(quick))
        return (yield tf.wait_signal("go"))

    async def scenario():
        async with app.open() as engine:
            id = await engine.start(f)
            await _until(lambda: long.stopped)
            await engine.signal(id, "go", "on")
            return (await engine.wait(id)).result

    assert real(scenario) == "on"
    assert long.stopped[0].cause == "race_lost"


def test_overdue_step_can_stop_itself_for_the_next_attempt(
    new_app, real, make_sqlite, turned_clock
):
    """One whose timeout passed hears it, and the retry policy decides, with its bookmark."""
    app = new_app(make_sqlite())
    clock, long = turned_clock(), _Long()
    second = []

    def step():
        if long.calls:
            second.append(tf.step_context().details)
            return "second"
        return long.step()

    f = one_call(
        app,
        lambda: tf.call(step).using(timeout=10, retry=tf.RetryPolicy(initial=0)),
    )

    async def scenario():
        async with app.open(clock=clock, lease=1e9) as engine:
            id = await engine.start(f)
            await _until(long.begun.is_set)
            while not await engine.progress(id):
                await trio.sleep(0.001)
            clock.time += 11
            return (await engine.wait(id)).result

    assert real(scenario) == "second"
    assert long.stopped[0].cause == "timed_out"
    assert second == [{"calls": 1}]


def test_completed_from_outside_and_terminated_are_told_apart(new_app, real, make_sqlite):
    """Each cause has its own name."""
    app = new_app(make_sqlite())
    longs = [_Long(), _Long(), _Long()]

    @app.flow
    def f(index):
        yield tf.call(longs[index].step).using(name="long")
        return "completed"

    async def scenario():
        async with app.open(drain=0) as engine:
            ids = [await engine.start(f, index) for index in range(3)]
            await _until(lambda: all(long.begun.is_set() for long in longs))
            await engine.complete(ids[0], "call:long#0", None)
            await engine.terminate(ids[1])
            assert (await engine.wait(ids[0])).result == "completed"
            await _until(lambda: longs[0].stopped and longs[1].stopped)
        await _until(lambda: longs[2].stopped)

    real(scenario)
    assert [long.stopped[0].cause for long in longs] == ["completed", "ended", "closed"]


def test_terminated_by_another_process_is_heard_by_the_next_heartbeat(new_app, real, tmp_path):
    """The refused write tells the step, though no turn of its instance is due."""
    app, other = (new_app(SqliteStore(tmp_path / "s.db")) for _ in range(2))
    long = _Long()
    one_call(app, lambda: tf.call(long.step).using(name="long"))
    one_call(other, lambda: tf.call(long.step).using(name="long"))

    async def scenario():
        async with app.open() as engine, other.open(work=False) as elsewhere:
            id = await engine.start("around")
            await _until(long.begun.is_set)
            await elsewhere.terminate(id)
            await _until(lambda: long.stopped)
            return (await engine.wait(id)).status

    assert real(scenario) == "cancelled"
    assert long.stopped[0].cause == "ended"


def test_fenced_worker_says_nothing_any_more(new_app, real, tmp_path, standstill):
    """Its heartbeat leaves the new owner's words alone, and tells the step to stop."""
    path = tmp_path / "s.db"
    still = standstill(SqliteStore(path))
    words = {"one": 0, "two": 0}
    stopped = []
    go = trio.Event()

    def app_of(name, store):
        app = new_app(store)

        async def step():
            context = tf.step_context()
            try:
                if name == "one":
                    context.heartbeat("one, early")
                    await go.wait()
                    while True:
                        words["one"] += 1
                        context.heartbeat(f"one, {words['one']}")
                        await trio.sleep(0.001)
                context.heartbeat("two")
                words["two"] = 1
                await trio.sleep_forever()
            except tf.AttemptOver as over:
                stopped.append(over.cause)
                raise
            except trio.Cancelled:
                if name == "one":
                    stopped.append("cancelled by trio")
                raise

        one_call(app, lambda: tf.call(step))
        return app

    async def scenario():
        async with app_of("one", still).open(lease=0.3) as one:
            id = await one.start("around")
            while not await one.progress(id):
                await trio.sleep(0.001)
            first = one._committer.worker
            still.still = True
            async with app_of("two", SqliteStore(path)).open(lease=0.3, drain=0) as two:
                await _until(lambda: words["two"])
                while (await two.progress(id))["call:step#0"].details != "two":
                    await trio.sleep(0.001)
                two._executor.draining = True
                still.still = False
                go.set()
                await _until(lambda: one._committer.worker != first)
                await _until(lambda: stopped)
                assert (await two.progress(id))["call:step#0"].details == "two"
                await two.terminate(id)

    real(scenario)
    assert stopped


def test_own_attempt_over_is_a_failure_like_any_other(new_app, live):
    """A step that raises it though its result is wanted has failed."""
    app = new_app()

    def step():
        raise tf.AttemptOver("call:step#0", "cancelled")

    f = one_call(app, lambda: tf.call(step))

    async def scenario(engine):
        return await engine.wait(await engine.start(f))

    found = live(app, scenario)
    assert (found.status, found.failure.type) == ("failed", "StepFailed")


# --- a crash at every commit


def test_no_crash_takes_a_bookmark_ahead_of_the_work_or_leaves_one_behind():
    """Wherever the engine dies: all rows are copied, none is skipped, no progress stays."""

    def make_app(store):
        # One world a run, the restarts of that run included.
        copied = vars(store).setdefault("world", [])
        app = tf.App(store, build="one", entry_points=False)

        async def copy(rows):
            context = tf.step_context()
            begun = context.details or 0
            # What is durable was said, and what was said had been done.
            assert set(range(begun)) <= set(copied)
            for row in range(begun, rows):
                await trio.sleep(1)
                copied.append(row)
                context.heartbeat(row + 1)
                if row == 2 and begun < 2:
                    raise OSError
            return rows

        @app.flow(name="f")
        def f(_):
            yield tf.gather(
                tf.call(copy, 5).using(retry=tf.RetryPolicy(max_attempts=9, initial=1)),
                tf.sleep(2),
            )
            return "copied"

        return app

    async def scenario(engine):
        id = await engine.start("f", key="once")
        found = await engine.wait(id)
        assert set(range(5)) <= set(engine._store.world)
        number = engine._store.instance(id).number
        assert engine._store.progress(number, 1) == []
        return found.result

    report = crash_everywhere(make_app, scenario, MemoryStore)
    assert report.end == "copied"
    # Each row's heartbeat is a commit point of its own.
    assert report.points >= 10
