"""The determinism lint: what in a flow would not come out the same in a replay.

It reads the source of a flow function, and of the project's functions that it calls, and
names each hazard by file and line with what to write instead. An error is given only for
what surely is the forbidden thing; what can't be followed is a warning at most. It proves
nothing: strict replay is what holds a flow to its log. What is inside a step, a side
effect, a library or a `trusted` function is not looked at.
"""

from __future__ import annotations

import ast
import functools
import itertools
from types import FunctionType, MethodType
from typing import TYPE_CHECKING, Any, Final, TypeVar

from triggerflow.errors import DefinitionError
from triggerflow.flows.calls import (
    Inner,
    Known,
    Made,
    Scope,
    Space,
    unwrapped,
)
from triggerflow.flows.debts import Debts
from triggerflow.flows.flow import Flow
from triggerflow.flows.reading import Finding, Following, Reading, Unit
from triggerflow.flows.sources import is_project, source_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from triggerflow.flows.calls import Meaning
    from triggerflow.flows.sources import Def

F = TypeVar("F", bound="Callable[..., Any]")


_MARK: Final = "__triggerflow_trusted__"
_MOST: Final = 500


def trusted(fn: F) -> F:
    """Declare that a helper is the same in each replay: the lint doesn't look into it.

    Raises:
        DefinitionError: it is no function or class of one's own.
    """
    try:
        setattr(fn, _MARK, True)
    except (AttributeError, TypeError):
        raise DefinitionError(
            f"trusted({fn!r})", "can't be marked", "wrap it in a function of your own"
        ) from None
    return fn


def lint_flow(fn: Callable[..., Any]) -> list[Finding]:
    """What in a flow, and in the project's helpers that it calls, breaks replay.

    Args:
        fn: a flow, or its generator function.

    Returns:
        Findings by file and line, errors and warnings; an empty list if there are none.
    """
    found = fn.fn if isinstance(fn, Flow) else fn
    debts = Debts()
    lint = _followed(found, debts.reader)
    findings = [*lint.findings, *debts.unpaid(lint.nodes(Known(found)))]
    return sorted(set(findings), key=lambda each: (each.file, each.line, each.rule))


def read_flow(
    fn: Callable[..., Any], read: Callable[[Following, Unit], Reading]
) -> list[Finding]:
    """Read a flow function, and the project's functions that it calls, each once.

    Args:
        fn: the flow's generator function.
        read: makes the reader of one function.
    """
    return _followed(fn, read).findings


def _followed(fn: Callable[..., Any], read: Callable[[Following, Unit], Reading]) -> _Lint:
    lint = _Lint(fn)
    lint.follow(Known(fn))
    lint.run(read)
    return lint


