"""Run the benchmarks in turn, each in a process of its own, and print ratios.

All of a round's scripts run one after the other, then the next round begins, so that a
noisy minute hits yardstick and subject alike. Shown are medians; `!` marks a spread of more
than 1.5 between the rounds. Aims are the project's own; nothing fails because of a number,
only because of a violation that the audit found or a script that broke.

usage: run.py [--quick] [--rounds N] [--json FILE] [names ...]
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sqlite3
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

from common import HERE, ROOT, SHARED_FLOOR, WEBHOOKS, fsync_us, workdir

Job = tuple[Path, list[str]]
# A script that takes longer than this is broken.
PATIENCE = 600


def jobs(name: str, quick: bool) -> list[Job]:
    """The commands of one benchmark, small ones if quick."""

    def size(full: int, small: int) -> str:
        return str(small if quick else full)

    def own(script: str, *commands: str) -> list[Job]:
        return [(HERE / script, command.split()) for command in commands]

    if name == "steps":
        sizes = {1: size(300, 50), 100: size(3000, 500), 1000: size(5000, 1500)}
        found: list[Job] = []
        for at_once, flows in sizes.items():
            ours = own("steps.py", f"10 {flows} {at_once}")
            floor = own("floor.py", f"10 {flows} {at_once}")
            if SHARED_FLOOR.exists():
                floor.append((SHARED_FLOOR, ["sqlite", "ten_steps", flows, str(at_once)]))
            found += ours + floor
        more = size(5000, 500)
        found += own("steps.py", f"10 {sizes[100]} 100 ended", f"10 {sizes[100]} 100 wait note")
        found += own("steps.py", f"1 {more} 100") + own("floor.py", f"1 {more} 100")
        if SHARED_FLOOR.exists():
            found.append((SHARED_FLOOR, ["sqlite", "one_step", more, "100"]))
        return found
    if name == "replay":
        seconds = size(2, 1)
        found = own("replay.py", f"memory 1000 {seconds}", f"memory 100000 {seconds}")
        lengths = (1000,) if quick else (1000, 10_000)
        kinds = ("int", "note_arg", "note")
        return found + own(
            "replay.py", *(f"cold {n} {kind} {seconds}" for kind in kinds for n in lengths)
        )
    if name == "append":
        count = size(10_000, 2000)
        return own(
            "append.py",
            f"many kb {count}",
            f"one kb {count}",
            f"many github {count}",
            f"cid {count}",
        )
    if name == "queues":
        return own("queues.py", size(100, 20) + " 1", size(1000, 200) + " 100")
    if name == "matching":
        large = size(100_000, 5000)
        sets = [
            f"match {kind} {count}"
            for kind in ("selective", "skewed", "mixed")
            for count in ("10", "1000", large)
        ]
        return own(
            "matching.py",
            *sets,
            *(f"{verb} {large}" for verb in ("register", "reload", "open")),
            f"append {size(100_000, 5000)} 1000",
            f"check mixed {large}",
        )
    if name == "long":
        return own("long_flow.py", size(10_000, 1000) + " 1", size(40_000, 4000) + " 20")
    if name == "parked":
        return own("parked.py", size(100_000, 5000))
    if name == "imports":
        return own("imports.py", size(10, 3))
    if name == "audit":
        return own("audit.py", size(4, 2))
    raise SystemExit(f"no benchmark is called {name!r}; there are {', '.join(NAMES)}")


NAMES = (
    "steps",
    "queues",
    "replay",
    "append",
    "matching",
    "long",
    "parked",
    "imports",
    "audit",
)
# These are slow and steady, or pass and fail: once is enough.
ONCE = ("parked", "imports", "audit", "long")


def run(job: Job) -> tuple[list[dict[str, Any]], bool]:
    """The results of one command, and whether it ended well."""
    script, arguments = job
    done = subprocess.run(
        [sys.executable, "-B", str(script), *arguments],
        stdout=subprocess.PIPE,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    found = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    if done.returncode:
        print(f"  {script.name} {' '.join(arguments)}: exit status {done.returncode}")
    return found, done.returncode == 0


class Results:
    """All lines of all rounds, by what they measure."""

    def __init__(self) -> None:
        self.lines: dict[str, list[dict[str, Any]]] = {}

    def add(self, lines: list[dict[str, Any]]) -> None:
        for line in lines:
            self.lines.setdefault(line["what"], []).append(line)

    def get(self, what: str, field: str = "per_s") -> float | None:
        """The median of a field over the rounds."""
        values = [line[field] for line in self.lines.get(what, ()) if field in line]
        return statistics.median(values) if values else None

    def spread(self, what: str) -> float:
        values = [line["per_s"] for line in self.lines[what] if line.get("per_s")]
        return max(values) / min(values) if values else 1.0

    def ratio(self, one: str, other: str, field: str = "per_s") -> float | None:
        """The median over the rounds of the ratios within a round: noise hits both sides."""
        pairs = zip(self.lines.get(one, ()), self.lines.get(other, ()), strict=False)
        found = [mine[field] / theirs[field] for mine, theirs in pairs]
        return statistics.median(found) if found else None


def machine() -> dict[str, Any]:
    with workdir() as folder:
        sync = fsync_us(folder)
    return {
        "cores": len(os.sched_getaffinity(0))
        if hasattr(os, "sched_getaffinity")
        else os.cpu_count(),
        "machine": f"{platform.system()} {platform.machine()}",
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "sqlite": sqlite3.sqlite_version,
        "fsync_us": round(sync),
        "load": round(os.getloadavg()[0], 2),
        "shared_floor": SHARED_FLOOR.exists(),
        "webhooks": WEBHOOKS.exists(),
    }


def judged(results: Results) -> list[tuple[str, float, str, bool]]:
    """(what, number, aim, whether it is reached) of everything that has an aim."""
    rows: list[tuple[str, float, str, bool]] = []

    def aim(what: str, found: float | None, low: float | None, high: float | None) -> None:
        if found is None:
            return
        wanted = f">= {low:,g}" if high is None else f"< {high:,g}"
        fine = found >= low if low is not None else high is not None and found < high
        rows.append((what, found, wanted, fine))

    for entries in (1000, 100_000):
        found = results.get(f"replay memory {entries}")
        slower = results.ratio(f"replay bare {entries}", f"replay memory {entries}")
        if found and slower:
            rows.append(
                (
                    f"{entries:,} entries in memory, entries/s ({slower:.1f}x the bare loop)",
                    found,
                    ">= 1,000,000 or within 4x",
                    found >= 1e6 or slower <= 4,
                )
            )
    for steps in (1000, 10_000):
        aim(f"cold replay of {steps:,}, ints, entries/s",
            results.get(f"replay cold int {steps}"), 200_000, None)  # fmt: skip
        aim(f"cold replay of {steps:,}, 606-byte arguments, entries/s",
            results.get(f"replay cold note_arg {steps}"), 60_000, None)  # fmt: skip
    aim("10-step flows, 100 at once, steps/s", results.get("steps 10-step 100"), 20_000, None)
    for at_once in (1, 100, 1000):
        ours = f"steps 10-step {at_once}"
        shared = f"floor sqlite ten_steps conc={at_once}"
        if results.get(shared):
            aim(f"steps beside the shared floor, {at_once} at once",
                results.ratio(ours, shared), 1 / 3, None)  # fmt: skip
        own = results.ratio(ours, f"floor 10-step {at_once}")
        if own:
            rows.append((f"steps beside floor.py, {at_once} at once", own, "-", True))
    one = results.ratio("steps 1-step 100", "floor sqlite one_step conc=100")
    if one:
        rows.append(("one-step flows beside the shared floor, 100 at once", one, "-", True))
    for at_once in (1, 100):
        for where, text in {"here": "here", "there": "in another process"}.items():
            ratio = results.ratio(f"queues {where} {at_once}", f"queues home {at_once}")
            if ratio:
                what = f"calls queued and run {text}, beside plain steps, {at_once} at once"
                rows.append((what, ratio, "-", True))
    aim("append_many at 1 KB, activities/s", results.get("append many kb"), 8000, None)
    aim("append_many of GitHub webhooks, activities/s",
        results.get("append many github"), 5000, None)  # fmt: skip
    for count, low in ((10, 400_000), (1000, 150_000), (100_000, 25_000)):
        for kind in ("selective", "skewed", "mixed"):
            aim(f"matching beside {count:,} triggers, {kind}, activities/s",
                results.get(f"match {kind} {count}"), low, None)  # fmt: skip
            found = results.ratio(f"match {kind} {count}", f"scan {kind} {count}")
            if found:
                rows.append((f"... times a scan of {count:,}, {kind}", found, "-", True))
    aim("registering 100,000 triggers, triggers/s",
        results.get("register 100000"), 60_000, None)  # fmt: skip
    aim("memory of a trigger of 100,000, bytes",
        results.get("register 100000", "bytes_each"), None, 1500)  # fmt: skip
    aim("append_many from a file beside 1,000 triggers, activities/s",
        results.get("append beside 1000 triggers"), 8000, None)  # fmt: skip
    for at_once in (1, 20):
        aim(f"a step of a 10,000-step flow against a 100-step one, {at_once} at once",
            results.ratio(f"long 10000 at {at_once}", f"long 100 at {at_once}", "us_per_step"),
            None, 1.5)  # fmt: skip
    for what in results.lines:
        if what.startswith("park "):
            aim(f"{what}, memory grown, MB", results.get(what, "grown_mb"), None, 50)
        if what.startswith("parked start-up"):
            aim(f"{what}, seconds", results.get(what, "seconds"), None, 1)
    aim("import triggerflow, seconds",
        results.get("start import triggerflow", "seconds"), None, 0.150)  # fmt: skip
    aim("triggerflow --help, seconds",
        results.get("start triggerflow --help", "seconds"), None, 0.300)  # fmt: skip
    return rows


def show(results: Results, facts: dict[str, Any]) -> None:
    print("\n" + ", ".join(f"{name} {value}" for name, value in facts.items()))
    print("\n| what | n | per s | more |\n|---|---|---|---|")
    for what, lines in results.lines.items():
        rate = results.get(what)
        noisy = "!" if results.spread(what) > 1.5 else ""
        hidden = ("what", "n", "per_s", "cpu_s", "pg_cpu_s", "load1")
        more = ", ".join(f"{k} {v}" for k, v in lines[-1].items() if k not in hidden)
        print(f"| {what} | {lines[-1]['n']:,} | {rate or 0:,.0f}{noisy} | {more} |")
    print("\n| against the aims | found | aim | |\n|---|---|---|---|")
    for what, found, aim, fine in judged(results):
        text = f"{found:,.0f}" if found >= 100 else f"{found:.3g}"
        print(f"| {what} | {text} | {aim} | {'yes' if fine else 'NO'} |")


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("names", nargs="*", help=f"of {', '.join(NAMES)}; all by default")
    parser.add_argument("--quick", action="store_true", help="small sizes, one round")
    parser.add_argument("--rounds", type=int, default=0, help="3 by default, 1 with --quick")
    parser.add_argument("--json", type=Path, help="write all lines of all rounds here")
    given = parser.parse_args()
    names = given.names or list(NAMES)
    rounds = given.rounds or (1 if given.quick else 3)
    facts, results, broken = machine(), Results(), False
    chosen = {name: jobs(name, given.quick) for name in names}
    for turn in range(rounds):
        for name in names:
            if turn and name in ONCE:
                continue
            for job in chosen[name]:
                if sys.stderr.isatty():
                    shown = f"round {turn + 1}: {job[0].name} {' '.join(job[1])}"
                    print(f"{shown:60}", end="\r", file=sys.stderr, flush=True)
                lines, fine = run(job)
                results.add(lines)
                broken = broken or not fine
    show(results, facts)
    if given.json:
        given.json.write_text(
            json.dumps({"machine": facts, "results": results.lines}, indent=1) + "\n"
        )
    return 1 if broken else 0


if __name__ == "__main__":
    os.chdir(ROOT)
    sys.exit(main())
