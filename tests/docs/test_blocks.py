"""Every code block in README and docs runs, and prints what stands below it.

``python tests/docs/test_blocks.py`` writes what README's example prints now into README.
"""

from __future__ import annotations

import itertools
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
README = ROOT / "README.md"
PAGES = [
    README,
    *(ROOT / name for name in ("ARCHITECTURE.md", "CONTRIBUTING.md")),
    *sorted((ROOT / "docs").glob("**/*.md")),
]
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
TIME = re.compile(r"\d\d:\d\d:\d\d(?:\.\d+)?|\+?\b[\d.,]+ (?:ms|s|min|h)\b")


def blocks(page: Path) -> list[tuple[str, str]]:
    """Return (language, text) of a page's fenced blocks."""
    return [(found[1], found[2]) for found in BLOCK.finditer(page.read_text(encoding="utf-8"))]


def python_blocks() -> list[object]:
    cases = []
    for page in PAGES:
        pairs = itertools.pairwise([*blocks(page), ("", "")])
        for number, ((language, code), (following, output)) in enumerate(pairs):
            if language == "python":
                expected = output if following == "text" else None
                name = f"{page.relative_to(ROOT)}-{number}"
                cases.append(pytest.param(code, expected, id=name))
    return cases


def environment(folder: Path) -> dict[str, str]:
    """Variables under which the tree is importable and `triggerflow` is a command."""
    command = folder / "bin" / "triggerflow"
    if not command.exists():
        command.parent.mkdir()
        code = "import sys; from triggerflow.cli.main import main; sys.exit(main())"
        command.write_text(f"#!/bin/sh\nexec '{sys.executable}' -c '{code}' \"$@\"\n")
        command.chmod(0o755)
    ours = {"PYTHONPATH": str(ROOT), "PATH": f"{command.parent}:{os.environ['PATH']}"}
    # Two versions of one length in one second would share their bytecode.
    plain = {"NO_COLOR": "1", "COLUMNS": "96", "PYTHONDONTWRITEBYTECODE": "1"}
    settings = ("TRIGGERFLOW_APP", "TRIGGERFLOW_STORE", "TRIGGERFLOW_TRIGGERS")
    return {k: v for k, v in os.environ.items() if k not in settings} | ours | plain


def run_python(code: str, folder: Path, name: str = "block.py") -> str:
    """Run a block as a file of its own; it may not complain."""
    (folder / name).write_text(code, encoding="utf-8")
    done = subprocess.run(
        [sys.executable, name],
        cwd=folder,
        env=environment(folder),
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return done.stdout


def without_times(text: str, folder: Path) -> list[str]:
    """Return an output's lines without what differs from run to run: times and the folder."""
    text = TIME.sub("<time>", text.replace(f"{folder}/", ""))
    return [" ".join(line.split()) for line in text.strip().splitlines()]


@pytest.mark.parametrize(("code", "expected"), python_blocks())
def test_a_python_block_runs(code: str, expected: str | None, tmp_path: Path) -> None:
    """It runs as it stands, and the text block below it is what it prints."""
    output = run_python(code, tmp_path)
    if expected is not None:
        assert output == expected


def test_the_readme_s_example_starts_nothing_twice(tmp_path: Path) -> None:
    """The example may be run again."""
    code = next(code for language, code in blocks(README) if language == "python")
    assert run_python(code, tmp_path) == run_python(code, tmp_path)


def readme_sessions(folder: Path) -> list[tuple[str, int]]:
    """Run README's sessions: the flow as it ran, and after its step was renamed.

    Returns:
        What each prints, its prompt included, and its exit status.
    """
    page = blocks(README)
    code = next(code for language, code in page if language == "python")
    sessions = [code for language, code in page if language == "console"]
    run_python(code, folder, "welcome.py")
    versions = [code, code.replace("send_note", "post_note")]
    assert versions[0] != versions[1]
    found = []
    for version, session in zip(versions, sessions, strict=True):
        (folder / "welcome.py").write_text(version, encoding="utf-8")
        prompt = session.partition("\n")[0]
        assert prompt.startswith("$ triggerflow ")
        done = subprocess.run(
            ["sh", "-c", prompt.removeprefix("$ ")],
            cwd=folder,
            env=environment(folder),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=60,
        )
        found.append((f"{prompt}\n{done.stdout}", done.returncode))
    return found


def test_the_readme_s_replay_prints_what_it_shows(tmp_path: Path) -> None:
    """Both sessions print what README shows; a divergence is no success."""
    (same, fine), (parted, failed) = readme_sessions(tmp_path)
    shown = [code for language, code in blocks(README) if language == "console"]
    assert without_times(same, tmp_path) == without_times(shown[0], tmp_path)
    assert without_times(parted, tmp_path) == without_times(shown[1], tmp_path)
    assert (fine, failed != 0) == (0, True)


def refresh() -> None:
    """Write what README's sessions print now into README."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name).resolve()
        outputs = iter(readme_sessions(folder))
        text = re.sub(
            r"^```console\n.*?^```$",
            lambda _: f"```console\n{next(outputs)[0].replace(f'{folder}/', '')}```",
            README.read_text(encoding="utf-8"),
            flags=re.MULTILINE | re.DOTALL,
        )
    README.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    refresh()
