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
# Questions that leave so few that attributes are best looked up for each.
_NARROW: Final = ("key", "correlation_id", "parent")
_BY_ATTRIBUTE: Final = INSTANCE.replace(
    " FROM instance i", " FROM attribute first CROSS JOIN instance i ON i.id = first.instance"
)
_HAS: Final = (
    "EXISTS (SELECT 1 FROM attribute o WHERE o.instance = i.id AND o.name = ? AND o.value = ?)"
)


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
    attributes = [
        each
        for name, value in (where.get("attributes") or {}).items()
        for each in (name, searchable(value))
    ]
    select, created, number = INSTANCE, "i.created", "i.id"
    has = [_HAS] * (len(attributes) // 2)
    if has and not any(where.get(each) for each in _NARROW):
        # The page is read off the rows of one attribute; the others are looked up for each.
        select, created, number = _BY_ATTRIBUTE, "first.created", "first.instance"
        has[0] = "first.name = ? AND first.value = ?"
    terms, values = has + terms, attributes + values
    if after is not None:
        # The first term alone can be looked up in an index; the second decides.
        mark = "<" if newest_first else ">"
        terms.append(f"{created} {mark}= ? AND ({created}, {number}) {mark} (?, ?)")
        values += [after[0], *after]
    clause = f" WHERE {' AND '.join(terms)}" if terms else ""
    order = "DESC" if newest_first else "ASC"
    rows = db.execute(
        f"{select}{clause} ORDER BY {created} {order}, {number} {order} LIMIT ?",
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
