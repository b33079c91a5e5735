"""Reads one function: its calls, and the names that it reads and writes."""

# ruff: noqa: D102 - the visitor of `ast` names its methods

from __future__ import annotations

import ast
import functools
import itertools
from types import FunctionType
from typing import TYPE_CHECKING, Any, Final, Protocol

import attrs

from triggerflow.flows.calls import (
    Inner,
    Known,
    Made,
    Opaque,
    Scope,
    Unloaded,
)
from triggerflow.flows.hazards import (
    DYNAMIC,
    ENVIRONMENT,
    hazard_of,
    is_environment,
    method_hazard,
)

if TYPE_CHECKING:
    from collections.abc import Iterable

    from triggerflow.flows.calls import Meaning
    from triggerflow.flows.sources import Def, Source


from triggerflow.core.effects import Effect

# They call what they are given, and may be told apart by what order means to them.
_CALLERS: Final = frozenset(
    (sorted, map, filter, min, max, functools.reduce, itertools.groupby, itertools.starmap)
)
# Of those, the ones that call nothing but their `key`.
_BY_KEY: Final = frozenset((sorted, min, max))
_NAMED: Final = {"getattr": "", "item": ", an item,"}
_ORDERED: Final = frozenset((list, tuple, enumerate, iter, next, zip, map, filter))
_UNORDERED: Final = frozenset((sorted, set, frozenset, min, max, any, all, len))
FILLS: Final = frozenset({"append", "extend", "insert", "add", "appendleft"})
_CHANGES: Final = frozenset(
    (*FILLS, "pop", "popitem", "remove", "discard", "clear", "update", "setdefault", "sort")
)


@attrs.frozen
class Finding:
    """One hazard, where it is and what to do.

    Attributes:
        rule: its short name, such as ``clock``; the how-to lists them.
        severity: ``error`` or ``warning``.
        file, line: where it stands.
        problem: what is wrong there.
        remedy: what to write instead.
    """

    rule: str
    severity: str
    file: str
    line: int
    problem: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.problem}; {self.remedy}"


@attrs.define(eq=False)
class Unit:
    """A function to look at."""

    node: Def
    scope: Scope
    file: str
    source: Source


class Following(Protocol):
    """The run of a lint, as its readers see it."""

    flow: str
    findings: list[Finding]

    def follow(self, meaning: Meaning) -> None:
        """Note a function that is called."""

    def nodes(self, meaning: Meaning) -> list[Def]:
        """The functions of ours that a call runs."""

    def is_ours(self, fn: FunctionType) -> bool:
        """Whether a function is to be looked into."""


@functools.lru_cache(maxsize=512)
def makes_effect(found: Any) -> bool:
    """Whether a function of ours makes an effect, as its annotation says."""
    if isinstance(found, type):
        return issubclass(found, Effect)
    if not isinstance(found, FunctionType) or not found.__module__.startswith("triggerflow."):
        return False
    told = found.__annotations__.get("return", "")
    told = (
        told.partition("[")[0] if isinstance(told, str) else getattr(told, "__origin__", told)
    )
    kind = found.__globals__.get(told) if isinstance(told, str) else told
    return isinstance(kind, type) and issubclass(kind, Effect)


