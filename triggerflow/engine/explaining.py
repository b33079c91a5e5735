"""What an activity leads to, or led to, trigger by trigger, and why not the others.

It plans as an append does and has the store rehearse the commit, so it can't tell another
story than the append; nothing is written.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

import attrs

from triggerflow.core.activity import Activity
from triggerflow.core.codec import decode_document
from triggerflow.errors import UnknownActivity
from triggerflow.pipeline.known import Known, overlaid, read_triggers
from triggerflow.pipeline.reasons import Reason, guard_said_no, why_not
from triggerflow.store.operations import Verdict

if TYPE_CHECKING:
    from triggerflow.core.envelopes import Incoming
    from triggerflow.engine.arrivals import Arrivals
    from triggerflow.engine.committer import Committer
    from triggerflow.store.protocol import Store
    from triggerflow.store.records import ActivityRecord, FiringRecord, NewTrigger
    from triggerflow.triggers import Trigger


@attrs.frozen
class Explained:
    """What came of a trigger.

    Attributes:
        outcome: that of the firing, as recorded or as it would be; ``deferred`` where it is
            left to another worker; ``no`` where there is no firing.
        reason: why not, where the outcome is ``no`` or ``deferred``.
        instance_id, error, earlier: as in `Firing`.
        flow: the flow whose instance it starts, signals or cancels; None where the trigger
            isn't current.
        recorded: it has happened; else it is what would be.
    """

    trigger: str
    trigger_cid: str
    outcome: str
    reason: Reason | None = None
    instance_id: str | None = None
    error: str | None = None
    earlier: str | None = None
    recorded: bool = False
    flow: str | None = None


@attrs.frozen
class Explanation:
    """An activity, and what came of each trigger.

    Attributes:
        seq: its sequence number; None where it was not appended.
        triggers: first those that fired and are current no more, then the current ones.
    """

    cid: str
    types: tuple[str, ...]
    actors: tuple[str, ...]
    source: str | None
    namespace: str
    seq: int | None
    triggers: tuple[Explained, ...]

    @property
    def fired(self) -> tuple[Explained, ...]:
        """Those with a firing."""
        return tuple(each for each in self.triggers if each.outcome != "no")


class Explaining:
    """Explains activities; see `Engine.explain`."""

    def __init__(
        self,
        *,
        store: Store,
        committer: Committer,
        arrivals: Arrivals,
        proposed: Sequence[NewTrigger],
    ) -> None:
        """
        Args:
            proposed: triggers that count as current, though the store doesn't have them.
        """
        self._store = store
        self._committer = committer
        self._arrivals = arrivals
        self._proposed = proposed
        self._known = Known()
        self._registry = -1

    async def document(self, incoming: Incoming) -> Explanation:
        """Explain a document as if it were appended now, or as it was."""
        activity, document = self._arrivals.read(incoming)
        record = await self._record(activity.cid, activity.namespace)
        return await self._explain(activity, document, record)

    async def stored(self, cid: str, namespace: str) -> Explanation:
        """Explain an activity that is in the store.

        Raises:
            UnknownActivity: it isn't, or retention took its document.
        """
        record = await self._record(cid, namespace)
        if record is None or record.document is None:
            raise UnknownActivity(cid, namespace, removed=record is not None)
        activity = Activity(
            record.cid,
            decode_document(record.document),
            tuple(json.loads(record.types)),
            tuple(json.loads(record.actors)),
            record.source,
            record.namespace,
            record.depth,
        )
        return await self._explain(activity, record.document, record)

    async def _record(self, cid: str, namespace: str) -> ActivityRecord | None:
        return await self._committer.run(lambda: self._store.activity(cid, namespace))

    async def _explain(
        self, activity: Activity, document: bytes, record: ActivityRecord | None
    ) -> Explanation:
        while True:
            known = self._known
            planned, append = await self._arrivals.rehearsed(activity, document, known)
            append.registry = self._registry
            outcome = await self._committer.run(
                partial(self._store.rehearse, append, self._proposed)
            )
            if outcome.verdict is not Verdict.STALE:
                break
            registry, records = await self._committer.run(self._store.registry)
            self._known = read_triggers(
                overlaid(records, self._proposed), self._arrivals.guards, tell=False
            )
            self._registry = registry
        matched = {each.trigger_cid for each in planned}
        deferred = {each.trigger_cid for each in planned if each.outcome == "deferred"}
        firings = {each.trigger_cid: each for each in outcome.firings or ()}
        waits = outcome.firings is None
        past = outcome.verdict is Verdict.DUPLICATE
        current = [
            self._trigger(
                activity,
                trigger,
                firings.pop(trigger.trigger_cid, None),
                matched=matched,
                deferred=waits or trigger.trigger_cid in deferred,
                past=past,
            )
            for trigger in known.index
        ]
        others = [_fired(each, recorded=past) for each in firings.values()]
        return Explanation(
            activity.cid,
            activity.types,
            activity.actors,
            activity.source,
            activity.namespace,
            None if record is None else record.seq,
            (*others, *current, *_unreadable(known, activity)),
        )

    def _trigger(
        self,
        activity: Activity,
        trigger: Trigger,
        firing: FiringRecord | None,
        *,
        matched: set[str],
        deferred: bool,
        past: bool,
    ) -> Explained:
        if firing is not None:
            return attrs.evolve(_fired(firing, recorded=past), flow=trigger.flow)
        name, cid = trigger.name, trigger.trigger_cid
        reason = why_not(activity, trigger)
        if reason is not None:
            return Explained(name, cid, "no", reason)
        if cid not in matched:
            return Explained(name, cid, "no", guard_said_no(trigger))
        if deferred:
            words = "its dispatch waits for a worker that can do it"
            return Explained(name, cid, "deferred", Reason("deferred", words))
        words = "it meets the activity, and was registered after it came: backfill reaches it"
        return Explained(name, cid, "no", Reason("newer", words))


def _fired(firing: FiringRecord, *, recorded: bool) -> Explained:
    return Explained(
        firing.trigger,
        firing.trigger_cid,
        firing.outcome,
        None,
        firing.instance,
        firing.error,
        firing.earlier,
        recorded,
    )


def _unreadable(known: Known, activity: Activity) -> list[Explained]:
    return [
        Explained(
            each.name,
            each.cid,
            "deferred" if each.may_meet(activity) else "no",
            Reason("unreadable", each.reason),
        )
        for each in known.unreadable
    ]
