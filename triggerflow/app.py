"""`App`: what a service defines once, and opens where it runs."""

from __future__ import annotations

import contextlib
import inspect
import logging
import math
from collections.abc import AsyncIterator, Callable, Iterable
from typing import TYPE_CHECKING, Any, Final, ParamSpec, TypeVar, overload

import attrs

from triggerflow.core.codec import ValueCodec
from triggerflow.core.durations import seconds
from triggerflow.core.given import OWN_CLASSES
from triggerflow.core.step import Step
from triggerflow.core.step import step as define_step
from triggerflow.errors import DefinitionError, DuplicateTrigger
from triggerflow.flows import Flow, FlowRegistry, build_of, define_flow
from triggerflow.plugins import make_manager, make_store, validate
from triggerflow.triggers import Guard, Trigger, define_trigger

if TYPE_CHECKING:
    from datetime import timedelta

    import pluggy

    from triggerflow.aio import AsyncioClient
    from triggerflow.client import Client
    from triggerflow.core.activity import Activity
    from triggerflow.engine.engine import Engine
    from triggerflow.engine.settings import Code
    from triggerflow.flows.flow import Retention, Signals
    from triggerflow.store.protocol import Store

P = ParamSpec("P")
R = TypeVar("R")

DEFAULT_STORE: Final = "sqlite:///triggerflow.db"

log: Final = logging.getLogger("triggerflow")

# Warnings of the lint that were given: one flow may be registered with many apps.
_WARNED: Final[set[str]] = set()


