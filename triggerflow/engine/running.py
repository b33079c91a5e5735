"""An instance that this worker owns: its live replay, and what waits to be taken."""

from __future__ import annotations

from functools import partial
from heapq import heappop, heappush
from typing import TYPE_CHECKING, Any, Final

from triggerflow.core.driver import Replay
from triggerflow.core.effects import WaitSignal
from triggerflow.core.failure import Failure
from triggerflow.core.log import RETRIED, Entry, Pending, decode_pending, encode_pending
from triggerflow.core.step import body_of
from triggerflow.engine.performer import Attempt
from triggerflow.store.operations import Heartbeat

if TYPE_CHECKING:
    from collections.abc import Callable, Container, Iterable

    from triggerflow.core.branch import Waiting
    from triggerflow.core.codec import ValueCodec
    from triggerflow.core.effects import Call
    from triggerflow.engine.timers import Timer, Timers
    from triggerflow.flows.flow import Flow
    from triggerflow.store.acts import Refusal
    from triggerflow.store.operations import Turn
    from triggerflow.store.records import Claimed, InboxRow, InstanceRecord, LogRecord


_LONGEST_TROUBLE: Final = 30.0


class Running:
    """One owned instance.

    Attributes:
        pending: the pending set, as the last turn left it.
        attempts: tag -> the attempt that runs for it.
        ending: tag -> an attempt that nobody waits for and that has not ended yet.
        held: tag of such an attempt -> compensations that wait until it has ended.
        results: attempts that have ended and were not taken yet.
        inbox: messages that were not taken yet, oldest first.
        ended: child id -> what told of its end, not taken yet; `news` are the new ones.
        joining: child id -> tags that wait for its end.
        refused: tag -> digest of a request, and why the store refused the act behind it. They
            hold until a turn lands: one that is taken again meets all of them once more.
        due: tags whose timer fired and was not taken yet.
        fresh: messages came since the last turn.
        progress: (generation, tag) -> what that call said last, encoded.
        turns: how many turns were taken before.
        dues: a heap of what is due when: (time, number, tag); some of it may be stale.
        watched: the timer that is set for the earliest of them.
        busy: a turn is in flight; what comes meanwhile waits for the next.
        gone: this worker no longer owns it.
    """

    __slots__ = (
        "armed",
        "attempts",
        "attributes",
        "busy",
        "cancelled",
        "chain",
        "correlation_id",
        "crashes",
        "depth",
        "due",
        "dues",
        "ended",
        "ending",
        "flow",
        "fresh",
        "generation",
        "gone",
        "held",
        "id",
        "inbox",
        "inbox_seen",
        "input",
        "joining",
        "last_at",
        "log_length",
        "namespace",
        "news",
        "number",
        "origin",
        "pending",
        "positions",
        "progress",
        "refused",
        "replay",
        "results",
        "retried",
        "seed",
        "started",
        "trouble",
        "turns",
        "watched",
    )

    def __init__(self, claimed: Claimed, flow: Flow, now: float, codec: ValueCodec) -> None:
        self.number = claimed.number
        self.id = claimed.id
        self.flow = flow
        self.generation = claimed.generation
        self.log_length = claimed.log_length
        self.turns = claimed.turns
        self.input = claimed.input
        self.seed = claimed.seed
        self.started = now if claimed.started is None else claimed.started
        self.last_at = self.started
        self.crashes = claimed.crashes
        self.cancelled = claimed.cancelled and not any(
            row.kind == "cancel" for row in claimed.inbox
        )
        self.namespace = claimed.namespace
        self.correlation_id = claimed.correlation_id
        self.depth = claimed.depth
        self.chain = claimed.chain
        self.origin = claimed.origin
        self.attributes = _attributes(claimed.attributes, codec)
        self.positions = claimed.positions
        self.replay: Replay | None = None
        self.pending: dict[str, Pending] = {}
        self.progress = {(self.generation, tag): said for tag, said in claimed.progress}
        self.attempts: dict[str, Attempt] = {}
        self.ending: dict[str, Attempt] = {}
        self.held: dict[str, list[str]] = {}
        self.ended: dict[str, InboxRow] = {}
        self.news: list[str] = []
        self.joining: dict[str, list[str]] = {}
        self.refused: dict[str, tuple[bytes | None, Refusal]] = {}
        self.results: list[Attempt] = []
        self.inbox: list[InboxRow] = []
        self.inbox_seen = 0
        self.due: list[str] = []
        self.retried: list[InboxRow] = []
        self.fresh = False
        self.armed = 0
        self.dues: list[tuple[float, int, str]] = []
        self.watched: Timer | None = None
        self.busy = False
        self.gone = False
        self.trouble = 0
        self.receive(claimed.inbox)

    def receive(self, rows: Iterable[InboxRow]) -> bool:
        """Take note of messages that it hasn't seen; tell whether there is a turn to take."""
        for row in rows:
            if row.id > self.inbox_seen:
                self.inbox_seen = row.id
                self._sort_in(row)
                # A signal that the flow doesn't wait for stays in the inbox: no turn is
                # taken for it, or n of them would cost n turns.
                if row.kind != "signal" or self._awaits(row.name):
                    self.fresh = True
        return self.fresh

    def _awaits(self, name: str) -> bool:
        """Whether the flow may wait for a signal of this name."""
        if self.replay is None:
            return True
        return any(
            isinstance(waiting.effect, WaitSignal) and name in waiting.effect.names
            for waiting in self.replay.pending.values()
        )

    def _sort_in(self, row: InboxRow) -> None:
        if row.kind == "retry":
            self.retried.append(row)
        elif row.kind.startswith("child_"):
            self.ended[row.name] = row
            self.news.append(row.name)
        else:
            self.inbox.append(row)

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
        self.pending, self.dues = {}, []
        for tag, kept in (stored or {}).items():
            self.arm(tag, kept)
        self.joining = {}
        positions = {} if self.positions is None else dict(codec.decode(self.positions))
        self.replay = replay = Replay(
            self.flow,
            codec.decode(self.input),
            codec=codec,
            seed=self.seed,
            started=self.started,
            log=entries,
            stored=stored,
            positions=positions,
        )
        return replay

    def reread(
        self, record: InstanceRecord, log: Iterable[LogRecord], codec: ValueCodec
    ) -> None:
        """Go back to what is stored, after a turn that didn't land.

        Raises:
            Diverged, DecodingRefused: see `redrive`.
        """
        self.attributes = _attributes(record.attributes, codec)
        self.turns = record.turns
        self.redrive(log, record.pending, codec)

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

    def take_over(self, warm: Running) -> None:
        """Go on with the live replay that another claim left."""
        self.replay, warm.replay = warm.replay, None
        self.pending, self.dues, self.armed = warm.pending, warm.dues, warm.armed
        # What came due while the turn that parked it was in flight.
        self.due = warm.due
        self.joining = warm.joining
        self.last_at = warm.last_at

    @property
    def pause(self) -> float:
        """How long to leave a store alone that failed, in seconds."""
        return float(min(_LONGEST_TROUBLE, 0.1 * 2 ** min(self.trouble, 10)))

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
        fn = body_of(effect.fn)
        number = self.pending[tag].attempts + 1 + self.crashes
        attempt = self.attempts[tag] = Attempt(
            self, tag, effect.name, fn, args, kwargs, number, effect.options.timeout
        )
        attempt.owed = effect.options.compensate is not None
        attempt.keyed = effect.options.idempotency_key is not None
        return attempt

    def beat(self, tag: str, details: bytes, at: float) -> Heartbeat:
        """What one of its steps said, as an operation."""
        return Heartbeat(self.number, self.generation, tag, details, at)

    def give_up(self, tag: str, cause: str) -> None:
        """Nobody waits for the attempt under this tag any more; its end is still told."""
        attempt = self.attempts.pop(tag, None)
        if attempt is not None and not attempt.heard:
            self.ending[tag] = attempt
            attempt.cancel(cause)

    def replace(self, attempt: Attempt, given_up: Attempt) -> None:
        """Its thread runs on beyond its limit: this stands for it, with a failure."""
        # A compensation waits for the thread.
        self.ending[attempt.tag] = attempt
        self.attempts[attempt.tag] = given_up

    def is_busy_beside(self, lost: Container[str]) -> bool:
        """Whether attempts run that are waited for, if those under the lost tags are not."""
        for tag, each in self.attempts.items():
            if tag not in lost or (each.owed and not each.heard):
                return True
        # A compensation may be asked for while what it undoes still runs: to know that, the
        # instance must be owned.
        return bool(self.held) or any(each.owed for each in self.ending.values())

    def arm(self, tag: str, kept: Pending) -> None:
        """Keep a request, and remember when it is due."""
        self.pending[tag] = kept
        if kept.due is not None:
            self.armed += 1
            heappush(self.dues, (kept.due, self.armed, tag))

    @property
    def next_due(self) -> float | None:
        """The earliest due time among the pending, or None."""
        dues = self.dues
        while dues:
            due, _, tag = dues[0]
            kept = self.pending.get(tag)
            if kept is not None and kept.due == due:
                return due
            heappop(dues)
        return None

    def watch(self, timers: Timers, fired: Callable[[Running], None]) -> None:
        """Have one timer, for the earliest due time."""
        due = self.next_due
        timer = self.watched
        # One that has fired too early, by a clock that was set back, is set anew.
        if timer is not None and (timer[0] != due or timer[2] is None):
            timers.cancel(timer)
            timer = None
        if timer is None and due is not None:
            timer = timers.at(due, partial(fired, self))
        self.watched = timer

    def unwatch(self, timers: Timers) -> None:
        """Its timer must not outlive it: a week's timeout would keep it for a week."""
        if self.watched is not None:
            timers.cancel(self.watched)
            self.watched = None

    def note_due(self, now: float) -> None:
        """Take note of all that is due by now, the earliest first."""
        due = self.next_due
        while due is not None and due <= now:
            self.due.append(heappop(self.dues)[2])
            due = self.next_due

    def give_back(self, results: list[Attempt], messages: list[InboxRow]) -> None:
        """Take back what a turn took whose commit failed."""
        self.results[:0] = results
        for attempt in results:
            self.attempts[attempt.tag] = attempt
        for row in messages:
            self._sort_in(row)
            self.cancelled = self.cancelled and row.kind != "cancel"
        self.inbox.sort(key=lambda row: row.id)

    def note_refusals(self, operation: Turn, refusals: Iterable[Refusal]) -> None:
        """Take note of what the store refused of a turn that is taken again."""
        digests = {tag: kept.digest for tag, kept in self.pending.items()}
        digests.update((row.tag, row.digest) for row in operation.entries)
        for each in refusals:
            self.refused[each.tag] = digests.get(each.tag), each

    def refusal(self, tag: str, digest: bytes | None) -> Refusal | None:
        """Why this very request was refused, if it was."""
        kept = self.refused.get(tag)
        # With other messages than the first time, the flow may ask something else here.
        return None if kept is None or kept[0] != digest else kept[1]

    def drop(self, cause: str = "lease_lost") -> None:
        """This worker no longer owns it: stop what runs for it."""
        self.gone = True
        for attempt in self.attempts.values():
            attempt.cancel(cause)
        self.attempts.clear()
        self.ending.clear()
        self.held.clear()
        if self.replay is not None:
            self.replay.close()
            self.replay = None


def _attributes(kept: bytes | None, codec: ValueCodec) -> dict[str, Any]:
    return {} if kept is None else dict(codec.decode(kept))


def entry_of(row: LogRecord, codec: ValueCodec) -> Entry:
    """A stored entry as the driver takes it; its value is fresh."""
    value: Any = codec.decode(row.value)
    if row.failed:
        return Entry(row.tag, None, Failure.from_record(value), row.digest, row.at)
    return Entry(row.tag, value, None, row.digest, row.at)
