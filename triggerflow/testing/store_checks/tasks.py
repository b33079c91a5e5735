"""Checks of tasks: who may claim a queued call, who may answer it, and when it goes."""

from __future__ import annotations

from typing import Any

import attrs

from triggerflow.core.answers import Answer
from triggerflow.core.codec import ValueCodec
from triggerflow.store.acts import CloseTask, ContinueAsNew, OpenTask, RearmTask, RecordResult
from triggerflow.store.operations import Outcome, Terminate
from triggerflow.store.records import CRASH_LIMIT, Claimed, ClaimedTask
from triggerflow.store.tasks import ClaimTasks, FinishTask, TaskHeartbeat
from triggerflow.testing.store_checks.bench import (
    APPLIED,
    CONFLICT,
    DUPLICATE,
    FENCED,
    GONE,
    NOON,
    Bench,
    Worker,
    check,
    same,
    true,
)

TAG = "call:render#0"


def opened(tag: str = TAG, queue: str = "gpu", step: str = "render", **more: Any) -> OpenTask:
    return OpenTask(tag, queue, step, b"args", **({"at": NOON} | more))


def parked(w: Bench, worker: Worker, id: str, *acts: Any) -> Claimed:
    """An instance that is parked and waits for what these acts queued."""
    mine = w.owned(worker, id)
    w.park(worker, mine, acts=acts or (opened(),))
    return mine


def taken(w: Bench, worker: Worker, **parts: Any) -> Outcome:
    given: dict[str, Any] = {
        "limit": 10,
        "queues": frozenset({"gpu"}),
        "steps": frozenset({"render"}),
        "now": w.now,
    }
    return w.do(worker, ClaimTasks(**(given | parts)))


def answer(task: ClaimedTask, payload: bytes = b"done", **parts: Any) -> FinishTask:
    given: dict[str, Any] = {"digest": payload, "final": True, "at": NOON}
    return FinishTask(
        task.id,
        task.token,
        task.number,
        task.generation,
        task.tag,
        payload,
        **(given | parts),
    )


def beat(task: ClaimedTask, details: bytes = b"half") -> TaskHeartbeat:
    return TaskHeartbeat(
        task.id, task.token, task.number, task.generation, task.tag, details, NOON
    )


def letters(w: Bench, of: Claimed) -> list[tuple[str, str, bytes]]:
    return [(row.kind, row.name, row.payload) for row in w.store.inbox(of.number)]


def tags(w: Bench) -> list[str]:
    return [each.tag for each in w.store.tasks()]


@check
def task_is_claimed_whole(w: Bench) -> None:
    """A claim gives arguments, limits, token and attempt; nobody else gets that task."""
    worker = w.worker()
    mine = parked(w, worker, "i1", opened(timeout=9.0, key="k"))
    (task,) = taken(w, worker).tasks
    found = (task.number, task.instance, task.generation, task.tag, task.args, task.timeout)
    same("claimed", found, (mine.number, "i1", 1, TAG, b"args", 9.0))
    same(
        "attempt", (task.attempt, task.crashes, task.recorded, task.details), (1, 0, None, None)
    )
    same("another claim", taken(w, w.worker("build-b")).tasks, ())
    (row,) = w.store.tasks("gpu")
    same("row", (row.owner, row.token, row.instance), (worker[0], task.token, "i1"))
    same("held", w.store.held(worker[0]), {(task.id, task.token)})
    same("of its instance", w.store.tasks_of(mine.number), [row])
    same("of another queue", w.store.tasks("cpu"), [])


