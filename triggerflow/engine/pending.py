"""The pending set of an owned instance, kept equal to what its drive waits for."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from triggerflow.core.effects import Call
from triggerflow.core.log import Pending

if TYPE_CHECKING:
    from triggerflow.core.driver import Replay
    from triggerflow.engine.running import Running


def update(run: Running, replay: Replay, now: float, perform: list[str]) -> None:
    """Take in what was armed and drop what lost; add the calls to run to `perform`."""
    live, pending, attempts = replay.pending, run.pending, run.attempts
    for tag in replay.armed:
        waiting = live.get(tag)
        if waiting is None:
            continue
        kept = pending.get(tag)
        effect: Any = waiting.effect
        is_call = type(effect) is Call
        if kept is None:
            due = effect.due(now) if not is_call and hasattr(effect, "due") else None
            kept = Pending(replay.digest_of(waiting), due, 0, _since(effect, now))
            pending[tag] = kept
        if is_call and kept.due is None and tag not in attempts and tag not in perform:
            perform.append(tag)
    replay.armed.clear()
    # All that is live is in by now, so equal sizes are equal sets.
    if len(pending) == len(live):
        return
    # Losers, and what a changed flow no longer waits for.
    for tag in [tag for tag in pending if tag not in live]:
        del pending[tag]
        attempt = attempts.pop(tag, None)
        if attempt is not None:
            attempt.cancel(_why_dropped(run, replay))


def next_due(kept: Iterable[Pending]) -> float | None:
    """The earliest due time, or None."""
    found = None
    for each in kept:
        if each.due is not None and (found is None or each.due < found):
            found = each.due
    return found


def _why_dropped(run: Running, replay: Replay) -> str:
    if run.cancelled:
        return "cancelled"
    return "race_lost" if replay.outcome is None else "ended"


def _since(effect: Any, now: float) -> float | None:
    """The time of the call, where its retries have a time limit."""
    if type(effect) is not Call or effect.options.retry is None:
        return None
    return None if effect.options.retry.total_timeout is None else now
