"""``run``: a worker, until it is told to stop or has nothing left to do."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Final

import click

from triggerflow.cli.render import count, print_json
from triggerflow.cli.session import Session, json_option, pass_session

if TYPE_CHECKING:
    from triggerflow.client import Client
    from triggerflow.engine.draining import Drained

# How often a worker that waits for the signal to stop looks whether its engine lives.
_LOOK: Final = 1.0
_ENDED: Final = ("done", "failed", "cancelled", "blocked")


@click.command(short_help="Run a worker: drive flows until stopped.")
@click.option("--until-idle", is_flag=True, help="Stop when nothing is runnable any more.")
@click.option(
    "--drain",
    type=click.FloatRange(min=0),
    default=2.0,
    show_default=True,
    metavar="SECONDS",
    help="How long running steps have to end when it stops.",
)
@click.option(
    "--queue",
    "queues",
    multiple=True,
    metavar="NAME",
    help="Run queued calls of this queue, too; may be given several times.",
)
@click.option(
    "--only-queues", is_flag=True, help="Drive no flows: run what its queues bring, no more."
)
@json_option
@pass_session
def run(
    session: Session,
    until_idle: bool,
    drain: float,
    queues: tuple[str, ...],
    only_queues: bool,
    as_json: bool,
) -> None:
    """Run a worker: carry out what is deferred, and drive the flows of the app.

    It drains at SIGINT or SIGTERM: it takes nothing more, hands back at once what no step
    runs for, gives running steps their time (--drain), and says what it did. A second signal
    gives up the steps that still run; they run again elsewhere, and nothing is lost either
    way. With --until-idle it stops by itself once nothing is runnable; timers of the future
    and open waits don't count.

    With --queue it also runs calls that flows queued, as far as the app registers their steps;
    with --only-queues nothing but these, so that it needs no flows.
    """
    if only_queues and not queues:
        raise click.UsageError("--only-queues needs a --queue")
    app = session.need_app("a worker runs an app's flows")
    store = session.store
    settings: dict[str, Any] = {"drain": drain, "queues": queues, "only_queues": only_queues}
    with _interrupting(), session.client(work=True, **settings) as client:
        # Before it says that it is there: from then on somebody may stop it.
        before = store.counts().instances
        if not as_json:
            served = f", serves {', '.join(queues)}" if queues else ""
            click.echo(
                f"store {store.url}, {count(len(app.flows), 'flow')}, "
                f"{count(len(app.triggers), 'trigger')}, build {app.build}{served}"
            )
        stopped = _until_told(client, until_idle=until_idle)
        drained = _drain(client, None if as_json or stopped == "idle" else drain)
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
                "drained": {
                    "finished": drained.finished,
                    "handed_back": drained.handed_back,
                    "abandoned": drained.abandoned,
                },
            }
        )
        return
    ended = ", ".join(f"{changes[each]:,} {each}" for each in _ENDED if changes[each] > 0)
    still = ", ".join(f"{number:,} {each}" for each, number in left.items() if number)
    click.echo(f"{stopped}: {ended or 'no instance ended'}; left: {still or 'nothing'}")
    if stopped == "stopped":
        click.echo(
            f"drained: {count(drained.finished, 'running step')} finished, "
            f"{count(drained.abandoned, 'step')} given up, "
            f"{count(drained.handed_back, 'instance')} handed back"
        )


@contextlib.contextmanager
def _interrupting() -> Iterator[None]:
    """SIGTERM unwinds as Ctrl-C does, so that both close the engine in order."""
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _drain(client: Client, told: float | None) -> Drained:
    """Drain; where anything is left to drain, `told` is the limit to tell of."""
    try:
        now = client.statistics()
        if told is not None and (now.owned or now.tasks):
            click.echo(
                f"stopping: running steps have {told:,g} s; a second signal gives them up"
            )
        return client.drain()
    except KeyboardInterrupt:
        # In a hurry. What comes now finds no handler, and ends the process as it stands.
        for each in (signal.SIGINT, signal.SIGTERM):
            signal.signal(each, signal.SIG_DFL)
        return client.drain(timeout=0)


def _until_told(client: Client, *, until_idle: bool) -> str:
    """Wait for the end; why it came."""
    try:
        if until_idle:
            client.run_until_idle()
            return "idle"
        never = threading.Event()
        while not never.wait(_LOOK):
            _check(client)
    except KeyboardInterrupt:
        return "stopped"
    return "stopped"


def _check(client: Client) -> None:
    """Ask the engine for something that isn't there: one that died raises what killed it."""
    from triggerflow.errors import UnknownInstance

    with contextlib.suppress(UnknownInstance):
        client.get("-")