@check
def tasks_come_in_order(w: Bench) -> None:
    """The oldest due ones first, of the queues and steps asked for, up to the limit."""
    worker = w.worker()
    parked(
        w,
        worker,
        "i1",
        opened("call:late#0", at=NOON + 5),
        opened("call:b#0", at=NOON - 1),
        opened("call:a#0", at=NOON - 2),
        opened("call:other#0", queue="cpu", at=NOON - 9),
        opened("call:strange#0", step="paint", at=NOON - 9),
    )
    found = taken(w, worker, limit=1)
    same("first", ([each.tag for each in found.tasks], found.more), (["call:a#0"], True))
    found = taken(w, worker)
    same("next", [each.tag for each in found.tasks], ["call:b#0"])
    same("no more, for now", (found.more, found.next_due), (False, NOON + 5))
    found = taken(w, worker, now=NOON + 5)
    same("later", [each.tag for each in found.tasks], ["call:late#0"])
    both = taken(
        w, worker, queues=frozenset({"gpu", "cpu"}), steps=frozenset({"render", "paint"})
    )
    same("the rest", {each.tag for each in both.tasks}, {"call:other#0", "call:strange#0"})


@check
def token_grows_with_every_claim(w: Bench) -> None:
    """No two claims share a token, and a later one has the larger."""
    worker = w.worker()
    parked(w, worker, "i1", *(opened(f"call:render#{n}") for n in range(3)))
    first = [each.token for each in taken(w, worker).tasks]
    same("distinct", len(set(first)), 3)
    w.store.forget_worker(worker[0])
    again = taken(w, w.worker()).tasks
    true("a later claim has larger tokens", min(each.token for each in again) > max(first))
    same("attempts", [each.attempt for each in again], [2, 2, 2])


@check
def answer_wakes_its_instance(w: Bench) -> None:
    """One inbox row, the instance runnable, the task gone, in one commit."""
    worker = w.worker()
    mine = parked(w, worker, "i1")
    (task,) = taken(w, worker).tasks
    w.do(worker, beat(task))
    found = w.do(worker, answer(task))
    same("told", found.told, ((mine.number, None),))
    same("letters", letters(w, mine), [("task", TAG, b"done")])
    same("tasks", (tags(w), w.store.held(worker[0])), ([], set()))
    same("progress", w.store.progress(mine.number, 1), [])
    (again,) = w.claim(worker).claimed
    same("claimed", (again.id, [row.kind for row in again.inbox]), ("i1", ["task"]))
    # To an owned one, it is told by its owner's number.
    w.do(worker, w.turn(again, acts=(opened("call:render#1"),)))
    (second,) = taken(w, worker).tasks
    same("owner", w.do(worker, answer(second)).told, ((mine.number, worker[0]),))


@check
def answer_is_known_again(w: Bench) -> None:
    """The same answer once more is a duplicate, another a conflict, with one inbox row."""
    worker = w.worker()
    mine = parked(w, worker, "i1")
    (task,) = taken(w, worker).tasks
    found = w.commit(answer(task), answer(task), worker=worker)
    same("in one batch", [each.verdict for each in found], [APPLIED, DUPLICATE])
    same("later", w.ask(answer(task), worker).verdict, DUPLICATE)
    same("another", w.ask(answer(task, b"other"), worker).verdict, CONFLICT)
    same("letters", letters(w, mine), [("task", TAG, b"done")])


@check
def answer_needs_the_token(w: Bench) -> None:
    """Without epoch, holder, token or row an answer or a heartbeat changes nothing."""
    worker = w.worker()
    mine = parked(w, worker, "i1")
    (task,) = taken(w, worker).tasks
    stale = attrs.evolve(task, token=task.token - 1)
    other = w.worker("build-b")
    before = w.everything()
    for what, of, who in (("a stale token", stale, worker), ("another", task, other)):
        same(f"answer of {what}", w.ask(answer(of), who).verdict, FENCED)
        same(f"heartbeat of {what}", w.ask(beat(of), who).verdict, FENCED)
    w.store.reap({each.id: each.seen for each in w.store.workers() if each.id == worker[0]})
    found = w.ask(answer(task), worker)
    same("a reaped worker", (found.verdict, found.detail), (FENCED, "worker"))
    (again,) = taken(w, other).tasks
    same("the next one", (again.attempt, again.crashes), (2, 1))
    same("nothing else", (letters(w, mine), w.everything()[1]), ([], before[1]))
    w.do(other, answer(again))


