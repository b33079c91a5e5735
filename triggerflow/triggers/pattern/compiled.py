"""A compiled pattern: called with a document it tells whether it matches, and if not, why."""

from __future__ import annotations

import json
from functools import cached_property
from typing import TYPE_CHECKING, Any

import attrs

from triggerflow.triggers.pattern.explaining import explain
from triggerflow.triggers.pattern.matching import document_test
from triggerflow.triggers.pattern.reading import read_pattern

if TYPE_CHECKING:
    from triggerflow.triggers.pattern.conditions import Conditions, KeyPath
    from triggerflow.triggers.pattern.explaining import Mismatch
    from triggerflow.triggers.pattern.leaves import Test


@attrs.frozen
class Pattern:
    """A compiled pattern: call it with a document to learn whether it matches.

    Two patterns are equal when their sources are, and the source is a normal form: the order
    of keys, of welcome values and of ``$or`` branches, repeated values and ``1.0`` for ``1``
    make no difference. All rules were checked when it was made; what it does with documents is
    built when the first one comes.

    Attributes:
        text: the source as canonical JSON.
        conditions: what it asks for, as data: for an index, and for whoever explains it.
    """

    text: str
    conditions: Conditions = attrs.field(eq=False, repr=False)

    def __call__(self, document: object) -> bool:
        """Tell whether the document matches. No JSON value makes it raise."""
        return isinstance(document, dict) and self._test(document)

    @cached_property
    def _test(self) -> Test:
        return document_test(self.conditions)

    @property
    def source(self) -> dict[str, Any]:
        """The pattern in normal form, as a copy of its own; `compile_pattern` takes it back."""
        source: dict[str, Any] = json.loads(self.text)
        return source

    @property
    def paths(self) -> tuple[KeyPath, ...]:
        """The key path of every leaf, those in ``$or`` included, sorted."""
        return tuple(sorted({leaf.path for leaf in self.conditions.every_leaf()}))

    def explain(self, document: object) -> Mismatch | None:
        """Say why a document doesn't match: the first field that fails, and what is there.

        Returns:
            None when it matches. What it returns is bounded, whatever the document holds.
        """
        return None if self(document) else explain(self.conditions, document)


def compile_pattern(pattern: object) -> Pattern:
    """Compile an EventBridge event pattern; `docs/reference/patterns.md` tells the language.

    Args:
        pattern: nested dicts; every leaf is a non-empty list of strings, numbers, booleans,
            None and operators.

    Raises:
        PatternError: the pattern breaks a rule; the error has the path and a remedy.
    """
    return Pattern(*read_pattern(pattern))
