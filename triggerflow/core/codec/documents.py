"""
Documents: DAG-CBOR out and in, and the CID of a document.

A document is what has a CID: activities and trigger specs. The fast road is libipld, and
it is taken only where its result is certain: the survey saw nothing but plain values, or
the block that it read is the block that it writes. All else takes the slow road
(`triggerflow.core.codec.strict`), which decides.
"""

from __future__ import annotations

import sys
from typing import Any, Final

import libipld

from triggerflow.core.cid import CID, cid_of_block
from triggerflow.core.codec import strict
from triggerflow.core.codec.walk import (
    Limits,
    Refusal,
    shallow,
    survey,
    too_deep,
    too_large,
    wrong_key,
)
from triggerflow.errors import DecodingRefused

DOCUMENT_LIMITS: Final = Limits()

# Without bytes: libipld writes those that look like a CID as a link.
_LEAVES: Final = frozenset([type(None), bool])
_CONTAINERS: Final = frozenset([dict, list])
_LINK: Final = b"\xd8\x2a"
_OPENS_NOTHING: Final = bytes(byte for byte in range(256) if not 0x80 <= byte < 0xC0)
# libipld recurses until Python's recursion limit, which someone may have raised to where
# the C stack ends before it.
_SAFE_DEPTH: Final = 500
_SAFE_RECURSION: Final = 3000
_EXACT: Final = 2.0**53 - 1
# One bit more than 64 for -2**64; libipld refuses the others of that width.
_INT_BITS: Final = 65


def encode_document(
    doc: Any, *, limits: Limits = DOCUMENT_LIMITS, what: str = "document"
) -> bytes:
    """
    Encode a model value as one DAG-CBOR block, exactly as it is.

    The model is None, bool, int (-2**64 to 2**64 - 1), float (finite, not -0.0), str,
    bytes, list, dict with str keys, and `CID`: these very types, no subclasses. Nothing is
    turned into something else; `normalise` is for that.

    Args:
        doc: the value; it is not changed.
        limits: size in bytes and depth.
        what: what to call it in an error.

    Raises:
        EncodingRefused: it is outside the model or the limits; the path says where.
    """
    floats = survey(doc, _LEAVES, _CONTAINERS, limits, _INT_BITS)
    if floats is not None and not any(map(strict.wrong_float, floats)):
        data = _native(doc, limits)
        if data is not None:
            return data
    return _strictly(doc, limits, what)


def decode_document(
    data: bytes, *, limits: Limits = DOCUMENT_LIMITS, what: str = "document"
) -> Any:
    """
    Decode one DAG-CBOR block; links come back as `CID`.

    Whatever DAG-CBOR forbids is refused, so a document has one encoding and one CID.

    Args:
        data: the block.
        limits: size in bytes and depth.
        what: what to call it in an error.

    Raises:
        DecodingRefused: the bytes aren't one strict block within the limits.
    """
    if type(data) is not bytes:
        if not isinstance(data, (bytes, bytearray, memoryview)):
            raise DecodingRefused(what, f"found {type(data).__name__}, expected bytes")
        data = bytes(data)
    if len(data) > limits.size:
        raise DecodingRefused(what, f"{len(data):,} bytes, the limit is {limits.size:,}")
    # libipld reads links as bytes. The two bytes may also stand in a text: no harm.
    if _LINK not in data:
        # As many bytes could open a container, so no document nests deeper than that.
        deepest = len(data.translate(None, _OPENS_NOTHING))
        if deepest <= _SAFE_DEPTH or sys.getrecursionlimit() <= _SAFE_RECURSION:
            try:
                doc = libipld.decode_dag_cbor(data)
                # Its decoder is lax in places, its encoder isn't: equal bytes prove the form.
                if libipld.encode_dag_cbor(doc) == data and (
                    deepest <= limits.depth or shallow(doc, limits.depth)
                ):
                    return doc
            except (ValueError, OverflowError, RecursionError):
                pass  # the strict decoder knows better what is wrong, or that nothing is
    try:
        return strict.decode(data, limits, what)
    except RecursionError:
        raise DecodingRefused(what, "nested too deep for the stack at hand") from None


