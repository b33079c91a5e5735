"""What an inbox brings: children's ends, signals, cancels, activities, answers, completions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from triggerflow.core.effects import WaitSignal
from triggerflow.core.failure import Failure
from triggerflow.core.log import CANCEL
from triggerflow.engine import queued
from triggerflow.engine.drive import NONE

if TYPE_CHECKING:
    from triggerflow.engine.drive import Drive
    from triggerflow.store.records import InboxRow


def children(drive: Drive) -> None:
    """Take the ends of children that the flow waits for; the others stay."""
    run = drive.run
    news, run.news = run.news, []
    for index, id in enumerate(news):
        if drive.full:
            run.news = news[index:]
            return
        row = run.ended.get(id)
        if row is None:
            continue
        for tag in run.joining.pop(id, ()):
            if drive.replay.outcome is None:
                child_ended(drive, tag, row)


def child_ended(drive: Drive, tag: str, row: InboxRow) -> None:
    """A child's end, for the effect that waits under `tag`, if it still does."""
    if tag not in drive.replay.pending:
        return
    if drive.run.ended.pop(row.name, None) is not None:
        drive.consumed.append(row)
    value = drive.codec.decode(row.payload)
    if row.kind == "child_done":
        drive.feed(tag, row.payload, value)
    else:
        drive.fail(tag, Failure.from_record(value).of_child())


def messages(drive: Drive) -> None:
    """Take what the flow waits for; the rest stays."""
    inbox = drive.run.inbox
    index = 0
    while index < len(inbox) and drive.replay.outcome is None and not drive.full:
        row = inbox[index]
        if row.kind == "signal":
            took = _signal(drive, row)
        else:
            # Out of the inbox first: what the flow does next must not find it there.
            drive.consumed.append(inbox.pop(index))
            _message(drive, row)
            took = True
        # If the flow moved, an older message may fit now.
        index = 0 if took else index + 1


def _message(drive: Drive, row: InboxRow) -> None:
    if row.kind == "cancel":
        if not drive.run.cancelled:
            drive.run.cancelled = True
            drive.feed(CANCEL, NONE)
    elif row.kind == "activity":
        # Without a digest where it came before digests were kept.
        generation, seq, document, *digest = drive.codec.decode(row.payload)
        waiting = drive.replay.pending.get(row.name)
        # Under the same tag a generation that has ended may have waited, or the code that
        # this one replaced, for something else.
        if (
            generation == drive.run.generation
            and waiting is not None
            and (not any(digest) or digest[0] == drive.replay.digest_of(waiting))
        ):
            value = [seq, document]
            drive.feed(row.name, drive.codec.frame(value), value)
    elif row.kind == "task":
        queued.answered(drive, row)
    elif row.kind == "complete":
        waiting = drive.replay.pending.get(row.name)
        if waiting is not None:
            drive.lost[row.name] = "completed"
            drive.feed(row.name, row.payload, drive.codec.decode(row.payload))


def _signal(drive: Drive, row: InboxRow) -> bool:
    for tag, waiting in drive.replay.pending.items():
        effect = waiting.effect
        if isinstance(effect, WaitSignal) and row.name in effect.names:
            taken = _all(drive, effect) if effect.all else [row]
            for each in taken:
                drive.run.inbox.remove(each)
            drive.consumed += taken
            blob = row.payload
            if effect.all or not effect.single:
                messages = [(m.name, drive.codec.decode(m.payload)) for m in taken]
                blob = drive.codec.frame(effect.kept(messages), tag)
            drive.feed(tag, blob, drive.codec.decode(blob))
            return True
    return False


def _all(drive: Drive, effect: WaitSignal[Any]) -> list[InboxRow]:
    """Its messages that are there, oldest first, as many as one value holds; at least one."""
    left = drive.codec.limits.size
    taken: list[InboxRow] = []
    for row in drive.run.inbox:
        if row.kind == "signal" and row.name in effect.names:
            left -= len(row.payload)
            if taken and left < 0:
                break
            taken.append(row)
    return taken
