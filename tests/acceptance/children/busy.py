"""Appends and drives without a pause until told to stop; counts its own commits meanwhile."""

from __future__ import annotations

import itertools
import json
import sys
import threading
from typing import Any

from house import finish, hear, make, say

from triggerflow.store.sqlite import SqliteStore

path, name, most = sys.argv[1], sys.argv[2], int(sys.argv[3])


class Counting(SqliteStore):
    """A store that knows how many transactions of its own were committed."""

    commits = 0

    def commit(self, batch: Any) -> Any:
        found = super().commit(batch)
        self.commits += 1
        return found


store = Counting(path)
stopped = threading.Event()
say("ready")
hear()


def listen() -> None:
    hear()
    stopped.set()


threading.Thread(target=listen, daemon=True).start()
with make(store).client() as client:
    say("open")
    for number in itertools.count():
        if stopped.is_set() or (most and number == most):
            break
        client.append(
            {
                "type": "github.push",
                "actor": f"https://github.com/{name}",
                "object": {"number": number, "sender": {"type": "User"}},
            }
        )
        say("tick", str(store.commits))
    finish(client)
    found: dict[str, int] = {}
    for each in client.instances():
        found[each.status] = found.get(each.status, 0) + 1
    say("done", json.dumps(found))
