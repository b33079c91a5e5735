"""Patterns against an evaluator that works quite differently from ours: as event-ruler does.

The document becomes a list of (path, value, membership): one for each value, with the element
that it stands in for every array above it. The pattern becomes its combinations of ``$or``
branches. A combination matches when a value can be chosen for each field, in the order of the
dotted paths, so that no array is left with two different elements. All choices are tried: slow,
and plain to see. It uses nothing of ours; the operators are written a second time.

``TRIGGERFLOW_PATTERNS=10000`` tries so many random patterns instead of the usual few, with a
new seed each time (pytest prints it; ``--hypothesis-seed`` takes it).
"""

from __future__ import annotations

import ipaddress
import itertools
import json
import os
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from triggerflow.errors import PatternError
from triggerflow.triggers import compile_pattern

TABLE = Path(__file__).with_name("pattern_cases.psv")
EXAMPLES = int(os.environ.get("TRIGGERFLOW_PATTERNS", "0"))

Membership = dict[int, int]


def matches(pattern: dict[str, Any], document: dict[str, Any]) -> bool:
    """Whether the document matches, by trying all."""
    fields = flatten(document)
    return any(
        search(sorted(leaves.items(), key=lambda leaf: ".".join(leaf[0])), fields, {})
        for leaves in combinations(pattern)
    )


def flatten(document: dict[str, Any]) -> list[tuple[tuple[str, ...], Any, Membership]]:
    """Every value with its path and its place in the arrays above it."""
    found: list[tuple[tuple[str, ...], Any, Membership]] = []
    arrays = itertools.count()

    def walk(value: Any, path: tuple[str, ...], membership: Membership) -> None:
        if isinstance(value, dict):
            for key, inner in value.items():
                walk(inner, (*path, key), membership)
        elif isinstance(value, list):
            array = next(arrays)
            for at, inner in enumerate(value):
                # a bare value is in the field, not in an element that other fields share
                inside = {array: at} if isinstance(inner, dict | list) else {}
                walk(inner, path, membership | inside)
        else:
            found.append((path, value, membership))

    walk(document, (), {})
    return found


def combinations(
    pattern: dict[str, Any], path: tuple[str, ...] = ()
) -> list[dict[tuple[str, ...], list[Any]]]:
    """The fields of the pattern, once for each way to take a branch of every ``$or``."""
    found: list[dict[tuple[str, ...], list[Any]]] = [{}]
    for key, value in pattern.items():
        if key == "$or" and isinstance(value, list) and isinstance(value[0], dict):
            options = [each for branch in value for each in combinations(branch, path)]
        elif isinstance(value, dict):
            options = combinations(value, (*path, key))
        else:
            options = [{(*path, key): value}]
        found = [one | other for one in found for other in options]
    return found


def search(
    leaves: list[tuple[tuple[str, ...], list[Any]]],
    fields: list[tuple[tuple[str, ...], Any, Membership]],
    chosen: Membership,
) -> bool:
    """Whether a value can be chosen for each field that is left."""
    if not leaves:
        return True
    (path, entries), *rest = leaves
    here = [
        (value, membership)
        for at, value, membership in fields
        if at == path
        and all(chosen.get(array, element) == element for array, element in membership.items())
    ]
    if {"exists": False} in entries and not here and search(rest, fields, chosen):
        return True
    return any(
        any(holds(entry, value) for entry in entries)
        and search(rest, fields, chosen | membership)
        for value, membership in here
    )


