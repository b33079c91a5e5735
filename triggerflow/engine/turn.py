"""The turn: resolutions in, drive, one commit, then perform.

`take` does the first two and says what to commit and what to perform after it; nothing
here does I/O. Resolutions are fed one at a time: results first, then messages, then due
timers, so that a pending signal beats a due timer. What the drive doesn't consume isn't
logged: messages stay in the inbox, a result whose tag is gone goes with it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import attrs

from triggerflow.core.effects import (
    Call,
    Sleep,
    SleepUntil,
    TimedWait,
    WaitSignal,
)
from triggerflow.core.failure import Failure
from triggerflow.core.log import Entry, Pending, encode_pending
from triggerflow.core.messages import WaitActivity
from triggerflow.core.options import DEFAULT_OPTIONS
from triggerflow.core.outcomes import Continued, Done
from triggerflow.engine.clock import new_seed
from triggerflow.engine.drive import NONE, Drive
from triggerflow.engine.letters import children, messages
from triggerflow.engine.pending import update
from triggerflow.engine.queued import refuse_strangers, succeeded
from triggerflow.engine.requests import stored
from triggerflow.engine.retrying import delay_of
from triggerflow.engine.settling import settle
from triggerflow.errors import TimedOut
from triggerflow.store.acts import CloseWait, ContinueAsNew
from triggerflow.store.operations import LogRow, Turn

if TYPE_CHECKING:
    from triggerflow.core.driver import Replay
    from triggerflow.engine.drive import Around
    from triggerflow.engine.performer import Attempt
    from triggerflow.engine.running import Running
    from triggerflow.store.records import InboxRow


# A wider pending set is not looked through at each turn: any message wakes its instance.
_MOST_AWAITED: Final = 64


@attrs.define(slots=True)
class Taken:
    """A turn that was driven and not yet committed.

    Attributes:
        operation: what to commit.
        perform: tags of the calls to run once it is durable.
        lost: tag -> why its attempt is given up once it is durable.
        results: resolutions that it took, to be taken again if the commit fails.
        messages: the same, of the inbox.
    """

    operation: Turn
    perform: list[str]
    lost: dict[str, str]
    results: list[Attempt]
    messages: list[InboxRow]


def take(run: Running, replay: Replay, *, around: Around, now: float) -> Taken:
    """Drive an instance through everything that waits for it.

    Raises:
        Diverged: never for a healthy replay; the caller blocks the instance.
    """
    if len(run.results) == 1 and not (
        run.inbox or run.due or run.news or run.retried or run.refused or replay.armed
    ):
        taken = _take_result(run, replay, around, now)
        if taken is not None:
            return taken
    drive = Drive(run, replay, around, settle, run.tick(now))
    # Of what was given up nobody wants the result, not even after a failed commit.
    results = [each for each in run.results if run.attempts.get(each.tag) is each]
    run.results = []
    run.fresh = False
    due, run.due = run.due, []
    drive.begin()
    for index, attempt in enumerate(results):
        if drive.full:
            run.results[:0] = results[index:]
            del results[index:]
            break
        if replay.outcome is None:
            _result(drive, attempt)
    if run.news:
        children(drive)
    if run.inbox:
        messages(drive)
    for tag in due:
        if drive.full:
            run.due.append(tag)
        elif replay.outcome is None:
            _timer(drive, tag)
    if due and run.inbox:
        # A timer may have moved the flow to a wait for a message that is there already.
        messages(drive)
    return _finish(drive, results)


def _take_result(run: Running, replay: Replay, around: Around, now: float) -> Taken | None:
    """The commonest turn, on a short road: one result in, the next call out.

    None where it is another turn after all; nothing was changed then.
    """
    attempt = run.results[0]
    tag = attempt.tag
    blob = attempt.blob
    if blob is None or attempt.failure is not None or run.attempts.get(tag) is not attempt:
        return None
    if len(run.pending) != 1 or tag not in replay.pending:
        return None
    if attempt.keyed:
        return None
    now = run.tick(now)
    run.fresh = False
    run.results = []
    del run.attempts[tag]
    kept = run.pending.pop(tag)
    replay.resolve(Entry(tag, attempt.value, None, None, now))
    row = LogRow(tag, blob, False, kept.digest, now)
    if len(replay.armed) == 1 == len(replay.pending) and not replay.recorded:
        (armed,) = replay.armed
        waiting = replay.pending.get(armed)
        if (
            waiting is not None
            and type(waiting.effect) is Call
            and waiting.effect.options is DEFAULT_OPTIONS
        ):
            replay.armed.clear()
            digest = waiting.digest or replay.digest_of(waiting)
            run.pending[armed] = Pending(digest)
            return Taken(
                Turn(
                    run.number,
                    run.generation,
                    run.log_length,
                    (row,),
                    around.codec.pack(encode_pending(run.pending)),
                    "running",
                    now,
                    run.started,
                    inbox_seen=run.inbox_seen,
                ),
                [armed],
                {},
                [attempt],
                [],
            )
    drive = Drive(run, replay, around, settle, now)
    drive.rows.append(row)
    drive.size += len(blob)
    drive.begin()
    return _finish(drive, [attempt])


def _result(drive: Drive, attempt: Attempt) -> None:
    """An attempt has ended: an entry, or another attempt later."""
    tag = attempt.tag
    waiting = drive.replay.pending.get(tag)
    if waiting is None:
        return
    del drive.run.attempts[tag]
    if attempt.failure is None and attempt.blob is not None:
        effect: Any = waiting.effect
        succeeded(drive, tag, effect, attempt.blob, attempt.value, recorded=attempt.recorded)
        return
    failure = attempt.failure or Failure("InternalError", "an attempt ended with nothing")
    effect = waiting.effect
    kept = drive.run.pending[tag]
    delay, failure = delay_of(drive, tag, effect, attempt.error, failure)
    if delay is None:
        drive.fail(tag, failure)
    else:
        drive.run.arm(
            tag, attrs.evolve(kept, due=drive.now + delay, attempts=kept.attempts + 1)
        )


def _timer(drive: Drive, tag: str) -> None:
    """A due time has come."""
    kept = drive.run.pending.get(tag)
    waiting = drive.replay.pending.get(tag)
    if kept is None or waiting is None or kept.due is None or kept.due > drive.now:
        return
    if isinstance(waiting.effect, Sleep | SleepUntil):
        drive.feed(tag, NONE)
    elif isinstance(waiting.effect, TimedWait):
        if isinstance(waiting.effect, WaitActivity):
            drive.acts.append(CloseWait(tag))
        drive.fail(tag, Failure.of(TimedOut(tag)))
    elif tag not in drive.run.attempts:
        drive.run.pending[tag] = attrs.evolve(kept, due=None)
        drive.perform.append(tag)


def _finish(drive: Drive, results: list[Attempt]) -> Taken:
    """The operation to commit and what to perform after it."""
    run = drive.run
    refuse_strangers(drive)
    update(drive)
    # The executor goes on with what didn't fit.
    run.fresh = drive.full
    due = run.next_due
    outcome = drive.replay.outcome
    value = None
    if outcome is None:
        stays = drive.perform or drive.full or run.is_busy_beside(drive.lost)
        status = "running" if stays else "waiting"
    elif isinstance(outcome, Continued):
        status = "running"
        drive.acts.append(_continued(drive, outcome))
    elif isinstance(outcome, Done):
        status = "done"
        value = drive.codec.encode(outcome.result)
    else:
        status = "cancelled" if outcome.failure.kind == "cancelled" else "failed"
        value = drive.codec.encode(outcome.failure.to_record())
    pending, changed, afresh = stored(run, drive.codec)
    operation = Turn(
        run.number,
        run.generation,
        run.log_length,
        tuple(drive.rows),
        pending,
        status,
        drive.now,
        run.started,
        due,
        tuple([row.id for row in drive.consumed]),
        run.inbox_seen,
        value,
        tuple(drive.acts),
        awaits=_awaited(drive) if status == "waiting" else None,
        changed=changed,
        afresh=afresh,
    )
    return Taken(operation, drive.perform, drive.lost, results, drive.consumed)


def _awaited(drive: Drive) -> tuple[str, ...] | None:
    """The names of the signals that it waits for, or None where too much is to be looked at."""
    names: dict[str, None] = {}
    if len(drive.replay.pending) > _MOST_AWAITED:
        return None
    for waiting in drive.replay.pending.values():
        if isinstance(waiting.effect, WaitSignal):
            names.update(dict.fromkeys(waiting.effect.names))
    return tuple(names)


def _continued(drive: Drive, outcome: Continued) -> ContinueAsNew:
    """The next generation, of the latest version that is known here."""
    latest = drive.around.flows.find(drive.run.flow.name) or drive.run.flow
    positions = [list(each) for each in drive.replay.positions.items()]
    return ContinueAsNew(
        latest.version,
        drive.codec.encode(outcome.input, "input"),
        new_seed(),
        drive.codec.pack(positions) if positions else None,
    )
