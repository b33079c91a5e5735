"""Maps that share most of their parts with the map they were made from.

A generation of the index is never changed: whoever reads it sees it whole. The next one must
not copy a hundred thousand entries to change one, so a large map is cut into parts by the hash
of its keys, and a change copies one part.

Who makes a generation holds an *edit*: a token. A part that carries it was made by this edit,
and nobody else has seen it, so it is changed in place. That makes filling an empty index as
cheap as filling a dict, with the same code that changes one entry of a full one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Generic, TypeAlias, TypeVar

if TYPE_CHECKING:
    from collections.abc import Iterator

K = TypeVar("K")
V = TypeVar("V")

# A map is cut when it grows beyond this: copying it whole takes a tenth of a millisecond, and
# looking something up in a cut one takes twice as long.
_MOST_WHOLE: Final = 4096
# A prime: keys are also integers, which are their own hashes and come in steps of 2, 8, 100.
_PARTS: Final = 251


class Edit:
    """The token of whoever makes a generation."""

    __slots__ = ()


class Part(dict[K, V]):
    """A small map, or a part of a large one; `edit` may change it."""

    __slots__ = ("edit",)

    def __init__(self, edit: Edit | None) -> None:
        super().__init__()
        self.edit = edit


class Parts(Generic[K, V]):
    """A large map: parts by the hash of the key. It is never joined again."""

    __slots__ = ("edit", "parts")

    def __init__(self, edit: Edit, parts: list[Part[K, V]]) -> None:
        self.edit = edit
        self.parts = parts

    def get(self, key: K) -> V | None:
        """Return what stands under the key, or None."""
        return self.parts[hash(key) % _PARTS].get(key)

    def __bool__(self) -> bool:
        return any(self.parts)

    def items(self) -> Iterator[tuple[K, V]]:
        """Everything in it with its key, in no order."""
        for part in self.parts:
            yield from part.items()

    def values(self) -> Iterator[V]:
        """Everything in it, in no order."""
        for part in self.parts:
            yield from part.values()


Map: TypeAlias = "Part[K, V] | Parts[K, V]"


def put(found: Map[K, V], key: K, value: V, edit: Edit) -> Map[K, V]:
    """Return the map with the value under the key; what this edit made is changed itself."""
    if isinstance(found, Part):
        if len(found) < _MOST_WHOLE:
            found = _own(found, edit)
            found[key] = value
            return found
        found = _cut(found, edit)
    found, part = _own_part(found, key, edit)
    part[key] = value
    return found


def drop(found: Map[K, V], key: K, edit: Edit) -> Map[K, V]:
    """Return the map without the key, which is in it."""
    if isinstance(found, Part):
        found = _own(found, edit)
        del found[key]
        return found
    found, part = _own_part(found, key, edit)
    del part[key]
    return found


def _own(part: Part[K, V], edit: Edit) -> Part[K, V]:
    if part.edit is edit:
        return part
    copy: Part[K, V] = Part(edit)
    copy.update(part)
    return copy


def _own_part(found: Parts[K, V], key: K, edit: Edit) -> tuple[Parts[K, V], Part[K, V]]:
    if found.edit is not edit:
        found = Parts(edit, found.parts.copy())
    at = hash(key) % _PARTS
    part = found.parts[at] = _own(found.parts[at], edit)
    return found, part


def _cut(whole: Part[K, V], edit: Edit) -> Parts[K, V]:
    parts: list[Part[K, V]] = [Part(edit) for _ in range(_PARTS)]
    for key, value in whole.items():
        parts[hash(key) % _PARTS][key] = value
    return Parts(edit, parts)
