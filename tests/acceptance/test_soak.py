"""The soak (`soak.py`) in short, and its audit with the fence taken away.

`python tests/acceptance/soak.py --flows 20000` is the same for longer.
"""

from __future__ import annotations

import os
import signal
import sqlite3
import sys
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

SABOTAGE = "TRIGGERFLOW_TEST_SABOTAGE"


@pytest.fixture
def make_soak(
    tmp_path: Path,
    processes: Any,
    child_module: Callable[[str], Any],
    monkeypatch: pytest.MonkeyPatch,
) -> Callable[..., Any]:
    """Makes a soak on a new store; its children end with the test."""
    monkeypatch.setattr(sys, "path", [*sys.path])
    module = child_module("../soak")
    return lambda **options: module.Soak(tmp_path, processes, seed=20_260_303, **options)


@pytest.mark.slow
def test_mixed_flows_across_kills(
    make_soak: Callable[..., Any], report: Callable[[str], None]
) -> None:
    """Hundreds of flows of every kind and eight kills: each ends as it has to, once."""
    soak = make_soak()
    soak.run(batches=30, kills=6)
    report(soak.summary())
    assert soak.audit() == []
    assert len(soak.acks) == 420
    assert len(soak.dead) == 8
    assert "locked" not in soak.processes.complaints()


def bank_is_free(soak: Any) -> bool:
    """Whether nobody stands still amid a booking, for which every other step would wait."""
    with closing(sqlite3.connect(soak.world.with_suffix(".db"), timeout=0)) as db:
        try:
            db.execute("BEGIN EXCLUSIVE")
        except sqlite3.OperationalError:
            return False
    return True


def stale(soak: Any, **env: str) -> Any:
    """A worker that stood still past its lease, while another ended what it owned."""
    holder = soak.child("held", **env)
    for batch in range(8):
        soak.give(holder, batch)
    heard = 0
    while heard < 8:
        heard += soak.heard(holder, holder.pull(1.0))
    # Its failing steps run. What it writes of them has no entry, so no log refuses it.
    holder.stand_still(soak.store)
    while not bank_is_free(soak):
        os.kill(holder.pid, signal.SIGCONT)
        holder.stand_still(soak.store)
    soak.dead.add(holder.pid)
    other = soak.child(**env)
    other.say("end")
    other.expect("done")
    os.kill(holder.pid, signal.SIGCONT)
    holder.say("go")
    other.process.stdin.close()
    assert other.finish() == []
    return holder


def test_worker_that_slept_past_its_lease_changes_nothing(
    make_soak: Callable[..., Any],
) -> None:
    """What others ended meanwhile stays as they left it."""
    soak = make_soak(lease=1.0)
    holder = stale(soak)
    holder.expect("idle")
    holder.process.stdin.close()
    assert holder.finish() == []
    assert soak.audit() == []


def test_audit_notices_that_the_fence_is_gone(make_soak: Callable[..., Any]) -> None:
    """Without epoch, owner, generation and length, it undoes finished flows."""
    soak = make_soak(lease=1.0)
    # It never comes to rest: what it does to logs the database itself refuses, for ever.
    holder = stale(soak, **{SABOTAGE: "fence"})
    until = time.monotonic() + 30
    found: list[str] = []
    while not any("length says 0" in each for each in found):
        assert time.monotonic() < until, found
        holder.pull(0.1)
        found = soak.audit()
    assert any("is waiting with" in each for each in found), found[:5]


def test_audit_notices_that_tokens_are_not_compared(make_soak: Callable[..., Any]) -> None:
    """Without epoch and token, an attempt of a queued call answers long after its end."""
    soak = make_soak(lease=1.0)
    holder = stale(soak, **{SABOTAGE: "token"})
    # That it is late, that another one has it, and what is left of it.
    wanted = {"answered after it was over", "answered under", "answers of ended calls"}
    until = time.monotonic() + 30
    found: list[str] = []
    while not all(any(what in each for each in found) for what in wanted):
        assert time.monotonic() < until, found
        holder.pull(0.1)
        found = soak.audit()
