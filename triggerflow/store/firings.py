"""What a planned firing sends, and what makes it fire once; the store decides on both."""

from __future__ import annotations

import attrs


@attrs.define(slots=True)
class Letter:
    """A message to the live instance of a flow that holds a business key.

    Attributes:
        kind: ``signal`` or ``cancel``.
        name, payload: of the signal; a cancel's are empty, and None encoded.
    """

    namespace: str
    flow: str
    key: str
    kind: str
    name: str
    payload: bytes


@attrs.define(slots=True)
class Once:
    """What fires once: the first under a scope and key, for `window` seconds or for ever."""

    scope: str
    key: bytes
    window: float | None = None


# What a firing does, as its outcome says.
DOES = frozenset({"started", "signalled", "cancelled"})
# What it is instead where it joined an instance that is held.
JOINED = frozenset({"debounced", "batched"})
