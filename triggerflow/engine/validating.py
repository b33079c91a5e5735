"""What comes in, refused or read: the same for an append and for an emitted activity."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import attrs

from triggerflow.core.activity import Activity
from triggerflow.core.codec import decode_document
from triggerflow.core.envelopes import ENVELOPES, Envelope, Incoming, read_incoming

if TYPE_CHECKING:
    from triggerflow.core.codec import Limits

Validate = Callable[[Activity], None]


def validated(
    incoming: Incoming,
    limits: Limits,
    validate: Validate | None,
    *,
    envelopes: dict[str, Envelope] = ENVELOPES,
    depth: int = 0,
) -> tuple[Activity, bytes]:
    """An activity and its document's bytes; everything that can be refused is refused here.

    Raises:
        ActivityRejected: type or actor can't be read, or a plugin vetoed it.
        EncodingRefused: it is no DAG-CBOR document, or too large or deep.
        DefinitionError: its envelope is unknown.
    """
    activity, block = read_incoming(incoming, limits=limits, envelopes=envelopes, depth=depth)
    if validate is not None:
        # A document of its own: what a plugin does to it must not be what matches.
        validate(attrs.evolve(activity, document=decode_document(block)))
    return activity, block
