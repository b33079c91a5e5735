"""Tags: the deterministic names of effects, ``branch/kind:name#n``."""

from __future__ import annotations

from typing import Final

from triggerflow.errors import DefinitionError

_TAG_MARKS: Final = frozenset("/#[]")


def kind_of(tag: str) -> str:
    """The kind in a tag: ``call`` in ``gather#0[1]/call:charge#2``."""
    last = tag.rpartition("/")[2]
    return last.partition("#")[0].partition(":")[0]


def name_of(tag: str) -> str:
    """The name in a tag: ``charge`` in ``gather#0[1]/call:charge#2``."""
    last = tag.rpartition("/")[2]
    return last.partition("#")[0].partition(":")[2]


def checked_name(name: str, what: str) -> str:
    """A name that may stand in a tag.

    Raises:
        DefinitionError: it is empty, or holds one of ``/ # [ ]``, or a control character.
    """
    if not isinstance(name, str) or not name:
        raise DefinitionError(what, f"found {name!r}, expected a name")
    if not name.isidentifier() and (not _TAG_MARKS.isdisjoint(name) or not name.isprintable()):
        raise DefinitionError(what, f"name {name!r} may not hold / # [ ] or control characters")
    return name
