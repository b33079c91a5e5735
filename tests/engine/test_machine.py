"""Random programs against the whole engine: whatever happens to it, its promises hold.

A case is data: what the flows do, at home or on a queue, what is done to them (signals,
cancels, retries ...), and what is done to the engine (crashes before and after commits,
restarts, how much it keeps in memory). A second engine may work beside it on the same file, or
serve its queue. All of it runs in virtual time on one thread, so a case that fails fails again
and is shrunk. The promises are checked in each
commit, as each step begins, after each act, and at the end, when everything was answered.

``TRIGGERFLOW_MACHINE=10000`` tries so many cases instead of the usual few, with a new seed
each time (pytest prints it; ``--hypothesis-seed`` takes it).
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import re
from collections import Counter, defaultdict

import attrs
import pytest
import trio
from hypothesis import HealthCheck, Phase, event, given, settings
from hypothesis import strategies as st

import triggerflow as tf
from triggerflow.core.answers import Answer
from triggerflow.core.children import child_id
from triggerflow.core.failure import Failure
from triggerflow.core.log import decode_pending, kind_of
from triggerflow.engine import clock as clock_module
from triggerflow.engine import executor as executor_module
from triggerflow.engine import turn as turn_module
from triggerflow.engine.clock import LoopClock
from triggerflow.store.operations import Turn, Verdict
from triggerflow.store.posts import Told
from triggerflow.store.records import CRASH_LIMIT, ENDED, OPEN
from triggerflow.store.sqlite import MemoryStore, SqliteStore, kin, tasks
from triggerflow.store.tasks import ClaimTasks, FinishTask
from triggerflow.testing.crash import Crash, CrashingStore
from triggerflow.testing.time import run_virtually, virtual_settings

ACTOR = "https://a.example/ann"
EXAMPLES = int(os.environ.get("TRIGGERFLOW_MACHINE", "0"))
# Virtual seconds that one act may take.
PATIENCE = 20_000.0
ROUNDS = 80


# --- the family of flows: what they do is data


def play_app(store, world):
    """Flows that do what their input says."""
    app = tf.App(store, build="one", entry_points=False)
    again = tf.RetryPolicy(max_attempts=9, initial=2)

    @app.step
    def plain(n):
        world.step_begins()
        return ["plain", n]

    @app.step
    async def slow(n):
        world.step_begins()
        await trio.sleep(n)
        return ["slow", n]

    @app.step
    def flaky(n):
        world.step_begins()
        if tf.step_context().attempt <= n:
            raise OSError(n)
        return ["flaky", n]

    @app.step
    def fragile():
        world.step_begins()
        if world.broken:
            raise OSError("broken")
        return ["mended"]

    @app.step
    async def beat(n):
        at = world.step_begins()
        world.look_at_details(at)
        for each in range(n):
            world.said[at.instance, at.generation, at.tag].add((at.attempt, each))
            at.heartbeat([at.attempt, each])
            await trio.sleep(1)
        if at.attempt == 1:
            raise OSError("lost its place")
        return ["beat", n]

    @app.step
    async def first(k):
        world.step_begins()
        await trio.sleep(k)
        return ["first", next(world.serial)]

    @app.step
    async def hold(ok, uid):
        world.step_begins()
        await trio.sleep(uid % 3)
        if not ok:
            raise OSError("no room")
        return ["held", uid]

    @app.step
    def undo(_, ok, uid):
        world.step_begins()
        return ["undone", uid]

    @tf.transaction
    def pay(tx, n):
        world.step_begins()
        at = tf.step_context()
        tx.execute("CREATE TABLE IF NOT EXISTS paid (instance, generation, tag, n)")
        tx.execute(
            "INSERT INTO paid VALUES (?, ?, ?, ?)", (at.instance, at.generation, at.tag, n)
        )
        return ["paid", n]

    def run(program, refs, *, top=False, queue=None):
        found = []

        def call(step, *args, **options):
            return tf.call(step, *args).using(queue=queue, **options)

        for op, *args in program:
            match op, args:
                case "far", [part]:
                    found.append((yield from run(part, refs, queue="far")))
                case "plain", [n]:
                    found.append((yield call(plain, n)))
                case "slow", [n, timeout]:
                    found.append((yield call(slow, n, timeout=timeout)))
                case "flaky", [n]:
                    found.append((yield call(flaky, n, retry=again)))
                case "fragile", []:
                    found.append((yield call(fragile)))
                case "beat", [n]:
                    found.append((yield call(beat, n, retry=again)))
                case "first", [k]:
                    found.append((yield call(first, k, idempotency_key=f"first-{k}")))
                case "pay", [n]:
                    found.append((yield tf.call(pay, n)))
                case "hold", [ok, uid]:
                    found.append((yield call(hold, ok, uid, compensate=undo)))
                case "undo", [parallel]:
                    found.append(len((yield tf.compensate_all(parallel=parallel))))
                case "sleep", [n]:
                    yield tf.sleep(n)
                    found.append(str((yield tf.now())))
                case "wait", [name, timeout]:
                    found.append(
                        (yield tf.wait_signal(name, timeout=timeout, default="late"))
                        if timeout
                        else (yield tf.wait_signal(name))
                    )
                case "either", [all_]:
                    got = yield tf.wait_signal(["a", "b"], all=all_)
                    found.append([each.payload for each in (got if all_ else [got])])
                case "look", []:
                    found.append([each.payload for each in (yield tf.inbox())])
                case "emit", [k]:
                    found.append((yield tf.emit(ping(k, start=k == 0))))
                case "hear", [k, timeout]:
                    pattern = {"type": ["Ping"], "k": [k]}
                    heard = yield tf.wait_activity(pattern, timeout=timeout, default={})
                    found.append(heard.get("k"))
                case "chance", []:
                    drawn = yield tf.side_effect(lambda: os.urandom(4).hex())
                    found.append([drawn, str((yield tf.uuid4())), (yield tf.random())])
                case "attribute", [n]:
                    yield tf.set_attributes(n=n)
                case "raise", []:
                    raise ValueError("as the program says")
                case "gather", [count, *parts]:
                    made = [run(part, refs, queue=queue) for part in parts]
                    count = min(count, len(made)) or None
                    found.append(len((yield tf.gather(*made, count=count))))
                case "race", parts:
                    made = [run(part, refs, queue=queue) for part in parts]
                    won = yield tf.race(*made)
                    found.append([won.index, won.value])
                case "child", [below]:
                    found.append((yield tf.child("play", {"program": below})))
                case "spawn", [below, abandon]:
                    ref = yield tf.spawn("play", {"program": below}, abandon=abandon)
                    refs.append(ref)
                case "join", [timeout]:
                    if refs:
                        ref = refs[-1]
                        found.append((yield tf.join(ref, timeout=timeout, default="late")))
                case "tell", [name]:
                    if refs:
                        try:
                            yield tf.signal(refs[-1], name)
                        except tf.StepFailed as failed:
                            found.append(str(failed.failure.type))
                case "cancel", []:
                    if refs:
                        yield tf.cancel(refs[-1])
                case "forgive", [part]:
                    try:
                        found.append((yield from run(part, refs, queue=queue)))
                    except (tf.TriggerflowError, ValueError) as error:
                        found.append(type(error).__name__)
                case "again", [rest]:
                    if top:
                        yield tf.compensate_all()
                        yield tf.continue_as_new({"program": rest, "refs": refs})
                case _:
                    raise AssertionError(f"no such op: {op} {args}")
        return found

    @app.flow
    def play(input):
        refs = list(input.get("refs", ()))
        try:
            queue = "far" if world.far else None
            found = yield from run(input["program"], refs, top=True, queue=queue)
        except (tf.TriggerflowError, ValueError, tf.FlowCancelled):
            yield tf.compensate_all()
            raise
        yield tf.compensate_all()
        return found

    @app.flow
    def heard(activity):
        return (yield tf.call(plain, activity["k"]))

    app.trigger("go", on="Go", start=play)
    app.trigger("go-too", on="Go", match={"twice": [True]}, start=play)
    app.trigger("heard", on="Ping", match={"start": [True]}, start=heard)
    return app


def ping(k, **more):
    return {"type": "Ping", "actor": ACTOR, "k": k, **more}


# --- the promises


class World:
    """What is known of a case from outside, and what was found wrong."""

    def __init__(self, codec):
        self.codec = codec
        self.findings = []
        self.broken = True
        self.far = False  # all calls are queued, not only those that say so
        self.crashes = 0
        self.logs = {}  # (number, generation) -> rows, as last read
        self.armed = defaultdict(set)  # id -> (generation, tag) that a commit armed or logged
        self.done = set()  # (id, generation, tag) with a result
        self.ends = {}  # id -> (status, value, ended)
        self.retried = set()  # ids on which `retry` was called since their end
        self.acked = {}  # id -> how it was told of
        self.activities = {}  # cid -> acknowledged firings, or None
        self.signals = {}  # payload -> (id, acknowledged)
        self.taken = Counter()  # payload -> entries that have it
        self.ids = {}
        self.last = {}  # number -> time of its last entry
        self.store = None
        self.ended = []  # records, at the end
        self.said = defaultdict(set)  # (id, generation, tag) -> what its heartbeats said
        self.first = {}  # key -> the one result that all its calls have
        self.queued = QueuedCalls(self)
        self.serial = itertools.count()

    def wrong(self, text):
        if len(self.findings) < 10:
            self.findings.append(text)

    def id_of(self, number):
        if number not in self.ids:
            ask = "SELECT public_id FROM instance WHERE id = ?"
            self.ids[number] = self.store._read(
                lambda db: db.execute(ask, (number,)).fetchone()[0]
            )
        return self.ids[number]

    # --- in each commit

    def committed(self, batch, outcomes):
        try:
            self.look_at_turns(batch, outcomes)
        except Exception as error:  # the engine would take it as the store's
            self.wrong(f"the world broke: {error!r}")
            raise

    def look_at_turns(self, batch, outcomes):
        for op, outcome in zip(batch.operations, outcomes, strict=True):
            if isinstance(op, Turn) and outcome.verdict is Verdict.APPLIED:
                self.turned(op)
        self.queued.committed(batch, outcomes)

    def turned(self, op):
        id = self.id_of(op.number)
        if id in self.ends and id not in self.retried:
            self.wrong(f"{id} took a turn after its end as {self.ends[id][0]}")
        for tag in decode_pending(self.codec.decode(op.pending)):
            self.armed[id].add((op.generation, tag))
        self.log_grew(id, op.number, op.generation)
        if op.status in ENDED:
            self.ends.pop(id, None)
            self.retried.discard(id)

    def log_grew(self, id, number, generation):
        rows = self.store.log(number, generation)
        known = self.logs.get((number, generation), [])
        if rows[: len(known)] != known:
            self.wrong(f"the log of {id} changed: {known} became {rows}")
        self.logs[number, generation] = rows
        if [row.position for row in rows] != list(range(len(rows))):
            self.wrong(f"the log of {id} has the positions {[row.position for row in rows]}")
        for row in rows[len(known) :]:
            if row.at < self.last.get(number, 0.0):
                self.wrong(f"time went back at {row.tag} of {id}")
            self.last[number] = row.at
            self.armed[id].add((generation, row.tag))
            if not row.failed:
                self.done.add((id, generation, row.tag))
                self.queued.recorded((number, generation, row.tag), row.value)
                if "call:first#" in row.tag:
                    known = self.first.setdefault(row.digest, row.value)
                    if row.value != known:
                        self.wrong(f"{row.tag} of {id} has not the first result of its key")
                if kind_of(row.tag) == "wait_signal":
                    text = str(self.codec.decode(row.value))
                    self.taken.update(re.findall(r"sig:\d+", text))
        seen, before = [], None
        for row in rows:
            if row.tag != "retried":
                seen.append(row.tag)
            elif before is not None and before.failed:
                # It voids this failure, so that its effect waits again.
                seen.pop()
            before = row
        if len(set(seen)) < len(seen):
            self.wrong(f"a tag stands twice in the log of {id}: {seen}")

    # --- as a step begins

    def step_begins(self):
        at = tf.step_context()
        if (at.generation, at.tag) not in self.armed[at.instance]:
            self.wrong(f"{at.tag} of {at.instance} runs before the commit that arms it")
        if (at.instance, at.generation, at.tag) in self.done:
            self.wrong(f"{at.tag} of {at.instance} runs again after its result was durable")
        return at

    def look_at_details(self, at):
        said = self.said[at.instance, at.generation, at.tag]
        if at.details is not None and tuple(at.details) not in said:
            self.wrong(f"{at.tag} of {at.instance} finds {at.details}, said were {said}")

    # --- after each act

    def look(self):
        """What holds at any time."""
        records = self.records()
        known = {record.id for record in records}
        for id, how in self.acked.items():
            if id not in known:
                self.wrong(f"{id} is lost; it was acknowledged by {how}")
        unread = Counter()
        for record in records:
            self.look_at(record)
            for row in self.store.inbox(record.number):
                if row.kind == "signal":
                    unread.update(re.findall(r"sig:\d+", str(self.codec.decode(row.payload))))
                if record.status in ("done", "cancelled"):
                    self.wrong(f"{record.id} has ended, and its inbox has {row}")
        status = {record.id: record.status for record in records}
        for payload, (id, acked) in self.signals.items():
            found = self.taken[payload] + unread[payload]
            least = acked and status[id] not in ("done", "cancelled")
            if not least <= found <= 1:
                self.wrong(
                    f"signal {payload} to {id}, acknowledged: {acked}, stands"
                    f" {self.taken[payload]} times in logs, {unread[payload]} in the inbox"
                )
        self.look_at_waits(records)
        self.look_at_activities(known)
        self.queued.look(records)

    def records(self):
        return self.store.instances(limit=100_000)

    def look_at(self, record):
        if record.log_length != len(self.logs.get((record.number, record.generation), ())):
            self.wrong(f"{record.id}: log_length {record.log_length} is not its log's")
        if record.status in ENDED:
            end = (record.status, record.value, record.ended)
            if record.owner is not None:
                self.wrong(f"{record.id} has ended and is owned")
            if self.ends.get(record.id) != end and record.id in self.retried:
                # Ended by hand after a retry.
                self.ends[record.id] = end
                self.retried.discard(record.id)
            if self.ends.setdefault(record.id, end) != end:
                self.wrong(f"the end of {record.id} changed: {self.ends[record.id]} to {end}")
        elif record.id in self.ends and record.id not in self.retried:
            self.wrong(f"{record.id} was {self.ends[record.id]}, is {record.status}")

    def look_at_waits(self, records):
        open_ = {record.number: record for record in records if record.status in OPEN}
        for wait in self.store.waits():
            record = open_.get(wait.instance)
            if record is None or wait.generation != record.generation:
                self.wrong(f"the wait {wait.tag} of {self.id_of(wait.instance)} is left over")

    def look_at_activities(self, known):
        stored = {each.cid for each in self.store.activities(0, 100_000)}
        for cid, firings in self.activities.items():
            if cid not in stored:
                self.wrong(f"activity {cid} is lost")
            elif firings is not None:
                found = [(each.trigger_cid, each.instance) for each in self.store.firings(cid)]
                if found != firings:
                    self.wrong(f"{cid} fired {found}, acknowledged were {firings}")
        for cid in stored:
            firings = self.store.firings(cid)
            if len({each.trigger_cid for each in firings}) < len(firings):
                self.wrong(f"a pair fired twice: {firings}")
            for each in firings:
                if each.instance not in known:
                    self.wrong(f"{each} has no instance")

    # --- at the end

    def look_back(self):
        """What holds once everything was answered."""
        self.ended = records = self.records()
        pairs = Counter((each.activity, each.trigger_cid) for each in records if each.activity)
        if pairs and max(pairs.values()) > 1:
            self.wrong(f"a pair started two instances: {pairs}")
        made = {}
        for record in records:
            for generation, tag in self.armed[record.id]:
                made[child_id(record.id, generation, tag)] = (record.id, tag)
        for record in records:
            if record.parent is not None:
                parent, tag = made.get(record.id, (None, ""))
                if parent != record.parent or kind_of(tag) not in ("spawn", "child"):
                    self.wrong(f"{record.id}, child of {record.parent}, was made by {parent}")
        known = {record.id for record in records}
        for child, (parent, tag) in made.items():
            spawned = any(
                (parent, generation, tag) in self.done
                for generation in range(1, 1 + max(g for g, _ in self.armed[parent]))
                if child_id(parent, generation, tag) == child
            )
            if kind_of(tag) == "spawn" and spawned and child not in known:
                self.wrong(f"{tag} of {parent} made {child}, which isn't there")
        if self.store.outbox(10):
            self.wrong("the outbox is not empty")
        self.look_at_debts(records)
        self.look_at_payments()

    def values(self, number, word):
        """What entries of one instance say: (word, n) -> how often."""
        found = Counter()
        for (each, _), rows in self.logs.items():
            if each == number:
                for row in rows:
                    value = None if row.failed else self.codec.decode(row.value)
                    says = isinstance(value, list) and len(value) == 2 and value[0] == word
                    if says and kind_of(row.tag) in ("call", "compensate"):
                        found[value[1]] += 1
        return found

    def look_at_debts(self, records):
        for record in records:
            held = self.values(record.number, "held")
            undone = self.values(record.number, "undone")
            if undone and max(undone.values()) > 1:
                self.wrong(f"{record.id} undid twice: {undone}")
            if not self.terminated(record) and not held.keys() <= undone.keys():
                self.wrong(f"{record.id} ended {record.status}, held {held}, undid {undone}")

    def terminated(self, record):
        return (
            record.status == "cancelled"
            and Failure.from_record(self.codec.decode(record.value)).type == "Terminated"
        )

    def look_at_payments(self):
        ask = "SELECT 1 FROM sqlite_master WHERE name = 'paid'"
        if not self.store._read(lambda db: db.execute(ask).fetchone()):
            return
        ask = "SELECT instance, generation, tag FROM paid"
        rows = self.store._read(lambda db: [tuple(row) for row in db.execute(ask)])
        if len(set(rows)) < len(rows):
            self.wrong(f"paid twice: {rows}")
        results = {each for each in self.done if "call:pay#" in each[2]}
        if not results <= set(rows):
            self.wrong(f"paid nothing for {results - set(rows)}")

    async def replay(self, engine):
        """The replay of every instance that ended is its stored end."""
        for record in self.records():
            if self.terminated(record):
                continue
            found = await engine.replay(record.id)
            stored = await engine.get(record.id)
            if record.status == "done":
                same = found == tf.Done(stored.result)
            else:
                a, b = getattr(found, "failure", None), stored.failure
                same = a and (a.type, a.message, a.kind) == (b.type, b.message, b.kind)
                same = same and (record.status == "cancelled") == (a.kind == "cancelled")
            if not same:
                self.wrong(f"{record.id} ended as {stored}, its replay as {found}")


class QueuedCalls:
    """What is known of the tasks, commit by commit, and what must hold of them.

    A call is (number of its instance, generation, tag).
    """

    def __init__(self, world):
        self.world = world
        self.rows = {}  # call -> (task, owner, token, due), as last seen
        self.token = 0  # the largest that a claim gave
        self.answered = set()  # tokens
        self.values = {}  # call -> what its last answer brought
        self.counts = Counter()

    def read(self):
        ask = "SELECT instance, generation, tag, id, owner, token, due FROM task"
        rows = self.world.store._read(lambda db: db.execute(ask).fetchall())
        return {tuple(row[:3]): tuple(row[3:]) for row in rows}

    def alive(self):
        ask = "SELECT id FROM worker"
        return {id for (id,) in self.world.store._read(lambda db: db.execute(ask).fetchall())}

    # --- in each commit

    def committed(self, batch, outcomes):
        before, self.rows = self.rows, self.read()
        over = set()  # calls with their last answer
        turned = {}
        for op, outcome in zip(batch.operations, outcomes, strict=True):
            if isinstance(op, FinishTask) and outcome.verdict is Verdict.APPLIED:
                self.answer(op, batch.worker[0], before)
                if op.final:
                    over.add((op.number, op.generation, op.tag))
            elif isinstance(op, Turn) and outcome.verdict is Verdict.APPLIED:
                turned[op.number] = self.waits(op.number, op.generation, op.pending)
            elif isinstance(op, ClaimTasks):
                for task in sorted(outcome.tasks, key=lambda task: task.token):
                    self.claimed(task, batch.worker[0], before)
        # What a turn leaves pending and what is queued are one.
        for number, waits in turned.items():
            left = {call for call in self.rows if call[0] == number} - waits
            if left:
                self.world.wrong(f"the tasks of {left} are left over by a turn")
        if over & self.rows.keys():
            self.world.wrong(f"{over & self.rows.keys()} are queued after their last answer")
        alive = None
        for call, (task, owner, token, _) in before.items():
            row = self.rows.get(call)
            if row is None or row[0] != task:
                self.counts["withdrawn"] += call not in over
                self.counts["withdrawn while held"] += call not in over and owner is not None
                continue
            if row[2] < token:
                self.world.wrong(f"the token of {call} fell from {token} to {row[2]}")
            if owner is not None and row[1] not in (None, owner):
                alive = self.alive() if alive is None else alive
                if owner in alive:
                    self.world.wrong(f"{call} has two holders: {owner} lives, {row[1]} has it")

    def claimed(self, task, worker, before):
        call = (task.number, task.generation, task.tag)
        if task.token <= self.token:
            self.world.wrong(f"{call} was claimed under {task.token}, after {self.token}")
        self.token = max(self.token, task.token)
        self.counts["claimed"] += 1
        self.counts["claimed again"] += task.attempt > 1
        if self.rows.get(call, ())[1:3] != (worker, task.token):
            self.world.wrong(
                f"{call} was claimed as {task}, and stands as {self.rows.get(call)}"
            )
        if call in before and before[call][3] is None:
            self.world.wrong(f"{call} was claimed while its flow decided")

    def answer(self, op, worker, before):
        call = (op.number, op.generation, op.tag)
        self.counts["answered"] += 1
        if before.get(call, ())[:3] != (op.task, worker, op.token):
            self.world.wrong(f"{call} was answered by {op}, and stood as {before.get(call)}")
        if op.token in self.answered:
            self.world.wrong(f"{call} was answered twice under {op.token}")
        self.answered.add(op.token)
        self.values[call] = Answer.decode(op.payload, self.world.codec).value
        if call not in self.letters():
            self.world.wrong(f"the answer of {call} is in no inbox")

    def recorded(self, call, value):
        """A result in the log is that of the last answer."""
        if call in self.values and "call:first#" not in call[2] and self.values[call] != value:
            self.world.wrong(f"the log has another result of {call} than its answer")

    def waits(self, number, generation, pending):
        """The queued calls in a pending set."""
        kept = decode_pending(self.world.codec.decode(pending))
        return {(number, generation, tag) for tag, each in kept.items() if each.queue}

    # --- after each act

    def letters(self):
        """How many answers to each call nobody has read."""
        ask = "SELECT instance, name, payload FROM inbox WHERE kind = 'task' AND consumed = 0"
        rows = self.world.store._read(lambda db: db.execute(ask).fetchall())
        return Counter(
            (number, Answer.decode(payload, self.world.codec).generation, name)
            for number, name, payload in rows
        )

    def look(self, records):
        """A queued call waits as a task, or its answer lies in the inbox; nothing is left."""
        rows, letters = self.read(), self.letters()
        waits = set()
        for record in records:
            if record.status in OPEN and record.pending is not None:
                waits |= self.waits(record.number, record.generation, record.pending)
        for call in waits:
            if letters[call] > 1:
                self.world.wrong(f"{call} has {letters[call]} answers")
            if call not in rows and not letters[call]:
                self.world.wrong(f"{call} is lost: no task, no answer")
        for call, (_, owner, _, due) in rows.items():
            if call not in waits:
                self.world.wrong(f"the task of {call} is left over")
            elif due is None and (owner is not None or not letters[call]):
                self.world.wrong(f"{call} waits for its flow, which has heard nothing")
        ended = {record.number for record in records if record.status in ENDED}
        for table in ("task_answer", "progress"):
            ask = f"SELECT DISTINCT instance FROM {table}"
            found = self.world.store._read(lambda db, ask=ask: db.execute(ask).fetchall())
            for (number,) in found:
                if number in ended:
                    self.world.wrong(f"{self.world.id_of(number)} has ended; {table} has a row")


class Checked:
    """A store whose commits the world looks at."""

    def __init__(self, store, world):
        self.store = store
        self.world = world

    def __getattr__(self, name):
        return getattr(self.store, name)

    def commit(self, batch):
        outcomes = self.store.commit(batch)
        self.world.committed(batch, outcomes)
        return outcomes


class Mortal(CrashingStore):
    """Dies at a write that is named while it lives."""

    def die_in(self, writes, *, after):
        self._at, self._after = self.writes + writes, after

    def open(self):
        self._at = None
        super().open()


# --- what is done to the flows and to the engine


class Story:
    """One case as it is carried out."""

    def __init__(self, case, world, store):
        self.case = case
        self.world = world
        self.store = store

    async def within(self, doing, what):
        with trio.move_on_after(PATIENCE) as scope:
            await doing
        if scope.cancelled_caught:
            self.world.wrong(f"{what} takes for ever")

    async def do(self, engine, act):
        verb, *args = act
        await getattr(self, verb)(engine, *args)

    async def start(self, engine, program, key):
        with contextlib.suppress(tf.KeyTaken):
            id = await engine.start("play", {"program": program}, key=key)
            self.world.acked[id] = "start"

    async def append(self, engine, program, twice):
        await self.acknowledged(
            engine, {"type": "Go", "actor": ACTOR, "program": program, "twice": twice}
        )

    async def ping(self, engine, k):
        await self.acknowledged(engine, ping(k, start=k == 0))

    async def acknowledged(self, engine, document):
        document = json.loads(json.dumps(document))
        found = await engine.append(document)
        told = None
        if found.firings is not None:
            told = [(each.trigger_cid, each.instance_id) for each in found.firings]
            self.world.acked.update((id, "append") for _, id in told)
        self.world.activities[found.cid] = told

    def target(self, index, *statuses):
        """The id of one of the instances there are, if any."""
        ids = [
            record.id
            for record in self.world.records()
            if not statuses or record.status in statuses
        ]
        return ids[index % len(ids)] if ids else None

    async def signal(self, engine, index, name, dedup):
        if (id := self.target(index, *OPEN)) is None:
            return
        await self.send(engine, id, name, dedup)

    async def send(self, engine, id, name, dedup=None):
        payload = f"sig:{next(self.world.serial)}"
        if dedup is not None:
            # A repeat says the same.
            payload = next(
                (p for p, (*_, key) in self.dedups.items() if key == (id, name, dedup)),
                payload,
            )
            self.dedups[payload] = (None, (id, name, dedup))
        acked = self.world.signals.get(payload, (id, False))[1]
        self.world.signals[payload] = (id, acked)
        with contextlib.suppress(tf.InstanceEnded):
            stored = await engine.signal(id, name, payload, dedup=dedup)
            if stored and acked:
                self.world.wrong(f"a repeat of {payload} to {id} was stored again")
            self.world.signals[payload] = (id, True)

    @property
    def dedups(self):
        return self.__dict__.setdefault("_dedups", {})

    async def cancel(self, engine, index):
        if (id := self.target(index, *OPEN)) is not None:
            with contextlib.suppress(tf.InstanceEnded):
                await engine.cancel(id)

    async def terminate(self, engine, index):
        if (id := self.target(index, *OPEN)) is not None:
            with contextlib.suppress(tf.InstanceEnded):
                await engine.terminate(id)

    async def retry(self, engine, index):
        if (id := self.target(index, "failed")) is not None:
            self.world.retried.add(id)
            with contextlib.suppress(tf.InstanceConflict):
                await engine.retry(id)

    async def mend(self, engine, broken):
        self.world.broken = broken

    async def pause(self, engine, seconds):
        await trio.sleep(seconds)

    async def idle(self, engine):
        await engine.run_until_idle()

    async def together(self, engine, acts):
        async with trio.open_nursery() as nursery:
            for act in acts:
                nursery.start_soon(self.do, engine, act)

    async def crash(self, engine, writes, after):
        self.store.die_in(writes, after=after)

    async def die(self, engine):
        engine._fatal(Crash())
        await trio.sleep_forever()

    async def settle(self, engine):
        """Answer everything until all has ended."""
        self.world.broken = False
        for _ in range(ROUNDS):
            await engine.run_until_idle()
            left = [record for record in self.world.records() if record.status in OPEN]
            if not left:
                return
            for record in left:
                if record.status == "blocked":
                    if record.cause != "crash_limit" or self.world.crashes < CRASH_LIMIT:
                        self.world.wrong(f"{record.id} is blocked: {record.reason}")
                        return
                    await engine.unblock(record.id)
                for name in "ab":
                    await self.send(engine, record.id, name)
            for k in range(3):
                await self.acknowledged(engine, ping(k, n=next(self.world.serial)))
            await trio.sleep(100)
        self.world.wrong(f"never ended: {[(r.id, r.status, r.flow, r.owner) for r in left]}")


def served(case, clock, chosen, *, only_queues=False):
    """The settings of an engine: somebody must serve the queue."""
    options = virtual_settings(clock) | chosen
    if options.pop("serves") or case["peer"] is None:
        options["queues"] = ["far"]
    if case["peer"] is not None:
        # Each must look now and then at what the other one has written.
        options["lease"] = 30.0
    if only_queues:
        options |= {"queues": ["far"], "only_queues": True}
    return options


async def lives(case, story, make_app, clock):
    """Engine after engine, until the acts are done and everything has ended."""
    acts = iter(case["acts"])
    config = itertools.cycle(case["settings"])
    world, over = story.world, False
    while not over:
        try:
            options = served(case, clock, next(config))
            async with make_app(story.store).open(**options) as engine:
                world.look()
                for act in acts:
                    if act[0] == "restart":
                        break
                    await story.within(story.do(engine, act), act)
                    world.look()
                else:
                    await story.within(story.settle(engine), "the end")
                    world.look()
                    world.look_back()
                    await world.replay(engine)
                    over = True
        except Crash:
            world.crashes += 1
        except BaseExceptionGroup as group:
            if group.subgroup(Crash) is None:
                raise
            world.crashes += 1


def play(case, folder=None):
    """Carry a case out.

    Raises:
        AssertionError: a promise was broken.
    """
    inner = MemoryStore() if folder is None else SqliteStore(folder / "machine.db")
    world = World(tf.App(MemoryStore(), entry_points=False).codec)
    world.far = case["far"]
    store = Mortal(Checked(inner, world))
    # The world looks on while the engine is down.
    world.store = inner if folder is None else SqliteStore(folder / "machine.db")
    world.store.open()
    story = Story(case, world, store)
    # Ids and seeds are chance; here they are the same in every run of a case.
    chance = pytest.MonkeyPatch()
    chance.setattr(clock_module, "_SECRET", b"machine")
    chance.setattr(clock_module, "_counter", itertools.count())
    # Importing Hypothesis has made trio take its tasks in an order that this gives.
    trio._core._run._r.seed(case["seed"])

    async def main():
        clock = LoopClock()
        async with trio.open_nursery() as nursery:
            if case["peer"] is not None:
                await nursery.start(peer, case, folder, world, clock)
            await lives(case, story, lambda store: play_app(store, world), clock)
            nursery.cancel_scope.cancel()

    try:
        run_virtually(main)
    finally:
        chance.undo()
        inner.abandon()
        world.store.abandon()
    if world.findings:
        raise AssertionError("\n".join(world.findings))
    return world


async def peer(case, folder, world, clock, task_status):
    """A second engine on the same file, which doesn't die."""
    store = Checked(SqliteStore(folder / "machine.db"), world)
    only = case["peer"] == "queue"
    options = served(case, clock, case["settings"][-1] | {"serves": True}, only_queues=only)
    async with play_app(store, world).open(**options):
        task_status.started()
        await trio.sleep_forever()


