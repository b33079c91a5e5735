"""``show``: everything about one instance."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import attrs
import click

from triggerflow.cli.described import (
    decoded,
    entry_model,
    entry_text,
    failure_of,
    flow_label,
    instance_model,
    remedy,
    until,
)
from triggerflow.cli.render import (
    Cell,
    cut,
    dim,
    duration,
    failure_text,
    heading,
    moment,
    print_json,
    print_table,
    short,
    status_cell,
)
from triggerflow.cli.session import SHORT_ID, Session, json_option, pass_session
from triggerflow.engine.views import Task, pending_of, progress_of

if TYPE_CHECKING:
    from triggerflow.core.codec import ValueCodec
    from triggerflow.core.log import Entry
    from triggerflow.store.records import InstanceRecord


@click.command(short_help="Show everything about one instance.")
@click.argument("id")
@json_option
@pass_session
def show(session: Session, id: str, as_json: bool) -> None:
    """Show everything about one instance: why it stands where it stands, and its log."""
    from triggerflow.engine.clock import SystemClock

    codec = session.codec
    with session.asking() as store:
        record = session.find(store, id)
        log = store.log(record.number, record.generation)[: record.log_length]
        unread = store.inbox(record.number)
        said = progress_of(record, store.progress(record.number, record.generation), codec)
        tasks = {row.tag: Task.of(row) for row in store.tasks_of(record.number)}
        activity = None if record.activity is None else store.activity(record.activity)
    entries = [_entry(row, codec) for row in log]
    if as_json:
        model = instance_model(record, codec)
        model["remedy"] = remedy(record)
        model["pending"] = [
            {"tag": tag, "due": each.due, "attempts": each.attempts}
            | ({"progress": attrs.asdict(said[tag])} if tag in said else {})
            | ({"task": attrs.asdict(tasks[tag])} if tag in tasks else {})
            for tag, each in pending_of(record, codec).items()
        ]
        model["inbox"] = [
            {"kind": row.kind, "name": row.name, "payload": decoded(row.payload, codec)}
            for row in unread
        ]
        model["log"] = [entry_model(entry, index) for index, entry in enumerate(entries)]
        print_json(model)
        return
    now = SystemClock().now()
    types = "" if activity is None else activity.types
    print_table((), _facts(record, codec, now, types), wrap=True)
    _say_blocked(record)
    _say_failure(record, codec)
    pending = pending_of(record, codec)
    if pending:
        heading("waits for")
        print_table(
            (),
            (
                (
                    tag,
                    _when(each.due, tasks.get(tag), now),
                    f"{each.attempts} failed so far" if each.attempts else "",
                    f"{short(said[tag].details)}, {until(said[tag].at, now)}"
                    if tag in said
                    else "",
                )
                for tag, each in pending.items()
            ),
            indent=2,
        )
    if unread:
        heading("unread in its inbox")
        print_table(
            (),
            ((row.kind, row.name, short(decoded(row.payload, codec))) for row in unread),
            indent=2,
        )
    heading("log" if entries else "log: empty")
    _print_log(entries, record)
    click.echo(f"\nre-drive it: {session.command('replay', record.id[:SHORT_ID])}")


def _when(due: float | None, task: Task | None, now: float) -> str:
    """When something fires by itself; of a queued call, where it stands."""
    words = f"due {until(due, now)}, {moment(due)}" if due is not None else ""
    if task is None:
        return words
    where = f"queue {task.queue}, {task.state}"
    if task.worker is not None:
        return f"{where}: attempt {task.attempt}, worker {task.worker}"
    later = task.due is not None and task.due > now
    return f"{where}, due {until(task.due or now, now)}" if later else where


def _entry(row: Any, codec: ValueCodec) -> Entry:
    from triggerflow.core.failure import Failure
    from triggerflow.core.log import Entry

    value = decoded(row.value, codec)
    if row.failed and isinstance(value, dict):
        return Entry(row.tag, None, Failure.from_record(value), row.digest, row.at)
    return Entry(row.tag, value, None, row.digest, row.at)


def _facts(
    record: InstanceRecord, codec: ValueCodec, now: float, types: str
) -> list[tuple[Cell, str | Cell]]:
    facts: list[tuple[str, str | Cell | None]] = [
        ("instance", record.id),
        ("flow", flow_label(record)),
        ("status", status_cell(record.status)),
        ("key", record.key),
        ("namespace", record.namespace or None),
        ("correlation", record.correlation_id),
        ("parent", record.parent),
        ("trigger", record.trigger),
        ("trigger cid", record.trigger_cid),
        ("activity", record.activity and f"{record.activity} {types}"),
        ("generation", str(record.generation) if record.generation > 1 else None),
        ("created", f"{moment(record.created)}, {until(record.created, now)}"),
        ("started", moment(record.started) or "not yet"),
        ("ended", _ended(record)),
        ("crashes", str(record.crashes) if record.crashes else None),
        ("worker", None if record.owner is None else str(record.owner)),
        ("attributes", _attributes(record, codec)),
        ("input", short(decoded(record.input, codec), 400)),
        ("result", _result(record, codec)),
    ]
    return [(Cell(name, "bright_black"), value) for name, value in facts if value is not None]


def _ended(record: InstanceRecord) -> str | None:
    if record.ended is None:
        return None
    took = record.ended - (record.created if record.started is None else record.started)
    return f"{moment(record.ended)}, after {duration(took)}"


def _attributes(record: InstanceRecord, codec: ValueCodec) -> str | None:
    kept = record.attributes
    return None if kept is None else short(decoded(kept, codec), 200)


def _result(record: InstanceRecord, codec: ValueCodec) -> str | None:
    return short(decoded(record.value, codec), 400) if record.status == "done" else None


def _say_blocked(record: InstanceRecord) -> None:
    if record.status != "blocked":
        return
    heading(f"blocked: {record.cause}")
    for line in (record.reason or "").splitlines():
        click.echo(f"  {cut(line, 1000)}")
    # A divergence says what to do in its own words.
    advice = remedy(record)
    if advice is not None and "what to do" not in (record.reason or ""):
        click.echo(f"  what to do:    {advice}")


def _say_failure(record: InstanceRecord, codec: ValueCodec) -> None:
    failure = failure_of(record, codec)
    if failure is None:
        return
    heading(f"{record.status}: {failure_text(failure)}")
    for line in failure.traceback.rstrip().splitlines():
        click.echo(f"  {cut(line, 1000)}".rstrip())


def _print_log(entries: list[Entry], record: InstanceRecord) -> None:
    last = record.started
    rows: list[list[str | Cell]] = []
    for position, entry in enumerate(entries):
        elapsed = None if entry.at is None or last is None else entry.at - last
        last = entry.at
        rows.append(
            [
                str(position),
                entry.tag,
                dim("" if elapsed is None else f"+{duration(elapsed)}"),
                dim(moment(entry.at)),
                entry_text(entry.value, entry.failure),
            ]
        )
    if rows:
        print_table(("#", "tag", "elapsed", "at", "value"), rows, right=(0, 2))
