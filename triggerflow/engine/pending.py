"""The pending set of an owned instance, kept equal to what its drive waits for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from triggerflow.core.children import Child, JoinChild, child_id
from triggerflow.core.effects import Call
from triggerflow.core.log import Pending
from triggerflow.core.messages import WaitActivity
from triggerflow.core.tags import kind_of
from triggerflow.engine import queued
from triggerflow.engine.settling import starting
from triggerflow.store import acts
from triggerflow.triggers import Watch, compile_pattern

if TYPE_CHECKING:
    from triggerflow.core.branch import Waiting
    from triggerflow.core.driver import Replay
    from triggerflow.engine.drive import Drive
    from triggerflow.engine.running import Running


def update(drive: Drive) -> None:
    """Take in what was armed and drop what lost; add the calls to run to `drive.perform`."""
    run, replay, perform = drive.run, drive.replay, drive.perform
    live, pending, attempts = replay.pending, run.pending, run.attempts
    # What a full turn had no room to settle is the next one's, whole: an act of half of it
    # would be refused without end, since nobody looks whether it was.
    left = [tag for tag in replay.unsettled if tag in live]
    unsettled = frozenset(left)
    for tag in replay.armed:
        waiting = live.get(tag)
        if waiting is None or tag in unsettled:
            continue
        kept = pending.get(tag)
        effect: Any = waiting.effect
        if kept is not None and kept.digest not in (None, replay.digest_of(waiting)):
            # Code that replaced a wait or a call in back-off waits for something else.
            _dropped(drive, tag, kept)
            kept = None
        if kept is None:
            due = effect.due(drive.now) if hasattr(effect, "due") else None
            queue = queued.queue_of(drive, effect) if effect.runs else None
            since = _since(effect, drive.now)
            kept = Pending(replay.digest_of(waiting), due, 0, since, queue)
            run.arm(tag, kept)
            if queue is not None:
                queued.armed(drive, tag, waiting, queue)
            elif not effect.runs:
                _armed(drive, tag, waiting)
        if not effect.runs or kept.due is not None or kept.queue is not None:
            continue
        if tag not in attempts and tag not in perform:
            perform.append(tag)
    replay.armed[:] = left
    # All that is live is in by now, so equal sizes are equal sets.
    if len(pending) == len(live) - len(left):
        return
    # Losers, and what a changed flow no longer waits for.
    for tag in [tag for tag in pending if tag not in live]:
        _dropped(drive, tag, pending.pop(tag))
        drive.lost[tag] = _why_dropped(run, replay)


def _armed(drive: Drive, tag: str, waiting: Waiting) -> None:
    """What others must know of a new wait."""
    effect = waiting.effect
    if isinstance(effect, Child):
        drive.acts.append(starting(drive, tag, waiting))
    elif isinstance(effect, JoinChild):
        drive.acts.append(acts.AwaitChild(effect.ref.id))
    elif isinstance(effect, WaitActivity):
        digest = drive.replay.digest_of(waiting) or b""
        position = effect.after
        if position is None:
            position = drive.replay.positions.get(digest, drive.run.origin)
        (pattern,), _ = drive.codec.decode(waiting.snapshot or b"")
        drive.acts.append(
            acts.OpenWait(
                tag,
                drive.codec.encode(pattern),
                position,
                digest,
                Watch(compile_pattern(pattern)).pivots_in(drive.run.namespace),
            )
        )


def _dropped(drive: Drive, tag: str, kept: Pending) -> None:
    """What others must know of a wait that nobody waits under any more."""
    run = drive.run
    if kept.queue is not None:
        drive.acts.append(acts.CloseTask(tag))
        return
    kind = kind_of(tag)
    if kind == "child":
        child = child_id(run.id, run.generation, tag)
        run.joining.pop(child, None)
        none = drive.codec.encode(None)
        drive.acts.append(acts.CancelChild(child, none, drive.now, forget=True))
    elif kind == "wait_activity":
        drive.acts.append(acts.CloseWait(tag))


def _why_dropped(run: Running, replay: Replay) -> str:
    if run.cancelled:
        return "cancelled"
    return "race_lost" if replay.outcome is None else "ended"


def _since(effect: Any, now: float) -> float | None:
    """The time of the call, where its retries have a time limit."""
    if not isinstance(effect, Call) or effect.options.retry is None:
        return None
    return None if effect.options.retry.total_timeout is None else now
