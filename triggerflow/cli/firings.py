"""``firings``: the audit, newest first."""

from __future__ import annotations

import click

from triggerflow.cli.render import Cell, dim, moment, note, print_json, print_table
from triggerflow.cli.session import SHORT_ID, Session, json_option, pass_session

_GOOD = ("started", "signalled", "cancelled", "debounced", "batched")


@click.command(short_help="List firings: which trigger met what, and what came of it.")
@click.option("--activity", metavar="CID", help="Only those of this activity.")
@click.option("--trigger", help="Only those of triggers of this name.")
@click.option("--outcome", help="Only those with this outcome, such as failed or deduped.")
@click.option("--limit", type=click.IntRange(1), default=50, show_default=True)
@json_option
@pass_session
def firings(
    session: Session,
    activity: str | None,
    trigger: str | None,
    outcome: str | None,
    limit: int,
    as_json: bool,
) -> None:
    """List firings, the newest first.

    Triggers whose type, pattern, actors or guard said no leave none: see `explain`.
    """
    import attrs

    with session.asking() as store:
        found = store.fired(activity=activity, trigger=trigger, outcome=outcome, limit=limit)
    if as_json:
        for each in found:
            print_json(attrs.asdict(each), line=True)
        return
    if not found:
        note("no firing")
        return
    print_table(
        ("at", "activity", "trigger", "outcome", "instance", ""),
        [
            (
                moment(each.at),
                dim(f"{each.activity[:8]}…{each.activity[-6:]}"),
                each.trigger,
                Cell(each.outcome, "green" if each.outcome in _GOOD else "yellow"),
                "" if each.instance is None else each.instance[:SHORT_ID],
                each.error or ("" if each.earlier is None else f"after {each.earlier}"),
            )
            for each in found
        ],
        wrap=True,
    )
