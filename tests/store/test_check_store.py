"""The conformance suite, on all backends that ship."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path

import pytest

from triggerflow.store.protocol import Store
from triggerflow.store.sqlite import MemoryStore, SqliteStore
from triggerflow.testing import STORE_CHECKS

MakeStore = Callable[[], Store]


@pytest.fixture(params=["memory", "sqlite", "postgres"])
def make_store(request: pytest.FixtureRequest, tmp_path: Path) -> MakeStore:
    if request.param == "memory":
        return MemoryStore
    if request.param == "postgres":
        return request.getfixturevalue("postgres").store
    numbers = itertools.count()
    return lambda: SqliteStore(tmp_path / f"{next(numbers)}.db")


@pytest.mark.parametrize("name", STORE_CHECKS)
def test_store_keeps_its_promise(name: str, make_store: MakeStore) -> None:
    """Each check of the suite passes on a new store."""
    STORE_CHECKS[name](make_store)
