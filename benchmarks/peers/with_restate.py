"""Restate: its server on its own store, a service process, and this process as the client.

Default settings, except that a flow which waits is put aside after one second instead of a
minute where memory is measured, and that the server may invoke as many flows at once as wait.

usage: see `shape.py`; $RESTATE_SERVER is the server's binary
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import os
import resource
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Awaitable, Callable, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any, Self

from common import workdir
from shape import (
    FLOWS,
    HELPERS,
    PATIENCE,
    WARM,
    Work,
    tell_latency,
    tell_memory,
    tell_recovery,
    until,
)

HERE = Path(__file__).resolve().parent
# A signaller holds two connections, and each parked flow's caller waits on one.
MOST_PARKED = 2000
CONFIG = """
bind-ip = "127.0.0.1"
bind-port = {node}
listen-mode = "tcp"
base-dir = "{folder}/data"
disable-telemetry = true
log-filter = "error"
node-name = "bench"
[ingress]
bind-ip = "127.0.0.1"
bind-port = {ingress}
[admin]
bind-ip = "127.0.0.1"
bind-port = {admin}
[worker.invoker]
concurrent-invocations-limit = 20000
inactivity-timeout = "{aside}"
"""


def free_ports(count: int) -> list[int]:
    """Ports of the loopback that nobody holds now."""
    with contextlib.ExitStack() as stack:
        found = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in found:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in found]


def ask(url: str, body: Any = None) -> Any:
    data = None if body is None else json.dumps(body).encode()
    headers = {"content-type": "application/json", "accept": "application/json"}
    request = urllib.request.Request(url, data, headers)
    with urllib.request.urlopen(request, timeout=30) as answer:
        found = answer.read()
    return json.loads(found) if found else None


def ask_until_there(url: str, body: Any = None) -> None:
    end = time.perf_counter() + 60
    while True:
        try:
            ask(url, body)
        except (urllib.error.URLError, ConnectionError) as error:
            if time.perf_counter() > end:
                raise SystemExit(f"{url} did not answer: {error}") from error
            time.sleep(0.01)
        else:
            return


def resident_mb(pid: int) -> float:
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 2**20


class Restate:
    """A server and a service process, which end with the block."""

    def __init__(self, folder: Path, aside: str = "1m") -> None:
        self.folder = folder
        self.node, self.ingress, self.admin, self.port = free_ports(4)
        ports = {"node": self.node, "ingress": self.ingress, "admin": self.admin}
        (folder / "config.toml").write_text(CONFIG.format(folder=folder, aside=aside, **ports))
        self.processes: list[subprocess.Popen[bytes]] = []

    def spawn(self, *argv: str) -> None:
        with (self.folder / "output").open("ab") as output:
            self.processes.append(subprocess.Popen(argv, stdout=output, stderr=output))

    def begin(self) -> None:
        server = os.environ["RESTATE_SERVER"]
        self.spawn(server, "--no-logo", "-c", str(self.folder / "config.toml"))
        service = str(HERE / "restate_service.py")
        self.spawn(sys.executable, "-B", service, str(self.port), str(self.folder))
        ask_until_there(f"http://127.0.0.1:{self.ingress}/restate/health")

    def register(self) -> None:
        deployment = {"uri": f"http://127.0.0.1:{self.port}"}
        ask_until_there(f"http://127.0.0.1:{self.admin}/deployments", deployment)

    def kill(self) -> None:
        for process in self.processes:
            process.kill()
            process.wait()
        self.processes.clear()

    def __enter__(self) -> Self:
        try:
            self.begin()
            self.register()
        except BaseException:
            self.kill()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    def lines(self, name: str) -> list[str]:
        path = self.folder / name
        return path.read_text().splitlines() if path.exists() else []

    def wait_for_lines(self, name: str, count: int) -> list[str]:
        end = time.perf_counter() + PATIENCE
        while len(self.lines(name)) < count:
            if time.perf_counter() > end:
                raise SystemExit(f"{len(self.lines(name))} of {count} flows {name}")
            time.sleep(0.02)
        return self.lines(name)

    def wait_until_aside(self, count: int) -> None:
        """Wait until so many flows are parked and out of the service's memory."""
        end = time.perf_counter() + PATIENCE
        query = "SELECT count(*) AS n FROM sys_invocation WHERE status = 'suspended'"
        while True:
            found = ask(f"http://127.0.0.1:{self.admin}/query", {"query": query})
            if found["rows"][0]["n"] >= count:
                return
            if time.perf_counter() > end:
                raise SystemExit(f"{found} of {count} flows were put aside")
            time.sleep(0.2)

    def mb(self) -> float:
        return sum(resident_mb(each.pid) for each in self.processes)


