"""Exactly once: real processes are killed at random moments, and the database is audited.

The audit (`children/audit.py`) knows the schema and the flows, and nothing of triggerflow.
The second half takes one guard away at a time and shows that the same audit notices.
"""

from __future__ import annotations

import json
import os
import random
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import triggerflow as tf

LIMIT = 60.0


class Story:
    """One store, the children that worked on it, and what they were told."""

    def __init__(
        self, folder: Path, data: Path, processes: Any, load: Callable[[str], Any]
    ) -> None:
        self.store = folder / "story.db"
        self.effects = folder / "effects.txt"
        self.data = data
        self.processes = processes
        self.plainly = load("plainly")
        self.audits = load("audit")
        self.acks: list[Any] = []
        self.dead: set[int] = set()
        self.lives: set[int] = set()

    def child(self, way: str, life: int = 0, dies_in: str = "", **env: str) -> Any:
        """A child that is open and may begin."""
        child = self.processes.start(
            "exactly_once.py",
            *(self.store, self.effects, self.data, way, life, dies_in),
            **env,
        )
        self.lives.add(life)
        child.expect("open")
        child.say("go")
        return child

    def heard(self, lines: list[str]) -> int:
        """Keep what a child was told; how many acknowledgements these were."""
        found = [json.loads(line[4:]) for line in lines if line.startswith("ack ")]
        self.acks += found
        return len(found)

    def kill(self, child: Any) -> list[str]:
        """SIGKILL, then look at the order of the turn before anybody recovers."""
        self.dead.add(child.pid)
        self.heard(child.kill())
        found: list[str] = self.audits.armed(self.store, self.effects)
        return found

    def drain(self, **env: str) -> None:
        """One process drives everything to its end."""
        child = self.child("drain", **env)
        child.expect("done")
        assert child.finish() == []

    def audit(self) -> list[str]:
        """The audit's findings."""
        webhooks = [json.loads(line) for line in self.data.read_text().splitlines()]
        laps = 2 + len(self.acks) // len(webhooks)
        planned = {
            tf.cid_of(self.plainly.in_round(each, life, lap)): self.plainly.fires(each)
            for life in self.lives | {life - 1 for life in self.lives}
            for lap in range(laps if life in self.lives else 1)
            for each in webhooks
        }
        found: list[str] = self.audits.audit(
            self.store, self.effects, acks=self.acks, planned=planned, dead=self.dead
        )
        return found

    def summary(self) -> str:
        """What there was to audit."""
        return f"{len(self.acks)} acknowledged, {self.audits.summary(self.store, self.effects)}"


@pytest.fixture
def story(
    tmp_path: Path,
    github: Path,
    processes: Any,
    child_module: Callable[[str], Any],
    monkeypatch: pytest.MonkeyPatch,
) -> Story:
    monkeypatch.syspath_prepend(str(Path(__file__).parent / "children"))
    return Story(tmp_path, github, processes, child_module)


def run_until(story: Story, children: list[Any], moments: list[int]) -> int:
    """Read what the children say until one has got its number of acks; which one."""
    counts = [0] * len(children)
    until = time.monotonic() + LIMIT
    while True:
        for index, child in enumerate(children):
            counts[index] += story.heard(child.pull(0.01))
            if counts[index] >= moments[index]:
                return index
            assert not child.over, f"child {child.pid} ended:\n{child.complaints()}"
        assert time.monotonic() < until, f"only {counts} acks of {moments}"


@pytest.mark.slow
def test_sigkill_at_random_moments(story: Story, report: Callable[[str], None]) -> None:
    """After ten kills nothing acknowledged is lost, nothing fired twice, everything ends."""
    chance = random.Random(20_260_101)
    findings: list[str] = []
    life = 0
    for _ in range(4):
        life += 1
        child = story.child("append", life)
        run_until(story, [child], [chance.randint(1, 250)])
        findings += story.kill(child)
    # Two at once: one of them dies, a new one comes to the survivor's side, and so on.
    # Each begins with what the life before it appends: duplicates meet, old and concurrent.
    pair = [story.child("append", life + 1), story.child("append", life + 2)]
    life += 2
    for _ in range(4):
        loser = run_until(story, pair, [chance.randint(20, 200), chance.randint(20, 200)])
        findings += story.kill(pair[loser])
        life += 1
        pair[loser] = story.child("append", life)
    for child in pair:
        findings += story.kill(child)
    assert len(story.dead) == 10
    story.drain()
    report(f"ten kills: {story.summary()}")
    assert findings + story.audit() == []
    assert "locked" not in story.processes.complaints()
    assert len({cid for cid, *_ in story.acks}) > 300


