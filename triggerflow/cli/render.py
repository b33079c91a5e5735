"""How things look: tables, values on one line, times; for people, pipes and programs."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Any, Final, NamedTuple

import click

STYLES: Final = {
    "done": "green",
    "failed": "red",
    "blocked": "yellow",
    "cancelled": "bright_black",
    "waiting": "cyan",
    "running": "blue",
    "error": "red",
    "warning": "yellow",
    "ok": "green",
}


_GAP: Final = 2
_NARROWEST: Final = 16


class Cell(NamedTuple):
    """A table cell with a style; plain ones are texts."""

    text: str
    style: str


def status_cell(status: str) -> Cell:
    """A status in its colour."""
    return Cell(status, STYLES.get(status, ""))


def dim(text: str) -> Cell:
    """What matters less."""
    return Cell(text, "bright_black")


def on_terminal() -> bool:
    """Whether a person sees what goes to stdout."""
    return sys.stdout.isatty()


def print_json(value: Any, *, line: bool = False) -> None:
    """One JSON document; on one line where it is one of many."""
    from triggerflow.core.codec import to_json_model

    text = json.dumps(to_json_model(value), ensure_ascii=False, indent=None if line else 2)
    click.echo(text)


def print_table(
    headers: Sequence[str],
    rows: Iterable[Sequence[str | Cell]],
    *,
    right: Iterable[int] = (),
    indent: int = 0,
    wrap: bool = False,
) -> None:
    """A table: fitted to the width of a terminal, and plain, never cut, in a pipe.

    Args:
        headers: the columns' titles; none for a table without a head.
        right: numbers of the columns that are aligned to the right.
        indent: spaces before each line.
        wrap: on a terminal, fold the last column where it is too long; else it is cut.
    """
    cells = [[_cell(each) for each in row] for row in rows]
    if on_terminal():
        _print_rich(headers, cells, set(right), indent, wrap=wrap)
    else:
        _print_plain(headers, cells, set(right), indent)


def _cell(cell: str | Cell) -> Cell:
    if isinstance(cell, Cell):
        return Cell(clean(cell.text), cell.style)
    return Cell(clean(cell), "")


def _print_plain(
    headers: Sequence[str], rows: list[list[Cell]], right: set[int], indent: int
) -> None:
    lines = [list(headers)] if headers else []
    lines += [[cell.text for cell in row] for row in rows]
    if not lines:
        return
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    for line in lines:
        parts = [
            text.rjust(width) if column in right else text.ljust(width)
            for column, (text, width) in enumerate(zip(line, widths, strict=True))
        ]
        click.echo(" " * indent + "  ".join(parts).rstrip())


def _print_rich(
    headers: Sequence[str],
    rows: list[list[Cell]],
    right: set[int],
    indent: int,
    *,
    wrap: bool,
) -> None:
    # Here, not above: a pipe doesn't pay for it.
    from rich.cells import cell_len
    from rich.console import Console
    from rich.padding import Padding
    from rich.table import Table
    from rich.text import Text

    lines = [[Cell(each, "bold") for each in headers], *rows] if headers else rows
    if not lines:
        return
    last = len(lines[0]) - 1
    others = indent + sum(
        _GAP + max(cell_len(line[column].text) for line in lines) for column in range(last)
    )
    console = Console(highlight=False)
    # Names, ids and numbers stay whole and the last column gives way, down to a limit: on a
    # terminal that is narrower still, lines run over.
    room = max(console.width - others, _NARROWEST)
    console.width = others + room
    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, _GAP, 0, 0))
    for column in range(last + 1):
        table.add_column(
            justify="right" if column in right else "left",
            no_wrap=column < last,
            overflow="fold",
        )
    for line in lines:
        texts = [Text(cell.text, style=cell.style) for cell in line]
        if not wrap:
            texts[last].truncate(room, overflow="ellipsis")
        table.add_row(*texts)
    console.print(Padding(table, (0, 0, 0, indent), expand=False))


def heading(text: str) -> None:
    """A title between two parts, with a blank line before it."""
    click.echo()
    click.secho(text, bold=True)


def note(text: str) -> None:
    """A remark for people, on stderr, so that it never gets into what is piped."""
    click.secho(text, fg="yellow", err=True)


# --- values ---------------------------------------------------------------------------


def clean(text: str) -> str:
    """Text without anything that a terminal would obey."""
    if text.isprintable():
        return text
    return "".join(
        each if each.isprintable() else each.encode("unicode_escape").decode("ascii")
        for each in text
    )


def cut(text: str, width: int) -> str:
    """The first line's worth of a text."""
    text = clean(text)
    return text if len(text) <= width else f"{text[: width - 1]}…"


def short(value: Any, width: int = 60) -> str:
    """A value on one line, as JSON."""
    from triggerflow.core.codec import to_json_model

    return cut(json.dumps(to_json_model(value), ensure_ascii=False), width)


def failure_text(failure: Any, width: int = 200) -> str:
    """A failure on one line: type and message."""
    message = f"{failure.type}: {failure.message}" if failure.message else failure.type
    return cut(message, width)


# --- times ----------------------------------------------------------------------------


def moment(at: float | None) -> str:
    """A time of day with its date, in UTC."""
    if at is None:
        return ""
    return f"{datetime.fromtimestamp(at, UTC):%Y-%m-%d %H:%M:%S}Z"


def time_of_day(at: float | None) -> str:
    """A time of day to the millisecond, in UTC."""
    if at is None:
        return ""
    when = datetime.fromtimestamp(at, UTC)
    return f"{when:%H:%M:%S}.{when.microsecond // 1000:03d}"


def duration(seconds: float) -> str:
    """A duration in the two units that say most."""
    seconds = max(0.0, seconds)
    if seconds < 10:
        return f"{seconds:.3f} s"
    if seconds < 60:
        return f"{seconds:.0f} s"
    for unit, size, smaller, part in (
        ("min", 60, "s", 1),
        ("h", 3600, "min", 60),
        ("d", 86400, "h", 3600),
    ):
        if seconds < size * (60 if unit != "h" else 24) or unit == "d":
            whole, rest = divmod(int(seconds), size)
            return (
                f"{whole} {unit} {rest // part} {smaller}"
                if rest // part
                else f"{whole} {unit}"
            )
    return f"{seconds:.0f} s"


def age(seconds: float) -> str:
    """How long ago, in one unit."""
    seconds = max(0.0, seconds)
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= size:
            return f"{int(seconds // size)} {unit}"
    return f"{int(seconds)} s"


def count(number: int, one: str, many: str | None = None) -> str:
    """A number with its noun: ``1 firing``, ``2 firings``, ``3 activities``."""
    return f"{number:,} {one if number == 1 else many or one + 's'}"
