"""The group: global options, plugins' commands, and what errors look like."""

from __future__ import annotations

import os
import sys
from typing import Any, Final

import click

from triggerflow.cli import states  # noqa: F401 - its commands are those of `triggers`
from triggerflow.cli.append import append
from triggerflow.cli.backfill import backfill, backfills, redispatch
from triggerflow.cli.doctor import doctor
from triggerflow.cli.explain import explain
from triggerflow.cli.firings import firings
from triggerflow.cli.instances import cancel, ps, retry, signal, start, terminate, unblock
from triggerflow.cli.loading import Refused
from triggerflow.cli.patches import patches
from triggerflow.cli.registry import flows, triggers
from triggerflow.cli.replay import replay
from triggerflow.cli.run import run
from triggerflow.cli.session import Session
from triggerflow.cli.show import show

_INTERRUPTED: Final = 130
_PIPE_CLOSED: Final = 141


class Commands(click.Group):
    """Our commands, and those that plugins bring; these load only when they are asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Names in the order in which one meets them, plugins' last."""
        own = list(self.commands)
        if not _has_plugins(ctx):
            return own
        try:
            return own + [name for name in _plugin_commands(ctx).commands if name not in own]
        except Exception as error:  # noqa: BLE001
            # Help must work with a broken app, too; every command tells what is wrong.
            click.echo(f"(plugins not listed: {_words(error)})\n", err=True)
            return own

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """One of ours, or a plugin's."""
        own = super().get_command(ctx, cmd_name)
        if own is not None or not _has_plugins(ctx):
            return own
        return _plugin_commands(ctx).commands.get(cmd_name)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """The command and its arguments; the nearest names where there is none."""
        try:
            return super().resolve_command(ctx, args)
        except click.UsageError as error:
            import difflib

            close = difflib.get_close_matches(args[0], self.list_commands(ctx), n=3)
            if not close or "mean" in error.message:
                raise
            words = f"{error.message} Did you mean {', '.join(close)}?"
            raise click.UsageError(words, error.ctx) from error

    def invoke(self, ctx: click.Context) -> Any:
        """Run, and let nothing but its own words come out of a command that fails."""
        from triggerflow.errors import TriggerflowError

        try:
            try:
                found = super().invoke(ctx)
            except click.exceptions.Exit:
                sys.stdout.flush()
                raise
            sys.stdout.flush()
        except TriggerflowError as error:
            raise Refused(str(error)) from error
        except BrokenPipeError:
            # The reader has enough (`| head`). Python flushes again as it exits.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            ctx.exit(_PIPE_CLOSED)
        except KeyboardInterrupt:
            ctx.exit(_INTERRUPTED)
        return found


def _session(ctx: click.Context) -> Session:
    if ctx.obj is None:
        given = ctx.params
        ctx.obj = Session(
            given.get("app"),
            given.get("store"),
            ctx.info_name or "triggerflow",
            triggers=given.get("triggers"),
        )
    found: Session = ctx.obj
    return found


def _has_plugins(ctx: click.Context) -> bool:
    from triggerflow.cli.loading import read_setting

    if read_setting("app", ctx.params.get("app")) is not None:
        return True
    from importlib import metadata

    return bool(metadata.entry_points(group="triggerflow"))


def _plugin_commands(ctx: click.Context) -> click.Group:
    found: click.Group | None = ctx.meta.get("triggerflow.plugins")
    if found is None:
        found = click.Group()
        _session(ctx).plugins.hook.triggerflow_cli(group=found)
        ctx.meta["triggerflow.plugins"] = found
    return found


def _words(error: Exception) -> str:
    return error.message if isinstance(error, click.ClickException) else str(error)


def _version(ctx: click.Context, param: click.Parameter, value: bool) -> None:  # noqa: ARG001
    if not value or ctx.resilient_parsing:
        return
    from importlib import metadata

    try:
        number = metadata.version("triggerflow")
    except metadata.PackageNotFoundError:
        number = "(not installed: run from its source)"
    click.echo(f"triggerflow {number}")
    ctx.exit()


@click.group(
    cls=Commands,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 96},
    epilog="Exit status: 0 fine, 1 error or finding, 2 wrong usage, 3 some lines of append "
    "were bad, 4 replay diverged or disagrees, 130 interrupted.",
)
@click.option(
    "--app",
    metavar="MODULE:ATTR",
    is_eager=True,
    help="The app: module:attr, path/to/file.py:attr, or a module with an `app`. Else "
    "TRIGGERFLOW_APP, else app = in [tool.triggerflow] of pyproject.toml.",
)
@click.option(
    "--store",
    metavar="URL",
    is_eager=True,
    help="The store, such as sqlite:///file.db. Else TRIGGERFLOW_STORE, else store = in "
    "pyproject.toml, else the app's own.",
)
@click.option(
    "--triggers",
    metavar="FILE",
    is_eager=True,
    help="More triggers for the app, in TOML or JSON. Else TRIGGERFLOW_TRIGGERS, else "
    "triggers = in pyproject.toml.",
)
@click.option(
    "--version",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_version,
    help="Show the version.",
)
@click.pass_context
def cli(
    ctx: click.Context,
    app: str | None,  # noqa: ARG001
    store: str | None,  # noqa: ARG001
    triggers: str | None,  # noqa: ARG001
) -> None:
    """Activities in, durable flows out; replay any of them from its log."""
    if os.environ.get("NO_COLOR"):
        ctx.color = False
    _session(ctx)


for _each in (
    append,
    run,
    start,
    ps,
    show,
    replay,
    signal,
    cancel,
    retry,
    terminate,
    unblock,
    triggers,
    backfill,
    backfills,
    redispatch,
    explain,
    firings,
    flows,
    patches,
    doctor,
):
    cli.add_command(_each)


def main() -> None:
    """The entry point."""
    cli()
