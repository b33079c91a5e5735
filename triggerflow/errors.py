"""Every public exception, cut by whose doing it was.

An error is data first: its fields say what happened, to which thing, what was expected
and what was found; ``__str__`` words them afterwards. All of them pickle, since their
fields are positional. Engine control flow never travels as an ``Exception``: what
unwinds a flow is `FlowCancelled`, a ``BaseException``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import attrs

if TYPE_CHECKING:
    from collections.abc import Sequence


class TriggerflowError(Exception):
    """The root of every error that triggerflow raises."""


def _nearest(names: Sequence[str], wanted: str) -> str:
    import difflib

    close = difflib.get_close_matches(wanted, names, n=3)
    if close:
        return f"did you mean {', '.join(map(repr, close))}?"
    if names:
        return f"known: {', '.join(sorted(names)[:8])}"
    return "none is registered"


# --- the author of a flow, trigger or plugin -------------------------------------------


@attrs.define(eq=False)
class DefinitionError(TriggerflowError):
    """A flow, step, trigger or plugin is written in a way that can't work."""

    what: str
    problem: str
    remedy: str = ""

    def __str__(self) -> str:
        return f"{self.what}: {self.problem}" + (f"; {self.remedy}" if self.remedy else "")


@attrs.define(eq=False)
class PatternError(TriggerflowError):
    """A ``match`` pattern breaks the rules of EventBridge event patterns."""

    path: str
    problem: str
    remedy: str = ""

    def __str__(self) -> str:
        return f"pattern at {self.path}: {self.problem}" + (
            f"; {self.remedy}" if self.remedy else ""
        )


@attrs.define(eq=False)
class DuplicateTrigger(TriggerflowError):
    """Two triggers are the same: one name twice, or one meaning under two names."""

    first: str
    second: str
    problem: str

    def __str__(self) -> str:
        return f"triggers {self.first!r} and {self.second!r}: {self.problem}"


@attrs.define(eq=False)
class EffectMisused(TriggerflowError):
    """An effect was built but never yielded, tested for truth, or yielded wrongly."""

    effect: str
    problem: str
    remedy: str = ""

    def __str__(self) -> str:
        return f"{self.effect}: {self.problem}" + (f"; {self.remedy}" if self.remedy else "")


@attrs.define(eq=False)
class FlowRanAway(TriggerflowError):
    """A flow yielded a million effects without one that needs a log entry."""

    flow: str
    effects: int

    def __str__(self) -> str:
        return (
            f"flow {self.flow!r} took {self.effects:,} effects without one log entry; "
            "it would never end: let it wait for something, or leave its loop"
        )


@attrs.define(eq=False)
class TransactionError(TriggerflowError):
    """A transaction step used its transaction when it was over, or for what it may not do."""

    tag: str
    problem: str
    remedy: str = ""

    def __str__(self) -> str:
        return f"transaction of {self.tag}: {self.problem}" + (
            f"; {self.remedy}" if self.remedy else ""
        )


# --- the caller ------------------------------------------------------------------------


@attrs.define(eq=False)
class EncodingRefused(TriggerflowError):
    """A value can't be written: its type, range, size or depth is outside the model."""

    path: str
    found: str
    expected: str
    remedy: str = ""

    def __str__(self) -> str:
        return f"{self.path}: found {self.found}, expected {self.expected}" + (
            f"; {self.remedy}" if self.remedy else ""
        )


@attrs.define(eq=False)
class DecodingRefused(TriggerflowError):
    """Bytes or text from outside aren't what the format allows."""

    what: str
    problem: str
    remedy: str = ""

    def __str__(self) -> str:
        return f"{self.what}: {self.problem}" + (f"; {self.remedy}" if self.remedy else "")


@attrs.define(eq=False)
class ActivityRejected(TriggerflowError):
    """An activity was refused before the append: nothing of it is stored."""

    path: str
    found: str
    expected: str
    by: str = "triggerflow"

    def __str__(self) -> str:
        return (
            f"activity rejected by {self.by}: {self.path} is {self.found}, "
            f"expected {self.expected}"
        )


@attrs.define(eq=False)
class UnknownActivity(TriggerflowError):
    """No activity has this CID, or retention took its document."""

    cid: str
    namespace: str = ""
    removed: bool = False

    def __str__(self) -> str:
        where = f" in namespace {self.namespace!r}" if self.namespace else ""
        if self.removed:
            return f"activity {self.cid}{where}: retention has removed its document"
        return f"no activity {self.cid!r:.200} in this store{where}"


@attrs.define(eq=False)
class UnknownFlow(TriggerflowError):
    """No flow of this name and version is registered here."""

    flow: str
    version: int | None
    known: tuple[str, ...] = ()

    def __str__(self) -> str:
        which = self.flow if self.version is None else f"{self.flow} version {self.version}"
        return f"flow {which} is not registered: {_nearest(self.known, self.flow)}"