class Reading(ast.NodeVisitor):
    """Reads one function."""

    def __init__(self, lint: Following, unit: Unit) -> None:
        self.lint = lint
        self.unit = unit
        self.scope = unit.scope
        self.free_order: set[ast.AST] = set()

    def read(self) -> None:
        """Read it all."""
        node = self.unit.node
        for each in [node.body] if isinstance(node, ast.Lambda) else node.body:
            self.visit(each)

    def add(
        self, rule: str, node: ast.AST, problem: str, remedy: str, severity: str = "error"
    ) -> None:
        """Note a finding, unless its line is trusted."""
        found = self.finding(rule, node, problem, remedy, severity)
        if found is not None:
            self.lint.findings.append(found)

    def finding(
        self, rule: str, node: ast.AST, problem: str, remedy: str, severity: str
    ) -> Finding | None:
        """A finding in this function; None where its line is trusted."""
        if self.unit.source.trusts(node):
            return None
        name = getattr(self.unit.node, "name", "a lambda")
        where = "" if name == self.lint.flow else f" (in {name}, reached from {self.lint.flow})"
        line = getattr(node, "lineno", 0)
        return Finding(rule, severity, self.unit.file, line, problem + where, remedy)

    # --- functions inside are looked at when they are called

    def visit_FunctionDef(self, node: ast.FunctionDef | ast.AsyncFunctionDef) -> None:
        for each in (*node.decorator_list, *node.args.defaults, *node.args.kw_defaults):
            if each is not None:
                self.visit(each)

    visit_AsyncFunctionDef = visit_FunctionDef  # noqa: N815

    def visit_Lambda(self, node: ast.Lambda) -> None:
        for each in (*node.args.defaults, *node.args.kw_defaults):
            if each is not None:
                self.visit(each)

    # --- calls

    def visit_Call(self, node: ast.Call) -> None:
        found = self.scope.meaning(node.func)
        if not self.unit.source.trusts(node):
            self._called(node, found)
        if isinstance(found, Known):
            value = found.value
            if among(value, _UNORDERED):
                self.free_order.update(node.args)
            if among(value, _ORDERED):
                for each in node.args:
                    self._ordered(each)
            if among(value, _CALLERS):
                self._passed(node)
                self._given(node, value)
        match node.func:
            case ast.Attribute(attr="sort"):
                self._passed(node)
                self._given(node, sorted)
            case ast.Attribute(attr="join"):
                for each in node.args:
                    self._ordered(each)
        self.generic_visit(node)

    def _passed(self, node: ast.Call) -> None:
        """Functions given to one that calls them."""
        for each in (*node.args, *(keyword.value for keyword in node.keywords)):
            if isinstance(each, ast.Lambda | ast.Name | ast.Attribute):
                found = self.scope.meaning(each)
                if isinstance(found, Inner) or (
                    isinstance(found, Known) and not issubclass(type(found.value), type)
                ):
                    self._called(ast.copy_location(ast.Call(each, [], []), each), found)

    def _given(self, node: ast.Call, caller: Any) -> None:
        """What a caller of functions gets to call, where that can't be followed."""
        place = 1 if caller is itertools.groupby else 0
        given = [each.value for each in node.keywords if each.arg == "key"]
        if caller not in _BY_KEY:
            given += node.args[place : place + 1]
        for each in given:
            found = self.scope.meaning(each)
            if isinstance(found, Opaque) and found.kind and not self.unit.source.trusts(node):
                shown = f"{ast.unparse(each):.60}, given to {ast.unparse(node.func):.60}(),"
                self._hazard(node, shown, DYNAMIC)

    def _called(self, node: ast.Call, found: Meaning) -> None:
        shown = f"{ast.unparse(node.func):.60}()"
        match found:
            case Opaque(kind="") if isinstance(node.func, ast.Call):
                self._hazard(node, f"{shown}, a call of a result,", DYNAMIC)
            case Opaque(kind="") | Inner():
                self.lint.follow(found)
            case Opaque(kind=kind):
                self._hazard(node, f"{shown}{_NAMED.get(kind, f', a {kind},')}", DYNAMIC)
            case Known() | Made() | Unloaded():
                if isinstance(found, Known) and makes_effect(key_of(found.value)):
                    return
                hazard = self._hazard_of(node, found)
                if hazard is not None:
                    self._hazard(node, shown, hazard)
                elif not isinstance(found, Unloaded):
                    self._changed(node, found)
                    self.lint.follow(found)

    def _hazard_of(self, node: ast.Call, found: Known | Made | Unloaded) -> Any:
        many = len(node.args) + len(node.keywords)
        if isinstance(found, Unloaded):
            return hazard_of(None, found.path, many)
        if isinstance(found, Made):
            return None
        hazard = hazard_of(found.value, found.path, many)
        name = getattr(node.func, "attr", "")
        if hazard is not None or found.owner is None:
            return hazard
        match found.owner:
            case Known(value=value) if issubclass(type(value), type):
                return method_hazard(value, None, name)
            case Known(value=value):
                return method_hazard(type(value), value, name)
            case Made(cls=cls):
                return method_hazard(cls, None, name)
        return None

    def _hazard(self, node: ast.AST, shown: str, hazard: Any) -> None:
        self.add(hazard.rule, node, f"{shown} {hazard.does}", hazard.remedy, hazard.severity)

    def _changed(self, node: ast.Call, found: Known | Made) -> None:
        """A method that changes what lives beside the flows."""
        match node.func, found:
            case ast.Attribute(attr=attr, value=base), Known(owner=Known(value=value)):
                kinds = (list, dict, set, bytearray)
                if attr in _CHANGES and issubclass(type(value), kinds):
                    self._state(node, ast.unparse(base))
            case _, Known(value=value) if value is next and node.args:
                if isinstance(self.scope.meaning(node.args[0]), Known):
                    self._state(node, ast.unparse(node.args[0]))

    def _state(self, node: ast.AST, name: str) -> None:
        self.add(
            "state",
            node,
            f"{name} is changed, which lives outside the flow and keeps what other instances "
            "and earlier replays did",
            "keep it in a local variable, or change it in a step",
            "warning",
        )

    # --- names

    def visit_Name(self, node: ast.Name) -> None:
        if isinstance(node.ctx, ast.Load):
            self._environ(node)
            return
        scope = self.scope
        if scope.home_of(node.id) is None and self._is_outside(node.id):
            self._state(node, node.id)

    def _is_outside(self, name: str) -> bool:
        scope: Scope | None = self.scope
        while scope is not None:
            if name in scope.globals or name in scope.nonlocals:
                return True
            scope = scope.parent
        return False

    def visit_Attribute(self, node: ast.Attribute) -> None:
        if isinstance(node.ctx, ast.Load):
            self._environ(node)
        else:
            self._written(node)
        self.generic_visit(node)

    def visit_Subscript(self, node: ast.Subscript) -> None:
        if not isinstance(node.ctx, ast.Load):
            self._written(node)
        self.generic_visit(node)

    def _written(self, node: ast.Attribute | ast.Subscript) -> None:
        base = self.scope.meaning(node.value)
        if isinstance(base, Known) and not isinstance(node.value, ast.Constant):
            self._state(node, ast.unparse(node.value))

    def _environ(self, node: ast.Name | ast.Attribute) -> None:
        found = self.scope.meaning(node)
        if isinstance(found, Known) and is_environment(found.value):
            self._hazard(node, ast.unparse(node), ENVIRONMENT)

    def _ordered(self, node: ast.expr) -> None:
        """Judge an expression whose order matters."""


def among(found: object, group: Iterable[object]) -> bool:
    """Membership by identity: what is looked at may not be hashable, or compare at all."""
    return any(found is each for each in group)


def key_of(found: Any) -> Any:
    """A function or class itself; None for what may not be hashable."""
    # By type, here and elsewhere: a proxy may answer isinstance with anything, or raise.
    return found if issubclass(type(found), FunctionType | type) else None
