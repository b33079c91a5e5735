"""Upper and lower case, as EventBridge takes them: one character of the pattern at a time.

Each character of the pattern stands for its own lower case and upper case, in full: ``ß`` is
met by ``ß`` and ``SS``, never by ``ss``. So it's the pattern that says what is welcome, and the
relation isn't symmetric: ``SS`` is met by ``ss``, not by ``ß``. Nothing is normalised: a letter
with a combining accent is two characters.

Beyond EventBridge: a character is always met by itself (the title case ``Dž`` isn't, there),
and those outside the basic plane work.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable


def forms_of(text: str) -> tuple[tuple[str, ...], ...]:
    """For each character its forms. No form begins or ends like another one of the same
    character, so that taking the first that fits is right.
    """
    known: dict[str, tuple[str, ...]] = {}
    for letter in set(text):
        known[letter] = tuple(dict.fromkeys((letter, letter.lower(), letter.upper())))
    return tuple(known[letter] for letter in text)


def equals_ignoring_case(text: str) -> Callable[[Any], bool]:
    """Hold for a string that is the text in any case."""
    if text.isascii():
        length, lower = len(text), text.lower()

        def holds(value: Any) -> bool:
            # only an ASCII value: beyond it, the Kelvin sign has k as its lower case
            return (
                type(value) is str
                and len(value) == length
                and value.isascii()
                and value.lower() == lower
            )

        return holds
    forms = forms_of(text)
    return lambda value: type(value) is str and _forward(value, forms) == len(value)


def begins_ignoring_case(text: str) -> Callable[[Any], bool]:
    """Hold for a string that begins with the text in any case."""
    if text.isascii():
        equals, length = equals_ignoring_case(text), len(text)
        return lambda value: type(value) is str and equals(value[:length])
    forms = forms_of(text)
    return lambda value: type(value) is str and _forward(value, forms) >= 0


def ends_ignoring_case(text: str) -> Callable[[Any], bool]:
    """Hold for a string that ends with the text in any case."""
    if text.isascii():
        equals, length = equals_ignoring_case(text), len(text)
        return lambda value: (
            type(value) is str and equals(value[len(value) - length :] if length else "")
        )
    forms = forms_of(text)[::-1]
    return lambda value: type(value) is str and _backward(value, forms)


def _forward(value: str, forms: tuple[tuple[str, ...], ...]) -> int:
    """How far the forms reach from the value's beginning; -1 when they don't fit."""
    at = 0
    for options in forms:
        for option in options:
            if value.startswith(option, at):
                at += len(option)
                break
        else:
            return -1
    return at


def _backward(value: str, forms: tuple[tuple[str, ...], ...]) -> bool:
    stop = len(value)
    for options in forms:
        for option in options:
            if value.endswith(option, 0, stop):
                stop -= len(option)
                break
        else:
            return False
    return True
