"""What comes in, refused or read: the same for an append and for an emitted activity."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from triggerflow.core.activity import Activity
from triggerflow.core.codec import cid_of_block, decode_document, encode_document, normalise

if TYPE_CHECKING:
    from triggerflow.core.codec import Limits

Validate = Callable[[Activity], None]


def validated(
    document: object, limits: Limits, validate: Validate | None
) -> tuple[Activity, bytes]:
    """An activity and its bytes; everything that can be refused is refused here.

    Raises:
        ActivityRejected: type or actor can't be read, or a plugin vetoed it.
        EncodingRefused: it is no DAG-CBOR document, or too large or deep.
    """
    model = normalise(document, limits=limits)
    block = encode_document(model, limits=limits)
    activity = Activity.read(cid_of_block(block), model)
    if validate is not None:
        # A document of its own: what a plugin does to it must not be what matches.
        validate(Activity.read(activity.cid, decode_document(block)))
    return activity, block
