"""Why a document doesn't match: the first field that fails, what was wanted, what is there.

Whatever the document holds, an explanation stays short: a few values, each cut, and a few
names that are nearly the one that was wanted.
"""

from __future__ import annotations

import difflib
import itertools
import json
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import attrs

from triggerflow.core.paths import Path
from triggerflow.triggers.pattern.conditions import (
    Absent,
    AnythingBut,
    Conditions,
    Equals,
    EqualsIgnoreCase,
    Exists,
    InNetwork,
    Numeric,
    Prefix,
    Suffix,
    Wildcard,
)
from triggerflow.triggers.pattern.matching import document_test
from triggerflow.triggers.pattern.scalars import kind_of, path_text

if TYPE_CHECKING:
    from collections.abc import Iterator

    from triggerflow.triggers.pattern.conditions import KeyPath, Leaf, Operator

    Place: TypeAlias = "tuple[str | int, ...]"

_SHOWN: Final = 5
_WIDTH: Final = 60
# How many values, objects and keys are looked at for one explanation, and how deep.
_LOOKED_AT: Final = 1000
_DEEPEST: Final = 400
_BRANCHES: Final = 3
_DEEPEST_BRANCH: Final = 3


@attrs.frozen
class Seen:
    """A value that was in the field's place.

    Attributes:
        at: where in the document, as a JSONPath: ``$.items[2].name``.
        value: the value as JSON, cut; ``an object`` or ``an empty array`` where no value is.
    """

    at: str
    value: str


@attrs.frozen
class Mismatch:
    """The first field of a pattern that a document fails.

    Attributes:
        path: the field, as errors name it: ``match.object.type``; for a ``$or`` its own path.
        expected: the field's operators as text, one of which had to hold; cut after a few.
        seen: what is there instead, a few of it; empty when the field is absent.
        missing: the first key on the way that the document lacks, cut; None when all are there.
        near: keys that are there and spelt nearly like the missing one.
        apart: whether the field would hold alone: no single array element (or, for a ``$or``,
            no combination of branches) has it together with the fields before it.
        branches: for a ``$or``, why the first branches fail.
    """

    path: str
    expected: tuple[str, ...]
    seen: tuple[Seen, ...] = ()
    missing: str | None = None
    near: tuple[str, ...] = ()
    apart: bool = False
    branches: tuple[Mismatch, ...] = ()

    def __str__(self) -> str:
        wanted = " or ".join(self.expected)
        if self.branches:
            return f"{self.path}: no branch holds: " + "; ".join(map(str, self.branches))
        if self.apart:
            found = "there is one, but not in the same array element as the fields before it"
        elif self.seen:
            found = "found " + ", ".join(f"{seen.value} at {seen.at}" for seen in self.seen)
        else:
            found = f"{_quoted(self.missing)} is absent" if self.missing else "absent"
            if self.near:
                found += f", did you mean {' or '.join(map(_quoted, self.near))}?"
        return f"{self.path}: expected {wanted}, {found}"


def explain(conditions: Conditions, document: object, depth: int = 0) -> Mismatch | None:
    """Find the first field that fails; None when all hold."""
    if not isinstance(document, dict):
        return Mismatch("match", ("an object",), (Seen("$", kind_of(document)),))
    # those that may be absent depend on the fields before them
    for leaf in conditions.leaves:
        if not leaf.may_be_absent and not _holds((leaf,), document):
            return _leaf(leaf, document)
    if not _holds(conditions.leaves, document):
        return _first_apart(conditions.leaves, document)
    for at, choice in enumerate(conditions.choices):
        if not document_test(Conditions(conditions.leaves, (choice,)))(document):
            return _choice(conditions.leaves, choice, document, depth)
        if not document_test(Conditions(conditions.leaves, conditions.choices[: at + 1]))(
            document
        ):
            return Mismatch(_or_path(choice), ("one of its branches",), apart=True)
    return None


def _holds(leaves: tuple[Leaf, ...], document: dict[str, Any]) -> bool:
    return document_test(Conditions(leaves))(document)


def _first_apart(leaves: tuple[Leaf, ...], document: dict[str, Any]) -> Mismatch:
    """The field that fails beside those before it, found by halving.

    Fields are taken in the order in which absences depend on each other, where what comes
    later never changes what came before.
    """
    ordered = tuple(sorted(leaves, key=lambda leaf: ".".join(leaf.path)))
    low, high = 0, len(ordered)  # the first `low` hold together, the first `high` don't
    while high - low > 1:
        middle = (low + high) // 2
        if _holds(ordered[:middle], document):
            low = middle
        else:
            high = middle
    leaf = ordered[low]
    if _holds((leaf,), document):
        return attrs.evolve(_leaf(leaf, document), apart=True)
    return _leaf(leaf, document)


def _choice(
    outer: tuple[Leaf, ...],
    choice: tuple[Conditions, ...],
    document: dict[str, Any],
    depth: int,
) -> Mismatch:
    path = _or_path(choice)
    expected = (f"one of {len(choice)} branches",)
    if depth >= _DEEPEST_BRANCH:
        return Mismatch(path, expected)
    why = []
    for branch in choice[:_BRANCHES]:
        mismatch = explain(branch, document, depth + 1)
        if mismatch is None:  # it holds, but not beside what is around it
            beside = Conditions((*outer, *branch.leaves), branch.choices)
            mismatch = explain(beside, document, depth + 1)
        if mismatch is not None:
            why.append(mismatch)
    return Mismatch(path, expected, branches=tuple(why))


