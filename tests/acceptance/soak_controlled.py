"""Flows under every control across repeated SIGKILLs, two processes on one file, and an audit.

    python tests/acceptance/soak_controlled.py --activities 20000 --kills 40

As `soak.py`, with `children/controlled.py`: debounce, batch, throttle, concurrency, a rate
limit and singletons. The audit (`children/controlled_audit.py`) counts: each activity has had
one effect, each batch is what was gathered, and no limit was passed.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE / "children")]

from collections import deque  # noqa: E402

from conftest import Processes  # noqa: E402
from controlled_audit import KINDS, audit, summary  # noqa: E402
from soak import Soak  # noqa: E402


class Controlled(Soak):
    """The same soak with controlled flows, ten activities a batch."""

    size = len(KINDS)

    def child(self, way: str = "free", **env: str) -> Any:
        """A process that is open."""
        args = (self.store, self.world, way, self.lease)
        child = self.processes.start("controlled.py", *args, **env)
        child.expect("open")
        self.given[child.pid] = deque()
        return child

    def audit(self) -> list[str]:
        """The audit's findings."""
        return audit(self.store, self.acks)

    def summary(self) -> str:
        """What there was to audit."""
        counts = f"{len(self.acks):,} activities acknowledged, {len(self.dead)} kills"
        return f"{counts}, {summary(self.store, self.world)}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--activities", type=int, default=20_000)
    parser.add_argument("--kills", type=int, default=40)
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="soak-") as name:
        processes = Processes(Path(name))
        try:
            soak = Controlled(Path(name), processes, seed=args.seed)
            soak.run(-(-args.activities // len(KINDS)), args.kills)
            findings = soak.audit()
        finally:
            for child in processes.children:
                child.clear()
        print(f"seed {args.seed}: {soak.summary()}")
        print(f"{len(findings)} findings", *findings[:50], sep="\n")
        locked = processes.complaints().count("locked")
        print(f"complaints of a locked database: {locked}")
    return 1 if findings or locked else 0


if __name__ == "__main__":
    sys.exit(main())
