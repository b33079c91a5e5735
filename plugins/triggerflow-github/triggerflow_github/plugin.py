"""The hooks: what the plugin registers, and what it refuses."""

from __future__ import annotations

from datetime import timedelta
from typing import Any, Final

import triggerflow as tf
from triggerflow_github.flows import Notify, make_flows
from triggerflow_github.steps import describe
from triggerflow_github.triggers import make_triggers


class GitHub:
    """The plugin. Pass one to ``App(plugins=[...])`` to send messages for real.

    It takes the place of the one that the entry point loads. It does not send anything by
    itself, and it does not verify who sent a webhook.

    Args:
        notify: a step, plain or async, that is given ``{"to": ..., "text": ...}`` and
            sends it. Like every step it runs at least once: hand
            ``tf.step_context().idempotency_key`` to the service behind it.
        reminders: how many times a review is asked for.
        patience: the time before each reminder.
    """

    def __init__(
        self,
        notify: Notify = describe,
        *,
        reminders: int = 3,
        patience: timedelta | None = None,
    ) -> None:
        self.notify = notify
        self.reminders = reminders
        self.patience = tf.days(2) if patience is None else patience

    @tf.hookimpl
    def triggerflow_register(self, app: Any) -> None:
        """Register the flows and triggers."""
        others = (each for each in app.plugins.get_plugins() if each is not self)
        if self is default and any(isinstance(each, GitHub) for each in others):
            return
        flows = make_flows(
            self.notify, reminders=self.reminders, patience=self.patience.total_seconds()
        )
        app.register(*flows, *make_triggers())

    @tf.hookimpl
    def triggerflow_validate(self, activity: tf.Activity) -> None:
        """Refuse ``github.*`` activities that carry no payload.

        Raises:
            ActivityRejected: ``object`` is missing or isn't an object.
        """
        if not any(name.startswith("github.") for name in activity.types):
            return
        document = activity.document
        if not isinstance(document.get("object"), dict):
            found = "missing"
            if "object" in document:
                found = f"a {type(document['object']).__name__}"
            raise tf.ActivityRejected(
                "activity.object", found, "the webhook's payload", "triggerflow-github"
            )


# What the entry point names.
default: Final = GitHub()