class _Lint:
    """One run: what was found, what is still to be looked at."""

    def __init__(self, flow: Any) -> None:
        target = list(unwrapped(flow))[-1]
        self.target = target
        self.home = str(getattr(target, "__module__", "")).partition(".")[0]
        self.flow = str(getattr(flow, "__name__", flow))
        self.findings: list[Finding] = []
        self.todo: list[Unit] = []
        self.seen: set[Any] = set()

    def run(self, read: Callable[[_Lint, Unit], Reading]) -> None:
        """Look at each function, each once."""
        for done in itertools.count():
            if not self.todo or done >= _MOST:
                return
            unit = self.todo.pop()
            read(self, unit).read()

    def follow(self, meaning: Meaning) -> None:
        """Note a function that is called, if it is the project's own."""
        if isinstance(meaning, Inner):
            node = meaning.node
            decorators = () if isinstance(node, ast.Lambda) else node.decorator_list
            marks = [meaning.scope.meaning(each) for each in decorators]
            source = meaning.scope.space.source
            if node in self.seen:
                return
            self.seen.add(node)
            if not any(isinstance(each, Known) and each.value is trusted for each in marks):
                scope = Scope(node, meaning.scope, meaning.scope.space)
                self.todo.append(Unit(node, scope, meaning.scope.space.file, source))
            return
        for value, owner in callables(meaning):
            self._function(value, owner)

    def nodes(self, meaning: Meaning) -> list[Def]:
        """The functions of ours that a call runs, as they stand in their source."""
        if isinstance(meaning, Inner):
            return [meaning.node]
        found = [
            source_of(fn.__code__, fn.__globals__)
            for fn, _ in callables(meaning)
            if self.is_ours(fn)
        ]
        return [each[1] for each in found if each is not None]

    def is_ours(self, fn: FunctionType) -> bool:
        """Whether a function is the project's, or of the package that brings the flow."""
        module = str(fn.__module__ or "")
        return (
            fn is self.target
            or is_project(fn.__code__.co_filename, module)
            or (module.partition(".")[0] == self.home != "triggerflow")
        )

    def _function(self, fn: FunctionType, owner: Meaning | None) -> None:
        if fn in self.seen or not self.is_ours(fn):
            return
        self.seen.add(fn)
        code = fn.__code__
        found = source_of(code, fn.__globals__)
        if found is None:
            # A function made by a library, such as an attrs __init__, has none either.
            if fn is self.target:
                self.findings.append(
                    Finding(
                        "source",
                        "warning",
                        code.co_filename,
                        code.co_firstlineno,
                        f"the source of {fn.__qualname__} can't be read, so nothing is checked",
                        "put it into a file, or check its flow with replays",
                    )
                )
            return
        source, node = found
        cells = {}
        for name, cell in zip(code.co_freevars, fn.__closure__ or (), strict=True):
            try:
                cells[name] = cell.cell_contents
            except ValueError:
                continue
        space = Space(fn.__globals__, cells, set(code.co_freevars), source, code.co_filename)
        scope = Scope(node, None, space)
        if owner is not None and (arguments := [*node.args.posonlyargs, *node.args.args]):
            scope.given[arguments[0].arg] = owner
        self.todo.append(Unit(node, scope, code.co_filename, source))


def callables(meaning: Meaning) -> list[tuple[FunctionType, Meaning | None]]:
    """The Python functions that a call runs, each with what is bound as its first argument."""
    starts: list[tuple[Any, Meaning | None]] = []
    match meaning:
        case Made(cls=cls):
            starts.append((_in_class(cls, "__call__"), meaning))
        case Known(value=value, owner=owner):
            kind = type(value)
            if issubclass(kind, type):
                names = ("__init__", "__attrs_post_init__", "__post_init__")
                starts += [(_in_class(value, name), Made(value)) for name in names]
            elif kind is Flow:
                starts.append((value.fn, None))
            elif kind is staticmethod:
                starts.append((value, None))
            elif kind is classmethod and owner is not None:
                made = (
                    owner.cls if isinstance(owner, Made) else type(getattr(owner, "value", 0))
                )
                starts.append((value, owner if _is_class(owner) else Known(made)))
            elif hasattr(kind, "__get__") or kind is functools.partial:
                bound = Known(value.__self__) if kind is MethodType else owner
                # A function that a class holds is bound by its instances only.
                starts.append((value, None if bound is None or _is_class(owner) else bound))
            else:
                starts.append((_in_class(kind, "__call__"), meaning))
    found: list[tuple[FunctionType, Meaning | None]] = []
    for start, owner in starts:
        chain = list(unwrapped(start))
        if not any(_is_trusted(each) for each in chain):
            found += [(each, owner) for each in chain if type(each) is FunctionType]
    return found


def _in_class(cls: type, name: str) -> Any:
    return next((vars(each)[name] for each in cls.__mro__ if name in vars(each)), None)


def _is_class(meaning: Meaning | None) -> bool:
    return isinstance(meaning, Known) and issubclass(type(meaning.value), type)


def _is_trusted(found: Any) -> bool:
    try:
        return _MARK in object.__getattribute__(found, "__dict__")
    except AttributeError:
        return False
