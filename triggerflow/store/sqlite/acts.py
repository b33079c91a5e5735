"""Writing what turns do towards others; see `triggerflow.store.acts`.

First all acts of a batch are checked, so that a turn which can't do one of its own writes
nothing; then those of the turns that won are written, before the turns themselves: an
instance that parks in this batch must see what its neighbours in it have sent.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from triggerflow.store.acts import (
    AwaitChild,
    CancelChild,
    CloseTask,
    CloseWait,
    ContinueAsNew,
    EmitActivity,
    OpenTask,
    OpenWait,
    RearmTask,
    RecordResult,
    Refusal,
    SendMessage,
    SetAttributes,
    SpawnChild,
)
from triggerflow.store.posts import Post, Told
from triggerflow.store.records import ENDED
from triggerflow.store.sqlite import generations, kin, tasks, waits
from triggerflow.store.sqlite.firing import holder
from triggerflow.store.sqlite.incoming import Arrivals, next_number
from triggerflow.store.sqlite.reads import searchable
from triggerflow.store.sqlite.registry import generation as registry_generation

if TYPE_CHECKING:
    import sqlite3

    from triggerflow.store.newcomer import NewInstance
    from triggerflow.store.operations import Turn


class Checking:
    """Which acts of a batch can't be done, turn by turn, in the batch's order."""

    def __init__(self, db: sqlite3.Connection) -> None:
        self._db = db
        # What ends in this batch, in a turn that won: later ones can't write to it any more.
        self._ended: dict[int, str] = {}
        self._keys: dict[tuple[str, str, str], NewInstance] = {}
        self._recorded: dict[tuple[str, str], bytes] = {}
        self._newborn: set[str] = set()

    def won(self, turn: Turn) -> None:
        """A turn is written: what comes after it meets what it leaves."""
        if turn.status in ENDED:
            self._ended[turn.number] = turn.status

    def refusals(self, turn: Turn) -> tuple[Refusal, ...]:
        """What a turn can't do; if it is nothing, what it does counts for the next ones."""
        keys = dict(self._keys)
        recorded = dict(self._recorded)
        newborn = {act.instance.id for act in turn.acts if isinstance(act, SpawnChild)}
        newborn |= self._newborn
        found = []
        for act in turn.acts:
            refusal = None
            if isinstance(act, SpawnChild):
                refusal = self._spawn(act, keys)
            elif isinstance(act, SendMessage):
                refusal = None if act.instance in newborn else self._send(act)
            elif isinstance(act, RecordResult):
                refusal = self._record(act, recorded)
            if refusal is not None:
                found.append(refusal)
        if not found:
            self._keys, self._recorded, self._newborn = keys, recorded, newborn
        return tuple(found)

    def _spawn(
        self, act: SpawnChild, keys: dict[tuple[str, str, str], NewInstance]
    ) -> Refusal | None:
        new = act.instance
        # The child that a retried parent has waits for no key, though another has it by now.
        if new.key is None or kin.is_there(self._db, new.id):
            return None
        rival = holder(self._db, new, keys)
        if rival is not None:
            return Refusal(act.tag, "key", rival[0])
        keys[(new.namespace, new.flow, new.key)] = new
        return None

    def _send(self, act: SendMessage) -> Refusal | None:
        row = self._db.execute(
            "SELECT id, status FROM instance WHERE public_id = ?", (act.instance,)
        ).fetchone()
        if row is None:
            return Refusal(act.tag, "unknown")
        number, status = row
        status = self._ended.get(number, status)
        if status in ENDED:
            return Refusal(act.tag, "ended", status)
        return None

    def _record(
        self, act: RecordResult, recorded: dict[tuple[str, str], bytes]
    ) -> Refusal | None:
        name = (act.step, act.key)
        first = recorded.get(name)
        if first is None:
            row = self._db.execute(
                "SELECT value FROM recorded WHERE step = ? AND key = ?", name
            ).fetchone()
            first = None if row is None else row[0]
        if first is not None:
            return Refusal(act.tag, "recorded", value=first)
        recorded[name] = act.value
        return None


def carry_out(
    db: sqlite3.Connection, worker: int, won: Sequence[tuple[int, Turn]]
) -> tuple[Told, set[int]]:
    """Write the acts of turns that won.

    Returns:
        Who got a message, and the indexes of the turns that emitted an activity.
    """
    writing = _Writing(db, worker)
    emitted = set()
    for index, turn in won:
        for act in turn.acts:
            if isinstance(act, EmitActivity):
                if writing.emit(turn, act):
                    emitted.add(index)
            else:
                writing.act(turn, act)
    return writing.finish(won), emitted


