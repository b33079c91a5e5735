"""The record: entries, and the pending set that is its other half."""

from __future__ import annotations

import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from triggerflow.core.codec import ValueCodec
from triggerflow.core.log import (
    Entry,
    Pending,
    decode_pending,
    encode_pending,
    is_binding,
    kind_of,
)


@pytest.mark.parametrize(
    ("tag", "kind"),
    [
        ("call:charge#2", "call"),
        ("sleep#0", "sleep"),
        ("gather#0[1]/call:charge#2", "call"),
        ("race#0[late]/gather#3[0]/wait_signal:a|b#0", "wait_signal"),
        ("gather#0[1]", "gather"),
        ("call:a:b#0", "call"),
        ("patched:fix", "patched"),
        ("cancel", "cancel"),
        ("retried", "retried"),
        ("", ""),
    ],
)
def test_kind_of(tag, kind):
    """The kind is that of the innermost effect."""
    assert kind_of(tag) == kind


@pytest.mark.parametrize("prefix", ["", "gather#0[1]/", "race#0[x]/gather#1[0]/"])
@pytest.mark.parametrize(
    ("tag", "pending", "binding"),
    [
        ("call:a#0", Pending(), True),
        ("call:a#0", Pending(attempts=3), True),
        ("call:a#0", Pending(due=5.0), True),
        ("call:a#0", Pending(due=5.0, attempts=1), False),
        ("call:sleep#0", Pending(due=5.0), True),
        ("side_effect:a#0", Pending(due=5.0, attempts=1), True),
        ("sleep#0", Pending(due=5.0), False),
        ("sleep_until#0", Pending(due=5.0), False),
        ("wait_signal:a#0", Pending(b"x"), False),
        ("child:a#0", Pending(), True),
    ],
)
def test_what_binds(prefix, tag, pending, binding):
    """A call in flight binds; one in back-off, a timer and a wait don't, in any branch."""
    assert is_binding(prefix + tag, pending) is binding


@given(
    st.dictionaries(
        st.text(st.characters(exclude_categories=["Cs"]), max_size=9),
        st.builds(
            Pending,
            st.none() | st.binary(min_size=16, max_size=16),
            st.none() | st.floats(allow_nan=False),
            st.integers(0, 2**31),
        ),
    )
)
def test_the_pending_set_survives_its_round_trip(pending):
    """Encoded and decoded, it is equal and in the order of arming."""
    codec = ValueCodec()
    back = decode_pending(codec.decode(codec.encode(encode_pending(pending))))
    assert back == pending
    assert list(back) == list(pending)


def test_entries_are_plain_data():
    """An entry compares by its fields and pickles."""
    entry = Entry("call:a#0", [1], digest=b"x", at=1.5)
    assert pickle.loads(pickle.dumps(entry)) == entry
    assert Entry("x") != Entry("y")
