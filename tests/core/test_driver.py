"""What a flow sees and what it waits for: tags, results, failures, chance, cancelling."""

from __future__ import annotations

from datetime import UTC, datetime
from uuid import UUID

import pytest

import triggerflow as tf
from triggerflow import Done, Entry, Failed, Failure, Pending, Replay, Suspended, drive
from triggerflow.errors import (
    Diverged,
    FlowCancelled,
    StepError,
    StepFailed,
    TimedOut,
)


def charge(*args, **kwargs):
    """A step; nobody runs it here."""


def mail(*args, **kwargs):
    """Another one."""


FAILED = Failure("IOError", "no network", "Traceback ...")
CANCEL = Entry("cancel")
RETRIED = Entry("retried")


def failed(tag, kind="error", at=None):
    return Entry(tag, failure=Failure("IOError", "no network", kind=kind), at=at)


def at(tag, when, value=None):
    return Entry(tag, value, at=when)


def seconds(moment):
    return moment.timestamp()


class TestTags:
    def test_kinds_and_names_are_counted_apart(self):
        """The number in a tag counts effects of one kind and name."""

        def flow(_):
            yield tf.call(charge)
            yield tf.call(mail)
            yield tf.call(charge)
            yield tf.sleep(1)
            yield tf.sleep_until(5)
            yield tf.sleep(1)
            yield tf.wait_signal("go")
            yield tf.wait_signal(("go", "stop"))
            yield tf.side_effect(dict)
            yield tf.side_effect(lambda: 1)
            yield tf.call(lambda: 1).using(name="odd name")

        expected = [
            "call:charge#0",
            "call:mail#0",
            "call:charge#1",
            "sleep#0",
            "sleep_until#0",
            "sleep#1",
            "wait_signal:go#0",
            "wait_signal:go|stop#0",
            "side_effect:dict#0",
            "side_effect:value#0",
            "call:odd name#0",
        ]
        log = []
        for tag in expected:
            assert drive(flow, None, log) == Suspended((tag,))
            log.append((tag, ["go", 1] if "|" in tag else None))
        assert drive(flow, None, log) == Done(None)

    def test_branches_prefix_their_path(self):
        """Tags name the way through branches, by number or by name, at any depth."""

        def sub():
            yield tf.gather(tf.call(charge), tf.race(tf.sleep(1), late=tf.wait_signal("x")))

        def flow(_):
            yield tf.gather(sub(), tf.call(charge), sub())

        assert drive(flow) == Suspended(
            (
                "gather#0[0]/gather#0[0]/call:charge#0",
                "gather#0[0]/gather#0[1]/race#0[0]/sleep#0",
                "gather#0[0]/gather#0[1]/race#0[late]/wait_signal:x#0",
                "gather#0[1]/call:charge#0",
                "gather#0[2]/gather#0[0]/call:charge#0",
                "gather#0[2]/gather#0[1]/race#0[0]/sleep#0",
                "gather#0[2]/gather#0[1]/race#0[late]/wait_signal:x#0",
            )
        )

    def test_one_object_yielded_twice_gets_two_tags(self):
        """An effect object is a request each time it is yielded."""

        def flow(_):
            effect = tf.call(charge, 1)
            both = tf.gather(effect, effect)
            a = yield effect
            b = yield from effect
            return [a, b, (yield both), (yield both)]

        tags = ["call:charge#0", "call:charge#1"]
        tags += [f"gather#{g}[{b}]/call:charge#0" for g in (0, 1) for b in (0, 1)]
        assert drive(flow, None, [(tag, i) for i, tag in enumerate(tags)]) == Done(
            [0, 1, [2, 3], [4, 5]]
        )

    @pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 2, 0)])
    def test_tags_do_not_depend_on_who_ends_first(self, order):
        """Branches go on under the same tags in every order of completion."""

        def sub(n):
            yield tf.call(charge, n)
            return (yield tf.call(charge, n, "again"))

        def flow(_):
            return (yield tf.gather(*[sub(n) for n in range(3)]))

        log = [(f"gather#0[{n}]/call:charge#0", None) for n in order]
        pending = set(drive(flow, None, log).tags)
        assert pending == {f"gather#0[{n}]/call:charge#1" for n in range(3)}
        log += [(f"gather#0[{n}]/call:charge#1", n) for n in reversed(order)]
        assert drive(flow, None, log) == Done([0, 1, 2])

    def test_a_sub_generator_driven_by_yield_from_shares_the_branch(self):
        """`yield from sub()` is the same branch: one count, no prefix."""

        def sub():
            return (yield from tf.call(charge))

        def flow(_):
            yield from sub()
            return (yield from sub())

        assert drive(flow, None, [("call:charge#0", 1)]) == Suspended(("call:charge#1",))


