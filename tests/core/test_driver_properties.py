"""Random flows under an adversary: incremental and full replay never differ."""

from __future__ import annotations

import copy
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from triggerflow.core.codec import ValueCodec
from triggerflow.core.driver import Done, Failed, Replay, drive
from triggerflow.core.failure import Failure
from triggerflow.core.log import CANCEL, Entry, Pending
from triggerflow.core.verbs import (
    call,
    gather,
    now,
    patched,
    race,
    random,
    sleep,
    uuid4,
    wait_signal,
)
from triggerflow.errors import Diverged, FlowCancelled, StepFailed, TimedOut

CODEC = ValueCodec()
SEED = b"seed"
FAST = settings(max_examples=80, deadline=None)


def ann(*args):
    """A step; the driver never runs it."""


def bob(*args):
    """Another step."""


# --- programs: a list of nodes; what a node does depends on the log alone ------------------

LEAVES = ["call", "call_shared", "sleep", "wait", "wait_several", "wait_default"]
FREE = ["now", "uuid4", "random"]


def programs(*, patches: bool = True) -> st.SearchStrategy[list[Any]]:
    free = [*FREE, "patched"] if patches else FREE
    leaf = (
        st.sampled_from(["ann", "bob"]).map(lambda name: ("call", name))
        | st.sampled_from(LEAVES[1:]).map(lambda kind: (kind,))
        | st.sampled_from(free).map(lambda kind: (kind,))
    )

    def composite(inner):
        program = st.lists(inner, max_size=3)
        return (
            st.tuples(st.just("gather"), st.lists(program, max_size=3))
            | st.tuples(st.just("race"), st.lists(program, min_size=1, max_size=3))
            | st.tuples(st.just("named"), st.lists(program, min_size=1, max_size=2))
            | st.tuples(st.just("plain"), st.sampled_from(["gather", "race"]))
            | st.tuples(st.just("sub"), program)
            | st.tuples(st.just("catch"), program, program)
            | st.tuples(st.just("cleanup"), program, program)
            | st.tuples(st.just("swallow"), program)
            | st.tuples(st.just("either"), program, program)
            | st.tuples(st.just("raise"))
        )

    return st.lists(st.recursive(leaf, composite, max_leaves=12), min_size=1, max_size=4)


def run(program, state):
    got = []
    for node in program:
        value = yield from step(node, state)
        got.append(value)
        state["shared"].append(len(got))
        state["last"] = value
    return got


def step(node, state):
    kind = node[0]
    if kind == "call":
        return (yield call({"ann": ann, "bob": bob}[node[1]], len(state["trace"]), "x"))
    if kind == "call_shared":
        return (yield call(ann, state["shared"], key=state["shared"]))
    if kind == "sleep":
        return (yield sleep(5))
    if kind == "wait":
        return (yield wait_signal("go", timeout=9))
    if kind == "wait_several":
        signal = yield wait_signal(("a", "b"))
        return [signal.name, signal.payload]
    if kind == "wait_default":
        return (yield wait_signal("go", timeout=9, default="late"))
    if kind in ("now", "uuid4", "random", "patched"):
        made = {"now": now, "uuid4": uuid4, "random": random}
        value = yield patched("fix") if kind == "patched" else made[kind]()
        state["trace"].append((kind, value))
        return value
    if kind == "gather":
        return (yield gather(*[run(part, state) for part in node[1]]))
    if kind == "race":
        won = yield race(*[run(part, state) for part in node[1]])
        return [won.index, won.name, won.value]
    if kind == "named":
        won = yield from race(**{f"b{i}": run(part, state) for i, part in enumerate(node[1])})
        return [won.index, won.name, won.value]
    if kind == "plain":
        parts = (call(ann, 1), sleep(3), wait_signal("go"))
        if node[1] == "gather":
            return (yield gather(*parts))
        return (yield race(*parts)).value
    if kind == "sub":
        return (yield from run(node[1], state))
    if kind == "catch":
        try:
            return (yield from run(node[1], state))
        except (StepFailed, TimedOut, ValueError) as error:
            state["trace"].append(("caught", type(error).__name__))
            return (yield from run(node[2], state))
    if kind == "cleanup":
        try:
            return (yield from run(node[1], state))
        finally:
            yield from run(node[2], state)
    if kind == "swallow":
        try:
            return (yield from run(node[1], state))
        except FlowCancelled:
            return "swallowed"
    if kind == "either":
        taken = node[1] if state["last"] in (1, [1], "late") else node[2]
        return (yield from run(taken, state))
    raise ValueError("its own doing")


