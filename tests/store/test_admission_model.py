"""Admission against a model that keeps everything in lists and looks at all of it each time."""

from __future__ import annotations

from typing import Any

import attrs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from triggerflow.core.admission_request import Admission, Gather, Pace, Place
from triggerflow.core.codec import list_of
from triggerflow.store.newcomer import NewInstance
from triggerflow.store.operations import (
    Append,
    Batch,
    Claim,
    LogRow,
    PlannedFiring,
    Send,
    Terminate,
    Turn,
    Verdict,
)
from triggerflow.store.records import HOLDS, NewTrigger
from triggerflow.store.sqlite import MemoryStore

START = 1_000_000.0
FLOWS = frozenset({("welcome", 1)})


@attrs.define(eq=False)
class One:
    """An instance of the model."""

    id: str
    number: int
    asked: Admission
    inputs: list[bytes]
    status: str = "waiting"
    hold: str = ""
    due: float | None = None
    opened: float = 0.0
    claimed: bool = False
    cancelled: bool = False
    # One word a place: "", "waits", "taken" or "back".
    places: list[str] = attrs.field(factory=list)

    @property
    def live(self) -> bool:
        return self.status in ("waiting", "running")


class Model:
    """What admission should do, in the plainest way."""

    def __init__(self) -> None:
        self.all: list[One] = []
        self.rates: dict[tuple[str, str], tuple[float, float]] = {}

    def arrive(self, id: str, asked: Admission, now: float) -> tuple[str, str | None]:
        gather = asked.gather
        if gather is not None:
            for one in self.all:
                if one.hold == gather.kind and one.asked.gather.key == gather.key:
                    if one.due <= now:
                        self.close(one, now)
                        continue
                    if not gather.listed:
                        one.inputs.clear()
                    one.inputs.append(id.encode())
                    one.opened = min(one.opened, now)
                    one.due = gather.due(one.opened, now)
                    if gather.size is not None and len(one.inputs) >= gather.size:
                        self.close(one, now)
                    return gather.joined, one.id
        for place in asked.places:
            if place.mode == "skip" and len(self.having(place, "taken")) >= place.limit:
                return "limited", None
        if asked.rate_limit is not None:
            at, debt = self.rates.get((asked.rate_limit.scope, asked.rate_limit.key), (now, 0))
            taken = asked.rate_limit.taken(at, debt, now)
            if taken is None:
                # Where the clock was set back, what is owed shrinks from now on.
                kept = (min(at, now), debt)
                self.rates[asked.rate_limit.scope, asked.rate_limit.key] = kept
                return "limited", None
            self.rates[asked.rate_limit.scope, asked.rate_limit.key] = (now, taken)
        for place in asked.places:
            if place.mode == "cancel":
                for one in self.having(place, "", "waits", "taken"):
                    if one.cancelled:
                        continue
                    one.cancelled = True
                    if one.hold:
                        self.end(one, "cancelled")
        one = One(id, len(self.all) + 1, asked, [id.encode()], opened=now)
        one.places = ["taken" if place.mode == "skip" else "" for place in asked.places]
        self.all.append(one)
        if gather is not None and gather.size != 1:
            one.hold, one.due = gather.kind, gather.due(now, now)
        else:
            self.close(one, now)
        return "started", id

    def having(self, place: Place, *words: str) -> list[One]:
        """Live ones with such a place."""
        return [
            one
            for one in self.all
            if one.live
            for mine, word in zip(one.asked.places, one.places, strict=True)
            if (mine.scope, mine.key) == (place.scope, place.key) and word in words
        ]

    def close(self, one: One, now: float) -> None:
        one.hold, one.due = "", None
        pace = one.asked.throttle
        if pace is not None:
            at, debt = self.rates.get((pace.scope, pace.key), (now, 0))
            turn, *kept = pace.reserved(at, debt, now)
            self.rates[pace.scope, pace.key] = tuple(kept)
            if turn > now:
                one.hold, one.due = "throttle", turn
                return
        self.proceed(one)

    def proceed(self, one: One) -> None:
        one.hold, one.due = "place", None
        for rank, word in enumerate(one.places):
            if word != "taken":
                one.places[rank] = "waits"
                self.fill()
                return
        one.hold, one.status = "", "running"

    def fill(self) -> None:
        while True:
            free = [
                (-one.asked.priority, one.number, rank, one)
                for one in self.all
                if one.live
                for rank, word in enumerate(one.places)
                if word == "waits"
                and len(self.having(one.asked.places[rank], "taken"))
                < one.asked.places[rank].limit
            ]
            if not free:
                return
            _, _, rank, one = min(free, key=lambda each: each[:3])
            one.places[rank] = "taken"
            self.proceed(one)

    def end(self, one: One, status: str) -> None:
        one.status, one.hold, one.due = status, "", None
        one.places = ["back"] * len(one.places) if status == "failed" else []
        if status != "failed":
            one.asked = attrs.evolve(one.asked, places=())
        self.fill()

    def retry(self, one: One) -> None:
        one.status, one.claimed = "waiting", False
        one.places = [""] * len(one.places)
        self.proceed(one)

    def claim(self, now: float) -> list[str]:
        due = [one for one in self.all if one.due is not None and one.due <= now]
        for one in sorted(due, key=lambda each: (each.due, each.number)):
            if one.hold == "throttle":
                self.proceed(one)
            else:
                self.close(one, now)
        found = [one for one in self.all if one.status == "running" and not one.claimed]
        for one in found:
            one.claimed = True
        return sorted(one.id for one in found)


