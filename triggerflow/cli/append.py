"""``append``: JSON lines into the store; bad lines are told and good ones kept."""

from __future__ import annotations

import contextlib
import os
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, BinaryIO, Final, NamedTuple

import attrs
import click

from triggerflow.cli.described import flow_label, standing
from triggerflow.cli.documents import (
    LONGEST_LINE,
    beside,
    beside_options,
    numbered,
    opened,
    parsed,
)
from triggerflow.cli.loading import Refused
from triggerflow.cli.render import Cell, count, note, print_json, print_table, status_cell
from triggerflow.cli.session import SHORT_ID, Session, json_option, pass_session

if TYPE_CHECKING:
    from triggerflow.client import Client
    from triggerflow.engine.views import Appended
    from triggerflow.store.records import InstanceRecord, TriggerRecord

_PAGE: Final = 1000
_BAD_LINES: Final = 3
_SHOWN: Final = 3
_TOLD: Final = ("signalled", "cancelled", "deduped", "debounced", "batched", "limited")
# In the order in which they are worth looking at.
_STATUSES: Final = ("done", "failed", "blocked", "cancelled", "waiting", "running")


@attrs.define
class _Tally:
    """What came of the lines so far."""

    appended: int = 0
    duplicates: int = 0
    firings: int = 0
    errors: int = 0
    deferred: int = 0
    outcomes: Counter[str] = attrs.field(factory=Counter)
    started: list[str] = attrs.field(factory=list)
    known: list[str] = attrs.field(factory=list)
    rejected: list[tuple[int, str]] = attrs.field(factory=list)

    def take(self, found: Appended) -> None:
        """Count one activity that is in the store."""
        if found.duplicate:
            self.duplicates += 1
            self.known += [
                each.instance_id
                for each in found.firings or ()
                if each.instance_id and each.outcome == "started"
            ]
            return
        self.appended += 1
        if found.firings is None:
            self.deferred += 1
            return
        for firing in found.firings:
            self.firings += 1
            self.deferred += firing.outcome == "deferred"
            self.outcomes[firing.outcome] += 1
            if firing.outcome == "started" and firing.instance_id is not None:
                self.started.append(firing.instance_id)
            elif firing.outcome != "limited":
                self.errors += firing.error is not None

    def reject(self, line: int, reason: str) -> None:
        """Tell of a bad line, at once."""
        self.rejected.append((line, reason))
        click.echo(f"line {line}: {reason}", err=True)

    def words(self) -> str:
        """The summary on one line."""
        parts = [
            f"{count(self.appended, 'activity', 'activities')} appended",
            count(self.duplicates, "duplicate"),
            count(self.firings, "firing"),
            f"{count(len(self.started), 'instance')} started",
            f"{len(self.rejected):,} rejected",
        ]
        if self.errors:
            parts.insert(3, f"{self.errors:,} of them errors")
        parts += [
            f"{number:,} {outcome}"
            for outcome, number in self.outcomes.items()
            if outcome in _TOLD
        ]
        if self.deferred:
            parts.append(f"{self.deferred:,} left to a worker")
        return ", ".join(parts)


class _Bad(NamedTuple):
    """Stands in a page for a line that can't be read, so that bad lines are told in order."""

    reason: str


@click.command(short_help="Append activities: a file of JSON lines, or - for stdin.")
@click.argument("file")
@click.option("--work", is_flag=True, help="Drive flows here, too, until nothing is runnable.")
@beside_options
@json_option
@pass_session
@click.pass_context
def append(
    ctx: click.Context, session: Session, /, file: str, work: bool, as_json: bool, **said: Any
) -> None:
    """Append the activities in FILE (- is stdin): JSON, one activity a line.

    Blank lines are skipped. A bad line (no strict JSON, or a rejected activity) is told
    on stderr with its number and reason, the good ones are kept, and the exit status is 3.
    Appending twice is harmless: what is there already counts as a duplicate and fires nothing.

    Flows are left to workers (`triggerflow run`) unless --work is given. Without an app the
    store's registered triggers are used, by the workers; a store without any is refused.
    """
    settings = _settings(session, work)
    tally = _Tally()
    ends: dict[str, list[InstanceRecord]] = {}
    words = beside(**said)
    with opened(file) as stream, session.client(**settings) as client:
        try:
            with _progress(file, stream) as advance:
                _feed(client, stream, tally, advance, words)
            if work:
                client.run_until_idle()
                ends = _ends(session, tally)
        except Exception:
            click.echo(f"stopped; until then: {tally.words()}", err=True)
            raise
    if as_json:
        print_json(_model(tally, ends if work else None))
    else:
        click.echo(tally.words())
        _say_ends(session, ends)
    if tally.rejected:
        ctx.exit(_BAD_LINES)


