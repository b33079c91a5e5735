"""``run``: a worker, until it is told to stop or has nothing left to do."""

from __future__ import annotations

import contextlib
import signal
import threading
from typing import TYPE_CHECKING, Final

import click

from triggerflow.cli.render import count, print_json
from triggerflow.cli.session import Session, json_option, pass_session

if TYPE_CHECKING:
    from triggerflow.client import Client

# How often a worker that waits for the signal to stop looks whether its engine lives.
_LOOK: Final = 1.0
_ENDED: Final = ("done", "failed", "cancelled", "blocked")


@click.command(short_help="Run a worker: drive flows until stopped.")
@click.option("--until-idle", is_flag=True, help="Stop when nothing is runnable any more.")
@json_option
@pass_session
def run(session: Session, until_idle: bool, as_json: bool) -> None:
    """Run a worker: carry out what is deferred, and drive the flows of the app.

    It stops at SIGINT or SIGTERM: steps that run get two seconds to end, everything else is
    handed back, and nothing is lost either way. With --until-idle it stops by itself once
    nothing is runnable; timers of the future and open waits don't count.
    """
    app = session.need_app("a worker runs an app's flows")
    store = session.store
    with session.client(work=True) as client:
        if not as_json:
            click.echo(
                f"store {store.url}, {count(len(app.flows), 'flow')}, "
                f"{count(len(app.triggers), 'trigger')}, build {app.build}"
            )
        before = store.counts().instances
        stopped = _until_told(client, until_idle=until_idle)
    # Closed and opened again: what ended while the engine closed counts as well.
    store.open()
    try:
        after = store.counts().instances
    finally:
        store.close()
    changes = {each: after.get(each, 0) - before.get(each, 0) for each in _ENDED}
    left = {each: after.get(each, 0) for each in ("running", "waiting", "blocked")}
    if as_json:
        print_json(
            {
                "store": store.url,
                "build": app.build,
                "stopped": stopped,
                "ended": {each: changes[each] for each in _ENDED if each != "blocked"},
                "left": left,
            }
        )
        return
    ended = ", ".join(f"{changes[each]:,} {each}" for each in _ENDED if changes[each] > 0)
    still = ", ".join(f"{number:,} {each}" for each, number in left.items() if number)
    click.echo(f"{stopped}: {ended or 'no instance ended'}; left: {still or 'nothing'}")


def _until_told(client: Client, *, until_idle: bool) -> str:
    """Wait for the end; why it came."""
    # SIGTERM unwinds as Ctrl-C does, so that both close the engine in order.
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        if until_idle:
            client.run_until_idle()
            return "idle"
        never = threading.Event()
        while not never.wait(_LOOK):
            _check(client)
    except KeyboardInterrupt:
        return "stopped"
    finally:
        signal.signal(signal.SIGTERM, before)
    return "stopped"


def _check(client: Client) -> None:
    """Ask the engine for something that isn't there: one that died raises what killed it."""
    from triggerflow.errors import UnknownInstance

    with contextlib.suppress(UnknownInstance):
        client.get("-")
