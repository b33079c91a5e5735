"""Reads, many at a time: what is asked while a thread reads is read by its next round.

A hop between threads costs more than a small read, so one hop serves all who wait.
"""

from __future__ import annotations

import contextlib
import queue
import threading
from collections import deque
from collections.abc import Callable
from typing import Any, TypeVar

import trio

from triggerflow.errors import EngineClosed

T = TypeVar("T")


class Reader:
    """Runs blocking reads on a thread of its own. Methods are called on the loop's thread.

    With ``inline=True`` they run at once on the loop's thread: for virtual time.
    """

    def __init__(self, *, inline: bool = False) -> None:
        self._inline = inline
        self._token = trio.lowlevel.current_trio_token()
        self._asked: deque[tuple[Callable[[], Any], list[Any], trio.Event]] = deque()
        self._kicks: queue.SimpleQueue[bool] = queue.SimpleQueue()
        self._posted = False
        self._closed = False
        self._thread: threading.Thread | None = None
        if not inline:
            self._thread = threading.Thread(
                target=self._run, name="triggerflow-reader", daemon=True
            )
            self._thread.start()

    async def ask(self, read: Callable[[], T]) -> T:
        """What `read` returns.

        Raises:
            Exception: what it raised.
            EngineClosed: the engine isn't open any more.
        """
        if self._closed:
            raise EngineClosed("reading")
        if self._inline:
            await trio.lowlevel.checkpoint()
            return read()
        answer: list[Any] = []
        done = trio.Event()
        self._asked.append((read, answer, done))
        if not self._posted:
            # One tick later, so that whoever asks in this tick comes along.
            self._posted = True
            self._token.run_sync_soon(self._kick)
        await done.wait()
        found = answer[0]
        if isinstance(found, Exception):
            raise found
        return found  # type: ignore[no-any-return]

    def close(self) -> None:
        """End the thread; who still waits gets an answer first.

        It waits for the read in flight: a connection that is closed under one takes the
        whole process down.
        """
        self._closed = True
        self._kicks.put(False)
        if self._thread is not None:
            self._thread.join()

    def _kick(self) -> None:
        self._posted = False
        self._kicks.put(True)

    def _run(self) -> None:
        more = True
        while more:
            more = self._kicks.get()
            done = []
            while self._asked:
                read, answer, event = self._asked.popleft()
                try:
                    answer.append(read())
                except Exception as error:  # noqa: BLE001
                    answer.append(error)
                done.append(event)
            if done:
                with contextlib.suppress(trio.RunFinishedError):
                    self._token.run_sync_soon(_wake, done)


def _wake(events: list[trio.Event]) -> None:
    for event in events:
        event.set()
