"""The stored triggers, as far as this process can read them.

A store outlives processes, and a newer triggerflow may have written a trigger with a field
that this one doesn't know. Such a trigger stops no other: where an activity is of its type,
or might be, a row in the outbox asks a worker that can read it. One whose bytes are damaged
is told and left out.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

import attrs

from triggerflow.core.codec import decode_document, encode_document
from triggerflow.errors import DecodingRefused, TriggerflowError
from triggerflow.pipeline.admission import limits_of
from triggerflow.store.history import Span
from triggerflow.store.operations import PlannedFiring
from triggerflow.store.records import NewTrigger, TriggerRecord
from triggerflow.triggers import Delivery, Trigger, TriggerIndex
from triggerflow.triggers.trigger import covers

if TYPE_CHECKING:
    from triggerflow.core.activity import Activity
    from triggerflow.triggers import Guard, Position

_NOTHING: Final[Mapping[Any, Any]] = {}

log: Final = logging.getLogger("triggerflow")


@attrs.frozen
class Unreadable:
    """A trigger that this process can't read.

    Attributes:
        on: its types, or None where even these can't be read.
        reason: why, in words.
        damaged: nobody can.
    """

    name: str
    cid: str
    on: tuple[str, ...] | None
    namespace: str
    reason: str
    damaged: bool = False

    def may_meet(self, activity: Activity) -> bool:
        """Tell whether a worker that can read it should look at an activity."""
        if self.damaged or self.namespace != activity.namespace:
            return False
        return self.on is None or covers(self.on, activity.types)


@attrs.frozen
class Known:
    """The triggers of one registry generation; those that drain meet nothing, and are left out.

    Attributes:
        held: trigger CID -> ``paused`` or ``skipped``, for those that start nothing.
        states: name -> state, where that isn't ``active``.
        read: (trigger CID, options) -> name of those in the index.
    """

    index: TriggerIndex = attrs.field(factory=TriggerIndex)
    unreadable: tuple[Unreadable, ...] = ()
    held: Mapping[str, str] = attrs.field(factory=dict)
    states: Mapping[str, str] = attrs.field(factory=dict)
    read: Mapping[tuple[str, bytes | None], str] = attrs.field(factory=dict)

    def deferred(self, activity: Activity) -> tuple[PlannedFiring, ...]:
        """Hand-overs to a worker that can read what this process can't."""
        return tuple(
            PlannedFiring(each.cid, outcome="deferred")
            for each in self.unreadable
            if each.may_meet(activity)
        )


def read_trigger(
    block: bytes, guards: Mapping[str, Guard], options: bytes | None = None
) -> Trigger:
    """A stored trigger, with its guard's code where this process has it, and its options.

    Raises:
        TriggerflowError: it can't be read.
    """
    spec = decode_document(block)
    key = spec.get("guard") if isinstance(spec, dict) else None
    guard = guards.get(key) if isinstance(key, str) else None
    trigger = Trigger.from_spec(spec, None if guard is None else guard.fn)
    return attrs.evolve(trigger, delivery=Delivery.decoded(options)) if options else trigger


def new_triggers(triggers: Iterable[Trigger]) -> list[NewTrigger]:
    """Triggers as a store takes them."""
    return [
        NewTrigger(
            each.name,
            each.trigger_cid,
            encode_document(each.spec()),
            each.meaning_cid,
            each.delivery.encoded(),
            None if each.start_at is None else span_from(each.start_at),
            limits_of(each),
        )
        for each in triggers
    ]


def span_from(start: Position) -> Span:
    """All of history from a place on."""
    return Span(start.seq, None, start.received)


def overlaid(
    records: Sequence[TriggerRecord], proposed: Sequence[NewTrigger]
) -> list[TriggerRecord]:
    """The triggers that were current if others were registered now; see `sync_triggers`."""
    if not proposed:
        return list(records)
    there = {each.cid for each in records}
    fresh = [each for each in proposed if each.cid not in there]
    names = {each.name for each in fresh}
    cids = {each.cid for each in proposed}
    # One of the same meaning is the same trigger under its old name.
    meanings = {each.meaning for each in fresh}
    kept = [
        each
        for each in records
        if each.cid in cids or (each.name not in names and _meaning(each) not in meanings)
    ]
    # A state belongs to its name.
    states = {each.name: each.state for each in records}
    return kept + [
        TriggerRecord(
            0, each.cid, each.name, each.spec, states.get(each.name, "new"), each.options
        )
        for each in fresh
    ]


def _meaning(record: TriggerRecord) -> str | None:
    try:
        return read_trigger(record.spec, {}).meaning_cid
    except TriggerflowError:
        return None


def read_triggers(
    records: Iterable[TriggerRecord],
    guards: Mapping[str, Guard],
    *,
    before: Known | None = None,
    own: Mapping[tuple[str, bytes | None], Trigger] = _NOTHING,
    tell: bool = True,
) -> Known:
    """All triggers of a registry generation; what can't be read is kept apart, and told.

    Args:
        before: an earlier generation, of which whatever has stayed is taken over.
        own: (trigger CID, options) -> trigger, for those that needn't be read.
    """
    before = before or Known()
    added: list[Trigger] = []
    read: dict[tuple[str, bytes | None], str] = {}
    unreadable: list[Unreadable] = []
    held: dict[str, str] = {}
    states: dict[str, str] = {}
    for record in records:
        if record.state not in ("active", "new"):
            states[record.name] = record.state
        if record.state in ("paused", "skipped"):
            held[record.cid] = record.state
        if record.state == "draining":
            continue
        about = record.cid, record.options
        try:
            if about not in before.read:
                added.append(
                    own.get(about) or read_trigger(record.spec, guards, record.options)
                )
            read[about] = record.name
        except TriggerflowError as error:
            each = _unreadable(record, error)
            unreadable.append(each)
            if tell:
                log.warning(
                    "trigger %r (%s) is left to others: %s", each.name, each.cid, each.reason
                )
    removed = [name for about, name in before.read.items() if about not in read]
    index = before.index.changed(added=added, removed=removed)
    return Known(index, tuple(unreadable), held, states, read)


def _unreadable(record: TriggerRecord, error: TriggerflowError) -> Unreadable:
    spec: Any = None
    try:
        spec = decode_document(record.spec)
    except DecodingRefused:
        return Unreadable(record.name, record.cid, None, "", str(error), damaged=True)
    fields = spec if isinstance(spec, dict) else {}
    on, namespace = fields.get("on"), fields.get("namespace", "")
    readable = isinstance(on, list) and all(isinstance(each, str) for each in on)
    return Unreadable(
        record.name,
        record.cid,
        tuple(on) if readable and on is not None else None,
        namespace if isinstance(namespace, str) else "",
        str(error),
    )
