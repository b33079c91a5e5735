"""How generators begin and end: those of flows, of branches, and evicted ones."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Generator
from types import AsyncGeneratorType, CoroutineType, GeneratorType, TracebackType
from typing import TYPE_CHECKING, Any, Final

from triggerflow.core.branch import Branch, Join
from triggerflow.core.effects import Effect
from triggerflow.core.wording import shown
from triggerflow.errors import DefinitionError, EffectMisused

if TYPE_CHECKING:
    from triggerflow.core.effects import Gather, Race

_MOST_CLOSING: Final = 1_000


def begin(flow: Any, input: Any) -> Generator[Any, Any, Any]:
    """The generator of a flow; one that raises or returns at once gets one too."""
    make: Callable[..., Any] = getattr(flow, "begin", flow)
    try:
        made = make(input)
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # noqa: BLE001 - whatever a flow raises is its failure
        trace = error.__traceback__
        return at_once(None, error.with_traceback(trace and trace.tb_next))
    if isinstance(made, GeneratorType):
        return made
    if isinstance(made, CoroutineType | AsyncGeneratorType):
        if isinstance(made, CoroutineType):
            made.close()
        return at_once(
            None,
            DefinitionError(
                f"flow {flow_name(flow)}", "is async, expected a plain generator function"
            ),
        )
    # A function without a yield has ended already.
    return at_once(made)


def at_once(value: Any, error: BaseException | None = None) -> Generator[Any, Any, Any]:
    """A generator that has ended already."""
    yield from ()
    if error is not None:
        raise error
    return value


def check_fresh(effect: Gather | Race) -> None:
    """Refuse sub-generators that can't be a branch, since they have begun or stand twice."""
    seen = set()
    for part in effect.parts:
        if not isinstance(part, GeneratorType):
            continue
        begun = part.gi_frame is None or part.gi_suspended or part.gi_running
        if begun or id(part) in seen:
            raise EffectMisused(
                f"{effect.kind}({part.__name__}(...))",
                "has begun already" if begun else "stands in two branches",
                "call the generator function once for each branch",
            )
        seen.add(id(part))


def excuse(trace: TracebackType | None) -> None:
    """Excuse the effects in the frames of an error, in lists and dicts too."""
    while trace is not None:
        for value in list(trace.tb_frame.f_locals.values()):
            kind = type(value)
            if kind is list or kind is tuple or kind is dict:
                held = value.values() if kind is dict else value
            else:
                held = (value,)
            for each in held:
                if isinstance(each, Effect):
                    each.excuse()
        trace = trace.tb_next


class _Evicted(BaseException):
    """Thrown into a generator that nobody will drive on."""


def close(branch: Branch) -> None:
    """Close innermost first; a generator that yields or raises on its way is left alone."""
    waiting = branch.waiting
    if isinstance(waiting, Join):
        for child in waiting.children:
            close(child)
    generator: Any = branch.generator
    # Not `close`: with a yield on its way out, and a `yield from` around that, Python would
    # complain on stderr. What can't stop yielding is given up after a while.
    for _ in range(_MOST_CLOSING):
        if generator.gi_frame is None:
            return
        with contextlib.suppress(BaseException):
            generator.throw(_Evicted())


def flow_name(flow: Any) -> str:
    """``name/version`` of a flow, or the name of a function."""
    name = str(getattr(flow, "name", None) or getattr(flow, "__name__", None) or shown(flow))
    version = getattr(flow, "version", None)
    return name if version is None else f"{name}/{version}"
