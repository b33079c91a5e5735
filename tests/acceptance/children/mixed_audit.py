"""What must be true of a store full of `mixed.py`'s flows, asked in plain SQL.

Nothing here uses triggerflow. Each finding is a line of text; a clean store has none.
"""

from __future__ import annotations

import json
import sqlite3
from collections import Counter, defaultdict
from collections.abc import Collection, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import cbor2

KINDS = (
    *("plain", "flaky", "race", "signal", "family", "saga", "again", "paid", "echo"),
    *("queued", "lost", "undone", "dropped", "keyed"),
)
RUNS = {"call:flaky#0": 3, "gather#0[0]/call:far_flaky#0": 3}
"""How often a step runs where nobody dies; once, where it isn't here."""


HISTORY = """
CREATE TABLE history (
    id INTEGER PRIMARY KEY, what TEXT, instance INTEGER, generation INTEGER, tag TEXT,
    token INTEGER, owner INTEGER
);
CREATE TRIGGER history_armed AFTER INSERT ON task BEGIN
    INSERT INTO history (what, instance, generation, tag)
    VALUES ('armed', new.instance, new.generation, new.tag);
END;
CREATE TRIGGER history_claimed AFTER UPDATE OF token ON task BEGIN
    INSERT INTO history (what, instance, generation, tag, token, owner)
    VALUES ('claimed', new.instance, new.generation, new.tag, new.token, new.owner);
END;
CREATE TRIGGER history_again AFTER UPDATE OF due ON task
WHEN old.due IS NULL AND new.due IS NOT NULL BEGIN
    INSERT INTO history (what, instance, generation, tag)
    VALUES ('again', new.instance, new.generation, new.tag);
END;
CREATE TRIGGER history_first AFTER INSERT ON task_answer BEGIN
    INSERT INTO history (what, instance, generation, tag, token)
    VALUES ('answered', new.instance, new.generation, new.tag, new.token);
END;
CREATE TRIGGER history_later AFTER UPDATE ON task_answer BEGIN
    INSERT INTO history (what, instance, generation, tag, token)
    VALUES ('answered', new.instance, new.generation, new.tag, new.token);
END;
CREATE TRIGGER history_over AFTER DELETE ON task BEGIN
    INSERT INTO history (what, instance, generation, tag)
    VALUES ('over', old.instance, old.generation, old.tag);
END;
CREATE TRIGGER history_worker AFTER INSERT ON worker BEGIN
    INSERT INTO history (what, token, owner) VALUES ('worker', new.pid, new.id);
END;
"""
"""What the database itself keeps of its tasks, whatever the engine believes."""


def watch(store: Path) -> None:
    """Let the database keep the history of its tasks from now on."""
    with closing(sqlite3.connect(store)) as db:
        db.executescript(HISTORY)


def is_right(flow: str, n: int, status: str, result: Any) -> bool:
    """Whether a flow ended as it had to."""
    if flow == "dropped":
        # On the queue that is served it may have been there before its cancel.
        fast = n // len(KINDS) % 2 == 1 and (status, result) == ("done", n)
        return status == "cancelled" or fast
    if flow == "lost":
        return status == "done" and result in (0, 1)
    whole = n + 1 if flow in ("leaf", "answer") else expected(n)
    return bool((status, result) == ("done", whole))


def expected(n: int) -> Any:
    """What the flow number n returns, where only one result is right."""
    kind = KINDS[n % len(KINDS)]
    values = {
        "plain": n + 3,
        "flaky": n + 1,
        "race": [True, n + 1, n + 2],
        "signal": n + 1,
        "family": [n + 1, n + 2, n + 3],
        "saga": [-5] if n % 3 == 0 else "charged",
        "again": n + 3,
        "paid": [[n, 1], [n, 2]],
        "echo": [n],
        "queued": [n + 1, n + 1, n + 2],
        "lost": None,
        "undone": [-5] if n % 3 == 0 else "charged",
        "dropped": None,
        "keyed": n + 1,
    }
    return values[kind]


