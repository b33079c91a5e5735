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
from triggerflow.store.postgres import generations, kin, tasks, waits
from triggerflow.store.postgres.columns import Ints, columns
from triggerflow.store.postgres.incoming import Arrivals, Triggers
from triggerflow.store.postgres.reads import searchable
from triggerflow.store.postgres.standing import Call, Holder, Standing
from triggerflow.store.posts import Post, Told
from triggerflow.store.records import ENDED

if TYPE_CHECKING:
    from triggerflow.store.operations import Turn
    from triggerflow.store.postgres.activities import Activities
    from triggerflow.store.postgres.standing import Key


class Checking:
    """Which acts of a batch can't be done, turn by turn, in the batch's order."""

    def __init__(self, s: Standing) -> None:
        self._s = s
        # What ends in this batch, in a turn that won: later ones can't write to it any more.
        self._ended: dict[int, str] = {}
        self._keys: dict[Key, Holder] = dict(s.keys)
        self._recorded = dict(s.recorded)
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
                refusal = _record(act, recorded)
            if refusal is not None:
                found.append(refusal)
        if not found:
            self._keys, self._recorded, self._newborn = keys, recorded, newborn
        return tuple(found)

    def settle(self) -> None:
        """What the turns that won hold counts for the rest of the batch."""
        self._s.keys = self._keys

    def _spawn(self, act: SpawnChild, keys: dict[Key, Holder]) -> Refusal | None:
        new = act.instance
        # The child that a retried parent has waits for no key, though another has it by now.
        if new.key is None or new.id in self._s.by_id:
            return None
        name = (new.namespace, new.flow, new.key)
        rival = keys.get(name)
        if rival is not None:
            return Refusal(act.tag, "key", rival.id)
        keys[name] = Holder(new.id, new.input, new.digest)
        return None

    def _send(self, act: SendMessage) -> Refusal | None:
        target = self._s.by_id.get(act.instance)
        if target is None:
            return Refusal(act.tag, "unknown")
        status = self._ended.get(target.number, target.status)
        return Refusal(act.tag, "ended", status) if status in ENDED else None


def _record(act: RecordResult, recorded: dict[tuple[str, str], bytes]) -> Refusal | None:
    first = recorded.get((act.step, act.key))
    if first is not None:
        return Refusal(act.tag, "recorded", value=first)
    recorded[act.step, act.key] = act.value
    return None


