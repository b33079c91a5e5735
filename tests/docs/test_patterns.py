"""The page on patterns: every operator has an example, and every example does what it says."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

import triggerflow as tf
from triggerflow.triggers.pattern import operands

PAGE = Path(__file__).resolve().parents[2] / "docs" / "reference" / "patterns.md"


def tables() -> list[list[list[str]]]:
    """The page's tables, each as rows of cells; the first row has the titles."""
    found: list[list[list[str]]] = [[]]
    for line in PAGE.read_text("utf-8").splitlines():
        if line.startswith("|"):
            if not set(line) <= set("|-"):
                found[-1].append([cell.strip() for cell in line[1:-1].split("|")])
        elif found[-1]:
            found.append([])
    return [table for table in found if table]


OPERATORS, ABSENCES, DIFFERENCES = tables()


def read(cell: str) -> object:
    """The JSON in a cell."""
    return json.loads(cell.strip("` "))


@pytest.mark.parametrize("row", OPERATORS[1:] + ABSENCES[1:], ids=lambda row: row[0])
def test_each_example_does_what_its_row_says(row: list[str]) -> None:
    """The pattern matches the first document and not the second."""
    *_, pattern, matching, missing = row
    compiled = tf.compile_pattern(read(pattern))
    assert compiled(read(matching))
    assert not compiled(read(missing))


@pytest.mark.parametrize("row", DIFFERENCES[1:], ids=lambda row: row[0])
def test_each_difference_is_so(row: list[str]) -> None:
    """What is said to be different here is what happens here."""
    *_, pattern, document, outcome = row
    if outcome == "is refused":
        with pytest.raises(tf.PatternError):
            tf.compile_pattern(read(pattern))
    elif pattern:
        assert tf.compile_pattern(read(pattern))(read(document)) is (outcome == "matches")


def test_every_operator_has_a_row() -> None:
    """The table names each operator that can be written, alone and in `anything-but`."""
    names = {tuple(re.findall(r"`([^`]+)`", row[0])) for row in OPERATORS[2:]}
    alone = {(name,) for name in operands.NAMES - {"exactly"}}
    excluding = {("anything-but", name) for name in operands.EXCLUDABLE}
    assert names == alone | excluding | {("$or",)}
    assert "`exactly`" in PAGE.read_text("utf-8")
