"""When an attempt of an armed call begins: at once, after another one, or not at all."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from triggerflow.core.effects import Call
from triggerflow.core.sagas import Compensation

if TYPE_CHECKING:
    from triggerflow.core.codec import ValueCodec
    from triggerflow.core.driver import Replay
    from triggerflow.engine.attempts import Attempts
    from triggerflow.engine.committer import Committer
    from triggerflow.engine.heartbeats import Heartbeats
    from triggerflow.engine.performer import Attempt
    from triggerflow.engine.running import Running
    from triggerflow.store.protocol import Store

log: Final = logging.getLogger("triggerflow")

# How long a store is left alone that could not say whether a result is recorded.
_AGAIN: Final = 0.5


class Starter:
    """Hands attempts to the performer. Runs on the loop's thread.

    Args:
        later: calls something after so many seconds.
        finished: gets attempts that need not run, since their result is known.
    """

    def __init__(
        self,
        *,
        store: Store,
        committer: Committer,
        codec: ValueCodec,
        attempts: Attempts,
        heartbeats: Heartbeats,
        later: Callable[[float, Callable[[], None]], None],
        finished: Callable[[list[Attempt]], None],
    ) -> None:
        self._store = store
        self._committer = committer
        self._codec = codec
        self._attempts = attempts
        self._heartbeats = heartbeats
        self._later = later
        self._finished = finished

    def perform(self, run: Running, replay: Replay, tag: str) -> None:
        """Begin an attempt of a call whose turn is durable."""
        waiting = replay.pending.get(tag)
        if waiting is None or not isinstance(waiting.effect, Call):
            return
        if tag in run.attempts:
            # It was held until an attempt had ended, and that was while its turn landed.
            return
        effect = waiting.effect
        if isinstance(effect, Compensation) and effect.after in run.ending:
            # What it undoes may still be under way.
            held = run.held.setdefault(effect.after, [])
            if tag not in held:
                held.append(tag)
            return
        attempt = run.begin_attempt(waiting, effect, self._codec)
        attempt.heartbeats = self._heartbeats
        key = effect.options.idempotency_key
        if key is None:
            self._attempts.start(attempt)
        else:
            self._look_up(attempt, effect.name, key)

    def ended(self, run: Running, attempt: Attempt, *, begin: bool) -> bool:
        """An attempt that nobody waited for has ended: what was held for it may begin.

        Args:
            begin: it begins now; else it is left to whoever owns the instance next.

        Returns:
            Whether the instance may have been kept for this attempt's sake.
        """
        if run.ending.get(attempt.tag) is not attempt:
            return False
        del run.ending[attempt.tag]
        for tag in run.held.pop(attempt.tag, ()):
            if run.replay is None:
                continue
            if begin:
                self.perform(run, run.replay, tag)
            else:
                run.replay.armed.append(tag)
        return attempt.owed

    def _look_up(self, attempt: Attempt, step: str, key: str) -> None:
        """Take the result that is recorded under the key, or run the step."""

        def found(value: Any) -> None:
            if attempt.over:
                self._finished([attempt])
            elif isinstance(value, Exception):
                # Without an answer it may not run: somebody may have done it.
                log.warning("a recorded result could not be read, trying again: %s", value)
                self._later(_AGAIN, lambda: self._look_up(attempt, step, key))
            elif value is None:
                self._attempts.start(attempt)
            else:
                attempt.recorded = True
                attempt.blob, attempt.value = value, self._codec.decode(value)
                self._finished([attempt])

        self._committer.call(lambda: self._store.recorded(step, key), found)
