"""How an engine runs, and what code it runs."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import attrs

from triggerflow.core.codec import Limits, ValueCodec
from triggerflow.core.envelopes import ENVELOPES, Envelope
from triggerflow.core.tags import checked_name
from triggerflow.engine.clock import Clock, SystemClock
from triggerflow.errors import DefinitionError

if TYPE_CHECKING:
    from triggerflow.core.activity import Activity
    from triggerflow.core.step import Step
    from triggerflow.flows.registry import FlowRegistry
    from triggerflow.triggers import Guard, Trigger


def _at_least(lowest: float) -> Callable[[Any, Any, Any], None]:
    def check(_: Any, attribute: Any, value: Any) -> None:
        if not isinstance(value, int | float) or isinstance(value, bool) or value < lowest:
            raise DefinitionError(
                f"setting {attribute.name}", f"found {value!r}, expected {lowest:g} or more"
            )

    return check


def _names(value: Any) -> tuple[str, ...]:
    if isinstance(value, str):
        raise DefinitionError(
            "setting queues", f"found {value!r}, expected several names", f"queues=[{value!r}]"
        )
    return tuple(checked_name(each, "setting queues") for each in value)


@attrs.frozen(kw_only=True)
class Settings:
    """How an engine runs.

    Attributes:
        work: drive flows here; otherwise only write and ask.
        register: make the app's triggers current; otherwise the store's stay as they are.
        deferred: leave the dispatch of appended activities to workers.
        threads: how many plain steps may run at once.
        capacity: how many instances may be owned at once.
        backlog: how many operations of callers (appends, starts, signals ...) may wait in
            the committer; more wait for room.
        patience: seconds that an append or start waits at most where it would start a flow
            and this worker is full.
        queues: whose queued calls run here, as far as the app has their steps; at most
            `threads` at once.
        only_queues: run queued calls and nothing else: own no instance.
        keep_warm: how many parked instances keep their live replay.
        lease: seconds without a sign of life after which a worker counts as dead.
        guard_limit: seconds that a guard may take.
        drain: seconds that a closing engine waits for steps that run; one that runs on is
            given up, and runs again when its instance is claimed.
        limits: size and depth of documents.
        always_replay: re-drive from the stored log before every turn, so that code which
            isn't deterministic blocks at once instead of at the next crash: for tests.
        inline: run commits and plain steps on the loop's thread, for virtual time.
        clock: where the time comes from.
    """

    work: bool = True
    register: bool = True
    deferred: bool = False
    threads: int = attrs.field(default=32, validator=_at_least(1))
    capacity: int = attrs.field(default=2000, validator=_at_least(1))
    backlog: int = attrs.field(default=5000, validator=_at_least(1))
    patience: float = attrs.field(default=1.0, validator=_at_least(0))
    queues: tuple[str, ...] = attrs.field(default=(), converter=_names)
    only_queues: bool = False
    keep_warm: int = attrs.field(default=1000, validator=_at_least(0))
    lease: float = attrs.field(default=30.0, validator=_at_least(0.1))
    guard_limit: float = attrs.field(default=5.0, validator=_at_least(0))
    drain: float = attrs.field(default=2.0, validator=_at_least(0))
    limits: Limits = attrs.field(factory=Limits)
    always_replay: bool = False
    inline: bool = False
    clock: Clock = attrs.field(factory=SystemClock)

    def __attrs_post_init__(self) -> None:
        if self.queues and not self.work:
            raise DefinitionError(
                "setting queues", "needs an engine that works", "leave work=False out"
            )
        if self.only_queues and not self.queues:
            raise DefinitionError(
                "setting only_queues", "there is no queue", "name some: queues=[...]"
            )


@attrs.frozen(kw_only=True)
class Code:
    """What an app brings: flows, triggers, guards, classes, and its plugins' say.

    Attributes:
        retention: seconds that ended instances are kept, where their flow doesn't say.
        activity_retention: seconds that documents are kept.
        steps: registered steps by name.
        envelopes: how documents may be read, by name.
    """

    flows: FlowRegistry
    triggers: tuple[Trigger, ...]
    guards: dict[str, Guard]
    codec: ValueCodec
    build: str
    retention: float = math.inf
    activity_retention: float = math.inf
    steps: Mapping[str, Step[..., Any]] = attrs.field(factory=dict)
    envelopes: dict[str, Envelope] = attrs.field(factory=lambda: dict(ENVELOPES))
    validate: Callable[[Activity], None] | None = None
    announced: Callable[[Activity, Any], None] | None = None
