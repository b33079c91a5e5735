"""Effects that a turn sees to before its next resolution, and the acts behind them.

What they do to others is an act of the turn's own commit. If the store refuses one, the turn
is taken again, and its effect fails.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from triggerflow.core.activity import MOST_CHAIN
from triggerflow.core.children import (
    MOST_DEPTH,
    CancelChild,
    Child,
    ChildRef,
    JoinChild,
    Spawn,
    child_id,
)
from triggerflow.core.effects import Inbox, SideEffect
from triggerflow.core.envelopes import Incoming
from triggerflow.core.failure import Failure
from triggerflow.core.messages import Emit, SendSignal, SetAttributes
from triggerflow.engine.clock import new_seed
from triggerflow.engine.letters import child_ended
from triggerflow.engine.validating import validated
from triggerflow.errors import (
    DefinitionError,
    EncodingRefused,
    InstanceEnded,
    KeyTaken,
    TooDeep,
    TriggerflowError,
    UnknownFlow,
    UnknownInstance,
)
from triggerflow.pipeline.admission import of_flow
from triggerflow.store import acts
from triggerflow.store.newcomer import NewInstance

if TYPE_CHECKING:
    from triggerflow.core.branch import Waiting
    from triggerflow.engine.drive import Drive


def settle(drive: Drive, tag: str, waiting: Waiting) -> None:
    """See to one effect: feed its value, or take note of what will bring it."""
    refusal = drive.run.refusal(tag, drive.replay.digest_of(waiting))
    if refusal is not None:
        drive.fail(tag, Failure.of(_refused(waiting.effect, refusal)))
        return
    _SETTLERS[type(waiting.effect)](drive, tag, waiting)


def _refused(effect: Any, refusal: acts.Refusal) -> TriggerflowError:
    if refusal.why == "key":
        return KeyTaken(effect.flow, effect.business_key or "", refusal.detail)
    if refusal.why == "ended":
        return InstanceEnded(effect.target, refusal.detail, f"signal {effect.name!r}")
    return UnknownInstance(effect.target)


def _side_effect(drive: Drive, tag: str, waiting: Waiting) -> None:
    effect: Any = waiting.effect
    try:
        blob = drive.codec.encode(effect.fn(), tag)
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # noqa: BLE001
        drive.fail(tag, Failure.of(error))
    else:
        drive.feed(tag, blob, drive.codec.decode(blob))


def _look(drive: Drive, tag: str, waiting: Waiting) -> None:
    """What the inbox holds now; nothing of it is consumed."""
    effect: Any = waiting.effect
    there = [
        [row.name, drive.codec.decode(row.payload)]
        for row in drive.run.inbox
        if row.kind == "signal" and (effect.names is None or row.name in effect.names)
    ]
    try:
        blob = drive.codec.frame(there, tag)
    except EncodingRefused as refused:
        drive.fail(tag, Failure.of(refused))
        return
    drive.feed(tag, blob, drive.codec.decode(blob))


def _spawn(drive: Drive, tag: str, waiting: Waiting) -> None:
    run = drive.run
    if run.depth >= MOST_DEPTH:
        drive.fail(tag, Failure.of(_too_deep(drive, waiting)))
        return
    effect: Any = waiting.effect
    drive.acts.append(starting(drive, tag, waiting))
    ref: ChildRef[Any] = ChildRef(child_id(run.id, run.generation, tag), effect.flow, run.id)
    _feed(drive, tag, ref)


def _child(drive: Drive, tag: str, waiting: Waiting) -> None:
    """Its start is an act of the turn's end, if it is still wanted then."""
    run = drive.run
    if run.depth >= MOST_DEPTH:
        drive.fail(tag, Failure.of(_too_deep(drive, waiting)))
        return
    run.joining.setdefault(child_id(run.id, run.generation, tag), []).append(tag)


def _too_deep(drive: Drive, waiting: Waiting) -> TooDeep:
    return TooDeep(f"{waiting.effect.key} of {drive.run.id}", drive.run.depth + 1, MOST_DEPTH)


