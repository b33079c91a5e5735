"""Envelopes: how type, actor and source are read from documents of different make.

An activity has one or more types and actors. Some documents say both, some one of them, some
none; what a document doesn't say, its ingest says beside it (``append(document, type=,
actor=, source=)``). The document itself is left as it came.

================  ============================  ============================  =============
envelope          type                          actor                         source
================  ============================  ============================  =============
activitystreams   ``type``                      ``actor``, or its ``id``      given, if any
cloudevents       ``type``                      ``source``                    ``source``
atproto           ``$type``                     given: the repository's DID   given, if any
plain             given                         given                         given, if any
================  ============================  ============================  =============

Which one it is, the ingest says too: a document that chose for itself how it is read could
pass a check of one kind as another kind. Without ``envelope=`` it is ``plain`` where type or
actor are given, else ``activitystreams``. Plugins register more with ``app.register``.

**The CID.** A document that says type and actor itself has the document's own CID: two services
that never met give it one. Where type or actor came from beside it, they are part of the fact:
two people's equal ``{"like": true}`` are two activities. So the CID is that of the list
``[types, actors, source, document]`` (source null where nobody gave one), again the same for
all who say the same. No document that says type and actor itself is a list, so the two kinds
can't be mistaken for one another.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, Final

import attrs

from triggerflow.core.activity import Activity, read_actors, read_types
from triggerflow.core.cid import cid_of_block
from triggerflow.core.codec import Limits, decode_document, encode_document, normalise
from triggerflow.errors import ActivityRejected, DefinitionError

Names = str | list[str] | tuple[str, ...] | None

_DID: Final = re.compile(r"did:[a-z0-9]+:[A-Za-z0-9._:%-]*[A-Za-z0-9._-]")
_NAMES: Final = "a non-empty string or a list of those"


@attrs.frozen
class Head:
    """What is read from a document, or given beside it; None where nobody said it."""

    type: Names = None
    actor: Names = None
    source: str | None = None


@attrs.frozen
class Envelope:
    """A way to read documents.

    Attributes:
        name: what ``append(envelope=)`` calls it.
        read: from the document, what it says of itself. It raises `ActivityRejected`, or
            anything, for a document that isn't of this make.
        actor_problem: why an actor that was given beside the document can't be one, or None.
    """

    name: str
    read: Callable[[Any], Head]
    actor_problem: Callable[[str], str | None] | None = None


@attrs.frozen
class Incoming:
    """A document on its way in, with what its ingest says of it.

    Attributes:
        document: as it came, decoded.
        type, actor: what the document doesn't say itself: a text, or several.
        source: where it came from.
        envelope: how the document is read.
        namespace: whose it is: only triggers of this namespace meet it.
        received: the bytes that came, as signatures cover them; their SHA-256 is kept.
    """

    document: Any
    type: Names = None
    actor: Names = None
    source: str | None = None
    envelope: str | None = None
    namespace: str = ""
    received: bytes | None = None


def _activitystreams(document: Any) -> Head:
    return Head(read_types(document), read_actors(document))


def _cloudevents(document: Any) -> Head:
    _object(document, "a CloudEvent")
    version = document.get("specversion")
    if version != "1.0":
        found = "missing" if "specversion" not in document else f"{version!r:.40}"
        raise ActivityRejected("activity.specversion", found, "'1.0'")
    texts = {}
    for name in ("id", "source", "type"):
        texts[name] = document.get(name)
        if not isinstance(texts[name], str) or not texts[name]:
            found = "missing" if name not in document else "no such text"
            raise ActivityRejected(f"activity.{name}", found, "a non-empty string")
    return Head(texts["type"], texts["source"], texts["source"])


def _atproto(document: Any) -> Head:
    _object(document, "an AT Protocol record")
    kind = document.get("$type")
    if not isinstance(kind, str) or not kind:
        found = "missing" if "$type" not in document else "no such text"
        raise ActivityRejected("activity.$type", found, "a non-empty string, the record's type")
    return Head(type=kind)


def _did_problem(actor: str) -> str | None:
    return None if _DID.fullmatch(actor) else "is no DID: give the repository's"


def _object(document: Any, expected: str) -> None:
    if not isinstance(document, dict):
        raise ActivityRejected("activity", f"a {type(document).__name__}", expected)


ACTIVITYSTREAMS: Final = Envelope("activitystreams", _activitystreams)
PLAIN: Final = Envelope("plain", lambda _: Head())
ENVELOPES: Final = {
    each.name: each
    for each in (
        ACTIVITYSTREAMS,
        Envelope("cloudevents", _cloudevents),
        Envelope("atproto", _atproto, _did_problem),
        PLAIN,
    )
}


def envelope_of(incoming: Incoming, envelopes: dict[str, Envelope]) -> Envelope:
    """The way in which a document is read.

    Raises:
        DefinitionError: nobody registered an envelope of this name.
    """
    if incoming.envelope is None:
        beside = incoming.type is not None or incoming.actor is not None
        return PLAIN if beside else ACTIVITYSTREAMS
    found = envelopes.get(incoming.envelope)
    if found is None:
        raise DefinitionError(
            f"envelope {incoming.envelope!r:.80}",
            "nobody registered it",
            f"known: {', '.join(envelopes)}",
        )
    return found


def read_incoming(
    incoming: Incoming,
    *,
    limits: Limits,
    envelopes: dict[str, Envelope] = ENVELOPES,
    depth: int = 0,
) -> tuple[Activity, bytes]:
    """The activity that a document is, and the document's bytes.

    Raises:
        ActivityRejected: type or actor can't be read, or are missing.
        EncodingRefused: the document is outside the model or the limits.
        DefinitionError: its envelope is unknown.
    """
    envelope = envelope_of(incoming, envelopes)
    model = normalise(incoming.document, limits=limits)
    block = encode_document(model, limits=limits)
    head = _read(envelope, model, block)
    types = _either("type", head.type, incoming.type, envelope)
    actors = _either("actor", head.actor, incoming.actor, envelope)
    if head.actor is None and envelope.actor_problem is not None:
        for actor in actors:
            problem = envelope.actor_problem(actor)
            if problem is not None:
                raise ActivityRejected(
                    f"actor {actor!r:.80}", "unfit", f"another one: it {problem}", envelope.name
                )
    source = _source(head.source if incoming.source is None else incoming.source)
    if head.type is None or head.actor is None:
        cid = cid_of_block(
            b"\x84"
            + encode_document(list(types))
            + encode_document(list(actors))
            + encode_document(source)
            + block
        )
    else:
        cid = cid_of_block(block)
    return Activity(cid, model, types, actors, source, incoming.namespace, depth), block


def activity_cid(
    document: Any,
    *,
    type: Names = None,
    actor: Names = None,
    source: str | None = None,
    envelope: str | None = None,
) -> str:
    """The CID that ``append`` gives a document with these words; nothing is stored.

    Raises:
        ActivityRejected, EncodingRefused: it would be refused.
    """
    incoming = Incoming(document, type, actor, source, envelope)
    return read_incoming(incoming, limits=Limits())[0].cid


def _read(envelope: Envelope, model: Any, block: bytes) -> Head:
    if envelope is ENVELOPES.get(envelope.name):
        return envelope.read(model)
    try:
        # A document of its own: what a plugin does to it must not be what is stored.
        found = envelope.read(decode_document(block))
    except ActivityRejected:
        raise
    except Exception as error:
        raise ActivityRejected(
            "activity", f"{type(error).__name__}: {error}", "what it can read", envelope.name
        ) from error
    if not isinstance(found, Head):
        raise DefinitionError(
            f"envelope {envelope.name!r}", f"read returned {found!r:.80}, expected a Head"
        )
    return found


def _either(field: str, read: Names, given: Names, envelope: Envelope) -> tuple[str, ...]:
    """Names, from the document or from beside it; they come from one place only."""
    if read is not None and given is not None:
        raise ActivityRejected(
            f"activity.{field}",
            f"given beside a document that says it itself ({envelope.name})",
            "one place",
        )
    value = read if given is None else given
    if value is None:
        raise ActivityRejected(
            f"activity.{field}",
            f"missing beside the document, which doesn't say it ({envelope.name})",
            _NAMES,
        )
    names = [value] if isinstance(value, str) else value
    if not isinstance(names, list | tuple) or not names:
        raise ActivityRejected(f"activity.{field}", f"{value!r:.80}", _NAMES)
    for name in names:
        if not isinstance(name, str) or not name:
            raise ActivityRejected(f"activity.{field}", f"{name!r:.80}", _NAMES)
    return tuple(dict.fromkeys(names))


def _source(source: object) -> str | None:
    if source is None or (isinstance(source, str) and source):
        return source
    raise ActivityRejected("activity.source", f"{source!r:.80}", "a non-empty string")
