"""Flow control: how often, how many at once, and in which order something may begin.

A `Control` says it in seven parts, which are the same whatever is controlled: a trigger, a
flow, later a queue. What may stand together, and what it means then, is one table
(`admission_pairs`), which `Control` keeps to and which the documentation shows. Nothing here
decides about one case: `admission_request` says what is asked of a store for one, and the
decisions belong into the store's transaction.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any, Final, Literal, TypeVar

import attrs

from triggerflow.core.admission_pairs import PAIRS, PARTS
from triggerflow.core.durations import seconds
from triggerflow.core.paths import Path, compile_path
from triggerflow.errors import DefinitionError

Duration = timedelta | float
Key = str | Path | Sequence[str | Path] | None
W = TypeVar("W", bound=str)
P = TypeVar("P", bound="Part")

_HIGHEST: Final = 1_000_000
# Ten years: what is later is a mistake, and no date any more a little beyond that.
_LONGEST: Final = 3652 * 86400.0


def _seconds(value: Duration, name: str) -> float:
    length = seconds(value, name)
    if not 0 < length <= _LONGEST:
        raise DefinitionError(
            name, f"found {value!r}, expected more than 0 and at most ten years"
        )
    # Whole seconds as an integer, so that 5 and 5.0 are one spec.
    return int(length) if length.is_integer() else length


def _whole(value: object, name: str) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= _HIGHEST:
        raise DefinitionError(
            name, f"found {value!r:.80}, expected a whole number from 1 to {_HIGHEST:,}"
        )
    return value


def _key(value: Key) -> tuple[Path, ...]:
    if value is None or value == ():
        return ()
    given = [value] if isinstance(value, str | Path) else value
    if not isinstance(given, list | tuple) or not given:
        raise DefinitionError("key", f"found {value!r:.80}, expected a path or a list of paths")
    return tuple(
        each if isinstance(each, Path) else compile_path(each, "key") for each in given
    )


def _one_of(value: W, name: str, *words: str) -> W:
    if value not in words:
        raise DefinitionError(
            name, f"found {value!r:.80}, expected {' or '.join(map(repr, words))}"
        )
    return value


def _period(value: Duration) -> float:
    return _seconds(value, "period")


def _wait(value: Duration) -> float:
    return _seconds(value, "wait")


def _max_wait(value: Duration | None) -> float | None:
    return None if value is None else _seconds(value, "max_wait")


def _limit(value: int) -> int:
    return _whole(value, "limit")


def _size(value: int) -> int:
    return _whole(value, "size")


def _burst(value: int) -> int:
    return _whole(value, "burst")


def _collect(value: Literal["last", "all"]) -> Literal["last", "all"]:
    return _one_of(value, "collect", "last", "all")


def _mode(value: Literal["skip", "cancel"]) -> Literal["skip", "cancel"]:
    return _one_of(value, "mode", "skip", "cancel")


def _spec(part: Any) -> dict[str, Any]:
    """The fields of a part that aren't left at their defaults, as plain values."""
    found: dict[str, Any] = {}
    for field in attrs.fields(type(part)):
        value = getattr(part, field.name)
        if field.name == "key":
            texts = list(map(str, value))
            value = texts[0] if len(texts) == 1 else texts
        if value not in (None, []) and value != field.default:
            found[field.name] = value
    return found


@attrs.frozen
class Debounce:
    """Start once it has been quiet for a while; what comes meanwhile is gathered.

    Attributes:
        period: how long it must be quiet, in seconds or as a timedelta.
        key: a path into the input, or several: each value is debounced for itself.
        max_wait: start so long after the first one at the latest.
        collect: the input is the ``"last"`` one, or the list of ``"all"``.
    """

    period: float = attrs.field(converter=_period)
    key: tuple[Path, ...] = attrs.field(default=(), converter=_key)
    max_wait: float | None = attrs.field(
        default=None,
        converter=_max_wait,
    )
    collect: Literal["last", "all"] = attrs.field(
        default="last",
        converter=_collect,
    )

    def __attrs_post_init__(self) -> None:
        if self.max_wait is not None and self.max_wait < self.period:
            raise DefinitionError(
                "debounce, max_wait", f"{self.max_wait:g} s is less than the period"
            )


@attrs.frozen
class Batch:
    """Start with a list of inputs: when there are enough, or the first has waited enough.

    Attributes:
        size: how many inputs start an instance at once.
        wait: how long the first one waits at most.
        key: a path into the input, or several: each value has batches of its own.
    """

    size: int = attrs.field(converter=_size)
    wait: float = attrs.field(converter=_wait)
    key: tuple[Path, ...] = attrs.field(default=(), converter=_key)


@attrs.frozen
class RateLimit:
    """Start so many in a period at most; what is more is dropped, and its firing says so.

    Attributes:
        limit: how many.
        period: in how many seconds, or a timedelta.
        key: a path into the input, or several: each value has a limit of its own.
    """

    limit: int = attrs.field(converter=_limit)
    period: float = attrs.field(converter=_period)
    key: tuple[Path, ...] = attrs.field(default=(), converter=_key)


@attrs.frozen
class Throttle:
    """Start one each ``period / limit`` at most; what is more waits for its turn.

    Attributes:
        limit: how many in a period.
        period: in how many seconds, or a timedelta.
        burst: how many may start at once after a quiet time.
        key: a path into the input, or several: each value has a throttle of its own.
    """

    limit: int = attrs.field(converter=_limit)
    period: float = attrs.field(converter=_period)
    burst: int = attrs.field(default=1, converter=_burst)
    key: tuple[Path, ...] = attrs.field(default=(), converter=_key)