# --- cases

NAMES = st.sampled_from(["a", "b"])
SMALL = st.integers(0, 3)
SECONDS = st.sampled_from([0, 1, 2, 5, 30])
LIMIT = st.sampled_from([None, 1, 2, 20])


def op(word, *args):
    return st.tuples(st.just(word), *args)


CALLS = st.one_of(
    op("plain", SMALL),
    op("slow", SECONDS, LIMIT),
    op("flaky", SMALL),
    op("hold", st.booleans()),
    op("beat", SMALL),
    op("first", SMALL),
    op("fragile"),
)
LEAVES = st.one_of(
    CALLS,
    op("far", st.lists(CALLS, min_size=1, max_size=3)),
    op("pay", SMALL),
    op("sleep", SECONDS),
    op("wait", NAMES, LIMIT),
    op("either", st.booleans()),
    op("look"),
    op("emit", SMALL),
    op("hear", SMALL.filter(lambda k: k < 3), LIMIT),
    op("chance"),
    op("attribute", SMALL),
    op("join", LIMIT),
    op("tell", NAMES),
    op("cancel"),
    op("undo", st.booleans()),
    op("raise"),
)


def programs(depth):
    """Lists of ops, nested so deep at most."""
    if depth == 0:
        return st.lists(LEAVES, min_size=1, max_size=4)
    below = programs(depth - 1)
    nodes = st.one_of(
        LEAVES,
        LEAVES,
        op("gather", st.integers(0, 2), below, below),
        op("race", below, below),
        op("child", below),
        op("spawn", below, st.booleans()),
        op("forgive", below),
        op("far", below),
        op("again", below),
    )
    return st.lists(nodes, min_size=1, max_size=5)


