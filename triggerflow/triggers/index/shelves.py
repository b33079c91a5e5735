"""Shelves: what is filed at which place, for the triggers of one type."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from triggerflow.triggers.index.nodes import CONSTANTS, Node
from triggerflow.triggers.index.parts import Edit, Map, Part, drop, put
from triggerflow.triggers.index.places import Place, Probe

if TYPE_CHECKING:
    from collections.abc import Hashable

    from triggerflow.triggers.index.nodes import Hits, Posted, Sites
    from triggerflow.triggers.pattern.conditions import KeyPath


class Shelf:
    """A trie of paths, and one map of the values that are filed under them."""

    __slots__ = ("_next", "_root", "_values", "edit")

    def __init__(self, edit: Edit) -> None:
        self.edit = edit
        self._values: Map[Hashable, Sites] = Part(edit)
        self._root = Node(0, edit)
        self._next = 1

    def own(self, edit: Edit) -> Shelf:
        """Return the shelf that this edit may change: itself, or a copy."""
        if self.edit is edit:
            return self
        copy = Shelf(edit)
        copy._values, copy._root, copy._next = self._values, self._root, self._next
        return copy

    def collect(self, document: dict[str, Any], hits: Hits) -> None:
        """Collect what a document finds."""
        if self._root.children:
            self._root.walk(document, self._values.get, hits)
        if self._root.has_probes:
            self._root.try_probes("", hits)

    def at(self, place: Place) -> Posted | None:
        """What is filed at a place."""
        path, probe, size, key = place
        node = self._root
        for step in path:
            child = node.children.get(step)
            if child is None:
                return None
            node = child
        if probe > Probe.CONSTANT:
            filed = node.probe(probe, size)
            return None if filed is None else filed.get(key)
        return _at(self._values.get(_value(probe, key)), node.number)

    def post(self, place: Place, posted: Posted | None) -> None:
        """Put this, or nothing, at a place; the shelf is the edit's own."""
        path, probe, size, key = place
        self._root = root = self._root.own(self.edit)
        nodes = [root]
        for step in path:
            nodes.append(self._below(nodes[-1], step))
        node = nodes[-1]
        if probe > Probe.CONSTANT:
            filed = node.probe(probe, size)
            if filed is None:
                filed = Part(self.edit)
            node.set_probe(probe, size, _set(filed, key, posted, self.edit))
        else:
            value = _value(probe, key)
            sites = self._values.get(value)
            node.filed += (posted is not None) - (_at(sites, node.number) is not None)
            after = _sites(sites, node.number, posted, self.edit)
            if after is not sites:
                self._values = _set(self._values, value, after, self.edit)
        self._tidy(path, nodes)

    def _below(self, node: Node, step: str) -> Node:
        """The edit's own child of its own node."""
        child = node.children.get(step)
        if child is None:
            own = Node(self._next, self.edit)
            self._next += 1
            # documents have other strings of this text, but types share few keys: one string
            # for all of them stays in the processor's cache
            step = sys.intern(step)
        else:
            own = child.own(self.edit)
        if own is not child:
            node.children = put(node.children or Part(self.edit), step, own, self.edit)
            if own.has_probes:
                node.probed = put(node.probed, step, own, self.edit)
        return own

    def _tidy(self, path: KeyPath, nodes: list[Node]) -> None:
        """Drop nodes that were left empty, and keep what nodes know of their children."""
        for at in range(len(path) - 1, -1, -1):
            node, step, child = nodes[at], path[at], nodes[at + 1]
            if child.is_empty:
                node.children = drop(node.children, step, self.edit)
            probed = node.probed.get(step)
            if child.has_probes:
                if probed is not child:
                    node.probed = put(node.probed or Part(self.edit), step, child, self.edit)
            elif probed is not None:
                node.probed = drop(node.probed, step, self.edit)


def _value(probe: Probe, key: Hashable) -> Hashable:
    return CONSTANTS[key] if probe is Probe.CONSTANT else key


def _at(sites: Sites | None, number: int) -> Posted | None:
    if isinstance(sites, tuple):
        return sites[1] if sites[0] == number else None
    return None if sites is None else sites.get(number)


def _sites(sites: Sites | None, number: int, posted: Posted | None, edit: Edit) -> Sites | None:
    """The sites of a value with this, or nothing, at one of them."""
    if sites is None or (isinstance(sites, tuple) and sites[0] == number):
        return None if posted is None else (number, posted)
    several: Map[int, Posted]
    if isinstance(sites, tuple):
        several = Part(edit)
        several[sites[0]] = sites[1]
    else:
        several = sites
    left: Map[int, Posted] = _set(several, number, posted, edit)
    return left or None


def _set(found: Any, key: Any, value: Any, edit: Edit) -> Any:
    return drop(found, key, edit) if value is None else put(found, key, value, edit)
