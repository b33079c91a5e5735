"""Books seats in the store's own database, for flows that a SIGKILL may meet anywhere.

Ways: ``append`` until it is killed; ``one`` a single order; ``drain`` appends nothing and
drives everything to its end. `dies` names where the first booking kills its process.
"""

from __future__ import annotations

import itertools
import os
import signal
import sys
from typing import Any

import sabotage
from house import finish, hear, say

import triggerflow as tf
from triggerflow.store.sqlite import SqliteStore, transactions

path, way, life, dies = sys.argv[1:]
sabotage.apply()


def dies_here(where: str) -> None:
    """Be killed, if that is what the parent wants here."""
    if dies == where:
        os.kill(os.getpid(), signal.SIGKILL)


class Store(SqliteStore):
    """Dies before a transaction, or after it and before anybody has heard."""

    def transact(self, *args: Any, **kwargs: Any) -> Any:
        dies_here("before")
        found = super().transact(*args, **kwargs)
        dies_here("after")
        return found


# Where sabotage has put a second commit.
transactions.between = lambda: dies_here("between")  # type: ignore[attr-defined]
app = tf.App(Store(path), build="one", entry_points=False)


@tf.transaction
def book(tx: tf.Transaction, order: str, leg: int) -> list[object]:
    # Nothing here forbids to book twice: that is what the audit looks for.
    tx.execute("CREATE TABLE IF NOT EXISTS seats (seat INTEGER PRIMARY KEY, order_id, leg)")
    seat = tx.execute("INSERT INTO seats (order_id, leg) VALUES (?, ?)", (order, leg)).lastrowid
    dies_here("within")
    return [seat, order, leg]


def weigh(leg: int) -> int:
    return leg


@app.flow
def travel(activity: dict[str, Any]) -> object:
    order = activity["id"]
    first = yield tf.call(book, order, 1)
    rest = yield tf.gather(tf.call(book, order, 2), tf.call(weigh, 2), tf.call(book, order, 3))
    return [first, rest[0], rest[2]]


app.trigger("travel", on="Order", start=travel)

with app.client() as client:
    say("open")
    hear()
    for number in itertools.count() if way == "append" else range(way == "one"):
        order = {"type": "Order", "actor": "https://a.example/ann", "id": f"{life}-{number}"}
        client.append(order)
        say("ack", order["id"])
    finish(client)
    say("done")
