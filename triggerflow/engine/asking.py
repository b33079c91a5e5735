"""The verbs that only ask: instances, logs, and what the code here makes of them."""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Mapping
from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Self

from triggerflow.core.driver import drive
from triggerflow.engine.patches import Patch, Survey
from triggerflow.engine.reader import Reader
from triggerflow.engine.running import entry_of
from triggerflow.engine.views import Instance, Progress, Task, pending_of, progress_of
from triggerflow.errors import DefinitionError, InstanceRemoved, UnknownInstance
from triggerflow.store.records import OPEN, STATUSES

if TYPE_CHECKING:
    from triggerflow.core.codec import ValueCodec
    from triggerflow.core.log import Entry
    from triggerflow.core.outcomes import Continued, Done, Failed, Suspended
    from triggerflow.engine.settings import Code
    from triggerflow.store.protocol import Store
    from triggerflow.store.records import InstanceRecord, Where

PAGE: Final = 100
_ID_LENGTH: Final = 20


def flow_name(flow: Any) -> str:
    """The name of a flow that is given as itself or by its name.

    Raises:
        DefinitionError: it is neither.
    """
    name = flow if isinstance(flow, str) else getattr(flow, "name", None)
    if not isinstance(name, str):
        raise DefinitionError("flow", f"found {flow!r:.80}, expected a flow or its name")
    return name


def statuses(given: str | Iterable[str]) -> tuple[str, ...]:
    """One status, or several.

    Raises:
        DefinitionError: one of them is none.
    """
    found = (given,) if isinstance(given, str) else tuple(given)
    for each in found:
        if each not in STATUSES:
            raise DefinitionError(
                "instances(status=)", f"found {each!r:.80}, expected {', '.join(STATUSES)}"
            )
    return found


def moment(given: datetime | float | None, what: str) -> float | None:
    """A point in time, in seconds since the epoch.

    Raises:
        DefinitionError: it is neither seconds nor a datetime with a time zone.
    """
    if isinstance(given, datetime) and given.tzinfo is not None:
        return given.timestamp()
    if given is None or (isinstance(given, int | float) and not isinstance(given, bool)):
        return given
    raise DefinitionError(
        f"instances({what}=)",
        f"found {given!r:.80}, expected an aware datetime or seconds since the epoch",
    )


class Instances:
    """Instances page by page. It may be left at any time: there is nothing to close."""

    def __init__(
        self,
        read: Callable[[tuple[float, int] | None], Awaitable[list[InstanceRecord]]],
        codec: ValueCodec,
    ) -> None:
        self._read = read
        self._codec = codec
        self._page: deque[InstanceRecord] = deque()
        self._after: tuple[float, int] | None = None
        self._done = False

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Instance:
        if not self._page:
            if self._done:
                raise StopAsyncIteration
            page = await self._read(self._after)
            self._done = len(page) < PAGE
            if not page:
                raise StopAsyncIteration
            self._after = page[-1].cursor
            self._page.extend(page)
        return Instance.of(self._page.popleft(), self._codec)


