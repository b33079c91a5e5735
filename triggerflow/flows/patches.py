"""Which `patched` ids a flow's source has, and where."""

# ruff: noqa: N802 - the visitor of `ast` names its methods

from __future__ import annotations

import ast
from typing import TYPE_CHECKING, Any

from triggerflow.core.verbs import patched
from triggerflow.flows.calls import Known
from triggerflow.flows.lint import read_flow
from triggerflow.flows.reading import Following, Reading, Unit

if TYPE_CHECKING:
    from triggerflow.flows.flow import Flow


def patches_in(flow: Flow) -> dict[str, str]:
    """Id -> ``file:line`` of each `patched` in a flow and in the functions that it calls.

    An id that is put together as the flow runs can't be read, nor can a source that isn't
    there: what instances have met tells of those.
    """
    found: dict[str, str] = {}

    class Marks(Reading):
        """Notes the ids; what else it finds is the lint's business."""

        def visit_Call(self, node: ast.Call) -> Any:
            called = self.scope.meaning(node.func)
            if isinstance(called, Known) and called.value is patched:
                given = [*node.args, *(each.value for each in node.keywords)]
                id = self.scope.meaning(given[0]) if given else None
                if isinstance(id, Known) and isinstance(id.value, str):
                    found.setdefault(id.value, f"{self.unit.file}:{node.lineno}")
            super().visit_Call(node)

    def read(following: Following, unit: Unit) -> Reading:
        return Marks(following, unit)

    read_flow(flow.fn, read)
    return found
