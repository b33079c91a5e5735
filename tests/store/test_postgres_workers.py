"""PostgreSQL between workers: news, sudden deaths, lost connections, forks."""

from __future__ import annotations

import os
import select
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import triggerflow
from triggerflow.errors import StoreError
from triggerflow.store.operations import Batch, Claim, NewInstance, Release, Send, Start
from triggerflow.store.postgres import news

NOW = 1_700_000_000.0
FLOWS = frozenset({("welcome", 1)})


def start(id: str) -> Start:
    return Start(NewInstance(id, "welcome", 1, b"input", b"seed", NOW))


def ask(store: Any, operation: Any, worker: Any = None) -> Any:
    return store.commit(Batch([operation], NOW, worker))[0]


def register(store: Any) -> tuple[int, int]:
    return store.register_worker(build="b", flows=FLOWS, now=NOW)


@pytest.fixture
def pair(postgres: Any) -> Iterator[tuple[Any, Any]]:
    url = postgres()
    one, two = postgres.store(url), postgres.store(url)
    one.open()
    two.open()
    yield one, two
    one.close()
    two.close()


def end(places: Any, *lines: Any) -> None:
    """Have the server end these connections."""
    for line in lines:
        process = line.db.connection.info.backend_pid
        places.ask("SELECT pg_terminate_backend(%s, 5000)", process)


def hears(store: Any) -> bool:
    """What `changed` says once something has come in on the listening connection."""
    readable, _, _ = select.select([store._news.db.connection.fileno()], [], [], 20)
    assert readable, "nothing came"
    return store.changed()


# --- news -----------------------------------------------------------------------------------


def test_news_of_others_is_heard_once(pair: Any) -> None:
    """What another one wrote is heard by the next look; what one wrote oneself is not."""
    one, two = pair
    assert not two.changed()
    ask(one, start("i1"))
    assert hears(two)
    assert not two.changed()
    assert not one.changed()


def test_signs_of_life_are_no_news(pair: Any) -> None:
    """Heartbeats and claims that find nothing wake nobody: idle workers let each other be."""
    one, two = pair
    worker = register(one)
    two.changed()
    ask(one, Release(()), worker)
    ask(one, Claim(5, 1, "b", FLOWS, NOW), worker)
    assert not two.changed()