class Caller:
    """A connection to the ingress that is kept alive: as little of a client as will do."""

    def __init__(self, port: int) -> None:
        self.port = port

    async def __aenter__(self) -> Self:
        self.reader, self.writer = await asyncio.open_connection("127.0.0.1", self.port)
        return self

    async def __aexit__(self, *_: object) -> None:
        self.writer.close()

    def send(self, path: str, body: Any) -> None:
        data = json.dumps(body).encode()
        head = (
            f"POST {path} HTTP/1.1\r\nhost: bench\r\ncontent-type: application/json\r\n"
            f"content-length: {len(data)}\r\n\r\n"
        )
        self.writer.write(head.encode() + data)

    async def answer(self) -> Any:
        head = (await self.reader.readuntil(b"\r\n\r\n")).lower()
        length = head.partition(b"content-length:")[2].partition(b"\r\n")[0]
        body = await self.reader.readexactly(int(length or 0))
        if int(head.split()[1]) >= 300:
            raise RuntimeError(head + body)
        return json.loads(body) if body else None

    async def call(self, path: str, body: Any) -> Any:
        self.send(path, body)
        return await self.answer()


async def by(
    port: int, at_once: int, things: Iterator[Any], do: Callable[[Caller, Any], Awaitable[None]]
) -> None:
    """So many callers, each with a connection of its own, work through the things."""

    async def caller() -> None:
        async with Caller(port) as connection:
            for thing in things:
                await do(connection, thing)

    await asyncio.gather(*(caller() for _ in range(at_once)))


async def flows(restate: Restate, steps: int, at_once: int, seconds: float) -> None:
    async def run(caller: Caller, number: int) -> None:
        assert await caller.call(f"/bench/{FLOWS[steps]}", number) == number

    await by(restate.ingress, at_once, until(3 * WARM, itertools.count()), run)
    with Work() as work:
        numbers = work.count(until(seconds, itertools.count()))
        await by(restate.ingress, at_once, numbers, run)
    work.tell(f"{FLOWS[steps]} {at_once}", each=steps, version=VERSION)


async def signals(restate: Restate, at_once: int, seconds: float) -> None:
    waiting: dict[int, Caller] = {}
    for number in until(2 * seconds, range(MOST_PARKED)):
        caller = await Caller(restate.ingress).__aenter__()
        caller.send("/bench/park", number)
        waiting[number] = caller
    await asyncio.to_thread(restate.wait_for_lines, "parked", len(waiting))
    names = [line.split() for line in restate.lines("parked")]

    async def run(caller: Caller, found: list[str]) -> None:
        number, name = found
        await caller.call(f"/restate/awakeables/{name}/resolve", 1)
        assert await waiting[int(number)].answer() == 1

    with Work() as work:
        await by(restate.ingress, at_once, work.count(until(seconds, names)), run)
    work.tell(f"signal {at_once}", parked=len(names))


async def latency(restate: Restate, seconds: float) -> None:
    found = []
    async with Caller(restate.ingress) as caller:
        for number in until(3 * WARM, itertools.count()):
            await caller.call("/bench/stamped", number)
        for number in until(seconds, itertools.count()):
            called = time.perf_counter()
            # The clock of Linux and macOS is the same in all processes.
            found.append(await caller.call("/bench/stamped", number) - called)
    tell_latency(found, VERSION)


async def park(restate: Restate, numbers: range) -> None:
    async def run(caller: Caller, number: int) -> None:
        await caller.call("/bench/park/send", number)

    await by(restate.ingress, HELPERS, iter(numbers), run)
    await asyncio.to_thread(restate.wait_until_aside, numbers.stop)


async def answer_all(restate: Restate, names: list[str]) -> None:
    async def run(caller: Caller, name: str) -> None:
        await caller.call(f"/restate/awakeables/{name}/resolve", 1)

    await by(restate.ingress, HELPERS, iter(names), run)


def parked(restate: Restate, count: int) -> None:
    asyncio.run(park(restate, range(HELPERS)))
    before = restate.mb()
    asyncio.run(park(restate, range(HELPERS, HELPERS + count)))
    tell_memory(count, restate.mb() - before)
    # A flow that was invoked twice has left word twice, under one name.
    names = dict(line.split() for line in restate.lines("parked"))
    restate.kill()
    begun = time.perf_counter()
    restate.begin()
    asyncio.run(by(restate.ingress, 1, iter([0]), one))
    tell_recovery("recover", time.perf_counter() - begun, count, count)
    asyncio.run(answer_all(restate, list(names.values())))
    restate.wait_for_lines("passed", HELPERS + count)
    tell_recovery("answered", time.perf_counter() - begun, count, count)


async def one(caller: Caller, number: int) -> None:
    assert await caller.call("/bench/one_step", number) == number


def server_version() -> str:
    found = subprocess.run(
        [os.environ["RESTATE_SERVER"], "--version"], stdout=-1, text=True, check=True
    )
    return found.stdout.split()[-1]


def main(command: str, *arguments: str) -> None:
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    # Told to end, it ends what it started, too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    aside = "1s" if command == "parked" else "1m"
    with workdir() as folder, Restate(folder, aside) as restate:
        if command == "flows":
            steps, at_once, seconds = arguments
            asyncio.run(flows(restate, int(steps), int(at_once), float(seconds)))
        elif command == "signal":
            asyncio.run(signals(restate, int(arguments[0]), float(arguments[1])))
        elif command == "latency":
            asyncio.run(latency(restate, float(arguments[0])))
        else:
            parked(restate, int(arguments[0]))


if __name__ == "__main__":
    VERSION = f"server {server_version()}, sdk {version('restate-sdk')}"
    main(*sys.argv[1:])
