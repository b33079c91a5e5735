"""A step's transaction: its rows and its result are one commit, under a precondition.

A store that offers none passes: its engine refuses such steps by name.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, Final

import attrs

from triggerflow.core.codec import ValueCodec
from triggerflow.core.log import Pending, encode_pending
from triggerflow.core.transaction import Transaction
from triggerflow.errors import TimedOut, TransactionError
from triggerflow.store.operations import Outcome
from triggerflow.store.protocol import offers_transactions
from triggerflow.store.records import Claimed
from triggerflow.store.transactions import Transact
from triggerflow.testing.store_checks.bench import (
    APPLIED,
    DUPLICATE,
    FENCED,
    GONE,
    NOON,
    Bench,
    Worker,
    check,
    same,
    true,
)

BOOK: Final = "call:book#0"
CODEC: Final = ValueCodec()
# Long enough for any machine, and never waited for.
PATIENCE: Final = 60.0


class _Stopped(Exception):
    """What a step raises in these checks."""


class Steps:
    """A worker, an instance that it owns, and a step of it that waits for a transaction."""

    def __init__(self, bench: Bench) -> None:
        self.bench = bench
        self.worker: Worker = bench.worker()
        self.of: Claimed = bench.owned(self.worker, "one")
        self.arm(BOOK)

    def arm(self, *tags: str, **parts: Any) -> None:
        rows = encode_pending({tag: Pending(b"digest", **parts) for tag in tags})
        turn = self.bench.turn(self.of, pending=CODEC.encode(rows))
        self.bench.do(self.worker, turn)

    def asks(self, **parts: Any) -> Transact:
        given = Transact(
            self.of.number, self.of.generation, BOOK, 0, self.worker, NOON, PATIENCE
        )
        return attrs.evolve(given, **parts)

    def book(self, **parts: Any) -> Outcome:
        return self.bench.store.transact(self.asks(**parts), _writes_a_row)

    def rows(self) -> int:
        """How many rows the steps have left."""
        found: list[int] = []

        def look(tx: Transaction) -> bytes:
            tx.execute(_TABLE)
            found.append(tx.execute("SELECT count(*) FROM check_rows").fetchone()[0])
            raise _Stopped

        other = "call:look#0"
        self.bench.start("looker")
        (looker,) = self.bench.claim(self.worker).claimed
        pending = CODEC.encode(encode_pending({other: Pending(b"digest")}))
        self.bench.do(self.worker, self.bench.turn(looker, pending=pending))
        step = self.asks(number=looker.number, generation=looker.generation, tag=other)
        _raises(_Stopped, lambda: self.bench.store.transact(step, look))
        self.bench.end(self.worker, looker)
        return found[0]

    def refuses(self, verdict: object, detail: str | None = None, **parts: Any) -> None:
        """The step may not run: nothing is changed, in triggerflow's tables or in others."""
        before = self.bench.everything()
        found = self.book(**parts)
        same("outcome", found.verdict, verdict)
        if detail is not None:
            same("detail", found.detail, detail)
        same("everything", self.bench.everything(), before)


_TABLE: Final = "CREATE TABLE IF NOT EXISTS check_rows (n INTEGER)"


def _writes_a_row(tx: Transaction) -> bytes:
    tx.execute(_TABLE)
    tx.execute("INSERT INTO check_rows (n) VALUES (1)")
    return b"booked"


def _raises(kind: type[BaseException], work: Callable[[], object]) -> None:
    try:
        found = work()
    except kind:
        return
    raise AssertionError(f"expected {kind.__name__}, found {found!r}")


def check_steps(promise: Callable[[Steps], None]) -> Callable[[Bench], None]:
    """Like `check`, for stores that offer transactions."""

    def held(bench: Bench) -> None:
        if offers_transactions(bench.store):
            promise(Steps(bench))

    held.__name__ = promise.__name__
    held.__doc__ = promise.__doc__
    return check(held)


@check_steps
def transaction_keeps_rows_and_result(s: Steps) -> None:
    """The step's rows and its result, a complete message of its tag, land together."""
    found = s.book()
    same("verdict", found.verdict, APPLIED)
    (row,) = s.bench.store.inbox(s.of.number)
    same("message", (row.id, row.kind, row.name), (found.inbox, "complete", BOOK))
    same("payload and time", (row.payload, row.at), (b"booked", NOON))
    same("log", s.bench.tags(s.of), [])
    same("rows", s.rows(), 1)


