"""Envelopes: who says type and actor, what is refused, and what the CID covers."""

from __future__ import annotations

import hashlib
from typing import Any

import pytest

import triggerflow as tf
from triggerflow.core.codec import Limits, cid_of, encode_document
from triggerflow.core.envelopes import ENVELOPES, Envelope, Head, Incoming, read_incoming
from triggerflow.errors import ActivityRejected, DefinitionError, EncodingRefused

EVENT = {
    "specversion": "1.0",
    "id": "e1",
    "source": "https://shop.example/orders",
    "type": "com.example.order.paid",
    "data": {"total": 3.0},
}
LIKE = {"$type": "app.bsky.feed.like", "createdAt": "2026-01-01T00:00:00Z"}
DID = "did:plc:ewvi7nxzyoun6zhxrhs64oiz"


def read(document: Any, envelopes: Any = ENVELOPES, **beside: Any) -> tf.Activity:
    return read_incoming(Incoming(document, **beside), limits=Limits(), envelopes=envelopes)[0]


def test_cloud_events() -> None:
    """Type and source are the document's own, and so is the CID."""
    found = read(EVENT, envelope="cloudevents")
    assert found.types == ("com.example.order.paid",)
    assert found.actors == ("https://shop.example/orders",)
    assert found.source == "https://shop.example/orders"
    assert found.cid == cid_of(EVENT)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"specversion": "0.3"}, "activity.specversion is '0.3'"),
        ({"specversion": ...}, "activity.specversion is missing"),
        ({"id": ""}, "activity.id is no such text"),
        ({"source": ...}, "activity.source is missing"),
        ({"type": 7}, "activity.type is no such text"),
    ],
)
def test_what_is_no_cloud_event(change: dict[str, Any], words: str) -> None:
    """The four attributes that CloudEvents 1.0 requires are required."""
    document = {k: v for k, v in {**EVENT, **change}.items() if v is not ...}
    with pytest.raises(ActivityRejected) as caught:
        read(document, envelope="cloudevents")
    assert words in str(caught.value)


def test_at_protocol_records() -> None:
    """The type is the record's, the actor its repository; two of them, two activities."""
    found = read(LIKE, envelope="atproto", actor=DID)
    assert (found.types, found.actors) == (("app.bsky.feed.like",), (DID,))
    assert found.document == LIKE
    other = read(LIKE, envelope="atproto", actor="did:web:a.example")
    assert len({found.cid, other.cid, cid_of(LIKE)}) == 3
    for bad in ("ann.example", "https://a.example", "did:plc:"):
        with pytest.raises(ActivityRejected, match="is no DID"):
            read(LIKE, envelope="atproto", actor=bad)
    with pytest.raises(ActivityRejected, match=r"activity\.actor is missing beside"):
        read(LIKE, envelope="atproto")
    with pytest.raises(ActivityRejected, match=r"activity.\$type is missing"):
        read({}, envelope="atproto", actor=DID)


def test_the_cid_of_what_came_with_words() -> None:
    """It is that of a list of four, which anybody can compute."""
    found = read({"n": 1.0}, type="push", actor=["ann", "ann"], source="hooks")
    wanted = [["push"], ["ann"], "hooks", {"n": 1}]
    assert found.cid == cid_of(wanted)
    assert found.cid == tf.activity_cid({"n": 1}, type=["push"], actor="ann", source="hooks")
    block = encode_document(wanted)
    assert block[:1] == b"\x84"
    assert hashlib.sha256(block).digest() in _binary(found.cid)


def _binary(cid: str) -> bytes:
    import base64

    return base64.b32decode(cid[1:].upper() + "=" * (-len(cid[1:]) % 8))


@pytest.mark.parametrize(
    "changes",
    [
        {"type": "pull"},
        {"actor": "ben"},
        {"source": "other"},
        {"source": None},
        {"type": ["push", "x"]},
    ],
)
def test_what_was_said_beside_is_part_of_the_fact(changes: dict[str, Any]) -> None:
    """Another type, actor or source of one body is another activity."""
    words: dict[str, Any] = {"type": "push", "actor": "ann", "source": "hooks"}
    assert read({}, **words).cid != read({}, **{**words, **changes}).cid


def test_a_source_does_not_move_the_cid_of_a_document_that_says_all() -> None:
    """Two services that never met give one document one CID, whatever source they name."""
    document = {"type": "Follow", "actor": "ann"}
    assert read(document, source="inbox").cid == read(document).cid == cid_of(document)


def test_a_document_can_not_pose_as_words_beside_another() -> None:
    """No document that says all itself is a list, so no CID can be taken in advance."""
    with pytest.raises(ActivityRejected, match="activity is a list"):
        read([["push"], ["ann"], None, {}])


@pytest.mark.parametrize(
    ("document", "words", "said"),
    [
        ({"type": "T", "actor": "a"}, {"type": "U"}, "activity.actor is missing beside"),
        ({"type": "T"}, {"actor": "a"}, "activity.type is missing beside"),
        (
            {"type": "T", "actor": "a"},
            {"envelope": "activitystreams", "actor": "b"},
            "one place",
        ),
        (EVENT, {"envelope": "cloudevents", "type": "x"}, "one place"),
        ({}, {"type": "", "actor": "a"}, "activity.type is ''"),
        ({}, {"type": [], "actor": "a"}, "activity.type is []"),
        ({}, {"type": ["a", 7], "actor": "a"}, "activity.type is 7"),
        ({}, {"type": {"a"}, "actor": "a"}, "activity.type is {'a'}"),
        ({}, {"type": "t", "actor": "a", "source": ""}, "activity.source is ''"),
    ],
)
def test_words_that_are_refused(document: Any, words: dict[str, Any], said: str) -> None:
    """Names come from one place, and are texts."""
    with pytest.raises(ActivityRejected) as caught:
        read(document, **words)
    assert said in str(caught.value)


def test_an_unknown_envelope_is_told_with_those_that_are_known() -> None:
    """A misspelt envelope is the caller's mistake."""
    with pytest.raises(DefinitionError, match="known: activitystreams, cloudevents"):
        read({}, envelope="cloudevent")


def test_a_plugins_envelope() -> None:
    """It reads a copy, and what it raises is a refusal."""

    def mail(document: Any) -> Head:
        sender = document.pop("from")
        return Head("mail", sender)

    envelopes = {**ENVELOPES, "mail": Envelope("mail", mail)}
    found = read({"from": "ann", "text": "hi"}, envelopes, envelope="mail")
    assert found.document == {"from": "ann", "text": "hi"}
    assert (found.types, found.actors) == (("mail",), ("ann",))
    assert found.cid == cid_of({"from": "ann", "text": "hi"})
    with pytest.raises(ActivityRejected, match=r"rejected by mail: .*KeyError"):
        read({"text": "hi"}, envelopes, envelope="mail")
    with pytest.raises(DefinitionError, match="expected a Head"):
        read({}, {**ENVELOPES, "x": Envelope("x", lambda _: None)}, envelope="x")


def test_a_document_outside_the_model_is_refused_before_it_is_read() -> None:
    """Size, depth and types are checked first, whatever the envelope."""
    deep: Any = 1
    for _ in range(10_000):
        deep = [deep]
    for bad in (deep, {"x": "y" * 2_000_000}, {"s": {1, 2}}, {1: 2}):
        with pytest.raises(EncodingRefused):
            read(bad, type="t", actor="a")