class TestResults:
    def test_values_come_back_at_the_yield(self):
        """The flow gets what the log has, and its input, and returns its result."""

        def flow(activity):
            a = yield tf.call(charge, activity["n"])
            b = yield from tf.call(charge, a)
            return {"sum": a + b}

        log = [("call:charge#0", 2), ("call:charge#1", 3)]
        assert drive(flow, {"n": 1}, log) == Done({"sum": 5})

    def test_results_of_a_flow_make_their_round_trip(self):
        """What is Done is what a reader of the store will see."""

        def flow(_):
            return (1, (2,))

        assert drive(flow) == Done([1, [2]])

    def test_a_result_that_cannot_be_kept_fails_with_its_path(self):
        """An unencodable result is the flow's failure, and the path is named."""

        def flow(_):
            yield tf.sleep(1)
            return {"items": [1, {2}]}

        outcome = drive(flow, None, [("sleep#0", None)])
        assert outcome.failure.type == "EncodingRefused"
        assert "result.items[1]" in outcome.failure.message

    def test_empty_gather_costs_nothing(self):
        """gather() is [] at once, nested too."""

        def flow(_):
            a = yield tf.gather()
            b = yield tf.gather(tf.gather(), tf.gather(tf.gather()))
            return [a, b]

        assert drive(flow) == Done([[], [[], [[]]]])

    def test_gather_keeps_the_order_of_its_branches(self):
        """Results stand in the order of the branches, not of their completion."""

        def flow(_):
            return (yield tf.gather(tf.call(charge), tf.sleep(1), tf.wait_signal("x")))

        log = [
            ("gather#0[2]/wait_signal:x#0", "c"),
            ("gather#0[0]/call:charge#0", "a"),
            ("gather#0[1]/sleep#0", None),
        ]
        assert drive(flow, None, log) == Done(["a", None, "c"])

    def test_race_returns_who_won(self):
        """Won has index, name and value; the losers' effects no longer pend."""

        def flow(_):
            won = yield tf.race(tf.sleep(9), tf.call(charge), reply=tf.wait_signal("r"))
            yield tf.sleep(1)
            return [won.index, won.name, won.value]

        log = [("race#0[reply]/wait_signal:r#0", "hi")]
        assert drive(flow, None, log) == Suspended(("sleep#0",))
        assert drive(flow, None, [*log, ("sleep#0", None)]) == Done([2, "reply", "hi"])
        log = [("race#0[1]/call:charge#0", 5), ("sleep#0", None)]
        assert drive(flow, None, log) == Done([1, None, 5])

    def test_a_race_that_is_won_at_once_arms_nothing(self):
        """A branch that ends without waiting wins; later ones never start."""
        started = []

        def late():
            started.append(1)
            yield tf.sleep(1)

        def flow(_):
            won = yield tf.race(tf.sleep(5), tf.now(), late(), tf.gather(tf.call(charge)))
            yield tf.now()
            return won.index

        assert drive(flow) == Done(1)
        assert not started

    def test_waiting_for_signals(self):
        """One name gives the payload, several give a Signal."""

        def flow(_):
            one = yield tf.wait_signal("a")
            many = yield tf.wait_signal(["a", "b"])
            assert isinstance(many, tf.Signal)
            return [one, many.name, many.payload]

        log = [("wait_signal:a#0", {"x": 1}), ("wait_signal:a|b#0", ["b", 2])]
        assert drive(flow, None, log) == Done([{"x": 1}, "b", 2])

    def test_a_side_effect_waits_for_its_entry(self):
        """The driver runs no side effect: it pends until its value is recorded."""

        def boom():
            raise AssertionError

        def flow(_):
            return (yield tf.side_effect(boom, name="setting"))

        assert drive(flow) == Suspended(("side_effect:setting#0",))
        assert drive(flow, None, [("side_effect:setting#0", 3)]) == Done(3)

    def test_plain_functions_and_flows_that_end_at_once(self):
        """A function without a yield is a flow that has ended."""
        assert drive(lambda _: 4) == Done(4)

        def at_once(_):
            return 5
            yield

        assert drive(at_once) == Done(5)

    @pytest.mark.parametrize("n", [0, 1, 30])
    def test_incremental_is_full(self, n):
        """resolve() and a replay of the log come to the same."""

        def flow(n):
            total = 0
            for i in range(n):
                total += yield tf.call(charge, i)
            return total

        replay = Replay(flow, n)
        for i in range(n):
            assert list(replay.pending) == [f"call:charge#{i}"]
            assert replay.position == i
            replay.resolve(Entry(f"call:charge#{i}", i))
        log = [(f"call:charge#{i}", i) for i in range(n)]
        assert replay.outcome == drive(flow, n, log) == Done(sum(range(n)))


