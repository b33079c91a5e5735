"""
Log values: what steps take and return, as CBOR with a closed set of types.

No pickle, and no code in data: a value is one of the types below, or an instance of an
attrs class that the app registered. What isn't is refused when it is written, with its
path, and so is what could not be read back. The set on the wire, beside plain CBOR:

====  ===============================================================================
tag   content
====  ===============================================================================
0     datetime, as ``isoformat`` with its offset
27    an object, ``[name, fields]``; the names ``decimal`` and ``timedelta`` are ours
37    UUID, 16 bytes
42    CID, in binary after a zero byte
1004  date, as ``isoformat``
====  ===============================================================================

Plain values go to cbor2 as they are; the others are lowered to its terms first. Of its
own tags only big integers (2, 3) are let through: others would build regular expressions,
shared references, or numbers of a gigabyte.
"""

from __future__ import annotations

import hashlib
import io
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

import cbor2
import libipld

from triggerflow.core.codec.classes import ClassTable
from triggerflow.core.codec.forms import (
    OWN,
    cid_back,
    date_back,
    datetime_back,
    decimal_back,
    timedelta_back,
    uuid_back,
)
from triggerflow.core.codec.lowering import CONTAINERS, INT_BITS, Lowering, as_it_is, untupled
from triggerflow.core.codec.walk import (
    Framed,
    Limits,
    Refusal,
    not_utf8,
    survey,
    too_deep,
    too_large,
)
from triggerflow.errors import DecodingRefused, EncodingRefused

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

VALUE_LIMITS: Final = Limits(size=16 * 1024 * 1024)

_SCALARS: Final = frozenset([type(None), bool, int, float, str, bytes])
# Floats have a shorter form in canonical CBOR, so they take the long way to a digest.
_ONE_FORM: Final = _SCALARS - {float}
_LEAVES: Final = frozenset([type(None), bool, bytes])
_MODEL_LEAVES: Final = frozenset([type(None), bool])
_FIXED: Final = OWN - {datetime}
# An integer that is too wide takes more than this, so short ones need no check.
_SHORT: Final = 256


def _widths() -> bytes:
    """Map a first byte to the length of the whole scalar that it opens, 0 if it tells none."""
    table = bytearray(256)
    for major in (0, 1):
        for info in range(24):
            table[major << 5 | info] = 1
        table[major << 5 | 24 : (major << 5 | 27) + 1] = bytes((2, 3, 5, 9))
    for major in (2, 3):
        for info in range(24):
            table[major << 5 | info] = 1 + info
    table[0xF4:0xF7] = bytes((1, 1, 1))
    table[0xFB] = 9
    return bytes(table)


_WIDTHS: Final = _widths()


def _refuse_tag(_value: object, _immutable: bool, /) -> Any:
    raise DecodingRefused("value", "it holds a CBOR tag that log values don't use")


# Every tag that cbor2 knows by itself, present and to come, up to a generous number.
_REFUSED_TAGS: Final[dict[int, Callable[[Any, bool], Any]]] = dict.fromkeys(
    [tag for tag in range(1024) if tag not in (2, 3)] + [1040, 43000, 55799], _refuse_tag
)


