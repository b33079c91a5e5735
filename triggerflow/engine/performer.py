"""The performer runs attempts of steps. It knows no status and no log.

Async steps run in the engine's nursery. Plain ones run in a pool of our own threads that
grows when all are busy; their results come back to the loop in batches, since a hop
between threads for each would cap the engine.
"""

from __future__ import annotations

import contextlib
import inspect
import queue
import threading
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

import attrs
import trio

from triggerflow.core.failure import Failure
from triggerflow.engine.context import CURRENT
from triggerflow.errors import DefinitionError, TimedOut, TriggerflowError

if TYPE_CHECKING:
    from triggerflow.core.codec import ValueCodec
    from triggerflow.store.operations import Outcome
    from triggerflow.store.transactions import Transact

_COROUTINE: Final = inspect.CO_COROUTINE
# How long a pool thread waits for work before it ends.
_IDLE: Final = 10.0


@attrs.define(slots=True, eq=False)
class Attempt:
    """One run of a step.

    It is what `step_context` reads while the step runs.

    Attributes:
        owner: the running instance; the executor wants it back with the result.
        number: 1 for the first attempt.
        blob: the encoded result, once it is there.
        value: the result after its round trip through the codec.
        failure: or how it failed.
        error: the exception itself, for the retry policy; None where no attempt more helps.
        begun: when a plain step's thread began it, where it has a timeout.
        keyed: its result is recorded under a key of the user's; `recorded`: it was before.
        over: the executor no longer wants its result; `cause` says why, see `AttemptOver`.
        overdue: its timeout passed while its thread ran on.
        in_thread: a thread of the pool has taken it.
        abandoned: its thread does not count against the pool any more.
        heard: the loop knows that it has ended.
        owed: a compensation may have to wait for its end.
        heartbeats: who takes its heartbeats; `pulse` has them, once the step asks.
        abandon: called once it is over while its thread runs on.
        transact: what to ask of the store, where the step works in its database.
        outcome: what the store said to that, or raised.
    """

    owner: Any
    tag: str
    name: str
    fn: Callable[..., Any]
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    number: int
    timeout: float | None = None
    blob: bytes | None = None
    value: Any = None
    failure: Failure | None = None
    error: BaseException | None = None
    begun: float | None = None
    keyed: bool = False
    recorded: bool = False
    over: bool = False
    cause: str = ""
    overdue: bool = False
    in_thread: bool = False
    abandoned: bool = False
    heard: bool = False
    owed: bool = False
    heartbeats: Any = None
    pulse: Any = None
    abandon: Callable[[Attempt], None] | None = None
    transact: Transact | None = None
    outcome: Outcome | BaseException | None = None
    scope: trio.CancelScope | None = None
    stop_timer: Callable[[], None] | None = None

    def succeed(self, value: Any, codec: ValueCodec) -> None:
        """Keep the result in bytes; one that can't be kept is a failure by name."""
        try:
            self.blob = codec.encode(value, self.name)
            # On the thread that ran the step: the loop has enough to do.
            self.value = value if codec.is_plain(value) else codec.decode(self.blob)
        except TriggerflowError as refused:
            self.fail(refused)
            # Another attempt would do its work again and give the same.
            self.error = None

    def fail(self, error: BaseException) -> None:
        """Keep the failure."""
        self.error = error
        self.failure = Failure.of(error)

    def unwatch(self) -> None:
        """Take back the timer of its time limit."""
        if self.stop_timer is not None:
            self.stop_timer()
            self.stop_timer = None

    @property
    def has_ended(self) -> bool:
        """Whether its result or its failure is there."""
        return self.failure is not None or self.blob is not None

    def cancel(self, cause: str) -> None:
        """Drop its result, and stop it where it can be stopped."""
        self.cause = cause
        self.over = True
        self.unwatch()
        if self.scope is not None:
            self.scope.cancel()
        # A thread marks it as taken before it looks whether it is over.
        elif self.in_thread and self.abandon is not None and not self.has_ended:
            self.abandon(self)


