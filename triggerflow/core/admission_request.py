"""What a `Control` asks of a store for one arrival, and the arithmetic of rates.

A request is plain values: scopes, keys, limits. A scope names what is limited, whatever that
is; limits with one scope and key share their count. All decisions are the store's, in the
transaction that writes the arrival.
"""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any, Final, Literal

import attrs

from triggerflow.core.paths import ABSENT, Path

if TYPE_CHECKING:
    from collections.abc import Iterable

    from triggerflow.core.admission import Control, RateLimit, Throttle

# A key is kept as text up to this length, and as a digest beyond it.
_LONGEST_KEY: Final = 200
# What a sum of wall-clock times may be off by, in seconds.
_SPECK: Final = 1e-6
_MOST_PRIORITY: Final = 1_000_000


@attrs.frozen
class Gather:
    """Arrivals with one key are gathered into one instance.

    Attributes:
        kind: ``debounce`` or ``batch``.
        period: how long it is held after the last one (debounce), or the first (batch).
        max_wait: how long after the first at most (debounce).
        size: how many close it at once (batch).
        listed: its input is the list of all, else the last one.
        most: bytes that such a list may have; what would pass them opens the next group.
    """

    kind: Literal["debounce", "batch"]
    scope: str
    key: str
    period: float
    max_wait: float | None
    size: int | None
    listed: bool
    most: int

    @property
    def joined(self) -> str:
        """The outcome of a firing that joins an open group."""
        return "debounced" if self.kind == "debounce" else "batched"

    def due(self, opened: float, now: float) -> float:
        """When a group that opened then, and was joined now, is closed."""
        if self.kind == "batch":
            return opened + self.period
        due = now + self.period
        return due if self.max_wait is None else min(due, opened + self.max_wait)


@attrs.frozen
class Pace:
    """A rate: `limit` in a `period`, `burst` of them at once.

    What is kept of it is a moment and how many tokens are owed then; a debt shrinks by one
    each ``period / limit``. This is the generic cell rate algorithm with its time told
    relative to that moment, so that a sum of many steps stays exact.
    """

    scope: str
    key: str
    limit: int
    period: float
    burst: int

    @property
    def interval(self) -> float:
        """Seconds in which one token comes back."""
        return self.period / self.limit

    def owed(self, at: float, debt: float, now: float) -> float:
        """What is left of a debt; a clock that was set back takes nothing off it."""
        return max(0.0, debt - max(0.0, now - at) / self.interval)

    def taken(self, at: float, debt: float, now: float, weight: float = 1) -> float | None:
        """The debt after taking so many tokens now, or None if there aren't as many."""
        after = self.owed(at, debt, now) + weight
        return None if self._wait(after) else after

    def reserved(
        self, at: float, debt: float, now: float, weight: float = 1
    ) -> tuple[float, float, float]:
        """Take tokens in advance: when they will be there, and the moment and debt to keep.

        Where the clock was set back, the new one comes after those reserved before.
        """
        moment = max(at, now)
        after = self.owed(at, debt, now) + weight
        return moment + self._wait(after), moment, after

    def _wait(self, debt: float) -> float:
        """Seconds until a debt is no larger than the burst."""
        wait = (debt - self.burst) * self.interval
        return wait if wait > min(_SPECK, self.interval / 1000) else 0.0

    def settled(self, at: float, debt: float) -> float:
        """When nothing is owed any more, and nothing need be kept."""
        return at + debt * self.interval

    def __str__(self) -> str:
        return f"{self.limit} in {self.period:g} s"


@attrs.frozen
class Place:
    """A place among `limit` of a scope and key, from admission to the end.

    Attributes:
        mode: what one that finds none does: ``wait``, ``skip`` (it isn't started), or
            ``cancel`` (it waits, and asks those before it to end).
    """

    scope: str
    key: str
    limit: int
    mode: Literal["wait", "skip", "cancel"] = "wait"


@attrs.frozen
class Admission:
    """All that is asked for one arrival, in the order of `admission.ORDER`.

    Attributes:
        places: taken one after the other; all requests name them in one order of scopes, so
            that none waits for one that waits for it.
    """

    gather: Gather | None = None
    rate_limit: Pace | None = None
    throttle: Pace | None = None
    places: tuple[Place, ...] = ()
    priority: int = 0


