"""Which flows an app knows: by name, versions side by side."""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs

from triggerflow.errors import DefinitionError, UnknownFlow

if TYPE_CHECKING:
    from collections.abc import Iterator

    from triggerflow.flows.flow import Flow


@attrs.define
class FlowRegistry:
    """Flows by name and version. Registering one object twice is harmless."""

    _flows: dict[str, dict[int, Flow]] = attrs.field(factory=dict, init=False)

    def add(self, flow: Flow) -> None:
        """Register a flow.

        Raises:
            DefinitionError: another function holds this name and version.
        """
        versions = self._flows.setdefault(flow.name, {})
        known = versions.get(flow.version)
        if known is not None and known is not flow:
            raise DefinitionError(
                f"flow {flow.label}",
                f"is defined twice: at {known.location} and at {flow.location}",
                "give one of them another name= or version=",
            )
        versions[flow.version] = flow

    def get(self, name: str, version: int | None = None) -> Flow:
        """A flow; the latest version where none is named.

        Raises:
            UnknownFlow: none is registered; the message has the nearest names.
        """
        found = self.find(name, version)
        if found is None:
            raise UnknownFlow(name, version, tuple(self._flows))
        return found

    def find(self, name: str, version: int | None = None) -> Flow | None:
        """A flow, or None; the latest version where none is named."""
        versions = self._flows.get(name)
        if not versions:
            return None
        return versions[max(versions)] if version is None else versions.get(version)

    def __iter__(self) -> Iterator[Flow]:
        for name in sorted(self._flows):
            yield from (self._flows[name][v] for v in sorted(self._flows[name]))

    def __len__(self) -> int:
        return sum(map(len, self._flows.values()))
