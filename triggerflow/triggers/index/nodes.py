"""Nodes: the paths that are in use for one type, and the walk along them through a document.

A document is walked once: every value is looked at by the one node with its path, if there is
one, arrays crushed. What is found is kept by identity, so that an array of a hundred thousand
equal strings finds a filing once.

What is filed under equality, nearly everything, does not lie in the nodes but in one map of all
values, which says under which paths they are filed. Most values of a document are in nobody's
pattern, and the processor learns that from one place in memory; a map for each path would have
it wait for five places that it hasn't touched for long, which took four times as long.
"""

from __future__ import annotations

from functools import lru_cache
from math import floor
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from triggerflow.triggers.index.parts import Edit, Part
from triggerflow.triggers.index.places import LONGEST, Probe, magnitude
from triggerflow.triggers.pattern.addresses import read_address
from triggerflow.triggers.pattern.leaves import crushed

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable

    from triggerflow.triggers.index.filings import Filing
    from triggerflow.triggers.index.parts import Map
    from triggerflow.triggers.pattern.conditions import Number


class Posting(list["Filing"]):
    """Several filings at one place; a single one stands there itself."""

    __slots__ = ("edit",)

    def __init__(self, filings: list[Filing], edit: Edit) -> None:
        super().__init__(filings)
        self.edit = edit


Posted: TypeAlias = "Filing | Posting"
# By identity: a posting is a list, and two entries are never equal.
Hits: TypeAlias = "dict[int, Posted]"
# What is filed under one value: the number of a node and what is there, or several of those.
Sites: TypeAlias = "tuple[int, Posted] | Map[int, Posted]"
Find: TypeAlias = "Callable[[Any], Sites | None]"
# A probe, its size, what it makes of a value, and what is filed under that.
Tried: TypeAlias = "tuple[int, int, Callable[[Any, int], Hashable], Map[Hashable, Posted]]"

# true, false and null among the values, where ``True == 1`` must not count.
CONSTANTS: Final[dict[Any, Hashable]] = {
    True: ("true",),
    False: ("false",),
    None: ("null",),
}
_NO_NODES: Final[Any] = Part(None)


