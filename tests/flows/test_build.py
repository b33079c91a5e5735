"""The build: which code a worker runs, as far as it is the project's own."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import pytest

from triggerflow.flows import build, build_of, define_flow

Write = Callable[..., None]

FLOWS = """
import json
import shop_steps
from shop_parts.prices import price

def flow(activity):
    yield shop_steps.send, price, json.dumps(activity)
"""


class Project:
    """Modules in a folder of their own, imported and forgotten again."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.write("shop_flows.py", FLOWS)
        self.write(
            "shop_steps.py", "import shop_texts\n\ndef send(to):\n    return shop_texts.HI\n"
        )
        self.write("shop_texts.py", "HI = 'hi'\n")
        self.write("shop_parts/__init__.py", "")
        self.write("shop_parts/prices.py", "def price(of):\n    return 3\n")
        self.write("shop_stranger.py", "x = 1\n")

    def write(self, name: str, text: str) -> None:
        file = self.folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)

    def load(self, name: str = "shop_flows") -> ModuleType:
        self.forget()
        importlib.invalidate_caches()
        return importlib.import_module(name)

    def build(self, name: str = "shop_flows") -> str:
        return build_of([define_flow(self.load(name).flow)])

    def forget(self) -> None:
        for name in [each for each in sys.modules if each.startswith("shop_")]:
            del sys.modules[name]


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Project]:
    monkeypatch.syspath_prepend(str(tmp_path))
    # Sources change within one second here, so bytecode can't be told from stale.
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    made = Project(tmp_path)
    yield made
    made.forget()


def test_a_build_is_a_short_name(project: Project) -> None:
    """A build is 12 hex digits, and the same for the same code."""
    found = project.build()
    assert len(found) == 12
    assert int(found, 16) >= 0
    assert project.build() == found


@pytest.mark.parametrize(
    "module", ["shop_flows.py", "shop_steps.py", "shop_texts.py", "shop_parts/prices.py"]
)
def test_a_changed_project_module_is_another_build(project: Project, module: str) -> None:
    """The flow's module and all that it imports, at any distance, make the build."""
    before = project.build()
    file = project.folder / module
    file.write_text(file.read_text() + "\n# changed\n")
    assert project.build() != before


def test_a_module_that_is_not_imported_does_not_count(project: Project) -> None:
    """A neighbour that no flow's module imports is left out."""
    before = project.build()
    project.write("shop_stranger.py", "x = 2\n")
    project.load("shop_stranger")
    assert project.build() == before


def test_an_import_of_a_constant_counts(project: Project) -> None:
    """A module is imported, too, where only a plain value is taken from it."""
    project.write("shop_limits.py", "LIMIT = 3\n")
    project.write(
        "shop_flows.py",
        "from shop_limits import LIMIT\n\ndef flow(activity):\n    yield LIMIT\n",
    )
    before = project.build()
    project.write("shop_limits.py", "LIMIT = 4\n")
    assert project.build() != before


def test_an_import_inside_a_function_counts(project: Project) -> None:
    """A module is imported, too, where a function does it when it is called."""
    project.write("shop_late.py", "def late():\n    return 1\n")
    project.write(
        "shop_flows.py", "def flow(activity):\n    import shop_late\n    yield shop_late.late\n"
    )
    project.load()
    importlib.import_module("shop_late")
    before = build_of([define_flow(sys.modules["shop_flows"].flow)])
    project.write("shop_late.py", "def late():\n    return 2\n")
    project.load()
    importlib.import_module("shop_late")
    assert build_of([define_flow(sys.modules["shop_flows"].flow)]) != before


def test_two_modules_that_import_each_other(project: Project) -> None:
    """A circle of imports ends."""
    project.write("shop_a.py", "import shop_b\n\ndef flow(activity):\n    yield 1\n")
    project.write("shop_b.py", "import shop_a\n")
    before = project.build("shop_a")
    project.write("shop_b.py", "import shop_a\nx = 1\n")
    assert project.build("shop_a") != before


def test_libraries_do_not_count(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """The standard library, installed packages and triggerflow itself are left out."""
    project.write(
        "shop_flows.py",
        "import json, attrs, pytest, triggerflow.errors\n\ndef flow(activity):\n    yield 1\n",
    )
    seen: list[str] = []
    real = build._source
    monkeypatch.setattr(build, "_source", lambda m: (seen.append(m.__name__), real(m))[1])
    project.build()
    assert seen == ["shop_flows"]


def test_an_installed_project_does_not_count(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A module below an installation folder is a library, however it is imported."""
    project.write("site/shop_library.py", "def price(of):\n    return 1\n")
    monkeypatch.syspath_prepend(str(project.folder / "site"))
    monkeypatch.setattr(build, "_INSTALLED", (str((project.folder / "site").resolve()),))
    project.write(
        "shop_flows.py",
        "import shop_library\n\ndef flow(activity):\n    yield shop_library.price\n",
    )
    before = project.build()
    project.write("site/shop_library.py", "def price(of):\n    return 2\n")
    assert project.build() == before


@pytest.mark.parametrize("whose", ["_OWN", "_INSTALLED"])
def test_a_neighbour_of_a_library_folder_counts(
    project: Project, monkeypatch: pytest.MonkeyPatch, whose: str
) -> None:
    """A folder whose name only begins like a library's is the project's own."""
    near = str((project.folder / "lib").resolve())
    monkeypatch.setattr(build, whose, near if whose == "_OWN" else (near,))
    project.write("lib_of_mine/shop_near.py", "x = 1\n")
    monkeypatch.syspath_prepend(str(project.folder / "lib_of_mine"))
    project.write("shop_flows.py", "import shop_near\n\ndef flow(activity):\n    yield 1\n")
    before = project.build()
    project.write("lib_of_mine/shop_near.py", "x = 2\n")
    assert project.build() != before


def test_flows_and_versions_make_the_build(project: Project) -> None:
    """Another set of flows or versions is another build; their order isn't."""
    fn = project.load().flow
    one, two = define_flow(fn), define_flow(fn, version=2)
    assert build_of([one, two]) == build_of([two, one])
    assert len({build_of([]), build_of([one]), build_of([two]), build_of([one, two])}) == 4


def test_a_flow_without_a_file_has_a_build() -> None:
    """A flow typed into a shell has a build all the same: its code hash counts."""
    names: dict[str, object] = {"__name__": "nowhere"}
    exec("def flow(activity):\n    yield 1\n", names)
    first = build_of([define_flow(names["flow"])])
    exec("def flow(activity):\n    yield 2\n", names)
    assert build_of([define_flow(names["flow"])]) != first
