"""Whose turn it is to run alone: suspects of both kinds by turns, innocents between them.

Instances and queued calls whose workers died twice run with nothing else in their process.
While one runs everything else waits, so whoever comes next must not be decided by who asks
first: many suspects of one kind would keep out those of the other, and the innocents.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

Kind = Literal["instance", "task"]


class Alone:
    """The turns of one worker.

    Attributes:
        asked: a claim that may bring a suspect is on its way.
        resting: a suspect ran, so innocents come next.
    """

    def __init__(self) -> None:
        self.asked = False
        self.resting = False
        self._last: Kind | None = None

    @contextmanager
    def asking(self, *, empty: bool) -> Iterator[bool]:
        """While a claim is on its way; whether it may bring a suspect.

        Args:
            empty: this worker has nothing, and nothing is about to come.
        """
        self.asked = empty and not self.resting
        try:
            yield self.asked
        finally:
            self.asked = False

    def came(self, kind: Kind) -> None:
        """A suspect has come to run alone."""
        self._last = kind
        self.resting = True

    def tasks_first(self, *, waits: bool) -> bool:
        """Whether tasks are claimed before instances.

        Args:
            waits: a suspect task waits for an empty worker.
        """
        return self._last == "instance" or (waits and self._last is None)
