"""PostgreSQL between two connections: each losing interleaving is refused, or seen.

One of the two is held in the midst of its transaction by the test, and goes on when told; the
other runs beside it, or waits for it as its locks demand. READ COMMITTED, as everywhere.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from triggerflow.core.admission_request import Admission, Gather, Place
from triggerflow.store.acts import AwaitChild, EmitActivity, OpenTask, OpenWait, SpawnChild
from triggerflow.store.firings import Once
from triggerflow.store.history import Span
from triggerflow.store.operations import (
    Advance,
    Append,
    Batch,
    Claim,
    LogRow,
    NewInstance,
    PlannedFiring,
    Release,
    Send,
    Start,
    Turn,
    Verdict,
)
from triggerflow.store.postgres import batch as batches
from triggerflow.store.postgres import flow, reads, registry, turns, waking
from triggerflow.store.records import NewTrigger
from triggerflow.store.tasks import ClaimTasks
from triggerflow.store.waits import Hit, Watched

NOW = 1_700_000_000.0
FLOWS = frozenset({("welcome", 1)})
PATIENCE = 60.0


class Pair:
    """Two stores over one database, as two processes have them.

    Attributes:
        one: the first; `two` is the other.
    """

    def __init__(self, postgres: Any) -> None:
        url = postgres()
        self.places = postgres.places
        self.one, self.two = postgres.store(url), postgres.store(url)
        self.one.open()
        self.two.open()
        self._threads: list[threading.Thread] = []
        self._held: list[Held] = []

    def close(self) -> None:
        for held in self._held:
            held.go.set()
        for thread in self._threads:
            thread.join(PATIENCE)
        self.one.close()
        self.two.close()

    def worker(self, store: Any, build: str = "b") -> tuple[int, int]:
        return store.register_worker(build=build, flows=FLOWS, now=NOW)

    def start(self, *ids: str) -> None:
        for id in ids:
            self.ask(self.one, Start(new(id)))

    def ask(self, store: Any, *operations: Any, worker: Any = None) -> Any:
        found = store.commit(Batch(list(operations), NOW, worker))
        return found[0] if len(found) == 1 else found

    def own(self, store: Any, worker: Any, id: str) -> Any:
        self.start(id)
        found = self.ask(store, claim(), worker=worker)
        (mine,) = [each for each in found.claimed if each.id == id]
        return mine

    def beside(self, work: Callable[[], Any]) -> Later:
        """Run something in a thread."""
        later = Later()

        def run() -> None:
            try:
                later.found = work()
            except BaseException as error:
                later.found = error
            later.done.set()

        thread = threading.Thread(target=run, daemon=True)
        self._threads.append(thread)
        thread.start()
        return later

    def held(self, store: Any, *operations: Any, worker: Any = None, now: float = NOW) -> Held:
        """Carry out a batch and stand still before its commit."""
        held = Held()
        self._held.append(held)
        batch = Batch(list(operations), now, worker)

        def work(db: Any) -> Any:
            found = batches.carry_out(db, batch, store._triggers, store._lock_class)
            # Whatever was sent is there.
            db.execute("SELECT 1").rows()
            held.inside.set()
            assert held.go.wait(PATIENCE)
            return found

        held.later = self.beside(lambda: store._write(work))
        assert held.inside.wait(PATIENCE), held.later.found
        return held

    def kill(self, store: Any) -> None:
        """Have the server end a store's writing connection."""
        process = store._writer.line.db.connection.info.backend_pid
        self.places.ask("SELECT pg_terminate_backend(%s, 5000)", process)

    def until_blocked(self, later: Later) -> None:
        """Wait until some connection waits for another one's lock."""
        for _ in range(6000):
            waiting = self.places.ask(
                "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
                " AND wait_event_type = 'Lock'"
            )
            if waiting[0][0]:
                return
            if later.done.wait(0.01):
                break
        raise AssertionError(f"nobody waits for a lock: {later.found}")


class Later:
    """What comes of something that runs in a thread."""

    def __init__(self) -> None:
        self.done = threading.Event()
        self.found: Any = None

    def result(self) -> Any:
        assert self.done.wait(PATIENCE)
        if isinstance(self.found, BaseException):
            raise self.found
        return self.found


class Held:
    """A batch that stands still before its commit."""

    def __init__(self) -> None:
        self.inside = threading.Event()
        self.go = threading.Event()
        self.later: Later

    def commit(self) -> Any:
        self.go.set()
        return self.later.result()


