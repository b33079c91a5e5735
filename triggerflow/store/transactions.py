"""A step's own work in the store's database, and its result, in one transaction."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import attrs

from triggerflow.core.transaction import Transaction

# The step: it works with the transaction and returns its result, encoded.
Work = Callable[[Transaction], bytes]


@attrs.frozen
class Transact:
    """Let a step work in a transaction that keeps its result as a message.

    Precondition: the worker's epoch holds, it owns the instance, the generation is as
    stated, and its pending set has the tag, not in back-off, with so many attempts; else
    `FENCED`, ``detail`` saying ``worker`` where the worker itself was fenced. `DUPLICATE`
    if an unread message completes the tag already, `GONE` if an unread one cancels the
    instance. Unless it is `APPLIED`, nothing is changed.

    Attributes:
        number: the store's number of the instance.
        generation: its generation.
        tag: the call's tag.
        attempts: how many attempts have ended before this one, as in the pending set.
        worker: (id, epoch) of the worker that runs the step.
        at: the time of the message.
        limit: how many seconds the work may take, waiting for its turn not counted.
    """

    number: int
    generation: int
    tag: str
    attempts: int
    worker: tuple[int, int]
    at: float
    limit: float


class FetchedRows:
    """What a statement gave, read to its last row; see `triggerflow.core.transaction.Rows`."""

    __slots__ = ("_rows", "lastrowid", "rowcount")

    def __init__(self, rows: list[Any], rowcount: int, lastrowid: int | None) -> None:
        self._rows = iter(rows)
        self.rowcount = rowcount
        self.lastrowid = lastrowid

    def fetchone(self) -> Any:
        """The next row, or None."""
        return next(self._rows, None)

    def fetchall(self) -> list[Any]:
        """The rows that are left."""
        return list(self._rows)

    def __iter__(self) -> Iterator[Any]:
        return self._rows
