"""The documents agree with the tree, with each other, and with what CI runs."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted(
    page
    for pattern in ("*.md", "docs/**/*.md", "examples/**/*.md", "plugins/**/*.md")
    for page in ROOT.glob(pattern)
)
CI = ROOT / ".ci" / "run"


def commands() -> list[str]:
    """Return README's commands: its `sh` blocks, each a single line."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    found = re.findall(r"^```sh\n(.*?)^```$", readme, re.MULTILINE | re.DOTALL)
    return [block.rstrip("\n") for block in found]


def test_readme_has_two_commands_of_one_line() -> None:
    """One runs the main job, one the tests; each installs what it needs, quietly."""
    main_job, tests = commands()
    assert main_job == "pip install -q . && python examples/follower-welcome/main.py"
    assert tests.startswith("pip install -q ")
    assert tests.endswith(" && python -m pytest -q")
    assert "\n" not in main_job + tests


def test_ci_runs_the_commands_that_readme_shows() -> None:
    """CI's own patterns find exactly those lines in README, and it repeats neither."""
    script = CI.read_text(encoding="utf-8")
    wanted = re.findall(r"command_with '(.*)'", script)
    readme = (ROOT / "README.md").read_text(encoding="utf-8").splitlines()
    found = [next(line for line in readme if pattern in line) for pattern in wanted]
    assert found == commands()
    assert script.rstrip().endswith('bash -euo pipefail -c "$tests"')
    assert "pytest -q" not in script


def test_ci_can_be_started() -> None:
    """The script is executable, and bash can read it."""
    assert os.access(CI, os.X_OK)
    subprocess.run(["bash", "-n", str(CI)], check=True, timeout=20)


def module_map() -> list[str]:
    """Return the paths in ARCHITECTURE's module map; folders end with a slash."""
    text = (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8")
    block = re.search(r"^## Module map\n+```text\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    assert block, "ARCHITECTURE.md has no module map"
    paths: list[str] = []
    folders: list[str] = []
    for line in block[1].splitlines():
        depth = (len(line) - len(line.lstrip())) // 2
        name = line.split()[0]
        folders = folders[:depth]
        paths.append("".join(folders) + name)
        if name.endswith("/"):
            folders.append(name)
    return paths


def test_the_module_map_names_what_exists() -> None:
    """Each name in it is a file or a folder of that place."""
    for path in module_map():
        there = ROOT / path
        assert there.is_dir() if path.endswith("/") else there.is_file(), path


def test_the_module_map_knows_every_room() -> None:
    """No package is missing, nor a module of a room that the map goes into."""
    mapped = set(module_map())
    rooms = {path.rpartition("/")[0] + "/" for path in mapped if path.endswith(".py")}
    for module in sorted((ROOT / "triggerflow").rglob("*.py")):
        path = str(module.relative_to(ROOT))
        room = path.rpartition("/")[0] + "/"
        if module.name == "__init__.py":
            path, room = room, room.rstrip("/").rpartition("/")[0] + "/"
        if room in rooms:
            assert path in mapped, f"{path} is missing in ARCHITECTURE.md"


def test_the_invariants_name_what_exists() -> None:
    """The places in the table of invariants are modules, with the names that they hold."""
    text = (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8")
    table = text.partition("## Invariants")[2].partition("\n## ")[0]
    for path, name in re.findall(r"`([\w/]+\.(?:py|sql))(?:: ([\w.]+))?`", table):
        (found,) = (ROOT / "triggerflow").rglob(path)
        for part in filter(None, name.split(".")):
            assert re.search(rf"^ *(?:def|class) {part}\b", found.read_text(), re.MULTILINE)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    """A link to a file of the project finds it."""
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text(encoding="utf-8")):
        if "://" not in target:
            assert (page.parent / target).exists(), target