def _join(drive: Drive, tag: str, waiting: Waiting) -> None:
    run = drive.run
    effect: Any = waiting.effect
    ref: ChildRef[Any] = effect.ref
    if ref.parent != run.id:
        problem = DefinitionError(
            f"join of {ref.flow} {ref.id}",
            f"it is a child of {ref.parent}, expected one of {run.id}",
            "let its own parent join it, and send the result on",
        )
        drive.fail(tag, Failure.of(problem))
        return
    row = run.ended.get(ref.id)
    if row is not None:
        child_ended(drive, tag, row)
    else:
        run.joining.setdefault(ref.id, []).append(tag)


def _signal(drive: Drive, tag: str, waiting: Waiting) -> None:
    (_, name, payload), _ = drive.codec.decode(waiting.snapshot or b"")
    blob = drive.codec.encode(payload, "payload")
    effect: Any = waiting.effect
    drive.acts.append(acts.SendMessage(tag, effect.target, name, blob, drive.now))
    _feed(drive, tag, None)


def _cancel(drive: Drive, tag: str, waiting: Waiting) -> None:
    effect: Any = waiting.effect
    ref: ChildRef[Any] = effect.ref
    drive.acts.append(acts.CancelChild(ref.id, drive.codec.encode(None), drive.now))
    _feed(drive, tag, None)


def _emit(drive: Drive, tag: str, waiting: Waiting) -> None:
    around, run = drive.around, drive.run
    try:
        if run.chain >= MOST_CHAIN:
            raise TooDeep(f"emit of {run.id}", run.chain + 1, MOST_CHAIN)
        (document,), _ = drive.codec.decode(waiting.snapshot or b"")
        activity, block = validated(
            Incoming(document, namespace=run.namespace),
            around.limits,
            around.validate,
            depth=run.chain + 1,
        )
    except TriggerflowError as error:
        drive.fail(tag, Failure.of(error))
        return
    drive.acts.append(
        acts.EmitActivity(
            activity.cid,
            block,
            json.dumps(activity.types),
            json.dumps(activity.actors),
            drive.now,
            activity.depth,
            activity.namespace,
        )
    )
    _feed(drive, tag, activity.cid)


def _set_attributes(drive: Drive, tag: str, waiting: Waiting) -> None:
    run = drive.run
    effect: Any = waiting.effect
    changed: dict[str, Any] = effect.values
    merged = {**run.attributes, **changed}
    attributes = {name: value for name, value in merged.items() if value is not None}
    try:
        blob = drive.codec.encode(attributes, "attributes")
    except TriggerflowError as refused:
        drive.fail(tag, Failure.of(refused))
        return
    run.attributes = attributes
    drive.acts.append(acts.SetAttributes(blob, changed))
    _feed(drive, tag, None)


def _feed(drive: Drive, tag: str, value: Any) -> None:
    blob = drive.codec.encode(value, tag)
    drive.feed(tag, blob, drive.codec.decode(blob))


_SETTLERS: Final[dict[type, Callable[[Any, str, Waiting], None]]] = {
    SideEffect: _side_effect,
    Inbox: _look,
    Spawn: _spawn,
    Child: _child,
    JoinChild: _join,
    SendSignal: _signal,
    CancelChild: _cancel,
    Emit: _emit,
    SetAttributes: _set_attributes,
}


def starting(drive: Drive, tag: str, waiting: Waiting) -> acts.SpawnChild:
    """The act that starts the child behind a `spawn` or `child`."""
    run, codec = drive.run, drive.codec
    effect: Any = waiting.effect
    (_, input), _ = codec.decode(waiting.snapshot or b"")
    known = drive.around.flows.find(effect.flow, effect.version)
    new = NewInstance(
        id=child_id(run.id, run.generation, tag),
        flow=effect.flow,
        version=effect.version if known is None else known.version,
        input=codec.encode(input, "input"),
        seed=new_seed(),
        created=drive.now,
        namespace=run.namespace,
        key=effect.business_key,
        digest=None if effect.business_key is None else codec.digest((input,), {}),
        correlation_id=run.correlation_id,
        depth=run.depth + 1,
        chain=run.chain,
        admission=of_flow(known, input, run.namespace),
    )
    if known is None:
        new.status, new.cause = "blocked", "unknown_flow"
        new.reason = (
            f"{UnknownFlow(effect.flow, effect.version)}; a worker that knows it starts it"
        )
    return acts.SpawnChild(tag, new, isinstance(effect, Child), effect.abandon)
