"""The turn: results, then signals, then due timers; one commit; only then perform."""

from __future__ import annotations

import itertools

import pytest
import trio

import triggerflow as tf
from triggerflow.engine.clock import LoopClock
from triggerflow.store.operations import Send, Turn
from triggerflow.store.sqlite import MemoryStore


def _tags(log):
    return [entry.tag for entry in log]


class _Wound(LoopClock):
    """A wall clock that can be set, over virtual time."""

    shift = 0.0

    def now(self):
        return super().now() + self.shift


# --- order


def test_results_come_before_signals_and_signals_before_timers(new_app, live, watched):
    """What waits for a turn is taken in one order, however it came in."""
    store = watched(MemoryStore())
    app = new_app(store)
    gate = {}

    async def step():
        await gate["step"].wait()
        return "result"

    async def blocker():
        await gate["blocker"].wait()

    @app.flow
    def f(_):
        order = []

        def part(effect, name):
            yield effect
            order.append(name)

        yield tf.gather(
            part(tf.sleep(10), "timer"),
            part(tf.wait_signal("s"), "signal"),
            part(tf.call(step), "result"),
        )
        return order

    async def scenario(engine):
        gate["step"] = trio.Event()
        id = await engine.start(f)
        await trio.sleep(1)
        executor = engine._executor
        (run,) = executor.owned.values()
        # All three come while a turn is in flight, the timer's first.
        run.busy = True
        await engine.signal(id, "s")
        await trio.sleep(20)
        gate["step"].set()
        await trio.sleep(1)
        assert run.due
        assert run.inbox
        assert run.results
        run.busy = False
        executor._turn(run)
        found = await engine.wait(id)
        return found.result, _tags(await engine.log(id))

    order, tags = live(app, scenario)
    assert order == ["result", "signal", "timer"]
    assert tags == [
        "gather#0[2]/call:step#0",
        "gather#0[1]/wait_signal:s#0",
        "gather#0[0]/sleep#0",
    ]
    assert len(store.operations(Turn)[-1].entries) == 3


@pytest.mark.parametrize("signal_too", [True, False])
def test_pending_signal_beats_a_due_timer(new_app, live, signal_too):
    """Both are there when a worker comes back: the signal wins; without one, the timeout."""
    store = MemoryStore()
    clock = LoopClock()

    def make():
        app = new_app(store)

        @app.flow(name="f")
        def f(_):
            return (yield tf.wait_signal("go", timeout=10, default="too late"))

        return app

    async def begin(engine):
        id = await engine.start("f")
        await engine.run_until_idle()
        return id

    id = live(make(), begin, clock=clock)

    async def send(engine):
        await trio.sleep(100)
        if signal_too:
            await engine.signal(id, "go", "in time")

    late = LoopClock(clock._start + 100)
    live(make(), send, work=False, clock=late)

    async def end(engine):
        return (await engine.wait(id)).result

    assert live(make(), end, clock=late) == ("in time" if signal_too else "too late")


def test_signal_that_waited_is_taken_after_a_timer_moved_the_flow(new_app, live):
    """A timer may bring the flow to a wait for a message that is there already."""
    app = new_app()

    @app.flow
    def f(_):
        yield tf.sleep(10)
        return (yield tf.wait_signal("go"))

    async def scenario(engine):
        id = await engine.start(f)
        await engine.signal(id, "go", 1)
        found = await engine.wait(id)
        return found.result, _tags(await engine.log(id))

    assert live(app, scenario) == (1, ["sleep#0", "wait_signal:go#0"])


# --- signals


def test_signals_of_a_name_come_in_the_order_they_were_sent(new_app, live):
    """Per name first in, first out; names that nobody waits for don't stand in the way."""
    app = new_app()

    @app.flow
    def f(_):
        got = [(yield tf.wait_signal("b"))]
        for _ in range(3):
            got.append((yield tf.wait_signal("a")))
        several = yield tf.wait_signal(("c", "d"))
        return [*got, several.name, several.payload]

    async def scenario(engine):
        id = await engine.start(f)
        for name, payload in [("a", 1), ("d", 9), ("a", 2), ("never", 0), ("b", 0), ("a", 3)]:
            await engine.signal(id, name, payload)
        found = await engine.wait(id)
        return found.result

    assert live(app, scenario) == [0, 1, 2, 3, "d", 9]


def test_early_signals_are_kept_over_a_restart(new_app, live, make_store):
    """A signal sent before anybody waits, or works, is there when the flow gets to it."""
    store = make_store()

    def make():
        app = new_app(store)

        @app.flow(name="f")
        def f(_):
            yield tf.sleep(50)
            first = yield tf.wait_signal("go")
            second = yield tf.wait_signal("go", timeout=1, default=None)
            return [first, second]

        return app

    async def send(engine):
        id = await engine.start("f")
        await engine.signal(id, "go", {"n": 1})
        return id

    id = live(make(), send, work=False)

    async def stop_early(engine):
        await engine.run_until_idle()

    live(make(), stop_early)

    async def end(engine):
        return (await engine.wait(id)).result

    assert live(make(), end) == [{"n": 1}, None]