class Both:
    """The store and the model, driven alike."""

    def __init__(self) -> None:
        self.store = MemoryStore()
        self.store.open()
        row = NewTrigger("a", "cid-a", b"a", "means a")
        self.registry = self.store.sync_triggers([row], now=START)
        self.worker = self.store.register_worker(build="b", flows=FLOWS, now=START)
        self.model = Model()
        self.now = START
        self.arrived = 0

    def commit(self, *operations: Any) -> Any:
        return self.store.commit(Batch(list(operations), self.now, self.worker))

    def arrive(self, askeds: list[Admission]) -> None:
        operations, expected = [], []
        for asked in askeds:
            id = f"i{self.arrived:03}"
            self.arrived += 1
            new = NewInstance(id, "welcome", 1, id.encode(), b"seed", self.now, admission=asked)
            firing = PlannedFiring("cid-a", new)
            operations.append(
                Append(f"cid-{id}", b"{}", "[]", "[]", self.now, self.registry, (firing,))
            )
            expected.append(self.model.arrive(id, asked, self.now))
        found = [outcome.firings[0] for outcome in self.commit(*operations)]
        assert [(each.outcome, each.instance) for each in found] == expected
        assert all(bool(each.error) == (each.outcome == "limited") for each in found)

    def claim(self) -> None:
        (found,) = self.commit(Claim(1000, 0, "b", FLOWS, self.now))
        assert sorted(each.id for each in found.claimed) == self.model.claim(self.now)
        known = {one.id: one for one in self.model.all}
        for each in found.claimed:
            gather = known[each.id].asked.gather
            inputs = known[each.id].inputs
            listed = gather is not None and gather.listed
            assert each.input == (list_of(inputs) if listed else inputs[-1])

    def end(self, which: int, status: str) -> None:
        mine = [one for one in self.model.all if one.claimed and one.status == "running"]
        if not mine:
            return
        one = mine[which % len(mine)]
        record = self.store.instance(one.id)
        rows = (LogRow("call:a#0", b"v", False, None, self.now),)
        turn = Turn(
            record.number,
            1,
            record.log_length,
            rows,
            b"p",
            status,
            self.now,
            self.now,
            value=b"v",
            consumed=tuple(row.id for row in self.store.inbox(record.number)),
        )
        (found,) = self.commit(turn)
        assert found.verdict is Verdict.APPLIED
        self.model.end(one, status)

    def stop(self, which: int, how: str) -> None:
        live = [one for one in self.model.all if one.live]
        if not live:
            return
        one = live[which % len(live)]
        if how == "terminate":
            self.commit(Terminate(one.id, b"v", self.now))
            self.model.end(one, "cancelled")
            return
        self.commit(Send(one.id, "cancel", "", b"", self.now))
        one.cancelled = True
        if one.hold:
            self.model.end(one, "cancelled")

    def retry(self, which: int) -> None:
        failed = [one for one in self.model.all if one.status == "failed"]
        if failed:
            one = failed[which % len(failed)]
            self.commit(Send(one.id, "retry", "", b"", self.now))
            self.model.retry(one)

    def compare(self) -> None:
        rows = {row.id: row for row in self.store.instances(limit=1000)}
        assert set(rows) == {one.id for one in self.model.all}
        for one in self.model.all:
            row = rows[one.id]
            assert (row.status, HOLDS[row.held]) == (one.status, one.hold), one.id
            if one.hold:
                assert row.due == one.due, one.id
        db = self.store._db
        taken = {
            (scope, key): count
            for scope, key, count in db.execute(
                "SELECT scope, key, count(*) FROM place WHERE state = 2 GROUP BY scope, key"
            )
        }
        pools = db.execute("SELECT scope, key, taken, cap FROM pool").fetchall()
        assert {(scope, key): count for scope, key, count, _ in pools if count} == taken
        assert all(0 < count <= cap for _, _, count, cap in pools)
        assert len(taken) == len(pools), "no pool is left behind"


