"""Instances: start, list, signal, cancel and retry them."""

from __future__ import annotations

import contextlib
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import click

from triggerflow.cli.described import failure_of, flow_label, instance_model, standing
from triggerflow.cli.render import (
    age,
    dim,
    failure_text,
    note,
    print_json,
    print_table,
    short,
    status_cell,
)
from triggerflow.cli.session import SHORT_ID, Session, json_option, pass_session

if TYPE_CHECKING:
    from collections.abc import Iterator

    from triggerflow.client import Client
    from triggerflow.store.protocol import Store
    from triggerflow.store.records import InstanceRecord, Where

_STATUSES = ("running", "waiting", "blocked", "done", "failed", "cancelled")
_PAGE = 200
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def _json_argument(text: str | None, what: str) -> Any:
    """A value given as JSON on the command line.

    Raises:
        click.BadParameter: it isn't strict JSON.
    """
    if text is None:
        return None
    from triggerflow.core.codec import parse_json
    from triggerflow.errors import DecodingRefused

    try:
        return parse_json(text, what=what)
    except DecodingRefused as refused:
        hint = "; a text needs its quotes: '\"text\"'" if text[:1].isalpha() else ""
        raise click.BadParameter(f"{refused}{hint}") from refused


@click.command(short_help="Start an instance by hand.")
@click.argument("flow")
@click.option("--input", "given", metavar="JSON", help="The flow's input; null by default.")
@click.option("--key", help="Business key: one live instance of the flow holds it at a time.")
@click.option("--version", type=int, help="Version of the flow; the latest by default.")
@click.option("--wait", is_flag=True, help="Wait until it has ended, and show its result.")
@click.option("--timeout", type=float, metavar="SECONDS", help="Wait so long at most.")
@click.option("--work", is_flag=True, help="Drive flows here, too.")
@json_option
@pass_session
@click.pass_context
def start(
    ctx: click.Context,
    session: Session,
    flow: str,
    given: str | None,
    key: str | None,
    version: int | None,
    wait: bool,
    timeout: float | None,
    work: bool,
    as_json: bool,
) -> None:
    """Start an instance of FLOW and print its id.

    A worker (`triggerflow run`) drives it, or this process with --work. With --wait the exit
    status is 1 where it didn't end as done.
    """
    value = _json_argument(given, "input")
    if work:
        session.need_app("--work drives flows, and there is no app")
    if session.app is not None:
        # A worker to come may know more flows; a typo is likelier.
        session.app.flows.get(flow, version)
    else:
        # A store that isn't there yet knows no flow either: refused, not made.
        with session.asking():
            pass
    with session.client(work=work) as client:
        started = client.start(flow, value, key=key, version=version)
        if wait:
            if not work and not any(worker.alive for worker in session.store.workers()):
                note("no worker is alive, so this may wait long: triggerflow run, or --work")
            client.wait(started, timeout=timeout)
        elif work:
            client.run_until_idle()
        record = session.find(session.store, started)
    _say_started(session, record, as_json=as_json, driven=wait or work)
    if wait and record.status != "done":
        ctx.exit(1)


def _say_started(
    session: Session, record: InstanceRecord, *, as_json: bool, driven: bool
) -> None:
    codec = session.codec
    if as_json:
        print_json(instance_model(record, codec))
        return
    click.echo(record.id)
    if record.status == "blocked":
        note(f"blocked: {record.reason}")
    elif record.status == "done":
        click.echo(f"done: {short(codec.decode(record.value or b''), 2000)}")
    elif (failure := failure_of(record, codec)) is not None:
        click.echo(f"{record.status}: {failure_text(failure)}")
        click.echo(f"replay it: {session.command('replay', record.id[:SHORT_ID])}")
    elif driven:
        click.echo(f"{record.status}: {standing(record, codec, record.created)}")


