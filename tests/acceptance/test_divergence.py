"""A changed flow is noticed in each of five ways, harms nothing, and heals by itself.

`children/orders` has the flow as it was deployed (`v1`) and five changed ones. What changed
is always before the point at which the instance stands: once it is parked there with its
log, once its process was killed while the very call that changed was in flight, so that the
log is empty and only the pending set can tell.
"""

from __future__ import annotations

import importlib
import json
import signal
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

import triggerflow as tf
from triggerflow.core.log import decode_pending
from triggerflow.store.sqlite import MemoryStore, SqliteStore

LIMIT = 20.0
# change -> what the record has, and what the changed code asks for instead
CHANGES = {
    "renamed": ("call:charge#0", "call:bill#0"),
    "argument": ("call:charge#0", "call:charge#0, arguments"),
    "removed": ("call:charge#0", "call:ship#0"),
    "added": ("call:charge#0", "call:inspect#0"),
    "swapped": ("call:charge#0", "call:ship#0"),
}


@pytest.fixture(autouse=True)
def ran(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """The steps that ran in this process."""
    monkeypatch.syspath_prepend(str(Path(__file__).parent / "children"))
    steps = importlib.import_module("orders.steps")
    steps.RAN.clear()
    yield steps.RAN


def order(version: str) -> tf.Flow:
    """One version of the flow."""
    found: tf.Flow = importlib.import_module(f"orders.{version}").order
    return found


def app(store: Any, version: str) -> tf.App:
    """An app that knows one version of the flow, as a deployment of it would."""
    made = tf.App(store=store, entry_points=False)
    made.register(order(version))
    return made


def names_both_sides(reason: str, change: str) -> None:
    """The reason is for people: both sides, the place in the code, and what to do."""
    recorded, now = CHANGES[change]
    lines = [line.strip() for line in reason.splitlines()]
    assert "flow order/1 diverged from its log at position 0" in lines[0]
    (before,) = [line for line in lines if line.startswith("recorded:")]
    (after,) = [line for line in lines if line.startswith("your code now:")]
    assert recorded in before
    assert now in after
    assert before.partition(":")[2] != after.partition(":")[2]
    assert f"orders/{change}.py:" in after
    assert change != "argument" or "('lamp', 12)" in reason
    assert any(line.startswith("what to do:") for line in lines)


def replays(store: Any, ident: str, version: str) -> tf.Replay:
    """A re-drive of what is stored, with one version of the code."""
    codec = app(store, version).codec
    store.open()
    try:
        record = store.instance(ident)
        assert record is not None
        rows = store.log(record.number, record.generation)
    finally:
        store.close()
    return tf.Replay(
        order(version),
        codec.decode(record.input),
        seed=record.seed,
        started=record.started,
        log=[tf.Entry(row.tag, codec.decode(row.value), None, row.digest) for row in rows],
        stored=decode_pending(codec.decode(record.pending)),
    )


def crashes(store: Any, ident: str) -> int:
    """How many deaths of its owners are counted against an instance."""
    store.open()
    try:
        found: int = store.instance(ident).crashes
    finally:
        store.close()
    return found


@pytest.mark.parametrize("kind", ["memory", "sqlite"])
@pytest.mark.parametrize("change", CHANGES)
def test_parked_instance(change: str, kind: str, tmp_path: Path, ran: list[str]) -> None:
    """A signal wakes it under changed code: it blocks, keeps all, and goes on under the old."""
    memory = MemoryStore()

    def store() -> Any:
        return memory if kind == "memory" else SqliteStore(tmp_path / "orders.db")

    with app(store(), "v1").client() as client:
        ident = client.start("order", "lamp")
        client.run_until_idle()
        assert client.get(ident).waiting == ("wait_signal:received#0",)
        log = client.log(ident)
    assert ran == ["charge", "ship"]

    assert app(store(), change).build != app(store(), "v1").build
    for _ in range(2):
        # A second process of the same build finds the first one's verdict.
        with app(store(), change).client() as client:
            client.signal(ident, "received", "thanks", dedup="once")
            client.run_until_idle()
            blocked = client.get(ident)
            assert (blocked.status, blocked.cause) == ("blocked", "diverged")
            names_both_sides(blocked.reason or "", change)
            assert blocked.waiting == ("wait_signal:received#0",)
            assert client.log(ident) == log
            with pytest.raises(tf.WaitTimedOut, match="blocked"):
                client.wait(ident, timeout=0)
    assert crashes(store(), ident) == 0
    with pytest.raises(tf.Diverged) as caught:
        replays(store(), ident, change)
    names_both_sides(str(caught.value), change)
    assert tuple(replays(store(), ident, "v1").pending) == blocked.waiting
    assert ran == ["charge", "ship"]

    with app(store(), "v1").client() as client:
        done = client.wait(ident, timeout=LIMIT)
        assert (done.status, done.result) == ("done", "lamp: thanks")
        assert (done.cause, done.reason) == (None, None)
        assert client.log(ident)[: len(log)] == log
    assert ran == ["charge", "ship", "thank"]


@pytest.mark.parametrize("change", CHANGES)
def test_killed_with_the_changed_call_in_flight(
    change: str, tmp_path: Path, processes: Any
) -> None:
    """The log is empty and the pending set tells: no other call runs in the charge's stead."""
    path, effects = tmp_path / "orders.db", tmp_path / "ran.txt"
    env = {"TRIGGERFLOW_TEST_ORDERS": str(effects)}

    def child(version: str, way: str, **more: str) -> Any:
        return processes.start("divergence.py", path, version, way, **env, **more)

    def outcome(version: str, way: str) -> list[Any]:
        running = child(version, way)
        lines = running.finish()
        assert {line.partition(" ")[0] for line in lines} == {"found"}
        return [json.loads(line.removeprefix("found ")) for line in lines]

    first = child("v1", "start", TRIGGERFLOW_TEST_HOLD="1")
    said = sorted([first.line(), first.line()])
    assert said[0] == "charging"
    ident = json.loads(said[1].removeprefix("started "))
    first.kill()
    assert first.process.returncode == -signal.SIGKILL
    assert effects.read_text().split() == ["charge"]
    assert rows(path, "SELECT count(*) FROM log") == [(0,)]

    ((status, cause, reason, waiting, _, build),) = outcome(change, "drive")
    assert (status, cause, waiting) == ("blocked", "diverged", ["call:charge#0"])
    names_both_sides(reason, change)
    assert "in flight" in reason
    # The kill counts, the divergence doesn't; nothing of the changed code has run.
    assert rows(path, "SELECT crashes FROM instance") == [(1,)]
    assert rows(path, "SELECT build FROM tried") == [(build,)]
    assert rows(path, "SELECT count(*) FROM log") == [(0,)]
    assert effects.read_text().split() == ["charge"]
    with pytest.raises(tf.Diverged) as caught:
        replays(SqliteStore(path), ident, change)
    names_both_sides(str(caught.value), change)
    assert tuple(replays(SqliteStore(path), ident, "v1").pending) == ("call:charge#0",)

    before, after = outcome("v1", "answer")
    assert before[:4] == ["waiting", None, None, ["wait_signal:received#0"]]
    assert (after[0], after[4]) == ("done", "lamp: thanks")
    assert after[5] != build
    # The charge had no durable result, so it ran again; nothing else did.
    assert effects.read_text().split() == ["charge", "charge", "ship", "thank"]


def rows(path: Path, sql: str) -> list[tuple[Any, ...]]:
    """What plain sqlite3 finds in a store's file."""
    with closing(sqlite3.connect(path)) as db:
        return db.execute(sql).fetchall()
