"""Hazards of effects towards others, found by attack; each test is the smallest repro."""

from __future__ import annotations

import threading

import pytest
import trio

import triggerflow as tf
from triggerflow.store.operations import Turn
from triggerflow.store.sqlite import MemoryStore, SqliteStore


def ok(*_args):
    return "ok"


async def until(ask, fits):
    """Ask again and again until the answer fits."""
    while not fits(await ask()):  # noqa: ASYNC110 - another thread or process brings it
        await trio.sleep(0.005)


@pytest.fixture
def app(new_app):
    """An app with a child that waits for ever."""
    app = new_app()

    @app.flow
    def patient(_):
        return (yield tf.wait_signal("go"))

    return app


# --- turns that are refused and taken again


def test_refusals_are_remembered_while_a_turn_is_taken_again(new_app, live, watched):
    """A flow that looks for a free key among many takes one turn for each, not 2^n."""
    store = watched(MemoryStore())
    app = new_app(store)

    @app.flow
    def patient(_):
        return (yield tf.wait_signal("go"))

    @app.flow
    def parent(_):
        for number in range(12):
            try:
                yield tf.spawn("patient", key=f"slot{number}")
            except tf.StepFailed:
                continue
            return number

    async def main(engine):
        for number in range(10):
            await engine.start("patient", key=f"slot{number}")
        await engine.run_until_idle()
        before = len(store.operations(Turn))
        found = await engine.wait(await engine.start(parent))
        return found.result, len(store.operations(Turn)) - before

    result, turns = live(app, main)
    assert result == 10
    assert turns <= 12


def test_a_refusal_is_for_one_request_and_one_turn(app, live):
    """A signal refused once says nothing of a later one under the same name."""

    @app.flow
    def parent(gone):
        try:
            yield tf.signal(gone, "go")
        except tf.StepFailed:
            ref = yield tf.spawn("patient")
            yield tf.signal(ref, "go", "now")
            return (yield tf.join(ref))

    async def main(engine):
        return (await engine.wait(await engine.start(parent, "nobody"))).result

    assert live(app, main) == "now"


def test_attributes_of_a_refused_turn_are_forgotten(app, live):
    """What a refused turn had set is not set when it is taken again another way."""

    @app.flow
    def parent(_):
        try:
            yield tf.spawn("patient", key="k")
        except tf.StepFailed:
            yield tf.set_attributes(b=1)
            return
        yield tf.set_attributes(a=1)

    async def main(engine):
        await engine.start("patient", key="k")
        await engine.run_until_idle()
        return (await engine.wait(await engine.start(parent))).attributes

    assert live(app, main) == {"b": 1}


# --- attempts that nobody waits for any more


def test_loser_is_stopped_by_the_commit_not_before(new_app, live, watched):
    """While the turn in which a call loses is not durable, its attempt goes on."""
    store = watched(MemoryStore())
    app = new_app(store)
    begun, stopped, seen = [], [], []

    async def slow():
        begun.append(1)
        try:
            await trio.sleep_forever()
        finally:
            stopped.append(1)

    @app.flow
    def flow(_):
        yield tf.race(tf.call(slow), tf.wait_signal("go"))
        yield tf.call(ok)

    def fail_once(batch):
        if any(type(op) is Turn and op.consumed for op in batch.operations) and len(seen) < 2:
            seen.append((len(begun), len(stopped)))
            raise OSError("disk full")

    async def main(engine):
        id = await engine.start(flow)
        await trio.sleep(1)
        store.before = fail_once
        await engine.signal(id, "go")
        return (await engine.wait(id)).status

    assert live(app, main) == "done"
    assert seen == [(1, 0), (1, 0)]
    assert (begun, stopped) == ([1], [1])


def test_loser_that_ended_in_the_same_turn_is_undone(new_app, live, monkeypatch):
    """Two calls of a race end while a turn is in flight: the loser's refund still runs."""
    app = new_app()
    undone = []
    gates = [trio.Event() for _ in range(3)]

    async def slow(number):
        await gates[number].wait()
        return number

    def undo(result, number):
        undone.append((number, result))

    @app.flow
    def flow(_):
        def racer():
            won = yield tf.race(
                *(tf.call(slow, number).using(compensate=undo) for number in (0, 1))
            )
            return won.value

        return (yield tf.gather(racer(), tf.call(slow, 2)))

    async def main(engine):
        id = await engine.start(flow)
        await trio.sleep(1)
        (run,) = engine._executor.owned.values()
        run.busy = True  # as while a turn is in flight
        for gate in gates:
            gate.set()
        await trio.sleep(1)
        run.busy = False
        engine._executor._turn(run)
        return await engine.wait(id, timeout=60)

    found = live(app, main)
    assert (found.status, found.result[1]) == ("done", 2)
    assert undone == [(1 - found.result[0], None)]