def scope_of(kind: str, name: str, part: str, namespace: str = "") -> str:
    """A scope's name; different parts give different names."""
    return json.dumps([namespace, kind, name, part], ensure_ascii=False, separators=(",", ":"))


def key_of(paths: Iterable[Path], document: Any) -> str:
    """The values at these paths as text: equal for equal values, "" for no path.

    1, "1" and true are three keys, and so is a value that isn't there.
    """
    texts = [_text(path(document)) for path in paths]
    if not texts:
        return ""
    text = texts[0] if len(texts) == 1 else f"[{','.join(texts)}]"
    if len(text) > _LONGEST_KEY:
        return "sha256:" + hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
    return text


def request(
    control: Control,
    document: Any,
    *,
    kind: str,
    name: str,
    version: str,
    namespace: str = "",
    most: int,
) -> Admission:
    """What a control asks for one arrival.

    Args:
        control: what was declared.
        document: the arrival's input, in which keys are looked up.
        kind: what is controlled: ``trigger``, ``flow``.
        name: its name: rates and places outlive an edit of it.
        version: what an edit changes, such as a CID: groups don't outlive that.
        namespace: of the name.
        most: bytes that a gathered input may have.
    """

    def scope(part: str) -> str:
        return scope_of(kind, name, part, namespace)

    places = []
    if control.concurrency is not None:
        key = key_of(control.concurrency.key, document)
        places.append(Place(scope("concurrency"), key, control.concurrency.limit))
    if control.singleton is not None:
        key = key_of(control.singleton.key, document)
        places.append(Place(scope("singleton"), key, 1, control.singleton.mode))
    return Admission(
        _gather(control, document, scope_of(kind, version, "group", namespace), most),
        _pace(control.rate_limit, document, scope("rate_limit")),
        _pace(control.throttle, document, scope("throttle")),
        tuple(places),
        _priority(control.priority, document),
    )


def limits(
    control: Control, *, kind: str, name: str, namespace: str = ""
) -> tuple[tuple[str, int], ...]:
    """(scope, limit) of the places that a control has, for those who wait there already."""
    if control.concurrency is None:
        return ()
    return ((scope_of(kind, name, "concurrency", namespace), control.concurrency.limit),)


def _gather(control: Control, document: Any, scope: str, most: int) -> Gather | None:
    if control.batch is not None:
        batch = control.batch
        key = key_of(batch.key, document)
        return Gather("batch", scope, key, batch.wait, None, batch.size, True, most)
    if control.debounce is not None:
        bounce = control.debounce
        key = key_of(bounce.key, document)
        listed = bounce.collect == "all"
        return Gather(
            "debounce", scope, key, bounce.period, bounce.max_wait, None, listed, most
        )
    return None


def _pace(part: RateLimit | Throttle | None, document: Any, scope: str) -> Pace | None:
    if part is None:
        return None
    burst = getattr(part, "burst", part.limit)
    return Pace(scope, key_of(part.key, document), part.limit, part.period, burst)


def _priority(declared: int | Path, document: Any) -> int:
    if isinstance(declared, int):
        return declared
    found = declared(document)
    if type(found) is not int:
        return 0
    return max(-_MOST_PRIORITY, min(_MOST_PRIORITY, found))


def _text(value: Any) -> str:
    if value is ABSENT:
        # No JSON begins so.
        return "absent"
    try:
        return json.dumps(
            _plain(value), ensure_ascii=False, sort_keys=True, separators=(",", ":")
        )
    except (TypeError, ValueError):
        return f"{type(value).__name__}({value!r})"


def _plain(value: Any) -> Any:
    """The same with whole numbers as integers, as in a document."""
    kind = type(value)
    if kind is float:
        return int(value) if value.is_integer() else value
    if kind is dict:
        return {key: _plain(item) for key, item in value.items()}
    if kind is list or kind is tuple:
        return [_plain(item) for item in value]
    return value
