"""An instance to be: of an append, a start, or a parent's turn."""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs

from triggerflow.store.records import Claimed

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

    def has_input(self, input: bytes, digest: bytes | None) -> bool:
        """Whether this is its input, too; the bytes may differ in the order of dict keys."""
        if self.digest is not None and digest is not None:
            return self.digest == digest
        return self.input == input

    def claimed(self, number: int, origin: int, input: bytes) -> Claimed:
        """It as its owner gets it, where a worker owns it from the start."""
        return Claimed(
            number=number,
            id=self.id,
            flow=self.flow,
            version=self.version or 0,
            generation=1,
            log_length=0,
            pending=None,
            crashes=0,
            cancelled=False,
            input=input,
            seed=self.seed,
            started=None,
            log=(),
            inbox=(),
            namespace=self.namespace,
            correlation_id=self.correlation_id,
            depth=self.depth,
            chain=self.chain,
            origin=origin,
        )