class App:
    """Flows, triggers, registered classes and plugins under one name.

    Making an app does no I/O; `open` and `client` do. Any number of apps may live in one
    process: nothing is global.

    Args:
        store: URL of the store, or a store object.
        build: what code this is, where the default (a hash over the flows and the project
            modules that they import) isn't wanted.
        plugins: objects or modules with hook implementations.
        entry_points: load the plugins of installed distributions too.
        classes: attrs classes whose instances flows and steps may pass around.
        retention: how long an instance is kept once it has ended, where its flow doesn't
            say; None keeps it for ever. Workers remove it, whole.
        activity_retention: how long an activity's document is kept; None for ever. CID,
            types, actors and firings stay, so a repeat starts nothing all the same.
    """

    def __init__(
        self,
        store: str | Store = DEFAULT_STORE,
        *,
        build: str | None = None,
        plugins: Iterable[Any] = (),
        entry_points: bool = True,
        classes: Iterable[type] = (),
        retention: timedelta | float | None = None,
        activity_retention: timedelta | float | None = None,
    ) -> None:
        self.store = store
        self.codec = ValueCodec((*OWN_CLASSES, *classes))
        self.flows = FlowRegistry()
        self._build = build
        self._retention = _kept(retention, "App(retention=)")
        self._activity_retention = _kept(activity_retention, "App(activity_retention=)")
        self._triggers: dict[str, Trigger] = {}
        self._meanings: dict[str, str] = {}
        self._guards: dict[str, Guard] = {}
        self._steps: dict[str, Step[..., Any]] = {}
        self.plugins: pluggy.PluginManager = make_manager(plugins, entry_points=entry_points)
        self.plugins.hook.triggerflow_register(app=self)

    # --- defining

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
    ) -> Flow | Callable[[Callable[..., Any]], Flow]:
        """Decorator: register a generator function as a flow.

        Args:
            fn: the function.
            name: the flow's name; the function's by default.
            version: instances stay with the version that they started with.
            signals: the signals that it takes: names, or name -> validator.
            retention: how long an instance is kept once it has ended; None keeps it for
                ever, ``"app"`` as long as the app says.

        Raises:
            DefinitionError: it can't be one, or its name and version are taken.
        """

        def define(each: Callable[..., Any]) -> Flow:
            made = define_flow(
                each, name=name, version=version, signals=signals, retention=retention
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

    def trigger(
        self,
        name: str,
        *,
        on: object,
        start: object,
        match: object = None,
        actors: object = None,
        guard: Guard | Callable[[dict[str, Any]], object] | None = None,
        version: int = 1,
        cancel_on: object = None,
    ) -> Trigger:
        """Register a trigger: which activities start which flow.

        Args:
            name: unique within the app; a changed trigger supersedes the old one.
            on: an activity type, several, or ``"*"``.
            start: a flow, or a flow's name.
            match: an EventBridge event pattern that the document must match.
            actors: globs; all of the activity's actors must be in scope.
            guard: a plain function of the document, asked last.
            version: raise it to make an otherwise equal trigger a new one.
            cancel_on: which later activities cancel what it started: ``{"on": type, "match":
                pattern}`` or a list of those. A field of the pattern whose name ends with
                ``.$`` takes its value from the activity that started the flow.

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
            cancel_on=cancel_on,
        )
        self._add_trigger(made)
        return made

    def register(self, *definitions: Any) -> None:
        """Register flows, steps, triggers and attrs classes, such as a plugin brings.

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
            elif inspect.isclass(each) and attrs.has(each):
                self.codec.register(each)
            else:
                raise DefinitionError(
                    f"register({each!r:.80})",
                    "expected a flow, a step, a trigger or an attrs class",
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

    def _add_trigger(self, made: Trigger) -> None:
        known = self._triggers.get(made.name)
        if known is not None:
            if known.trigger_cid == made.trigger_cid and known.guard == made.guard:
                return
            raise DuplicateTrigger(made.name, made.name, "one name stands for two triggers")
        twin = self._meanings.get(made.meaning_cid)
        if twin is not None:
            raise DuplicateTrigger(
                twin, made.name, "they mean the same and would start everything twice"
            )
        guard = made.guard
        if guard is not None:
            rival = self._guards.setdefault(guard.key, guard)
            if rival.fn is not guard.fn:
                raise DefinitionError(
                    f"guard {guard.key}",
                    "stands for two functions",
                    "give one of them another name or version",
                )
        self._triggers[made.name] = made
        self._meanings[made.meaning_cid] = made.name

    @property
    def triggers(self) -> tuple[Trigger, ...]:
        """The triggers, in order of registration."""
        return tuple(self._triggers.values())

    @property
    def steps(self) -> tuple[Step[..., Any], ...]:
        """The registered steps, in order of registration."""
        return tuple(self._steps.values())

    @property
    def build(self) -> str:
        """Which code this app runs; see the design of blocked instances."""
        return self._build if self._build is not None else build_of(self.flows)

    # --- running

    def make_store(self) -> Store:
        """The app's store, unopened.

        Raises:
            StoreError: no backend knows its URL.
        """
        return (
            make_store(self.plugins, self.store) if isinstance(self.store, str) else self.store
        )

    @contextlib.asynccontextmanager
    async def open(self, *, work: bool = True, **settings: Any) -> AsyncIterator[Engine]:
        """Open the app on trio: ``async with app.open() as engine``.

        Args:
            work: drive flows here; False leaves that to workers.
            settings: more of `triggerflow.engine.settings.Settings`.

        Raises:
            StoreError: the store can't be opened.
            DefinitionError: a setting can't be, such as queues without registered steps.
        """
        # Here, not above: trio is loaded when something runs, not when flows are defined.
        from triggerflow.engine.opening import open_engine
        from triggerflow.engine.settings import Settings

        options = Settings(work=work, **settings)
        if options.queues and not self._steps:
            raise DefinitionError(
                f"queues {', '.join(options.queues)}",
                "this app has no registered step, so it could run nothing of them",
                "decorate steps with @app.step, or pass them to app.register()",
            )
        async with open_engine(self.make_store(), self._code(), options) as engine:
            yield engine

    def client(self, *, work: bool = True, **settings: Any) -> Client:
        """A blocking client, for scripts and web frameworks: ``with app.client() as client``.

        The engine runs in a thread of its own; the verbs are the engine's.
        """
        from triggerflow.client import Client

        return Client(self, work=work, **settings)

    def asyncio_client(self, *, work: bool = True, **settings: Any) -> AsyncioClient:
        """A client for asyncio: ``async with app.asyncio_client() as client``.

        The engine runs in a thread of its own; the verbs are the engine's, to be awaited.
        """
        from triggerflow.aio import AsyncioClient

        return AsyncioClient(self, work=work, **settings)

    def _code(self) -> Code:
        from triggerflow.engine.settings import Code

        vetoes = self.plugins.hook.triggerflow_validate.get_hookimpls()
        listens = self.plugins.hook.triggerflow_appended.get_hookimpls()
        return Code(
            flows=self.flows,
            triggers=self.triggers,
            guards=dict(self._guards),
            codec=self.codec,
            build=self.build,
            retention=self._retention,
            activity_retention=self._activity_retention,
            steps=dict(self._steps),
            validate=self._validate if vetoes else None,
            announced=self._announce if listens else None,
        )

    def _validate(self, activity: Activity) -> None:
        validate(self.plugins, activity)

    def _announce(self, activity: Activity, firings: Any) -> None:
        # After the commit: a plugin that raises here can undo nothing and stops nobody.
        for hook in self.plugins.hook.triggerflow_appended.get_hookimpls():
            given = {"activity": activity, "firings": firings}
            try:
                hook.function(**{name: given[name] for name in hook.argnames})
            except Exception:
                log.exception("plugin %s failed in triggerflow_appended", hook.plugin_name)


def _kept(retention: timedelta | float | None, what: str) -> float:
    return math.inf if retention is None else seconds(retention, what)
