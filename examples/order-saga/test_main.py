"""The order saga does what its README says, the second time as well."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
COMMAND_LINE = "import sys; from triggerflow.cli.main import main; sys.exit(main())"


def run(args: list[str], cwd: Path) -> str:
    """Run Python with the tree importable; fail on a bad exit status or any complaint."""
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(  # noqa: S603
        [sys.executable, *args],
        check=False,
        cwd=cwd,
        env=env,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stderr == ""
    return done.stdout


def section(output: str, title: str) -> list[str]:
    """Return the indented lines below a title."""
    found = re.search(rf"^{title}.*\n((?:  .*\n)*)", output, re.MULTILINE)
    assert found, output
    return [line.strip() for line in found[1].splitlines()]


def lines_of(output: str, title: str) -> list[str]:
    """Return a section's lines, with one space between words."""
    return [" ".join(line.split()) for line in section(output, title)]


def test_each_order_ends_as_told_and_the_second_run_starts_nothing(tmp_path: Path) -> None:
    """One is shipped, one cancelled and one fails; what was paid for nothing goes back."""
    first = run([str(HERE / "main.py")], tmp_path)
    assert lines_of(first, "activities appended") == [
        "order-ann starts order",
        "order-ben starts order",
        "order-cem starts order",
        "order-ann duplicate",
    ]
    assert lines_of(first, "parcels that wait for the courier: 3") == [
        "Ben cancels his order",
        "the courier collects the parcel to Ann",
        "the courier collects the parcel to Ann's aunt",
    ]
    assert lines_of(first, "order-ann: shipped") == [
        "done reserve 2 from shelf 7",
        "done charge 5900 from ann's card",
        "done parcel to Ann",
        "done parcel to Ann's aunt",
    ]
    assert lines_of(first, r"order-ben: cancelled \(changed my mind\)") == [
        "done reserve 2 from shelf 7",
        "done charge 2500 from ben's card",
        "undone refund 2500 to ben's card, for 2500 from ben's card",
        "undone release 2 back, were 2 from shelf 7",
        "cancelled parcel to Ben",
    ]
    assert lines_of(first, "order-cem: failed")[2:] == [
        "undone refund 1200 to cem's card, for 1200 from cem's card",
        "undone release 2 back, were 2 from shelf 7",
        "cancelled parcel to Cem",
        "failed parcel to nowhere",
    ]
    assert "the ledger, in generation 2: {'orders': 1, 'cents': 5900}" in first

    second = run([str(HERE / "main.py")], tmp_path)
    assert all("duplicate" in line for line in section(second, "activities appended"))
    assert section(second, "parcels that wait for the courier: 0") == []
    for each in ("order-ann", "order-ben", "order-cem", "the ledger"):
        assert section(second, each) == section(first, each)


def test_the_printed_commands_show_and_replay_the_order(tmp_path: Path) -> None:
    """The last lines can be pasted as they stand: the refund and the child are in them."""
    folder = tmp_path / "a folder"
    folder.mkdir()
    (folder / "main.py").write_bytes((HERE / "main.py").read_bytes())
    output = run(["a folder/main.py"], tmp_path)
    show, replay = section(output, "look at one of them")
    assert show.startswith("triggerflow --app 'a folder/main.py':app show ")
    shown = run(["-c", COMMAND_LINE, *shlex.split(show)[1:]], tmp_path)
    assert "order-ben Ben" in shown.partition("\nchildren\n")[2]
    replayed = run(["-c", COMMAND_LINE, *shlex.split(replay)[1:]], tmp_path)
    assert "undoes call:charge#0" in replayed
    assert "agrees with the store" in replayed
