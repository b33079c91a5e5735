"""Flows under every control on one store; a parent says which batch to bring in, and may kill.

A command is the number of a batch: ten activities, by the letters of `KINDS`. ``end`` drives
everything to its end and says ``done``.
"""

from __future__ import annotations

import json
import os
import sys
from typing import Any

from controlled_audit import CONTROLS, KINDS
from house import hear, say

import triggerflow as tf

store, world, _, lease = sys.argv[1:]
effects = os.open(f"{world}.txt", os.O_WRONLY | os.O_APPEND | os.O_CREAT)
app = tf.App(f"sqlite:///{store}", entry_points=False)


def note(_given: object) -> None:
    """This run of a step, as the world outside sees it."""
    at = tf.step_context()
    os.write(effects, f"{at.instance} {at.tag} {at.attempt} {os.getpid()}\n".encode())


@app.flow
def flow(given: Any) -> Any:
    numbers = [each["n"] for each in given] if isinstance(given, list) else [given["n"]]
    yield tf.call(note, numbers)
    yield tf.sleep(0.02)
    yield tf.call(note, numbers)
    return numbers


for kind, control in CONTROLS.items():
    app.trigger(kind, on=kind, start=flow, control=control)


def bring_in(client: tf.Client, batch: int) -> dict[str, list[Any]]:
    """A batch; what was acknowledged of it, by the number of each activity."""
    first = batch * len(KINDS)
    documents = [
        {"type": kind, "actor": "https://a.example/ann", "n": n, "k": batch % 3}
        for n, kind in enumerate(KINDS, first)
    ]
    told = {}
    for document, found in zip(documents, client.append_many(documents), strict=True):
        (firing,) = found.firings
        told[str(document["n"])] = [firing.outcome, firing.instance_id or ""]
    return told


def end(client: tf.Client) -> None:
    """Drive everything to its end, what is held included."""
    while left := list(client.instances(status=("running", "waiting", "blocked"))):
        client.wait(left[0].id, timeout=60)


with app.client(lease=float(lease)) as client:
    say("open")
    while command := hear():
        if command == "end":
            end(client)
            say("done")
        else:
            say("ack", json.dumps(bring_in(client, int(command))))
