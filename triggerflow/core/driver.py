"""The driver: a flow's generator, re-driven from its log. Pure: no I/O, no clock.

`Replay` keeps the live generator, so that the next entry costs O(1). Entries are taken
strictly in log order: entry k's tag must be one that the code waits for at position k, and
its digest must agree. A driver that looked results up by tag would accept two swapped
entries; this one names the first position at which code and record disagree.

The pending set is a pure output of the drive (`Replay.pending`, in the order of arming).
`Replay.check_pending` holds it against the stored one at the log's end.
"""

from __future__ import annotations

import random as _random
from collections.abc import Iterable, Mapping, Sequence
from hashlib import blake2b
from types import GeneratorType
from typing import Any, Final
from uuid import UUID

import attrs

from triggerflow.core.branch import Branch, Join, Waiting, plain
from triggerflow.core.codec import ValueCodec
from triggerflow.core.effects import (
    DRIVING,
    MISSING,
    Call,
    ContinueAsNew,
    Effect,
    Gather,
    Now,
    Patched,
    Race,
    Random,
    TimedWait,
    Uuid4,
    as_datetime,
    parts_of,
)
from triggerflow.core.failure import Failure, text_of
from triggerflow.core.generators import (
    at_once,
    begin,
    check_fresh,
    close,
    excuse,
    flow_name,
)
from triggerflow.core.given import OWN_CLASSES
from triggerflow.core.log import CANCEL, RETRIED, Entry, Pending, is_binding
from triggerflow.core.messages import WaitActivity
from triggerflow.core.options import DEFAULT_OPTIONS
from triggerflow.core.outcomes import Continued, Done, Failed, Suspended
from triggerflow.core.sagas import Compensate, CompensateAll, Compensation, Unwinding
from triggerflow.core.undoing import begin_undoing, note_owed, owe, unwind
from triggerflow.core.wording import arguments_of, not_an_effect, raised_at, short
from triggerflow.errors import (
    DefinitionError,
    Diverged,
    EffectMisused,
    EncodingRefused,
    FlowCancelled,
    FlowRanAway,
    InternalError,
)

_MOST_EFFECTS: Final = 1_000_000
# Integers and texts below these can be written for sure; longer ones are looked at.
_WIDE: Final = 1 << 63
_LONG: Final = 65536


