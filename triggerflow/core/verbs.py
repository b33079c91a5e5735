"""The functions with which flows make effects: ``yield tf.call(...)`` and the like."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from datetime import datetime
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar, overload

from triggerflow.core.durations import seconds
from triggerflow.core.effects import (
    MISSING,
    Branch,
    Call,
    ContinueAsNew,
    Gather,
    Inbox,
    Now,
    Patched,
    Race,
    Random,
    SideEffect,
    Sleep,
    SleepUntil,
    TimedWait,
    Uuid4,
    WaitSignal,
)
from triggerflow.core.tags import checked_name
from triggerflow.errors import DefinitionError

if TYPE_CHECKING:
    from datetime import timedelta

    from triggerflow.core.transaction import TransactionStep

R = TypeVar("R")
P = ParamSpec("P")


@overload
def call(fn: TransactionStep[P, R], /, *args: P.args, **kwargs: P.kwargs) -> Call[R]: ...
@overload
def call(
    fn: Callable[P, Coroutine[Any, Any, R]], /, *args: P.args, **kwargs: P.kwargs
) -> Call[R]: ...
@overload
def call(fn: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> Call[R]: ...
def call(fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Call[Any]:
    """Run a step: a function with side effects, plain or async, at least once.

    Its result is recorded exactly once and comes back at the yield. The arguments are the
    step's own; how it is run goes into ``.using(...)``. Arguments and result must be
    values that the log can keep.

    Raises (at the yield):
        StepFailed: the step is out of attempts.
        EncodingRefused: an argument can't be kept in a log; the error names its path.
        DefinitionError: the callable has no plain name and ``.using(name=)`` gave none.
    """
    return Call(fn, args, kwargs)


def sleep(duration: timedelta | float) -> Sleep:
    """Wait for a timedelta or a number of seconds, however long, across restarts."""
    return Sleep(seconds(duration, "sleep"))


def sleep_until(moment: datetime | float) -> SleepUntil:
    """Wait until an aware datetime, or seconds since the epoch.

    Raises:
        DefinitionError: a naive datetime; which zone it means can't be known.
    """
    if isinstance(moment, datetime):
        if moment.tzinfo is None:
            raise DefinitionError(
                "sleep_until",
                f"found the naive datetime {moment!r}, expected an aware one",
                "give it a zone, such as tzinfo=datetime.UTC",
            )
        return SleepUntil(moment.timestamp())
    return SleepUntil(seconds(moment, "sleep_until"))


def wait_signal(
    name: str | tuple[str, ...] | list[str],
    *,
    all: bool = False,
    timeout: timedelta | float | None = None,
    default: Any = MISSING,
) -> WaitSignal[Any]:
    """Wait for a message to this instance, one that came earlier included.

    Messages of one name come in the order in which they were sent.

    Args:
        name: one name (the payload comes back), or several (a `Signal` comes back).
        all: take all that are there, at least one, and no more than 16 MiB together: a list
            comes back.
        timeout: how long to wait; None for ever.
        default: what comes back when the timeout passes.

    Raises (at the yield):
        TimedOut: the timeout passed and no ``default=`` was given.
    """
    names = _signal_names(name, "wait_signal")
    limit, fallback = TimedWait.limits("wait_signal", timeout, default)
    return WaitSignal(
        names, single=isinstance(name, str), all=all, timeout=limit, default=fallback
    )


def inbox(names: str | tuple[str, ...] | list[str] | None = None) -> Inbox:
    """Look at the messages that are there now, as `Signal` objects; none is consumed.

    Args:
        names: only those of this name, or of these; None for all.

    Raises (at the yield):
        StepFailed: they are over 48 MiB together.
    """
    return Inbox(None if names is None else _signal_names(names, "inbox"))


def _signal_names(name: object, what: str) -> tuple[str, ...]:
    if not isinstance(name, str | tuple | list):
        raise DefinitionError(what, f"found {name!r}, expected a name or several")
    names = (name,) if isinstance(name, str) else tuple(name)
    if not names:
        raise DefinitionError(what, "found no name, expected one or several")
    if len(set(names)) != len(names):
        raise DefinitionError(what, f"a name stands twice in {names!r}")
    for each in names:
        if "|" in checked_name(each, what):
            raise DefinitionError(what, f"name {each!r} may not hold |")
    return names


def gather(
    *branches: Branch, count: int | None = None, return_failures: bool = False
) -> Gather:
    """Run branches side by side; their results come back as a list, in their order.

    A branch is an effect or a sub-generator. The first failure cancels the others, which
    may still clean up, and is raised once all have ended.

    Args:
        branches: what to run.
        count: so many are enough: the list has a `Won` for each of the first `count` that
            returned, in that order, and the others are cancelled as in a `race`. A failure
            is raised once too few are left.
        return_failures: a failure comes back in the list, as the exception, and cancels
            nobody.

    Raises:
        DefinitionError: `count` is not from 1 to the number of branches.
    """
    if count is not None and (
        not isinstance(count, int) or isinstance(count, bool) or not 1 <= count <= len(branches)
    ):
        raise DefinitionError(
            "gather(count=)", f"found {count!r}, expected 1 to {len(branches)}, its branches"
        )
    return Gather(branches, count, return_failures=return_failures)


def race(*branches: Branch, **named: Branch) -> Race:
    """Run branches side by side until the first ends; the others are cancelled.

    Returns a `Won`. A losing sub-generator gets `FlowCancelled` at its yield and is driven
    until it ends, then the race returns; what it raises meanwhile, the race raises.
    """
    if not branches and not named:
        raise DefinitionError("race", "has no branch, so nobody can win it")
    for name in named:
        if checked_name(name, "race").isdigit():
            raise DefinitionError(
                "race", f"name {name!r} may not be a number: branches have those"
            )
    return Race((*branches, *named.values()), ((None,) * len(branches)) + tuple(named))


def now() -> Now:
    """The time (UTC) on the log entry that moved this branch. Costs no entry."""
    return Now()


def uuid4() -> Uuid4:
    """A random UUID that every replay makes again. Costs no entry."""
    return Uuid4()


def random() -> Random:
    """A random float in [0, 1) that every replay makes again. Costs no entry."""
    return Random()


def side_effect(fn: Callable[[], R], *, name: str | None = None) -> SideEffect[R]:
    """Record what a short function returns, such as a setting or a feature flag.

    It is durable before the next effect is performed. What it raises is its recorded
    failure. It must be quick: it runs inside the turn. Work belongs into `call`.
    """
    label = name if name is not None else getattr(fn, "__name__", "")
    if not label.isidentifier() and name is None:
        label = "value"
    return SideEffect(fn, checked_name(label, "side_effect"))


def continue_as_new(input: Any = None, *, compensations: str = "keep") -> ContinueAsNew:
    """End this generation and begin the next one, under the same id, with a new input.

    The next generation has an empty log, so a flow without an end stays cheap to replay. It
    takes the latest version of the flow that its worker knows. Unread signals and children
    that weren't joined go along; timers and waits end. Nothing after the yield is run.

    Args:
        input: the next generation's input.
        compensations: ``"drop"`` forgets what the flow still owes.

    Raises (at the yield):
        EffectMisused: it was yielded inside a branch of `gather` or `race`, or while
            compensations are left.
        EncodingRefused: the input can't be kept in a log.
    """
    if compensations not in ("keep", "drop"):
        raise DefinitionError(
            "continue_as_new(compensations=)", f"found {compensations!r:.80}, expected 'drop'"
        )
    return ContinueAsNew(input, drop=compensations == "drop")


def patched(id: str) -> Patched:
    """Guard a change of a flow: True for runs that meet it first with the new code.

    The first decision for an id holds for the whole generation. `Engine.patches` and
    ``triggerflow patches`` tell when a branch may be removed.
    """
    return Patched(checked_name(id, "patched"))
