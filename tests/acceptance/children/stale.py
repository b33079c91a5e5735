"""Two workers and one instance: the first stands still past its lease while it runs a step."""

from __future__ import annotations

import json
import sys

import sabotage
from house import Effects, hear, say

import triggerflow as tf

store, effects, role, lease = sys.argv[1:]
sabotage.apply()
app = tf.App(f"sqlite:///{store}", entry_points=False)
world = Effects(effects)


def first(kind: str) -> str:
    world.note()
    if role == "holder":
        say("holding")
        if hear() == "fail":
            raise RuntimeError("too late")
    return kind


def second(before: str, number: int) -> list[object]:
    world.note()
    return [before, number]


def third(before: list[object]) -> list[object]:
    world.note()
    return before


@app.flow
def three(activity: dict[str, str]) -> object:
    # An hour of back-off: whoever stores it here parks the instance beyond this test.
    patient = tf.RetryPolicy(max_attempts=9, initial=3600)
    one = yield tf.call(first, activity["type"]).using(retry=patient)
    two = yield tf.call(second, one, 2)
    return (yield tf.call(third, two))


app.trigger("every", on="*", start=three)
with app.client(lease=float(lease)) as client:
    if role == "holder":
        found = client.append({"type": "Follow", "actor": "https://a.example/ann"})
        fired = [[each.trigger, each.instance_id] for each in found.firings or ()]
        # The step's "holding" may come before or after this line.
        say("ack", json.dumps([found.cid, found.seq, found.duplicate, fired]))
        client.run_until_idle()
        say("idle")
    else:
        (only,) = client.instances()
        say("done", json.dumps(client.wait(only.id, timeout=40).status))
