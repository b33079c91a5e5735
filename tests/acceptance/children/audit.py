"""What must be true of a store after any number of kills, asked in plain SQL.

Nothing here uses triggerflow: an audit that shares code with what it audits shares its
mistakes. Each finding is a line of text; a clean store has none.
"""

from __future__ import annotations

import sqlite3
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

import cbor2
from plainly import FLOWS, STEPS

Ack = Sequence[Any]
"""(cid, seq, duplicate, [[trigger, instance], ...]) as a child was told."""


class Effect(NamedTuple):
    """One run of a step, as the world outside saw it."""

    instance: str
    tag: str
    attempt: int
    pid: int


def effects_of(path: Path) -> list[Effect]:
    """All runs of steps, in the order in which they began."""
    if not path.exists():
        return []
    found = []
    for line in path.read_text().splitlines():
        instance, tag, attempt, pid = line.split()
        found.append(Effect(instance, tag, int(attempt), int(pid)))
    return found


def armed(store: Path, effects: Path) -> list[str]:
    """The order of the turn: asked of a store right after a kill, before anybody recovers.

    Whatever a step did outside, the record knows that it was to run, and holds the results
    that it was built on.
    """
    runs = effects_of(effects)  # first: what runs later than this is of no concern
    with closing(sqlite3.connect(store)) as db:
        db.execute("BEGIN")
        recorded: dict[str, set[str]] = defaultdict(set)
        for instance, tag in db.execute(
            "SELECT i.public_id, l.tag FROM log l JOIN instance i ON i.id = l.instance"
        ):
            recorded[instance].add(tag)
        flows: dict[str, str] = {}
        waiting: dict[str, set[str]] = defaultdict(set)
        for instance, flow, pending in db.execute(
            "SELECT public_id, flow, pending FROM instance"
        ):
            flows[instance] = flow
            if pending is not None:
                waiting[instance] = {row[0] for row in cbor2.loads(pending)}
    found = []
    for run in runs:
        if run.instance not in flows:
            found.append(f"{run.instance}: {run.tag} ran for an instance that isn't stored")
            continue
        if run.tag not in recorded[run.instance] | waiting[run.instance]:
            found.append(f"{run.instance}: {run.tag} ran before its arming was durable")
        for before in STEPS[flows[run.instance]].get(run.tag, ()):
            if before not in recorded[run.instance]:
                found.append(f"{run.instance}: {run.tag} ran on a result of {before} in no log")
    return found


def audit(
    store: Path,
    effects: Path,
    *,
    acks: Iterable[Ack],
    planned: Mapping[str, Sequence[str]],
    dead: set[int],
) -> list[str]:
    """Exactly once: asked at the end, when everything was driven as far as it goes.

    Args:
        acks: what the children were told after their appends.
        planned: CID of every document that may have been appended -> its triggers.
        dead: ids of the processes that were killed, or stood still past their lease.
    """
    with closing(sqlite3.connect(store)) as db:
        return [
            *_activities(db, acks, planned),
            *_firings(db),
            *_instances(db),
            *_logs(db),
            *_steps(db, effects_of(effects), dead),
        ]


def _activities(
    db: sqlite3.Connection, acks: Iterable[Ack], planned: Mapping[str, Sequence[str]]
) -> list[str]:
    found = [f"integrity: {row}" for (row,) in db.execute("PRAGMA integrity_check")][1:]
    stored: dict[str, list[int]] = defaultdict(list)
    for seq, cid in db.execute("SELECT seq, cid FROM activity"):
        stored[cid].append(seq)
    fired: dict[str, list[list[str]]] = defaultdict(list)
    for cid, trigger, instance in db.execute(
        "SELECT a.cid, t.name, f.instance FROM firing f JOIN activity a ON a.seq = f.activity"
        " JOIN trigger_spec t ON t.id = f.trigger_spec ORDER BY f.id"
    ):
        fired[cid].append([trigger, instance])
    for cid, seqs in stored.items():
        if len(seqs) > 1:
            found.append(f"activity {cid}: stored {len(seqs)} times")
        if cid not in planned:
            found.append(f"activity {cid}: nobody appended it")
        elif [trigger for trigger, _ in fired[cid]] != list(planned[cid]):
            found.append(f"activity {cid}: fired {fired[cid]}, expected {planned[cid]}")
    first: Counter[str] = Counter()
    for cid, seq, duplicate, told in acks:
        first[cid] += not duplicate
        if stored.get(cid) != [seq]:
            found.append(f"activity {cid}: acknowledged as {seq}, stored as {stored.get(cid)}")
        if told != fired[cid]:
            found.append(f"activity {cid}: acknowledged {told}, stored {fired[cid]}")
    found += [f"activity {cid}: new {n} times" for cid, n in first.items() if n > 1]
    return found