class TestTimeAndChance:
    def test_they_cost_no_entry_and_never_differ(self):
        """now, uuid4 and random give the same in every replay, and others for other seeds."""

        def flow(_):
            made = [(yield tf.uuid4()), (yield tf.random()), (yield tf.uuid4())]
            yield tf.sleep(1)
            return [*made, (yield tf.random()), (yield tf.now())]

        log = [at("sleep#0", 50.0)]
        one, two = (drive(flow, None, log, seed=b"a", started=9.0) for _ in range(2))
        assert one == two
        other = drive(flow, None, log, seed=b"b", started=9.0)
        first, second = one.result, other.result
        assert first[:4] != second[:4]
        assert first[0] != first[2]
        assert first[1] != first[3]
        assert all(isinstance(first[i], UUID) and first[i].version == 4 for i in (0, 2))
        assert 0 <= first[1] < 1
        assert first[4] == datetime.fromtimestamp(50, UTC)

    def test_chance_differs_between_branches(self):
        """Equal code in two branches draws different numbers."""

        def sub():
            return (yield tf.uuid4())

        def flow(_):
            return (yield tf.gather(sub(), sub(), tf.uuid4()))

        assert len(set(drive(flow).result)) == 3

    def test_before_the_first_entry_it_is_the_first_turn(self):
        """now() is `started` until an entry has moved the branch."""

        def flow(_):
            return (yield tf.now())

        assert drive(flow, started=77.0) == Done(datetime.fromtimestamp(77, UTC))

    def test_now_follows_the_entry_that_moved_the_branch(self):
        """Entries of other branches don't move this branch's clock."""

        def sub():
            before = yield tf.now()
            yield tf.sleep(1)
            return [seconds(before), seconds((yield tf.now()))]

        def flow(_):
            both = yield tf.gather(sub(), sub())
            return [*both, seconds((yield tf.now()))]

        log = [at("gather#0[1]/sleep#0", 20.0), at("gather#0[0]/sleep#0", 30.0)]
        assert drive(flow, None, log, started=10.0) == Done([[10, 30], [10, 20], 30])

    def test_the_winner_moves_the_losers(self):
        """A loser cleans up at the winner's time: nobody's clock goes back."""
        seen = []

        def loser():
            try:
                yield tf.sleep(100)
            finally:
                seen.append(seconds((yield tf.now())))

        def flow(_):
            yield tf.race(loser(), tf.sleep(1))

        drive(flow, None, [at("race#0[1]/sleep#0", 20.0)], started=10.0)
        assert seen == [20]

    def test_a_cancel_moves_every_branch(self):
        """After a cancel, now() is the cancel's time, in branches too."""
        seen = []

        def sub():
            try:
                yield tf.sleep(100)
            finally:
                seen.append(seconds((yield tf.now())))

        def flow(_):
            try:
                yield tf.gather(sub(), tf.gather(sub()))
            finally:
                seen.append(seconds((yield tf.now())))

        drive(flow, None, [Entry("cancel", at=30.0)], started=10.0)
        assert seen == [30, 30, 30]