@check_steps
def transaction_outlives_a_crash(s: Steps) -> None:
    """What was committed is there for the next owner."""
    s.book()
    s.bench.reopen(crash=True)
    s.bench.store.reap()
    (claimed,) = s.bench.claim(s.bench.worker()).claimed
    same("inbox", [row.payload for row in claimed.inbox], [b"booked"])


@check_steps
def transaction_that_raises_leaves_nothing(s: Steps) -> None:
    """What the step raises comes out as it is, and all that it did is undone."""

    def fails(tx: Transaction) -> bytes:
        _writes_a_row(tx)
        raise _Stopped

    before = s.bench.everything()
    _raises(_Stopped, lambda: s.bench.store.transact(s.asks(), fails))
    same("everything", s.bench.everything(), before)
    same("rows", s.rows(), 0)
    same("the next attempt", s.book().verdict, APPLIED)


@check_steps
def transaction_needs_the_epoch(s: Steps) -> None:
    """A worker of another epoch is fenced, and told that it is the worker."""
    s.refuses(FENCED, "worker", worker=(s.worker[0], s.worker[1] + 1))
    s.refuses(FENCED, "worker", worker=(s.worker[0] + 7, 1))
    same("rows", s.rows(), 0)


@check_steps
def transaction_of_the_reaped_is_fenced(s: Steps) -> None:
    """A worker that was reaped leaves nothing behind."""
    s.bench.worker()
    s.bench.store.reap({each.id: each.seen for each in s.bench.store.workers()})
    s.refuses(FENCED, "worker")


@check_steps
def transaction_needs_the_owner(s: Steps) -> None:
    """Only the instance's owner may run its steps; a handed back instance has none."""
    other = s.bench.worker()
    s.refuses(FENCED, worker=other)
    s.bench.park(s.worker, s.of)
    s.refuses(FENCED)
    same("the other's rows", s.rows(), 0)


@check_steps
def transaction_needs_a_live_instance(s: Steps) -> None:
    """Nothing is done for an instance that has ended."""
    s.bench.end(s.worker, s.of)
    s.refuses(FENCED)


@check_steps
def transaction_needs_the_generation(s: Steps) -> None:
    """A step of another generation is refused."""
    s.refuses(FENCED, generation=s.of.generation + 1)
    same("rows", s.rows(), 0)


@check_steps
def transaction_needs_its_tag_to_pend(s: Steps) -> None:
    """A call that lost its race, or was answered, is not run any more."""
    s.refuses(FENCED, tag="call:book#1")
    s.arm("call:other#0")
    s.refuses(FENCED)
    same("rows", s.rows(), 0)


@check_steps
def transaction_needs_its_own_attempt(s: Steps) -> None:
    """An attempt whose failure is recorded comes too late, in back-off and after it."""
    s.arm(BOOK, attempts=1, due=NOON + 60)
    s.refuses(FENCED)
    s.refuses(FENCED, attempts=1)
    s.arm(BOOK, attempts=1)
    s.refuses(FENCED)
    same("the next attempt", s.book(attempts=1).verdict, APPLIED)
    same("rows", s.rows(), 1)


@check_steps
def transaction_runs_once(s: Steps) -> None:
    """A second one of the same call finds the result of the first, which nobody has read."""
    s.book()
    s.refuses(DUPLICATE)
    same("rows", s.rows(), 1)


@check_steps
def transaction_of_a_completed_call(s: Steps) -> None:
    """A call that was completed from outside isn't run any more, whoever reads that when."""
    s.bench.ask(s.bench.send("one", BOOK, b"by hand", kind="complete"))
    s.refuses(DUPLICATE)
    same("rows", s.rows(), 0)


@check_steps
def transaction_of_a_cancelled_instance(s: Steps) -> None:
    """A cancel that waits to be read comes first."""
    s.bench.ask(s.bench.send("one", "", b"", kind="cancel"))
    s.refuses(GONE)
    same("rows", s.rows(), 0)


