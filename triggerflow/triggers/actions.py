"""What a trigger does where it isn't to start a flow: signal an instance, or cancel one.

The instance is found by its business key: the live one of the flow, in the trigger's own
namespace, that holds the key which the activity names. Where there is none, the firing says
so, and nothing is kept for later.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import attrs

from triggerflow.errors import DefinitionError
from triggerflow.triggers.guard import check_name, words
from triggerflow.triggers.mapping import (
    Pick,
    Template,
    compile_picks,
    compile_template,
    picks_source,
)

_SIGNAL: Final = ("flow", "key", "name", "payload")
_CANCEL: Final = ("flow", "key")


@attrs.frozen
class Target:
    """An instance that is there: the live one of a flow that holds a business key."""

    flow: str
    key: tuple[Pick, ...]

    def spec(self) -> dict[str, Any]:
        """As a trigger's spec has it."""
        return {"flow": self.flow, "key": picks_source(self.key)}


@attrs.frozen
class SignalTo:
    """Send it a signal.

    Attributes:
        name: the signal's name.
        payload: what it carries; None for the whole document.
    """

    target: Target
    name: str
    payload: Template | None = None

    def spec(self) -> dict[str, Any]:
        """As a trigger's spec has it."""
        found = {**self.target.spec(), "name": self.name}
        if self.payload is not None:
            found["payload"] = self.payload.source
        return found


def compile_signal(given: object, what: str) -> SignalTo:
    """Compile a trigger's ``signal=``.

    Raises:
        DefinitionError: a field is missing, unknown or can't work.
    """
    fields = _fields(given, _SIGNAL, ("flow", "key", "name"), what)
    check_name(fields["name"], f"{what}.name")
    payload = fields.get("payload")
    return SignalTo(
        _target(fields, what),
        fields["name"],
        None if payload is None else compile_template(payload, f"{what}.payload"),
    )


def compile_cancel(given: object, what: str) -> Target:
    """Compile a trigger's ``cancel=``.

    Raises:
        DefinitionError: a field is missing, unknown or can't work.
    """
    return _target(_fields(given, _CANCEL, _CANCEL, what), what)


def flow_name(flow: object, what: str) -> str:
    """The name of a flow that is given as itself or by its name.

    Raises:
        DefinitionError: it is neither.
    """
    name = flow if isinstance(flow, str) else getattr(flow, "name", None)
    if not isinstance(name, str):
        raise DefinitionError(
            what,
            f"is {words(flow)}, expected a flow or a flow's name",
            "decorate the function with @flow",
        )
    check_name(name, f"{what}={name!r:.80}")
    return name


def _target(fields: Mapping[str, Any], what: str) -> Target:
    return Target(
        flow_name(fields["flow"], f"{what}.flow"), compile_picks(fields["key"], f"{what}.key")
    )


def _fields(
    given: object, known: tuple[str, ...], needed: tuple[str, ...], what: str
) -> Mapping[str, Any]:
    remedy = f"write {{{', '.join(f'{name!r}: ...' for name in known)}}}"
    if not isinstance(given, Mapping):
        raise DefinitionError(what, f"found {type(given).__name__}, expected a dict", remedy)
    if missing := [name for name in needed if given.get(name) is None]:
        raise DefinitionError(what, f"has no {', '.join(missing)}", remedy)
    if unknown := [str(name) for name in given if name not in known]:
        raise DefinitionError(what, f"has unknown fields: {', '.join(unknown)}", remedy)
    return given
