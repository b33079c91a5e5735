"""What a batch is about: locked in one order, read in one go, before anything is decided.

All batches lock in one order: the worker's row, the registry (shared), CIDs (by inserting
them), what flow control keeps, where it may be touched, waits likewise (see `flow`),
instances, outbox rows, tasks, each kind in the order of its keys. So no two of them wait for
each other in a ring. What is locked can't change until the batch commits, and what is read is
read after the locks, so whoever waited for another batch sees all that it wrote.

Whom a firing's letter or a newcomer's place concerns, only the decision tells: these
instances are locked late, by `Standing.fetch`. Should that close a ring, the server breaks it,
and the loser is redone (see `writer`).

Only the keys of starts and the pairs of recorded results can't be locked before they exist.
Two batches that claim one at the same moment meet in a unique index; the later one is redone,
and finds the other's row (see `writer`).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from itertools import chain
from typing import TYPE_CHECKING, Any, Final

import attrs

from triggerflow.store.acts import (
    AwaitChild,
    CancelChild,
    RecordResult,
    SendMessage,
    SpawnChild,
)
from triggerflow.store.operations import (
    Advance,
    Append,
    Block,
    Dispatch,
    Heartbeat,
    Redispatch,
    Release,
    Send,
    Start,
    Terminate,
    Turn,
    Unblock,
)
from triggerflow.store.postgres import flow as control
from triggerflow.store.postgres.columns import Ints, Texts, columns
from triggerflow.store.records import ENDED
from triggerflow.store.tasks import FinishTask, TaskHeartbeat
from triggerflow.store.waits import Watched

if TYPE_CHECKING:
    from triggerflow.store.newcomer import NewInstance
    from triggerflow.store.postgres.wire import Answer, Db

Items = list[tuple[int, Any]]
Key = tuple[str, str, str]
Call = tuple[int, int, str]


@attrs.define(slots=True)
class Stand:
    """An instance's row, locked. What this batch does to it is kept up to date here.

    `wide`: its pending set is in rows of its own.
    """

    number: int
    id: str
    status: str
    owner: int | None
    generation: int
    log_length: int
    cancelled: bool
    parent: int | None
    awaited: bool
    abandoned: bool
    value: bytes | None
    awaits: str | None = None
    parked_by: int | None = None
    wide: bool | None = False
    held: int = 0

    @property
    def live(self) -> bool:
        """Whether it hasn't ended."""
        return self.status not in ENDED


@attrs.define(slots=True)
class Holder:
    """Who holds a business key, and with what input."""

    id: str
    input: bytes
    digest: bytes | None

    def same(self, new: NewInstance) -> bool:
        """Whether a newcomer has the same input; its bytes may differ in the order of keys."""
        if new.digest is not None and self.digest is not None:
            return new.digest == self.digest
        return new.input == self.input


@attrs.define(slots=True)
class TaskStand:
    """A task's row, locked."""

    id: int
    call: Call
    owner: int | None
    token: int


