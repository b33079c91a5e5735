"""Sets of triggers made up from real documents: the same seed gives the same triggers.

Each is drawn from one document: its type, and one or two of its fields. What is asked of the
fields is what the sets differ in::

    selective   equality; 1.2 % of the triggers ask for the document's own values, the others
                for values that occur nowhere
    skewed      the same, all on one type, half of them also on the same action; none fires
    mixed       70 % equality, the rest every other operator; one that nearly every value
                meets stands beside an equality; 1.2 % are the document's own
    dense       the same operators, drawn from the document's own values, some of them on
                every type: each document meets hundreds of 100,000
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from typing import Any

# Of 100,000 triggers a webhook then meets about twelve.
REAL = 0.012
Fields = list[tuple[tuple[str, ...], list[Any]]]


def fields_of(
    document: Any, path: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Every value of a document with its path, arrays crushed."""
    if isinstance(document, dict):
        for key, value in document.items():
            yield from fields_of(value, (*path, key))
    elif isinstance(document, list):
        for value in document:
            yield from fields_of(value, path)
    else:
        yield path, document


class Sets:
    """Draws triggers from documents.

    Args:
        documents: activities with a ``type``.
    """

    def __init__(self, documents: Sequence[dict[str, Any]], seed: int = 1) -> None:
        self._random = random.Random(seed)
        self._drawn = [
            (document["type"], [each for each in fields_of(document) if each[0] != ("type",)])
            for document in documents
        ]

    def draw(self, kind: str, count: int) -> Iterator[dict[str, Any]]:
        """So many triggers, as the arguments of `define_trigger`; starts are left out.

        Some have one pattern; each has another version, so that no two mean the same.
        """
        make: Callable[[], tuple[Any, Any]] = getattr(self, f"_{kind}")
        for number in range(count):
            on, match = make()
            name = f"{kind}-{number}"
            yield {"name": name, "on": on, "match": match, "version": number + 1}

    def _selective(self) -> tuple[Any, Any]:
        on, fields = self._random.choice(self._drawn)
        real = self._random.random() < REAL
        return on, nested(
            (path, [value if real else self._unseen(value)])
            for path, value in self._some(fields)
        )

    def _skewed(self) -> tuple[Any, Any]:
        on, fields = self._drawn[0]
        asked = [(path, [self._unseen(value)]) for path, value in self._some(fields, 1)]
        if self._random.random() < 0.5:
            asked += [(path, [value]) for path, value in fields if path[-1] == "action"][:1]
        return on, nested(asked)

    def _mixed(self) -> tuple[Any, Any]:
        if self._random.random() < 0.7:
            return self._selective()
        on, fields = self._random.choice(self._drawn)
        real = self._random.random() < REAL
        some = self._some(fields)
        asked: Fields = []
        for path, value in some:
            operator, broad = self._operator(value, real)
            asked.append((path, [operator]))
            if broad:
                beside, other = self._random.choice(fields)
                asked.append((beside, [other if real else self._unseen(other)]))
        return on, self._joined(asked)

    def _dense(self) -> tuple[Any, Any]:
        on, fields = self._random.choice(self._drawn)
        asked: Fields = []
        for path, value in self._some(fields):
            chance = self._random.random()
            if chance < 0.7:
                asked.append((path, [value if chance < 0.5 else self._unseen(value)]))
            else:
                asked.append((path, [self._operator(value, chance < 0.9)[0]]))
        return "*" if self._random.random() < 0.02 else on, self._joined(asked)

    def _joined(self, asked: Fields) -> Any:
        """One pattern of these fields: a tenth of those of two have them in a `$or`."""
        paths = {path for path, _ in asked}
        if len(asked) == 2 and len(paths) == 2 and self._random.random() < 0.1:
            return {"$or": [nested([each]) for each in asked]}
        return nested(asked)

    def _some(self, fields: list[Any], most: int = 2) -> list[Any]:
        return self._random.sample(fields, self._random.randint(1, most))

    def _unseen(self, value: Any) -> Any:
        """A value of the kind that no document has."""
        number = self._random.randrange(10**9)
        if isinstance(value, int | float) and not isinstance(value, bool):
            return 10**15 + number
        # there are no other nulls and booleans: a text stands for them
        return f"{value[:40] if isinstance(value, str) else 'none'}-{number}"

    def _operator(self, value: Any, real: bool) -> tuple[Any, bool]:
        """An operator that holds for the value, or for nothing like it; and whether it holds
        for nearly everything.
        """
        pick = self._random.choice
        broad = [{"exists": True}, {"exists": False}, {"anything-but": ["x", "y"]}]
        other = self._unseen(value)
        if isinstance(value, int | float) and not isinstance(value, bool):
            middle = value if real else other
            off = self._random.randrange(1, 1000)
            narrow = [
                {"numeric": [">", middle - off, "<=", middle + off]},
                {"numeric": ["=", middle]},
                {"numeric": [">=", middle]},
            ]
            broad += [{"anything-but": [value, off]}, {"numeric": ["<", 10**14]}]
        elif isinstance(value, str) and value:
            text = value if real else other
            at = self._random.randint((len(text) + 1) // 2, len(text))
            head, tail = text if not real else text[:at], text[-at:]
            narrow = [
                {"prefix": head},
                {"suffix": tail},
                {"wildcard": escaped(head) + "*"},
                {"wildcard": "*" + escaped(tail)},
                {"wildcard": escaped(head) + "*" + escaped(tail[-1:])},
                {"equals-ignore-case": text.swapcase()},
                {"prefix": {"equals-ignore-case": head.swapcase()}},
                {"suffix": {"equals-ignore-case": tail.swapcase()}},
                {"cidr": f"{self._random.randrange(256)}.0.0.0/{pick([8, 12, 20])}"},
            ]
            broad += [
                {"anything-but": {"prefix": head}},
                {"anything-but": {"suffix": [tail]}},
                {"anything-but": {"equals-ignore-case": text}},
                {"anything-but": {"wildcard": "*" + escaped(tail)}},
                {"wildcard": "*" + escaped(text[:1]) + "*"},
            ]
        else:
            return pick(broad), True
        if self._random.random() < 0.6:
            return pick(narrow), False
        return pick(broad), True


def escaped(text: str) -> str:
    """The text inside a wildcard."""
    return text.replace("\\", "\\\\").replace("*", "\\*")


def nested(fields: Any) -> dict[str, Any]:
    """The pattern of these (path, entries); of two that clash the first is taken."""
    pattern: dict[str, Any] = {}
    for path, entries in fields:
        node: Any = pattern
        for key in path[:-1]:
            node = node.setdefault(key, {}) if isinstance(node, dict) else None
        if isinstance(node, dict):
            node.setdefault(path[-1], entries)
    return pattern or {"type": [{"exists": True}]}
