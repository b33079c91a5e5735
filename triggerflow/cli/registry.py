"""``triggers`` and ``flows``: what the app defines, and what the store knows of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from triggerflow.cli.loading import Refused, short_path
from triggerflow.cli.render import cut, dim, note, print_json, print_table, short
from triggerflow.cli.session import Session, json_option, pass_session

if TYPE_CHECKING:
    from collections.abc import Iterator


@click.command(short_help="List triggers: the app's, and those that the store has.")
@json_option
@pass_session
def triggers(session: Session, as_json: bool) -> None:
    """List triggers: what starts which flow, and whether the store knows it already.

    `active` ones are planned with; `new` ones become active when the app is opened next,
    and supersede one of the same name; `store only` ones aren't in this app.
    """
    rows = list(_triggers(session))
    if as_json:
        for row in rows:
            print_json(row, line=True)
        return
    if not rows:
        note("no trigger")
        return
    print_table(
        ("trigger", "on", "starts", "state", "cid", "only if"),
        (
            (
                row["name"],
                cut(", ".join(row["on"]), 60),
                row.get("start", ""),
                row["state"],
                dim(f"{row['cid'][:8]}…{row['cid'][-6:]}"),
                _conditions(row),
            )
            for row in rows
        ),
    )


def _triggers(session: Session) -> Iterator[dict[str, Any]]:
    from triggerflow.core.codec import decode_document

    stored = {}
    try:
        with session.asking() as store:
            stored = {record.cid: record for record in store.registry()[1]}
    except Refused:
        # No file yet: what the app defines can be listed all the same.
        if session.app is None:
            raise
    for trigger in () if session.app is None else session.app.triggers:
        state = "active" if stored.pop(trigger.trigger_cid, None) else "new"
        yield {"state": state, "cid": trigger.trigger_cid, **trigger.spec()}
    for cid, record in stored.items():
        state = "active" if session.app is None else "store only"
        yield {"state": state, "cid": cid, **decode_document(record.spec)}


def _conditions(spec: dict[str, Any]) -> str:
    parts = []
    if "actors" in spec:
        parts.append(f"actors {', '.join(spec['actors'])}")
    if "match" in spec:
        parts.append(f"match {short(spec['match'], 120)}")
    if "guard" in spec:
        parts.append(f"guard {spec['guard']}")
    return "; ".join(parts)


@click.command(short_help="List the app's flows.")
@json_option
@pass_session
def flows(session: Session, as_json: bool) -> None:
    """List the app's flows, their versions, and where they are defined."""
    app = session.need_app("flows are code")
    started: dict[str, list[str]] = {}
    for trigger in app.triggers:
        started.setdefault(trigger.flow, []).append(trigger.name)
    if as_json:
        for flow in app.flows:
            model = {
                "flow": flow.name,
                "version": flow.version,
                "location": flow.location,
                "code_hash": flow.code_hash,
                "triggers": started.get(flow.name, []),
            }
            print_json(model, line=True)
        return
    if not len(app.flows):
        note("no flow")
        return
    print_table(
        ("flow", "defined at", "code", "started by"),
        (
            (
                flow.label,
                short_path(flow.location),
                dim(flow.code_hash[:8]),
                ", ".join(started.get(flow.name, [])),
            )
            for flow in app.flows
        ),
    )
