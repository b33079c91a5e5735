"""Writing between instances: what a child's end tells its parent, and cancels downwards.

A message that reaches an instance wakes it. One that is held is not woken, and a cancel ends
it there and then: none of its code has anything to clean up.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from triggerflow.store.postgres import gathering, places
from triggerflow.store.postgres.clearing import clear_inboxes, clear_instances, clear_waits
from triggerflow.store.postgres.columns import Ints, columns
from triggerflow.store.postgres.standing import Stand, Standing
from triggerflow.store.postgres.waking import wake
from triggerflow.store.posts import KINDS, NONE, Admitted, Post, Told, cancelled_while_held


def post(s: Standing, letters: Sequence[Post]) -> Told:
    """Put messages into inboxes, and wake whom they are for (see `waking`).

    A cancel ends one that is held.
    """
    told = Told()
    s.fetch([number for number, *_ in letters])
    while held := _held(s, letters):
        more = end_at_once(s, held, told)
        letters = [*(each for each in letters if each[0] not in held), *more]
        s.fetch([number for number, *_ in letters])
    if not letters:
        return told
    s.db.execute(
        "INSERT INTO inbox (instance, kind, name, payload, at)"
        " SELECT * FROM unnest(%s, %s, %s, %s, %s)",
        *columns("ittbf", letters),
    )
    for number, kind, name, *_ in letters:
        s.unread[number].append((kind, name))
    woken = wake(s, [each[:3] for each in letters])
    told.owners += [(number, s.rows[number].owner) for number in woken]
    return told


def _held(s: Standing, letters: Iterable[Post]) -> dict[int, tuple[bytes, float]]:
    """Those who are to be cancelled and are held: number -> failure record and time."""
    return {
        number: (cancelled_while_held(), at)
        for number, kind, _, _, at in letters
        if kind == "cancel" and s.rows[number].held and s.rows[number].status == "waiting"
    }


def end_at_once(s: Standing, ending: dict[int, tuple[bytes, float]], told: Told) -> list[Post]:
    """End instances as cancelled, whatever they were at. Their rows are locked.

    Args:
        s: what the batch has found.
        ending: number -> failure record and time.
        told: gets who became runnable by it, and their ids.

    Returns:
        What their parents and children must hear.
    """
    numbers = list(ending)
    s.loud = True
    s.db.execute(
        "UPDATE instance i SET status = 'cancelled', owner = NULL, value = u.v, ended = u.at,"
        " due = NULL, cause = NULL, reason = NULL, held = 0"
        " FROM unnest(%s, %s, %s) AS u (i, v, at) WHERE i.id = u.i",
        *columns("ibf", [(number, *how) for number, how in ending.items()]),
    )
    clear_instances(s, numbers)
    clear_waits(s.db, numbers)
    clear_inboxes(s.db, numbers)
    for number, (value, _) in ending.items():
        stand = s.rows[number]
        stand.status, stand.owner, stand.value, stand.held = "cancelled", None, value, 0
        told.ended.append(stand.id)
    s.drop_keys(set(told.ended))
    if s.flow:
        admitted: Admitted = {}
        for number in numbers:
            gathering.drop(s.db, number)
        places.release(s.db, [(number, False) for number in numbers], admitted)
        s.admit(admitted)
        told.woken(admitted)
    s.fetch_kin(numbers)
    letters = cancel_children(s, [(number, at) for number, (_, at) in ending.items()])
    mark(s, letters)
    ended = [(number, "cancelled", value, at) for number, (value, at) in ending.items()]
    return letters + tell_parents(s, ended)


def cancels(s: Standing, numbers: Sequence[int], at: float) -> list[Post]:
    """Cancels for those of these instances that live, and have none already."""
    s.fetch(numbers)
    letters = [letter for number in numbers for letter in cancel(s.rows[number], at)]
    mark(s, letters)
    return letters


def tell_parents(
    s: Standing,
    ended: Sequence[tuple[int, str, bytes | None, float]],
    gone: frozenset[int] = frozenset(),
) -> list[Post]:
    """What parents that wait for one of these must hear.

    Args:
        ended: (number, status, result or failure record, time).
        gone: instances that end in this very batch, so that nobody reads their inbox.
    """
    letters: list[Post] = []
    for number, status, value, at in sorted(ended):
        child = s.rows[number]
        parent = None if child.parent is None else s.rows.get(child.parent)
        if parent is None or not child.awaited or not parent.live or parent.number in gone:
            continue
        letters.append((parent.number, KINDS[status], child.id, value or NONE, at))
    return letters


def answer_joins(
    s: Standing, parent: int, children: Iterable[str], at: float
) -> tuple[list[int], list[Post]]:
    """Wait for these children from now on; those that have ended are told at once.

    Returns:
        Whose end is awaited from now on, and the letters.
    """
    awaited: list[int] = []
    letters: list[Post] = []
    for id in dict.fromkeys(children):
        child = s.by_id.get(id)
        if child is None or child.parent != parent:
            continue
        child.awaited = True
        awaited.append(child.number)
        if not child.live:
            letters.append((parent, KINDS[child.status], id, child.value or NONE, at))
    return awaited, letters


def cancel_children(s: Standing, parents: Iterable[tuple[int, float]]) -> list[Post]:
    """Cancels for the live children of instances that end as cancelled."""
    letters: list[Post] = []
    for parent, at in parents:
        for child in sorted(s.children.get(parent, ()), key=lambda each: each.number):
            if not child.abandoned:
                letters += cancel(child, at)
    return letters


def cancel(child: Stand | None, at: float) -> list[Post]:
    """A cancel for one child, unless it has ended or has one already."""
    if child is None or child.cancelled or not child.live:
        return []
    child.cancelled = True
    return [(child.number, "cancel", "", NONE, at)]


def mark(s: Standing, letters: Sequence[Post]) -> None:
    """Note who was asked to end."""
    numbers = [number for number, kind, *_ in letters if kind == "cancel"]
    if numbers:
        s.db.execute("UPDATE instance SET cancelled = TRUE WHERE id = ANY(%s)", Ints(numbers))
