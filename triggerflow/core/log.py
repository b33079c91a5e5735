"""The record of one generation: its entries (past facts) and its pending set.

Both halves are needed to re-drive a flow: the entries say what came back, the pending set
what was asked for and has not come back yet. Whether a charge can run twice is decided by
the second half, since a step in flight has no entry.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import attrs

from triggerflow.core.tags import kind_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from triggerflow.core.failure import Failure

CANCEL: Final = "cancel"
RETRIED: Final = "retried"

# Kinds whose request may be replaced by other code at the log's end: nothing outside the
# store knows of them, so nothing can happen twice.
REPLACEABLE: Final = frozenset({"sleep", "sleep_until", "wait_signal", "wait_activity", "join"})
# Kinds that the performer runs, so that they may be in back-off.
_RUN: Final = frozenset({"call", "compensate"})


@attrs.define
class Entry:
    """One log record: what an effect came to.

    Attributes:
        tag: the effect's tag, or ``cancel`` / ``retried``.
        value: its value; None where `failure` is set.
        failure: how it failed, or None.
        digest: digest of the request that it answers, or None where none was kept.
        at: when it was taken, in seconds since the epoch (UTC), or None.
    """

    tag: str
    value: Any = None
    failure: Failure | None = None
    digest: bytes | None = None
    at: float | None = None


@attrs.frozen
class Pending:
    """One member of the pending set.

    Attributes:
        digest: digest of the request, or None for kinds that have none.
        due: when a timer or timeout fires, or a retry is due (seconds since the epoch).
        attempts: how many attempts have ended without a result.
        since: when it was armed, for calls whose retries have a time limit.
        queue: where it was queued, or None. A queued call's due time is its task's.
    """

    digest: bytes | None = None
    due: float | None = None
    attempts: int = 0
    since: float | None = None
    queue: str | None = None


def is_binding(tag: str, pending: Pending) -> bool:
    """Whether the code must meet this request again with equal tag and digest.

    A call in back-off runs nowhere, and a timer or wait lives only in the store: those may
    be replaced. A call in flight may already have charged somebody. Of one in a queue nobody
    here knows whether it is in flight: its back-off is its task's, and no due time stands here.
    """
    kind = kind_of(tag)
    if kind in REPLACEABLE:
        return False
    return not (kind in _RUN and pending.attempts and pending.due is not None)


def encode_pending(pending: Mapping[str, Pending]) -> list[list[Any]]:
    """The pending set as plain lists, in the order of arming, for the codec."""
    return [
        [tag, p.digest, p.due, p.attempts]
        if p.since is None and p.queue is None
        else [tag, p.digest, p.due, p.attempts, p.since]
        if p.queue is None
        else [tag, p.digest, p.due, p.attempts, p.since, p.queue]
        for tag, p in pending.items()
    ]


def decode_pending(rows: list[list[Any]]) -> dict[str, Pending]:
    """The pending set that `encode_pending` wrote."""
    return {tag: Pending(*kept) for tag, *kept in rows}


# What stands in place of a pending set that is kept in rows, one a request.
IN_ROWS: Final = b""


def join_pending(requests: Sequence[bytes]) -> bytes:
    """The encoded pending set of which these are the members, each encoded by itself."""
    count = len(requests)
    # The shortest head of a CBOR array (RFC 8949, section 3).
    if count < 0x18:
        head = bytes([0x80 | count])
    elif count < 0x100:
        head = b"\x98" + count.to_bytes(1, "big")
    elif count < 0x10000:
        head = b"\x99" + count.to_bytes(2, "big")
    else:
        head = b"\x9a" + count.to_bytes(4, "big")
    return head + b"".join(requests)
