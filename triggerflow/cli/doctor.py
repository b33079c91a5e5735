"""``doctor``: what is wrong, and what to do about it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Final

import attrs
import click

from triggerflow.cli.described import remedy
from triggerflow.cli.render import age, count, print_json, print_table, status_cell
from triggerflow.cli.session import SHORT_ID, Session, json_option, pass_session

if TYPE_CHECKING:
    from triggerflow.store.protocol import Store
    from triggerflow.store.records import Counts, InstanceRecord, WorkerRecord
    from triggerflow.store.waits import WaitRecord

# Instances that are looked at one by one, a status; the rest is only counted.
_MOST_LOOKED_AT: Final = 10_000
_PAGE: Final = 500
# Seconds that something may be runnable before a living worker looks too slow.
_SLOW: Final = 60.0


@attrs.frozen
class Finding:
    """One thing that doctor looked at: ``ok``, ``warning`` or ``error``."""

    level: str
    what: str
    remedy: str = ""


@click.command(short_help="Check the store, workers and instances; say what to do.")
@json_option
@pass_session
@click.pass_context
def doctor(ctx: click.Context, session: Session, as_json: bool) -> None:
    """Check the store, its workers and instances, and say what to do about each finding.

    Exit status 1 if one of the findings is an error.
    """
    from triggerflow.engine.clock import SystemClock
    from triggerflow.errors import TriggerflowError

    facts: dict[str, Any] = {}
    found: list[Finding] = []
    try:
        with session.asking() as store:
            found = list(_examine(session, store, facts, SystemClock().now()))
    except (TriggerflowError, click.ClickException) as error:
        words = error.message if isinstance(error, click.ClickException) else str(error)
        found.append(Finding("error", words))
    if as_json:
        print_json({**facts, "findings": found})
    else:
        rows = (
            (status_cell(each.level), each.what + (f": {each.remedy}" if each.remedy else ""))
            for each in found
        )
        print_table((), rows, wrap=True)
    if any(each.level == "error" for each in found):
        ctx.exit(1)


def _examine(
    session: Session, store: Store, facts: dict[str, Any], now: float
) -> Iterator[Finding]:
    counts = store.counts()
    workers = store.workers()
    total = sum(counts.instances.values())
    facts.update(store=store.url, schema=counts.schema, counts=counts, workers=workers)
    yield Finding("ok", f"store {store.url}, schema {counts.schema}")
    states = ", ".join(f"{number:,} {status}" for status, number in counts.instances.items())
    yield Finding(
        "ok",
        f"{count(counts.activities, 'activity', 'activities')}, "
        f"{count(counts.firings, 'firing')}, {count(total, 'instance')}"
        f"{f' ({states})' if states else ''}, {count(counts.inbox, 'unread message')}",
    )
    alive = [worker for worker in workers if worker.alive]
    yield from _workers(workers, now)
    yield from _backlog(counts, alive, now)
    yield from _unserved(store, alive)
    yield from _blocked(store)
    yield from _strangers(session, store)
    yield from _unreadable(store)
    failed = counts.instances.get("failed", 0)
    if failed:
        yield Finding(
            "warning",
            f"{count(failed, 'instance')} failed",
            "look with `ps --status failed` and `show`, then `retry`",
        )


def _workers(workers: list[WorkerRecord], now: float) -> Iterator[Finding]:
    alive = [worker for worker in workers if worker.alive]
    for worker in workers:
        words = (
            f"worker {worker.id} (pid {worker.pid}, build {worker.build}) "
            f"{'lives' if worker.alive else 'is dead'}, last seen {age(now - worker.seen)} "
            f"ago, owns {count(worker.owned, 'instance')}"
        )
        if worker.serves:
            queues = ", ".join(sorted({queue for queue, _ in worker.serves}))
            words += f", serves {queues} and runs {count(worker.holds, 'task')}"
        if worker.alive:
            yield Finding("ok", words)
        elif not (worker.owned or worker.holds):
            yield Finding("ok", words, "the next worker clears it away")
        elif alive:
            yield Finding("warning", words, "a living worker frees them within its lease")
        else:
            yield Finding("error", words, "start a worker, which frees them: triggerflow run")


def _backlog(counts: Counts, alive: list[WorkerRecord], now: float) -> Iterator[Finding]:
    if counts.outbox:
        words = f"{count(counts.outbox, 'dispatch', 'dispatches')} deferred in the outbox"
        if alive:
            yield Finding(
                "warning",
                words,
                "if they stay, no worker has the guards' code: run the app that defines them",
            )
        else:
            yield Finding("error", words, "no worker is alive: triggerflow run")
    if counts.oldest_runnable is None:
        if not alive:
            yield Finding("ok", "no worker is alive, and nothing is runnable")
        return
    waited = now - counts.oldest_runnable
    words = f"instances are runnable, the oldest was created {age(waited)} ago"
    if not alive:
        yield Finding("error", words, "no worker is alive: triggerflow run")
    elif waited > _SLOW:
        yield Finding("warning", words, "if that grows, run more workers")
    else:
        yield Finding("ok", words)


def _unserved(store: Store, alive: list[WorkerRecord]) -> Iterator[Finding]:
    """Queued calls, and those that no living worker would run."""
    served = {pair for worker in alive for pair in worker.serves}
    for each in store.task_counts():
        words = f"{count(each.tasks, 'task')} of step {each.step!r} on queue {each.queue!r}"
        if (each.queue, each.step) in served:
            yield Finding("ok", f"{words}, {each.held:,} of them running")
        else:
            yield Finding(
                "error",
                f"{words}: no live worker serves it",
                f"run a worker whose app registers that step: triggerflow run --queue "
                f"{each.queue}",
            )


def _some(store: Store, status: str) -> Iterator[InstanceRecord]:
    after, seen = None, 0
    while seen < _MOST_LOOKED_AT:
        page = store.instances(status=status, after=after, limit=_PAGE)
        yield from page
        if len(page) < _PAGE:
            return
        after = page[-1].cursor
        seen += len(page)


def _blocked(store: Store) -> Iterator[Finding]:
    causes: dict[str, list[InstanceRecord]] = {}
    for record in _some(store, "blocked"):
        causes.setdefault(record.cause or "unknown", []).append(record)
    for cause, records in sorted(causes.items()):
        some = ", ".join(record.id[:SHORT_ID] for record in records[:3])
        more = ", ..." if len(records) > 3 else ""
        yield Finding(
            "error",
            f"{count(len(records), 'instance')} blocked, {cause} ({some}{more})",
            remedy(records[0]) or "see `show ID`",
        )


def _strangers(session: Session, store: Store) -> Iterator[Finding]:
    """Runnable instances that this app can't drive."""
    if session.app is None:
        return
    known = session.app.flows
    unknown = Counter(
        record.flow if record.version is None else f"{record.flow}/{record.version}"
        for record in _some(store, "running")
        if record.owner is None and known.find(record.flow, record.version) is None
    )
    for label, number in sorted(unknown.items()):
        yield Finding(
            "warning",
            f"{count(number, 'instance')} of {label} runnable, which this app doesn't know",
            "run a worker whose app registers it, or they will be blocked",
        )


