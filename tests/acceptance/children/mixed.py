"""Flows of every kind on one store; a parent says which batch to bring in, and may kill it.

A command is the number of a batch: flows, one a kind. ``end`` drives everything to its
end and says ``done``. In a process that is ``held``, steps of the kind that fails at first
stand still until ``go``, fail, and would be tried again in an hour.
"""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
import sys
import threading
from typing import Any

import sabotage
from house import hear, say

import triggerflow as tf

store, world, way, lease = sys.argv[1:]
sabotage.apply()
ACTOR = "https://a.example/ann"
KINDS = (
    *("plain", "flaky", "race", "signal", "family", "saga", "again", "paid", "echo"),
    *("queued", "lost", "undone", "dropped", "keyed"),
)
effects = os.open(f"{world}.txt", os.O_WRONLY | os.O_APPEND | os.O_CREAT)
app = tf.App(f"sqlite:///{store}", entry_points=False)


gate = threading.Event()
if way != "held":
    gate.set()


def note() -> None:
    """This run of a step, as the world outside sees it."""
    at = tf.step_context()
    line = f"{at.instance} {at.generation} {at.tag} {at.attempt} {os.getpid()}\n"
    os.write(effects, line.encode())


def step(n: int) -> int:
    note()
    return n + 1


def flaky(n: int) -> int:
    note()
    gate.wait()
    if tf.step_context().attempt < 3:
        raise OSError(n)
    return n


async def slow(n: int) -> int:
    note()
    import trio

    await trio.sleep(0.03)
    return n


def ledger(amount: int, n: int) -> None:
    """What a bank does: it knows a repeat by its key."""
    key = tf.step_context().idempotency_key
    with sqlite3.connect(f"{world}.db", timeout=30) as db:
        db.execute("PRAGMA synchronous = OFF")
        db.execute("INSERT OR IGNORE INTO ledger VALUES (?, ?, ?)", (key, n, amount))
    db.close()


def charge(n: int, amount: int) -> int:
    note()
    if amount == 7 and n % 3 == 0:
        raise OSError("refused")
    ledger(amount, n)
    return amount


def refund(charged: int | None, n: int, amount: int) -> int:
    note()
    ledger(-amount, n)
    return -amount


# Steps of the queue "far", which every process here serves; nobody serves "nowhere".


@app.step
def far_step(n: int) -> int:
    note()
    return n + 1


@app.step
def far_flaky(n: int) -> int:
    at = tf.step_context()
    assert at.details is None or at.details < at.attempt
    at.heartbeat(at.attempt)
    return flaky(n)


@app.step
async def far_slow(n: int) -> int:
    return await slow(n)


@app.step
def far_charge(n: int, amount: int) -> int:
    return charge(n, amount)


@app.step
def far_refund(charged: int | None, n: int, amount: int) -> int:
    return refund(charged, n, amount)


@app.step
async def far_hold(n: int) -> int:
    """Holds money, slowly; what was freed before can't be held any more."""
    with sqlite3.connect(f"{world}.db", timeout=30) as db:
        db.execute("PRAGMA synchronous = OFF")
        db.execute("INSERT OR IGNORE INTO ledger VALUES (?, ?, 5)", (f"hold-{n}", n))
    db.close()
    return await slow(n)


@app.step
def far_free(held: int | None, n: int) -> int:
    """Frees it. A hold that runs on after it was withdrawn finds its place taken."""
    note()
    with sqlite3.connect(f"{world}.db", timeout=30) as db:
        db.execute("PRAGMA synchronous = OFF")
        db.execute("INSERT OR IGNORE INTO ledger VALUES (?, ?, 0)", (f"hold-{n}", n))
        db.execute(
            "INSERT OR IGNORE INTO ledger"
            " SELECT ?, n, -amount FROM ledger WHERE key = ? AND amount <> 0",
            (f"free-{n}", f"hold-{n}"),
        )
    db.close()
    return -n


@tf.transaction
def pay(tx: tf.Transaction, n: int, leg: int) -> list[int]:
    # Nothing here forbids to pay twice: that is what the audit looks for.
    tx.execute("CREATE TABLE IF NOT EXISTS payment (n, leg)")
    tx.execute("INSERT INTO payment VALUES (?, ?)", (n, leg))
    return [n, leg]


@app.flow
def plain(activity: dict[str, Any]) -> Any:
    n = yield tf.call(step, activity["n"])
    n = yield tf.call(step, n)
    return (yield tf.call(step, n))


wait = 0.02 if way == "free" else 3600
policy = tf.RetryPolicy(max_attempts=9, initial=wait, factor=1, cap=3600)


@app.flow(name="flaky")
def flaky_flow(activity: dict[str, Any]) -> Any:
    n = yield tf.call(flaky, activity["n"]).using(retry=policy)
    return (yield tf.call(step, n))


@app.flow
def race(activity: dict[str, Any]) -> Any:
    n = activity["n"]
    won = yield tf.race(tf.call(slow, n), timer=tf.sleep(0.02))
    both = yield tf.gather(tf.call(step, n), tf.call(step, n + 1))
    return [won.index in (0, 1), *both]


