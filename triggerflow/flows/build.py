"""The build: which code a worker runs, as one short name.

Two workers of one build fail alike, so a blocked instance is tried once a build. Where
the app names no build, it is a hash over the flows' code and over the source files of
their modules and of the project modules that those import (installed libraries and the
standard library are left out: they change without the flows changing).
"""

from __future__ import annotations

import hashlib
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
    modules: dict[str, ModuleType] = {}
    for flow in sorted(flows, key=lambda each: (each.name, each.version)):
        digest.update(f"{flow.label} {flow.code_hash}\n".encode())
        module = sys.modules.get(getattr(flow.fn, "__module__", "") or "")
        if module is not None:
            _collect(module, modules)
    for name in sorted(modules):
        source = _source(modules[name])
        if source is not None:
            digest.update(name.encode() + b"\0" + hashlib.sha256(source).digest())
    return digest.hexdigest()[:12]


def _collect(module: ModuleType, into: dict[str, ModuleType]) -> None:
    """A module and the project modules that it names, transitively."""
    todo = [module]
    while todo:
        each = todo.pop()
        if each.__name__ in into or not _is_project(each):
            continue
        into[each.__name__] = each
        for value in list(vars(each).values()):
            if isinstance(value, ModuleType):
                todo.append(value)
                continue
            name = getattr(value, "__module__", None)
            home = sys.modules.get(name) if isinstance(name, str) else None
            if home is not None:
                todo.append(home)


def _is_project(module: ModuleType) -> bool:
    file = getattr(module, "__file__", None)
    if not file:
        return False
    path = str(Path(file).resolve())
    return not path.startswith((_OWN, *_INSTALLED))


def _source(module: ModuleType) -> bytes | None:
    try:
        return Path(module.__file__ or "").read_bytes()
    except OSError:
        return None
