"""Places: who has one, who waits for one, and who gets the next.

An instance's places are taken one after the other. A pool counts what is taken of one scope
and key, so that asking costs a look-up however many there are. After every change here, either
all places of a pool are taken or nobody waits for one: whoever arrives may simply queue up.
Whoever writes here holds `LOCK`, one for the whole store (see `flow`).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Final

from triggerflow.store.holding import FOR_A_PLACE, GIVEN_BACK, RESERVED, TAKEN, WAITS
from triggerflow.store.postgres.columns import Ints
from triggerflow.store.posts import Admitted

if TYPE_CHECKING:
    from triggerflow.core.admission_request import Place
    from triggerflow.store.postgres.wire import Db

# The table's own number tells the stores of one database apart.
LOCK: Final = "pg_advisory_xact_lock(('pool'::regclass::oid::bigint & 2147483647)::int, 0)"


def lock(db: Db) -> None:
    """Be the only one to decide on flow control until this transaction ends."""
    db.execute(f"SELECT {LOCK}")


def reserve(
    db: Db,
    number: int,
    places: Sequence[Place],
    *,
    priority: int,
    registry: int,
) -> None:
    """Note which places an instance will ask for; one that skips others takes it at once."""
    for rank, place in enumerate(places):
        state = RESERVED
        if place.mode == "skip":
            state = TAKEN
            _open(db, place.scope, place.key, place.limit, registry)
            _count(db, place.scope, place.key, 1)
        db.execute(
            "INSERT INTO place (instance, rank, scope, key, cap, registry, priority, state)"
            " VALUES (%s, %s, %s, %s, %s, %s, %s, %s)",
            number,
            rank,
            place.scope,
            place.key,
            place.limit,
            registry,
            priority,
            state,
        )


def rekey(db: Db, number: int, places: Sequence[Place]) -> None:
    """A group keeps its newest input: it will ask for the places of that one."""
    for place in places:
        if place.mode == "wait":
            db.execute(
                "UPDATE place SET key = %s WHERE instance = %s AND scope = %s AND state = %s",
                place.key,
                number,
                place.scope,
                RESERVED,
            )


def proceed(db: Db, number: int, admitted: Admitted) -> None:
    """Let an instance take its next place, and the ones after it.

    With the last one it becomes runnable, and is added to `admitted`. Without, it is held. Both
    are noted in its row, if it has one by now.
    """
    row = db.execute(
        "SELECT rank, scope, key, cap, registry FROM place WHERE instance = %s AND state <> %s"
        " ORDER BY rank LIMIT 1",
        number,
        TAKEN,
    ).row()
    if row is None:
        admitted[number] = None
        db.execute(
            "UPDATE instance SET status = 'running', held = 0, due = NULL WHERE id = %s", number
        )
        return
    rank, scope, key, cap, registry = row
    _set_state(db, number, rank, WAITS)
    _open(db, scope, key, cap, registry)
    fill(db, scope, key, admitted)
    if number not in admitted:
        db.execute(
            "UPDATE instance SET status = 'waiting', held = %s, due = NULL WHERE id = %s",
            FOR_A_PLACE,
            number,
        )


def fill(db: Db, scope: str, key: str, admitted: Admitted) -> None:
    """Give free places to those who wait: the highest priority first, then the oldest."""
    while True:
        pool = db.execute(
            "SELECT cap, taken FROM pool WHERE scope = %s AND key = %s", scope, key
        ).row()
        if pool is None or pool[1] >= pool[0]:
            return
        waits = db.execute(
            "SELECT instance, rank FROM place WHERE scope = %s AND key = %s AND state = %s"
            " ORDER BY priority DESC, instance LIMIT 1",
            scope,
            key,
            WAITS,
        ).row()
        if waits is None:
            if pool[1] == 0:
                db.execute("DELETE FROM pool WHERE scope = %s AND key = %s", scope, key)
            return
        number, rank = waits
        _count(db, scope, key, 1)
        _set_state(db, number, rank, TAKEN)
        proceed(db, number, admitted)


def holder(db: Db, place: Place) -> str | None:
    """Public id of one that has a place, if all are taken; else None."""
    pool = db.execute(
        "SELECT taken FROM pool WHERE scope = %s AND key = %s", place.scope, place.key
    ).row()
    if pool is None or pool[0] < place.limit:
        return None
    row = db.execute(
        "SELECT i.public_id FROM place p JOIN instance i ON i.id = p.instance"
        " WHERE p.scope = %s AND p.key = %s AND p.state = %s LIMIT 1",
        place.scope,
        place.key,
        TAKEN,
    ).row()
    return "" if row is None else row[0]


def earlier(db: Db, place: Place) -> list[int]:
    """Who has a place of this scope and key, or is to get one, and wasn't cancelled yet."""
    return [
        number
        for (number,) in db.execute(
            "SELECT p.instance FROM place p JOIN instance i ON i.id = p.instance"
            " WHERE p.scope = %s AND p.key = %s AND p.state < %s AND NOT i.cancelled",
            place.scope,
            place.key,
            GIVEN_BACK,
        ).rows()
    ]


