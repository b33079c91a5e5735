"""What can be asked about waits for activities: opened, held against activities, found again.

A wait is filed under *pivots*, each a path and a value as text. What they mean is
`triggers.pivots`' concern; a store finds what is filed under equal ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import attrs


@attrs.frozen
class NewWait:
    """A wait that cancels an instance; see `acts.OpenWait` for pattern and pivots."""

    pattern: bytes
    pivots: tuple[tuple[str, str], ...]


@attrs.frozen
class Hit:
    """An activity meets a wait, as the first one after `since`.

    It counts where everything up to `since` was held against the wait. Elsewhere the wait has
    to catch up, by itself, with all activities up to this one. `payload` is what the instance
    is told; a wait of ``cancel_on`` cancels it instead.
    """

    wait: int
    seq: int
    since: int
    payload: bytes


@attrs.define(slots=True)
class Watched:
    """Activities up to `position` were held against waits: what they met, and how far that is.

    Attributes:
        hits: they tell or cancel instances, and close the waits; those that are closed by
            now tell nobody.
        caught_up: waits against which all up to `position` were held, one by one.
        passed_over: waits that couldn't be read here: they have to catch up with all up to
            `position`, by somebody who can.
        newest: all up to `position` were held against every wait that doesn't catch up and
            isn't newer than this one. Newer ones, which could not be seen, have to catch up.
    """

    position: int
    at: float
    hits: tuple[Hit, ...] = ()
    caught_up: tuple[int, ...] = ()
    passed_over: tuple[int, ...] = ()
    newest: int | None = None


@attrs.frozen
class WaitRecord:
    """An open wait for an activity.

    Attributes:
        action: ``tell`` the flow what came, or ``cancel`` the instance.
        pattern: encoded.
        digest: what the flow knows the pattern by.
        scanned: activities up to this one were held against it by itself.
        upto: while `scanned` is below it, it catches up by itself.
    """

    id: int
    instance: int
    generation: int
    tag: str
    action: str
    pattern: bytes
    digest: bytes | None
    scanned: int
    upto: int
    namespace: str = ""


@attrs.frozen
class Standing:
    """How far open waits are.

    Attributes:
        position: all activities up to this one were held against every wait that doesn't
            catch up.
        newest: every wait that is opened from now on has a larger id.
        paths: the first parts of the pivots under which waits are filed; none where no wait
            is open, None where they are too many to be named.
        behind: some wait has to catch up by itself.
    """

    position: int
    newest: int
    paths: tuple[str, ...] | None
    behind: bool


class Waits(Protocol):
    """The verbs of a store that ask about waits; see `Store`."""

    def standing(self) -> Standing:
        """How far the open waits for activities are, and where they are filed.

        Every wait that isn't newer than it says is seen by whoever asks after it.
        """
        ...

    def waits_under(
        self, pivots: Sequence[tuple[str, str, int]], limit: int
    ) -> list[tuple[int, WaitRecord]]:
        """Open waits that are filed under one of these pivots, those that catch up included.

        Args:
            pivots: path and value, and an id: only waits with a larger one are asked for.
            limit: how many at most.

        Returns:
            Index of the pivot and wait, in the order of the pivots, those of one by id. A
            wait of several pivots comes several times.
        """
        ...

    def waits_behind(
        self,
        after: tuple[int, int] | None = None,
        limit: int = 100,
        *,
        nearest_first: bool = False,
    ) -> list[WaitRecord]:
        """Open waits that have to catch up by themselves.

        Args:
            after: (scanned, id) of the last one of the page before.
            limit: how many at most.
            nearest_first: those first that have come furthest; the others by default.
        """
        ...

    def waits(self, after: int = 0, limit: int = 1000) -> list[WaitRecord]:
        """A page of the open waits, by id, those above `after`."""
        ...

    def waits_of(self, number: int) -> list[WaitRecord]:
        """The open waits of one instance."""
        ...
