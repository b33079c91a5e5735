"""Rows of what comes in, gathered for one transaction and then written together."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from triggerflow.errors import InternalError
from triggerflow.store.decided import Decision, Met, has_fired, record_of, row_of
from triggerflow.store.holding import Beginning, Verdict
from triggerflow.store.newcomer import NewInstance
from triggerflow.store.operations import PlannedFiring
from triggerflow.store.posts import Admitted, Told
from triggerflow.store.records import Claimed, FiringRecord
from triggerflow.store.sqlite import admission, registry, waits
from triggerflow.store.sqlite import firings as written
from triggerflow.store.sqlite.firing import (
    Keys,
    decide,
    deliver,
    remember,
)
from triggerflow.store.waits import NewWait

if TYPE_CHECKING:
    import sqlite3

    from triggerflow.core.admission_request import Admission
    from triggerflow.store.firings import Letter

Outcomes = list[Any]

# How an instance begins of which nothing is asked.
_ADMITTED: Final = Beginning()


def next_number(db: sqlite3.Connection, table: str) -> int:
    """The next number of an AUTOINCREMENT table; this transaction is its only writer."""
    row = db.execute("SELECT seq FROM sqlite_sequence WHERE name = ?", (table,)).fetchone()
    return 1 if row is None else row[0] + 1


class Arrivals:
    """Rows gathered for one transaction and then written together."""

    def __init__(self, db: sqlite3.Connection, worker: int | None = None) -> None:
        self.db = db
        self.worker = worker
        self.activities: list[tuple[Any, ...]] = []
        self.firings: list[tuple[Any, ...]] = []
        self.changed: list[tuple[Any, ...]] = []
        self.outbox: list[tuple[Any, ...]] = []
        self.instances: list[tuple[Any, ...]] = []
        self.generations: list[tuple[Any, ...]] = []
        self.cancels: list[tuple[int, int, tuple[NewWait, ...]]] = []
        self.opened = False
        self.told = Told()
        self._triggers: dict[str, tuple[int, str]] | None = None
        self._keys: Keys = {}
        self._keyed: dict[str, int] = {}
        self._letters: list[tuple[int, Letter, float]] = []
        self._number = 0
        self._horizon: int | None = None
        self._generation: int | None = None
        self._freed = 0

    @property
    def generation(self) -> int:
        """The registry generation."""
        if self._generation is None:
            self._generation = registry.generation(self.db)
        return self._generation

    @property
    def horizon(self) -> int:
        """The newest activity before this batch's own."""
        if self._horizon is None:
            self._horizon = next_number(self.db, "activity") - 1
        return self._horizon

    def trigger(self, cid: str) -> tuple[int, str]:
        """Number and name of a trigger."""
        if self._triggers is None:
            rows = self.db.execute("SELECT cid, id, name FROM trigger_spec")
            self._triggers = {each: (number, name) for each, number, name in rows}
        found = self._triggers.get(cid)
        if found is None:
            raise InternalError(f"a firing was planned for the unknown trigger {cid}")
        return found

    def instance(
        self,
        new: NewInstance,
        activity: int | None,
        trigger: int | None,
        owned: list[Claimed] | None = None,
        kin: tuple[int, str, bool, bool] | None = None,
        generation: int | None = None,
    ) -> int:
        """Gather a new instance.

        Args:
            owned: gets it where the worker owns it from the start.
            kin: its parent's number and tag, awaited, abandoned.
            generation: that of the triggers, of which the newest know the limits best; the
                present one by default.
        """
        if not self._number:
            self._number = next_number(self.db, "instance")
        number = self._number
        self._number += 1
        standing = _ADMITTED
        if new.admission is not None:
            standing = admission.enter(
                self.db,
                number,
                new,
                new.admission,
                activity=activity,
                now=new.created,
                registry=self.generation if generation is None else generation,
                told=self.told,
            )
        status = "waiting" if standing.held else new.status
        mine = owned is not None and self.worker is not None and status == "running"
        origin = self.horizon if activity is None else activity
        parent, tag, awaited, abandoned = kin or (None, None, False, False)
        self.instances.append(
            (
                number,
                new.id,
                new.namespace,
                new.flow,
                new.version,
                status,
                self.worker if mine else None,
                None if standing.held else new.cause,
                None if standing.held else new.reason,
                new.key,
                new.correlation_id,
                activity,
                trigger,
                new.created,
                parent,
                tag,
                awaited,
                abandoned,
                new.depth,
                new.chain,
                origin,
            )
        )
        input = new.input if standing.input is None else standing.input
        self.generations.append((number, new.seed, input, new.digest))
        if new.cancel_on:
            self.cancels.append((number, origin, new.cancel_on))
        if new.admission is not None:
            # At once, for those that come after it in this batch.
            self.write_instances()
            self.db.execute(
                "UPDATE instance SET priority = ?, held = ?, due = ? WHERE id = ?",
                (new.admission.priority, standing.held, standing.due, number),
            )
        if mine and owned is not None:
            owned.append(new.claimed(number, origin, input))
        return number

    def fire(
        self,
        met: Met,
        planned: PlannedFiring,
        generation: int,
        at: float,
        owned: list[Claimed] | None = None,
        source: str = "live",
        over: int | None = None,
    ) -> FiringRecord | None:
        """Decide and gather a firing, and what it starts or sends; None if it is put off.

        Args:
            source: what led to it.
            over: the number of the firing that this one is written over.
        """
        trigger, name = self.trigger(planned.trigger_cid)
        if planned.outcome == "deferred":
            self.outbox.append((met.seq, trigger, generation, at))
            return None
        found = decide(self.db, planned, self._keys, self._keyed, at)
        new = planned.instance
        if found.outcome == "started" and new is not None:
            new.chain = met.depth
            found = self._start(new, met.seq, trigger, owned, generation) or found
        elif found.number is not None and planned.letter is not None:
            self._letters.append((found.number, planned.letter, at))
            if planned.letter.kind == "cancel":
                # At once, for those that come after it in this batch: one that is held ends.
                self._deliver()
        if planned.once is not None and has_fired(planned, found):
            remember(self.db, planned.once, met.seq, found, at)
        dead = planned.dead_letter
        if dead is not None:
            dead.chain = met.depth
            self.instance(dead, met.seq, trigger, generation=generation)
        row = row_of(planned, found, generation, at, source)
        if over is None:
            self.firings.append((met.seq, trigger, *row))
        else:
            self.changed.append((over, *row))
        return record_of(
            name,
            planned,
            found,
            generation,
            at,
            source,
            activity=met.cid,
            earlier=None if found.earlier is None else self._cid(found.earlier),
        )

    def _start(
        self,
        new: NewInstance,
        seq: int,
        trigger: int,
        owned: list[Claimed] | None,
        generation: int,
    ) -> Decision | None:
        """Gather what a firing starts, or say what came of it instead."""
        verdict = None if new.admission is None else self._judge(new, new.admission, seq)
        if verdict is not None:
            return Decision(verdict.outcome, verdict.reason, verdict.instance)
        asked = new.admission
        if asked is not None and any(place.mode == "cancel" for place in asked.places):
            # Those that it ends may have letters on their way.
            self._deliver()
        number = self.instance(new, seq, trigger, owned, generation=generation)
        self._free_keys()
        if new.key is not None:
            self._keys[new.namespace, new.flow, new.key] = new
            self._keyed[new.id] = number
        return None

    def _judge(self, new: NewInstance, asked: Admission, seq: int) -> Verdict | None:
        """What keeps an arrival from starting an instance of its own."""
        admitted: Admitted = {}
        verdict = admission.judge(
            self.db, new, asked, activity=seq, now=new.created, admitted=admitted
        )
        self.told.woken(admitted)
        return verdict

    def tell(self, index: int, outcomes: Outcomes) -> None:
        """One outcome passes on what all of them have told, and whether they wait."""
        found = outcomes[index]
        found.opened = self.opened
        if self.told:
            found.told += tuple(self.told.owners)
            found.ended += tuple(self.told.ended)

    def _cid(self, seq: int) -> str:
        # This batch's own are numbered one after the other.
        at = seq - self.activities[0][0] if self.activities else -1
        if at >= 0:
            return str(self.activities[at][1])
        (cid,) = self.db.execute("SELECT cid FROM activity WHERE seq = ?", (seq,)).fetchone()
        return str(cid)

    def write(self) -> None:
        """Insert all of it."""
        db = self.db
        if self.activities:
            db.executemany(
                "INSERT INTO activity (seq, cid, types, actors, document, received, namespace,"
                " source, received_digest) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
                self.activities,
            )
        if self.firings:
            db.executemany(
                "INSERT INTO firing (activity, trigger_spec, instance, outcome, error,"
                " registry, at, source, due, attempts, dead_letter, earlier)"
                " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                self.firings,
            )
        if self.changed:
            written.change(db, self.changed)
        if self.outbox:
            db.executemany(
                "INSERT INTO outbox (activity, trigger_spec, registry, created)"
                " VALUES (?, ?, ?, ?)",
                self.outbox,
            )
        self._deliver()

    def _deliver(self) -> None:
        """Put the letters that were gathered so far into inboxes."""
        # The newcomers get their rows first: a letter may be for one of them.
        self.write_instances()
        if self._letters:
            self.told.add(deliver(self.db, self._letters))
            self._letters.clear()
            self._free_keys()

    def _free_keys(self) -> None:
        """Those of this batch that were held and have ended hold no business key."""
        ended = self.told.ended[self._freed :]
        self._freed += len(ended)
        gone = {id for id in ended if self._keyed.pop(id, None) is not None}
        if gone:
            self._keys = {name: new for name, new in self._keys.items() if new.id not in gone}

    def write_instances(self) -> None:
        """Insert the new instances that were gathered so far."""
        db = self.db
        if self.instances:
            db.executemany(
                "INSERT INTO instance (id, public_id, namespace, flow, version, status, owner,"
                " cause, reason, key, correlation_id, activity, trigger_spec, created,"
                " parent, parent_tag, awaited, abandoned, depth, chain, origin)"
                " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                self.instances,
            )
            db.executemany(
                "INSERT INTO generation (instance, generation, seed, input, digest)"
                " VALUES (?, 1, ?, ?, ?)",
                self.generations,
            )
            for number, position, cancel_on in self.cancels:
                waits.arm_cancels(db, number, position, cancel_on)
                self.opened = True
            self.instances.clear()
            self.generations.clear()
            self.cancels.clear()