def test_instance_is_kept_while_what_it_may_undo_runs_on(new_app, real, make_sqlite):
    """A cancelled charge whose thread runs on is refunded after it, whatever came between."""
    app = new_app(make_sqlite())
    did = []
    begun, gate = threading.Event(), threading.Event()

    def charge():
        begun.set()
        gate.wait(10)
        did.append("charged")

    def refund(_result):
        did.append("refunded")

    @app.flow
    def flow(_):
        try:
            yield tf.call(charge).using(compensate=refund)
        except tf.FlowCancelled:
            yield tf.wait_signal("go")
            yield tf.set_attributes(asked=True)
            yield tf.compensate_all()
            yield tf.wait_signal("end")

    async def main():
        async with app.open() as engine:
            id = await engine.start(flow)
            await trio.to_thread.run_sync(begun.wait)
            await engine.cancel(id)
            await until(lambda: engine.get(id), lambda found: found.log_length)
            await engine.signal(id, "go")
            await until(lambda: engine.get(id), lambda found: found.attributes)
            before = list(did)
            gate.set()
            # Nothing keeps it any more, so it parks.
            await until(lambda: engine.get(id), lambda found: found.status == "waiting")
            await engine.signal(id, "end")
            await engine.wait(id)
            return before

    assert real(main) == []
    assert did == ["charged", "refunded"]


def test_instance_parks_once_what_it_may_undo_has_ended(new_app, real, make_sqlite):
    """An instance that was kept for an attempt's sake alone parks when that has ended."""
    app = new_app(make_sqlite())
    begun, gate = threading.Event(), threading.Event()

    def charge():
        begun.set()
        gate.wait(10)

    @app.flow
    def flow(_):
        try:
            yield tf.call(charge).using(compensate=ok)
        except tf.FlowCancelled:
            yield tf.set_attributes(asked=True)
            yield tf.wait_signal("go")

    async def main():
        async with app.open() as engine:
            id = await engine.start(flow)
            await trio.to_thread.run_sync(begun.wait)
            await engine.cancel(id)
            await until(lambda: engine.get(id), lambda found: found.attributes)
            before = (await engine.get(id)).status
            gate.set()
            await until(lambda: engine.get(id), lambda found: found.status == "waiting")
            return before

    assert real(main) == "running"


def test_drain_waits_for_what_may_have_to_be_undone(new_app, real, tmp_path):
    """An instance isn't handed back while a charge that was cancelled runs on here."""
    did = []
    begun, gate = threading.Event(), threading.Event()

    def charge():
        begun.set()
        gate.wait(10)
        did.append("charged")

    def refund(_result):
        did.append("refunded")

    def make():
        app = new_app(SqliteStore(tmp_path / "shared.db"))

        @app.flow(name="f")
        def f(_):
            try:
                yield tf.call(charge).using(compensate=refund)
            except tf.FlowCancelled:
                yield tf.compensate_all()
                raise

        return app

    async def main():
        async with make().open() as one:
            id = await one.start("f")
            await trio.to_thread.run_sync(begun.wait)
            await one.cancel(id)
            await until(lambda: one.get(id), lambda found: found.log_length)
            async with make().open() as two, trio.open_nursery() as nursery:
                nursery.start_soon(one.drain)
                with trio.move_on_after(0.2):
                    await two.wait(id)
                before = list(did)
                gate.set()
                return before, (await two.wait(id)).status

    assert real(main) == ([], "cancelled")
    assert did == ["charged", "refunded"]


