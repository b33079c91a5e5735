"""The plan: which firings an activity leads to. Dispatch and dry run call the same function.

Matching comes first and is pure. Guards are the user's code: they are judged outside of
any transaction, under a time limit, and their verdicts are handed in. What a guard's error
does to one firing it does to no other.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

import attrs

from triggerflow.core.codec import encode_document
from triggerflow.errors import EncodingRefused
from triggerflow.store.newcomer import NewInstance
from triggerflow.store.operations import PlannedFiring

if TYPE_CHECKING:
    from triggerflow.core.activity import Activity
    from triggerflow.flows.registry import FlowRegistry
    from triggerflow.triggers import Trigger

_NONE: Final[Mapping[str, str]] = MappingProxyType({})
_LONGEST_ERROR: Final = 10_000


@attrs.frozen
class Judged:
    """A guard's verdict: it passed, it did not, or it raised or hung (`error`).

    `unknown` says that this process has no code for it.
    """

    passed: bool = False
    error: str | None = None
    unknown: bool = False


def guarded(matched: Iterable[Trigger]) -> list[Trigger]:
    """The triggers among them whose guard must be judged first."""
    return [trigger for trigger in matched if trigger.guard is not None]


def plan(
    activity: Activity,
    matched: Iterable[Trigger],
    verdicts: Mapping[str, Judged],
    *,
    document: bytes,
    flows: FlowRegistry,
    now: float,
    seed: Callable[[], bytes],
    held: Mapping[str, str] = _NONE,
    attempts: int = 1,
) -> tuple[PlannedFiring, ...]:
    """Plan an activity's firings, in the triggers' order.

    Args:
        matched: triggers whose type, pattern and scope it meets, of one registry
            generation.
        verdicts: trigger CID -> what its guard said, for those that have one.
        document: the activity's bytes, which are the flows' input.
        now: the time of the append.
        seed: makes seeds for new instances.
        held: trigger CID -> ``paused`` or ``skipped``, for those that start nothing now.
        attempts: how often this dispatch was tried, this time included.
    """
    planned = []
    for trigger in matched:
        cid = trigger.trigger_cid
        if trigger.guard is not None:
            verdict = verdicts[cid]
            if verdict.unknown:
                planned.append(PlannedFiring(cid, outcome="deferred"))
                continue
            if verdict.error is not None:
                failed = failure(activity, trigger, verdict.error, attempts, now)
                letter = failed.dead_letter
                if letter is not None:
                    _bind(letter, trigger, flows, seed())
                planned.append(failed)
                continue
            if not verdict.passed:
                continue
        if cid in held:
            planned.append(PlannedFiring(cid, outcome=held[cid], attempts=attempts))
            continue
        new = NewInstance(
            instance_id(activity.cid, cid), trigger.start, None, document, b"", now
        )
        _bind(new, trigger, flows, seed())
        planned.append(PlannedFiring(cid, new, attempts=attempts))
    return tuple(planned)


def instance_id(activity_cid: str, trigger_cid: str, what: str = "") -> str:
    """The id of the instance that this pair starts: the pair's own, so it can't be two."""
    digest = hashlib.sha256(f"{activity_cid}\0{trigger_cid}{what}".encode()).digest()
    return base64.b32encode(digest[:13]).decode().lower()[:20]


def failure(
    activity: Activity, trigger: Trigger, error: str, attempts: int, now: float
) -> PlannedFiring:
    """What follows a dispatch that failed: another attempt later, or the dead letter.

    Without a retry policy it is a ``guard_error``, and nothing follows; with one that has had
    its attempts, or a dead letter, it has ``failed``.
    """
    cid, delivery = trigger.trigger_cid, trigger.delivery
    wait = delivery.delay(attempts, f"{activity.cid}\0{cid}".encode())
    if wait is not None:
        return PlannedFiring(cid, None, error, "guard_error", due=now + wait, attempts=attempts)
    if delivery.dead_letter is None:
        outcome = "guard_error" if delivery.retry is None else "failed"
        return PlannedFiring(cid, None, error, outcome, attempts=attempts)
    letter = NewInstance(
        id=instance_id(activity.cid, cid, "\0dead letter"),
        flow=delivery.dead_letter,
        version=None,
        input=_letter(activity, trigger, error),
        seed=b"",
        created=now,
    )
    return PlannedFiring(cid, None, error, "failed", attempts=attempts, dead_letter=letter)


def _letter(activity: Activity, trigger: Trigger, error: str) -> bytes:
    # What a guard raises may be no proper text, and of any length.
    words = error[:_LONGEST_ERROR].encode("utf-8", "replace").decode()
    found = {"activity_cid": activity.cid, "trigger": trigger.name, "error": words}
    try:
        return encode_document({**found, "activity": activity.document})
    except EncodingRefused:
        # As large or deep as may be, it can't stand in something larger.
        return encode_document({**found, "activity": None})


def _bind(new: NewInstance, trigger: Trigger, flows: FlowRegistry, seed: bytes) -> None:
    """Give a new instance its seed and its flow's version, or say why it has none."""
    new.seed = seed
    flow = flows.find(new.flow)
    if flow is not None:
        new.version = flow.version
        return
    new.status = "blocked"
    new.cause = "unknown_flow"
    new.reason = (
        f"trigger {trigger.name!r} starts the flow {new.flow!r}, which the process "
        "that appended the activity doesn't know: run a worker whose app registers it"
    )
