"""Operators: what each takes as its operand, and what EventBridge refuses there.

Every reader takes the operand and gives back the operator and its normal form as JSON. The
rules are those of AWS's event-ruler; `docs/reference/patterns.md` tells them with examples.
"""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from triggerflow.triggers.pattern.addresses import read_network
from triggerflow.triggers.pattern.conditions import (
    Absent,
    AnythingBut,
    Equals,
    EqualsIgnoreCase,
    Exists,
    Numeric,
    Operator,
    Prefix,
    Scalar,
    Suffix,
    Wildcard,
)
from triggerflow.triggers.pattern.scalars import (
    OperandError,
    check_text,
    in_order,
    kind_of,
    quoted,
    rank,
    read_number,
    read_scalar,
    scalar_text,
)
from triggerflow.triggers.pattern.wildcards import read_wildcard

if TYPE_CHECKING:
    from collections.abc import Callable

Read: TypeAlias = "tuple[Operator, str]"

_SINGLE: Final = (
    "an operator object has exactly one key, found ",
    "write each operator as an object of its own",
)


def read_operator(entry: dict[Any, Any]) -> Read:
    """Read ``{"operator": operand}``.

    Returns:
        The operator and its normal form; an `Equals` of one value for what only says that.

    Raises:
        OperandError: the operator is unknown or its operand breaks a rule.
    """
    name = _only_key(entry)
    reader = _READERS.get(name)
    if reader is None:
        near = difflib.get_close_matches(name[:60].lower(), _READERS, n=1)
        raise OperandError(
            f"unknown operator {name!r:.80}",
            f"did you mean {near[0]!r}?"
            if near
            else f"known are {', '.join(sorted(_READERS))}",
        )
    return reader(entry[name])


def _only_key(entry: dict[Any, Any]) -> str:
    names = [key if isinstance(key, str) else kind_of(key) for key in list(entry)[:8]]
    if len(entry) != 1:
        found = ", ".join(sorted(f"{name!r:.60}" for name in names)) or "none"
        raise OperandError(_SINGLE[0] + found, _SINGLE[1])
    return names[0]


def _text(operand: object, name: str) -> str:
    if not isinstance(operand, str):
        remedy = "write one operator for each string" if isinstance(operand, list) else ""
        raise OperandError(f"{name!r} takes a string, found {kind_of(operand)}", remedy)
    check_text(operand)
    return str(operand)


def _exactly(operand: object) -> Read:
    text = _text(operand, "exactly")
    return Equals((text,)), quoted(text)


def _affix(operand: object, name: str, make: type[Prefix | Suffix]) -> Read:
    if not isinstance(operand, dict):
        text = _text(operand, name)
        return make(text), f'{{"{name}":{quoted(text)}}}'
    inner = _only_key(operand)
    if inner != "equals-ignore-case":
        raise OperandError(
            f"{name!r} takes a string or 'equals-ignore-case', found {inner!r:.80}",
            f'write {{"{name}": {{"equals-ignore-case": "text"}}}}',
        )
    text = _text(operand[inner], inner)
    return make(text, ignore_case=True), f'{{"{name}":{{"{inner}":{quoted(text)}}}}}'


def _prefix(operand: object) -> Read:
    return _affix(operand, "prefix", Prefix)


def _suffix(operand: object) -> Read:
    return _affix(operand, "suffix", Suffix)


def _equals_ignore_case(operand: object) -> Read:
    text = _text(operand, "equals-ignore-case")
    return EqualsIgnoreCase(text), f'{{"equals-ignore-case":{quoted(text)}}}'


def _wildcard(operand: object) -> Read:
    text = _text(operand, "wildcard")
    return Wildcard(text, read_wildcard(text)), f'{{"wildcard":{quoted(text)}}}'


def _cidr(operand: object) -> Read:
    text = _text(operand, "cidr")
    return read_network(text), f'{{"cidr":{quoted(text)}}}'


def _exists(operand: object) -> Read:
    if operand is True:
        return Exists(), '{"exists":true}'
    if operand is False:
        return Absent(), '{"exists":false}'
    raise OperandError(f"'exists' takes true or false, found {kind_of(operand)}")


_NUMERIC_FORMS: Final = (
    'write ["=", 5], ["<", 5], or a range, lower bound first: [">", 0, "<=", 5]'
)


