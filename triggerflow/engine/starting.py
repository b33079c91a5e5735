"""The verbs that bring something in: activities, and starts by hand."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Final

import attrs

from triggerflow.engine.asking import flow_name
from triggerflow.engine.clock import new_seed, random_id
from triggerflow.engine.sending import Sending
from triggerflow.engine.views import Appended, Rejected
from triggerflow.errors import DefinitionError, KeyTaken, UnknownFlow
from triggerflow.pipeline.cancelling import cancelling_waits
from triggerflow.store.newcomer import NewInstance, NewWait
from triggerflow.store.operations import Outcome, Start, Verdict
from triggerflow.triggers import NoValue, compile_cancel_on

if TYPE_CHECKING:
    from triggerflow.engine.arrivals import Arrivals
    from triggerflow.engine.pressure import Crowd

_PAGE: Final = 1000


class Starting(Sending, ABC):
    """Appends and starts. `Engine` builds on it."""

    _arrivals: Arrivals
    _crowd: Crowd

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

    async def append(self, activity: object) -> Appended:
        """Append an activity; its firings and their instances land in the same commit.

        It waits while the backlog is full, and for a moment where it starts a flow and this
        worker is full.

        Args:
            activity: a document with a ``type`` and an ``actor``; integral floats become
                integers.

        Returns:
            Its CID and firings; for one that was there before, the first firings.

        Raises:
            ActivityRejected: type or actor can't be read, or a plugin vetoed it.
            EncodingRefused: it is no DAG-CBOR document, or too large or deep.
        """
        found = await self._arrivals.append(activity)
        self._arrived([found])
        return found

    async def append_many(self, activities: Iterable[object]) -> list[Appended | Rejected]:
        """Append many activities, a thousand to a commit; each has its own result.

        One that is refused does not hinder the others: its result is a `Rejected`.
        """
        if isinstance(activities, Mapping | str | bytes):
            raise DefinitionError("append_many", "found one document, expected many")
        size = min(_PAGE, self._settings.backlog)
        found: list[Appended | Rejected] = []
        page: list[object] = []
        for activity in activities:
            page.append(activity)
            if len(page) == size:
                found += await self._append_page(page, len(found))
                page = []
        return found + await self._append_page(page, len(found))

    async def _append_page(self, page: list[object], first: int) -> list[Appended | Rejected]:
        found = await self._arrivals.append_many(page)
        self._arrived([each for each in found if isinstance(each, Appended)])
        return [
            attrs.evolve(each, index=each.index + first) if isinstance(each, Rejected) else each
            for each in found
        ]

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
        cancels = () if cancel_on is None else _cancels(cancel_on, input)
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


def _cancels(given: object, input: object) -> tuple[NewWait, ...]:
    what = "start(cancel_on=)"
    try:
        return cancelling_waits(compile_cancel_on(given, what), {} if input is None else input)
    except NoValue as error:
        problem = str(error).replace("the activity", "the input")
        raise DefinitionError(what, problem, "") from None
