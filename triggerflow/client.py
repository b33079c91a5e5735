"""The blocking client: an engine in a thread of its own, the same verbs without ``await``.

`EngineThread` is the thread; the blocking client and the one for asyncio both use it. What
they call travels to the engine's loop in batches and comes back through a callback, exactly
once, whatever becomes of the engine.
"""

from __future__ import annotations

import contextlib
import functools
import os
import threading
from collections import deque
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, Self, TypeVar

import attrs
import trio

from triggerflow.engine.asking import PAGE
from triggerflow.engine.engine import Engine
from triggerflow.errors import EngineClosed, StoreError

if TYPE_CHECKING:
    from types import TracebackType

    from triggerflow.engine.asking import Instances
    from triggerflow.engine.statistics import Statistics
    from triggerflow.engine.views import Instance

P = ParamSpec("P")
T = TypeVar("T")


def _verb(
    verb: Callable[Concatenate[Engine, P], Awaitable[T]],
) -> Callable[Concatenate[Client, P], T]:
    """A verb of the engine that blocks, with its signature and its description."""

    @functools.wraps(verb)
    def call(client: Client, /, *args: P.args, **kwargs: P.kwargs) -> T:
        return client._call(  # noqa: SLF001
            verb.__name__, lambda engine: verb(engine, *args, **kwargs)
        )

    return call


class Client:
    """Use it as ``with app.client() as client``; its methods may be called from any thread.

    `Engine` has the full description of each verb.
    """

    def __init__(self, app: Any, *, work: bool = True, **settings: Any) -> None:
        self._app = app
        self._settings = {"work": work, **settings}
        self._thread: EngineThread | None = None
        # One a process: a lock that was held during a fork is never given back in the child.
        self._guards: dict[int, threading.Lock] = {}

    def __enter__(self) -> Self:
        return self.open()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def open(self) -> Self:
        """Open it, where this process hasn't done so: for clients that no block encloses.

        It may be called before every use, by any thread: a server that forks gets an engine
        in each process that asks for one. Without `close` the engine ends with the process.

        Raises:
            StoreError: the store can't be opened, or was before this process was forked.
        """
        with self._guard():
            if self._thread is not None:
                self._thread.check_process()
            else:
                thread = EngineThread(self._app, self._settings)
                try:
                    thread.ready.result()
                except BaseException:
                    thread.stop()
                    raise
                self._thread = thread
        return self

    def close(self) -> None:
        """End the engine and its thread; instances that run are handed back."""
        with self._guard():
            thread = self._thread
            # A forked child has nothing to close: the thread is its parent's.
            if thread is None or thread.pid != os.getpid():
                return
            self._thread = None
        thread.stop()
        thread.over.result()

    def _guard(self) -> threading.Lock:
        return self._guards.setdefault(os.getpid(), threading.Lock())

    @property
    def _engine(self) -> Engine | None:
        return None if self._thread is None else self._thread.engine

    def _call(self, verb: str, work: Callable[[Engine], Awaitable[T]]) -> T:
        thread = self._thread
        if thread is None:
            raise EngineClosed(verb)
        result: Future[T] = Future()

        def deliver(value: Any, error: BaseException | None) -> None:
            if error is None:
                result.set_result(value)
            else:
                result.set_exception(error)

        call = thread.call(verb, work, deliver)
        try:
            return result.result()
        finally:
            # Interrupted: nobody waits for it any more.
            if not result.done():
                thread.cancel(call)

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

    def statistics(self) -> Statistics:
        """See `Engine.statistics`."""
        return self._call("statistics", now(Engine.statistics))

    def instances(self, **where: Any) -> Iterator[Instance]:
        """See `Engine.instances`; iterate with a plain ``for``."""
        found = self._call("instances", now(lambda engine: engine.instances(**where)))
        while True:
            page = self._call("instances", lambda _: read_page(found))
            yield from page
            if len(page) < PAGE:
                return


@attrs.define(eq=False)
class Call:
    """A verb on its way through the engine; `deliver` gets (value, error), once."""

    verb: str
    work: Callable[[Engine], Awaitable[Any]]
    deliver: Callable[[Any, BaseException | None], None]
    scope: trio.CancelScope = attrs.field(factory=trio.CancelScope)


