"""Listing instances: a page at a time, by the time of their creation, narrowed down.

Each narrow question has an index whose rows stand in the order of the page, so that a page
costs what it shows.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from triggerflow.store.postgres.reads import INSTANCE, records, searchable
from triggerflow.store.records import STATUSES, InstanceRecord, Where

if TYPE_CHECKING:
    from triggerflow.store.postgres.wire import Db


# Questions that leave so few that attributes are best looked up for each.
_NARROW: Final = ("key", "correlation_id", "parent")
_BY_ATTRIBUTE: Final = INSTANCE.replace(
    " FROM instance i", " FROM attribute first JOIN instance i ON i.id = first.instance"
)
_HAS: Final = (
    "EXISTS (SELECT 1 FROM attribute o WHERE o.instance = i.id AND o.name = %s"
    " AND o.value = %s)"
)


def instances(
    db: Db,
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
        has[0] = "first.name = %s AND first.value = %s"
    terms, values = has + terms, attributes + values
    if after is not None:
        terms.append(f"({created}, {number}) {'<' if newest_first else '>'} (%s, %s)")
        values += after
    clause = f" WHERE {' AND '.join(terms)}" if terms else ""
    order = "DESC" if newest_first else "ASC"
    rows = db.execute(
        f"{select}{clause} ORDER BY {created} {order}, {number} {order} LIMIT %s",
        *values,
        limit,
    ).rows()
    return records(db, rows)


def _terms(where: Where) -> tuple[list[str], list[Any]]:
    terms: list[str] = []
    values: list[Any] = []
    status = where.get("status")
    if status is not None:
        terms.append(_of_status({status} if isinstance(status, str) else set(status)))
    for column in ("flow", "key", "namespace", "correlation_id"):
        value = where.get(column)
        if value is not None:
            terms.append(f"i.{column} = %s")
            values.append(value)
    if where.get("namespace"):
        terms.append("i.namespace <> ''")
    if where.get("parent") is not None:
        terms.append("i.parent = (SELECT id FROM instance WHERE public_id = %s)")
        values.append(where.get("parent"))
    if where.get("created_after") is not None:
        terms.append("i.created >= %s")
        values.append(where.get("created_after"))
    if where.get("created_before") is not None:
        terms.append("i.created < %s")
        values.append(where.get("created_before"))
    return terms, values


def _of_status(wanted: set[str]) -> str:
    # Written out, not bound: a bound value can't be seen to fit a partial index.
    known = [each for each in STATUSES if each in wanted]
    return f"i.status IN ({', '.join(map(repr, known))})" if known else "FALSE"
