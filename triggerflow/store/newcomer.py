"""An instance to be: of an append, a start, or a parent's turn."""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs

if TYPE_CHECKING:
    from triggerflow.core.admission_request import Admission
    from triggerflow.store.waits import NewWait


@attrs.define(slots=True)
class NewInstance:
    """An instance to be, as a dispatcher or a caller of `start` describes it.

    `status` is ``running`` (runnable), or ``blocked`` with `cause` and `reason`. `digest`
    says whether two inputs under one key are the same; without it their bytes do. `depth`
    is how deep a child it is, `chain` how many emitted activities led to it. `admission` is
    what is asked before it runs; None asks nothing. `cancel_on` are waits for activities
    that cancel it, from the one that started it on.
    """

    id: str
    flow: str
    version: int | None
    input: bytes
    seed: bytes
    created: float
    status: str = "running"
    cause: str | None = None
    reason: str | None = None
    namespace: str = ""
    key: str | None = None
    digest: bytes | None = None
    correlation_id: str | None = None
    depth: int = 0
    chain: int = 0
    cancel_on: tuple[NewWait, ...] = ()
    admission: Admission | None = None
