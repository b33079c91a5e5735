"""Statements on the wire: sent without waiting, answered when somebody asks.

psycopg's cursors hand each statement to the operating system by itself, which wakes the server
for each. Here they gather, in libpq's pipeline mode (which psycopg wraps as `psycopg.pq`),
until an answer is wanted: then all of them go in one piece, and the answers come in one.
Values and rows are binary, and each statement is prepared once a connection.
"""

from __future__ import annotations

import re
import select
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from itertools import count
from struct import Struct
from typing import TYPE_CHECKING, Any, Final

import psycopg
from psycopg import pq
from psycopg.adapt import Transformer
from psycopg.errors import error_from_result

from triggerflow.store.postgres.columns import Column

if TYPE_CHECKING:
    from psycopg.pq.abc import PGresult

_INT: Final = Struct("!q").pack
_FLOAT: Final = Struct("!d").pack
_BINARY: Final = 1
_FAILED: Final = pq.ExecStatus.FATAL_ERROR
_ABORTED: Final = pq.ExecStatus.PIPELINE_ABORTED
_SYNCED: Final = pq.ExecStatus.PIPELINE_SYNC

Encoded = tuple[int, bytes | None]


def _encoded(value: Any) -> Encoded:
    """The server's number of a value's type, and the value in its binary form."""
    if value is None:
        return 0, None
    if isinstance(value, str):
        return 25, value.encode()
    if isinstance(value, bool):
        return 16, b"\1" if value else b"\0"
    if isinstance(value, int):
        return 20, _INT(value)
    if isinstance(value, Column):
        return value.array, value.encoded()
    if isinstance(value, float):
        return 701, _FLOAT(value)
    return 17, bytes(value)


@lru_cache(maxsize=1024)
def _numbered(text: str) -> bytes:
    """A statement with ``$1``, ``$2`` in place of each ``%s``."""
    numbers = count(1)
    return re.sub(
        r"%s|%%", lambda found: f"${next(numbers)}" if found[0] == "%s" else "%", text
    ).encode()


class Answer:
    """What a statement gives, once somebody asks."""

    __slots__ = ("_db", "_rows", "result")

    def __init__(self, db: Db) -> None:
        self.result: PGresult | None = None
        self._db = db
        self._rows: list[tuple[Any, ...]] | None = None

    def rows(self) -> list[tuple[Any, ...]]:
        """All rows.

        Raises:
            psycopg.Error: the statement failed, or one before it.
        """
        if self._rows is None:
            if self.result is None:
                self._db.fetch(self)
            self._rows = self._db.load(self.result)
            self.result = None
        return self._rows

    def row(self) -> tuple[Any, ...] | None:
        """The first row, or None."""
        rows = self.rows()
        return rows[0] if rows else None

    def one(self) -> Any:
        """The first value of the one row that there must be."""
        return self.rows()[0][0]

    def firsts(self) -> list[Any]:
        """The first value of each row."""
        return [row[0] for row in self.rows()]


