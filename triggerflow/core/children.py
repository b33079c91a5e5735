"""Child flows: effects that start other instances, wait for them and ask them to end.

A child's id derives from its parent's id and generation and from the tag of the effect that
made it, so that a replay, or a worker that takes over, means the same child. A `ChildRef` is
a plain value: it may be kept in a list, and handed on by `continue_as_new`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar

import attrs

from triggerflow.core.effects import MISSING, Effect, TimedWait
from triggerflow.core.ids import derived_id, is_key
from triggerflow.core.tags import checked_name
from triggerflow.errors import DefinitionError

if TYPE_CHECKING:
    from datetime import timedelta

R = TypeVar("R")

# Deeper nesting than this is a flow that starts itself.
MOST_DEPTH: Final = 32


@attrs.frozen
class ChildRef(Generic[R]):
    """Which child `spawn` started.

    Attributes:
        id: the child's instance id.
        flow: the name of its flow.
        parent: id of the instance that may join it.
    """

    id: str
    flow: str
    parent: str


def child_id(parent: str, generation: int, tag: str) -> str:
    """The id of the child that an effect starts."""
    return derived_id(parent, generation, tag)


class _Starting(Effect[R]):
    """What `spawn` and `child` have in common."""

    __slots__ = ("abandon", "business_key", "flow", "input", "version")

    def __init__(self, flow: Any, input: Any, key: str | None, *, abandon: bool) -> None:
        super().__init__()
        try:
            self.flow = _checked_flow(flow, key, self.kind)
        except DefinitionError:
            self.excuse()
            raise
        self.version: int | None = None if isinstance(flow, str) else flow.version
        self.input = input
        self.business_key = key
        self.abandon = abandon

    @property
    def key(self) -> str:
        return f"{self.kind}:{self.flow}"

    def request(self) -> tuple[tuple[Any, ...], dict[str, Any]]:
        return (self.flow, self.input), {}


class Spawn(_Starting["ChildRef[Any]"]):
    """The start of a child that goes on by itself: see `spawn`."""

    __slots__ = ()
    kind = "spawn"
    settles = True
    snapshots = True


class Child(_Starting[Any]):
    """A child, and the wait for its result: see `child`."""

    __slots__ = ()
    kind = "child"
    settles = True
    snapshots = True


class JoinChild(TimedWait[Any]):
    """The wait for a spawned child: see `join`."""

    __slots__ = ("ref",)
    kind = "join"
    settles = True

    def __init__(self, ref: ChildRef[Any], timeout: float | None, default: Any) -> None:
        super().__init__(timeout, default)
        self.ref = ref

    @property
    def key(self) -> str:
        return f"join:{self.ref.flow}"

    def request(self) -> tuple[tuple[Any, ...], dict[str, Any]]:
        return (self.ref.id,), {}


class CancelChild(Effect[None]):
    """A request to end: see `cancel`."""

    __slots__ = ("ref",)
    kind = "cancel"
    settles = True

    def __init__(self, ref: ChildRef[Any]) -> None:
        super().__init__()
        self.ref = ref

    @property
    def key(self) -> str:
        return f"cancel:{self.ref.flow}"

    def request(self) -> tuple[tuple[Any, ...], dict[str, Any]]:
        return (self.ref.id,), {}


def spawn(
    flow: Any, input: Any = None, *, key: str | None = None, abandon: bool = False
) -> Spawn:
    """Start a child flow and go on; what comes back is a `ChildRef`.

    The child starts in the commit of the turn that spawns it, exactly once. It has the
    namespace and the correlation id of its parent.

    Args:
        flow: a flow, or its name.
        input: the child's input.
        key: a business key, as for `Engine.start`; here a live holder is always a failure.
        abandon: when the parent is cancelled or terminated, the child goes on. Otherwise it
            is cancelled too. A parent that ends by itself leaves its children alone.

    Raises (at the yield):
        StepFailed: the key is held by a live instance (`KeyTaken`), or children are nested
            too deep (`TooDeep`).
        EncodingRefused: the input can't be kept in a log.
    """
    return Spawn(flow, input, key, abandon=abandon)


def join(
    ref: ChildRef[R], *, timeout: timedelta | float | None = None, default: Any = MISSING
) -> JoinChild:
    """Wait for a child's result; it may be joined again.

    Several at once are joined with ``gather(*map(tf.join, refs))``, k of them with its
    ``count=``, and with a deadline by ``race`` with a `sleep`.

    Args:
        ref: what `spawn` gave; only its own parent may join a child.
        timeout: how long to wait; the child goes on after it.
        default: what comes back when the timeout passes.

    Raises (at the yield):
        ChildFailed: the child failed or was cancelled.
        TimedOut: the timeout passed and no ``default=`` was given.
    """
    return JoinChild(_checked_ref(ref, "join"), *TimedWait.limits("join", timeout, default))


def child(flow: Any, input: Any = None, *, key: str | None = None) -> Child:
    """Start a child flow and wait for its result.

    As a branch that loses, it is cancelled; a losing `join` leaves its child alone.

    Raises (at the yield):
        ChildFailed: the child failed, was cancelled, or could not be started.
    """
    return Child(flow, input, key, abandon=False)


def cancel(ref: ChildRef[Any]) -> CancelChild:
    """Ask a child to end: it gets `FlowCancelled` at its yield. One that has ended stays so."""
    return CancelChild(_checked_ref(ref, "cancel"))


def _checked_flow(flow: object, key: object, what: str) -> str:
    """The name of a flow that is to be started under a key, or without one."""
    name = flow if isinstance(flow, str) else getattr(flow, "name", None)
    if not isinstance(name, str):
        raise DefinitionError(what, f"found {flow!r:.80}, expected a flow or its name")
    if key is not None and not is_key(key):
        raise DefinitionError(f"{what}(key=)", f"found {key!r:.80}, expected a text")
    return checked_name(name, what)


def _checked_ref(ref: ChildRef[R], what: str) -> ChildRef[R]:
    if not isinstance(ref, ChildRef):
        raise DefinitionError(
            what, f"found {ref!r:.80}, expected what spawn gave", "yield the spawn first"
        )
    return ref