def holds(entry: Any, value: Any) -> bool:
    """Whether one entry of a field's list welcomes a value."""
    if not isinstance(entry, dict):
        return same(entry, value)
    ((name, operand),) = entry.items()
    text = isinstance(value, str)
    number = isinstance(value, int | float) and not isinstance(value, bool)
    match name:
        case "exists":
            return operand is True
        case "prefix" | "suffix" if isinstance(operand, dict):
            forms = cases(operand["equals-ignore-case"])
            before, after = ("", ".*") if name == "prefix" else (".*", "")
            return text and bool(re.fullmatch(f"(?s){before}{forms}{after}", value))
        case "prefix":
            return text and value[: len(operand)] == operand
        case "suffix":
            return text and value[max(0, len(value) - len(operand)) :] == operand
        case "equals-ignore-case":
            return text and bool(re.fullmatch(cases(operand), value))
        case "wildcard":
            return text and bool(re.fullmatch(starred(operand), value))
        case "cidr":
            return text and in_block(value, operand)
        case "numeric":
            pairs = zip(operand[::2], operand[1::2], strict=True)
            return number and all(compare(value, sign, bound) for sign, bound in pairs)
        case "anything-but" if isinstance(operand, dict):
            ((inner, texts),) = operand.items()
            texts = texts if isinstance(texts, list) else [texts]
            return not any(holds({inner: each}, value) for each in texts)
        case "anything-but":
            values = operand if isinstance(operand, list) else [operand]
            return not any(same(each, value) for each in values)
    raise AssertionError(name)


def same(wanted: Any, value: Any) -> bool:
    """JSON equality: types count, but not the kind of number."""
    return isinstance(wanted, bool) == isinstance(value, bool) and wanted == value


def cases(text: str) -> str:
    """A regular expression for the text in any case, character by character."""
    return "".join(
        f"(?:{'|'.join(map(re.escape, (letter, letter.lower(), letter.upper())))})"
        for letter in text
    )


def starred(text: str) -> str:
    """A regular expression for a wildcard."""
    tokens = re.findall(r"\\[*\\]|\*|[^*\\]+", text)
    return "(?s)" + "".join(
        ".*" if token == "*" else re.escape(token[1:] if token[0] == "\\" else token)
        for token in tokens
    )


def compare(value: float, sign: str, bound: float) -> bool:
    """One comparison of `numeric`."""
    return {
        "=": value == bound,
        "<": value < bound,
        "<=": value <= bound,
        ">": value > bound,
        ">=": value >= bound,
    }[sign]


def in_block(value: str, block: str) -> bool:
    """Whether the value is an address of the block."""
    try:
        return ipaddress.ip_address(value) in ipaddress.ip_network(block, strict=False)
    except ValueError:
        return False


# --- the evaluator is held to the table of cases -------------------------------------------

# addresses in any form, "$or" as a field, and `exactly` are beyond it
BEYOND = re.compile(r'"exactly"|::|"\$or": (\{|\["x|\[\{"prefix)|"08:23"')


def test_the_oracle_agrees_with_the_table() -> None:
    """What the table says of matches and misses, the naive evaluator says too."""
    seen = 0
    for line in TABLE.read_text("utf-8").splitlines():
        if line.startswith("#") or not line or BEYOND.search(line):
            continue
        _, outcome, pattern, last = (cell.strip() for cell in line.split(" | "))
        if outcome != "refused":
            seen += 1
            assert matches(json.loads(pattern), json.loads(last)) is (outcome == "match"), line
    assert seen > 150


# --- random patterns and documents ------------------------------------------------------------

keys = st.sampled_from(["a", "b", "a-b", "z"])
texts = st.sampled_from(["", "x", "X", "xy", "yx", "\u00df", "SS", "10.0.0.7", "a*b", "\\"])
numbers = st.sampled_from([0, 1, 1.0, -0.0, 2.5, 7, 2**64 - 1, 1e308])
scalars = texts | numbers | st.sampled_from([None, True, False])
filled = st.sampled_from(["x", "xy", "SS"])
wildcards = st.sampled_from(["*", "x*", "*x", "x*y", "a\\*b", "*\\\\*", "", "*x*y*"])


