"""What a flow yields: imperatives that the driver takes and a turn performs.

An effect is a light slotted object; building one does nothing. Three mistakes that other
engines let pass are caught here: an effect that is dropped without a ``yield``, one that
is tested for truth, and one that is iterated outside a driver.
"""

from __future__ import annotations

import gc
import threading
from collections.abc import Callable, Generator, Iterator
from datetime import UTC, datetime
from types import GeneratorType
from typing import TYPE_CHECKING, Any, ClassVar, Final, Generic, ParamSpec, TypeVar
from uuid import UUID

import attrs

from triggerflow.core.durations import seconds
from triggerflow.core.options import DEFAULT_OPTIONS, checked_options
from triggerflow.core.step import Step
from triggerflow.errors import DefinitionError, EffectMisused

if TYPE_CHECKING:
    from datetime import timedelta

    from triggerflow.core.retry import RetryPolicy

R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True)
P = ParamSpec("P")


class _Driving(threading.local):
    """Which drive runs on this thread.

    Attributes:
        dropped: the list in which that drive keeps what it finds dropped untaken; None
            outside of any drive.
        collecting: whether the garbage collector runs. When it does is chance, so what it
            finds counts for nothing: a flow must not fail live and pass in replay.
    """

    dropped: list[str] | None = None
    collecting = False


DRIVING: Final = _Driving()


def _collecting(phase: str, _info: dict[str, int]) -> None:
    DRIVING.collecting = phase == "start"


gc.callbacks.append(_collecting)


class Effect(Generic[R_co]):
    """The root of all effects. ``yield effect`` and ``yield from effect`` both work."""

    __slots__ = ("_born", "_taken")
    kind: ClassVar[str] = ""
    # The turn sees to it before it takes the next resolution.
    settles: ClassVar[bool] = False
    # Its request may be mutable, so it is kept in bytes from the yield on.
    snapshots: ClassVar[bool] = False
    # The performer runs it.
    runs: ClassVar[bool] = False

    def __init__(self) -> None:
        self._taken = False
        self._born = DRIVING.dropped

    def __iter__(self) -> Generator[Effect[R_co], Any, R_co]:
        value = yield self
        if not self._taken:
            raise EffectMisused(
                self.describe(),
                "was iterated outside a flow",
                "yield it (or `yield from` it) in a flow's generator function",
            )
        return value  # type: ignore[no-any-return]

    def __bool__(self) -> bool:
        raise EffectMisused(
            self.describe(), "was tested for truth", "yield it first and test what comes back"
        )

    def __del__(self) -> None:
        born = self._born
        if born is None or self._taken:
            return
        if born is DRIVING.dropped and not DRIVING.collecting:
            born.append(self.describe())

    def excuse(self) -> None:
        """Count it, and its parts, as taken: that nobody yielded it isn't the flow's fault."""
        self._taken = True

    @property
    def key(self) -> str:
        """``kind`` or ``kind:name``: what the tag counts."""
        return self.kind

    def describe(self) -> str:
        """The effect in words, for messages."""
        return self.key

    def request(self) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
        """What the digest covers, or None for effects that have no digest."""
        return None

    def received(self, value: Any) -> Any:
        """The value that the flow sees, given what the log keeps."""
        return value


_CALL_KEYS: Final[dict[str, str]] = {}