def audit(
    store: Path,
    world: Path,
    *,
    acks: Mapping[int, tuple[str | None, str]],
    doubtful: Collection[int],
    dead: Collection[int],
) -> list[str]:
    """Everything ended as it had to, once.

    Args:
        acks: number of a flow -> the CID and the instance that were acknowledged.
        doubtful: numbers that were asked for in a life that ended before it said so.
        dead: ids of the processes that were killed.
    """
    with closing(sqlite3.connect(store)) as db:
        return [
            *[f"integrity: {row}" for (row,) in db.execute("PRAGMA integrity_check")][1:],
            *_flows(db, acks, doubtful),
            *_kin(db),
            *_logs(db),
            *_left_over(db),
            *_steps(db, world, set(dead)),
            *_money(db, world),
            *_tasks(db, set(dead)),
        ]


def _flows(
    db: sqlite3.Connection,
    acks: Mapping[int, tuple[str | None, str]],
    doubtful: Collection[int],
) -> list[str]:
    found = []
    instances: dict[int, list[str]] = defaultdict(list)
    for id, flow, status, value, input, parent in db.execute(
        "SELECT i.public_id, i.flow, i.status, i.value, g.input, i.parent FROM instance i"
        " JOIN generation g ON g.instance = i.id AND g.generation = 1"
    ):
        given = cbor2.loads(input)
        n = given if isinstance(given, int) else given["n"]
        result = None if value is None else cbor2.loads(value)
        if not is_right(flow, n, status, result):
            found.append(f"{flow} {n} ({id}) is {status} with {result}, expected {expected(n)}")
        if flow not in ("leaf", "answer"):
            instances[n].append(id)
    for n, (_, id) in acks.items():
        if id not in instances[n]:
            found.append(f"flow {n}: acknowledged as {id}, stored as {instances[n]}")
    for n, ids in instances.items():
        # Whoever starts by a key, dies and starts again, may find the key free again.
        most = 99 if n in doubtful and KINDS[n % len(KINDS)] == "keyed" else 1
        if not 1 <= len(ids) <= most:
            found.append(f"flow {n}: {len(ids)} instances: {ids}")
        if n not in acks and n not in doubtful:
            found.append(f"flow {n}: nobody asked for it")
    kinds: Counter[tuple[str, int]] = Counter()
    for types, document in db.execute("SELECT types, document FROM activity"):
        (type,) = json.loads(types)
        kinds[type, cbor2.loads(document)["n"]] += 1
    found += [f"activity {each} is stored {n} times" for each, n in kinds.items() if n > 1]
    for n, (cid, id) in acks.items():
        if cid is None:
            continue
        rows = db.execute(
            "SELECT f.instance, f.error FROM activity a JOIN firing f ON f.activity = a.seq"
            " WHERE a.cid = ?",
            (cid,),
        ).fetchall()
        if rows != [(id, None)]:
            found.append(f"flow {n}: acknowledged as {id}, fired {rows}")
        if KINDS[n % len(KINDS)] == "echo":
            asked = [kinds["Ask", n], kinds["Answer", n]]
            if asked != [1, 1]:
                found.append(f"flow {n}: asked and answered {asked} times")
    pairs = db.execute(
        "SELECT activity, trigger_spec, count(*) FROM firing GROUP BY 1, 2 HAVING count(*) > 1"
    )
    found += [f"pair {pair} fired {n} times" for *pair, n in pairs]
    return found


def _kin(db: sqlite3.Connection) -> list[str]:
    found = []
    for id, flow, n, tags in db.execute(
        "SELECT p.public_id, p.flow, count(c.id), count(DISTINCT c.parent_tag)"
        " FROM instance p LEFT JOIN instance c ON c.parent = p.id GROUP BY p.id"
    ):
        whole = 3 if flow == "family" else 0
        if (n, tags) != (whole, whole):
            found.append(f"{flow} {id} has {n} children of {tags} tags, expected {whole}")
    orphans = db.execute(
        "SELECT public_id FROM instance WHERE flow = 'leaf' AND"
        " (parent IS NULL OR parent NOT IN (SELECT id FROM instance))"
    )
    return found + [f"leaf {id} has no parent" for (id,) in orphans]


