"""What becomes of a planned firing, once a store has decided: the words and the rows of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import attrs

from triggerflow.errors import KeyTaken
from triggerflow.store.firings import JOINED
from triggerflow.store.records import FiringRecord

if TYPE_CHECKING:
    from triggerflow.store.firings import Letter
    from triggerflow.store.newcomer import NewInstance
    from triggerflow.store.operations import PlannedFiring


@attrs.define(slots=True)
class Met:
    """The activity of some firings."""

    seq: int
    cid: str
    depth: int = 0


class Decision(NamedTuple):
    """What becomes of a firing.

    Attributes:
        instance: public id of what is started, told, or was there already.
        earlier: sequence number of the activity that fired in its stead.
        number: of the instance that a letter goes to.
    """

    outcome: str
    error: str | None = None
    instance: str | None = None
    earlier: int | None = None
    number: int | None = None


def has_fired(planned: PlannedFiring, decision: Decision) -> bool:
    """Whether a firing did what was planned, or joined others that will."""
    done = decision.outcome == planned.outcome or decision.outcome in JOINED
    return done and decision.error is None


def counts(until: float | None, at: float) -> bool:
    """Whether a dedup key that fired counts still."""
    return until is None or at < until


def key_held(new: NewInstance, holder: str, *, same: bool) -> Decision:
    """Another instance holds the key of a new one, with the same input or with another."""
    if same:
        return Decision("deduped", None, holder)
    return Decision("failed", str(KeyTaken(new.flow, new.key or "", holder)))


def nobody(letter: Letter) -> Decision:
    """A letter that nobody is there for."""
    where = f" in namespace {letter.namespace!r}" if letter.namespace else ""
    return Decision(
        "failed",
        f"no live instance of flow {letter.flow!r} holds the key {letter.key!r}{where}: "
        f"there is nobody to {letter.kind}",
    )


def row_of(
    planned: PlannedFiring, decision: Decision, generation: int, at: float, source: str
) -> tuple[Any, ...]:
    """A firing's row from `instance` on, in the order of `firing` and of `firings.change`."""
    dead = planned.dead_letter
    return (
        decision.instance,
        decision.outcome,
        decision.error,
        generation,
        at,
        source,
        planned.due,
        planned.attempts,
        None if dead is None else dead.id,
        decision.earlier,
    )


def record_of(
    name: str,
    planned: PlannedFiring,
    decision: Decision,
    generation: int,
    at: float,
    source: str,
    *,
    activity: str,
    earlier: str | None,
) -> FiringRecord:
    """The same firing as whoever appended hears of it.

    Args:
        name: the trigger's.
        activity: CID of the activity; `earlier` that of the one which fired in its stead.
    """
    dead = planned.dead_letter
    return FiringRecord(
        name,
        planned.trigger_cid,
        decision.instance,
        decision.error,
        decision.outcome,
        at,
        generation,
        activity,
        earlier,
        source=source,
        due=planned.due,
        attempts=planned.attempts,
        dead_letter=None if dead is None else dead.id,
    )
