"""Steps: how they are run, tried again, timed out, stopped, and fenced."""

# ruff: noqa: ASYNC110 - `id` is a word of the glossary; what is polled tells nobody

from __future__ import annotations

import functools
import itertools
import threading

import pytest
import trio
import trio.testing

import triggerflow as tf
from triggerflow.engine.clock import LoopClock
from triggerflow.store.sqlite import MemoryStore
from triggerflow.testing.crash import Crash


async def _end_of(engine, flow, input=None):
    return await engine.wait(await engine.start(flow, input))


def one_call(app, effect):
    """A flow around one call."""

    @app.flow
    def around(_):
        return (yield effect())

    return around


# --- plain and async


def test_plain_and_async_steps_return_their_values(new_app, live):
    """A plain function, a coroutine function and a partial of one are steps alike."""
    app = new_app()

    async def doubled(n, *, plus=0):
        await trio.sleep(1)
        return n * 2 + plus

    def halved(n):
        return n // 2

    @app.flow
    def f(n):
        a = yield tf.call(halved, n)
        b = yield tf.call(doubled, a, plus=1)
        return (yield tf.call(functools.partial(doubled, plus=100), b).using(name="part"))

    async def scenario(engine):
        return (await _end_of(engine, f, 10)).result

    assert live(app, scenario) == 122


def test_step_context_names_the_attempt_and_keeps_its_key(new_app, live):
    """Every attempt sees its number, and the same idempotency key; another step another key."""
    app = new_app()
    seen = []

    def flaky():
        seen.append(tf.step_context())
        if len(seen) < 3:
            raise OSError
        return "ok"

    async def other():
        return tf.step_context().idempotency_key

    @app.flow
    def f(_):
        yield tf.call(flaky).using(retry=tf.RetryPolicy(max_attempts=5, initial=1))
        return (yield tf.call(other))

    async def scenario(engine):
        id = await engine.start(f)
        return id, (await engine.wait(id)).result

    id, other_key = live(app, scenario)
    assert [context.attempt for context in seen] == [1, 2, 3]
    assert {(context.instance, context.generation, context.tag) for context in seen} == {
        (id, 1, "call:flaky#0")
    }
    keys = {context.idempotency_key for context in seen}
    assert len(keys) == 1
    assert other_key not in keys


def test_step_context_outside_of_a_step_says_so():
    """`step_context()` in a flow, or anywhere else, is refused by name."""
    with pytest.raises(tf.TriggerflowError, match="outside a step"):
        tf.step_context()


def test_step_that_changes_its_arguments_cannot_reach_the_flow(new_app, live):
    """What a step does to its arguments stays with that attempt."""
    app = new_app()
    attempts = []

    def greedy(items, *, options):
        attempts.append((list(items), dict(options)))
        items.append("mine")
        options["mine"] = True
        if len(attempts) == 1:
            raise OSError
        return items

    @app.flow
    def f(_):
        items, options = [1], {"a": 1}
        got = yield tf.call(greedy, items, options=options).using(
            retry=tf.RetryPolicy(initial=1)
        )
        return [items, options, got]

    async def scenario(engine):
        return (await _end_of(engine, f)).result

    assert live(app, scenario) == [[1], {"a": 1}, [1, "mine"]]
    assert attempts == [([1], {"a": 1})] * 2


def test_result_that_is_changed_later_cannot_reach_the_flow(new_app, live):
    """The flow has a copy of a result, with tuples as lists, from the first moment on."""
    app = new_app()
    kept = {"items": (1, 2)}

    def give():
        return kept

    def change():
        kept["items"] = "changed"

    @app.flow
    def f(_):
        got = yield tf.call(give)
        yield tf.call(change)
        return [got, got is kept]

    async def scenario(engine):
        id = await engine.start(f)
        return (await engine.wait(id)).result, (await engine.log(id))[0].value

    assert live(app, scenario) == ([{"items": [1, 2]}, False], {"items": [1, 2]})


# --- failing and trying again


