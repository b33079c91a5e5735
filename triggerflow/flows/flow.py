"""A flow: a name, a version, and the generator function behind them."""

from __future__ import annotations

import hashlib
import inspect
import math
import re
from collections.abc import Callable, Iterable, Mapping
from datetime import timedelta
from types import CodeType, FunctionType
from typing import Any, Literal, overload

import attrs

from triggerflow.core.admission import Concurrency, Control
from triggerflow.core.durations import seconds
from triggerflow.core.tags import checked_name
from triggerflow.errors import DefinitionError

Validator = Callable[[Any], object]
Signals = Iterable[str] | Mapping[str, Validator | None]
Retention = timedelta | float | Literal["app"] | None


@attrs.frozen(eq=False)
class Flow:
    """One version of a flow.

    Attributes:
        name: what triggers, `start` and the command line call it.
        version: instances stay with the version that they started with.
        fn: the generator function: of one argument, the input, or of none.
        takes_input: whether `fn` has a parameter.
        signals: the signals that it takes, name -> validator or None; None for any.
        code_hash: digest of the function's code: names, constants and instructions,
            nested functions included; layout and comments don't count.
        retention: seconds that an ended instance is kept; infinite for ever, None for as
            long as the app says.
        control: how many are under way at once, and in which order they begin, or None.
    """

    name: str
    version: int
    fn: Callable[..., Any]
    takes_input: bool
    code_hash: str
    signals: Mapping[str, Validator | None] | None = None
    retention: float | None = None
    control: Control | None = None

    def begin(self, input: Any) -> Any:
        """A new generator of this flow."""
        return self.fn(input) if self.takes_input else self.fn()

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call the function itself, so that flows can be used as sub-generators."""
        return self.fn(*args, **kwargs)

    def refusal(self, name: str, payload: Any) -> str | None:
        """Why a signal is not one of those that the flow declares, or None."""
        if self.signals is None:
            return None
        if name not in self.signals:
            return f"it takes {', '.join(map(repr, self.signals)) or 'no signals'}"
        validator = self.signals[name]
        if validator is None:
            return None
        try:
            return "its validator returned False" if validator(payload) is False else None
        except Exception as error:  # noqa: BLE001 - whatever it raises is its refusal
            return f"its validator raised {type(error).__name__}: {error}"

    @property
    def label(self) -> str:
        """``name/version``."""
        return f"{self.name}/{self.version}"

    @property
    def location(self) -> str:
        """``file:line`` of the definition, or ""."""
        code = getattr(inspect.unwrap(self.fn), "__code__", None)
        return "" if code is None else f"{code.co_filename}:{code.co_firstlineno}"


def define_flow(
    fn: Callable[..., Any],
    *,
    name: str | None = None,
    version: int = 1,
    signals: Signals | None = None,
    retention: Retention = "app",
    concurrency: Concurrency | Mapping[str, Any] | int | None = None,
    priority: int | str = 0,
) -> Flow:
    """Make a flow of a generator function.

    Args:
        fn: the generator function.
        name: the flow's name; the function's by default.
        version: instances stay with the version that they started with.
        signals: the names of the signals that it takes, or name -> validator, a function
            of the payload that raises or returns False to refuse it. Others are refused
            where they are sent, before anything is stored.
        retention: how long an instance is kept once it has ended; None keeps it for ever,
            ``"app"`` as long as the app says.
        concurrency: how many instances are under way at once: a `Concurrency`, a dict of its
            fields, or a number.
        priority: the higher first, where several wait: a number, or a path to one in the
            input.

    Raises:
        DefinitionError: the function is a coroutine function or an async generator, takes
            more than one argument, or its name or version can't be used.
    """
    if isinstance(fn, Flow):
        raise DefinitionError(f"flow {fn.name!r}", "is a flow already")
    if not callable(fn):
        raise DefinitionError(f"flow({fn!r})", "found no function")
    label = name if name is not None else getattr(fn, "__name__", "")
    what = f"flow {label!r}"
    if inspect.isasyncgenfunction(fn) or inspect.iscoroutinefunction(fn):
        kind = (
            "an async generator" if inspect.isasyncgenfunction(fn) else "a coroutine function"
        )
        raise DefinitionError(
            what,
            f"{getattr(fn, '__name__', fn)!s} is {kind}; a flow is a generator function",
            "write `def` and `yield tf.call(...)`; the steps that it calls may be async",
        )
    checked_name(label, what)
    if label == "<lambda>":
        raise DefinitionError(what, "a lambda has no name", "write a def, or give name=")
    if not isinstance(version, int) or isinstance(version, bool) or version < 1:
        raise DefinitionError(
            what, f"version is {version!r}, expected a whole number from 1 up"
        )
    return Flow(
        label,
        version,
        fn,
        _takes_input(fn, what),
        code_hash(fn),
        _declared(signals, what),
        kept_for(retention, what),
        _control(concurrency, priority, what),
    )


def kept_for(retention: Retention, what: str) -> float | None:
    """A retention in seconds; infinite for ever, None where the app decides.

    Raises:
        DefinitionError: it is none.
    """
    if retention is None:
        return math.inf
    if isinstance(retention, str):
        if retention == "app":
            return None
        raise DefinitionError(
            what, f"retention={retention!r}, expected a duration, None, or 'app'"
        )
    return seconds(retention, f"{what}, retention=")


@overload
def flow(fn: Callable[..., Any], /) -> Flow: ...
@overload
def flow(
    *,
    name: str | None = None,
    version: int = 1,
    signals: Signals | None = None,
    retention: Retention = "app",
    concurrency: Concurrency | Mapping[str, Any] | int | None = None,
    priority: int | str = 0,
) -> Callable[[Callable[..., Any]], Flow]: ...
def flow(
    fn: Callable[..., Any] | None = None,
    /,
    *,
    name: str | None = None,
    version: int = 1,
    signals: Signals | None = None,
    retention: Retention = "app",
    concurrency: Concurrency | Mapping[str, Any] | int | None = None,
    priority: int | str = 0,
) -> Flow | Callable[[Callable[..., Any]], Flow]:
    """Decorator that makes a generator function a flow, for modules without an app.

    A plugin registers the result with ``app.register``; with an app at hand, ``@app.flow``
    does both.
    """

    def define(each: Callable[..., Any]) -> Flow:
        return define_flow(
            each,
            name=name,
            version=version,
            signals=signals,
            retention=retention,
            concurrency=concurrency,
            priority=priority,
        )

    return define if fn is None else define(fn)


def _control(
    concurrency: Concurrency | Mapping[str, Any] | int | None, priority: int | str, what: str
) -> Control | None:
    try:
        # Nothing asked is none at all.
        return Control(concurrency=concurrency, priority=priority) or None
    except DefinitionError as error:
        raise DefinitionError(f"{what}, {error.what}", error.problem, error.remedy) from None


def _declared(signals: Signals | None, what: str) -> Mapping[str, Validator | None] | None:
    if signals is None:
        return None
    if isinstance(signals, str) or not isinstance(signals, Iterable):
        raise DefinitionError(
            what, f"signals= is {signals!r:.80}, expected names, or a dict of validators"
        )
    declared = dict(signals) if isinstance(signals, Mapping) else dict.fromkeys(signals)
    for each, validator in declared.items():
        checked_name(each, what)
        if validator is not None and not callable(validator):
            raise DefinitionError(what, f"the validator of signal {each!r} can't be called")
    return declared


def _takes_input(fn: Callable[..., Any], what: str) -> bool:
    try:
        parameters = list(inspect.signature(fn).parameters.values())
    except (TypeError, ValueError):
        return True
    required = [
        p
        for p in parameters
        if p.default is p.empty and p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)
    ]
    if len(required) > 1 or any(p.kind is p.KEYWORD_ONLY for p in required):
        raise DefinitionError(
            what,
            f"takes ({', '.join(p.name for p in required)}), expected one argument: the input",
            "let the input be a dict, or a registered attrs class",
        )
    return any(p.kind is not p.VAR_KEYWORD and p.kind is not p.KEYWORD_ONLY for p in parameters)


def code_hash(fn: Callable[..., Any]) -> str:
    """Digest of what a function's code does, stable over processes and layout."""
    digest = hashlib.sha256()
    target = inspect.unwrap(fn)
    code = getattr(target, "__code__", None)
    if isinstance(target, FunctionType) and isinstance(code, CodeType):
        _feed_code(digest, code)
        defaults = (target.__defaults__, sorted((target.__kwdefaults__ or {}).items()))
        # Addresses in a repr differ from process to process.
        digest.update(re.sub(r" at 0x[0-9a-f]+", "", repr(defaults)).encode())
    else:
        digest.update(repr(getattr(fn, "__qualname__", type(fn))).encode())
    return digest.hexdigest()[:16]


def _feed_code(digest: Any, code: CodeType) -> None:
    digest.update(code.co_code)
    for names in (code.co_names, code.co_varnames, code.co_freevars, code.co_cellvars):
        digest.update(repr(names).encode())
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            _feed_code(digest, constant)
        elif isinstance(constant, frozenset):
            # Its order differs from process to process.
            digest.update(repr(sorted(map(repr, constant))).encode())
        else:
            digest.update(repr(constant).encode())
