"""Steps: none of them talks to a network; what would be sent is what they return."""

from __future__ import annotations

from typing import Any, Final

Message = dict[str, Any]

# Label -> words that suggest it, looked for in the title and the text.
_HINTS: Final = {
    "bug": ("bug", "crash", "error", "fail", "broken", "traceback"),
    "documentation": ("docs", "documentation", "readme", "spell", "typo"),
    "enhancement": ("feature", "support for", "would be nice", "proposal"),
    "question": ("how do i", "how can i", "is it possible", "question"),
}


def suggest_labels(title: str, body: str, present: list[str]) -> list[str]:
    """Labels that an issue seems to want and doesn't have, in alphabetical order."""
    text = f"{title}\n{body}".lower()
    found = {label for label, words in _HINTS.items() if any(word in text for word in words)}
    return sorted(found.difference(present))


def describe(message: Message) -> Message:
    """The default notifier: sends nothing, and returns what it would have sent."""
    return message
