"""The verbs that send a message to one instance: its owner alone writes its log."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any

from triggerflow.core.failure import Failure
from triggerflow.engine.asking import Asking
from triggerflow.engine.pressure import Backlog
from triggerflow.engine.views import Instance
from triggerflow.errors import (
    DefinitionError,
    InstanceConflict,
    InstanceEnded,
    SignalConflict,
    SignalRefused,
    UnknownInstance,
)
from triggerflow.store.operations import Outcome, Send, Terminate, Unblock, Verdict

if TYPE_CHECKING:
    from triggerflow.engine.committer import Committer
    from triggerflow.engine.settings import Code, Settings
    from triggerflow.store.operations import Operation, Outcome
    from triggerflow.store.protocol import Store


class Sending(Asking, ABC):
    """Signals, cancels and the like. `Engine` builds on it."""

    def __init__(
        self, store: Store, code: Code, committer: Committer, settings: Settings
    ) -> None:
        super().__init__(store, code, inline=settings.inline)
        self._committer = committer
        self._settings = settings
        self._clock = settings.clock
        self._backlog = Backlog(settings.backlog)

    async def _ask(self, verb: str, operation: Operation) -> Outcome:
        """Submit one operation once there is room for it, and wait until it is durable."""
        async with self._backlog.room(verb):
            return await self._committer.ask(operation)

    @abstractmethod
    def _work_came(self) -> None:
        """Something may be runnable; an engine that works looks for it."""

    @abstractmethod
    def _message_sent(self, number: int, owner: int | None) -> None:
        """A message landed in the inbox of an instance that `owner` has."""

    async def signal(
        self,
        id: str | None = None,
        name: str = "",
        payload: Any = None,
        *,
        key: str | None = None,
        flow: str | None = None,
        namespace: str = "",
        dedup: str | None = None,
    ) -> bool:
        """Send a signal; one that nobody waits for yet is kept.

        Args:
            id: the instance's id, or a unique prefix.
            name: the signal's name.
            payload: what it carries.
            key: instead of an id, the business key that the live instance holds.
            flow: the name of its flow, where instances of several hold the key.
            namespace: the namespace of the key.
            dedup: a repeat with an equal key and payload is dropped.

        Returns:
            Whether it was stored; False for a repeat.

        Raises:
            UnknownInstance, InstanceEnded: nothing was stored.
            SignalRefused: the flow declares its signals, and this isn't one.
            SignalConflict: the dedup key came before with another payload.
        """
        if not (id or key) or not name:
            raise DefinitionError("signal", "needs an id or a key, and the signal's name")
        target = id or await self._holder(key or "", flow, namespace)
        if any(each.signals is not None for each in self._code.flows):
            await self._check_declared(target, name, payload)
        blob = self._code.codec.encode(payload, "payload")
        digest = self._code.codec.digest((payload,), {}, "payload") if dedup else None
        outcome = await self._send(target, "signal", name, blob, dedup, digest)
        if outcome is Verdict.CONFLICT:
            raise SignalConflict(target, name, dedup or "")
        return outcome is Verdict.APPLIED

    async def _holder(self, key: str, flow: str | None, namespace: str) -> str:
        found = await self._reader.ask(
            lambda: self._store.holders(key, namespace=namespace, flow=flow)
        )
        if len(found) != 1:
            raise UnknownInstance(f"with key {key!r}", tuple(found))
        return found[0]

    async def _check_declared(self, id: str, name: str, payload: Any) -> None:
        # By the code that runs here; a flow that isn't known here can't be asked.
        record = await self._record(id)
        flow = self._code.flows.find(record.flow, record.version)
        problem = None if flow is None else flow.refusal(name, payload)
        if problem is not None:
            raise SignalRefused(record.id, record.flow, name, problem)

    async def complete(self, id: str, tag: str, value: Any = None) -> None:
        """Give a pending call its result from outside; an attempt that runs is dropped.

        Raises:
            InstanceConflict: the instance doesn't wait for a call under this tag.
        """
        record = await self._record(id)
        view = Instance.of(record, self._code.codec)
        if tag not in view.waiting or "call:" not in tag.rpartition("/")[2]:
            waiting = ", ".join(view.waiting) or "nothing"
            raise InstanceConflict(
                record.id,
                f"complete({tag!r})",
                f"an instance that waits for {waiting}",
                "a pending call's tag",
            )
        blob = self._code.codec.encode(value, "value")
        sent = await self._send(record.id, "complete", tag, blob, generation=record.generation)
        if sent is Verdict.CONFLICT:
            raise InstanceConflict(
                record.id, f"complete({tag!r})", "a later generation", "the one that was read"
            )

    async def cancel(self, id: str) -> bool:
        """Ask an instance to end: it gets `FlowCancelled` at its yield and may clean up.

        Returns:
            Whether this was the first request.

        Raises:
            UnknownInstance, InstanceEnded: there is nothing to cancel.
        """
        none = self._code.codec.encode(None)
        return await self._send(id, "cancel", "", none) is Verdict.APPLIED

    async def retry(self, id: str) -> None:
        """Let a failed instance go on: a failure at its log's end is voided.

        The step at fault gets fresh attempts under the same idempotency key. A flow whose
        own code raised is driven again from the entry at which it did.

        Raises:
            InstanceConflict: it has not failed, or its key is held by another one now.
        """
        none = self._code.codec.encode(None)
        if await self._send(id, "retry", "", none) is Verdict.CONFLICT:
            record = await self._record(id)
            raise InstanceConflict(record.id, "retry", record.status, "failed, its key free")

    async def unblock(self, id: str) -> None:
        """Let a blocked instance be tried again, its crashes and tried builds forgotten.

        Raises:
            InstanceConflict: it isn't blocked.
        """
        found = await self.resolve_id(id)
        outcome = await self._ask("unblock", Unblock(found))
        if outcome.verdict is Verdict.GONE:
            raise await self._unknown(id)
        if outcome.verdict is Verdict.CONFLICT:
            raise InstanceConflict(found, "unblock", outcome.detail, "blocked")
        self._work_came()

    async def terminate(self, id: str, reason: str = "") -> None:
        """End an instance at once: no code of it runs any more, and nothing is cleaned up.

        Use `cancel` where the flow may end by itself. A blocked instance, which can't run,
        is ended by this only. A step that runs meanwhile is dropped.

        Raises:
            UnknownInstance, InstanceEnded: there is nothing to end.
        """
        found = await self.resolve_id(id)
        failure = Failure("Terminated", reason or "terminated by hand", kind="cancelled")
        value = self._code.codec.encode(failure.to_record())
        operation = Terminate(found, value, self._clock.now())
        outcome = await self._ask("terminate", operation)
        if outcome.verdict is Verdict.GONE:
            if outcome.instance is None:
                raise await self._unknown(id)
            raise InstanceEnded(found, outcome.detail, "terminate")
        self._ended_by_hand(found, outcome)

    @abstractmethod
    def _reached_out(self, outcome: Outcome) -> None:
        """What was written concerns other instances, too."""

    @abstractmethod
    def _ended_by_hand(self, id: str, outcome: Outcome) -> None:
        """An instance has ended without a turn; an engine that owned it drops it."""

    async def _send(
        self,
        id: str,
        kind: str,
        name: str,
        payload: bytes,
        dedup: str | None = None,
        digest: bytes | None = None,
        generation: int | None = None,
    ) -> Verdict:
        found = await self.resolve_id(id)
        outcome = await self._ask(
            kind,
            Send(found, kind, name, payload, self._clock.now(), dedup, digest, generation),
        )
        if outcome.verdict is Verdict.GONE:
            if outcome.instance is None:
                raise await self._unknown(id)
            raise InstanceEnded(found, outcome.detail, name or kind)
        if outcome.verdict is Verdict.APPLIED:
            self._message_sent(outcome.number or 0, outcome.owner)
            if outcome.ended:
                # It was held, and a cancel ended it there and then.
                self._reached_out(outcome)
        return outcome.verdict