@check
def failed_answer_waits_for_the_flow(w: Bench) -> None:
    """A task whose answer isn't final is held by nobody, and due only when a turn says so."""
    worker = w.worker()
    mine = parked(w, worker, "i1")
    (task,) = taken(w, worker).tasks
    w.commit(beat(task, b"bookmark"), answer(task, b"no", final=False), worker=worker)
    (row,) = w.store.tasks()
    same("row", (row.owner, row.due, row.attempt), (None, None, 1))
    found = taken(w, worker, now=NOON + 1e6)
    same("not due", (found.tasks, found.next_due), ((), None))
    (again,) = w.claim(worker).claimed
    rearm = w.turn(again, acts=(RearmTask(TAG, NOON + 60),), consumed=(again.inbox[0].id,))
    w.do(worker, attrs.evolve(rearm, status="waiting", inbox_seen=again.inbox[0].id))
    found = taken(w, worker)
    same("in back-off", (found.tasks, found.next_due), ((), NOON + 60))
    (second,) = taken(w, worker, now=NOON + 60).tasks
    same("second", (second.attempt, second.details), (2, b"bookmark"))
    true("a new token", second.token > task.token)
    # The first one's repeat is still known, until there is a second answer.
    same("repeat", w.ask(answer(task, b"no", final=False), worker).verdict, DUPLICATE)
    w.do(worker, answer(second, b"yes"))
    same("too old", w.ask(answer(task, b"no", final=False), worker).verdict, GONE)
    same("letters", letters(w, mine), [("task", TAG, b"yes")])


@check
def withdrawn_task_is_fenced(w: Bench) -> None:
    """A turn takes a task back while it runs: what its holder says later changes nothing."""
    worker = w.worker()
    mine = w.owned(worker, "i1")
    w.do(worker, w.turn(mine, acts=(opened(), opened("call:render#1"))))
    tasks = {each.tag: each for each in taken(w, worker).tasks}
    w.do(worker, beat(tasks[TAG]))
    w.do(worker, w.turn(mine, acts=(CloseTask(TAG),)))
    same("left", tags(w), ["call:render#1"])
    same("progress", w.store.progress(mine.number, 1), [])
    same("answer", w.ask(answer(tasks[TAG]), worker).verdict, GONE)
    same("heartbeat", w.ask(beat(tasks[TAG]), worker).verdict, GONE)
    # In one batch the turn comes first.
    last = tasks["call:render#1"]
    both = w.commit(answer(last), w.turn(mine, acts=(CloseTask(last.tag),)), worker=worker)
    same("in one batch", [each.verdict for each in both], [GONE, APPLIED])
    same("letters", letters(w, mine), [])
    # The same call may be armed again, and its old holder still means nothing.
    w.do(worker, w.turn(mine, acts=(opened(),)))
    same("old answer", w.ask(answer(tasks[TAG]), worker).verdict in (GONE, FENCED), True)
    (again,) = taken(w, worker).tasks
    same("anew", (again.attempt, again.details), (1, None))


@check
def tasks_go_with_their_generation(w: Bench) -> None:
    """The end of an instance, by a turn or by hand, and its next generation take them along."""
    worker = w.worker()
    one = w.owned(worker, "i1")
    w.do(worker, w.turn(one, acts=(opened(), opened("call:render#1"))))
    first, second = taken(w, worker).tasks
    w.do(worker, answer(first))
    w.end(worker, one, "failed")
    same("ended", (tags(w), letters(w, one)), ([], []))
    same("late", w.ask(answer(second), worker).verdict, GONE)
    parked(w, worker, "i2")
    w.ask(Terminate("i2", b"value", w.now))
    same("terminated", tags(w), [])
    three = w.owned(worker, "i3")
    w.do(worker, w.turn(three, acts=(opened(),)))
    w.do(worker, w.turn(three, acts=(ContinueAsNew(1, b"input", b"seed", None),)))
    same("continued", tags(w), [])


