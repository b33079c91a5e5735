"""`gather` in full: k of n, failures as values, and what happens to the others."""

from __future__ import annotations

import pytest

import triggerflow as tf


def step(value):
    return value


def failed(tag):
    return tf.Entry(tag, failure=tf.Failure("ValueError", "no"))


def drive(flow, log):
    return tf.drive(flow, None, log)


def tags(count, name="step"):
    return [f"gather#0[{slot}]/call:{name}#0" for slot in range(count)]


def two_of_four(_):
    found = yield tf.gather(*[tf.call(step, n) for n in range(4)], count=2)
    return [(won.index, won.value) for won in found]


def test_count_returns_the_first_that_came():
    """With `count=` the list has the first so many that returned, in that order."""
    order = tags(4)
    log = [(order[3], "d"), (order[1], "b")]
    assert drive(two_of_four, log) == tf.Done([[3, "d"], [1, "b"]])
    assert drive(two_of_four, log[:1]) == tf.Suspended(tuple(order[:3]))


def test_count_bears_failures_while_enough_are_left():
    """A failure matters only once too few branches are left."""
    order = tags(4)
    log = [failed(order[0]), (order[2], "c"), failed(order[1]), (order[3], "d")]
    assert drive(two_of_four, log) == tf.Done([[2, "c"], [3, "d"]])
    few = [failed(order[0]), failed(order[2]), failed(order[1])]
    outcome = drive(two_of_four, few)
    assert outcome.failure.type == "StepFailed"


def test_count_cancels_the_others_and_waits_for_their_end():
    """A sub-generator that isn't needed any more gets FlowCancelled and may clean up."""

    def careful():
        try:
            yield tf.call(step, "slow")
        finally:
            yield tf.call(step, "undo").using(name="undo")

    def flow(_):
        found = yield tf.gather(tf.call(step, 1), careful(), count=1)
        return [won.index for won in found]

    first = ("gather#0[0]/call:step#0", 1)
    assert drive(flow, [first]) == tf.Suspended(("gather#0[1]/call:undo#0",))
    assert drive(flow, [first, ("gather#0[1]/call:undo#0", None)]) == tf.Done([0])


def test_failures_come_back_as_values():
    """With `return_failures=True` a failure stands in the list and cancels nobody."""

    def flow(_):
        found = yield tf.gather(*[tf.call(step, n) for n in range(3)], return_failures=True)
        return [type(each).__name__ for each in found]

    order = tags(3)
    log = [failed(order[1]), (order[0], 1), (order[2], "x")]
    assert drive(flow, log[:1]) == tf.Suspended((order[0], order[2]))
    assert drive(flow, log) == tf.Done(["int", "StepFailed", "str"])


def test_failures_count_as_ends_when_they_are_returned():
    """With both options the first so many ends are enough, failures among them."""

    def flow(_):
        found = yield tf.gather(
            *[tf.call(step, n) for n in range(3)], count=2, return_failures=True
        )
        return [(won.index, type(won.value).__name__) for won in found]

    order = tags(3)
    assert drive(flow, [failed(order[2]), (order[0], 5)]) == tf.Done(
        [[2, "StepFailed"], [0, "int"]]
    )


def test_a_cancel_is_no_failure_to_return():
    """`return_failures=True` keeps no cancel from reaching the flow."""

    def flow(_):
        yield tf.gather(tf.call(step, 1), tf.call(step, 2), return_failures=True)

    outcome = drive(flow, [("cancel", None)])
    assert outcome.failure.kind == "cancelled"


def test_branches_that_end_at_once_count():
    """Branches without a wait count as they are opened; the rest never starts."""
    started = []

    def branch(n):
        started.append(n)
        return (yield tf.now()) and n

    def flow(_):
        found = yield tf.gather(*[branch(n) for n in range(4)], count=2)
        return [won.value for won in found]

    assert drive(flow, []) == tf.Done([0, 1])
    assert started == [0, 1]


@pytest.mark.parametrize("count", [0, -1, 3, True, 1.5, "2"])
def test_impossible_counts_are_refused(count):
    """A `count=` that can't be reached is refused where it is written."""
    with pytest.raises(tf.DefinitionError, match="count"):
        tf.gather(tf.sleep(1), tf.sleep(2), count=count)
