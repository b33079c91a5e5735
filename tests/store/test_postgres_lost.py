"""PostgreSQL that goes away: at every point of a batch, in its commit, and for a while."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest
import trio

import triggerflow as tf
from triggerflow.errors import StoreError
from triggerflow.store.acts import EmitActivity, SpawnChild
from triggerflow.store.operations import (
    Append,
    Batch,
    Claim,
    LogRow,
    NewInstance,
    PlannedFiring,
    Send,
    Start,
    Turn,
    Verdict,
)
from triggerflow.store.postgres import lines, writer
from triggerflow.store.postgres.connection import Place
from triggerflow.store.postgres.wire import Db
from triggerflow.store.records import NewTrigger
from triggerflow.testing.time import run_virtually, virtual_settings

NOW = 1_700_000_000.0


class Saboteur:
    """Stands between the backend and its server.

    Attributes:
        asked: how many statements went out since it was armed.
        down: so many attempts to connect will fail.
    """

    def __init__(self, places: Any, patch: pytest.MonkeyPatch) -> None:
        self.asked = 0
        self.down = 0
        self._places = places
        self._before: Callable[[Db, str, int], None] = lambda db, text, n: None
        self._landed = False
        ask, connect = Db.execute, Place.connect

        def asking(db: Db, text: str, *values: Any) -> Any:
            self.asked += 1
            self._before(db, text, self.asked)
            found = ask(db, text, *values)
            if text == "COMMIT" and self._landed:
                self._landed = False
                self._until_committed(db)
                self.kill(db)
            return found

        def connecting(place: Place, name: str, **options: Any) -> Any:
            if self.down > 0:
                self.down -= 1
                raise psycopg.OperationalError("the server is down")
            return connect(place, name, **options)

        patch.setattr(Db, "execute", asking)
        patch.setattr(Place, "connect", connecting)
        patch.setattr(lines, "_PAUSES", (0.0, 0.0, 0.0))

    def kill(self, db: Db) -> None:
        """Have the server end a connection."""
        process = db.connection.info.backend_pid
        self._places.ask("SELECT pg_terminate_backend(%s, 5000)", process)

    def kills_at(self, number: int) -> None:
        """End the connection right before its statement of this number, from now on counted."""
        self.asked = 0

        def before(db: Db, text: str, n: int) -> None:
            if n == number:
                self.kill(db)

        self._before = before

    def kills_after_commit(self) -> None:
        """End the connection once a commit has landed, before anybody hears of it."""
        self._landed = True

    def calls(self, before: Callable[[Db, str, int], None]) -> None:
        self._before = before

    def _until_committed(self, db: Db) -> None:
        # Nothing was fetched of it, so it may not even have been sent yet.
        db._pg.send_flush_request()
        while db._pg.flush():
            pass
        for _ in range(2000):
            found = self._places.ask("SELECT pg_xact_status(%s::text::xid8)", db.number)
            if found == [("committed",)]:
                return
        raise AssertionError("the commit never came")


@pytest.fixture
def saboteur(postgres: Any, monkeypatch: pytest.MonkeyPatch) -> Saboteur:
    return Saboteur(postgres.places, monkeypatch)


@pytest.fixture
def store(postgres: Any) -> Iterator[Any]:
    made = postgres.store()
    made.open()
    yield made
    made.close()


def new(id: str, **parts: Any) -> NewInstance:
    # Each tag's instances are of a flow of their own.
    return NewInstance(id, id.partition("-")[0], 1, b"input", b"seed", NOW, **parts)


def prepared(store: Any, tag: str) -> tuple[Any, Batch]:
    """A batch of many kinds of operations, and the worker whose it is."""
    registry = store.sync_triggers([NewTrigger("a", "cid-a", b"a", "means a")], now=NOW)
    flows = frozenset({(tag, 1)})
    worker = store.register_worker(build="b", flows=flows, now=NOW)
    ids = [f"{tag}-one", f"{tag}-two"]
    store.commit(Batch([Start(new(each)) for each in ids], NOW))
    (found,) = store.commit(Batch([Claim(2, 0, "b", flows, NOW)], NOW, worker))
    one, two = found.claimed
    entry = (LogRow("call:a#0", b"v", False, None, NOW),)
    acts = (
        EmitActivity(f"cid-{tag}-emitted", b"{}", "[]", "[]", NOW, 1),
        SpawnChild("spawn:welcome#0", new(f"{tag}-child"), awaited=True, abandoned=False),
    )
    operations = [
        Turn(one.number, 1, 0, entry, b"p", "running", NOW, NOW, acts=acts),
        Turn(two.number, 1, 0, entry, b"p", "done", NOW, NOW, value=b"r"),
        Append(
            f"cid-{tag}",
            b"{}",
            "[]",
            "[]",
            NOW,
            registry,
            (PlannedFiring("cid-a", new(f"{tag}-fired")),),
        ),
        Start(new(f"{tag}-keyed", key=tag)),
        Send(one.id, "signal", "reply", b"yes", NOW),
        Claim(1, 0, "b", flows, NOW),
    ]
    return worker, Batch(operations, NOW, worker)


def standing(store: Any, tag: str) -> Any:
    """What there is under a tag, without numbers."""
    rows = store.instances(limit=1000)
    mine = [each for each in rows if each.id.startswith(f"{tag}-")]
    return sorted(
        (
            each.id.removeprefix(tag),
            each.status,
            each.owner is not None,
            [(row.position, row.tag) for row in store.log(each.number, 1)],
            [row.name for row in store.inbox(each.number)],
        )
        for each in mine
    ), len(store.firings(f"cid-{tag}"))


@pytest.mark.slow
def test_a_connection_lost_anywhere_in_a_batch_is_made_good(
    store: Any, saboteur: Saboteur
) -> None:
    """Wherever the connection ends, the batch lands once, and says the same as ever."""
    worker, batch = prepared(store, "whole")
    saboteur.asked = 0
    expected = [each.verdict for each in store.commit(batch)]
    assert set(expected) == {Verdict.APPLIED}
    points = saboteur.asked
    end = standing(store, "whole")
    store.forget_worker(worker[0])
    assert points > 20
    for number in range(1, points + 1):
        tag = f"at{number}"
        worker, batch = prepared(store, tag)
        saboteur.kills_at(number)
        assert [each.verdict for each in store.commit(batch)] == expected, number
        assert standing(store, tag) == end, number
        store.forget_worker(worker[0])
        assert [each.alive for each in store.workers()] == []


def test_a_commit_that_nobody_confirmed_is_recognised(store: Any, saboteur: Saboteur) -> None:
    """It had landed, so it isn't done again; its outcomes are those that it had."""
    _, batch = prepared(store, "lost")
    saboteur.kills_after_commit()
    found = store.commit(batch)
    assert {each.verdict for each in found} == {Verdict.APPLIED}
    assert found[4].inbox is not None
    instance = store.instance("lost-one")
    assert [row.name for row in store.inbox(instance.number)] == ["reply"]
    assert len(store.log(instance.number, 1)) == 1


