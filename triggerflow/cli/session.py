"""One call of the command line: its app, its store, its codec, each made when first needed."""

from __future__ import annotations

import contextlib
import shlex
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from triggerflow.cli.loading import Refused, load_app, read_setting

if TYPE_CHECKING:
    from triggerflow.app import App
    from triggerflow.client import Client
    from triggerflow.core.codec import ValueCodec
    from triggerflow.store.protocol import Store
    from triggerflow.store.records import InstanceRecord

SHORT_ID = 8


class Session:
    """What the commands share; `click.pass_obj` gives it to them, plugins' commands too.

    Args:
        app: the ``--app`` flag.
        store: the ``--store`` flag.
        triggers: the ``--triggers`` flag.
        program: how the command line was called, for commands that it suggests.
    """

    def __init__(
        self,
        app: str | None = None,
        store: str | None = None,
        program: str = "triggerflow",
        *,
        triggers: str | None = None,
    ) -> None:
        self._flags = {"app": app, "store": store, "triggers": triggers}
        self._program = program

    @cached_property
    def app(self) -> App | None:
        """The app, or None where none is named.

        Raises:
            Refused: it is named and can't be had.
            DefinitionError, DuplicateTrigger: the file of triggers can't work.
        """
        setting = read_setting("app", self._flags["app"])
        more = read_setting("triggers", self._flags["triggers"])
        if setting is None:
            if more is not None:
                raise Refused(
                    f"{more.source} {more.value}: there is no app to have these triggers; name "
                    "it with --app module:attr"
                )
            return None
        app = load_app(setting)
        if more is not None:
            app.load_triggers(more.value)
        return app

    def need_app(self, why: str) -> App:
        """The app.

        Raises:
            Refused: none is named; the message says how to.
        """
        if self.app is None:
            raise Refused(
                f"{why}; name the app with --app module:attr, TRIGGERFLOW_APP, or app = in "
                "[tool.triggerflow] of pyproject.toml"
            )
        return self.app

    @cached_property
    def plugins(self) -> Any:
        """The app's plugin manager, or one with the plugins of installed distributions."""
        from triggerflow.plugins import make_manager

        return make_manager() if self.app is None else self.app.plugins

    @cached_property
    def store(self) -> Store:
        """The store, unopened; one object, so that app and command share it.

        Raises:
            StoreError: no backend knows its URL.
        """
        from triggerflow.plugins import make_store

        setting = read_setting("store", self._flags["store"])
        if setting is not None:
            return make_store(self.plugins, setting.value)
        if self.app is not None:
            return self.app.make_store()
        from triggerflow.app import DEFAULT_STORE

        return make_store(self.plugins, DEFAULT_STORE)

    @contextlib.contextmanager
    def asking(self) -> Iterator[Store]:
        """The store, open to be asked: no worker is registered, no trigger is touched.

        Raises:
            Refused: it is a file that doesn't exist: asking doesn't make it.
            StoreError: it can't be opened.
        """
        path = getattr(self.store, "path", None)
        if isinstance(path, str) and path != ":memory:" and not Path(path).exists():
            raise Refused(
                f"store {self.store.url}: there is no such file yet; append or start "
                "something, or name another one with --store"
            )
        self.store.open()
        try:
            yield self.store
        finally:
            self.store.close()

    @property
    def codec(self) -> ValueCodec:
        """The app's codec, or one that knows no registered classes."""
        if self.app is not None:
            return self.app.codec
        from triggerflow.core.codec import ValueCodec
        from triggerflow.core.given import OWN_CLASSES

        return ValueCodec(OWN_CLASSES)

    def client(self, *, with_app: bool = True, **settings: Any) -> Client:
        """A client of the app, or of no flows and triggers at all, on the session's store."""
        app = self.app if with_app else None
        if app is None:
            from triggerflow.app import App

            # Installed plugins keep their veto, and register nothing: their triggers are
            # the business of those who run them.
            app = App(self.store, entry_points=False)
            app.plugins = self.plugins
        app.store = self.store
        return app.client(**settings)

    def find(self, store: Store, id: str) -> InstanceRecord:
        """An instance by its id, or a unique prefix of it.

        Raises:
            UnknownInstance: none fits, or several do.
            InstanceRemoved: it had ended, and retention removed it.
        """
        from triggerflow.errors import InstanceRemoved, UnknownInstance

        found = store.ids(id) if id else []
        if id in found or len(found) == 1:
            record = store.instance(id if id in found else found[0])
            if record is not None:
                return record
        removed = store.removed(id) if id and not found else None
        if removed is not None:
            raise InstanceRemoved(removed.id, (), removed.activity, removed.trigger)
        raise UnknownInstance(id, tuple(found))

    def command(self, *words: str) -> str:
        """A command line to suggest: the same program and flags, other words."""
        flags = [
            part for name, flag in self._flags.items() if flag for part in (f"--{name}", flag)
        ]
        return f"{self._program} {shlex.join([*flags, *words])}"


pass_session = click.make_pass_decorator(Session)

json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
