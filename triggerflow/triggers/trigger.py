"""Triggers: what an activity leads to, and the CID that names exactly this.

A trigger is content-addressed like an activity. `Trigger.spec` is the document with the fields
that change its meaning, in normal form, and ``trigger_cid`` is the CID of that document: the
pair ``(activity_cid, trigger_cid)`` fires once for ever, so an edited trigger is a new one.
A field that isn't used is left out of the spec, so that fields to come move no CID.

The name is part of the spec, since a new spec supersedes the old one of its name. Without it
comes ``meaning_cid``: two triggers that differ in nothing but the name would start everything
twice, which nobody wants, so the index refuses them. Who does want it gives one another
``version``.

Code has no CID: a guard stands in the spec as ``name@version``.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from functools import cached_property
from typing import Any, Final

import attrs

from triggerflow.core.activity import MOST_CHAIN
from triggerflow.core.admission import Control
from triggerflow.core.codec import cid_of
from triggerflow.core.retry import RetryPolicy
from triggerflow.errors import DefinitionError, EncodingRefused, PatternError
from triggerflow.triggers.actions import (
    SignalTo,
    Target,
    compile_cancel,
    compile_signal,
    flow_name,
)
from triggerflow.triggers.cancel_on import CancelOn, compile_cancel_on
from triggerflow.triggers.dedup import Dedup, compile_dedup
from triggerflow.triggers.delivery import Delivery, Position
from triggerflow.triggers.guard import (
    Guard,
    GuardFn,
    check_name,
    check_version,
    guard_from_key,
    make_guard,
)
from triggerflow.triggers.mapping import (
    Pick,
    Template,
    compile_picks,
    compile_template,
    picks_source,
)
from triggerflow.triggers.pattern import Pattern, compile_pattern
from triggerflow.triggers.scope import Scope, compile_scope

EVERY_TYPE: Final = "*"
# Far below what a document may have.
_SURELY_SMALL: Final = 10_000
_SURELY_SHALLOW: Final = 60
# What a trigger does; it has one of these.
ACTIONS: Final = ("start", "signal", "cancel")
# The fields of a spec, and of a trigger in a file.
FIELDS: Final = (
    "name",
    "version",
    "on",
    "match",
    "actors",
    "namespace",
    "max_depth",
    "guard",
    "start",
    "key",
    "input",
    "signal",
    "cancel",
    "dedup",
    "control",
    "cancel_on",
)


@attrs.frozen
class Trigger:
    """One trigger, checked and in normal form; `define_trigger` makes it.

    Attributes:
        name: unique within an app.
        on: the activity types it listens to, sorted; ``com.github.*`` stands for all that
            begin so, ``("*",)`` for every type.
        match: the pattern that the document must match, or None.
        actors: the scope in which every actor must be, or None.
        guard: the last condition, in code, or None.
        start: the name of the flow it starts, or None.
        version: of the trigger itself: another version is another trigger.
        signal: the signal that it sends instead, or None.
        cancel: the instance that it cancels instead, or None.
        input: how the flow's input is made; None for the whole document.
        key: what makes the business key of the started instance; empty for none.
        dedup: when two activities count as one, or None.
        namespace: only activities of this namespace meet it, and what it starts is in it.
        max_depth: how many emitted activities may have led to the activity; None for as many
            as there can be.
        control: how often, how many at once and in which order it starts flows, or None.
        cancel_on: later activities that cancel what it started.
        delivery: how it is dispatched; no part of the spec.
        start_at: where in history it begins, None for now; no part of the spec either.
    """

    name: str
    on: tuple[str, ...]
    match: Pattern | None
    actors: Scope | None
    guard: Guard | None
    start: str | None
    version: int = 1
    signal: SignalTo | None = None
    cancel: Target | None = None
    input: Template | None = None
    key: tuple[Pick, ...] = ()
    dedup: Dedup | None = None
    namespace: str = ""
    max_depth: int | None = None
    control: Control | None = None
    cancel_on: tuple[CancelOn, ...] = ()

    @property
    def action(self) -> str:
        """What it does: ``start``, ``signal`` or ``cancel``."""
        if self.signal is not None:
            return "signal"
        return "start" if self.cancel is None else "cancel"

    @property
    def flow(self) -> str:
        """The flow whose instance it starts, signals or cancels."""
        if self.signal is not None:
            return self.signal.target.flow
        return self.cancel.flow if self.cancel is not None else self.start or ""

    delivery: Delivery = attrs.field(factory=Delivery)
    start_at: Position | None = None

    def spec(self) -> dict[str, Any]:
        """Return the fields that change what the trigger means, in normal form."""
        spec: dict[str, Any] = {
            "name": self.name,
            "on": list(self.on),
            "version": self.version,
        }
        if self.start is not None:
            spec["start"] = self.start
        if self.signal is not None:
            spec["signal"] = self.signal.spec()
        if self.cancel is not None:
            spec["cancel"] = self.cancel.spec()
        if self.match is not None:
            spec["match"] = self.match.source
        if self.actors is not None:
            source = self.actors.source
            spec["actors"] = list(source) if isinstance(source, tuple) else source
        if self.guard is not None:
            spec["guard"] = self.guard.key
        if self.input is not None:
            spec["input"] = self.input.source
        if self.key:
            spec["key"] = picks_source(self.key)
        if self.dedup is not None:
            spec["dedup"] = self.dedup.spec()
        if self.namespace:
            spec["namespace"] = self.namespace
        if self.max_depth is not None:
            spec["max_depth"] = self.max_depth
        if self.control is not None:
            spec["control"] = self.control.spec()
        if self.cancel_on:
            spec["cancel_on"] = [part.spec() for part in self.cancel_on]
        return spec

    @cached_property
    def trigger_cid(self) -> str:
        """The CID of `spec`: half of the pair that fires once."""
        return cid_of(self.spec())

    @cached_property
    def meaning_cid(self) -> str:
        """The CID of `spec` without the name: equal for two triggers that do the same."""
        spec = self.spec()
        del spec["name"]
        return cid_of(spec)

    @classmethod
    def from_spec(cls, spec: object, guard_fn: GuardFn | None = None) -> Trigger:
        """Rebuild a trigger from a stored spec; its ``trigger_cid`` is that of the spec.

        Args:
            spec: what `spec` returned, after its trip through the store.
            guard_fn: the guard's code, where this process knows it.

        Raises:
            DefinitionError: the spec has fields that this version of triggerflow doesn't
                know, lacks one, or holds what `define_trigger` refuses.
            PatternError: its pattern breaks a rule.
        """
        if not isinstance(spec, dict):
            raise DefinitionError("trigger spec", f"found {type(spec).__name__}", "give a dict")
        what = f"trigger spec {spec.get('name')!r:.80}"
        if unknown := sorted(str(field) for field in spec.keys() - set(FIELDS)):
            raise DefinitionError(
                what,
                f"unknown fields: {', '.join(unknown)}",
                "it may come from a newer triggerflow: update this one",
            )
        missing = [field for field in ("name", "on", "version") if field not in spec]
        if not any(action in spec for action in ACTIONS):
            missing.append("start")
        if missing:
            raise DefinitionError(what, f"missing fields: {', '.join(missing)}", "")
        parts = dict(spec)
        if spec.get("guard") is not None:
            parts["guard"] = guard_from_key(spec["guard"], guard_fn, what)
        elif guard_fn is not None:
            raise DefinitionError(what, "guard code was given, but it has no guard", "")
        return define_trigger(parts.pop("name"), **parts)


def define_trigger(
    name: str,
    *,
    on: object,
    match: object = None,
    actors: object = None,
    guard: Guard | GuardFn | str | None = None,
    start: object = None,
    version: int = 1,
    signal: object = None,
    cancel: object = None,
    input: object = None,
    key: object = None,
    dedup: object = None,
    namespace: str = "",
    max_depth: int | None = None,
    control: Control | Mapping[str, Any] | None = None,
    cancel_on: object = None,
    retry: RetryPolicy | Mapping[str, Any] | None = None,
    dead_letter: object = None,
    start_at: object = "latest",
) -> Trigger:
    """Check the parts of a trigger and put it together.

    Args:
        name: printable text, unique within the app.
        on: one activity type or a list of them, exactly as activities spell them; a ``*`` at
            the end takes all that begin so, ``"*"`` every type.
        match: an EventBridge event pattern, or one that is compiled already.
        actors: a glob, a list of globs, or a dict (see `triggerflow.triggers.scope`).
        guard: a plain function of the document, known by its ``__name__`` as version 1, a
            `Guard`, or ``"name@version"`` of one that the app knows.
        start: a flow, or a flow's name: what it starts.
        version: raise it to have an otherwise equal trigger count as a new one.
        signal: instead of ``start``: ``{"flow": ..., "key": path, "name": ..., "payload":
            mapping}``, a signal to the live instance of the flow that holds the key.
        cancel: instead of ``start``: ``{"flow": ..., "key": path}``.
        input: what the flow gets: a path, or a payload template (see
            `triggerflow.triggers.mapping`); the whole document by default.
        key: a path, or several: the business key of the started instance.
        dedup: a path, several, or ``{"key": ..., "window": ..., "across_versions": ...}``.
        namespace: only activities that were appended in it meet the trigger.
        max_depth: how many emitted activities may have led to the activity: 0 to take only
            those from outside.
        control: a `Control`, or a dict of its parts.
        retry: how often a guard that raises or hangs is asked again: a `RetryPolicy`, or a
            dict of its numbers.
        dead_letter: a flow, or a flow's name, that starts once that has failed for good.
        start_at: ``"latest"``, ``"horizon"``, a sequence number or an aware datetime: from
            where on a trigger of a name that the store hasn't seen yet fires.

    Raises:
        DefinitionError: a part can't work; the error names the trigger and the part.
        PatternError: the pattern breaks a rule; the error has the path inside it.
    """
    what = f"trigger {name!r:.200}"
    check_name(name, what)
    check_version(version, what)
    parts = {"start": start, "signal": signal, "cancel": cancel}
    beside = {"input": input, "key": key, "control": control or None, "cancel_on": cancel_on}
    _check_action(what, **parts, **beside)
    trigger = Trigger(
        name=name,
        on=_types(on, what),
        match=_pattern(match, what),
        actors=_scope(actors, what),
        guard=make_guard(guard, what),
        start=flow_name(start, f"{what}, start") if signal is None and cancel is None else None,
        version=version,
        signal=None if signal is None else compile_signal(signal, f"{what}, signal"),
        cancel=None if cancel is None else compile_cancel(cancel, f"{what}, cancel"),
        input=None if input is None else compile_template(input, f"{what}, input"),
        key=() if key is None else compile_picks(key, f"{what}, key"),
        dedup=None if dedup is None else compile_dedup(dedup, f"{what}, dedup"),
        namespace=_namespace(namespace, what),
        max_depth=_depth(max_depth, what),
        control=_control(control, what),
        cancel_on=compile_cancel_on(cancel_on, f"{what}, cancel_on"),
        delivery=Delivery.checked(
            retry,
            None if dead_letter is None else flow_name(dead_letter, f"{what}, dead_letter"),
            what,
        ),
        start_at=Position.of(start_at, f"{what}, start_at"),
    )
    if not _surely_fits(trigger):
        try:
            # now, so that a spec too large or too deep fails here and not at the first append
            _ = trigger.trigger_cid
        except EncodingRefused as refused:
            raise DefinitionError(what, f"its spec can't be encoded: {refused}", "") from None
    return trigger


def covers(on: tuple[str, ...], types: tuple[str, ...]) -> bool:
    """Tell whether one of an activity's types is among those that a trigger is on."""
    return any(
        name in types
        or (name.endswith("*") and any(each.startswith(name[:-1]) for each in types))
        for name in on
    )