def _numeric(operand: object) -> Read:
    if not isinstance(operand, list):
        raise OperandError(f"'numeric' takes a list, found {kind_of(operand)}", _NUMERIC_FORMS)
    if len(operand) not in (2, 4):
        raise OperandError(
            f"'numeric' takes one or two pairs of a comparison and a number, "
            f"found a list of {len(operand)}",
            _NUMERIC_FORMS,
        )
    sign = _sign(operand[0], ("=", "<", "<=", ">", ">="))
    number = _bound(operand[1])
    if len(operand) == 2:
        if sign == "=":
            return Equals((number,)), scalar_text(number)
        text = f'{{"numeric":["{sign}",{number!r}]}}'
        if sign in (">", ">="):
            return Numeric(low=number, low_open=sign == ">"), text
        return Numeric(high=number, high_open=sign == "<"), text
    if sign not in (">", ">="):
        raise OperandError(f"{sign!r} can't begin a range", _NUMERIC_FORMS)
    upper = _sign(operand[2], ("<", "<="))
    top = _bound(operand[3])
    if not number < top:
        raise OperandError(
            f"the range from {number!r} to {top!r} is empty: bottom must be less than top",
            "for one number write it as a value: [5]",
        )
    return (
        Numeric(number, sign == ">", top, upper == "<"),
        f'{{"numeric":["{sign}",{number!r},"{upper}",{top!r}]}}',
    )


def _sign(entry: object, allowed: tuple[str, ...]) -> str:
    if isinstance(entry, str) and entry in allowed:
        return str(entry)
    found = f"{entry!r:.40}" if isinstance(entry, str) else kind_of(entry)
    raise OperandError(
        f"found {found} in 'numeric', expected one of {' '.join(allowed)}", _NUMERIC_FORMS
    )


def _bound(entry: object) -> int | float:
    try:
        return read_number(entry)
    except OperandError as error:
        raise OperandError(f"in 'numeric': {error.problem}", error.remedy) from None


# --- anything-but -------------------------------------------------------------------------


def _anything_but(operand: object) -> Read:
    if isinstance(operand, dict):
        return _anything_but_operator(operand)
    entries = operand if isinstance(operand, list) else [operand]
    values: dict[tuple[int, Scalar], Scalar] = {}
    for entry in entries:
        if type(entry) not in (str, int, float):
            raise OperandError(
                f"'anything-but' takes strings or numbers, found {kind_of(entry)}",
                "to exclude null, true or false, list what is welcome instead",
            )
        value = read_scalar(entry)
        values[rank(value), value] = value
    if not values:
        raise OperandError("'anything-but' takes at least one value, found an empty list")
    if len({level for level, _ in values}) > 1:
        raise OperandError(
            "'anything-but' takes strings or numbers, found both",
            "they can't be mixed in one list",
        )
    ordered = in_order(values)
    text = _one_or_list([scalar_text(value) for value in ordered])
    return AnythingBut((Equals(tuple(ordered)),)), f'{{"anything-but":{text}}}'


def _anything_but_operator(operand: dict[Any, Any]) -> Read:
    name = _only_key(operand)
    reader = _EXCLUDING.get(name)
    if reader is None:
        raise OperandError(
            f"'anything-but' can't exclude {name!r:.80}",
            f"it takes values, or one of {', '.join(sorted(_EXCLUDING))}",
        )
    entries = operand[name]
    found: dict[str, Operator] = {}
    for entry in entries if isinstance(entries, list) else [entries]:
        text = _text(entry, name)
        if not text and name in ("prefix", "suffix"):
            raise OperandError(
                f"an empty {name} in 'anything-but' would exclude every string",
                "leave it out, or list the values that are welcome",
            )
        found[text], _ = reader(text)
    if not found:
        raise OperandError(f"{name!r} takes at least one string, found an empty list")
    ordered = sorted(found)
    text = _one_or_list([quoted(each) for each in ordered])
    return (
        AnythingBut(tuple(found[each] for each in ordered)),
        f'{{"anything-but":{{"{name}":{text}}}}}',
    )


def _one_or_list(texts: list[str]) -> str:
    return texts[0] if len(texts) == 1 else f"[{','.join(texts)}]"


_READERS: Final[dict[str, Callable[[object], Read]]] = {
    "anything-but": _anything_but,
    "cidr": _cidr,
    "equals-ignore-case": _equals_ignore_case,
    "exactly": _exactly,
    "exists": _exists,
    "numeric": _numeric,
    "prefix": _prefix,
    "suffix": _suffix,
    "wildcard": _wildcard,
}
_EXCLUDING: Final[dict[str, Callable[[object], Read]]] = {
    "equals-ignore-case": _equals_ignore_case,
    "prefix": _prefix,
    "suffix": _suffix,
    "wildcard": _wildcard,
}
NAMES: Final = frozenset(_READERS)
EXCLUDABLE: Final = frozenset(_EXCLUDING)
# Names that can't be fields of an `$or` branch: with one of them the list is read as the values
# of a field that is called "$or", as EventBridge does.
RESERVED: Final = NAMES | frozenset(
    {"=", "<", "<=", ">", ">=", "regex", "not-wildcard", "not-equals-ignore-case"}
    | {"date-after", "date-on-or-after", "date-before", "date-on-or-before", "in-date-range"}
    | {"ip-address-in-range", "ip-address-not-in-range"}
)