_ROW: Final = (
    "SELECT i.id, i.public_id, i.status, i.owner, i.generation, i.log_length, i.cancelled,"
    " i.parent, i.awaited, i.abandoned, i.value, i.awaits, i.parked_by, i.pending = '', i.held"
    " FROM instance i"
)
_LOCK: Final = f"{_ROW} WHERE i.id = ANY(%s) ORDER BY i.id FOR NO KEY UPDATE OF i"
_LOCK_OWNED: Final = (
    f"{_ROW} WHERE i.id IN (SELECT unnest(%s) UNION SELECT n.id FROM instance n"
    " WHERE n.owner = %s AND n.status = 'running') ORDER BY i.id FOR NO KEY UPDATE OF i"
)
# Ids and parents never change, so they may be looked up before the lock.
_LOCK_WIDE: Final = (
    f"{_ROW} WHERE i.id IN (SELECT unnest(%s) UNION SELECT n.id FROM unnest(%s) AS u"
    " JOIN instance n ON n.public_id = u UNION SELECT n.parent FROM unnest(%s) AS u"
    " JOIN instance n ON n.id = u UNION SELECT n.parent FROM unnest(%s) AS u"
    " JOIN instance n ON n.public_id = u UNION SELECT w.instance FROM unnest(%s) AS u"
    " JOIN wait w ON w.id = u UNION SELECT c.id FROM unnest(%s) AS u"
    " JOIN instance c ON c.parent = u AND c.status IN ('running', 'waiting', 'blocked')"
    " UNION SELECT c.id FROM unnest(%s) AS u JOIN instance n ON n.public_id = u"
    " JOIN instance c ON c.parent = n.id AND c.status IN ('running', 'waiting', 'blocked'))"
    " ORDER BY i.id FOR NO KEY UPDATE OF i"
)
# A parent's children, once nobody can give it another one.
_CHILDREN: Final = (
    f"{_ROW} WHERE i.status IN ('running', 'waiting', 'blocked') AND i.id IN (SELECT c.id"
    " FROM unnest(%s) AS u JOIN instance c ON c.parent = u UNION SELECT c.id"
    " FROM unnest(%s) AS u JOIN instance n ON n.public_id = u"
    " JOIN instance c ON c.parent = n.id) ORDER BY i.id FOR NO KEY UPDATE OF i"
)
_KIN: Final = (
    "SELECT c.id FROM unnest(%s) AS u JOIN instance c ON c.parent = u"
    " AND c.status IN ('running', 'waiting', 'blocked') UNION SELECT n.parent"
    " FROM unnest(%s) AS u JOIN instance n ON n.id = u WHERE n.parent IS NOT NULL"
)
_UNREAD: Final = (
    "SELECT x.instance, x.kind, x.name FROM unnest(%s, %s) AS u (id, seen)"
    " JOIN inbox x ON x.instance = u.id AND x.id > u.seen AND NOT x.consumed"
)
_HOLDERS: Final = (
    "SELECT i.namespace, i.flow, i.key, i.public_id, g.input, g.digest"
    " FROM unnest(%s, %s, %s) AS k (namespace, flow, key)"
    " JOIN instance i ON i.namespace = k.namespace AND i.flow = k.flow AND i.key = k.key"
    " AND i.status IN ('running', 'waiting', 'blocked')"
    " JOIN generation g ON g.instance = i.id AND g.generation = 1"
)
_RIVALS: Final = (
    "SELECT m.public_id, m.namespace, m.flow, m.key, g.input, g.digest, r.public_id"
    " FROM unnest(%s) AS u JOIN instance m ON m.public_id = u AND m.key IS NOT NULL"
    " JOIN generation g ON g.instance = m.id AND g.generation = 1"
    " LEFT JOIN instance r ON r.namespace = m.namespace AND r.flow = m.flow AND r.key = m.key"
    " AND r.status IN ('running', 'waiting', 'blocked')"
)
_DEDUPS: Final = (
    "SELECT i.public_id, x.name, x.dedup, x.digest, x.kind"
    " FROM unnest(%s, %s, %s) AS k (id, name, dedup) JOIN instance i ON i.public_id = k.id"
    " JOIN inbox x ON x.instance = i.id AND x.name = k.name AND x.dedup = k.dedup"
)
_RECORDED: Final = (
    "SELECT r.step, r.key, r.value FROM unnest(%s, %s) AS k (step, key)"
    " JOIN recorded r ON r.step = k.step AND r.key = k.key"
)
_OUTBOX: Final = (
    "SELECT o.id, a.cid, a.depth, ARRAY(SELECT f.trigger_spec FROM firing f"
    " WHERE f.activity = o.activity) FROM outbox o JOIN activity a ON a.seq = o.activity"
    " WHERE o.id = ANY(%s) ORDER BY o.id FOR UPDATE OF o"
)
_TASKS: Final = (
    "SELECT t.id, t.instance, t.generation, t.tag, t.owner, t.token FROM task t"
    " WHERE t.id IN (SELECT unnest(%s) UNION SELECT n.id FROM unnest(%s) AS u"
    " JOIN task n ON n.instance = u UNION SELECT n.id FROM unnest(%s) AS u"
    " JOIN instance i ON i.public_id = u JOIN task n ON n.instance = i.id)"
    " ORDER BY t.id FOR UPDATE OF t"
)
_ANSWERS: Final = (
    "SELECT a.instance, a.generation, a.tag, a.token, a.digest"
    " FROM unnest(%s, %s, %s) AS k (instance, generation, tag) JOIN task_answer a"
    " ON a.instance = k.instance AND a.generation = k.generation AND a.tag = k.tag"
)


