"""Start-up: `import triggerflow`, what opening an app loads, and `triggerflow --help`.

Each is the median of many fresh processes; the time of an empty one is shown beside.

usage: imports.py ROUNDS
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time

from common import ROOT

COMMANDS = {
    "empty process": ["-c", "pass"],
    "import triggerflow": ["-c", "import triggerflow"],
    "import what open() loads": [
        "-c",
        "from triggerflow import App; import triggerflow.engine.engine",
    ],
    "triggerflow --help": ["-m", "triggerflow", "--help"],
}


def main(rounds: int) -> None:
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    environment = os.environ | {"PYTHONPATH": path}
    times: dict[str, list[float]] = {name: [] for name in COMMANDS}
    missing = set()
    for turn in range(rounds + 1):
        for name, arguments in COMMANDS.items():
            if name in missing:
                continue
            start = time.perf_counter()
            done = subprocess.run(
                [sys.executable, *arguments], env=environment, capture_output=True, check=False
            )
            if done.returncode:
                missing.add(name)
            elif turn:  # the first one writes byte code
                times[name].append(time.perf_counter() - start)
    for name, found in times.items():
        line: dict[str, object] = {"what": f"start {name}", "n": len(found)}
        if name in missing:
            line["skipped"] = "it failed"
        else:
            line["seconds"] = round(statistics.median(found), 4)
        print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]))
