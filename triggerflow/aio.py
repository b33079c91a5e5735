"""The client for asyncio: ``async with app.asyncio_client() as client``.

The engine is a trio program. Two ways lead from asyncio to one, and both were tried: trio's
guest mode, where both schedulers take turns on the host's thread, and a thread that the
engine has to itself, which is `triggerflow.client.EngineThread`. The thread won:

- **Blocking callbacks of the host.** A host that computed for 0.5 s silenced the guest for
  0.51 s: no timer, no sign of life. A lease runs out that way, and the instances go to
  another worker while their steps still run here. The engine in its thread was never
  silent for longer than 10 ms.
- **Shutdown order.** A guest needs its host to the last tick. When the host's loop was
  closed first, trio said "guest run got abandoned, weird stuff might happen", its threads
  stayed, and results for them went to a closed loop. The thread is still there then: it
  sees that nobody listens, hands its instances back and closes the store.
- **Errors of the engine.** Both can report them. But a guest that dies leaves calls behind
  that nobody wakes, so it needs the same bookkeeping, and calls in the window in which it
  is dying meet `trio.RunFinishedError`. The thread has one end, where all who wait are told.
- **Cancellation.** No difference: a task that is cancelled posts a job which cancels the
  scope of its verb, and the answer that may cross it is dropped.
- **Speed.** The guest's one point: 22,000 reads/s from 100 tasks, the thread 17,500 (12,000
  with a hop for each answer: hence `_Landing`). From one task 2,600 and 3,000.

What a cancelled verb has given to the committer is carried out: appending again, or starting
with the same ``key=``, or signalling with the same ``dedup=``, finds it done.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import os
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, Self, TypeVar

from triggerflow.client import EngineThread, now, read_page
from triggerflow.engine.asking import PAGE, Instances
from triggerflow.engine.engine import Engine
from triggerflow.errors import DefinitionError, EngineClosed

if TYPE_CHECKING:
    from types import TracebackType

    from triggerflow.engine.statistics import Statistics
    from triggerflow.engine.views import Instance

P = ParamSpec("P")
T = TypeVar("T")


def _verb(
    verb: Callable[Concatenate[Engine, P], Awaitable[T]],
) -> Callable[Concatenate[AsyncioClient, P], Coroutine[Any, Any, T]]:
    """A verb of the engine as one of the client, with its signature and its description."""

    @functools.wraps(verb)
    async def call(client: AsyncioClient, /, *args: P.args, **kwargs: P.kwargs) -> T:
        return await client._call(  # noqa: SLF001
            verb.__name__, lambda engine: verb(engine, *args, **kwargs)
        )

    return call


def _listing(
    verb: Callable[Concatenate[Engine, P], Instances],
) -> Callable[Concatenate[AsyncioClient, P], AsyncIterator[Instance]]:
    """The same for a verb that iterates; the pages come over one at a time."""

    @functools.wraps(verb)
    async def call(
        client: AsyncioClient, /, *args: P.args, **kwargs: P.kwargs
    ) -> AsyncIterator[Instance]:
        found: Instances | None = None

        async def page(engine: Engine) -> list[Instance]:
            nonlocal found
            found = found or verb(engine, *args, **kwargs)
            return await read_page(found)

        while True:
            instances = await client._call(verb.__name__, page)  # noqa: SLF001
            for each in instances:
                yield each
            if len(instances) < PAGE:
                return

    return call


class AsyncioClient:
    """Use it as ``async with app.asyncio_client() as client``; the verbs are the engine's.

    Opening, closing and the verbs never block the loop. A task that is cancelled takes its
    verb along. It belongs to the loop in which it was opened; `Engine` has the full
    description of each verb.
    """

    def __init__(self, app: Any, *, work: bool = True, **settings: Any) -> None:
        self._app = app
        self._settings = {"work": work, **settings}
        self._thread: EngineThread | None = None
        self._landing: _Landing | None = None

    async def __aenter__(self) -> Self:
        return await self.open()

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()

    async def open(self) -> Self:
        """Open it, for frameworks with a start and a stop hook and no block between them.

        Raises:
            StoreError: the store can't be opened, or was before this process was forked.
            DefinitionError: it is open already, or this is no asyncio task.
        """
        landing = _Landing(_running_loop("open"))
        if self._thread is not None:
            self._thread.check_process()
        if self._landing is not None:
            if not self._landing.loop.is_closed():
                raise DefinitionError("AsyncioClient.open", "it is open already", "close it")
            await self.close()
        self._landing = landing
        thread = landing.thread = EngineThread(self._app, self._settings)
        try:
            await _told(thread.ready)
            thread.ready.result()
        except BaseException:
            thread.stop()
            self._landing = None
            await _ended(thread)
            raise
        self._thread = thread
        return self

    async def close(self) -> None:
        """End the engine and its thread; instances that run are handed back.

        A cancel that comes meanwhile is heard once the engine has ended, a second at once.
        """
        thread = self._thread
        # A forked child has nothing to close: the thread is its parent's.
        if thread is None or thread.pid != os.getpid():
            return
        thread.stop()
        try:
            await _ended(thread)
        finally:
            if self._thread is thread:
                self._thread = self._landing = None
        thread.over.result()

    append = _verb(Engine.append)
    append_many = _verb(Engine.append_many)
    explain = _verb(Engine.explain)
    firings = _verb(Engine.firings)
    retire = _verb(Engine.retire)
    start = _verb(Engine.start)
    signal = _verb(Engine.signal)
    complete = _verb(Engine.complete)
    cancel = _verb(Engine.cancel)
    terminate = _verb(Engine.terminate)
    retry = _verb(Engine.retry)
    unblock = _verb(Engine.unblock)
    get = _verb(Engine.get)
    log = _verb(Engine.log)
    progress = _verb(Engine.progress)
    tasks = _verb(Engine.tasks)
    patches = _verb(Engine.patches)
    replay = _verb(Engine.replay)
    instances = _listing(Engine.instances)

    async def statistics(self) -> Statistics:
        """See `Engine.statistics`."""
        return await self._call("statistics", now(Engine.statistics))

    wait = _verb(Engine.wait)
    run_until_idle = _verb(Engine.run_until_idle)
    drain = _verb(Engine.drain)
    pause = _verb(Engine.pause)
    resume = _verb(Engine.resume)
    drain_trigger = _verb(Engine.drain_trigger)
    backfill = _verb(Engine.backfill)
    backfills = _verb(Engine.backfills)
    get_backfill = _verb(Engine.get_backfill)
    pause_backfill = _verb(Engine.pause_backfill)
    resume_backfill = _verb(Engine.resume_backfill)
    cancel_backfill = _verb(Engine.cancel_backfill)
    redispatch = _verb(Engine.redispatch)

    async def _call(self, verb: str, work: Callable[[Engine], Awaitable[T]]) -> T:
        thread, landing = self._thread, self._landing
        if thread is None or landing is None:
            raise EngineClosed(verb)
        thread.check_process()
        if landing.loop is not _running_loop(verb):
            raise DefinitionError(
                f"AsyncioClient.{verb}",
                "was called from another event loop than the one that opened the client",
                "open a client in each loop, or use app.client(), which serves all threads",
            )
        answer: asyncio.Future[T] = landing.loop.create_future()
        call = thread.call(verb, work, functools.partial(landing.land, answer))
        try:
            return await answer
        finally:
            # Cancelled, or its loop is no more.
            if answer.cancelled() or not answer.done():
                thread.cancel(call)


class _Landing:
    """Brings answers from the engine's thread to a loop, many in one hop."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self.thread: EngineThread | None = None
        self._landed: deque[tuple[asyncio.Future[Any], Any, BaseException | None]] = deque()
        self._posted = False

    def land(
        self, answer: asyncio.Future[Any], value: Any, error: BaseException | None
    ) -> None:
        """Give a call its end. Called on the engine's thread."""
        self._landed.append((answer, value, error))
        if self._posted:
            return
        self._posted = True
        try:
            self.loop.call_soon_threadsafe(self._wake)
        except RuntimeError:
            # The loop was closed and the client was not: nobody listens any more.
            if self.thread is not None:
                self.thread.stop()

    def _wake(self) -> None:
        # Before the first one is taken: what lands later posts again.
        self._posted = False
        while self._landed:
            answer, value, error = self._landed.popleft()
            if answer.done():
                continue
            if error is None:
                answer.set_result(value)
            else:
                answer.set_exception(error)


def _running_loop(verb: str) -> asyncio.AbstractEventLoop:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        raise DefinitionError(
            f"AsyncioClient.{verb}",
            "was called where no asyncio loop runs",
            "on trio use app.open(), in plain code app.client()",
        ) from None


def _told(future: Future[None]) -> asyncio.Future[None]:
    """A future of this loop that is done when that of a thread is; its errors stay there."""
    loop = asyncio.get_running_loop()
    here: asyncio.Future[None] = loop.create_future()

    def wake() -> None:
        if not here.done():
            here.set_result(None)

    def tell(_: Future[None]) -> None:
        with contextlib.suppress(RuntimeError):
            loop.call_soon_threadsafe(wake)

    future.add_done_callback(tell)
    return here


async def _ended(thread: EngineThread) -> None:
    """Wait until an engine has ended; the first cancel waits too, as it does on trio."""
    over = _told(thread.over)
    try:
        await asyncio.shield(over)
    except asyncio.CancelledError:
        await over
        raise