def test_news_that_was_lost_costs_a_second(pair: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a notification never comes, some look is told to look all the same."""
    one, two = pair
    two.changed()
    monkeypatch.setattr(news.News, "tell", lambda self: None)
    ask(one, start("i1"))
    looks = [two.changed() for _ in range(50)]
    assert looks.count(True) == 1


def test_a_listener_that_was_lost_listens_again(pair: Any, places: Any) -> None:
    """It says that something may have happened meanwhile, and hears what comes after."""
    one, two = pair
    two.changed()
    end(places, two._news)
    # Nobody knows what was missed, so that it was lost is news as well.
    looks = [hears(two), two.changed(), two.changed()]
    assert True in looks
    assert not two._news.db.lost
    two.changed()
    ask(one, start("i1"))
    assert hears(two)


def test_what_could_not_be_told_is_told_later(pair: Any, places: Any) -> None:
    """A commit whose notification fails is told at the next look."""
    one, two = pair
    two.changed()
    end(places, one._news)
    ask(one, start("i1"))
    while not one.changed():
        pass
    one.changed()
    assert hears(two)


# --- who lives ------------------------------------------------------------------------------


def alive(store: Any) -> list[bool]:
    return [each.alive for each in store.workers()]


def test_one_lost_connection_is_no_death(pair: Any, places: Any) -> None:
    """The other connection still shows that the worker lives; the lost one does so again."""
    one, two = pair
    register(one)
    end(places, one._writer.line)
    assert alive(two) == [True]
    assert two.reap() == 0
    ask(one, start("i1"))
    end(places, one._news)
    assert alive(two) == [True]


def test_a_worker_without_connections_is_dead(pair: Any, places: Any) -> None:
    """Where all are gone at once its process is taken for dead; if it lives it is fenced."""
    one, two = pair
    worker = register(one)
    ask(one, start("i1"))
    ask(one, Claim(1, 0, "b", FLOWS, NOW), worker)
    end(places, one._writer.line, one._news)
    assert alive(two) == [False]
    assert two.reap() == 1
    assert ask(one, Release(()), worker).detail == "worker"


def test_after_a_restart_of_the_server_only_silence_tells(pair: Any, places: Any) -> None:
    """No lock of before is left on a new server, so a missing one says nothing there."""
    one, two = pair
    worker = register(one)
    url = places.url_of("")
    schema = one._place.schema
    assert url
    # As if the lock were held on the server that ran before.
    places.ask(f"UPDATE {schema}.worker SET server = 'before'")
    end(places, one._writer.line, one._news)
    assert alive(two) == [True]
    assert two.reap() == 0
    # Its first connection to the new one shows again that it lives.
    ask(one, Release(()), worker)
    assert places.ask(f"SELECT count(*) FROM {schema}.worker WHERE server = 'before'") == [(0,)]
    assert alive(two) == [True]


CHILD = """
import sys
from triggerflow.store.operations import Batch, Claim
from triggerflow.store.postgres import PostgresStore
NOW, FLOWS = 1_700_000_000.0, frozenset({("welcome", 1)})
store = PostgresStore(sys.argv[1])
store.open()
worker = store.register_worker(build="b", flows=FLOWS, now=NOW)
(found,) = store.commit(Batch([Claim(10, 1, "b", FLOWS, NOW)], NOW, worker))
print(len(found.claimed), flush=True)
sys.stdin.readline()
"""


def test_a_killed_process_is_known_at_once(postgres: Any) -> None:
    """SIGKILL: its instances are free without waiting for a lease, one crash counted."""
    url = postgres()
    store = postgres.store(url)
    store.open()
    ask(store, start("i1"))
    child = subprocess.Popen(
        [sys.executable, "-c", CHILD, url],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(triggerflow.__file__).parents[1],
    )
    assert child.stdout.readline() == "1\n"
    assert alive(store) == [True]
    assert store.reap() == 0
    child.kill()
    child.communicate()
    # The server notices that a connection was closed as soon as it looks.
    while alive(store) != [False]:
        pass
    assert store.reap() == 1
    found = store.instance("i1")
    assert (found.owner, found.crashes) == (None, 1)
    store.close()


def test_a_forked_child_must_open_its_own(pair: Any) -> None:
    """A store that was opened before a fork is refused in the child, and unharmed by it."""
    one, _ = pair
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        try:
            one.instances()
            os.write(writing, b"it went on")
        except StoreError as error:
            os.write(writing, str(error).encode())
        finally:
            one.close()
            os._exit(0)
    os.waitpid(child, 0)
    os.close(writing)
    assert b"was opened before this process was forked" in os.read(reading, 1000)
    os.close(reading)
    ask(one, start("i1"))
    assert one.instance("i1") is not None


def test_a_worker_needs_three_connections(pair: Any, places: Any) -> None:
    """One writes, one reads, one listens. Steps in transactions of their own need more."""
    for store in pair:
        register(store)
        ask(store, start(f"i{id(store)}"))
        ask(store, Send(f"i{id(store)}", "signal", "reply", b"yes", NOW))
        store.instances()
        store.changed()
    rows = places.ask(
        "SELECT application_name, count(*) FROM pg_stat_activity"
        " WHERE datname = current_database() AND application_name LIKE 'triggerflow%%'"
        " GROUP BY 1 ORDER BY 1"
    )
    assert rows == [
        ("triggerflow listener", 2),
        ("triggerflow reader", 2),
        ("triggerflow writer", 2),
    ]
