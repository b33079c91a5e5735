"""Documents from files: how they are read there, and what is said beside them."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO, Final

import click

from triggerflow.cli.loading import Refused

# A document has 1 MiB at most, and its JSON text four times that; a line beyond it is
# skipped without being held in memory.
LONGEST_LINE: Final = 4 * 1024 * 1024 + 1024


def beside_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options that say beside a document what it doesn't say itself."""
    for option in (
        click.option("--namespace", default="", help="The namespace that it is for."),
        click.option("--source", help="Where it came from."),
        click.option("--actor", multiple=True, help="Its actor, where the document has none."),
        click.option("--type", multiple=True, help="Its type, where the document has none."),
        click.option(
            "--envelope",
            help="How it is read: activitystreams (the default), cloudevents, atproto, plain, "
            "or one of a plugin.",
        ),
    ):
        command = option(command)
    return command


def beside(
    envelope: str | None,
    type: tuple[str, ...],
    actor: tuple[str, ...],
    source: str | None,
    namespace: str,
) -> dict[str, Any]:
    """These options as the verbs take them."""
    return {
        "envelope": envelope,
        "type": list(type) or None,
        "actor": list(actor) or None,
        "source": source,
        "namespace": namespace,
    }


def parsed(text: bytes, envelope: str | None) -> Any:
    """A document from its JSON.

    Raises:
        DecodingRefused: it is no strict JSON, or no JSON of that make.
    """
    from triggerflow.core.codec import from_atproto_json, parse_json

    document = parse_json(text, what="activity")
    return from_atproto_json(document, what="activity") if envelope == "atproto" else document


@contextlib.contextmanager
def opened(file: str) -> Iterator[BinaryIO]:
    """A file, or stdin for ``-``.

    Raises:
        Refused: it can't be opened.
    """
    if file == "-":
        yield sys.stdin.buffer
        return
    with contextlib.ExitStack() as stack:
        try:
            stream = stack.enter_context(Path(file).open("rb"))
        except OSError as error:
            raise Refused(f"{file}: {error.strerror or error}") from error
        yield stream


def numbered(stream: BinaryIO) -> Iterator[tuple[int, bytes | None, int]]:
    """Number, bytes and length of each line; None for the bytes of one that is too long."""
    number = 0
    while text := stream.readline(LONGEST_LINE):
        number += 1
        size = len(text)
        if size == LONGEST_LINE and not text.endswith(b"\n"):
            while rest := stream.readline(LONGEST_LINE):
                size += len(rest)
                if rest.endswith(b"\n"):
                    break
            yield number, None, size
        else:
            yield number, text, size
