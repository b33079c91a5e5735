"""Code and log must agree at every position; where they don't, the error names both sides."""

from __future__ import annotations

import pytest

import triggerflow as tf
from triggerflow import Done, Entry, Failed, Failure, Pending, Replay, Suspended, drive
from triggerflow.core.codec import ValueCodec
from triggerflow.errors import Diverged

CODEC = ValueCodec()


def charge(*args):
    """A step; nobody runs it here."""


def mail(*args):
    """Another one."""


def audit(*args):
    """A third one."""


def digest(*args, **kwargs):
    return CODEC.digest(args, kwargs)


def diverged(flow, log=(), *, input=None, **kwargs) -> Diverged:
    with pytest.raises(Diverged) as caught:
        drive(flow, input, log, **kwargs)
    return caught.value


def original(_):
    yield tf.call(charge, 5)
    yield tf.call(mail, "a")
    yield tf.sleep(1)
    return "end"


RECORD = [
    Entry("call:charge#0", 1, digest=digest(5)),
    Entry("call:mail#0", 2, digest=digest("a")),
    Entry("sleep#0"),
]


def renamed(_):
    yield tf.call(charge, 5)
    yield tf.call(audit, "a")
    yield tf.sleep(1)


def other_argument(_):
    yield tf.call(charge, 5)
    yield tf.call(mail, "b")
    yield tf.sleep(1)


def removed(_):
    yield tf.call(charge, 5)
    yield tf.sleep(1)


def added(_):
    yield tf.call(charge, 5)
    yield tf.call(audit)
    yield tf.call(mail, "a")
    yield tf.sleep(1)


def swapped(_):
    yield tf.call(mail, "a")
    yield tf.call(charge, 5)
    yield tf.sleep(1)


CHANGES = [
    (renamed, 1, "call:audit#0"),
    (other_argument, 1, "call:mail#0, arguments"),
    (removed, 1, "sleep#0"),
    (added, 1, "call:audit#0"),
    (swapped, 0, "call:mail#0"),
]


class TestChangedFlow:
    def test_the_record_fits_the_original(self):
        """What follows would prove nothing otherwise."""
        assert drive(original, None, RECORD) == Done("end")

    @pytest.mark.parametrize(("flow", "position", "expected"), CHANGES)
    def test_the_log_tells(self, flow, position, expected):
        """Each of five changes is found at the first position that differs."""
        for length in (position + 1, len(RECORD)):
            error = diverged(flow, RECORD[:length])
            assert error.position == position
            assert error.recorded.startswith(RECORD[position].tag)
            assert error.expected.startswith(expected)

    @pytest.mark.parametrize(("flow", "position", "expected"), CHANGES)
    def test_live_it_tells_too(self, flow, position, expected):
        """The incremental form refuses the same entry at the same position."""
        replay = Replay(flow)
        with pytest.raises(Diverged) as caught:
            for entry in RECORD:
                replay.resolve(entry)
        assert caught.value.position == position
        assert caught.value.expected.startswith(expected)

    @pytest.mark.parametrize(("flow", "position", "expected"), CHANGES)
    def test_in_flight_the_pending_set_alone_tells(self, flow, position, expected):
        """A changed call that has no entry yet is found by what was in flight."""
        recorded = RECORD[position]
        stored = {recorded.tag: Pending(recorded.digest)}
        assert isinstance(drive(original, None, RECORD[:position], pending=stored), Suspended)
        error = diverged(flow, RECORD[:position], pending=stored)
        assert error.position == position
        assert error.reason == "pending"
        assert error.recorded.startswith(f"{recorded.tag} in flight")
        assert error.expected.startswith(expected)

    @pytest.mark.parametrize("change", ["renamed", "argument", "removed", "added", "swapped"])
    def test_in_flight_at_the_very_start(self, change):
        """Nothing in the log at all: the pending set is the whole record."""

        def changed(_):
            if change == "renamed":
                yield tf.call(audit, 5)
            elif change == "argument":
                yield tf.call(charge, 6)
            elif change == "added":
                yield tf.call(audit)
                yield tf.call(charge, 5)
            elif change == "swapped":
                yield tf.call(mail, "a")
                yield tf.call(charge, 5)
            yield tf.call(mail, "a")

        error = diverged(changed, pending={"call:charge#0": Pending(digest(5))})
        assert error.position == 0
        assert "call:charge#0 in flight" in error.recorded

    def test_swapped_entries_are_refused_at_the_first(self):
        """A driver that looked results up by tag would take these."""
        log = [RECORD[1], RECORD[0], RECORD[2]]
        error = diverged(original, log)
        assert error.position == 0
        assert error.recorded == "call:mail#0"
        assert error.expected == "call:charge#0"
        log = [RECORD[0], RECORD[2], RECORD[1]]
        assert diverged(original, log).position == 1


