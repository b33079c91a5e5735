"""Operating-system locks beside the database file: a turnstile, and one lock a worker.

SQLite's own busy handler starves: of two busy processes one got 18,298 commits and the
other 3. Here a writer takes ``next``, then ``write``, then gives ``next`` back: whoever
waits is behind at most one other, and two processes share evenly.

Each worker holds a lock of its own for as long as its process lives, so that a dead owner
is known at once, without waiting for a lease to run out.

POSIX locks belong to a process and go when *any* descriptor of the file is closed in it.
Hence one descriptor a process and file, shared by all stores in it, and threads of one
process keep each other out with ordinary locks.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import threading
from collections import deque
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

_NEXT: Final = 0
_WRITE: Final = 1
_WORKERS: Final = 1024

_files: Final[dict[str, LockFile]] = {}
_files_guard: Final = threading.Lock()


class FairLock:
    """A lock that goes from thread to thread in the order in which they asked for it.

    Any thread may release it. An ordinary lock goes to whoever is awake, which is the one
    that has just released it: a busy committer would keep all others out.
    """

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._waiting: deque[threading.Lock] = deque()
        self._held = False

    def acquire(self) -> None:
        """Wait until it is this thread's."""
        with self._guard:
            if not self._held:
                self._held = True
                return
            mine = threading.Lock()
            mine.acquire()
            self._waiting.append(mine)
        try:
            mine.acquire()
        except BaseException:
            with self._guard:
                came = mine not in self._waiting
                if not came:
                    self._waiting.remove(mine)
            if came:
                self.release()
            raise

    def release(self) -> None:
        """Hand it to whoever has waited longest."""
        with self._guard:
            if self._waiting:
                self._waiting.popleft().release()
            else:
                self._held = False


class LockFile:
    """The lock file of one database in this process. Get it with `lock_file`."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.pid = os.getpid()
        self.users = 0
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        self._thread = FairLock()
        self._held: set[int] = set()

    @contextlib.contextmanager
    def turn(self) -> Iterator[None]:
        """Hold the right to write; waits for its turn, first come first served."""
        self.take_turn()
        try:
            yield
        finally:
            self.give_turn()

    def take_turn(self) -> None:
        """Wait for the right to write."""
        # One thread of a process at a time, from the first lock to the last: the kernel
        # takes a process that holds one of the two and waits for the other in another
        # thread for a deadlock, and refuses.
        self._thread.acquire()
        try:
            fcntl.lockf(self._fd, fcntl.LOCK_EX, 1, _NEXT)
            try:
                fcntl.lockf(self._fd, fcntl.LOCK_EX, 1, _WRITE)
            finally:
                fcntl.lockf(self._fd, fcntl.LOCK_UN, 1, _NEXT)
        except BaseException:
            self._thread.release()
            raise

    def give_turn(self) -> None:
        """Give up the right to write; any thread may."""
        try:
            fcntl.lockf(self._fd, fcntl.LOCK_UN, 1, _WRITE)
        finally:
            self._thread.release()

    def hold(self, worker: int) -> None:
        """Mark a worker of this process as alive."""
        fcntl.lockf(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, _WORKERS + worker)
        self._held.add(worker)

    def let_go(self, worker: int) -> None:
        """The worker is no more."""
        if worker in self._held:
            self._held.discard(worker)
            fcntl.lockf(self._fd, fcntl.LOCK_UN, 1, _WORKERS + worker)

    def alive(self, worker: int) -> bool:
        """Whether a worker's process still holds its lock."""
        if worker in self._held:
            return True
        try:
            fcntl.lockf(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, _WORKERS + worker)
        except OSError:
            return True
        fcntl.lockf(self._fd, fcntl.LOCK_UN, 1, _WORKERS + worker)
        return False

    def leave(self) -> None:
        """One user fewer; the last one closes the file."""
        with _files_guard:
            self.users -= 1
            if self.users == 0:
                _files.pop(self.path, None)
                os.close(self._fd)


def lock_file(database: str) -> LockFile:
    """This process's lock file for a database; call `LockFile.leave` when done."""
    path = os.path.realpath(database) + "-locks"
    with _files_guard:
        found = _files.get(path)
        # After a fork the child has the parent's object but none of its locks.
        if found is None or found.pid != os.getpid():
            found = _files[path] = LockFile(path)
        found.users += 1
        return found


class NoLocks:
    """The same for a database that only this object can reach."""

    def __init__(self) -> None:
        self._write = FairLock()
        self._held: set[int] = set()

    @contextlib.contextmanager
    def turn(self) -> Iterator[None]:
        """Hold the right to write."""
        self.take_turn()
        try:
            yield
        finally:
            self.give_turn()

    def take_turn(self) -> None:
        """Wait for the right to write."""
        self._write.acquire()

    def give_turn(self) -> None:
        """Give up the right to write; any thread may."""
        self._write.release()

    def hold(self, worker: int) -> None:
        """Mark a worker as alive."""
        self._held.add(worker)

    def let_go(self, worker: int) -> None:
        """The worker is no more."""
        self._held.discard(worker)

    def alive(self, worker: int) -> bool:
        """Whether a worker is held."""
        return worker in self._held

    def leave(self) -> None:
        """Nothing to close."""