def test_compensation_that_was_held_begins_once(new_app, live, watched):
    """What is held for an attempt begins once, though a turn that was taken again names it."""
    store = watched(MemoryStore())
    app = new_app(store)
    undone = []
    state = {"fail": False}
    gate = trio.Event()

    async def charge():
        with trio.CancelScope(shield=True):
            await gate.wait()

    async def refund(_result):
        undone.append(1)
        await trio.sleep(5)

    @app.flow
    def flow(_):
        def racer():
            yield tf.race(tf.call(charge).using(compensate=refund), tf.sleep(1))

        yield tf.gather(racer(), tf.wait_signal("a"))

    def fail(batch):
        turns = [op for op in batch.operations if type(op) is Turn and op.consumed]
        if turns and state["fail"]:
            state["fail"] = False
            raise OSError("disk full")
        if turns:
            # The attempt ends while this turn, which names the refund once more, lands.
            gate.set()
            run = next(iter(state["engine"]._executor.owned.values()))
            (attempt,) = run.ending.values()
            attempt.heard = True
            state["engine"]._executor._unwanted(attempt)

    async def main(engine):
        state["engine"] = engine
        id = await engine.start(flow)
        await trio.sleep(2)
        store.before = fail
        state["fail"] = True
        await engine.signal(id, "a")
        return (await engine.wait(id)).status

    assert live(app, main) == "done"
    assert undone == [1]


# --- two workers


def test_attempts_of_another_worker_count(new_app, real, tmp_path, turned_clock):
    """A replay kept warm is stale once another worker has run an attempt: it counts too."""
    clock = turned_clock()
    runs = []

    def fail():
        runs.append(tf.step_context().attempt)
        raise OSError("no line")

    def make():
        app = new_app(SqliteStore(tmp_path / "shared.db"))

        @app.flow(name="f")
        def f(_):
            yield tf.call(fail).using(retry=tf.RetryPolicy(max_attempts=4))

        return app

    async def main():
        async with make().open(clock=clock) as one, make().open(clock=clock) as two:
            engines = [one, two]
            two._keeper._capacity = 0
            id = await one.start("f")
            for turn in range(1, 5):
                await until(
                    lambda: one.get(id),
                    lambda found, turn=turn: found.status != "running" and len(runs) >= turn,
                )
                # The other one takes the next attempt.
                engines[turn % 2]._keeper._capacity = 100
                engines[1 - turn % 2]._keeper._capacity = 0
                clock.time += 1000
            return (await one.wait(id)).status

    assert real(main) == "failed"
    assert runs == [1, 2, 3, 4]


# --- parents, children and generations


def test_retry_of_a_parent_waits_for_the_same_child(app, live):
    """A parent that failed with its child hears of that child again, and starts no other."""
    mended = []

    @app.flow
    def kid(_):
        yield tf.sleep(1)
        if not mended:
            raise ValueError("no luck")
        return "well"

    @app.flow
    def parent(_):
        return (yield tf.child("kid", key="k"))

    async def main(engine):
        id = await engine.start(parent)
        await engine.wait(id)
        await engine.retry(id)
        again = await engine.wait(id, timeout=60)
        mended.append(1)
        (child,) = [each async for each in engine.instances(flow="kid")]
        await engine.retry(child.id)
        await engine.wait(child.id)
        await engine.retry(id)
        last = await engine.wait(id, timeout=60)
        return again.failure.type, last.result

    assert live(app, main) == ("ChildFailed", "well")


def test_retry_of_a_parent_while_its_child_runs_again(app, live):
    """A child that is retried and its parent with it: the parent waits for its new end."""
    mended = []

    @app.flow
    def kid(_):
        if mended:
            yield tf.sleep(100)
            return "well"
        raise ValueError("no luck")

    @app.flow
    def parent(_):
        return (yield tf.child("kid"))

    async def main(engine):
        id = await engine.start(parent)
        await engine.wait(id)
        mended.append(1)
        (child,) = [each async for each in engine.instances(flow="kid")]
        await engine.retry(child.id)
        await engine.retry(id)
        await trio.sleep(50)
        assert (await engine.get(id)).status == "waiting"
        return (await engine.wait(id, timeout=100)).result

    assert live(app, main) == "well"


def test_retry_of_a_gather_finds_its_cancelled_child(app, live):
    """A child that lost with its failed sibling stays cancelled, and its parent hears so."""
    mended = []

    def step():
        if not mended:
            raise ValueError("no luck")

    @app.flow
    def parent(_):
        yield tf.gather(tf.child("patient"), tf.call(step))

    async def main(engine):
        id = await engine.start(parent)
        await engine.wait(id)
        await engine.run_until_idle()
        mended.append(1)
        await engine.retry(id)
        return (await engine.wait(id, timeout=60)).failure.type

    assert live(app, main) == "ChildFailed"