class TestPendingSet:
    @pytest.mark.parametrize(
        ("tag", "kept"),
        [
            ("call:charge#0", Pending(digest(1), due=99.0, attempts=1)),
            ("sleep#0", Pending(due=5.0)),
            ("sleep_until#0", Pending(due=5.0)),
            ("wait_signal:go#0", Pending(digest("go"))),
            ("gather#0[0]/sleep#0", Pending(due=5.0)),
        ],
    )
    def test_what_runs_nowhere_may_be_replaced(self, tag, kept):
        """A call in back-off, a timer, a wait: other code may wait for something else."""

        def flow(_):
            yield tf.call(mail)

        assert drive(flow, pending={tag: kept}) == Suspended(("call:mail#0",))

    @pytest.mark.parametrize(
        "kept", [Pending(), Pending(attempts=2), Pending(digest(5), attempts=1)]
    )
    def test_a_call_that_runs_must_be_met(self, kept):
        """A call whose next attempt is under way is in flight, however often it failed."""
        assert isinstance(drive(original, pending={"call:charge#0": kept}), Suspended)
        assert diverged(swapped, pending={"call:charge#0": kept}).reason == "pending"

    def test_side_effects_bind(self):
        """A side effect that may have run must be met again."""
        assert diverged(original, pending={"side_effect:x#0": Pending()}).reason == "pending"

    def test_a_branch_in_flight_is_named_by_its_path(self):
        """Calls in branches are found by their whole tag."""

        def flow(_):
            yield tf.gather(tf.call(charge, 1), tf.call(charge, 2))

        stored = {f"gather#0[{i}]/call:charge#0": Pending(digest(i + 1)) for i in (0, 1)}
        assert isinstance(drive(flow, pending=stored), Suspended)

        def turned(_):
            yield tf.gather(tf.call(charge, 2), tf.call(charge, 1))

        error = diverged(turned, pending=stored)
        assert "gather#0[0]/call:charge#0 in flight" in error.recorded

    @pytest.mark.parametrize("ends", [True, False])
    def test_a_flow_that_ends_instead(self, ends):
        """A flow that returns or raises where a call was in flight diverges, with its cause."""

        def flow(_):
            if ends:
                return 1
            raise KeyError("bug")
            yield

        error = diverged(flow, pending={"call:charge#0": Pending()})
        assert "the flow has ended" in error.expected
        if not ends:
            assert isinstance(error.__cause__, KeyError)
            assert "KeyError" in error.expected


class TestLeftOvers:
    def test_entries_after_the_end(self):
        """A flow that returns while entries remain diverges there."""

        def flow(_):
            yield tf.call(charge, 5)

        error = diverged(flow, RECORD)
        assert (error.position, error.reason) == (1, "left_over")
        assert "2 entries are left" in error.recorded
        assert "returns" in error.expected

    def test_an_error_while_entries_remain_is_the_cause(self):
        """The flow's error is told and chained, and its own line named."""

        def flow(_):
            yield tf.call(charge, 5)
            raise KeyError("bug")

        error = diverged(flow, RECORD)
        assert (error.position, error.reason) == (1, "raised")
        assert isinstance(error.__cause__, KeyError)
        assert "KeyError: 'bug'" in str(error)
        line = flow.__code__.co_firstlineno + 2
        assert error.location.endswith(f"test_driver_strict.py:{line}")

    def test_an_error_whose_text_is_broken(self):
        """A broken __str__ doesn't hide the divergence."""

        class Odd(Exception):
            def __str__(self):
                raise TypeError

        def flow(_):
            yield tf.call(charge, 5)
            raise Odd

        assert "Odd" in diverged(flow, RECORD).expected

    def test_resolving_an_ended_flow(self):
        """A live flow that has ended takes no entry."""
        for flow in (lambda _: 1, lambda _: 1 / 0):
            replay = Replay(flow)
            with pytest.raises(Diverged, match="the flow has ended"):
                replay.resolve(Entry("call:charge#0"))


