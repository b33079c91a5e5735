"""The plan: which firings an activity leads to. Dispatch, dry run and explain call `plan`.

Matching comes first and is pure. Code of the user's (guards, validators of signals) is judged
outside of any transaction, under a time limit, and the verdicts are handed in. What an error
does to one firing it does to no other. What only the store can know (has a dedup key fired,
who holds a business key) it decides as it writes.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

import attrs

from triggerflow.core.codec import decode_document, encode_document
from triggerflow.errors import EncodingRefused
from triggerflow.pipeline.admission import of_flow, of_trigger
from triggerflow.pipeline.cancelling import cancelling_waits
from triggerflow.store.firings import Letter, Once
from triggerflow.store.newcomer import NewInstance
from triggerflow.store.operations import PlannedFiring
from triggerflow.triggers.mapping import NoValue, key_text

if TYPE_CHECKING:
    from triggerflow.core.activity import Activity
    from triggerflow.flows import Flow, FlowRegistry
    from triggerflow.triggers import Trigger

# None, encoded: what a cancel carries.
_NONE: Final = b"\xf6"
_NOTHING: Final[Mapping[str, str]] = MappingProxyType({})
_LONGEST_ERROR: Final = 10_000


@attrs.frozen
class Judged:
    """What the user's code said: it passed, it did not, or it raised or hung (`error`).

    `unknown` says that this process has no code for it; `refused` why the flow doesn't take
    the signal.
    """

    passed: bool = False
    error: str | None = None
    unknown: bool = False
    refused: str | None = None


def asks_code(trigger: Trigger, flows: FlowRegistry) -> bool:
    """Tell whether code of the user's must be asked before this trigger fires."""
    if trigger.guard is not None:
        return True
    flow = None if trigger.signal is None else flows.find(trigger.flow)
    return flow is not None and flow.signals is not None


def too_deep(activity: Activity, trigger: Trigger) -> str | None:
    """Why a trigger takes no activity from so far down a chain of emitted ones, or None."""
    limit = trigger.max_depth
    if limit is None or activity.depth <= limit:
        return None
    return (
        f"{activity.depth} emitted activities led to this one, and its max_depth is {limit}: "
        "does a flow lead to itself?"
    )


def refused_signal(activity: Activity, trigger: Trigger, flows: FlowRegistry) -> str | None:
    """Why the flow doesn't take a trigger's signal, as its declaration says, or None.

    It runs the flow's validator, which is the user's code.
    """
    signal = trigger.signal
    flow = None if signal is None else flows.find(trigger.flow)
    if signal is None or flow is None or flow.signals is None:
        return None
    try:
        payload = decode_document(_payload(activity, signal.payload))
    except (NoValue, EncodingRefused):
        # The plan says so.
        return None
    problem = flow.refusal(signal.name, payload)
    return None if problem is None else f"signal {signal.name!r} refused: {problem}"


def plan(
    activity: Activity,
    matched: Iterable[Trigger],
    verdicts: Mapping[str, Judged],
    *,
    document: bytes,
    flows: FlowRegistry,
    now: float,
    seed: Callable[[], bytes],
    held: Mapping[str, str] = _NOTHING,
    attempts: int = 1,
) -> tuple[PlannedFiring, ...]:
    """Plan an activity's firings, in the triggers' order.

    Args:
        matched: triggers whose type, namespace, pattern and scope it meets, of one registry
            generation.
        verdicts: trigger CID -> what code said, for those that ask some.
        document: the activity's bytes, which are the flows' input by default.
        now: the time of the append.
        seed: makes seeds for new instances.
        held: trigger CID -> ``paused`` or ``skipped``, for those that start nothing now.
        attempts: how often this dispatch was tried, this time included.
    """
    planned: list[PlannedFiring] = []

    def fail(trigger: Trigger, error: str, outcome: str, *, again: bool = False) -> None:
        failed = _failure(activity, trigger, error, outcome, attempts, now, again=again)
        letter = failed.dead_letter
        if letter is not None:
            _bind(letter, trigger, flows.find(letter.flow), seed())
            flow = flows.find(letter.flow)
            if flow is not None and flow.control is not None:
                given = decode_document(letter.input)
                letter.admission = of_flow(flow, given, letter.namespace)
        planned.append(failed)

    for trigger in matched:
        cid = trigger.trigger_cid
        deep = too_deep(activity, trigger)
        if deep is not None:
            planned.append(PlannedFiring(cid, None, deep, "too_deep"))
            continue
        verdict = verdicts.get(cid)
        if verdict is not None:
            if verdict.unknown:
                planned.append(PlannedFiring(cid, outcome="deferred"))
                continue
            if verdict.error is not None:
                fail(trigger, verdict.error, "guard_error", again=True)
                continue
            if not verdict.passed:
                continue
        if cid in held:
            planned.append(PlannedFiring(cid, outcome=held[cid], attempts=attempts))
            continue
        if verdict is not None and verdict.refused is not None:
            fail(trigger, verdict.refused, "failed")
            continue
        try:
            fired = _firing(activity, trigger, document, flows, now, seed)
        except (NoValue, EncodingRefused) as error:
            fail(trigger, str(error), "failed")
            continue
        fired.attempts = attempts
        planned.append(fired)
    return tuple(planned)


