"""Pivots: the values of a document under which a store files waits.

A wait is filed under a condition that every document must meet that it matches: an equality,
as the text of its path and the text of a value. For an activity the same texts are made of
its document, and only the waits that are filed under one of them are held against it. So what
an activity costs depends on its own size and on what it meets, never on how many wait.

A pivot is necessary, never sufficient: whoever finds a wait by it asks the whole pattern. A
pattern of several equal values, or with ``$or``, has a pivot for each way to meet it. One
without any equality is filed under `RESIDUE`, and held against everything.
"""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from triggerflow.triggers.pattern.conditions import Equals, Wildcard
from triggerflow.triggers.pattern.leaves import crushed

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from triggerflow.triggers.pattern.conditions import Conditions, KeyPath, Leaf, Operator

# A path, and a value there, both as text.
Pivot: TypeAlias = "tuple[str, str]"

RESIDUE: Final[Pivot] = ("", "")
# Stands for a path where the types of the activity are meant, however its document has them.
TYPES: Final = "types"

# More ways to meet a pattern than this, and it is filed under something else.
_MOST: Final = 32
_LONGEST_PATH: Final = 300
_LONGEST_TEXT: Final = 100
# How much more often than an id such a value is met, roughly.
_COMMON: Final = 50
_RARE: Final = 1

_Cover: TypeAlias = "tuple[int, frozenset[Pivot]]"


def pivots_of(
    conditions: Conditions | None, types: tuple[str, ...] | None = None
) -> tuple[Pivot, ...]:
    """Choose where a pattern is filed: every document that matches has one of these pivots.

    Args:
        conditions: those of the pattern; None where every document matches.
        types: the activity must have one of these types; None for any.
    """
    covers = [] if conditions is None else _covers(conditions)
    if types is not None and len(types) <= _MOST:
        found = frozenset((TYPES, value_text(name) or "") for name in types)
        covers.append((_COMMON * len(found), found))
    return (RESIDUE,) if not covers else tuple(sorted(_best(covers)[1]))


def in_namespace(pivots: Iterable[Pivot], namespace: str) -> tuple[Pivot, ...]:
    """The same pivots for the activities of one namespace."""
    if not namespace:
        return tuple(pivots)
    return tuple([(path, f"{value}\n{namespace}") for path, value in pivots])


def value_text(value: object) -> str | None:
    """A plain value as text: 1 and 1.0 are one, 1, "1" and true are three.

    Returns:
        None for what no equality can ask for.
    """
    if type(value) is str:
        if len(value) <= _LONGEST_TEXT and "\0" not in value:
            return "s" + value
        return "h" + hashlib.sha256(value.encode()).hexdigest()
    if type(value) is int:
        return f"n{value}"
    if type(value) is float:
        return f"n{int(value)}" if value.is_integer() else f"n{value!r}"
    return _CONSTANTS.get(value) if value is None or type(value) is bool else None


_CONSTANTS: Final[dict[object, str]] = {None: "null", True: "true", False: "false"}


def _covers(conditions: Conditions) -> list[_Cover]:
    found = [cover for leaf in conditions.leaves if (cover := _leaf_cover(leaf)) is not None]
    for choice in conditions.choices:
        branches = [_covers(branch) for branch in choice]
        if all(branches):
            best = [_best(covers) for covers in branches]
            pivots = frozenset[Pivot]().union(*(pivots for _, pivots in best))
            if len(pivots) <= _MOST:
                found.append((sum(weight for weight, _ in best), pivots))
    return found


def _best(covers: list[_Cover]) -> _Cover:
    """The one that is met least often; of equal ones always the same."""
    return min(covers, key=lambda cover: (cover[0], sorted(cover[1])))


def _leaf_cover(leaf: Leaf) -> _Cover | None:
    path = path_text(leaf.path)
    if len(path) > _LONGEST_PATH:
        return None
    texts: set[str] = set()
    weight = 0
    for operator in leaf.any_of:
        values = _values(operator)
        if values is None:
            return None
        for value in values:
            text = value_text(value)
            if text is None:
                return None
            texts.add(text)
            common = leaf.path[-1] == "type" or value is None or type(value) is bool
            weight += _COMMON if common else _RARE
    if len(texts) > _MOST:
        return None
    return weight, frozenset((path, text) for text in texts)


def _values(operator: Operator) -> tuple[object, ...] | None:
    """The values that an operator asks for, if it asks for exact ones."""
    if type(operator) is Equals:
        return operator.values
    if type(operator) is Wildcard and len(operator.parts) == 1:
        return operator.parts
    return None


def path_text(path: KeyPath) -> str:
    """A path as text; no path's text is the beginning of another's."""
    return json.dumps(path, separators=(",", ":"))


class _Node:
    """A place in the documents: the text of its path if it is looked at, and what is below."""

    __slots__ = ("below", "text")

    def __init__(self) -> None:
        self.text: str | None = None
        self.below: dict[str, _Node] = {}


class Looked:
    """Which paths are looked at: it makes the pivots of a document.

    Args:
        paths: the first parts of the pivots in use; None for all paths that there can be.
    """

    def __init__(self, paths: Iterable[str] | None) -> None:
        self._root: _Node | None = None if paths is None else _Node()
        self._residue = self._types = paths is None
        for text in paths or ():
            if text == RESIDUE[0]:
                self._residue = True
            elif text == TYPES:
                self._types = True
            elif self._root is not None:
                node = self._root
                for key in json.loads(text):
                    node = node.below.setdefault(key, _Node())
                node.text = text

    def pivots(self, document: dict[str, Any], types: Iterable[str]) -> set[Pivot]:
        """All pivots of a document, arrays crushed: as much work as it has values."""
        found: set[Pivot] = {RESIDUE} if self._residue else set()
        if self._types:
            found.update((TYPES, value_text(name) or "") for name in types)
        if self._root is None:
            _everything("[", document, found)
        else:
            _below(self._root, document, found)
        return found


def _below(node: _Node, value: Any, found: set[Pivot]) -> None:
    for element in _elements(value):
        if type(element) is dict:
            for key, child in node.below.items():
                if key in element:
                    _below(child, element[key], found)
        elif node.text is not None:
            text = value_text(element)
            if text is not None:
                found.add((node.text, text))


def _everything(path: str, value: Any, found: set[Pivot]) -> None:
    for element in _elements(value):
        if type(element) is dict:
            for key, inner in element.items():
                longer = f"{path}{',' * (path != '[')}{json.dumps(key)}"
                if len(longer) < _LONGEST_PATH:
                    _everything(longer, inner, found)
        else:
            text = value_text(element)
            if text is not None:
                found.add((f"{path}]", text))


def _elements(value: Any) -> Iterator[Any]:
    return crushed(value) if type(value) is list else iter((value,))
