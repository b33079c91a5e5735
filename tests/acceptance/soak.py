"""Mixed flows across repeated SIGKILLs, two processes on one SQLite file, and an audit.

    python tests/acceptance/soak.py --flows 20000 --kills 40

Flows of many kinds (`children/mixed.py`) are brought in by two processes that also drive them,
and serve the queue on which some of their steps run.
One of them is killed at a random moment and replaced, again and again; what it had not
acknowledged is asked for once more. In the end one process drives the rest, and the database,
the steps' own record and the bank's ledger are audited (`children/mixed_audit.py`). The exit
status is 1 if the audit found anything. What became of each queued call the database keeps
itself, by triggers.
"""

from __future__ import annotations

import argparse
import json
import random
import sqlite3
import sys
import tempfile
import time
from collections import deque
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE / "children")]

from conftest import Processes  # noqa: E402
from mixed_audit import KINDS, audit, summary, watch  # noqa: E402

import triggerflow as tf  # noqa: E402

# Commands that a child has before it, so that it needn't wait for its parent.
AHEAD = 2
LIMIT = 120.0


class Soak:
    """One store, the processes that work on it, and what they acknowledged.

    Attributes:
        size: how many flows a batch has.
    """

    size = len(KINDS)

    def __init__(self, folder: Path, processes: Processes, *, seed: int, lease: float = 30.0):
        self.store = folder / "soak.db"
        self.world = folder / "world"
        self.processes = processes
        self.lease = lease
        self.chance = random.Random(seed)
        self.acks: dict[int, tuple[str | None, str]] = {}
        self.doubtful: set[int] = set()
        self.dead: set[int] = set()
        self.given: dict[int, deque[int]] = {}  # pid -> batches that it has before it
        store = tf.App(f"sqlite:///{self.store}", entry_points=False).make_store()
        store.open()
        store.close()
        watch(self.store)
        with sqlite3.connect(self.world.with_suffix(".db")) as db:
            db.execute("CREATE TABLE ledger (key TEXT PRIMARY KEY, n INTEGER, amount INTEGER)")
        db.close()

    def child(self, way: str = "free", **env: str) -> Any:
        """A process that is open."""
        child = self.processes.start("mixed.py", self.store, self.world, way, self.lease, **env)
        child.expect("open")
        self.given[child.pid] = deque()
        return child

    def give(self, child: Any, batch: int) -> None:
        """Tell a child to bring a batch in."""
        self.given[child.pid].append(batch)
        child.say(str(batch))

    def heard(self, child: Any, lines: list[str]) -> int:
        """Keep what a child acknowledged; how many batches."""
        for line in lines:
            word, _, rest = line.partition(" ")
            assert word == "ack", line
            for n, told in json.loads(rest).items():
                cid, id = told
                known = self.acks.setdefault(int(n), (cid, id))
                # Whoever repeats it hears the same, but for a key that was free again.
                assert cid is None or known == (cid, id), f"{n}: {known}, then {told}"
            self.given[child.pid].popleft()
        return len(lines)

    def kill(self, child: Any) -> list[int]:
        """SIGKILL; the batches that it had not acknowledged."""
        self.dead.add(child.pid)
        self.heard(child, child.kill())
        left = list(self.given[child.pid])
        for batch in left:
            self.doubtful.update(range(batch * self.size, (batch + 1) * self.size))
        return left

    def run(self, batches: int, kills: int) -> None:
        """Bring all batches in, with so many kills on the way, and drive all to the end."""
        todo = deque(range(batches))
        moments = sorted(self.chance.sample(range(batches), kills), reverse=True)
        pair = [self.child(), self.child()]
        done, moved = 0, time.monotonic()
        while done < batches:
            for index, child in enumerate(pair):
                while todo and len(self.given[child.pid]) < AHEAD:
                    self.give(child, todo.popleft())
                heard = self.heard(child, child.pull(0.02))
                done += heard
                if heard:
                    moved = time.monotonic()
                assert not child.over, f"child {child.pid} ended:\n{child.complaints()}"
                if moments and done >= moments[-1]:
                    moments.pop()
                    loser = self.chance.randrange(2)
                    left = self.kill(pair[loser])
                    done = len(self.acks) // self.size
                    todo.extendleft(reversed(left))
                    pair[loser] = self.child()
                    break
            assert time.monotonic() - moved < LIMIT, f"nothing moves after {done} batches"
        # Both die in the midst of what is still under way.
        for child in pair:
            self.kill(child)
        self.drain()

    def drain(self) -> None:
        """One process drives everything to its end."""
        child = self.child()
        child.say("end")
        child.expect("done", 10 * LIMIT)
        child.process.stdin.close()
        assert child.finish() == []

    def audit(self) -> list[str]:
        """The audit's findings."""
        return audit(
            self.store, self.world, acks=self.acks, doubtful=self.doubtful, dead=self.dead
        )

    def summary(self) -> str:
        """What there was to audit."""
        counts = f"{len(self.acks):,} flows acknowledged, {len(self.dead)} kills"
        return f"{counts}, {summary(self.store, self.world)}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--flows", type=int, default=20_000)
    parser.add_argument("--kills", type=int, default=40)
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    begun = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="soak-") as name:
        processes = Processes(Path(name))
        try:
            soak = Soak(Path(name), processes, seed=args.seed)
            soak.run(-(-args.flows // len(KINDS)), args.kills)
            driven = time.monotonic() - begun
            findings = soak.audit()
        finally:
            for child in processes.children:
                child.clear()
        print(f"seed {args.seed}: {soak.summary()}")
        print(f"driven in {driven:.0f} s; {len(findings)} findings")
        print("\n".join(findings[:50]))
        locked = processes.complaints().count("locked")
        print(f"complaints of a locked database: {locked}")
    return 1 if findings or locked else 0


if __name__ == "__main__":
    sys.exit(main())