class Replay:
    """One generation of an instance, driven incrementally.

    Not thread-safe. After it raised `Diverged`, or anything else, it is of no more use.

    Attributes:
        pending: tag -> what waits under it, in the order of arming.
        position: how many log entries have been taken.
        outcome: `Done`, `Failed` or `Continued` once the generation has ended, else None.
        recorded: entries that the drive itself added (`patched`); the turn takes them.
        armed: tags that were armed since the turn last emptied this list.
        unsettled: those of them that the turn must see to before anything else.
        positions: digest of a pattern -> sequence number of the last activity that a wait
            for it got; the next equal wait goes on from there.
    """

    __slots__ = (
        "_ahead",
        "_cancelled",
        "_codec",
        "_count",
        "_dropped",
        "_error",
        "_index",
        "_log",
        "_patches",
        "_pending_ahead",
        "_root",
        "_seed",
        "_spins",
        "armed",
        "name",
        "outcome",
        "pending",
        "position",
        "positions",
        "recorded",
        "unsettled",
    )

    def __init__(
        self,
        flow: Any,
        input: Any = None,
        *,
        codec: ValueCodec | None = None,
        seed: bytes = b"",
        started: float | None = None,
        log: Sequence[Entry] = (),
        stored: Mapping[str, Pending] | None = None,
        positions: Mapping[bytes, int] | None = None,
    ) -> None:
        """Drive `flow` to the end of `log`.

        Args:
            flow: a flow definition, or a generator function of one argument.
            input: its input; it belongs to this drive, so pass a fresh one each time.
            codec: what values are copied and digested with; the default knows no
                registered classes.
            seed: what `uuid4` and `random` derive from.
            started: time of the generation's first turn, for `now()`; None is the epoch.
            log: the entries recorded so far; their values belong to this drive too.
            stored: the pending set that is stored with that log; it is checked at the
                log's end. None where there is none yet.
            positions: those that the generation before left.

        Raises:
            Diverged: code and record disagree.
        """
        self._codec = ValueCodec(OWN_CLASSES) if codec is None else codec
        self._seed = seed
        self._dropped: list[str] = []
        self._patches: dict[str, bool] = {}
        self._cancelled = False
        self._error: BaseException | None = None
        self._spins = 0
        self._log = log
        self._count = len(log)
        self._index = 0
        self._pending_ahead = bool(stored)
        self.name = flow_name(flow)
        self.pending: dict[str, Waiting] = {}
        self.position = 0
        self.outcome: Done | Failed | Continued | None = None
        self.recorded: list[Entry] = []
        self.armed: list[str] = []
        self.unsettled: list[str] = []
        self.positions: dict[bytes, int] = dict(positions or {})
        self._root = Branch(at_once(None), at=0.0 if started is None else started)
        outer, DRIVING.dropped = DRIVING.dropped, self._dropped
        try:
            self._root.generator = begin(flow, input)
            self._advance(self._root, None, None)
            self._feed()
        except FlowRanAway as ran_away:
            self._give_up(ran_away)
        except BaseException:
            self.close()
            raise
        finally:
            DRIVING.dropped = outer
        if stored is not None:
            try:
                self.check_pending(stored)
            except Diverged:
                self.close()
                raise
        self._log = ()
        self._count = self._index = 0
        self._pending_ahead = False

    def resolve(self, entry: Entry) -> None:
        """Take one more entry and drive on; O(1) in the log's length.

        The entry's value belongs to the drive from now on.

        Raises:
            Diverged: nothing waits under its tag, or its digest is another.
        """
        outer, DRIVING.dropped = DRIVING.dropped, self._dropped
        try:
            self._take(entry)
        except FlowRanAway as ran_away:
            self._give_up(ran_away)
        except BaseException:
            self.close()
            raise
        finally:
            DRIVING.dropped = outer

    def check_pending(self, stored: Mapping[str, Pending]) -> None:
        """Hold the stored pending set against what the code waits for now.

        Raises:
            Diverged: a call in flight, a task or a child is not met again with equal tag
                and digest. A call in back-off, a timer or a wait may be replaced.
        """
        for tag, kept in stored.items():
            if not is_binding(tag, kept):
                continue
            waiting = self.pending.get(tag)
            if waiting is None:
                raise self._diverged(
                    recorded=f"{tag} in flight",
                    expected=self._expected(),
                    reason="pending",
                    branch=self._standing(),
                ) from self._error
            found = self.digest_of(waiting)
            if kept.digest is not None and found != kept.digest:
                raise self._diverged(
                    recorded=f"{tag} in flight, arguments {kept.digest.hex()[:12]}",
                    expected=f"{tag}, arguments {short(found)}",
                    reason="pending",
                    branch=waiting.branch,
                    detail=arguments_of(waiting.effect),
                )

    def digest_of(self, waiting: Waiting) -> bytes | None:
        """The digest of a request, computed once; None for kinds that have none."""
        if waiting.digest is None:
            request = waiting.effect.request()
            if request is not None:
                waiting.digest = self._codec.digest(*request)
        return waiting.digest

    def location(self, tag: str) -> str:
        """``file:line`` of the yield that waits under `tag`."""
        return self.pending[tag].branch.location()

    def suspended(self) -> Suspended:
        """The tags that the flow waits for."""
        return Suspended(tuple(self.pending))

    @property
    def error(self) -> BaseException | None:
        """What the flow raised, where its outcome is `Failed`: the object itself."""
        return self._error

    @property
    def patches(self) -> Mapping[str, bool]:
        """Id -> decision, for every `patched` that the drive has met."""
        return self._patches

    def close(self) -> None:
        """End the generators; what they yield or raise meanwhile is dropped."""
        outer, DRIVING.dropped = DRIVING.dropped, None
        try:
            close(self._root)
        finally:
            DRIVING.dropped = outer
            self.pending.clear()

    def __del__(self) -> None:
        # Left to the interpreter, the generators would end in the midst of another drive,
        # and what they yield then would count as that flow's.
        self.close()

    # --- the log -----------------------------------------------------------------------------

    def _feed(self) -> None:
        log = self._log
        count = len(log)
        take = self._take
        while self._index < count:
            entry = log[self._index]
            self._index += 1
            if (
                entry.failure is not None
                and self._index < count
                and log[self._index].tag == RETRIED
            ):
                # `retry` voided this failure: its effect waits again, as if it never came.
                self._check(entry)
                self._index += 1
                self.position += 2
                continue
            take(entry)

    def _check(self, entry: Entry) -> Waiting:
        """The effect that waits for this entry."""
        waiting = self.pending.get(entry.tag)
        if waiting is None:
            raise self._refused(entry) from self._error
        if entry.digest is not None:
            found = waiting.digest
            if found is None:
                found = self.digest_of(waiting)
            if found != entry.digest:
                raise self._diverged(
                    recorded=f"{entry.tag}, arguments {entry.digest.hex()[:12]}",
                    expected=f"{entry.tag}, arguments {short(found)}",
                    reason="digest",
                    branch=waiting.branch,
                    detail=arguments_of(waiting.effect),
                )
        return waiting

    def _take(self, entry: Entry) -> None:
        waiting = self.pending.get(entry.tag)
        if waiting is None and self._special(entry):
            return
        if waiting is None or entry.digest is not None:
            waiting = self._check(entry)
        del self.pending[entry.tag]
        self.position += 1
        self._spins = 0
        branch = waiting.branch
        if entry.at is not None:
            branch.at = entry.at
        branch.waiting = None
        failure = entry.failure
        effect = waiting.effect
        if waiting.owed is not None:
            note_owed(branch, waiting.owed, entry, self._codec)
        if branch.cancel_due:
            # It was undoing something when the cancel came; now that it has, it hears of it.
            branch.cancel_due = False
            self._advance(branch, None, FlowCancelled())
        elif failure is None:
            value = entry.value
            if type(effect) is not Call:
                if type(effect) is WaitActivity:
                    self.positions[self.digest_of(waiting) or b""] = value[0]
                value = effect.received(value)
            self._advance(branch, value, None)
        elif (
            failure.kind == "timed_out"
            and isinstance(effect, TimedWait)
            and effect.default is not MISSING
        ):
            self._advance(branch, effect.default, None)
        else:
            name = effect.name if isinstance(effect, Call) else effect.key
            self._advance(branch, None, failure.raised_at(entry.tag, name))

    def _special(self, entry: Entry) -> bool:
        """Entries that answer no effect: a cancel, a retry mark."""
        if entry.tag == RETRIED:
            if isinstance(self.outcome, Failed) and any(
                later.tag != RETRIED for later in self._log[self._index :]
            ):
                return False
            self.position += 1
            return True
        if entry.tag == CANCEL and not self._cancelled and self.outcome is None:
            self._cancelled = True
            self.position += 1
            self._spins = 0
            self._cancel(self._root, self._root.at if entry.at is None else entry.at)
            return True
        return False

    # --- the generators

    def _advance(self, branch: Branch, value: Any, error: BaseException | None) -> None:
        """Drive one branch until it waits; where it ends, go on with what that sets free.

        No error is kept here once it is thrown: when its frames die, and effects in them,
        must not depend on whether a stretch is driven at once or entry by entry.
        """
        root = self._root
        dropped = self._dropped
        while True:
            generator = branch.generator
            send = generator.send
            while True:
                try:
                    if error is None:
                        effect = send(value)
                    else:
                        raised, error = [error], None
                        effect = generator.throw(raised.pop())
                except StopIteration as stop:
                    value, error = stop.value, self._forgotten()
                    break
                except KeyboardInterrupt:
                    # The user's, not the flow's: no outcome may be made of it.
                    raise
                except BaseException as ended:  # noqa: BLE001
                    value, error = None, self._ended_by(ended, branch)
                    break
                value = None
                if dropped:
                    error = self._forgotten()
                    if isinstance(effect, Effect):
                        effect.excuse()
                    self._spend()
                    continue
                try:
                    kind = type(effect)
                    if kind is not Call and not isinstance(effect, Effect):
                        raise not_an_effect(effect)
                    effect._taken = True  # noqa: SLF001
                    if kind is Compensate or kind is CompensateAll:
                        effect = unwind(branch, effect, self._codec)
                        kind = type(effect)
                    key = effect.key
                    counts = branch.counts
                    number = counts.get(key, 0)
                    counts[key] = number + 1
                    tag = f"{branch.prefix}{key}#{number}"
                    if kind is Call:
                        index = self._index
                        if index < self._count and branch is root:
                            # Replaying a stretch without branches: nothing else can be
                            # pending, so the next entry is this call's, or code and log
                            # disagree, which the long way round words.
                            entry = self._log[index]
                            if (
                                entry.tag == tag
                                and entry.failure is None
                                and (
                                    self._request(effect)
                                    if entry.digest is None
                                    else self._agrees(effect, entry.digest)
                                )
                            ):
                                self._index = index + 1
                                self.position += 1
                                self._spins = 0
                                value = entry.value
                                if entry.at is not None:
                                    branch.at = entry.at
                                if effect.options is not DEFAULT_OPTIONS:
                                    owed = owe(branch, effect, tag, self._request(effect)[0])
                                    if owed is not None:
                                        owed.result = self._codec.copy(value)
                                continue
                        waiting = Waiting(branch, effect, tag)
                        waiting.snapshot, waiting.digest = self._request(effect)
                        if effect.options is not DEFAULT_OPTIONS:
                            waiting.owed = owe(branch, effect, tag, waiting.snapshot)
                    elif kind is Gather or kind is Race or kind is Unwinding:
                        join = self._open(branch, effect, tag)
                        if join.active:
                            return
                        branch.waiting = None
                        value, error = join.outcome()
                        self._spend()
                        continue
                    elif kind in _IMMEDIATE:
                        value = self._immediate(branch, effect, tag)
                        self._spend()
                        continue
                    elif kind is ContinueAsNew:
                        self._continue(branch, effect)
                        return
                    else:
                        waiting = Waiting(branch, effect, tag)
                        if kind is Compensation:
                            waiting.snapshot, waiting.digest = self._request(effect)
                        elif kind.snapshots:
                            args, kwargs = effect.request() or ((), {})
                            waiting.snapshot, waiting.digest = self._codec.request(
                                args, kwargs, key
                            )
                        if kind.settles:
                            self.unsettled.append(tag)
                    branch.waiting = waiting
                    self.pending[tag] = waiting
                    self.armed.append(tag)
                    return  # noqa: TRY300 - an else block would stand far from here
                except (DefinitionError, EncodingRefused, EffectMisused) as refused:
                    error = refused.with_traceback(None)
                self._spend()
            if branch.stack and branch.join is not None:
                if error is not None or branch.cancelled:
                    # It failed or lost: what it did is undone before its end counts.
                    begin_undoing(branch, error or FlowCancelled(), self._codec)
                    value = error = None
                    continue
                branch.join.parent.stack += branch.stack
            completed = self._end(branch, value, error)
            if completed is None:
                return
            at = branch.at
            branch = completed.parent
            branch.waiting = None
            branch.at = at
            value, error = completed.outcome()

    def _continue(self, branch: Branch, effect: ContinueAsNew) -> None:
        """End the generation where the flow stands."""
        if branch.join is not None:
            raise EffectMisused(
                "continue_as_new",
                "was yielded inside a branch of gather or race",
                "yield it where the flow itself stands, once its branches have ended",
            )
        if branch.stack and not effect.drop:
            raise EffectMisused(
                "continue_as_new",
                f"{len(branch.stack)} compensations are left: the next generation can't run "
                "them",
                'run them first, or pass compensations="drop"',
            )
        outcome = Continued(self._codec.copy(effect.input, "input"))
        close(branch)
        branch.done = True
        self.outcome = outcome
        if self._index < len(self._log):
            self._check_left_over(None)

    def _spend(self) -> None:
        self._spins += 1
        if self._spins > _MOST_EFFECTS:
            raise FlowRanAway(self.name, _MOST_EFFECTS)

    def _end(self, branch: Branch, value: Any, error: BaseException | None) -> Join | None:
        """The join that this end completes, if it does."""
        branch.waiting = None
        join = branch.join
        if join is None:
            branch.done = True
            self._finish(value, error)
            return None
        if join.note(branch, value, error):
            self._cancel_children(join, branch.at)
        return None if join.active or join.holds else join

    def _ended_by(self, error: BaseException, branch: Branch) -> BaseException:
        """What a branch has failed with: a forgotten yield before anything else."""
        # The driver's own frame tells nothing, and would keep this drive alive.
        trace = error.__traceback__
        error.__traceback__ = trace and trace.tb_next
        forgotten = self._forgotten()
        if forgotten is not None:
            forgotten.__cause__ = error
            return forgotten
        if branch.join is not None:
            # What it had built for later was not forgotten: it didn't get there.
            excuse(error.__traceback__)
        return error

    def _open(self, branch: Branch, effect: Gather | Race, tag: str) -> Join:
        check_fresh(effect)
        # Parts that never start, because an earlier one decided, weren't forgotten.
        effect.excuse()
        join = Join(branch, effect)
        branch.waiting = join
        join.holds += 1
        for slot, label, part in parts_of(effect):
            if join.decided:
                if isinstance(part, GeneratorType):
                    known = len(self._dropped)
                    part.close()
                    del self._dropped[known:]
                continue
            child = Branch(
                plain(part) if isinstance(part, Effect) else part,
                prefix=f"{tag}[{label}]/",
                join=join,
                slot=slot,
                at=branch.at,
                plain=isinstance(part, Effect),
            )
            join.children.append(child)
            join.active += 1
            self._advance(child, None, None)
        join.holds -= 1
        return join

    def _cancel_children(self, join: Join, at: float) -> None:
        join.holds += 1
        for child in join.children:
            if not child.done:
                self._cancel(child, at)
        join.holds -= 1

    def _cancel(self, branch: Branch, at: float) -> None:
        """Raise FlowCancelled at the branch's yield, innermost branches first.

        The entry that led to it moves the branch: its time is `at` from now on.
        """
        if branch.cancelled:
            return
        branch.cancelled = True
        branch.at = at
        waiting = branch.waiting
        if isinstance(waiting, Join):
            waiting.cancelled = True
            waiting.decided = True
            if not waiting.shielded:
                self._cancel_children(waiting, at)
            if not waiting.active and not waiting.holds:
                branch.waiting = None
                self._advance(branch, None, waiting.outcome()[1])
        elif waiting is not None and type(waiting.effect) is Compensation:
            branch.cancel_due = True
        elif waiting is not None:
            del self.pending[waiting.tag]
            branch.waiting = None
            self._advance(branch, None, FlowCancelled())

    def _finish(self, value: Any, error: BaseException | None) -> None:
        if error is None:
            try:
                self.outcome = Done(self._codec.copy(value, "result"))
            except EncodingRefused as refused:
                error = refused
        if error is not None:
            self._error = error
            self.outcome = Failed(Failure.of(error))
        if self._index < len(self._log):
            self._check_left_over(error)

    def _give_up(self, error: FlowRanAway) -> None:
        # Not thrown into the flow: it might catch it and go on for ever.
        self.close()
        self._finish(None, error)

    def _check_left_over(self, error: BaseException | None) -> None:
        left = self._log[self._index :]
        if all(entry.tag == RETRIED for entry in left):
            return
        ended = (
            "the flow continues as new here"
            if isinstance(self.outcome, Continued)
            else "the flow returns here"
            if error is None
            else f"the flow raises {type(error).__name__}: {text_of(error)}"
        )
        diverged = self._diverged(
            recorded=f"{left[0].tag} ({len(left)} entries are left)",
            expected=ended,
            reason="left_over" if error is None else "raised",
            branch=None,
        )
        if error is not None:
            diverged.location = raised_at(error)
        raise diverged from error

    # --- effects that cost no wait

    def _immediate(self, branch: Branch, effect: Effect[Any], tag: str) -> Any:
        if isinstance(effect, Now):
            return as_datetime(branch.at)
        if isinstance(effect, Uuid4):
            return UUID(bytes=self._chance(tag), version=4)
        if isinstance(effect, Random):
            return _random.Random(self._chance(tag)).random()  # noqa: S311
        if isinstance(effect, Patched):
            return self._patched(branch, effect)
        raise InternalError(f"no rule for the effect {effect.describe()}")

    def _chance(self, tag: str) -> bytes:
        return blake2b(tag.encode(), key=self._seed[:64], digest_size=16).digest()

    def _patched(self, branch: Branch, effect: Patched) -> bool:
        known = self._patches.get(effect.id)
        if known is not None:
            return known
        tag = effect.key
        decision = False
        if self._index < len(self._log):
            if self._log[self._index].tag == tag:
                self._index += 1
                self.position += 1
                decision = True
        elif not self._pending_ahead:
            self.recorded.append(Entry(tag, True, None, None, branch.at))
            self.position += 1
            decision = True
        self._patches[effect.id] = decision
        return decision

    def _request(self, effect: Call[Any]) -> tuple[bytes | None, bytes | None]:
        """The arguments as the step will get them, in bytes, and their digest.

        Both are taken now, since another branch may change what is mutable; where nothing
        is, there are no bytes, and the digest can wait until somebody asks for it.

        Raises:
            EncodingRefused: an argument can't be kept in a log.
        """
        if not effect.kwargs:
            for value in effect.args:
                kind = type(value)
                if kind is int and -_WIDE < value < _WIDE:
                    continue
                if kind is str and len(value) < _LONG and value.isascii():
                    continue
                if value is None or kind is bool:
                    continue
                break
            else:
                return None, None
        # A compensation gets a result too, beside arguments that may be as large as may be.
        framed = type(effect) is Compensation
        return self._codec.request(effect.args, effect.kwargs, effect.name, framed=framed)

    def _agrees(self, effect: Call[Any], digest: bytes) -> bool:
        """Whether the request is the one that an entry answers."""
        try:
            framed = type(effect) is Compensation
            return self._codec.digest(effect.args, effect.kwargs, framed=framed) == digest
        except EncodingRefused:
            return False

    def _forgotten(self) -> EffectMisused | None:
        """An effect of this drive that was dropped without a yield, if there is one."""
        if not self._dropped:
            return None
        what = self._dropped[0]
        self._dropped.clear()
        return EffectMisused(
            what, "was built and dropped without a yield", "write `yield` before it"
        )

    # --- what to say

    def _refused(self, entry: Entry) -> Diverged:
        if entry.tag == CANCEL and self._cancelled:
            expected = "no second cancel: one is lawful in a generation"
        else:
            expected = self._expected()
        return self._diverged(
            recorded=entry.tag, expected=expected, reason="tag", branch=self._standing()
        )

    def _expected(self) -> str:
        if self._error is not None:
            return f"the flow has ended: {type(self._error).__name__}: {text_of(self._error)}"
        if self.outcome is not None:
            return "the flow has ended"
        tags = list(self.pending)
        more = f" and {len(tags) - 5} more" if len(tags) > 5 else ""
        return ", ".join(tags[:5]) + more

    def _standing(self) -> Branch | None:
        for waiting in self.pending.values():
            return waiting.branch
        return None

    def _diverged(
        self,
        *,
        recorded: str,
        expected: str,
        reason: str,
        branch: Branch | None,
        detail: str = "",
    ) -> Diverged:
        first = max(0, self.position - 2)
        near = self._log[first : self.position + 3]
        return Diverged(
            self.name,
            self.position,
            recorded,
            expected,
            reason,
            branch.location() if branch is not None else "",
            tuple((first + offset, entry.tag) for offset, entry in enumerate(near)),
            detail,
        )


