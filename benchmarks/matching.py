"""From an activity to its triggers: the index beside a scan, and what registering costs.

usage: matching.py match SET TRIGGERS | register TRIGGERS | reload TRIGGERS | open TRIGGERS
       | append ACTIVITIES TRIGGERS | check SET TRIGGERS
SET: selective, skewed, mixed or dense; see trigger_sets.py. Activities are GitHub's webhooks.
match: activities a second through the index, and asking every trigger in turn.
append: `append_many`, a thousand at a time, from a file of JSON lines; 1 % start flows.
check: the index against asking every trigger of the activity's types; fails if they differ.
"""

from __future__ import annotations

import gc
import json
import sys
import time
from collections.abc import Callable, Iterable
from itertools import islice
from typing import Any

import trio
from append import webhooks
from common import SHARED, Timer, activity, emit, rss_mb, workdir
from trigger_sets import Sets

import triggerflow as tf
from triggerflow.core.activity import Activity
from triggerflow.triggers import Trigger, TriggerIndex, define_trigger

EXAMPLES = SHARED / "data" / "activitystreams2-examples.jsonl"
# Long enough to tell, short enough for three rounds of everything.
SECONDS = 1.0


def activities(documents: Iterable[dict[str, Any]]) -> list[Activity]:
    return [Activity.read(f"cid-{at}", each) for at, each in enumerate(documents)]


def examples() -> list[dict[str, Any]]:
    """The W3C's examples that are activities; none where the file isn't there."""
    found = []
    if EXAMPLES.exists():
        for line in EXAMPLES.read_text().splitlines():
            document = json.loads(line)["document"]
            try:
                Activity.read("cid", document)
            except tf.TriggerflowError:
                continue
            found.append(document)
    return found


def defined(kind: str, count: int, documents: list[dict[str, Any]]) -> list[Trigger]:
    """A set's triggers, without the few that AWS would refuse too."""
    found = []
    for drawn in Sets(documents).draw(kind, count):
        try:
            found.append(define_trigger(start="flow", **drawn))
        except tf.PatternError:
            continue
    return found


def rate(
    what: str, ask: Callable[[Activity], object], given: list[Activity], **more: Any
) -> None:
    """Ask about all of them, again and again, for a second of the processor's time.

    Asking waits for nothing, so that is wall time on a quiet machine, and fair on a busy one.
    """
    done, start = 0, time.process_time()
    while (taken := time.process_time() - start) < SECONDS:
        for each in given:
            ask(each)
        done += len(given)
    emit(what, done, taken, **more)


def scan(triggers: list[Trigger], given: Activity) -> list[str]:
    """The names of those that an activity meets, asked one by one."""
    return [
        each.name
        for each in triggers
        if (each.on == ("*",) or not set(given.types).isdisjoint(each.on))
        and (each.match is None or each.match(given.document))
    ]


def match(kind: str, count: int) -> None:
    documents = webhooks()
    given = activities(documents)
    triggers = defined(kind, count, documents)
    index = TriggerIndex(triggers)
    met = sum(len(index.match(each)) for each in given)
    rate(f"match {kind} {count}", index.match, given, met=round(met / len(given), 2))
    if count <= 1000:
        rate(f"scan {kind} {count}", lambda each: scan(triggers, each), given)


def register(count: int) -> None:
    drawn = list(Sets(webhooks()).draw("selective", count))
    gc.collect()
    before = rss_mb()
    with Timer() as taken:
        triggers = [define_trigger(start="flow", **each) for each in drawn]
    emit(f"define {count}", count, taken)
    with Timer() as filed:
        index = TriggerIndex(triggers)
    emit(f"file {count}", count, filed)
    grown = (rss_mb() - before) * 2**20
    # names and values are shared with what they were made from, here as in a program
    emit(
        f"register {count}",
        count,
        taken.cpu + filed.cpu,
        bytes_each=round(grown / count),
    )
    assert len(index) == count


