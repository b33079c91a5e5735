"""Two busy processes on one SQLite file: fair, never told that it is locked, first open too."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

LIMIT = 60.0


def counted(path: Path) -> tuple[int, int]:
    """How many activities there are, and how many instances that aren't done."""
    with closing(sqlite3.connect(path)) as db:
        (activities,) = db.execute("SELECT count(*) FROM activity").fetchone()
        (left,) = db.execute("SELECT count(*) FROM instance WHERE status <> 'done'").fetchone()
    return activities, left


@pytest.mark.slow
def test_each_busy_process_gets_its_share(
    tmp_path: Path, processes: Any, report: Callable[[str], None]
) -> None:
    """Of the commits made while both were busy, each made at least a quarter."""
    path = tmp_path / "busy.db"
    both = [processes.start("busy.py", path, name, 0) for name in ("one", "two")]
    for child in both:
        child.expect("ready")
    for child in both:
        child.say("go")
    for child in both:
        child.expect("open")
    # What one did before the other had appended anything is no share.
    appends, first, last, together = [0, 0], [0, 0], [0, 0], False
    until = time.monotonic() + LIMIT
    while sum(appends) < 1200:
        assert time.monotonic() < until, f"only {appends} appends in {LIMIT:g} s"
        for index, child in enumerate(both):
            for line in child.pull(0.005):
                word, _, commits = line.partition(" ")
                assert word == "tick", line
                last[index] = int(commits)
                appends[index] += together
            assert not child.over, child.complaints()
        if not together and min(last) > 0:
            together, first = True, list(last)
    for child in both:
        child.say("stop")
    for child in both:
        ends = child.finish()
        assert ends[-1].startswith("done ")
    commits = [last[index] - first[index] for index in (0, 1)]
    report(f"two busy processes: appends {appends}, commits {commits}")
    assert min(commits) >= sum(commits) / 4, commits
    assert min(appends) >= sum(appends) / 4, appends
    assert "locked" not in processes.complaints()
    activities, left = counted(path)
    assert activities >= sum(appends)
    assert left == 0


@pytest.mark.parametrize("attempt", range(5))
def test_two_open_a_fresh_file_at_once(attempt: int, tmp_path: Path, processes: Any) -> None:
    """Two processes that make, migrate and fill one new file at once both succeed."""
    path = tmp_path / "fresh" / "file.db"
    both = [processes.start("busy.py", path, name, 20) for name in ("one", "two")]
    for child in both:
        child.expect("ready")
    for child in both:
        child.say("go")
    for child in both:
        child.expect("open")
        ends = child.finish()
        assert [line.partition(" ")[0] for line in ends] == ["tick"] * 20 + ["done"]
    assert processes.complaints() == ""
    assert counted(path) == (40, 0)