def _firings(db: sqlite3.Connection) -> list[str]:
    found = [
        f"pair ({cid}, {trigger}) fired {n} times"
        for cid, trigger, n in db.execute(
            "SELECT a.cid, t.cid, count(*) FROM firing f JOIN activity a ON a.seq = f.activity"
            " JOIN trigger_spec t ON t.id = f.trigger_spec GROUP BY 1, 2 HAVING count(*) > 1"
        )
    ]
    found += [
        f"firing {number} ({outcome}) has {n} instances"
        for number, outcome, n in db.execute(
            "SELECT f.id, f.outcome, count(i.id) FROM firing f LEFT JOIN instance i ON"
            " i.public_id = f.instance AND i.activity = f.activity"
            " AND i.trigger_spec = f.trigger_spec GROUP BY f.id HAVING count(i.id) <> 1"
        )
    ]
    found += [
        f"instance {instance} has {n} firings"
        for instance, n in db.execute(
            "SELECT i.public_id, count(f.id) FROM instance i LEFT JOIN firing f ON"
            " f.instance = i.public_id GROUP BY i.id HAVING count(f.id) <> 1"
        )
    ]
    return found


def _instances(db: sqlite3.Connection) -> list[str]:
    found = []
    for instance, status, owner, value, ended, flow, trigger in db.execute(
        "SELECT i.public_id, i.status, i.owner, i.value, i.ended, i.flow, t.name"
        " FROM instance i LEFT JOIN trigger_spec t ON t.id = i.trigger_spec"
    ):
        if (status, owner) != ("done", None) or value is None or ended is None:
            found.append(f"instance {instance}: {status}, owned by {owner}, expected done")
        if FLOWS[trigger] != flow:
            found.append(f"instance {instance}: {trigger} started {flow}")
    left = db.execute("SELECT count(*) FROM inbox").fetchone()[0]
    if left:
        found.append(f"{left} messages to ended instances are left")
    return found


def _logs(db: sqlite3.Connection) -> list[str]:
    logs: dict[int, list[tuple[int, str]]] = defaultdict(list)
    for instance, generation, position, tag in db.execute(
        "SELECT instance, generation, position, tag FROM log ORDER BY id"
    ):
        assert generation == 1
        logs[instance].append((position, tag))
    found = []
    for number, instance, flow, length in db.execute(
        "SELECT id, public_id, flow, log_length FROM instance"
    ):
        positions = [position for position, _ in logs[number]]
        tags = [tag for _, tag in logs[number]]
        if positions != list(range(len(tags))):
            found.append(f"log of {instance}: its positions are {positions}")
        if length != len(tags):
            found.append(f"log of {instance}: {len(tags)} entries, log_length says {length}")
        if sorted(tags) != sorted(STEPS[flow]):
            found.append(f"log of {instance}: its tags are {tags}")
        for place, tag in enumerate(tags):
            if not set(STEPS[flow].get(tag, ())) <= set(tags[:place]):
                found.append(f"log of {instance}: {tag} stands before what it is built on")
    return found


def _steps(db: sqlite3.Connection, runs: list[Effect], dead: set[int]) -> list[str]:
    flows = dict(db.execute("SELECT public_id, flow FROM instance"))
    recorded = set(
        db.execute(
            "SELECT i.public_id, l.tag FROM log l JOIN instance i ON i.id = l.instance"
            " WHERE l.tag LIKE '%call:%'"
        )
    )
    found = []
    by_step: dict[tuple[str, str], list[Effect]] = defaultdict(list)
    passed: dict[str, set[str]] = defaultdict(set)
    for run in runs:
        step = (run.instance, run.tag)
        if run.tag in passed[run.instance]:
            found.append(f"{run.instance}: {run.tag} ran again after what is built on it")
        passed[run.instance] |= set(STEPS[flows.get(run.instance, "three")].get(run.tag, ()))
        by_step[step].append(run)
    found += [f"{i}: {tag} ran and left no entry" for i, tag in by_step.keys() - recorded]
    found += [f"{i}: {tag} has an entry and never ran" for i, tag in recorded - by_step.keys()]
    for (instance, tag), each in by_step.items():
        pids = [run.pid for run in each]
        if len(set(pids)) < len(pids) or not set(pids[:-1]) <= dead:
            found.append(f"{instance}: {tag} ran in {pids}, of which died {set(pids) & dead}")
        attempts = [run.attempt for run in each]
        if attempts != sorted(attempts):
            found.append(f"{instance}: {tag} counted its attempts as {attempts}")
    return found


def summary(store: Path, effects: Path) -> str:
    """What an audit looked at, in numbers."""
    with closing(sqlite3.connect(store)) as db:
        counts = [
            f"{db.execute(f'SELECT count(*) FROM {table}').fetchone()[0]} {name}"
            for table, name in (
                ("activity", "activities"),
                ("firing", "firings"),
                ("instance", "instances"),
            )
        ]
        entries = db.execute("SELECT count(*) FROM log").fetchone()[0]
    runs = effects_of(effects)
    again = len(runs) - len({(run.instance, run.tag) for run in runs})
    return f"{', '.join(counts)}, {entries} entries, {len(runs)} runs of steps, {again} again"