def flow_of(program):
    """A flow, and the trace that its newest drive left."""
    seen = {}

    def flow(_input):
        state = seen["state"] = {"shared": [], "trace": [], "last": None}
        return (yield from run(program, state))

    return flow, seen


VALUES = st.sampled_from([0, 1, "late", [1], {"k": [2]}])
CHOICES = st.lists(
    st.tuples(st.integers(0, 7), st.sampled_from("vvvvvfx"), VALUES), max_size=14
)


def pending_of(replay: Replay) -> dict[str, Pending]:
    return {tag: Pending(replay.digest_of(each)) for tag, each in replay.pending.items()}


class Live:
    """A live drive whose entries an adversary chooses; it keeps the record."""

    def __init__(self, program) -> None:
        self.flow, self.seen = flow_of(program)
        self.log: list[Entry] = []
        self.at = 1000.0
        self.replay = Replay(self.flow, None, codec=CODEC, seed=SEED, started=self.at)
        self.pending: dict[str, Pending] = {}
        self.cancelled = False
        self.keep()

    def keep(self) -> None:
        self.log += self.replay.recorded
        self.replay.recorded = []
        # As a turn does: digests are stored with the commit that arms.
        self.pending = pending_of(self.replay)

    def choose(self, index: int, how: str, value: Any) -> bool:
        if self.replay.outcome is not None:
            return False
        self.at += 1
        if how == "x" and not self.cancelled:
            self.cancelled = True
            entry = Entry(CANCEL, at=self.at)
        else:
            tag = list(self.pending)[index % len(self.pending)]
            entry = Entry(tag, None, None, self.pending[tag].digest, self.at)
            waits = "wait_signal" in tag.rpartition("/")[2]
            if how == "f":
                kind = "timed_out" if waits else "error"
                entry.failure = Failure("IOError", "no", kind=kind)
            elif waits and "|" in tag:
                entry.value = ["a", value]
            else:
                entry.value = value
        self.log.append(copy.deepcopy(entry))
        self.replay.resolve(copy.deepcopy(entry))
        self.keep()
        return True

    def state(self):
        return (
            list(self.pending.items()),
            self.replay.outcome,
            self.seen["state"]["trace"],
            self.replay.position,
        )


def full(program, log, stored=None):
    flow, seen = flow_of(program)
    replay = Replay(
        flow,
        None,
        codec=CODEC,
        seed=SEED,
        started=1000.0,
        log=copy.deepcopy(log),
        stored=stored,
    )
    return (
        list(pending_of(replay).items()),
        replay.outcome,
        seen["state"]["trace"],
        replay.position,
    )


@FAST
@given(programs(), CHOICES)
def test_live_and_replay_agree_after_every_entry(program, choices):
    """A fresh replay of the log has the live drive's pending set, outcome and chance."""
    live = Live(program)
    assert full(program, live.log, live.pending if live.pending else None) == live.state()
    for choice in choices:
        if not live.choose(*choice):
            break
        assert full(program, live.log, live.pending) == live.state()
        assert live.replay.position == len(live.log)


