"""What a store answers."""

from __future__ import annotations

import threading
from typing import Any

from triggerflow.store.operations import (
    Start,
)
from triggerflow.testing.store_checks.bench import (
    DUPLICATE,
    Bench,
    check,
    same,
    true,
)

# --- asking ----------------------------------------------------------------------------------


@check
def ask_for_nothing(w: Bench) -> None:
    """What isn't there is None or empty, never an error."""
    store = w.store
    same(
        "one",
        (store.instance("nobody"), store.activity("cid-x"), store.next_due()),
        (None,) * 3,
    )
    many = (store.firings("cid-x"), store.log(7, 1), store.inbox(7), store.outbox(5))
    same("many", many, ([], [], [], []))
    more = (store.woken(7), store.workers(), store.instances(), store.ids("x"))
    same("more", more, ([], [], [], []))
    same("reaped", store.reap(), 0)
    found = store.counts()
    same("counts", (found.activities, found.firings, found.instances), (0, 0, {}))
    same("the rest", (found.outbox, found.inbox, found.oldest_runnable), (0, 0, None))


@check
def ids_by_prefix(w: Bench) -> None:
    """Ids are found by prefix, letter by letter, no wildcards, at most so many."""
    w.start("abc", "abd", "b", "a%c", "a_c", "ABC")
    same("a prefix", sorted(w.store.ids("ab")), ["abc", "abd"])
    same("a whole id", w.store.ids("abc"), ["abc"])
    same("a wildcard", w.store.ids("a%"), ["a%c"])
    same("another", w.store.ids("a_"), ["a_c"])
    same("limit", len(w.store.ids("a", limit=2)), 2)
    same("none", w.store.ids("x"), [])


@check
def holders_of_a_key(w: Bench) -> None:
    """A key leads to the live instances that hold it, by flow and namespace."""
    worker = w.worker(flows={("welcome", 1), ("other", 1)})
    w.ask(Start(w.new("i1", key="k")))
    w.ask(Start(w.new("i2", flow="other", key="k")))
    w.ask(Start(w.new("i3", key="k", namespace="elsewhere")))
    w.ask(Start(w.new("i4", key="another")))
    same("any flow", sorted(w.store.holders("k", namespace="")), ["i1", "i2"])
    same("one flow", w.store.holders("k", namespace="", flow="other"), ["i2"])
    same("one namespace", w.store.holders("k", namespace="elsewhere"), ["i3"])
    mine = next(each for each in w.claim(worker).claimed if each.id == "i1")
    w.end(worker, mine)
    same("once it has ended", w.store.holders("k", namespace=""), ["i2"])
    same("nobody", w.store.holders("none", namespace=""), [])


@check
def instances_in_pages(w: Bench) -> None:
    """Instances come in pages, oldest or newest first, each one exactly once."""
    w.start(*(f"i{n}" for n in range(7)))
    for newest in (False, True):
        seen: list[str] = []
        after = None
        while page := w.store.instances(after=after, limit=3, newest_first=newest):
            true("a page holds at most its limit", len(page) <= 3)
            seen += [each.id for each in page]
            after = page[-1].cursor
        expected = [f"i{n}" for n in range(7)]
        same(f"newest_first={newest}", seen, expected[::-1] if newest else expected)


@check
def instances_by_filter(w: Bench) -> None:
    """Filters by status, flow and key narrow down, alone and together."""
    worker = w.worker()
    w.ask(Start(w.new("i1", key="k")))
    w.ask(Start(w.new("i2", "other", key="k")))
    w.ask(Start(w.new("i3")))
    w.park(worker, w.claim(worker, limit=1).claimed[0])

    def ids(**parts: Any) -> list[str]:
        return [each.id for each in w.store.instances(**parts)]

    same("status", (ids(status="waiting"), ids(status="done")), (["i1"], []))
    same("flow", ids(flow="welcome"), ["i1", "i3"])
    same("key", ids(key="k"), ["i1", "i2"])
    same("together", ids(key="k", flow="other", status="running"), ["i2"])
    same("newest", ids(flow="welcome", newest_first=True, limit=1), ["i3"])
    same("after", ids(flow="welcome", after=w.get("i1").cursor), ["i3"])


@check
def instances_by_origin(w: Bench) -> None:
    """Namespace, correlation id, parent, several statuses and times narrow down as well."""
    worker = w.worker()
    w.ask(Start(w.new("i1", namespace="shop", correlation_id="c")))
    w.now += 10
    w.ask(Start(w.new("i2", correlation_id="c")))
    w.now += 10
    w.ask(Start(w.new("i3", namespace="shop")))
    one, two, _ = w.claim(worker).claimed
    w.park(worker, one)
    w.end(worker, two, "failed")

    def ids(**parts: Any) -> list[str]:
        return [each.id for each in w.store.instances(**parts)]

    same("namespace", ids(namespace="shop"), ["i1", "i3"])
    same("the default one", ids(namespace=""), ["i2"])
    same("correlation", ids(correlation_id="c", newest_first=True), ["i2", "i1"])
    same("both", ids(correlation_id="c", namespace="shop"), ["i1"])
    same("parent", ids(parent="i1"), [])
    same("several", ids(status=("waiting", "failed")), ["i1", "i2"])
    same("open ones", ids(status=("running", "waiting", "blocked")), ["i1", "i3"])
    same("no status at all", ids(status=()), [])
    start = w.now - 20
    same("from", ids(created_after=start + 10), ["i2", "i3"])
    same("before", ids(created_before=start + 10), ["i1"])
    same("between", ids(created_after=start + 5, created_before=start + 15), ["i2"])


