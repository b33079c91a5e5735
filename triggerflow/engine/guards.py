"""Judging guards and validators of signals: the user's code, off the loop, under a limit."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final

import attrs
import trio

from triggerflow.core.codec import decode_document
from triggerflow.pipeline.plan import Judged

if TYPE_CHECKING:
    from triggerflow.triggers import Trigger


@attrs.frozen
class Question:
    """What is asked about an activity and a trigger.

    Attributes:
        document: the activity's bytes.
        refused: why its flow doesn't take the trigger's signal, or None.
    """

    document: bytes
    trigger: Trigger
    refused: Callable[[], str | None]


_UNKNOWN: Final = Judged(unknown=True)


async def judge(
    questions: Sequence[Question], *, limit: float, inline: bool = False
) -> list[Judged]:
    """The verdicts on questions, in their order.

    One thread takes them one after the other; a guard that overruns `limit` seconds is an
    error on its own firing, its thread is abandoned, and another takes the rest.
    """
    verdicts: list[Judged] = []
    hung: dict[str, Judged] = {}
    while len(verdicts) < len(questions):
        left = questions[len(verdicts) :]
        known = hung.get(_key(left[0]))
        if known is not None:
            # It hung a moment ago; to wait for it again would hold up all the others.
            verdicts.append(known)
        elif inline:
            verdicts.append(_judge(left[0]))
        else:
            run = list(itertools.takewhile(lambda each: _key(each) not in hung, left))
            found, overran = await _judge_some(run, limit)
            verdicts += found
            if overran:
                hung[_key(questions[len(verdicts) - 1])] = verdicts[-1]
    return verdicts


def _key(question: Question) -> str:
    guard = question.trigger.guard
    return question.trigger.trigger_cid if guard is None else guard.key


async def _judge_some(questions: Sequence[Question], limit: float) -> tuple[list[Judged], bool]:
    """Verdicts up to the first that overran, and whether one did."""
    found: list[Judged] = []
    token = trio.lowlevel.current_trio_token()
    progress = trio.Event()
    abandoned = False

    def work() -> None:
        for question in questions:
            verdict = _judge(question)
            if abandoned:
                return
            found.append(verdict)
        try:
            token.run_sync_soon(progress.set)
        except trio.RunFinishedError:
            return

    threading.Thread(target=work, name="triggerflow-guard", daemon=True).start()
    while True:
        before = len(found)
        with trio.move_on_after(limit):
            await progress.wait()
        if len(found) == len(questions):
            return found, False
        if len(found) == before:
            abandoned = True
            late = Judged(
                error=f"{_name(questions[before].trigger)} took longer than {limit:g} s"
            )
            return [*found[:before], late], True


def _judge(question: Question) -> Judged:
    guard = question.trigger.guard
    try:
        if guard is not None:
            if guard.fn is None:
                return _UNKNOWN
            # A document of its own: what one guard does to it no other may see.
            if not guard.fn(decode_document(question.document)):
                return Judged()
        return Judged(passed=True, refused=question.refused())
    except BaseException as error:  # noqa: BLE001
        name = _name(question.trigger)
        return Judged(error=f"{name} raised {type(error).__name__}: {_text(error)}")


def _name(trigger: Trigger) -> str:
    if trigger.guard is not None:
        return f"guard {trigger.guard.key}"
    return f"the validator of flow {trigger.flow}"


def _text(error: BaseException) -> str:
    try:
        return f"{error!s:.1000}"
    except Exception:  # noqa: BLE001
        # Its own words raise; that must not be felt by others either.
        return "(its text can't be had)"
