"""Mistakes of a flow's author are its failure, by name, and nobody else's."""

from __future__ import annotations

import functools
import gc
import operator
import subprocess
import sys
import threading

import pytest

import triggerflow as tf
from triggerflow import Done, Entry, Failed, Replay, Suspended, drive
from triggerflow.core.effects import DRIVING
from triggerflow.errors import (
    DefinitionError,
    Diverged,
    EffectMisused,
    EncodingRefused,
    FlowCancelled,
    StepFailed,
)


def charge(*args, **kwargs):
    """A step; nobody runs it here."""


def mail(*args):
    """Another one."""


def failure_of(flow, log=(), input=None):
    outcome = drive(flow, input, log)
    assert isinstance(outcome, Failed), outcome
    return outcome.failure


class TestForgottenYield:
    def test_it_fails_at_the_next_yield(self):
        """An effect that is dropped fails the flow where it next yields."""

        def flow(_):
            tf.call(charge)
            yield tf.call(mail)

        failure = failure_of(flow)
        assert failure.type == "EffectMisused"
        assert "call(charge)" in failure.message
        assert "yield" in failure.message

    def test_it_fails_at_the_return(self):
        """A flow can't end well over a forgotten yield, assigned or not."""

        def flow(_):
            yield tf.sleep(1)
            tf.call(charge)

        def assigned(_):
            yield tf.sleep(1)
            result = tf.call(charge)  # noqa: F841

        def plain(_):
            tf.call(charge)

        for each in (flow, assigned):
            assert failure_of(each, [("sleep#0", None)]).type == "EffectMisused"
        assert failure_of(plain).type == "EffectMisused"

    def test_it_fails_in_a_branch(self):
        """Branches are held to it as well, and siblings are cancelled."""

        def sub():
            yield tf.sleep(1)
            tf.call(charge)

        def flow(_):
            yield tf.gather(sub(), tf.call(mail))

        log = [("gather#0[0]/sleep#0", None)]
        assert failure_of(flow, log).type == "EffectMisused"

    def test_a_forgotten_compensation_is_no_clean_cancel(self):
        """What is forgotten on the way out of a cancel is told too."""

        def flow(_):
            try:
                yield tf.sleep(9)
            except FlowCancelled:
                tf.call(charge)
                raise

        assert failure_of(flow, [Entry("cancel")]).type == "EffectMisused"

    def test_its_parts_are_not_told_again(self):
        """A gather that came with a forgotten effect accuses nobody of its own parts."""
        seen = []

        def flow(_):
            tf.call(charge)
            try:
                yield tf.gather(tf.call(mail), tf.race(tf.call(mail)))
            except EffectMisused as error:
                seen.append(error.effect)
            yield tf.sleep(1)

        assert drive(flow) == Suspended(("sleep#0",))
        assert seen == ["call(charge)"]

    @pytest.mark.parametrize("caught", [True, False])
    def test_live_and_replay_agree(self, caught):
        """Driven at once or entry by entry, it fails at the same place."""

        def flow(_):
            yield tf.call(charge)
            tf.call(mail)
            try:
                yield tf.call(charge)
            except EffectMisused:
                if not caught:
                    raise
            return (yield tf.call(mail))

        log = [Entry("call:charge#0"), Entry("call:mail#0", 3)]
        if not caught:
            log.pop()
        live = Replay(flow)
        for entry in log:
            live.resolve(entry)
        assert live.outcome == drive(flow, None, log)
        assert isinstance(live.outcome, Done if caught else Failed)

    def test_effects_in_dead_frames_are_judged_alike(self):
        """When an error's frames die doesn't depend on how the flow is driven."""

        def sub():
            later = tf.call(mail)
            yield tf.call(charge)
            yield later

        def by_name(_):
            try:  # noqa: SIM105
                yield from sub()
            except StepFailed:
                pass
            for _i in range(3):
                yield tf.call(charge)

        def by_branch(_):
            try:  # noqa: SIM105
                yield tf.gather(sub())
            except StepFailed:
                pass
            for _i in range(3):
                yield tf.call(charge)

        failed = tf.Failure("E", "")
        for flow, first, more in ((by_name, "", 1), (by_branch, "gather#0[0]/", 0)):
            log = [Entry(first + "call:charge#0", failure=failed)]
            log += [Entry(f"call:charge#{i + more}") for i in range(3)]
            for length in range(1, 5):
                live = Replay(flow)
                try:
                    for entry in log[:length]:
                        live.resolve(entry)
                    now = live.outcome, list(live.pending)
                except Diverged:
                    now = None
                try:
                    replay = Replay(flow, log=log[:length])
                    then = replay.outcome, list(replay.pending)
                except Diverged:
                    then = None
                assert now == then

    def test_what_a_loser_kept_for_later_was_not_forgotten(self):
        """A cancelled branch is not to blame for effects that it never came to."""

        def loser():
            steps = [tf.call(charge), tf.call(mail)]
            for step in steps:  # noqa: UP028
                yield step

        def named():
            later = tf.call(mail)
            yield tf.sleep(9)
            yield later

        def passed(effect):
            yield effect

        def flow(_):
            won = yield tf.race(tf.sleep(1), loser(), named(), passed(tf.call(mail)))
            at_once = yield tf.race(tf.now(), passed(tf.call(charge)))
            yield tf.now()
            return [won.index, at_once.index]

        log = [("race#0[0]/sleep#0", None)]
        assert drive(flow, None, log) == Done([0, 0])

    def test_garbage_collection_accuses_nobody(self):
        """What only the collector finds, at a time of its own, counts for nothing."""

        def flow(_):
            ring = [tf.call(charge)]
            ring.append(ring)
            del ring
            gc.collect()
            return (yield tf.now()).year

        assert drive(flow, started=0.0) == Done(1970)

    def test_other_flows_are_not_accused(self):
        """A dropped effect counts for its own drive only, nested drives included."""

        def careless(_):
            tf.call(charge)
            yield tf.sleep(1)

        def careful(_):
            assert isinstance(drive(careless), Failed)
            yield tf.now()
            return "fine"

        assert drive(careful) == Done("fine")
        kept = []

        def keeper(_):
            kept.append(tf.call(charge))
            yield tf.sleep(1)

        def other(_):
            kept.clear()
            yield tf.now()
            return "fine"

        assert isinstance(drive(keeper), Suspended)
        assert drive(other) == Done("fine")

    def test_outside_of_a_drive_nobody_cares(self):
        """Effects may be built and dropped anywhere else."""
        tf.call(charge)
        assert DRIVING.dropped is None
        assert drive(lambda _: 1) == Done(1)

    def test_threads_do_not_disturb_each_other(self):
        """Careless and careful flows on many threads are told apart."""
        wrong = []

        def careless(_):
            for _i in range(20):
                yield tf.now()
            tf.call(charge)
            yield tf.now()

        def careful(_):
            for _i in range(40):
                yield tf.now()

        def work(flow, kind):
            for _i in range(60):
                if not isinstance(drive(flow), kind):
                    wrong.append(flow)

        threads = [
            threading.Thread(target=work, args=each)
            for each in [(careless, Failed), (careful, Done)] * 4
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not wrong

    def test_a_replay_may_move_between_threads(self):
        """A drive that goes on elsewhere still notices."""

        def flow(_):
            effect = tf.call(charge)
            yield tf.sleep(1)
            del effect
            yield tf.sleep(2)

        replay = Replay(flow)
        thread = threading.Thread(target=replay.resolve, args=(Entry("sleep#0"),))
        thread.start()
        thread.join()
        assert replay.error.effect == "call(charge)"


class TestClosing:
    @staticmethod
    def stubborn(_):
        while True:
            try:
                yield tf.sleep(1)
            finally:
                tf.call(charge)
                yield from TestClosing.more()

    @staticmethod
    def more():
        try:
            yield tf.call(mail)
        finally:
            yield tf.call(mail)

    @pytest.mark.parametrize("how", ["close", "del"])
    def test_eviction_is_silent(self, how):
        """What generators yield, build, or raise while they are closed is dropped."""

        def worse(_):
            try:
                yield tf.gather(self.stubborn(0), self.more())
            finally:
                raise KeyError

        def outer(_):
            for flow in (self.stubborn, worse):
                replay = Replay(flow)
                if how == "close":
                    replay.close()
                    assert not replay.pending
                del replay
            yield tf.now()
            return "fine"

        assert drive(outer) == Done("fine")

    def test_it_does_not_look_like_a_cancel(self):
        """Handlers of FlowCancelled don't run when a replay is evicted."""
        seen = []

        def flow(_):
            try:
                yield tf.sleep(1)
            except (FlowCancelled, Exception):
                seen.append(1)

        Replay(flow).close()
        assert not seen

    def test_a_flow_that_never_stops_yielding_is_given_up(self):
        """Closing ends, whatever the flow does."""
        code = (
            "import triggerflow as tf\n"
            "def flow(_):\n"
            "    while True:\n"
            "        try:\n"
            "            yield tf.sleep(1)\n"
            "        except BaseException:\n"
            "            pass\n"
            "tf.Replay(flow).close()\n"
            "print('ended')\n"
        )
        done = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, timeout=60
        )
        assert done.stdout == "ended\n"


