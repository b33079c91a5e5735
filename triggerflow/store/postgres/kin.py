"""Writing between instances: what a child's end tells its parent, and cancels downwards."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

from triggerflow.store.postgres.columns import Ints, columns
from triggerflow.store.postgres.standing import Stand, Standing
from triggerflow.store.postgres.waking import wake
from triggerflow.store.records import ENDED

# Instance, kind, name, payload, time.
Letter = tuple[int, str, str, bytes, float]
Told = list[tuple[int, int | None]]

# How an inbox row says what became of a child.
KINDS: Final = {status: f"child_{status}" for status in ENDED}
# None, encoded: a cancel carries nothing.
NONE: Final = b"\xf6"


def post(s: Standing, letters: Sequence[Letter]) -> Told:
    """Put messages into inboxes, and wake whom they are for (see `waking`)."""
    if not letters:
        return []
    s.db.execute(
        "INSERT INTO inbox (instance, kind, name, payload, at)"
        " SELECT * FROM unnest(%s, %s, %s, %s, %s)",
        *columns("ittbf", letters),
    )
    for number, kind, name, *_ in letters:
        s.unread[number].append((kind, name))
    return [
        (number, s.rows[number].owner) for number in wake(s, [each[:3] for each in letters])
    ]


def tell_parents(
    s: Standing,
    ended: Sequence[tuple[int, str, bytes | None, float]],
    gone: frozenset[int] = frozenset(),
) -> list[Letter]:
    """What parents that wait for one of these must hear.

    Args:
        ended: (number, status, result or failure record, time).
        gone: instances that end in this very batch, so that nobody reads their inbox.
    """
    letters: list[Letter] = []
    for number, status, value, at in sorted(ended):
        child = s.rows[number]
        parent = None if child.parent is None else s.rows.get(child.parent)
        if parent is None or not child.awaited or not parent.live or parent.number in gone:
            continue
        letters.append((parent.number, KINDS[status], child.id, value or NONE, at))
    return letters


def answer_joins(
    s: Standing, parent: int, children: Iterable[str], at: float
) -> tuple[list[int], list[Letter]]:
    """Wait for these children from now on; those that have ended are told at once.

    Returns:
        Whose end is awaited from now on, and the letters.
    """
    awaited: list[int] = []
    letters: list[Letter] = []
    for id in dict.fromkeys(children):
        child = s.by_id.get(id)
        if child is None or child.parent != parent:
            continue
        child.awaited = True
        awaited.append(child.number)
        if not child.live:
            letters.append((parent, KINDS[child.status], id, child.value or NONE, at))
    return awaited, letters


def cancel_children(s: Standing, parents: Iterable[tuple[int, float]]) -> list[Letter]:
    """Cancels for the live children of instances that end as cancelled."""
    letters: list[Letter] = []
    for parent, at in parents:
        for child in sorted(s.children.get(parent, ()), key=lambda each: each.number):
            if not child.abandoned:
                letters += cancel(child, at)
    return letters


def cancel(child: Stand | None, at: float) -> list[Letter]:
    """A cancel for one child, unless it has ended or has one already."""
    if child is None or child.cancelled or not child.live:
        return []
    child.cancelled = True
    return [(child.number, "cancel", "", NONE, at)]


def mark(s: Standing, letters: Sequence[Letter]) -> None:
    """Note who was asked to end."""
    numbers = [number for number, kind, *_ in letters if kind == "cancel"]
    if numbers:
        s.db.execute("UPDATE instance SET cancelled = TRUE WHERE id = ANY(%s)", Ints(numbers))
