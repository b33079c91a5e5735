"""triggerflow beside DBOS, Restate and a floor, in one run, as ratios.

Every contender runs in a process of its own that stops by itself, one after the other, in
rounds whose order turns; shown are medians, and `!` marks a spread of more than 1.5 between
the rounds. Then all of it again on a disk whose fsyncs take a millisecond more. A peer that
isn't installed is named and left out. Nothing fails because of a number, only because of a
contender that broke.

usage: python benchmarks/peers [--install] [--quick] [--rounds N] [--json FILE]
                               [--peer-python PATH] [--only NAME ...] [--parked N] [--slow-us N]
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from install import HOME, install, peer_python, restate_server, version

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))
from report import show  # noqa: E402
from run import Results, machine  # noqa: E402

NAMES = ("triggerflow", "dbos", "restate", "floor")
# A contender that takes longer than this for one kind of work is broken, in seconds.
PATIENCE = 900


def commands(quick: bool, parked: int) -> list[str]:
    """The kinds of work, those of `shape.py`."""
    seconds = 1 if quick else 2
    rates = [f"flows {steps} {at_once} {seconds}" for steps in (1, 10) for at_once in (1, 100)]
    found = [*rates, f"signal 100 {seconds}", f"latency {seconds}"]
    return [*found, f"parked {parked}"] if parked else found


class Arena:
    """Who takes part, and how one of them is let loose."""

    def __init__(self, names: list[str], python: Path | None) -> None:
        self.python = python
        self.missing: dict[str, str] = {}
        self.versions: dict[str, str] = {}
        self.broken = False
        hint = f"not in {python or HOME}; see --install"
        server = restate_server()
        for name, package in (("dbos", "dbos"), ("restate", "restate-sdk")):
            if name in names and version(python, package) is None:
                self.missing[name] = hint
        if "restate" in names and server is None:
            self.missing["restate"] = "no server binary; see --install and $RESTATE_SERVER"
        self.names = [name for name in names if name not in self.missing]
        # A contender runs under the Python of its peer, which knows nothing of this folder.
        self.environment = {"PYTHONPATH": str(HERE.parent), "RESTATE_SERVER": str(server)}

    def run(self, name: str, command: str, more: dict[str, str]) -> list[dict[str, Any]]:
        """The lines that one contender printed."""
        peer = name in ("dbos", "restate")
        argv = [
            str(self.python if peer else sys.executable),
            "-B",
            str(HERE / f"with_{name}.py"),
            *command.split(),
        ]
        with tempfile.TemporaryFile("w+") as errors:
            process = subprocess.Popen(
                argv,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                env={**os.environ, **self.environment, **more},
                start_new_session=True,
            )
            try:
                output, _ = process.communicate(timeout=PATIENCE)
            except subprocess.TimeoutExpired:
                output = ""
            finally:
                if process.poll() is None:
                    # Whatever it started is in its session, and ends with it.
                    os.killpg(process.pid, signal.SIGKILL)
                    process.wait()
            errors.seek(0)
            last = "".join(errors.readlines()[-5:])
        if process.returncode:
            self.broken = True
            print(f"  {name} {command}: status {process.returncode}\n{last}", file=sys.stderr)
        found = [json.loads(line) for line in output.splitlines() if line.startswith("{")]
        for line in found:
            if "version" in line:
                self.versions[name] = line["version"]
            line["what"] = f"{name} {line['what']}"
        return found


def rounds(arena: Arena, count: int, work: list[str], disk: Any = None) -> Results:
    """All lines of all rounds, every contender in turn."""
    results = Results()
    out: set[str] = set()
    for turn in range(count):
        for command in work:
            # Parking thousands is slow and steady: once is enough.
            if turn and command.startswith("parked"):
                continue
            first = turn % len(arena.names)
            for name in arena.names[first:] + arena.names[:first]:
                if name in out:
                    continue
                if sys.stderr.isatty():
                    shown = f"round {turn + 1}{' slow' if disk else ''}: {name} {command}"
                    print(f"{shown:60}", end="\r", file=sys.stderr, flush=True)
                if disk:
                    disk.reset()
                lines = arena.run(name, command, disk.environment if disk else {})
                if disk and lines and not disk.count:
                    out.add(name)
                    continue
                results.add(lines)
    for name in sorted(out):
        print(f"{name} can't be slowed: its fsyncs pass the shim by (a static binary)")
    return results


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--install", action="store_true", help=f"put the peers into {HOME}")
    parser.add_argument("--peer-python", type=Path, help="an interpreter that has the peers")
    parser.add_argument("--only", nargs="+", choices=NAMES, default=list(NAMES))
    parser.add_argument("--quick", action="store_true", help="small sizes, one round")
    parser.add_argument("--rounds", type=int, default=0, help="3 by default, 1 with --quick")
    parser.add_argument("--parked", type=int, help="10,000 by default, 0: none; slow: a tenth")
    parser.add_argument("--slow-us", type=int, default=1000, help="0: without the slow disk")
    parser.add_argument("--json", type=Path, help="write all lines of all rounds here")
    given = parser.parse_args()
    if given.install:
        install()
    arena = Arena(given.only, peer_python(given.peer_python))
    for name, reason in arena.missing.items():
        print(f"{name} is left out: {reason}")
    count = given.rounds or (1 if given.quick else 3)
    parked = (500 if given.quick else 10_000) if given.parked is None else given.parked
    facts = machine()
    found = {"plain": rounds(arena, count, commands(given.quick, parked))}
    if given.slow_us:
        from slow_fsync import SlowDisk

        with tempfile.TemporaryDirectory() as folder:
            try:
                disk = SlowDisk(Path(folder), given.slow_us)
            except (RuntimeError, subprocess.CalledProcessError) as error:
                print(f"the slow disk is left out: {error}")
            else:
                found["slow"] = rounds(arena, count, commands(given.quick, parked // 10), disk)
    facts["load_after"] = round(os.getloadavg()[0], 2)
    facts["versions"] = arena.versions
    show(found, facts, arena.names, given.slow_us)
    if given.json:
        lines = {name: results.lines for name, results in found.items()}
        given.json.write_text(json.dumps({"machine": facts, "results": lines}, indent=1) + "\n")
    return 1 if arena.broken else 0


if __name__ == "__main__":
    sys.exit(main())
