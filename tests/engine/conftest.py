"""What the engine's tests share: stores, apps, virtual time, clocks that a test can turn."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import trio

import triggerflow as tf
from triggerflow.store.sqlite import MemoryStore, SqliteStore
from triggerflow.testing.crash import Crash
from triggerflow.testing.time import run_virtually, virtual_settings

# Virtual seconds after which a scenario counts as hung: an hour, spent in no time.
_HUNG = 3600.0


class TurnedClock:
    """A wall clock that stands still until a test turns it, for engines in real time."""

    recheck = 0.005

    def __init__(self, start: float = 1_700_000_000.0) -> None:
        self.time = start

    def now(self) -> float:
        return self.time

    def steady(self) -> float:
        return self.time


class Watched:
    """A store that shows every batch to `before` and `after`, which may raise."""

    def __init__(self, store: Any) -> None:
        self.store = store
        self.batches: list[Any] = []
        self.before = lambda batch: None
        self.after = lambda batch, outcomes: None

    def __getattr__(self, name: str) -> Any:
        return getattr(self.store, name)

    def commit(self, batch: Any) -> Any:
        self.before(batch)
        outcomes = self.store.commit(batch)
        self.batches.append((batch, outcomes))
        self.after(batch, outcomes)
        return outcomes

    def operations(self, kind: type) -> list[Any]:
        return [op for batch, _ in self.batches for op in batch.operations if type(op) is kind]


class Standstill:
    """A store that its worker can't write to while it stands still, as a frozen process."""

    def __init__(self, store):
        self.store = store
        self.still = False

    def __getattr__(self, name):
        found = getattr(self.store, name)
        if name not in ("commit", "reap", "register_worker"):
            return found

        def write(*args, **named):
            if self.still:
                raise OSError("it stands still")
            return found(*args, **named)

        return write


@pytest.fixture
def standstill():
    return Standstill


@pytest.fixture
def turned_clock():
    return TurnedClock


@pytest.fixture
def watched():
    return Watched


@pytest.fixture
def new_app():
    """Make an app without entry points; its build is named, so that tests choose it."""

    def make(store: Any = None, *, build: str = "one", **options: Any) -> tf.App:
        return tf.App(
            MemoryStore() if store is None else store,
            build=build,
            entry_points=False,
            **options,
        )

    return make


@pytest.fixture
def live():
    """Run a scenario on an open app in virtual time; one that hangs is an error."""

    def run(app: tf.App, scenario: Any, *, hung: float = _HUNG, **settings: Any) -> Any:
        async def main() -> Any:
            with trio.fail_after(hung):
                async with app.open(**(virtual_settings() | settings)) as engine:
                    return await scenario(engine)

        return run_virtually(main)

    return run


@pytest.fixture
def killed():
    """Run a scenario on an open app; where it returns the engine dies, as a process would."""

    def run(app: tf.App, scenario: Any, **settings: Any) -> Any:
        found = []

        async def main() -> None:
            async with app.open(**(virtual_settings() | settings)) as engine:
                with trio.fail_after(_HUNG):
                    found.append(await scenario(engine))
                engine._fatal(Crash())
                await trio.sleep_forever()

        with pytest.raises(Crash):
            run_virtually(main)
        return found[0]

    return run


@pytest.fixture
def real():
    """Run an async function in real time, with threads; one that hangs is an error."""

    def run(scenario: Any, *, hung: float = 20.0) -> Any:
        async def main() -> Any:
            with trio.fail_after(hung):
                return await scenario()

        return trio.run(main)

    return run


@pytest.fixture
def make_sqlite(tmp_path):
    """Make stores on new files."""
    numbers = itertools.count()
    return lambda: SqliteStore(tmp_path / f"store{next(numbers)}.db")


@pytest.fixture(params=["memory", "sqlite"])
def make_store(request, make_sqlite):
    """Make new, empty stores, once on memory and once on SQLite."""
    return MemoryStore if request.param == "memory" else make_sqlite


# A server takes its time over hundreds of engines that die.
_POSTGRES = pytest.param("postgres", marks=[pytest.mark.slow, pytest.mark.timeout(600)])


@pytest.fixture(params=["memory", "sqlite", _POSTGRES])
def make_any_store(request, make_sqlite):
    """The same, once on PostgreSQL too; there, a new one takes the place of the one before."""
    if request.param == "postgres":
        postgres = request.getfixturevalue("postgres")
        return lambda: postgres.store(postgres.anew())
    return MemoryStore if request.param == "memory" else make_sqlite