def one_or_more(values: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """A value, or a list of one or two."""
    return values | st.lists(values, min_size=1, max_size=2)


def operator(name: str, operand: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """An operator with such operands."""
    return operand.map(lambda value: {name: value})


ignoring_case = operator("equals-ignore-case", texts)
ranges = st.tuples(
    st.sampled_from([">", ">="]), st.just(-1), st.sampled_from(["<", "<="]), numbers
)
entries = (
    scalars
    | operator("prefix", texts | ignoring_case)
    | operator("suffix", texts | ignoring_case)
    | ignoring_case
    | operator("wildcard", wildcards)
    | operator("exists", st.booleans())
    | st.just({"exists": False})
    | operator("cidr", st.sampled_from(["10.0.0.0/8", "10.0.0.7/30", "::/0"]))
    | operator(
        "numeric", st.tuples(st.sampled_from(["=", "<", "<=", ">", ">="]), numbers).map(list)
    )
    | operator("numeric", ranges.map(list))
    | operator("anything-but", one_or_more(texts) | one_or_more(numbers))
    | operator("anything-but", operator("prefix", one_or_more(filled)))
    | operator("anything-but", operator("suffix", one_or_more(filled)))
    | operator("anything-but", operator("equals-ignore-case", one_or_more(texts)))
    | operator("anything-but", operator("wildcard", one_or_more(wildcards)))
)


def with_choice(fields: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """Objects of which some have a `$or` of further ones."""
    branches = st.lists(fields, min_size=2, max_size=3)
    return st.builds(
        lambda outer, choice: outer | ({"$or": choice} if choice else {}),
        fields,
        st.none() | st.none() | branches,
    )


objects = st.recursive(
    st.dictionaries(keys, st.lists(entries, min_size=1, max_size=2), min_size=1, max_size=3),
    lambda inner: with_choice(st.dictionaries(keys, inner, min_size=1, max_size=3)),
    max_leaves=6,
)
patterns = with_choice(objects)
documents = st.dictionaries(
    keys,
    st.recursive(
        scalars,
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(keys, inner, max_size=3)
            | st.lists(st.dictionaries(keys, inner, max_size=3), max_size=3)
        ),
        max_leaves=10,
    ),
    max_size=4,
)


@pytest.mark.timeout(0 if EXAMPLES else 120)
@settings(max_examples=EXAMPLES or 40, derandomize=not EXAMPLES, deadline=None)
@given(patterns, documents)
def test_equals_the_oracle(pattern: dict[str, Any], document: dict[str, Any]) -> None:
    """Compiled patterns match what the naive evaluator matches, and explain what they don't."""
    try:
        compiled = compile_pattern(pattern)
    except PatternError as error:
        assert "repeats a path" in error.problem
        assume(False)
    assert compiled(document) is matches(pattern, document)
    mismatch = compiled.explain(document)
    assert (mismatch is None) is compiled(document)
    assert len(str(mismatch)) < 10_000


@pytest.mark.timeout(0 if EXAMPLES else 120)
@settings(max_examples=EXAMPLES or 15, derandomize=not EXAMPLES, deadline=None)
@given(patterns, st.randoms(use_true_random=False))
def test_order_makes_no_difference(pattern: dict[str, Any], random: Any) -> None:
    """Shuffled keys, values and branches give the same text, and the text gives itself."""

    def shuffled(part: Any) -> Any:
        if isinstance(part, dict):
            fields = [(key, shuffled(inner)) for key, inner in part.items()]
            random.shuffle(fields)
            return dict(fields)
        if isinstance(part, list) and not {"<", "<=", ">", ">=", "="} & {
            each for each in part if isinstance(each, str)
        }:
            return random.sample([shuffled(each) for each in part], len(part))
        return part

    try:
        compiled = compile_pattern(pattern)
    except PatternError:
        assume(False)
    assert compile_pattern(shuffled(pattern)).text == compiled.text
    again = compile_pattern(compiled.source)
    assert again.text == compiled.text
    assert again.conditions == compiled.conditions
    assert hash(again.conditions) == hash(compiled.conditions)