class Performer:
    """Runs attempts; `finished` gets them back, many at once, on the loop.

    Attributes:
        closed: no more attempts are taken, nor results.
    """

    def __init__(
        self,
        nursery: trio.Nursery,
        codec: ValueCodec,
        finished: Callable[[list[Attempt]], None],
        *,
        now: Callable[[], float],
        threads: int,
        inline: bool = False,
        transact: Callable[[Attempt], None],
    ) -> None:
        """
        Args:
            transact: runs an attempt that works in the store's database.
        """
        self._nursery = nursery
        self._codec = codec
        self._finished = finished
        self._now = now
        self._most = threads
        self._inline = inline
        self._transact = transact
        self._token = trio.lowlevel.current_trio_token()
        self._queue: queue.SimpleQueue[Attempt | None] = queue.SimpleQueue()
        self._guard = threading.Lock()
        self._done: deque[Attempt] = deque()
        self._posted = False
        self._threads = 0
        self._free = 0
        self.closed = False

    def start(self, attempt: Attempt) -> None:
        """Begin an attempt."""
        if is_async(attempt.fn):
            self._nursery.start_soon(self._run_async, attempt)
        elif self._inline:
            self._token.run_sync_soon(self._run_inline, attempt)
        else:
            attempt.abandon = self.replace_thread
            if self._threads < self._most:
                self._grow()
            self._queue.put(attempt)

    def _grow(self) -> None:
        with self._guard:
            if self._queue.qsize() < self._free:
                return
            self._threads += 1
        threading.Thread(target=self._work, name="triggerflow-step", daemon=True).start()

    def replace_thread(self, attempt: Attempt) -> None:
        """A thread is lost to a step that nobody waits for any more: it no longer counts."""
        if attempt.abandoned or self.closed:
            return
        attempt.abandoned = True
        with self._guard:
            self._most += 1
        if self._queue.qsize():
            # What waited behind it may run now; no other attempt need come for that.
            self._grow()

    def thread_came_back(self, attempt: Attempt) -> None:
        """A step has ended; if it had been abandoned, its thread counts again."""
        if attempt.abandoned:
            with self._guard:
                self._most -= 1

    def close(self) -> None:
        """Take no more attempts; threads end when their step does."""
        self.closed = True
        with self._guard:
            count = self._threads
        for _ in range(count):
            self._queue.put(None)

    async def _run_async(self, attempt: Attempt) -> None:
        if not attempt.over:
            await self._call_async(attempt)
        # Also where nobody wants its result: somebody may wait for its end.
        if attempt.over or attempt.failure or attempt.blob is not None:
            self._finished([attempt])

    async def _call_async(self, attempt: Attempt) -> None:
        CURRENT.set(attempt)
        limit = float("inf") if attempt.timeout is None else attempt.timeout
        with trio.CancelScope() as scope:
            attempt.scope = scope
            with trio.move_on_after(limit) as timer:
                try:
                    attempt.succeed(
                        await attempt.fn(*attempt.args, **attempt.kwargs), self._codec
                    )
                except (trio.Cancelled, KeyboardInterrupt):
                    raise
                except BaseExceptionGroup as group:
                    if group.subgroup(KeyboardInterrupt) is not None:
                        raise
                    # A cancel among them belongs to trio. What the step raised beside it,
                    # while it was stopped, must not leave the step.
                    cancelled = group.subgroup(trio.Cancelled)
                    if cancelled is not None:
                        raise cancelled from None
                    attempt.fail(group)
                except BaseException as error:  # noqa: BLE001
                    # Even SystemExit: a step must not end the engine.
                    attempt.fail(error)
            if timer.cancelled_caught:
                attempt.fail(TimedOut(attempt.tag))

    def _run_inline(self, attempt: Attempt) -> None:
        self._run_plain(attempt)
        self._finished([attempt])

    def _run_plain(self, attempt: Attempt) -> None:
        attempt.in_thread = True
        if attempt.over:
            return
        CURRENT.set(attempt)
        if attempt.transact is not None:
            self._transact(attempt)
            return
        if attempt.timeout is not None:
            attempt.begun = self._now()
        try:
            value = attempt.fn(*attempt.args, **attempt.kwargs)
            if inspect.iscoroutine(value):
                value.close()
                attempt.fail(no_coroutine_function(attempt.name))
                attempt.error = None
                return
            attempt.succeed(value, self._codec)
        except BaseException as error:  # noqa: BLE001
            # Even SystemExit: a step must not end the pool's thread, nor the process.
            attempt.fail(error)

    def _work(self) -> None:
        waiting = self._queue
        while True:
            try:
                attempt = waiting.get_nowait()
            except queue.Empty:
                attempt = self._idle_until_work()
            if attempt is None:
                return
            self._run_plain(attempt)
            self._done.append(attempt)
            # Two threads may both see it unset; a second flush finds nothing to do.
            if not self._posted:
                self._posted = True
                with contextlib.suppress(trio.RunFinishedError):
                    self._token.run_sync_soon(self._flush)

    def _idle_until_work(self) -> Attempt | None:
        """Wait for an attempt; None tells the thread to end."""
        with self._guard:
            self._free += 1
        while True:
            try:
                attempt = self._queue.get(timeout=_IDLE)
            except queue.Empty:
                with self._guard:
                    if self._queue.qsize():
                        continue
                    self._free -= 1
                    self._threads -= 1
                return None
            with self._guard:
                self._free -= 1
            return attempt

    def _flush(self) -> None:
        # Before the first one is taken: what comes later posts again.
        self._posted = False
        done = []
        while self._done:
            done.append(self._done.popleft())
        if done and not self.closed:
            self._finished(done)


def no_coroutine_function(step: str) -> DefinitionError:
    """The error of a plain step that returned a coroutine."""
    return DefinitionError(
        f"step {step!r}",
        "is a plain function that returned a coroutine",
        "write it with `async def`",
    )


def is_async(fn: Callable[..., Any]) -> bool:
    """Whether a step is a coroutine function."""
    code = getattr(fn, "__code__", None)
    if code is not None:
        return bool(code.co_flags & _COROUTINE)
    return inspect.iscoroutinefunction(fn) or inspect.iscoroutinefunction(
        getattr(fn, "__call__", None)  # noqa: B004
    )
