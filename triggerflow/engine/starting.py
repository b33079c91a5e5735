"""The verbs that bring something in: activities, and starts by hand."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import attrs

from triggerflow.core.envelopes import Incoming, Names
from triggerflow.engine.asking import flow_name
from triggerflow.engine.clock import new_seed, random_id
from triggerflow.engine.sending import Sending
from triggerflow.engine.views import Appended, Firing, Rejected
from triggerflow.errors import DefinitionError, KeyTaken, UnknownFlow
from triggerflow.pipeline.admission import of_flow
from triggerflow.pipeline.cancelling import Given, cancelling_waits
from triggerflow.store.newcomer import NewInstance
from triggerflow.store.operations import Outcome, Start, Verdict
from triggerflow.store.waits import NewWait
from triggerflow.triggers import compile_cancel_on
from triggerflow.triggers.mapping import NoValue

if TYPE_CHECKING:
    from triggerflow.engine.arrivals import Arrivals
    from triggerflow.engine.explaining import Explaining, Explanation
    from triggerflow.engine.pressure import Crowd

_PAGE: Final = 1000


def incoming(activity: object, **beside: Any) -> Incoming:
    """An activity with what is said beside it; an `Incoming` says all itself."""
    return activity if isinstance(activity, Incoming) else Incoming(activity, **beside)


class Starting(Sending, ABC):
    """Appends and starts. `Engine` builds on it."""

    _arrivals: Arrivals
    _crowd: Crowd
    _explaining: Explaining

    @abstractmethod
    def _promise(self, count: int) -> bool:
        """Keep places for instances that this worker shall own, if there are as many."""

    @abstractmethod
    def _redeem(self, count: int) -> None:
        """They have landed, or won't."""

    @abstractmethod
    def _arrived(self, found: Iterable[Appended]) -> None:
        """Activities were appended; an engine that works looks for what they started."""

    @abstractmethod
    def _begun(self, outcome: Outcome) -> None:
        """Drive what this worker owns since the commit that made it."""

    # --- verbs: activities

    async def append(
        self,
        activity: object,
        *,
        type: Names = None,
        actor: Names = None,
        source: str | None = None,
        envelope: str | None = None,
        namespace: str = "",
        received: bytes | None = None,
    ) -> Appended:
        """Append an activity; its firings and their instances land in the same commit.

        It waits while the backlog is full, and for a moment where it starts a flow and this
        worker is full.

        Args:
            activity: a document with a ``type`` and an ``actor``, or one of another make;
                integral floats become integers. An `Incoming` has all the rest in itself.
            type, actor: what the document doesn't say itself: a text, or several.
            source: where it came from.
            envelope: how it is read: ``activitystreams`` (the default), ``cloudevents``,
                ``atproto``, ``plain`` (the default with type and actor), or a plugin's.
            namespace: whose it is: only triggers of this namespace meet it.
            received: the bytes that came; their SHA-256 is kept beside the CID.

        Returns:
            Its CID and firings; for one that was there before, the first firings.

        Raises:
            ActivityRejected: type or actor can't be read, or a plugin vetoed it.
            EncodingRefused: it is no DAG-CBOR document, or too large or deep.
        """
        found = await self._arrivals.append(
            incoming(
                activity,
                type=type,
                actor=actor,
                source=source,
                envelope=envelope,
                namespace=namespace,
                received=received,
            )
        )
        self._arrived([found])
        return found

    async def append_many(
        self,
        activities: Iterable[object],
        *,
        type: Names = None,
        actor: Names = None,
        source: str | None = None,
        envelope: str | None = None,
        namespace: str = "",
    ) -> list[Appended | Rejected]:
        """Append many activities, a thousand to a commit; each has its own result.

        One that is refused does not hinder the others: its result is a `Rejected`. What is
        said beside them is said of all, but of those that are an `Incoming`.
        """
        if isinstance(activities, Mapping | str | bytes):
            raise DefinitionError("append_many", "found one document, expected many")
        size = min(_PAGE, self._settings.backlog)
        found: list[Appended | Rejected] = []
        page: list[Incoming] = []
        for activity in activities:
            page.append(
                incoming(
                    activity,
                    type=type,
                    actor=actor,
                    source=source,
                    envelope=envelope,
                    namespace=namespace,
                )
            )
            if len(page) == size:
                found += await self._append_page(page, len(found))
                page = []
        return found + await self._append_page(page, len(found))

    async def _append_page(self, page: list[Incoming], first: int) -> list[Appended | Rejected]:
        found = await self._arrivals.append_many(page)
        self._arrived([each for each in found if isinstance(each, Appended)])
        return [
            attrs.evolve(each, index=each.index + first) if isinstance(each, Rejected) else each
            for each in found
        ]

    async def explain(
        self,
        activity: object,
        *,
        type: Names = None,
        actor: Names = None,
        source: str | None = None,
        envelope: str | None = None,
        namespace: str = "",
    ) -> Explanation:
        """Tell what an activity leads to, or led to, and why not to more; nothing is written.

        Args:
            activity: a document, or the CID of one in the store; the rest as for `append`.

        Returns:
            For each trigger its outcome, or the first condition that fails.

        Raises:
            ActivityRejected, EncodingRefused: an append would be refused.
            UnknownActivity: no activity has the CID, or retention took its document.
        """
        if isinstance(activity, str):
            return await self._explaining.stored(activity, namespace)
        return await self._explaining.document(
            incoming(
                activity,
                type=type,
                actor=actor,
                source=source,
                envelope=envelope,
                namespace=namespace,
            )
        )

    async def firings(
        self,
        *,
        activity: str | None = None,
        trigger: str | None = None,
        outcome: str | None = None,
        limit: int = 100,
        after: Firing | None = None,
    ) -> tuple[Firing, ...]:
        """Firings, the newest first, with what they were before they were dispatched again.

        Args:
            activity: only those of the activity with this CID.
            trigger: only those of triggers of this name, superseded ones too.
            outcome: only those with this outcome, such as ``failed``.
            limit: how many at most.
            after: the last one of the page before.
        """
        rows = await self._reader.ask(
            lambda: self._store.fired(
                activity=activity,
                trigger=trigger,
                outcome=outcome,
                after=None if after is None else after.number,
                limit=limit,
            )
        )
        found = []
        for row in rows:
            read = partial(self._store.firing_history, row.activity, row.trigger_cid)
            found.append(Firing.of(row, await self._reader.ask(read) if row.changes else ()))
        return tuple(found)

    async def retire(self, trigger: str) -> None:
        """Let a trigger that the app no longer has be current no more.

        What was appended before is dispatched to it all the same.

        Raises:
            DefinitionError: the app has it, so it would come back; or there is none.
        """
        if any(each.name == trigger for each in self._code.triggers):
            raise DefinitionError(
                f"retire({trigger!r:.200})",
                "this app defines the trigger, so it would come back",
                "take it out of the app first",
            )
        if not await self._committer.run(lambda: self._store.retire_trigger(trigger)):
            raise DefinitionError(
                f"retire({trigger!r:.200})", "the store has no current trigger of this name"
            )

    # --- verbs: instances

    async def start(
        self,
        flow: Any,
        input: Any = None,
        *,
        key: str | None = None,
        version: int | None = None,
        namespace: str = "",
        correlation_id: str | None = None,
        cancel_on: object = None,
    ) -> str:
        """Start an instance by hand.

        Args:
            flow: a flow, or a flow's name.
            input: the flow's input.
            key: business key, held by one live instance of the flow at a time: a second
                start with the same input returns the first one's id.
            version: of the flow; the latest by default.
            cancel_on: which later activities cancel it, as of a trigger; paths look into the
                input.

        Returns:
            The instance's id.

        Raises:
            UnknownFlow: no such flow is registered here (a client that leaves the work to
                others may start it all the same).
            KeyTaken: the key is held by an instance with another input.
            EncodingRefused: the input can't be kept.
            DefinitionError, PatternError: a part of ``cancel_on`` can't work.
        """
        name = flow_name(flow)
        cancels = _cancels(cancel_on, input, namespace)
        if key == "":
            raise DefinitionError("start(key=)", "found an empty key")
        if version is None and not isinstance(flow, str):
            version = flow.version
        known = self._code.flows.find(name, version)
        if known is None and self._settings.work:
            self._code.flows.get(name, version)
        new = NewInstance(
            id=random_id(),
            flow=name,
            version=version if known is None else known.version,
            input=self._code.codec.encode(input, "input"),
            seed=new_seed(),
            created=self._clock.now(),
            namespace=namespace,
            key=key,
            digest=None if key is None else self._code.codec.digest((input,), {}, "input"),
            correlation_id=correlation_id,
            cancel_on=cancels,
            admission=of_flow(known, input, namespace),
        )
        if known is None:
            new.status, new.cause = "blocked", "unknown_flow"
            new.reason = str(UnknownFlow(name, version)) + "; a worker that knows it starts it"
        else:
            await self._crowd.slow_down()
        async with self._backlog.room("start"):
            own = known is not None and self._promise(1)
            try:
                outcome = await self._committer.ask(Start(new, own), self._begun)
            finally:
                self._redeem(own)
        holder = outcome.instance or new.id
        if outcome.verdict is Verdict.CONFLICT:
            raise KeyTaken(name, key or "", holder)
        if not outcome.claimed:
            self._work_came()
        return holder


def _cancels(given: object, input: object, namespace: str) -> tuple[NewWait, ...]:
    what = "start(cancel_on=)"
    try:
        return cancelling_waits(compile_cancel_on(given, what), Given(input), namespace)
    except NoValue as error:
        problem = str(error).replace("the activity", "the input")
        raise DefinitionError(what, problem, "") from None