PROGRAMS = programs(2)
INDEX = st.integers(0, 9)
VERBS = st.one_of(
    op("start", PROGRAMS, st.sampled_from([None, None, "one", "two"])),
    op("append", PROGRAMS, st.booleans()),
    op("signal", INDEX, NAMES, st.sampled_from([None, None, "d", "e"])),
    op("ping", SMALL),
    op("cancel", INDEX),
    op("terminate", INDEX),
    op("retry", INDEX),
)
ACTS = st.one_of(
    VERBS,
    VERBS,
    op("together", st.lists(VERBS, min_size=2, max_size=4)),
    op("pause", SECONDS),
    op("idle"),
    op("mend", st.booleans()),
    op("crash", st.integers(1, 12), st.booleans()),
    op("die"),
    op("restart"),
)
SETTINGS = st.fixed_dictionaries(
    {
        "keep_warm": st.sampled_from([1000, 0, 1]),
        "always_replay": st.booleans(),
        "capacity": st.sampled_from([2000, 1, 2]),
        "deferred": st.booleans(),
        "threads": st.sampled_from([32, 1, 2]),
        "serves": st.booleans(),
    }
)


def cases(peers=st.none()):
    """All that makes up a case."""
    first = op("start", PROGRAMS, st.none())
    return st.fixed_dictionaries(
        {
            "seed": st.integers(0, 2**16),
            "acts": st.tuples(first, st.lists(ACTS, max_size=16)).map(lambda x: [x[0], *x[1]]),
            "settings": st.lists(SETTINGS, min_size=1, max_size=3),
            "peer": peers,
            "far": st.booleans(),
        }
    )