@click.command(short_help="List instances, newest first.")
@click.option(
    "--status",
    type=click.Choice(_STATUSES),
    multiple=True,
    help="Only those of this status; may be given several times.",
)
@click.option("--flow", help="Only those of this flow.")
@click.option("--key", help="Only those with this business key.")
@click.option("--namespace", help="Only those of this namespace.")
@click.option("--correlation", metavar="ID", help="Only those with this correlation id.")
@click.option("--parent", metavar="ID", help="Only the children of this instance.")
@click.option(
    "--attribute",
    "attributes",
    metavar="NAME=VALUE",
    multiple=True,
    help="Only those with this search attribute: a number, true, false, or a text; may be "
    "given several times.",
)
@click.option(
    "--after", metavar="TIME", help="Only those created then or later: 2h, or an ISO date."
)
@click.option("--before", metavar="TIME", help="Only those created before: 7d, or an ISO date.")
@click.option("--oldest", is_flag=True, help="The oldest first.")
@click.option("--limit", type=click.IntRange(min=1), default=20, show_default=True)
@click.option("--all", "every", is_flag=True, help="All of them, however many.")
@json_option
@pass_session
def ps(
    session: Session,
    status: tuple[str, ...],
    flow: str | None,
    key: str | None,
    namespace: str | None,
    correlation: str | None,
    parent: str | None,
    attributes: tuple[str, ...],
    after: str | None,
    before: str | None,
    oldest: bool,
    limit: int,
    every: bool,
    as_json: bool,
) -> None:
    """List instances, newest first: what they wait for, or how they ended."""
    where: Where = {
        "status": status or None,
        "flow": flow,
        "key": key,
        "namespace": namespace,
        "correlation_id": correlation,
        "attributes": dict(map(_attribute, attributes)) or None,
        "created_after": _moment(after),
        "created_before": _moment(before),
    }
    with session.asking() as store:
        if parent is not None:
            where["parent"] = session.find(store, parent).id
        records = _listed(store, None if every else limit + 1, where, newest_first=not oldest)
        if as_json:
            for index, record in enumerate(records):
                if every or index < limit:
                    print_json(instance_model(record, session.codec, values=False), line=True)
            return
        found = list(records)
        shown = found if every else found[:limit]
        _print_instances(session, shown)
        if len(found) > len(shown):
            which = "oldest" if oldest else "newest"
            note(f"the {which} {limit}; more with --limit N or --all")


def _attribute(given: str) -> tuple[str, str | float | bool]:
    """A search attribute as people write it; what is no number or bool is a text.

    Raises:
        click.BadParameter: there is no name, or no value.
    """
    name, equals, text = given.partition("=")
    if not name or not equals:
        raise click.BadParameter(f"found {given!r}, expected NAME=VALUE, such as stage=packing")
    from triggerflow.core.codec import parse_json
    from triggerflow.errors import DecodingRefused

    try:
        value = parse_json(text)
    except DecodingRefused:
        value = text
    return name, value if type(value) in (str, int, float, bool) else text


