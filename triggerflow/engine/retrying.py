"""What follows a failed attempt, wherever it ran: another one after a while, or the failure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from triggerflow.core.effects import Call
from triggerflow.core.failure import Failure

if TYPE_CHECKING:
    from triggerflow.core.retry import Raised
    from triggerflow.engine.drive import Drive


def delay_of(
    drive: Drive, tag: str, effect: Any, error: BaseException | Raised | None, failure: Failure
) -> tuple[float | None, Failure]:
    """Seconds until the next attempt, or None, and the failure that stands then.

    Args:
        effect: what failed, still pending under `tag`.
        error: what the policy judges; None where no other attempt helps.
    """
    run = drive.run
    if not isinstance(effect, Call) or effect.options.retry is None or error is None:
        return None, failure
    kept = run.pending[tag]
    chance = f"{run.id}\0{run.generation}\0{tag}".encode()
    elapsed = 0.0 if kept.since is None else drive.now - kept.since
    try:
        found = effect.options.retry.delay(error, kept.attempts + 1, chance, elapsed)
    except Exception as broken:  # noqa: BLE001
        # Such as RetryAfter("soon"): the step's mistake, and no divergence.
        return None, Failure.of(broken)
    return found, failure
