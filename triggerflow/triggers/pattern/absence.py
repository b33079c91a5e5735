"""``exists: false``: what it means for a value to be absent, inside arrays too.

A field is absent when no value can be reached along its path: it isn't there, or there is an
object, an empty array or an array of objects in its place, or something above it is missing.
Inside arrays it matters *where* nothing must be reached. EventBridge takes the fields of a
pattern in the order of their dotted paths, and a field whose value matches chooses an element
of each array above it. An absent field must be out of reach within the elements that earlier
fields have chosen, and within all elements of the arrays where none has::

    {"d": {"a": [1], "b": [{"exists": false}]}}     no b beside the a that is 1
    {"d": {"b": [{"exists": false}], "c": [1]}}     no b in any element of d

For one element at a time the walk decides this without going back: a value that matches binds
the element, which only makes later absences easier, and whether a path is out of reach is
looked up once for each element that bounds it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import attrs

from triggerflow.triggers.pattern.leaves import crushed, leaf_test

if TYPE_CHECKING:
    from collections.abc import Iterator

    from triggerflow.triggers.pattern.alternatives import Tree
    from triggerflow.triggers.pattern.conditions import KeyPath
    from triggerflow.triggers.pattern.leaves import Test

_FAILED: Final = -1


@attrs.frozen(eq=False)
class _Field:
    """A leaf: its key, its whole path, what its value must meet, whether it may be absent."""

    key: str
    path: KeyPath
    holds: Test | None
    may_be_absent: bool


@attrs.frozen(eq=False)
class _Object:
    """An object of the pattern: its fields in EventBridge's order.

    Attributes:
        fields: all leaves below it, if every one of them may be absent; else empty.
    """

    key: str
    items: tuple[_Field | _Object, ...]
    fields: tuple[_Field, ...]


def absence_test(tree: Tree) -> Test:
    """Hold for a document that meets this conjunction, in which some leaf may be absent."""
    root = _object("", tree, ())

    def holds(document: Any) -> bool:
        return _Walk().items(root.items, [document], 0) != _FAILED

    return holds


def _object(key: str, tree: Tree, path: KeyPath) -> _Object:
    items: list[_Field | _Object] = []
    for name in sorted(tree, key=lambda name: name + "." * isinstance(tree[name], dict)):
        node = tree[name]
        if isinstance(node, dict):
            items.append(_object(name, node, (*path, name)))
        else:
            only_absent = node.may_be_absent and len(node.any_of) == 1
            holds = None if only_absent else leaf_test(node)
            items.append(_Field(name, node.path, holds, node.may_be_absent))
    fields: list[_Field] = []
    for item in items:
        below = item.fields if isinstance(item, _Object) else (item,) * item.may_be_absent
        if not below:
            fields = []
            break
        fields += below
    return _Object(key, tuple(items), tuple(fields))


class _Walk:
    """One document against one conjunction."""

    def __init__(self) -> None:
        # (path, element that bounds it) -> is it out of reach there?
        self.known: dict[tuple[KeyPath, int], bool] = {}

    def items(self, items: tuple[_Field | _Object, ...], chosen: list[Any], bound: int) -> int:
        """Hold the items of one object against the innermost chosen element.

        Args:
            chosen: the elements from the document down, one for each object of the pattern.
            bound: how many objects below the document an earlier value has bound.

        Returns:
            How many are bound now, or `_FAILED`.
        """
        element = chosen[-1]
        depth = len(chosen) - 1
        for item in items:
            if isinstance(item, _Object):
                if item.fields and all(
                    self.absent(each, chosen, bound) for each in item.fields
                ):
                    continue
                if not self.some_element(item, element.get(item.key), chosen, bound):
                    return _FAILED
                bound = depth
            elif (
                item.holds is not None and item.key in element and item.holds(element[item.key])
            ):
                bound = depth
            elif not item.may_be_absent or not self.absent(item, chosen, bound):
                return _FAILED
        return bound

    def some_element(self, item: _Object, value: Any, chosen: list[Any], bound: int) -> bool:
        """Whether an element holds with a value in it; without one all would be absent."""
        depth = len(chosen)
        for element in _objects(value):
            chosen.append(element)
            reached = self.items(item.items, chosen, bound)
            chosen.pop()
            if reached == depth:
                return True
        return False

    def absent(self, field: _Field, chosen: list[Any], bound: int) -> bool:
        """Whether no value is in reach of the field's path, within what is bound."""
        key = (field.path, id(chosen[bound]))
        known = self.known.get(key)
        if known is None:
            known = self.known[key] = not _reaches(chosen[bound], field.path[bound:])
        return known


def _reaches(element: dict[str, Any], path: KeyPath) -> bool:
    """Whether the path leads from this object to a value, through any elements of arrays."""
    if path[0] not in element:
        return False
    value = element[path[0]]
    if len(path) == 1:
        if type(value) is list:
            return any(type(inner) is not dict for inner in crushed(value))
        return type(value) is not dict
    return any(_reaches(inner, path[1:]) for inner in _objects(value))


def _objects(value: Any) -> Iterator[dict[str, Any]]:
    """The objects that a value is, or that an array has as elements."""
    if type(value) is dict:
        yield value
    elif type(value) is list:
        for inner in crushed(value):
            if type(inner) is dict:
                yield inner
