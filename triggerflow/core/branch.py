"""The parts of a live drive: branches, the joins between them, and what they wait for.

A flow is one root branch; `gather` and `race` open a join with a branch for each part. A
plain effect as a part is wrapped in a one-line generator, so that there is one kind of
branch, and losing a race or being cancelled means the same for all of them.
"""

from __future__ import annotations

from types import GeneratorType
from typing import TYPE_CHECKING, Any

from triggerflow.core.effects import Effect, Race, Won
from triggerflow.core.failure import text_of
from triggerflow.errors import FlowCancelled

if TYPE_CHECKING:
    from collections.abc import Generator
    from types import FrameType

    from triggerflow.core.effects import Gather


class Waiting:
    """An effect that was taken and has no value yet."""

    __slots__ = ("branch", "digest", "effect", "snapshot", "tag")

    def __init__(self, branch: Branch, effect: Effect[Any], tag: str) -> None:
        self.branch = branch
        self.effect = effect
        self.tag = tag
        self.digest: bytes | None = None
        # The step's arguments as bytes, where they are mutable: the step gets its own copy
        # of what they were at the yield, or flow and step would share state that replay
        # can't see.
        self.snapshot: bytes | None = None


class Branch:
    """One generator and where it stands."""

    __slots__ = (
        "at",
        "cancelled",
        "counts",
        "done",
        "generator",
        "join",
        "plain",
        "prefix",
        "slot",
        "waiting",
    )

    def __init__(
        self,
        generator: Generator[Any, Any, Any],
        *,
        prefix: str = "",
        join: Join | None = None,
        slot: int = 0,
        at: float = 0.0,
        plain: bool = False,
    ) -> None:
        self.generator = generator
        self.prefix = prefix
        self.counts: dict[str, int] = {}
        self.join = join
        self.slot = slot
        self.at = at
        self.plain = plain
        self.waiting: Waiting | Join | None = None
        self.cancelled = False
        self.done = False

    def frame(self) -> FrameType | None:
        """The innermost frame of user code that this branch stands in."""
        if self.plain and self.join is not None:
            return self.join.parent.frame()
        frame: FrameType | None = None
        generator: object = self.generator
        while isinstance(generator, GeneratorType) and generator.gi_frame is not None:
            # `yield from effect` puts Effect.__iter__ on top; the user's line is below it.
            if generator.gi_code is Effect.__iter__.__code__:
                break
            frame = generator.gi_frame
            generator = generator.gi_yieldfrom
        return frame

    def location(self) -> str:
        """``file:line`` of the yield that this branch stands at, or ""."""
        frame = self.frame()
        return "" if frame is None else f"{frame.f_code.co_filename}:{frame.f_lineno}"


class Join:
    """A `gather` or `race` in progress.

    Its first end decides: a winner, or a failure. From then on it only waits until the
    other branches, cancelled, have ended too.
    """

    __slots__ = (
        "active",
        "cancelled",
        "children",
        "decided",
        "effect",
        "error",
        "holds",
        "parent",
        "value",
        "winner",
    )

    def __init__(self, parent: Branch, effect: Gather | Race) -> None:
        self.parent = parent
        self.effect = effect
        self.children: list[Branch] = []
        self.active = 0
        # While this is above zero someone iterates over the children, and the join may
        # not hand over to its parent yet.
        self.holds = 0
        self.decided = False
        self.cancelled = False
        self.winner: int | None = None
        self.value: Any = [None] * len(effect.parts)
        self.error: BaseException | None = None

    def note(self, child: Branch, value: Any, error: BaseException | None) -> bool:
        """Take a branch's end; True if it is the one that decides."""
        child.done = True
        self.active -= 1
        if error is not None:
            # A cancelled branch that ends through FlowCancelled did what it should.
            if child.cancelled and isinstance(error, FlowCancelled):
                return False
            if self.error is None:
                self.error = error
            else:
                self.error.add_note(
                    f"branch {self.effect.label(child.slot)} failed too: "
                    f"{type(error).__name__}: {text_of(error)}"
                )
        elif isinstance(self.effect, Race):
            if not self.decided:
                self.winner = child.slot
                self.value = value
        else:
            self.value[child.slot] = value
        decides = not self.decided and (error is not None or isinstance(self.effect, Race))
        self.decided = self.decided or decides
        return decides

    def outcome(self) -> tuple[Any, BaseException | None]:
        """What the parent gets once every branch has ended; handed over, not kept."""
        error, self.error = self.error, None
        if self.cancelled:
            cancelled = FlowCancelled()
            cancelled.__cause__ = error
            return None, cancelled
        if error is not None:
            return None, error
        if isinstance(self.effect, Race):
            slot = self.winner or 0
            return Won(slot, self.effect.names[slot], self.value), None
        return self.value, None


def plain(effect: Effect[Any]) -> Generator[Any, Any, Any]:
    """A branch around one effect."""
    return (yield effect)
