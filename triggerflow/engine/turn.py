"""The turn: resolutions in, drive, one commit, then perform.

`take` does the first two and says what to commit and what to perform after it; nothing
here does I/O. Resolutions are fed one at a time: results first, then messages, then due
timers, so that a pending signal beats a due timer. What the drive doesn't consume isn't
logged: messages stay in the inbox, a result whose tag is gone goes with it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import attrs

from triggerflow.core.driver import Done, Replay
from triggerflow.core.effects import (
    DEFAULT_OPTIONS,
    Call,
    Inbox,
    SideEffect,
    Sleep,
    SleepUntil,
    WaitSignal,
)
from triggerflow.core.failure import Failure
from triggerflow.core.log import CANCEL, RETRIED, Entry, Pending, encode_pending
from triggerflow.engine.pending import next_due, update
from triggerflow.errors import TimedOut
from triggerflow.store.operations import LogRow, Turn

if TYPE_CHECKING:
    from triggerflow.core.codec import ValueCodec
    from triggerflow.engine.performer import Attempt
    from triggerflow.engine.running import Running
    from triggerflow.store.records import InboxRow


# A turn with so many entries commits and goes on: no transaction grows without bound.
_MOST_ENTRIES: Final = 10_000
# None, encoded: the value of entries that carry none.
_NONE: Final = b"\xf6"


@attrs.define(slots=True)
class Taken:
    """A turn that was driven and not yet committed.

    Attributes:
        operation: what to commit.
        perform: tags of the calls to run once it is durable.
        results: resolutions that it took, to be taken again if the commit fails.
        messages: the same, of the inbox.
    """

    operation: Turn
    perform: list[str]
    results: list[Attempt]
    messages: list[InboxRow]


class _Drive:
    """One turn in the making."""

    __slots__ = ("codec", "consumed", "now", "perform", "replay", "rows", "run", "settling")

    def __init__(self, run: Running, replay: Replay, codec: ValueCodec, now: float) -> None:
        self.run = run
        self.replay = replay
        self.codec = codec
        self.now = now
        self.rows: list[LogRow] = []
        self.consumed: list[InboxRow] = []
        self.perform: list[str] = []
        self.settling = False

    @property
    def full(self) -> bool:
        """Whether the rest must wait for the next turn."""
        return len(self.rows) >= _MOST_ENTRIES

    def begin(self) -> None:
        """What the drive itself recorded, before anything is fed."""
        for row in self.run.retried:
            self.rows.append(LogRow(RETRIED, _NONE, False, None, self.now))
            self.consumed.append(row)
        self.run.retried = []
        self._settle()

    def feed(
        self, tag: str, blob: bytes, value: Any = None, failure: Failure | None = None
    ) -> None:
        """Resolve one effect."""
        kept = self.run.pending.pop(tag, None)
        if kept is not None:
            digest = kept.digest
        else:
            # Armed in this very turn, or no effect at all, such as a cancel.
            waiting = self.replay.pending.get(tag)
            digest = None if waiting is None else self.replay.digest_of(waiting)
        self.replay.resolve(Entry(tag, value, failure, None, self.now))
        self.rows.append(LogRow(tag, blob, failure is not None, digest, self.now))
        if self.replay.recorded or self.replay.side_effects:
            self._settle()

    def fail(self, tag: str, failure: Failure) -> None:
        """Resolve one effect with a failure."""
        self.feed(tag, self.codec.encode(failure.to_record()), None, failure)

    def _settle(self) -> None:
        """Patch marks and side effects come before the next resolution."""
        if self.settling:
            # A side effect was fed just now: the loop below goes on with what it set free.
            return
        self.settling = True
        replay = self.replay
        while replay.recorded or (replay.side_effects and not self.full):
            recorded, replay.recorded = replay.recorded, []
            for entry in recorded:
                blob = self.codec.encode(entry.value)
                self.rows.append(LogRow(entry.tag, blob, False, None, self.now))
            if replay.side_effects and not self.full:
                tag = replay.side_effects.pop(0)
                waiting = replay.pending.get(tag)
                if waiting is not None and isinstance(waiting.effect, SideEffect):
                    self._side_effect(tag, waiting.effect)
                elif waiting is not None and isinstance(waiting.effect, Inbox):
                    self._look(tag, waiting.effect)
        self.settling = False

    def _side_effect(self, tag: str, effect: SideEffect[Any]) -> None:
        try:
            blob = self.codec.encode(effect.fn(), tag)
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # noqa: BLE001
            self.fail(tag, Failure.of(error))
        else:
            self.feed(tag, blob, self.codec.decode(blob))

    def _look(self, tag: str, effect: Inbox) -> None:
        """What the inbox holds now; nothing of it is consumed."""
        there = [
            [row.name, self.codec.decode(row.payload)]
            for row in self.run.inbox
            if row.kind == "signal" and (effect.names is None or row.name in effect.names)
        ]
        blob = self.codec.encode(there, tag)
        self.feed(tag, blob, self.codec.decode(blob))

    # --- the three kinds of resolutions

    def result(self, attempt: Attempt) -> None:
        """An attempt has ended: an entry, or another attempt later."""
        tag = attempt.tag
        waiting = self.replay.pending.get(tag)
        if waiting is None or self.run.attempts.get(tag) is not attempt:
            return
        del self.run.attempts[tag]
        if attempt.failure is None and attempt.blob is not None:
            self.feed(tag, attempt.blob, attempt.value)
            return
        failure = attempt.failure or Failure("InternalError", "an attempt ended with nothing")
        effect = waiting.effect
        kept = self.run.pending[tag]
        if isinstance(effect, Call) and effect.options.retry and attempt.error is not None:
            chance = f"{self.run.id}\0{self.run.generation}\0{tag}".encode()
            try:
                elapsed = 0.0 if kept.since is None else self.now - kept.since
                delay = effect.options.retry.delay(
                    attempt.error, kept.attempts + 1, chance, elapsed
                )
            except Exception as error:  # noqa: BLE001
                # Such as RetryAfter("soon"): the step's mistake, and no divergence.
                delay, failure = None, Failure.of(error)
            if delay is not None:
                self.run.pending[tag] = attrs.evolve(
                    kept, due=self.now + delay, attempts=kept.attempts + 1
                )
                return
        self.fail(tag, failure)

    def messages(self) -> None:
        """Take what the flow waits for; the rest stays."""
        inbox = self.run.inbox
        index = 0
        while index < len(inbox) and self.replay.outcome is None and not self.full:
            row = inbox[index]
            if row.kind == "signal":
                took = self._signal(row)
            else:
                # Out of the inbox first: what the flow does next must not find it there.
                self.consumed.append(inbox.pop(index))
                self._message(row)
                took = True
            # If the flow moved, an older message may fit now.
            index = 0 if took else index + 1

    def _message(self, row: InboxRow) -> None:
        if row.kind == "cancel":
            if not self.run.cancelled:
                self.run.cancelled = True
                self.feed(CANCEL, _NONE)
        elif row.kind == "complete":
            waiting = self.replay.pending.get(row.name)
            if waiting is not None:
                attempt = self.run.attempts.pop(row.name, None)
                if attempt is not None:
                    attempt.cancel("completed")
                self.feed(row.name, row.payload, self.codec.decode(row.payload))

    def _signal(self, row: InboxRow) -> bool:
        for tag, waiting in self.replay.pending.items():
            effect = waiting.effect
            if isinstance(effect, WaitSignal) and row.name in effect.names:
                taken = [row]
                if effect.all:
                    taken = [
                        each
                        for each in self.run.inbox
                        if each.kind == "signal" and each.name in effect.names
                    ]
                for each in taken:
                    self.run.inbox.remove(each)
                self.consumed += taken
                blob = row.payload
                if effect.all or not effect.single:
                    messages = [(m.name, self.codec.decode(m.payload)) for m in taken]
                    blob = self.codec.encode(effect.kept(messages), tag)
                self.feed(tag, blob, self.codec.decode(blob))
                return True
        return False

    def timer(self, tag: str) -> None:
        """A due time has come."""
        kept = self.run.pending.get(tag)
        waiting = self.replay.pending.get(tag)
        if kept is None or waiting is None or kept.due is None or kept.due > self.now:
            return
        if isinstance(waiting.effect, Sleep | SleepUntil):
            self.feed(tag, _NONE)
        elif isinstance(waiting.effect, WaitSignal):
            self.fail(tag, Failure.of(TimedOut(tag)))
        elif tag not in self.run.attempts:
            self.run.pending[tag] = attrs.evolve(kept, due=None)
            self.perform.append(tag)

    # --- what it comes to

    def finish(self, results: list[Attempt]) -> Taken:
        """The operation to commit and what to perform after it."""
        run = self.run
        update(run, self.replay, self.now, self.perform)
        due = next_due(run.pending.values())
        outcome = self.replay.outcome
        value = None
        if outcome is None:
            stays = run.attempts or self.perform or self.full
            status = "running" if stays else "waiting"
        elif isinstance(outcome, Done):
            status = "done"
            value = self.codec.encode(outcome.result)
        else:
            status = "cancelled" if outcome.failure.kind == "cancelled" else "failed"
            value = self.codec.encode(outcome.failure.to_record())
        operation = Turn(
            run.number,
            run.generation,
            run.log_length,
            tuple(self.rows),
            self.codec.pack(encode_pending(run.pending)),
            status,
            self.now,
            run.started,
            due,
            tuple([row.id for row in self.consumed]),
            run.inbox_seen,
            value,
        )
        return Taken(operation, self.perform, results, self.consumed)


def take(run: Running, replay: Replay, *, codec: ValueCodec, now: float) -> Taken:
    """Drive an instance through everything that waits for it.

    Raises:
        Diverged: never for a healthy replay; the caller blocks the instance.
    """
    if len(run.results) == 1 and not (run.inbox or run.due or run.retried or replay.armed):
        taken = _take_result(run, replay, codec, now)
        if taken is not None:
            return taken
    drive = _Drive(run, replay, codec, run.tick(now))
    results, run.results = run.results, []
    run.fresh = False
    due, run.due = run.due, []
    drive.begin()
    for index, attempt in enumerate(results):
        if drive.full:
            run.results[:0] = results[index:]
            del results[index:]
            break
        if replay.outcome is None:
            drive.result(attempt)
    if run.inbox:
        drive.messages()
    for tag in due:
        if drive.full:
            run.due.append(tag)
        elif replay.outcome is None:
            drive.timer(tag)
    if due and run.inbox:
        # A timer may have moved the flow to a wait for a message that is there already.
        drive.messages()
    # The executor goes on with what didn't fit.
    run.fresh = drive.full
    return drive.finish(results)


def _take_result(run: Running, replay: Replay, codec: ValueCodec, now: float) -> Taken | None:
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
                    codec.pack(encode_pending(run.pending)),
                    "running",
                    now,
                    run.started,
                    inbox_seen=run.inbox_seen,
                ),
                [armed],
                [attempt],
                [],
            )
    drive = _Drive(run, replay, codec, now)
    drive.rows.append(row)
    drive.begin()
    return drive.finish([attempt])
