"""Which side of each `patched` the open instances are on: when may a branch be removed?

A log tells who took the new branch: the decision is its entry. Who took the old one left no
entry, and who has not met it yet neither; so each open instance is driven through its log, with
its stored pending set, and its decisions are read off. That is pure; nothing is written.
"""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Any, Final

import attrs

from triggerflow.core.driver import Replay
from triggerflow.engine.running import entry_of
from triggerflow.engine.views import pending_of
from triggerflow.flows.patches import patches_in

if TYPE_CHECKING:
    from collections.abc import Sequence

    from triggerflow.core.codec import ValueCodec
    from triggerflow.flows.flow import Flow
    from triggerflow.flows.registry import FlowRegistry
    from triggerflow.store.records import InstanceRecord, LogRecord

_PREFIX: Final = "patched:"


@attrs.frozen
class Patch:
    """A `patched` id of one flow, and the open instances by their side of it.

    Attributes:
        flow, version: whose it is.
        id: its id.
        location: ``file:line`` of its first use, or "" where the source has none that can
            be read.
        in_code: whether the code that runs here has it at all.
        old: ids of instances that took the old branch.
        new: those that took the new one.
        unmet: those that have not met it; they will take the new one.
        unclear: those whose log the code here doesn't fit.
    """

    flow: str
    version: int
    id: str
    location: str
    in_code: bool
    old: tuple[str, ...]
    new: tuple[str, ...]
    unmet: tuple[str, ...]
    unclear: tuple[str, ...]

    @property
    def needed_by(self) -> tuple[str, ...]:
        """Who still needs the old branch, or may need it."""
        return (*self.old, *self.unclear)

    @property
    def removable(self) -> str:
        """What may be removed: ``nothing``, ``old branch``, or ``guard``, with that branch."""
        if self.needed_by or not self.in_code:
            return "nothing"
        return "old branch" if self.new else "guard"

    @property
    def verdict(self) -> str:
        """The same in words."""
        if not self.in_code:
            return f"put the guard back: {_many(self.new)} met it" if self.new else "gone"
        if self.old:
            return f"the old branch is still needed by {len(self.old)}"
        if self.unclear:
            return f"can't tell: {_many(self.unclear)} not fitting the code here"
        if self.new:
            return "safe to remove the old branch; keep the guard"
        return "safe to remove the guard"


def _many(ids: tuple[str, ...]) -> str:
    return f"{len(ids)} instance{'' if len(ids) == 1 else 's'}"


class Survey:
    """Looks at open instances, one after the other."""

    def __init__(self, flows: FlowRegistry, codec: ValueCodec) -> None:
        self._flows = flows
        self._codec = codec
        self._sources: dict[str, dict[str, str]] = {}
        self._labels: dict[str, Flow] = {}
        self._met: dict[str, set[str]] = defaultdict(set)
        # (public id, what its log has, what the drive decided or None) by flow.
        self._looked: dict[str, list[tuple[str, set[str], dict[str, bool] | None]]] = (
            defaultdict(list)
        )
        for flow in flows:
            self._labels[flow.label] = flow
            self._sources[flow.label] = patches_in(flow)

    def knows(self, record: InstanceRecord) -> bool:
        """Whether the flow and version of an instance are registered here."""
        return self._flows.find(record.flow, record.version) is not None

    def look(self, record: InstanceRecord, rows: Sequence[LogRecord]) -> None:
        """Take note of one instance and its log."""
        flow = self._flows.get(record.flow, record.version)
        # An owner may have written since the record was read.
        rows = rows[: record.log_length]
        logged = {row.tag.removeprefix(_PREFIX) for row in rows if row.tag.startswith(_PREFIX)}
        decided = self._decided(flow, record, rows)
        self._met[flow.label] |= {*(decided or ())}
        if decided is not None:
            # What this very drive would decide is not decided yet.
            decided = {id: new for id, new in decided.items() if id in logged or not new}
        self._looked[flow.label].append((record.id, logged, decided))

    def _decided(
        self, flow: Flow, record: InstanceRecord, rows: Sequence[LogRecord]
    ) -> dict[str, bool] | None:
        try:
            replay = Replay(
                flow,
                self._codec.decode(record.input),
                codec=self._codec,
                seed=record.seed,
                started=record.started,
                log=[entry_of(row, self._codec) for row in rows],
                stored=pending_of(record, self._codec),
            )
        except Exception:  # noqa: BLE001 - whatever keeps it from being driven here
            return None
        found = dict(replay.patches)
        replay.close()
        return found

    def found(self) -> tuple[Patch, ...]:
        """What was found, by flow, version and id."""
        return tuple(
            self._patch(label, id)
            for label in self._labels
            for id in sorted(
                {*self._sources[label], *self._met[label]}.union(
                    *(logged for _, logged, _ in self._looked[label])
                )
            )
        )

    def _patch(self, label: str, id: str) -> Patch:
        sides: dict[str, list[str]] = {"old": [], "new": [], "unmet": [], "unclear": []}
        for instance, logged, decided in self._looked[label]:
            if id in logged:
                side = "new"
            elif decided is None:
                side = "unclear"
            else:
                side = "old" if id in decided else "unmet"
            sides[side].append(instance)
        flow = self._labels[label]
        location = self._sources[label].get(id, "")
        ids: dict[str, Any] = {side: tuple(each) for side, each in sides.items()}
        in_code = bool(location) or id in self._met[label]
        return Patch(flow.name, flow.version, id, location, in_code, **ids)