@FAST
@given(programs(), CHOICES)
def test_every_split_of_a_log_drives_alike(program, choices):
    """A replay of k entries that takes the tail one by one ends where a full one does."""
    live = Live(program)
    for choice in choices:
        live.choose(*choice)
    for cut in range(len(live.log) + 1):
        flow, seen = flow_of(program)
        replay = Replay(
            flow,
            None,
            codec=CODEC,
            seed=SEED,
            started=1000.0,
            log=copy.deepcopy(live.log[:cut]),
        )
        for entry in copy.deepcopy(live.log[cut:]):
            # What `patched` records by itself is not fed to it.
            if not entry.tag.startswith("patched:"):
                replay.resolve(entry)
        assert replay.outcome == live.replay.outcome
        assert pending_of(replay) == live.pending
        if not any(entry.tag.startswith("patched:") for entry in live.log[cut:]):
            assert seen["state"]["trace"] == live.seen["state"]["trace"]


@FAST
@given(programs(), CHOICES)
def test_drive_is_pure(program, choices):
    """Two drives of the same objects give one answer, whatever the flow does to them."""
    live = Live(program)
    for choice in choices:
        live.choose(*choice)
    before = copy.deepcopy(live.log)
    answers = [
        drive(live.flow, None, live.log, seed=SEED, started=1000.0, pending=live.pending)
        for _ in range(2)
    ]
    assert answers[0] == answers[1]
    assert live.log == before
    if isinstance(answers[0], Done | Failed):
        assert answers[0] == live.replay.outcome
    else:
        assert list(answers[0].tags) == list(live.pending)


def first_unlawful(program, log) -> int | None:
    """The first position whose entry the code doesn't wait for: the model to hold against."""
    flow, _ = flow_of(program)
    replay = Replay(flow, None, codec=CODEC, seed=SEED, started=1000.0)
    cancelled = False
    for position, entry in enumerate(copy.deepcopy(log)):
        if replay.outcome is not None:
            return position
        if entry.tag == CANCEL:
            if cancelled:
                return position
            cancelled = True
        elif entry.tag not in replay.pending or (
            entry.digest not in (None, replay.digest_of(replay.pending[entry.tag]))
        ):
            return position
        replay.resolve(entry)
    return None


@settings(FAST, max_examples=120)
@given(
    programs(patches=False),
    CHOICES,
    st.sampled_from(["swap", "drop", "tag", "number", "digest", "double"]),
    st.integers(0, 20),
)
def test_a_changed_log_is_refused_where_it_was_changed_or_is_lawful(
    program, choices, change, where
):
    """Any single change of a log diverges at the first entry that the code can't have made."""
    live = Live(program)
    for choice in choices:
        live.choose(*choice)
    log = copy.deepcopy(live.log)
    if len(log) < 2:
        return
    k = where % (len(log) - 1)
    if change == "swap":
        log[k], log[k + 1] = log[k + 1], log[k]
    elif change == "drop":
        del log[k]
    elif change == "tag":
        log[k].tag = log[k].tag.replace("ann", "eve").replace("sleep", "sleep_until")
    elif change == "number":
        log[k].tag = log[k].tag.rpartition("#")[0] + "#7"
    elif change == "digest":
        log[k].digest = b"\0" * 16
    else:
        log.insert(k, copy.deepcopy(log[k]))
    if any(("|" in e.tag) and e.failure is None and type(e.value) is not list for e in log):
        return
    position = first_unlawful(program, log)
    try:
        found = full(program, log)
    except Diverged as diverged:
        assert diverged.position == position
        assert diverged.recorded
        assert diverged.expected
    else:
        assert position is None
        assert found[3] == len(log)


@FAST
@given(programs(patches=False), CHOICES, st.integers(0, 20))
def test_a_foreign_request_in_flight_is_always_found(program, choices, where):
    """A stored call that the code doesn't make, or makes otherwise, diverges at the end."""
    live = Live(program)
    for choice in choices:
        live.choose(*choice)
    for stored in (
        {**live.pending, "call:eve#0": Pending(b"\1" * 16)},
        {
            tag: Pending(b"\1" * 16 if kept.digest and "call" in tag else kept.digest)
            for tag, kept in live.pending.items()
        },
    ):
        if stored == live.pending:
            continue
        try:
            full(program, live.log, stored)
        except Diverged as diverged:
            assert diverged.reason == "pending"
            assert diverged.position == len(live.log)
        else:
            raise AssertionError("accepted")
