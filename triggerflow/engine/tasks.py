"""Tasks: queued calls of any flow, run by a worker that serves their queue.

A task is held under its token, by a worker whose epoch holds; its instance is somebody
else's, or parked. What its attempt comes to is told to that instance by an inbox row, in one
commit with the end of the holding. Where the store is in trouble the answer is kept and told
again, as long as the worker has its lease.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, Final

import trio

from triggerflow.core.answers import Answer
from triggerflow.core.failure import Failure
from triggerflow.core.retry import Raised
from triggerflow.engine.heartbeats import Heartbeats, flush
from triggerflow.engine.performer import Attempt
from triggerflow.errors import EngineClosed
from triggerflow.store.operations import Outcome, Verdict
from triggerflow.store.records import SUSPECT
from triggerflow.store.tasks import ClaimTasks, FinishTask, TaskHeartbeat

if TYPE_CHECKING:
    from triggerflow.core.codec import ValueCodec
    from triggerflow.core.step import Step
    from triggerflow.engine.attempts import Attempts
    from triggerflow.engine.clock import Clock
    from triggerflow.engine.committer import Committer
    from triggerflow.store.acts import Act
    from triggerflow.store.protocol import Store
    from triggerflow.store.records import ClaimedTask

log: Final = logging.getLogger("triggerflow")

# How long a store is left alone that could not take an answer.
_AGAIN: Final = 0.5


class Held:
    """A task that this worker holds: to its attempt, what a running instance is to its own.

    Attributes:
        attempts: the attempt that runs for it, by its tag.
        gone: this worker holds it no longer, or nobody waits for it.
    """

    __slots__ = ("attempts", "busy", "gone", "progress", "task")

    def __init__(self, task: ClaimedTask) -> None:
        self.task = task
        self.attempts: dict[str, Attempt] = {}
        said = task.details
        self.progress = {} if said is None else {(task.generation, task.tag): said}
        self.busy = False
        self.gone = False

    @property
    def id(self) -> str:
        """The public id of its instance."""
        return self.task.instance

    @property
    def generation(self) -> int:
        """The generation of its instance."""
        return self.task.generation

    def beat(self, tag: str, details: bytes, at: float) -> TaskHeartbeat:
        """What its step said, as an operation."""
        task = self.task
        return TaskHeartbeat(
            task.id, task.token, task.number, task.generation, tag, details, at
        )

    def replace(self, attempt: Attempt, given_up: Attempt) -> None:
        """Its thread runs on beyond its limit: this stands for it, with a failure."""
        self.attempts[attempt.tag] = given_up

    def drop(self, cause: str) -> None:
        """Nobody wants what its attempt may bring: stop it."""
        self.gone = True
        for attempt in self.attempts.values():
            attempt.cancel(cause)
        self.attempts.clear()


class Tasks:
    """All tasks that this worker holds. Runs on the loop's thread.

    Attributes:
        held: task -> what is held.
        look: there may be tasks to claim.
        due: when the next known one may be claimed.
        emptying: a task waits that must run alone, so nothing new is taken.
        draining: begin no step; what was claimed in this moment is handed back at the end.
    """

    def __init__(
        self,
        *,
        store: Store,
        committer: Committer,
        codec: ValueCodec,
        clock: Clock,
        nursery: trio.Nursery,
        steps: Mapping[str, Step[..., Any]],
        queues: Iterable[str],
        most: int,
        attempts: Attempts,
        told: Callable[[Outcome, tuple[Act, ...]], None],
        fenced: Callable[[], None],
        ended: Callable[[], None],
    ) -> None:
        """
        Args:
            most: how many may be held at once.
            told: called with the outcome of each answer.
            fenced: called when this worker turns out to have lost its lease.
            ended: called when one is held no longer.
        """
        self.held: dict[int, Held] = {}
        self.queues = frozenset(queues)
        self.look = bool(self.queues)
        self.due: float | None = None
        self.emptying = False
        self.draining = False
        self._store = store
        self._committer = committer
        self._codec = codec
        self._clock = clock
        self._nursery = nursery
        self._steps = steps
        self._most = most
        self._attempts = attempts
        self._told = told
        self._fenced = fenced
        self._ended = ended
        self._heartbeats = Heartbeats(committer, codec, clock, self._lost)

    @property
    def serves(self) -> list[tuple[str, str]]:
        """(queue, step) of all that this worker runs."""
        return sorted((queue, step) for queue in self.queues for step in self._steps)

    @property
    def has_suspect(self) -> bool:
        """Whether one of them must run alone."""
        return any(each.task.crashes >= SUSPECT for each in self.held.values())

    def come(self) -> None:
        """There may be more."""
        self.look = bool(self.queues)

    # --- taking

    def can_take(self, *, alone: bool) -> bool:
        """Whether there is room for one more, and nothing here that must run alone.

        Args:
            alone: this worker owns and holds nothing.
        """
        if not self.queues or (self.emptying and not alone):
            return False
        return len(self.held) < self._most and not self.has_suspect

    def wanted(self) -> bool:
        """Whether one may be there to be claimed."""
        return self.look or (self.due is not None and self.due <= self._clock.now())

    async def claim(self, *, alone: bool) -> None:
        """Take what is due, as much as there is room for."""
        self.look = self.emptying = False
        self.due = None
        found = await self._committer.ask(
            ClaimTasks(
                limit=self._most - len(self.held),
                queues=self.queues,
                steps=frozenset(self._steps),
                now=self._clock.now(),
                alone=alone,
            )
        )
        if found.detail == "worker":
            self._fenced()
            return
        self.due = found.next_due
        self.look = self.look or found.more
        if found.suspects:
            self.look = self.emptying = True
        if not self.draining:
            for task in found.tasks:
                self._begin(Held(task))

    def _begin(self, held: Held) -> None:
        task = held.task
        if task.id in self.held:
            # The store gives a number again once its task was withdrawn.
            self.held[task.id].drop("withdrawn")
        self.held[task.id] = held
        step = self._steps[task.step]
        attempt = Attempt(
            held, task.tag, task.step, step.fn, (), {}, task.attempt, task.timeout
        )
        attempt.heartbeats = self._heartbeats
        held.attempts[task.tag] = attempt
        try:
            if task.recorded is not None:
                attempt.recorded = True
                attempt.blob = task.recorded
            else:
                attempt.args, attempt.kwargs = self._codec.decode(task.args)
        except Exception as error:  # noqa: BLE001
            # Such as an argument of a class that isn't registered here.
            attempt.fail(error)
        if attempt.has_ended:
            self.finished(attempt)
        else:
            self._attempts.start(attempt)

    # --- the answer

    def finished(self, attempt: Attempt) -> None:
        """An attempt has ended: tell its instance."""
        held: Held = attempt.owner
        flush(attempt)
        self._answer(held, self._operation(held, attempt))

    def _operation(self, held: Held, attempt: Attempt) -> FinishTask:
        task = held.task
        raised = None
        failure = attempt.failure
        if failure is not None and attempt.error is not None:
            try:
                raised = Raised.of(attempt.error)
            except Exception as error:  # noqa: BLE001
                # RetryAfter("soon"): the step's mistake.
                failure = Failure.of(error)
        value = None if failure is not None else attempt.blob
        answer = Answer(task.generation, value, attempt.recorded, failure, raised)
        payload = answer.encode(self._codec)
        return FinishTask(
            task=task.id,
            token=task.token,
            number=task.number,
            generation=task.generation,
            tag=task.tag,
            payload=payload,
            digest=hashlib.sha256(payload).digest()[:16],
            final=raised is None,
            at=self._clock.now(),
        )

    def _answer(self, held: Held, operation: FinishTask) -> None:
        def landed(outcome: Outcome | Exception) -> None:
            if held.gone:
                return
            if isinstance(outcome, Exception):
                log.warning(
                    "instance %s: the answer of %s could not be stored, trying again: %s",
                    held.id,
                    held.task.tag,
                    outcome,
                )
                self._nursery.start_soon(self._again, held, operation)
                return
            if outcome.detail == "worker":
                self._fenced()
                return
            self._forget(held, "ended")
            if outcome.told:
                self._told(outcome, ())

        self._committer.submit(operation, landed)

    async def _again(self, held: Held, operation: FinishTask) -> None:
        await trio.sleep(_AGAIN)
        if not held.gone:
            try:
                self._answer(held, operation)
            except EngineClosed:
                return

    # --- losing

    def _lost(self, held: Held, outcome: Outcome) -> None:
        if outcome.detail == "worker":
            self._fenced()
        else:
            gone = outcome.verdict is Verdict.GONE
            self._forget(held, "withdrawn" if gone else "lease_lost")

    def _forget(self, held: Held, cause: str) -> None:
        held.drop(cause)
        if self.held.get(held.task.id) is held:
            del self.held[held.task.id]
            self._ended()

    async def look_after(self) -> None:
        """Let go of what was withdrawn, or is another's, in the meantime."""
        worker = self._committer.worker
        if not self.held or worker is None:
            return
        before = list(self.held.values())
        mine = await self._committer.run(lambda: self._store.held(worker[0]))
        for held in before:
            # One whose answer is on its way, or has landed, hears of it that way.
            runs = any(not attempt.has_ended for attempt in held.attempts.values())
            if runs and (held.task.id, held.task.token) not in mine:
                self._forget(held, "withdrawn")

    def drop_all(self, cause: str) -> None:
        """Nothing here is ours any more."""
        for held in self.held.values():
            held.drop(cause)
        self.held.clear()
        self.emptying = False
        self.come()
