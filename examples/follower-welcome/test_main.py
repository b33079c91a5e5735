"""The follower welcome does what its README says, the second time as well."""

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


def test_first_run_starts_and_second_starts_nothing(tmp_path: Path) -> None:
    """Three flows start and end with their results, once and for ever."""
    first = run([str(HERE / "main.py")], tmp_path)
    assert "flows started: 3" in first
    assert section(first, "activities appended") == [
        "Ann follows    starts welcome and count",
        "Relay follows  starts count",
        "Ann likes      no trigger listens",
        "Ann follows    duplicate, starts nothing",
    ]
    (waiting,) = section(first, "flows started")
    assert waiting.endswith("waits for a reply: sending one")
    welcomed, *counted = section(first, "results")
    assert welcomed.endswith("welcome  done  {'welcomed': 'Ann', 'reply': 'Lovely garden!'}")
    assert len(counted) == 2

    second = run([str(HERE / "main.py")], tmp_path)
    assert "flows started: 0" in second
    assert section(second, "flows started") == []
    assert all("duplicate" in line for line in section(second, "activities appended"))
    assert section(second, "results") == section(first, "results")


def test_the_printed_command_replays_the_flow(tmp_path: Path) -> None:
    """The last line can be pasted as it stands, and shows every step of the flow."""
    folder = tmp_path / "a folder"
    folder.mkdir()
    (folder / "main.py").write_bytes((HERE / "main.py").read_bytes())
    output = run(["a folder/main.py"], tmp_path)
    (command,) = section(output, "replay one of them")
    assert command.startswith("triggerflow --app 'a folder/main.py':app replay ")
    replayed = run(["-c", COMMAND_LINE, *shlex.split(command)[1:]], tmp_path)
    for tag in (
        "call:fetch_profile#0",
        "call:send_note#0",
        "wait_signal:reply#0",
        "call:send_note#1",
    ):
        assert tag in replayed
