"""Where the time of durable steps goes: 10-step flows, 100 at once, one thread at a time.

The profiler makes calls dearer than they are, so shares count and times do not. Below the
profile stands the processor time of each kind of thread, measured without it.

usage: hotspots.py loop|committer|threads [FLOWS]
"""

from __future__ import annotations

import cProfile
import pstats
import sys
import threading
from pathlib import Path
from typing import Any

import trio
from common import ROOT, Timer, workdir
from steps import make_app, run

from triggerflow.engine.committer import Committer

AT_ONCE = 100


def spent() -> dict[str, float]:
    """Processor seconds of the live threads by name, from /proc."""
    found: dict[str, float] = {}
    for each in threading.enumerate():
        name = each.name.partition(" ")[0]
        stat = Path(f"/proc/self/task/{each.native_id}/schedstat").read_text().split()
        found[name] = found.get(name, 0.0) + int(stat[0]) / 1e9
    return found


async def main(which: str, flows: int) -> None:
    profile = cProfile.Profile()
    if which == "committer":
        plain = Committer._run

        def profiled(self: Any) -> None:
            profile.runcall(plain, self)

        Committer._run = profiled
    with workdir() as folder:
        async with make_app(f"sqlite:///{folder}/steps.db", 10).open() as engine:
            await run(engine, AT_ONCE, AT_ONCE, "ended", False)
            before = spent() if which == "threads" else {}
            if which == "loop":
                profile.enable()
            with Timer() as taken:
                await run(engine, flows, AT_ONCE, "ended", False)
            if which == "loop":
                profile.disable()
            after = spent() if which == "threads" else {}
    steps = flows * 10
    wall, busy = taken.s / steps * 1e6, taken.cpu / steps * 1e6
    print(f"{which}: {wall:.1f} us a step, processor {busy:.1f}")
    for name, seconds in after.items():
        print(f"  {name:24} {(seconds - before.get(name, 0.0)) / steps * 1e6:6.1f} us a step")
    if which == "threads":
        return
    found = [
        (own, both, f"{file.replace(str(ROOT) + '/', '')}:{line}({name})")
        for (file, line, name), (_, _, own, both, _) in pstats.Stats(profile).stats.items()
        # Waiting is not work.
        if name not in {"<method 'poll' of 'select.epoll' objects>",
                        "<method 'get' of '_queue.SimpleQueue' objects>"}
    ]  # fmt: skip
    found.sort(reverse=True)
    total = sum(own for own, _, _ in found)
    print("  own %  with callees %")
    for own, both, name in found[:20]:
        print(f"  {own / total:5.1%} {min(both / total, 1):6.1%}  {name}")


if __name__ == "__main__":
    trio.run(main, sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 2000)