def numbered(found):
    """A case whose holds have numbers of their own: what is undone twice must show."""
    numbers = itertools.count()

    def walk(part):
        if isinstance(part, tuple) and part and part[0] == "hold":
            return ["hold", part[1], next(numbers)]
        if isinstance(part, list | tuple):
            return [walk(each) for each in part]
        return part

    return {**found, "acts": walk(found["acts"])}


def usual(examples):
    return settings(
        max_examples=EXAMPLES or examples,
        deadline=None,
        database=None,
        print_blob=True,
        derandomize=not EXAMPLES,
        suppress_health_check=list(HealthCheck),
    )


def told(world):
    """What the cases had in them, for ``--hypothesis-show-statistics``."""
    event(f"crashes: {min(world.crashes, 3)}")
    for what, count in world.queued.counts.items():
        if count:
            event(f"queued calls {what}")


@pytest.mark.timeout(0 if EXAMPLES else 120)
@pytest.mark.slow
@usual(150)
@given(cases())
def test_any_program_in_memory(case):
    """Whatever is asked of the engine and wherever it dies, no promise is broken."""
    told(play(numbered(case)))


@pytest.mark.timeout(0 if EXAMPLES else 120)
@pytest.mark.slow
@usual(30)
@given(cases(peers=st.sampled_from([None, "flows", "queue"])))
def test_any_program_on_a_file(tmp_path_factory, case):
    """The same on SQLite, beside a second engine that works on the same file."""
    told(play(numbered(case), tmp_path_factory.mktemp("machine")))