class TestRefusal:
    @pytest.mark.parametrize(
        "tag", ["", "x", "call:charge", "call:charge#1", "call:charge#00", "sleep#0", "cancel "]
    )
    def test_unknown_tags(self, tag):
        """A tag is taken as a whole, or not at all."""
        assert diverged(original, [(tag, None)]).position == 0

    def test_a_digest_where_the_effect_has_none(self):
        """A timer has no digest; a record that has one isn't of it."""

        def flow(_):
            yield tf.sleep(1)

        assert diverged(flow, [Entry("sleep#0", digest=b"x")]).reason == "digest"

    @pytest.mark.parametrize("branch", [False, True])
    def test_a_wrong_digest(self, branch):
        """Equal tag, other arguments: both digests and the present arguments are told."""

        def flow(_):
            call = tf.call(charge, 7, [8])
            yield tf.gather(call) if branch else call

        tag = "gather#0[0]/call:charge#0" if branch else "call:charge#0"
        assert isinstance(drive(flow, None, [Entry(tag, digest=digest(7, [8]))]), Done)
        for failure in (None, Failure("E", "")):
            error = diverged(flow, [Entry(tag, None, failure, digest(7, [9]))])
            assert error.reason == "digest"
            assert digest(7, [9]).hex()[:12] in error.recorded
            assert digest(7, [8]).hex()[:12] in error.expected
            assert "7, [8]" in error.detail

    def test_arguments_without_a_repr(self):
        """The message doesn't depend on the good will of the arguments."""

        class Odd(int):
            def __repr__(self):
                raise TypeError

        def flow(_):
            yield tf.call(charge, 1, odd=[1])

        assert "1, odd=[1]" in diverged(flow, [Entry("call:charge#0", digest=b"x")]).detail

        def bare(_):
            yield Odd(3)

        outcome = drive(bare)
        assert "<Odd>" in outcome.failure.message

    def test_equal_digest_skips_nothing(self):
        """A long replay finds a wrong digest at its own position."""

        def flow(_):
            for i in range(50):
                yield tf.call(charge, i)

        log = [Entry(f"call:charge#{i}", digest=digest(i)) for i in range(50)]
        assert drive(flow, None, log) == Done(None)
        log[33].digest = digest(34)
        assert diverged(flow, log).position == 33

    def test_fields_and_wording(self):
        """Both sides, position, file:line, the nearest entries, and what to do."""

        def flow(_):
            for _i in range(9):
                yield tf.call(charge)
            yield tf.call(audit)

        log = [(f"call:charge#{i}", None) for i in range(9)]
        log += [("call:mail#0", None), ("sleep#0", None)]
        error = diverged(flow, log)
        assert error.flow == "flow"
        assert (error.position, error.recorded, error.expected, error.reason) == (
            9,
            "call:mail#0",
            "call:audit#0",
            "tag",
        )
        assert error.nearby == (
            (7, "call:charge#7"),
            (8, "call:charge#8"),
            (9, "call:mail#0"),
            (10, "sleep#0"),
        )
        line = flow.__code__.co_firstlineno + 3
        assert error.location.endswith(f"test_driver_strict.py:{line}")
        text = str(error)
        for part in ("position 9", "recorded:", "call:mail#0", "your code now: call:audit#0"):
            assert part in text
        for part in (error.location, "7 call:charge#7", "new version", "patched"):
            assert part in text

    def test_the_location_is_the_users_line(self):
        """It is the line in the sub-generator, and the gather's line for a plain branch."""

        def sub():
            yield from tf.call(charge)

        def flow(_):
            yield from sub()
            yield tf.gather(tf.call(charge), tf.call(mail))

        first = sub.__code__.co_firstlineno
        assert diverged(flow, [("x", 1)]).location.endswith(f":{first + 1}")
        log = [("call:charge#0", 1), ("x", 1)]
        assert diverged(flow, log).location.endswith(f":{first + 5}")

    def test_it_names_the_version(self):
        """A registered flow is told with its version."""
        flow = tf.flow(version=3)(original)
        assert diverged(flow, [("x", 1)]).flow == "original/3"

    def test_more_tags_than_one_can_read(self):
        """Of many pending effects the message names some."""

        def flow(_):
            yield tf.gather(*[tf.sleep(i) for i in range(9)])

        assert diverged(flow, [("x", 1)]).expected.endswith("and 4 more")

    def test_it_is_of_no_more_use(self):
        """A replay that diverged has closed its generators."""
        ended = []

        def flow(_):
            try:
                yield tf.sleep(1)
            finally:
                ended.append(1)

        replay = Replay(flow)
        with pytest.raises(Diverged):
            replay.resolve(Entry("x"))
        assert ended == [1]

    def test_a_failed_outcome_needs_every_entry(self):
        """A flow that raises at its last entry is Failed: nothing is left over."""

        def flow(_):
            yield tf.call(charge, 5)
            raise KeyError

        assert isinstance(drive(flow, None, RECORD[:1]), Failed)