def _settings(session: Session, work: bool) -> dict[str, Any]:
    """How the client is to run; never so that nothing fires without a word.

    Raises:
        Refused: no app is named, and the store has no triggers or work was asked for.
    """
    if session.app is None:
        if work:
            session.need_app("--work drives flows, and there is no app")
        with contextlib.ExitStack() as stack:
            known: Sequence[TriggerRecord] = ()
            with contextlib.suppress(Refused):
                _, known = stack.enter_context(session.asking()).registry()
        if not known:
            session.need_app(
                f"there is no app, and the store {session.store.url} has no registered "
                "triggers: nothing would ever fire"
            )
        note(
            f"no app: {count(len(known), 'registered trigger')} of this store will meet the "
            "activities when a worker runs (triggerflow run)"
        )
        return {"work": False, "deferred": True}
    if not session.app.triggers:
        note("warning: the app has no triggers: these activities start none of its flows")
    return {"work": work}


def _feed(
    client: Client,
    stream: BinaryIO,
    tally: _Tally,
    advance: Callable[[int], None],
    words: dict[str, Any],
) -> None:
    from triggerflow.errors import DecodingRefused

    page: list[tuple[int, Any]] = []
    for number, text, size in numbered(stream):
        if text is None:
            page.append((number, _Bad(f"longer than {LONGEST_LINE:,} bytes")))
        elif text.strip():
            try:
                page.append((number, parsed(text, words["envelope"])))
            except DecodingRefused as refused:
                # A line has one line, so only the column says something.
                reason = str(refused).replace("at line 1, column", "at column")
                page.append((number, _Bad(reason)))
        if len(page) == _PAGE:
            _append(client, page, tally, words)
            page = []
        advance(size)
    if page:
        _append(client, page, tally, words)


def _append(
    client: Client, page: list[tuple[int, Any]], tally: _Tally, words: dict[str, Any]
) -> None:
    from triggerflow.engine.views import Rejected

    documents = [document for _, document in page if not isinstance(document, _Bad)]
    results = iter(client.append_many(documents, **words))
    for number, document in page:
        found = document if isinstance(document, _Bad) else next(results)
        if isinstance(found, _Bad):
            tally.reject(number, found.reason)
        elif isinstance(found, Rejected):
            tally.reject(number, str(found.error))
        else:
            tally.take(found)


@contextlib.contextmanager
def _progress(file: str, stream: BinaryIO) -> Iterator[Callable[[int], None]]:
    """A progress bar for people who wait: on a terminal only, gone when it is over."""
    if not sys.stderr.isatty():
        yield lambda _: None
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )

    total = None if file == "-" else os.fstat(stream.fileno()).st_size
    columns = (TextColumn("append"), BarColumn(), DownloadColumn(), TimeRemainingColumn())
    console = Console(stderr=True)
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task("append", total=total)
        yield lambda size: progress.advance(task, size)


# --- how instances ended --------------------------------------------------------------


def _ends(session: Session, tally: _Tally) -> dict[str, list[InstanceRecord]]:
    """Status -> the instances of these activities, those of duplicates too."""
    ends: dict[str, list[InstanceRecord]] = {}
    for number in dict.fromkeys([*tally.started, *tally.known]):
        record = session.store.instance(number)
        if record is not None:
            ends.setdefault(record.status, []).append(record)
    return {status: ends[status] for status in _STATUSES if status in ends}


def _say_ends(session: Session, ends: dict[str, list[InstanceRecord]]) -> None:
    if not ends:
        return
    from triggerflow.engine.clock import SystemClock

    now = SystemClock().now()
    rows: list[list[str | Cell]] = []
    for status, records in ends.items():
        label = Cell(f"{len(records):,} {status}", status_cell(status).style)
        for record in records[:_SHOWN]:
            words = standing(record, session.codec, now)
            rows.append([label, record.id[:SHORT_ID], flow_label(record), words])
            label = Cell("", "")
    print_table((), rows, indent=2)
    # What went wrong is the most interesting one to look at.
    worst = next((ends[each] for each in ("blocked", "failed") if each in ends), None)
    first = (worst or next(iter(ends.values())))[0]
    click.echo(f"replay any of them: {session.command('replay', first.id[:SHORT_ID])}")


def _model(tally: _Tally, ends: dict[str, list[InstanceRecord]] | None) -> dict[str, Any]:
    model = {
        "appended": tally.appended,
        "duplicates": tally.duplicates,
        "firings": tally.firings,
        "firing_errors": tally.errors,
        "outcomes": dict(tally.outcomes),
        "deferred": tally.deferred,
        "started": len(tally.started),
        "rejected": [{"line": line, "reason": reason} for line, reason in tally.rejected],
    }
    if ends is not None:
        model["statuses"] = {status: len(records) for status, records in ends.items()}
        model["instances"] = [record.id for records in ends.values() for record in records]
    return model
