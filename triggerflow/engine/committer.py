"""Group commit: all writes go to one committer.

What gathers while a commit is in flight becomes the next transaction, so that one flush to
disk serves hundreds of turns. The store blocks and knows no event loop; it lives on a
thread of its own, and results come back to the loop once a batch, since every hop between
threads wakes a sleeping core.

With ``inline=True`` commits run on the loop's own thread instead, one tick later: for
tests under virtual time, where a loop that waits for a thread would look idle.
"""

from __future__ import annotations

import contextlib
import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Final, TypeVar

import attrs
import trio

from triggerflow.errors import EngineClosed
from triggerflow.store.operations import Batch, Outcome

if TYPE_CHECKING:
    from triggerflow.engine.clock import Clock
    from triggerflow.store.operations import Operation
    from triggerflow.store.protocol import Store

T = TypeVar("T")
Deliver = Callable[[Outcome | Exception], None]

_LARGEST_BATCH: Final = 1000
# How soon another process's writes are noticed.
_POLL: Final = 0.02
# A batch of more operations than this tells that others are about.
_ALONE: Final = 2


@attrs.define(slots=True)
class _Job:
    """A blocking call that isn't an operation, run between two batches."""

    work: Callable[[], Any]
    deliver: Callable[[Any], None]


class Committer:
    """Runs a store on a thread of its own. Methods are called on the loop's thread.

    Attributes:
        worker: (id, epoch) that fences the batches, or None.
        commits: how many transactions there were.
        fatal: to be called on the loop when the store died with something that is no
            ordinary error, such as a simulated crash.
        failing: nothing of what was last to be written could be.
    """

    def __init__(
        self,
        store: Store,
        clock: Clock,
        *,
        changed: Callable[[], None],
        fatal: Callable[[BaseException], None],
        inline: bool = False,
    ) -> None:
        """
        Args:
            changed: called on the loop when another process has written.
            fatal: see above.
        """
        self.worker: tuple[int, int] | None = None
        self.commits = 0
        self.failing = False
        self._store = store
        self._clock = clock
        self._changed = changed
        self.fatal = fatal
        self._inline = inline
        self._waiting: deque[tuple[Any, Any]] = deque()
        self._kicks: queue.SimpleQueue[bool] = queue.SimpleQueue()
        self._token = trio.lowlevel.current_trio_token()
        self._gathering = 0
        self._awake = False
        self._deferred = False
        self._last_batch = 0
        # Batches begun and delivered: one counter a thread, so that neither can race.
        self._taken = 0
        self._landed = 0
        self._closed = False
        self._thread: threading.Thread | None = None
        if not inline:
            self._thread = threading.Thread(
                target=self._run, name="triggerflow-committer", daemon=True
            )
            self._thread.start()

    # --- the loop's side

    def submit(self, operation: Operation, deliver: Deliver) -> None:
        """Put an operation into the next batch; `deliver` gets its outcome on the loop.

        It gets an exception instead where the operation made the store fail even alone.
        """
        if self._closed:
            raise EngineClosed(type(operation).__name__.lower())
        self._waiting.append((operation, deliver))
        self._kick()

    async def ask(
        self, operation: Operation, first: Callable[[Outcome], None] | None = None
    ) -> Outcome:
        """Submit and wait until it is durable.

        Args:
            operation: what to do.
            first: called with the outcome before the asking task wakes, so that what it
                submits shares a batch with what the other outcomes lead to.

        Raises:
            Exception: what the store raised.
        """
        found: Outcome = await _delivered(
            lambda deliver: self.submit(operation, deliver), first
        )
        return found

    async def ask_all(
        self,
        operations: Sequence[Operation],
        first: Callable[[Outcome], None] | None = None,
    ) -> list[Outcome]:
        """Submit many together and wait until all are durable; outcomes in their order.

        `first` is called with each as it lands, as in `ask`.

        Raises:
            Exception: what the store raised for the first of them that failed.
        """
        done = trio.Event()
        found: list[Any] = [None] * len(operations)
        left = len(operations)

        def deliver(index: int, result: Outcome | Exception) -> None:
            nonlocal left
            found[index] = result
            left -= 1
            if not left:
                done.set()
            if first is not None and not isinstance(result, Exception):
                first(result)

        with self.gathering():
            for index, operation in enumerate(operations):
                self.submit(operation, partial(deliver, index))
        if operations:
            await done.wait()
        for result in found:
            if isinstance(result, Exception):
                raise result
        return found

    def call(self, work: Callable[[], T], deliver: Callable[[T | Exception], None]) -> None:
        """Run a blocking store call between two batches; `deliver` gets what came of it."""
        if self._closed:
            raise EngineClosed("the store")
        self._waiting.append((None, _Job(work, deliver)))
        self._kick()

    async def run(self, work: Callable[[], T]) -> T:
        """Run a blocking store call between two batches and wait for its result."""
        found: T = await _delivered(lambda deliver: self.call(work, deliver))
        return found

    @contextlib.contextmanager
    def gathering(self) -> Iterator[None]:
        """Let what is submitted inside start together, as one batch."""
        self._gathering += 1
        try:
            yield
        finally:
            self._gathering -= 1
            self._kick()

    @property
    def waiting(self) -> int:
        """How many operations and calls wait for their turn."""
        return len(self._waiting)

    @property
    def idle(self) -> bool:
        """Whether nothing waits and nothing is in flight."""
        return not self._waiting and self._taken == self._landed

    async def close(self) -> None:
        """Finish what waits, then end the thread."""
        while not self.idle:
            await self.run(lambda: None)
        self.abandon()

    def abandon(self) -> None:
        """End the thread and drop what waits; a commit in flight is waited for."""
        self._closed = True
        self._waiting.clear()
        self._kicks.put(False)
        if self._thread is not None:
            self._thread.join()

    def _kick(self) -> None:
        if self._gathering or self._awake or self._deferred or not self._waiting:
            return
        if self._last_batch > _ALONE:
            # Others are about: what they submit in this tick comes along.
            self._deferred = True
            self._token.run_sync_soon(self._kick_now)
        else:
            self._kick_now()

    def _kick_now(self) -> None:
        self._deferred = False
        if self._awake or self._closed or not self._waiting:
            return
        self._awake = True
        if self._inline:
            self._token.run_sync_soon(self._drain)
        else:
            self._kicks.put(True)

    def _drain(self) -> None:
        self._awake = False
        while self._waiting and not self._closed:
            self._land(*self._take())

    def _land(self, results: list[tuple[Any, Any]], died: BaseException | None) -> None:
        """Deliver a batch's results; what they submit becomes one batch again."""
        self._landed += 1
        if self._closed:
            return
        with self.gathering():
            for deliver, result in results:
                deliver(result)
        if died is not None:
            self.fatal(died)

    # --- the thread's side

    def _run(self) -> None:
        polled = time.monotonic()
        while True:
            try:
                if not self._kicks.get(timeout=_POLL):
                    return
            except queue.Empty:
                self._poll()
                polled = time.monotonic()
                continue
            while True:
                while self._waiting and not self._closed:
                    results, died = self._take()
                    self._post(self._land, results, died)
                    # However busy we are, others may have written to what we own.
                    if time.monotonic() - polled > _POLL:
                        self._poll()
                        polled = time.monotonic()
                self._awake = False
                # An operation that came between the two lines above kicked nobody.
                if not self._waiting or self._closed:
                    break
                self._awake = True

    def _poll(self) -> None:
        try:
            changed = self._store.changed()
        except Exception:  # noqa: BLE001
            return
        if changed:
            self._post(self._changed)

    def _post(self, work: Callable[..., object], *args: Any) -> None:
        # The loop may have ended while the store was busy; nobody waits any more then.
        with contextlib.suppress(trio.RunFinishedError):
            self._token.run_sync_soon(work, *args)

    def _take(self) -> tuple[list[tuple[Any, Any]], BaseException | None]:
        """Carry out one batch, or one job."""
        self._taken += 1
        waiting = self._waiting
        operations: list[Any] = []
        delivers: list[Any] = []
        while waiting and len(operations) < _LARGEST_BATCH:
            if waiting[0][0] is None:
                if operations:
                    break
                _, job = waiting.popleft()
                return self._job(job)
            operation, deliver = waiting.popleft()
            operations.append(operation)
            delivers.append(deliver)
        results, died = self._commit(operations, delivers)
        self.failing = all(isinstance(result, Exception) for _, result in results)
        return results, died

    def _job(self, job: _Job) -> tuple[list[tuple[Any, Any]], BaseException | None]:
        try:
            result = job.work()
        except Exception as error:  # noqa: BLE001
            result = error
        except BaseException as died:  # noqa: BLE001
            return [], died
        return [(job.deliver, result)], None

    def _commit(
        self, operations: list[Any], delivers: list[Any]
    ) -> tuple[list[tuple[Any, Any]], BaseException | None]:
        try:
            found = self._store.commit(Batch(operations, self._clock.now(), self.worker))
            self.commits += 1
            self._last_batch = len(operations)
        except Exception as error:  # noqa: BLE001
            return self._one_by_one(operations, delivers, error)
        except BaseException as died:  # noqa: BLE001
            return [], died
        return list(zip(delivers, found, strict=True)), None

    def _one_by_one(
        self, operations: list[Any], delivers: list[Any], error: Exception
    ) -> tuple[list[tuple[Any, Any]], BaseException | None]:
        """Redo a batch that failed, so that only the operation at fault hears of it."""
        if len(operations) == 1:
            return [(delivers[0], error)], None
        results: list[tuple[Any, Any]] = []
        for operation, deliver in zip(operations, delivers, strict=True):
            found, died = self._commit([operation], [deliver])
            results += found
            if died is not None:
                return results, died
        return results, None


async def _delivered(
    begin: Callable[[Callable[[Any], None]], None],
    first: Callable[[Any], None] | None = None,
) -> Any:
    """Wait for what a `deliver` callback gets; exceptions are raised."""
    done = trio.Event()
    found: list[Any] = []

    def deliver(result: Any) -> None:
        found.append(result)
        done.set()
        if first is not None and not isinstance(result, Exception):
            first(result)

    begin(deliver)
    await done.wait()
    if isinstance(found[0], Exception):
        raise found[0]
    return found[0]
