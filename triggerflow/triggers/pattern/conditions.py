"""What a pattern asks for, as data: fields, their operators, and the branches of ``$or``.

An index reads this to choose the one condition that it files a pattern under, `matching`
builds closures from it, and `explaining` says which condition failed. All of it is frozen and
hashable; two conditions are equal when they ask for the same, so that ``Equals((1,))`` is not
``Equals((True,))`` though Python holds ``1 == True``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

import attrs

if TYPE_CHECKING:
    from collections.abc import Iterator

Scalar: TypeAlias = "str | int | float | bool | None"
Number: TypeAlias = "int | float"
KeyPath: TypeAlias = "tuple[str, ...]"


def _typed(values: tuple[Scalar, ...]) -> tuple[tuple[bool, Scalar], ...]:
    """Keep booleans apart from the numbers that Python takes them for."""
    return tuple((isinstance(value, bool), value) for value in values)


@attrs.frozen
class Equals:
    """The value is one of these, of the same JSON type; ``1`` and ``1.0`` are one value."""

    values: tuple[Scalar, ...] = attrs.field(eq=_typed)


@attrs.frozen
class Prefix:
    """The value is a string that begins with the text."""

    text: str
    ignore_case: bool = False


@attrs.frozen
class Suffix:
    """The value is a string that ends with the text."""

    text: str
    ignore_case: bool = False


@attrs.frozen
class EqualsIgnoreCase:
    """The value is the text, each character in lower or upper case."""

    text: str


@attrs.frozen
class Wildcard:
    r"""The value is a string of these parts in this order, with anything between them.

    Attributes:
        text: as it was written, ``\*`` and ``\\`` escaped.
        parts: what stands between the stars, unescaped; one part when there is no star.
    """

    text: str
    parts: tuple[str, ...]


@attrs.frozen
class Numeric:
    """The value is a number within these bounds; None where there is no bound."""

    low: Number | None = None
    low_open: bool = False
    high: Number | None = None
    high_open: bool = False


@attrs.frozen
class InNetwork:
    """The value is a string that is an IP address of this version, from first to last.

    Attributes:
        text: the block, or the IPv6 address, as it was written.
    """

    text: str
    version: int
    first: int
    last: int


@attrs.frozen
class Exists:
    """There is a value: anything that is neither an object nor nothing at all."""


@attrs.frozen
class Absent:
    """There is no value at this path: see `absence` for what that means inside arrays."""


@attrs.frozen
class AnythingBut:
    """There is a value and none of these operators holds for it."""

    none_of: tuple[Operator, ...]


Operator: TypeAlias = (
    "Equals | Prefix | Suffix | EqualsIgnoreCase | Wildcard | Numeric | InNetwork"
    " | Exists | Absent | AnythingBut"
)


@attrs.frozen
class Leaf:
    """One field: it holds when one of its operators does for one of the values there.

    Attributes:
        path: the keys from the document down; arrays on the way are crushed.
        any_of: at least one operator; all plain values of a field are one `Equals`.
    """

    path: KeyPath
    any_of: tuple[Operator, ...]

    @property
    def may_be_absent(self) -> bool:
        """Whether the field may hold without a value: no index can file it under one."""
        return any(type(operator) is Absent for operator in self.any_of)


@attrs.frozen
class Conditions:
    """A conjunction: every leaf, and of each choice at least one branch.

    Attributes:
        leaves: the fields that each match must meet, sorted by path.
        choices: each ``$or``, as its branches. A branch has the paths from the document down,
            wherever the ``$or`` stands, and is a conjunction of its own. Inside arrays all of
            it must hold in the same element as the leaves around it.
    """

    leaves: tuple[Leaf, ...]
    choices: tuple[tuple[Conditions, ...], ...] = ()

    def every_leaf(self) -> Iterator[Leaf]:
        """Each leaf, those of all branches included; one in two branches comes twice."""
        yield from self.leaves
        for choice in self.choices:
            for branch in choice:
                yield from branch.every_leaf()
