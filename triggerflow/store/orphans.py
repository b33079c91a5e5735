"""Why nobody takes a runnable instance: the cause and the words that its row gets."""

from __future__ import annotations

from collections.abc import Sequence


def all_tried(builds: Sequence[str]) -> tuple[str, str]:
    """Each build that knows it was tried; they come sorted."""
    tried = ", ".join(map(repr, builds))
    return "diverged", (
        f"the code of every worker that runs now was tried and doesn't fit its log (tried: "
        f"builds {tried}); the code that it went on with is gone: run a worker with that build"
    )


def unknown(flow: str, version: int | None, versions: Sequence[int]) -> tuple[str, str]:
    """No worker knows the flow, or none this version of it; `versions` are those known."""
    if versions:
        return "unknown_version", (
            f"no worker knows version {version} of flow {flow!r}; they know {list(versions)}: "
            "run a worker whose app registers that version"
        )
    return "unknown_flow", (
        f"no worker knows a flow {flow!r}: run a worker whose app registers it"
    )
