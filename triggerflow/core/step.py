"""Steps with a name of their own: a worker that has only the name can find the code."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, Generic, ParamSpec, TypeVar
from typing import overload as _overload

from triggerflow.core.transaction import TransactionStep
from triggerflow.errors import DefinitionError

P = ParamSpec("P")
R = TypeVar("R")


class Step(Generic[P, R]):
    """A step under a name that every worker knows it by: see `step`.

    It may be called like its function.

    Attributes:
        fn: the function.
        name: its name in queues, and in tags.
    """

    def __init__(self, fn: Callable[P, R], name: str) -> None:
        self.fn = fn
        self.name = name
        self.__name__ = name
        self.__qualname__ = getattr(fn, "__qualname__", name)
        self.__module__ = getattr(fn, "__module__", __name__)
        self.__doc__ = fn.__doc__
        # Where tools look for the source.
        self.__wrapped__ = fn

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Call the function itself: for its tests, and for other steps."""
        return self.fn(*args, **kwargs)

    def __repr__(self) -> str:
        return f"<step {self.name}>"


@_overload
def step(fn: Callable[P, R], /) -> Step[P, R]: ...
@_overload
def step(*, name: str | None = None) -> Callable[[Callable[P, R]], Step[P, R]]: ...
def step(fn: Callable[..., Any] | None = None, /, *, name: str | None = None) -> Any:
    """Decorator: a step that can be queued, once an app registers it.

    Args:
        fn: a plain function or a coroutine function.
        name: what workers know it by; the function's own name by default. Keep it when you
            rename the function: calls that are queued find it by this name.

    Raises:
        DefinitionError: it can't be a step, or can't have this name.
    """
    if fn is not None:
        return _define(fn, name)
    return lambda each: _define(each, name)


def _define(fn: Callable[..., Any], name: str | None) -> Step[..., Any]:
    label = name if name is not None else getattr(fn, "__name__", None)
    what = f"step {label if label is not None else fn!r}"
    if isinstance(fn, TransactionStep):
        raise DefinitionError(
            what,
            "is a transaction step, which works where its flow is driven",
            "write a plain step, and let a transaction step keep what it returns",
        )
    if not callable(fn) or isinstance(fn, Step):
        raise DefinitionError(what, f"found {fn!r:.80}, expected a function")
    if not isinstance(label, str) or not label.replace(".", "_").isidentifier():
        raise DefinitionError(
            what, "has no plain name", "write a def, or give name= an identifier, with dots"
        )
    call: Any = getattr(fn, "__call__", None)  # noqa: B004
    for kind, found in {
        "an async generator function": inspect.isasyncgenfunction,
        "a generator function": inspect.isgeneratorfunction,
    }.items():
        if found(fn) or found(call):
            raise DefinitionError(
                what, f"is {kind}; a step does its work and returns", "return a list instead"
            )
    return Step(fn, label)


def body_of(fn: Callable[..., Any]) -> Callable[..., Any]:
    """The function that does a step's work."""
    return fn.fn if isinstance(fn, Step) else fn
