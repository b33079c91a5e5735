"""Paths into a document: the singular queries of JSONPath (RFC 9535, section 2.3.5).

A path names at most one value: ``$.object.id``, ``$.items[0]``, ``$.a[-1]``, ``$['a key']``.
What could name several values (``*``, ``..``, slices, filters) is refused, since whoever asks
for a key or an input needs one value. ``$`` alone is the whole document.
"""

from __future__ import annotations

import json
import re
from typing import Any, Final

import attrs

from triggerflow.errors import DefinitionError

# RFC 9535: name-first is a letter, `_` or beyond ASCII; digits may follow.
_SHORT: Final = re.compile(r"[A-Za-z_\u0080-\U0010ffff][\w\u0080-\U0010ffff]*", re.ASCII)
_INDEX: Final = re.compile(r"0|-?[1-9][0-9]*")
_QUOTED: Final = re.compile(r"'(?:[^'\\\x00-\x1f]|\\.)*'|\"(?:[^\"\\\x00-\x1f]|\\.)*\"")
_ESCAPES: Final = re.compile(r"\\(u[0-9A-Fa-f]{4}|.)")
_PLAIN_ESCAPES: Final = {
    "b": "\b",
    "f": "\f",
    "n": "\n",
    "r": "\r",
    "t": "\t",
    "/": "/",
    "\\": "\\",
}
# What RFC 9535 allows as an index: exact in every peer's numbers.
_LARGEST_INDEX: Final = 2**53 - 1
_BLANK: Final = " \t\r\n"


class Absent:
    """What a path finds where the document has nothing; null is a value."""

    def __repr__(self) -> str:
        return "ABSENT"


ABSENT: Final = Absent()


@attrs.frozen
class Path:
    """A compiled path: call it with a document to get the value there, or `ABSENT`.

    Attributes:
        parts: keys (str) and positions (int), from the root.
    """

    parts: tuple[str | int, ...]

    def __call__(self, document: Any) -> Any:
        """The value at this path, or `ABSENT`. No document makes it raise."""
        for part in self.parts:
            if isinstance(part, str):
                if type(document) is not dict or part not in document:
                    return ABSENT
            elif type(document) is not list or not -len(document) <= part < len(document):
                return ABSENT
            document = document[part]
        return document

    def __str__(self) -> str:
        """The path in one form: equal paths have equal texts."""
        return "$" + "".join(map(_part_text, self.parts))


def compile_path(text: object, what: str) -> Path:
    """Compile a path.

    Args:
        text: a singular JSONPath query.
        what: whose path it is, for the error.

    Raises:
        DefinitionError: it is no such query; the error names the place.
    """
    if not isinstance(text, str) or not text.startswith("$"):
        raise DefinitionError(
            what, f"{text!r:.80} is not a path", "a path begins with `$`, as in `$.object.id`"
        )
    parts: list[str | int] = []
    at = 1
    while at < len(text):
        start = at
        at = _skip_blank(text, at)
        if text[at : at + 1] == ".":
            found = _SHORT.match(text, at + 1)
            if found is None:
                raise _refused(text, at, what)
            parts.append(found[0])
            at = found.end()
        elif text[at : at + 1] == "[":
            part, at = _bracketed(text, _skip_blank(text, at + 1), what)
            parts.append(part)
        else:
            raise _refused(text, start, what)
    return Path(tuple(parts))


def _bracketed(text: str, at: int, what: str) -> tuple[str | int, int]:
    part: str | int
    if found := _QUOTED.match(text, at):
        part = _unquoted(found[0], text, at, what)
    elif found := _INDEX.match(text, at):
        # Its length first: Python refuses to read thousands of digits.
        if len(found[0]) > len(str(-_LARGEST_INDEX)) or abs(int(found[0])) > _LARGEST_INDEX:
            raise _refused(text, at, what)
        part = int(found[0])
    else:
        raise _refused(text, at, what)
    end = _skip_blank(text, found.end())
    if text[end : end + 1] != "]":
        raise _refused(text, end, what)
    return part, end + 1


def _unquoted(quoted: str, text: str, at: int, what: str) -> str:
    mark = quoted[0]

    def plain(found: re.Match[str]) -> str:
        escape = found[1]
        if escape == mark:
            return mark
        if escape[0] == "u" and len(escape) > 1:
            return chr(int(escape[1:], 16))
        if escape in _PLAIN_ESCAPES:
            return _PLAIN_ESCAPES[escape]
        raise _refused(text, at, what)

    name = _ESCAPES.sub(plain, quoted[1:-1])
    try:
        # A pair of surrogates is one character; half a pair is none that a document can hold.
        return name.encode("utf-16", "surrogatepass").decode("utf-16")
    except UnicodeDecodeError:
        raise _refused(text, at, what) from None


def _skip_blank(text: str, at: int) -> int:
    while at < len(text) and text[at] in _BLANK:
        at += 1
    return at


def _refused(text: str, at: int, what: str) -> DefinitionError:
    rest = text[at : at + 20]
    return DefinitionError(
        what,
        f"the path {text!r:.80} can't be read from character {at} on ({rest!r})",
        "write one value's path, as `$.object.id`, `$.items[0]` or `$['a key']`; `*`, `..`, "
        "slices and filters name several values",
    )


def _part_text(part: str | int) -> str:
    if isinstance(part, int):
        return f"[{part}]"
    if _SHORT.fullmatch(part):
        return f".{part}"
    return f"[{json.dumps(part, ensure_ascii=False)}]"
