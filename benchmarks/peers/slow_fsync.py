"""A disk whose every fsync takes longer: `slow_fsync.c`, compiled on the spot, preloaded."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

SOURCE = Path(__file__).resolve().with_suffix(".c")


class SlowDisk:
    """What a process's environment needs so that its fsyncs are slow and counted.

    A program that is linked statically passes the shim by: `count` stays at zero.
    """

    def __init__(self, folder: Path, us: int) -> None:
        compiler = shutil.which("gcc") or shutil.which("cc")
        if compiler is None or sys.platform != "linux":
            raise RuntimeError("needs Linux and a C compiler")
        shim = folder / "slow_fsync.so"
        command = [compiler, "-O2", "-shared", "-fPIC", "-o", str(shim), str(SOURCE)]
        subprocess.run(command, check=True)
        self._count = folder / "fsyncs"
        self.environment = {
            "LD_PRELOAD": str(shim),
            "TRIGGERFLOW_FSYNC_US": str(us),
            "TRIGGERFLOW_FSYNC_COUNT": str(self._count),
        }
        self.reset()

    def reset(self) -> None:
        self._count.write_bytes(bytes(8))

    @property
    def count(self) -> int:
        return int.from_bytes(self._count.read_bytes()[:8], sys.byteorder)