class TestMisusedEffects:
    def test_truth(self):
        """An effect tested for truth says so, inside a flow and outside."""

        def flow(_):
            if tf.call(charge):
                yield tf.sleep(1)

        assert "truth" in failure_of(flow).message
        with pytest.raises(EffectMisused, match="truth"):
            bool(tf.sleep(1))

    def test_iteration(self):
        """Iterated past its first item untaken, it says so."""

        def flow(_):
            list(tf.wait_signal("x"))
            yield tf.sleep(1)

        assert "iterated" in failure_of(flow).message
        for use in (list, tuple, lambda effect: [*effect], lambda effect: max(effect)):
            with pytest.raises(EffectMisused, match="iterated"):
                use(tf.call(charge))

    @pytest.mark.parametrize("thing", [None, 5, "call", [], object(), charge, tf.call])
    def test_what_is_no_effect(self, thing):
        """Yielding anything else fails at the yield, which may catch it."""

        def flow(_):
            try:
                yield thing
            except EffectMisused as error:
                return str(error)

        assert "expected an effect" in drive(flow).result

    def test_a_generator(self):
        """A yielded generator is told apart: it wants `yield from`."""

        def sub():
            yield tf.sleep(1)

        def flow(_):
            yield sub()

        assert "yield from" in failure_of(flow).message

    def test_steps_without_a_plain_name(self):
        """A lambda, a partial, a thing: using(name=) helps, and the message says so."""
        for fn in (lambda: 1, functools.partial(charge, 1), operator.itemgetter(0)):

            def flow(_, fn=fn):
                yield tf.call(fn)

            def named(_, fn=fn):
                yield tf.call(fn).using(name="it")

            failure = failure_of(flow)
            assert failure.type == "DefinitionError"
            assert "using(name=" in failure.message
            assert drive(named) == Suspended(("call:it#0",))

    def test_a_name_that_is_no_text(self):
        """A callable with an odd __name__ is refused like one without."""

        class Odd:
            __name__ = ["x"]

            def __call__(self):
                pass

        def flow(_):
            yield tf.call(Odd())

        assert failure_of(flow).type == "DefinitionError"

    def test_coroutine_functions_are_steps(self):
        """An async step has a tag like any other."""

        async def fetch():
            pass

        def flow(_):
            yield tf.call(fetch)

        assert drive(flow) == Suspended(("call:fetch#0",))

    @pytest.mark.parametrize(
        ("args", "kwargs", "path"),
        [
            ((1, {2}), {}, "charge[1]"),
            ((), {"order": {"items": [0, charge]}}, "charge.order.items[1]"),
            ((b"", "\ud800"), {}, "charge[1]"),
            ((1 << 5000,), {}, "charge[0]"),
            (("x" * 17_000_000,), {}, "charge"),
        ],
    )
    def test_arguments_that_cannot_be_kept(self, args, kwargs, path):
        """They raise at the yield, with their path; the flow may catch it and go on."""

        def flow(_):
            try:
                yield tf.call(charge, *args, **kwargs)
            except EncodingRefused as error:
                yield tf.call(charge, error.path)
                return error.path

        found = drive(flow, None, [("call:charge#1", None)]).result
        assert found.startswith(path)

    def test_arguments_in_replay_are_refused_alike(self):
        """Recorded or not, what can't be kept is refused with the same words."""

        def flow(_):
            try:
                yield tf.call(charge, {1})
            except EncodingRefused as error:
                return str(error)

        assert drive(flow).result.startswith("charge[0]: found set")
        with pytest.raises(Diverged, match="charge#0"):
            drive(flow, None, [Entry("call:charge#0", digest=b"x" * 16)])

    def test_sub_generators_can_be_used_once(self):
        """One generator in two branches, or one that has begun, is refused by name."""

        def sub():
            yield tf.sleep(1)

        def twice(_):
            one = sub()
            yield tf.gather(one, one)

        def begun(_):
            one = sub()
            yield next(one)
            yield tf.race(one)

        def again(_):
            both = tf.gather(sub(), tf.sleep(1))
            yield both
            yield both

        assert "two branches" in failure_of(twice).message
        assert "begun" in failure_of(begun, [("sleep#0", None)]).message
        log = [("gather#0[0]/sleep#0", None), ("gather#0[1]/sleep#0", None)]
        assert "begun" in failure_of(again, log).message


