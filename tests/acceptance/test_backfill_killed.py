"""Backfill and catching up, by real processes that are killed: the counts reconcile exactly."""

from __future__ import annotations

import json
import random
import sqlite3
from pathlib import Path

import pytest

COUNT = 6000
ROUNDS = 6


@pytest.fixture
def story(tmp_path, processes):
    """A store with a history, and a way to start children on it."""
    store = tmp_path / "history.db"

    def start(way: str, life: int = 0):
        child = processes.start("history.py", store, way, life)
        child.expect("open")
        child.say("go")
        return child

    start("prepare", COUNT).expect("done")
    return store, start


def audit(store: Path, acks: list[str]) -> dict[str, int]:
    """Every count, from the tables alone."""
    db = sqlite3.connect(store)

    def one(sql: str, *bound: object) -> int:
        found: int = db.execute(sql, bound).fetchone()[0]
        return found

    def fired(name: str, where: str = "1") -> int:
        return one(
            "SELECT count(*) FROM firing f JOIN trigger_spec t ON t.id = f.trigger_spec"
            f" WHERE t.name = ? AND {where}",
            name,
        )

    walks = {
        kind: counts
        for kind, *counts in db.execute(
            "SELECT kind, state, last, looked, fired, unstarted, known, removed FROM backfill"
        )
    }
    # A tenth of the history fires, and of that the guard raises at every second.
    hits = COUNT // 10
    state, last, looked, started, unstarted, known, removed = walks["backfill"]
    assert (state, looked, removed) == ("done", last, 0)
    # The activities that were paused are part of the history, and meet `early` alone.
    assert last >= COUNT + hits
    assert started == fired("late", "f.source = 'backfill' AND f.instance IS NOT NULL")
    assert unstarted == fired("late", "f.source = 'backfill' AND f.error IS NOT NULL")
    assert started + unstarted + known >= hits
    state, _, looked, started, unstarted, known, removed = walks["resume"]
    assert (state, looked, started, unstarted, removed) == ("done", hits, hits, 0, 0)
    assert fired("early") == fired("early", "f.source = 'resume'") == hits
    assert one("SELECT count(*) FROM firing_history") == hits
    # One firing and one instance for each Follow, whoever brought it, whoever saw it.
    follows = one("SELECT count(*) FROM activity WHERE types LIKE '%Follow%'")
    assert fired("late") == follows
    bad = fired("late", "f.outcome = 'guard_error'")
    assert bad == one(
        "SELECT count(*) FROM activity WHERE types LIKE '%Follow%' AND"
        " seq IN (SELECT activity FROM firing WHERE error IS NOT NULL)"
    )
    instances = one("SELECT count(*) FROM instance")
    assert instances == hits + follows - bad
    assert one("SELECT count(*) FROM instance WHERE status = 'done'") == instances
    assert one("SELECT count(DISTINCT public_id) FROM instance") == instances
    assert one("SELECT count(*) FROM log") == instances
    for line in acks:
        cid, outcomes = json.loads(line[4:])
        assert len(outcomes) == 1
        assert one("SELECT count(*) FROM activity WHERE cid = ?", cid) == 1
    db.close()
    return {"follows": follows, "errors": bad, "instances": instances, "acks": len(acks)}


def unfinished(store: Path) -> bool:
    """Whether the backfill is somewhere between its beginning and its end."""
    db = sqlite3.connect(store)
    rows = db.execute(
        "SELECT 1 FROM backfill WHERE ended IS NULL AND cursor >= first AND cursor < last"
    ).fetchall()
    db.close()
    return bool(rows)


@pytest.mark.slow
def test_killed_in_the_middle(story, processes, report):
    """Two workers at a time, killed at random moments; nothing is lost, nothing fires twice."""
    store, start = story
    chance = random.Random(7)
    acks: list[str] = []
    kills = amid = 0
    for life in range(ROUNDS):
        children = [start("work", 2 * life + number) for number in range(2)]
        # Not all it says: it may have moved to the end.
        for _ in range(chance.randrange(2, 12)):
            acks += [line] if (line := children[0].line()).startswith("ack ") else []
        for child in children:
            acks += [line for line in child.kill() if line.startswith("ack ")]
            kills += 1
        amid += unfinished(store)
    assert amid >= ROUNDS // 2
    last = start("drain")
    last.expect("done")
    assert last.finish() == []
    found = audit(store, acks)
    report(f"{kills} SIGKILLs, {amid} of {ROUNDS} times amid a walk: {found}")
