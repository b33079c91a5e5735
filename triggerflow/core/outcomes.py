"""What a drive comes to: the flow has ended, goes on as a new generation, or waits."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import attrs

if TYPE_CHECKING:
    from triggerflow.core.failure import Failure


@attrs.frozen
class Done:
    """The flow returned `result`."""

    result: Any = None


@attrs.frozen
class Failed:
    """The flow raised; `failure.kind` is ``cancelled`` where it ended through a cancel."""

    failure: Failure


@attrs.frozen
class Continued:
    """The flow ended this generation; the next one begins with `input`."""

    input: Any = None


@attrs.frozen
class Suspended:
    """The flow waits for `tags`, in the order in which they were armed."""

    tags: tuple[str, ...]
