"""What an app defines: flows, steps, triggers, guards, envelopes and classes, each once."""

from __future__ import annotations

import inspect
import logging
import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Final, ParamSpec, TypeVar, overload

import attrs

from triggerflow.core.admission import Concurrency
from triggerflow.core.codec import ValueCodec
from triggerflow.core.envelopes import ENVELOPES, Envelope
from triggerflow.core.given import OWN_CLASSES
from triggerflow.core.step import Step
from triggerflow.core.step import step as define_step
from triggerflow.errors import DefinitionError, DuplicateTrigger
from triggerflow.flows import Flow, FlowRegistry, define_flow
from triggerflow.flows.flow import Retention, Signals
from triggerflow.triggers import Guard, Trigger, define_trigger
from triggerflow.triggers.guard import GuardFn, make_guard
from triggerflow.triggers.scope import Globs, owner_ids

P = ParamSpec("P")
R = TypeVar("R")

log: Final = logging.getLogger("triggerflow")

# Warnings of the lint that were given: one flow may be registered with many apps.
_WARNED: Final[set[str]] = set()


class Definitions:
    """What an app is made of. `App` builds on it.

    Args:
        classes: attrs classes whose instances flows and steps may pass around.
        owner: see `App`.
    """

    def __init__(self, classes: Iterable[type], owner: Any) -> None:
        self.codec = ValueCodec((*OWN_CLASSES, *classes))
        self.flows = FlowRegistry()
        self._owners = _owners(owner)
        self._envelopes: dict[str, Envelope] = dict(ENVELOPES)
        self._triggers: dict[str, Trigger] = {}
        self._meanings: dict[str, str] = {}
        self._guards: dict[str, Guard] = {}
        self._steps: dict[str, Step[..., Any]] = {}

    @overload
    def flow(self, fn: Callable[..., Any], /) -> Flow: ...
    @overload
    def flow(
        self,
        *,
        name: str | None = None,
        version: int = 1,
        signals: Signals | None = None,
        retention: Retention = "app",
        concurrency: Concurrency | Mapping[str, Any] | int | None = None,
        priority: int | str = 0,
    ) -> Callable[[Callable[..., Any]], Flow]: ...
    def flow(  # type: ignore[misc]
        self,
        fn: Callable[..., Any] | None = None,
        /,
        *,
        name: str | None = None,
        version: int = 1,
        signals: Signals | None = None,
        retention: Retention = "app",
        concurrency: Concurrency | Mapping[str, Any] | int | None = None,
        priority: int | str = 0,
    ) -> Flow | Callable[[Callable[..., Any]], Flow]:
        """Decorator: register a generator function as a flow.

        Args:
            fn: the function.
            name: the flow's name; the function's by default.
            version: instances stay with the version that they started with.
            signals: the signals that it takes: names, or name -> validator.
            retention: how long an instance is kept once it has ended; None keeps it for
                ever, ``"app"`` as long as the app says.
            concurrency: how many instances are under way at once: a `Concurrency`, a dict of
                its fields, or a number.
            priority: the higher first, where several wait: a number, or a path to one in the
                input.

        Raises:
            DefinitionError: it can't be one, or its name and version are taken.
        """

        def define(each: Callable[..., Any]) -> Flow:
            made = define_flow(
                each,
                name=name,
                version=version,
                signals=signals,
                retention=retention,
                concurrency=concurrency,
                priority=priority,
            )
            self._add_flow(made)
            return made

        return define if fn is None else define(fn)

    @overload
    def step(self, fn: Callable[P, R], /) -> Step[P, R]: ...
    @overload
    def step(self, *, name: str | None = None) -> Callable[[Callable[P, R]], Step[P, R]]: ...
    def step(  # type: ignore[misc]
        self, fn: Callable[..., Any] | None = None, /, *, name: str | None = None
    ) -> Any:
        """Decorator: register a step, so that its calls can be queued.

        Args:
            fn: a plain function or a coroutine function.
            name: what workers know it by; the function's own name by default.

        Raises:
            DefinitionError: it can't be a step, or its name is taken.
        """

        def define(each: Callable[..., Any]) -> Step[..., Any]:
            made = define_step(name=name)(each)
            self._add_step(made)
            return made

        return define if fn is None else define(fn)

    @overload
    def guard(self, fn: GuardFn, /) -> Guard: ...
    @overload
    def guard(
        self, *, name: str | None = None, version: int = 1
    ) -> Callable[[GuardFn], Guard]: ...
    def guard(  # type: ignore[misc]
        self, fn: GuardFn | None = None, /, *, name: str | None = None, version: int = 1
    ) -> Guard | Callable[[GuardFn], Guard]:
        """Decorator: register a guard, so that a trigger may name it: ``"name@version"``.

        Args:
            fn: a plain function of the document.
            name: what triggers call it; the function's own name by default.
            version: raise it whenever the function decides differently.

        Raises:
            DefinitionError: it can't be a guard, or its name and version are taken.
        """

        def define(each: GuardFn) -> Guard:
            plain = make_guard(each, "app.guard") if name is None else None
            made = Guard(name or (plain.name if plain else ""), version, each)
            self._add_guard(made)
            return made

        return define if fn is None else define(fn)

    def trigger(
        self,
        name: str,
        *,
        on: object,
        start: object = None,
        match: object = None,
        actors: object = None,
        guard: Guard | GuardFn | str | None = None,
        version: int = 1,
        **more: Any,
    ) -> Trigger:
        """Register a trigger: what an activity leads to.

        Args:
            name: unique within the app; a changed trigger supersedes the old one.
            on: an activity type, several, ``"com.github.*"`` or ``"*"``.
            start: a flow, or a flow's name.
            match: an EventBridge event pattern that the document must match.
            actors: globs, all of the activity's actors must be in scope; or a dict.
            guard: a plain function of the document, asked last; or the name of an
                `app.guard`.
            version: raise it to make an otherwise equal trigger a new one.
            more: ``signal``, ``cancel``, ``input``, ``key``, ``dedup``, ``namespace``,
                ``max_depth``, ``control``, ``cancel_on``, ``retry``, ``dead_letter``,
                ``start_at``: see `triggerflow.define_trigger`.

        Raises:
            DefinitionError, PatternError: a part of it can't work.
            DuplicateTrigger: the app has it already, under this name or another.
        """
        made = define_trigger(
            name,
            on=on,
            match=match,
            actors=actors,
            guard=guard,
            start=start,
            version=version,
            **more,
        )
        return self._add_trigger(made)

    def load_triggers(self, path: str | os.PathLike[str]) -> tuple[Trigger, ...]:
        """Register the triggers of a TOML or JSON file: all of them, or none.

        A guard is named as ``name@version``, and must be known by then.

        Raises:
            DefinitionError: the file can't be read, or triggers in it can't work; the
                error names file, line and trigger.
            DuplicateTrigger: the app has one of them already, under this name or another.
        """
        # Here, not above: most apps have their triggers in code.
        from triggerflow.triggers.files import read_file

        found = read_file(Path(path), self._guards)
        before = dict(self._triggers), dict(self._meanings), dict(self._guards)
        try:
            return tuple(self._add_trigger(each) for each in found)
        except BaseException:
            self._triggers, self._meanings, self._guards = before
            raise

    def register(self, *definitions: Any) -> None:
        """Register flows, steps, triggers, guards, envelopes and attrs classes.

        Raises:
            DefinitionError: one of them is none of these, or clashes with another.
        """
        for each in definitions:
            if isinstance(each, Flow):
                self._add_flow(each)
            elif isinstance(each, Step):
                self._add_step(each)
            elif isinstance(each, Trigger):
                self._add_trigger(each)
            elif isinstance(each, Guard):
                self._add_guard(each)
            elif isinstance(each, Envelope):
                self._add_envelope(each)
            elif inspect.isclass(each) and attrs.has(each):
                self.codec.register(each)
            else:
                raise DefinitionError(
                    f"register({each!r:.80})",
                    "expected a flow, a step, a trigger, a guard, an envelope or an attrs "
                    "class",
                    "decorate flows with @tf.flow, and steps with @tf.step",
                )

    def _add_flow(self, made: Flow) -> None:
        # Here, not above: it reads source code, which an app without flows has none of.
        from triggerflow.flows.lint import lint_flow

        found = lint_flow(made)
        errors = [str(each) for each in found if each.severity == "error"]
        if errors:
            raise DefinitionError(
                f"flow {made.label}",
                "\n  ".join(["would not replay:", *errors]),
                "see docs/how-to/determinism.md",
            )
        self.flows.add(made)
        for each in found:
            if str(each) not in _WARNED:
                _WARNED.add(str(each))
                # At a prompt no source can be read, and nobody can do anything about it.
                log.log(logging.INFO if each.rule == "source" else logging.WARNING, "%s", each)

    def _add_step(self, made: Step[..., Any]) -> None:
        known = self._steps.setdefault(made.name, made)
        if known is not made:
            raise DefinitionError(
                f"step {made.name!r}",
                f"is registered twice: as {known.__module__}.{known.__qualname__} and as "
                f"{made.__module__}.{made.__qualname__}",
                "give one of them another name=",
            )

    def _add_envelope(self, made: Envelope) -> None:
        known = self._envelopes.setdefault(made.name, made)
        if known is not made:
            raise DefinitionError(
                f"envelope {made.name!r}", "is registered twice", "give one another name"
            )

    def _add_guard(self, made: Guard) -> None:
        known = self._guards.get(made.key)
        if known is not None and known.fn is not None and made.fn not in (None, known.fn):
            raise DefinitionError(
                f"guard {made.key}",
                "stands for two functions",
                "give one of them another name or version",
            )
        if known is None or known.fn is None:
            self._guards[made.key] = made

    def _add_trigger(self, made: Trigger) -> Trigger:
        if made.actors is not None:
            owner = self._owners.get(made.namespace)
            scope = made.actors.owned_by(owner, f"trigger {made.name!r:.200}")
            made = attrs.evolve(made, actors=scope)
        known = self._triggers.get(made.name)
        if known is not None:
            # The CID leaves out the guard's code, how it is dispatched, and where it begins.
            beside = [(each.guard, each.delivery, each.start_at) for each in (known, made)]
            if known.trigger_cid == made.trigger_cid and beside[0] == beside[1]:
                return known
            raise DuplicateTrigger(made.name, made.name, "one name stands for two triggers")
        twin = self._meanings.get(made.meaning_cid)
        if twin is not None:
            raise DuplicateTrigger(
                twin, made.name, "they mean the same and would start everything twice"
            )
        if made.guard is not None:
            self._add_guard(made.guard)
        self._triggers[made.name] = made
        self._meanings[made.meaning_cid] = made.name
        return made

    @property
    def triggers(self) -> tuple[Trigger, ...]:
        """The triggers, in order of registration."""
        return tuple(self._triggers.values())

    @property
    def steps(self) -> tuple[Step[..., Any], ...]:
        """The registered steps, in order of registration."""
        return tuple(self._steps.values())


def _owners(owner: Any) -> dict[str, Globs]:
    """Namespace -> the ids of its own actors."""
    if owner is None:
        return {}
    named = owner if isinstance(owner, Mapping) else {"": owner}
    return {
        namespace: owner_ids([ids] if isinstance(ids, str) else list(ids), "App(owner=)")
        for namespace, ids in named.items()
    }