# --- what the machine has found


def program_case(*acts, **settings):
    return {
        "seed": 0,
        "acts": [list(act) for act in acts],
        "settings": [{"serves": True} | settings],
        "peer": None,
        "far": False,
    }


def test_emit_beside_a_turn_that_tells_nobody():
    """An activity that is emitted is dispatched at once, whichever turns share its commit."""
    children = [["spawn", [], True], ["spawn", [["emit", 0]], True]]
    world = play(program_case(("start", children, None)))
    assert sorted(record.flow for record in world.ended) == ["heard", "play", "play", "play"]


@pytest.mark.parametrize("mended", [False, True])
def test_retried_parent_waits_for_the_child_that_it_has(mended):
    """A retry of what failed with its child starts no second one, and hears the first."""
    world = play(
        program_case(
            ("start", [["child", [["fragile"]]]], None),
            ("pause", 1),
            ("mend", not mended),
            ("retry", 1),
            ("pause", 1),
            ("retry", 0),
            ("pause", 1),
        )
    )
    assert [record.status for record in world.ended] == ["done" if mended else "failed"] * 2


# --- the machine sees it where a guarantee is taken away


def finds(what):
    """Whether any of the usual cases shows a broken promise, and says so."""

    @settings(usual(150), phases=[Phase.generate], print_blob=False)
    @given(cases())
    def hunt(case):
        play(numbered(case))

    with pytest.raises(AssertionError, match=what):
        hunt()