class Db:
    """A connection for our own statements.

    Attributes:
        connection: psycopg's.
        number: that of the transaction that is open, once it was asked for.
    """

    def __init__(self, connection: psycopg.Connection[Any]) -> None:
        self.connection = connection
        self.number = ""
        self._pg = connection.pgconn
        self._loads = Transformer(connection)
        self._poll = select.poll()
        # (text, types of its values) -> its name at the server.
        self._names: dict[tuple[str, tuple[int, ...]], bytes] = {}
        self._counted = count()
        # What was sent and not answered: an answer, or the key of what is being prepared.
        self._due: deque[Answer | tuple[str, tuple[int, ...]]] = deque()
        self._piped = False

    def execute(self, text: str, *values: Any) -> Answer:
        """Send a statement; outside of a pipeline, wait for its end as well.

        Raises:
            psycopg.Error: the connection is lost; outside of a pipeline, whatever is wrong.
        """
        if not self._piped:
            with self.pipeline():
                return self.execute(text, *values)
        given = [_encoded(value) for value in values]
        key = (text, tuple(kind for kind, _ in given))
        name = self._names.get(key)
        if name is None:
            name = b"t%d" % next(self._counted)
            self._pg.send_prepare(name, _numbered(text), key[1])
            self._names[key] = name
            self._due.append(key)
        self._pg.send_query_prepared(
            name, [raw for _, raw in given], [_BINARY] * len(given), _BINARY
        )
        answer = Answer(self)
        self._due.append(answer)
        return answer

    @contextmanager
    def pipeline(self) -> Iterator[None]:
        """Send what is executed inside together; at the end all of it has been done.

        Raises:
            psycopg.Error: the first error of a statement inside that nobody has seen.
        """
        self._pg.enter_pipeline_mode()
        self._piped = True
        try:
            yield
        except BaseException:
            # What is wrong with the connection now, if so, is told by the next to use it.
            self._leave()
            raise
        problem = self._leave()
        if problem is not None:
            raise problem

    def _leave(self) -> Exception | None:
        """End a pipeline; the first error that is found on the way."""
        problem: Exception | None = None
        self._piped = False
        try:
            self._pg.pipeline_sync()
            synced = False
            while not synced and not self.lost:
                try:
                    synced = not self._take_one()
                except psycopg.Error as error:
                    # What came after it was given up by the server, up to the end.
                    problem = problem or error
            if synced:
                self._pg.exit_pipeline_mode()
        except psycopg.Error as error:
            problem = problem or error
        self._due.clear()
        return problem

    def fetch(self, answer: Answer) -> None:
        """Wait until an answer is there.

        Raises:
            psycopg.Error: its statement failed, or one before it.
        """
        self._pg.send_flush_request()
        while answer.result is None:
            self._take_one()

    def load(self, result: PGresult | None) -> list[tuple[Any, ...]]:
        """The rows of a result."""
        if result is None or not result.ntuples:
            return []
        self._loads.set_pgresult(result)
        return self._loads.load_rows(0, result.ntuples, tuple)

    def _take_one(self) -> bool:
        """Take the next result off the wire; whether it wasn't the pipeline's end."""
        result = self._next()
        if result is None:
            # Nobody could tell any more which answer is whose.
            self.close()
            raise psycopg.OperationalError("the server's answers ended too early")
        status = result.status
        if status == _SYNCED:
            return False
        if not self._due:
            # Nothing was asked: the server says why it ends the connection.
            raise error_from_result(result)
        due = self._due.popleft()
        # Each statement's results end with none.
        self._next()
        if isinstance(due, Answer):
            due.result = result
        elif status in (_FAILED, _ABORTED):
            # It isn't known there.
            self._names.pop(due, None)
        if status == _FAILED:
            raise error_from_result(result)
        if status == _ABORTED:
            raise psycopg.OperationalError("a statement before this one failed")
        return True

    def _next(self) -> PGresult | None:
        pg = self._pg
        self._poll.register(pg.socket, select.POLLIN)
        while pg.flush():
            self._poll.modify(pg.socket, select.POLLIN | select.POLLOUT)
            if self._poll.poll()[0][1] & select.POLLIN:
                pg.consume_input()
        self._poll.modify(pg.socket, select.POLLIN)
        while pg.is_busy():
            self._poll.poll()
            pg.consume_input()
        return pg.get_result()

    @contextmanager
    def snapshot(self) -> Iterator[None]:
        """Let what is asked inside see one and the same picture."""
        try:
            with self.pipeline():
                self.execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
                yield
                self.execute("COMMIT")
        except BaseException:
            self.roll_back()
            raise

    def roll_back(self) -> None:
        """Undo the transaction that is open, if one is."""
        if not self.lost:
            self.connection.rollback()

    def heard(self) -> list[int]:
        """The processes that have notified this connection since the last call."""
        self._pg.consume_input()
        found = []
        while (notify := self._pg.notifies()) is not None:
            found.append(notify.be_pid)
        return found

    @property
    def lost(self) -> bool:
        """Whether the server is out of reach."""
        return self.connection.closed

    def close(self) -> None:
        """Close it."""
        self.connection.close()