def asks_for_any(db: Db, number: int) -> bool:
    """Whether an instance must have places before it runs."""
    row = db.execute("SELECT 1 FROM place WHERE instance = %s LIMIT 1", number).row()
    return row is not None


def release(db: Db, ended: Iterable[tuple[int, bool]], admitted: Admitted) -> None:
    """Instances have ended: their places go to those who wait.

    Args:
        ended: (number, whether it failed): a failed one may be retried, and asks again then.
    """
    failed = dict(ended)
    freed: dict[tuple[str, str], None] = {}
    over: list[int] = []
    kept: list[int] = []
    for number, scope, key, state in db.execute(
        "SELECT instance, scope, key, state FROM place"
        " WHERE instance = ANY(%s) ORDER BY instance, rank",
        Ints(list(failed)),
    ).rows():
        if state == TAKEN:
            _count(db, scope, key, -1)
            freed[scope, key] = None
        if failed[number]:
            kept.append(number)
        else:
            over.append(number)
    if kept:
        db.execute(
            "UPDATE place SET state = %s WHERE instance = ANY(%s)", GIVEN_BACK, Ints(kept)
        )
    if over:
        db.execute("DELETE FROM place WHERE instance = ANY(%s)", Ints(over))
    for scope, key in freed:
        fill(db, scope, key, admitted)


def set_limit(db: Db, scope: str, limit: int, registry: int) -> None:
    """A scope has another limit from now on: for those, too, who wait there already."""
    lock(db)
    admitted: Admitted = {}
    db.execute(
        "UPDATE place SET cap = %s, registry = %s WHERE scope = %s", limit, registry, scope
    )
    db.execute(
        "UPDATE pool SET cap = %s, registry = %s WHERE scope = %s", limit, registry, scope
    )
    for (key,) in db.execute("SELECT key FROM pool WHERE scope = %s", scope).rows():
        fill(db, scope, key, admitted)


def _open(db: Db, scope: str, key: str, cap: int, registry: int) -> None:
    """The pool is there, with the newest limit that is known."""
    db.execute(
        "INSERT INTO pool (scope, key, cap, registry) VALUES (%s, %s, %s, %s)"
        " ON CONFLICT (scope, key) DO UPDATE SET cap = excluded.cap,"
        " registry = excluded.registry"
        " WHERE excluded.registry >= pool.registry AND excluded.cap <> pool.cap",
        scope,
        key,
        cap,
        registry,
    )


def _count(db: Db, scope: str, key: str, change: int) -> None:
    db.execute(
        "UPDATE pool SET taken = taken + %s WHERE scope = %s AND key = %s", change, scope, key
    )


def _set_state(db: Db, number: int, rank: int, state: int) -> None:
    db.execute(
        "UPDATE place SET state = %s WHERE instance = %s AND rank = %s", state, number, rank
    )