class Writing:
    """Gathers the acts of turns that won, and writes them together."""

    def __init__(
        self, s: Standing, activities: Activities, triggers: Triggers, horizon: int
    ) -> None:
        self.s = s
        self.emitted: set[int] = set()
        self._activities = activities
        self._rows = Arrivals(s, triggers, horizon)
        self._messages: list[SendMessage] = []
        self._joins: dict[int, list[str]] = {}
        self._cancels: list[tuple[int, CancelChild]] = []
        self._waits: list[waits.Opened] = []
        self._closed: list[Call] = []
        self._tasks = tasks.Acts(s)
        self._attributes: list[tuple[int, SetAttributes]] = []
        self._recorded: list[RecordResult] = []
        self._next: list[tuple[Turn, ContinueAsNew]] = []

    def act(self, index: int, turn: Turn, act: Any) -> None:
        """Gather one act."""
        if isinstance(act, SpawnChild):
            self._spawn(turn, act)
        elif isinstance(act, AwaitChild):
            self._joins.setdefault(turn.number, []).append(act.child)
        elif isinstance(act, CancelChild):
            self._cancels.append((turn.number, act))
        elif isinstance(act, SendMessage):
            self._messages.append(act)
        elif isinstance(act, EmitActivity):
            if self._emit(act):
                self.emitted.add(index)
        elif isinstance(act, OpenWait):
            self._open(turn, act)
        elif isinstance(act, CloseWait):
            self._close(turn, act)
        elif isinstance(act, OpenTask | RearmTask | CloseTask):
            self._tasks.act(turn, act)
        elif isinstance(act, SetAttributes):
            self._attributes.append((turn.number, act))
        elif isinstance(act, RecordResult):
            self._recorded.append(act)
        elif isinstance(act, ContinueAsNew):
            self._next.append((turn, act))

    def _spawn(self, turn: Turn, act: SpawnChild) -> None:
        new = act.instance
        if new.id in self.s.by_id:
            # Its parent was retried: it waits again for the child that it has.
            self._joins.setdefault(turn.number, []).append(new.id)
            return
        kin = (turn.number, act.tag, act.awaited, act.abandoned)
        self._rows.instance(new, None, None, kin=kin)

    def _emit(self, act: EmitActivity) -> bool:
        name = (act.cid, act.namespace)
        seq = self._activities.claim(name)
        if seq is None:
            return False
        self._activities.found[name].deferred = True
        self._rows.defer(seq, None, self._activities.registry, act.received)
        return True

    def _open(self, turn: Turn, act: OpenWait) -> None:
        self._waits.append(
            waits.Opened(
                turn.number,
                turn.generation,
                act.tag,
                "tell",
                act.pattern,
                act.digest,
                act.position,
                act.pivots,
            )
        )

    def _close(self, turn: Turn, act: CloseWait) -> None:
        call = (turn.number, turn.generation, act.tag)
        # One that this very turn has opened is never seen.
        left = [
            each for each in self._waits if (each.instance, each.generation, each.tag) != call
        ]
        if len(left) < len(self._waits):
            self._waits = left
        else:
            self._closed.append(call)

    def write(self, won: Sequence[tuple[int, Turn]]) -> Told:
        """Write all of it; who got a message."""
        s, ask = self.s, self.s.db.execute
        self._rows.write()
        waits.close(s.db, self._closed)
        waits.open_all(s.db, self._waits)
        self._tasks.write()
        _set_attributes(s, self._attributes)
        if self._recorded:
            ask(
                "INSERT INTO recorded (step, key, value, at)"
                " SELECT * FROM unnest(%s, %s, %s, %s)",
                *columns(
                    "ttbf",
                    sorted(
                        (each.step, each.key, each.value, each.at) for each in self._recorded
                    ),
                ),
            )
        generations.begin_next(s, self._next)
        gone = frozenset(turn.number for _, turn in won if turn.status in ENDED)
        letters = self._letters(won, gone)
        # A failed one may be retried, and reads then what came before it failed.
        over = {
            turn.number for _, turn in won if turn.number in gone and turn.status != "failed"
        }
        told = self._rows.told
        told.add(kin.post(s, [each for each in letters if each[0] not in over]))
        return told

    def _letters(self, won: Sequence[tuple[int, Turn]], gone: frozenset[int]) -> list[Post]:
        s = self.s
        letters: list[Post] = [
            (s.by_id[act.instance].number, "signal", act.name, act.payload, act.at)
            for act in self._messages
        ]
        cancels: list[Post] = []
        forgotten: list[int] = []
        for parent, act in self._cancels:
            child = s.by_id.get(act.child)
            if child is None or child.parent != parent:
                continue
            cancels += kin.cancel(child, act.at)
            if act.forget:
                child.awaited = False
                forgotten.append(child.number)
        ended = [
            (turn.number, turn.status, turn.value, turn.at)
            for _, turn in won
            if turn.number in gone
        ]
        over = [(number, at) for number, status, _, at in ended if status == "cancelled"]
        cancels += kin.cancel_children(s, over)
        kin.mark(s, cancels)
        if forgotten:
            s.db.execute(
                "UPDATE instance SET awaited = FALSE WHERE id = ANY(%s)", Ints(forgotten)
            )
        letters += cancels
        at = max((turn.at for _, turn in won), default=0.0)
        awaited: list[int] = []
        for parent, children in self._joins.items():
            found, told = kin.answer_joins(s, parent, children, at)
            awaited += found
            letters += told
        if awaited:
            s.db.execute("UPDATE instance SET awaited = TRUE WHERE id = ANY(%s)", Ints(awaited))
        # After the joins: a child that ends in this very batch must know who waits for it.
        return letters + kin.tell_parents(s, ended, gone)


def _set_attributes(s: Standing, acts: Sequence[tuple[int, SetAttributes]]) -> None:
    if not acts:
        return
    whole = {number: act.attributes for number, act in acts}
    changed = {
        (number, name): value for number, act in acts for name, value in act.changed.items()
    }
    s.db.execute(
        "UPDATE instance i SET attributes = u.a FROM unnest(%s, %s) AS u (i, a)"
        " WHERE i.id = u.i",
        *columns("ib", list(whole.items())),
    )
    if changed:
        s.db.execute(
            "DELETE FROM attribute a USING unnest(%s, %s) AS u (i, n)"
            " WHERE a.instance = u.i AND a.name = u.n",
            *columns("it", list(changed)),
        )
    kept = [
        (name, searchable(value), number)
        for (number, name), value in changed.items()
        if value is not None
    ]
    if kept:
        s.db.execute(
            "INSERT INTO attribute (name, value, created, instance)"
            " SELECT u.n, u.v, i.created, i.id FROM unnest(%s, %s, %s) AS u (n, v, i)"
            " JOIN instance i ON i.id = u.i",
            *columns("tti", kept),
        )
