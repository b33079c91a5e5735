"""Heartbeats: what a step says of its progress, on its way from any thread to the store.

A step may say something a million times a second. At most one write an attempt is in flight;
what is said meanwhile replaces what was said before, and the newest goes out next. A failed
attempt's last word is written before the turn that counts its failure, so that the next
attempt finds it in whatever process it runs.

The same way tells a step that its attempt is over: nothing can stop a thread, but a step that
says something now and then can stop itself.
"""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, Protocol

import attrs
import trio

from triggerflow.errors import AttemptOver, EncodingRefused
from triggerflow.store.operations import Outcome, Verdict

if TYPE_CHECKING:
    from triggerflow.core.codec import ValueCodec
    from triggerflow.engine.clock import Clock
    from triggerflow.engine.committer import Committer
    from triggerflow.engine.performer import Attempt
    from triggerflow.engine.running import Running
    from triggerflow.store.operations import Heartbeat
    from triggerflow.store.tasks import TaskHeartbeat

log: Final = logging.getLogger("triggerflow")

# Progress is read at each claim and kept in memory: it is a bookmark, no result.
MOST_BYTES: Final = 16 * 1024


class Speaker(Protocol):
    """For whom an attempt runs: an owned instance, or a held task."""

    id: str
    generation: int
    progress: dict[tuple[int, str], bytes]

    def beat(self, tag: str, details: bytes, at: float) -> Heartbeat | TaskHeartbeat:
        """What its step said, as an operation."""
        ...


@attrs.define(slots=True, eq=False)
class Pulse:
    """The heartbeats of one attempt.

    Attributes:
        attempt: whose they are.
        before: what an earlier attempt said last, encoded, or None.
        newest: what this one said last, or None.
    """

    attempt: Attempt
    before: bytes | None
    _heartbeats: Heartbeats
    newest: bytes | None = None
    _sent: bytes | None = None
    _posted: bool = False
    _in_flight: bool = False

    # --- the step's side: any thread

    def beat(self, details: Any) -> None:
        """See `StepContext.heartbeat`."""
        attempt = self.attempt
        if attempt.over or attempt.overdue:
            raise AttemptOver(attempt.tag, attempt.cause or "timed_out")
        if details is None:
            return
        self.newest = self._heartbeats.encoded(details)
        # Two threads may both see it unset; a second visit finds nothing to do.
        if not self._posted:
            self._posted = True
            self._heartbeats.post(self._visit)

    def details(self) -> Any:
        """See `StepContext.details`."""
        return None if self.before is None else self._heartbeats.decoded(self.before)

    # --- the loop's side

    def _visit(self) -> None:
        # Before the newest is read: what comes later posts again.
        self._posted = False
        attempt = self.attempt
        run = attempt.owner
        if self._in_flight or attempt.over or run.gone or attempt.has_ended:
            return
        if run.attempts.get(attempt.tag) is attempt:
            self.send()

    def send(self) -> None:
        """Put the newest into the next batch, unless it went there before."""
        newest = self.newest
        if newest is None or newest is self._sent:
            return
        attempt = self.attempt
        run: Speaker = attempt.owner
        self._sent = run.progress[run.generation, attempt.tag] = newest
        self._in_flight = True
        self._heartbeats.submit(run, attempt.tag, newest, self._landed)

    def _landed(self, outcome: Outcome | Exception) -> None:
        self._in_flight = False
        run = self.attempt.owner
        if isinstance(outcome, Exception):
            # The next one says it again.
            self._sent = None
            log.warning("instance %s: its progress could not be stored: %s", run.id, outcome)
        elif outcome.verdict is Verdict.APPLIED:
            self._visit()
        elif not (run.gone or run.busy):
            # Where a turn is in flight, its own outcome tells.
            self._heartbeats.lost(run, outcome)


class Heartbeats:
    """Takes the heartbeats of attempts to the store."""

    def __init__(
        self,
        committer: Committer,
        codec: ValueCodec,
        clock: Clock,
        lost: Callable[[Any, Outcome], None],
    ) -> None:
        """
        Args:
            lost: called where a write was refused, since the instance, or the task, is
                another's.
        """
        self._committer = committer
        self._codec = codec
        self._clock = clock
        self.lost = lost
        self._token = trio.lowlevel.current_trio_token()
        self._guard = threading.Lock()

    def pulse_of(self, attempt: Attempt) -> Pulse:
        """An attempt's pulse, made when its step first asks: most steps never do.

        It may be called on any thread, so two may ask at once.
        """
        with self._guard:
            if attempt.pulse is None:
                run: Speaker = attempt.owner
                before = run.progress.get((run.generation, attempt.tag))
                attempt.pulse = Pulse(attempt, before, self)
            found: Pulse = attempt.pulse
        return found

    def encoded(self, details: Any) -> bytes:
        """What a step says, as it is stored.

        Raises:
            EncodingRefused: it is no log value, or too large.
        """
        blob = self._codec.encode(details, "heartbeat(details)")
        if len(blob) > MOST_BYTES:
            raise EncodingRefused(
                "heartbeat(details)",
                f"{len(blob):,} bytes",
                f"at most {MOST_BYTES:,} bytes, encoded",
                "say where the step stands, and keep its results elsewhere",
            )
        return blob

    def decoded(self, blob: bytes) -> Any:
        """A fresh copy of what was said."""
        return self._codec.decode(blob)

    def post(self, visit: Callable[[], None]) -> None:
        """Run something on the loop, from any thread."""
        with contextlib.suppress(trio.RunFinishedError):
            self._token.run_sync_soon(visit)

    def submit(
        self,
        run: Speaker,
        tag: str,
        details: bytes,
        landed: Callable[[Outcome | Exception], None],
    ) -> None:
        """Write what was said, if the instance is still ours by then."""
        self._committer.submit(run.beat(tag, details, self._clock.now()), landed)


def flush(attempt: Attempt) -> None:
    """The attempt has ended: its last word must be there for the next one, if it failed."""
    if attempt.pulse is not None and attempt.failure is not None:
        attempt.pulse.send()


def over(run: Running) -> tuple[str, ...]:
    """Tags of this generation that said something and are no longer pending."""
    if not run.progress:
        return ()
    now, pending = run.generation, run.pending
    return tuple([tag for said, tag in run.progress if said == now and tag not in pending])


def forget(run: Running, tags: tuple[str, ...]) -> None:
    """What they said is gone from the store."""
    for tag in tags:
        run.progress.pop((run.generation, tag), None)
