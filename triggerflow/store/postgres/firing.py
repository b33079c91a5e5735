"""What a planned firing comes to: deduped, held up by a business key, or done.

Decided in the transaction that writes it, so that of two activities which mean one thing
exactly one fires, whoever appends them and however closely.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from triggerflow.errors import KeyTaken
from triggerflow.store.firings import DOES, JOINED
from triggerflow.store.postgres import gathering, kin

if TYPE_CHECKING:
    from triggerflow.store.firings import Letter, Once
    from triggerflow.store.newcomer import NewInstance
    from triggerflow.store.operations import PlannedFiring
    from triggerflow.store.postgres.standing import Standing

_HOLDER: Final = (
    "SELECT id FROM instance WHERE namespace = %s AND flow = %s"
    " AND key = %s AND status IN ('running', 'waiting', 'blocked')"
)


class Decision(NamedTuple):
    """What becomes of a firing.

    Attributes:
        instance: public id of what is started, told, or was there already.
        earlier: sequence number of the activity that fired in its stead.
        number: of the instance that a letter goes to.
    """

    outcome: str
    error: str | None = None
    instance: str | None = None
    earlier: int | None = None
    number: int | None = None


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
    if rival.same(new):
        return Decision("deduped", None, rival.id)
    return Decision("failed", str(KeyTaken(new.flow, new.key or "", rival.id)))


def _joins(s: Standing, new: NewInstance) -> bool:
    """Whether there is an open group that takes an arrival."""
    gather = None if new.admission is None else new.admission.gather
    if gather is None:
        return False
    group = gathering.find(s.db, gather, new.input, new.created)
    return group is not None and not group.over


def has_fired(planned: PlannedFiring, decision: Decision) -> bool:
    """Whether a firing did what was planned, or joined others that will."""
    done = decision.outcome == planned.outcome or decision.outcome in JOINED
    return done and decision.error is None


def counts(until: float | None, at: float) -> bool:
    """Whether a dedup key that fired counts still."""
    return until is None or at < until


def _addressed(s: Standing, letter: Letter, outcome: str) -> Decision:
    name = (letter.namespace, letter.flow, letter.key)
    known = s.keys.get(name)
    # One of this very batch may have no row yet.
    target = None if known is None else s.by_id.get(known.id)
    while target is None or not target.live:
        number = s.db.execute(_HOLDER, *name).row()
        if number is None:
            where = f" in namespace {letter.namespace!r}" if letter.namespace else ""
            return Decision(
                "failed",
                f"no live instance of flow {letter.flow!r} holds the key {letter.key!r}{where}:"
                f" there is nobody to {letter.kind}",
            )
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


def deliver(s: Standing, letters: list[tuple[int, Letter, float]]) -> kin.Told:
    """Put letters into inboxes; whoever is concerned.

    One that was asked to end before is left alone.
    """
    posts: list[kin.Letter] = []
    cancelled: list[kin.Letter] = []
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
