"""Records in words and as JSON: what an instance waits for, why it is blocked, what to do."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import attrs

from triggerflow.cli.render import age, cut, duration, failure_text, short
from triggerflow.engine.views import pending_of
from triggerflow.errors import TriggerflowError

if TYPE_CHECKING:
    from triggerflow.core.codec import ValueCodec
    from triggerflow.core.failure import Failure
    from triggerflow.store.records import Hold, InstanceRecord

_REMEDIES = {
    "diverged": "put the old code back, register the change as a new version= of the flow, or "
    "guard it with patched(id); a worker with the right code goes on by itself",
    "unknown_flow": "run a worker whose app registers this flow; it goes on by itself",
    "unknown_version": "run a worker whose app registers this version; it goes on by itself",
    "crash_limit": "find the step that kills the process (see the pending tags), mend it, then "
    "unblock the instance",
}


class Unreadable:
    """Stands for a value that can't be decoded here, such as one of an unknown class."""

    def __init__(self, problem: str) -> None:
        self.problem = problem

    def __repr__(self) -> str:
        return f"<can't be read here: {self.problem}>"


def decoded(blob: bytes | None, codec: ValueCodec) -> Any:
    """A stored value, or what stands for one that can't be read without its app."""
    if blob is None:
        return None
    try:
        return codec.decode(blob)
    except TriggerflowError as error:
        return Unreadable(str(error))


def failure_of(record: InstanceRecord, codec: ValueCodec) -> Failure | None:
    """How an instance failed, if it did."""
    from triggerflow.core.failure import Failure

    if record.status not in ("failed", "cancelled") or record.value is None:
        return None
    return Failure.from_record(codec.decode(record.value))


def flow_label(record: InstanceRecord) -> str:
    """``name/version``, or the bare name before a worker chose the version."""
    return record.flow if record.version is None else f"{record.flow}/{record.version}"


def remedy(record: InstanceRecord) -> str | None:
    """What to do about a blocked instance."""
    return None if record.cause is None else _REMEDIES.get(record.cause)


def standing(record: InstanceRecord, codec: ValueCodec, now: float) -> str:
    """What one wants to know beside the status: what it waits for, or how it ended."""
    if record.status == "blocked":
        first = (record.reason or "").partition("\n")[0]
        return f"{record.cause}: {first}" if first else record.cause or ""
    if record.status == "done":
        return short(decoded(record.value, codec))
    failure = failure_of(record, codec)
    if failure is not None:
        return failure_text(failure)
    if record.hold is not None:
        return held_for(record.hold, now)
    tags = [
        tag if each.queue is None else f"{tag} on queue {each.queue}"
        for tag, each in pending_of(record, codec).items()
    ]
    if not tags:
        return "not driven yet" if record.started is None else ""
    more = f" and {len(tags) - 2} more" if len(tags) > 2 else ""
    due = ""
    if record.due is not None and record.status == "waiting":
        due = f", due {until(record.due, now)}"
    return cut(", ".join(tags[:2]) + more + due, 120)


def held_for(hold: Hold, now: float) -> str:
    """What an instance that isn't admitted yet waits for."""
    if hold.kind == "place":
        return f"a place of the concurrency key {hold.key}" if hold.key else "a place"
    key = f" of the key {hold.key}" if hold.key else ""
    return cut(f"{hold.kind}{key}, due {until(hold.until or now, now)}", 120)


def until(due: float, now: float) -> str:
    """When something is due, seen from now."""
    return f"in {duration(due - now)}" if due > now else f"{age(now - due)} ago"


def instance_model(
    record: InstanceRecord, codec: ValueCodec, *, values: bool = True
) -> dict[str, Any]:
    """An instance as JSON; without `values` its input and result are left out."""
    failure = failure_of(record, codec)
    model: dict[str, Any] = {
        "id": record.id,
        "flow": record.flow,
        "version": record.version,
        "status": record.status,
        "waiting": list(pending_of(record, codec)),
        "due": record.due if record.status == "waiting" else None,
        "held": None if record.hold is None else attrs.asdict(record.hold),
        "priority": record.priority,
        "cause": record.cause,
        "reason": record.reason,
        "failure": failure,
        "key": record.key,
        "namespace": record.namespace,
        "correlation_id": record.correlation_id,
        "parent": record.parent,
        "generation": record.generation,
        "attributes": {} if record.attributes is None else decoded(record.attributes, codec),
        "log_length": record.log_length,
        "crashes": record.crashes,
        "created": record.created,
        "started": record.started,
        "ended": record.ended,
        "trigger": record.trigger,
        "trigger_cid": record.trigger_cid,
        "activity": record.activity,
    }
    if values:
        model["input"] = decoded(record.input, codec)
        model["result"] = decoded(record.value, codec) if record.status == "done" else None
    return model


def entry_model(entry: Any, position: int) -> dict[str, Any]:
    """A log entry as JSON."""
    return {
        "position": position,
        "tag": entry.tag,
        "value": entry.value,
        "failure": entry.failure,
        "digest": None if entry.digest is None else entry.digest.hex(),
        "at": entry.at,
    }


def entry_text(value: Any, failure: Failure | None, width: int = 60) -> str:
    """What an entry recorded, on one line."""
    return f"raised {failure_text(failure, width)}" if failure else short(value, width)