def test_two_that_signal_one_another_and_end(app, live):
    """Whoever's turn is the first of a batch reaches the other; only the second is too late."""

    @app.flow
    def caller(_):
        other = yield tf.wait_signal("go")
        try:
            yield tf.signal(other, "hello")
        except tf.StepFailed as failed:
            return failed.failure.type
        return "sent"

    async def main(engine):
        one = await engine.start(caller)
        two = await engine.start(caller)
        await engine.run_until_idle()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(engine.signal, one, "go", two)
            nursery.start_soon(engine.signal, two, "go", one)
        return {(await engine.wait(each)).result for each in (one, two)}

    assert live(app, main) == {"sent", "InstanceEnded"}


def test_signal_to_one_whose_end_is_refused_lands(app, live):
    """An instance that only tried to end in this batch is there for its neighbours."""

    @app.flow
    def ender(_):
        yield tf.wait_signal("go")
        try:
            yield tf.spawn("patient", key="k")
        except tf.StepFailed:
            return (yield tf.wait_signal("hello"))

    @app.flow
    def caller(other):
        yield tf.wait_signal("go")
        yield tf.signal(other, "hello", 7)

    async def main(engine):
        await engine.start("patient", key="k")
        one = await engine.start(ender)
        two = await engine.start(caller, one)
        await engine.run_until_idle()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(engine.signal, one, "go")
            nursery.start_soon(engine.signal, two, "go")
        assert (await engine.wait(two)).status == "done"
        return (await engine.wait(one, timeout=60)).result

    assert live(app, main) == 7


def test_each_generation_may_be_cancelled_once(app, live):
    """A flow that went on after a cancel, in a new generation, can be cancelled again."""

    @app.flow
    def stubborn(number):
        try:
            yield tf.wait_signal("go")
        except tf.FlowCancelled:
            if number:
                raise
        yield tf.continue_as_new(number + 1)

    async def main(engine):
        id = await engine.start(stubborn, 0)
        await engine.run_until_idle()
        first = await engine.cancel(id), await engine.cancel(id)
        await engine.run_until_idle()
        assert (await engine.get(id)).generation == 2
        second = await engine.cancel(id)
        return first, second, (await engine.wait(id)).status

    assert live(app, main) == ((True, False), True, "cancelled")


def test_cancel_that_a_generation_did_not_take_is_for_the_next(app, live):
    """A cancel that lands while a generation ends is heard by the one that follows."""

    @app.flow
    def busy(number):
        try:
            if number < 3:
                yield tf.side_effect(int)
            else:
                yield tf.wait_signal("go")
        except tf.FlowCancelled:
            return "heard"
        yield tf.continue_as_new(number + 1)

    async def main(engine):
        id = await engine.start(busy, 0)
        await engine.cancel(id)
        found = await engine.wait(id)
        return found.status, found.result

    assert live(app, main) in [("done", "heard")]


# --- bad input


@pytest.mark.parametrize(
    "values",
    [{"a": "\ud800"}, {"\ud800": 1}, {"a": 10**6000}, {"a": "x" * 20_000_000}],
    ids=["text", "name", "number", "size"],
)
def test_attributes_that_cannot_be_stored_fail_at_the_yield(app, live, values):
    """They fail their effect, with a reason; the instance goes on and isn't blocked."""

    @app.flow
    def flow(_):
        yield tf.set_attributes(fine=1)
        try:
            yield tf.set_attributes(**values)
        except tf.StepFailed as failed:
            yield tf.set_attributes(more=2)
            return failed.failure.type

    async def main(engine):
        found = await engine.wait(await engine.start(flow), timeout=60)
        return found.result, found.attributes

    assert live(app, main) == ("EncodingRefused", {"fine": 1, "more": 2})


@pytest.mark.parametrize("key", ["", 5, b"k", ["k"], "\ud800"])
def test_keys_of_children_are_texts(app, live, key):
    """Another key is refused where it is given, before any turn tries to store it."""

    @app.flow
    def flow(_):
        try:
            yield tf.spawn("patient", key=key)
        except tf.DefinitionError as refused:
            return str(refused)

    async def main(engine):
        return (await engine.wait(await engine.start(flow), timeout=60)).result

    assert "spawn(key=)" in live(app, main)


def test_compensation_without_a_name_is_refused_at_once(app, live):
    """A lambda is refused where it is given, not when the time comes to undo."""
    undone = []

    def undo(_result, what):
        undone.append(what)

    @app.flow
    def flow(_):
        yield tf.call(ok, 1).using(compensate=undo)
        try:
            yield tf.call(ok, 2).using(compensate=lambda *_: None)
        except tf.DefinitionError as refused:
            yield tf.compensate_all()
            return str(refused)

    async def main(engine):
        return (await engine.wait(await engine.start(flow))).result

    assert "expected a step with a name" in live(app, main)
    assert undone == [1]