class Node:
    """One path.

    Attributes:
        number: what the map of values knows it by; a copy keeps it.
        filed: how many values are filed here.
        children: the nodes below, by key.
        probed: those of them that have probes: only these need be looked into.
        heads, tails: the probes of beginnings and ends, which are the most.
        text_probes, number_probes, value_probes: the others, by the kind of value.
    """

    __slots__ = (
        "children",
        "edit",
        "filed",
        "heads",
        "number",
        "number_probes",
        "probed",
        "tails",
        "text_probes",
        "value_probes",
    )

    def __init__(self, number: int, edit: Edit) -> None:
        self.number = number
        self.edit = edit
        self.filed = 0
        self.children: Map[str, Node] = _NO_NODES
        self.probed: Map[str, Node] = _NO_NODES
        self.heads: tuple[Tried, ...] = ()
        self.tails = self.text_probes = self.number_probes = self.value_probes = self.heads

    @property
    def has_probes(self) -> bool:
        """Whether more is filed here than values."""
        return bool(
            self.heads
            or self.tails
            or self.text_probes
            or self.number_probes
            or self.value_probes
        )

    @property
    def is_empty(self) -> bool:
        """Whether nothing is filed here or below."""
        return not (self.filed or self.children or self.has_probes)

    def own(self, edit: Edit) -> Node:
        """Return the node that this edit may change: itself, or a copy."""
        if self.edit is edit:
            return self
        copy = Node(self.number, edit)
        copy.filed = self.filed
        copy.children, copy.probed = self.children, self.probed
        copy.heads, copy.tails = self.heads, self.tails
        copy.text_probes = self.text_probes
        copy.number_probes = self.number_probes
        copy.value_probes = self.value_probes
        return copy

    def probe(self, probe: int, size: int) -> Map[Hashable, Posted] | None:
        """What is filed here under one probe, by key."""
        tried: tuple[Tried, ...] = getattr(self, _slot(probe))
        for other, length, _, filed in tried:
            if other == probe and length == size:
                return filed
        return None

    def set_probe(self, probe: int, size: int, filed: Map[Hashable, Posted]) -> None:
        """Set what is filed here under one probe; the node is the edit's own."""
        slot = _slot(probe)
        tried: list[Tried] = [
            each for each in getattr(self, slot) if each[0] != probe or each[1] != size
        ]
        if filed:
            tried.append((probe, size, _KEYS[probe], filed))
        setattr(self, slot, tuple(tried))

    # --- walking

    def walk(self, element: dict[str, Any], find: Find, hits: Hits) -> None:
        """Collect what is filed under the values of an object that stands at this path.

        Args:
            find: looks a value up in the map of values.
        """
        children = self.children
        if type(children) is not Part or len(children) > 4 * len(element):
            for key, value in element.items():
                found = children.get(key)
                if found is not None:
                    found.take(value, find, hits)
            return
        for key, child in children.items():
            if key not in element:
                continue
            value = element[key]
            kind = type(value)
            # what `take` does, for what most values are: a call costs more than the look-up
            if kind is str:
                sites = find(value)
                if sites is not None:
                    child.hit(sites, hits)
            elif kind is dict:
                if child.children:
                    child.walk(value, find, hits)
            elif kind is int or kind is float:
                sites = find(value)
                if sites is not None:
                    child.hit(sites, hits)
            elif kind is list:
                child.take_all(value, find, hits)
            elif value is None or kind is bool:
                sites = find(CONSTANTS[value])
                if sites is not None:
                    child.hit(sites, hits)
        for key, child in self.probed.items():
            if key in element:
                child.try_probes(element[key], hits)

    def take(self, value: Any, find: Find, hits: Hits) -> None:
        """Collect what is filed under whatever stands at this path."""
        kind = type(value)
        if kind is dict:
            if self.children:
                self.walk(value, find, hits)
        elif kind is list:
            self.take_all(value, find, hits)
        else:
            self.take_scalar(value, find, hits)
        if self.has_probes:
            self.try_probes(value, hits)

    def take_all(self, array: list[Any], find: Find, hits: Hits) -> None:
        """Collect what is filed under the elements of an array, but for probes."""
        for element in crushed(array):
            if type(element) is not dict:
                self.take_scalar(element, find, hits)
            elif self.children:
                self.walk(element, find, hits)

    def take_scalar(self, value: Any, find: Find, hits: Hits) -> None:
        """Collect what is filed under equality with a value."""
        kind = type(value)
        if kind is str or kind is int or kind is float:
            sites = find(value)
        elif value is None or kind is bool:
            sites = find(CONSTANTS[value])
        else:
            return
        if sites is not None:
            self.hit(sites, hits)

    def hit(self, sites: Sites, hits: Hits) -> None:
        """Collect what a value's sites have for this node."""
        if isinstance(sites, tuple):
            number, hit = sites
            if number == self.number:
                hits[id(hit)] = hit
            return
        found = sites.get(self.number)
        if found is not None:
            hits[id(found)] = found

    def try_probes(self, value: Any, hits: Hits) -> None:
        """Collect what probes find in whatever stands at this path."""
        kind = type(value)
        if kind is dict:
            return
        if kind is list:
            for element in crushed(value):
                if type(element) is not dict:
                    self.try_probes(element, hits)
            return
        if kind is str:
            for _, size, _, filed in self.heads:
                hit = filed.get(value[:size])
                if hit is not None:
                    hits[id(hit)] = hit
            for _, size, _, filed in self.tails:
                hit = filed.get(value[-size:])
                if hit is not None:
                    hits[id(hit)] = hit
            if self.text_probes:
                _try(self.text_probes, value, hits)
        elif kind is int or kind is float:
            _try(self.number_probes, value, hits)
        if self.value_probes:
            _try(self.value_probes, value, hits)


def _slot(probe: int) -> str:
    if probe == Probe.HEAD:
        return "heads"
    if probe == Probe.TAIL:
        return "tails"
    if probe == Probe.ANYTHING:
        return "value_probes"
    return "number_probes" if probe >= Probe.CELL else "text_probes"


# --- probes ------------------------------------------------------------------------------


def _try(probes: tuple[Tried, ...], value: Any, hits: Hits) -> None:
    for _, size, key_of, filed in probes:
        hit = filed.get(key_of(value, size))
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
_KEYS: Final[dict[int, Callable[[Any, int], Hashable]]] = {
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
    Probe.ANYTHING: lambda _value, _size: "",
}
