"""The parts of a live drive: branches, the joins between them, and what they wait for.

A flow is one root branch; `gather` and `race` open a join with a branch for each part. A
plain effect as a part is wrapped in a one-line generator, so that there is one kind of
branch, and losing a race or being cancelled means the same for all of them.
"""

from __future__ import annotations

from types import GeneratorType
from typing import TYPE_CHECKING, Any

from triggerflow.core.effects import Effect, Gather, Race, Won
from triggerflow.core.failure import text_of
from triggerflow.core.sagas import Unwinding
from triggerflow.errors import FlowCancelled

if TYPE_CHECKING:
    from collections.abc import Generator
    from types import FrameType

    from triggerflow.core.sagas import Owed


class Waiting:
    """An effect that was taken and has no value yet."""

    __slots__ = ("branch", "digest", "effect", "owed", "snapshot", "tag")

    def __init__(self, branch: Branch, effect: Effect[Any], tag: str) -> None:
        self.branch = branch
        self.effect = effect
        self.tag = tag
        self.digest: bytes | None = None
        # The step's arguments as bytes, where they are mutable: the step gets its own copy
        # of what they were at the yield, or flow and step would share state that replay
        # can't see.
        self.snapshot: bytes | None = None
        # What the branch owes for it, where it has a compensation.
        self.owed: Owed | None = None


class Branch:
    """One generator and where it stands."""

    __slots__ = (
        "at",
        "cancel_due",
        "cancelled",
        "counts",
        "done",
        "generator",
        "join",
        "plain",
        "prefix",
        "slot",
        "stack",
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
        # A cancel that waits until a compensation has ended.
        self.cancel_due = False
        self.done = False
        self.stack: list[Owed] = []

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
        "failed",
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
        counts = isinstance(effect, Gather) and effect.count is not None
        self.value: Any = [] if counts else [None] * len(effect.parts)
        self.failed = 0
        self.error: BaseException | None = None

    def note(self, child: Branch, value: Any, error: BaseException | None) -> bool:
        """Take a branch's end; True if it is the one that decides."""
        child.done = True
        self.active -= 1
        if error is None:
            decides = self._returned(child, value)
        elif child.cancelled and isinstance(error, FlowCancelled):
            # A cancelled branch that ends through FlowCancelled did what it should.
            return False
        elif self._keeps(error):
            decides = self._returned(child, error)
        else:
            decides = self._raised(child, error)
        decides = decides and not self.decided
        self.decided = self.decided or decides
        return decides

    def _keeps(self, error: BaseException) -> bool:
        effect = self.effect
        return (
            isinstance(effect, Gather)
            and effect.return_failures
            and isinstance(error, Exception)
            and not self.decided
        )

    def _returned(self, child: Branch, value: Any) -> bool:
        effect = self.effect
        if isinstance(effect, Race):
            if not self.decided:
                self.winner = child.slot
                self.value = value
            return True
        if effect.count is None:
            self.value[child.slot] = value
            return False
        if self.decided:
            return False
        self.value.append(Won(child.slot, effect.names[child.slot], value))
        if len(self.value) < effect.count:
            return False
        # Enough came; that others had failed before is no matter any more.
        self.error = None
        return True

    def _raised(self, child: Branch, error: BaseException) -> bool:
        effect = self.effect
        if self.error is not None:
            self.error.add_note(
                f"branch {effect.label(child.slot)} failed too: "
                f"{type(error).__name__}: {text_of(error)}"
            )
        else:
            self.error = error
        if isinstance(effect, Race) or effect.count is None or self.decided:
            return True
        # As long as enough branches are left, k of n may still come.
        self.failed += 1
        return len(effect.parts) - self.failed < effect.count

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
        if isinstance(self.effect, Unwinding) and self.effect.one_by_one:
            return self.value[0], None
        return self.value, None

    @property
    def shielded(self) -> bool:
        """Whether its branches go on when it is cancelled: they undo what was done."""
        return isinstance(self.effect, Unwinding)


def plain(effect: Effect[Any]) -> Generator[Any, Any, Any]:
    """A branch around one effect."""
    return (yield effect)
