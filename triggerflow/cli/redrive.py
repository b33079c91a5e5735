"""Re-driving one instance for people: a row for each entry, and a verdict on the whole.

The verdict comes of one drive through the whole log with the stored pending set, as a worker
does it. The rows come of a second drive that stops before each entry and looks where the code
stands. That one must not let `patched` decide by itself: it would see the end of the log at
every stop, and say True. So at each decision it is built anew from the entries so far, told
that more is ahead.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import attrs

from triggerflow.cli.kin import children_by_id
from triggerflow.core.driver import Replay
from triggerflow.core.log import CANCEL, RETRIED, Entry, Pending, decode_pending
from triggerflow.core.outcomes import Continued, Done, Failed, Suspended
from triggerflow.core.sagas import Compensation
from triggerflow.engine.running import entry_of
from triggerflow.errors import TriggerflowError
from triggerflow.store.records import ENDED

if TYPE_CHECKING:
    from collections.abc import Sequence

    from triggerflow.core.branch import Branch
    from triggerflow.core.codec import ValueCodec
    from triggerflow.core.effects import Effect
    from triggerflow.core.failure import Failure
    from triggerflow.flows.flow import Flow
    from triggerflow.store.records import InboxRow, InstanceRecord, LogRecord

# A stored pending set that binds nothing: it only tells `patched` that more is ahead.
_AHEAD: Final = {"sleep#ahead": Pending()}
_PATCHED: Final = "patched:"
_MOST_LOCALS: Final = 30
_LOCAL_WIDTH: Final = 100


@attrs.frozen
class Row:
    """One log entry, and the yield that it answered.

    Attributes:
        location: ``file:line`` of that yield, or "".
        elapsed: seconds since the entry before, or since the start.
        note: what else there is to say, such as ``voided by retry``.
        locals: the generator's names and short values at that yield.
        undoes: tag of the call that it undoes, for a compensation.
        child: id of the child that it started, for a `child` or `spawn`.
    """

    position: int
    tag: str
    location: str
    value: Any
    failure: Failure | None
    at: float | None
    elapsed: float | None
    note: str = ""
    locals: tuple[tuple[str, str], ...] = ()
    undoes: str | None = None
    child: str | None = None


@attrs.frozen
class Wait:
    """An effect that the code waits for at the log's end.

    Attributes:
        due: as stored, where it is stored.
        undoes, child: as in a `Row`.
    """

    tag: str
    location: str
    due: float | None
    attempts: int
    locals: tuple[tuple[str, str], ...] = ()
    undoes: str | None = None
    child: str | None = None


@attrs.frozen
class Verdict:
    """What re-driving came to, beside what is stored.

    Attributes:
        outcome: None where the drive itself broke off.
        problem: why it broke off: `Diverged`, or what else was raised.
        differences: how outcome and store differ, in words.
        remark: what explains a comparison that can't be made.
    """

    outcome: Done | Failed | Continued | Suspended | None
    waits: tuple[Wait, ...] = ()
    problem: TriggerflowError | None = None
    differences: tuple[str, ...] = ()
    remark: str = ""

    @property
    def agrees(self) -> bool:
        """Whether code and record agree."""
        return self.problem is None and not self.differences


@attrs.frozen
class Case:
    """An instance, its log and its code: all that a re-drive needs."""

    flow: Flow
    record: InstanceRecord
    log: Sequence[LogRecord]
    unread: Sequence[InboxRow]
    codec: ValueCodec

    @property
    def stored(self) -> dict[str, Pending] | None:
        """The stored pending set; None before the first turn."""
        if self.record.pending is None:
            return None
        return decode_pending(self.codec.decode(self.record.pending))

    def entry(self, position: int) -> Entry:
        """An entry whose value the drive may own."""
        return entry_of(self.log[position], self.codec)

    def child(self, tag: str) -> str | None:
        """The id of the child that an effect started; None where it starts none."""
        return next(iter(children_by_id(self.record, (tag,))), None)

    def begin(self, log: Sequence[Entry], stored: dict[str, Pending] | None) -> Replay:
        """A new drive through these entries."""
        return Replay(
            self.flow,
            self.codec.decode(self.record.input),
            codec=self.codec,
            seed=self.record.seed,
            started=self.record.started,
            log=log,
            stored=stored,
        )


# --- the rows -------------------------------------------------------------------------


def rows_of(case: Case, *, with_locals: bool = False) -> list[Row]:
    """A row for each entry; those after a divergence say that they were not reached."""
    return _Walk(case, with_locals=with_locals).rows()


class _Walk:
    def __init__(self, case: Case, *, with_locals: bool) -> None:
        self._case = case
        self._with_locals = with_locals
        self._shown = [case.entry(position) for position in range(len(case.log))]
        self._rows: list[Row] = []
        self._last = case.record.started

    def rows(self) -> list[Row]:
        replay: Replay | None = None
        try:
            replay = self._settled(self._case.begin((), None))
            while len(self._rows) < len(self._shown):
                replay = self._settled(self._step(replay))
        except TriggerflowError:
            # The verdict tells what; these rows only show how far it came.
            first = "here the code goes another way"
            while len(self._rows) < len(self._shown):
                self._add(note=first)
                first = "not reached"
        finally:
            if replay is not None:
                replay.close()
        return self._rows

    def _step(self, replay: Replay) -> Replay:
        position = len(self._rows)
        entry = self._shown[position]
        waiting = replay.pending.get(entry.tag)
        branch = None if waiting is None else waiting.branch
        if entry.tag == CANCEL:
            branch = next((each.branch for each in replay.pending.values()), None)
        location = "" if branch is None else branch.location()
        names = _locals(branch) if self._with_locals else ()
        undoes = None if waiting is None else _undone_by(waiting.effect)
        voided = (
            entry.failure is not None
            and position + 1 < len(self._shown)
            and self._shown[position + 1].tag == RETRIED
        )
        if voided and waiting is not None:
            # As the driver does: the effect waits again, as if the failure never came.
            self._add(location, "voided by retry", names, undoes)
            self._add()
            return replay
        replay.resolve(self._case.entry(position))
        self._add(location, "", names, undoes)
        return replay

    def _settled(self, replay: Replay) -> Replay:
        """Let the log decide on what the drive decided by itself."""
        if not replay.recorded:
            return replay
        replay.close()
        while len(self._rows) < len(self._shown) and self._shown[
            len(self._rows)
        ].tag.startswith(_PATCHED):
            self._add(note="recorded by the drive")
        position = len(self._rows)
        ahead = position < len(self._shown) or bool(self._case.stored)
        entries = [self._case.entry(each) for each in range(position)]
        settled = self._case.begin(entries, _AHEAD if ahead else None)
        settled.recorded.clear()
        return settled

    def _add(
        self,
        location: str = "",
        note: str = "",
        names: tuple[tuple[str, str], ...] = (),
        undoes: str | None = None,
    ) -> None:
        position = len(self._rows)
        entry = self._shown[position]
        elapsed = None if entry.at is None or self._last is None else entry.at - self._last
        self._last = entry.at if entry.at is not None else self._last
        self._rows.append(
            Row(
                position,
                entry.tag,
                location,
                entry.value,
                entry.failure,
                entry.at,
                elapsed,
                note,
                names,
                undoes,
                self._case.child(entry.tag),
            )
        )


def _undone_by(effect: Effect[Any]) -> str | None:
    """Tag of the call that a compensation undoes; None for any other effect."""
    return effect.after if isinstance(effect, Compensation) else None


def _locals(branch: Branch | None) -> tuple[tuple[str, str], ...]:
    """Names and short values of the frame that a branch stands in."""
    frame = None if branch is None else branch.frame()
    if frame is None:
        return ()
    names = [
        (name, value) for name, value in frame.f_locals.items() if not name.startswith("__")
    ]
    return tuple((name, _repr(value)) for name, value in names[:_MOST_LOCALS])


def _repr(value: Any) -> str:
    try:
        text = repr(value)
    except Exception as error:  # noqa: BLE001
        text = f"<its repr raised {type(error).__name__}>"
    return text if len(text) <= _LOCAL_WIDTH else f"{text[: _LOCAL_WIDTH - 1]}…"


# --- the verdict ----------------------------------------------------------------------


def verdict_of(case: Case, *, with_locals: bool = False) -> Verdict:
    """Drive through the whole log as a worker does, and compare with what is stored."""
    stored = case.stored
    retries = [row for row in case.unread if row.kind == "retry"]
    entries = [case.entry(position) for position in range(len(case.log))]
    last = entries[-1].at if entries else None
    entries += [Entry(RETRIED, at=last) for _ in retries]
    try:
        replay = case.begin(entries, stored)
    except TriggerflowError as problem:
        return Verdict(None, problem=problem)
    waits = tuple(
        Wait(
            tag,
            waiting.branch.location(),
            None if stored is None or tag not in stored else stored[tag].due,
            0 if stored is None or tag not in stored else stored[tag].attempts,
            _locals(waiting.branch) if with_locals else (),
            _undone_by(waiting.effect),
            case.child(tag),
        )
        for tag, waiting in replay.pending.items()
    )
    outcome = replay.outcome or replay.suspended()
    replay.close()
    if case.record.started is None:
        return Verdict(outcome, waits, remark="no turn was taken yet: nothing to compare with")
    if retries:
        return Verdict(outcome, waits, remark="a retry waits to be taken")
    remark = ""
    if case.record.status == "blocked":
        remark = "this code can go on: a worker that runs it unblocks the instance"
        if case.record.cause == "crash_limit":
            remark = "the code agrees; what blocks it is that its workers died"
    differences = tuple(_differences(case, outcome, stored))
    return Verdict(outcome, waits, None, differences, "" if differences else remark)


def _differences(
    case: Case,
    outcome: Done | Failed | Continued | Suspended,
    stored: dict[str, Pending] | None,
) -> list[str]:
    record, codec = case.record, case.codec
    status = _status(outcome)
    ended = record.status in ENDED
    if ended and isinstance(outcome, Suspended) and _was_terminated(record, codec):
        # Its code never came to an end, so there is no more to compare than the log.
        return []
    if status != (record.status if ended else "suspended"):
        return [f"stored is {record.status}, your code now is {status}"]
    if isinstance(outcome, Suspended):
        return _pending_differences(outcome, stored or {})
    if record.value is None or isinstance(outcome, Continued):
        return []
    kept = codec.decode(record.value)
    if isinstance(outcome, Done):
        if kept == outcome.result or codec.encode(outcome.result) == record.value:
            return []
        return [f"stored result {_repr(kept)}, your code now returns {_repr(outcome.result)}"]
    before = f"{kept['type']}: {kept['message']}"
    now = f"{outcome.failure.type}: {outcome.failure.message}"
    return [] if before == now else [f"stored failure {before}, your code now raises {now}"]


def _was_terminated(record: InstanceRecord, codec: ValueCodec) -> bool:
    return record.value is not None and codec.decode(record.value).get("type") == "Terminated"


def _status(outcome: Done | Failed | Continued | Suspended) -> str:
    if isinstance(outcome, Done):
        return "done"
    if isinstance(outcome, Failed):
        return "cancelled" if outcome.failure.kind == "cancelled" else "failed"
    return "continued as new" if isinstance(outcome, Continued) else "suspended"


def _pending_differences(outcome: Suspended, stored: dict[str, Pending]) -> list[str]:
    gone = [tag for tag in stored if tag not in outcome.tags]
    new = [tag for tag in outcome.tags if tag not in stored]
    if not gone and not new:
        return []
    # What binds has been checked: a timer or a wait may be replaced, and a worker does so.
    words = (
        f"stored waits for {', '.join(gone) or 'nothing else'}, your code now for "
        f"{', '.join(new) or 'nothing else'} (a worker replaces timers and waits)"
    )
    return [words]
