"""The table of cases: what EventBridge's patterns match, miss and refuse, and who says so."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from triggerflow.errors import PatternError
from triggerflow.triggers import compile_pattern

TABLE = Path(__file__).with_name("pattern_cases.psv")
SOURCES = {
    "guide",
    "compiler",
    "event",
    "finder",
    "machine",
    "range",
    "cidr",
    "wildcard",
    "case",
    "ours",
}


def cases() -> list[Any]:
    """The lines of the table, each named by its number."""
    found = []
    for number, line in enumerate(TABLE.read_text("utf-8").splitlines(), 1):
        if line and not line.startswith("#"):
            source, outcome, pattern, last = (cell.strip() for cell in line.split(" | "))
            assert source in SOURCES, line
            found.append(pytest.param(outcome, json.loads(pattern), last, id=f"{number}"))
    return found


@pytest.mark.parametrize(("outcome", "pattern", "last"), cases())
def test_the_table(outcome: str, pattern: Any, last: str) -> None:
    """Each pattern does what its line says, in normal form too, and says why it doesn't."""
    if outcome == "refused":
        with pytest.raises(PatternError) as caught:
            compile_pattern(pattern)
        assert last in f"{caught.value.path} {caught.value.problem}"
        assert caught.value.path.startswith("match")
        return
    document = json.loads(last)
    compiled = compile_pattern(pattern)
    assert compiled(document) is (outcome == "match")
    again = compile_pattern(compiled.source)
    assert again == compiled
    assert again(document) is (outcome == "match")
    assert (compiled.explain(document) is None) is (outcome == "match")


def test_every_operator_is_in_the_table() -> None:
    """No operator is without a case that matches, one that misses and one that is refused."""
    text = TABLE.read_text("utf-8")
    for operator in (
        "anything-but",
        "cidr",
        "equals-ignore-case",
        "exists",
        "numeric",
        "prefix",
        "suffix",
        "wildcard",
    ):
        for outcome in ("match", "miss", "refused"):
            assert any(
                f"| {outcome}" in line and f'"{operator}"' in line for line in text.splitlines()
            ), (operator, outcome)


def test_real_documents_match_patterns_drawn_from_them() -> None:
    """For each value of a nested document, every operator that is true of it matches."""
    document = {
        "type": "Create",
        "actor": "https://a.example/ann",
        "object": {
            "type": "Note",
            "tag": [{"type": "Mention", "href": "https://b.example/bob"}, {"type": "Hashtag"}],
            "counts": {"likes": 3, "score": 0.5, "shared": True, "reply": None},
        },
    }

    def leaves(value: Any, path: tuple[str, ...] = ()) -> Any:
        if isinstance(value, dict):
            for key, inner in value.items():
                yield from leaves(inner, (*path, key))
        elif isinstance(value, list):
            for inner in value:
                yield from leaves(inner, path)
        else:
            yield path, value

    for path, value in leaves(document):
        entries: list[Any] = [value, {"exists": True}, {"anything-but": "other"}]
        if isinstance(value, str):
            entries += [
                {"prefix": value[:2]},
                {"suffix": value[-2:]},
                {"equals-ignore-case": value.upper()},
                {"wildcard": f"{value[0]}*{value[-1]}"},
                {"anything-but": {"prefix": value + "x"}},
            ]
        elif isinstance(value, int | float) and not isinstance(value, bool):
            entries += [
                {"numeric": [">=", value]},
                {"numeric": [">", value - 1, "<", value + 1]},
            ]
        for entry in entries:
            pattern: Any = [entry]
            for key in reversed(path):
                pattern = {key: pattern}
            assert compile_pattern(pattern)(document), pattern
