"""The verbs that only ask: instances, logs, and what the code here makes of them."""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, Final, Self

from triggerflow.core.driver import drive
from triggerflow.engine.reader import Reader
from triggerflow.engine.running import entry_of
from triggerflow.engine.views import Instance, pending_of
from triggerflow.errors import DefinitionError, InstanceRemoved, UnknownInstance
from triggerflow.store.records import STATUSES

if TYPE_CHECKING:
    from triggerflow.core.codec import ValueCodec
    from triggerflow.core.driver import Done, Failed, Suspended
    from triggerflow.core.log import Entry
    from triggerflow.engine.settings import Code
    from triggerflow.store.protocol import Store
    from triggerflow.store.records import InstanceRecord

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


class Instances:
    """Instances page by page. It may be left at any time: there is nothing to close."""

    def __init__(
        self,
        read: Callable[[dict[str, Any], int], Awaitable[list[InstanceRecord]]],
        where: dict[str, Any],
        codec: ValueCodec,
    ) -> None:
        self._read = read
        self._where = where
        self._codec = codec
        self._page: deque[InstanceRecord] = deque()
        self._after: int | None = 0

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Instance:
        if not self._page:
            if self._after is None:
                raise StopAsyncIteration
            page = await self._read(self._where, self._after)
            self._after = page[-1].number if len(page) == PAGE else None
            if not page:
                raise StopAsyncIteration
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

    async def log(self, id: str) -> list[Entry]:
        """The log of an instance's present generation."""
        record = await self._record(id)
        rows = await self._reader.ask(lambda: self._store.log(record.number, record.generation))
        return [entry_of(row, self._code.codec) for row in rows]

    async def replay(self, id: str) -> Done | Failed | Suspended:
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

    def instances(
        self,
        *,
        status: str | None = None,
        flow: Any = None,
        key: str | None = None,
    ) -> Instances:
        """Iterate over instances with ``async for``, oldest first, a page at a time.

        Args:
            status: only those of this status.
            flow: only those of this flow: a flow, or its name.
            key: only those with this business key.
        """
        if status is not None and status not in STATUSES:
            raise DefinitionError(
                "instances(status=)", f"found {status!r}, expected {', '.join(STATUSES)}"
            )
        flow = None if flow is None else flow_name(flow)
        return Instances(
            self._page, {"status": status, "flow": flow, "key": key}, self._code.codec
        )

    async def _page(self, where: dict[str, Any], after: int) -> list[InstanceRecord]:
        return await self._reader.ask(
            lambda: self._store.instances(**where, after=after, limit=PAGE)
        )

    async def _record(self, id: str) -> InstanceRecord:
        found = await self.resolve_id(id)
        record = await self._reader.ask(lambda: self._store.instance(found))
        if record is None:
            raise await self._unknown(id)
        return record
