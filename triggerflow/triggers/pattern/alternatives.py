"""The ways to meet a pattern: its ``$or`` multiplied out, as far as that is needed.

A pattern means what its combinations mean: one branch of each ``$or`` and all fields around
them, together in the same elements of arrays. Fields under different top-level keys never share
an array, so a ``$or`` is multiplied out only with what stands under the keys that it touches.
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Iterable

    from triggerflow.triggers.pattern.conditions import Conditions, Leaf

# An object's fields, each with a leaf or the fields below it.
Tree: TypeAlias = "dict[str, Leaf | Tree]"


def groups(conditions: Conditions) -> list[list[tuple[Leaf, ...]]]:
    """Split a pattern into parts that a document meets independently.

    Returns:
        For each part its alternatives, each a conjunction: the part holds when one of them
        does. Nearly always there is one part with one alternative for each top-level key.
    """
    by_key: dict[str, list[Leaf]] = {}
    for leaf in conditions.leaves:
        by_key.setdefault(leaf.path[0], []).append(leaf)
    found: list[list[tuple[Leaf, ...]]] = []
    for keys, choices in _connected(conditions.choices):
        outer = tuple(itertools.chain.from_iterable(by_key.pop(key, ()) for key in keys))
        found.append([outer + rest for rest in _combinations(choices)])
    return [[tuple(leaves)] for leaves in by_key.values()] + found


def _connected(
    choices: Iterable[tuple[Conditions, ...]],
) -> list[tuple[list[str], list[tuple[Conditions, ...]]]]:
    """The choices in sets that share top-level keys, with those keys."""
    sets: list[tuple[dict[str, None], list[tuple[Conditions, ...]]]] = []
    for choice in choices:
        keys = {leaf.path[0]: None for branch in choice for leaf in branch.every_leaf()}
        together = [choice]
        apart = []
        for other_keys, other_choices in sets:
            if other_keys.keys() & keys.keys():
                keys |= other_keys
                together = other_choices + together
            else:
                apart.append((other_keys, other_choices))
        sets = [*apart, (keys, together)]
    return [(list(keys), together) for keys, together in sets]


def _combinations(choices: Iterable[tuple[Conditions, ...]]) -> list[tuple[Leaf, ...]]:
    """One conjunction of leaves for each way to take a branch of every choice."""
    options = [
        [branch.leaves + inner for branch in choice for inner in _combinations(branch.choices)]
        for choice in choices
    ]
    return [
        tuple(itertools.chain.from_iterable(taken)) for taken in itertools.product(*options)
    ]


def expanded_size(conditions: Conditions) -> int:
    """How many leaves the alternatives have together, without building them."""

    def measure(choices: Iterable[tuple[Conditions, ...]]) -> tuple[int, int]:
        count, leaves = 1, 0
        for choice in choices:
            branch_count = branch_leaves = 0
            for branch in choice:
                inner, size = measure(branch.choices)
                branch_count += inner
                branch_leaves += size + inner * len(branch.leaves)
            leaves = leaves * branch_count + branch_leaves * count
            count *= branch_count
        return count, leaves

    total = 0
    for keys, choices in _connected(conditions.choices):
        count, leaves = measure(choices)
        outer = sum(leaf.path[0] in keys for leaf in conditions.leaves)
        total += leaves + count * outer
    return total


def tree_of(leaves: Iterable[Leaf]) -> Tree:
    """The leaves of a conjunction, nested as the document is."""
    tree: Tree = {}
    for leaf in leaves:
        node: Any = tree
        for key in leaf.path[:-1]:
            node = node.setdefault(key, {})
        node[leaf.path[-1]] = leaf
    return tree
