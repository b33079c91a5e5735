"""`App`: what a service defines once, and opens where it runs."""

from __future__ import annotations

import contextlib
import logging
import math
from collections.abc import AsyncIterator, Iterable, Mapping
from typing import TYPE_CHECKING, Any, Final

from triggerflow.core.durations import seconds
from triggerflow.definitions import Definitions
from triggerflow.errors import DefinitionError
from triggerflow.flows import build_of
from triggerflow.plugins import make_manager, make_store, validate

if TYPE_CHECKING:
    from datetime import timedelta

    import pluggy

    from triggerflow.aio import AsyncioClient
    from triggerflow.client import Client
    from triggerflow.core.activity import Activity
    from triggerflow.engine.engine import Engine
    from triggerflow.engine.settings import Code
    from triggerflow.store.protocol import Store

DEFAULT_STORE: Final = "sqlite:///triggerflow.db"

log: Final = logging.getLogger("triggerflow")


class App(Definitions):
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
        owner: the ids of the app's own actors, or namespace -> ids: what ``same_as_owner``
            means in a trigger's ``actors=``.
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
        owner: str | Iterable[str] | Mapping[str, str | list[str]] | None = None,
    ) -> None:
        super().__init__(classes, owner)
        self.store = store
        self._build = build
        self._retention = _kept(retention, "App(retention=)")
        self._activity_retention = _kept(activity_retention, "App(activity_retention=)")
        self.plugins: pluggy.PluginManager = make_manager(plugins, entry_points=entry_points)
        self.plugins.hook.triggerflow_register(app=self)

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
            envelopes=dict(self._envelopes),
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
