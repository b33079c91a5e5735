"""
Registered attrs classes: what they are called in a log, and how their instances come back.

Fields travel as log values, whatever their annotations say, and nothing is coerced: a field
declared ``int`` that holds text comes back as that text. Annotations are read for what CBOR
has no form for, and puts back tuples and enum members. A converter library does more here
than a log may bear: it iterates a text where the class says ``list[str]``.
"""

from __future__ import annotations

import types
import typing
from enum import Enum
from typing import TYPE_CHECKING, Any

import attrs

from triggerflow.errors import DecodingRefused, DefinitionError

if TYPE_CHECKING:
    from collections.abc import Callable

    Fit = Callable[[Any], Any]


@attrs.frozen
class FieldShape:
    """
    One field: its names, and what to do with its value on the way out and back.

    `out` and `back` are None for most fields: the value travels as it is.
    """

    name: str
    alias: str
    init: bool
    required: bool
    out: Fit | None
    back: Fit | None


class ClassTable:
    """
    The attrs classes that an app registered, by type and by qualified name.

    Annotations are resolved at the first use of a class, when all the classes that they
    mention exist. One that can't be resolved (imported for type checkers only) is ignored.
    """

    __slots__ = ("_names", "_shapes", "_types")

    def __init__(self) -> None:
        self._types: dict[str, type] = {}
        self._names: dict[type, str] = {}
        self._shapes: dict[type, tuple[FieldShape, ...]] = {}

    def add(self, cls: type) -> None:
        """
        Register a class; registering it again is harmless.

        Raises:
            DefinitionError: it isn't an attrs class, or another one has its name.
        """
        if not isinstance(cls, type) or not attrs.has(cls):
            raise DefinitionError(
                getattr(cls, "__qualname__", repr(cls)),
                "only attrs classes can be registered for log values",
                "decorate it with attrs.frozen or attrs.define",
            )
        name = f"{cls.__module__}:{cls.__qualname__}"
        if self._types.setdefault(name, cls) is not cls:
            raise DefinitionError(
                name,
                "another class with this qualified name is registered",
                "a log names a class by it: rename one of the two",
            )
        self._names[cls] = name
        self._shapes.clear()  # annotations may mention the new class

    def name(self, cls: type) -> str | None:
        """Return the name of a registered class in a log, or None."""
        return self._names.get(cls)

    def shape(self, cls: type) -> tuple[FieldShape, ...]:
        """Return the fields of a registered class."""
        shape = self._shapes.get(cls)
        if shape is None:
            known = {other.__name__: other for other in self._names}
            hints = _hints(cls, known)
            shape = self._shapes[cls] = tuple(
                FieldShape(
                    field.name,
                    field.alias or field.name,
                    field.init,
                    field.init and field.default is attrs.NOTHING,
                    _fit(hints.get(field.name), back=False),
                    _fit(hints.get(field.name), back=True),
                )
                for field in attrs.fields(cls)
            )
        return shape

    def build(self, name: object, fields: object) -> Any:
        """
        Make an instance from what a log says; a field that it lacks takes its default.

        Raises:
            DecodingRefused: the class is unknown, the fields don't fit, or the class's own
                code (validators, converters) refuses them.
        """
        cls = self._types.get(name) if isinstance(name, str) else None
        if cls is None:
            raise DecodingRefused(
                f"class {name!r:.100}", "not registered here", "register it with app.register"
            )
        if type(fields) is not dict:
            raise DecodingRefused(f"class {name!r}", "its fields are not a map")
        shape = self.shape(cls)
        unknown = fields.keys() - {field.name for field in shape}
        if unknown:
            raise DecodingRefused(
                f"class {name!r}",
                f"fields {sorted(map(str, unknown))} are recorded, but the class has none such",
                "keep the field, or migrate the log",
            )
        try:
            return _build(cls, shape, fields)
        except DecodingRefused:
            raise
        except Exception as error:  # the class's own code may raise anything
            raise DecodingRefused(
                f"class {name!r}", f"{type(error).__name__}: {error}"
            ) from error