class TestPatched:
    @staticmethod
    def new(_):
        if (yield tf.patched("fix")):
            yield tf.call(mail)
        return (yield tf.call(charge))

    @staticmethod
    def old(_):
        return (yield tf.call(charge))

    def test_live_it_is_true_and_recorded(self):
        """At the log's end with nothing pending it is True and adds its own entry."""
        replay = Replay(self.new)
        assert [entry.tag for entry in replay.recorded] == ["patched:fix"]
        assert replay.position == 1
        assert list(replay.pending) == ["call:mail#0"]

    def test_its_own_entry_makes_it_true(self):
        """In replay its entry is consumed where it stands."""
        log = [("patched:fix", True), ("call:mail#0", None), ("call:charge#0", 1)]
        assert drive(self.new, None, log) == Done(1)

    def test_another_entry_makes_it_false(self):
        """A log that goes on with something else was made by the old code."""
        assert drive(self.new, None, [("call:charge#0", 1)]) == Done(1)

    def test_a_stored_pending_set_ahead_makes_it_false(self):
        """What is in flight was armed by the old code."""
        stored = {"call:charge#0": Pending()}
        assert drive(self.new, None, pending=stored) == Suspended(("call:charge#0",))

    def test_the_first_decision_holds(self):
        """Later yields of one id repeat it and take no entry, in other branches too."""

        def sub():
            return (yield tf.patched("fix"))

        def flow(_):
            first = yield tf.patched("fix")
            yield tf.call(charge)
            return [first, (yield tf.patched("fix")), *(yield tf.gather(sub(), sub()))]

        assert drive(flow, None, [("call:charge#0", 1)]) == Done([False] * 4)
        log = [("patched:fix", True), ("call:charge#0", 1)]
        assert drive(flow, None, log) == Done([True] * 4)

    def test_a_removed_patch_diverges(self):
        """Code without the patch doesn't fit a log that has it."""
        with pytest.raises(Diverged) as caught:
            drive(self.old, None, [("patched:fix", True), ("call:charge#0", 1)])
        assert caught.value.position == 0