def test_step_without_a_policy_is_tried_once(new_app, live):
    """A failure comes to the flow as `StepFailed`, with type, message and traceback as data."""
    app = new_app()
    calls = []

    def broken():
        calls.append(1)
        raise ValueError("no such ann")

    @app.flow
    def f(_):
        try:
            yield tf.call(broken)
        except tf.StepFailed as error:
            return [error.step, error.failure.type, error.failure.message, str(error.__cause__)]

    async def scenario(engine):
        return (await _end_of(engine, f)).result

    step, kind, message, cause = live(app, scenario)
    assert (step, kind, message) == ("broken", "ValueError", "no such ann")
    assert "Traceback" in cause
    assert calls == [1]


def test_uncaught_step_failure_fails_the_instance(new_app, live):
    """A flow that lets `StepFailed` through is a failed instance, and says why."""
    app = new_app()

    def broken():
        raise ValueError("no such ann")

    f = one_call(app, lambda: tf.call(broken))

    async def scenario(engine):
        return await _end_of(engine, f)

    found = live(app, scenario)
    assert found.status == "failed"
    assert "no such ann" in found.failure.message


def test_retry_policy_waits_and_gives_up(new_app, live):
    """Attempts come after the policy's waits, in durable time, and end at the limit."""
    app = new_app()
    times = []

    async def broken():
        times.append(trio.current_time())
        raise OSError

    policy = tf.RetryPolicy(max_attempts=4, initial=10, factor=2, jitter=0)
    f = one_call(app, lambda: tf.call(broken).using(retry=policy))

    async def scenario(engine):
        return (await _end_of(engine, f)).status

    assert live(app, scenario) == "failed"
    gaps = [round(b - a) for a, b in itertools.pairwise(times)]
    assert gaps == [10, 20, 40]


def test_errors_that_the_policy_gives_up_on_are_final(new_app, live):
    """`give_up_on` ends the attempts at once."""
    app = new_app()
    calls = []

    def broken():
        calls.append(1)
        raise KeyError("x")

    f = one_call(app, lambda: tf.call(broken).using(retry=tf.RetryPolicy(give_up_on=KeyError)))

    async def scenario(engine):
        return (await _end_of(engine, f)).status

    assert live(app, scenario) == "failed"
    assert calls == [1]


def test_attempts_are_durable_across_a_restart(new_app, live):
    """A new engine goes on where the back-off stood: no attempt is forgotten or repeated."""
    store = MemoryStore()
    calls = []

    def make():
        app = new_app(store)

        def broken():
            calls.append(tf.step_context().attempt)
            raise OSError

        @app.flow(name="f")
        def f(_):
            yield tf.call(broken).using(
                retry=tf.RetryPolicy(max_attempts=3, initial=100, jitter=0)
            )

        return app

    async def begin(engine):
        id = await engine.start("f")
        await engine.run_until_idle()
        return id, (await engine.get(id)).status

    id, status = live(make(), begin)
    assert (status, calls) == ("waiting", [1])

    async def go_on(engine):
        return (await engine.wait(id)).status

    assert live(make(), go_on) == "failed"
    assert calls == [1, 2, 3]


def test_retry_after_says_when(new_app, live):
    """A step names the moment of its next attempt, whatever the policy's waits are."""
    app = new_app()
    times = []

    async def limited():
        times.append(trio.current_time())
        if len(times) == 1:
            raise tf.RetryAfter(77)
        return len(times)

    f = one_call(app, lambda: tf.call(limited).using(retry=tf.RetryPolicy(initial=1)))

    async def scenario(engine):
        return (await _end_of(engine, f)).result

    assert live(app, scenario) == 2
    assert round(times[1] - times[0]) == 77


@pytest.mark.parametrize("delay", ["soon", -1, float("nan"), None])
def test_retry_after_nonsense_fails_the_step_only(new_app, live, delay):
    """A `RetryAfter` that can't be read is a step's failure, not a divergence."""
    app = new_app()

    def odd():
        raise tf.RetryAfter(delay)

    f = one_call(app, lambda: tf.call(odd).using(retry=tf.RetryPolicy()))

    async def scenario(engine):
        id = await engine.start(f)
        await engine.run_until_idle()
        return (await engine.get(id)).status

    assert live(app, scenario) == "failed"


class _Quit(BaseException):
    pass


