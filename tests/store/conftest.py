"""Real child processes for the store's tests: scripts that speak lines over pipes."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import triggerflow

# Where children find the triggerflow that is tested.
HOME = Path(triggerflow.__file__).parents[1]

_PRELUDE = """
import json, os, sys
from triggerflow.store.operations import *
from triggerflow.store.sqlite import SqliteStore
PATH, NOW, FLOWS = sys.argv[1], 1_700_000_000.0, frozenset({("welcome", 1)})

def say(**facts):
    print(json.dumps(facts), flush=True)

def hear():
    return sys.stdin.readline().strip()

def start(id):
    return Start(NewInstance(id, "welcome", 1, b"input", b"seed", NOW))

def claim(limit=10):
    return Claim(limit, 1, "build-a", FLOWS, NOW)

"""


class Child:
    """A child process: `hear` reads what it says, `tell` goes on with it."""

    def __init__(self, script: str, path: Path) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", _PRELUDE + script, str(path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=HOME,
        )

    def hear(self) -> dict[str, Any]:
        line = self.process.stdout.readline()
        if not line:
            raise AssertionError(f"the child died: {self.process.communicate(timeout=60)[1]}")
        return json.loads(line)

    def tell(self, word: str = "go") -> None:
        self.process.stdin.write(word + "\n")
        self.process.stdin.flush()

    def kill(self) -> None:
        self.process.kill()
        self.process.wait(60)

    def end(self) -> None:
        _, complaint = self.process.communicate(timeout=60)
        assert self.process.returncode == 0, complaint


@pytest.fixture
def database(tmp_path: Path) -> Path:
    return tmp_path / "flows.db"


@pytest.fixture
def spawn(database: Path) -> Iterator[Callable[[str], Child]]:
    """Starts children on the test's database; none outlives the test."""
    children: list[Child] = []

    def start(script: str) -> Child:
        children.append(Child(script, database))
        return children[-1]

    yield start
    for child in children:
        if child.process.poll() is None:
            child.process.kill()
        child.process.communicate()
