"""What must fire for a GitHub webhook, in plain Python: knows nothing of triggerflow."""

from __future__ import annotations

from typing import Any

FLOWS = {"every": "three", "acted": "fan", "listed": "nap", "people": "three", "repos": "asks"}

# flow -> tags of its log, each with the tags whose results it is built on
STEPS: dict[str, dict[str, tuple[str, ...]]] = {
    "three": {
        "call:first#0": (),
        "call:second#0": ("call:first#0",),
        "call:third#0": ("call:first#0", "call:second#0"),
    },
    "fan": {
        "gather#0[0]/call:left#0": (),
        "gather#0[1]/call:right#0": (),
        "call:third#0": ("gather#0[0]/call:left#0", "gather#0[1]/call:right#0"),
    },
    "nap": {
        "call:first#0": (),
        "sleep#0": ("call:first#0",),
        "call:second#0": ("call:first#0", "sleep#0"),
    },
    "asks": {"wait_signal:answer#0": (), "call:first#0": ("wait_signal:answer#0",)},
}


def fires(activity: dict[str, Any]) -> list[str]:
    """The triggers of `house.make` that this webhook must fire, in order."""
    found = ["every"]
    payload = activity["object"]
    if payload.get("action") in ("created", "opened", "completed"):
        found.append("acted")
    if activity["type"] in (
        "github.push",
        "github.issues.edited",
        "github.pull_request.labeled",
        "github.check_run.completed",
        "github.release.published",
    ):
        found.append("listed")
    actor = activity["actor"]
    of_o = actor.startswith("https://github.com/o") and "/" not in actor[19:]
    if of_o and "sender" in payload and payload["sender"].get("type") == "User":
        found.append("people")
    if "repository" in payload and payload["repository"].get("full_name") in (
        "octo-org/octo-repo",
        "Octocoders/Hello-World",
    ):
        found.append("repos")
    return found


def in_round(webhook: dict[str, Any], life: int, lap: int) -> dict[str, Any]:
    """The webhook as a new document of one life's lap."""
    return {**webhook, "round": [life, lap]}
