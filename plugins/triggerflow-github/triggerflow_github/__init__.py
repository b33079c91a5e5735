"""Durable flows for GitHub webhooks: a plugin for triggerflow.

Installed, it is loaded by every app through the entry-point group ``triggerflow``. An app
that wants messages to be sent passes ``GitHub(notify=...)`` as a plugin of its own.
"""

from triggerflow_github.plugin import GitHub as GitHub
from triggerflow_github.webhooks import activity_from_webhook as activity_from_webhook

__all__ = ["GitHub", "activity_from_webhook"]
