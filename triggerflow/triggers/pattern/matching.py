"""Closures: what a pattern becomes when the first document meets it.

Arrays are crushed, at any depth: a leaf holds if any element does. They are *consistent*: two
fields below one array must hold in the same element of it. The closures recurse through the
elements, which gives both without bookkeeping: every node of the document is looked at by
the one pattern node with its path, so that a match costs at most one walk over the document
for each combination of ``$or`` branches. Conjunctions in which a field may be absent are
`absence`'s.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from triggerflow.triggers.pattern.absence import absence_test
from triggerflow.triggers.pattern.alternatives import groups, tree_of
from triggerflow.triggers.pattern.leaves import any_of, crushed, leaf_test

if TYPE_CHECKING:
    from collections.abc import Iterable

    from triggerflow.triggers.pattern.alternatives import Tree
    from triggerflow.triggers.pattern.conditions import Conditions, Leaf
    from triggerflow.triggers.pattern.leaves import Test


def document_test(conditions: Conditions) -> Test:
    """Hold for a document, an object, that meets the conditions."""
    fields: list[tuple[str, Test]] = []
    tests: list[Test] = []
    for alternatives in groups(conditions):
        if len(alternatives) == 1 and not _may_lack(alternatives[0]):
            fields += _fields(tree_of(alternatives[0]))
        else:
            tests.append(any_of(tuple(map(_conjunction, alternatives))))
    if not tests:
        return _all_of(fields)
    first, rest = _all_of(fields), tuple(tests)
    return lambda document: first(document) and all(test(document) for test in rest)


def _conjunction(leaves: tuple[Leaf, ...]) -> Test:
    tree = tree_of(leaves)
    return absence_test(tree) if _may_lack(leaves) else _all_of(_fields(tree))


def _may_lack(leaves: tuple[Leaf, ...]) -> bool:
    return any(leaf.may_be_absent for leaf in leaves)


def _fields(tree: Tree) -> list[tuple[str, Test]]:
    return [
        (key, _all_of(_fields(node)) if isinstance(node, dict) else leaf_test(node))
        for key, node in tree.items()
    ]


def _all_of(pairs: Iterable[tuple[str, Test]]) -> Test:
    """Hold for an object in which every field holds, or an array with one such element."""
    fields = tuple(pairs)

    def fits(element: Any) -> bool:
        if type(element) is not dict:
            return False
        for key, test in fields:  # noqa: SIM110 - the same, for each field
            if key not in element or not test(element[key]):
                return False
        return True

    def holds(value: Any) -> bool:
        if type(value) is not list:
            return fits(value)
        for element in crushed(value):  # noqa: SIM110 - a generator costs a frame a level
            if fits(element):
                return True
        return False

    return holds
