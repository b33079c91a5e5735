"""Nodes: what is filed under the paths of one type, and the walk that finds it in a document.

The nodes are a trie of the paths that are in use. A document is walked along it once: every
value is looked at by the one node with its path, if there is one, arrays crushed. What is found
is kept by identity, so that an array of a hundred thousand equal strings finds a filing once.
"""

from __future__ import annotations

from functools import lru_cache
from math import floor
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from triggerflow.triggers.index.parts import Edit, Part, drop, put
from triggerflow.triggers.index.places import LONGEST, Probe, magnitude
from triggerflow.triggers.pattern.addresses import read_address
from triggerflow.triggers.pattern.leaves import crushed

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable

    from triggerflow.triggers.index.filings import Filing
    from triggerflow.triggers.index.parts import Map
    from triggerflow.triggers.index.places import Place
    from triggerflow.triggers.pattern.conditions import Number


class Posting(list["Filing"]):
    """Several filings under one key; a single one stands there itself."""

    __slots__ = ("edit",)

    def __init__(self, filings: list[Filing], edit: Edit) -> None:
        super().__init__(filings)
        self.edit = edit


Posted: TypeAlias = "Filing | Posting"
# By identity: a posting is a list, and two entries are never equal.
Hits: TypeAlias = "dict[int, Posted]"
Probes: TypeAlias = "dict[tuple[Probe, int], Map[Hashable, Posted]]"

_NOTHING: Final[Any] = Part(None)
_NO_PROBES: Final[Probes] = {}
_EQUALITY: Final = ("texts", "numbers", "constants")
_OF_NUMBERS: Final = frozenset({Probe.CELL, Probe.ABOVE, Probe.BELOW})


class Node:
    """One path: what is filed under it, and the nodes below.

    Attributes:
        texts, numbers, constants: what is filed under equality, by value; apart, since for
            Python ``True == 1``.
        text_probes, number_probes: (probe, size) -> key -> what is filed there.
        anything: what any value at the path finds.
    """

    __slots__ = (
        "anything",
        "children",
        "constants",
        "edit",
        "number_probes",
        "numbers",
        "text_probes",
        "texts",
    )

    children: Map[str, Node]
    texts: Map[Hashable, Posted]
    numbers: Map[Hashable, Posted]
    constants: Map[Hashable, Posted]
    text_probes: Probes
    number_probes: Probes
    anything: Map[Hashable, Posted]

    def __init__(self, edit: Edit | None) -> None:
        self.edit = edit
        self.children = self.texts = self.numbers = self.constants = self.anything = _NOTHING
        self.text_probes = self.number_probes = _NO_PROBES

    # --- asking

    def at(self, place: Place) -> Posted | None:
        """What is filed at a place whose path begins here."""
        path, probe, size, key = place
        node = self
        for step in path:
            child = node.children.get(step)
            if child is None:
                return None
            node = child
        return node.filed(probe, size).get(key)

    def filed(self, probe: Probe, size: int) -> Map[Hashable, Posted]:
        """What is filed here under one probe, by key."""
        if probe < len(_EQUALITY):
            equal: Map[Hashable, Posted] = getattr(self, _EQUALITY[probe])
            return equal
        if probe is Probe.ANYTHING:
            return self.anything
        probes = self.number_probes if probe in _OF_NUMBERS else self.text_probes
        found = probes.get((probe, size))
        return _NOTHING if found is None else found

    def is_empty(self) -> bool:
        """Whether nothing is filed here or below."""
        return not (
            self.texts
            or self.numbers
            or self.constants
            or self.text_probes
            or self.number_probes
            or self.anything
            or self.children
        )

    # --- walking

    def walk(self, element: dict[str, Any], hits: Hits) -> None:
        """Collect what is filed under the values of an object that stands at this path."""
        children = self.children
        if type(children) is Part and len(children) <= len(element):
            for key, child in children.items():
                if key in element:
                    child.take(element[key], hits)
            return
        for key, value in element.items():
            found = children.get(key)
            if found is not None:
                found.take(value, hits)

    def take(self, value: Any, hits: Hits) -> None:
        """Collect what is filed under a value that stands at this path."""
        kind = type(value)
        if kind is str:
            hit = self.texts.get(value)
            if hit is not None:
                hits[id(hit)] = hit
            if self.text_probes:
                _probe(self.text_probes, value, hits)
        elif kind is dict:
            if self.children:
                self.walk(value, hits)
            return
        elif kind is list:
            for element in crushed(value):
                self.take(element, hits)
            return
        elif kind is int or kind is float:
            hit = self.numbers.get(value)
            if hit is not None:
                hits[id(hit)] = hit
            if self.number_probes:
                _probe(self.number_probes, value, hits)
        elif value is None or kind is bool:
            hit = self.constants.get(value)
            if hit is not None:
                hits[id(hit)] = hit
        if self.anything:
            hit = self.anything.get("")
            if hit is not None:
                hits[id(hit)] = hit

    # --- changing

    def own(self, edit: Edit) -> Node:
        """Return the node that this edit may change: itself, or a copy."""
        if self.edit is edit:
            return self
        copy = Node(edit)
        for slot in Node.__slots__:
            if slot != "edit":
                setattr(copy, slot, getattr(self, slot))
        return copy

    def post(self, place: Place, posted: Posted | None, edit: Edit, depth: int = 0) -> None:
        """Put this, or nothing, at a place; a node that is left empty goes.

        Args:
            depth: how much of the place's path leads here; the node is this edit's own.
        """
        path, probe, size, key = place
        if depth == len(path):
            filed = self.filed(probe, size)
            if posted is None:
                self.refile(probe, size, drop(filed, key, edit))
            else:
                self.refile(probe, size, put(filed or Part(edit), key, posted, edit))
            return
        step = path[depth]
        child = self.children.get(step)
        below = Node(edit) if child is None else child.own(edit)
        below.post(place, posted, edit, depth + 1)
        if posted is None and below.is_empty():
            self.children = drop(self.children, step, edit)
        elif below is not child:
            self.children = put(self.children or Part(edit), step, below, edit)

    def refile(self, probe: Probe, size: int, filed: Map[Hashable, Posted]) -> None:
        """Set what is filed here under one probe."""
        if probe < len(_EQUALITY):
            setattr(self, _EQUALITY[probe], filed)
        elif probe is Probe.ANYTHING:
            self.anything = filed
        else:
            slot = "number_probes" if probe in _OF_NUMBERS else "text_probes"
            probes: Probes = getattr(self, slot)
            if filed is not probes.get((probe, size)) or not filed:
                # a handful: copied, so that they need no edit of their own
                probes = {**probes, (probe, size): filed}
                if not filed:
                    del probes[probe, size]
                setattr(self, slot, probes)


