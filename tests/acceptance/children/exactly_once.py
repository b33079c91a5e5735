"""Appends the GitHub file again and again, says so after each append, and drives the flows.

Ways: ``append`` until it is killed; ``rounds`` one round and a good end; ``drain`` appends
nothing and drives everything to its end.
"""

from __future__ import annotations

import itertools
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import sabotage
from house import finish, hear, make, say
from plainly import in_round

store, effects, data, way, life, dies_in = sys.argv[1:]
sabotage.apply()
webhooks = [json.loads(line) for line in Path(data).read_text().splitlines()]


def documents() -> Iterator[dict[str, Any]]:
    """Repeats of what an earlier life may have appended, then rounds of new documents."""
    number = int(life)
    for webhook in webhooks[:30]:
        yield in_round(webhook, number - 1, 0)
    for lap in itertools.count():
        for index, webhook in enumerate(webhooks):
            document = in_round(webhook, number, lap)
            yield document
            if index % 7 == 0:
                yield document
        if way == "rounds":
            return


with make(f"sqlite:///{store}", effects, dies_in).client() as client:
    say("open")
    hear()
    if way != "drain":
        for document in documents():
            found = client.append(document)
            fired = [[each.trigger, each.instance_id] for each in found.firings or ()]
            say("ack", json.dumps([found.cid, found.seq, found.duplicate, fired]))
    finish(client)
    say("done")