class _Writing:
    def __init__(self, db: sqlite3.Connection, worker: int) -> None:
        self.db = db
        self.rows = Arrivals(db, worker)
        self.messages: list[SendMessage] = []
        self.joins: dict[int, list[str]] = {}
        self.cancels: list[tuple[int, CancelChild]] = []
        self.seq = 0

    def act(self, turn: Turn, act: Any) -> None:
        db = self.db
        if isinstance(act, SpawnChild):
            self._spawn(turn, act)
        elif isinstance(act, AwaitChild):
            self.joins.setdefault(turn.number, []).append(act.child)
        elif isinstance(act, CancelChild):
            self.cancels.append((turn.number, act))
        elif isinstance(act, SendMessage):
            self.messages.append(act)
        elif isinstance(act, OpenWait):
            waits.arm(db, turn.number, turn.generation, act)
        elif isinstance(act, CloseWait):
            waits.close(db, turn.number, turn.generation, act.tag)
        elif isinstance(act, OpenTask):
            tasks.arm(db, turn, act)
        elif isinstance(act, RearmTask):
            tasks.rearm(db, turn, act)
        elif isinstance(act, CloseTask):
            tasks.withdraw(db, turn, act)
        elif isinstance(act, SetAttributes):
            _set_attributes(db, turn.number, act)
        elif isinstance(act, RecordResult):
            db.execute(
                "INSERT INTO recorded (step, key, value, at) VALUES (?, ?, ?, ?)",
                (act.step, act.key, act.value, act.at),
            )
        elif isinstance(act, ContinueAsNew):
            generations.begin_next(db, turn, act)

    def _spawn(self, turn: Turn, act: SpawnChild) -> None:
        if kin.is_there(self.db, act.instance.id):
            # Its parent was retried: it waits again for the child that it has.
            self.joins.setdefault(turn.number, []).append(act.instance.id)
            return
        self.rows.instance(
            act.instance,
            None,
            None,
            kin=(turn.number, act.tag, act.awaited, act.abandoned),
        )

    def emit(self, turn: Turn, act: EmitActivity) -> bool:
        """Append an activity with its outbox row, unless it is there."""
        if self.db.execute(
            "SELECT 1 FROM activity WHERE cid = ? AND namespace = ?", (act.cid, act.namespace)
        ).fetchone():
            return False
        seq = next_number(self.db, "activity")
        self.db.execute(
            "INSERT INTO activity (seq, cid, types, actors, document, received, cause, depth,"
            " namespace) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                seq,
                act.cid,
                act.types,
                act.actors,
                act.document,
                act.received,
                turn.number,
                act.depth,
                act.namespace,
            ),
        )
        self.db.execute(
            "INSERT INTO outbox (activity, trigger_spec, registry, created)"
            " VALUES (?, NULL, ?, ?)",
            (seq, registry_generation(self.db), act.received),
        )
        return True

    def _letter(self, act: SendMessage) -> Post:
        (number,) = self.db.execute(
            "SELECT id FROM instance WHERE public_id = ?", (act.instance,)
        ).fetchone()
        return number, "signal", act.name, act.payload, act.at

    def finish(self, won: Sequence[tuple[int, Turn]]) -> Told:
        db = self.db
        self.rows.write()
        gone = frozenset(turn.number for _, turn in won if turn.status in ENDED)
        # Now that the newcomers have their rows: a message may be for one of them.
        letters = [self._letter(act) for act in self.messages]
        for parent, act in self.cancels:
            letters += kin.cancel_one(db, parent, act.child, act.none, act.at)
            if act.forget:
                db.execute(
                    "UPDATE instance SET awaited = 0 WHERE public_id = ? AND parent = ?",
                    (act.child, parent),
                )
        ended = [
            (turn.number, turn.status, turn.value, turn.at)
            for _, turn in won
            if turn.number in gone
        ]
        cancelled = [(number, at) for number, status, _, at in ended if status == "cancelled"]
        letters += kin.cancel_children(db, cancelled, b"\xf6")
        at = max((turn.at for _, turn in won), default=0.0)
        for parent, children in self.joins.items():
            letters += kin.answer_joins(db, parent, children, at)
        # After the joins: a child that ends in this very batch must know who waits for it.
        letters += kin.tell_parents(db, ended, gone)
        # A failed one may be retried, and reads then what came before it failed.
        over = {number for number, status, *_ in ended if status != "failed"}
        self.rows.told.add(kin.post(db, [each for each in letters if each[0] not in over]))
        return self.rows.told


def _set_attributes(db: sqlite3.Connection, number: int, act: SetAttributes) -> None:
    db.execute("UPDATE instance SET attributes = ? WHERE id = ?", (act.attributes, number))
    db.executemany(
        "DELETE FROM attribute WHERE instance = ? AND name = ?",
        [(number, name) for name in act.changed],
    )
    db.executemany(
        "INSERT INTO attribute (name, value, created, instance)"
        " SELECT ?, ?, created, id FROM instance WHERE id = ?",
        [
            (name, searchable(value), number)
            for name, value in act.changed.items()
            if value is not None
        ],
    )
