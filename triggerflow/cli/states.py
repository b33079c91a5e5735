"""``triggers pause``, ``resume`` and ``drain``: whether a trigger starts anything."""

from __future__ import annotations

import click

from triggerflow.cli.backfill import follow
from triggerflow.cli.registry import triggers
from triggerflow.cli.render import count, note
from triggerflow.cli.session import Session, pass_session


@triggers.command(short_help="Let a trigger start nothing; keep what it meets for later.")
@click.argument("name")
@pass_session
def pause(session: Session, name: str) -> None:
    """Pause the trigger NAME: what it meets is recorded as `paused` and starts nothing.

    It holds in every process, across restarts and edits of the trigger, until `triggers
    resume`. What runs goes on.
    """
    with session.client(with_app=False, work=False) as client:
        client.pause(name)
    click.echo(f"paused: {name}")


@triggers.command(short_help="Let a trigger meet nothing more, and keep it listed.")
@click.argument("name")
@pass_session
def drain(session: Session, name: str) -> None:
    """Drain the trigger NAME: it meets nothing, as if it were removed; what runs goes on.

    Nothing is recorded: after `triggers resume`, only a backfill reaches what came meanwhile.
    """
    with session.client(with_app=False, work=False) as client:
        client.drain_trigger(name)
    click.echo(f"draining: {name}")


@triggers.command(short_help="Make a paused or draining trigger active again.")
@click.argument("name")
@click.option("--skip", is_flag=True, help="Drop what it met while it was paused.")
@pass_session
def resume(session: Session, name: str, skip: bool) -> None:
    """Resume the trigger NAME; workers start what it met while it was paused, in order.

    With --skip they drop it instead.
    """
    with session.client(with_app=False, work=False) as client:
        walk = client.resume(name, catch_up=not skip)
        click.echo(f"active: {name}")
        if walk is None:
            return
        found = follow(session, client, walk)
    verb = "dropped" if skip else "dispatched"
    settled = found.fired + found.unstarted
    note(f"{count(settled, 'paused firing')} {verb} so far (backfill {found.id})")
