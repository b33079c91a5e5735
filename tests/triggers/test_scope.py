"""Scopes: what an actor glob admits, and the ways round it that must stay shut."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from triggerflow.errors import DefinitionError
from triggerflow.triggers import compile_scope

G = "https://*.example/*"
PIN = "https://a.example/users/*"


@pytest.mark.parametrize(
    ("glob", "actor"),
    [
        (G, "https://a.example/ann"),
        (G, "https://a.example/"),
        (G, "https://a.example"),
        (G, "https://a.b.example/ann"),
        (G, "HTTPS://A.Example/Ann"),
        (G, "https://a.example:443/ann"),
        (G, "https://a-b.example/ann"),
        (G, "https://xn--mnchen-3ya.example/ann"),
        (G, "https://a.example/@ann"),
        (G, "https://a.example/ann:1"),
        (G, "https://a.example/a%20b"),
        (G, "https://a.example/jürgen"),
        ("HTTPS://*.EXAMPLE/*", "https://a.example/ann"),
        ("https://a.example:443/*", "https://a.example/ann"),
        ("http://a.example/*", "http://a.example:80/ann"),
        ("https://a.example:8443/*", "https://a.example:8443/ann"),
        ("https://a.example", "https://a.example/"),
        ("https://a.example/", "https://a.example"),
        ("https://*/*", "https://anything.org/ann"),
        ("https://*/*", "https://10.0.0.1/ann"),
        (PIN, "https://a.example/users/ann"),
        (PIN, "https://a.example/users/"),
        ("https://a.example/*/ann", "https://a.example/users/ann"),
        ("https://a.example/@*", "https://a.example/@ann"),
        ("https://a.example/u-*-x*z", "https://a.example/u-1-2-xyz"),
        ("https://a.example/a*a", "https://a.example/aa"),
        ("https://a.example/?author=*", "https://a.example/?author=7"),
        ("https://a.example/*#me", "https://a.example/ann#me"),
        ("https://a.example/a%2Fb", "https://a.example/a%2Fb"),
        ("https://[2001:db8::1]/*", "https://[2001:DB8::1]/ann"),
        ("https://[::1]:8443/*", "https://[::1]:8443/ann"),
        ("acct:*@a.example", "acct:ann@a.example"),
        ("acct:*@a.example", "ACCT:ann@a.example"),
        ("did:plc:*", "did:plc:abc"),
        ("did:web:a.example:users:*", "did:web:a.example:users:ann"),
        ("did:web:localhost%3A8443", "did:web:localhost%3A8443"),
        ("urn:uuid:*", "urn:uuid:f81d4fae-7dec-11d0-a765-00a0c91e6bf6"),
        ("octocat", "octocat"),
        ("user-*", "user-7"),
    ],
)
def test_in_scope(glob: str, actor: str) -> None:
    """A glob admits what it plainly says."""
    assert compile_scope([glob])([actor])


@pytest.mark.parametrize(
    ("glob", "actor"),
    [
        # another host that only looks right
        (G, "https://evil.com/x.example/y"),
        (G, "https://evil.com/.example/y"),
        (G, "https://a.example.evil.com/x"),
        (G, "https://evilexample/x"),
        (G, "https://example/x"),
        (G, "https://.example/x"),
        (G, "https://a..example/x"),
        (G, "https://a.example./x"),
        (G, "https://evil.com?.example/x"),
        (G, "https://evil.com#.example/x"),
        (G, "https://evil.com\\.example/x"),
        (G, "https://evil.com%2F.example/x"),
        (G, "https://evil.com%23.example/x"),
        (G, "https://evil.com;.example/x"),
        (G, "https://evil.com,a.example/x"),
        (G, "https://evil.com&.example/x"),
        (G, "https://evil.com\uff0f.example/x"),
        (G, "https://evil.com\u3002example/x"),
        (G, "https://аpple.example/x"),  # noqa: RUF001 - a Cyrillic letter, the attack itself
        (G, "https://-a.example/x"),
        ("https://a.example/*", "https://b.a.example/x"),
        ("https://a.example/*", "https://a_example/x"),
        ("https://a.example/*", "https://aXexample/x"),
        # userinfo
        (G, "https://user@a.example/x"),
        (G, "https://a.example@evil.com/x"),
        (G, "https://a.example:443@evil.com/x"),
        (G, "https://@a.example/x"),
        (G, "https://a.example/@evil.com/x"),
        (G, "https://evil.com\\@a.example/x"),
        # port
        (G, "https://a.example:8443/x"),
        (G, "https://a.example:80/x"),
        (G, "https://a.example:/x"),
        (G, "https://a.example:0443/x"),
        (G, "https://a.example:99999/x"),
        (G, "https://a.example:x/x"),
        (G, "https://a.example:٤٤٣/x"),
        ("https://a.example:8443/*", "https://a.example/x"),
        # scheme
        (G, "http://a.example/x"),
        (G, "ftp://a.example/x"),
        (G, "javascript://a.example/x"),
        (G, "//a.example/x"),
        (G, "a.example/x"),
        (G, "https:/a.example/x"),
        (G, "https:a.example/x"),
        (G, "https:///a.example/x"),
        (G, "xhttps://a.example/x"),
        (G, "https://https://a.example/x"),
        # path
        (G, "https://a.example/a/b"),
        (G, "https://a.example/ann/"),
        (G, "https://a.example//ann"),
        (G, "https://a.example/a%2fb"),
        (G, "https://a.example/a%2Fb"),
        (G, "https://a.example/a\\b"),
        (G, "https://a.example/a%5Cb"),
        (G, "https://a.example/.."),
        (G, "https://a.example/%2e%2E"),
        (G, "https://a.example/."),
        (G, "https://a.example/%00"),
        (G, "https://a.example/%0a"),
        (G, "https://a.example/%zz"),
        (G, "https://a.example/100%"),
        (PIN, "https://a.example/Users/ann"),
        (PIN, "https://a.example/users"),
        (PIN, "https://a.example/users/../admin"),
        (PIN, "https://a.example/users/..%2fadmin"),
        (PIN, "https://a.example/x/users/ann"),
        ("https://a.example/users/*/outbox", "https://a.example/users/../outbox"),
        ("https://a.example/users/*/outbox", "https://a.example/users//outbox"),
        ("https://a.example/%41nn", "https://a.example/Ann"),
        ("https://a.example/a*a", "https://a.example/a"),
        ("https://a.example/*b*c", "https://a.example/cb"),
        # query and fragment
        (G, "https://a.example/x?y"),
        (G, "https://a.example/x#y"),
        (G, "https://a.example/x?"),
        (G, "https://a.example/x#"),
        (G, "https://a.example?x"),
        ("https://a.example/?author=*", "https://a.example/?author=7&admin=1"),
        ("https://a.example/?author=*", "https://a.example/?author=7/8"),
        ("https://a.example/?author=*", "https://a.example/"),
        ("https://a.example/*#me", "https://a.example/ann"),
        # whitespace and what nobody sees
        (G, " https://a.example/x"),
        (G, "https://a.example/x "),
        (G, "https://a.example/x\n"),
        (G, "https://a.exam\nple/x"),
        (G, "ht\ttps://a.example/x"),
        (G, "https://a.example/x\x00"),
        (G, "https://a.example/\u202ex"),
        (G, "https://a\u200b.example/x"),
        (G, "https://a.example/\ud800"),
        (G, "https://a.example/\xa0"),
        # addresses
        ("https://*/*", "https://[::1]/x"),
        ("https://[::1]/*", "https://[::2]/x"),
        ("https://[::1]/*", "https://[::1%25eth0]/x"),
        ("https://[::1]/*", "https://[::1/x"),
        ("https://[::1]/*", "https://::1/x"),
        ("https://[::1]/*", "https://[::1].evil.com/x"),
        # not URLs
        (G, ""),
        (G, "*"),
        (G, "acct:ann@a.example"),
        ("acct:*@a.example", "acct:ann@evil.com"),
        ("acct:*@a.example", "acct:ann@evil.com:@a.example"),
        ("acct:*@a.example", "acct:ann@evil.com@a.example"),
        ("acct:*@a.example", "acct:ann@evil.com/@a.example"),
        ("acct:*@a.example", "acct:ann%40evil.com@a.example"),
        ("acct:*@a.example", "acct://ann@a.example"),
        ("acct:*@a.example", "ann@a.example"),
        ("acct:*@a.example", "acct:ann@a.example.evil.com"),
        ("acct:*@a.example", "acct:ann@A.example"),
        ("did:plc:*", "did:plc:abc:def"),
        ("did:plc:*", "did:plc:abc/def"),
        ("did:plc:*", "did:plc:abc#key"),
        ("did:plc:*", "did:web:abc"),
        ("did:web:*", "did:web:a.example%3A8443"),
        ("user-*", "user-7:x"),
        ("user-*", "user-7/x"),
        ("user-*", "acct:user-7"),
        ("octocat", "Octocat"),
        ("octocat", "octocat2"),
    ],
)
def test_out_of_scope(glob: str, actor: str) -> None:
    """Whatever could be read in two ways, or only looks like the glob, stays outside."""
    assert not compile_scope([glob])([actor])


def test_every_actor_must_be_in_scope() -> None:
    """With several actors all must pass, each by any glob; without actors none does."""
    scope = compile_scope(["https://a.example/*", "acct:*@b.example"])
    assert scope(["https://a.example/x"])
    assert scope(("https://a.example/x", "acct:ann@b.example"))
    assert not scope(["https://a.example/x", "https://b.example/x"])
    assert not scope(["https://b.example/x", "https://a.example/x"])
    assert not scope([])


@pytest.mark.parametrize(
    ("glob", "problem"),
    [
        ("", "empty"),
        ("*", "plain names only"),
        ("**", "`**`"),
        ("https://a.example/**", "`**`"),
        ("https://**.example/*", "`**`"),
        ("*://a.example/*", "scheme"),
        ("a.example/*", "no scheme"),
        ("//a.example/*", "no scheme"),
        ("https:a.example", "must be followed by `//`"),
        ("https:/a.example/*", "must be followed by `//`"),
        ("https:///*", "host is malformed"),
        ("https://*example/*", "only as the first label"),
        ("https://a*.example/*", "only as the first label"),
        ("https://a.*.example/*", "only as the first label"),
        ("https://example.*/*", "only as the first label"),
        ("https://*.*/*", "only as the first label"),
        ("https://a.example./*", "host is malformed"),
        ("https://.example/*", "host is malformed"),
        ("https://münchen.example/*", "host is malformed"),
        ("https://a.example:*/*", "port is malformed"),
        ("https://a.example:/*", "port is malformed"),
        ("https://a.example:0/*", "port is malformed"),
        ("https://a.example:65536/*", "port is malformed"),
        ("https://[::1/*", "host is malformed"),
        ("https://*@a.example/*", "userinfo"),
        ("https://ann:pw@a.example/*", "userinfo"),
        ("https://a.example//x", "empty segment"),
        ("https://a.example/../x", "dot segment"),
        ("https://a.example/x?", "query or fragment is empty"),
        ("https://a.example/x#", "query or fragment is empty"),
        ("https://a.example/%zz", "percent-escape"),
        ("https://a.example/[ab]*", "brackets"),
        ("https://a.example/{ann,bob}", "brackets"),
        ("https://a.example/ *", "spaces"),
        ("https://a.example\\*", "backslash"),
        ("acct:", "nothing follows"),
        (7, "found int"),
        (None, "found NoneType"),
    ],
)
def test_bad_globs_are_refused(glob: object, problem: str) -> None:
    """A glob that can't match, or means other than it seems, is refused and quoted."""
    with pytest.raises(DefinitionError) as caught:
        compile_scope(["https://ok.example/*", glob])
    assert problem in caught.value.problem
    if isinstance(glob, str):
        assert repr(glob) in caught.value.what