def instance_id(activity_cid: str, trigger_cid: str, what: str = "") -> str:
    """The id of the instance that this pair starts: the pair's own, so it can't be two."""
    digest = hashlib.sha256(f"{activity_cid}\0{trigger_cid}{what}".encode()).digest()
    return base64.b32encode(digest[:13]).decode().lower()[:20]


def _failure(
    activity: Activity,
    trigger: Trigger,
    error: str,
    outcome: str,
    attempts: int,
    now: float,
    *,
    again: bool,
) -> PlannedFiring:
    """What follows a dispatch that failed: another attempt later, or the dead letter.

    Without a retry policy and a dead letter it has `outcome`, and nothing follows; with one
    that has had its attempts, or a dead letter, it has ``failed``.

    Args:
        again: it may go better another time; a mapping that lacks its field won't.
    """
    cid, delivery = trigger.trigger_cid, trigger.delivery
    wait = delivery.delay(attempts, f"{activity.cid}\0{cid}".encode()) if again else None
    if wait is not None:
        return PlannedFiring(cid, None, error, outcome, due=now + wait, attempts=attempts)
    if delivery.dead_letter is None:
        last = outcome if delivery.retry is None else "failed"
        return PlannedFiring(cid, None, error, last, attempts=attempts)
    letter = NewInstance(
        id=instance_id(activity.cid, cid, "\0dead letter"),
        flow=delivery.dead_letter,
        version=None,
        input=_dead_letter(activity, trigger, error),
        seed=b"",
        created=now,
        namespace=trigger.namespace,
    )
    return PlannedFiring(cid, None, error, "failed", attempts=attempts, dead_letter=letter)


def _dead_letter(activity: Activity, trigger: Trigger, error: str) -> bytes:
    # What a guard raises may be no proper text, and of any length.
    words = error[:_LONGEST_ERROR].encode("utf-8", "replace").decode()
    found = {"activity_cid": activity.cid, "trigger": trigger.name, "error": words}
    try:
        return encode_document({**found, "activity": activity.document})
    except EncodingRefused:
        # As large or deep as may be, it can't stand in something larger.
        return encode_document({**found, "activity": None})


def _firing(
    activity: Activity,
    trigger: Trigger,
    document: bytes,
    flows: FlowRegistry,
    now: float,
    seed: Callable[[], bytes],
) -> PlannedFiring:
    planned = PlannedFiring(trigger.trigger_cid)
    if trigger.signal is not None or trigger.cancel is not None:
        planned.letter = _letter(activity, trigger, document)
        planned.outcome = "cancelled" if trigger.signal is None else "signalled"
    else:
        planned.instance = _instance(activity, trigger, document, flows, now, seed())
    if trigger.dedup is not None:
        across = trigger.dedup.across_versions
        planned.once = Once(
            f"name:{trigger.name}" if across else f"cid:{trigger.trigger_cid}",
            trigger.dedup.digest(activity),
            trigger.dedup.window,
        )
    return planned


def _letter(activity: Activity, trigger: Trigger, document: bytes) -> Letter:
    signal = trigger.signal
    target = trigger.cancel if signal is None else signal.target
    assert target is not None
    key = key_text(target.key, activity)
    if signal is None:
        return Letter(trigger.namespace, target.flow, key, "cancel", "", _NONE)
    payload = document if signal.payload is None else _payload(activity, signal.payload)
    return Letter(trigger.namespace, target.flow, key, "signal", signal.name, payload)


def _payload(activity: Activity, template: Any) -> bytes:
    return _encoded(activity.document if template is None else template(activity))


def _encoded(made: Any) -> bytes:
    return encode_document(made, what="the mapped input")


def _instance(
    activity: Activity,
    trigger: Trigger,
    document: bytes,
    flows: FlowRegistry,
    now: float,
    seed: bytes,
) -> NewInstance:
    given = activity.document if trigger.input is None else trigger.input(activity)
    key = key_text(trigger.key, activity) if trigger.key else None
    flow = flows.find(trigger.flow)
    new = NewInstance(
        id=instance_id(activity.cid, trigger.trigger_cid),
        flow=trigger.flow,
        version=None,
        input=document if trigger.input is None else _encoded(given),
        seed=b"",
        created=now,
        namespace=trigger.namespace,
        key=key,
        admission=of_trigger(trigger, flow, activity.document, given, key),
        cancel_on=cancelling_waits(trigger.cancel_on, activity, trigger.namespace),
    )
    _bind(new, trigger, flow, seed)
    return new


def _bind(new: NewInstance, trigger: Trigger, flow: Flow | None, seed: bytes) -> None:
    """Give a new instance its seed and its flow's version, or say why it has none."""
    new.seed = seed
    if flow is not None:
        new.version = flow.version
        return
    new.status = "blocked"
    new.cause = "unknown_flow"
    new.reason = (
        f"trigger {trigger.name!r} starts the flow {new.flow!r}, which the process "
        "that appended the activity doesn't know: run a worker whose app registers it"
    )