def _unreadable(store: Store) -> Iterator[Finding]:
    """Open waits for activities that this version can't read: none of its workers can."""
    from triggerflow.core.codec import ValueCodec
    from triggerflow.triggers import Watch

    codec = ValueCodec()
    bad: dict[int, str] = {}
    for wait in _waits(store):
        try:
            Watch.read(wait.action, codec.decode(wait.pattern))
        except Exception as error:  # noqa: BLE001 - bytes may be anything
            bad[wait.id] = f"{wait.tag} of instance number {wait.instance}: {error}"
    if bad:
        yield Finding(
            "error",
            f"{count(len(bad), 'wait')} for activities can't be read "
            f"({next(iter(bad.values()))})",
            "if a newer triggerflow wrote them, run its workers: what came meanwhile is looked "
            "at then; else cancel the instances",
        )


def _waits(store: Store) -> Iterator[WaitRecord]:
    """Those that are behind first: what can't be read is, once something might meet it."""
    after: tuple[int, int] | None = None
    for _ in range(_MOST_LOOKED_AT // _PAGE):
        page = store.waits_behind(after, _PAGE)
        yield from page
        if len(page) < _PAGE:
            break
        after = page[-1].scanned, page[-1].id
    last = 0
    for _ in range(_MOST_LOOKED_AT // _PAGE):
        page = store.waits(last, _PAGE)
        yield from page
        if len(page) < _PAGE:
            break
        last = page[-1].id
