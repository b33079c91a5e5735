"""The build: which code a worker runs, as one short name.

Two workers of one build fail alike, so a blocked instance is tried once a build. Where
the app names no build, it is a hash over the flows' code and over the source files of
their modules and of the project modules that those import (installed libraries and the
standard library are left out: they change without the flows changing).
"""

from __future__ import annotations

import ast
import hashlib
import importlib.util
import sys
import sysconfig
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable

    from triggerflow.flows.flow import Flow

_OWN: Final = str(Path(__file__).resolve().parents[1])
_INSTALLED: Final = tuple(
    str(Path(sysconfig.get_paths()[key]).resolve()) for key in ("stdlib", "purelib", "platlib")
)


def build_of(flows: Iterable[Flow]) -> str:
    """The build of the code behind these flows: 12 hex digits."""
    digest = hashlib.sha256()
    sources: dict[str, bytes] = {}
    for flow in sorted(flows, key=lambda each: (each.name, each.version)):
        digest.update(f"{flow.label} {flow.code_hash}\n".encode())
        module = sys.modules.get(getattr(flow.fn, "__module__", "") or "")
        if module is not None:
            _collect(module, sources)
    for name in sorted(sources):
        digest.update(name.encode() + b"\0" + hashlib.sha256(sources[name]).digest())
    return digest.hexdigest()[:12]


def _collect(module: ModuleType, into: dict[str, bytes]) -> None:
    """The sources of a module and of the project modules that it imports, transitively."""
    todo = [module]
    while todo:
        each = todo.pop()
        if each.__name__ in into or not _is_project(each):
            continue
        source = into[each.__name__] = _source(each)
        todo += filter(None, map(_module, _imports(each, source)))


def _imports(module: ModuleType, source: bytes) -> set[str]:
    """Names that may be modules, of every import in a module's source."""
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError):
        return set()
    package = module.__name__ if hasattr(module, "__path__") else module.__package__ or ""
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parents = package.split(".")
                kept = parents[: len(parents) - node.level + 1]
                base = ".".join([*kept, base] if base else kept)
            names.add(base)
            names.update(f"{base}.{alias.name}" for alias in node.names)
    return names


def _module(name: str) -> ModuleType | None:
    """A module by its name, imported or, where only a function imports it, found."""
    if name in sys.modules:
        return sys.modules[name]
    try:
        spec = importlib.util.find_spec(name)
    except (ImportError, AttributeError, ValueError):
        return None
    return None if spec is None else importlib.util.module_from_spec(spec)


def _is_project(module: ModuleType) -> bool:
    file = getattr(module, "__file__", None)
    if not file:
        return False
    path = Path(file).resolve()
    return not any(path.is_relative_to(folder) for folder in (_OWN, *_INSTALLED))


def _source(module: ModuleType) -> bytes:
    try:
        return Path(module.__file__ or "").read_bytes()
    except OSError:
        return b""