@attrs.define(eq=False)
class UnknownTrigger(TriggerflowError):
    """The store has no current trigger of this name."""

    name: str
    known: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"trigger {self.name!r} is not current; {_nearest(self.known, self.name)}"


@attrs.define(eq=False)
class UnknownInstance(TriggerflowError):
    """No instance has this id, or a prefix fits none or several."""

    id: str
    candidates: tuple[str, ...] = ()

    def __str__(self) -> str:
        if self.candidates:
            return f"instance id {self.id!r} fits several: {', '.join(self.candidates[:5])}"
        return f"no instance {self.id!r} in this store"


@attrs.define(eq=False)
class InstanceRemoved(UnknownInstance):
    """The instance had ended, and retention removed it; what remains is its firing."""

    activity: str = ""
    trigger: str = ""

    def __str__(self) -> str:
        return (
            f"instance {self.id!r} had ended and was removed by retention; trigger "
            f"{self.trigger!r} had started it for activity {self.activity}, which stays known"
        )


@attrs.define(eq=False)
class InstanceEnded(TriggerflowError):
    """The instance has ended; what was sent to it is not stored."""

    id: str
    status: str
    verb: str

    def __str__(self) -> str:
        return f"instance {self.id} has ended ({self.status}): {self.verb} was not stored"


@attrs.define(eq=False)
class InstanceConflict(TriggerflowError):
    """The instance isn't in the state that the verb needs; nothing was changed."""

    id: str
    verb: str
    found: str
    expected: str

    def __str__(self) -> str:
        return (
            f"{self.verb} of instance {self.id} refused: found {self.found}, "
            f"expected {self.expected}"
        )


@attrs.define(eq=False)
class KeyTaken(TriggerflowError):
    """A live instance holds this business key and was started with another input."""

    flow: str
    key: str
    id: str

    def __str__(self) -> str:
        return (
            f"key {self.key!r} of flow {self.flow!r} is held by instance {self.id}, which "
            "was started with another input; use another key, or wait until it ends"
        )


@attrs.define(eq=False)
class SignalConflict(TriggerflowError):
    """A signal with this dedup key came before with another payload."""

    id: str
    name: str
    dedup: str

    def __str__(self) -> str:
        return (
            f"signal {self.name!r} to {self.id}: dedup key {self.dedup!r} was used before "
            "with another payload; nothing was stored"
        )


@attrs.define(eq=False)
class SignalRefused(TriggerflowError):
    """The flow declares its signals, and this is none of them, or its payload isn't."""

    id: str
    flow: str
    name: str
    problem: str

    def __str__(self) -> str:
        return (
            f"signal {self.name!r} to {self.id} refused by flow {self.flow}: {self.problem}; "
            "nothing was stored"
        )


@attrs.define(eq=False)
class WaitTimedOut(TriggerflowError):
    """`wait` gave up before the instance ended; the instance itself goes on."""

    id: str
    seconds: float
    status: str

    def __str__(self) -> str:
        return (
            f"instance {self.id} had not ended after {self.seconds:g} s (status "
            f"{self.status}); it goes on: wait again with the same id"
        )


class NoStep(TriggerflowError):
    """`step_context` was called outside a step."""

    def __str__(self) -> str:
        return "step_context() was called outside a step that an engine runs"


@attrs.define(eq=False)
class EngineClosed(TriggerflowError):
    """A verb was called on an engine or client that isn't open."""

    verb: str

    def __str__(self) -> str:
        return (
            f"{self.verb}: the engine is not open; use it inside `with app.client()` or "
            "`async with app.open()`"
        )


# --- what a flow sees at a yield ---------------------------------------------------------


@attrs.define(eq=False)
class StepError(TriggerflowError):
    """A step's original exception, as the log keeps it: text, never an object."""

    type: str
    message: str
    traceback: str = ""

    def __str__(self) -> str:
        return f"{self.type}: {self.message}" + (
            f"\n{self.traceback}" if self.traceback else ""
        )


@attrs.define(eq=False)
class StepFailed(TriggerflowError):
    """A step is out of attempts. `failure` is its last error as data; `__cause__` words it."""

    step: str
    failure: Any

    def __str__(self) -> str:
        return f"step {self.step!r} failed: {self.failure.type}: {self.failure.message}"


@attrs.define(eq=False)
class ChildFailed(TriggerflowError):
    """A child flow failed, was cancelled (`failure.kind`), or could not be started."""

    flow: str
    failure: Any

    def __str__(self) -> str:
        return f"child flow {self.flow!r} failed: {self.failure.type}: {self.failure.message}"