# --- probes ------------------------------------------------------------------------------


def _probe(probes: Probes, value: Any, hits: Hits) -> None:
    for (probe, size), filed in probes.items():
        hit = filed.get(_KEYS[probe](value, size))
        if hit is not None:
            hits[id(hit)] = hit


def _folded(value: str, _: int) -> str | None:
    # a case fold isn't shorter than its text, and no longer one is filed
    return value.casefold() if len(value) <= LONGEST else None


@lru_cache(maxsize=256)
def _address(value: str) -> tuple[int, int] | None:
    return read_address(value)


def _network(value: str, size: int) -> tuple[int, int] | None:
    address = _address(value) if 2 <= len(value) <= 39 else None
    return address and (address[0], address[1] >> size)


def _finite(value: Number) -> bool:
    return value - value == 0


def _cell(value: Number, size: int) -> int | None:
    return floor(value) >> size if _finite(value) else None


# (value, size) -> key; the size of ABOVE and BELOW is the magnitude that they are filed under
_KEYS: Final[dict[Probe, Callable[[Any, int], Hashable]]] = {
    Probe.FOLDED: _folded,
    Probe.HEAD: lambda value, size: value[:size],
    Probe.TAIL: lambda value, size: value[-size:],
    Probe.FOLDED_HEAD: lambda value, size: value[:size].casefold()[:size],
    Probe.FOLDED_TAIL: lambda value, size: value[-size:].casefold()[-size:],
    Probe.NETWORK: _network,
    Probe.CELL: _cell,
    Probe.ABOVE: lambda value, size: not _finite(value) or magnitude(value) >= size,
    Probe.BELOW: lambda value, size: not _finite(value) or magnitude(value) <= size,
    Probe.ANY_TEXT: lambda _value, _size: "",
}
