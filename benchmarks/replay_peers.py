"""Replay of recorded histories beside Temporal's `Replayer` and durabletask's executor.

A history is a chain of steps (activities) on integers, replayed from its first entry to its
end. `memory` is the driver on entries in memory, `cold` what a claim does: read from SQLite,
decode, drive, verify every digest. Both peers have their histories in memory, as protobuf
with values in JSON. In turn, each in a process of its own, medians of three rounds.

usage: replay_peers.py [--install] [--quick] [--rounds N] [--json FILE] [--peer-python PATH]
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from common import HERE, ROOT
from peers.install import HOME, install, peer_python, version
from run import Results, machine

LENGTHS = (100, 1000, 10_000)
PEERS = ("durabletask", "temporal")
PACKAGES = {"durabletask": "durabletask", "temporal": "temporalio"}
OURS = ("memory", "cold")
AIM = 10
# Long enough for Temporal's longest history, which takes the better part of a minute.
PATIENCE = 300


def command(name: str, length: int, seconds: float, python: Path | None) -> list[str]:
    if name == "memory":
        return [sys.executable, str(HERE / "replay.py"), name, str(length), str(seconds)]
    if name == "cold":
        return [sys.executable, str(HERE / "replay.py"), name, str(length), "int", str(seconds)]
    return [str(python), str(HERE / "peers" / f"replay_{name}.py"), str(length), str(seconds)]


def run(argv: list[str]) -> list[dict[str, Any]]:
    done = subprocess.run(
        argv,
        stdout=subprocess.PIPE,
        text=True,
        timeout=PATIENCE,
        check=True,
        env={**os.environ, "PYTHONPATH": str(HERE), "PYTHONDONTWRITEBYTECODE": "1"},
    )
    return [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]


def line_of(name: str, length: int) -> str:
    """What the script of one contender calls its result."""
    return {"memory": f"replay memory {length}", "cold": f"replay cold int {length}"}.get(
        name, f"{name} {length}"
    )


def show(results: Results, peers: list[str]) -> None:
    ratios = [f"{ours} / {peer}" for ours in OURS for peer in peers]
    head = ["entries", *OURS, *peers, *ratios]
    print("\nentries per second\n")
    print("| " + " | ".join(head) + " |\n" + "|---" * len(head) + "|")
    for length in LENGTHS:
        cells = [f"{length:,}"]
        cells += [f"{results.get(line_of(each, length)) or 0:,.0f}" for each in (*OURS, *peers)]
        for ours in OURS:
            for peer in peers:
                ratio = results.ratio(line_of(ours, length), line_of(peer, length))
                cells.append("-" if ratio is None else f"{ratio:,.3g}")
        print("| " + " | ".join(cells) + " |")
    if not peers:
        return
    print("\n| beside the better peer | memory | cold | aim |\n|---|---|---|---|")
    for length in LENGTHS:
        found = [
            min(
                results.ratio(line_of(ours, length), line_of(peer, length)) or 0
                for peer in peers
            )
            for ours in OURS
        ]
        cells = [f"{each:,.3g} {'yes' if each >= AIM else 'NO'}" for each in found]
        print(f"| {length:,} entries | {cells[0]} | {cells[1]} | >= {AIM} |")


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--install", action="store_true", help=f"put the peers into {HOME}")
    parser.add_argument("--peer-python", type=Path, help="an interpreter that has the peers")
    parser.add_argument("--quick", action="store_true", help="one short round")
    parser.add_argument("--rounds", type=int, default=0, help="3 by default, 1 with --quick")
    parser.add_argument("--json", type=Path, help="write all lines of all rounds here")
    given = parser.parse_args()
    if given.install:
        install()
    python = peer_python(given.peer_python)
    versions = {name: version(python, PACKAGES[name]) for name in PEERS}
    peers = [name for name in PEERS if versions[name]]
    for name in PEERS:
        if name not in peers:
            print(f"{name} is left out: not in {python or HOME}; see --install")
    facts, results = machine() | {"versions": versions}, Results()
    seconds = 0.5 if given.quick else 2
    for _ in range(given.rounds or (1 if given.quick else 3)):
        for length in LENGTHS:
            for name in (*OURS, *peers):
                results.add(run(command(name, length, seconds, python)))
    print(", ".join(f"{name} {value}" for name, value in facts.items()))
    show(results, peers)
    if given.json:
        text = json.dumps({"machine": facts, "results": results.lines}, indent=1)
        given.json.write_text(text + "\n")
    return 0


if __name__ == "__main__":
    os.chdir(ROOT)
    sys.exit(main())
