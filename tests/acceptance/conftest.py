"""Real processes and real data for the acceptance tests.

The children live in `children/`. A child says a line a fact on its standard output, gets
commands on its standard input, and writes what goes wrong to a file: no test waits by
sleeping, all of them wait for a line, within a limit.
"""

from __future__ import annotations

import contextlib
import fcntl
import importlib.util
import json
import os
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import triggerflow as tf

CHILDREN = Path(__file__).parent / "children"
DATA = Path(__file__).parents[2].parent / "shared" / "data"
LIMIT = 60.0


def data_file(name: str) -> Path:
    """A file of real input; its absence is a failure in CI and a skip elsewhere."""
    path = DATA / name
    if not path.exists():
        if os.environ.get("CI") == "true":
            pytest.fail(f"{name} is not beside the checkout (shared/data), and CI needs it")
        pytest.skip(f"{name} is not here: it lies in shared/data beside the checkout")
    return path


@pytest.fixture
def github() -> Path:
    """The 164 GitHub webhooks, one activity a line."""
    return data_file("github-webhooks.jsonl")


@pytest.fixture
def examples() -> Path:
    """The W3C's ActivityStreams documents, one ``{"file", "document"}`` a line."""
    return data_file("activitystreams2-examples.jsonl")


@pytest.fixture
def child_module() -> Callable[[str], ModuleType]:
    """Loads a module of `children/` by its name."""

    def load(name: str) -> ModuleType:
        path = CHILDREN / f"{name}.py"
        known = sys.modules.get(f"acceptance_{name}")
        if known is not None:
            return known
        spec = importlib.util.spec_from_file_location(f"acceptance_{name}", path)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[spec.name] = module
        spec.loader.exec_module(module)
        return module

    return load


@pytest.fixture
def report(capsys: pytest.CaptureFixture[str]) -> Callable[[str], None]:
    """Shows a line of counts, whether the test passes or not."""

    def show(text: str) -> None:
        with capsys.disabled():
            print(f"\n{text}")  # noqa: T201

    return show


class Child:
    """One child process: lines come out, commands go in."""

    def __init__(self, script: str, args: tuple[str, ...], env: dict[str, str], err: Path):
        self.err = err
        self._buffer = b""
        self._lines: list[str] = []
        self._over = False
        home = str(Path(tf.__file__).parents[1])
        with err.open("wb") as stderr:
            self.process = subprocess.Popen(
                [sys.executable, str(CHILDREN / script), *args],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=stderr,
                env={**os.environ, "PYTHONPATH": home, **env},
                bufsize=0,
            )
        assert self.process.stdout is not None
        self._out = self.process.stdout
        os.set_blocking(self._out.fileno(), False)

    @property
    def pid(self) -> int:
        """Its process id."""
        return self.process.pid

    def say(self, command: str) -> None:
        """Send a command; one that has died already doesn't hear it."""
        assert self.process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.write(command.encode() + b"\n")

    def pull(self, timeout: float = 0.0) -> list[str]:
        """The lines that have come, waiting at most `timeout` for the first."""
        if not self._over:
            with selectors.DefaultSelector() as selector:
                selector.register(self._out, selectors.EVENT_READ)
                while not self._over and selector.select(timeout):
                    timeout = 0.0
                    chunk = self._out.read(1 << 16)
                    if chunk:
                        self._buffer += chunk
                    else:
                        self._over = True
        *lines, self._buffer = self._buffer.split(b"\n")
        return [line.decode() for line in lines]

    def line(self, timeout: float = LIMIT) -> str:
        """The next line; fails with what the child wrote if none comes in time."""
        until = time.monotonic() + timeout
        while not self._lines:
            left = until - time.monotonic()
            self._lines += self.pull(max(0.0, left))
            if not self._lines and (self._over or left <= 0):
                why = "has ended" if self._over else f"said nothing for {timeout:g} s"
                pytest.fail(f"child {self.pid} {why}; it wrote:\n{self.complaints()}")
        return self._lines.pop(0)

    def expect(self, word: str, timeout: float = LIMIT) -> Any:
        """The next line, which must begin with `word`; what follows it, from JSON."""
        line = self.line(timeout)
        head, _, rest = line.partition(" ")
        assert head == word, f"expected {word!r}, child {self.pid} said {line!r}"
        return json.loads(rest) if rest else None

    @property
    def over(self) -> bool:
        """Whether it will say nothing any more."""
        return self._over

    def kill(self) -> list[str]:
        """SIGKILL it, wait until it is gone; the lines that it had said before."""
        self.process.send_signal(signal.SIGKILL)
        self.process.wait(LIMIT)
        lines = self._lines
        while not self._over:
            lines = lines + self.pull(LIMIT)
        self._lines = []
        return lines

    def stand_still(self, store: Path) -> None:
        """SIGSTOP, but not amid a write: who stands still there makes every writer wait."""
        until = time.monotonic() + LIMIT
        with Path(f"{store}-locks").open("r+b") as locks:
            while True:
                os.kill(self.pid, signal.SIGSTOP)
                _, status = os.waitpid(self.pid, os.WUNTRACED)
                assert os.WIFSTOPPED(status)
                try:
                    fcntl.lockf(locks, fcntl.LOCK_EX | fcntl.LOCK_NB, 2, 0)
                except OSError:
                    assert time.monotonic() < until
                    os.kill(self.pid, signal.SIGCONT)
                else:
                    fcntl.lockf(locks, fcntl.LOCK_UN, 2, 0)
                    return

    def finish(self, timeout: float = LIMIT) -> list[str]:
        """Wait for its good end; the lines that nobody read."""
        lines, self._lines = self._lines, []
        until = time.monotonic() + timeout
        while not self._over and time.monotonic() < until:
            lines += self.pull(max(0.0, until - time.monotonic()))
        try:
            status = self.process.wait(max(1.0, until - time.monotonic()))
        except subprocess.TimeoutExpired:
            pytest.fail(f"child {self.pid} did not end; it wrote:\n{self.complaints()}")
        assert status == 0, f"child {self.pid} ended with {status}:\n{self.complaints()}"
        return lines

    def complaints(self) -> str:
        """What it wrote to its standard error."""
        return self.err.read_text(errors="replace")[-8000:]

    def clear(self) -> None:
        """Leave nothing of it behind."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGCONT)
            self.process.kill()
        self.process.wait(LIMIT)
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                with contextlib.suppress(BrokenPipeError):
                    pipe.close()


class Processes:
    """Starts children, and ends what is left of them, each by its id."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.children: list[Child] = []

    def start(self, script: str, *args: object, **env: str) -> Child:
        """Start a child of `children/`."""
        err = self.folder / f"child-{len(self.children)}.err"
        child = Child(script, tuple(map(str, args)), env, err)
        self.children.append(child)
        return child

    def complaints(self) -> str:
        """What all of them wrote to their standard error."""
        return "".join(child.err.read_text(errors="replace") for child in self.children)


@pytest.fixture
def processes(tmp_path: Path) -> Iterator[Processes]:
    """Children of this test; none outlives it."""
    made = Processes(tmp_path)
    yield made
    for child in made.children:
        child.clear()
