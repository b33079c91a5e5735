"""How `type` and `actor` are read from an activity document.

An activity is a document with a ``type`` and an ``actor``. ActivityStreams 2 lets both take
several shapes; here each becomes a tuple of strings, in the document's order, repeated names
once. The document itself is left as it came: its CID covers what the sender wrote.

======================  ==================================================================
``type``                a non-empty string, or a non-empty list of them
``actor``               a non-empty string, or an object that counts by its ``id`` (a non-empty
                        string), or a non-empty list of those, mixed as you like
======================  ==================================================================

Everything else is rejected before the append, so that nothing of it is stored. The words for
each class, counted over the 141 W3C examples of which 20 are activities and 121 are not:

===  ====================================================================================
  1  ``activity is a list, expected an object with a `type` and an `actor```
  9  ``activity.type is missing, expected a non-empty string or a list of those``
  1  ``activity.type is missing (its `@type` is not read), expected ...``
  1  ``activity.type is the number 16, expected ...``
 89  ``activity.actor is missing, expected an id string, an object with an `id`, or a list
     of those`` (notes, people, collections: things, not something that somebody did)
 19  ``activity.actor.id is missing, expected a non-empty string, since an embedded actor
     counts by its `id```
  1  ``activity.actor is the number 90, expected ...``
===  ====================================================================================

Why so strict about actors: scopes (``actors=``) are judged by these strings. An activity whose
actor has no name would either pass every scope or none, and the one who wrote the trigger
could not see which. Why JSON-LD's ``@type`` and ``@id`` are not read: they are right only after
expansion against ``@context``, and half an expansion would be wrong silently.
"""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any, Final

import attrs

from triggerflow.errors import ActivityRejected

if TYPE_CHECKING:
    from collections.abc import Callable

# So many emitted activities may lead to one another; the next one is refused.
MOST_CHAIN: Final = 32

_DOCUMENT = "an object with a `type` and an `actor`"
_STRING = "a non-empty string"
_TYPE = "a non-empty string or a list of those"
_ACTOR = "an id string, an object with an `id`, or a list of those"
_ACTOR_ID = "a non-empty string, since an embedded actor counts by its `id`"

# An integer of many thousand digits can't be printed at all (Python refuses), and an error
# about a hostile document must not fail itself.
_SHOWN_BITS = 64


@attrs.frozen
class Activity:
    """One activity: its CID, its document, and who did what kind of thing, read once.

    It promises that ``types`` and ``actors`` are not empty and hold no name twice. It does
    not promise that the CID is the document's (whoever computed it does), nor that the
    actors are who they claim to be: an ingest plugin verifies that.

    Attributes:
        source: where it came from, if it or its ingest said so.
        namespace: that in which it was appended.
        depth: how many emitted activities led to it.
    """

    cid: str
    document: Any = attrs.field(eq=False, repr=False)
    types: tuple[str, ...]
    actors: tuple[str, ...]
    source: str | None = None
    namespace: str = ""
    depth: int = 0

    @cached_property
    def about(self) -> dict[str, Any]:
        """What is known about it beside its document, as ``$$`` paths see it."""
        found = {
            "cid": self.cid,
            "type": list(self.types),
            "actor": list(self.actors),
            "namespace": self.namespace,
            "depth": self.depth,
        }
        return found if self.source is None else {**found, "source": self.source}

    @classmethod
    def read(cls, cid: str, document: object) -> Activity:
        """Read the types and actors of a normalised document whose CID is known.

        Raises:
            ActivityRejected: the document is no activity; the error says where and why.
        """
        fields = _fields(document)
        return cls(cid, fields, read_types(fields), read_actors(fields))


def read_types(document: object) -> tuple[str, ...]:
    """Return the document's type names: at least one, none twice, in its own order.

    Raises:
        ActivityRejected: ``type`` is missing, empty or not made of strings.
    """
    return _names(document, "type", _TYPE, _type_name)


def read_actors(document: object) -> tuple[str, ...]:
    """Return the ids of the document's actors: at least one, none twice, in its own order.

    Raises:
        ActivityRejected: ``actor`` is missing or empty, or one of them has no id.
    """
    return _names(document, "actor", _ACTOR, _actor_id)


def _fields(document: object) -> dict[str, Any]:
    if not isinstance(document, dict):
        raise ActivityRejected("activity", _found(document), _DOCUMENT)
    return document


def _names(
    document: object,
    field: str,
    expected: str,
    name_of: Callable[[object, str, str], str],
) -> tuple[str, ...]:
    fields = _fields(document)
    path = f"activity.{field}"
    if field not in fields:
        ignored = f" (its `@{field}` is not read)" if f"@{field}" in fields else ""
        raise ActivityRejected(path, f"missing{ignored}", expected)
    value = fields[field]
    if not isinstance(value, list):
        return (name_of(value, path, expected),)
    if not value:
        raise ActivityRejected(path, _found(value), expected)
    # a dict, not a set: the order is the document's
    return tuple(
        dict.fromkeys(name_of(item, f"{path}[{at}]", "") for at, item in enumerate(value))
    )


def _type_name(value: object, path: str, expected: str) -> str:
    if isinstance(value, str) and value:
        return value
    raise ActivityRejected(path, _found(value), expected or _STRING)


def _actor_id(value: object, path: str, expected: str) -> str:
    if isinstance(value, dict):
        if "id" not in value:
            ignored = " (its `@id` is not read)" if "@id" in value else ""
            raise ActivityRejected(f"{path}.id", f"missing{ignored}", _ACTOR_ID)
        return _type_name(value["id"], f"{path}.id", _ACTOR_ID)
    return _type_name(value, path, expected or "an id string or an object with an `id`")


def _found(value: object) -> str:
    """Return words for a JSON value, safe whatever its size."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return f"the number {value}" if value.bit_length() <= _SHOWN_BITS else "a huge number"
    if isinstance(value, float):
        return f"the number {value!r}"
    if isinstance(value, str):
        return "a string" if value else "an empty string"
    if isinstance(value, list):
        return "a list" if value else "an empty list"
    if isinstance(value, dict):
        return "an object"
    return f"a Python {type(value).__name__}"