@pytest.mark.parametrize("kind", [SystemExit, GeneratorExit, _Quit, tf.FlowCancelled])
@pytest.mark.parametrize("is_async", [False, True], ids=["plain", "async"])
def test_step_that_raises_a_base_exception_fails_alone(
    new_app, real, make_sqlite, kind, is_async
):
    """`sys.exit()` in a step ends neither thread nor engine: it is that step's failure."""
    app = new_app(make_sqlite())

    def plain():
        raise kind("bye")

    async def asynchronous():
        raise kind("bye")

    f = one_call(app, lambda: tf.call(asynchronous if is_async else plain))
    g = app.flow(name="neighbour")(lambda _: (yield tf.call(abs, -1)))

    async def scenario():
        async with app.open() as engine:
            first = await _end_of(engine, f)
            return first, (await _end_of(engine, g)).result

    found, neighbour = real(scenario)
    assert found.status == "failed"
    assert kind.__name__ in found.failure.message
    assert neighbour == 1


@pytest.mark.parametrize(
    "give",
    [lambda: {1, 2}, lambda: object(), lambda: "x" * 20_000_000, lambda: float],
    ids=["set", "object", "large", "class"],
)
def test_result_that_cannot_be_kept_is_a_permanent_failure(new_app, live, give):
    """The step ran; running it again would give the same, so no policy repeats it."""
    app = new_app()
    calls = []

    def step():
        calls.append(1)
        return give()

    f = one_call(app, lambda: tf.call(step).using(retry=tf.RetryPolicy(initial=1)))

    async def scenario(engine):
        return await _end_of(engine, f)

    found = live(app, scenario)
    assert found.status == "failed"
    assert "EncodingRefused" in found.failure.message
    assert calls == [1]


def test_plain_function_that_returns_a_coroutine_is_refused_by_name(new_app, live):
    """A lambda around a coroutine function is told to become `async def`, and not repeated."""
    app = new_app()
    calls = []

    async def inner():
        return 1

    def outer():
        calls.append(1)
        return inner()

    f = one_call(app, lambda: tf.call(outer).using(name="outer", retry=tf.RetryPolicy()))

    async def scenario(engine):
        return await _end_of(engine, f)

    found = live(app, scenario)
    assert found.status == "failed"
    assert "async def" in found.failure.message
    assert calls == [1]


def test_lambda_without_a_name_fails_at_the_yield(new_app, live):
    """A callable without a plain name needs `name=`; the flow hears of it at the yield."""
    app = new_app()

    @app.flow
    def f(_):
        try:
            yield tf.call(lambda: 1)
        except tf.DefinitionError as error:
            return str(error)

    async def scenario(engine):
        return (await _end_of(engine, f)).result

    assert "name" in live(app, scenario)


# --- timeouts


def test_async_step_is_cancelled_at_its_timeout(new_app, live):
    """An async attempt that overruns is stopped, and the flow gets `TimedOut`."""
    app = new_app()
    stopped = []

    async def long():
        try:
            await trio.sleep(1000)
        finally:
            stopped.append(trio.current_time())

    @app.flow
    def f(_):
        try:
            yield tf.call(long).using(timeout=10)
        except tf.TimedOut as error:
            return [error.tag, error.still_running]

    async def scenario(engine):
        began = trio.current_time()
        found = (await _end_of(engine, f)).result
        return found, stopped[0] - began

    found, took = live(app, scenario)
    assert found == ["call:long#0", False]
    assert round(took) == 10


def test_timed_out_attempts_are_tried_again_by_the_policy(new_app, live):
    """A timeout is a failed attempt like another: the policy decides."""
    app = new_app()
    calls = []

    async def slow_at_first():
        calls.append(1)
        await trio.sleep(100 if len(calls) == 1 else 1)
        return "ok"

    f = one_call(app, lambda: tf.call(slow_at_first).using(timeout=10, retry=tf.RetryPolicy()))

    async def scenario(engine):
        return (await _end_of(engine, f)).result

    assert live(app, scenario) == "ok"
    assert len(calls) == 2