class TestFailures:
    def test_a_step_out_of_attempts(self):
        """StepFailed carries the failure as data and chains a wording of the original."""
        seen = []

        def flow(_):
            try:
                yield tf.call(charge)
            except StepFailed as error:
                seen.append(error)
                return "caught"

        assert drive(flow, None, [Entry("call:charge#0", failure=FAILED)]) == Done("caught")
        (error,) = seen
        assert error.failure == FAILED
        assert error.step == "charge"
        assert isinstance(error.__cause__, StepError)
        assert "no network" in str(error.__cause__)
        assert "Traceback ..." in str(error.__cause__)

    def test_uncaught_it_fails_the_flow(self):
        """A flow's failure has type, message, and the flow's own lines; no line of ours."""

        def flow(_):
            yield tf.call(charge)

        outcome = drive(flow, None, [failed("call:charge#0")])
        assert outcome.failure.type == "StepFailed"
        assert "no network" in outcome.failure.message
        assert "yield tf.call(charge)" in outcome.failure.traceback
        assert "in _until_end" not in outcome.failure.traceback

    @pytest.mark.parametrize("names", ["x", ("x", "y")])
    def test_timeouts(self, names):
        """A wait that timed out raises TimedOut with its tag, unless it has a default."""
        tag = "wait_signal:x#0" if names == "x" else "wait_signal:x|y#0"

        def flow(default):
            given = {} if default is None else {"default": default}
            try:
                return (yield tf.wait_signal(names, timeout=5, **given))
            except TimedOut as error:
                return error.tag

        log = [failed(tag, "timed_out")]
        assert drive(flow, None, log) == Done(tag)
        assert drive(flow, "late", log) == Done("late")

    def test_a_call_that_timed_out(self):
        """A step's own timeout raises TimedOut too."""

        def flow(_):
            try:
                yield tf.call(charge).using(timeout=1)
            except TimedOut as error:
                return str(error)

        log = [failed("call:charge#0", "timed_out")]
        assert drive(flow, None, log) == Done("call:charge#0 timed out")

    def test_a_failed_gather_cancels_its_siblings(self):
        """The first failure cancels the others, which may clean up, and is raised then."""
        seen = []

        def sub():
            try:
                yield tf.sleep(9)
            except FlowCancelled:
                seen.append((yield tf.call(mail)))
                raise

        def flow(_):
            try:
                yield tf.gather(tf.call(charge), sub(), tf.wait_signal("x"))
            except StepFailed:
                return "over"

        log = [failed("gather#0[0]/call:charge#0")]
        assert drive(flow, None, log) == Suspended(("gather#0[1]/call:mail#0",))
        log.append(("gather#0[1]/call:mail#0", 1))
        assert drive(flow, None, log) == Done("over")
        assert seen == [1]

    def test_a_second_failure_is_noted(self):
        """What a sibling raises while ending is a note on the first failure."""

        def sub():
            try:
                yield tf.sleep(9)
            finally:
                raise OSError("disk")

        def flow(_):
            try:
                yield tf.gather(tf.call(charge), sub())
            except StepFailed as error:
                return error.__notes__

        log = [failed("gather#0[0]/call:charge#0")]
        assert drive(flow, None, log) == Done(["branch 1 failed too: OSError: disk"])

    def test_what_a_loser_raises_the_race_raises(self):
        """A loser that fails while ending isn't lost."""

        def loser():
            try:
                yield tf.sleep(9)
            finally:
                raise KeyError("gone")

        def flow(_):
            try:
                yield tf.race(tf.call(charge), loser())
            except KeyError as error:
                return str(error)

        assert drive(flow, None, [("race#0[0]/call:charge#0", 1)]) == Done("'gone'")

    def test_a_loser_is_driven_until_it_ends(self):
        """The race returns only after a loser's cleanup; its own value doesn't count."""

        def loser():
            try:
                yield tf.sleep(9)
            except FlowCancelled:
                yield tf.call(mail)
                return "ignored"

        def flow(_):
            return (yield tf.race(tf.call(charge), loser())).value

        log = [("race#0[0]/call:charge#0", 1)]
        assert drive(flow, None, log) == Suspended(("race#0[1]/call:mail#0",))
        assert drive(flow, None, [*log, ("race#0[1]/call:mail#0", 2)]) == Done(1)

    def test_the_traceback_is_the_same_live_and_in_replay(self):
        """A failure doesn't tell how its flow was driven."""

        def bad():
            yield tf.call(charge)
            raise KeyError("x")

        def flow(_):
            try:  # noqa: SIM105
                yield tf.gather(bad())
            except KeyError:
                pass
            yield tf.call(mail)
            raise ValueError("end")

        log = [Entry("gather#0[0]/call:charge#0"), Entry("call:mail#0")]
        live = Replay(flow)
        for entry in log:
            live.resolve(entry)
        assert live.outcome == drive(flow, None, log)
        assert "KeyError" not in live.outcome.failure.traceback


