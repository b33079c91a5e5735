"""Queued calls in a turn: offered to their queue, answered, offered again, withdrawn."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import attrs

from triggerflow.core.answers import Answer
from triggerflow.core.failure import Failure
from triggerflow.core.sagas import Compensation
from triggerflow.core.step import Step
from triggerflow.engine.retrying import delay_of
from triggerflow.errors import DefinitionError
from triggerflow.store import acts

if TYPE_CHECKING:
    from triggerflow.core.branch import Waiting
    from triggerflow.engine.drive import Drive
    from triggerflow.store.records import InboxRow


def queue_of(drive: Drive, effect: Any) -> str | None:
    """Where a call that is armed now is to run; None: where its flow is driven."""
    queue: str | None = effect.options.queue
    if isinstance(effect, Compensation):
        run = drive.run
        if effect.after in run.attempts or effect.after in run.ending:
            # What it undoes runs here, and must have ended first; only here that is known.
            return None
    return queue


def refuse_strangers(drive: Drive) -> None:
    """Fail new queued calls whose step isn't registered in this app."""
    replay = drive.replay
    # It grows where a flow catches the failure and goes on.
    for tag in replay.armed:
        waiting = replay.pending.get(tag)
        if waiting is None or tag in drive.run.pending or not waiting.effect.runs:
            continue
        effect: Any = waiting.effect
        step = effect.fn
        if effect.options.queue is None or drive.around.steps.get(step.name) is step:
            continue
        problem = DefinitionError(
            f"{effect.describe()}.using(queue={effect.options.queue!r})",
            f"step {step.name!r} is not registered in this app, so no worker would find it",
            "pass it to app.register(), or decorate it with @app.step",
        )
        drive.fail(tag, Failure.of(problem))


def armed(drive: Drive, tag: str, waiting: Waiting, queue: str) -> None:
    """Offer a call to its queue."""
    effect: Any = waiting.effect
    assert isinstance(effect.fn, Step)
    args = waiting.snapshot
    if args is None:
        args, _ = drive.codec.request(effect.args, effect.kwargs, effect.name)
    options = effect.options
    drive.acts.append(
        acts.OpenTask(
            tag,
            queue,
            effect.fn.name,
            args,
            drive.now,
            options.timeout,
            options.idempotency_key,
        )
    )


def answered(drive: Drive, row: InboxRow) -> None:
    """Take what an attempt on a queue came to, if the flow still waits for it."""
    answer = Answer.decode(row.payload, drive.codec)
    tag = row.name
    waiting = drive.replay.pending.get(tag)
    kept = drive.run.pending.get(tag)
    # A generation that has ended may have waited under the same tag.
    if waiting is None or kept is None or answer.generation != drive.run.generation:
        return
    if kept.queue is None:
        return
    effect: Any = waiting.effect
    if answer.value is not None:
        blob, value = answer.value, drive.codec.decode(answer.value)
        succeeded(drive, tag, effect, blob, value, recorded=answer.recorded)
        return
    failure = answer.failure or Failure("InternalError", "an attempt ended with nothing")
    delay, failure = delay_of(drive, tag, effect, answer.raised, failure)
    if delay is None:
        drive.fail(tag, failure)
        return
    drive.run.pending[tag] = attrs.evolve(kept, attempts=kept.attempts + 1)
    drive.acts.append(acts.RearmTask(tag, drive.now + delay))


def succeeded(
    drive: Drive, tag: str, effect: Any, blob: bytes, value: Any, *, recorded: bool
) -> None:
    """A result; one under a key of the user's is the first one that was recorded.

    Args:
        recorded: it is that first one.
    """
    key = effect.options.idempotency_key
    if key is not None and not recorded:
        digest = drive.replay.digest_of(drive.replay.pending[tag])
        first = drive.run.refusal(tag, digest)
        if first is not None and first.value is not None:
            blob, value = first.value, drive.codec.decode(first.value)
        else:
            drive.acts.append(acts.RecordResult(tag, effect.name, key, blob, drive.now))
    drive.feed(tag, blob, value)
