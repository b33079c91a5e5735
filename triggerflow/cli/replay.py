"""``replay``: re-drive an instance from its log, offline; do code and log agree?"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from triggerflow.cli.described import entry_text, flow_label
from triggerflow.cli.loading import Refused, short_path
from triggerflow.cli.render import (
    Cell,
    count,
    dim,
    duration,
    failure_text,
    heading,
    moment,
    print_json,
    print_table,
    short,
    status_cell,
    time_of_day,
)
from triggerflow.cli.session import SHORT_ID, Session, json_option, pass_session

if TYPE_CHECKING:
    from collections.abc import Sequence

    from triggerflow.cli.redrive import Case, Row, Verdict, Wait
    from triggerflow.core.outcomes import Continued, Done, Failed, Suspended

_DISAGREES = 4


@click.command(short_help="Re-drive an instance from its log: every effect, then a verdict.")
@click.argument("id")
@click.option(
    "--locals", "with_locals", is_flag=True, help="Show names and values at each yield."
)
@json_option
@pass_session
@click.pass_context
def replay(
    ctx: click.Context, session: Session, id: str, with_locals: bool, as_json: bool
) -> None:
    """Re-drive an instance from its log with the app's code, and show every effect.

    Nothing is performed and nothing is written: no step runs, no worker is registered. The
    last line says whether the code agrees with what is stored; exit status 4 if it does
    not, or if code and log diverge. `now` is the time that the flow sees after that entry.
    """
    from triggerflow.cli.redrive import rows_of, verdict_of

    case = _case(session, id)
    rows = rows_of(case, with_locals=with_locals)
    verdict = verdict_of(case, with_locals=with_locals)
    if as_json:
        print_json(_model(case, rows, verdict))
    else:
        _print(case, rows, verdict)
    if not verdict.agrees:
        ctx.exit(_DISAGREES)


def _case(session: Session, id: str) -> Case:
    from triggerflow.cli.redrive import Case

    app = session.need_app("replay drives a flow's code")
    with session.asking() as store:
        record = session.find(store, id)
        # A worker may write between the two reads: the record's own length counts.
        log = store.log(record.number, record.generation)[: record.log_length]
        unread = store.inbox(record.number)
    flow = app.flows.find(record.flow, record.version)
    if flow is None:
        known = ", ".join(each.label for each in app.flows) or "none"
        raise Refused(
            f"instance {record.id} runs flow {flow_label(record)}, which this app doesn't "
            f"have; its flows: {known}"
        )
    return Case(flow, record, log, unread, app.codec)


# --- for people -----------------------------------------------------------------------


def _print(case: Case, rows: list[Row], verdict: Verdict) -> None:
    record = case.record
    origin = "" if record.trigger is None else f", started by trigger {record.trigger}"
    if record.parent is not None:
        origin = f", child of {record.parent[:SHORT_ID]}"
    if record.generation > 1:
        origin += f", generation {record.generation}"
    click.echo(
        f"{record.id}  {case.flow.label}  "
        f"{click.style(record.status, fg=status_cell(record.status).style or None)}"
        f"  {count(record.log_length, 'entry', 'entries')}{origin}"
    )
    click.secho(f"input {short(case.codec.decode(record.input), 88)}", dim=True)
    click.echo()
    _print_rows(rows)
    if verdict.waits:
        heading("waits for")
        _print_waits(verdict.waits)
    click.echo()
    if verdict.problem is not None:
        click.secho(str(verdict.problem), fg="red")
    elif verdict.outcome is not None:
        click.echo(_outcome(verdict.outcome))
    if verdict.agrees:
        remark = f" ({verdict.remark})" if verdict.remark else ""
        click.secho(f"agrees with the store{remark}", fg="green")
    else:
        words = "; ".join(verdict.differences) or "the code would not have made this record"
        click.secho(f"DISAGREES: {words}", fg="red", bold=True)


def _print_rows(rows: list[Row]) -> None:
    if not rows:
        click.echo("the log is empty: no effect has come back yet")
        return
    headers = ("#", "tag", "flow at", "elapsed", "now", "value")
    if not any(row.locals for row in rows):
        print_table(headers, (_cells(row) for row in rows), right=(0, 3))
        return
    # With locals between them, rows are set one by one, and so without a common grid.
    for row in rows:
        print_table((), [_cells(row)])
        _print_locals(row.locals)


def _cells(row: Row) -> list[str | Cell]:
    text = entry_text(row.value, row.failure, 72)
    if row.note and row.failure is None and row.value is None:
        text = ""
    style = "bright_black" if row.note else "red" if row.failure else ""
    remarks = "; ".join(filter(None, (row.note, about(row))))
    note = f"{remarks}: " if remarks and text else remarks
    return [
        str(row.position),
        row.tag,
        short_path(row.location),
        dim("" if row.elapsed is None else f"+{duration(row.elapsed)}"),
        dim(time_of_day(row.at)),
        Cell(f"{note}{text}", style),
    ]


def about(shown: Row | Wait) -> str:
    """What a compensation undoes, or which child an effect started."""
    if shown.undoes is not None:
        return f"undoes {shown.undoes.rpartition('/')[2]}"
    return "" if shown.child is None else f"child {shown.child[:SHORT_ID]}"


def _print_waits(waits: Sequence[Wait]) -> None:
    rows = []
    for wait in waits:
        due = "" if wait.due is None else f"due {moment(wait.due)}"
        tries = f"{count(wait.attempts, 'attempt')} failed" if wait.attempts else ""
        rows.append([wait.tag, short_path(wait.location), due, tries, about(wait)])
    if not any(wait.locals for wait in waits):
        print_table((), rows, indent=2)
        return
    for wait, row in zip(waits, rows, strict=True):
        print_table((), [row], indent=2)
        _print_locals(wait.locals)


def _print_locals(names: tuple[tuple[str, str], ...]) -> None:
    if names:
        print_table((), ([dim(name), f"= {value}"] for name, value in names), indent=6)


def _outcome(outcome: Done | Failed | Continued | Suspended) -> str:
    from triggerflow.core.outcomes import Continued, Done, Failed

    if isinstance(outcome, Done):
        return f"done: {short(outcome.result, 400)}"
    if isinstance(outcome, Failed):
        word = "cancelled" if outcome.failure.kind == "cancelled" else "failed"
        return f"{word}: {failure_text(outcome.failure, 1000)}"
    if isinstance(outcome, Continued):
        return f"continues as new with {short(outcome.input, 400)}"
    return f"suspended on {', '.join(outcome.tags)}"


# --- for programs ---------------------------------------------------------------------


def _model(case: Case, rows: list[Row], verdict: Verdict) -> dict[str, Any]:
    from triggerflow.core.outcomes import Continued, Done, Failed

    outcome: dict[str, Any] | None = None
    if isinstance(verdict.outcome, Done):
        outcome = {"kind": "done", "result": verdict.outcome.result}
    elif isinstance(verdict.outcome, Failed):
        outcome = {"kind": "failed", "failure": verdict.outcome.failure}
    elif isinstance(verdict.outcome, Continued):
        outcome = {"kind": "continued", "input": verdict.outcome.input}
    elif verdict.outcome is not None:
        outcome = {"kind": "suspended", "tags": verdict.outcome.tags}
    problem: dict[str, Any] | None = None
    if verdict.problem is not None:
        import attrs

        kind: Any = type(verdict.problem)
        fields = attrs.fields(kind) if attrs.has(kind) else ()
        problem = {each.name: getattr(verdict.problem, each.name) for each in fields}
        problem |= {"type": kind.__name__, "message": str(verdict.problem)}
    return {
        "id": case.record.id,
        "flow": case.flow.name,
        "version": case.flow.version,
        "status": case.record.status,
        "generation": case.record.generation,
        "entries": [_row_model(row) for row in rows],
        "waiting": [{**_plain(wait), "locals": dict(wait.locals)} for wait in verdict.waits],
        "outcome": outcome,
        "problem": problem,
        "differences": verdict.differences,
        "remark": verdict.remark,
        "agrees": verdict.agrees,
    }


def _row_model(row: Row) -> dict[str, Any]:
    return {**_plain(row), "locals": dict(row.locals)}


def _plain(value: Any) -> dict[str, Any]:
    import attrs

    return attrs.asdict(value, recurse=False)