def test_signals_that_are_not_consumed_stay_in_the_inbox(new_app, live):
    """What the flow does not take is neither logged nor lost while it lives."""
    store = MemoryStore()
    app = new_app(store)

    @app.flow
    def f(_):
        yield tf.wait_signal("go")
        yield tf.wait_signal("never")

    async def scenario(engine):
        id = await engine.start(f)
        for n in range(3):
            await engine.signal(id, "go", n)
        await engine.run_until_idle()
        number = store.instance(id).number
        return [row.payload for row in store.inbox(number)], _tags(await engine.log(id))

    inbox, tags = live(app, scenario)
    assert inbox == [b"\x01", b"\x02"]
    assert tags == ["wait_signal:go#0"]


# --- what the flow sees


def test_flow_sees_values_after_their_round_trip_only(new_app, live):
    """Signals, side effects, completions and the input: tuples are lists from the start."""
    app = new_app()
    shared = {"t": (1, (2,))}

    @app.flow
    def f(given):
        side = yield tf.side_effect(lambda: shared)
        shared["t"] = "changed"
        signal = yield tf.wait_signal("go")
        done = yield tf.call(abs, 1)
        return [given, side, signal, done]

    async def scenario(engine):
        given, payload = {"t": (1,)}, [(3,)]
        id = await engine.start(f, given)
        given["t"] = "changed"
        await engine.signal(id, "go", payload)
        payload.append("changed")
        live_result = (await engine.wait(id)).result
        return live_result, (await engine.replay(id)).result

    expected = [{"t": [1]}, {"t": [1, [2]]}, [[3]], 1]
    assert live(app, scenario) == (expected, expected)


def test_flow_that_changes_what_it_got_does_not_change_the_log(new_app, live):
    """A value belongs to the drive; the log has its own bytes."""
    app = new_app()

    @app.flow
    def f(_):
        got = yield tf.side_effect(lambda: [1])
        got.append(2)
        yield tf.call(abs, 0)
        return got

    async def scenario(engine):
        id = await engine.start(f)
        found = (await engine.wait(id)).result
        return found, (await engine.log(id))[0].value

    assert live(app, scenario) == ([1, 2], [1])


def test_result_of_a_lost_race_goes_with_its_tag(new_app, live):
    """Two branches that end in one turn: the first wins, the other's result is not logged."""
    app = new_app()

    async def named(name):
        await trio.sleep(5)
        return name

    @app.flow
    def f(_):
        won = yield tf.race(tf.call(named, "a"), tf.call(named, "b"))
        yield tf.wait_signal("go")
        return won.value

    async def scenario(engine):
        id = await engine.start(f)
        await trio.sleep(10)
        await engine.signal(id, "go")
        found = await engine.wait(id)
        return found.result, _tags(await engine.log(id))

    result, tags = live(app, scenario)
    assert result in ("a", "b")
    slot = "ab".index(result)
    assert tags == [f"race#0[{slot}]/call:named#0", "wait_signal:go#0"]


# --- time on entries


def test_times_never_go_backwards_even_if_the_clock_does(new_app, live):
    """Entries carry a time not before their predecessor's, and `now()` says the same."""
    app = new_app()
    clock = _Wound()

    @app.flow
    def f(_):
        seen = [(yield tf.now())]
        for _ in range(4):
            yield tf.wait_signal("go")
            seen.append((yield tf.now()))
        return seen

    async def scenario(engine):
        id = await engine.start(f)
        await engine.run_until_idle()
        for shift in (100, -100_000, 50, 200):
            clock.shift = shift
            await engine.signal(id, "go")
            await engine.run_until_idle()
        found = await engine.wait(id)
        return found.result, [entry.at for entry in await engine.log(id)]

    seen, times = live(app, scenario, clock=clock)
    assert times == sorted(times)
    assert [moment.timestamp() for moment in seen[1:]] == times
    assert seen == sorted(seen)


# --- side effects and patches


def test_side_effect_is_durable_before_the_next_effect_is_performed(new_app, live, watched):
    """When a step runs, every side effect before it is in the log already; none runs twice."""
    store = watched(MemoryStore())
    app = new_app(store)
    runs = itertools.count(1)

    def step(value):
        logged = [row.tag for op in store.operations(Turn) for row in op.entries]
        return [value, logged]

    @app.flow
    def f(_):
        first = yield tf.side_effect(lambda: next(runs))
        second = yield tf.side_effect(lambda: next(runs))
        return (yield tf.call(step, [first, second]))

    async def scenario(engine):
        id = await engine.start(f)
        found = (await engine.wait(id)).result
        return found, (await engine.replay(id)).result

    found, again = live(app, scenario)
    value, logged = found
    assert value == [1, 2]
    assert len(logged) == 2
    assert again == found
    assert next(runs) == 3


