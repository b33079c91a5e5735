"""Runs one version of the flow `order`: starts one, or drives what is there."""

from __future__ import annotations

import importlib
import json
import sys

from house import say

import triggerflow as tf

store, version, way = sys.argv[1:]
app = tf.App(f"sqlite:///{store}", entry_points=False)
app.register(importlib.import_module(f"orders.{version}").order)


def show(found: tf.Instance) -> None:
    """The instance as it stands, and the build that looked at it."""
    seen = [found.status, found.cause, found.reason, found.waiting, found.result, app.build]
    say("found", json.dumps(seen))


with app.client() as client:
    if way == "start":
        say("started", json.dumps(client.start("order", "lamp")))
    client.run_until_idle()
    (found,) = client.instances()
    show(found)
    if way == "answer":
        client.signal(found.id, "received", "thanks")
        show(client.wait(found.id, timeout=30))