def _surely_fits(trigger: Trigger) -> bool:
    """Tell, without doing it, that a spec can be encoded: small, shallow, and plain text."""
    text = "" if trigger.match is None else trigger.match.text
    return (
        trigger.start is not None
        and trigger.actors is None
        and trigger.input is None
        and not trigger.key
        and trigger.dedup is None
        and trigger.control is None
        and not trigger.cancel_on
        and len(text) + len(trigger.name) + len(trigger.start) < _SURELY_SMALL
        # no deeper than what it opens
        and text.count("{") + text.count("[") < _SURELY_SHALLOW
        and len(trigger.on) < _SURELY_SHALLOW
        and all(len(name) < _SURELY_SMALL and name.isascii() for name in trigger.on)
    )


# --- the parts ---------------------------------------------------------------------------


def _check_action(what: str, **parts: object) -> None:
    given = [action for action in ACTIONS if parts[action] is not None]
    if len(given) > 1:
        raise DefinitionError(
            what, f"has {' and '.join(given)}, expected one of them", "write a trigger for each"
        )
    if given in (["signal"], ["cancel"]):
        inside = f"put the key and the payload into {given[0]}="
        out = "leave it out"
        remedies = {"input": inside, "key": inside, "control": out, "cancel_on": out}
        for part, remedy in remedies.items():
            if parts[part] is not None:
                problem = f"has {part}= beside {given[0]}=, which starts nothing"
                raise DefinitionError(what, problem, remedy)


