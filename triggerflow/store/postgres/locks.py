"""How a worker's death is known at once: a lock that ends with the worker's connections.

A worker's process holds one shared advisory lock, under the worker's number, on every
connection that it keeps: the writing one and the listening one. When the process dies its
connections go, and with them the lock; a connection alone that is lost takes none of the
others along. When the server itself was started anew no lock of before is left, and says
nothing: then only silence tells (see `engine.silence`), until the worker holds it again.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from triggerflow.store.postgres.wire import Db

# The table's own number tells the stores of one database apart.
_CLASS: Final = "('worker'::regclass::oid::bigint & 2147483647)"
_HELD: Final = (
    "SELECT l.objid::bigint FROM pg_locks l WHERE l.locktype = 'advisory' AND l.objsubid = 2"
    " AND l.granted AND l.database = (SELECT oid FROM pg_database"
    f" WHERE datname = current_database()) AND l.classid::bigint = {_CLASS}"
)
_SERVER: Final = "pg_postmaster_start_time()::text"


def server(db: Db) -> str:
    """When the server began."""
    found: str = db.execute(f"SELECT {_SERVER}").one()
    return found


def hold(db: Db, worker: int) -> None:
    """Hold a worker's lock on one more connection."""
    db.execute(f"SELECT pg_advisory_lock_shared({_CLASS}::int, %s::int)", worker)


def let_go(db: Db, worker: int) -> None:
    """Let go of it on this one."""
    db.execute(f"SELECT pg_advisory_unlock_shared({_CLASS}::int, %s::int)", worker)


def living(db: Db, servers: dict[int, str]) -> set[int]:
    """Which of these workers may live.

    Args:
        db: any connection.
        servers: worker -> the server on which it holds its lock.
    """
    now = server(db)
    held = set(db.execute(_HELD).firsts())
    return {worker for worker, where in servers.items() if where != now or worker in held}