def _logs(db: sqlite3.Connection) -> list[str]:
    found = []
    logs: dict[tuple[int, int], list[tuple[int, str, float]]] = defaultdict(list)
    for number, generation, position, tag, at in db.execute(
        "SELECT instance, generation, position, tag, at FROM log ORDER BY id"
    ):
        logs[number, generation].append((position, tag, at))
    for number, id, generation, length in db.execute(
        "SELECT id, public_id, generation, log_length FROM instance"
    ):
        if len(logs[number, generation]) != length:
            found.append(f"log of {id}: {len(logs[number, generation])}, length says {length}")
    for (number, generation), rows in logs.items():
        positions, tags, times = map(list, zip(*rows, strict=True)) if rows else ([], [], [])
        if positions != list(range(len(rows))):
            found.append(f"log {number}/{generation}: its positions are {positions}")
        if len(set(tags)) < len(tags):
            found.append(f"log {number}/{generation}: a tag stands twice in {tags}")
        if times != sorted(times):
            found.append(f"log {number}/{generation}: its times are {times}")
    return found


def _left_over(db: sqlite3.Connection) -> list[str]:
    asks = {
        "messages": "SELECT count(*) FROM inbox",
        "open waits": "SELECT count(*) FROM wait",
        "deferred dispatches": "SELECT count(*) FROM outbox",
        "owned instances": "SELECT count(*) FROM instance WHERE owner IS NOT NULL",
        "notes of progress": "SELECT count(*) FROM progress",
        "tasks": "SELECT count(*) FROM task",
        "answers of ended calls": "SELECT count(*) FROM task_answer",
    }
    counts = {name: db.execute(ask).fetchone()[0] for name, ask in asks.items()}
    return [f"{n} {name} are left over" for name, n in counts.items() if n]


def _tasks(db: sqlite3.Connection, dead: set[int]) -> list[str]:
    """Each task was armed, claimed, answered and over in that order, once, by who held it."""
    found = []
    last = 0
    pids: dict[int, int] = {}
    state: dict[tuple[int, int, str], tuple[str, int, int]] = {}
    kept: set[tuple[int, int, str]] = set()
    # What may come before each; nothing before the first.
    before = {
        "armed": ("", "over"),
        "claimed": ("armed", "claimed", "again"),
        "answered": ("claimed",),
        "again": ("answered",),
        "over": ("armed", "claimed", "answered", "again"),
    }
    for what, instance, generation, tag, token, owner in db.execute(
        "SELECT what, instance, generation, tag, token, owner FROM history ORDER BY id"
    ):
        if what == "worker":
            pids[owner] = token
            continue
        call = (instance, generation, tag)
        was, held, holder = state.get(call, ("", 0, 0))
        if was not in before[what]:
            found.append(f"task {call} was {what} after it was {was or 'nothing'}")
        if what == "claimed":
            if token <= last:
                found.append(f"task {call}: claimed under {token}, after {last} was given")
            if was == "claimed" and pids[holder] not in dead:
                found.append(f"task {call}: claimed from worker {holder}, which lives")
            last, held, holder = max(last, token), token, owner
        elif what == "answered" and token != held:
            found.append(f"task {call}: answered under {token}, claimed under {held}")
        elif what == "over" and was == "answered":
            kept.add(call)
        state[call] = (what, held, holder)
    found += [f"task {call} is {what}, not over" for call, (what, *_) in state.items()
              if what != "over"]  # fmt: skip
    # A result in a log is an answer's; an answer is in the log, where its flow still waited.
    results = set(
        db.execute(
            "SELECT instance, generation, tag FROM log"
            " WHERE tag LIKE '%call:far%' OR tag LIKE '%compensate:far%'"
        )
    )
    given_up = {
        id for (id,) in db.execute("SELECT id FROM instance WHERE flow IN ('lost', 'dropped')")
    }
    found += [f"{call} has an entry and no answer" for call in results - kept]
    found += [
        f"{call} has an answer and no entry"
        for call in kept - results
        if call[0] not in given_up
    ]
    found += [
        f"{call} was withdrawn, and its flow waits for it"
        for call in state.keys() - kept
        if call[0] not in given_up
    ]
    return found


def runs_of(world: Path) -> dict[tuple[str, ...], list[int]]:
    """(instance, generation, tag) -> the processes in which it ran, in order."""
    found: dict[tuple[str, ...], list[int]] = defaultdict(list)
    for line in world.with_suffix(".txt").read_text().splitlines():
        *key, _, pid = line.split()
        found[tuple(key)].append(int(pid))
    return found


