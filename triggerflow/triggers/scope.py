"""Actor scopes: which actors a trigger listens to, as globs over their ids.

A scope is a fence, so every doubt counts against the actor: an id that browsers, proxies and
servers could read in two ways is outside every scope. ``https://*.example/*`` is never one
regular expression; a glob is cut into the same parts as the actor's id, and part meets part.

========  ================================================================================
scheme    literal, any case. A glob without a scheme never matches an id with one.
userinfo  never: neither in a glob nor in an actor that is to be in scope
host      literal, any case, ASCII. A ``*`` may be the whole host (any name or address) or its
          first label, where it stands for one label or more: whoever has ``example`` has
          ``a.b.example``. Elsewhere in the host it is refused: ``*example`` lets
          ``evilexample`` in, ``example.*`` lets ``example.evil.com`` in. A trailing dot
          and an empty label are outside. An IPv6 address matches only itself.
port      literal; the default port of http and https is the same as none
path      ``*`` stands for any text, or none, within one segment: it crosses no ``/``, written
          out or as ``%2F``. Case counts, percent-encoding is compared as written. No path
          is ``/``. A ``//``, a dot segment (``..``, ``%2e%2e``) or a backslash is outside.
query,    matched apart from the path. A glob without a query or a fragment matches no actor
fragment  that has one: ``https://a.example/ann?x`` may well be another document.
========  ================================================================================

Ids that are not URLs (``acct:ann@a.example``, ``did:plc:abc``, ``urn:uuid:...``, a plain
``ann``) are literal text, case counting but for the scheme. ``*`` crosses none of ``/ : @ ? #``
nor their percent-encoded forms: each of them ends a part of such a name (``acct:*@a.example``
must not take ``acct:ann@evil.com:@a.example``; ``did:web:a.example:*`` takes one level).

``**`` is refused: nothing crosses a ``/``. Only ``*`` is special; brackets and braces are
refused, since they would silently be literal. A glob that no actor can match is refused.
With several actors ALL must be in scope; without any none is. Matching is linear in the id's
length: no regular expression sees both the glob and the id, so there is no backtracking.

An actor is a claim until an ingest plugin has verified it: a scope does not prove identity.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import attrs

from triggerflow.errors import DefinitionError

if TYPE_CHECKING:
    from collections.abc import Iterable

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*):")
_LABEL = r"[a-z0-9_](?:[a-z0-9_-]*[a-z0-9_])?"
_NAME = re.compile(rf"{_LABEL}(?:\.{_LABEL})*")
_GLOB_NAME = re.compile(rf"\*|(?:\*\.)?{_LABEL}(?:\.{_LABEL})*")
_IPV6 = re.compile(r"\[[0-9a-f:.]+\]")
_AUTHORITY = re.compile(r"(?P<host>\[[^\]]*\]|[^\[\]:]*)(?::(?P<port>[1-9][0-9]{0,4}))?")
# A malformed escape, or an escaped control character: no two readers agree on these.
_BAD_ESCAPE = re.compile(r"%(?![0-9A-Fa-f]{2})|%[01][0-9A-Fa-f]|%7[Ff]|%5[Cc]")
_ESCAPED_DOT = re.compile(r"%2[Ee]")

# What a `*` does not cross, captured so that splitting keeps it as a token of its own.
_PATH_ENDS = re.compile(r"(/|%2[Ff])")
_QUERY_ENDS = re.compile(r"([/&?]|%2[Ff]|%26|%3[Ff])")
_TEXT_ENDS = re.compile(r"([/:@?#]|%2[Ff]|%3[Aa]|%40|%3[Ff]|%23)")

_DEFAULT_PORTS = {"http": "80", "https": "443"}
_MAX_PORT = 65535


class _Unfit(Exception):
    """The text names no actor unambiguously; the argument says why."""


@attrs.frozen
class _Id:
    """An actor's id, or a glob, cut into the parts that are matched apart."""

    scheme: str
    host: str | None  # None: not a URL
    port: str
    path: tuple[str, ...]  # tokens, with what ends them in between
    query: tuple[str, ...] | None
    fragment: tuple[str, ...] | None

    def text(self) -> str:
        """Return the normal form: two globs of one meaning have one."""
        head = f"{self.scheme}:" if self.scheme else ""
        if self.host is not None:
            head += f"//{self.host}" + (f":{self.port}" if self.port else "")
        tail = "" if self.query is None else "?" + "".join(self.query)
        tail += "" if self.fragment is None else "#" + "".join(self.fragment)
        return head + "".join(self.path) + tail

    def takes(self, actor: _Id) -> bool:
        """Tell whether this glob matches the actor."""
        return (
            self.scheme == actor.scheme
            and self.port == actor.port
            and _host_fits(self.host, actor.host)
            and _tokens_fit(self.path, actor.path)
            and _tokens_fit(self.query, actor.query)
            and _tokens_fit(self.fragment, actor.fragment)
        )