@pytest.fixture
def pair(postgres: Any) -> Iterator[Pair]:
    made = Pair(postgres)
    yield made
    made.close()


def new(id: str, **parts: Any) -> NewInstance:
    return NewInstance(id, "welcome", 1, b"input", b"seed", NOW, **parts)


def claim(limit: int = 10, **parts: Any) -> Claim:
    return Claim(limit, 1, "b", FLOWS, NOW, **parts)


def turn(of: Any, status: str, *tags: str, **parts: Any) -> Turn:
    rows = tuple(LogRow(tag, b"v", False, None, NOW) for tag in tags)
    return Turn(of.number, 1, of.log_length, rows, b"p", status, NOW, NOW, **parts)


def send(id: str, name: str = "reply") -> Send:
    return Send(id, "signal", name, b"yes", NOW)


def append(name: str, *firings: PlannedFiring) -> Append:
    # The one registry that has a trigger is the first.
    return Append(f"cid-{name}", b"{}", "[]", "[]", NOW, bool(firings), firings)


# --- parking --------------------------------------------------------------------------------


def park_and_send(pair: Pair, *, sender_first: bool) -> str:
    """Park an instance while a message comes; where it stands in the end."""
    worker = pair.worker(pair.one)
    mine = pair.own(pair.one, worker, "i1")
    if sender_first:
        # The sender has written, and commits while the owner waits for the row.
        sender = pair.held(pair.two, send("i1"))
        parking = pair.beside(lambda: pair.ask(pair.one, turn(mine, "waiting"), worker=worker))
        pair.until_blocked(parking)
        sender.commit()
        assert parking.result().verdict is Verdict.APPLIED
    else:
        parked = pair.held(pair.one, turn(mine, "waiting"), worker=worker)
        sent = pair.beside(lambda: pair.ask(pair.two, send("i1")))
        pair.until_blocked(sent)
        parked.commit()
        assert sent.result().verdict is Verdict.APPLIED
    found = pair.one.instance("i1")
    assert len(pair.one.inbox(mine.number)) == 1
    return "parked" if found.status == "waiting" else "awake"


@pytest.mark.parametrize("sender_first", [True, False])
def test_no_wake_up_is_lost_while_an_instance_parks(pair: Pair, sender_first: bool) -> None:
    """A message that comes while its instance parks is seen, or wakes it, whoever is first."""
    assert park_and_send(pair, sender_first=sender_first) == "awake"


