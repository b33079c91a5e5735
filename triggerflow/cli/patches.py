"""``patches``: who still needs which side of a guarded change."""

from __future__ import annotations

from typing import Any

import attrs
import click

from triggerflow.cli.loading import short_path
from triggerflow.cli.render import cut, dim, heading, note, print_json, print_table
from triggerflow.cli.session import SHORT_ID, Session, json_option, pass_session

_PAGE = 200
_SIDES = (("old", "old branch"), ("new", "new branch"), ("unmet", "not met yet"))


@click.command(short_help="Tell when the branches of patched(id) can be removed.")
@click.option("--flow", help="Only those of this flow.")
@json_option
@pass_session
def patches(session: Session, flow: str | None, as_json: bool) -> None:
    """Tell for each patched(id) which open instances are on which side of it.

    The flows are driven through the logs of all their open instances; nothing is written.
    """
    from triggerflow.engine.patches import Survey
    from triggerflow.store.records import OPEN

    app = session.need_app("patches are found by driving flows")
    if flow is not None:
        app.flows.get(flow)
    survey = Survey(app.flows, session.codec)
    strangers = 0
    after, more = None, True
    with session.asking() as store:
        while more:
            page = store.instances(status=OPEN, flow=flow, after=after, limit=_PAGE)
            for record in page:
                if survey.knows(record):
                    survey.look(record, store.log(record.number, record.generation))
                else:
                    strangers += 1
                after = record.cursor
            more = len(page) == _PAGE
    found = [each for each in survey.found() if flow in (None, each.flow)]
    if as_json:
        for each in found:
            row = attrs.asdict(each)
            print_json(row | {"removable": each.removable, "verdict": each.verdict}, line=True)
        return
    if not found:
        note("no patched(id) in these flows, nor in the logs of their open instances")
    for each in found:
        _print(each)
    if strangers:
        note(
            f"not looked at: {strangers} open, of flows or versions that aren't registered here"
        )


def _print(patch: Any) -> None:
    heading(f"{patch.flow}/{patch.version}  {patch.id}: {patch.verdict}")
    rows = [("where", short_path(patch.location))] if patch.location else []
    for side, words in (*_SIDES, ("unclear", "unclear")):
        ids = getattr(patch, side)
        if ids:
            some = " ".join(each[:SHORT_ID] for each in ids[:8])
            rows.append(
                (f"{words}: {len(ids)}", cut(some + (" ..." if len(ids) > 8 else ""), 90))
            )
    print_table((), ((dim(name), text) for name, text in rows), indent=2)
