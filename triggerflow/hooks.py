"""Hook specifications and the ``hookimpl`` marker. Plugins need nothing else from here.

A plugin is a module or object with functions marked by `hookimpl`; a distribution names it
under the entry-point group ``triggerflow``. Each `App` has a plugin manager of its own. No
hook is called inside a store transaction, nor once a step.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import pluggy

if TYPE_CHECKING:
    from triggerflow.core.activity import Activity

PROJECT: Final = "triggerflow"

hookspec: Final = pluggy.HookspecMarker(PROJECT)
hookimpl: Final = pluggy.HookimplMarker(PROJECT)


class Hooks:
    """Every hook, one sentence each."""

    @hookspec
    def triggerflow_register(self, app: Any) -> None:
        """Register flows, triggers and classes with the app; called once, as it is made."""

    @hookspec
    def triggerflow_validate(self, activity: Activity) -> None:
        """Look at an activity before its append; raise to veto it: nothing is stored then."""

    @hookspec
    def triggerflow_appended(self, activity: Activity, firings: Any) -> None:
        """See an activity and its firings after the commit, at most once."""

    @hookspec(firstresult=True)
    def triggerflow_store(self, url: str) -> Any:
        """Give the `store.protocol.Store` for a URL, unopened, or None if it isn't yours."""

    @hookspec
    def triggerflow_cli(self, group: Any) -> None:
        """Add commands to the command line's click group."""
