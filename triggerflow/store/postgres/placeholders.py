"""Placeholders: SQLite's ``?`` and ``:name`` as psycopg's ``%s`` and ``%(name)s``.

A step's transaction should run on either backend. Statements that use psycopg's own form are
left as they are.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from triggerflow.core.transaction import Values

# What is skipped (quoted texts and names, comments, casts), then what is looked for.
_PARTS: Final = re.compile(
    r"'(?:[^']|'')*'|\"(?:[^\"]|\"\")*\"|\$(\w*)\$.*?\$\1\$|--[^\n]*|/\*.*?\*/|::"
    r"|(?P<mark>\?)|:(?P<name>[A-Za-z_]\w*)|(?P<percent>%)",
    re.DOTALL,
)
_OWN: Final = re.compile(r"%[sbt(]")


@lru_cache(maxsize=512)
def _translated(text: str) -> str:
    def one(found: re.Match[str]) -> str:
        if found["mark"]:
            return "%s"
        if found["name"]:
            return f"%({found['name']})s"
        return found[0].replace("%", "%%")

    return _PARTS.sub(one, text)


def translate(text: str, values: Values) -> str:
    """A statement with psycopg's placeholders.

    Args:
        text: with ``?``, ``:name`` or psycopg's own placeholders.
        values: where there are none, the text has no placeholders.
    """
    if not values or _OWN.search(text):
        return text
    return _translated(text)


# The first word of a statement, past comments and brackets.
_FIRST: Final = re.compile(r"(?:\s|--[^\n]*\n|/\*.*?\*/|;)*(\w+)(?:\s+(\w+))?", re.DOTALL)
_ENDS: Final = {
    "begin": "begin, commit or roll back by hand",
    "start": "begin, commit or roll back by hand",
    "commit": "begin, commit or roll back by hand",
    "end": "begin, commit or roll back by hand",
    "rollback": "begin, commit or roll back by hand",
    "abort": "begin, commit or roll back by hand",
    "savepoint": "use savepoints",
    "release": "use savepoints",
    "listen": "listen: its connection serves other steps after it",
    "discard": "discard what its connection remembers",
    "deallocate": "discard what its connection remembers",
}


def refusal(text: str) -> str | None:
    """Why a statement may not be run by a step, or None."""
    found = _FIRST.match(text)
    word = "" if found is None else found[1].lower()
    if word == "prepare" and found is not None and (found[2] or "").lower() == "transaction":
        return "it may not begin, commit or roll back by hand"
    return f"it may not {_ENDS[word]}" if word in _ENDS else None