def _types(on: object, what: str) -> tuple[str, ...]:
    if type(on) is str and on and "*" not in on:
        return (sys.intern(on),)  # nearly always; one string for all that come from a store
    types = [on] if isinstance(on, str) else on
    if not isinstance(types, list | tuple) or not types:
        raise DefinitionError(
            what,
            f"on={on!r:.80} is not an activity type or a non-empty list of them",
            'write on="Follow", on=["Follow", "Like"] or on="*"',
        )
    for name in types:
        if not isinstance(name, str) or not name:
            raise DefinitionError(what, f"on has {name!r:.80}, expected a non-empty string", "")
        if "*" in name[:-1]:
            raise DefinitionError(
                what,
                f"on has {name!r:.80}, and a `*` stands at the end of a type only",
                'write on="com.github.*", or list the types',
            )
    found = sorted(set(types))
    for name in found:
        covering = [each for each in found if each.endswith("*") and each != name]
        if any(name.startswith(each[:-1]) for each in covering):
            raise DefinitionError(
                what,
                f"on has {name!r:.80} beside {covering[0]!r:.80}, which covers it",
                'write on="*"' if covering[0] == EVERY_TYPE else "leave it out",
            )
    return tuple(found)


def _pattern(match: object, what: str) -> Pattern | None:
    if match is None or isinstance(match, Pattern):
        return match
    try:
        return compile_pattern(match)
    except PatternError as error:
        # the path stays what it is, relative to the pattern; the words say whose it is
        problem = f"{error.problem} (in {what})"
        raise PatternError(error.path, problem, error.remedy) from None


def _scope(actors: object, what: str) -> Scope | None:
    if actors is None or isinstance(actors, Scope):
        return actors
    try:
        return compile_scope(actors)
    except DefinitionError as error:
        raise DefinitionError(f"{what}, {error.what}", error.problem, error.remedy) from None


def _namespace(namespace: object, what: str) -> str:
    if namespace != "":
        check_name(namespace, f"{what}, namespace={namespace!r:.80}")
    return str(namespace)


def _control(control: object, what: str) -> Control | None:
    if control is None:
        return None
    try:
        # One that controls nothing is none, so that it changes no CID.
        return Control.from_spec(control) or None
    except DefinitionError as error:
        raise DefinitionError(f"{what}, {error.what}", error.problem, error.remedy) from None


def _depth(depth: object, what: str) -> int | None:
    if depth is None:
        return None
    if type(depth) is not int or not 0 <= depth <= MOST_CHAIN:
        raise DefinitionError(
            what,
            f"max_depth is {depth!r:.80}, expected a whole number from 0 to {MOST_CHAIN}",
            f"no chain of emitted activities gets longer than {MOST_CHAIN}",
        )
    return depth