@app.flow(name="signal")
def signalled(activity: dict[str, Any]) -> Any:
    n = yield tf.wait_signal("go")
    return (yield tf.call(step, n))


@app.flow
def leaf(n: int) -> Any:
    return (yield tf.call(step, n))


@app.flow
def family(activity: dict[str, Any]) -> Any:
    n = activity["n"]
    refs = []
    for each in (1, 2):
        refs.append((yield tf.spawn(leaf, n + each)))
    first = yield tf.child(leaf, n)
    return [first, *(yield tf.gather(*map(tf.join, refs)))]


@app.flow
def saga(activity: dict[str, Any]) -> Any:
    n = activity["n"]
    try:
        yield tf.call(charge, n, 5).using(compensate=refund)
        yield tf.call(charge, n, 7).using(compensate=refund)
    except tf.StepFailed:
        return (yield tf.compensate_all())
    return "charged"


@app.flow
def again(state: dict[str, Any]) -> Any:
    n = yield tf.call(step, state["n"])
    if state.get("round", 0) < 2:
        yield tf.continue_as_new({"n": n, "round": state.get("round", 0) + 1})
    return n


@app.flow
def paid(activity: dict[str, Any]) -> Any:
    n = activity["n"]
    return (yield tf.gather(tf.call(pay, n, 1), tf.call(pay, n, 2)))


@app.flow
def echo(activity: dict[str, Any]) -> Any:
    n = activity["n"]
    yield tf.emit({"type": "Ask", "actor": ACTOR, "n": n})
    answer = yield tf.wait_activity({"type": ["Answer"], "n": [n]})
    return [answer["n"]]


@app.flow
def answer(activity: dict[str, Any]) -> Any:
    n = yield tf.call(step, activity["n"])
    yield tf.emit({"type": "Answer", "actor": ACTOR, "n": n - 1})
    return n


@app.flow
def queued(activity: dict[str, Any]) -> Any:
    n = yield tf.call(far_step, activity["n"]).using(queue="far")
    both = yield tf.gather(
        tf.call(far_flaky, n).using(queue="far", retry=policy),
        tf.call(far_step, n).using(queue="far"),
    )
    return [n, *both]


@app.flow
def lost(activity: dict[str, Any]) -> Any:
    """A hold on the queue that loses a race is freed; every other one has time to win."""
    n = activity["n"]
    won = yield tf.race(
        tf.call(far_hold, n).using(queue="far", compensate=far_free),
        timer=tf.sleep(0.03 if odd(n) else 5),
    )
    return won.index


@app.flow
def undone(activity: dict[str, Any]) -> Any:
    n = activity["n"]
    try:
        yield tf.call(far_charge, n, 5).using(queue="far", compensate=far_refund)
        yield tf.call(far_charge, n, 7).using(queue="far", compensate=far_refund)
    except tf.StepFailed:
        return (yield tf.compensate_all())
    return "charged"


@app.flow
def dropped(activity: dict[str, Any]) -> Any:
    """Cancelled while its call is queued, or runs."""
    n = activity["n"]
    return (yield tf.call(far_slow, n).using(queue="far" if odd(n) else "nowhere"))


def odd(n: int) -> bool:
    """Whether it belongs to every other batch."""
    return n // len(KINDS) % 2 == 1


@app.flow
def keyed(n: int) -> Any:
    return (yield tf.call(step, n))


for kind in KINDS[:-1]:
    app.trigger(kind, on="Order", match={"kind": [kind]}, start=kind)
app.trigger("answer", on="Ask", start=answer)


def bring_in(client: tf.Client, batch: int) -> dict[str, list[Any]]:
    """A batch; what was acknowledged of it, by the number of each flow."""
    first = batch * len(KINDS)
    orders = [
        {"type": "Order", "actor": ACTOR, "kind": kind, "n": n}
        for n, kind in enumerate(KINDS[:-1], first)
    ]
    told = {}
    for order, found in zip(orders, client.append_many(orders), strict=True):
        (firing,) = found.firings
        told[str(order["n"])] = [found.cid, firing.instance_id]
    last = first + len(KINDS) - 1
    told[str(last)] = [None, client.start("keyed", last, key=f"order-{last}")]
    # It has ended where this batch was brought in before, by one that died.
    n = first + KINDS.index("signal")
    with contextlib.suppress(tf.InstanceEnded):
        client.signal(told[str(n)][1], "go", n, dedup="go")
    with contextlib.suppress(tf.InstanceEnded):
        client.cancel(told[str(first + KINDS.index("dropped"))][1])
    return told


def end(client: tf.Client) -> None:
    """Answer what waits, and drive everything to its end."""
    while True:
        client.run_until_idle()
        left = list(client.instances(status=("running", "waiting", "blocked")))
        if not left:
            return
        for each in left:
            if each.flow == "signal" and each.status == "waiting":
                client.signal(each.id, "go", each.input["n"], dedup="go")
        client.wait(left[0].id, timeout=60)


with app.client(lease=float(lease), queues=["far"]) as client:
    say("open")
    while command := hear():
        if command == "end":
            end(client)
            say("done")
        elif command == "go":
            gate.set()
            client.run_until_idle()
            say("idle")
        else:
            say("ack", json.dumps(bring_in(client, int(command))))