@pytest.mark.parametrize("way", ["timeout", "race"])
def test_async_step_whose_clean_up_fails_harms_nobody(new_app, live, way):
    """A stopped step with a nursery of its own that raises on its way out stays one step."""
    app = new_app()

    async def child():
        try:
            await trio.sleep_forever()
        finally:
            raise ValueError("clean-up")

    async def messy():
        async with trio.open_nursery() as nursery:
            nursery.start_soon(child)
            nursery.start_soon(trio.sleep_forever)

    @app.flow
    def f(_):
        if way == "race":
            won = yield tf.race(tf.call(messy), tf.sleep(5))
            return won.index
        try:
            yield tf.call(messy).using(timeout=5)
        except (tf.TimedOut, tf.StepFailed):
            return 1

    async def scenario(engine):
        found = (await _end_of(engine, f)).result
        await trio.sleep(1)
        return found

    assert live(app, scenario) == 1


def test_open_engine_ends_with_a_messy_step(new_app, live):
    """A step that raises while the engine closes does not hide how the block ended."""
    app = new_app()

    async def messy():
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.sleep_forever)
            try:
                await trio.sleep_forever()
            finally:
                raise ValueError("clean-up")

    f = one_call(app, lambda: tf.call(messy))

    async def scenario(engine):
        await engine.start(f)
        await trio.sleep(1)
        return "ended"

    assert live(app, scenario) == "ended"


class _Overdue:
    """A plain step that runs until it is let go, on an engine whose clock a test turns."""

    def __init__(self):
        self.begun = threading.Semaphore(0)
        self.release = threading.Event()
        self.calls = []

    def step(self):
        self.calls.append(tf.step_context().attempt)
        self.begun.release()
        if len(self.calls) == 1:
            self.release.wait(20)
        return len(self.calls)

    async def has_begun(self):
        await trio.to_thread.run_sync(self.begun.acquire)


async def _until(condition):
    while not condition():
        await trio.sleep(0.001)


def _attempts(engine):
    return [each for run in engine._executor.owned.values() for each in run.attempts.values()]


def test_overdue_plain_step_is_given_one_more_timeout(new_app, real, make_sqlite, turned_clock):
    """A thread that ends within a second timeout has failed its attempt; the next may run."""
    app = new_app(make_sqlite())
    clock, overdue = turned_clock(), _Overdue()
    f = one_call(
        app,
        lambda: tf.call(overdue.step).using(
            name="step", timeout=10, retry=tf.RetryPolicy(initial=0)
        ),
    )

    async def scenario():
        async with app.open(clock=clock, lease=1e9) as engine:
            id = await engine.start(f)
            await overdue.has_begun()
            clock.time += 11
            await _until(lambda: any(each.overdue for each in _attempts(engine)))
            assert overdue.calls == [1]
            overdue.release.set()
            return (await engine.wait(id)).result, [e.value for e in await engine.log(id)]

    assert real(scenario) == (2, [2])
    assert overdue.calls == [1, 2]


def test_plain_step_that_never_ends_fails_and_its_result_is_fenced(
    new_app, real, make_sqlite, turned_clock
):
    """After two timeouts the call fails for good; what its thread says later is dropped."""
    app = new_app(make_sqlite())
    clock, overdue = turned_clock(), _Overdue()
    policy = tf.RetryPolicy(initial=0)

    @app.flow
    def f(_):
        try:
            yield tf.call(overdue.step).using(name="step", timeout=10, retry=policy)
        except tf.TimedOut:
            return (yield tf.wait_signal("go"))

    async def scenario():
        async with app.open(clock=clock, lease=1e9) as engine:
            id = await engine.start(f)
            await overdue.has_begun()
            clock.time += 11
            await _until(lambda: any(each.overdue for each in _attempts(engine)))
            clock.time += 11
            await _until(lambda: not _attempts(engine))
            await engine.run_until_idle()
            assert (await engine.get(id)).waiting == ("wait_signal:go#0",)
            most = engine._executor.performer._most
            overdue.release.set()
            await _until(lambda: engine._executor.performer._most == most - 1)
            await engine.signal(id, "go", "late")
            found = await engine.wait(id)
            return found.result, [(e.tag, e.failure is None) for e in await engine.log(id)]

    result, log = real(scenario)
    assert result == "late"
    assert log == [("call:step#0", False), ("wait_signal:go#0", True)]
    assert overdue.calls == [1]


