"""``backfill``, ``backfills`` and ``redispatch``: what a trigger missed, and what failed."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

import click

from triggerflow.cli.render import count, note, print_json, print_table, status_cell
from triggerflow.cli.session import Session, json_option, pass_session

if TYPE_CHECKING:
    from triggerflow.client import Client
    from triggerflow.engine.walks import Backfill

_LOOK: Final = 0.2


def _place(ctx: click.Context, param: click.Parameter, value: str | None) -> Any:
    """A place in history, as `Engine.backfill` takes it."""
    if value is None or value == "horizon":
        return value
    if value.isascii() and value.isdigit():
        return int(value)
    try:
        moment = datetime.fromisoformat(value)
    except ValueError:
        moment = None
    if moment is None or moment.tzinfo is None:
        raise click.BadParameter(
            f"{value!r}: give horizon, a sequence number, or a time with its zone, such as "
            "2026-08-01T12:00:00Z",
            ctx,
            param,
        )
    return moment


@click.command(short_help="Let a trigger meet activities that are there already.")
@click.argument("name")
@click.option(
    "--since",
    callback=_place,
    default="horizon",
    show_default=True,
    help="horizon (the first activity), a sequence number, or a time.",
)
@click.option("--until", callback=_place, help="A sequence number, counted in, or a time, not.")
@click.option("--dry-run", is_flag=True, help="Count what would fire, and write nothing.")
@click.option("--work", is_flag=True, help="Go through it here, and drive what it starts.")
@click.option("--detach", is_flag=True, help="Don't wait for its end.")
@json_option
@pass_session
def backfill(
    session: Session,
    name: str,
    since: Any,
    until: Any,
    dry_run: bool,
    work: bool,
    detach: bool,
    as_json: bool,
) -> None:
    """Backfill the trigger NAME: let it meet activities that were appended before it was.

    Workers (`triggerflow run`) do it beside their live traffic, which comes first; what has
    fired for this trigger never fires again. The command waits for the end and shows progress
    on a terminal; interrupted, it leaves the backfill going. `backfills` lists, pauses and
    cancels them.
    """
    if work:
        session.need_app("--work drives flows, and there is no app")
    with session.client(work=work) as client:
        found = client.backfill(name, since, until=until, dry_run=dry_run)
        if not detach and not dry_run:
            found = follow(session, client, found, always=True)
            if work:
                client.run_until_idle()
    if as_json:
        print_json(_model(found))
    else:
        click.echo(_words(found))


def follow(
    session: Session, client: Client, walk: Backfill, *, always: bool = False
) -> Backfill:
    """Wait for a walk's end, with progress on a terminal; without one only if `always`."""
    from threading import Event

    never = Event()
    if not (always or sys.stderr.isatty()):
        return walk
    with _progress(walk) as advance:
        while walk.state == "running":
            if walk.reason is not None or not _has_worker(session):
                why = walk.reason or "no worker runs: start one, with triggerflow run"
                note(f"it stands still: {why}")
                break
            never.wait(_LOOK)
            walk = client.get_backfill(walk.id or 0)
            advance(walk)
    return walk


def _has_worker(session: Session) -> bool:
    return any(each.alive for each in session.store.workers())