@pytest.mark.parametrize("error", [ValueError("no"), SystemExit(3)], ids=["error", "exit"])
def test_side_effect_that_raises_is_a_recorded_failure(new_app, live, error):
    """What it raises comes to the flow as `StepFailed`, and again in every replay."""
    app = new_app()

    def bad():
        raise error

    @app.flow
    def f(_):
        try:
            yield tf.side_effect(bad)
        except tf.StepFailed as failed:
            return failed.failure.type

    async def scenario(engine):
        id = await engine.start(f)
        found = (await engine.wait(id)).result
        log = await engine.log(id)
        return found, log[0].failure.type, (await engine.replay(id)).result

    assert live(app, scenario) == (type(error).__name__,) * 3


def test_long_stretch_of_side_effects_is_cut_into_turns(new_app, live, watched):
    """After 10,000 entries a turn commits and goes on: no commit grows without bound."""
    store = watched(MemoryStore())
    app = new_app(store)

    @app.flow
    def f(_):
        total = 0
        for _ in range(25_000):
            total += yield tf.side_effect(lambda: 1)
        return (yield tf.call(abs, -total))

    async def scenario(engine):
        return (await engine.wait(await engine.start(f))).result

    assert live(app, scenario) == 25_000
    sizes = [len(op.entries) for op in store.operations(Turn)]
    assert max(sizes) <= 10_000
    assert sum(sizes) == 25_001


def test_long_inbox_is_cut_into_turns(new_app, live, watched):
    """The same for signals: 15,000 of them take two turns, in order."""
    store = watched(MemoryStore())
    app = new_app(store)

    @app.flow
    def f(_):
        got = []
        for _ in range(15_000):
            got.append((yield tf.wait_signal("n")))
        return got == list(range(15_000))

    async def send(engine):
        id = await engine.start(f)
        codec = app.codec
        await engine._committer.ask_all(
            [Send(id, "signal", "n", codec.encode(n), 0.0) for n in range(15_000)]
        )
        return id

    id = live(app, send, work=False)

    async def end(engine):
        return (await engine.wait(id)).result

    assert live(app, end) is True
    assert max(len(op.entries) for op in store.operations(Turn)) <= 10_000


def test_patch_in_a_live_engine_is_decided_once(new_app, live):
    """New instances take the new way; one that passed the place before keeps the old way."""
    store = MemoryStore()

    def make(build, *, new):
        app = new_app(store, build=build)

        @app.flow(name="f")
        def f(_):
            yield tf.wait_signal("one")
            way = "old"
            if new and (yield tf.patched("p")):
                way = "new"
            yield tf.wait_signal("two")
            again = new and (yield tf.patched("p"))
            return [way, bool(again)]

        return app

    async def pass_by(engine):
        ids = [await engine.start("f") for _ in range(2)]
        await engine.signal(ids[0], "one")
        await engine.run_until_idle()
        return ids

    ids = live(make("old", new=False), pass_by)

    async def end(engine):
        await engine.signal(ids[1], "one")
        for id in ids:
            await engine.signal(id, "two")
        results = [(await engine.wait(id)).result for id in ids]
        return results, [_tags(await engine.log(id)) for id in ids]

    results, logs = live(make("new", new=True), end)
    assert results == [["old", False], ["new", True]]
    assert logs == [
        ["wait_signal:one#0", "wait_signal:two#0"],
        ["wait_signal:one#0", "patched:p", "wait_signal:two#0"],
    ]


def test_uuid_random_and_now_are_the_same_in_replay(new_app, live):
    """They cost no entry, differ from each other and between instances, and replay alike."""
    app = new_app()

    @app.flow
    def f(_):
        ids = [(yield tf.uuid4()), (yield tf.uuid4())]
        chances = [(yield tf.random()), (yield tf.random())]
        yield tf.sleep(5)
        return [ids, chances, (yield tf.now())]

    async def scenario(engine):
        found = []
        for _ in range(2):
            id = await engine.start(f)
            result = (await engine.wait(id)).result
            assert result == (await engine.replay(id)).result
            assert _tags(await engine.log(id)) == ["sleep#0"]
            found.append(result)
        return found

    one, two = live(app, scenario)
    values = [*one[0], *one[1], *two[0], *two[1]]
    assert len(set(values)) == 8


def test_nothing_is_performed_before_its_commit(new_app, live, watched):
    """At each step's start the store has the turn that armed it."""
    store = watched(MemoryStore())
    app = new_app(store)

    def armed(tag):
        last = app.codec.decode(store.operations(Turn)[-1].pending)
        return any(row[0] == tag for row in last)

    def step(tag):
        return armed(tag)

    @app.flow
    def f(_):
        one = yield tf.call(step, "call:step#0")
        two = yield tf.call(step, "call:step#1")
        both = yield tf.gather(
            tf.call(step, "gather#0[0]/call:step#0"), tf.call(step, "gather#0[1]/call:step#0")
        )
        return [one, two, *both]

    async def scenario(engine):
        return (await engine.wait(await engine.start(f))).result

    assert live(app, scenario) == [True] * 4
