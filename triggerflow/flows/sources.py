"""Where a function's source stands, whose it is, and which names its statements bind."""

from __future__ import annotations

import ast
import functools
import linecache
import os
import re
import sysconfig
import weakref
from pathlib import Path
from types import CodeType
from typing import TYPE_CHECKING, Any, Final, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Iterator

Def: TypeAlias = ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda
DEFS: Final = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)
COMPREHENSIONS: Final = (ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)
_TRUST: Final = re.compile(r"#\s*tf:\s*trust\b")


class Source:
    """One file: its functions by line, and the lines that declare trust."""

    def __init__(self, lines: list[str]) -> None:
        self.lines = lines
        self.trusted = {n for n, line in enumerate(lines, 1) if _TRUST.search(line)}
        self.by_line: dict[int, list[Def]] = {}
        self.at_top: dict[str, list[ast.stmt]] = {}
        tree = ast.parse("".join(lines))
        for node in ast.walk(tree):
            if isinstance(node, DEFS):
                decorators = [] if isinstance(node, ast.Lambda) else node.decorator_list
                first = min([node.lineno, *(each.lineno for each in decorators)])
                self.by_line.setdefault(first, []).append(node)
        for each in tree.body:
            for name in bindings([each]):
                self.at_top.setdefault(name, []).append(each)

    def trusts(self, node: ast.AST) -> bool:
        """Whether one of a node's lines says ``# tf: trust``."""
        if not self.trusted:
            return False
        first = getattr(node, "lineno", 0)
        last = getattr(node, "end_lineno", None) or first
        if isinstance(node, ast.For | ast.Try | ast.ExceptHandler | ast.With):
            last = first
        return any(line in self.trusted for line in range(first, last + 1))


_SOURCES: Final[dict[str, Source | None]] = {}
# By identity: equal code may stand in another file, under other comments.
_NODES: Final[dict[int, tuple[weakref.ref[CodeType], Source, Def]]] = {}


def source_of(code: CodeType, space: dict[str, Any]) -> tuple[Source, Def] | None:
    """A function's file and its node there; None where the source isn't to be had."""
    known = _NODES.get(id(code))
    if known is not None and known[0]() is code:
        return known[1:]
    linecache.checkcache(code.co_filename)
    lines = linecache.getlines(code.co_filename, space)
    source = _SOURCES.get(code.co_filename)
    if source is None or source.lines is not lines:
        try:
            source = Source(lines) if lines else None
        except (SyntaxError, ValueError, RecursionError):
            source = None
        if len(_SOURCES) >= 64:
            _SOURCES.clear()
        _SOURCES[code.co_filename] = source
    if source is None:
        return None
    name = "<lambda>" if code.co_name == "<lambda>" else code.co_name
    count = code.co_argcount + code.co_kwonlyargcount
    fits = [
        node
        for node in source.by_line.get(code.co_firstlineno, ())
        if getattr(node, "name", "<lambda>") == name
        and [each.arg for each in positional(node)] == list(code.co_varnames[:count])
    ]
    if len(fits) != 1:
        return None
    key = id(code)
    _NODES[key] = weakref.ref(code, lambda _: _NODES.pop(key, None)), source, fits[0]
    return source, fits[0]


def positional(node: Def) -> list[ast.arg]:
    """A function's parameters, but for the starred ones."""
    return [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]


_STDLIB: Final = tuple(
    os.path.realpath(sysconfig.get_paths()[key]) + os.sep for key in ("stdlib", "platstdlib")
)
_OWN: Final = str(Path(__file__).resolve().parents[1]) + os.sep


@functools.lru_cache(maxsize=4096)
def is_project(file: str, module: str) -> bool:
    """Whether code is the project's own: not triggerflow's, Python's or an installed one's."""
    path = os.path.realpath(file)
    # What is between these marks was generated, unless somebody types it.
    made = file.startswith("<") and not file.startswith(("<ipython", "<doctest", "<stdin"))
    if made or path.startswith((_OWN, *_STDLIB)):
        return False
    # An installation has its packages' metadata beside them.
    up = module.count(".") + path.endswith("__init__.py")
    return not _has_metadata(Path(path).parents[up])


@functools.lru_cache(maxsize=256)
def _has_metadata(folder: Path) -> bool:
    try:
        return any(each.suffix == ".dist-info" for each in folder.iterdir())
    except OSError:
        return False


def bindings(body: list[Any]) -> dict[str, list[Any]]:
    """Name -> what binds it: an expression, a definition, (import, alias), or None."""
    names: dict[str, list[Any]] = {}
    todo: list[Any] = list(reversed(body))
    while todo:
        node = todo.pop()
        match node:
            case ast.Lambda():
                continue
            case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef():
                names.setdefault(node.name, []).append(node)
                continue
            case ast.Import() | ast.ImportFrom():
                for alias in node.names:
                    name = alias.asname or alias.name.partition(".")[0]
                    names.setdefault(name, []).append((node, alias))
                continue
            case ast.Assign() | ast.AnnAssign() | ast.NamedExpr():
                targets = node.targets if isinstance(node, ast.Assign) else [node.target]
                for target in targets:
                    if isinstance(target, ast.Name):
                        names.setdefault(target.id, []).append(node.value)
                    else:
                        todo.append(target)
                if node.value is not None:
                    todo.append(node.value)
                continue
            case ast.Name(id=name, ctx=ast.Store() | ast.Del()):
                names.setdefault(name, []).append(None)
            case ast.ExceptHandler(name=str(name)) | ast.MatchStar(name=str(name)):
                names.setdefault(name, []).append(None)
            case ast.MatchAs(name=str(name)) | ast.MatchMapping(rest=str(name)):
                names.setdefault(name, []).append(None)
            case ast.comprehension():
                todo += [*node.ifs, node.iter]
                continue
        todo.extend(reversed(list(ast.iter_child_nodes(node))))
    return names


def walk(body: list[Any]) -> Iterator[ast.AST]:
    """Every node of a function's body, but for functions and classes inside it."""
    todo = list(body)
    while todo:
        node = todo.pop()
        yield node
        if not isinstance(node, (*DEFS, ast.ClassDef)):
            todo.extend(ast.iter_child_nodes(node))
