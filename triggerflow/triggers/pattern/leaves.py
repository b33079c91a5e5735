"""Closures of single fields: what holds for a value, or for some element of an array."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias

from triggerflow.triggers.pattern.addresses import read_address
from triggerflow.triggers.pattern.conditions import (
    Absent,
    AnythingBut,
    Equals,
    EqualsIgnoreCase,
    Exists,
    InNetwork,
    Numeric,
    Prefix,
    Suffix,
    Wildcard,
)
from triggerflow.triggers.pattern.folding import (
    begins_ignoring_case,
    ends_ignoring_case,
    equals_ignoring_case,
)
from triggerflow.triggers.pattern.wildcards import wildcard_test

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from triggerflow.triggers.pattern.conditions import Leaf, Operator, Scalar

# What the document has at some path -> is it welcome there?
Test: TypeAlias = "Callable[[Any], bool]"


def leaf_test(leaf: Leaf) -> Test:
    """Hold for a value, or an array with one, for which some operator of the leaf holds."""
    operators = [operator for operator in leaf.any_of if type(operator) is not Absent]
    if len(operators) == 1:
        (single,) = operators
        if isinstance(single, Equals):
            return _one_of(single.values)
        only = operator_test(single)
    else:
        only = any_of(tuple(map(operator_test, operators)))

    def holds(value: Any) -> bool:
        kind = type(value)
        if kind is list:
            for element in crushed(value):
                if type(element) is not dict and only(element):
                    return True
            return False
        return kind is not dict and only(value)

    return holds


def operator_test(operator: Operator) -> Test:
    """Hold for a value, neither object nor array, for which the operator holds."""
    return _BUILDERS[type(operator)](operator)


def _table(values: tuple[Scalar, ...]) -> dict[type, set[Scalar]]:
    """The values by type, with one set for both kinds of number: they compare exactly."""
    table: dict[type, set[Scalar]] = {}
    for value in values:
        table.setdefault(type(value), set()).add(value)
    if numbers := table.get(int, set()) | table.get(float, set()):
        table[int] = table[float] = numbers
    return table


def _one_of(values: tuple[Scalar, ...]) -> Test:
    """Hold for one of these values, or an array with one of them."""
    if len(values) == 1 and type(values[0]) is str:
        return _this_text(values[0])
    table = _table(values)

    def holds(value: Any) -> bool:
        welcome = table.get(type(value))
        if welcome is not None:
            return value in welcome
        if type(value) is not list:
            return False
        for element in crushed(value):
            welcome = table.get(type(element))
            if welcome is not None and element in welcome:
                return True
        return False

    return holds


def _this_text(text: str) -> Test:
    """Hold for this string, or an array with it: the commonest leaf, kept small and fast."""

    def holds(value: Any) -> bool:
        if type(value) is str:
            return value == text
        return type(value) is list and any(
            type(element) is str and element == text for element in crushed(value)
        )

    return holds


def _prefix(operator: Prefix) -> Test:
    if operator.ignore_case:
        return begins_ignoring_case(operator.text)
    text = operator.text
    return lambda value: type(value) is str and value.startswith(text)


def _suffix(operator: Suffix) -> Test:
    if operator.ignore_case:
        return ends_ignoring_case(operator.text)
    text = operator.text
    return lambda value: type(value) is str and value.endswith(text)


def _numeric(operator: Numeric) -> Test:
    low, high = operator.low, operator.high
    low_open, high_open = operator.low_open, operator.high_open

    def holds(value: Any) -> bool:
        if type(value) is not int and type(value) is not float:
            return False
        if low is not None and not (value > low if low_open else value >= low):
            return False
        return high is None or (value < high if high_open else value <= high)

    return holds


def _in_network(operator: InNetwork) -> Test:
    version, first, last = operator.version, operator.first, operator.last

    def holds(value: Any) -> bool:
        if type(value) is not str or not 2 <= len(value) <= 39:
            return False
        address = read_address(value)
        return address is not None and address[0] == version and first <= address[1] <= last

    return holds


def _anything_but(operator: AnythingBut) -> Test:
    excluded = any_of(tuple(operator_test(each) for each in operator.none_of))
    return lambda value: not excluded(value)


_BUILDERS: dict[type, Callable[[Any], Test]] = {
    AnythingBut: _anything_but,
    Equals: lambda operator: _one_of(operator.values),
    EqualsIgnoreCase: lambda operator: equals_ignoring_case(operator.text),
    Exists: lambda _: lambda _: True,
    InNetwork: _in_network,
    Numeric: _numeric,
    Prefix: _prefix,
    Suffix: _suffix,
    Wildcard: lambda operator: wildcard_test(operator.parts),
}


def any_of(tests: tuple[Test, ...]) -> Test:
    """Hold where one of these does."""
    return lambda value: any(test(value) for test in tests)


def crushed(array: list[Any]) -> Iterator[Any]:
    """Yield what an array holds with all arrays inside it crushed, however deep they nest."""
    open_arrays = [iter(array)]
    while open_arrays:
        for item in open_arrays[-1]:
            if type(item) is list:
                open_arrays.append(iter(item))
                break
            yield item
        else:
            open_arrays.pop()