def normalise(doc: Any, *, limits: Limits = DOCUMENT_LIMITS, what: str = "document") -> Any:
    """
    Copy a document, with integral floats up to 2**53 - 1 turned into integers.

    JavaScript and AT Protocol see no difference between ``1`` and ``1.0``: two services
    that never met must give one document one CID. -0.0 becomes 0.

    Args:
        doc: a model value; the result shares no mutable part with it.
        limits: size is checked by `encode_document` only, depth here too.
        what: what to call it in an error.

    Raises:
        EncodingRefused: it holds a value that is outside the model.
    """
    try:
        return _settled(doc, limits, limits.depth, [limits.size])
    except Refusal as refusal:
        raise refusal.at(what) from None


def encode_normalised(
    doc: Any, *, limits: Limits = DOCUMENT_LIMITS, what: str = "document"
) -> bytes:
    """
    Do `normalise` and `encode_document` in one, without the copy where none is needed.

    Raises:
        EncodingRefused: it is outside the model or the limits; the path says where.
    """
    floats = survey(doc, _LEAVES, _CONTAINERS, limits, _INT_BITS)
    if floats is not None and not any(x.is_integer() or x - x != 0 for x in floats):
        data = _native(doc, limits)
        if data is not None:
            return data
    return _strictly(normalise(doc, limits=limits, what=what), limits, what)


def cid_of(doc: Any, *, limits: Limits = DOCUMENT_LIMITS, what: str = "document") -> str:
    """
    Return the CID of a document as ``append`` would: normalised, encoded, hashed.

    Raises:
        EncodingRefused: it is outside the model or the limits; the path says where.
    """
    return cid_of_block(encode_normalised(doc, limits=limits, what=what))


def _native(doc: Any, limits: Limits) -> bytes | None:
    """Let libipld encode a surveyed document; None when it can't, for a better error."""
    try:
        data: bytes = libipld.encode_dag_cbor(doc)
    except (ValueError, OverflowError, RecursionError):
        return None
    return data if len(data) <= limits.size else None


def _strictly(doc: Any, limits: Limits, what: str) -> bytes:
    try:
        return strict.encode(doc, limits)
    except Refusal as refusal:
        raise refusal.at(what) from None
    except RecursionError:
        raise too_deep(limits).at(what) from None


def _settled(value: Any, limits: Limits, depth: int, room: list[int]) -> Any:
    """Copy one value; `room` counts containers and their items down, against shared parts."""
    kind = type(value)
    if kind is dict or kind is list:
        if depth == 0:
            raise too_deep(limits)
        room[0] -= len(value) + 1
        if room[0] < 0:
            raise too_large(limits)
        pairs = enumerate(value) if kind is list else value.items()
        copies: dict[Any, Any] = {}
        for step, item in pairs:
            if type(item) in _SETTLED:
                copies[step] = item
                continue
            try:
                copies[step] = _settled(item, limits, depth - 1, room)
            except Refusal as refusal:
                refusal.steps.append(step if type(step) in _STEPS else repr(step))
                raise
        if kind is list:
            return [*copies.values()]
        for key in copies:
            if type(key) is not str:
                raise wrong_key(key)
        return copies
    if kind is float:
        if value.is_integer() and -_EXACT <= value <= _EXACT:
            return int(value)
        wrong = strict.wrong_float(value)
        if wrong is not None:
            raise wrong
        return value
    if kind in _SETTLED:
        return value
    # Not of the model: the strict encoder has the words for it.
    strict.encode(value, limits)
    return value


_STEPS: Final = frozenset([int, str])
_SETTLED: Final = frozenset([type(None), bool, int, str, bytes, CID])
