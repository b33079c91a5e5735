"""One transaction of a step: what the step may do in it, and how it ends."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, Final

import psycopg
from psycopg import errors, sql

from triggerflow.core.codec import ValueCodec
from triggerflow.core.log import IN_ROWS, decode_pending, join_pending
from triggerflow.errors import TimedOut, TransactionError
from triggerflow.store.operations import Outcome, Verdict
from triggerflow.store.postgres.placeholders import refusal, translate
from triggerflow.store.transactions import FetchedRows

if TYPE_CHECKING:
    from triggerflow.core.transaction import Values
    from triggerflow.store.transactions import Transact

# A pending set holds texts, numbers and bytes: no class need be registered.
_CODEC: Final = ValueCodec()


class PostgresTransaction:
    """What the step gets; see `triggerflow.core.transaction.Transaction`."""

    __slots__ = ("_held",)

    def __init__(self, held: Held) -> None:
        self._held = held

    def execute(self, text: str, values: Values = (), /) -> FetchedRows:
        """Run one statement."""
        given = _copied(values)
        # Prepared, since only then a text with a second statement in it is refused.
        return self._held.run(
            text, values, lambda cursor, ours: cursor.execute(ours, given, prepare=True)
        )

    def executemany(self, text: str, rows: Iterable[Values], /) -> FetchedRows:
        """Run one statement for each of many rows of values."""
        # Read first: a generator's own code must not run under the guard.
        given = [_copied(row) for row in rows]
        first = given[0] if given else ()
        return self._held.run(text, first, lambda cursor, ours: cursor.executemany(ours, given))


def _copied(values: Values) -> Any:
    return dict(values) if isinstance(values, Mapping) else tuple(values)


class Held:
    """One transaction, from its begin until it is over.

    Attributes:
        over: it has ended.
        given_up: why it was ended before its step was, or None.
        xid: its number, once its commit is asked for.
    """

    def __init__(
        self,
        connection: psycopg.Connection[Any],
        schema: str,
        own: Mapping[int, str],
        step: Transact,
    ) -> None:
        self.step = step
        self.over = threading.Event()
        self.given_up: Exception | None = None
        self.xid = ""
        self.row: int | None = None
        self._connection = connection
        self._schema = sql.Identifier(schema)
        self._own = own
        self._guard = threading.Lock()
        # Whoever comes second, the end or the limit, leaves the other alone.
        self._deciding = threading.Lock()
        self._ending = False

    @property
    def lost(self) -> bool:
        """Whether the server is out of reach, and took everything back."""
        return not self.over.is_set() and self._connection.closed

    def begin(self) -> None:
        """Begin it."""
        self._connection.execute("BEGIN ISOLATION LEVEL READ COMMITTED")

    def run(
        self, text: str, values: Any, work: Callable[[psycopg.Cursor[Any], Any], object]
    ) -> FetchedRows:
        """Run a statement of the step's, to its last row."""
        with self._guard:
            self._check()
            refused = refusal(text)
            if refused is not None:
                raise TransactionError(
                    self.step.tag, refused, "nothing of this statement was done"
                )
            cursor = self._connection.cursor()
            try:
                work(cursor, translate(text, values))
            except errors.InFailedSqlTransaction:
                raise self._spoilt() from None
            except psycopg.Error:
                if self._connection.closed:
                    self._check()
                raise
            rows = cursor.fetchall() if cursor.description else []
            return FetchedRows(rows, cursor.rowcount, None)

    def keep(self, result: bytes) -> Outcome:
        """Commit it, with the step's result as a message to the instance."""
        step = self.step
        with self._guard:
            self._check()
            if self._connection.info.transaction_status == psycopg.pq.TransactionStatus.INERROR:
                raise self._spoilt()
            with self._deciding:
                if self.given_up is not None:
                    raise self.given_up
                self._ending = True
            self._own_tables_only_read()
            forbidden = self._forbidden()
            if forbidden is not None:
                return forbidden
            row = self._ask(
                "INSERT INTO {}.inbox (instance, kind, name, payload, at)"
                " VALUES (%s, 'complete', %s, %s, %s)"
                " RETURNING id, pg_current_xact_id()::text",
                (step.number, step.tag, result, step.at),
            ).fetchone()
            assert row is not None
            self.row, self.xid = row
            self._connection.execute("COMMIT")
            self.over.set()
        return self.kept()

    def kept(self) -> Outcome:
        """What to say once it is committed."""
        step = self.step
        return Outcome(
            Verdict.APPLIED, number=step.number, owner=step.worker[0], inbox=self.row
        )

    def _ask(self, text: str, values: tuple[Any, ...]) -> psycopg.Cursor[Any]:
        return self._connection.execute(sql.SQL(text).format(self._schema), values)

    def _own_tables_only_read(self) -> None:
        # What a transaction wrote to, altered or dropped, it holds locked until its end.
        found = self._connection.execute(
            "SELECT relation FROM pg_locks WHERE pid = pg_backend_pid()"
            " AND locktype = 'relation' AND relation = ANY(%s)"
            " AND mode NOT IN ('AccessShareLock', 'RowShareLock') ORDER BY relation LIMIT 1",
            (list(self._own),),
        ).fetchone()
        if found is not None:
            raise TransactionError(
                self.step.tag,
                f"it may not write to {self._own[found[0]]!r}, a table of triggerflow's own",
                "all of it was rolled back",
            )

    def _forbidden(self) -> Outcome | None:
        step = self.step
        row = self._ask(
            "SELECT owner, generation, pending, status, (SELECT data FROM {0}.request"
            " WHERE instance = %s AND tag = %s) FROM {0}.instance WHERE id = %s"
            " FOR NO KEY UPDATE",
            (step.number, step.tag, step.number),
        ).fetchone()
        worker = self._ask(
            "SELECT 1 FROM {}.worker WHERE id = %s AND epoch = %s", step.worker
        ).fetchone()
        unread = self._ask(
            "SELECT kind FROM {}.inbox WHERE instance = %s AND NOT consumed"
            " AND (kind = 'cancel' OR kind = 'complete' AND name = %s) ORDER BY id LIMIT 1",
            (step.number, step.tag),
        ).fetchone()
        return forbidden(step, current=worker is not None, row=row, unread=unread)

    def roll_back(self) -> None:
        """Undo it, unless it has ended already."""
        with self._guard:
            if self.over.is_set():
                return
            with self._deciding:
                if self.given_up is not None:
                    return
                self._ending = True
            try:
                if not self._connection.closed:
                    self._connection.rollback()
            finally:
                self.over.set()

    def give_up(self, reason: Exception, end: Callable[[int], None]) -> bool:
        """End it in its thread's stead; whether it hadn't ended by itself.

        Args:
            reason: what its thread is told.
            end: has the server end a connection, by the number of its process.
        """
        with self._deciding:
            if self._ending:
                return False
            self.given_up = reason
        end(self._connection.info.backend_pid)
        self.over.set()
        return True

    def _check(self) -> None:
        """Refuse to go on with what is over."""
        tag, limit = self.step.tag, self.step.limit
        if isinstance(self.given_up, TimedOut):
            raise TransactionError(
                tag,
                f"its {limit:g} s have passed, and everything in it was rolled back",
                "do slow work in a plain step before it, or give it more time with "
                "@tf.transaction(timeout=)",
            )
        if self.given_up is not None or self.over.is_set():
            raise TransactionError(
                tag, "it is over", "use it in the step's own function, until that returns"
            )

    def _spoilt(self) -> TransactionError:
        return TransactionError(
            self.step.tag,
            "PostgreSQL rolls a transaction back after an error, all that was done before "
            "included",
            "let the error leave the step, or write ON CONFLICT into the statement",
        )


def forbidden(step: Transact, *, current: bool, row: Any, unread: Any) -> Outcome | None:
    """Which part of the precondition of `Transact` doesn't hold, or None.

    Args:
        step: what is asked.
        current: the worker's epoch is the present one.
        row: (owner, generation, pending, status) of the instance and the request under the
            tag where it has a row of its own; or None.
        unread: (kind,) of a message that comes first, or None.
    """
    if not current:
        return Outcome(Verdict.FENCED, detail="worker")
    if row is None or (row[0], row[1], row[3]) != (step.worker[0], step.generation, "running"):
        return Outcome(Verdict.FENCED, detail="owner")
    blob = row[2]
    if blob == IN_ROWS:
        blob = join_pending([] if row[4] is None else [row[4]])
    pending = {} if blob is None else decode_pending(_CODEC.decode(blob))
    kept = pending.get(step.tag)
    if kept is None or kept.due is not None or kept.attempts != step.attempts:
        return Outcome(Verdict.FENCED, detail="tag")
    if unread is None:
        return None
    return Outcome(Verdict.GONE if unread[0] == "cancel" else Verdict.DUPLICATE)
