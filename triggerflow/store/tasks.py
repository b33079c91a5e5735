"""What can be asked of a store about tasks: queued calls that any worker may run."""

from __future__ import annotations

import attrs


@attrs.define(slots=True)
class ClaimTasks:
    """Take tasks of these queues and steps that are due, the oldest first, as their holder.

    Each claim gives a task a new token, larger than all before, and counts an attempt. Only
    who holds it, with that token, may say something of it.

    Attributes:
        limit: how many at most.
        now: what counts as due.
        alone: the worker owns and holds nothing, so it may take a task whose holders died
            twice; then it gets that one only.
    """

    limit: int
    queues: frozenset[str]
    steps: frozenset[str]
    now: float
    alone: bool = False


@attrs.define(slots=True)
class TaskHeartbeat:
    """Keep what a queued step said last of its progress.

    Precondition: the worker's epoch holds, and it holds the task with this token; else
    `FENCED`, or `GONE` where there is no such task any more.
    """

    task: int
    token: int
    number: int
    generation: int
    tag: str
    details: bytes
    at: float


@attrs.define(slots=True)
class FinishTask:
    """Tell an instance what an attempt of a queued call came to.

    Precondition as for `TaskHeartbeat`. It inserts an inbox row of kind ``task``, and wakes
    the instance. A task whose answer is `final` goes; another one waits, held by nobody,
    until a turn arms it again or withdraws it. The last token and digest are kept, until the
    generation ends: the same answer once more is a `DUPLICATE`, another one a `CONFLICT`.

    Attributes:
        digest: stands for the answer.
        final: no further attempt can follow it.
    """

    task: int
    token: int
    number: int
    generation: int
    tag: str
    payload: bytes
    digest: bytes
    final: bool
    at: float
