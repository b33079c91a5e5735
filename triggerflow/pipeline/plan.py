"""The plan: which firings an activity leads to. Dispatch and dry run call the same function.

Matching comes first and is pure. Guards are the user's code: they are judged outside of
any transaction, under a time limit, and their verdicts are handed in. What a guard's error
does to one firing it does to no other.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING

import attrs

from triggerflow.pipeline.cancelling import cancelling_waits
from triggerflow.store.newcomer import NewInstance
from triggerflow.store.operations import PlannedFiring
from triggerflow.triggers import NoValue

if TYPE_CHECKING:
    from triggerflow.core.activity import Activity
    from triggerflow.flows.registry import FlowRegistry
    from triggerflow.triggers import Trigger


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
) -> tuple[PlannedFiring, ...]:
    """Plan an activity's firings, in the triggers' order.

    Args:
        matched: triggers whose type, pattern and scope it meets, of one registry
            generation.
        verdicts: trigger CID -> what its guard said, for those that have one.
        document: the activity's bytes, which are the flows' input.
        now: the time of the append.
        seed: makes seeds for new instances.
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
                planned.append(PlannedFiring(cid, None, verdict.error, "guard_error"))
                continue
            if not verdict.passed:
                continue
        try:
            new = _instance(activity, trigger, document, flows, now, seed())
        except NoValue as error:
            planned.append(PlannedFiring(cid, None, str(error), "failed"))
        else:
            planned.append(PlannedFiring(cid, new))
    return tuple(planned)


def instance_id(activity_cid: str, trigger_cid: str) -> str:
    """The id of the instance that this pair starts: the pair's own, so it can't be two."""
    digest = hashlib.sha256(f"{activity_cid}\0{trigger_cid}".encode()).digest()
    return base64.b32encode(digest[:13]).decode().lower()[:20]


def _instance(
    activity: Activity,
    trigger: Trigger,
    document: bytes,
    flows: FlowRegistry,
    now: float,
    seed: bytes,
) -> NewInstance:
    flow = flows.find(trigger.start)
    new = NewInstance(
        id=instance_id(activity.cid, trigger.trigger_cid),
        flow=trigger.start,
        version=None if flow is None else flow.version,
        input=document,
        seed=seed,
        created=now,
        cancel_on=cancelling_waits(trigger.cancel_on, activity.document),
    )
    if flow is None:
        new.status = "blocked"
        new.cause = "unknown_flow"
        new.reason = (
            f"trigger {trigger.name!r} starts the flow {trigger.start!r}, which the process "
            "that appended the activity doesn't know: run a worker whose app registers it"
        )
    return new
