"""Reads one function's shapes: what swallows a cancellation, and what goes by a set."""

# ruff: noqa: D102, N802 - the visitor of `ast` names its methods

from __future__ import annotations

import ast
import contextlib
from typing import Final

from triggerflow.errors import FlowCancelled
from triggerflow.flows.calls import (
    Known,
    Made,
    Scope,
)
from triggerflow.flows.reading import among
from triggerflow.flows.sources import walk
from triggerflow.flows.yields import Yields

_SETS: Final = frozenset({"union", "intersection", "difference", "symmetric_difference"})


class Shapes(Yields):
    """`Yields`, and the statements around them."""

    # --- cancellation

    def visit_Try(self, node: ast.Try | ast.TryStar) -> None:
        if _yields(node.body):
            for handler in node.handlers:
                if self._swallows(handler):
                    break
            for end in node.finalbody:
                if isinstance(end, ast.Return):
                    self._swallowed(end, "`return` in a `finally`", "error")
        for inside in walk(node.finalbody):
            if isinstance(inside, ast.Yield | ast.YieldFrom):
                self.add(
                    "finally",
                    inside,
                    "an effect in a `finally` is performed after cancellation too, shielded",
                    "clean up in `except tf.FlowCancelled: ... raise`, or declare the line "
                    "with `# tf: trust`",
                    "warning",
                )
        self.generic_visit(node)

    visit_TryStar = visit_Try  # noqa: N815

    def _swallows(self, handler: ast.ExceptHandler) -> bool:
        """Judge a handler; True if it is the one that gets `FlowCancelled`."""
        kinds = handler.type.elts if isinstance(handler.type, ast.Tuple) else [handler.type]
        caught = [None if each is None else self.scope.meaning(each) for each in kinds]
        values = [each.value for each in caught if isinstance(each, Known)]
        every = handler.type is None or among(BaseException, values)
        if not every and not among(FlowCancelled, values):
            return False
        inside = list(walk(handler.body))
        if any(isinstance(each, ast.Raise) for each in inside):
            return True
        kept = any(isinstance(each, ast.Name) and each.id == handler.name for each in inside)
        shown = "except" if handler.type is None else f"except {ast.unparse(handler.type)}"
        self._swallowed(handler, f"`{shown}`", "error" if every and not kept else "warning")
        return True

    def _swallowed(self, node: ast.AST, shown: str, severity: str) -> None:
        self.add(
            "swallow",
            node,
            f"{shown} around a yield swallows FlowCancelled, so that a cancel may end nothing",
            "catch Exception, or end with `raise`",
            severity,
        )

    def visit_With(self, node: ast.With) -> None:
        for item in node.items:
            call = item.context_expr
            if isinstance(call, ast.Call) and _yields(node.body):
                found = self.scope.meaning(call.func)
                if isinstance(found, Known) and found.value is contextlib.suppress:
                    for each in map(self.scope.meaning, call.args):
                        if isinstance(each, Known) and each.value is BaseException:
                            self._swallowed(node, "`suppress(BaseException)`", "error")
                        elif isinstance(each, Known) and each.value is FlowCancelled:
                            self._swallowed(node, "`suppress(FlowCancelled)`", "warning")
        self.generic_visit(node)

    # --- order

    def visit_For(self, node: ast.For) -> None:
        self._ordered(node.iter)
        self.generic_visit(node)

    def visit_Starred(self, node: ast.Starred) -> None:
        self._ordered(node.value)
        self.generic_visit(node)

    def _comprehension(
        self, node: ast.ListComp | ast.SetComp | ast.DictComp | ast.GeneratorExp
    ) -> None:
        before = self.scope
        self.scope = before.around([each.target for each in node.generators])
        if not isinstance(node, ast.SetComp) and node not in self.free_order:
            for each in node.generators:
                self._ordered(each.iter)
        self.generic_visit(node)
        self.scope = before

    visit_ListComp = visit_SetComp = visit_DictComp = visit_GeneratorExp = _comprehension  # noqa: N815

    def _ordered(self, node: ast.expr) -> None:
        if self._is_set(node, self.scope):
            self.add(
                "set_order",
                node,
                f"{ast.unparse(node):.60} is a set: its order differs from process to process",
                "go through it with `sorted(...)`",
                "warning",
            )

    def _is_set(self, node: ast.expr, scope: Scope, depth: int = 0) -> bool:
        if depth > 5:
            return False
        match node:
            case ast.Set() | ast.SetComp():
                return True
            case ast.BinOp(left=one, right=other):
                marks = ast.BitOr | ast.BitAnd | ast.BitXor | ast.Sub
                return isinstance(node.op, marks) and (
                    self._is_set(one, scope, depth + 1) or self._is_set(other, scope, depth + 1)
                )
            case ast.Call(func=ast.Attribute(value=base, attr=attr)) if attr in _SETS:
                return self._is_set(base, scope, depth + 1)
            case ast.Call():
                found = scope.meaning(node)
                return isinstance(found, Made) and found.cls in {set, frozenset}
            case ast.Name(id=name) if (home := scope.home_of(name)) is not None:
                value = home.only(name)
                return isinstance(value, ast.expr) and self._is_set(value, home, depth + 1)
            case ast.Name() | ast.Attribute():
                found = scope.meaning(node)
                return isinstance(found, Known) and type(found.value) in {set, frozenset}
        return False


def _yields(body: list[ast.stmt]) -> bool:
    return any(isinstance(each, ast.Yield | ast.YieldFrom) for each in walk(list(body)))