def _attempts(world: Path, dead: set[int]) -> list[str]:
    """Runs of a queued call have numbers of their own, larger and larger.

    Who stood still past its lease may begin late what it had claimed: that counts for nothing.
    """
    largest: dict[tuple[str, ...], int] = {}
    seen: set[tuple[str, ...]] = set()
    found = []
    for line in world.with_suffix(".txt").read_text().splitlines():
        *key, attempt, pid = line.split()
        call = tuple(key)
        if ":far_" not in key[2]:
            continue
        if (*call, attempt) in seen:
            found.append(f"{call} ran twice as attempt {attempt}")
        seen.add((*call, attempt))
        if int(pid) in dead:
            continue
        if int(attempt) < largest.get(call, 0):
            found.append(f"{call} ran as attempt {attempt} after {largest[call]}")
        largest[call] = int(attempt)
    return found


def _steps(db: sqlite3.Connection, world: Path, dead: set[int]) -> list[str]:
    found = _attempts(world, dead)
    runs = runs_of(world)
    recorded = {
        (id, str(generation), tag): tag
        for id, generation, tag in db.execute(
            "SELECT i.public_id, l.generation, l.tag FROM log l"
            " JOIN instance i ON i.id = l.instance"
        )
    }
    for key, pids in runs.items():
        most = RUNS.get(key[2], 1)
        explained = sum(pid in dead for pid in pids)
        if len(pids) - explained > most or max(Counter(pids).values()) > most:
            found.append(f"{key} ran in {pids}; died: {sorted(set(pids) & dead)}")
    for key, tag in recorded.items():
        plain = "call:" in tag and "call:pay#" not in tag
        if (plain or "compensate:" in tag) and key not in runs:
            found.append(f"{key} has an entry and never ran")
    return found


def _money(db: sqlite3.Connection, world: Path) -> list[str]:
    found = []
    with closing(sqlite3.connect(world.with_suffix(".db"))) as bank:
        sums = dict(bank.execute("SELECT n, sum(amount) FROM ledger GROUP BY n"))
    for flow, input, value in db.execute(
        "SELECT i.flow, g.input, i.value FROM instance i"
        " JOIN generation g ON g.instance = i.id"
        " WHERE i.flow IN ('saga', 'undone', 'lost')"
    ):
        n = cbor2.loads(input)["n"]
        if flow == "lost":
            whole = 5 if value is not None and cbor2.loads(value) == 0 else 0
        else:
            whole = 0 if n % 3 == 0 else 12
        if sums.get(n) != whole:
            found.append(f"{flow} {n}: its account stands at {sums.get(n)}, expected {whole}")
    rows: Counter[tuple[int, int]] = Counter()
    if db.execute("SELECT 1 FROM sqlite_master WHERE name = 'payment'").fetchone():
        rows.update(map(tuple, db.execute("SELECT n, leg FROM payment")))
    results: Counter[tuple[int, int]] = Counter()
    for (value,) in db.execute(
        "SELECT value FROM log WHERE tag LIKE '%call:pay#0' AND NOT failed"
    ):
        results[tuple(cbor2.loads(value))] += 1
    found += [f"payment {each} is no step's result" for each in rows - results]
    found += [f"result {each} has no payment" for each in results - rows]
    return found


def summary(store: Path, world: Path) -> str:
    """What an audit looked at, in numbers."""
    with closing(sqlite3.connect(store)) as db:
        counts = [
            f"{db.execute(f'SELECT count(*) FROM {table}').fetchone()[0]:,} {name}"
            for table, name in (
                ("activity", "activities"),
                ("instance", "instances"),
                ("generation", "generations kept"),
                ("log", "entries kept"),
            )
        ]
        told = Counter(
            dict(db.execute("SELECT what, count(*) FROM history GROUP BY what").fetchall())
        )
    counts.append(
        f"{told['armed']:,} queued calls, claimed {told['claimed']:,} times,"
        f" {told['answered']:,} answers"
    )
    runs = runs_of(world)
    total = sum(map(len, runs.values()))
    again = sum(max(0, len(pids) - RUNS.get(key[2], 1)) for key, pids in runs.items())
    return f"{', '.join(counts)}, {total:,} runs of steps, {again:,} of them again"
