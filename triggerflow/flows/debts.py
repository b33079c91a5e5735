"""Reads what a flow owes: compensations that no path of it runs.

A branch that loses or fails undoes its own calls. The flow itself undoes nothing by itself:
what is called at its top level with ``compensate=`` needs a `compensate` or
`compensate_all` somewhere. Where a ``yield from`` can't be followed, nothing is said.
"""

# ruff: noqa: N802 - the visitor of `ast` names its methods

from __future__ import annotations

import ast
from typing import TYPE_CHECKING, Final

import attrs

from triggerflow.core.sagas import compensate, compensate_all
from triggerflow.flows.calls import Known
from triggerflow.flows.reading import among
from triggerflow.flows.shapes import Shapes
from triggerflow.flows.sources import walk

if TYPE_CHECKING:
    from triggerflow.flows.reading import Finding, Following, Unit
    from triggerflow.flows.sources import Def

_UNDOING: Final = (compensate, compensate_all)


@attrs.define(eq=False)
class _Part:
    """One function: its calls that may have to be undone, and what runs in its branch."""

    findings: list[Finding] = attrs.Factory(list)
    runs: list[Def] = attrs.Factory(list)


@attrs.define(eq=False)
class Debts:
    """What all of a flow's functions owe.

    Attributes:
        undoes: somewhere a `compensate` or `compensate_all` is named.
        unsure: a ``yield from`` leads where nobody can look.
    """

    parts: dict[Def, _Part] = attrs.Factory(dict)
    undoes: bool = False
    unsure: bool = False

    def reader(self, lint: Following, unit: Unit) -> Shapes:
        """A reader of one function that takes notes here."""
        return _Reader(lint, unit, self)

    def unpaid(self, flow: list[Def]) -> list[Finding]:
        """The first call whose compensation no path runs, as a list of one, or an empty list.

        Args:
            flow: the flow's own function.
        """
        if self.undoes or self.unsure:
            return []
        todo, seen = list(flow), set(flow)
        found: list[Finding] = []
        while todo:
            part = self.parts.get(todo.pop())
            if part is not None:
                found += part.findings
                todo += [each for each in part.runs if each not in seen]
                seen.update(part.runs)
        return sorted(found, key=lambda each: (each.file, each.line))[:1]


class _Reader(Shapes):
    """`Shapes`, and what is owed."""

    def __init__(self, lint: Following, unit: Unit, debts: Debts) -> None:
        super().__init__(lint, unit)
        self._debts = debts
        self._part = debts.parts.setdefault(unit.node, _Part())

    def visit_Call(self, node: ast.Call) -> None:
        match node.func:
            case ast.Attribute(value=base, attr="using"):
                self._using(node, base)
            case func:
                # A generator that is only made runs in a branch, or nowhere.
                self._part.runs += [
                    each for each in self.lint.nodes(self.scope.meaning(func)) if _plain(each)
                ]
        super().visit_Call(node)

    def _using(self, node: ast.Call, base: ast.expr) -> None:
        for given in node.keywords:
            if given.arg == "compensate" and not isinstance(given.value, ast.Constant):
                found = self.finding(
                    "owed",
                    node,
                    f"{ast.unparse(base):.60} has a compensation, but no path of the flow runs "
                    "one: a flow that fails or is cancelled undoes nothing by itself",
                    "write `yield tf.compensate_all()` where it fails or is cancelled, or do "
                    "it in a branch of `race` or `gather`, which undoes its own",
                    "warning",
                )
                self._part.findings += [] if found is None else [found]

    def visit_YieldFrom(self, node: ast.YieldFrom) -> None:
        value: ast.expr | None = node.value
        if isinstance(value, ast.Name) and (home := self.scope.home_of(value.id)) is not None:
            value = home.only(value.id)
        driven = []
        if isinstance(value, ast.Call):
            driven = self.lint.nodes(self.scope.meaning(value.func))
        self._part.runs += driven
        if not driven and not self._is_effect(value):
            self._debts.unsure = True
        self.generic_visit(node)

    def visit_Name(self, node: ast.Name) -> None:
        self._named(node)
        super().visit_Name(node)

    def visit_Attribute(self, node: ast.Attribute) -> None:
        self._named(node)
        super().visit_Attribute(node)

    def _named(self, node: ast.Name | ast.Attribute) -> None:
        if isinstance(node.ctx, ast.Load):
            found = self.scope.meaning(node)
            self._debts.undoes |= isinstance(found, Known) and among(found.value, _UNDOING)


def _plain(node: Def) -> bool:
    body = [node.body] if isinstance(node, ast.Lambda) else node.body
    return not any(isinstance(each, ast.Yield | ast.YieldFrom) for each in walk(body))
