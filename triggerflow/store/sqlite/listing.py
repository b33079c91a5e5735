"""Listing instances: a page at a time, by the time of their creation, narrowed down.

Each narrow question has an index whose rows stand in the order of the page, so that a page
costs what it shows. A partial index is used only where the question repeats its condition.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from triggerflow.store.records import OPEN, STATUSES, Where
from triggerflow.store.sqlite.reads import INSTANCE, record, searchable

if TYPE_CHECKING:
    import sqlite3

    from triggerflow.store.records import InstanceRecord

_UNHAPPY: Final = ("failed", "cancelled")


def instances(
    db: sqlite3.Connection,
    where: Where,
    *,
    after: tuple[float, int] | None,
    limit: int,
    newest_first: bool,
) -> list[InstanceRecord]:
    """A page of instances; see `Store.instances`."""
    terms, values = _terms(where)
    if after is not None:
        # The first term alone can be looked up in an index; the second decides.
        mark = "<" if newest_first else ">"
        terms.append(f"i.created {mark}= ? AND (i.created, i.id) {mark} (?, ?)")
        values += [after[0], *after]
    clause = f" WHERE {' AND '.join(terms)}" if terms else ""
    order = "DESC" if newest_first else "ASC"
    rows = db.execute(
        f"{INSTANCE}{clause} ORDER BY i.created {order}, i.id {order} LIMIT ?",
        (*values, limit),
    ).fetchall()
    return [record(db, row) for row in rows]


def _terms(where: Where) -> tuple[list[str], list[Any]]:
    terms: list[str] = []
    values: list[Any] = []
    status = where.get("status")
    if status is not None:
        terms += _of_status({status} if isinstance(status, str) else set(status))
    for column in ("flow", "key", "namespace", "correlation_id"):
        value = where.get(column)
        if value is not None:
            terms.append(f"i.{column} = ?")
            values.append(value)
    for name, wanted in (where.get("attributes") or {}).items():
        terms.append("i.id IN (SELECT instance FROM attribute WHERE name = ? AND value = ?)")
        values += [name, searchable(wanted)]
    if where.get("namespace"):
        terms.append("i.namespace <> ''")
    if where.get("parent") is not None:
        terms.append("i.parent = (SELECT id FROM instance WHERE public_id = ?)")
        values.append(where.get("parent"))
    if where.get("created_after") is not None:
        terms.append("i.created >= ?")
        values.append(where.get("created_after"))
    if where.get("created_before") is not None:
        terms.append("i.created < ?")
        values.append(where.get("created_before"))
    return terms, values


def _of_status(wanted: set[str]) -> list[str]:
    # Written out, not bound: a bound value can't be seen to fit a partial index.
    known = [each for each in STATUSES if each in wanted]
    fits = [group for group in (OPEN, _UNHAPPY) if known and wanted <= set(group)]
    return [
        f"i.status IN ({', '.join(map(repr, known))})",
        *(f"({' OR '.join(f'i.status = {each!r}' for each in group)})" for group in fits),
    ]