class TestCancel:
    def test_it_is_raised_at_the_yield(self):
        """FlowCancelled comes at the yield, and the outcome says cancelled."""

        def flow(_):
            yield tf.sleep(9)

        assert drive(flow, None, [CANCEL]).failure.kind == "cancelled"

    def test_it_passes_an_except_exception(self):
        """`except Exception` can't swallow a cancel."""

        def flow(_):
            try:
                yield tf.call(charge)
            except Exception:
                return "swallowed"

        assert drive(flow, None, [CANCEL]).failure.kind == "cancelled"

    def test_what_follows_is_shielded(self):
        """A flow compensates in peace, with branches of its own, and may return a value."""

        def flow(_):
            try:
                yield tf.call(charge)
            except FlowCancelled:
                yield tf.gather(tf.call(mail), tf.sleep(1))
                return "compensated"

        log = [CANCEL, ("gather#0[1]/sleep#0", None), ("gather#0[0]/call:mail#0", 1)]
        assert drive(flow, None, log) == Done("compensated")

    def test_it_is_lawful_once(self):
        """A second cancel in a generation is refused at its position."""

        def flow(_):
            try:
                yield tf.sleep(9)
            finally:
                yield tf.call(mail)

        with pytest.raises(Diverged, match="one is lawful") as caught:
            drive(flow, None, [CANCEL, CANCEL])
        assert caught.value.position == 1

    def test_after_the_end_it_is_refused(self):
        """A flow that has ended takes no cancel."""
        with pytest.raises(Diverged):
            drive(lambda _: 1, None, [CANCEL])
        replay = Replay(lambda _: 1)
        with pytest.raises(Diverged):
            replay.resolve(CANCEL)

    def test_it_reaches_the_innermost_branches_first(self):
        """All branches end, from inside out, before the root is cancelled."""
        order = []

        def sub(name):
            try:
                yield tf.sleep(9)
            finally:
                order.append(name)

        def middle():
            try:
                yield tf.race(sub("a"), sub("b"))
            finally:
                order.append("middle")

        def flow(_):
            try:
                yield tf.gather(middle(), sub("c"))
            finally:
                order.append("root")

        drive(flow, None, [CANCEL])
        assert order == ["a", "b", "middle", "c", "root"]

    def test_it_waits_for_branches_that_clean_up(self):
        """The root is cancelled once its branches have ended."""

        def sub():
            try:
                yield tf.sleep(9)
            finally:
                yield tf.call(mail)

        def flow(_):
            try:
                yield tf.gather(sub(), tf.gather(sub()))
            except FlowCancelled:
                return "root"

        log = [CANCEL]
        tags = ("gather#0[0]/call:mail#0", "gather#0[1]/gather#0[0]/call:mail#0")
        assert drive(flow, None, log) == Suspended(tags)
        log += [(tag, 1) for tag in reversed(tags)]
        assert drive(flow, None, log) == Done("root")

    def test_a_loser_that_cleans_up_is_not_cancelled_again(self):
        """A cancel meanwhile doesn't disturb a shielded loser, and comes after it."""
        seen = []

        def loser():
            try:
                yield tf.sleep(9)
            finally:
                seen.append((yield tf.call(mail)))

        def flow(_):
            yield tf.race(tf.call(charge), loser())

        log = [("race#0[0]/call:charge#0", 1), CANCEL]
        assert drive(flow, None, log) == Suspended(("race#0[1]/call:mail#0",))
        outcome = drive(flow, None, [*log, ("race#0[1]/call:mail#0", 2)])
        assert outcome.failure.kind == "cancelled"
        assert seen == [2]

    def test_a_swallowed_cancel_goes_on(self):
        """A branch that swallows FlowCancelled ends as it likes."""

        def sub():
            try:  # noqa: SIM105
                yield tf.sleep(9)
            except FlowCancelled:
                pass
            return (yield tf.call(charge))

        def flow(_):
            return (yield tf.race(sub(), tf.sleep(1))).index

        log = [("race#0[1]/sleep#0", None), ("race#0[0]/call:charge#0", 3)]
        assert drive(flow, None, log) == Done(1)


