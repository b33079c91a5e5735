"""Triggers: which activities start which flow, and the CID that names exactly this.

A trigger is content-addressed like an activity. `Trigger.spec` is the document with the fields
that change its meaning, in normal form, and ``trigger_cid`` is the CID of that document: the
pair ``(activity_cid, trigger_cid)`` fires once for ever, so an edited trigger is a new one.
A field that isn't used is left out of the spec, so that fields to come move no CID.

The name is part of the spec, since a new spec supersedes the old one of its name. Without it
comes ``meaning_cid``: two triggers that differ in nothing but the name would start everything
twice, which nobody wants, so the index refuses them. Who does want it gives one another
``version``.

Code has no CID. A guard is known by ``name@version``: whoever changes what it decides gives it
a new version.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import cached_property
from typing import Any, TypeAlias

import attrs

from triggerflow.core.codec import cid_of
from triggerflow.errors import DefinitionError, EncodingRefused, PatternError
from triggerflow.triggers.cancel_on import CancelOn, compile_cancel_on
from triggerflow.triggers.pattern import Pattern, compile_pattern
from triggerflow.triggers.scope import Scope, compile_scope

GuardFn: TypeAlias = Callable[[dict[str, Any]], object]

EVERY_TYPE = "*"
_MAX_VERSION = 2**63 - 1
_SPEC_FIELDS = frozenset(
    {"name", "on", "match", "actors", "guard", "start", "version", "cancel_on"}
)


@attrs.frozen
class Guard:
    """A last condition in code: called with the activity's document, its truth decides.

    It promises nothing about the function: the pipeline runs it, with a time limit, and
    records what it raises.

    Args:
        name: what the spec and the audit call it.
        version: raise it whenever the function decides differently.
        fn: None when only the name is known, as after `Trigger.from_spec`.

    Raises:
        DefinitionError: the name or version can't be used, or ``fn`` can't be called plainly
            with one document.
    """

    name: str
    version: int = 1
    fn: GuardFn | None = attrs.field(default=None, eq=False)

    def __attrs_post_init__(self) -> None:
        what = f"guard {self.name!r}"
        _check_name(self.name, what)
        if "@" in self.name:
            raise DefinitionError(what, "a guard's name has no `@`", "")
        _check_version(self.version, what)
        if self.fn is not None:
            _check_guard_fn(self.fn, what)

    @property
    def key(self) -> str:
        """The guard as a spec names it: ``name@version``."""
        return f"{self.name}@{self.version}"


@attrs.frozen
class Trigger:
    """One trigger, checked and in normal form; `define_trigger` makes it.

    Attributes:
        name: unique within an app.
        on: the activity types it listens to, sorted, or ``("*",)`` for every type.
        match: the pattern that the document must match, or None.
        actors: the scope in which every actor must be, or None.
        guard: the last condition, in code, or None.
        start: the name of the flow it starts.
        version: of the trigger itself: another version is another trigger.
        cancel_on: later activities that cancel what it started.
    """

    name: str
    on: tuple[str, ...]
    match: Pattern | None
    actors: Scope | None
    guard: Guard | None
    start: str
    version: int = 1
    cancel_on: tuple[CancelOn, ...] = ()

    def spec(self) -> dict[str, Any]:
        """Return the fields that change what the trigger means, in normal form."""
        spec: dict[str, Any] = {
            "name": self.name,
            "on": list(self.on),
            "start": self.start,
            "version": self.version,
        }
        if self.match is not None:
            spec["match"] = self.match.source
        if self.actors is not None:
            spec["actors"] = list(self.actors.source)
        if self.guard is not None:
            spec["guard"] = self.guard.key
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
        if unknown := sorted(str(field) for field in spec.keys() - _SPEC_FIELDS):
            raise DefinitionError(
                what,
                f"unknown fields: {', '.join(unknown)}",
                "it may come from a newer triggerflow: update this one",
            )
        if missing := [
            field for field in ("name", "on", "start", "version") if field not in spec
        ]:
            raise DefinitionError(what, f"missing fields: {', '.join(missing)}", "")
        guard = spec.get("guard")
        if guard is not None:
            guard = _guard_from_key(guard, guard_fn, what)
        elif guard_fn is not None:
            raise DefinitionError(what, "guard code was given, but it has no guard", "")
        return define_trigger(
            spec["name"],
            on=spec["on"],
            match=spec.get("match"),
            actors=spec.get("actors"),
            guard=guard,
            start=spec["start"],
            version=spec["version"],
            cancel_on=spec.get("cancel_on"),
        )


def define_trigger(
    name: str,
    *,
    on: object,
    match: object = None,
    actors: object = None,
    guard: Guard | GuardFn | None = None,
    start: object,
    version: int = 1,
    cancel_on: object = None,
) -> Trigger:
    """Check the parts of a trigger and put it together.

    Args:
        name: printable text, unique within the app.
        on: one activity type or a list of them, exactly as activities spell them, or ``"*"``.
        match: an EventBridge event pattern, or one that is compiled already.
        actors: a glob or a list of globs (see `triggerflow.triggers.scope`).
        guard: a plain function of the document, known by its ``__name__`` as version 1, or a
            `Guard`.
        start: a flow, or a flow's name.
        version: raise it to have an otherwise equal trigger count as a new one.
        cancel_on: which later activities cancel what it started: a part, or a list of them
            (see `triggerflow.triggers.cancel_on`).

    Raises:
        DefinitionError: a part can't work; the error names the trigger and the part.
        PatternError: the pattern breaks a rule; the error has the path inside it.
    """
    what = f"trigger {name!r:.200}"
    _check_name(name, what)
    _check_version(version, what)
    trigger = Trigger(
        name=name,
        on=_types(on, what),
        match=_pattern(match, what),
        actors=_scope(actors, what),
        guard=_guard(guard, what),
        start=_flow_name(start, what),
        version=version,
        cancel_on=()
        if cancel_on is None
        else compile_cancel_on(cancel_on, f"{what}, cancel_on"),
    )
    try:
        # now, so that a spec too large or too deep fails here and not at the first append
        _ = trigger.trigger_cid
    except EncodingRefused as refused:
        raise DefinitionError(what, f"its spec can't be encoded: {refused}", "") from None
    return trigger


# --- the parts ---------------------------------------------------------------------------


def _check_name(name: object, what: str) -> None:
    if not isinstance(name, str) or not name.strip():
        raise DefinitionError(what, "a name is a non-empty string", "")
    if not name.isprintable() or name != name.strip():
        raise DefinitionError(
            what, "a name has no control characters and no spaces at its ends", ""
        )


def _check_version(version: object, what: str) -> None:
    if type(version) is not int or not 1 <= version <= _MAX_VERSION:
        raise DefinitionError(what, "its version is not an integer from 1 up", "")


def _types(on: object, what: str) -> tuple[str, ...]:
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
        if name == EVERY_TYPE:
            if len(types) > 1:
                raise DefinitionError(
                    what, 'on has "*" beside other types, which it covers', 'write on="*"'
                )
        elif "*" in name:
            raise DefinitionError(
                what,
                f"on has {name!r:.80}, and a `*` inside a type is not supported yet",
                'list the types, or write on="*" with a guard',
            )
    return tuple(sorted(set(types)))


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


def _guard(guard: object, what: str) -> Guard | None:
    if guard is None or isinstance(guard, Guard):
        return guard
    name = getattr(guard, "__name__", None)
    if not callable(guard) or inspect.isclass(guard) or not isinstance(name, str):
        raise DefinitionError(
            what,
            f"its guard is {_words(guard)}, which has no plain name",
            "give a def, or Guard(name, version, fn)",
        )
    if name == "<lambda>":
        raise DefinitionError(
            what,
            "its guard is a lambda, which has no name to be known by",
            "give a def, or Guard(name, version, fn)",
        )
    try:
        return Guard(name, 1, guard)
    except DefinitionError as error:
        raise DefinitionError(f"{what}, {error.what}", error.problem, error.remedy) from None


def _guard_from_key(key: object, fn: GuardFn | None, what: str) -> Guard:
    name, mark, version = key.rpartition("@") if isinstance(key, str) else ("", "", "")
    # isdecimal takes other scripts' digits and int() leading zeros: two texts, one guard
    if not mark or not version.isascii() or not version.isdecimal() or version[0] == "0":
        raise DefinitionError(what, f"its guard {key!r:.80} is not name@version", "")
    if len(version) > len(str(_MAX_VERSION)):
        raise DefinitionError(what, f"its guard {key!r:.80} has no sensible version", "")
    return Guard(name, int(version), fn)


def _check_guard_fn(fn: object, what: str) -> None:
    if not callable(fn):
        raise DefinitionError(what, f"found {_words(fn)}, expected a function", "")
    # an object's __call__ decides for the object
    for code in (fn, type(fn).__call__):
        if inspect.iscoroutinefunction(code) or inspect.isasyncgenfunction(code):
            raise DefinitionError(
                what, "it is a coroutine function", "a guard decides at once: write a plain def"
            )
        if inspect.isgeneratorfunction(code):
            raise DefinitionError(
                what,
                "it is a generator function, whose result is always true",
                "a guard decides at once: return, don't yield",
            )
    try:
        inspect.signature(fn).bind({})
    except TypeError:
        raise DefinitionError(
            what, "it can't be called with one argument, the activity's document", ""
        ) from None
    except ValueError:
        pass  # a builtin that doesn't tell its signature


def _flow_name(start: object, what: str) -> str:
    name = start if isinstance(start, str) else getattr(start, "name", None)
    if not isinstance(name, str):
        raise DefinitionError(
            what,
            f"start is {_words(start)}, expected a flow or a flow's name",
            "decorate the function with @flow",
        )
    _check_name(name, f"{what}, start={name!r:.80}")
    return name


def _words(value: object) -> str:
    name = getattr(value, "__name__", None)
    kind = type(value).__name__
    return f"the {kind} {name!r:.80}" if isinstance(name, str) else f"a {kind}"