@check_steps
def transaction_ignores_other_messages(s: Steps) -> None:
    """Signals, and results of other calls, are none of its business."""
    s.bench.ask(s.bench.send("one", BOOK))
    s.bench.ask(s.bench.send("one", "call:book#1", kind="complete"))
    same("verdict", s.book().verdict, APPLIED)


@check_steps
def transaction_that_overruns_is_rolled_back(s: Steps) -> None:
    """Past its limit others write at once, though its code runs on, which can do nothing."""
    over = threading.Event()
    used: list[object] = []

    def overruns(tx: Transaction) -> bytes:
        _writes_a_row(tx)
        true("it is told that it has overrun", over.wait(PATIENCE))
        # In a thread: on a store that still holds others up it would wait for ever.
        other = threading.Thread(target=s.bench.start, args=("meanwhile",), daemon=True)
        other.start()
        other.join(PATIENCE)
        true("others write meanwhile", not other.is_alive())
        try:
            used.append(tx.execute("INSERT INTO check_rows (n) VALUES (2)"))
        except TransactionError as error:
            used.append(error)
        return b"too late"

    step = s.asks(limit=0.02)
    _raises(TimedOut, lambda: s.bench.store.transact(step, overruns, gave_up=over.set))
    same("late use", [type(each) for each in used], [TransactionError])
    same("messages", s.bench.messages(s.of), [])
    # The claim below must not take it for its own.
    s.bench.end(s.worker, s.bench.claim(s.worker).claimed[0])
    same("rows", s.rows(), 0)
    same("the next attempt", s.book().verdict, APPLIED)


@check_steps
def transaction_is_not_ended_by_hand(s: Steps) -> None:
    """A step can't commit its rows without its result, nor nest transactions."""
    refused: list[str] = []

    def tries(tx: Transaction) -> bytes:
        _writes_a_row(tx)
        for word in ("COMMIT", "END", "ROLLBACK", "BEGIN", "SAVEPOINT here"):
            try:
                tx.execute(word)
            except TransactionError:
                refused.append(word)
        return b"done"

    # Twice, since a database may remember a statement that it has prepared before.
    s.arm(BOOK, "call:book#1")
    same("verdict", s.bench.store.transact(s.asks(), tries).verdict, APPLIED)
    again = s.asks(tag="call:book#1")
    same("verdict", s.bench.store.transact(again, tries).verdict, APPLIED)
    same("refused", refused, ["COMMIT", "END", "ROLLBACK", "BEGIN", "SAVEPOINT here"] * 2)
    same("rows", s.rows(), 2)


@check_steps
def transaction_is_over_when_its_step_is(s: Steps) -> None:
    """A transaction that a step has kept can't be used after it."""
    kept: list[Transaction] = []

    def keeps(tx: Transaction) -> bytes:
        kept.append(tx)
        return _writes_a_row(tx)

    s.bench.store.transact(s.asks(), keeps)
    _raises(TransactionError, lambda: kept[0].execute("DELETE FROM check_rows"))
    _raises(TransactionError, lambda: kept[0].executemany("DELETE FROM check_rows", [()]))
    same("rows", s.rows(), 1)


@check_steps
def transactions_and_commits_take_turns(s: Steps) -> None:
    """Many at a time beside a busy committer: all of them come to their end."""
    tags = [f"call:book#{n}" for n in range(12)]
    s.arm(*tags)
    # The first one makes the table: that many make one at once is nobody's promise.
    found: list[object] = [s.book(tag=tags[0]).verdict]

    def books(mine: list[str]) -> None:
        for tag in mine:
            try:
                found.append(s.book(tag=tag).verdict)
            except Exception as error:  # noqa: BLE001
                found.append(error)

    threads = [threading.Thread(target=books, args=(tags[n + 1 :: 4],)) for n in range(4)]
    for thread in threads:
        thread.start()
    commits = 0
    while any(thread.is_alive() for thread in threads):
        s.bench.ask(s.bench.send("one"))
        commits += 1
    for thread in threads:
        thread.join(PATIENCE)
    same("verdicts", found, [APPLIED] * len(tags))
    same("messages", len(s.bench.messages(s.of)), len(tags) + commits)
    same("rows", s.rows(), len(tags))