def paces(scope: str) -> Any:
    return st.builds(
        lambda limit, burst: (scope, limit, 8, burst), st.integers(1, 3), st.integers(1, 2)
    )


NOTHING = {
    "gather": None,
    "rate_limit": None,
    "throttle": None,
    "mode": None,
    "limit": 1,
    "more": 0,
    "batch": 3,
    "longest": None,
}
PARTS = {
    "gather": st.sampled_from(["last", "all", "batch"]),
    "longest": st.sampled_from([None, 6.0]),
    "batch": st.integers(1, 4),
    "rate_limit": paces("r"),
    "throttle": paces("t"),
    "mode": st.sampled_from(["wait", "wait", "skip", "cancel"]),
    "limit": st.integers(1, 3),
    "more": st.sampled_from([0, 1, 2]),
}
# Few things at a time meet more of their hazards than all at once do.
FOCUS = {
    "groups": ("gather", "longest", "batch"),
    "rates": ("rate_limit", "throttle"),
    "places": ("mode", "limit", "more"),
    "turns and places": ("throttle", "mode", "limit"),
    "groups and places": ("gather", "batch", "mode", "limit", "more"),
    "all": tuple(PARTS),
}


def asked(control: dict[str, Any], key: str, other: str, priority: int) -> Admission:
    places = []
    if control["mode"]:
        limit = control["limit"] if control["mode"] == "wait" else 1
        places.append(Place("p", key, limit, control["mode"]))
    if control["more"]:
        places.append(Place("q", "", control["more"]))
    gather = None
    if control["gather"] == "batch":
        gather = Gather("batch", "g", other, 4.0, None, control["batch"], True, 10**6)
    elif control["gather"]:
        listed = control["gather"] == "all"
        gather = Gather("debounce", "g", other, 3.0, control["longest"], None, listed, 10**6)
    rate, throttle = control["rate_limit"], control["throttle"]
    return Admission(
        gather,
        None if rate is None else Pace(rate[0], key, *rate[1:]),
        None if throttle is None else Pace(throttle[0], other, *throttle[1:]),
        tuple(places),
        priority,
    )


STEPS = {
    "arrive": st.lists(
        st.tuples(st.sampled_from("aab"), st.sampled_from("xxy"), st.integers(-1, 1)),
        min_size=1,
        max_size=5,
    ),
    "time": st.sampled_from([0.5, 1.0, 3.0, 3.0, 10.0, -2.0, -50.0]),
    "end": st.tuples(
        st.integers(0, 9), st.sampled_from(["done", "failed", "failed", "cancelled"])
    ),
    "stop": st.tuples(st.integers(0, 9), st.sampled_from(["cancel", "terminate"])),
    "retry": st.integers(0, 9),
}
steps = st.sampled_from(["arrive", "arrive", "time", "time", *STEPS]).flatmap(
    lambda what: st.tuples(st.just(what), STEPS[what], st.sampled_from([True, True, False]))
)


@pytest.mark.parametrize("focus", FOCUS)
@settings(max_examples=80, deadline=None)
@given(st.data())
def test_the_store_does_what_the_model_does(focus: str, data: Any) -> None:
    """Whatever arrives, ends, is cancelled or retried, at whatever time: the same decisions."""
    parts = st.fixed_dictionaries({name: PARTS[name] for name in FOCUS[focus]})
    control = NOTHING | data.draw(parts)
    todo = data.draw(st.lists(steps, min_size=5, max_size=40))
    both = Both()
    try:
        for what, given, claims in [*todo, ("time", 1000.0, True)]:
            if what == "arrive":
                both.arrive([asked(control, *each) for each in given])
            elif what == "time":
                both.now += given
            elif what == "end":
                both.end(*given)
            elif what == "stop":
                both.stop(*given)
            else:
                both.retry(given)
            if claims:
                both.claim()
            both.compare()
    finally:
        both.store.close()