@attrs.frozen
class Scope:
    """The actors that a trigger listens to: call it with an activity's actors.

    Attributes:
        source: the globs in normal form, sorted; `compile_scope` takes them back.
    """

    source: tuple[str, ...]
    _globs: tuple[_Id, ...] = attrs.field(eq=False, repr=False)

    def __call__(self, actors: Iterable[str]) -> bool:
        """Tell whether every one of the actors is in scope. False when there is none."""
        seen = False
        for actor in actors:
            seen = True
            if not self._admits(actor):
                return False
        return seen

    def _admits(self, actor: str) -> bool:
        try:
            parts = _cut(actor, glob=False)
        except _Unfit:
            return False
        return any(glob.takes(parts) for glob in self._globs)


def compile_scope(actors: object) -> Scope:
    """Compile the globs of an ``actors=`` scope.

    Args:
        actors: one glob, or a non-empty list of them.

    Raises:
        DefinitionError: a glob is malformed, or means less or more than it seems to.
    """
    globs = [actors] if isinstance(actors, str) else actors
    if not isinstance(globs, list | tuple):
        raise DefinitionError(
            "actors",
            f"found {type(actors).__name__}, expected a list of globs",
            'write actors=["https://*.example/*"]',
        )
    if not globs:
        raise DefinitionError(
            "actors", "the list is empty: no actor could pass", "leave actors out to admit all"
        )
    cut = {parts.text(): parts for parts in map(_glob, globs)}
    ordered = sorted(cut)
    return Scope(tuple(ordered), tuple(cut[text] for text in ordered))


def _glob(glob: object) -> _Id:
    if not isinstance(glob, str):
        raise DefinitionError(
            "actors", f"found {type(glob).__name__} in the list, expected a string", ""
        )
    what = f"actors glob {glob!r:.200}"
    if not glob:
        raise DefinitionError(what, "it is empty", "leave actors out to admit all")
    if "**" in glob:
        raise DefinitionError(
            what, "`**` is not supported: `*` never crosses a `/`", "write one `*` a segment"
        )
    if glob == "*":
        raise DefinitionError(
            what, "it would admit plain names only, no URL", "leave actors out to admit all"
        )
    try:
        parts = _cut(glob, glob=True)
    except _Unfit as unfit:
        raise DefinitionError(what, str(unfit), "no actor can match it as it is") from None
    if not parts.scheme and "/" in glob:
        raise DefinitionError(what, "it has no scheme", f"write 'https://{glob.lstrip('/')}'")
    if any(mark in token for token in _tokens(parts) for mark in "[]{}"):
        raise DefinitionError(
            what, "only `*` is special, brackets and braces are not", "write one glob for each"
        )
    return parts


def _tokens(parts: _Id) -> tuple[str, ...]:
    return (*parts.path, *(parts.query or ()), *(parts.fragment or ()))


# --- cutting -----------------------------------------------------------------------------