@contextlib.contextmanager
def _progress(walk: Backfill) -> Iterator[Callable[[Backfill], None]]:
    """A bar with the rate for people who wait: on a terminal only, gone when it is over."""
    if not sys.stderr.isatty():
        yield lambda _: None
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )

    columns = (
        TextColumn(walk.kind),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        total = walk.last - walk.first + 1
        task = progress.add_task(walk.kind, total=total, rate="")

        def advance(found: Backfill) -> None:
            speed = progress.tasks[0].speed
            rate = "" if not speed else f"{speed:,.0f}/s, {found.fired:,} fired"
            done = total if found.state == "done" else found.cursor - found.first + 1
            progress.update(task, completed=done, rate=rate)

        yield advance


def _words(found: Backfill) -> str:
    parts = [
        f"{count(found.looked, 'activity', 'activities')} looked at",
        f"{found.fired:,} {'would fire' if found.id is None else 'fired'}",
    ]
    if found.unstarted:
        parts.append(f"{found.unstarted:,} started nothing")
    if found.known:
        parts.append(f"{found.known:,} had fired before")
    if found.removed:
        parts.append(f"{found.removed:,} without their document")
    name = "dry run" if found.id is None else f"backfill {found.id} {found.state}"
    return f"{name}: {', '.join(parts)}"


def _model(found: Backfill) -> dict[str, Any]:
    import attrs

    return {**attrs.asdict(found), "share": round(found.share, 4)}


# --- what there is -----------------------------------------------------------------------


@click.group(
    short_help="List, pause, resume and cancel backfills.", invoke_without_command=True
)
@json_option
@pass_session
@click.pass_context
def backfills(ctx: click.Context, session: Session, as_json: bool) -> None:
    """List backfills, and what takes up or drops the firings of a pause."""
    if ctx.invoked_subcommand is not None:
        return
    from triggerflow.engine.walks import Backfill

    with session.asking() as store:
        found = [Backfill.of(each) for each in store.backfills()]
    if as_json:
        for each in found:
            print_json(_model(each), line=True)
        return
    if not found:
        note("no backfill")
        return
    print_table(
        ("id", "kind", "trigger", "state", "done", "looked at", "fired", "reason"),
        (
            (
                str(each.id),
                each.kind,
                each.trigger,
                status_cell(each.state),
                f"{each.share:.0%}",
                f"{each.looked:,}",
                f"{each.fired:,}",
                each.reason or "",
            )
            for each in found
        ),
        right=(0, 4, 5, 6),
    )


def _change(verb: str, help: str) -> click.Command:
    """A command that changes one backfill."""

    @click.command(name=verb, help=help)
    @click.argument("id", type=int)
    @pass_session
    def change(session: Session, id: int) -> None:
        with session.client(with_app=False, work=False) as client:
            verbs = {
                "pause": client.pause_backfill,
                "resume": client.resume_backfill,
                "cancel": client.cancel_backfill,
            }
            found = verbs[verb](id)
        click.echo(_words(found))

    return change


for _verb, _help in (
    ("pause", "Let the backfill ID stand still."),
    ("resume", "Let the backfill ID go on from where it stands."),
    ("cancel", "End the backfill ID where it stands; what it fired stays."),
):
    backfills.add_command(_change(_verb, _help))


@click.command(short_help="Dispatch firings again that started nothing.")
@click.argument("cid", required=False)
@click.option("--trigger", help="Only those of triggers that have, or had, this name.")
@click.option(
    "--outcome",
    multiple=True,
    help="Which ones; guard_error and failed by default. More than once for several.",
)
@click.option("--limit", type=click.IntRange(min=1), help="How many at most.")
@click.option("--dry-run", is_flag=True, help="Say what would become of them.")
@json_option
@pass_session
def redispatch(
    session: Session,
    cid: str | None,
    trigger: str | None,
    outcome: tuple[str, ...],
    limit: int | None,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Dispatch firings again that started nothing: all, or those of the activity CID.

    Guards are asked here, and what starts is left to workers. A firing that has started
    something is never touched, and what a firing was before is kept.
    """
    session.need_app("guards are code")
    chosen: dict[str, Any] = {"outcome": outcome} if outcome else {}
    with session.client(work=False) as client:
        found = client.redispatch(cid, trigger=trigger, limit=limit, dry_run=dry_run, **chosen)
    if as_json:
        print_json({"looked": found.looked, "outcomes": found.outcomes})
        return
    words = [f"{number:,} {name}" for name, number in sorted(found.outcomes.items())]
    head = f"{count(found.looked, 'firing')} {'would be' if dry_run else ''} dispatched again"
    head = " ".join(head.split())
    click.echo(": ".join([head, *([", ".join(words)] if words else [])]))
