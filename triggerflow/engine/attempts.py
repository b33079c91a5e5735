"""Attempts, from their start to what came of them: who runs each, and who watches its time."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

import trio

from triggerflow.core.transaction import TransactionStep
from triggerflow.engine.limits import Limits
from triggerflow.engine.performer import Attempt, Performer, is_async
from triggerflow.engine.transactions import Transactions
from triggerflow.errors import TimedOut
from triggerflow.store.operations import Verdict

if TYPE_CHECKING:
    from triggerflow.core.codec import ValueCodec
    from triggerflow.engine.clock import Clock
    from triggerflow.engine.committer import Committer
    from triggerflow.engine.timers import Timers
    from triggerflow.store.operations import Outcome
    from triggerflow.store.protocol import Store

log: Final = logging.getLogger("triggerflow")

# How long a store is left alone that failed to run a transaction.
_AGAIN: Final = 0.5
# A transaction may take so much of the lease: nobody's sign of life is written meanwhile.
_OF_LEASE: Final = 3


class Attempts:
    """All attempts of one executor. Its methods are called on the loop's thread."""

    def __init__(
        self,
        *,
        store: Store,
        committer: Committer,
        codec: ValueCodec,
        clock: Clock,
        nursery: trio.Nursery,
        timers: Timers,
        threads: int,
        inline: bool,
        lease: float,
        ended: Callable[[Attempt], None],
        unwanted: Callable[[Attempt], None],
        landed: Callable[[int], None],
        refused: Callable[[Any, Outcome], None],
    ) -> None:
        """
        Args:
            ended: gets each attempt that has a result or a failure.
            unwanted: gets each that nobody waited for any more when it ended.
            landed: called with the number of an instance whose inbox has news.
            refused: called with a running instance that is no longer this worker's.
        """
        self._committer = committer
        self._nursery = nursery
        self._ended = ended
        self._unwanted = unwanted
        self._landed = landed
        self._refused = refused
        self._transactions = Transactions(
            store, codec, clock, longest=lease / _OF_LEASE, overran=self._overran
        )
        self.performer = Performer(
            nursery,
            codec,
            self.finished,
            now=clock.steady,
            threads=threads,
            inline=inline,
            transact=self._transactions.run,
        )
        self._limits = Limits(timers, self.performer, clock, self.finished)

    def start(self, attempt: Attempt) -> None:
        """Begin an attempt, and watch its time where it has a limit."""
        if isinstance(attempt.fn, TransactionStep):
            # Its limit is the store's business: one that it committed is no longer late.
            self._transactions.prepare(attempt, attempt.fn.limit, self._committer.worker)
        elif attempt.timeout is not None and not is_async(attempt.fn):
            self._limits.watch(attempt, attempt.timeout)
        self.performer.start(attempt)

    def finished(self, attempts: list[Attempt]) -> None:
        """Attempts have ended, or need not run since their result is known."""
        with self._committer.gathering():
            for attempt in attempts:
                attempt.heard = True
                attempt.unwatch()
                self.performer.thread_came_back(attempt)
                if attempt.over and not attempt.owner.gone:
                    self._unwanted(attempt)
                if attempt.outcome is not None:
                    self._decided(attempt)
                    continue
                if attempt.over or attempt.owner.gone:
                    continue
                if attempt.overdue:
                    attempt.fail(TimedOut(attempt.tag))
                self._ended(attempt)

    # --- transactions

    def _decided(self, attempt: Attempt) -> None:
        """The store has decided on a transaction, or has failed."""
        run = attempt.owner
        outcome, attempt.outcome = attempt.outcome, None
        if isinstance(outcome, BaseException):
            if not isinstance(outcome, Exception):
                self._committer.fatal(outcome)
            elif not (attempt.over or run.gone):
                log.warning("instance %s: %s could not run: %s", run.id, attempt.tag, outcome)
                self._nursery.start_soon(self._again, attempt)
        elif run.gone or outcome is None:
            return
        elif outcome.verdict is not Verdict.FENCED:
            # Its result is there, or somebody else's word for it, or a cancel: the turn
            # takes it from the inbox.
            self._landed(run.number)
        elif not attempt.over:
            self._refused(run, outcome)

    async def _again(self, attempt: Attempt) -> None:
        """The store's trouble is no failure of the step's, and costs no attempt."""
        await trio.sleep(_AGAIN)
        if not (attempt.over or attempt.owner.gone):
            attempt.heard = False
            self.performer.start(attempt)

    def _overran(self, attempt: Attempt) -> None:
        """A transaction was rolled back in its thread's stead, which may run on."""
        ended = attempt.failure is not None or attempt.outcome is not None
        step = attempt.transact
        if ended or attempt.over or step is None:
            return
        attempt.overdue = True
        self.performer.replace_thread(attempt)
        self._limits.watch(attempt, step.limit)
