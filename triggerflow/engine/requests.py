"""How a pending set is stored: small ones whole, with every turn; wide ones by what changed.

A parent of thousands would otherwise write all of them again for each child that ends.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from triggerflow.core.log import IN_ROWS, Pending, encode_pending

if TYPE_CHECKING:
    from triggerflow.core.codec import ValueCodec
    from triggerflow.engine.running import Running

# A set that grows beyond the first moves into rows; one that shrinks to the second is whole
# again. They lie apart, so that a set near one of them doesn't move back and forth.
_WIDE: Final = 64
_NARROW: Final = 32

# The encoded set, what changed where it is in rows, and whether that is all of it.
Stored = tuple[bytes, tuple[tuple[str, bytes | None], ...], bool]


class WidePending(dict[str, Pending]):
    """A pending set that is stored in rows, and knows which of them are out of date."""

    __slots__ = ("changed",)

    def __init__(self, pending: dict[str, Pending]) -> None:
        super().__init__(pending)
        # A dict, to keep the order of arming.
        self.changed: dict[str, None] = {}

    def __setitem__(self, tag: str, kept: Pending) -> None:
        super().__setitem__(tag, kept)
        self.changed[tag] = None

    def __delitem__(self, tag: str) -> None:
        super().__delitem__(tag)
        self.changed[tag] = None

    def pop(self, tag: str, *default: Any) -> Any:
        """As `dict.pop`."""
        if tag in self:
            self.changed[tag] = None
        return super().pop(tag, *default)


def stored(run: Running, codec: ValueCodec) -> Stored:
    """What a turn writes of its instance's pending set."""
    pending = run.pending
    if not isinstance(pending, WidePending):
        if len(pending) <= _WIDE:
            return codec.pack(encode_pending(pending)), (), False
        run.pending = WidePending(pending)
        return IN_ROWS, tuple([_row(tag, pending, codec) for tag in pending]), True
    if len(pending) <= _NARROW:
        run.pending = dict(pending)
        return codec.pack(encode_pending(run.pending)), (), False
    changed, pending.changed = pending.changed, {}
    return IN_ROWS, tuple([_row(tag, pending, codec) for tag in changed]), False


def _row(tag: str, pending: dict[str, Pending], codec: ValueCodec) -> tuple[str, bytes | None]:
    kept = pending.get(tag)
    return tag, None if kept is None else codec.pack(encode_pending({tag: kept})[0])
