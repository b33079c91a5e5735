"""What an engine says about itself."""

from __future__ import annotations

import attrs


@attrs.frozen(kw_only=True)
class Statistics:
    """How an engine stands, as of the moment it was asked. Nothing was read for it.

    Attributes:
        state: ``starting``, ``ready``, ``degraded`` (the store refuses writes just now),
            ``draining``, ``drained`` or ``closed``.
        owned: instances that it drives.
        tasks: queued calls that it runs.
        capacity: how many it may own; 0 where it leaves the work to others.
        warm: parked instances whose live replay it keeps.
        waiting: operations that wait for the next commit, its own ones among them.
        held: operations that wait for room in the backlog before they may do so.
        slowed: appends and starts that wait because it is full.
        commits: transactions since it was opened.
        lag: seconds since runnable instances began to wait for a place here; 0 if none does.
    """

    state: str
    owned: int
    tasks: int
    capacity: int
    warm: int
    waiting: int
    held: int
    slowed: int
    commits: int
    lag: float

    @property
    def ready(self) -> bool:
        """Whether it takes work and can store what comes of it."""
        return self.state == "ready"