class Asking:
    """What an open store can be asked. `Engine` builds on it."""

    def __init__(self, store: Store, code: Code, *, inline: bool) -> None:
        self._store = store
        self._code = code
        self._reader = Reader(inline=inline)

    async def resolve_id(self, id: str) -> str:
        """The whole id behind a unique prefix.

        Raises:
            UnknownInstance: none fits, or several do.
        """
        if not isinstance(id, str):
            raise DefinitionError("instance id", f"found {id!r:.80}, expected a text")
        if len(id) >= _ID_LENGTH:
            return id
        found = await self._reader.ask(lambda: self._store.ids(id)) if id else []
        if len(found) == 1 or id in found:
            return id if id in found else found[0]
        raise UnknownInstance(id, tuple(found)) if found else await self._unknown(id)

    async def _unknown(self, id: str) -> UnknownInstance:
        """Why there is no instance of this id."""
        removed = await self._reader.ask(lambda: self._store.removed(id)) if id else None
        if removed is None:
            return UnknownInstance(id)
        return InstanceRemoved(removed.id, (), removed.activity, removed.trigger)

    async def get(self, id: str) -> Instance:
        """An instance as it stands; `id` may be a unique prefix.

        Raises:
            UnknownInstance: none fits, or several do.
            InstanceRemoved: it had ended, and retention removed it.
        """
        return Instance.of(await self._record(id), self._code.codec)

    async def progress(self, id: str) -> dict[str, Progress]:
        """What the running steps of an instance said last by `heartbeat`: tag -> `Progress`.

        Raises:
            UnknownInstance: none fits, or several do.
        """
        record = await self._record(id)
        rows = await self._reader.ask(
            lambda: self._store.progress(record.number, record.generation)
        )
        return progress_of(record, rows, self._code.codec)

    async def tasks(
        self, queue: str | None = None, *, instance: str | None = None, limit: int = 100
    ) -> tuple[Task, ...]:
        """Queued calls that have no result yet, oldest first.

        Args:
            queue: only those of this queue.
            instance: only those of the instance with this id, or unique prefix.
            limit: how many at most.

        Raises:
            UnknownInstance: none fits, or several do.
        """
        if instance is None:
            rows = await self._reader.ask(lambda: self._store.tasks(queue, limit=limit))
        else:
            record = await self._record(instance)
            rows = await self._reader.ask(lambda: self._store.tasks_of(record.number))
            rows = [each for each in rows if queue in (None, each.queue)][:limit]
        return tuple(map(Task.of, rows))

    async def log(self, id: str) -> list[Entry]:
        """The log of an instance's present generation."""
        record = await self._record(id)
        rows = await self._reader.ask(lambda: self._store.log(record.number, record.generation))
        return [entry_of(row, self._code.codec) for row in rows]

    async def replay(self, id: str) -> Done | Failed | Continued | Suspended:
        """Re-drive an instance from its stored log; nothing is written or performed.

        Returns:
            What the code that runs here makes of the record.

        Raises:
            Diverged: it would not have made this record.
            UnknownFlow: the flow, or its version, isn't registered here.
        """
        record = await self._record(id)
        rows = await self._reader.ask(lambda: self._store.log(record.number, record.generation))
        codec = self._code.codec
        return drive(
            self._code.flows.get(record.flow, record.version),
            codec.decode(record.input),
            [entry_of(row, codec) for row in rows],
            seed=record.seed,
            generation=record.generation,
            started=record.started,
            pending=pending_of(record, codec),
            codec=codec,
        )

    async def patches(self, flow: Any = None) -> tuple[Patch, ...]:
        """Which side of each `patched` id the open instances are on.

        Every open instance of the flows that are registered here is driven through its log,
        so this takes its time; nothing is written or performed.

        Args:
            flow: only those of this flow: a flow, or its name.
        """
        survey = Survey(self._code.flows, self._code.codec)
        name = None if flow is None else flow_name(flow)
        after, more = None, True
        while more:
            page = await self._reader.ask(
                partial(self._store.instances, status=OPEN, flow=name, after=after, limit=PAGE)
            )
            for record in page:
                if survey.knows(record):
                    survey.look(
                        record,
                        await self._reader.ask(
                            partial(self._store.log, record.number, record.generation)
                        ),
                    )
                after = record.cursor
            more = len(page) == PAGE
        return tuple(each for each in survey.found() if name in (None, each.flow))

    def instances(
        self,
        *,
        status: str | Iterable[str] | None = None,
        flow: Any = None,
        key: str | None = None,
        attributes: Mapping[str, str | float | bool] | None = None,
        namespace: str | None = None,
        correlation_id: str | None = None,
        parent: str | None = None,
        created_after: datetime | float | None = None,
        created_before: datetime | float | None = None,
        newest_first: bool = False,
    ) -> Instances:
        """Iterate over instances with ``async for``, by creation, a page at a time.

        Args:
            status: only those of this status, or of one of several.
            flow: only those of this flow: a flow, or its name.
            key: only those with this business key.
            attributes: only those whose search attributes have these values.
            namespace: only those of this namespace; ``""`` is the one by default.
            correlation_id: only those with this one.
            parent: only the children of the instance with this id.
            created_after: only those created then or later: an aware datetime, or seconds
                since the epoch.
            created_before: only those created before that.
            newest_first: the newest first, not the oldest.
        """
        where: Where = {
            "status": None if status is None else statuses(status),
            "flow": None if flow is None else flow_name(flow),
            "key": key,
            "attributes": attributes,
            "namespace": namespace,
            "correlation_id": correlation_id,
            "parent": parent,
            "created_after": moment(created_after, "created_after"),
            "created_before": moment(created_before, "created_before"),
        }

        async def read(after: tuple[float, int] | None) -> list[InstanceRecord]:
            return await self._reader.ask(
                lambda: self._store.instances(
                    **where, after=after, limit=PAGE, newest_first=newest_first
                )
            )

        return Instances(read, self._code.codec)

    async def _record(self, id: str) -> InstanceRecord:
        found = await self.resolve_id(id)
        record = await self._reader.ask(lambda: self._store.instance(found))
        if record is None:
            raise await self._unknown(id)
        return record
