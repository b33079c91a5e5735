"""The plugin manager of one app: entry points, first-party backends, and errors by name."""

from __future__ import annotations

from importlib import metadata
from typing import TYPE_CHECKING, Any, Final

import pluggy

from triggerflow.errors import ActivityRejected, PluginError, StoreError
from triggerflow.hooks import PROJECT, Hooks, hookimpl

if TYPE_CHECKING:
    from collections.abc import Iterable

    from triggerflow.core.activity import Activity
    from triggerflow.store.protocol import Store

ENTRY_POINTS: Final = "triggerflow"


class BuiltinStores:
    """``memory://``, ``sqlite:///path`` and ``postgresql://``.

    Of SQLite's slashes three make a relative path, four an absolute one.
    """

    @hookimpl
    def triggerflow_store(self, url: str) -> Store | None:
        """Give the store for a URL of ours."""
        scheme, found, path = url.partition("://")
        if not found:
            return None
        if scheme in ("postgresql", "postgres"):
            return _postgres(url)
        # Here, not above: an app that only defines flows needs no database module.
        from triggerflow.store.sqlite import MemoryStore, SqliteStore

        if scheme == "memory":
            return MemoryStore()
        if scheme == "sqlite" and path.startswith("/") and len(path) > 1:
            if "?" in path or path[1:] == ":memory:":
                raise StoreError(
                    url,
                    "a SQLite URL is a path and nothing else",
                    "for a store in memory use memory://",
                )
            return SqliteStore(path[1:])
        return None


def _postgres(url: str) -> Store:
    try:
        from triggerflow.store.postgres import PostgresStore
    except ImportError as error:
        if (error.name or "").partition(".")[0] != "psycopg":
            raise
        raise StoreError(
            url.partition("://")[0] + "://...",
            f"needs psycopg, which can't be imported: {error}",
            "pip install 'triggerflow[postgres]'",
        ) from error
    return PostgresStore(url)


def make_manager(
    plugins: Iterable[Any] = (), *, entry_points: bool = True
) -> pluggy.PluginManager:
    """A plugin manager with our hooks, the built-in stores, and these plugins.

    Args:
        plugins: objects or modules with hook implementations.
        entry_points: load what installed distributions name under ``triggerflow`` too.

    Raises:
        PluginError: a plugin can't be loaded, or implements a hook that doesn't exist.
    """
    manager = pluggy.PluginManager(PROJECT)
    manager.add_hookspecs(Hooks)
    manager.register(BuiltinStores(), "triggerflow-stores")
    if entry_points:
        for point in sorted(metadata.entry_points(group=ENTRY_POINTS), key=lambda p: p.name):
            _register(manager, _load(point), point.name)
    for plugin in plugins:
        _register(manager, plugin, None)
    try:
        manager.check_pending()
    except pluggy.PluginValidationError as error:
        raise PluginError(str(error.plugin), str(error)) from error
    return manager


def _load(point: metadata.EntryPoint) -> Any:
    try:
        return point.load()
    except Exception as error:
        raise PluginError(
            point.name,
            f"{point.value} can't be loaded: {type(error).__name__}: {error}",
            "mend or uninstall its distribution",
        ) from error


def _register(manager: pluggy.PluginManager, plugin: Any, name: str | None) -> None:
    if manager.is_registered(plugin):
        return
    try:
        manager.register(plugin, name)
    except (pluggy.PluginValidationError, ValueError) as error:
        raise PluginError(name or repr(plugin), str(error)) from error


def validate(manager: pluggy.PluginManager, activity: Activity) -> None:
    """Let plugins veto an activity.

    Raises:
        ActivityRejected: one did; what it raised is the cause.
    """
    for hook in manager.hook.triggerflow_validate.get_hookimpls():
        try:
            hook.function(**dict.fromkeys(hook.argnames, activity))
        except ActivityRejected:
            raise
        except KeyboardInterrupt:
            raise
        except BaseException as veto:
            raise ActivityRejected(
                "activity", f"vetoed: {veto}", "what the plugin accepts", hook.plugin_name
            ) from veto


def make_store(manager: pluggy.PluginManager, url: str) -> Store:
    """The store behind a URL, unopened.

    Raises:
        StoreError: no backend knows the URL.
    """
    store: Store | None = manager.hook.triggerflow_store(url=url)
    if store is None:
        raise StoreError(
            url,
            "no backend knows this URL",
            "use sqlite:///file.db, sqlite:////absolute/file.db, postgresql://host/database or "
            "memory://, or install a plugin for it",
        )
    return store