class TestRetried:
    @staticmethod
    def flow(_):
        return (yield tf.call(charge))

    def test_it_voids_the_failure_before_it(self):
        """A failed step waits again, as if its failure never came."""
        log = [failed("call:charge#0"), RETRIED]
        assert drive(self.flow, None, log) == Suspended(("call:charge#0",))
        assert drive(self.flow, None, [*log, ("call:charge#0", 1)]) == Done(1)

    def test_several_in_a_row(self):
        """Each retry voids the failure before it."""
        log = [failed("call:charge#0"), RETRIED] * 3
        assert drive(self.flow, None, log) == Suspended(("call:charge#0",))
        outcome = drive(self.flow, None, [*log, failed("call:charge#0")])
        assert outcome.failure.type == "StepFailed"

    def test_a_voided_failure_is_still_checked(self):
        """Even a failure that doesn't count must be one that the code could get."""
        with pytest.raises(Diverged):
            drive(self.flow, None, [failed("call:mail#0"), RETRIED])
        log = [Entry("call:charge#0", failure=FAILED, digest=b"x" * 16), RETRIED]
        with pytest.raises(Diverged):
            drive(self.flow, None, log)

    @staticmethod
    def buggy(_):
        yield tf.call(charge)
        raise ValueError("bug")

    def test_own_code_that_is_still_wrong_fails_again(self):
        """Unmended, the flow is Failed, not Diverged."""
        outcome = drive(self.buggy, None, [("call:charge#0", 1), RETRIED, RETRIED])
        assert isinstance(outcome, Failed)
        assert outcome.failure.type == "ValueError"

    def test_own_code_that_was_mended_goes_on(self):
        """The entry at which it raised is kept, and used."""

        def mended(_):
            first = yield tf.call(charge)
            return [first, (yield tf.call(mail))]

        log = [("call:charge#0", 1), RETRIED]
        assert drive(mended, None, log) == Suspended(("call:mail#0",))
        assert drive(mended, None, [*log, ("call:mail#0", 2)]) == Done([1, 2])

    def test_mended_code_may_end_there(self):
        """A mended flow that returns at the entry where it raised is done."""

        def mended(_):
            return (yield tf.call(charge))

        assert drive(mended, None, [("call:charge#0", 1), RETRIED]) == Done(1)

    def test_a_mend_that_is_taken_back_diverges(self):
        """The old code can't have made what the mended one recorded."""
        log = [("call:charge#0", 1), RETRIED, ("call:mail#0", 2)]
        with pytest.raises(Diverged) as caught:
            drive(self.buggy, None, log)
        assert isinstance(caught.value.__cause__, ValueError)

    def test_a_flow_that_raised_before_any_entry(self):
        """A retry mark may stand first in a log."""
        assert drive(self.flow, None, [RETRIED]) == Suspended(("call:charge#0",))


class TestPurity:
    def test_a_flow_may_change_what_it_receives(self):
        """Input and values belong to the drive: the next one finds them as they were."""

        def flow(document):
            document["seen"] = True
            got = yield tf.call(charge)
            got.append(1)
            signal = yield tf.wait_signal(("a", "b"))
            signal.payload["x"] = 2
            return [document, got, signal.payload]

        document = {"a": [1]}
        log = [Entry("call:charge#0", [0]), ("wait_signal:a|b#0", ["a", {}])]
        assert drive(flow, document, log) == drive(flow, document, log)
        assert document == {"a": [1]}
        assert log[0].value == [0]

    def test_the_digest_is_of_the_arguments_at_the_yield(self):
        """What another branch does to them later changes nothing."""
        stored = []

        def flow(_):
            shared = [1]

            def other():
                yield tf.sleep(1)
                shared.append(2)
                yield tf.sleep(1)

            yield tf.gather(tf.call(charge, shared, k=shared), other())

        tag = "gather#0[0]/call:charge#0"
        replay = Replay(flow)
        at_once = replay.digest_of(replay.pending[tag])
        replay.resolve(Entry("gather#0[1]/sleep#0"))
        assert replay.digest_of(replay.pending[tag]) == at_once
        log = [Entry("gather#0[1]/sleep#0"), Entry(tag, digest=at_once)]
        assert isinstance(drive(flow, None, log), Suspended)
        stored = {tag: Pending(at_once)}
        assert isinstance(drive(flow, None, log[:1], pending=stored), Suspended)

    def test_digests_are_the_same_early_and_late(self):
        """A digest is the codec's, whether it was asked for at once or in replay."""

        def flow(_):
            yield tf.call(charge, 1, "a", k=[1.5, None])

        codec = tf.Replay(flow)._codec
        replay = Replay(flow)
        found = replay.digest_of(replay.pending["call:charge#0"])
        assert found == codec.digest((1, "a"), {"k": [1.5, None]})
        assert drive(flow, None, [Entry("call:charge#0", digest=found)]) == Done(None)

    def test_a_drive_leaves_entries_alone(self):
        """Entries are neither changed nor kept."""

        def flow(_):
            (yield tf.call(charge))["n"] += 1
            return (yield tf.now())

        entry = Entry("call:charge#0", {"n": 1}, at=4.0)
        for _ in range(3):
            drive(flow, None, [entry])
        assert entry == Entry("call:charge#0", {"n": 1}, at=4.0)
