"""Controls: what can be declared, its normal form, and the keys and rates behind it."""

from __future__ import annotations

import itertools
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from triggerflow.core.admission import (
    Batch,
    Concurrency,
    Control,
    Debounce,
    RateLimit,
    Singleton,
    Throttle,
)
from triggerflow.core.admission_pairs import PAIRS, PARTS
from triggerflow.core.admission_request import Gather, Pace, key_of, limits, request
from triggerflow.core.paths import compile_path
from triggerflow.errors import DefinitionError

SOME: dict[str, Any] = {
    "debounce": {"period": 5},
    "batch": {"size": 3, "wait": 9},
    "rate_limit": {"limit": 2, "period": 60},
    "throttle": {"limit": 2, "period": 60},
    "concurrency": {"limit": 2},
    "singleton": {"mode": "skip"},
    "priority": 3,
}


def test_each_pair_is_in_the_table_once() -> None:
    """The table has every pair of parts, in the order of the parts."""
    assert list(PAIRS) == sorted(
        itertools.combinations(PARTS, 2), key=lambda pair: list(map(PARTS.index, pair))
    )


@pytest.mark.parametrize("pair", list(PAIRS), ids="-".join)
def test_a_pair_is_allowed_or_refused_at_definition(pair: tuple[str, str]) -> None:
    """What the table refuses is refused with its reason; the rest can be declared."""
    parts = {name: SOME[name] for name in pair}
    if PAIRS[pair].allowed:
        assert set(Control(**parts).spec()) == set(pair)
        return
    with pytest.raises(DefinitionError) as refused:
        Control(**parts)
    assert PAIRS[pair].text in str(refused.value)
    assert "{} and {}".format(*pair) in str(refused.value)


def test_one_spec_for_one_meaning() -> None:
    """Objects and dicts, seconds and timedeltas, one path or a list of one: one spec."""
    one = Control(
        debounce=Debounce(5.0, "$.object['id']", timedelta(minutes=1), "all"),
        concurrency=Concurrency(3, ["$.a", "$.b"]),
        priority="$.p",
    )
    two = Control.from_spec(
        {
            "debounce": {
                "period": timedelta(seconds=5),
                "key": ["$.object.id"],
                "max_wait": 60,
                "collect": "all",
            },
            "concurrency": {"limit": 3, "key": ["$.a", "$.b"]},
            "priority": "$.p",
        }
    )
    assert one == two
    assert (
        one.spec()
        == two.spec()
        == {
            "debounce": {"period": 5, "key": "$.object.id", "max_wait": 60, "collect": "all"},
            "concurrency": {"limit": 3, "key": ["$.a", "$.b"]},
            "priority": "$.p",
        }
    )
    assert Control.from_spec(one) is one


def test_what_is_not_used_is_left_out() -> None:
    """Defaults don't show in a spec, so that fields to come move no CID."""
    assert Control().spec() == {}
    assert not Control()
    assert Control(priority=-1)
    assert Control(
        throttle=Throttle(1, 2), concurrency=4, singleton=None, rate_limit=RateLimit(3, 0.5)
    ).spec() == {
        "rate_limit": {"limit": 3, "period": 0.5},
        "throttle": {"limit": 1, "period": 2},
        "concurrency": {"limit": 4},
    }


@given(st.sampled_from([pair for pair in PAIRS if PAIRS[pair].allowed]))
def test_a_spec_comes_back_as_it_was(pair: tuple[str, str]) -> None:
    """`from_spec` of `spec` is the same control."""
    control = Control(**{name: SOME[name] for name in pair})
    assert Control.from_spec(control.spec()) == control