def test_abandoned_thread_does_not_count_against_the_pool(
    new_app, real, make_sqlite, turned_clock
):
    """Steps that wait behind a hung one run as soon as it is known to be overdue."""
    app = new_app(make_sqlite())
    clock, overdue = turned_clock(), _Overdue()
    hung = one_call(app, lambda: tf.call(overdue.step).using(name="step", timeout=10))

    @app.flow
    def quick(_):
        return (yield tf.call(abs, -1))

    async def scenario():
        async with app.open(clock=clock, lease=1e9, threads=1) as engine:
            await engine.start(hung)
            await overdue.has_begun()
            id = await engine.start(quick)
            await _until(lambda: len(_attempts(engine)) == 2)
            clock.time += 11
            try:
                with trio.fail_after(5):
                    return (await engine.wait(id)).result
            finally:
                overdue.release.set()

    assert real(scenario) == 1


@pytest.mark.parametrize("way", ["cancelled", "terminated", "race lost", "completed"])
def test_thread_that_nobody_waits_for_does_not_count_against_the_pool(
    new_app, real, make_sqlite, way
):
    """Where its attempt is over but its thread runs on, another thread takes its place."""
    app = new_app(make_sqlite())
    overdue = _Overdue()

    @app.flow
    def f(_):
        hung = tf.call(overdue.step).using(name="hung")
        yield tf.race(hung, tf.wait_signal("lost"))
        yield tf.wait_signal("go")

    @app.flow
    def quick(n):
        return (yield tf.call(abs, n))

    async def scenario():
        async with app.open(threads=1) as engine:
            performer = engine._executor.performer
            id = await engine.start(f)
            await overdue.has_begun()
            late = await engine.start(quick, -1)
            await _until(lambda: len(_attempts(engine)) == 2)
            if way == "cancelled":
                await engine.cancel(id)
            elif way == "terminated":
                await engine.terminate(id)
            elif way == "race lost":
                await engine.signal(id, "lost")
            else:
                await engine.complete(id, "race#0[0]/call:hung#0")
            try:
                with trio.fail_after(5):
                    found = [(await engine.wait(late)).result]
                # Then the thread comes back, and counts again.
                assert performer._most == 2
                overdue.release.set()
                await _until(lambda: performer._most == 1)
                found.append((await engine.wait(await engine.start(quick, -2))).result)
            finally:
                overdue.release.set()
            return found

    assert real(scenario) == [1, 2]
    assert overdue.calls == [1]


def test_step_that_is_over_before_its_thread_begins_never_begins(new_app, real, make_sqlite):
    """What waited for a thread and lost meanwhile is not run, and no thread is replaced."""
    app = new_app(make_sqlite())
    overdue = _Overdue()
    ran = []

    hung = one_call(app, lambda: tf.call(overdue.step).using(name="step"))

    @app.flow
    def behind(_):
        yield tf.call(ran.append, 1).using(name="append")

    async def scenario():
        async with app.open(threads=1) as engine:
            first = await engine.start(hung)
            await overdue.has_begun()
            second = await engine.start(behind)
            await _until(lambda: len(_attempts(engine)) == 2)
            await engine.cancel(second)
            assert (await engine.wait(second)).status == "cancelled"
            assert engine._executor.performer._most == 1
            overdue.release.set()
            await engine.wait(first)
            return [(await engine.get(each)).status for each in (first, second)]

    assert real(scenario) == ["done", "cancelled"]
    assert ran == []


# --- many at once, and stopping


def test_many_blocking_steps_get_through_a_small_pool(new_app, real, make_sqlite):
    """300 steps that block eight at a time all end, and never more than eight run."""
    app = new_app(make_sqlite())
    barrier = threading.Barrier(4)
    guard = threading.Lock()
    counts = {"now": 0, "most": 0}

    def meets(n):
        with guard:
            counts["now"] += 1
            counts["most"] = max(counts["most"], counts["now"])
        barrier.wait(20)
        with guard:
            counts["now"] -= 1
        return n

    @app.flow
    def f(n):
        return (yield tf.call(meets, n))

    async def scenario():
        async with app.open(threads=8) as engine:
            ids = [await engine.start(f, n) for n in range(300)]
            return [(await engine.wait(id)).result for id in ids]

    assert real(scenario) == list(range(300))
    assert counts["most"] <= 8


