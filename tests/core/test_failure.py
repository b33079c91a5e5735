"""Failures as data: whatever was raised can be recorded, and comes back as an exception."""

from __future__ import annotations

import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from triggerflow import errors
from triggerflow.core.codec import ValueCodec
from triggerflow.core.failure import Failure

CODEC = ValueCodec()


def raised(error):
    try:
        raise error
    except BaseException as caught:
        return Failure.of(caught)


def assert_can_be_kept(failure):
    record = CODEC.decode(CODEC.encode(failure.to_record()))
    assert Failure.from_record(record) == failure
    assert pickle.loads(pickle.dumps(failure)) == failure


def test_type_message_and_traceback():
    """A failure tells class, text and where."""
    failure = raised(ValueError("no such thing"))
    assert (failure.type, failure.message, failure.kind) == (
        "ValueError",
        "no such thing",
        "error",
    )
    assert "in raised" in failure.traceback
    assert failure.traceback.rstrip().endswith("ValueError: no such thing")


def test_names_of_classes():
    """Builtins and our own are named plainly, all others with their module."""

    class Odd(Exception):
        pass

    assert raised(KeyError(1)).type == "KeyError"
    assert raised(errors.StepError("a", "b")).type == "StepError"
    assert raised(Odd()).type == f"{__name__}.test_names_of_classes.<locals>.Odd"


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (errors.FlowCancelled(), "cancelled"),
        (errors.TimedOut("call:a#0"), "timed_out"),
        (TimeoutError(), "error"),
        (KeyboardInterrupt(), "error"),
        (SystemExit(3), "error"),
    ],
)
def test_kinds(error, kind):
    """Only our own timeouts and cancels are told apart."""
    failure = raised(error)
    assert failure.kind == kind
    assert_can_be_kept(failure)


class Broken(Exception):
    def __str__(self):
        raise RuntimeError("broken")

    __repr__ = __str__


class Wrong(Exception):
    def __str__(self):
        return 5  # noqa: PLE0307


class Endless(Exception):
    def __str__(self):
        return str(self)


@pytest.mark.parametrize("error", [Broken(), Wrong(), Endless()])
def test_a_broken_text(error):
    """An error whose text can't be read is recorded all the same."""
    failure = raised(error)
    assert failure.type.endswith(type(error).__name__)
    assert "can't be read" in failure.message
    assert_can_be_kept(failure)


def test_surrogates_are_made_harmless():
    """Text that UTF-8 can't carry is spelled out, in a module's name too."""
    cls = type("Odd", (Exception,), {"__module__": "mod\ud800"})
    for error in (ValueError("bad \udcff name"), cls("x")):
        failure = raised(error)
        assert_can_be_kept(failure)
    assert raised(ValueError("\udcff")).message == "\\udcff"


def test_length_is_bounded():
    """Huge messages and tracebacks keep both ends and say what is missing."""
    failure = raised(ValueError("start" + "x" * 5_000_000 + "end"))
    assert len(failure.message) < 9_000
    assert failure.message.startswith("start")
    assert failure.message.endswith("end")
    assert "characters left out" in failure.message
    assert len(failure.traceback) < 34_000
    assert_can_be_kept(failure)


def test_chains_and_groups():
    """A deep chain and a group of many are recorded within bounds."""
    error = ValueError("first")
    for i in range(300):
        try:
            raise KeyError(i) from error
        except KeyError as caught:
            error = caught
    assert_can_be_kept(raised(error))
    group = ExceptionGroup("many", [ValueError("y" * 1000) for _ in range(200)])
    failure = raised(group)
    assert failure.type == "ExceptionGroup"
    assert_can_be_kept(failure)


@given(st.text(), st.lists(st.text(), max_size=3))
def test_any_text_can_be_kept(text, args):
    """Whatever an exception says, its record can be written and read."""
    for error in (ValueError(text), OSError(*args), KeyError(text)):
        assert_can_be_kept(raised(error))


def test_raised_again():
    """A step's failure is StepFailed, chained to its wording; a timeout is TimedOut."""
    failure = Failure("ValueError", "no", "Traceback")
    error = failure.raised_at("call:charge#0", "charge")
    assert isinstance(error, errors.StepFailed)
    assert (error.step, error.failure) == ("charge", failure)
    assert str(error.__cause__) == "ValueError: no\nTraceback"
    timed_out = Failure("TimedOut", "", kind="timed_out").raised_at("sleep#0", "sleep")
    assert isinstance(timed_out, errors.TimedOut)
    assert timed_out.tag == "sleep#0"


def test_records_of_older_releases():
    """Fields that a record lacks take their defaults."""
    assert Failure.from_record({"type": "E", "message": "m"}) == Failure("E", "m")
