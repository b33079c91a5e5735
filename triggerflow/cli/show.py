"""``show``: everything about one instance."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import attrs
import click

from triggerflow.cli.described import (
    decoded,
    entry_model,
    entry_text,
    failure_of,
    flow_label,
    held_for,
    instance_model,
    remedy,
    standing,
    until,
)
from triggerflow.cli.kin import Kin, listening
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
    from triggerflow.cli.kin import Listening
    from triggerflow.core.codec import ValueCodec
    from triggerflow.core.log import Entry, Pending
    from triggerflow.engine.views import Progress
    from triggerflow.store.records import InboxRow, InstanceRecord

_MOST_CHILDREN: Final = 20


@click.command(short_help="Show everything about one instance.")
@click.argument("id")
@json_option
@pass_session
def show(session: Session, id: str, as_json: bool) -> None:
    """Show everything about one instance: why it stands where it stands, and its log."""
    codec = session.codec
    with session.asking() as store:
        record = session.find(store, id)
        log = store.log(record.number, record.generation)[: record.log_length]
        unread = store.inbox(record.number)
        said = progress_of(record, store.progress(record.number, record.generation), codec)
        tasks = {row.tag: Task.of(row) for row in store.tasks_of(record.number)}
        activity = None if record.activity is None else store.activity(record.activity)
        pending = pending_of(record, codec)
        heard = listening(store, record, pending, codec)
        tags = [*(row.tag for row in log), *pending]
        kin = Kin.of(store, record, tags, _MOST_CHILDREN)
    entries = [_entry(row, codec) for row in log]
    shown = _Shown(record, codec, entries, pending, unread, said, tasks, heard, kin)
    if as_json:
        print_json(_model(shown))
    else:
        _print(session, shown, "" if activity is None else activity.types)


@attrs.frozen
class _Shown:
    """What is shown of one instance."""

    record: InstanceRecord
    codec: ValueCodec
    entries: list[Entry]
    pending: dict[str, Pending]
    unread: list[InboxRow]
    said: dict[str, Progress]
    tasks: dict[str, Task]
    heard: dict[str, Listening]
    kin: Kin

    def started_by(self, tag: str) -> InstanceRecord | None:
        """The child that an effect started."""
        return next(
            (each for each in self.kin.children if self.kin.tags.get(each.id) == tag), None
        )


def _model(shown: _Shown) -> dict[str, Any]:
    record, codec = shown.record, shown.codec
    model = instance_model(record, codec)
    model["remedy"] = remedy(record)
    model["pending"] = [
        {"tag": tag, "due": each.due, "attempts": each.attempts}
        | ({"progress": attrs.asdict(shown.said[tag])} if tag in shown.said else {})
        | ({"task": attrs.asdict(shown.tasks[tag])} if tag in shown.tasks else {})
        | (attrs.asdict(shown.heard[tag]) if tag in shown.heard else {})
        for tag, each in shown.pending.items()
    ]
    model["children"] = [
        {
            "id": each.id,
            "flow": each.flow,
            "version": each.version,
            "status": each.status,
            "key": each.key,
            "tag": shown.kin.tags.get(each.id),
        }
        for each in shown.kin.children
    ]
    model["more_children"] = shown.kin.more
    model["inbox"] = [
        {"kind": row.kind, "name": row.name, "payload": decoded(row.payload, codec)}
        for row in shown.unread
    ]
    model["log"] = [entry_model(entry, index) for index, entry in enumerate(shown.entries)]
    return model


def _print(session: Session, shown: _Shown, types: str) -> None:
    from triggerflow.engine.clock import SystemClock

    record, codec = shown.record, shown.codec
    now = SystemClock().now()
    print_table((), _facts(shown, now, types), wrap=True)
    _say_blocked(record)
    _say_failure(record, codec)
    if shown.pending:
        heading("waits for")
        rows = (
            (
                tag,
                _when(each.due, shown.tasks.get(tag), now),
                f"{each.attempts} failed so far" if each.attempts else "",
                _about(shown, tag, now),
            )
            for tag, each in shown.pending.items()
        )
        print_table((), rows, indent=2)
    _print_children(session, shown, now)
    if shown.unread:
        heading("unread in its inbox")
        print_table(
            (),
            ((row.kind, row.name, short(decoded(row.payload, codec))) for row in shown.unread),
            indent=2,
        )
    heading("log" if shown.entries else "log: empty")
    _print_log(shown.entries, record)
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


def _about(shown: _Shown, tag: str, now: float) -> str:
    """What else is known of a pending effect."""
    if tag in shown.said:
        return f"{short(shown.said[tag].details)}, {until(shown.said[tag].at, now)}"
    if tag in shown.heard:
        heard = shown.heard[tag]
        return f"{short(heard.pattern)}, after activity {heard.after}"
    child = shown.started_by(tag)
    return "" if child is None else f"child {child.id[:SHORT_ID]}, {child.status}"


def _print_children(session: Session, shown: _Shown, now: float) -> None:
    kin = shown.kin
    if not kin.children:
        return
    heading("children")
    print_table(
        (),
        (
            (
                each.id[:SHORT_ID],
                flow_label(each),
                status_cell(each.status),
                each.key or "",
                dim(kin.tags.get(each.id, "")),
                standing(each, shown.codec, now),
            )
            for each in kin.children
        ),
        indent=2,
    )
    if kin.more:
        parent = shown.record.id[:SHORT_ID]
        click.echo(f"  and more: {session.command('ps', '--parent', parent, '--all')}")


def _entry(row: Any, codec: ValueCodec) -> Entry:
    from triggerflow.core.failure import Failure
    from triggerflow.core.log import Entry

    value = decoded(row.value, codec)
    if row.failed and isinstance(value, dict):
        return Entry(row.tag, None, Failure.from_record(value), row.digest, row.at)
    return Entry(row.tag, value, None, row.digest, row.at)


def _facts(shown: _Shown, now: float, types: str) -> list[tuple[Cell, str | Cell]]:
    record, codec = shown.record, shown.codec
    # The time of its first turn is the present generation's.
    first = record.generation == 1
    begun = moment(record.started) or "not yet"
    facts: list[tuple[str, str | Cell | None]] = [
        ("instance", record.id),
        ("flow", flow_label(record)),
        ("status", status_cell(record.status)),
        ("held for", None if record.hold is None else held_for(record.hold, now)),
        ("priority", str(record.priority) if record.priority else None),
        ("key", record.key),
        ("namespace", record.namespace or None),
        ("correlation", record.correlation_id),
        ("parent", _parent(shown)),
        ("trigger", record.trigger),
        ("trigger cid", record.trigger_cid),
        ("activity", record.activity and f"{record.activity} {types}"),
        ("generation", None if first else f"{record.generation}, begun {begun}"),
        ("created", f"{moment(record.created)}, {until(record.created, now)}"),
        ("started", begun if first else None),
        ("ended", _ended(record)),
        ("crashes", str(record.crashes) if record.crashes else None),
        ("worker", None if record.owner is None else str(record.owner)),
        ("attributes", _attributes(record, codec)),
        ("input", short(decoded(record.input, codec), 400)),
        ("result", _result(record, codec)),
    ]
    return [(Cell(name, "bright_black"), value) for name, value in facts if value is not None]


def _parent(shown: _Shown) -> str | None:
    record, parent = shown.record, shown.kin.parent
    if record.parent is None:
        return None
    if parent is None:
        return f"{record.parent}, which retention removed"
    return f"{parent.id}  {flow_label(parent)}  {parent.status}"


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