def _moment(given: str | None) -> float | None:
    """A time as people write it: an age such as 90m, or an ISO date, UTC if it has no zone.

    Raises:
        click.BadParameter: it is neither.
    """
    if given is None:
        return None
    from triggerflow.engine.clock import SystemClock

    if given[-1:] in _UNITS and given[:-1].isdecimal():
        return SystemClock().now() - int(given[:-1]) * _UNITS[given[-1]]
    try:
        found = datetime.fromisoformat(given)
    except ValueError:
        raise click.BadParameter(
            f"found {given!r}, expected an age such as 90m, 24h or 7d, or an ISO date such as "
            "2026-01-31 or 2026-01-31T12:00:00Z"
        ) from None
    return (found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp()


def _listed(
    store: Store, limit: int | None, where: Where, *, newest_first: bool
) -> Iterator[InstanceRecord]:
    after = None
    while limit is None or limit > 0:
        size = _PAGE if limit is None else min(_PAGE, limit)
        page = store.instances(**where, after=after, limit=size, newest_first=newest_first)
        yield from page
        if len(page) < size:
            return
        after = page[-1].cursor
        limit = None if limit is None else limit - size


def _print_instances(session: Session, records: list[InstanceRecord]) -> None:
    if not records:
        note("no instance")
        return
    # Here, not above: it brings the event loop along, and only ages need a clock.
    from triggerflow.engine.clock import SystemClock

    now = SystemClock().now()
    codec = session.codec
    print_table(
        ("id", "flow", "status", "age", "waits for, or came to"),
        (
            (
                record.id[:SHORT_ID],
                flow_label(record),
                status_cell(record.status),
                dim(age(now - record.created)),
                standing(record, codec, now),
            )
            for record in records
        ),
        right=(3,),
    )


@contextlib.contextmanager
def _addressed(session: Session, id: str) -> Iterator[tuple[Client, str]]:
    """A client that can send to an instance but runs nothing, and the instance's full id."""
    with session.asking() as store:
        found = session.find(store, id).id
    with session.client(with_app=False, work=False) as client:
        yield client, found


@click.command(short_help="Send a signal to an instance.")
@click.argument("id")
@click.argument("name")
@click.argument("payload", metavar="[JSON]", required=False)
@click.option("--dedup", help="A repeat with this key and an equal payload is dropped.")
@json_option
@pass_session
def signal(
    session: Session, id: str, name: str, payload: str | None, dedup: str | None, as_json: bool
) -> None:
    """Send the signal NAME to an instance; it is kept until the flow waits for it."""
    value = _json_argument(payload, "payload")
    with _addressed(session, id) as (client, found):
        stored = client.signal(found, name, value, dedup=dedup)
    if as_json:
        print_json({"id": found, "signal": name, "stored": stored})
    else:
        click.echo(f"signal {name} stored for {found}" if stored else "a repeat: dropped")


@click.command(short_help="Ask an instance to end.")
@click.argument("id")
@json_option
@pass_session
def cancel(session: Session, id: str, as_json: bool) -> None:
    """Ask an instance to end: its flow gets FlowCancelled and may clean up."""
    with _addressed(session, id) as (client, found):
        first = client.cancel(found)
    if as_json:
        print_json({"id": found, "requested": first})
    else:
        click.echo(f"cancel of {found} requested" if first else "it was requested before")


@click.command(short_help="Let a failed instance go on.")
@click.argument("id")
@json_option
@pass_session
def retry(session: Session, id: str, as_json: bool) -> None:
    """Let a failed instance go on: a failure at its log's end is voided.

    The step at fault gets fresh attempts; a flow whose own code raised goes on from there
    with the code that the workers run now.
    """
    with _addressed(session, id) as (client, found):
        client.retry(found)
    if as_json:
        print_json({"id": found, "requested": True})
    else:
        click.echo(f"retry of {found} requested")


@click.command(short_help="Let a blocked instance be tried again.")
@click.argument("id")
@json_option
@pass_session
def unblock(session: Session, id: str, as_json: bool) -> None:
    """Let a blocked instance be tried again: its crashes and tried builds are forgotten."""
    with _addressed(session, id) as (client, found):
        client.unblock(found)
    if as_json:
        print_json({"id": found, "unblocked": True})
    else:
        click.echo(f"{found} may be tried again")


@click.command(short_help="End an instance at once.")
@click.argument("id")
@click.option("--reason", default="", help="Why, for the record.")
@json_option
@pass_session
def terminate(session: Session, id: str, reason: str, as_json: bool) -> None:
    """End an instance at once: no code of it runs any more, nothing is cleaned up.

    `cancel` lets the flow end by itself; a blocked instance can only be terminated.
    """
    with _addressed(session, id) as (client, found):
        client.terminate(found, reason)
    if as_json:
        print_json({"id": found, "terminated": True})
    else:
        click.echo(f"{found} terminated")
