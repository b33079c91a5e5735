"""Globs over actor ids: how an id is cut into parts, and how part meets part.

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
Matching is linear in the id's length: no regular expression sees both the glob and the id, so
there is no backtracking.

A glob that keeps actors out takes more, since there too every doubt counts against the actor:
it looks at no query and no fragment unless it has one, a ``*`` at its end takes all that is
below as well, and letters and digits that were percent-encoded for nothing are read as such.
"""

from __future__ import annotations

import re
import string
from urllib.parse import urlsplit

import attrs

from triggerflow.errors import DefinitionError

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*):")
_LABEL = r"[a-z0-9_](?:[a-z0-9_-]*[a-z0-9_])?"
_NAME = re.compile(rf"{_LABEL}(?:\.{_LABEL})*")
_GLOB_NAME = re.compile(rf"\*|(?:\*\.)?{_LABEL}(?:\.{_LABEL})*")
_IPV6 = re.compile(r"\[[0-9a-f:.]+\]")
_AUTHORITY = re.compile(r"(?P<host>\[[^\]]*\]|[^\[\]:]*)(?::(?P<port>[1-9][0-9]{0,4}))?")
# A malformed escape, or an escaped control character: no two readers agree on these.
_BAD_ESCAPE = re.compile(r"%(?![0-9A-Fa-f]{2})|%[01][0-9A-Fa-f]|%7[Ff]|%5[Cc]")
_ESCAPE = re.compile(r"%([0-7][0-9A-Fa-f])")
_UNRESERVED = frozenset(string.ascii_letters + string.digits + "-._~")
_ESCAPED_DOT = re.compile(r"%2[Ee]")

# What a `*` does not cross, captured so that splitting keeps it as a token of its own.
_PATH_ENDS = re.compile(r"(/|%2[Ff])")
_QUERY_ENDS = re.compile(r"([/&?]|%2[Ff]|%26|%3[Ff])")
_TEXT_ENDS = re.compile(r"([/:@?#]|%2[Ff]|%3[Aa]|%40|%3[Ff]|%23)")

_DEFAULT_PORTS = {"http": "80", "https": "443"}
_MAX_PORT = 65535


class Unfit(Exception):
    """The text names no actor unambiguously; the argument says why."""


@attrs.frozen
class ActorId:
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

    def takes(self, actor: ActorId) -> bool:
        """Tell whether this glob matches the actor."""
        return (
            self.scheme == actor.scheme
            and self.port == actor.port
            and _host_fits(self.host, actor.host)
            and _tokens_fit(self.path, actor.path)
            and _tokens_fit(self.query, actor.query)
            and _tokens_fit(self.fragment, actor.fragment)
        )

    def keeps_out(self, actor: ActorId) -> bool:
        """Tell whether this glob, among those that keep actors out, means the actor."""
        path = actor.path
        if self.path[-1].endswith("*") and len(path) > len(self.path):
            path = (*path[: len(self.path) - 1], "".join(path[len(self.path) - 1 :]))
        return (
            self.scheme == actor.scheme
            and self.port == actor.port
            and _host_fits(self.host, actor.host)
            and _tokens_fit(self.path, path)
            and (self.query is None or _tokens_fit(self.query, actor.query))
            and (self.fragment is None or _tokens_fit(self.fragment, actor.fragment))
        )


def compile_glob(glob: object) -> ActorId:
    """Cut a glob of an ``actors=`` scope into its parts.

    Raises:
        DefinitionError: it is malformed, or means less or more than it seems to.
    """
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
        parts = cut(glob, glob=True)
    except Unfit as unfit:
        raise DefinitionError(what, str(unfit), "no actor can match it as it is") from None
    if not parts.scheme and "/" in glob:
        raise DefinitionError(what, "it has no scheme", f"write 'https://{glob.lstrip('/')}'")
    if any(mark in token for token in _tokens(parts) for mark in "[]{}"):
        raise DefinitionError(
            what, "only `*` is special, brackets and braces are not", "write one glob for each"
        )
    return parts


def _tokens(parts: ActorId) -> tuple[str, ...]:
    return (*parts.path, *(parts.query or ()), *(parts.fragment or ()))


def plain(text: str) -> str:
    """An id without the percent-escapes that stand for letters, digits, ``-._~``."""
    return _ESCAPE.sub(_decoded, text)


def _decoded(found: re.Match[str]) -> str:
    letter = chr(int(found[1], 16))
    return letter if letter in _UNRESERVED else found[0]


# --- cutting -----------------------------------------------------------------------------


def cut(text: str, *, glob: bool) -> ActorId:
    """Cut an id or a glob into its parts.

    Raises:
        Unfit: it is malformed, or readers differ about what it means.
    """
    # before urlsplit, which quietly drops tabs and newlines; invisible and direction-changing
    # characters aren't printable either
    if not text or not text.isprintable() or " " in text:
        raise Unfit("it is empty, or has spaces, control or invisible characters")
    if "\\" in text:
        raise Unfit("it has a backslash, which browsers read as `/`")
    if _BAD_ESCAPE.search(text):
        raise Unfit("it has a malformed percent-escape, or an escaped control or backslash")
    found = _SCHEME.match(text)
    scheme = found[1].lower() if found else ""
    rest = text[found.end() :] if found else text
    if scheme and rest.startswith("//"):
        return _cut_url(scheme, text, glob=glob)
    if scheme in _DEFAULT_PORTS:
        raise Unfit(f"`{scheme}:` must be followed by `//` and a host")
    if not rest:
        raise Unfit("nothing follows the scheme")
    return ActorId(scheme, None, "", tuple(_TEXT_ENDS.split(rest)), None, None)


def _cut_url(scheme: str, text: str, *, glob: bool) -> ActorId:
    try:
        url = urlsplit(text)
    except ValueError:
        raise Unfit("its host is malformed") from None
    if "@" in url.netloc:
        raise Unfit("it has userinfo before the host")
    authority = _AUTHORITY.fullmatch(url.netloc)
    if authority is None or int(authority["port"] or 0) > _MAX_PORT:
        raise Unfit("its host or port is malformed")
    host, port = authority["host"].lower(), authority["port"] or ""
    if not ((_GLOB_NAME if glob else _NAME).fullmatch(host) or _IPV6.fullmatch(host)):
        raise Unfit(
            "its host is malformed: ASCII labels without a trailing dot"
            + (", and `*` only as the first label" if glob else "")
        )
    if port == _DEFAULT_PORTS.get(scheme):
        port = ""
    path = tuple(_PATH_ENDS.split(url.path or "/"))
    segments = path[2::2]  # path[0] is the empty text before the first slash
    if any(_ESCAPED_DOT.sub(".", segment) in (".", "..") for segment in segments):
        raise Unfit("its path has a dot segment")
    if "" in segments[:-1]:
        raise Unfit("its path has an empty segment")
    # urlsplit drops the mark of an empty query or fragment; a stray mark is no part of a name
    before, mark, _ = text.partition("#")
    if (mark and not url.fragment) or (not url.query and "?" in before):
        raise Unfit("its query or fragment is empty")
    return ActorId(
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