@attrs.define(eq=False)
class TooDeep(TriggerflowError):
    """Children are nested too deep, or too many emitted activities led here."""

    what: str
    depth: int
    limit: int

    def __str__(self) -> str:
        return (
            f"{self.what}: depth {self.depth} is over the limit of {self.limit}; does a flow "
            "start itself, or an activity lead to its like?"
        )


@attrs.define(eq=False)
class TimedOut(TriggerflowError):
    """An effect's ``timeout=`` passed before its result came, and it had no ``default=``."""

    tag: str
    still_running: bool = False

    def __str__(self) -> str:
        tail = "; its last attempt still runs and is fenced" if self.still_running else ""
        return f"{self.tag} timed out{tail}"


class FlowCancelled(BaseException):
    """Raised at a flow's yield when the instance is cancelled, or its branch lost a race.

    A ``BaseException``, so that ``except Exception`` can't swallow it. What the flow
    yields after it is shielded: it may compensate before it ends.
    """


@attrs.define(eq=False)
class AttemptOver(BaseException):
    """Raised by `heartbeat` in a step whose attempt is over: nobody wants its result.

    A ``BaseException``, so that ``except Exception`` round the work can't swallow it. A step
    that lets it escape is not counted as a failed attempt.

    Attributes:
        tag: the call's tag.
        cause: ``cancelled`` (its instance is), ``race_lost`` (or its gather is decided),
            ``timed_out``, ``completed`` (from outside), ``ended`` (its instance has),
            ``withdrawn`` (one of these happened to a call that ran from a queue),
            ``lease_lost`` (another worker has the instance) or ``closed`` (the engine is).
    """

    tag: str
    cause: str

    def __str__(self) -> str:
        what = _WHY_OVER.get(self.cause, self.cause)
        return f"this attempt of {self.tag} is over ({self.cause}): {what}; stop working"


_WHY_OVER = {
    "cancelled": "its instance was cancelled",
    "race_lost": "what it ran for was decided without it",
    "timed_out": "its timeout has passed",
    "completed": "its result came from outside",
    "ended": "its instance has ended",
    "withdrawn": "its flow waits for it no longer",
    "lease_lost": "this worker no longer owns its instance",
    "closed": "the engine was closed",
}


# --- code and log disagree ----------------------------------------------------------------


@attrs.define(eq=False)
class Diverged(TriggerflowError):
    """The code that runs now would not have made the record: no work is lost, none is done.

    Attributes:
        flow: name and version of the flow, as ``name/version``.
        position: index of the first log entry that disagrees; the log's length when the
            stored pending set disagrees.
        recorded: what the record has there.
        expected: what the code waits for now.
        reason: ``tag``, ``digest``, ``left_over``, ``pending`` or ``raised``.
        location: ``file:line`` where the code stands now, or "".
        nearby: the nearest entries' tags, oldest first, as ``(position, tag)``.
        detail: more, such as both digests.
    """

    flow: str
    position: int
    recorded: str
    expected: str
    reason: str
    location: str = ""
    nearby: tuple[tuple[int, str], ...] = ()
    detail: str = ""

    def __str__(self) -> str:
        where = f" at {self.location}" if self.location else ""
        lines = [
            f"flow {self.flow} diverged from its log at position {self.position}",
            f"  recorded:      {self.recorded}",
            f"  your code now: {self.expected}{where}",
        ]
        if self.detail:
            lines.append(f"  difference:    {self.detail}")
        if self.nearby:
            near = ", ".join(f"{position} {tag}" for position, tag in self.nearby)
            lines.append(f"  entries near:  {near}")
        lines.append(
            "  what to do:    put the old code back, register the change as a new version= "
            "of the flow, or guard it with patched(id)"
        )
        return "\n".join(lines)


# --- another worker, and the world outside -----------------------------------------------


@attrs.define(eq=False)
class StoreError(TriggerflowError):
    """The store can't be opened or used."""

    url: str
    problem: str
    remedy: str = ""

    def __str__(self) -> str:
        return f"store {self.url}: {self.problem}" + (f"; {self.remedy}" if self.remedy else "")


@attrs.define(eq=False)
class SchemaTooNew(StoreError):
    """The store was migrated by a newer triggerflow; this one must not touch it."""


@attrs.define(eq=False)
class PluginError(TriggerflowError):
    """A plugin could not be loaded or broke a hook's contract."""

    plugin: str
    problem: str
    remedy: str = ""

    def __str__(self) -> str:
        return f"plugin {self.plugin}: {self.problem}" + (
            f"; {self.remedy}" if self.remedy else ""
        )


class InternalError(TriggerflowError):
    """Our own mistake: please report it with the text you see."""