@pytest.mark.parametrize("actors", [None, 7, [], (), {"https://a.example/*"}])
def test_bad_lists_are_refused(actors: object) -> None:
    """A scope is one glob or a non-empty list: an empty one would shut everybody out."""
    with pytest.raises(DefinitionError, match="actors"):
        compile_scope(actors)


def test_normal_form() -> None:
    """Globs of one meaning have one source, which compiles to itself."""
    scope = compile_scope(
        [
            "HTTPS://A.example:443",
            "https://a.example/",
            "acct:Ann@b",
            "https://b.example:99/*?x#y",
        ]
    )
    assert scope.source == ("acct:Ann@b", "https://a.example/", "https://b.example:99/*?x#y")
    assert compile_scope(list(scope.source)) == scope
    assert compile_scope("https://a.example") == compile_scope(["https://a.example/"])


@given(st.text() | st.text(alphabet="htps:/.*@a#?%2f[]\\ "))
def test_no_text_crashes(text: str) -> None:
    """Any text is a glob or refused, and any text is an actor in scope or out of it."""
    assert compile_scope(G)([text]) in (True, False)
    assert not compile_scope(PIN)(["https://evil.com/" + text])
    try:
        scope = compile_scope([text])
    except DefinitionError as refused:
        assert str(refused)
    else:
        assert compile_scope(list(scope.source)) == scope
        if "*" not in text:
            assert scope([text])


@given(st.text(alphabet="ab/:@.?#%2f", max_size=12))
def test_a_star_admits_one_segment_only(text: str) -> None:
    """Whatever stands for the star in a path, what is admitted has no further slash."""
    if compile_scope("https://a.example/u/*")([f"https://a.example/u/{text}"]):
        assert not set("/?#") & set(text)
        assert "%2f" not in text.lower()


def test_matching_is_linear() -> None:
    """Many stars against a long id that almost fits cost no backtracking."""
    scope = compile_scope("https://a.example/" + "a*" * 200 + "b")
    start = time.perf_counter()
    assert not scope(["https://a.example/" + "a" * 1_000_000])
    assert time.perf_counter() - start < 2