def _build(cls: type, shape: tuple[FieldShape, ...], fields: dict[str, Any]) -> Any:
    given: dict[str, Any] = {}
    later: dict[str, Any] = {}
    for field in shape:
        if field.name not in fields:
            if field.required:
                raise DecodingRefused(
                    f"class {cls.__qualname__!r}",
                    f"field {field.name!r} is not recorded and has no default",
                    "give the new field a default",
                )
            continue
        value = fields[field.name]
        if field.back is not None:
            value = field.back(value)
        if field.init:
            given[field.alias] = value
        else:
            later[field.name] = value
    instance = cls(**given)
    for name, value in later.items():
        object.__setattr__(instance, name, value)  # frozen classes too
    return instance


def _hints(cls: type, known: dict[str, type]) -> dict[str, Any]:
    """Resolve the annotations of a class; those that can't be are left out, one by one."""
    hints: dict[str, Any] = {}
    for field in attrs.fields(cls):
        if not isinstance(field.type, str):
            hints[field.name] = field.type
            continue
        # get_type_hints takes a whole class or fails, so each field gets its own.
        single = types.new_class("single")
        single.__module__ = _owner(cls, field.name).__module__
        single.__annotations__ = {field.name: field.type}
        try:
            hints.update(typing.get_type_hints(single, localns=known))
        except Exception:  # noqa: BLE001, S112 - an annotation may hold any expression
            continue
    return hints


def _owner(cls: type, name: str) -> type:
    """Return the class that declares a field: its module is where names are looked up."""
    for base in cls.__mro__:
        if attrs.has(base) and any(
            field.name == name and not field.inherited for field in attrs.fields(base)
        ):
            return base
    return cls


def _fit(hint: Any, *, back: bool) -> Fit | None:
    """
    Compile what an annotation asks for, or None where the value travels as it is.

    On the way out members of declared enums become their values; on the way back those
    become members, and lists the declared tuples.
    """
    while isinstance(hint, typing.NewType):
        hint = hint.__supertype__
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Annotated, typing.Final, typing.Required, typing.NotRequired):
        return _fit(args[0], back=back)
    if origin in (typing.Union, types.UnionType):
        return _fit_union(args, back=back)
    if isinstance(hint, type) and issubclass(hint, Enum):
        # A value that is no member is refused when the value is written: it is read then.
        return hint if back else _valued(hint)
    if hint is tuple or origin is tuple:
        return _fit_tuple(args, back=back)
    if origin is list and (item := _fit(args[0], back=back)) is not None:
        return lambda value: [item(x) for x in value] if type(value) is list else value
    if origin is dict and (entry := _fit(args[1], back=back)) is not None:
        return lambda value: (
            {key: entry(x) for key, x in value.items()} if type(value) is dict else value
        )
    return None


def _valued(enum: type[Enum]) -> Fit:
    return lambda value: value.value if type(value) is enum else value


def _fit_tuple(args: tuple[Any, ...], *, back: bool) -> Fit | None:
    if len(args) == 2 and args[1] is Ellipsis:
        item = _fit(args[0], back=back)
        if item is None:
            return _tupled if back else None
        return lambda value: (
            tuple([item(x) for x in value]) if type(value) in (list, tuple) else value
        )
    items = [_fit(arg, back=back) for arg in args]
    if not any(items):
        return _tupled if back else None

    def fitted(value: Any) -> Any:
        if type(value) not in (list, tuple) or len(value) != len(items):
            return value
        return tuple(
            [x if item is None else item(x) for item, x in zip(items, value, strict=True)]
        )

    return fitted


def _tupled(value: Any) -> Any:
    return tuple(value) if type(value) is list else value


def _fit_union(args: tuple[Any, ...], *, back: bool) -> Fit | None:
    fits: list[Fit] = []
    as_is: list[Any] = []
    for arg in args:
        fit = _fit(arg, back=back)
        if fit is None:
            as_is.append(typing.get_origin(arg) or arg)
        else:
            fits.append(fit)
    if not fits:
        return None

    def fitted(value: Any) -> Any:
        # ``Color | str``: a member and its value can't be told apart on the way back; the
        # text wins, and a flow sees the same live and in replay.
        if type(value) in as_is:
            return value
        for fit in fits:
            try:
                changed = fit(value)
            except ValueError:  # not a member of this enum
                continue
            if changed is not value:
                return changed
        return value

    return fitted