class EngineThread:
    """An engine on a trio loop in a thread of its own, for one opening and one process.

    Attributes:
        engine: the engine, once it is open.
        pid: the process that it lives in.
        ready: done when the app is open, with the error when it can't be.
        over: done when the engine has ended, with the error that killed it.
    """

    def __init__(self, app: Any, settings: dict[str, Any]) -> None:
        self.engine: Engine | None = None
        self.pid = os.getpid()
        self.ready: Future[None] = Future()
        self.over: Future[None] = Future()
        self._app = app
        self._settings = settings
        self._scope = trio.CancelScope()
        self._token: trio.lowlevel.TrioToken | None = None
        self._nursery: trio.Nursery | None = None
        self._stopping = False
        self._finished = False
        self._died: BaseException | None = None
        self._traceback: TracebackType | None = None
        # Of an engine on its way out, its error not known yet.
        self._left: list[Call] = []
        self._jobs: deque[Callable[[], None]] = deque()
        self._posted = False
        threading.Thread(target=self._run, name="triggerflow-client", daemon=True).start()

    # --- from any thread

    def check_process(self) -> None:
        """Refuse to serve a forked child: it has neither this thread nor its connections.

        A connection of its own would not do for SQLite: the child inherits what the
        library knew of locks at the fork, and may find the file locked for ever.

        Raises:
            StoreError: the engine belongs to the process that this one was forked from.
        """
        if self.pid != os.getpid():
            store = self._app.store
            raise StoreError(
                store if isinstance(store, str) else getattr(store, "url", repr(store)),
                "was opened before this process was forked",
                "fork first, then open it in each process",
            )

    def call(
        self,
        verb: str,
        work: Callable[[Engine], Awaitable[T]],
        deliver: Callable[[Any, BaseException | None], None],
    ) -> Call:
        """Begin a verb; `deliver` is called on the engine's thread, or here if it ended.

        Raises:
            StoreError: the engine belongs to the process that this one was forked from.
        """
        self.check_process()
        call = Call(verb, work, deliver)
        self._post(functools.partial(self._begin, call))
        return call

    def cancel(self, call: Call) -> None:
        """Cancel a verb on its way; what it has committed stays."""
        self._post(call.scope.cancel)

    def stop(self) -> None:
        """End the engine, or its opening; `over` tells when."""
        self._stopping = True
        # Without a token it hasn't begun to open, and will see the flag.
        if self._token is not None:
            with contextlib.suppress(trio.RunFinishedError):
                self._token.run_sync_soon(self._halt)

    def _post(self, job: Callable[[], None]) -> None:
        """Run a job on the loop; those that gather meanwhile share its way there."""
        self._jobs.append(job)
        if not self._posted and self._token is not None:
            self._posted = True
            with contextlib.suppress(trio.RunFinishedError):
                self._token.run_sync_soon(self._take)
        if self._finished:
            # The loop may have ended before it saw the job.
            self._take()

    def _take(self) -> None:
        # Before the first one is taken: what comes later posts again.
        self._posted = False
        while True:
            try:
                job = self._jobs.popleft()
            except IndexError:
                return
            job()

    # --- the engine's thread

    def _run(self) -> None:
        error: BaseException | None = None
        try:
            trio.run(self._main)
        except BaseException as raised:  # noqa: BLE001
            error = raised
            while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
                error = error.exceptions[0]
        self._died = error
        if not self.ready.done():
            self.ready.set_exception(error or EngineClosed("open"))
            error = None
        self._finished = True
        self._take()
        for call in self._left:
            call.deliver(None, self._why_closed(call.verb))
        if error is None:
            self.over.set_result(None)
        else:
            self.over.set_exception(error)

    async def _main(self) -> None:
        with self._scope:
            self._token = trio.lowlevel.current_trio_token()
            if self._stopping:
                self._scope.cancel()
            opening = self._app.open(**self._settings)
            async with opening as self.engine, trio.open_nursery() as self._nursery:
                self.ready.set_result(None)
                await trio.sleep_forever()

    def _halt(self) -> None:
        # An open engine ends in order, with time for the steps that run.
        scope = self._scope if self._nursery is None else self._nursery.cancel_scope
        scope.cancel()

    def _begin(self, call: Call) -> None:
        if self._finished or self._nursery is None:
            call.deliver(None, self._why_closed(call.verb))
            return
        try:
            self._nursery.start_soon(self._perform, call)
        except RuntimeError:
            # The nursery is closed, the loop not yet: the engine is on its way out.
            self._leave(call)

    async def _perform(self, call: Call) -> None:
        assert self.engine is not None
        with call.scope:
            try:
                value = await call.work(self.engine)
            except trio.Cancelled:
                self._leave(call)
                raise
            except BaseException as error:  # noqa: BLE001
                # A caller's error, whatever it is, ends no engine.
                call.deliver(None, error)
            else:
                call.deliver(value, None)

    def _leave(self, call: Call) -> None:
        """The engine ends under a call: tell why, or keep it until that is known."""
        known = self.engine is not None and self.engine.died is not None
        if known or self._stopping or call.scope.cancel_called:
            call.deliver(None, self._why_closed(call.verb))
        else:
            self._left.append(call)

    def _why_closed(self, verb: str) -> BaseException:
        died = self._died
        if died is None and self.engine is not None:
            died = self.engine.died
        if died is None or isinstance(died, KeyboardInterrupt | SystemExit):
            # Neither may end the caller's process.
            closed = EngineClosed(verb)
            closed.__cause__ = died
            return closed
        # Raised many times, it would grow by a traceback each time.
        self._traceback = self._traceback or died.__traceback__
        return died.with_traceback(self._traceback)


async def read_page(found: Instances) -> list[Instance]:
    """A page of instances in one go; a short one is the last."""
    page: list[Instance] = []
    async for each in found:
        page.append(each)
        if len(page) == PAGE:
            break
    return page


def now(work: Callable[[Engine], T]) -> Callable[[Engine], Awaitable[T]]:
    """What doesn't wait, as a verb that could."""

    async def call(engine: Engine) -> T:
        return work(engine)

    return call
