"""Steps that work in the store's own database: their rows and their result are one commit.

`transaction` makes one of a plain function; `Transaction` is what the function works with.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Concatenate, Final, Generic, ParamSpec, Protocol, TypeVar
from typing import overload as _overload

from triggerflow.core.durations import seconds
from triggerflow.errors import DefinitionError

if TYPE_CHECKING:
    from datetime import timedelta

P = ParamSpec("P")
R = TypeVar("R")

# What a transaction may take of everybody's time, in seconds: without a word, and at most.
DEFAULT_LIMIT: Final = 1.0
LONGEST: Final = 10.0

Values = Sequence[Any] | Mapping[str, Any]


class Rows(Protocol):
    """What a statement gave. All of its rows have been read."""

    @property
    def rowcount(self) -> int:
        """How many rows it changed; -1 where it changes none."""
        ...

    @property
    def lastrowid(self) -> int | None:
        """The rowid of the last row that was inserted."""
        ...

    def fetchone(self) -> Any:
        """The next row, or None."""
        ...

    def fetchall(self) -> list[Any]:
        """The rows that are left."""
        ...

    def __iter__(self) -> Iterator[Any]:
        """The rows that are left, one by one."""
        ...


class Transaction(Protocol):
    """One transaction in the store's own database, for the time of one attempt of a step.

    Everything that was done through it is committed together with the step's result, or not
    at all. It can't be committed, rolled back or nested by hand, and triggerflow's own tables
    can only be read. The database's own exceptions come as they are. For tests of a step's
    function a ``sqlite3.Connection`` will do.
    """

    def execute(self, sql: str, values: Values = (), /) -> Rows:
        """Run one statement.

        Raises:
            TransactionError: it may not do this, or the transaction is over.
        """
        ...

    def executemany(self, sql: str, rows: Iterable[Values], /) -> Rows:
        """Run one statement for each of many rows of values; it may give no rows.

        Raises:
            TransactionError: it may not do this, or the transaction is over.
        """
        ...


class TransactionStep(Generic[P, R]):
    """A step that works in a transaction of the store: see `transaction`.

    Attributes:
        fn: the function, its first parameter the transaction.
        limit: how many seconds one transaction may take.
    """

    def __init__(
        self, fn: Callable[Concatenate[Transaction, P], R], name: str, limit: float
    ) -> None:
        self.fn = fn
        self.limit = limit
        self.__name__ = name
        self.__qualname__ = getattr(fn, "__qualname__", name)
        self.__module__ = getattr(fn, "__module__", __name__)
        self.__doc__ = fn.__doc__
        # Where tools look for the source.
        self.__wrapped__ = fn

    def __call__(self, tx: Transaction, /, *args: P.args, **kwargs: P.kwargs) -> R:
        """Call the function itself, with a transaction of one's own: for its tests."""
        if not hasattr(tx, "execute"):
            raise DefinitionError(
                f"transaction step {self.__name__!r}",
                f"was called with {type(tx).__name__} as its transaction",
                f"in a flow, write `yield tf.call({self.__name__}, ...)` without one; "
                "a partial or a wrapper of it is no transaction step",
            )
        return self.fn(tx, *args, **kwargs)

    def __repr__(self) -> str:
        return f"<transaction step {self.__name__}>"


@_overload
def transaction(fn: Callable[Concatenate[Transaction, P], R], /) -> TransactionStep[P, R]: ...
@_overload
def transaction(
    *, timeout: timedelta | float = DEFAULT_LIMIT, name: str | None = None
) -> Callable[[Callable[Concatenate[Transaction, P], R]], TransactionStep[P, R]]: ...
def transaction(
    fn: Callable[..., Any] | None = None,
    /,
    *,
    timeout: timedelta | float = DEFAULT_LIMIT,
    name: str | None = None,
) -> Any:
    """Decorator: a step whose work in the store's own database is done exactly once.

    The function's first parameter is a `Transaction`; the others are the call's. What it
    writes and what it returns are committed together, and only if the call still waits for
    it. Nobody else can write to the store meanwhile, so it must be short.

    Args:
        fn: a plain function.
        timeout: how long one transaction may take, ten seconds at most; then all of it is
            rolled back, and the attempt fails with `TimedOut`. ``.using(timeout=)`` sets
            another limit for one call.
        name: the step's name in tags; the function's by default.

    Raises:
        DefinitionError: the function is async or a generator, has no parameter for the
            transaction, or the timeout or the name can't be.
    """
    limit = seconds(timeout, "transaction(timeout=)")
    if not 0 < limit <= LONGEST:
        raise DefinitionError(
            "transaction(timeout=)",
            f"found {timeout!r}, expected more than 0 and at most {LONGEST:g} s",
            "nobody else can write meanwhile: do slow work in a plain step before it",
        )
    if fn is not None:
        return _define(fn, name, limit)
    return lambda each: _define(each, name, limit)


def _define(
    fn: Callable[..., Any], name: str | None, limit: float
) -> TransactionStep[..., Any]:
    label = name if name is not None else getattr(fn, "__name__", None)
    what = f"transaction step {label if label is not None else fn!r}"
    if not callable(fn) or isinstance(fn, TransactionStep):
        raise DefinitionError(what, f"found {fn!r}, expected a plain function")
    if not isinstance(label, str) or not label.isidentifier():
        raise DefinitionError(
            what, "has no plain name", "write a def, or give name= an identifier"
        )
    call: Any = getattr(fn, "__call__", None)  # noqa: B004
    for kind, found in {
        "a coroutine function": inspect.iscoroutinefunction,
        "an async generator function": inspect.isasyncgenfunction,
        "a generator function": inspect.isgeneratorfunction,
    }.items():
        if found(fn) or found(call):
            raise DefinitionError(
                what,
                f"is {kind}; a transaction step is a plain function",
                "write `def` and `return`: await in an async step before it, and hand "
                "over what it found",
            )
    try:
        first = next(iter(inspect.signature(fn).parameters.values()), None)
    except (TypeError, ValueError):
        return TransactionStep(fn, label, limit)
    if first is None or first.kind in (first.KEYWORD_ONLY, first.VAR_KEYWORD):
        raise DefinitionError(
            what, "has no parameter for the transaction", "let `tx` be its first one"
        )
    if first.name in {"self", "cls"}:
        raise DefinitionError(
            what, "is a method", "write a function of the module, `tx` its first parameter"
        )
    return TransactionStep(fn, label, limit)