class Standing:
    """What a batch found, and what it has decided so far.

    Attributes:
        db: the connection, in the batch's transaction.
        worker: who acts, or None if nobody may.
        loud: others have to be told that something happened.
        flow: it may touch what flow control keeps (see `flow`).
        unread: number of an instance that parks -> (kind, name) of messages that its turn
            hadn't seen.
    """

    def __init__(self, db: Db, worker: int | None, groups: dict[type, Items]) -> None:
        """Say what is to be locked and read; `gather` asks for it."""
        self.db = db
        self.worker = worker
        self.loud = False
        self.flow = False
        self.rows: dict[int, Stand] = {}
        self.by_id: dict[str, Stand] = {}
        self.children: dict[int, list[Stand]] = defaultdict(list)
        self.unread: dict[int, list[tuple[str, str]]] = defaultdict(list)
        self.keys: dict[Key, Holder] = {}
        self.key_of: dict[str, tuple[Key, Holder]] = {}
        self.dedups: dict[tuple[str, str, str], tuple[bytes | None, str]] = {}
        self.recorded: dict[tuple[str, str], bytes] = {}
        self.outbox: dict[int, tuple[str, int, frozenset[int]]] = {}
        self.tasks: dict[int, TaskStand] = {}
        self.task_of: dict[Call, TaskStand] = {}
        self.answers: dict[Call, tuple[int, bytes]] = {}
        self._groups = groups
        self._numbers: Iterator[int] = iter(())
        self._inbox: Iterator[int] = iter(())

    def ops(self, *kinds: type) -> list[Any]:
        """The batch's operations of these kinds, in their order."""
        if len(kinds) == 1:
            return [op for _, op in self._groups.get(kinds[0], ())]
        found = [item for kind in kinds for item in self._groups.get(kind, ())]
        return [op for _, op in sorted(found, key=lambda item: item[0])]

    def next_number(self) -> int:
        """The number of a new instance."""
        return next(self._numbers)

    def fetch(self, numbers: Sequence[int]) -> None:
        """Lock instances that nobody could name when the batch began."""
        missing = sorted({number for number in numbers if number not in self.rows})
        if missing:
            self._take_instances(self.db.execute(_LOCK, Ints(missing)).rows())

    def fetch_kin(self, numbers: Sequence[int]) -> None:
        """Lock the parents and the live children of locked instances."""
        found = self.db.execute(_KIN, Ints(numbers), Ints(numbers)).firsts()
        self.fetch(found)

    def admit(self, admitted: dict[int, None]) -> None:
        """These were admitted: they wait for an owner."""
        self.loud = self.loud or bool(admitted)
        for number in admitted:
            if number in self.rows:
                self.rows[number].status, self.rows[number].held = "running", 0

    def next_message(self) -> int:
        """The number of an inbox row."""
        return next(self._inbox)

    # --- locking and reading

    def lock(self, numbers: list[int], owner: int) -> None:
        """Lock these instances, and those of an owner."""
        self._take_instances(self.db.execute(_LOCK_OWNED, Ints(numbers), owner).rows())

    def gather(self) -> None:
        """Lock and read all that the decisions need. One round trip."""
        turns = [op for op in self.ops(Turn) if isinstance(op, Turn)]
        acts = [act for op in turns for act in op.acts]
        asked: list[tuple[Any, Answer]] = []
        lock = control.lock(self.db, self.ops, turns, acts)
        if lock is not None:
            asked.append((self._take_lock, lock))
        # Beside it, and before any instance too.
        control.lock_waits(self.db, self.ops, turns, acts)
        self._ask_instances(turns, acts, asked)
        parking = [(op.number, op.inbox_seen) for op in turns if op.status == "waiting"]
        if parking:
            asked.append((self._take_unread, self.db.execute(_UNREAD, *columns("ii", parking))))
        self._ask_keys(acts, asked)
        pairs = [(act.step, act.key) for act in acts if isinstance(act, RecordResult)]
        if pairs:
            ask = self.db.execute(_RECORDED, *columns("tt", pairs))
            asked.append((self._take_recorded, ask))
        dispatches = [op.outbox for op in self.ops(Dispatch)]
        if dispatches:
            asked.append((self._take_outbox, self.db.execute(_OUTBOX, Ints(dispatches))))
        self._ask_tasks(turns, asked)
        self._ask_numbers(acts, asked)
        for take, answer in asked:
            take(answer.rows())

    def _ask_instances(
        self, turns: list[Turn], acts: list[Any], asked: list[tuple[Any, Answer]]
    ) -> None:
        numbers = [op.number for op in self.ops(Turn, Block, Heartbeat, FinishTask)]
        numbers += chain.from_iterable(op.numbers for op in self.ops(Release))
        ids = [op.instance for op in self.ops(Send, Unblock, Terminate)]
        ids += [act.child for act in acts if isinstance(act, AwaitChild | CancelChild)]
        ids += [act.instance for act in acts if isinstance(act, SendMessage)]
        ids += [act.instance.id for act in acts if isinstance(act, SpawnChild)]
        ending = [op.number for op in turns if op.status in ENDED]
        cancelled = [op.number for op in turns if op.status == "cancelled"]
        terminated = [op.instance for op in self.ops(Terminate)]
        waits = [hit.wait for op in self.ops(Watched) for hit in op.hits]
        ask = self.db.execute
        if ids or ending or waits:
            wide = (Ints(numbers), Texts(ids), Ints(ending), Texts(terminated), Ints(waits))
            family = (Ints(cancelled), Texts(terminated))
            asked.append((self._take_instances, ask(_LOCK_WIDE, *wide, *family)))
            if cancelled or terminated:
                asked.append((self._take_instances, ask(_CHILDREN, *family)))
        elif numbers:
            asked.append((self._take_instances, ask(_LOCK, Ints(numbers))))

    def _ask_keys(self, acts: list[Any], asked: list[tuple[Any, Answer]]) -> None:
        new = [op.instance for op in self.ops(Start)]
        new += [act.instance for act in acts if isinstance(act, SpawnChild)]
        new += [
            planned.instance
            for planned in control.plans(self.ops(Append, Dispatch, Redispatch, Advance))
            if planned.instance is not None
        ]
        keys = [(each.namespace, each.flow, each.key) for each in new if each.key is not None]
        if keys:
            ask = self.db.execute(_HOLDERS, *columns("ttt", keys))
            asked.append((self._take_holders, ask))
        sends = self.ops(Send)
        retried = [op.instance for op in sends if op.kind == "retry"]
        if retried:
            asked.append((self._take_rivals, self.db.execute(_RIVALS, Texts(retried))))
        dedups = [(op.instance, op.name, op.dedup) for op in sends if op.dedup is not None]
        if dedups:
            ask = self.db.execute(_DEDUPS, *columns("ttt", dedups))
            asked.append((self._take_dedups, ask))

    def _ask_tasks(self, turns: list[Turn], asked: list[tuple[Any, Answer]]) -> None:
        said = self.ops(TaskHeartbeat, FinishTask)
        # What a turn withdraws is among its instance's tasks.
        owners = [op.number for op in turns if op.acts or op.status in ENDED]
        terminated = [op.instance for op in self.ops(Terminate)]
        if said or owners or terminated:
            ids = Ints([op.task for op in said])
            ask = self.db.execute(_TASKS, ids, Ints(owners), Texts(terminated))
            asked.append((self._take_tasks, ask))
        calls = [(op.number, op.generation, op.tag) for op in self.ops(FinishTask)]
        if calls:
            ask = self.db.execute(_ANSWERS, *columns("iit", calls))
            asked.append((self._take_answers, ask))

    def _ask_numbers(self, acts: list[Any], asked: list[tuple[Any, Answer]]) -> None:
        planned = control.plans(self.ops(Append, Dispatch, Redispatch, Advance))
        count = len(self.ops(Start)) + sum(len(control.newcomers(each)) for each in planned)
        count += sum(isinstance(act, SpawnChild) for act in acts)
        for sequence, wanted, take in (
            ("instance_id", count, self._take_numbers),
            ("inbox_id", len(self.ops(Send)), self._take_inbox),
        ):
            if wanted:
                ask = self.db.execute(
                    f"SELECT nextval('{sequence}') FROM generate_series(1, %s)", wanted
                )
                asked.append((take, ask))

    # --- what came

    def _take_instances(self, rows: list[tuple[Any, ...]]) -> None:
        for row in rows:
            if row[0] not in self.rows:
                self.bear(Stand(*row))

    def _take_lock(self, rows: list[tuple[Any, ...]]) -> None:
        self.flow = bool(rows)

    def _take_unread(self, rows: list[tuple[Any, ...]]) -> None:
        for number, kind, name in rows:
            self.unread[number].append((kind, name))

    def _take_holders(self, rows: list[tuple[Any, ...]]) -> None:
        for namespace, flow, key, *rest in rows:
            self.keys[namespace, flow, key] = Holder(*rest)

    def _take_rivals(self, rows: list[tuple[Any, ...]]) -> None:
        for id, namespace, flow, key, input, digest, rival in rows:
            name = (namespace, flow, key)
            self.key_of[id] = (name, Holder(id, input, digest))
            if rival is not None:
                self.keys.setdefault(name, Holder(rival, b"", None))

    def _take_dedups(self, rows: list[tuple[Any, ...]]) -> None:
        for id, name, dedup, digest, kind in rows:
            self.dedups[id, name, dedup] = (digest, kind)

    def _take_recorded(self, rows: list[tuple[Any, ...]]) -> None:
        self.recorded = {(step, key): value for step, key, value in rows}

    def _take_outbox(self, rows: list[tuple[Any, ...]]) -> None:
        self.outbox = {id: (cid, depth, frozenset(fired)) for id, cid, depth, fired in rows}

    def _take_tasks(self, rows: list[tuple[Any, ...]]) -> None:
        for id, number, generation, tag, owner, token in rows:
            stand = TaskStand(id, (number, generation, tag), owner, token)
            self.tasks[id] = self.task_of[stand.call] = stand

    def _take_answers(self, rows: list[tuple[Any, ...]]) -> None:
        for number, generation, tag, token, digest in rows:
            self.answers[number, generation, tag] = (token, digest)

    def _take_numbers(self, rows: list[tuple[Any, ...]]) -> None:
        self._numbers = iter([number for (number,) in rows])

    def _take_inbox(self, rows: list[tuple[Any, ...]]) -> None:
        self._inbox = iter([number for (number,) in rows])

    # --- what this batch changes of it

    def bear(self, stand: Stand) -> None:
        """An instance is there from now on."""
        self.rows[stand.number] = self.by_id[stand.id] = stand
        if stand.parent is not None:
            self.children[stand.parent].append(stand)

    def drop_task(self, call: Call) -> None:
        """A task is gone."""
        found = self.task_of.pop(call, None)
        if found is not None:
            self.tasks.pop(found.id, None)

    def drop_generation(self, numbers: set[int]) -> None:
        """Tasks and answers of these instances are gone."""
        for call in [call for call in self.task_of if call[0] in numbers]:
            self.drop_task(call)
        for call in [call for call in self.answers if call[0] in numbers]:
            del self.answers[call]

    def drop_keys(self, ids: set[str]) -> None:
        """These instances hold no key any more."""
        for key in [key for key, holder in self.keys.items() if holder.id in ids]:
            del self.keys[key]
