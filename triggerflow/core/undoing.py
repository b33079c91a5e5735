"""What a branch of a live drive owes, from the call that costs to the step that undoes it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from triggerflow.core.effects import Call, Effect
from triggerflow.core.sagas import CompensateAll, Owed, Unwinding, compensation, undo
from triggerflow.errors import EffectMisused

if TYPE_CHECKING:
    from triggerflow.core.branch import Branch
    from triggerflow.core.codec import ValueCodec
    from triggerflow.core.log import Entry


def owe(branch: Branch, effect: Call[Any], tag: str, snapshot: bytes | None) -> Owed | None:
    """Push what a call may cost to undo; None where it has no compensation.

    Args:
        snapshot: its arguments as they were at the yield, where they are mutable.
    """
    if effect.options.compensate is None:
        return None
    owed = Owed(effect, tag, snapshot)
    branch.stack.append(owed)
    return owed


def note_owed(branch: Branch, owed: Owed, entry: Entry, codec: ValueCodec) -> None:
    """Take note of what came of a call that may have to be undone."""
    if entry.failure is None:
        # The flow may change what it gets; the compensation is told what the step returned.
        owed.result = codec.copy(entry.value)
    elif entry.failure.kind == "error" and owed in branch.stack:
        # It failed by itself; after a timeout nobody knows what it had done.
        branch.stack.remove(owed)


def unwind(branch: Branch, effect: Any, codec: ValueCodec) -> Effect[Any]:
    """The effect behind a `compensate` or `compensate_all`; what it undoes is popped.

    Raises:
        EffectMisused: there is nothing to undo for it.
    """
    if isinstance(effect, CompensateAll):
        owed, branch.stack = branch.stack[::-1], []
        unwinding = Unwinding([compensation(each, codec) for each in owed], effect.parallel)
        unwinding.excuse()
        return unwinding
    holder: Branch | None = branch
    while holder is not None:
        for each in holder.stack:
            if each.effect is effect.effect:
                holder.stack.remove(each)
                return compensation(each, codec)
        holder = None if holder.join is None else holder.join.parent
    raise EffectMisused(
        f"compensate({effect.effect.describe()})",
        "the flow doesn't owe it: it was not yielded, has failed, has no compensate=, or was "
        "undone before",
    )


def begin_undoing(branch: Branch, error: BaseException, codec: ValueCodec) -> None:
    """Let a branch that has ended badly go on with its compensations, and then end so."""
    owed, branch.stack = branch.stack[::-1], []
    branch.generator = undo([compensation(each, codec) for each in owed], error)
    # Its line is its parent's now, and no cancel stops it.
    branch.plain = branch.cancelled = True
