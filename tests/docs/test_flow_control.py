"""The page of flow control has the tables that the code keeps to.

``python tests/docs/test_flow_control.py`` writes them into the page.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from triggerflow.core.admission_pairs import ORDER, PAIRS, PARTS

PAGE = Path(__file__).resolve().parents[2] / "docs" / "reference" / "flow-control.md"


def pairs() -> str:
    """Each part against each other one."""
    lines = ["| |" + "".join(f" {part} |" for part in PARTS), "|---|" + "---|" * len(PARTS)]
    for part in PARTS:
        cells = []
        for other in PARTS:
            pair = PAIRS.get((part, other)) or PAIRS.get((other, part))
            cells.append(" |" if pair is None else " yes |" if pair.allowed else " **no** |")
        lines.append(f"| {part} |" + "".join(cells))
    return "\n".join(lines)


def meanings() -> str:
    """What each pair means, or why it is refused."""
    lines = ["| pair | | |", "|---|---|---|"]
    for names, pair in PAIRS.items():
        word = "together" if pair.allowed else "**refused**"
        lines.append(f"| {', '.join(names)} | {word} | {pair.text} |")
    return "\n".join(lines)


def order() -> str:
    """The steps, one after the other."""
    return "\n".join(f"{n}. {what}: {text}." for n, (what, text) in enumerate(ORDER, 1))


TABLES = {"pairs": pairs, "meanings": meanings, "order": order}


def held(name: str) -> str:
    """What the page has between a table's marks."""
    found = re.search(
        rf"<!-- {name} -->\n(.*?)<!-- end -->", PAGE.read_text("utf-8"), re.DOTALL
    )
    assert found is not None, name
    return found[1].strip()


@pytest.mark.parametrize("name", TABLES)
def test_the_page_holds_the_table(name: str) -> None:
    """What the page says is what the code does; the pairs' own tests hold it to that."""
    assert held(name) == TABLES[name]()


if __name__ == "__main__":
    text = PAGE.read_text("utf-8")
    for name, table in TABLES.items():
        filled = f"<!-- {name} -->\n{table()}\n<!-- end -->"
        text = re.sub(
            rf"<!-- {name} -->\n.*?<!-- end -->", lambda _: filled, text, flags=re.DOTALL
        )
    PAGE.write_text(text, "utf-8")