class ValueCodec:
    """
    Encodes log values and digests of arguments, for one app and its registered classes.

    It guarantees that what `encode` accepts, `decode` gives back: equal, but tuples come
    back as lists, and an aware datetime with a fixed offset instead of a zone. Encodings of
    equal values may differ (dicts keep their order): only `digest` is for comparing.

    Args:
        classes: attrs classes to register.
        limits: size in bytes and depth of one value.

    Raises:
        DefinitionError: as `register` does.
    """

    __slots__ = ("_classes", "_decoded", "_framed", "_tags", "limits")

    def __init__(self, classes: Iterable[type] = (), *, limits: Limits = VALUE_LIMITS) -> None:
        self.limits = limits
        self._framed = Framed.of(limits)
        self._classes = ClassTable()
        self._decoded = _LEAVES | OWN
        self._tags = _REFUSED_TAGS | {
            0: datetime_back,
            27: self._object_back,
            37: uuid_back,
            42: cid_back,
            1004: date_back,
        }
        for cls in classes:
            self.register(cls)

    def register(self, cls: type) -> None:
        """
        Let instances of an attrs class be log values; a log names it ``module:qualname``.

        Its fields are log values too; fields annotated as tuples or enums come back as such.

        Raises:
            DefinitionError: it isn't an attrs class, or another one has its name.
        """
        self._classes.add(cls)
        self._decoded |= {cls}

    def is_plain(self, value: object) -> bool:
        """Tell whether the value is immutable and its copy the same in all respects."""
        kind = type(value)
        if kind is str:
            text: Any = value
            return len(text) <= self.limits.size and (text.isascii() or not not_utf8(text))
        if kind is int:
            number: Any = value
            return bool(number.bit_length() <= INT_BITS)
        if kind is bytes:
            raw: Any = value
            return len(raw) <= self.limits.size
        if kind is datetime:
            moment: Any = value
            return moment.tzinfo is UTC and not moment.fold
        return kind in _SCALARS or kind in _FIXED

    def encode(self, value: object, what: str = "value") -> bytes:
        """
        Encode one log value.

        Args:
            value: it is not changed, and no part of it is kept.
            what: what to call it in an error, the root of the path.

        Raises:
            EncodingRefused: a part of it is outside the closed set, too large or too deep,
                or is an instance that its class could not build again.
        """
        if type(value) in _SCALARS:
            try:
                data = cbor2.dumps(value)
            except UnicodeEncodeError:
                return self._encode_lowered(value, what)
            if len(data) <= _SHORT:
                return data
        if survey(value, _LEAVES, CONTAINERS, self.limits, INT_BITS) is None:
            return self._encode_lowered(value, what)
        try:
            data = cbor2.dumps(value)
        except UnicodeEncodeError:
            return self._encode_lowered(value, what)
        return self._sized(data, what)

    def frame(self, value: object, what: str = "value") -> bytes:
        """
        Encode what the library put round log values: it may be a little deeper than one.

        Raises:
            EncodingRefused: it is larger than three of the largest.
        """
        lowered, _ = self._lowered(value, what, self._framed)
        return self._sized(cbor2.dumps(lowered), what, self._framed)

    def pack(self, value: object) -> bytes:
        """Encode what the library itself put together: nothing is checked."""
        return cbor2.dumps(value)

    def decode(self, data: bytes) -> Any:
        """
        Decode what `encode`, `frame` or `request` made: nothing else is let in.

        Raises:
            DecodingRefused: the bytes aren't one log value within the limits, or name a
                class that isn't registered here.
        """
        if type(data) is not bytes:
            if not isinstance(data, bytearray | memoryview):
                raise DecodingRefused("value", f"found {type(data).__name__}, expected bytes")
            data = bytes(data)
        try:
            if data and _WIDTHS[data[0]] == len(data):
                return cbor2.loads(data)
            return self._decode_any(data)
        except cbor2.CBORDecodeError as error:
            raise _refused_by_cbor2(error) from None

    def copy(self, value: Any, what: str = "value") -> Any:
        """
        Return what a flow would see in replay: the value after its round trip.

        Raises:
            EncodingRefused: as `encode` does.
        """
        if self.is_plain(value):
            return value
        return self.decode(self.encode(value, what))

    def digest(
        self,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        what: str = "arguments",
        *,
        framed: bool = False,
    ) -> bytes:
        """
        Return 16 bytes that stand for these arguments, the same in every process and release.

        They are SHA-256 over the canonical form of the positional arguments, followed by
        that of the keyword arguments if there are any: DAG-CBOR where it can carry them,
        else canonical CBOR (RFC 7049 section 3.9). The order of dict keys and keyword
        arguments doesn't count; 1, 1.0, True and "1" differ, a tuple and a list of the
        same items don't.

        Args:
            args: log values.
            kwargs: log values by name.
            what: what to call them in an error: ``arguments[0]``, ``arguments.name``.
            framed: the library put them together, as `frame` takes them.

        Raises:
            EncodingRefused: as `encode` does.
        """
        if not kwargs:
            for argument in args:
                if type(argument) not in _ONE_FORM:
                    break
            else:
                try:
                    data = cbor2.dumps(args)
                    if len(data) <= _SHORT:
                        return hashlib.sha256(data).digest()[:16]
                except UnicodeEncodeError:
                    pass  # the long way words it
        data = self._canonical(list(args), what, framed=framed)
        if kwargs:
            data += self._canonical(kwargs, what)
        return hashlib.sha256(data).digest()[:16]

    def request(
        self,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        what: str = "arguments",
        *,
        framed: bool = False,
    ) -> tuple[bytes, bytes]:
        """
        Return the arguments as bytes, and their `digest`, in one walk.

        The bytes decode to ``[args, kwargs]``: a copy that shares nothing with the original,
        with dict keys in canonical order.

        Raises:
            EncodingRefused: as `encode` does.
        """
        data = self._canonical(list(args), what, framed=framed)
        rest = self._canonical(kwargs, what)
        whole = data + rest if kwargs else data
        return b"\x82" + data + rest, hashlib.sha256(whole).digest()[:16]

    def _sized(self, data: bytes, what: str, limits: Limits | None = None) -> bytes:
        limits = limits or self.limits
        if len(data) > limits.size:
            raise too_large(limits, f"{len(data):,} bytes").at(what)
        return data

    def _canonical(self, value: object, what: str, *, framed: bool = False) -> bytes:
        limits = self._framed if framed else self.limits
        # Several times faster, for what it can carry: it mistakes some bytes for links and
        # has one zero. Which way is taken must not depend on what is a tuple.
        floats = survey(value, _MODEL_LEAVES, CONTAINERS, limits, 64)
        if floats is not None and all(floats):
            for prepare in (as_it_is, untupled):
                try:
                    return self._sized(libipld.encode_dag_cbor(prepare(value)), what, limits)
                except (ValueError, OverflowError, RecursionError):
                    pass  # the long way accepts it, or words it
        if survey(value, _LEAVES, CONTAINERS, limits, INT_BITS) is None:
            value = self._lowered(value, what, limits)[0]
        try:
            data = cbor2.dumps(value, canonical=True)
        except UnicodeEncodeError:
            data = cbor2.dumps(self._lowered(value, what, limits)[0], canonical=True)
        return self._sized(data, what, limits)

    def _encode_lowered(self, value: object, what: str) -> bytes:
        lowered, has_instances = self._lowered(value, what)
        data = self._sized(cbor2.dumps(lowered), what)
        if has_instances:
            # Classes run code of their own. A log entry that can't be read again would
            # block its instance for ever, so it is read before it is written.
            try:
                self.decode(data)
            except DecodingRefused as error:
                raise EncodingRefused(
                    what,
                    f"an instance that can't be built again ({error.what}: {error.problem})",
                    "one that its class accepts",
                    error.remedy,
                ) from error
        return data

    def _lowered(
        self, value: object, what: str, limits: Limits | None = None
    ) -> tuple[Any, bool]:
        limits = limits or self.limits
        lowering = Lowering(self._classes, limits)
        try:
            return lowering.lower(value, limits.depth), lowering.has_instances
        except Refusal as refusal:
            raise refusal.at(what) from None
        except RecursionError:
            raise too_deep(limits).at(what) from None

    def _decode_any(self, data: bytes) -> Any:
        if not data:
            raise DecodingRefused("value", "no bytes at all, expected one CBOR item")
        limits = self._framed
        if len(data) > limits.size:
            raise DecodingRefused("value", f"{len(data):,} bytes, the limit is {limits.size:,}")
        stream = io.BytesIO(data)
        value = cbor2.CBORDecoder(
            stream,
            semantic_decoders=self._tags,
            tag_hook=_refuse_tag,
            max_depth=3 * limits.depth + 3,  # an instance is a tag, a list and a map
            allow_indefinite=False,
            allow_duplicate_keys=False,
            strict_hashable_types=True,
        ).decode()
        if stream.tell() != len(data):
            raise DecodingRefused("value", f"{len(data) - stream.tell()} bytes after its end")
        self._admit(value)
        return value

    def _admit(self, value: object) -> None:
        """Refuse what cbor2 reads without a tag: simple values, odd keys, wide integers."""
        if survey(value, self._decoded, CONTAINERS, self._framed, INT_BITS) is None:
            raise DecodingRefused(
                "value", "it holds something that is no log value, or is too large or too deep"
            )

    def _object_back(self, content: Any, _immutable: bool, /) -> Any:
        if type(content) is not list or len(content) != 2:
            raise DecodingRefused("value", "tag 27 does not hold a name and fields")
        name, fields = content
        if name == "decimal":
            return decimal_back(fields)
        if name == "timedelta":
            return timedelta_back(fields)
        self._admit(fields)
        return self._classes.build(name, fields)


def _refused_by_cbor2(error: BaseException) -> DecodingRefused:
    """Return our own refusal, if one of our tag readers raised it, or word cbor2's."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, DecodingRefused):
            return cause
        cause = cause.__cause__ or cause.__context__
    return DecodingRefused("value", f"not a CBOR item: {error}")
