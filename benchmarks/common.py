"""What the benchmarks share: paths, timing, JSON lines, documents."""

from __future__ import annotations

import contextlib
import json
import os
import resource
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
# The checkout beside these scripts is what is measured, installed or not.
sys.path.insert(0, str(ROOT))
# Yardsticks and data that a checkout may or may not have beside it.
SHARED = Path(os.environ.get("TRIGGERFLOW_SHARED", ROOT.parent / "shared"))
SHARED_FLOOR = SHARED / "bench" / "floor.py"
WEBHOOKS = SHARED / "data" / "github-webhooks.jsonl"


@contextlib.contextmanager
def workdir() -> Iterator[Path]:
    """A folder for database files, on the disk of $BENCH_DIR or of the temporary files."""
    where = os.environ.get("BENCH_DIR")
    if where:
        Path(where).mkdir(parents=True, exist_ok=True)
    found = Path(tempfile.mkdtemp(prefix="triggerflow-bench-", dir=where))
    try:
        yield found
    finally:
        shutil.rmtree(found, ignore_errors=True)


class Timer:
    """Wall time of a block, and the processor time that this process took in it."""

    s = cpu = 0.0

    def __enter__(self) -> Self:
        self._cpu = time.process_time()
        self._start = time.perf_counter()
        return self

    def __exit__(self, *_: object) -> None:
        self.s = time.perf_counter() - self._start
        self.cpu = time.process_time() - self._cpu


def emit(what: str, n: float, taken: Timer | float, **more: Any) -> None:
    """Print one result as a JSON line."""
    seconds = taken if isinstance(taken, float) else taken.s
    line = {"what": what, "n": n, "seconds": round(seconds, 5)}
    if seconds:
        line["per_s"] = round(n / seconds, 1)
    if isinstance(taken, Timer):
        line["cpu_s"] = round(taken.cpu, 3)
    print(json.dumps(line | more), flush=True)


def rss_mb() -> float:
    """Resident memory of this process now, in MB; where /proc is missing, its peak."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except OSError:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak / (2**20 if sys.platform == "darwin" else 1024)
    return pages * resource.getpagesize() / 2**20


def fsync_us(folder: Path, rounds: int = 200) -> float:
    """Median time of appending 4 KB to a file and syncing it, in microseconds."""
    times = []
    fd = os.open(folder / "fsync", os.O_CREAT | os.O_WRONLY | os.O_APPEND)
    try:
        for _ in range(rounds):
            os.write(fd, b"x" * 4096)
            start = time.perf_counter()
            os.fsync(fd)
            times.append(time.perf_counter() - start)
    finally:
        os.close(fd)
    return sorted(times)[rounds // 2] * 1e6


# 606 bytes in CBOR: a note as ActivityPub servers send it.
NOTE: dict[str, Any] = {
    "@context": "https://www.w3.org/ns/activitystreams",
    "id": "https://a.example/users/ann/activities/0192f3a4-7c1e-7b4e-9d53-2f1a5c8e9b70",
    "type": "Create",
    "actor": "https://a.example/users/ann",
    "published": "2026-11-22T04:47:13Z",
    "to": ["https://www.w3.org/ns/activitystreams#Public"],
    "cc": ["https://a.example/users/ann/followers"],
    "object": {
        "id": "https://a.example/note/42",
        "type": "Note",
        "attributedTo": "https://a.example/users/ann",
        "content": "And then some more words in it. " * 5,
        "replies": 3,
        "sensitive": False,
        "score": 0.75,
        "inReplyTo": None,
    },
}


def activity(number: int, size: int = 1024) -> dict[str, Any]:
    """An activity of about `size` bytes in DAG-CBOR; every number gives another one."""
    note = dict(NOTE["object"], number=number, bucket=number % 1000)
    note["content"] += "x" * max(0, size - 587)
    return {**NOTE, "id": f"https://a.example/activities/{number}", "object": note}
