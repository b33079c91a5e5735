"""Tasks: queued calls, from the turn that arms one to the answer that its flow gets."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

from triggerflow.core.answers import Answer as TaskAnswer
from triggerflow.core.codec import ValueCodec
from triggerflow.core.failure import Failure
from triggerflow.core.tags import name_of
from triggerflow.store.acts import CloseTask, OpenTask, RearmTask
from triggerflow.store.operations import APPLIED, Outcome, Verdict
from triggerflow.store.postgres import kin, progress
from triggerflow.store.postgres.columns import Ints, Texts, columns
from triggerflow.store.postgres.standing import Call, Items, Standing
from triggerflow.store.records import (
    CRASH_LIMIT,
    SUSPECT,
    ClaimedTask,
    TaskCount,
    TaskRecord,
)

if TYPE_CHECKING:
    from triggerflow.store.operations import Turn
    from triggerflow.store.postgres.wire import Db
    from triggerflow.store.tasks import ClaimTasks, FinishTask

# An answer that the store itself gives holds texts and numbers only.
_CODEC: Final = ValueCodec()
_WITHDRAWN: Final = Outcome(Verdict.GONE, detail="withdrawn")
_LOST: Final = Outcome(Verdict.FENCED, detail="token")

# --- what turns do


class Acts:
    """What the turns of a batch do to tasks, gathered and written together."""

    def __init__(self, s: Standing) -> None:
        self.s = s
        self._armed: dict[Call, list[Any]] = {}
        self._rearmed: dict[Call, float] = {}
        self._closed: list[Call] = []

    def act(self, turn: Turn, act: OpenTask | RearmTask | CloseTask) -> None:
        """Gather one act."""
        call = (turn.number, turn.generation, act.tag)
        if isinstance(act, OpenTask):
            row = [act.queue, act.step, act.args, act.at, act.at, act.timeout, act.key]
            self._armed[call] = row
        elif isinstance(act, RearmTask):
            if call in self._armed:
                self._armed[call][3] = act.due
            else:
                self._rearmed[call] = act.due
        else:
            # One that this very turn has armed is never seen.
            self._armed.pop(call, None)
            self._closed.append(call)
            self.s.drop_task(call)

    def write(self) -> None:
        """Write all of it."""
        ask = self.s.db.execute
        if self._closed:
            _remove(self.s.db, self._closed)
        if self._rearmed:
            self.s.loud = True
            ask(
                "UPDATE task t SET due = k.due FROM unnest(%s, %s, %s, %s)"
                " AS k (instance, generation, tag, due) WHERE t.instance = k.instance"
                " AND t.generation = k.generation AND t.tag = k.tag",
                *columns("iitf", [(*call, due) for call, due in self._rearmed.items()]),
            )
        if self._armed:
            self.s.loud = True
            ask(
                "INSERT INTO task (instance, generation, tag, queue, step, args, due, armed,"
                " timeout, key) SELECT * FROM unnest(%s, %s, %s, %s, %s, %s, %s, %s, %s, %s)",
                *columns("iitttbffft", [(*call, *row) for call, row in self._armed.items()]),
            )


def _remove(db: Db, calls: Sequence[Call]) -> None:
    if calls:
        db.execute(
            "DELETE FROM task t USING unnest(%s, %s, %s) AS k (instance, generation, tag)"
            " WHERE t.instance = k.instance AND t.generation = k.generation AND t.tag = k.tag",
            *columns("iit", calls),
        )
        progress.clear(db, calls)


# --- claims


def claim(s: Standing, items: Items, outcomes: list[Any]) -> None:
    """Decide and write claims; see `operations.ClaimTasks`."""
    for index, op in items:
        outcomes[index] = _claim(s, op)


_SUSPECT: Final = (
    "SELECT id FROM task WHERE owner IS NULL AND due IS NOT NULL AND due <= %s"
    f" AND crashes >= {SUSPECT:d} AND queue = ANY(%s) AND step = ANY(%s)"
    " ORDER BY due, id LIMIT 1"
)
_READY: Final = (
    "SELECT t.due, t.id FROM unnest(%s, %s) AS k (queue, step) CROSS JOIN LATERAL"
    " (SELECT due, id FROM task WHERE queue = k.queue AND step = k.step AND owner IS NULL"
    f" AND due IS NOT NULL AND crashes < {SUSPECT:d} AND due <= %s"
    " ORDER BY due, id LIMIT %s FOR UPDATE SKIP LOCKED) t"
)
# What is left, whoever holds it at this moment, and when the first of the later ones is due.
_LEFT: Final = (
    "SELECT min(t.due) FROM unnest(%s, %s) AS k (queue, step) CROSS JOIN LATERAL"
    " (SELECT due FROM task WHERE queue = k.queue AND step = k.step AND owner IS NULL"
    f" AND due IS NOT NULL AND crashes < {SUSPECT:d} AND due {{}} %s"
    " ORDER BY due, id LIMIT 1) t"
)


def _claim(s: Standing, op: ClaimTasks) -> Outcome:
    ask = s.db.execute
    pairs = [(queue, step) for queue in sorted(op.queues) for step in sorted(op.steps)]
    if not pairs:
        return Outcome(Verdict.APPLIED)
    queues, steps = Texts(sorted(op.queues)), Texts(sorted(op.steps))
    if op.alone:
        taken = ask(f"{_SUSPECT} FOR UPDATE SKIP LOCKED", op.now, queues, steps).firsts()
        if taken:
            return Outcome(Verdict.APPLIED, tasks=_take(s, taken), more=True)
    keys = columns("tt", pairs)
    # Each pair has its rows in order in one index, so a step that nobody here knows, however
    # much of it there is, costs nothing.
    due = sorted(ask(_READY, *keys, op.now, op.limit).rows())[: op.limit]
    tasks = _take(s, [id for _, id in due])
    suspect = ask(_SUSPECT, op.now, queues, steps)
    left = ask(_LEFT.format("<="), *keys, op.now)
    later = ask(_LEFT.format(">"), *keys, op.now)
    return Outcome(
        Verdict.APPLIED,
        tasks=tasks,
        suspects=suspect.row() is not None,
        more=left.one() is not None,
        next_due=later.one(),
    )


def _take(s: Standing, ids: list[int]) -> tuple[ClaimedTask, ...]:
    if not ids:
        return ()
    ask = s.db.execute
    # A larger token than every earlier one: the rows are locked, and those of a call's earlier
    # claims were given out before its row was free again.
    ask(
        "UPDATE task t SET owner = %s, token = k.token, attempt = t.attempt + 1"
        " FROM (SELECT u.id, nextval('task_token') AS token FROM unnest(%s) AS u (id)) k"
        " WHERE t.id = k.id",
        s.worker,
        Ints(ids),
    )
    rows = ask(
        "SELECT t.id, t.token, t.instance, i.public_id, t.generation, t.tag, t.queue, t.step,"
        " t.args, t.attempt, t.crashes, t.timeout, t.key, p.details FROM task t"
        " JOIN instance i ON i.id = t.instance LEFT JOIN progress p"
        " ON p.instance = t.instance AND p.generation = t.generation AND p.tag = t.tag"
        " WHERE t.id = ANY(%s) ORDER BY t.token",
        Ints(ids),
    ).rows()
    names = [(name_of(row[5]), row[12]) for row in rows if row[12] is not None]
    known: dict[tuple[str, str], bytes] = {}
    if names:
        found = ask(
            "SELECT r.step, r.key, r.value FROM unnest(%s, %s) AS k (step, key)"
            " JOIN recorded r ON r.step = k.step AND r.key = k.key",
            *columns("tt", names),
        ).rows()
        known = {(step, key): value for step, key, value in found}
    taken = []
    for *row, key, details in rows:
        recorded = None if key is None else known.get((name_of(row[5]), key))
        fields = [*row, recorded, details]
        taken.append(ClaimedTask(*fields))
    return tuple(taken)


# --- what workers say of those that they hold


def beat(s: Standing, items: Items, outcomes: list[Any]) -> None:
    """Decide and write progress; see `operations.TaskHeartbeat`."""
    rows = []
    for index, op in items:
        found = s.tasks.get(op.task)
        if found is not None and (found.owner, found.token) == (s.worker, op.token):
            rows.append((op.number, op.generation, op.tag, op.details, op.at))
            outcomes[index] = APPLIED
        else:
            outcomes[index] = _WITHDRAWN if found is None else _LOST
    progress.keep(s.db, rows)


def finish(s: Standing, items: Items, outcomes: list[Any]) -> None:
    """Decide and write answers; see `operations.FinishTask`."""
    won: list[tuple[int, FinishTask]] = []
    answered: set[int] = set()
    for index, op in items:
        found = s.tasks.get(op.task)
        # Once is enough: a second answer in this batch finds nothing to answer.
        holds = found is not None and (found.owner, found.token) == (s.worker, op.token)
        if holds and op.task not in answered:
            answered.add(op.task)
            won.append((index, op))
            s.answers[op.number, op.generation, op.tag] = (op.token, op.digest)
    _answer(s, [op for _, op in won])
    letters = [(op.number, "task", op.tag, op.payload, op.at) for _, op in won]
    owners = dict(kin.post(s, letters).owners)
    for index, op in won:
        told = ((op.number, owners.get(op.number)),)
        outcomes[index] = Outcome(Verdict.APPLIED, number=op.number, told=told)
    for index, op in items:
        if outcomes[index] is None:
            outcomes[index] = _refused(s, op, answered)


def _answer(s: Standing, won: Sequence[FinishTask]) -> None:
    if not won:
        return
    s.db.execute(
        "INSERT INTO task_answer (instance, generation, tag, token, digest)"
        " SELECT * FROM unnest(%s, %s, %s, %s, %s)"
        " ON CONFLICT (instance, generation, tag) DO UPDATE"
        " SET token = excluded.token, digest = excluded.digest",
        *columns(
            "iitib",
            sorted((op.number, op.generation, op.tag, op.token, op.digest) for op in won),
        ),
    )
    final = [(op.number, op.generation, op.tag) for op in won if op.final]
    _remove(s.db, final)
    for call in final:
        s.drop_task(call)
    back = [op.task for op in won if not op.final]
    if back:
        # Its process lived to tell, so no crash is on it any more.
        s.db.execute(
            "UPDATE task SET owner = NULL, due = NULL, crashes = 0 WHERE id = ANY(%s)",
            Ints(back),
        )


def _refused(s: Standing, op: FinishTask, answered: set[int]) -> Outcome:
    last = s.answers.get((op.number, op.generation, op.tag))
    if last is not None and last[0] == op.token:
        return Outcome(Verdict.DUPLICATE if last[1] == op.digest else Verdict.CONFLICT)
    there = op.task in s.tasks and op.task not in answered
    return _LOST if there else _WITHDRAWN


def held(db: Db, worker: int) -> set[tuple[int, int]]:
    """(task, token) of all that a worker holds."""
    return set(db.execute("SELECT id, token FROM task WHERE owner = %s", worker).rows())


def hand_back(db: Db, worker: int) -> None:
    """Let others have what a worker holds, without counting a crash."""
    db.execute(
        "UPDATE task SET owner = NULL WHERE id IN"
        " (SELECT id FROM task WHERE owner = %s ORDER BY id FOR UPDATE)",
        worker,
    )


def instances_at_the_limit(db: Db, worker: int) -> list[int]:
    """Whose calls a dead worker held for the last time."""
    return db.execute(
        "SELECT DISTINCT instance FROM task WHERE owner = %s AND crashes + 1 >= %s",
        worker,
        CRASH_LIMIT,
    ).firsts()


def free(s: Standing, worker: int, seen: float) -> int:
    """Free what a dead worker held, one crash counted for each; how many there were.

    Args:
        s: with the instances locked whose calls it held for the last time.
        worker: the dead one.
        seen: its last sign of life.
    """
    freed = s.db.execute(
        "UPDATE task SET owner = NULL, crashes = crashes + 1 WHERE id IN"
        " (SELECT id FROM task WHERE owner = %s ORDER BY id FOR UPDATE)"
        " RETURNING instance, generation, tag, step, crashes, due IS NOT NULL",
        worker,
    ).rows()
    lost = [row for row in freed if row[4] >= CRASH_LIMIT and row[5]]
    letters = []
    for number, generation, tag, step, crashes, _ in lost:
        failure = Failure(
            "CrashLimit",
            f"the worker that ran step {step!r} died {crashes} times, the last ones with "
            "nothing else in the process: mend the step, then retry the instance",
        )
        answer = TaskAnswer(generation, failure=failure)
        letters.append((number, "task", tag, answer.encode(_CODEC), seen))
    _remove(s.db, [row[:3] for row in lost])
    kin.post(s, letters)
    return len(freed)


# --- asking

_TASK: Final = (
    "SELECT t.id, i.public_id, t.generation, t.tag, t.queue, t.step, t.attempt, t.due,"
    " t.armed, t.owner, t.token, t.crashes FROM task t JOIN instance i ON i.id = t.instance"
)


def of_queue(db: Db, queue: str | None, after: int, limit: int) -> list[TaskRecord]:
    """Tasks of one queue, or of all, in the order in which they were armed."""
    where, values = ("", ()) if queue is None else (" AND t.queue = %s", (queue,))
    rows = db.execute(
        f"{_TASK} WHERE t.id > %s{where} ORDER BY t.id LIMIT %s", after, *values, limit
    ).rows()
    return [TaskRecord(*row) for row in rows]


def of_instance(db: Db, number: int) -> list[TaskRecord]:
    """The tasks of one instance."""
    rows = db.execute(f"{_TASK} WHERE t.instance = %s ORDER BY t.id", number).rows()
    return [TaskRecord(*row) for row in rows]


def backlog(db: Db) -> list[TaskCount]:
    """How many tasks each step has in each queue, and how many of them run."""
    rows = db.execute(
        "SELECT queue, step, count(*), count(owner), min(armed) FROM task"
        " GROUP BY queue, step ORDER BY queue, step"
    ).rows()
    return [TaskCount(*row) for row in rows]