def test_machine_sees_results_that_are_not_kept(monkeypatch):
    """With results left out of the log, a step that had one runs again."""

    def forgetful(run, replay, **options):
        taken = turn_module.take(run, replay, **options)
        kept = tuple(row for row in taken.operation.entries if "call:plain#" not in row.tag)
        taken.operation.entries = kept
        return taken

    monkeypatch.setattr(executor_module, "take", forgetful)
    finds("log_length|replay|blocked|never ended")


def test_machine_sees_parents_that_hear_nothing(monkeypatch):
    """With the end of a child not written for its parent, the parent never ends."""
    monkeypatch.setattr(kin, "tell_parents", lambda *_: [])
    finds("never ended")


def test_machine_sees_messages_that_are_left_over(monkeypatch):
    """With the inbox of what has ended not emptied, its messages stay."""
    monkeypatch.setattr(kin, "clear_inboxes", lambda *_: None)
    finds("its inbox has")


def test_machine_sees_signals_that_are_taken_twice(monkeypatch):
    """With what a turn consumed left in the inbox, a signal is taken again."""

    def keeping(run, replay, **options):
        taken = turn_module.take(run, replay, **options)
        taken.operation.consumed = ()
        return taken

    monkeypatch.setattr(executor_module, "take", keeping)
    finds("signal|its inbox has")