class TestFlowsThatBreak:
    def test_raising_at_once(self):
        """A flow that raises before its first yield is Failed, generator or not."""

        def generator(_):
            raise ValueError("no")
            yield

        def plain(_):
            raise ValueError("no")

        def takes_nothing():
            yield

        for flow in (generator, plain):
            failure = failure_of(flow)
            assert (failure.type, failure.message) == ("ValueError", "no")
            assert 'raise ValueError("no")' in failure.traceback
        assert failure_of(takes_nothing).type == "TypeError"

    def test_async_flows(self):
        """They are refused by name, without a warning of a coroutine never awaited."""

        async def coroutine(_):
            pass

        async def generator(_):
            yield

        for flow in (coroutine, generator):
            assert "async" in failure_of(flow).message

    def test_stop_iteration(self):
        """StopIteration inside a flow isn't its end."""

        def flow(_):
            yield tf.sleep(1)
            next(iter(()))

        assert failure_of(flow, [("sleep#0", None)]).type == "RuntimeError"
        assert failure_of(lambda _: next(iter(()))).type in {"RuntimeError", "StopIteration"}

    @pytest.mark.parametrize("error", [SystemExit, GeneratorExit, RecursionError, MemoryError])
    def test_errors_of_every_kind(self, error):
        """sys.exit() in a flow is the flow's failure, not the worker's end."""

        def sub():
            yield tf.sleep(1)
            raise error

        def flow(_):
            yield tf.gather(sub(), tf.sleep(2))

        log = [("gather#0[0]/sleep#0", None)]
        assert failure_of(flow, log).type == error.__name__

    def test_an_interrupt_is_not_the_flows_doing(self):
        """KeyboardInterrupt passes: no outcome is made of it."""

        def flow(_):
            yield tf.sleep(1)
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            drive(flow, None, [("sleep#0", None)])
        replay = Replay(flow)
        with pytest.raises(KeyboardInterrupt):
            replay.resolve(Entry("sleep#0"))
        assert replay.outcome is None
        assert DRIVING.dropped is None

    @pytest.mark.parametrize("kind", ["now", "gather", "refused", "forgotten", "branch"])
    def test_a_runaway_is_named(self, kind, monkeypatch):
        """A million effects without an entry fail the flow, even one that catches all."""
        monkeypatch.setattr("triggerflow.core.driver._MOST_EFFECTS", 2000)

        def spin():
            while True:
                try:
                    if kind == "refused":
                        yield 5
                    elif kind == "forgotten":
                        tf.call(charge)
                        yield tf.now()
                    elif kind == "gather":
                        yield tf.gather()
                    else:
                        yield tf.now()
                except Exception:
                    pass

        def flow(_):
            yield tf.sleep(1)
            yield from spin()
            if kind == "branch":
                yield tf.gather(tf.call(charge), spin())

        failure = failure_of(flow, [("sleep#0", None)])
        assert failure.type == "FlowRanAway"
        assert "flow 'flow'" in failure.message
        replay = Replay(flow)
        replay.resolve(Entry("sleep#0"))
        assert replay.outcome.failure.type == "FlowRanAway"
        assert not replay.pending

    def test_the_bound_is_a_million(self):
        """A flow may take many free effects; entries begin the count anew."""

        def flow(n):
            for _i in range(n):
                yield tf.now()
            return "end"

        assert drive(flow, 999_999) == Done("end")

    def test_misshapen_composites(self):
        """Definition errors in composites reach the flow at their line."""

        def flow(_):
            try:
                yield tf.gather(tf.call(charge), 5)
            except DefinitionError as error:
                yield tf.now()
                return str(error)

        assert "expected an effect or a sub-generator" in drive(flow).result
