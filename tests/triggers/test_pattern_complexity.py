"""How complex wildcards are: held to the definition, and to what AWS is known to do.

``TRIGGERFLOW_PATTERNS=10000`` tries so many random wildcards instead of the usual few.
"""

from __future__ import annotations

import itertools
import os
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from triggerflow.triggers import compile_pattern
from triggerflow.triggers.pattern.complexity import MAX_COMPLEXITY, complexity
from triggerflow.triggers.pattern.wildcards import MAX_STARS, read_wildcard

EXAMPLES = int(os.environ.get("TRIGGERFLOW_PATTERNS", "0"))


def each_alone(*texts: str) -> int:
    """The complexity of a field with these wildcards."""
    return complexity([[read_wildcard(text)] for text in texts])


def together(*texts: str) -> int:
    """The complexity of a field with an `anything-but` of these wildcards."""
    return complexity([[read_wildcard(text) for text in texts]])


def test_what_can_be_open_at_once_counts() -> None:
    """Stars, repeated beginnings, and wildcards that begin alike add up."""
    assert each_alone("abc") == 1
    assert each_alone("a*") == 2
    assert each_alone("*") == 2
    assert each_alone("*:*:*:*:event-bus/*") == 9
    assert each_alone("*:*:*:*:*:event-bus/*") > MAX_COMPLEXITY
    assert each_alone("a*x", "b*x") == each_alone("a*x")
    assert each_alone("a*x", "ab*x") == 2 * each_alone("a*x")
    assert each_alone("a*x", "a*x") == 2 * each_alone("a*x")
    assert each_alone("a*bc", "abc*d") == 4  # in the text before a star, too
    assert each_alone(*"abcdefghij") == MAX_COMPLEXITY  # each of them begins a string
    assert each_alone(*"abcdefghijk") > MAX_COMPLEXITY


def test_wildcards_of_one_anything_but_share_their_beginnings() -> None:
    """A long list with a common beginning is no more complex than its parts are."""
    endings = ("*/tmp/*", "*/log/*", "*/var/*", "*/etc/*")
    assert each_alone(*endings) > MAX_COMPLEXITY
    # one star before and four behind; a slash ends one text and may begin another
    assert together(*endings) == 1 + 4 + 2
    assert together(*(f"*.{at}" for at in range(100))) == each_alone("*.0")
    compile_pattern({"a": [{"anything-but": {"wildcard": list(endings)}}]})


@pytest.mark.parametrize("count", [3, 4])
def test_three_of_a_kind_are_taken_and_four_are_not(count: int) -> None:
    """Somebody's rule grew from three such wildcards to four, and AWS took it no more."""
    names = ("Network", "Storage", "Compute", "Metrics")[:count]
    assert (each_alone(*(f"*:layer/{name}/*" for name in names)) > MAX_COMPLEXITY) is (
        count > 3
    )


def test_as_many_stars_as_may_be_are_not_too_complex() -> None:
    """Where parts share no letter, the stars of one wildcard are what bounds it."""
    assert each_alone("".join(f"{letter}*" for letter in "abcdefgh")) == MAX_STARS + 1


# --- the definition ---------------------------------------------------------------------------

VALUES = [
    f'"{"".join(letters)}{end}'
    for length in range(9)
    for letters in itertools.product("ab", repeat=length)
    for end in ("", '"')
]
wildcards = (
    st.lists(st.text("ab", max_size=2), min_size=1, max_size=3)
    .map(tuple)
    .filter(lambda parts: "" not in parts[1:-1])
)
patterns = st.lists(st.lists(wildcards, min_size=1, max_size=2), min_size=1, max_size=2)


def beginnings(wildcard: tuple[str, ...]) -> list[str]:
    """Each beginning of a wildcard, shortest first, as a regular expression."""
    tokens = ['"', *wildcard[0]]
    for part in wildcard[1:]:
        tokens += [".*", *part]
    tokens.append('"')
    return ["".join(tokens[:length]) for length in range(1, len(tokens) + 1)]


def by_definition(patterns: list[list[tuple[str, ...]]]) -> int:
    """The most beginnings that one value meets; each counts once for each pattern it is of."""
    found: list[re.Pattern[str]] = []
    for pattern in patterns:
        each = [beginnings(wildcard) for wildcard in pattern]
        ends = "|".join(whole for *_, whole in each)
        found += map(re.compile, {start for *starts, _ in each for start in starts} | {ends})
    return max(sum(bool(start.fullmatch(value)) for start in found) for value in VALUES)


@pytest.mark.timeout(0 if EXAMPLES else 120)
@settings(max_examples=EXAMPLES or 40, derandomize=not EXAMPLES, deadline=None)
@given(patterns)
def test_equals_the_definition(patterns: list[list[tuple[str, ...]]]) -> None:
    """The places counted are those that some value can be in at once, found by trying all."""
    measured, true = complexity(patterns), by_definition(patterns)
    assert measured == true or min(measured, true) > MAX_COMPLEXITY