_IMMEDIATE: Final = frozenset({Now, Uuid4, Random, Patched})


def drive(
    flow: Any,
    input: Any = None,
    log: Iterable[Entry | tuple[str, Any]] = (),
    *,
    seed: bytes = b"",
    generation: int = 1,
    started: float | None = None,
    pending: Mapping[str, Pending] | None = None,
    codec: ValueCodec | None = None,
) -> Done | Failed | Continued | Suspended:
    """Drive a flow through its log: a pure function, of the same answer every time.

    Args:
        flow: a flow definition, or a generator function of one argument.
        input: the flow's input.
        log: `Entry` objects, or plain ``(tag, value)`` pairs, oldest first.
        seed: what `uuid4` and `random` derive from.
        generation: which generation the log belongs to, for messages.
        started: time of the first turn in seconds since the epoch, for `now()`.
        pending: the pending set stored with the log, to be checked at its end.
        codec: the app's codec, where values hold registered classes.

    Returns:
        `Done`, `Failed`, `Continued` with the next generation's input, or `Suspended` with
        the tags that the flow waits for.

    Raises:
        Diverged: the code would not have made this record.
        EncodingRefused: the input, or a value, can't be kept in a log.
    """
    del generation
    codec = ValueCodec(OWN_CLASSES) if codec is None else codec
    entries = [_fresh(entry, codec) for entry in log]
    replay = Replay(
        flow,
        codec.copy(input, "input"),
        codec=codec,
        seed=seed,
        started=started,
        log=entries,
        stored=pending,
    )
    outcome = replay.outcome or replay.suspended()
    replay.close()
    return outcome


def _fresh(entry: Entry | tuple[str, Any], codec: ValueCodec) -> Entry:
    """An entry whose value the drive may own: a flow may change what it receives."""
    if not isinstance(entry, Entry):
        entry = Entry(*entry)
    value = entry.value
    if codec.is_plain(value):
        return entry
    return attrs.evolve(entry, value=codec.copy(value, entry.tag))
