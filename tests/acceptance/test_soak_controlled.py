"""The soak of controlled flows (`soak_controlled.py`) in short.

`python tests/acceptance/soak_controlled.py --activities 20000` is the same for longer.
"""

from __future__ import annotations

import sqlite3
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture
def soak(
    tmp_path: Path,
    processes: Any,
    child_module: Callable[[str], Any],
    monkeypatch: pytest.MonkeyPatch,
) -> Any:
    """A soak on a new store; its children end with the test."""
    monkeypatch.setattr(sys, "path", [*sys.path])
    return child_module("../soak_controlled").Controlled(tmp_path, processes, seed=20_260_401)


@pytest.mark.slow
def test_controls_across_kills(soak: Any, report: Callable[[str], None]) -> None:
    """Six kills: each activity has one effect, batches are whole, no limit is passed."""
    soak.run(batches=60, kills=4)
    report(soak.summary())
    assert soak.audit() == []
    assert len(soak.acks) == 600
    assert len(soak.dead) == 6
    assert "locked" not in soak.processes.complaints()
    # And the audit would have seen it.
    with closing(sqlite3.connect(soak.store)) as db:
        for harm, found in (
            ("UPDATE instance SET started = started - 9 WHERE status = 'done'", "at once"),
            ("DELETE FROM firing WHERE outcome = 'batched'", "fired"),
            ("INSERT INTO pool VALUES ('s', 'k', 1, 0, 1)", "left"),
        ):
            db.execute(harm)
            db.commit()
            assert any(found in finding for finding in soak.audit()), found
