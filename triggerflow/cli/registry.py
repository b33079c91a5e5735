"""``triggers`` and ``flows``: what starts what; what the store has and the app hasn't."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import click

from triggerflow.cli.loading import Refused, short_path
from triggerflow.cli.render import Cell, cut, dim, note, print_json, print_table, short
from triggerflow.cli.session import Session, json_option, pass_session

if TYPE_CHECKING:
    from collections.abc import Iterator

    from triggerflow.triggers import Trigger

_STATES: Final = {
    "active": "green",
    "paused": "yellow",
    "draining": "yellow",
    "new": "cyan",
    "store only": "yellow",
    "unreadable": "red",
}
_DOES: Final = {"start": "starts", "signal": "signals", "cancel": "cancels"}


@click.group(
    short_help="List, show, compare, export and retire triggers.", invoke_without_command=True
)
@click.option("--export", is_flag=True, help="Write them as TOML, or with --json as JSON.")
@json_option
@pass_session
@click.pass_context
def triggers(ctx: click.Context, session: Session, as_json: bool, export: bool) -> None:
    """List triggers: what leads to what, and whether the store knows it already.

    `active` ones are planned with; `paused` ones, too, but start nothing; `draining` ones meet
    nothing. `new` ones become active when the app is opened next, and supersede one of the
    same name; `store only` ones aren't in this app.
    """
    if ctx.invoked_subcommand is not None:
        return
    if export:
        _export(session, as_json)
        return
    rows = list(_triggers(session))
    if as_json:
        for row in rows:
            print_json(row, line=True)
        return
    if not rows:
        note("no trigger")
        return
    print_table(
        ("trigger", "on", "does", "state", "cid", "only if"),
        (
            (
                row["name"],
                cut(", ".join(row.get("on", ())), 60),
                _does(row),
                Cell(row["state"], _STATES.get(row["state"], "")),
                dim(f"{row['cid'][:8]}…{row['cid'][-6:]}"),
                _conditions(row),
            )
            for row in rows
        ),
    )


@triggers.command(name="show", short_help="Show one trigger, field by field.")
@click.argument("name")
@json_option
@pass_session
def show_trigger(session: Session, name: str, as_json: bool) -> None:
    """Show a trigger by its name: all its fields, its state, its CID."""
    rows = list(_triggers(session))
    found = [row for row in rows if row["name"] == name]
    if not found:
        raise Refused(f"no trigger {name!r}; {_nearest(name, [row['name'] for row in rows])}")
    for row in found:
        if as_json:
            print_json(row, line=len(found) > 1)
            continue
        head = [("state", row.pop("state")), ("cid", row.pop("cid"))]
        fields = [(field, short(value, 2000)) for field, value in row.items()]
        print_table((), [*head, *fields], wrap=True)


@triggers.command(short_help="What would change in the store if the app were opened.")
@json_option
@pass_session
def diff(session: Session, as_json: bool) -> None:
    """Compare the app's triggers with the store's: added, changed, and not in the app.

    Those that aren't in the app stay active until `triggers retire`.
    """
    app = session.need_app("what is compared is its triggers")
    stored = {row["name"]: row for row in _stored(session)}
    found: list[tuple[str, str, str, Any, Any]] = []
    for trigger in app.triggers:
        mine = _fields(trigger)
        theirs = stored.pop(trigger.name, None)
        if theirs is None:
            found.append(("added", trigger.name, "", None, mine))
        elif theirs["cid"] != trigger.trigger_cid or any(
            theirs.get(field) != mine.get(field) for field in ("retry", "dead_letter")
        ):
            old = {key: value for key, value in theirs.items() if key not in ("cid", "state")}
            found += [
                ("changed", trigger.name, field, old.get(field), mine.get(field))
                for field in dict.fromkeys([*old, *mine])
                if old.get(field) != mine.get(field)
            ]
    found += [("not in the app", name, "", row, None) for name, row in stored.items()]
    if as_json:
        for what, name, field, old, new in found:
            model = {"what": what, "trigger": name, "field": field, "store": old, "app": new}
            print_json(model, line=True)
        return
    if not found:
        note("no difference")
        return
    styles = {"added": "green", "changed": "yellow", "not in the app": "red"}
    print_table(
        ("", "trigger", "field", "store -> app"),
        [
            (Cell(what, styles[what]), name, field, _change(what, old, new))
            for what, name, field, old, new in found
        ],
        wrap=True,
    )


def _change(what: str, old: Any, new: Any) -> str:
    if what != "changed":
        return _conditions(new or old) or _does(new or old)
    before = "(none)" if old is None else short(old, 500)
    return f"{before} -> {'(none)' if new is None else short(new, 500)}"


@triggers.command(short_help="Let a trigger that the app no longer has be active no more.")
@click.argument("name")
@pass_session
def retire(session: Session, name: str) -> None:
    """Retire a trigger by its name: it meets no activity any more.

    One that the app still defines would come back when it is opened, and is refused.
    """
    with session.client(work=False, register=False) as client:
        client.retire(name)
    click.echo(f"retired: {name}")


def _export(session: Session, as_json: bool) -> None:
    from triggerflow.triggers.files import write_json, write_toml

    found = _defined(session)
    if as_json:
        print_json(write_json(found))
    else:
        click.echo(write_toml(found), nl=False)


def _defined(session: Session) -> list[Trigger]:
    """The app's triggers; without an app, the store's."""
    from triggerflow.errors import TriggerflowError
    from triggerflow.pipeline.known import read_trigger

    if session.app is not None:
        return list(session.app.triggers)
    found = []
    with session.asking() as store:
        for record in store.registry()[1]:
            try:
                found.append(read_trigger(record.spec, {}, record.options))
            except TriggerflowError as error:
                note(f"trigger {record.name!r} is left out: {error}")
    return found


def _stored(session: Session) -> list[dict[str, Any]]:
    """The store's triggers as rows; none where there is no store yet."""
    from triggerflow.errors import TriggerflowError
    from triggerflow.pipeline.known import read_trigger

    try:
        with session.asking() as store:
            records = store.registry()[1]
    except Refused:
        # No file yet: what the app defines can be listed all the same.
        if session.app is None:
            raise
        return []
    rows = []
    for record in records:
        row: dict[str, Any] = {"state": record.state, "cid": record.cid, "name": record.name}
        try:
            row.update(_fields(read_trigger(record.spec, {}, record.options)))
        except TriggerflowError as error:
            row.update(state="unreadable", reason=str(error))
        rows.append(row)
    return rows


