"""The code hash: what a flow's code does, whatever process compiled it and where it stands."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest

import triggerflow
from triggerflow.flows.flow import code_hash

# Where children find the triggerflow that is tested.
HOME = Path(triggerflow.__file__).parents[1]

FLOW = """
def flow(activity):
    if activity["type"] in {"Follow", "Like", "Undo", "Block", "Accept"}:
        found = yield from step({"to": activity["actor"], "limit": 10})
        return [each for each in found if (lambda x: x > 3)(each)]
    return ("none", 1.5, b"x", None, True)
"""


def hash_of(source: str) -> str:
    names: dict[str, Any] = {}
    exec(compile(textwrap.dedent(source), "<flow>", "exec"), names)
    return code_hash(names["flow"])


def test_the_hash_is_equal_in_every_process(tmp_path: Path) -> None:
    """Processes with different hash seeds, and so other set orders, find one hash."""
    file = tmp_path / "program.py"
    file.write_text(
        f"from triggerflow.flows.flow import code_hash\n{FLOW}\nprint(code_hash(flow))\n"
    )
    found = set()
    for seed in ("0", "1", "2", "3", "77"):
        done = subprocess.run(
            [sys.executable, str(file)],
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
            env={**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": str(HOME)},
        )
        found.add(done.stdout.strip())
    assert found == {hash_of(FLOW)}


def test_layout_does_not_count() -> None:
    """Comments, blank lines, other indentation and the place in a file change nothing."""
    moved = "\n\n# a comment\nimport os\n\n" + FLOW.replace("    if", "\n    # why\n\n    if")
    assert hash_of(moved) == hash_of(FLOW)
    spread = FLOW.replace(
        '{"to": activity["actor"], "limit": 10}',
        '{\n  "to": activity["actor"],\n  "limit": 10,\n}',
    )
    assert hash_of(spread) == hash_of(FLOW)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"Undo"', '"Undone"'),
        ("step(", "stop("),
        ('"limit": 10', '"limit": 11'),
        ("x > 3", "x >= 3"),
        ("x > 3", "x > 4"),
        ("1.5", "1.25"),
        ("True", "1"),
        ('b"x"', '"x"'),
        ("yield from step", "yield step"),
        ("return [each", "found.sort()\n        return [each"),
        ('activity["actor"]', 'activity["object"]'),
        ("def flow(activity):", "def flow(activity, depth=2):"),
    ],
)
def test_a_changed_line_counts(old: str, new: str) -> None:
    """Another constant, name, instruction, nested function or parameter is another hash."""
    assert old in FLOW
    assert hash_of(FLOW.replace(old, new)) != hash_of(FLOW)


def test_a_changed_default_counts() -> None:
    """The default of a parameter is part of what the code does."""
    source = "def flow(activity, limit={}):\n    yield limit\n"
    assert hash_of(source.format(3)) != hash_of(source.format(4))


def test_a_changed_handler_counts() -> None:
    """Which lines a ``try`` covers is part of what the code does."""
    inside = """
        def flow(activity):
            try:
                yield 1
                yield 2
            except ValueError:
                pass
    """
    outside = """
        def flow(activity):
            try:
                yield 1
            except ValueError:
                pass
            yield 2
    """
    assert hash_of(inside) != hash_of(outside)


def test_what_has_no_code_is_known_by_name() -> None:
    """An object that is called has no code of its own; it still gives a stable hash."""

    class Machine:
        def __call__(self, activity: Any) -> Any:
            yield activity

    assert code_hash(Machine()) == code_hash(Machine())


def test_a_wrapped_function_is_looked_through() -> None:
    """A decorator that says what it wraps doesn't hide the change below it."""
    import functools

    def traced(fn: Any) -> Any:
        @functools.wraps(fn)
        def inner(*args: Any) -> Any:
            return fn(*args)

        return inner

    def first(activity: Any) -> Any:
        yield 1

    def second(activity: Any) -> Any:
        yield 2

    assert code_hash(traced(first)) == code_hash(first)
    assert code_hash(traced(first)) != code_hash(traced(second))