def reload(count: int) -> None:
    documents = webhooks()
    index = TriggerIndex(defined("selective", count, documents))
    fresh = [
        define_trigger(f"fresh-{at}", start="flow", **each)
        for at, each in enumerate(
            {"on": drawn["on"], "match": drawn["match"], "version": 1_000_000}
            for drawn in Sets(documents, seed=2).draw("selective", 300)
        )
    ]
    with Timer() as taken:
        for each in fresh:
            index = index.changed(added=[each])
        for each in fresh:
            index = index.changed(removed=[each.name])
    emit(f"change one of {count}", 2 * len(fresh), taken)


def open_app(count: int) -> None:
    drawn = list(Sets(webhooks()).draw("selective", count))
    with workdir() as folder:
        url = f"sqlite:///{folder}/open.db"
        app = tf.App(url, entry_points=False)

        @app.flow
        def flow(_document):
            yield tf.side_effect(lambda: None)

        with Timer() as taken:
            for each in drawn:
                app.trigger(start=flow, **each)
        emit(f"app.trigger {count}", count, taken)

        async def opened(app: tf.App, what: str) -> None:
            with Timer() as taken:
                async with app.open(work=False):
                    taken.__exit__()
                    emit(what, count, taken.s)

        trio.run(opened, app, f"open, {count} new")
        trio.run(opened, app, f"open, {count} known")
        trio.run(opened, tf.App(url, entry_points=False), f"open, {count} stored")


async def append(count: int, triggers: int) -> None:
    """One in a hundred starts a flow: `bucket` is below ten for one per cent."""
    with workdir() as folder:
        file = folder / "activities.jsonl"
        with file.open("w") as lines:
            for number in range(count):
                lines.write(json.dumps(activity(number)) + "\n")
        app = tf.App(f"sqlite:///{folder}/append.db", entry_points=False)

        @app.flow
        def note(_document):
            yield tf.side_effect(lambda: None)

        for number in range(triggers):
            bucket = number if number < 10 else 1000 + number
            match = {"object": {"bucket": [bucket], "type": ["Note"]}}
            app.trigger(f"bucket-{number}", on="Create", match=match, start=note)
        async with app.open() as engine:
            await engine.append_many([activity(-each - 1) for each in range(100)])  # warm
            fired = 0
            with Timer() as taken, file.open() as lines:
                while page := [tf.parse_json(line) for line in islice(lines, 1000)]:
                    for found in await engine.append_many(page):
                        fired += len(found.firings)
            await engine.run_until_idle()
    assert fired == sum(1 for number in range(count) if number % 1000 < 10)
    size = len(tf.encode_document(activity(1)))
    emit(f"append beside {triggers} triggers", count, taken, bytes=size, fired=fired)


def check(kind: str, count: int) -> None:
    documents = webhooks() + examples()
    triggers = defined(kind, count, documents)
    index = TriggerIndex(triggers)
    by_type: dict[str, list[int]] = {}
    for at, each in enumerate(triggers):
        for name in each.on:
            by_type.setdefault(name, []).append(at)
    met = 0
    with Timer() as taken:
        for each in activities(documents):
            names = {*each.types, "*"}
            near = sorted({at for name in names for at in by_type.get(name, ())})
            expected = scan([triggers[at] for at in near], each)
            found = [trigger.name for trigger in index.match(each)]
            assert found == expected, f"{each.types}: {set(found) ^ set(expected)}"
            met += len(found)
    emit(f"check {kind} {count}", len(documents), taken, met=met)


if __name__ == "__main__":
    verb, *arguments = sys.argv[1:]
    if verb in ("match", "check"):
        {"match": match, "check": check}[verb](arguments[0], int(arguments[1]))
    elif verb == "append":
        trio.run(append, *map(int, arguments))
    else:
        {"register": register, "reload": reload, "open": open_app}[verb](int(arguments[0]))