def _triggers(session: Session) -> Iterator[dict[str, Any]]:
    stored = {row["cid"]: row for row in _stored(session)}
    for trigger in () if session.app is None else session.app.triggers:
        row = stored.pop(trigger.trigger_cid, None)
        state = "new" if row is None else row["state"]
        yield {"state": state, "cid": trigger.trigger_cid, **_fields(trigger)}
    for row in stored.values():
        other = session.app is not None and row["state"] == "active"
        yield {**row, "state": "store only"} if other else row


def _fields(trigger: Trigger) -> dict[str, Any]:
    """What a trigger says: its spec, and how it is dispatched."""
    return {**trigger.spec(), **trigger.delivery.spec()}


def _does(spec: dict[str, Any]) -> str:
    for action, verb in _DOES.items():
        if action in spec:
            given = spec[action]
            flow = given if isinstance(given, str) else given.get("flow", "?")
            return f"{verb} {flow}"
    return ""


def _conditions(spec: dict[str, Any]) -> str:
    parts = []
    actors = spec.get("actors")
    if isinstance(actors, list):
        parts.append(f"actors {', '.join(actors)}")
    elif actors is not None:
        parts.append(f"actors {short(actors, 120)}")
    if "match" in spec:
        parts.append(f"match {short(spec['match'], 120)}")
    if "guard" in spec:
        parts.append(f"guard {spec['guard']}")
    parts += [
        f"{field} {short(spec[field], 80)}"
        for field in ("namespace", "dedup", "control", "max_depth", "reason")
        if field in spec
    ]
    return "; ".join(parts)


def _nearest(name: str, names: list[str]) -> str:
    import difflib

    names = list(dict.fromkeys(names))
    close = difflib.get_close_matches(name, names, n=3)
    if close:
        return f"did you mean {', '.join(close)}?"
    return f"there are {', '.join(names[:8])}" if names else "there is none"


@click.command(short_help="List the app's flows.")
@json_option
@pass_session
def flows(session: Session, as_json: bool) -> None:
    """List the app's flows, their versions, and where they are defined."""
    app = session.need_app("flows are code")
    started: dict[str, list[str]] = {}
    for trigger in app.triggers:
        if trigger.start is not None:
            started.setdefault(trigger.start, []).append(trigger.name)
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