@attrs.frozen
class Concurrency:
    """So many are under way at once at most; the others wait for a place.

    A place is taken when an instance is admitted, and free again when it has ended.

    Attributes:
        limit: how many.
        key: a path into the input, or several: each value has a limit of its own.
    """

    limit: int = attrs.field(converter=_limit)
    key: tuple[Path, ...] = attrs.field(default=(), converter=_key)


@attrs.frozen
class Singleton:
    """One is under way at a time; a new one is dropped, or cancels the one before.

    Attributes:
        mode: ``"skip"`` drops the new one, ``"cancel"`` asks the one before to end, and the
            new one waits until it has.
        key: a path into the input, or several: one at a time of each value.
    """

    mode: Literal["skip", "cancel"] = attrs.field(converter=_mode)
    key: tuple[Path, ...] = attrs.field(default=(), converter=_key)


Part = Debounce | Batch | RateLimit | Throttle | Concurrency | Singleton
Given = Mapping[str, Any]


def _part(value: P | Given | None, name: str, kind: type[P]) -> P | None:
    if value is None or isinstance(value, kind):
        return value
    if not isinstance(value, Mapping):
        raise DefinitionError(name, f"found {value!r:.80}, expected a {kind.__name__}")
    fields = attrs.fields_dict(kind)
    if unknown := sorted(str(each) for each in value.keys() - fields.keys()):
        raise DefinitionError(
            name, f"unknown fields: {', '.join(unknown)}", f"it has {', '.join(fields)}"
        )
    missing = [
        each.name
        for each in fields.values()
        if each.default is attrs.NOTHING and each.name not in value
    ]
    if missing:
        raise DefinitionError(name, f"missing: {', '.join(missing)}")
    return kind(**value)


def _debounce(value: Debounce | Given | None) -> Debounce | None:
    return _part(value, "debounce", Debounce)


def _batch(value: Batch | Given | None) -> Batch | None:
    return _part(value, "batch", Batch)


def _rate_limit(value: RateLimit | Given | None) -> RateLimit | None:
    return _part(value, "rate_limit", RateLimit)


def _throttle(value: Throttle | Given | None) -> Throttle | None:
    return _part(value, "throttle", Throttle)


def _concurrency(value: Concurrency | Given | int | None) -> Concurrency | None:
    if isinstance(value, int):
        return Concurrency(value)
    return _part(value, "concurrency", Concurrency)


def _singleton(value: Singleton | Given | None) -> Singleton | None:
    return _part(value, "singleton", Singleton)


def _priority(value: int | str | Path) -> int | Path:
    if isinstance(value, Path):
        return value
    if isinstance(value, str):
        return compile_path(value, "priority")
    if type(value) is not int or abs(value) > _HIGHEST:
        raise DefinitionError(
            "priority",
            f"found {value!r:.80}, expected a whole number or a path to one, "
            f"from -{_HIGHEST:,} to {_HIGHEST:,}",
        )
    return value


@attrs.frozen(kw_only=True)
class Control:
    """What controls how something begins; parts that aren't given control nothing.

    Each part may be given as an object of its class, or as a dict of its fields.

    Raises:
        DefinitionError: a part can't work, or two of them don't go together.
    """

    debounce: Debounce | None = attrs.field(default=None, converter=_debounce)
    batch: Batch | None = attrs.field(default=None, converter=_batch)
    rate_limit: RateLimit | None = attrs.field(default=None, converter=_rate_limit)
    throttle: Throttle | None = attrs.field(default=None, converter=_throttle)
    concurrency: Concurrency | None = attrs.field(default=None, converter=_concurrency)
    singleton: Singleton | None = attrs.field(default=None, converter=_singleton)
    priority: int | Path = attrs.field(default=0, converter=_priority)

    def __attrs_post_init__(self) -> None:
        used = [name for name in PARTS if getattr(self, name)]
        for (first, second), pair in PAIRS.items():
            if not pair.allowed and first in used and second in used:
                raise DefinitionError(
                    "control", f"{first} and {second} don't go together: {pair.text}"
                )

    def spec(self) -> dict[str, Any]:
        """The parts in normal form, as plain values; what isn't used is left out."""
        found: dict[str, Any] = {
            name: _spec(getattr(self, name))
            for name in PARTS
            if name != "priority" and getattr(self, name) is not None
        }
        if self.priority:
            found["priority"] = (
                self.priority if isinstance(self.priority, int) else str(self.priority)
            )
        return found

    @classmethod
    def from_spec(cls, spec: object) -> Control:
        """The control behind a spec, or behind a dict that a user wrote.

        Raises:
            DefinitionError: it has unknown parts, or what `Control` refuses.
        """
        if isinstance(spec, Control):
            return spec
        if not isinstance(spec, Mapping):
            raise DefinitionError(
                "control", f"found {spec!r:.80}, expected a Control or a dict"
            )
        if unknown := sorted(str(name) for name in spec.keys() - set(PARTS)):
            raise DefinitionError(
                "control", f"unknown parts: {', '.join(unknown)}", f"it has {', '.join(PARTS)}"
            )
        return cls(**spec)

    def __bool__(self) -> bool:
        """Whether anything is controlled."""
        return any(getattr(self, name) for name in PARTS)
