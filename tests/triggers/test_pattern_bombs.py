"""Patterns and documents made to hurt: each costs work that is bounded by their own size.

Work is counted, not timed: a tracer counts the lines of the pattern package that run, and
strings count what is searched in them.
"""

from __future__ import annotations

import itertools
from typing import Any

import pytest

import triggerflow.triggers.pattern
from triggerflow.errors import PatternError
from triggerflow.triggers import compile_pattern
from triggerflow.triggers.pattern import complexity as complexity_module
from triggerflow.triggers.pattern import folding
from triggerflow.triggers.pattern.complexity import complexity

MEBIBYTE = 1 << 20
COUNTED = triggerflow.triggers.pattern


def test_a_wildcard_on_a_mebibyte_takes_one_search_for_each_part(lines_run: Any) -> None:
    """`*a*a*a*a*b` on a mebibyte of a's: no way back, however it fails."""
    pattern = compile_pattern({"a": [{"wildcard": "*a*a*a*a*b"}]})
    long = {"a": "a" * MEBIBYTE}
    short = {"a": "a" * 10}
    pattern(short)
    assert lines_run(lambda: pattern(long)) == lines_run(lambda: pattern(short)) < 60
    inside = compile_pattern({"a": [{"wildcard": "*a*a*a*a*b*"}]})
    inside(short)
    assert not inside(long)
    assert lines_run(lambda: inside(long)) < 60
    assert inside({"a": "a" * MEBIBYTE + "b"})


@pytest.mark.parametrize(
    "entry",
    [
        {"prefix": "a" * MEBIBYTE},
        {"suffix": "a" * MEBIBYTE},
        {"prefix": {"equals-ignore-case": "A" * MEBIBYTE}},
        {"suffix": {"equals-ignore-case": "A" * MEBIBYTE}},
        {"equals-ignore-case": "A" * MEBIBYTE},
        {"anything-but": ["b" * MEBIBYTE, "c"]},
        {"anything-but": {"prefix": ["b" * MEBIBYTE, "c"]}},
        {"wildcard": "a" * MEBIBYTE + "*"},
    ],
)
def test_strings_of_a_mebibyte(entry: dict[str, Any], lines_run: Any) -> None:
    """Long operands against long values take a few lines; errors and texts stay right."""
    document = {"a": "a" * MEBIBYTE}
    if "wildcard" in entry:
        with pytest.raises(PatternError, match="too complex"):
            compile_pattern({"a": [entry]})
        return
    pattern = compile_pattern({"a": [entry]})
    assert pattern(document)
    assert lines_run(lambda: pattern(document)) < 60
    assert not pattern({"a": "b" * MEBIBYTE})
    assert len(str(pattern.explain({"a": "b" * MEBIBYTE}))) < 500


def test_an_address_is_looked_at_only_when_it_is_short(lines_run: Any) -> None:
    """A mebibyte of digits or colons is no address, and nobody tries to read it."""
    pattern = compile_pattern({"a": [{"cidr": "10.0.0.0/8"}, {"cidr": "::/0"}]})
    for text in ("1" * MEBIBYTE, ":" * MEBIBYTE, "1." * MEBIBYTE):
        assert not pattern({"a": text})
        assert lines_run(lambda text=text: pattern({"a": text})) < 60


def test_cost_is_one_walk_over_the_document(lines_run: Any) -> None:
    """Nested wide arrays don't multiply: twice the document, twice the lines."""

    def rows(width: int) -> dict[str, Any]:
        return {"a": [{"b": [{"c": [0] * 5, "d": 1}] * 20, "e": 1}] * width}

    for source in (
        {"a": {"b": {"c": [1], "d": [1]}, "e": [1]}},
        {"a": {"b": {"c": [1], "d": [1], "x": [{"exists": False}]}, "e": [1]}},
        {"a": {"b": {"a": [{"exists": False}], "c": [1], "x": [{"exists": False}]}}},
        {"a": {"b": {"c": [{"exists": False}]}, "c": [{"exists": False}], "e": [1]}},
    ):
        pattern = compile_pattern(source)
        assert not pattern(rows(1))
        once = lines_run(lambda p=pattern: p(rows(20)))
        assert lines_run(lambda p=pattern: p(rows(40))) < 2.2 * once + 100
        assert once < 60 * 20 * 20 * 6


def test_absence_is_looked_up_once_for_an_array(lines_run: Any) -> None:
    """An absence that no element bounds isn't looked up again for every element."""
    pattern = compile_pattern({"a": {"b": [{"exists": False}], "c": [1]}})
    pattern({"a": []})
    once = lines_run(lambda: pattern({"a": [{"c": 0}] * 500}))
    assert lines_run(lambda: pattern({"a": [{"c": 0}] * 1000})) < 2.2 * once