def test_recognising_it_is_what_keeps_it_single(
    store: Any, saboteur: Saboteur, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever takes every lost commit for one that failed sends the message twice."""
    store.commit(Batch([Start(new("one"))], NOW))
    monkeypatch.setattr(writer, "landed", lambda *_: False)
    saboteur.kills_after_commit()
    store.commit(Batch([Send("one", "signal", "reply", b"yes", NOW)], NOW))
    number = store.instance("one").number
    assert [row.name for row in store.inbox(number)] == ["reply", "reply"]


def test_a_server_that_stays_away_is_a_store_error(store: Any, saboteur: Saboteur) -> None:
    """After a while it is an error that says what is the matter; later all goes on."""
    saboteur.kill(store._writer.line.db)
    saboteur.down = 3
    # That it is lost is only noticed by who uses it.
    saboteur.calls(lambda db, text, n: None)
    with pytest.raises(StoreError, match="can't be reached: the server is down"):
        store.commit(Batch([Start(new("one"))], NOW))
    assert store.instance("one") is None
    found = store.commit(Batch([Start(new("one"))], NOW))
    assert found[0].verdict is Verdict.APPLIED


def test_a_commit_of_which_nobody_can_tell_says_so(store: Any, saboteur: Saboteur) -> None:
    """Where the server can't even be asked afterwards, the error says that it is unknown."""
    saboteur.kills_after_commit()

    def dies(db: Db, text: str, n: int) -> None:
        if text == "COMMIT":
            saboteur.down = 9

    saboteur.calls(dies)
    with pytest.raises(StoreError, match="whether this was written is unknown"):
        store.commit(Batch([Start(new("one", key="k"))], NOW))
    saboteur.down = 0
    saboteur.calls(lambda db, text, n: None)
    (again,) = store.commit(Batch([Start(new("one", key="k"))], NOW))
    assert again.verdict is Verdict.DUPLICATE


def test_reads_go_on_over_a_new_connection(store: Any, saboteur: Saboteur) -> None:
    """A reading connection that was lost is made anew, and nobody hears of it."""
    store.commit(Batch([Start(new("one"))], NOW))
    assert store.instance("one") is not None
    saboteur.kill(store._reader.db)
    assert store.instance("one") is not None


# --- with an engine -------------------------------------------------------------------------


def orders(store: Any, charged: list[str]) -> tf.App:
    app = tf.App(store, build="one", entry_points=False)

    def charge(number: int) -> int:
        context = tf.step_context()
        charged.append(context.idempotency_key)
        return number + 1

    @app.flow
    def order(number):
        for _ in range(3):
            number = yield tf.call(charge, number)
        extra = yield tf.wait_signal("extra")
        return number + extra

    return app


def run_orders(store: Any, count: int = 12) -> tuple[list[Any], list[str]]:
    """Run some orders to their end; their results, and what was charged how often."""
    charged: list[str] = []

    async def main() -> list[Any]:
        with trio.fail_after(3600):
            async with orders(store, charged).open(**virtual_settings()) as engine:
                ids = []
                for number in range(count):
                    ids.append(await persist(engine.start, "order", number, key=f"k{number}"))
                for id in ids:
                    await persist(engine.signal, id, "extra", 100, dedup="once")
                return [(await persist(engine.wait, id)).result for id in ids]

    return run_virtually(main), charged


async def persist(verb: Any, *args: Any, **named: Any) -> Any:
    """A caller that repeats what it isn't sure of, as verbs with a key allow."""
    while True:
        try:
            return await verb(*args, **named)
        except StoreError:
            await trio.sleep(1)


@pytest.mark.slow
def test_flows_come_through_connections_that_are_lost_at_random(
    postgres: Any, saboteur: Saboteur
) -> None:
    """One statement in forty meets an ended connection: no flow is lost, no entry doubled."""
    chance = random.Random(7)
    killed = 0

    def before(db: Db, text: str, n: int) -> None:
        nonlocal killed
        if chance.random() < 0.025:
            killed += 1
            saboteur.kill(db)

    saboteur.calls(before)
    url = postgres()
    results, charged = run_orders(postgres.store(url))
    assert results == [number + 103 for number in range(12)]
    assert killed > 5
    # Each was made good within its own commit: nothing was run twice.
    assert len(charged) == len(set(charged)) == 36


@pytest.mark.parametrize("after", [False, True])
def test_turns_that_failed_or_may_have_landed_are_taken_again(
    postgres: Any, saboteur: Saboteur, after: bool
) -> None:
    """A server that goes away for longer than the store waits: the engine sorts it out."""
    commits = 0

    def before(db: Db, text: str, n: int) -> None:
        nonlocal commits
        if text == "COMMIT" and not saboteur.down:
            commits += 1
            if commits % 7 == 0:
                if after:
                    saboteur.kills_after_commit()
                else:
                    saboteur.kill(db)
                saboteur.down = 7

    saboteur.calls(before)
    url = postgres()
    results, charged = run_orders(postgres.store(url))
    assert results == [number + 103 for number in range(12)]
    assert commits > 7
    # A result in hand is kept until it is written: no step ran again.
    assert len(charged) == len(set(charged)) == 36
