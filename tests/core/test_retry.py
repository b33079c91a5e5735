"""Retries: when the next attempt comes, and when none does."""

from __future__ import annotations

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from triggerflow.core.durations import days, hours, minutes, seconds
from triggerflow.core.retry import RetryAfter, RetryPolicy
from triggerflow.errors import DefinitionError

ERROR = ValueError()


def test_waits_grow_up_to_the_cap():
    """Exponential back-off: initial, times factor, at most cap."""
    policy = RetryPolicy(max_attempts=9, initial=1, factor=2, cap=5, jitter=0)
    waits = [policy.delay(ERROR, failed, b"x") for failed in range(1, 9)]
    assert waits == [1, 2, 4, 5, 5, 5, 5, 5]


def test_attempts_end():
    """max_attempts counts the first one too."""
    policy = RetryPolicy(max_attempts=3)
    assert policy.delay(ERROR, 2, b"") is not None
    assert policy.delay(ERROR, 3, b"") is None
    assert policy.delay(RetryAfter(5), 3, b"") is None
    assert RetryPolicy(max_attempts=1).delay(ERROR, 1, b"") is None


def test_classes():
    """Only what is worth another attempt gets one; give_up_on has the last word."""
    policy = RetryPolicy(retry_on=OSError, give_up_on=(FileNotFoundError,))
    assert policy.delay(TimeoutError(), 1, b"") is not None
    assert policy.delay(ERROR, 1, b"") is None
    assert policy.delay(FileNotFoundError(), 1, b"") is None
    assert RetryPolicy(retry_on=[OSError]).retry_on == (OSError,)
    assert RetryPolicy().delay(SystemExit(), 1, b"") is None


def test_retry_after():
    """A step may say itself when its next attempt comes, whatever the policy's classes."""
    policy = RetryPolicy(retry_on=(), cap=3)
    assert policy.delay(RetryAfter(90), 1, b"") == 90
    assert policy.delay(RetryAfter(timedelta(minutes=2)), 2, b"") == 120
    assert str(RetryAfter(timedelta(minutes=2))) == "retry after 120 s"


@given(
    st.floats(0, 1e9),
    st.floats(1, 1e300),
    st.floats(0, 1e9),
    st.floats(0, 1),
    st.integers(1, 10_000),
    st.binary(max_size=8),
)
def test_a_wait_is_bounded_and_always_the_same(initial, factor, cap, jitter, failed, chance):
    """No policy overflows; jitter is a function of its input and stays below the cap."""
    policy = RetryPolicy(20_000, initial, factor, cap, jitter)
    wait = policy.delay(ERROR, failed, chance)
    assert 0 <= wait <= cap
    assert wait >= 0
    assert wait == policy.delay(KeyError(), failed, chance)


def test_jitter_spreads():
    """Different instances wait different times, at most the share that was asked for."""
    policy = RetryPolicy(initial=100, jitter=0.5)
    waits = {policy.delay(ERROR, 1, str(i).encode()) for i in range(200)}
    assert len(waits) == 200
    assert all(50 <= wait <= 100 for wait in waits)
    assert max(waits) - min(waits) > 45


def test_large_factors():
    """A factor of 10, as an int, is capped at any number of attempts."""
    policy = RetryPolicy(max_attempts=10**6, factor=10, cap=60, jitter=0)
    assert policy.delay(ERROR, 999_999, b"") == 60


@pytest.mark.parametrize(
    "given_",
    [
        {"max_attempts": 0},
        {"max_attempts": 1.5},
        {"max_attempts": True},
        {"max_attempts": "3"},
        {"initial": -1},
        {"initial": "1"},
        {"cap": float("nan")},
        {"cap": float("inf")},
        {"factor": 0.5},
        {"factor": float("nan")},
        {"factor": float("inf")},
        {"factor": "2"},
        {"jitter": 1.1},
        {"jitter": -0.1},
        {"jitter": float("nan")},
        {"jitter": None},
        {"retry_on": "ValueError"},
        {"retry_on": (ValueError, 5)},
        {"give_up_on": int},
    ],
)
def test_refusals(given_):
    """A policy that can't work is refused where it is written."""
    with pytest.raises(DefinitionError, match="RetryPolicy"):
        RetryPolicy(**given_)


def test_durations():
    """Timedeltas and seconds are one; days, hours, minutes are timedeltas."""
    assert seconds(timedelta(days=1)) == seconds(days(1)) == 86400
    assert seconds(hours(2)) == seconds(minutes(120)) == seconds(7200) == 7200.0
    assert seconds(0) == 0


@pytest.mark.parametrize(
    "wrong", [-1, float("inf"), float("nan"), timedelta(-1), "5", None, True, 10**400, [1]]
)
def test_wrong_durations(wrong):
    """What is no finite length from 0 up is refused by name."""
    with pytest.raises(DefinitionError, match="pause"):
        seconds(wrong, "pause")


def test_no_attempt_begins_after_the_total_timeout() -> None:
    """What would begin too late is not tried; without a limit only attempts count."""
    policy = RetryPolicy(max_attempts=9, initial=10, factor=1, jitter=0, total_timeout=25)
    assert policy.delay(ERROR, 1, b"", 0.0) == 10
    assert policy.delay(ERROR, 2, b"", 15.0) == 10
    assert policy.delay(ERROR, 3, b"", 15.1) is None
    assert policy.delay(RetryAfter(5), 3, b"", 20) == 5
    assert policy.delay(RetryAfter(5), 3, b"", 21) is None
    assert RetryPolicy(max_attempts=9).delay(ERROR, 1, b"", 1e9) is not None
    with pytest.raises(DefinitionError):
        RetryPolicy(total_timeout=-1)
