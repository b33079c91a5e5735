"""Where the peers live: a virtual environment and an npm folder of their own.

They are no dependencies of triggerflow; nothing outside this folder imports them.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import venv
from pathlib import Path

HOME = Path(os.environ.get("TRIGGERFLOW_PEERS", Path(__file__).resolve().parents[1] / ".peers"))
PACKAGES = ("dbos", "restate-sdk", "hypercorn", "temporalio", "durabletask")
SERVER = "@restatedev/restate-server"


def install() -> None:
    """Make or renew the home of the peers, each in its current release."""
    venv.create(HOME / "venv", with_pip=True)
    pip = [str(HOME / "venv" / "bin" / "python"), "-m", "pip", "install", "-q", "--upgrade"]
    subprocess.run([*pip, *PACKAGES], check=True)
    npm = shutil.which("npm")
    if npm is None:
        print("Restate's server comes from npm, which isn't here", file=sys.stderr)
        return
    # Without its scripts, which would report the installation to somebody.
    command = [npm, "install", "--prefix", str(HOME / "npm"), "--ignore-scripts", "--no-audit"]
    subprocess.run([*command, "--no-fund", "--silent", SERVER], check=True)


def peer_python(given: Path | None) -> Path | None:
    """The interpreter of the peers: the one that was given, else that of their home."""
    if given and not given.exists():
        raise SystemExit(f"--peer-python: there is no {given}")
    found = given or HOME / "venv" / "bin" / "python"
    return found if found.exists() else None


def restate_server() -> Path | None:
    """The server's binary: $RESTATE_SERVER, else what npm put into the home of the peers."""
    named = os.environ.get("RESTATE_SERVER") or shutil.which("restate-server")
    if named:
        return Path(named)
    folder = HOME / "npm" / "node_modules" / "@restatedev"
    return next(iter(sorted(folder.glob("restate-server-*/bin/restate-server"))), None)


def version(python: Path | None, package: str) -> str | None:
    """The version of a package that an interpreter has; None if it has none."""
    if python is None:
        return None
    code = f"from importlib.metadata import version; print(version({package!r}))"
    found = subprocess.run(
        [str(python), "-c", code], capture_output=True, text=True, check=False
    )
    return found.stdout.strip() or None
