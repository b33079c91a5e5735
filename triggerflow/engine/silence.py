"""Which workers are silent: measured by who listens, never by comparing two wall clocks.

A worker shows life by writing a time, `seen`, into its row. That time is only looked at for
change: how long it has not changed is measured here, on the steady clock of this process. So
a wall clock that leaps, here or there, makes nobody look dead, and nobody immortal; a worker
that stands still shows no change, and counts as dead once that has lasted for the lease.

Who stands still himself must not accuse the others on waking: each look adds a third of the
lease at most.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable

    from triggerflow.store.records import WorkerRecord


class Silence:
    """How long each worker has been silent. One listener's view."""

    def __init__(self, lease: float) -> None:
        self._lease: Final = lease
        self._last: float | None = None
        # worker -> (the sign of life that it shows, seconds for which it has shown that one)
        self._heard: dict[int, tuple[float, float]] = {}

    def look(self, workers: Iterable[WorkerRecord], moment: float) -> dict[int, float]:
        """Take a look at all workers.

        Args:
            moment: the time on a clock that is never set.

        Returns:
            Those that were silent for longer than the lease, with what they show.
        """
        passed = 0.0 if self._last is None else moment - self._last
        passed = min(passed, self._lease / 3)
        self._last = moment
        heard = {}
        for worker in workers:
            seen, silent = self._heard.get(worker.id, (None, 0.0))
            heard[worker.id] = (
                worker.seen,
                silent + passed if seen == worker.seen else 0.0,
            )
        self._heard = heard
        return {id: seen for id, (seen, silent) in heard.items() if silent > self._lease}
