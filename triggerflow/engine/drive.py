"""One turn in the making: resolutions are fed to the replay, and become rows.

What settles at once (patch marks, side effects, spawns) comes before the next resolution.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final

import attrs

from triggerflow.core.log import RETRIED, Entry
from triggerflow.store.acts import CloseTask
from triggerflow.store.operations import LogRow

if TYPE_CHECKING:
    from triggerflow.core.branch import Waiting
    from triggerflow.core.codec import Limits, ValueCodec
    from triggerflow.core.driver import Replay
    from triggerflow.core.failure import Failure
    from triggerflow.core.step import Step
    from triggerflow.engine.running import Running
    from triggerflow.engine.validating import Validate
    from triggerflow.flows.registry import FlowRegistry
    from triggerflow.store.acts import Act
    from triggerflow.store.records import InboxRow

# A turn with so many entries, or bytes in them and in its acts, commits and goes on: no
# transaction grows without bound. One value may be as large as this by itself.
_MOST_ENTRIES: Final = 10_000
_MOST_BYTES: Final = 16 * 1024 * 1024
# None, encoded: the value of entries that carry none.
NONE: Final = b"\xf6"


Settle = Callable[["Drive", str, "Waiting"], None]


@attrs.frozen
class Around:
    """What a turn needs of the app that it runs in."""

    codec: ValueCodec
    flows: FlowRegistry
    limits: Limits
    validate: Validate | None = None
    steps: Mapping[str, Step[..., Any]] = attrs.field(factory=dict)


class Drive:
    """One turn in the making.

    Attributes:
        acts: what it does towards others.
        rows: its log entries.
        consumed: the messages that it took.
        perform: tags of the calls to run once it is durable.
        size: bytes in its entries and acts, about.
        lost: tag -> why nobody waits for its attempt any more, once it is durable.
    """

    __slots__ = (
        "_see_to",
        "acts",
        "around",
        "codec",
        "consumed",
        "lost",
        "now",
        "perform",
        "replay",
        "rows",
        "run",
        "settling",
        "size",
    )

    def __init__(
        self, run: Running, replay: Replay, around: Around, settle: Settle, now: float
    ) -> None:
        self.run = run
        self.replay = replay
        self.around = around
        self._see_to = settle
        self.codec = around.codec
        self.now = now
        self.acts: list[Act] = []
        self.rows: list[LogRow] = []
        self.consumed: list[InboxRow] = []
        self.perform: list[str] = []
        self.lost: dict[str, str] = {}
        self.settling = False
        self.size = 0

    @property
    def full(self) -> bool:
        """Whether the rest must wait for the next turn."""
        return len(self.rows) >= _MOST_ENTRIES or self.size >= _MOST_BYTES

    def begin(self) -> None:
        """What the drive itself recorded, before anything is fed."""
        for row in self.run.retried:
            self.rows.append(LogRow(RETRIED, NONE, False, None, self.now))
            self.consumed.append(row)
        self.run.retried = []
        self._settle()

    def feed(
        self, tag: str, blob: bytes, value: Any = None, failure: Failure | None = None
    ) -> None:
        """Resolve one effect."""
        kept = self.run.pending.pop(tag, None)
        if kept is not None:
            digest = kept.digest
            if kept.queue is not None:
                self.acts.append(CloseTask(tag))
        else:
            # Armed in this very turn, or no effect at all, such as a cancel.
            waiting = self.replay.pending.get(tag)
            digest = None if waiting is None else self.replay.digest_of(waiting)
        self.replay.resolve(Entry(tag, value, failure, None, self.now))
        self.rows.append(LogRow(tag, blob, failure is not None, digest, self.now))
        self.size += len(blob)
        if self.replay.recorded or self.replay.unsettled:
            self._settle()

    def fail(self, tag: str, failure: Failure) -> None:
        """Resolve one effect with a failure."""
        self.feed(tag, self.codec.encode(failure.to_record()), None, failure)

    def _settle(self) -> None:
        """Patch marks and what settles at once come before the next resolution."""
        if self.settling:
            # One was fed just now: the loop below goes on with what it set free.
            return
        self.settling = True
        replay = self.replay
        while replay.recorded or (replay.unsettled and not self.full):
            recorded, replay.recorded = replay.recorded, []
            for entry in recorded:
                blob = self.codec.encode(entry.value)
                self.rows.append(LogRow(entry.tag, blob, False, None, self.now))
            if replay.unsettled and not self.full:
                tag = replay.unsettled.pop(0)
                waiting = replay.pending.get(tag)
                if waiting is not None:
                    # What it sends, or starts a child with, is an act of this turn.
                    self.size += len(waiting.snapshot or b"")
                    self._see_to(self, tag, waiting)
        self.settling = False
