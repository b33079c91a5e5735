"""Reads one function's effects: those that nobody yields, and yields of what is none."""

# ruff: noqa: D102, N802 - the visitor of `ast` names its methods

from __future__ import annotations

import ast
import inspect
from types import FunctionType
from typing import Final

from triggerflow.flows.calls import (
    Inner,
    Known,
    Scope,
    Space,
    Unloaded,
)
from triggerflow.flows.reading import FILLS, Reading, among, key_of, makes_effect
from triggerflow.flows.sources import source_of, walk

_DATA: Final = frozenset((dict, list, tuple, str, bytes, int, float, bool, type(None), sorted))


class Yields(Reading):
    """`Reading`, and what becomes of effects."""

    def visit_AnnAssign(self, node: ast.AnnAssign) -> None:
        self.visit(node.target)
        if node.value is not None:
            self._kept(node, [node.target], node.value)
            self.visit(node.value)

    # --- effects that nobody yields

    def _is_effect(self, node: ast.expr | None) -> bool:
        """Whether an expression surely makes an effect, or a list of some."""
        match node:
            case ast.Call(func=func):
                found = self.scope.meaning(func)
                if isinstance(found, Known) and makes_effect(key_of(found.value)):
                    return True
                match func:
                    case ast.Attribute(value=base, attr="using"):
                        return self._is_effect(base)
            case ast.List(elts=parts) | ast.Tuple(elts=parts) | ast.Set(elts=parts):
                return any(map(self._is_effect, parts))
            case ast.Dict(values=parts):
                return any(map(self._is_effect, parts))
            case ast.ListComp(elt=part) | ast.SetComp(elt=part) | ast.DictComp(value=part):
                return self._is_effect(part)
            case ast.IfExp(body=one, orelse=other):
                return self._is_effect(one) and self._is_effect(other)
        return False

    def _unyielded(self, node: ast.AST, shown: str, how: str) -> None:
        self.add(
            "unyielded",
            node,
            f"{shown} {how} and never yielded, so it never happens",
            "write `yield` before it, or give it to `yield tf.gather(...)`",
        )

    def visit_Expr(self, node: ast.Expr) -> None:
        value = node.value
        if self._is_effect(value):
            self._unyielded(node, f"{ast.unparse(value):.60}", "is built")
        match value:
            case ast.Call(func=ast.Attribute(value=ast.Name(id=name), attr=fill), args=given):
                if (
                    fill in FILLS
                    and any(map(self._is_effect, given))
                    and self._is_own_list(name)
                    and not self._used(name)
                ):
                    self._unyielded(node, f"{ast.unparse(given[-1]):.60}", f"is put in {name}")
            case ast.Call():
                if self._kind(value) == "generator":
                    shown = f"{ast.unparse(value):.60}"
                    self.add(
                        "unyielded",
                        node,
                        f"{shown} makes a generator that nobody drives, so nothing happens",
                        f"write `yield from {shown}`",
                    )
        self.visit(value)

    def visit_Assign(self, node: ast.Assign) -> None:
        self._kept(node, node.targets, node.value)
        self.generic_visit(node)

    def _kept(self, node: ast.AST, targets: list[ast.expr], value: ast.expr) -> None:
        names = [each.id for each in targets if isinstance(each, ast.Name)]
        if (
            len(names) == len(targets)
            and self._is_effect(value)
            and all(self.scope.home_of(each) is self.unit.scope for each in names)
            and not any(map(self._used, names))
        ):
            self._unyielded(node, f"{ast.unparse(value):.60}", f"is kept as {names[0]}")

    def _used(self, name: str) -> bool:
        """Whether a local is read anywhere, other than to put more into it."""
        fills, loads = set(), []
        for node in ast.walk(self.unit.node):
            match node:
                case ast.Expr(value=ast.Call(func=ast.Attribute(value=base, attr=attr))):
                    if attr in FILLS:
                        fills.add(base)
                case ast.Name(id=found, ctx=ast.Load()):
                    if found in {name, "locals", "vars", "eval", "exec"}:
                        loads.append(node)
                case ast.Nonlocal(names=names) if name in names:
                    return True
        return any(each not in fills for each in loads)

    def _is_own_list(self, name: str) -> bool:
        bound = self.unit.scope.names.get(name, [])
        return (
            self.scope.home_of(name) is self.unit.scope
            and name not in self.unit.scope.parameters
            and bool(bound)
            and all(isinstance(each, ast.List | ast.ListComp) for each in bound)
        )

    # --- what is yielded

    def visit_Yield(self, node: ast.Yield) -> None:
        if isinstance(node.value, ast.Call):
            shown, name = f"{ast.unparse(node.value):.60}", ast.unparse(node.value.func)
            kind = self._kind(node.value)
            if kind == "generator":
                self.add(
                    "bare_call",
                    node,
                    f"yield {shown} yields a generator, which is no effect",
                    f"write `yield from {shown}`",
                )
            elif kind:
                given = ", ".join(
                    [name, *map(ast.unparse, (*node.value.args, *node.value.keywords))]
                )
                self.add(
                    "bare_call",
                    node,
                    f"yield {shown} calls {kind} here and yields what it returns, which is no "
                    "effect",
                    f"did you mean `yield tf.call({given:.80})`?",
                )
                for each in (*node.value.args, *node.value.keywords):
                    self.visit(each)
                return
        self.generic_visit(node)

    def _kind(self, node: ast.Call) -> str:
        """What surely is no effect: "generator", "a plain function", or "" for unsure."""
        found = self.scope.meaning(node.func)
        if isinstance(found, Known) and type(found.value) is FunctionType:
            fn = found.value
            if not self.lint.is_ours(fn):
                return ""
            if inspect.iscoroutinefunction(fn):
                return "a coroutine function"
            if inspect.isgeneratorfunction(fn):
                return "generator"
            known = source_of(fn.__code__, fn.__globals__)
            if known is None:
                return ""
            source, inner = known
            space = Space(fn.__globals__, {}, set(fn.__code__.co_freevars), source, "")
            scope = Scope(inner, None, space)
        elif isinstance(found, Inner) and not getattr(found.node, "decorator_list", ()):
            inner = found.node
            scope = Scope(inner, found.scope, found.scope.space)
        else:
            return ""
        if isinstance(inner, ast.Lambda):
            return ""
        if any(isinstance(each, ast.Yield | ast.YieldFrom) for each in walk(inner.body)):
            return "generator" if isinstance(inner, ast.FunctionDef) else ""
        if isinstance(inner, ast.AsyncFunctionDef):
            return "a coroutine function"
        returned = [each.value for each in walk(inner.body) if isinstance(each, ast.Return)]
        plain = all(each is None or self._is_data(each, scope) for each in returned)
        return "a plain function" if plain else ""

    def _is_data(self, node: ast.expr, scope: Scope, depth: int = 0) -> bool:
        """Whether an expression surely is a plain value."""
        if depth > 5:
            return False
        match node:
            case ast.Constant() | ast.JoinedStr() | ast.Compare() | ast.Dict() | ast.List():
                return True
            case ast.Tuple() | ast.Set() | ast.Await() | ast.ListComp() | ast.DictComp():
                return True
            case ast.Name(id=name):
                home = scope.home_of(name)
                value = home.only(name) if home is not None else None
                return isinstance(value, ast.expr) and self._is_data(value, scope, depth + 1)
            case ast.BinOp(left=one, right=other):
                sides = (
                    self._is_data(one, scope, depth + 1),
                    self._is_data(other, scope, depth + 1),
                )
                return any(sides)
            case ast.IfExp(body=one, orelse=other):
                return self._is_data(one, scope, depth) and self._is_data(other, scope, depth)
            case ast.Call(func=func):
                found = scope.meaning(func)
                if isinstance(found, Known | Unloaded) and self._hazard_of(node, found):
                    return True
                if isinstance(found, Known) and among(found.value, _DATA):
                    return True
                # A method of what does I/O, such as requests.get(...).json().
                return isinstance(func, ast.Attribute) and self._is_io(func.value, scope)
        return False

    def _is_io(self, node: ast.expr, scope: Scope) -> bool:
        while isinstance(node, ast.Attribute):
            node = node.value
        if not isinstance(node, ast.Call):
            return False
        found = scope.meaning(node.func)
        return isinstance(found, Known | Unloaded) and bool(self._hazard_of(node, found))
