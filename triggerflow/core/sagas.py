"""Sagas: what a branch owes, and how it is undone.

A call with ``compensate=`` is owed from the moment it is armed: its attempt may do its work
and die before anybody hears of it. A failure of the step itself takes it off again; a
timeout doesn't, since nobody knows what the attempt had done. Each branch has a stack of its
own. It passes to the parent when the branch ends well; a branch that fails or loses undoes
its own stack before its end counts, so that whoever loses a race is refunded.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from triggerflow.core.effects import Call, Effect, Gather
from triggerflow.core.options import Options
from triggerflow.errors import DefinitionError, EncodingRefused, StepFailed, TimedOut

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence

    from triggerflow.core.codec import ValueCodec


class Owed:
    """A call that may have to be undone.

    Attributes:
        effect: the call.
        tag: its tag; a compensation waits until its attempt has ended.
        snapshot: its arguments as bytes, where they are mutable.
        result: what it returned; None where no entry holds it.
    """

    __slots__ = ("effect", "result", "snapshot", "tag")

    def __init__(self, effect: Call[Any], tag: str, snapshot: bytes | None) -> None:
        self.effect = effect
        self.tag = tag
        self.snapshot = snapshot
        self.result: Any = None


class Compensation(Call[Any]):
    """The step that undoes another: it runs like any other, after that one's attempt."""

    __slots__ = ("after",)
    kind = "compensate"
    after: str  # tag of the call that it undoes

    @property
    def key(self) -> str:
        return "compensate:" + self.name


class Compensate(Effect[Any]):
    """One compensation by hand: see `compensate`."""

    __slots__ = ("effect",)
    kind = "compensate"

    def __init__(self, effect: Call[Any]) -> None:
        super().__init__()
        self.effect = effect


class CompensateAll(Effect[list[Any]]):
    """All that is owed: see `compensate_all`."""

    __slots__ = ("parallel",)
    kind = "compensate_all"

    def __init__(self, *, parallel: bool) -> None:
        super().__init__()
        self.parallel = parallel


class Unwinding(Gather):
    """The branches in which a `compensate_all` runs; a cancel doesn't reach them."""

    __slots__ = ("one_by_one",)
    kind = "compensate_all"

    def __init__(self, effects: Sequence[Compensation], parallel: bool) -> None:
        parts = tuple(effects) if parallel else (undo(effects),)
        super().__init__(parts, None, return_failures=True)
        self.one_by_one = not parallel


def compensation(owed: Owed, codec: ValueCodec) -> Compensation:
    """The effect that undoes a call, with what the call was given and what it returned."""
    effect, options = owed.effect, owed.effect.options
    args, kwargs = effect.args, effect.kwargs
    if owed.snapshot is not None:
        args, kwargs = codec.decode(owed.snapshot)
    assert options.compensate is not None
    made = Compensation(options.compensate, (owed.result, *args), kwargs)
    made.options = Options(retry=options.retry, timeout=options.timeout, queue=options.queue)
    made.after = owed.tag
    # The driver makes it, so nobody can have forgotten to yield it.
    made.excuse()
    return made


def undo(
    effects: Sequence[Compensation], error: BaseException | None = None
) -> Generator[Any, Any, list[Any]]:
    """Run compensations one after another; one that fails doesn't stop the rest.

    Returns:
        What each returned, or its `StepFailed`. With `error`, that is raised at the end.
    """
    results: list[Any] = []
    for effect in effects:
        try:
            results.append((yield effect))
        except (StepFailed, TimedOut, EncodingRefused) as failed:
            results.append(failed)
    if error is not None:
        raised = [error]
        error = None
        raise raised.pop()
    return results


def compensate(effect: Call[Any]) -> Compensate:
    """Undo one call now: run its ``compensate=`` and owe it no more.

    The compensation is called with the call's result and its arguments.

    Args:
        effect: the call itself, as it was yielded.

    Raises (at the yield):
        EffectMisused: the flow doesn't owe it: it was never yielded, has failed, has no
            ``compensate=``, or was undone before.
        StepFailed: the compensation failed; it isn't tried again.
    """
    if not isinstance(effect, Call):
        raise DefinitionError(
            "compensate", f"found {effect!r:.80}, expected the call that was yielded"
        )
    return Compensate(effect)


def compensate_all(*, parallel: bool = False) -> CompensateAll:
    """Undo all that this branch owes, the last first, each once.

    One that fails is recorded and doesn't stop the rest. A crash in the middle goes on with
    the next one.

    Args:
        parallel: run all at once instead of one after the other.

    Returns (at the yield):
        A list: what each compensation returned, or the exception with which it failed, in
        the order of undoing.
    """
    return CompensateAll(parallel=parallel)
