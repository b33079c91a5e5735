"""The blocking client: an engine in a thread of its own, the same verbs without ``await``."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Awaitable, Callable, Iterable, Iterator
from concurrent.futures import Future
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Self, TypeVar

import trio

from triggerflow.errors import EngineClosed

if TYPE_CHECKING:
    from types import TracebackType

    from triggerflow.core.driver import Done, Failed, Suspended
    from triggerflow.core.log import Entry
    from triggerflow.engine.engine import Engine
    from triggerflow.engine.views import Appended, Instance, Rejected

T = TypeVar("T")


class Client:
    """Use it as ``with app.client() as client``; its methods may be called from any thread.

    `Engine` has the full description of each verb.
    """

    def __init__(self, app: Any, *, work: bool = True, **settings: Any) -> None:
        self._app = app
        self._settings = {"work": work, **settings}
        self._engine: Engine | None = None
        self._token: trio.lowlevel.TrioToken | None = None
        self._nursery: trio.Nursery | None = None
        self._stop: trio.Event | None = None
        self._thread: threading.Thread | None = None
        self._over: Future[None] = Future()

    def __enter__(self) -> Self:
        ready: Future[None] = Future()
        self._over = Future()
        self._thread = threading.Thread(
            target=self._run, args=(ready,), name="triggerflow-client", daemon=True
        )
        self._thread.start()
        ready.result()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the engine and its thread; instances that run are handed back."""
        thread, self._thread = self._thread, None
        if thread is None:
            return
        if self._token is not None and self._stop is not None:
            with contextlib.suppress(trio.RunFinishedError):
                self._token.run_sync_soon(self._stop.set)
        thread.join()
        self._engine = None
        self._over.result()

    # --- verbs

    def append(self, activity: object) -> Appended:
        """See `Engine.append`."""
        return self._call("append", lambda engine: engine.append(activity))

    def append_many(self, activities: Iterable[object]) -> list[Appended | Rejected]:
        """See `Engine.append_many`."""
        return self._call("append_many", lambda engine: engine.append_many(activities))

    def start(self, flow: Any, input: Any = None, **options: Any) -> str:
        """See `Engine.start`."""
        return self._call("start", lambda engine: engine.start(flow, input, **options))

    def signal(
        self, id: str | None = None, name: str = "", payload: Any = None, **where: Any
    ) -> bool:
        """See `Engine.signal`."""
        return self._call("signal", lambda engine: engine.signal(id, name, payload, **where))

    def complete(self, id: str, tag: str, value: Any = None) -> None:
        """See `Engine.complete`."""
        self._call("complete", lambda engine: engine.complete(id, tag, value))

    def cancel(self, id: str) -> bool:
        """See `Engine.cancel`."""
        return self._call("cancel", lambda engine: engine.cancel(id))

    def retry(self, id: str) -> None:
        """See `Engine.retry`."""
        self._call("retry", lambda engine: engine.retry(id))

    def unblock(self, id: str) -> None:
        """See `Engine.unblock`."""
        self._call("unblock", lambda engine: engine.unblock(id))

    def get(self, id: str) -> Instance:
        """See `Engine.get`."""
        return self._call("get", lambda engine: engine.get(id))

    def log(self, id: str) -> list[Entry]:
        """See `Engine.log`."""
        return self._call("log", lambda engine: engine.log(id))

    def replay(self, id: str) -> Done | Failed | Suspended:
        """See `Engine.replay`."""
        return self._call("replay", lambda engine: engine.replay(id))

    def instances(self, **where: Any) -> Iterator[Instance]:
        """See `Engine.instances`."""
        found = self._call("instances", _now(lambda engine: engine.instances(**where)))
        while True:
            try:
                yield self._call("instances", lambda _: anext(found))
            except StopAsyncIteration:
                return

    def wait(self, id: str, *, timeout: timedelta | float | None = None) -> Instance:
        """See `Engine.wait`."""
        return self._call("wait", lambda engine: engine.wait(id, timeout=timeout))

    def run_until_idle(self) -> None:
        """See `Engine.run_until_idle`."""
        self._call("run_until_idle", lambda engine: engine.run_until_idle())

    # --- the thread

    def _run(self, ready: Future[None]) -> None:
        try:
            trio.run(self._main, ready)
        except BaseException as error:  # noqa: BLE001
            if not ready.done():
                ready.set_exception(error)
                self._over.set_result(None)
            else:
                self._over.set_exception(error)
        else:
            self._over.set_result(None)

    async def _main(self, ready: Future[None]) -> None:
        async with self._app.open(**self._settings) as engine, trio.open_nursery() as nursery:
            self._engine = engine
            self._nursery = nursery
            self._token = trio.lowlevel.current_trio_token()
            self._stop = trio.Event()
            ready.set_result(None)
            await self._stop.wait()
            nursery.cancel_scope.cancel()

    def _call(self, verb: str, work: Callable[[Engine], Awaitable[T]]) -> T:
        engine, token, nursery = self._engine, self._token, self._nursery
        if engine is None or token is None or nursery is None or self._thread is None:
            raise EngineClosed(verb)
        result: Future[T] = Future()

        async def run() -> None:
            try:
                found = await work(engine)
            except trio.Cancelled:
                result.set_exception(EngineClosed(verb))
                raise
            except Exception as error:  # noqa: BLE001
                result.set_exception(error)
            else:
                result.set_result(found)

        def begin() -> None:
            try:
                nursery.start_soon(run)
            except RuntimeError:
                # The nursery is closed, the loop not yet: the engine is on its way out.
                result.set_exception(EngineClosed(verb))

        try:
            token.run_sync_soon(begin)
        except trio.RunFinishedError:
            raise EngineClosed(verb) from None
        while True:
            # An engine that dies must not leave its callers waiting.
            if self._over.done() and not result.done():
                self._over.result()
                raise EngineClosed(verb)
            try:
                return result.result(timeout=1.0)
            except TimeoutError:
                if result.done():
                    raise


def _now(work: Callable[[Engine], T]) -> Callable[[Engine], Awaitable[T]]:
    async def call(engine: Engine) -> T:
        return work(engine)

    return call