def test_a_step_that_kills_its_process_was_armed_durably(story: Story) -> None:
    """A step's first act can't come before the commit that arms it; the next run ends it."""
    child = story.child("append", 10, "call:second#0")
    story.dead.add(child.pid)
    while not child.over:
        story.heard(child.pull(LIMIT))
    assert child.process.wait(LIMIT) == -signal.SIGKILL
    assert story.audits.armed(story.store, story.effects) == []
    story.drain()
    assert story.audit() == []
    again = [run for run in story.audits.effects_of(story.effects) if run.attempt > 1]
    assert "call:second#0" in {run.tag for run in again}


def stale_worker(story: Story, word: str, **env: str) -> None:
    """A worker stands still past its lease in a step; another takes over; it wakes again."""
    args = (story.store, story.effects)
    holder = story.processes.start("stale.py", *args, "holder", 1.0, **env)
    said = [holder.line(), holder.line()]
    assert "holding" in said
    story.heard(said)
    holder.stand_still(story.store)
    story.dead.add(holder.pid)
    successor = story.processes.start("stale.py", *args, "successor", 1.0)
    assert successor.expect("done") == "done"
    assert successor.finish() == []
    holder.say(word)
    os.kill(holder.pid, signal.SIGCONT)
    holder.expect("idle")
    assert holder.finish() == []


STALE = {"type": "Follow", "actor": "https://a.example/ann"}


@pytest.mark.parametrize("word", ["fail", "succeed"])
def test_stale_worker_changes_nothing(story: Story, word: str) -> None:
    """What a worker brings after it lost its lease, failure or result, is refused."""
    stale_worker(story, word)
    assert stale_audit(story) == []


def stale_audit(story: Story) -> list[str]:
    """The audit of the one activity of `stale.py`."""
    found: list[str] = story.audits.audit(
        story.store,
        story.effects,
        acks=story.acks,
        planned={tf.cid_of(STALE): ["every"]},
        dead=story.dead,
    )
    return found


# --- the same audit, one guard taken away -------------------------------------------------

SABOTAGE = "TRIGGERFLOW_TEST_SABOTAGE"


def test_audit_notices_that_the_pair_is_not_unique(story: Story) -> None:
    """Without the duplicate check and the unique pair, the audit finds what fired twice."""
    child = story.child("rounds", 10, **{SABOTAGE: "pair"})
    story.heard(child.finish())
    found = story.audit()
    assert any("stored 2 times" in each for each in found), found[:5]
    assert any("fired 2 times" in each for each in found), found[:5]


def test_audit_is_clean_without_sabotage(story: Story) -> None:
    """The same round with all guards in place has no finding: the audit cries no wolf."""
    child = story.child("rounds", 10)
    story.heard(child.finish())
    assert story.audits.armed(story.store, story.effects) == []
    assert story.audit() == []


def test_audit_notices_that_the_fence_is_gone(story: Story) -> None:
    """Without epoch, owner, generation and length, a stale worker undoes a finished flow."""
    stale_worker(story, "fail", **{SABOTAGE: "fence"})
    found = stale_audit(story)
    assert any("expected done" in each for each in found), found
    assert any("log_length says 0" in each for each in found), found


def test_audit_notices_a_step_before_its_commit(story: Story) -> None:
    """With the turn's order broken, a step did what no record knows of."""
    child = story.child("append", 10, "call:second#0", **{SABOTAGE: "order"})
    story.dead.add(child.pid)
    while not child.over:
        story.heard(child.pull(LIMIT))
    assert child.process.wait(LIMIT) == -signal.SIGKILL
    found = story.audits.armed(story.store, story.effects)
    assert any("call:second#0 ran before its arming was durable" in each for each in found)
    assert any("ran on a result of call:first#0 in no log" in each for each in found), found
    story.drain()
    assert any("ran again after what is built on it" in each for each in story.audit())