def test_machine_sees_tasks_that_are_not_withdrawn(monkeypatch):
    """With the task kept of a call that its flow gave up, it is left over."""
    monkeypatch.setattr(tasks, "withdraw", lambda *_: None)
    finds("are left over by a turn")


def test_machine_sees_answers_that_tell_nobody(monkeypatch):
    """With the answer to a queued call not put into its flow's inbox, it is lost."""
    monkeypatch.setattr(kin, "post", lambda *_: Told())
    finds("is in no inbox")


def test_machine_sees_tasks_that_outlive_their_answer(monkeypatch):
    """With the task kept of a call that was answered for good, it runs again."""
    answer = tasks._answer

    def kept(db, op):
        answer(db, attrs.evolve(op, final=False))
        db.execute("UPDATE task SET due = 0 WHERE id = ?", (op.task,))

    monkeypatch.setattr(tasks, "_answer", kept)
    finds("are queued after their last answer")


def test_machine_sees_tokens_that_are_given_twice(monkeypatch):
    """With tokens numbered task by task, two claims share one."""
    take = tasks._take

    def forgetful(db, worker, ids):
        db.execute("UPDATE meta SET value = 0 WHERE name = 'token'")
        return take(db, worker, ids)

    monkeypatch.setattr(tasks, "_take", forgetful)
    finds("was claimed under")