@check
def recorded_result_comes_with_the_claim(w: Bench) -> None:
    """What is recorded under a call's key spares its run, by the name in its tag."""
    worker = w.worker()
    mine = w.owned(worker, "i1")
    record = RecordResult("call:x#0", "render", "k", b"first", NOON)
    w.do(worker, w.turn(mine, acts=(record, opened(key="k"), opened("call:x#1", key="k"))))
    found = {each.tag: each.recorded for each in taken(w, worker).tasks}
    same("recorded", found, {TAG: b"first", "call:x#1": None})


@check
def dead_worker_gives_tasks_back(w: Bench) -> None:
    """A crash counts for each task that it held; from two on one runs alone, and first."""
    worker = w.worker()
    parked(w, worker, "i1", opened(), opened("call:render#1"))
    for crashes in (0, 1):
        (killer,) = taken(w, w.worker(), limit=1).tasks
        same("crashes", (killer.tag, killer.crashes), (TAG, crashes))
        w.reopen(crash=True)
        true("something was freed", w.store.reap())
    found = taken(w, w.worker(), alone=False)
    same("beside others", [each.tag for each in found.tasks], ["call:render#1"])
    same("suspects", found.suspects, True)
    found = taken(w, w.worker(), alone=True)
    same("alone", [(each.tag, each.crashes) for each in found.tasks], [(TAG, 2)])


@check
def crash_limit_is_told(w: Bench) -> None:
    """At the limit a task goes, and its instance is told that the call failed for good."""
    mine = parked(w, w.worker(), "i1")
    for _ in range(CRASH_LIMIT):
        worker = w.worker()
        same("claimed", len(taken(w, worker, alone=True).tasks), 1)
        w.reopen(crash=True)
        w.store.reap()
    same("tasks", tags(w), [])
    (row,) = w.store.inbox(mine.number)
    told = Answer.decode(row.payload, ValueCodec())
    same("kind", (row.kind, row.name, told.generation), ("task", TAG, 1))
    same("failure", (told.failure and told.failure.type, told.raised), ("CrashLimit", None))
    same("woken", w.get("i1").status, "running")


@check
def failed_attempt_forgets_crashes(w: Bench) -> None:
    """A worker that lives to tell of a failure is no crash."""
    mine = parked(w, w.worker(), "i1")
    taken(w, w.worker())
    w.reopen(crash=True)
    w.store.reap()
    worker = w.worker()
    (task,) = taken(w, worker).tasks
    w.do(worker, answer(task, b"no", final=False))
    (again,) = w.claim(worker).claimed
    w.do(worker, w.turn(again, acts=(RearmTask(TAG, NOON),)))
    (task,) = taken(w, worker).tasks
    same("crashes", (task.number, task.crashes, task.attempt), (mine.number, 0, 3))


@check
def served_queues_are_known(w: Bench) -> None:
    """A worker's queues and steps stand beside it until it goes, and tasks are counted."""
    serves = [("gpu", "paint"), ("gpu", "render")]
    worker = w.store.register_worker(build="b", flows=(), serves=serves, now=w.now)
    owner = w.worker()
    parked(w, owner, "i1", opened(), opened("call:render#1"), opened("call:x#0", queue="cpu"))
    taken(w, worker, limit=1)
    (found,) = [each for each in w.store.workers() if each.id == worker[0]]
    same("serves", (sorted(found.serves), found.holds), (serves, 1))
    counts = [(each.queue, each.step, each.tasks, each.held) for each in w.store.task_counts()]
    same("counts", sorted(counts), [("cpu", "render", 1, 0), ("gpu", "render", 2, 1)])
    w.store.forget_worker(worker[0])
    same("handed back", sum(each.held for each in w.store.task_counts()), 0)
    same("no crash", {each.crashes for each in w.store.tasks()}, {0})
    after = w.store.tasks(limit=1)[0].id
    same("paged", len(w.store.tasks(after=after)), 2)