def _cut(text: str, *, glob: bool) -> _Id:
    """Cut an id or a glob into its parts.

    Raises:
        _Unfit: it is malformed, or readers differ about what it means.
    """
    # before urlsplit, which quietly drops tabs and newlines; invisible and direction-changing
    # characters aren't printable either
    if not text or not text.isprintable() or " " in text:
        raise _Unfit("it is empty, or has spaces, control or invisible characters")
    if "\\" in text:
        raise _Unfit("it has a backslash, which browsers read as `/`")
    if _BAD_ESCAPE.search(text):
        raise _Unfit("it has a malformed percent-escape, or an escaped control or backslash")
    found = _SCHEME.match(text)
    scheme = found[1].lower() if found else ""
    rest = text[found.end() :] if found else text
    if scheme and rest.startswith("//"):
        return _cut_url(scheme, text, glob=glob)
    if scheme in _DEFAULT_PORTS:
        raise _Unfit(f"`{scheme}:` must be followed by `//` and a host")
    if not rest:
        raise _Unfit("nothing follows the scheme")
    return _Id(scheme, None, "", tuple(_TEXT_ENDS.split(rest)), None, None)


def _cut_url(scheme: str, text: str, *, glob: bool) -> _Id:
    try:
        url = urlsplit(text)
    except ValueError:
        raise _Unfit("its host is malformed") from None
    if "@" in url.netloc:
        raise _Unfit("it has userinfo before the host")
    authority = _AUTHORITY.fullmatch(url.netloc)
    if authority is None or int(authority["port"] or 0) > _MAX_PORT:
        raise _Unfit("its host or port is malformed")
    host, port = authority["host"].lower(), authority["port"] or ""
    if not ((_GLOB_NAME if glob else _NAME).fullmatch(host) or _IPV6.fullmatch(host)):
        raise _Unfit(
            "its host is malformed: ASCII labels without a trailing dot"
            + (", and `*` only as the first label" if glob else "")
        )
    if port == _DEFAULT_PORTS.get(scheme):
        port = ""
    path = tuple(_PATH_ENDS.split(url.path or "/"))
    segments = path[2::2]  # path[0] is the empty text before the first slash
    if any(_ESCAPED_DOT.sub(".", segment) in (".", "..") for segment in segments):
        raise _Unfit("its path has a dot segment")
    if "" in segments[:-1]:
        raise _Unfit("its path has an empty segment")
    # urlsplit drops the mark of an empty query or fragment; a stray mark is no part of a name
    before, mark, _ = text.partition("#")
    if (mark and not url.fragment) or (not url.query and "?" in before):
        raise _Unfit("its query or fragment is empty")
    return _Id(
        scheme,
        host,
        port,
        path,
        tuple(_QUERY_ENDS.split(url.query)) if url.query else None,
        tuple(_QUERY_ENDS.split(url.fragment)) if url.fragment else None,
    )


# --- matching ----------------------------------------------------------------------------


def _host_fits(glob: str | None, host: str | None) -> bool:
    if glob is None or host is None:
        return glob is host
    if glob == "*":
        return not host.startswith("[")
    if glob.startswith("*."):
        return host.endswith(glob[1:])  # labels aren't empty, so one at least is before it
    return glob == host


def _tokens_fit(glob: tuple[str, ...] | None, actor: tuple[str, ...] | None) -> bool:
    if glob is None or actor is None:
        return glob is actor
    return len(glob) == len(actor) and all(map(_token_fits, glob, actor))


def _token_fits(glob: str, text: str) -> bool:
    """Match one token, by searching each literal piece once from left to right."""
    if "*" not in glob:
        return glob == text
    first, *middle, last = glob.split("*")
    if len(text) < len(first) + len(last):
        return False
    if not (text.startswith(first) and text.endswith(last)):
        return False
    at, end = len(first), len(text) - len(last)
    for piece in middle:
        found = text.find(piece, at, end)
        if found < 0:
            return False
        at = found + len(piece)
    return True
