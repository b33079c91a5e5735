"""
The forms of the types that plain CBOR lacks: how each is written, how strictly it is read.

Each has exactly one form, so that what a stranger's bundle holds is what we would have
written, or is refused. cbor2's own readers of tags are never used: they take many forms,
and Decimals from exponents that fill the memory.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, datetime, timedelta
from decimal import Decimal
from typing import Any, Final
from uuid import UUID

from cbor2 import CBORTag

from triggerflow.core.cid import CID
from triggerflow.core.codec.walk import Refusal
from triggerflow.errors import DecodingRefused

OWN: Final = frozenset([datetime, date, timedelta, Decimal, UUID, CID])


def own_form(value: Any) -> CBORTag:
    """
    Lower one value of `OWN` to a CBOR tag.

    Raises:
        Refusal: a datetime that would not come back equal.
    """
    if isinstance(value, datetime):
        if value.utcoffset() is None:
            raise Refusal(
                "a naive datetime",
                "an aware one",
                "say what zone it is in, such as value.replace(tzinfo=datetime.UTC)",
            )
        text = value.isoformat()
        if datetime.fromisoformat(text) != value:
            # Python never calls a repeated hour in one zone equal to a time in another.
            raise Refusal(
                f"{text}, an hour that its zone has twice",
                "a datetime that equals itself in another zone",
                "convert it with value.astimezone(datetime.UTC)",
            )
        return CBORTag(0, text)
    if isinstance(value, date):
        return CBORTag(1004, value.isoformat())
    if isinstance(value, timedelta):
        parts = [value.days, value.seconds, value.microseconds]
        return CBORTag(27, ["timedelta", parts])
    if isinstance(value, Decimal):
        return CBORTag(27, ["decimal", str(value)])
    if isinstance(value, UUID):
        return CBORTag(37, value.bytes)
    return CBORTag(42, b"\0" + bytes(value))


def _ill_formed(kind: str) -> DecodingRefused:
    return DecodingRefused("value", f"it holds an ill-formed {kind}")


def datetime_back(text: Any, _immutable: bool, /) -> datetime:
    """Read what stands behind tag 0."""
    try:
        value = datetime.fromisoformat(text)
    except (TypeError, ValueError):
        raise _ill_formed("datetime") from None
    if value.tzinfo is None or value.isoformat() != text:
        raise _ill_formed("datetime")
    return value


def date_back(text: Any, _immutable: bool, /) -> date:
    """Read what stands behind tag 1004."""
    try:
        value = date.fromisoformat(text)
    except (TypeError, ValueError):
        raise _ill_formed("date") from None
    if value.isoformat() != text:
        raise _ill_formed("date")
    return value


def timedelta_back(parts: Any) -> timedelta:
    """Read the fields of a ``timedelta`` behind tag 27."""
    if type(parts) is not list or [type(part) for part in parts] != [int, int, int]:
        raise _ill_formed("timedelta")
    days, seconds, microseconds = parts
    try:
        value = timedelta(days, seconds, microseconds)
    except OverflowError:
        raise _ill_formed("timedelta") from None
    if [value.days, value.seconds, value.microseconds] != parts:
        raise _ill_formed("timedelta")
    return value


def decimal_back(text: Any) -> Decimal:
    """Read the fields of a ``decimal`` behind tag 27."""
    # Decimal also reads white space, underscores and foreign digits.
    try:
        value = Decimal(text) if type(text) is str else None
    except ArithmeticError:
        value = None
    if value is None or str(value) != text:
        raise _ill_formed("Decimal")
    return value


def uuid_back(raw: Any, _immutable: bool, /) -> UUID:
    """Read what stands behind tag 37."""
    if type(raw) is not bytes or len(raw) != 16:
        raise _ill_formed("UUID")
    return UUID(bytes=raw)


def cid_back(raw: Any, _immutable: bool, /) -> CID:
    """Read what stands behind tag 42."""
    if type(raw) is not bytes or raw[:1] != b"\0":
        raise _ill_formed("CID")
    return CID(raw[1:])


def list_of(items: Sequence[bytes]) -> bytes:
    """Encode the list of values that are encoded already."""
    count = len(items)
    if count < 24:
        head = bytes([0x80 | count])
    elif count < 1 << 8:
        head = b"\x98" + count.to_bytes(1)
    elif count < 1 << 16:
        head = b"\x99" + count.to_bytes(2)
    else:
        head = b"\x9a" + count.to_bytes(4)
    return head + b"".join(items)
