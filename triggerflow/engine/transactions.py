"""Attempts of steps that work in a transaction of the store.

The store runs the step, and keeps its result in the inbox or nothing at all; the entry is
written by the owner's turn, like that of any other message. The store alone decides whether
an attempt has succeeded: one that it committed can't time out afterwards.
"""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

import trio

from triggerflow.core.transaction import LONGEST, TransactionStep
from triggerflow.engine.performer import no_coroutine_function
from triggerflow.errors import DefinitionError, StoreError, TriggerflowError
from triggerflow.store.protocol import Store, offers_transactions
from triggerflow.store.transactions import Transact

if TYPE_CHECKING:
    from triggerflow.core.codec import ValueCodec
    from triggerflow.core.transaction import Transaction
    from triggerflow.engine.clock import Clock
    from triggerflow.engine.performer import Attempt


class Transactions:
    """Has the store run them."""

    def __init__(
        self,
        store: Store,
        codec: ValueCodec,
        clock: Clock,
        *,
        longest: float,
        overran: Callable[[Attempt], None],
    ) -> None:
        """
        Args:
            longest: what limits are cut down to.
            overran: called on the loop when a transaction is over and its step runs on.
        """
        self._store = store
        self._codec = codec
        self._clock = clock
        self._longest = longest
        self._overran = overran
        self._token = trio.lowlevel.current_trio_token()

    def prepare(self, attempt: Attempt, limit: float, worker: tuple[int, int] | None) -> None:
        """Say, on the loop, what is to be asked of the store.

        Args:
            attempt: of a transaction step.
            limit: holds where the call sets none.
            worker: who runs it.
        """
        run = attempt.owner
        wanted = limit if attempt.timeout is None else attempt.timeout
        attempt.transact = Transact(
            run.number,
            run.generation,
            attempt.tag,
            run.pending[attempt.tag].attempts,
            worker or (0, 0),
            self._clock.now(),
            # One that is too long is refused by name, not cut down.
            wanted if wanted > LONGEST else min(wanted, self._longest),
        )

    def run(self, attempt: Attempt) -> None:
        """Have the store run an attempt, on a thread of the pool."""
        step = attempt.transact
        assert step is not None
        refused = self._refusal(step)
        if refused is not None:
            _fail_for_good(attempt, refused)
            return
        work = _Work(attempt, self._codec)
        try:
            attempt.outcome = self._store.transact(
                step, work, gave_up=partial(self._gave_up, attempt)
            )
        except BaseException as error:  # noqa: BLE001
            if error is work.unkept:
                # Another attempt would do its work again and give the same.
                _fail_for_good(attempt, error)
            elif error is work.raised:
                # Even SystemExit: a step must not end the pool's thread, nor the process.
                attempt.fail(error)
            elif isinstance(error, StoreError) or not isinstance(error, Exception):
                attempt.outcome = error
            else:
                attempt.fail(error)

    def _refusal(self, step: Transact) -> TriggerflowError | None:
        if not offers_transactions(self._store):
            return StoreError(
                self._store.url,
                "offers no transactions to steps",
                "make it a plain step, and let the service behind it know a repeat by "
                "tf.step_context().idempotency_key",
            )
        if not 0 < step.limit <= LONGEST:
            return DefinitionError(
                f"{step.tag}: using(timeout=)",
                f"found {step.limit:g} s, expected more than 0 and at most {LONGEST:g} s "
                "for a transaction step",
                "nobody else can write meanwhile: do slow work in a plain step before it",
            )
        return None

    def _gave_up(self, attempt: Attempt) -> None:
        # The loop may have ended; nobody waits any more then.
        with contextlib.suppress(trio.RunFinishedError):
            self._token.run_sync_soon(self._overran, attempt)


class _Work:
    """The step's function as the store calls it.

    Attributes:
        raised: what the function raised, or None.
        unkept: why its result can't be kept, or None.
    """

    def __init__(self, attempt: Attempt, codec: ValueCodec) -> None:
        self.raised: BaseException | None = None
        self.unkept: TriggerflowError | None = None
        self._attempt = attempt
        self._codec = codec

    def __call__(self, tx: Transaction) -> bytes:
        attempt = self._attempt
        assert isinstance(attempt.fn, TransactionStep)
        try:
            value = attempt.fn(tx, *attempt.args, **attempt.kwargs)
        except BaseException as error:
            self.raised = error
            raise
        try:
            if inspect.iscoroutine(value):
                value.close()
                raise no_coroutine_function(attempt.name)
            return self._codec.encode(value, attempt.name)
        except TriggerflowError as error:
            self.unkept = error
            raise


def _fail_for_good(attempt: Attempt, error: BaseException) -> None:
    attempt.fail(error)
    # Without an error the retry policy isn't asked.
    attempt.error = None
