"""Reading a pattern: every rule is checked here, in one walk, before anything is registered.

The walk gives the normal form and the conditions. No closure is built: that waits for the
first document (`matching`), so that a hundred thousand patterns can be registered in a
second or two.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any

from triggerflow.errors import PatternError
from triggerflow.triggers.pattern.addresses import same_address
from triggerflow.triggers.pattern.alternatives import expanded_size
from triggerflow.triggers.pattern.complexity import too_complex
from triggerflow.triggers.pattern.conditions import (
    AnythingBut,
    Conditions,
    Equals,
    Leaf,
    Wildcard,
)
from triggerflow.triggers.pattern.operands import RESERVED, read_operator
from triggerflow.triggers.pattern.scalars import (
    OperandError,
    check_text,
    in_order,
    kind_of,
    path_text,
    quoted,
    rank,
    read_scalar,
    scalar_text,
)

if TYPE_CHECKING:
    from collections.abc import Iterable

    from triggerflow.triggers.pattern.conditions import KeyPath, Operator, Scalar

# No document is nested deeper, so no deeper pattern could ever match.
MAX_DEPTH = 128
# EventBridge's limit: the lengths of all `$or` lists, multiplied.
MAX_COMBINATIONS = 1000
# And how many fields these combinations may have together.
MAX_EXPANDED = 100_000
OR = "$or"


def read_pattern(pattern: object) -> tuple[str, Conditions]:
    """Check a pattern and return its normal form and its conditions.

    Raises:
        PatternError: the pattern breaks a rule; the error has the path and a remedy.
    """
    if not isinstance(pattern, dict):
        raise PatternError(
            "match",
            f"found {kind_of(pattern)}, expected an object",
            'write {"field": ["value"]}',
        )
    reader = _Reader()
    text, conditions = reader.conjunction(pattern, ())
    if reader.combinations > 1:
        _refuse_repeated(conditions, {})
        if expanded_size(conditions) > MAX_EXPANDED:
            raise PatternError(
                "match",
                f'more than {MAX_EXPANDED} fields when "$or" is multiplied out',
                "register several triggers",
            )
        reader.refuse_mixed()
    return text, conditions


class _Reader:
    """One walk over one pattern."""

    def __init__(self) -> None:
        self.combinations = 1
        self.nested_choices = 0
        self.or_fields: list[KeyPath] = []  # where "$or" is a field like any other

    def conjunction(self, pattern: dict[Any, Any], keys: KeyPath) -> tuple[str, Conditions]:
        """Read an object at this path, and all below it."""
        leaves: list[Leaf] = []
        choices: list[tuple[Conditions, ...]] = []
        text = self.object(pattern, keys, leaves, choices)
        if len(leaves) > 1:
            leaves.sort(key=_path_of)
        return text, Conditions(tuple(leaves), tuple(choices))

    def object(
        self,
        pattern: dict[Any, Any],
        keys: KeyPath,
        leaves: list[Leaf],
        choices: list[tuple[Conditions, ...]],
    ) -> str:
        """Read the fields of an object into these lists; return its normal form."""
        if not pattern:
            raise _empty(keys)
        if len(keys) + self.nested_choices >= MAX_DEPTH:
            raise PatternError(
                path_text(keys),
                f"nested deeper than {MAX_DEPTH} objects",
                "no document is nested that deep",
            )
        fields: list[tuple[str, str]] = []
        for key, value in pattern.items():
            if type(key) is not str or not key.isascii():
                _check_key(key, keys)
            here = _shared((*keys, key))
            if self.nested_choices and key in RESERVED:
                raise PatternError(
                    path_text(here),
                    f'{key!r} can\'t be a field inside "$or": EventBridge reserves the name',
                    'write operators in a list: {"field": [{"prefix": "x"}]}',
                )
            if isinstance(value, dict):
                if key == OR:
                    self.or_fields.append(here)
                text = self.object(value, here, leaves, choices)
            elif not isinstance(value, list):
                raise PatternError(
                    path_text(here),
                    f"found {kind_of(value)}, expected a list of values or an object",
                    "put the value into a list",
                )
            elif key == OR and self.is_choice(value, here):
                text = self.choice(value, keys, choices)
            else:
                if key == OR:
                    self.or_fields.append(here)
                text, operators = _read_leaf(value, here)
                leaves.append(Leaf(here, operators))
            fields.append((key, text))
        if len(fields) == 1:
            key, text = fields[0]
            return f"{{{quoted(key)}:{text}}}"
        fields.sort()
        return "{" + ",".join([f"{quoted(key)}:{text}" for key, text in fields]) + "}"

    def is_choice(self, value: list[Any], here: KeyPath) -> bool:
        """Whether this ``$or`` is the operator; EventBridge takes it for a field else."""
        objects = [entry for entry in value if isinstance(entry, dict)]
        if not objects or any(key in RESERVED for entry in objects for key in entry):
            return False
        if len(objects) < len(value) or len(value) < 2:
            raise PatternError(
                path_text(here),
                '"$or" takes a list of at least two objects',
                'write {"$or": [{"a": ["x"]}, {"b": ["y"]}]}',
            )
        return True

    def choice(
        self, branches: list[Any], keys: KeyPath, choices: list[tuple[Conditions, ...]]
    ) -> str:
        """Read a ``$or``; its branches stand at the path of the object around it."""
        self.combinations *= len(branches)
        if self.combinations > MAX_COMBINATIONS:
            raise PatternError(
                path_text((*keys, OR)),
                f"more than {MAX_COMBINATIONS} combinations: the lengths of all "
                '"$or" lists, multiplied',
                "register several triggers",
            )
        self.nested_choices += 1
        read = []
        for at, branch in enumerate(branches):
            if not branch:
                raise _empty((*keys, f"{OR}[{at}]"))
            read.append(self.conjunction(branch, keys))
        self.nested_choices -= 1
        read.sort(key=_text_of)
        choices.append(tuple(conditions for _, conditions in read))
        return "[" + ",".join([text for text, _ in read]) + "]"

    def refuse_mixed(self) -> None:
        """Refuse ``$or`` as the operator and as a field's name in one pattern."""
        for path in self.or_fields:
            raise PatternError(
                path_text(path),
                '"$or" is a field here and the operator elsewhere in the pattern',
                "EventBridge can't tell them apart: rename the field, or use one of them",
            )