def test_the_recheck_is_what_sees_it(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the look at the inbox after the lock the wake-up is lost."""
    monkeypatch.setattr(waking, "unheard", lambda s, op: False)
    assert park_and_send(pair, sender_first=True) == "parked"


def test_messages_of_one_instance_are_numbered_as_they_are_committed(pair: Pair) -> None:
    """A later message never has a smaller number, so `inbox_seen` misses none of them."""
    worker = pair.worker(pair.one)
    mine = pair.own(pair.one, worker, "i1")
    first = pair.held(pair.two, send("i1", "first"))
    second = pair.beside(lambda: pair.ask(pair.one, send("i1", "second")))
    pair.until_blocked(second)
    first.commit()
    second.result()
    assert [row.name for row in pair.one.inbox(mine.number)] == ["first", "second"]


def test_a_wait_is_met_while_its_instance_parks(pair: Pair) -> None:
    """An activity that meets a wait wakes an instance that is just parking."""
    worker = pair.worker(pair.one)
    mine = pair.own(pair.one, worker, "i1")
    opens = OpenWait("wait_activity#0", b"pattern", 0)
    pair.ask(pair.one, turn(mine, "running", acts=(opens,)), worker=worker)
    (wait,) = pair.two.waits()
    parked = pair.held(pair.one, turn(mine, "waiting"), worker=worker)
    hit = Watched(1, NOW, (Hit(wait.id, 1, 0, b"doc"),))
    met = pair.beside(lambda: pair.ask(pair.two, hit))
    pair.until_blocked(met)
    parked.commit()
    assert met.result().told == ((mine.number, None),)
    assert pair.one.instance("i1").status == "running"
    assert pair.ask(pair.one, hit).told == ()
    assert len(pair.one.inbox(mine.number)) == 1


def opening(mine: Any, tag: str) -> Turn:
    return turn(mine, "running", acts=(OpenWait(tag, b"pattern", 0),))


def test_a_wait_that_is_not_committed_yet_is_not_the_newest(pair: Pair) -> None:
    """Who moves the position waits for one that is being opened, and leaves it behind."""
    worker = pair.worker(pair.one)
    mine = pair.own(pair.one, worker, "i1")
    pair.ask(pair.one, opening(mine, "w#0"), worker=worker)
    seen = pair.two.standing().newest
    held = pair.held(pair.one, opening(mine, "w#1"), worker=worker)
    newest = pair.two.standing().newest
    assert newest == seen
    moved = pair.beside(lambda: pair.ask(pair.two, Watched(7, NOW, newest=newest)))
    pair.until_blocked(moved)
    held.commit()
    moved.result()
    found = {each.tag: (each.id > newest, each.scanned, each.upto) for each in pair.two.waits()}
    assert found == {"w#0": (False, 0, 0), "w#1": (True, 0, 7)}


def test_a_wait_opened_while_the_position_moves_begins_behind_it(pair: Pair) -> None:
    """It sees the new position, though its batch began before that was committed."""
    worker = pair.worker(pair.one)
    mine = pair.own(pair.one, worker, "i1")
    pair.ask(pair.one, opening(mine, "w#0"), worker=worker)
    newest = pair.two.standing().newest
    held = pair.held(pair.two, Watched(7, NOW, newest=newest))
    opened = pair.beside(lambda: pair.ask(pair.one, opening(mine, "w#1"), worker=worker))
    pair.until_blocked(opened)
    held.commit()
    opened.result()
    assert [(each.tag, each.upto) for each in pair.two.waits_behind()] == [("w#1", 7)]


def test_the_first_wait_begins_where_activities_are_settled(pair: Pair) -> None:
    """An activity that isn't committed yet is still before the position of all."""
    worker = pair.worker(pair.one)
    mine = pair.own(pair.one, worker, "i1")
    held = pair.held(pair.two, Append("cid-a", b"{}", "[]", "[]", NOW, 0, None))
    pair.ask(pair.one, opening(mine, "w#0"), worker=worker)
    assert pair.one.standing().position == 0
    held.commit()
    assert [each.seq for each in pair.one.activities(0, 9)] == [1]


def test_two_open_waits_at_once(pair: Pair) -> None:
    """One after the other, numbered as they are committed."""
    one, two = pair.worker(pair.one), pair.worker(pair.two)
    first, second = pair.own(pair.one, one, "i1"), pair.own(pair.two, two, "i2")
    held = pair.held(pair.one, opening(first, "w#0"), worker=one)
    other = pair.beside(lambda: pair.ask(pair.two, opening(second, "w#0"), worker=two))
    pair.until_blocked(other)
    held.commit()
    other.result()
    assert [each.instance for each in pair.one.waits()] == [first.number, second.number]


def test_an_instance_ends_while_its_wait_is_met(pair: Pair) -> None:
    """The hit finds no wait any more, and tells nobody."""
    worker = pair.worker(pair.one)
    mine = pair.own(pair.one, worker, "i1")
    pair.ask(pair.one, opening(mine, "w#0"), worker=worker)
    (wait,) = pair.two.waits()
    ended = pair.held(pair.one, turn(mine, "done"), worker=worker)
    hit = Watched(1, NOW, (Hit(wait.id, 1, 0, b"doc"),))
    met = pair.beside(lambda: pair.ask(pair.two, hit))
    pair.until_blocked(met)
    ended.commit()
    assert met.result().told == ()
    assert (pair.two.waits(), pair.two.inbox(mine.number)) == ([], [])


def test_a_child_that_ends_while_its_parent_joins_is_told(pair: Pair) -> None:
    """Join and end meet in the child's row: the parent hears of it exactly once."""
    worker = pair.worker(pair.one)
    parent = pair.own(pair.one, worker, "i1")
    spawns = SpawnChild("spawn:welcome#0", new("c1"), awaited=False, abandoned=False)
    pair.ask(pair.one, turn(parent, "running", acts=(spawns,)), worker=worker)
    other = pair.worker(pair.two)
    (child,) = pair.ask(pair.two, claim(), worker=other).claimed
    joining = pair.held(
        pair.one, turn(parent, "waiting", acts=(AwaitChild("c1"),)), worker=worker
    )
    ending = pair.beside(
        lambda: pair.ask(pair.two, turn(child, "done", value=b"v"), worker=other)
    )
    pair.until_blocked(ending)
    joining.commit()
    ending.result()
    assert [row.kind for row in pair.one.inbox(parent.number)] == ["child_done"]
    assert pair.one.instance("i1").status == "running"


# --- the safe horizon -----------------------------------------------------------------------


def test_an_activity_in_flight_is_never_passed(pair: Pair) -> None:
    """What was numbered before, and commits after, comes before it to whoever reads on."""
    slow = pair.held(pair.one, append("slow"))
    pair.ask(pair.two, append("quick"))
    assert pair.two.activity("cid-quick").seq == 2
    assert pair.two.activities(0, 10) == []
    slow.commit()
    assert [row.cid for row in pair.two.activities(0, 10)] == ["cid-slow", "cid-quick"]


def test_what_is_settled_is_not_held_up(pair: Pair) -> None:
    """An append in flight hides what came after it, and nothing that came before."""
    pair.ask(pair.two, append("before"))
    slow = pair.held(pair.one, append("slow"))
    pair.ask(pair.two, append("quick"))
    assert [row.cid for row in pair.two.activities(0, 10)] == ["cid-before"]
    slow.commit()
    assert len(pair.two.activities(0, 10)) == 3


def test_numbers_that_nobody_will_have_hold_nothing_up(pair: Pair) -> None:
    """A number whose transaction was rolled back leaves a gap, which is passed."""
    pair.ask(pair.two, append("before"))
    slow = pair.held(pair.one, append("slow"))
    pair.kill(pair.one)
    pair.ask(pair.two, append("quick"))
    slow.go.set()
    # It was lost before its commit was asked for, so it is done once more, as the last one.
    slow.later.result()
    assert [row.cid for row in pair.two.activities(0, 10)] == [
        "cid-before",
        "cid-quick",
        "cid-slow",
    ]


def test_the_horizon_is_what_sees_the_gap(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever believes every number that he sees loses the slow one."""

    def careless(db: Any, lock_class: int, after: int, limit: int) -> list[Any]:
        rows = db.execute("SELECT seq, cid FROM activity WHERE seq > %s ORDER BY seq", after)
        return rows.rows()

    monkeypatch.setattr(reads, "activities", careless)
    slow = pair.held(pair.one, append("slow"))
    pair.ask(pair.two, append("quick"))
    ((position, cid),) = pair.two.activities(0, 10)
    slow.commit()
    assert cid == "cid-quick"
    assert pair.two.activities(position, 10) == []


def test_an_emit_in_flight_is_never_passed(pair: Pair) -> None:
    """The same for activities that a turn emits."""
    worker = pair.worker(pair.one)
    mine = pair.own(pair.one, worker, "i1")
    emits = EmitActivity("cid-slow", b"{}", "[]", "[]", NOW, 1)
    slow = pair.held(pair.one, turn(mine, "running", acts=(emits,)), worker=worker)
    pair.ask(pair.two, append("quick"))
    assert pair.two.activities(0, 10) == []
    slow.commit()
    assert [row.cid for row in pair.two.activities(0, 10)] == ["cid-slow", "cid-quick"]


# --- one of two wins ------------------------------------------------------------------------


def test_two_appends_of_one_activity_fire_once(pair: Pair) -> None:
    """The second waits for the first, starts nothing, and gets the first one's firings."""
    pair.one.sync_triggers([NewTrigger("a", "cid-a", b"a", "means a")], now=NOW)
    first = pair.held(pair.one, append("x", PlannedFiring("cid-a", new("i1"))))
    second = pair.beside(
        lambda: pair.ask(pair.two, append("x", PlannedFiring("cid-a", new("i2"))))
    )
    pair.until_blocked(second)
    first.commit()
    found = second.result()
    assert found.verdict is Verdict.DUPLICATE
    assert [firing.instance for firing in found.firings] == ["i1"]
    assert [each.id for each in pair.one.instances()] == ["i1"]


def test_an_append_takes_over_from_one_that_failed(pair: Pair) -> None:
    """Where the first of two is rolled back, the second lands."""
    first = pair.held(pair.one, append("x"))
    second = pair.beside(lambda: pair.ask(pair.two, append("x")))
    pair.until_blocked(second)
    pair.kill(pair.one)
    assert second.result().verdict is Verdict.APPLIED
    # The first was lost, is done again, and finds the second one's.
    (found,) = first.commit()
    assert found.verdict is Verdict.DUPLICATE


def test_two_starts_under_one_key_start_one(pair: Pair) -> None:
    """The second meets the first in the index, is redone, and finds the holder."""
    first = pair.held(pair.one, Start(new("i1", key="k")))
    second = pair.beside(lambda: pair.ask(pair.two, Start(new("i2", key="k"))))
    pair.until_blocked(second)
    first.commit()
    found = second.result()
    assert (found.verdict, found.instance) == (Verdict.DUPLICATE, "i1")


def test_two_claims_share_without_waiting(pair: Pair) -> None:
    """What one worker is about to take, the other passes over; neither waits."""
    one, two = pair.worker(pair.one), pair.worker(pair.two)
    pair.start("i1", "i2", "i3")
    first = pair.held(pair.one, claim(2), worker=one)
    found = pair.ask(pair.two, claim(2), worker=two)
    assert [each.id for each in found.claimed] == ["i3"]
    (taken,) = first.commit()
    assert [each.id for each in taken.claimed] == ["i1", "i2"]


def test_two_claims_of_tasks_share_without_waiting(pair: Pair) -> None:
    """The same for queued calls; no token is given twice."""
    one, two = pair.worker(pair.one), pair.worker(pair.two)
    mine = pair.own(pair.one, one, "i1")
    acts = tuple(OpenTask(f"call:a#{n}", "gpu", "render", b"a", NOW) for n in range(3))
    pair.ask(pair.one, turn(mine, "waiting", acts=acts), worker=one)
    ask = ClaimTasks(2, frozenset({"gpu"}), frozenset({"render"}), NOW)
    first = pair.held(pair.one, ask, worker=one)
    found = pair.ask(pair.two, ask, worker=two)
    (taken,) = first.commit()
    tags = [[each.tag for each in outcome.tasks] for outcome in (taken, found)]
    assert tags == [["call:a#0", "call:a#1"], ["call:a#2"]]
    assert len({each.token for outcome in (taken, found) for each in outcome.tasks}) == 3
    # Somebody held what was left at that moment, so it asks once more.
    assert found.more


# --- the fence ------------------------------------------------------------------------------


def test_a_reaper_waits_for_the_batch_of_the_silent(pair: Pair) -> None:
    """A sign of life that is being committed saves its worker, and its batch stands."""
    worker = pair.worker(pair.one)
    mine = pair.own(pair.one, worker, "i1")
    shown = {each.id: each.seen for each in pair.two.workers()}
    held = pair.held(pair.one, turn(mine, "running", "call:a#0"), worker=worker, now=NOW + 1)
    reaping = pair.beside(lambda: pair.two.reap(shown))
    pair.until_blocked(reaping)
    held.commit()
    assert reaping.result() == 0
    found = pair.one.instance("i1")
    assert (found.owner, found.crashes, found.log_length) == (worker[0], 0, 1)


def test_a_batch_that_waits_for_its_reaper_is_fenced(pair: Pair) -> None:
    """A turn that comes while its worker is reaped changes nothing, and says so."""
    worker = pair.worker(pair.one)
    mine = pair.own(pair.one, worker, "i1")
    shown = {each.id: each.seen for each in pair.two.workers()}
    inside, go = threading.Event(), threading.Event()
    from triggerflow.store.postgres import workers

    def work(db: Any) -> Any:
        freed = workers.reap(db, silent=shown)
        inside.set()
        assert go.wait(PATIENCE)
        return freed, True

    reaping = pair.beside(lambda: pair.two._write(work))
    assert inside.wait(PATIENCE), reaping.found
    late = pair.beside(
        lambda: pair.ask(pair.one, turn(mine, "done", "call:a#0"), worker=worker)
    )
    pair.until_blocked(late)
    go.set()
    assert reaping.result() == 1
    found = late.result()
    assert (found.verdict, found.detail) == (Verdict.FENCED, "worker")
    assert pair.one.log(mine.number, 1) == []


def test_the_fence_is_what_keeps_it_out(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    """With epoch and owner believed, the dead worker's turn lands on the other's instance."""
    from triggerflow.store.postgres import workers

    worker = pair.worker(pair.one)
    mine = pair.own(pair.one, worker, "i1")
    pair.two.reap({each.id: each.seen for each in pair.two.workers()})
    pair.ask(pair.two, claim(), worker=pair.worker(pair.two))
    late = turn(mine, "running", "call:stale#0")
    assert pair.ask(pair.one, late, worker=worker).verdict is Verdict.FENCED
    monkeypatch.setattr(
        workers, "fence", lambda db, *_: db.execute("SELECT 1, pg_current_xact_id()::text")
    )
    monkeypatch.setattr(turns, "_may", lambda s, op: True)
    assert pair.ask(pair.one, late, worker=worker).verdict is Verdict.APPLIED
    assert [row.tag for row in pair.one.log(mine.number, 1)] == ["call:stale#0"]


# --- no deadlock ----------------------------------------------------------------------------


def test_crossing_batches_never_deadlock(pair: Pair) -> None:
    """Two stores write to the same instances, keys and CIDs in opposite orders, for a while."""
    names = [f"i{n}" for n in range(6)]
    pair.start(*names)
    workers = {store: pair.worker(store) for store in (pair.one, pair.two)}

    def cross(store: Any, order: list[str]) -> None:
        for round in range(40):
            operations: list[Any] = [append(f"{name}-{round}") for name in order]
            operations += [send(name) for name in order]
            operations += [
                Start(new(f"{id(store)}-{round}-{n}", key=f"{n}-{round}")) for n in order
            ]
            operations += [Release(()), claim(1)]
            found = store.commit(Batch(operations, NOW, workers[store]))
            assert len(found) == len(operations)

    before = deadlocks(pair)
    crossing = [
        pair.beside(lambda: cross(pair.one, names)),
        pair.beside(lambda: cross(pair.two, names[::-1])),
    ]
    for each in crossing:
        each.result()
    assert deadlocks(pair) == before
    assert pair.one.counts().activities == 6 * 40


def deadlocks(pair: Pair) -> int:
    return pair.places.ask(
        "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()"
    )[0][0]


# --- flow control, dedup keys, the registry -------------------------------------------------


def placed(id: str) -> Start:
    """One that takes the only place."""
    return Start(new(id, admission=Admission(places=(Place("scope", "k", 1),))))


def told(store: Any, name: str, **parts: Any) -> Append:
    """An activity that fires the one trigger, planned with the registry as it is."""
    generation, (trigger,) = store.registry()
    firing = PlannedFiring(trigger.cid, **parts)
    return Append(f"cid-{name}", b"{}", "[]", "[]", NOW, generation, (firing,))


def current(pair: Pair) -> None:
    pair.one.sync_triggers([NewTrigger("welcome", "cid-t", b"spec", "means")], now=NOW)


def test_the_last_place_goes_to_one(pair: Pair) -> None:
    """Of two that arrive at once one runs, and the other waits for it."""
    first = pair.held(pair.one, placed("i1"))
    second = pair.beside(lambda: pair.ask(pair.two, placed("i2")))
    pair.until_blocked(second)
    first.commit()
    second.result()
    assert pair.one.instance("i1").status == "running"
    assert pair.one.instance("i2").hold.kind == "place"


@pytest.mark.parametrize("end_first", [True, False])
def test_no_place_is_left_free_while_somebody_waits(pair: Pair, end_first: bool) -> None:
    """Whoever arrives while the one before ends gets its place, whichever comes first."""
    worker = pair.worker(pair.one)
    pair.ask(pair.one, placed("i1"))
    (mine,) = pair.ask(pair.one, claim(), worker=worker).claimed
    ends = turn(mine, "done", value=b"v")
    if end_first:
        held = pair.held(pair.one, ends, worker=worker)
        later = pair.beside(lambda: pair.ask(pair.two, placed("i2")))
    else:
        held = pair.held(pair.two, placed("i2"))
        later = pair.beside(lambda: pair.ask(pair.one, ends, worker=worker))
    pair.until_blocked(later)
    held.commit()
    later.result()
    assert pair.one.instance("i2").status == "running"


def test_what_has_no_part_in_flow_control_never_waits_for_it(pair: Pair) -> None:
    """An instance without a place ends while another batch decides on places."""
    worker = pair.worker(pair.one)
    mine = pair.own(pair.one, worker, "i1")
    held = pair.held(pair.two, placed("i2"))
    found = pair.beside(
        lambda: pair.ask(pair.one, turn(mine, "done", value=b"v"), worker=worker)
    )
    assert found.result().verdict is Verdict.APPLIED
    held.commit()


def test_two_that_belong_together_make_one_group(pair: Pair) -> None:
    """The second of two arrivals joins the group that the first has opened."""
    current(pair)
    gather = Gather("debounce", "scope", "k", 10.0, None, None, False, 1000)

    def arrives(store: Any, name: str) -> Append:
        started = new(f"i-{name}", admission=Admission(gather=gather))
        return told(store, name, instance=started)

    first = pair.held(pair.one, arrives(pair.one, "a"))
    second = pair.beside(lambda: pair.ask(pair.two, arrives(pair.two, "b")))
    pair.until_blocked(second)
    first.commit()
    (firing,) = second.result().firings
    assert (firing.outcome, firing.instance) == ("debounced", "i-a")
    assert pair.one.instance("i-b") is None


def fired_twice(pair: Pair) -> list[str]:
    """Two activities that mean one thing come at once; what the trigger made of them."""
    current(pair)

    def arrives(store: Any, name: str) -> Append:
        once = Once("cid-t", b"key")
        return told(store, name, instance=new(f"i-{name}"), once=once)

    first = pair.held(pair.one, arrives(pair.one, "a"))
    second = pair.beside(lambda: pair.ask(pair.two, arrives(pair.two, "b")))
    pair.until_blocked(second)
    first.commit()
    second.result()
    return [pair.one.firings(f"cid-{name}")[0].outcome for name in "ab"]


def test_of_two_that_mean_one_thing_one_fires(pair: Pair) -> None:
    """Whoever comes second under a dedup key finds the first."""
    assert fired_twice(pair) == ["started", "deduped"]


def test_the_lock_is_what_makes_it_fire_once(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without it both have looked before either has written."""
    monkeypatch.setattr(flow, "lock", lambda *given: None)
    assert fired_twice(pair) == ["started", "started"]


def test_a_resume_takes_up_what_was_under_way(pair: Pair) -> None:
    """A firing that was planned during a pause, and lands while it ends, is taken up."""
    current(pair)
    pair.one.set_trigger_state("welcome", "paused", now=NOW)
    pair.ask(pair.one, told(pair.one, "a", outcome="paused"))
    slow = pair.held(pair.one, told(pair.one, "b", outcome="paused"))
    resumed = pair.beside(
        lambda: pair.two.set_trigger_state("welcome", "active", now=NOW, catch_up=True)
    )
    pair.until_blocked(resumed)
    seq = slow.commit()[0].seq
    resumed.result()
    (walk,) = pair.two.backfills()
    assert walk.span.last == seq


def test_nothing_planned_before_a_pause_lands_after_it(pair: Pair) -> None:
    """An append that waits for a change of the registry is stale once that has landed."""
    current(pair)
    planned = told(pair.two, "a", instance=new("i1"))
    inside, go = threading.Event(), threading.Event()

    def pause(db: Any) -> Any:
        registry.take(db)
        registry.set_state(db, "welcome", "paused", NOW, catch_up=None)
        db.execute("SELECT 1").rows()
        inside.set()
        assert go.wait(PATIENCE)
        return None, True

    pausing = pair.beside(lambda: pair.one._write(pause))
    assert inside.wait(PATIENCE)
    later = pair.beside(lambda: pair.ask(pair.two, planned))
    pair.until_blocked(later)
    go.set()
    pausing.result()
    assert later.result().verdict is Verdict.STALE
    assert pair.one.instance("i1") is None


def test_one_page_of_a_backfill_lands_once(pair: Pair) -> None:
    """Of two workers that move one cursor the second finds it moved."""
    current(pair)
    pair.ask(pair.one, Append("cid-a", b"{}", "[]", "[]", NOW, 1, ()))
    number = pair.one.open_backfill("welcome", Span(), now=NOW)
    generation, (trigger,) = pair.one.registry()
    mine, other = pair.worker(pair.one), pair.worker(pair.two)

    def page(id: str) -> Advance:
        firing = PlannedFiring(trigger.cid, new(id))
        return Advance(number, 0, 1, generation, NOW, looked=1, firings=((1, firing),))

    first = pair.held(pair.one, page("i1"), worker=mine)
    second = pair.beside(lambda: pair.ask(pair.two, page("i2"), worker=other))
    pair.until_blocked(second)
    assert first.commit()[0].verdict is Verdict.APPLIED
    assert second.result().verdict is Verdict.CONFLICT
    assert [each.instance for each in pair.one.firings("cid-a")] == ["i1"]
