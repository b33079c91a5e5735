"""What a name in a flow's source stands for, as far as that is sure.

The lint reads a function's syntax tree and asks here what each name and attribute means.
The answer comes from the objects that the function itself would find (its closure, its
globals, the builtins), never from a guess: a parameter or a local variable hides a module
of the same name, and what can't be known is `Opaque`. Nothing is imported or called, no
property is read.
"""

from __future__ import annotations

import ast
import builtins
import functools
import sys
from types import (
    MemberDescriptorType,
    MethodType,
    ModuleType,
)
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import attrs

from triggerflow.flows.sources import DEFS, Source, bindings, is_project, positional, walk

if TYPE_CHECKING:
    from collections.abc import Iterator

    from triggerflow.flows.sources import Def

_DEEPEST: Final = 12


# --- what a name stands for ---------------------------------------------------------------


@attrs.frozen(eq=False)
class Known:
    """The object itself; `path` is how the code reached it, `owner` what a method is of."""

    value: Any
    path: str = ""
    owner: Meaning | None = None


@attrs.frozen(eq=False)
class Made:
    """An instance of a class that the flow makes for itself."""

    cls: type


@attrs.frozen(eq=False)
class Unloaded:
    """A name in a module that only the function imports, and nobody has imported yet."""

    path: str


@attrs.frozen(eq=False)
class Inner:
    """A function or lambda inside the function."""

    node: Def
    scope: Scope


@attrs.frozen(eq=False)
class Opaque:
    """What can't be known: a `parameter`, a `variable`, an item, or something else ("")."""

    kind: str = ""


Meaning: TypeAlias = Known | Made | Unloaded | Inner | Opaque
UNKNOWN: Final = Opaque()


class Scope:
    """The names of one function, lambda or comprehension, and where to look for others.

    Args:
        node: the function; None for a comprehension.
        parent: the scope around it; None for the function that is looked at.
        space: where that function's free names are found.
    """

    def __init__(self, node: Def | None, parent: Scope | None, space: Space) -> None:
        self.parent = parent
        self.space = space
        self.given: dict[str, Meaning] = {}
        self.parameters: set[str] = set()
        self.globals: set[str] = set()
        self.nonlocals: set[str] = set()
        self.names: dict[str, list[Any]] = {}
        if node is None:
            return
        body = [node.body] if isinstance(node, ast.Lambda) else node.body
        self.names = bindings(body)
        arguments = [*positional(node), node.args.vararg, node.args.kwarg]
        self.parameters = {each.arg for each in arguments if each is not None}
        for each in walk(body):
            if isinstance(each, ast.Global):
                self.globals.update(each.names)
            elif isinstance(each, ast.Nonlocal):
                self.nonlocals.update(each.names)

    def around(self, targets: list[ast.expr]) -> Scope:
        """The scope of a comprehension inside this one."""
        inner = Scope(None, self, self.space)
        for target in targets:
            for name, bound in bindings([target]).items():
                inner.names.setdefault(name, []).extend(bound)
        return inner

    def home_of(self, name: str) -> Scope | None:
        """The scope inside the function that binds a name, or None: it comes from outside."""
        scope: Scope | None = self
        while scope is not None:
            if name in scope.globals:
                return None
            bound = name in scope.names or name in scope.parameters
            if bound and name not in scope.nonlocals:
                return scope
            scope = scope.parent
        return None

    def only(self, name: str) -> Any:
        """What binds a name of this scope, if that is one thing and no parameter."""
        bound = self.names.get(name, ())
        return bound[0] if len(bound) == 1 and name not in self.parameters else None

    def meaning(self, node: ast.expr | None, depth: int = 0) -> Meaning:
        """What an expression stands for."""
        if depth > _DEEPEST:
            return UNKNOWN
        match node:
            case ast.Name(id=name):
                return self._name(name, depth)
            case ast.Attribute(value=base, attr=attr):
                return member(self.meaning(base, depth + 1), attr)
            case ast.Lambda():
                return Inner(node, self)
            case ast.Constant(value=constant):
                return Known(constant)
            case ast.Call():
                return self._call(node, depth)
            case ast.BinOp(left=left, op=ast.Div()):
                whole = self.meaning(left, depth + 1)
                # Only a path divided by something is one again.
                kind = (
                    whole.cls if isinstance(whole, Made) else type(getattr(whole, "value", 0))
                )
                return Made(kind) if hasattr(kind, "with_suffix") else UNKNOWN
            case ast.NamedExpr(value=value):
                return self.meaning(value, depth + 1)
            case ast.Subscript(value=base, slice=ast.Constant(value=key)):
                table = self.meaning(base, depth + 1)
                if (
                    isinstance(table, Known)
                    and type(table.value) is dict
                    and key in table.value
                ):
                    return Known(table.value[key])
                return Opaque("item")
            case ast.Subscript() | ast.IfExp() | ast.BoolOp():
                return Opaque("item")
        return UNKNOWN

    def _call(self, node: ast.Call, depth: int) -> Meaning:
        made = self.meaning(node.func, depth + 1)
        if not isinstance(made, Known):
            return UNKNOWN
        if made.value is getattr and len(node.args) in {2, 3}:
            match node.args[1]:
                case ast.Constant(value=str(attr)):
                    return member(self.meaning(node.args[0], depth + 1), attr)
            return Opaque("getattr")
        if made.value is functools.partial and node.args:
            return self.meaning(node.args[0], depth + 1)
        # A metaclass may return anything; type itself returns a class.
        if issubclass(type(made.value), type) and type(made.value).__call__ is type.__call__:
            return UNKNOWN if made.value is type else Made(made.value)
        return UNKNOWN

    def _name(self, name: str, depth: int) -> Meaning:
        scope = self.home_of(name)
        if scope is None:
            return self.space.meaning(name)
        if name in scope.given:
            return scope.given[name]
        if name in scope.parameters:
            return Opaque("parameter")
        match scope.only(name):
            case (ast.Import() | ast.ImportFrom() as node, ast.alias() as alias):
                return imported(node, alias, self.space.names)
            case ast.FunctionDef() | ast.AsyncFunctionDef() as node:
                return Inner(node, scope)
            case ast.ClassDef():
                return UNKNOWN
            case ast.expr() as bound:
                meant = scope.meaning(bound, depth + 1)
                return meant if meant is not UNKNOWN else Opaque("variable")
        kinds = scope.names[name]
        # Defined twice, as under an `if`: a function all the same.
        return UNKNOWN if any(isinstance(each, DEFS) for each in kinds) else Opaque("variable")


