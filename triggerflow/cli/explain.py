"""``explain``: what an activity leads to, trigger by trigger, and why not to more."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import attrs
import click

from triggerflow.cli.documents import beside, beside_options, numbered, opened, parsed
from triggerflow.cli.loading import Refused
from triggerflow.cli.render import Cell, count, cut, dim, print_json, print_table
from triggerflow.cli.session import SHORT_ID, Session, json_option, pass_session

if TYPE_CHECKING:
    from collections.abc import Iterator

    from triggerflow.client import Client
    from triggerflow.engine.explaining import Explained, Explanation

# What a firing does, in the future and in the past.
_WORDS: Final = {
    "started": ("starts", "started"),
    "signalled": ("signals", "signalled"),
    "cancelled": ("cancels", "cancelled"),
}
_STYLES: Final = {
    "started": "green",
    "signalled": "green",
    "cancelled": "green",
    "debounced": "green",
    "batched": "green",
    "deduped": "cyan",
    "deferred": "cyan",
    "no": "bright_black",
}
# Conditions that nearly every trigger fails: counted, not listed.
_COMMON: Final = ("namespace", "type")
_BAD_LINES: Final = 3


class _Subject(NamedTuple):
    """An activity to explain: a document with its place, or a CID and its namespace."""

    place: str
    document: Any = None
    cid: str | None = None
    namespace: str = ""
    refused: str | None = None


@click.command(short_help="Explain what an activity leads to, and why not to more.")
@click.argument("what", required=False)
@click.option("--last", type=click.IntRange(1), metavar="N", help="The last N of the store.")
@click.option("--trigger", multiple=True, help="Only about this trigger; may be repeated.")
@click.option("--all", "everything", is_flag=True, help="List triggers of other types, too.")
@beside_options
@json_option
@pass_session
@click.pass_context
def explain(
    ctx: click.Context,
    session: Session,
    /,
    what: str | None,
    last: int | None,
    trigger: tuple[str, ...],
    everything: bool,
    as_json: bool,
    **said: Any,
) -> None:
    """Explain WHAT: a file of JSON or JSON lines, - for stdin, or the CID of an activity.

    A document is explained as if it were appended now, with the app's triggers as they are
    now; one that is in the store, with what came of it. Nothing is written.
    """
    if (what is None) == (last is None):
        raise click.UsageError("name a file, a CID, or --last N")
    words = beside(**said)
    subjects = list(_subjects(session, what, last, words))
    shown: list[Explanation] = []
    bad = 0
    with _client(session) as client:
        for subject in subjects:
            found = subject.refused or _explained(client, subject, words)
            if isinstance(found, str):
                bad += 1
                if as_json:
                    print_json({"place": subject.place, "refused": found}, line=True)
                else:
                    _say_refused(subject, found)
                continue
            found = _only(found, trigger)
            shown.append(found)
            if as_json:
                print_json({"place": subject.place, **_model(found)}, line=True)
            else:
                _say(subject, found, everything=everything)
    if not as_json and len(shown) > 1:
        _say_sums(shown)
    if bad:
        ctx.exit(_BAD_LINES)


def _client(session: Session) -> Client:
    """A client that leaves the store as it is, even where there is none yet."""
    path = getattr(session.store, "path", None)
    if isinstance(path, str) and path != ":memory:" and not Path(path).exists():
        from triggerflow.store.sqlite import MemoryStore

        session.store = MemoryStore()
    return session.client(work=False, register=False)


def _subjects(
    session: Session, what: str | None, last: int | None, words: dict[str, Any]
) -> Iterator[_Subject]:
    if last is not None:
        with session.asking() as store:
            rows = store.newest_activities(last)
        for row in reversed(rows):
            yield _Subject(f"seq {row.seq}", cid=row.cid, namespace=row.namespace)
    elif what is not None and what != "-" and not Path(what).exists():
        if not what.startswith("baf"):
            raise Refused(f"{what}: there is no such file, and a CID begins with `baf`")
        yield _Subject("", cid=what, namespace=words["namespace"])
    elif what is not None:
        yield from _documents(what, words["envelope"])


def _documents(file: str, envelope: str | None) -> Iterator[_Subject]:
    from triggerflow.errors import DecodingRefused

    with opened(file) as stream:
        lines = list(numbered(stream))
    texts = [(number, text) for number, text, _ in lines if text is None or text.strip()]
    whole = b"".join(text for _, text in texts if text is not None)
    if len(texts) > 1 and _is_one(whole):
        texts = [(0, whole)]
    for number, text in texts:
        place = f"line {number}" if number and len(texts) > 1 else ""
        if text is None:
            yield _Subject(place, refused="the line is too long")
            continue
        try:
            yield _Subject(place, parsed(text, envelope))
        except DecodingRefused as refused:
            yield _Subject(place, refused=str(refused))


def _is_one(text: bytes) -> bool:
    """Whether a file holds one document on several lines."""
    from triggerflow.core.codec import parse_json
    from triggerflow.errors import DecodingRefused

    try:
        parse_json(text, what="file")
    except DecodingRefused:
        return False
    return True


def _explained(client: Client, subject: _Subject, words: dict[str, Any]) -> Explanation | str:
    """An explanation, or why an append would refuse it."""
    from triggerflow.errors import (
        ActivityRejected,
        DecodingRefused,
        EncodingRefused,
        UnknownActivity,
    )

    try:
        if subject.cid is not None:
            return client.explain(subject.cid, namespace=subject.namespace)
        return client.explain(subject.document, **words)
    except UnknownActivity as unknown:
        if subject.place:
            return str(unknown)
        raise
    except (ActivityRejected, DecodingRefused, EncodingRefused) as refused:
        return str(refused)


def _only(found: Explanation, names: tuple[str, ...]) -> Explanation:
    if not names:
        return found
    kept = tuple(each for each in found.triggers if each.trigger in names)
    if not kept:
        import difflib

        known = [each.trigger for each in found.triggers]
        close = difflib.get_close_matches(names[0], known, n=3) or known[:8]
        raise Refused(f"no trigger {names[0]!r}; there are {', '.join(close) or 'none'}")
    return attrs.evolve(found, triggers=kept)


# --- for people -----------------------------------------------------------------------


def _say(subject: _Subject, found: Explanation, *, everything: bool) -> None:
    standing = "not appended" if found.seq is None else f"appended as seq {found.seq}"
    place = "" if subject.place.startswith("seq") else subject.place
    head = click.style(cut(", ".join(found.types), 80), bold=True)
    space = f"in {found.namespace}" if found.namespace else ""
    parts = [f"{found.cid[:8]}…{found.cid[-6:]}", standing, space, place]
    tail = "  ".join(filter(None, parts))
    click.echo(f"{head}  by {cut(', '.join(found.actors), 100)}  {_dimmed(tail)}")
    listed = [
        each
        for each in found.triggers
        if everything
        or each.reason is None
        or each.reason.what not in _COMMON
        or each.reason.near
    ]
    # What fires first; what fails last fails nearest to firing.
    listed.sort(key=_nearness)
    print_table((), [_row(each) for each in listed], indent=2, wrap=True)
    left = Counter(
        each.reason.what for each in found.triggers if each not in listed and each.reason
    )
    others = [
        f"{count(number, 'trigger')} {'is' if number == 1 else 'are'} "
        f"{'on other types' if what == 'type' else 'for other namespaces'}"
        for what, number in left.items()
    ]
    if others or not found.triggers:
        click.echo(f"  {_dimmed('; '.join(others) or 'there is no trigger')}")
    click.echo()


_ORDER: Final = ("guard", "newer", "actors", "pattern", "unreadable", "type", "namespace")


def _nearness(each: Explained) -> int:
    if each.reason is None or each.outcome != "no":
        return -1
    return _ORDER.index(each.reason.what) if each.reason.what in _ORDER else 0


def _row(each: Explained) -> tuple[Cell, str, str]:
    style = _STYLES.get(each.outcome, "red")
    if each.outcome in _WORDS:
        verb = _WORDS[each.outcome][each.recorded]
        instance = f" {(each.instance_id or '')[:SHORT_ID]}" if each.recorded else ""
        return Cell(verb, style), each.trigger, f"{each.flow or ''}{instance}".strip()
    words = each.error or (each.reason.words if each.reason is not None else "")
    if each.outcome == "deduped":
        words = _deduped(each)
    elif each.outcome in ("debounced", "batched"):
        verb = "joined" if each.recorded else "joins"
        words = f"{verb} {each.flow or 'instance'} {(each.instance_id or '')[:SHORT_ID]}"
    label = each.reason.what if each.outcome == "no" and each.reason else each.outcome
    return Cell(label.replace("_", " "), style), each.trigger, words


def _deduped(each: Explained) -> str:
    if each.earlier is None:
        return f"its business key is held by instance {each.instance_id}, of the same input"
    told = f", which led to {each.instance_id[:SHORT_ID]}" if each.instance_id else ""
    return f"activity {each.earlier} came first{told}"


def _say_refused(subject: _Subject, words: str) -> None:
    place = f"{subject.place}: " if subject.place else ""
    click.secho(f"{place}refused", fg="red", bold=True)
    click.echo(f"  {words}\n")


def _say_sums(shown: list[Explanation]) -> None:
    """What came of all of them, trigger by trigger."""
    sums: dict[str, Counter[str]] = {}
    for found in shown:
        for each in found.triggers:
            label = each.reason.what if each.outcome == "no" and each.reason else each.outcome
            sums.setdefault(each.trigger, Counter())[label] += 1
    met = sum(bool(found.fired) for found in shown)
    click.secho(
        f"{count(len(shown), 'activity', 'activities')}, "
        f"{met:,} of them with a firing; by trigger:",
        bold=True,
    )
    silent = {name for name, each in sums.items() if not each.keys() - set(_COMMON)}
    rows = sorted(sums.items(), key=lambda item: _rank(item[1]))
    print_table(
        ("trigger", "fires", "not, because of"),
        [
            (
                name,
                f"{_firing(sums):,}",
                dim(", ".join(f"{what} {number:,}" for what, number in _misses(sums))),
            )
            for name, sums in rows
            if name not in silent
        ],
        right=[1],
    )
    if silent:
        verb = "is" if len(silent) == 1 else "are"
        click.echo(_dimmed(f"{count(len(silent), 'trigger')} {verb} on none of these types"))


def _misses(sums: Counter[str]) -> list[tuple[str, int]]:
    return [(what, number) for what, number in sums.most_common() if what in _ORDER]


def _firing(sums: Counter[str]) -> int:
    return sums.total() - sum(number for _, number in _misses(sums))


def _rank(sums: Counter[str]) -> tuple[int, int]:
    return -_firing(sums), sums["type"] + sums["namespace"]


def _dimmed(text: str) -> str:
    return click.style(text, fg="bright_black")


# --- for programs ---------------------------------------------------------------------


def _model(found: Explanation) -> dict[str, Any]:
    model: dict[str, Any] = attrs.asdict(found)
    return model