def test_async_step_that_lost_its_race_is_cancelled(new_app, live):
    """A loser is stopped where it can be, once the commit that decided it has landed."""
    app = new_app()
    stopped = []

    async def long():
        try:
            await trio.sleep(1000)
        finally:
            stopped.append(trio.current_time())

    async def short():
        await trio.sleep(2)
        return "short"

    @app.flow
    def f(_):
        won = yield tf.race(tf.call(long), tf.call(short))
        yield tf.sleep(10)
        return won.value

    async def scenario(engine):
        began = trio.current_time()
        id = await engine.start(f)
        found = (await engine.wait(id)).result
        return found, stopped[0] - began, [e.tag for e in await engine.log(id)]

    found, took, tags = live(app, scenario)
    assert (found, round(took)) == ("short", 2)
    assert tags == ["race#0[1]/call:short#0", "sleep#0"]


@pytest.mark.parametrize("way", ["cancel", "terminate"])
def test_async_step_of_an_instance_that_is_ended_is_cancelled(new_app, live, way):
    """A cancel and a termination stop what runs for the instance, at once."""
    app = new_app()
    stopped = []

    async def long():
        try:
            await trio.sleep(1000)
        finally:
            stopped.append(trio.current_time())

    f = one_call(app, lambda: tf.call(long))

    async def scenario(engine):
        id = await engine.start(f)
        await trio.sleep(2)
        asked = trio.current_time()
        await getattr(engine, way)(id)
        status = (await engine.wait(id)).status
        await trio.testing.wait_all_tasks_blocked()
        return status, stopped[0] - asked

    status, took = live(app, scenario)
    assert status == "cancelled"
    assert took < 1


def test_plain_loser_ends_on_its_own_and_is_fenced(new_app, real, make_sqlite):
    """A thread can't be stopped: its result goes nowhere, and the flow went on without it."""
    app = new_app(make_sqlite())
    overdue = _Overdue()

    def quick():
        overdue.begun.acquire()
        return "quick"

    @app.flow
    def f(_):
        won = yield tf.race(tf.call(overdue.step).using(name="slow"), tf.call(quick))
        yield tf.wait_signal("go")
        return won.value

    async def scenario():
        async with app.open() as engine:
            id = await engine.start(f)
            while "wait_signal:go#0" not in (await engine.get(id)).waiting:
                await trio.sleep(0.001)
            overdue.release.set()
            await engine.signal(id, "go")
            found = await engine.wait(id)
            return found.result, [e.tag for e in await engine.log(id)]

    assert real(scenario) == ("quick", ["race#0[1]/call:quick#0", "wait_signal:go#0"])


def test_interrupt_in_a_step_still_ends_the_program(new_app, live):
    """Ctrl-C that happens to arrive in an async step is nobody's failure: it gets through."""
    app = new_app()

    async def interrupted():
        raise KeyboardInterrupt

    f = one_call(app, lambda: tf.call(interrupted))

    async def scenario(engine):
        await _end_of(engine, f)

    with pytest.raises(BaseException) as caught:
        live(app, scenario)
    error = caught.value
    assert isinstance(error, KeyboardInterrupt) or error.subgroup(KeyboardInterrupt)
    assert not isinstance(error, Crash)


def test_total_timeout_counts_from_the_call_across_restarts(new_app, live):
    """A step's retries end when its total time is over, also if the engine restarted."""
    store = MemoryStore()
    clock = LoopClock()
    tries = []

    def app_of():
        app = new_app(store)

        def flaky():
            tries.append(clock.now())
            raise ValueError("no")

        @app.flow
        def stubborn(_):
            policy = tf.RetryPolicy(
                max_attempts=99, initial=10, factor=1, jitter=0, total_timeout=35
            )
            yield tf.call(flaky).using(retry=policy)

        return app

    async def first(engine):
        id = await engine.start("stubborn")
        await trio.sleep(15)
        return id

    async def second(engine):
        return await engine.wait(id)

    id = live(app_of(), first, clock=clock)
    clock = LoopClock(clock._start + 15)
    found = live(app_of(), second, clock=clock)
    assert found.status == "failed"
    assert [round(each - tries[0]) for each in tries] == [0, 10, 20, 30]
