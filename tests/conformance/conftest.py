"""What the conformance tests share: one store, and workers that come, die and go on it."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import trio

import triggerflow as tf
from triggerflow.engine.engine import Engine
from triggerflow.store.sqlite import MemoryStore, SqliteStore
from triggerflow.testing.crash import Crash
from triggerflow.testing.time import run_virtually, virtual_settings

Scenario = Callable[[Engine], Awaitable[Any]]

# Virtual seconds after which a scenario counts as hung: an hour, spent in no time.
_HUNG = 3600.0


class System:
    """A store that outlives its workers. All time is virtual.

    Attributes:
        kind: ``memory``, ``sqlite`` or ``postgres``.
    """

    def __init__(self, kind: str, folder: Path, postgres: Any = None) -> None:
        self.kind = kind
        self._folder = folder
        self._postgres = postgres
        self._numbers = itertools.count()
        self.renew()

    def renew(self) -> None:
        """Begin again with an empty store."""
        self._path = self._folder / f"store{next(self._numbers)}.db"
        self._memory = MemoryStore()
        self._url = None if self._postgres is None else self._postgres.anew()

    def store(self) -> Any:
        """The store, as a process that starts now sees it."""
        if self._postgres is not None:
            return self._postgres.store(self._url)
        return self._memory if self.kind == "memory" else SqliteStore(self._path)

    def new_store(self) -> Any:
        """Another store, empty."""
        self.renew()
        return self.store()

    def app(self, *flows: Any, build: str = "one", store: Any = None, **options: Any) -> tf.App:
        """An app on this store, with functions or flows."""
        app = tf.App(
            self.store() if store is None else store,
            build=build,
            entry_points=False,
            **options,
        )
        for each in flows:
            app.register(each if isinstance(each, tf.Flow) else tf.flow(each))
        return app

    def live(
        self, app: tf.App, scenario: Scenario, *, hung: float = _HUNG, **settings: Any
    ) -> Any:
        """Run a scenario on an open app, which is closed in order at its end."""

        async def main() -> Any:
            with trio.fail_after(hung):
                async with app.open(**(virtual_settings() | settings)) as engine:
                    return await scenario(engine)

        return run_virtually(main)

    def killed(self, app: tf.App, scenario: Scenario, **settings: Any) -> Any:
        """Run a scenario on an open app; where it returns the engine dies at once."""
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

    @contextlib.contextmanager
    def reading(self) -> Iterator[Any]:
        """The store, open for looking at it while nobody works."""
        store = self.store()
        store.open()
        try:
            yield store
        finally:
            store.close()


class Noting:
    """A store that notes the operations of each of its commits.

    Attributes:
        commits: what each commit carried.
    """

    def __init__(self, store: Any) -> None:
        self.store = store
        self.commits: list[tuple[Any, ...]] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self.store, name)

    def commit(self, batch: Any) -> Any:
        self.commits.append(tuple(batch.operations))
        return self.store.commit(batch)

    def count(self, kind: type) -> int:
        """How many operations of a kind there were."""
        return sum(type(each) is kind for batch in self.commits for each in batch)


@pytest.fixture(params=["memory", "sqlite", pytest.param("postgres", marks=pytest.mark.slow)])
def system(request: pytest.FixtureRequest, tmp_path: Path) -> System:
    postgres = request.param == "postgres"
    found = request.getfixturevalue("postgres") if postgres else None
    return System(request.param, tmp_path, found)


@pytest.fixture
def noting() -> type[Noting]:
    return Noting


@pytest.fixture
def take_away() -> Callable[[Engine], int]:
    """Take its lease from a worker that lives, as another one does with one that is silent."""

    def steal(engine: Engine) -> int:
        return engine._store.reap({each.id: each.seen for each in engine._store.workers()})

    return steal