@attrs.define(eq=False)
class Space:
    """Where a function's free names are found: closure, globals, builtins, file."""

    names: dict[str, Any]
    cells: dict[str, Any]
    free: set[str]
    source: Source
    file: str

    def meaning(self, name: str) -> Meaning:
        """What a free name stands for now, or once the rest of its file has run."""
        if name in self.free:
            return Known(self.cells[name]) if name in self.cells else UNKNOWN
        if name in self.names:
            return Known(self.names[name])
        if hasattr(builtins, name):
            return Known(getattr(builtins, name), f"builtins.{name}")
        match self.source.at_top.get(name):
            case [ast.FunctionDef() | ast.AsyncFunctionDef() as node] if (
                not node.decorator_list
            ):
                space = Space(self.names, {}, set(), self.source, self.file)
                return Inner(node, Scope(None, None, space))
        return UNKNOWN


def imported(
    node: ast.Import | ast.ImportFrom, alias: ast.alias, names: dict[str, Any]
) -> Meaning:
    """What an import inside a function binds."""
    if isinstance(node, ast.Import):
        path = alias.name if alias.asname else alias.name.partition(".")[0]
        module = sys.modules.get(path)
        return Unloaded(path) if module is None else Known(module)
    home = node.module or ""
    if node.level:
        parts = str(names.get("__package__") or "").split(".")
        kept = parts[: len(parts) - node.level + 1]
        home = ".".join([*kept, home] if home else kept)
    module = sys.modules.get(home)
    return member(Unloaded(home) if module is None else Known(module), alias.name)


def member(base: Meaning, name: str) -> Meaning:
    """What ``base.name`` stands for, without running any code of theirs."""
    if isinstance(base, Unloaded):
        return Unloaded(f"{base.path}.{name}")
    if isinstance(base, Made):
        return _of_class(base.cls, name, base)
    if not isinstance(base, Known):
        return UNKNOWN
    value = base.value
    kind = type(value)
    if issubclass(kind, ModuleType):
        return _of_module(value, name)
    if issubclass(kind, type):
        return _of_class(value, name, base)
    try:
        own = object.__getattribute__(value, "__dict__")
    except AttributeError:
        own = {}
    if type(own) is dict and name in own:
        return Known(own[name])
    return _of_class(kind, name, base)


def _of_module(module: ModuleType, name: str) -> Meaning:
    home = module.__name__
    path = "" if is_project(getattr(module, "__file__", None) or "<built in>", home) else home
    path = path and f"{path}.{name}"
    if name in vars(module):
        return Known(vars(module)[name], path)
    if home == "triggerflow":  # our own face loads its names late
        return Known(getattr(module, name, None), path)
    below = sys.modules.get(f"{home}.{name}")
    return Known(below) if below is not None else Unloaded(path) if path else UNKNOWN


def _of_class(cls: type, name: str, owner: Meaning) -> Meaning:
    for each in cls.__mro__:
        if name in vars(each):
            found = vars(each)[name]
            if issubclass(type(found), property | functools.cached_property):
                return UNKNOWN
            if type(found) is MemberDescriptorType:
                if not isinstance(owner, Known) or issubclass(type(owner.value), type):
                    return UNKNOWN
                try:
                    return Known(found.__get__(owner.value, cls))
                except AttributeError:
                    return UNKNOWN
            return Known(found, owner=owner)
    return UNKNOWN


def unwrapped(found: Any) -> Iterator[Any]:
    """A function and all that it wraps, as `functools.wraps` and methods tell."""
    for _ in range(20):
        yield found
        kind = type(found)
        if kind in {MethodType, staticmethod, classmethod}:
            found = found.__func__
        elif issubclass(kind, functools.partial):
            found = found.func
        else:
            try:
                found = object.__getattribute__(found, "__dict__")["__wrapped__"]
            except (AttributeError, KeyError, TypeError):
                return