@pytest.mark.parametrize(
    ("given", "found"),
    [
        ({"debounce": {"period": 0}}, "period: found 0"),
        ({"debounce": {"period": -1}}, "period: found -1"),
        ({"debounce": {"period": float("nan")}}, "period: found nan"),
        ({"debounce": {"period": 1e12}}, "at most ten years"),
        ({"debounce": {"period": 5, "max_wait": 4}}, "less than the period"),
        ({"debounce": {"period": 5, "collect": "first"}}, "'last' or 'all'"),
        ({"debounce": {"period": 5, "size": 3}}, "unknown fields: size"),
        ({"debounce": 5}, "debounce: found 5, expected a Debounce"),
        ({"debounce": Batch(2, 3)}, "expected a Debounce"),
        ({"batch": {"size": 3}}, "missing: wait"),
        ({"batch": {"size": 0, "wait": 3}}, "size: found 0"),
        ({"batch": {"size": True, "wait": 3}}, "size: found True"),
        ({"batch": {"size": 2.0, "wait": 3}}, "size: found 2.0"),
        ({"batch": {"size": 2, "wait": 3, "key": []}}, "key: found []"),
        ({"batch": {"size": 2, "wait": 3, "key": "$..a"}}, "can't be read"),
        ({"rate_limit": {"limit": 10**9, "period": 3}}, "limit: found 1000000000"),
        ({"concurrency": True}, "limit: found True"),
        ({"concurrency": 0}, "limit: found 0"),
        ({"singleton": {"mode": "queue"}}, "'skip' or 'cancel'"),
        ({"priority": 1.0}, "priority: found 1.0"),
        ({"priority": 10**7}, "priority: found 10000000"),
        ({"priority": "high"}, "'high' is not a path"),
        ({"speed": 1}, "unknown parts: speed"),
        ([], "found [], expected a Control"),
    ],
)
def test_what_cannot_work_is_refused(given: Any, found: str) -> None:
    """Wrong values are refused where they are declared, by name."""
    with pytest.raises(DefinitionError) as refused:
        Control.from_spec(given)
    assert found in str(refused.value)


def test_keys_tell_values_apart() -> None:
    """1, "1", true, null and a value that isn't there are five keys; 1 and 1.0 are one."""
    path = [compile_path("$.a", "key")]
    documents = [{"a": 1}, {"a": "1"}, {"a": True}, {"a": None}, {}, {"a": "absent"}, {"a": []}]
    keys = [key_of(path, document) for document in documents]
    assert len(set(keys)) == len(documents)
    assert key_of(path, {"a": 1.0}) == key_of(path, {"a": 1})
    assert key_of(path, {"a": {"x": 1, "y": [2.0]}}) == key_of(
        path, {"a": {"y": [2], "x": 1.0}}
    )
    assert key_of((), {"a": 1}) == ""
    two = [compile_path("$.a", "key"), compile_path("$.b", "key")]
    assert key_of(two, {"a": 1}) != key_of(two, {"b": 1})


def test_a_long_key_is_a_digest() -> None:
    """A key never grows beyond a few hundred characters, and stays the same."""
    path = [compile_path("$", "key")]
    long = {"a": "x" * 100_000}
    assert key_of(path, long) == key_of(path, dict(long))
    assert len(key_of(path, long)) < 100
    assert key_of(path, long) != key_of(path, {"a": "x" * 99_999})


def test_values_that_no_document_has_are_keys_too() -> None:
    """A flow's input may hold any log value."""
    path = [compile_path("$", "key")]
    values = [b"a", timedelta(1), {1: 2}, float("inf"), "\ud800" * 300]
    assert len({key_of(path, value) for value in values}) == len(values)


def test_scopes() -> None:
    """Rates and places go by name and outlive an edit; groups go by version."""
    control = Control(debounce={"period": 5}, throttle={"limit": 1, "period": 2}, concurrency=3)

    def ask(name: str, version: str, namespace: str = "") -> Any:
        return request(
            control,
            {},
            kind="trigger",
            name=name,
            version=version,
            namespace=namespace,
            most=9,
        )

    one, edited = ask("a", "cid-1"), ask("a", "cid-2")
    assert one.throttle == edited.throttle
    assert one.places == edited.places
    assert one.gather.scope != edited.gather.scope
    others = [ask("b", "cid-3"), ask("a", "cid-1", "shop"), ask('a","throttle', "x")]
    scopes = {one.throttle.scope, one.places[0].scope}
    for other in others:
        assert not scopes & {other.throttle.scope, other.places[0].scope}
    assert limits(control, kind="trigger", name="a") == ((one.places[0].scope, 3),)
    assert limits(Control(singleton=Singleton("skip")), kind="trigger", name="a") == ()