class Call(Effect[R_co]):
    """One run of a step: see `call`."""

    __slots__ = ("args", "fn", "kwargs", "options")
    kind = "call"
    runs = True

    def __init__(
        self, fn: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> None:
        self.fn = fn
        self.args = args
        self.kwargs = kwargs
        self.options = DEFAULT_OPTIONS
        self._taken = False
        self._born = DRIVING.dropped

    def using(
        self,
        *,
        name: str | None = None,
        retry: RetryPolicy | None = None,
        timeout: timedelta | float | None = None,
        compensate: Callable[..., Any] | None = None,
        idempotency_key: str | None = None,
        queue: str | None = None,
    ) -> Call[R_co]:
        """How the step is run: returns the same effect.

        Args:
            name: the step's name, for callables without a plain one.
            retry: the policy after a failed attempt; without it a step is tried once.
            timeout: how long one attempt may take.
            compensate: the step that undoes this one, called with its result and its
                arguments by `compensate`, `compensate_all`, or when the branch loses. It has
                this call's retry policy, timeout and queue.
            idempotency_key: a key of your own. The first result of this step under it, in
                whichever instance, is recorded for ever, and is taken instead of another run.
            queue: let a worker run it that serves this queue. The step, and its
                compensation, must be registered steps: see `step`.

        Raises:
            DefinitionError: an option has a value that it can't have.
        """
        try:
            made = checked_options(name, retry, timeout, compensate, idempotency_key, queue)
        except DefinitionError:
            # It is told here, and not once more as a call that nobody yielded.
            self.excuse()
            raise
        self.options = made.over(self.options)
        return self

    @property
    def name(self) -> str:
        """The step's name.

        Raises:
            DefinitionError: the callable has no plain name (a lambda, a partial), or is none.
        """
        if not callable(self.fn):
            raise DefinitionError(
                f"call({self.fn!r:.80})",
                "found what can't be called, expected a function",
                "pass the function itself; a flow named so is started with child(...)",
            )
        if self.options.name is not None:
            return self.options.name
        name = getattr(self.fn, "__name__", None)
        if isinstance(self.fn, Step):
            return self.fn.name
        if not isinstance(name, str) or not name.isidentifier():
            raise DefinitionError(
                f"call({self.fn!r})",
                "the step has no plain name",
                "name it with using(name=...); if it is a flow, start it with child(...)",
            )
        return name

    @property
    def key(self) -> str:
        # Hot: once a step. The cache holds what `name` has checked, one string a function
        # name; `options` is the shared default unless `using` was called.
        if self.options is DEFAULT_OPTIONS:
            try:
                return _CALL_KEYS[self.fn.__name__]
            except (KeyError, AttributeError, TypeError):
                key = "call:" + self.name
                _CALL_KEYS[self.fn.__name__] = key
                return key
        if self.options.queue is not None:
            _check_queued(self)
        return "call:" + self.name

    def describe(self) -> str:
        return f"call({getattr(self.fn, '__name__', self.fn)!s})"

    def request(self) -> tuple[tuple[Any, ...], dict[str, Any]]:
        return self.args, self.kwargs


def _check_queued(call: Call[Any]) -> None:
    """Refuse a queued call that no other worker could run."""
    queue, undo = call.options.queue, call.options.compensate
    for what, fn in (("the step", call.fn), ("its compensation", undo)):
        if fn is not None and not isinstance(fn, Step):
            raise DefinitionError(
                f"{call.describe()}.using(queue={queue!r})",
                f"{what} {getattr(fn, '__name__', fn)!s} is no registered step, so no other "
                "worker can find its code",
                "write a function under @app.step, or under @tf.step and app.register() it",
            )


class Sleep(Effect[None]):
    """A durable timer: see `sleep`."""

    __slots__ = ("duration",)
    kind = "sleep"

    def __init__(self, duration: float) -> None:
        super().__init__()
        self.duration = duration

    def due(self, now: float) -> float | None:
        """When it fires, seconds since the epoch."""
        return now + self.duration


class SleepUntil(Effect[None]):
    """A durable timer at a wall-clock time: see `sleep_until`."""

    __slots__ = ("moment",)
    kind = "sleep_until"

    def __init__(self, moment: float) -> None:
        super().__init__()
        self.moment = moment

    def due(self, now: float) -> float | None:
        """When it fires, seconds since the epoch."""
        del now
        return self.moment


@attrs.frozen
class Signal:
    """What a wait for several names returns.

    Attributes:
        name: which signal came.
        payload: what it carried.
    """

    name: str
    payload: Any = None


class _Missing:
    def __repr__(self) -> str:
        return "<no default>"


MISSING: Final = _Missing()


class TimedWait(Effect[R_co]):
    """A wait that may have a timeout, and a default for it."""

    __slots__ = ("default", "timeout")

    def __init__(self, timeout: float | None, default: Any) -> None:
        super().__init__()
        self.timeout = timeout
        self.default = default

    def due(self, now: float) -> float | None:
        """When its timeout passes, seconds since the epoch; None without a timeout."""
        return None if self.timeout is None else now + self.timeout

    @staticmethod
    def limits(
        what: str,
        timeout: timedelta | float | None,
        default: Any,
    ) -> tuple[float | None, Any]:
        """A checked timeout, in seconds, and the default."""
        limit = None if timeout is None else seconds(timeout, f"{what}(timeout=)")
        if limit is None and default is not MISSING:
            raise DefinitionError(
                what, "has a default= but no timeout=", "a wait without one never ends"
            )
        return limit, default


class WaitSignal(TimedWait[R_co]):
    """A wait for a named message: see `wait_signal`."""

    __slots__ = ("all", "names", "single")
    kind = "wait_signal"

    def __init__(
        self,
        names: tuple[str, ...],
        *,
        single: bool,
        all: bool,
        timeout: float | None,
        default: Any,
    ) -> None:
        super().__init__(timeout, default)
        self.names = names
        self.single = single
        self.all = all

    @property
    def key(self) -> str:
        return "wait_signal:" + "|".join(self.names)

    def request(self) -> tuple[tuple[Any, ...], dict[str, Any]]:
        # Whether one comes back or all decides what the log keeps.
        return (*self.names, True) if self.all else self.names, {}

    def received(self, value: Any) -> Any:
        if self.single:
            return value
        if self.all:
            return [Signal(name, payload) for name, payload in value]
        name, payload = value
        return Signal(name, payload)

    def kept(self, messages: list[tuple[str, Any]]) -> Any:
        """What the log keeps of the messages that end this wait."""
        if self.single:
            found = [payload for _, payload in messages]
        else:
            found = [[name, payload] for name, payload in messages]
        return found if self.all else found[0]


class Inbox(Effect[list[Signal]]):
    """A look at the messages that are there: see `inbox`."""

    __slots__ = ("names",)
    kind = "inbox"
    settles = True

    def __init__(self, names: tuple[str, ...] | None) -> None:
        super().__init__()
        self.names = names

    def request(self) -> tuple[tuple[Any, ...], dict[str, Any]]:
        return (None,) if self.names is None else self.names, {}

    def received(self, value: Any) -> Any:
        return [Signal(name, payload) for name, payload in value]


class Now(Effect[datetime]):
    """The time on the entry that moved this branch: see `now`."""

    __slots__ = ()
    kind = "now"


class Uuid4(Effect[UUID]):
    """A UUID that replay makes again: see `uuid4`."""

    __slots__ = ()
    kind = "uuid4"


class Random(Effect[float]):
    """A float in [0, 1) that replay makes again: see `random`."""

    __slots__ = ()
    kind = "random"


class SideEffect(Effect[R_co]):
    """A short function whose value is recorded: see `side_effect`."""

    __slots__ = ("_name", "fn")
    kind = "side_effect"
    settles = True

    def __init__(self, fn: Callable[[], Any], name: str) -> None:
        super().__init__()
        self.fn = fn
        self._name = name

    @property
    def key(self) -> str:
        return "side_effect:" + self._name


class Patched(Effect[bool]):
    """Whether this run takes the new branch: see `patched`."""

    __slots__ = ("id",)
    kind = "patched"

    def __init__(self, id: str) -> None:
        super().__init__()
        self.id = id

    @property
    def key(self) -> str:
        return "patched:" + self.id


Branch = Effect[Any] | Generator[Any, Any, Any]


@attrs.frozen
class Won(Generic[R]):
    """Who won a race.

    Attributes:
        index: position of the branch among all, positional ones first.
        name: its name, or None for a positional branch.
        value: what it returned.
    """

    index: int
    name: str | None
    value: R


class ContinueAsNew(Effect[Any]):
    """The end of a generation: see `continue_as_new`."""

    __slots__ = ("drop", "input")
    kind = "continue_as_new"

    def __init__(self, input: Any, *, drop: bool) -> None:
        super().__init__()
        self.input = input
        self.drop = drop


class _Composite(Effect[R_co]):
    __slots__ = ("names", "parts")

    def __init__(self, parts: tuple[Branch, ...], names: tuple[str | None, ...]) -> None:
        super().__init__()
        self.parts = parts
        self.names = names
        for part in parts:
            if not isinstance(part, Effect | GeneratorType):
                self.excuse()  # the error says enough
                raise DefinitionError(
                    self.kind,
                    f"found a branch {part!r}, expected an effect or a sub-generator",
                    "call the generator function, and pass effects without `yield`",
                )

    def excuse(self) -> None:
        self._taken = True
        for part in self.parts:
            if isinstance(part, Effect):
                part.excuse()

    def label(self, slot: int) -> str:
        """How a branch is written in tags: its name, or its number."""
        name = self.names[slot]
        return str(slot) if name is None else name


class Gather(_Composite[list[Any]]):
    """All of several branches, or some of them: see `gather`."""

    __slots__ = ("count", "return_failures")
    kind = "gather"

    def __init__(
        self, parts: tuple[Branch, ...], count: int | None, *, return_failures: bool
    ) -> None:
        super().__init__(parts, (None,) * len(parts))
        self.count = count
        self.return_failures = return_failures


class Race(_Composite[Won[Any]]):
    """The first of several branches: see `race`."""

    __slots__ = ()
    kind = "race"


def as_datetime(at: float) -> datetime:
    """Seconds since the epoch as an aware datetime (UTC)."""
    return datetime.fromtimestamp(at, UTC)


def parts_of(effect: _Composite[Any]) -> Iterator[tuple[int, str, Branch]]:
    """Slot, label and branch of every part of a composite."""
    for slot, part in enumerate(effect.parts):
        yield slot, effect.label(slot), part