def _read_leaf(entries: list[Any], keys: KeyPath) -> tuple[str, tuple[Operator, ...]]:
    if len(entries) == 1 and type(entries[0]) is str and ":" not in entries[0]:
        (only,) = entries  # by far the commonest leaf
        if only.isascii():
            return f"[{quoted(only)}]", (Equals((only,)),)
    if not entries:
        raise PatternError(
            path_text(keys),
            "an empty list is not allowed: nothing could match",
            "name at least one value, or leave the field out",
        )
    # keyed with the type, since True == 1 for Python and never for a pattern
    values: dict[tuple[int, Scalar], Scalar] = {}
    operators: dict[str, Operator] = {}
    for at, entry in enumerate(entries):
        try:
            if isinstance(entry, dict):
                operator, text = read_operator(entry)
                if not isinstance(operator, Equals):
                    operators[text] = operator
                    continue
                (value,) = operator.values
            else:
                value = read_scalar(entry)
        except OperandError as error:
            raise PatternError(
                f"{path_text(keys)}[{at}]", error.problem, error.remedy
            ) from None
        values[rank(value), value] = value
    ordered = in_order(values)
    texts = [scalar_text(value) for value in ordered] + sorted(operators)
    return f"[{','.join(texts)}]", _operators(ordered, operators, keys)


def _operators(
    values: list[Scalar], operators: dict[str, Operator], keys: KeyPath
) -> tuple[Operator, ...]:
    found: list[Operator] = []
    plain: list[Scalar] = []
    for value in values:
        address = same_address(value) if isinstance(value, str) else None
        if address is None:
            plain.append(value)
        else:
            found.append(address)
    if plain:
        found.insert(0, Equals(tuple(plain)))
    found += [operators[text] for text in sorted(operators)]
    together = [
        operator.none_of if isinstance(operator, AnythingBut) else (operator,)
        for operator in found
    ]
    wildcards = [
        [each.parts for each in pattern if isinstance(each, Wildcard)] for pattern in together
    ]
    if any(wildcards) and too_complex(filter(None, wildcards)):
        raise PatternError(
            path_text(keys),
            "the wildcards of this field are too complex",
            "use fewer stars, or fewer repeated characters after a star",
        )
    return tuple(found)


def _refuse_repeated(conditions: Conditions, taken: dict[KeyPath, bool]) -> None:
    """Refuse a path that two parts of one conjunction both ask for.

    Args:
        taken: what is asked for around this conjunction: True for the path of a leaf, False
            for one that has leaves below it. It comes back as it was.
    """
    before: list[tuple[KeyPath, bool | None]] = []

    def take(leaves: Iterable[Leaf]) -> None:
        for leaf in leaves:
            before.append((leaf.path, taken.get(leaf.path)))
            taken[leaf.path] = True
            for above in _above(leaf.path):
                if above not in taken:
                    before.append((above, None))
                    taken[above] = False

    for leaf in conditions.leaves:
        if leaf.path in taken or any(taken.get(above) for above in _above(leaf.path)):
            raise PatternError(
                path_text(leaf.path),
                'a branch of "$or" repeats a path that is asked for outside it',
                "write the field into every branch, or into none",
            )
    take(conditions.leaves)
    for choice in conditions.choices:
        for branch in choice:
            _refuse_repeated(branch, taken)
        # branches of one choice may share a path; the next choice may use none of theirs
        take([leaf for branch in choice for leaf in branch.every_leaf()])
    for path, was in reversed(before):
        if was is None:
            del taken[path]
        else:
            taken[path] = was


def _above(path: KeyPath) -> list[KeyPath]:
    return [path[:length] for length in range(1, len(path))]


def _check_key(key: object, keys: KeyPath) -> None:
    if not isinstance(key, str):
        raise PatternError(
            path_text(keys),
            f"found a key that is {kind_of(key)}, expected a string",
            "quote it",
        )
    try:
        check_text(key)
    except OperandError as error:
        raise PatternError(path_text(keys), error.problem, error.remedy) from None


def _empty(keys: KeyPath) -> PatternError:
    return PatternError(
        path_text(keys),
        "an empty object is not allowed",
        "leave the field out to accept anything there"
        if keys
        else "leave match out to accept every document",
    )


@lru_cache(maxsize=4096)
def _shared(path: KeyPath) -> KeyPath:
    """One tuple for equal paths: a registry has many patterns over few paths."""
    return path


def _path_of(leaf: Leaf) -> KeyPath:
    return leaf.path


def _text_of(read: tuple[str, Conditions]) -> str:
    return read[0]