def test_priority_of_a_document() -> None:
    """A path finds a whole number; what is none counts as 0, what is too large as the most."""

    def found(value: Any) -> int:
        asked = request(
            Control(priority="$.p"), {"p": value}, kind="trigger", name="a", version="1", most=9
        )
        return asked.priority

    assert [found(each) for each in (3, -3, True, "3", 1.5, None, 10**9)] == [
        3,
        -3,
        0,
        0,
        0,
        0,
        1_000_000,
    ]


def test_due_of_a_group() -> None:
    """A debounce moves with each arrival up to its longest wait; a batch doesn't move."""
    bounce = Gather("debounce", "s", "k", 5, 12, None, False, 9)
    assert [bounce.due(100, now) for now in (100, 104, 109)] == [105, 109, 112]
    batch = Gather("batch", "s", "k", 5, None, 3, True, 9)
    assert [batch.due(100, now) for now in (100, 104)] == [105, 105]


# --- rates


def test_a_limit_is_exact_in_a_burst() -> None:
    """So many pass at once as the limit says, at any limit: no float loses one."""
    for limit in (1, 3, 7, 1000):
        pace = Pace("s", "k", limit, 60, limit)
        at, debt = 1_700_000_000.1, 0.0
        for _ in range(limit):
            taken = pace.taken(at, debt, at)
            assert taken is not None
            debt = taken
        assert pace.taken(at, debt, at) is None
        assert pace.taken(at, debt, at + pace.interval * 0.99) is None
        assert pace.taken(at, debt, at + pace.interval) is not None
        assert pace.settled(at, debt) == pytest.approx(at + 60)


def test_turns_of_a_throttle() -> None:
    """After the burst, turns come one interval after the other, in order of arrival."""
    pace = Pace("s", "k", 2, 10, 3)
    at, debt, turns = 100.0, 0.0, []
    for _ in range(6):
        turn, at, debt = pace.reserved(at, debt, 100.0)
        turns.append(turn)
    assert turns == [100, 100, 100, 105, 110, 115]


def test_weights() -> None:
    """Something heavy takes several tokens, and one that is too heavy never passes."""
    pace = Pace("s", "k", 10, 10, 4)
    assert pace.taken(0, 0, 0, 4) == 4
    assert pace.taken(0, 0, 0, 5) is None
    assert pace.taken(0, 4, 3, 3) == 4
    assert pace.taken(0, 4, 3, 4) is None


def test_a_clock_set_back_frees_nothing_and_blocks_no_longer_than_a_period() -> None:
    """Where the clock jumps back, the debt stays and shrinks from there on."""
    pace = Pace("s", "k", 2, 10, 2)
    assert pace.taken(1000, 2, 500) is None
    # The caller keeps the moment of the refusal's clock: see the store.
    assert pace.taken(500, 2, 505) is not None
    turn, moment, debt = pace.reserved(1000, 2, 500)
    assert (turn, moment, debt) == (1005, 1000, 3)


@given(
    st.lists(st.floats(0, 20, allow_nan=False), min_size=1, max_size=60),
    st.integers(1, 5),
    st.integers(1, 5),
)
def test_no_window_has_more_than_burst_and_rate(
    steps: list[float], limit: int, burst: int
) -> None:
    """In any window of one period at most limit + burst pass, and turns never go back."""
    pace = Pace("s", "k", limit, 10, burst)
    now, at, debt = 1000.0, 1000.0, 0.0
    passed, turns = [], []
    kept = (now, 0.0)
    for step in steps:
        now += step
        taken = pace.taken(at, debt, now)
        if taken is not None:
            at, debt = now, taken
            passed.append(now)
        turn, *rest = pace.reserved(*kept, now)
        kept = (rest[0], rest[1])
        turns.append(turn)
        assert turn >= now
    for moments in (passed, turns):
        assert moments == sorted(moments)
        for first in moments:
            assert sum(first <= each < first + 10 - 1e-6 for each in moments) <= limit + burst