@pytest.mark.parametrize(
    "leaf", [["x"], [{"exists": False}], ["x", {"exists": False}], [{"anything-but": "x"}]]
)
def test_the_deepest_patterns(leaf: list[Any]) -> None:
    """128 objects deep, with arrays between them: no recursion error."""
    source: Any = leaf
    document: Any = "y"
    for _ in range(128):
        source = {"a": source}
        document = {"a": [[document]]}
    pattern = compile_pattern(source)
    assert pattern(document) is (leaf == [{"anything-but": "x"}])
    assert len(str(pattern.explain(document))) < 2000
    with pytest.raises(PatternError, match="nested deeper than 128 objects"):
        compile_pattern({"a": source})


def test_documents_nested_without_end() -> None:
    """Arrays nested 20,000 deep: matching and explaining cost no recursion."""
    document: Any = 1
    for _ in range(20_000):
        document = [document]
    for entry in ("x", {"anything-but": 1}, {"exists": False}):
        pattern = compile_pattern({"a": [entry]})
        assert not pattern({"a": document})
        assert len(str(pattern.explain({"a": document}))) < 2000


def test_wide_patterns_and_documents() -> None:
    """10,000 fields, 10,000 values and 10,000 elements: linear, and explained shortly."""
    width = 10_000
    fields = compile_pattern({f"k{at}": [at] for at in range(width)})
    document: dict[str, Any] = {f"k{at}": at for at in range(width)}
    assert fields(document)
    document["k7"] = 0
    assert str(fields.explain(document)) == "match.k7: expected 7, found 0 at $.k7"
    del document["k7"]
    assert "is absent" in str(fields.explain(document))
    values = compile_pattern({"a": [*range(width), *map(str, range(width))]})
    assert values({"a": str(width - 1)})
    assert not values({"a": width})
    assert len(str(values.explain({"a": [width] * width}))) < 500
    assert compile_pattern({"a": [{"exists": False}]})({"a": [{}] * width})


def test_choices_are_bounded_as_they_are_read() -> None:
    """A thousand combinations are compiled; more are refused before they are multiplied."""
    ten = [{f"f{at}": [at]} for at in range(10)]

    def choices(count: int) -> dict[str, Any]:
        return {f"k{at}": {"$or": ten} for at in range(count)}

    assert compile_pattern(choices(3))({f"k{at}": {"f9": 9} for at in range(3)})
    for source in (choices(4), choices(1000)):
        with pytest.raises(PatternError, match="more than 1000 combinations"):
            compile_pattern(source)
    nested: dict[str, Any] = {"a": [1]}
    for at in range(20):
        nested = {"$or": [nested, {f"b{at}": [1]}]}
    with pytest.raises(PatternError, match="more than 1000 combinations"):
        compile_pattern(nested)


def test_a_choice_beside_many_fields_is_bounded() -> None:
    """Fields under other keys aren't multiplied; those that are, are bounded."""
    wide = {f"f{at}": [at] for at in range(1000)}
    choice = [{f"g{at}": [at]} for at in range(500)]
    assert compile_pattern({"$or": choice} | wide)(
        {f"f{at}": at for at in range(1000)} | {"g3": 3}
    )
    with pytest.raises(PatternError, match='fields when "\\$or" is multiplied out'):
        compile_pattern({"d": {"$or": choice} | wide})


def test_complexity_is_measured_in_bounded_time(
    monkeypatch: pytest.MonkeyPatch, lines_run: Any
) -> None:
    """No wildcards take more lines to measure than some times the letters they may have."""
    repeated = [[("", "ab" * 1000)]]
    assert lines_run(lambda: complexity(repeated)) < 2000 * 20
    many = [[(f"{at:04}", "")] for at in range(500)]
    assert lines_run(lambda: complexity(many)) < 500 * 60
    # as one pattern: so many texts are read again for each of so many beginnings
    monkeypatch.setattr(complexity_module, "_MAX_READ", 2000)
    again = [pair for at in range(500) for pair in (("", f"{at:03}"), (f"{at:03}", "x"))]
    assert lines_run(lambda: complexity([again])) < (4096 + 2000) * 50


def test_case_forms_never_begin_or_end_alike() -> None:
    """Taking the first form that fits is right: no form is the beginning or end of another."""
    for letter in map(chr, itertools.chain(range(0xD800), range(0xE000, 0x110000))):
        if letter.lower() == letter == letter.upper():
            continue  # its only form
        (forms,) = folding.forms_of(letter)
        for one, other in itertools.permutations(forms, 2):
            assert one[0] != other[0], letter
            assert one[-1] != other[-1], letter
