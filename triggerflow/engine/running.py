"""An instance that this worker owns: its live replay, and what waits to be taken."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from triggerflow.core.driver import Replay
from triggerflow.core.failure import Failure
from triggerflow.core.log import RETRIED, Entry, Pending, decode_pending, encode_pending
from triggerflow.engine.performer import Attempt

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from triggerflow.core.branch import Waiting
    from triggerflow.core.codec import ValueCodec
    from triggerflow.core.effects import Call
    from triggerflow.engine.timers import Timer, Timers
    from triggerflow.flows.flow import Flow
    from triggerflow.store.records import Claimed, InboxRow, LogRecord


class Running:
    """One owned instance.

    Attributes:
        pending: the pending set, as the last turn left it.
        attempts: tag -> the attempt that runs for it.
        results: attempts that have ended and were not taken yet.
        inbox: messages that were not taken yet, oldest first.
        due: tags whose timer fired and was not taken yet.
        fresh: messages came since the last turn.
        watched: tag -> the timer that was set for it.
        busy: a turn is in flight; what comes meanwhile waits for the next.
        gone: this worker no longer owns it.
    """

    __slots__ = (
        "attempts",
        "busy",
        "cancelled",
        "crashes",
        "due",
        "flow",
        "fresh",
        "generation",
        "gone",
        "id",
        "inbox",
        "inbox_seen",
        "input",
        "last_at",
        "log_length",
        "number",
        "pending",
        "replay",
        "results",
        "retried",
        "seed",
        "started",
        "trouble",
        "watched",
    )

    def __init__(self, claimed: Claimed, flow: Flow, now: float) -> None:
        self.number = claimed.number
        self.id = claimed.id
        self.flow = flow
        self.generation = claimed.generation
        self.log_length = claimed.log_length
        self.input = claimed.input
        self.seed = claimed.seed
        self.started = now if claimed.started is None else claimed.started
        self.last_at = self.started
        self.crashes = claimed.crashes
        self.cancelled = claimed.cancelled and not any(
            row.kind == "cancel" for row in claimed.inbox
        )
        self.replay: Replay | None = None
        self.pending: dict[str, Pending] = {}
        self.attempts: dict[str, Attempt] = {}
        self.results: list[Attempt] = []
        self.inbox: list[InboxRow] = []
        self.inbox_seen = 0
        self.due: list[str] = []
        self.retried: list[InboxRow] = []
        self.fresh = False
        self.watched: dict[str, Timer] = {}
        self.busy = False
        self.gone = False
        self.trouble = 0
        self.receive(claimed.inbox)

    def receive(self, rows: Iterable[InboxRow]) -> None:
        """Take note of messages that it hasn't seen."""
        for row in rows:
            if row.id > self.inbox_seen:
                self.inbox_seen = row.id
                self.fresh = True
                (self.retried if row.kind == "retry" else self.inbox).append(row)

    def redrive(
        self, log: Iterable[LogRecord], pending: bytes | None, codec: ValueCodec
    ) -> Replay:
        """Re-drive from the stored log and check the stored pending set at its end.

        Raises:
            Diverged: the code would not have made this record.
            DecodingRefused: a value can't be read, such as one of an unknown class.
        """
        entries = [entry_of(row, codec) for row in log]
        if entries and entries[-1].at is not None:
            self.last_at = max(self.last_at, entries[-1].at)
        # A retry voids the failure at the tail, so it must be known while driving; the
        # next turn writes its entry.
        entries += [Entry(RETRIED, at=self.last_at) for _ in self.retried]
        stored = None if pending is None else decode_pending(codec.decode(pending))
        self.pending = dict(stored or {})
        self.replay = replay = Replay(
            self.flow,
            codec.decode(self.input),
            codec=codec,
            seed=self.seed,
            started=self.started,
            log=entries,
            stored=stored,
        )
        return replay

    def drive_again(self, log: Iterable[LogRecord], codec: ValueCodec) -> Replay:
        """The same place, reached from the stored log.

        Raises:
            Diverged: another place is reached.
        """
        if self.replay is not None:
            self.replay.close()
        replay = self.redrive(log, codec.pack(encode_pending(self.pending)), codec)
        replay.armed.clear()
        return replay

    def tick(self, now: float) -> float:
        """The time for the next entry: never before its predecessor's."""
        self.last_at = max(self.last_at, now)
        return self.last_at

    def begin_attempt(self, waiting: Waiting, effect: Call[Any], codec: ValueCodec) -> Attempt:
        """A new attempt of a pending call."""
        args, kwargs = effect.args, effect.kwargs
        if waiting.snapshot is not None:
            # Fresh copies: what the step does to them must not reach the flow.
            args, kwargs = codec.decode(waiting.snapshot)
        tag = waiting.tag
        number = self.pending[tag].attempts + 1 + self.crashes
        attempt = self.attempts[tag] = Attempt(
            self, tag, effect.name, effect.fn, args, kwargs, number, effect.options.timeout
        )
        return attempt

    def watch(self, timers: Timers, fired: Callable[[Running, str], None]) -> None:
        """Have a timer for each due time, and no other."""
        watched, self.watched = self.watched, {}
        for tag, kept in self.pending.items():
            if kept.due is None:
                continue
            timer = watched.pop(tag, None)
            # One that has fired too early, by a clock that was set back, is set anew.
            if timer is None or timer[0] != kept.due or timer[2] is None:
                if timer is not None:
                    timers.cancel(timer)
                timer = timers.at(kept.due, partial(fired, self, tag))
            self.watched[tag] = timer
        for timer in watched.values():
            timers.cancel(timer)

    def unwatch(self, timers: Timers) -> None:
        """Its timers must not outlive it: a week's timeout would keep it for a week."""
        for timer in self.watched.values():
            timers.cancel(timer)
        self.watched = {}

    def note_due(self, now: float) -> None:
        """Take note of every timer that has fired by now."""
        self.due = [
            tag
            for tag, kept in self.pending.items()
            if kept.due is not None and kept.due <= now
        ]

    def give_back(self, results: list[Attempt], messages: list[InboxRow]) -> None:
        """Take back what a turn took whose commit failed."""
        self.results[:0] = results
        for attempt in results:
            self.attempts[attempt.tag] = attempt
        for row in messages:
            if row.kind == "retry":
                self.retried.append(row)
            else:
                self.inbox.append(row)
                self.cancelled = self.cancelled and row.kind != "cancel"
        self.inbox.sort(key=lambda row: row.id)

    def drop(self) -> None:
        """This worker no longer owns it: stop what runs for it."""
        self.gone = True
        for attempt in self.attempts.values():
            attempt.cancel()
        self.attempts.clear()
        if self.replay is not None:
            self.replay.close()
            self.replay = None


def entry_of(row: LogRecord, codec: ValueCodec) -> Entry:
    """A stored entry as the driver takes it; its value is fresh."""
    value: Any = codec.decode(row.value)
    if row.failed:
        return Entry(row.tag, None, Failure.from_record(value), row.digest, row.at)
    return Entry(row.tag, value, None, row.digest, row.at)