def test_pattern_that_is_changed_after_its_check_harms_nobody(app, live):
    """A wait is for the pattern that was checked; no scan stumbles over another."""

    @app.flow
    def careless(_):
        pattern = {"type": ["A"]}
        wait = tf.wait_activity(pattern)
        pattern["type"] = [{"nope": 1}]
        return (yield wait)["type"]

    @app.flow
    def neighbour(_):
        return (yield tf.wait_activity({"type": ["B"]}))["type"]

    async def main(engine):
        ids = [await engine.start(careless), await engine.start(neighbour)]
        await engine.run_until_idle()
        for kind in "AB":
            await engine.append({"type": kind, "actor": "https://a.example/ann"})
        return [(await engine.wait(id, timeout=60)).result for id in ids]

    assert live(app, main) == ["A", "B"]


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_attributes_that_nothing_equals_are_refused(app, live, value):
    """A NaN could never be searched for; it's refused where it is given, by name."""

    @app.flow
    def flow(_):
        try:
            yield tf.set_attributes(rate=value)
        except tf.DefinitionError as refused:
            return str(refused)

    async def main(engine):
        found = await engine.wait(await engine.start(flow))
        return found.result, found.attributes

    problem, kept = live(app, main)
    assert "set_attributes(rate=)" in problem
    assert kept == {}


@pytest.mark.parametrize(
    "make",
    [
        lambda: tf.call(ok).using(idempotency_key="\ud800"),
        lambda: tf.call(ok).using(idempotency_key=5),
        lambda: tf.call(ok).using(queue=""),
        lambda: tf.call(ok).using(timeout=float("nan")),
        lambda: tf.call(ok).using(retry=3),
        lambda: tf.wait_activity({"type": ["A"]}, after=10**30),
        lambda: tf.wait_activity({"type": ["A"]}, after=True),
        lambda: tf.spawn("a/b"),
        lambda: tf.child(None),
    ],
    ids=["surrogate", "number", "queue", "nan", "retry", "after", "bool", "flow", "none"],
)
def test_what_no_store_takes_is_refused_where_it_is_given(app, live, make):
    """It fails there, and the flow that catches it goes on: no effect was forgotten."""

    @app.flow
    def flow(_):
        try:
            yield make()  # tf: trust
        except tf.DefinitionError:
            return (yield tf.call(ok))

    async def main(engine):
        return (await engine.wait(await engine.start(flow), timeout=60)).result

    assert live(app, main) == "ok"


def test_registered_step_with_dots_undoes(app, live):
    """A compensation may be a registered step, whose name holds dots."""
    undone = []

    @app.step(name="mail.take_back")
    def take_back(result):
        undone.append(result)

    @app.flow
    def flow(_):
        yield tf.call(ok).using(compensate=take_back)
        yield tf.compensate_all()

    async def main(engine):
        return (await engine.wait(await engine.start(flow))).status

    assert live(app, main) == "done"
    assert undone == ["ok"]


def test_recorded_result_that_cannot_be_read_is_asked_for_with_pauses(new_app, live, watched):
    """A store that is down isn't asked a thousand times a second; then the step runs."""
    store = watched(MemoryStore())
    asked = []

    def recorded(step, key):
        asked.append(key)
        if len(asked) < 4:
            raise OSError("no line")
        return store.store.recorded(step, key)

    store.recorded = recorded
    app = new_app(store)

    @app.flow
    def flow(_):
        return (yield tf.call(ok).using(idempotency_key="k"))

    async def main(engine):
        before = trio.current_time()
        found = await engine.wait(await engine.start(flow), timeout=60)
        return found.result, trio.current_time() - before

    result, took = live(app, main)
    assert result == "ok"
    assert len(asked) == 4
    assert took >= 1


def test_child_with_a_key_is_awaited_again_though_another_holds_the_key(app, live):
    """A retried parent hears of the child that it has, whoever has its key by now."""

    @app.flow
    def kid(rival):
        if rival:
            yield tf.wait_signal("go")
        raise ValueError("no luck")

    @app.flow
    def parent(_):
        yield tf.child(kid, key="k")

    async def main(engine):
        id = await engine.start(parent)
        await engine.wait(id)
        await engine.start(kid, "rival", key="k")
        await engine.run_until_idle()
        await engine.retry(id)
        return (await engine.wait(id, timeout=60)).failure.message

    assert "no luck" in live(app, main)
