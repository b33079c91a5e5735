"""From a webhook delivery to an activity."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

# Some deliveries (security advisories) name no sender. GitHub itself attributes what has no
# account to this user.
NOBODY: Final = "https://github.com/ghost"


def activity_from_webhook(event: str, payload: Mapping[str, Any]) -> dict[str, Any]:
    """Make the activity for a delivery.

    The delivery's id is left out on purpose: GitHub sends a delivery again under another
    id, and what has one content must have one CID. Verify the ``X-Hub-Signature-256``
    header before; nothing here can tell who sent the payload.

    Args:
        event: the ``X-GitHub-Event`` header, such as ``pull_request``.
        payload: the decoded JSON body.

    Returns:
        ``type`` is ``github.<event>.<action>``, or ``github.<event>`` for events without
        an action; ``actor`` is the sender's page; ``object`` is the payload.
    """
    action = payload.get("action")
    sender = payload.get("sender")
    page = sender.get("html_url") if isinstance(sender, Mapping) else None
    return {
        "type": f"github.{event}.{action}" if action else f"github.{event}",
        "actor": page or NOBODY,
        "object": dict(payload),
    }
