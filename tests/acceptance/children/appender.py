"""Appends the GitHub file once, from the front or the back, and drives what it starts."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from house import finish, hear, make, say

store, data, way = sys.argv[1:]
activities = [json.loads(line) for line in Path(data).read_text().splitlines()]
if way == "backwards":
    activities.reverse()
say("ready")
hear()
with make(f"sqlite:///{store}").client() as client:
    for activity in activities:
        found = client.append(activity)
        fired = [[each.trigger, each.instance_id, each.error] for each in found.firings or ()]
        say("appended", json.dumps([found.cid, found.duplicate, fired]))
    finish(client)
    say("done")
    hear()