def _or_path(choice: tuple[Conditions, ...]) -> str:
    paths = [leaf.path[:-1] for branch in choice for leaf in branch.every_leaf()]
    common = []
    for keys in zip(*paths, strict=False):
        if len(set(keys)) > 1:
            break
        common.append(keys[0])
    return f'{path_text(tuple(common))}["$or"]'


# --- what is there ------------------------------------------------------------------------


def _leaf(leaf: Leaf, document: dict[str, Any]) -> Mismatch:
    path, expected = path_text(leaf.path), _expected(leaf)
    seen = tuple(
        Seen(_cut(str(Path(parts))), _value(value))
        for parts, value in itertools.islice(_at(document, leaf.path), _SHOWN)
    )
    if seen:
        return Mismatch(path, expected, seen)
    for length in range(1, len(leaf.path) + 1):
        above = list(itertools.islice(_at(document, leaf.path[: length - 1]), _LOOKED_AT))
        objects = [value for _, value in above if type(value) is dict]
        if not objects:
            seen = tuple(
                Seen(_cut(str(Path(parts))), _value(value)) for parts, value in above[:_SHOWN]
            )
            return Mismatch(path, expected, seen)
        key = leaf.path[length - 1]
        if not any(key in each for each in objects):
            return Mismatch(path, expected, missing=_cut(key), near=_near(key, objects))
    return Mismatch(path, expected)


def _at(document: dict[str, Any], path: KeyPath) -> Iterator[tuple[Place, Any]]:
    """Yield what stands at this path, through all arrays, each with where it stands.

    It looks at a bounded number of values, and no deeper than documents nest.
    """
    first: tuple[Place, int, Any] = ((), 0, document)
    open_places: list[Iterator[tuple[Place, int, Any]]] = [iter([first])]
    for _ in range(_LOOKED_AT):
        while (step := next(open_places[-1], None)) is None:
            open_places.pop()
            if not open_places:
                return
        parts, taken, value = step
        if type(value) is list and value:
            if len(parts) < _DEEPEST:
                open_places.append(_elements(parts, taken, value))
        elif taken == len(path):
            yield parts, value
        elif type(value) is dict and path[taken] in value:
            key = path[taken]
            open_places.append(iter([((*parts, key), taken + 1, value[key])]))


def _elements(parts: Place, taken: int, array: list[Any]) -> Iterator[tuple[Place, int, Any]]:
    for at, inner in enumerate(array):
        yield (*parts, at), taken, inner


def _near(key: str, objects: list[dict[str, Any]]) -> tuple[str, ...]:
    names = dict.fromkeys(
        itertools.islice((name[:_WIDTH] for each in objects for name in each), _LOOKED_AT)
    )
    return tuple(difflib.get_close_matches(key[:_WIDTH], names, n=3, cutoff=0.7))


def _value(value: Any) -> str:
    if type(value) is dict:
        return "an object"
    if type(value) is list:
        return "an empty array" if not value else "an array"
    if type(value) is str:
        return _quoted(value)
    try:
        return _cut(json.dumps(value))
    except (TypeError, ValueError):
        return kind_of(value)


# --- what was wanted ----------------------------------------------------------------------


def _expected(leaf: Leaf) -> tuple[str, ...]:
    texts = list(
        itertools.islice(itertools.chain.from_iterable(map(_texts, leaf.any_of)), _SHOWN + 1)
    )
    return (*texts[:_SHOWN], "...") if len(texts) > _SHOWN else tuple(texts)


def _texts(operator: Operator) -> Iterator[str]:
    match operator:
        case Equals(values):
            yield from map(_value, values)
        case Exists():
            yield "any value"
        case Absent():
            yield "no value"
        case Prefix(text, ignore_case):
            yield f"prefix {_quoted(text)}" + " ignoring case" * ignore_case
        case Suffix(text, ignore_case):
            yield f"suffix {_quoted(text)}" + " ignoring case" * ignore_case
        case EqualsIgnoreCase(text):
            yield f"{_quoted(text)} ignoring case"
        case Wildcard(text):
            yield f"wildcard {_quoted(text)}"
        case InNetwork(text):
            yield f"an address in {_cut(text)}"
        case Numeric():
            yield _numeric(operator)
        case AnythingBut(none_of):
            shown = itertools.islice(
                itertools.chain.from_iterable(map(_texts, none_of)), _SHOWN
            )
            yield f"anything but {', '.join(shown)}"


def _numeric(operator: Numeric) -> str:
    parts = []
    if operator.low is not None:
        parts.append(f"{'>' if operator.low_open else '>='} {operator.low!r}")
    if operator.high is not None:
        parts.append(f"{'<' if operator.high_open else '<='} {operator.high!r}")
    return f"a number {' and '.join(parts)}"


def _quoted(text: str) -> str:
    return _cut(json.dumps(text[: _WIDTH + 1], ensure_ascii=False))


def _cut(text: str) -> str:
    return text if len(text) <= _WIDTH else text[: _WIDTH - 3] + "..."
