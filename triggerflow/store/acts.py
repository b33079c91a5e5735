"""What a turn does towards others, in its own commit: children, messages, tasks, activities.

An act that can't be done (the target has ended, the key is held) refuses the whole turn: the
outcome is `CONFLICT` and names the tags, nothing is written, and the owner takes the turn
again with those effects as failures.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs

if TYPE_CHECKING:
    from triggerflow.store.newcomer import NewInstance


@attrs.define(slots=True)
class SpawnChild:
    """Start a child; its parent is the instance of the turn. Refused: ``key``, by its holder.

    A child that is there is waited for again: its parent failed with it and was retried.

    Attributes:
        awaited: the parent waits for its end from now on.
        abandoned: it goes on when the parent is cancelled.
    """

    tag: str
    instance: NewInstance
    awaited: bool
    abandoned: bool


@attrs.define(slots=True)
class AwaitChild:
    """From now on the child's end is told; it is told at once if it has ended."""

    child: str


@attrs.define(slots=True)
class CancelChild:
    """Ask a child to end; one that has ended, or was asked before, is left alone.

    With `forget`, its end is no longer waited for.
    """

    child: str
    none: bytes
    at: float
    forget: bool = False


@attrs.define(slots=True)
class SendMessage:
    """Put a signal into another instance's inbox. Refused: ``unknown`` or ``ended``."""

    tag: str
    instance: str
    name: str
    payload: bytes
    at: float


@attrs.define(slots=True)
class EmitActivity:
    """Append an activity; its dispatch is deferred. One that is there stays as it is."""

    cid: str
    document: bytes
    types: str
    actors: str
    received: float
    depth: int
    namespace: str = ""


@attrs.define(slots=True)
class OpenWait:
    """Wait for an activity that meets the pattern and comes after `position`.

    Attributes:
        pattern: encoded.
        digest: what the flow knows the pattern by.
        pivots: where it is filed, as (path, value); every activity that it matches has one
            of these. ``("", "")`` is what every activity has.
    """

    tag: str
    pattern: bytes
    position: int
    digest: bytes | None = None
    pivots: tuple[tuple[str, str], ...] = (("", ""),)


@attrs.define(slots=True)
class CloseWait:
    """Nobody waits under this tag any more."""

    tag: str


@attrs.define(slots=True)
class OpenTask:
    """Offer a call to a queue: a worker that serves it may claim it from now on.

    `args` are its arguments, encoded; `timeout` is for each attempt, in seconds; `key` is the
    user's, under which a result may be recorded.
    """

    tag: str
    queue: str
    step: str
    args: bytes
    at: float
    timeout: float | None = None
    key: str | None = None


@attrs.define(slots=True)
class RearmTask:
    """A failed attempt is followed by another one, from `due` on."""

    tag: str
    due: float


@attrs.define(slots=True)
class CloseTask:
    """Nobody waits for this queued call any more: what an attempt brings is refused."""

    tag: str


@attrs.define(slots=True)
class SetAttributes:
    """Search attributes: all of them, encoded, and those that change, None to remove."""

    attributes: bytes
    changed: dict[str, str | float | bool | None]


@attrs.define(slots=True)
class RecordResult:
    """The first result under a user's key. Refused: ``recorded``, with the first result."""

    tag: str
    step: str
    key: str
    value: bytes
    at: float


@attrs.define(slots=True)
class ContinueAsNew:
    """The generation ends with this turn; the next one begins, runnable.

    `keep` is how many generations keep their logs, the new one counted.
    """

    version: int
    input: bytes
    seed: bytes
    positions: bytes | None
    keep: int = 2


Act = (
    SpawnChild
    | AwaitChild
    | CancelChild
    | SendMessage
    | EmitActivity
    | OpenWait
    | CloseWait
    | OpenTask
    | RearmTask
    | CloseTask
    | SetAttributes
    | RecordResult
    | ContinueAsNew
)


@attrs.frozen
class Refusal:
    """Why an act can't be done.

    Attributes:
        tag: the effect behind it.
        why: ``key``, ``unknown``, ``ended`` or ``recorded``.
        detail: the holder's id, or the status that was found.
        value: the result that is recorded.
    """

    tag: str
    why: str
    detail: str = ""
    value: bytes | None = None
