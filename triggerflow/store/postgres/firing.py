"""What a planned firing comes to: deduped, held up by a business key, or done.

Decided in the transaction that writes it, so that of two activities which mean one thing
exactly one fires, whoever appends them and however closely.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from triggerflow.store.decided import Decision, counts, key_held, nobody
from triggerflow.store.firings import DOES
from triggerflow.store.postgres import gathering, kin
from triggerflow.store.posts import Post, Told

if TYPE_CHECKING:
    from triggerflow.store.firings import Letter, Once
    from triggerflow.store.newcomer import NewInstance
    from triggerflow.store.operations import PlannedFiring
    from triggerflow.store.postgres.standing import Standing

_HOLDER: Final = (
    "SELECT id FROM instance WHERE namespace = %s AND flow = %s"
    " AND key = %s AND status IN ('running', 'waiting', 'blocked')"
)


def decide(s: Standing, planned: PlannedFiring, at: float) -> Decision:
    """Decide one firing; nothing is written."""
    if planned.outcome not in DOES:
        return Decision(planned.outcome, planned.error)
    if planned.once is not None:
        row = s.db.execute(
            "SELECT activity, instance, until FROM dedup WHERE scope = %s AND key = %s",
            planned.once.scope,
            planned.once.key,
        ).row()
        if row is not None and counts(row[2], at):
            return Decision("deduped", None, row[1], row[0])
    if planned.letter is not None:
        return _addressed(s, planned.letter, planned.outcome)
    new = planned.instance
    if new is None:
        return Decision(planned.outcome)
    if _joins(s, new):
        # It starts nothing, so it asks for no business key: the group has it.
        return Decision(planned.outcome, None, new.id)
    rival = None if new.key is None else s.keys.get((new.namespace, new.flow, new.key))
    if rival is None:
        return Decision(planned.outcome, None, new.id)
    same = new.has_input(rival.input, rival.digest)
    return key_held(new, rival.id, same=same)


def _joins(s: Standing, new: NewInstance) -> bool:
    """Whether there is an open group that takes an arrival."""
    gather = None if new.admission is None else new.admission.gather
    if gather is None:
        return False
    group = gathering.find(s.db, gather, new.input, new.created)
    return group is not None and not group.over


def _addressed(s: Standing, letter: Letter, outcome: str) -> Decision:
    name = (letter.namespace, letter.flow, letter.key)
    known = s.keys.get(name)
    # One of this very batch may have no row yet.
    target = None if known is None else s.by_id.get(known.id)
    while target is None or not target.live:
        number = s.db.execute(_HOLDER, *name).row()
        if number is None:
            return nobody(letter)
        # It may have ended while we waited for its lock; then somebody else may hold the key.
        s.fetch([number[0]])
        target = s.rows[number[0]]
    return Decision(outcome, None, target.id, None, target.number)


def remember(s: Standing, once: Once, seq: int, decision: Decision, at: float) -> None:
    """Note that it has fired, and forget some that nobody will ask for any more."""
    s.db.execute(
        "INSERT INTO dedup (scope, key, activity, instance, until) VALUES (%s, %s, %s, %s, %s)"
        " ON CONFLICT (scope, key) DO UPDATE SET activity = excluded.activity,"
        " instance = excluded.instance, until = excluded.until",
        once.scope,
        once.key,
        seq,
        decision.instance,
        None if once.window is None else at + once.window,
    )
    # Two for each new one: so the table holds no more than those that count.
    s.db.execute(
        "DELETE FROM dedup WHERE (scope, key) IN"
        " (SELECT scope, key FROM dedup WHERE until <= %s ORDER BY until LIMIT 2)",
        at,
    )


def deliver(s: Standing, letters: list[tuple[int, Letter, float]]) -> Told:
    """Put letters into inboxes; whoever is concerned.

    One that was asked to end before is left alone.
    """
    posts: list[Post] = []
    cancelled: list[Post] = []
    for number, letter, at in letters:
        post = (number, letter.kind, letter.name, letter.payload, at)
        if letter.kind == "cancel":
            if s.rows[number].cancelled:
                continue
            s.rows[number].cancelled = True
            cancelled.append(post)
        posts.append(post)
    kin.mark(s, cancelled)
    return kin.post(s, posts)
