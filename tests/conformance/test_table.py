"""docs/reference/conformance.md and the conformance tests agree, line by line."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import attrs
import pytest

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
PAGE = ROOT / "docs" / "reference" / "conformance.md"
LINES = {"Continuum": 38, "GenDurable": 34}
STANDS = {"met", "beaten", "differs", "left out", "later"}


@attrs.frozen
class Row:
    """A line of a table."""

    line: str
    original: str
    stands: str
    here: str
    tests: tuple[str, ...]


def rows(system: str) -> list[Row]:
    """The table under a heading of the page."""
    text = PAGE.read_text(encoding="utf-8")
    part = text.partition(f"\n## {system}\n")[2].partition("\n## ")[0]
    found = []
    for line in part.splitlines():
        cells = [each.strip() for each in line.strip("|").split(" |")]
        if line.startswith("| ") and cells[0] != "line":
            assert len(cells) == 5, line
            tests = tuple(re.findall(r"`([^`]+)`", cells[4]))
            found.append(Row(cells[0], cells[1], cells[2], cells[3], tests))
    return found


def names_of_tests(*files: Path) -> list[str]:
    """The names of the tests in some files."""
    return [
        node.name
        for file in files
        for node in ast.parse(file.read_text(encoding="utf-8")).body
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and node.name.startswith("test_")
    ]


@pytest.mark.parametrize("system", LINES)
def test_every_line_is_in_its_table(system: str) -> None:
    """Each number once and in order, with a word for how it stands, and what that means."""
    found = rows(system)
    assert [each.line for each in found] == [str(n + 1) for n in range(LINES[system])]
    for row in found:
        assert row.original, row
        assert row.stands in STANDS, row
        # What isn't simply the same is explained; what is claimed is shown.
        assert row.here or row.stands == "met", row
        assert row.tests or row.stands in {"left out", "later"}, row


@pytest.mark.parametrize("system", LINES)
def test_every_test_is_in_the_row_of_its_number(system: str) -> None:
    """Named tests exist, none is left out, and each stands in its own line."""
    existing = names_of_tests(*sorted(HERE.glob(f"test_{system.lower()}_*.py")))
    named = [(row.line, test) for row in rows(system) for test in row.tests]
    assert sorted(test for _, test in named) == sorted(existing)
    for line, test in named:
        assert test.startswith(f"test_{int(line):02}_"), test


def test_every_opening_says_where_it_stands() -> None:
    """A to l, each with a word, and with tests that exist where they are said to be."""
    found = rows("Beyond them")
    assert [each.line for each in found] == list("abcdefghijkl")
    for row in found:
        assert row.stands in {"met", "partly", "open"}, row
        assert row.tests or row.stands != "met", row
        for each in row.tests:
            file, _, test = each.partition("::")
            assert test in names_of_tests((ROOT if "/" in file else HERE) / file), each
    named = {each.partition("::")[2] for row in found for each in row.tests}
    assert set(names_of_tests(HERE / "test_beyond.py")) <= named
