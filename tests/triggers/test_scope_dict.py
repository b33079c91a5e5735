"""Scopes as dicts: who is kept out, who is the owner; and the tricks that ids play."""

from __future__ import annotations

from typing import Any

import pytest

from triggerflow.errors import DefinitionError
from triggerflow.triggers import compile_scope
from triggerflow.triggers.scope import owner_ids

OUT = compile_scope(
    {"not_in": ["https://evil.com/*", "did:web:evil.com:*", "acct:bad@a.example"]}
)


@pytest.mark.parametrize(
    "actor",
    [
        "https://evil.com/ann",
        "https://EVIL.com/ann",
        "https://evil.com:443/ann",
        "https://evil.com",
        "https://evil.com/a/b/c",
        "https://evil.com/a%2Fb",
        "https://evil.com/ann?x=1",
        "https://evil.com/ann#me",
        "https://evil.com/%61nn",
        "https://evil%2Ecom/ann",
        "https://evil.com/../ann",
        "https://evil.com\\@a.example/ann",
        "https://ann@evil.com/ann",
        "https://evil.com./ann",
        "did:web:evil.com:ann",
        "did:web:evil.com:a:b",
        "acct:bad@a.example",
        "acct:b%61d@a.example",
        "",
        " https://a.example/ann",
        "https://a.example/\u200bann",
    ],
)
def test_no_spelling_gets_past_not_in(actor: str) -> None:
    """Deeper paths, queries, needless escapes and ids that read two ways are kept out."""
    assert not OUT([actor])
    assert OUT.objection(actor) is not None


@pytest.mark.parametrize(
    "actor",
    ["https://a.example/evil.com/x", "https://notevil.com/ann", "ann", "did:web:evil.com"],
)
def test_others_are_not_kept_out(actor: str) -> None:
    """Only what a glob means is kept out."""
    assert OUT([actor])


def test_all_in_and_none_out() -> None:
    """With several actors all must be in scope, and none may be kept out."""
    scope = compile_scope({"in": "https://*.example/*", "not_in": ["https://b.example/*"]})
    ann, ben = "https://a.example/ann", "https://b.example/ben"
    assert scope([ann])
    assert not scope([ann, ben])
    assert not scope([ann, "https://evil.com/x.example/y"])
    assert not scope([])


def test_the_owner() -> None:
    """Whole ids; several actors must all be the owner; an unbound scope admits nobody."""
    unbound = compile_scope({"same_as_owner": True})
    me, you = "https://a.example/me", "https://a.example/you"
    assert not unbound([me])
    owned = unbound.owned_by(owner_ids([me, you], "App(owner=)"), "trigger")
    assert owned([me])
    assert owned([you, me])
    assert not owned([me, "https://a.example/other"])
    assert not owned(["https://a.example/me/"])
    assert owned.source == {"same_as_owner": [me, you]}
    assert compile_scope(owned.source) == owned


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({}, "the dict is empty"),
        ({"same_as_owner": False}, "the dict is empty"),
        ({"in": []}, "the list is empty"),
        ({"not_in": "*"}, "plain names only"),
        ({"inn": ["a"]}, "unknown fields: inn"),
        ({"in": 7}, "expected a list of globs"),
        ({"same_as_owner": ["https://*.example/me"]}, "is a glob"),
        ({"same_as_owner": 1}, "expected a list of globs"),
    ],
)
def test_refused_dicts(given: Any, words: str) -> None:
    """What means nothing, or not what it seems, is refused."""
    with pytest.raises(DefinitionError) as caught:
        compile_scope(given)
    assert words in str(caught.value)


def test_one_meaning_has_one_form() -> None:
    """A dict with `in` alone is the list; order and spelling don't count."""
    assert compile_scope({"in": ["b", "a"]}).source == ("a", "b")
    assert compile_scope({"in": ["b", "a"]}) == compile_scope(["a", "b"])
    one = compile_scope({"not_in": ["https://a.example/%61", "https://A.example/b"]})
    assert one.source == {"not_in": ["https://a.example/a", "https://a.example/b"]}
