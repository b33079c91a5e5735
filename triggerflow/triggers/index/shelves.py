"""Shelves: what is filed at which place, for the triggers of one type."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from triggerflow.triggers.index.nodes import CONSTANTS, Node, Posting
from triggerflow.triggers.index.parts import Edit, Map, Part, drop, put
from triggerflow.triggers.index.places import Place, Probe

if TYPE_CHECKING:
    from collections.abc import Hashable

    from triggerflow.triggers.index.filings import Filing
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
        node = self._node(path)
        if node is None:
            return None
        if probe > Probe.CONSTANT:
            filed = node.probe(probe, size)
            return None if filed is None else filed.get(key)
        return _at(self._values.get(_value(probe, key)), node.number)

    def swap(self, place: Place, before: Filing | None, after: Filing | None) -> None:
        """Put a filing in another's place; of None to add it, by None to remove that one.

        Nothing happens where the other isn't. The shelf is the edit's own.
        """
        posted = self.at(place)
        if before is not None and not (
            posted is before or (type(posted) is Posting and before in posted)
        ):
            return
        now = _reposted(posted, before, after, self.edit)
        if now is posted:
            return
        path, probe, size, key = place
        if probe > Probe.CONSTANT:
            nodes = self._own_nodes(path)
            filed = nodes[-1].probe(probe, size)
            refiled = _set(filed or Part(self.edit), key, now, self.edit)
            if refiled is not filed or not refiled:
                nodes[-1].set_probe(probe, size, refiled)
            self._tidy(path, nodes)
            return
        node = self._node(path)
        if posted is None or now is None:
            # a node that is the edit's own has only such nodes above it
            if node is None or node.edit is not self.edit or now is None:
                nodes = self._own_nodes(path)
                node = nodes[-1]
            node.filed += 1 if now is not None else -1
        if node is not None:
            value = _value(probe, key)
            sites = self._values.get(value)
            found = _sites(sites, node.number, now, self.edit)
            if found is not sites:
                self._values = _set(self._values, value, found, self.edit)
        if now is None:
            self._tidy(path, nodes)

    def _node(self, path: KeyPath) -> Node | None:
        node = self._root
        for step in path:
            child = node.children.get(step)
            if child is None:
                return None
            node = child
        return node

    def _own_nodes(self, path: KeyPath) -> list[Node]:
        """The nodes along a path, the root first, as the edit's own; new ones if need be."""
        node = self._root = self._root.own(self.edit)
        nodes = [node]
        for step in path:
            node = self._below(node, step)
            nodes.append(node)
        return nodes

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


def _value(probe: int, key: Hashable) -> Hashable:
    return CONSTANTS[key] if probe == Probe.CONSTANT else key


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


def _reposted(
    posted: Posted | None, before: Filing | None, after: Filing | None, edit: Edit
) -> Posted | None:
    """What stands at a place when one filing has taken the place of another."""
    if not isinstance(posted, Posting):
        if before is None and posted is not None and after is not None:
            return Posting([posted, after], edit)
        return after
    if posted.edit is not edit:
        posted = Posting(posted, edit)
    if before is not None:
        at = posted.index(before)
        if after is not None:
            posted[at] = after
            return posted
        del posted[at]
    elif after is not None:
        posted.append(after)
    return posted if len(posted) > 1 else posted[0]
