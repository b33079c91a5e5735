"""From Python values to cbor2's terms, with a path and a remedy for each one refused."""

from __future__ import annotations

import dataclasses
from datetime import date, datetime, timedelta
from decimal import Decimal
from enum import Enum
from types import GeneratorType
from typing import TYPE_CHECKING, Any, Final
from uuid import UUID

import attrs
from cbor2 import CBORTag

from triggerflow.core.cid import CID
from triggerflow.core.codec.forms import OWN, own_form
from triggerflow.core.codec.strict import wrong_type
from triggerflow.core.codec.walk import (
    Limits,
    Refusal,
    not_utf8,
    too_deep,
    too_large,
    wrong_key,
)

if TYPE_CHECKING:
    from triggerflow.core.codec.classes import ClassTable

INT_BITS: Final = 4096
CONTAINERS: Final = frozenset([dict, list, tuple])
_EXPECTED: Final = (
    "None, bool, int, float, str, bytes, list, tuple, dict, datetime, date, timedelta, "
    "Decimal, UUID, CID or a registered attrs class"
)
_REMEDIES: Final[dict[str, str]] = {
    "set": "their order differs from process to process: sort it into a list",
    "frozenset": "their order differs from process to process: sort it into a list",
    "bytearray": "turn it into bytes",
    "memoryview": "turn it into bytes",
    "range": "turn it into a list",
    "map": "turn it into a list",
    "complex": "turn it into a list of two floats",
    "Fraction": "turn it into a list of two integers, or a Decimal",
    "time": "write it as text, value.isoformat()",
}


class Lowering:
    """
    One walk over one value that isn't plain: into cbor2's terms, or to a refusal.

    `has_instances` tells afterwards whether instances of registered classes were met.
    """

    __slots__ = ("classes", "has_instances", "limits", "room")

    def __init__(self, classes: ClassTable, limits: Limits) -> None:
        self.classes, self.limits = classes, limits
        self.room = limits.size
        self.has_instances = False

    def take(self, size: int, found: str = "") -> None:
        """Count bytes down, so that a value that shares its parts can't grow without bound."""
        self.room -= size
        if self.room < 0:
            raise too_large(self.limits, found if size > self.limits.size else "")

    def lower(self, value: Any, depth: int) -> Any:
        """
        Return the value in cbor2's terms: lists for tuples, tags for what CBOR lacks.

        Raises:
            Refusal: a part is outside the closed set or the limits.
        """
        kind = type(value)
        if kind is str:
            self.take(len(value) + 1, f"a text of {len(value):,} characters")
            if not value.isascii() and (refusal := not_utf8(value)) is not None:
                raise refusal
            return value
        if kind is bytes:
            self.take(len(value) + 1, f"{len(value):,} bytes")
            return value
        if kind in CONTAINERS:
            if depth == 0:
                raise too_deep(self.limits)
            self.take(len(value) + 1)
            if kind is dict:
                return self.fields(value, depth - 1)
            items = []
            for index, item in enumerate(value):
                try:
                    items.append(self.lower(item, depth - 1))
                except Refusal as refusal:
                    refusal.steps.append(index)
                    raise
            return items
        if kind is int:
            if value.bit_length() > INT_BITS:
                raise Refusal(
                    f"an integer of {value.bit_length():,} bits",
                    f"at most {INT_BITS:,} bits",
                    "write it as bytes or text",
                )
            return value
        if value is None or kind is bool or kind is float:
            return value
        if kind in OWN:
            return own_form(value)
        return self.instance(value, depth)

    def fields(self, value: dict[Any, Any], depth: int) -> dict[str, Any]:
        """Lower the items of a dict, or the fields of an instance."""
        lowered: dict[str, Any] = {}
        for key, item in value.items():
            if type(key) is not str:
                raise wrong_key(key)
            if not key.isascii() and (refusal := not_utf8(key)) is not None:
                refusal.found += " of a key"
                raise refusal
            self.take(len(key))
            try:
                lowered[key] = self.lower(item, depth)
            except Refusal as refusal:
                refusal.steps.append(key)
                raise
        return lowered

    def instance(self, value: Any, depth: int) -> CBORTag:
        """Lower an instance of a registered class."""
        name = self.classes.name(type(value))
        if name is None:
            raise _foreign(value)
        if depth == 0:
            raise too_deep(self.limits)
        self.has_instances = True
        self.take(len(name) + 4)
        fields: dict[str, Any] = {}
        for field in self.classes.shape(type(value)):
            try:
                item = getattr(value, field.name)
                if field.out is not None:
                    item = field.out(item)
                fields[field.name] = item
            except AttributeError:
                continue  # a field without default and init, not set yet
        return CBORTag(27, [name, self.fields(fields, depth - 1)])


def _foreign(value: Any) -> Refusal:
    """Word the refusal of a value of no known type."""
    kind = type(value)
    name = f"{kind.__module__}.{kind.__qualname__}"
    if isinstance(value, Enum):
        return Refusal(f"the enum member {name}.{value.name}", _EXPECTED, "pass its .value")
    if attrs.has(kind):
        return Refusal(
            f"an instance of {name}", _EXPECTED, "register the class with app.register"
        )
    if dataclasses.is_dataclass(kind):
        return Refusal(
            f"an instance of the dataclass {name}",
            _EXPECTED,
            "pass dataclasses.asdict(value), or make it an attrs class and register it",
        )
    if callable(value):
        return Refusal(f"a {kind.__name__}", _EXPECTED, "pass its name, or call it first")
    if isinstance(value, GeneratorType):
        return Refusal("a generator", _EXPECTED, "turn it into a list")
    if isinstance(value, BaseException):
        return Refusal(f"the exception {name}", _EXPECTED, "pass its text, or raise it")
    for base in (datetime, date, timedelta, Decimal, UUID, CID):
        if isinstance(value, base):
            return Refusal(
                f"{name}, a subclass of {base.__name__}",
                _EXPECTED,
                f"turn it into a plain {base.__name__}",
            )
    return wrong_type(value, _EXPECTED, _REMEDIES)


def as_it_is(value: Any) -> Any:
    """The value itself."""
    return value


def untupled(value: Any) -> Any:
    """The same with lists for tuples; libipld knows no tuples."""
    kind = type(value)
    if kind is dict:
        return {key: untupled(item) for key, item in value.items()}
    if kind is list or kind is tuple:
        return [untupled(item) for item in value]
    return value