@check
def instances_page_by_creation(w: Bench) -> None:
    """Pages go by the time of creation; equal times, and clocks that go back, lose nothing."""
    names = [f"i{n}" for n in range(8)]
    for name, offset in zip(names, (5, 0, 5, 5, 9, 0, 5, 2), strict=True):
        w.ask(Start(w.new(name, created=w.now + offset)))
    expected = ["i1", "i5", "i7", "i0", "i2", "i3", "i6", "i4"]
    for newest in (False, True):
        seen: list[str] = []
        after = None
        while page := w.store.instances(after=after, limit=2, newest_first=newest):
            seen += [each.id for each in page]
            after = page[-1].cursor
        same(f"newest_first={newest}", seen, expected[::-1] if newest else expected)


@check
def counts_count(w: Bench) -> None:
    """Counts tell activities, firings, instances by status, outbox, unread, oldest runnable."""
    registry = w.triggers("a")
    worker = w.worker()
    w.end(worker, w.owned(worker, "i1"))
    w.park(worker, w.owned(worker, "i2"))
    w.commit(w.append("x", [w.fires("a", "i3")], registry), w.append("y", None))
    w.now += 9
    w.start("i4")
    w.ask(w.send("i4"))
    found = w.store.counts()
    same("rows", (found.activities, found.firings, found.outbox, found.inbox), (2, 1, 1, 1))
    same("instances", found.instances, {"done": 1, "waiting": 1, "running": 2})
    same("oldest runnable", found.oldest_runnable, w.now - 9)
    w.claim(worker)
    same("once all is owned", w.store.counts().oldest_runnable, None)


@check
def runnable_says_whether_somebody_waits(w: Bench) -> None:
    """It tells of instances without an owner that may go on, and of no others."""
    same("in an empty store", w.store.runnable(), False)
    worker = w.worker()
    w.start("i1")
    same("with a new one", w.store.runnable(), True)
    (mine,) = w.claim(worker).claimed
    same("with an owned one", w.store.runnable(), False)
    w.park(worker, mine)
    same("with a parked one", w.store.runnable(), False)
    w.ask(w.send("i1"))
    same("with a message", w.store.runnable(), True)


@check
def next_due_is_the_earliest(w: Bench) -> None:
    """The next due time is that of the parked ones, not of running or ended ones."""
    worker = w.worker()
    for name, due in (("i1", 30.0), ("i2", 20.0), ("i3", None)):
        w.park(worker, w.owned(worker, name), due=None if due is None else w.now + due)
    same("two timers", w.store.next_due(), w.now + 20)
    w.ask(w.send("i2"))
    same("one was woken", w.store.next_due(), w.now + 30)
    (two,) = w.claim(worker).claimed
    w.end(worker, two)
    same("it has ended", w.store.next_due(), w.now + 30)


@check
def own_writes_are_no_news(w: Bench) -> None:
    """`changed` tells of other processes; what this store wrote itself is no news."""
    w.store.changed()
    w.start("i1")
    w.triggers("a")
    w.store.forget_worker(w.worker()[0])
    w.get("i1")
    same("changed", w.store.changed(), False)


@check
def reads_from_other_threads(w: Bench) -> None:
    """Reads work from any thread, at any time, and see what is committed."""
    found: list[object] = []
    stop = threading.Event()

    def read() -> None:
        try:
            while not stop.is_set():
                w.store.counts()
                w.store.registry()
                found[:] = [len(w.store.instances(limit=1000))]
            found[:] = [len(w.store.instances(limit=1000))]
        except Exception as error:  # noqa: BLE001
            found[:] = [error]

    threads = [threading.Thread(target=read, daemon=True) for _ in range(2)]
    for thread in threads:
        thread.start()
    for number in range(30):
        w.start(f"i{number}")
    stop.set()
    for thread in threads:
        thread.join(30)
    same("seen at the end", found, [30])


@check
def close_keeps_the_data(w: Bench) -> None:
    """A closed store opens again with everything in it; so does one that crashed."""
    registry = w.triggers("a")
    w.ask(w.append("x", [w.fires("a", "i1")], registry))
    w.ask(w.send("i1", dedup="d", digest=b"d"))
    before = w.everything()
    for crash in (False, True):
        w.reopen(crash=crash)
        same(f"crash={crash}", w.everything(), before)
    again = w.commit(w.append("x", []), w.send("i1", dedup="d", digest=b"d"))
    same("what it remembers", [each.verdict for each in again], [DUPLICATE, DUPLICATE])
