"""Guards: the last condition of a trigger, in code, known by ``name@version``.

Code has no CID: whoever changes what a guard decides gives it a new version.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, Final, TypeAlias

import attrs

from triggerflow.errors import DefinitionError

GuardFn: TypeAlias = Callable[[dict[str, Any]], object]

MAX_VERSION: Final = 2**63 - 1


@attrs.frozen
class Guard:
    """A last condition in code: called with the activity's document, its truth decides.

    It promises nothing about the function: the pipeline runs it, with a time limit, and
    records what it raises.

    Args:
        name: what the spec and the audit call it.
        version: raise it whenever the function decides differently.
        fn: None when only the name is known, as after `Trigger.from_spec`.

    Raises:
        DefinitionError: the name or version can't be used, or ``fn`` can't be called plainly
            with one document.
    """

    name: str
    version: int = 1
    fn: GuardFn | None = attrs.field(default=None, eq=False)

    def __attrs_post_init__(self) -> None:
        what = f"guard {self.name!r}"
        check_name(self.name, what)
        if "@" in self.name:
            raise DefinitionError(what, "a guard's name has no `@`", "")
        check_version(self.version, what)
        if self.fn is not None:
            _check_fn(self.fn, what)

    @property
    def key(self) -> str:
        """The guard as a spec names it: ``name@version``."""
        return f"{self.name}@{self.version}"


def make_guard(guard: object, what: str) -> Guard | None:
    """The guard of a trigger's ``guard=``: a `Guard`, a plain function, or ``name@version``.

    Raises:
        DefinitionError: it is none of these, or its code can't be a guard.
    """
    if guard is None or isinstance(guard, Guard):
        return guard
    if isinstance(guard, str) and "@" in guard:
        return guard_from_key(guard, None, what)
    name = getattr(guard, "__name__", None)
    if not callable(guard) or inspect.isclass(guard) or not isinstance(name, str):
        raise DefinitionError(
            what,
            f"its guard is {words(guard)}, which has no plain name",
            "give a def, Guard(name, version, fn), or 'name@version' of an @app.guard",
        )
    if name == "<lambda>":
        raise DefinitionError(
            what,
            "its guard is a lambda, which has no name to be known by",
            "give a def, or Guard(name, version, fn)",
        )
    try:
        return Guard(name, 1, guard)
    except DefinitionError as error:
        raise DefinitionError(f"{what}, {error.what}", error.problem, error.remedy) from None


def guard_from_key(key: object, fn: GuardFn | None, what: str) -> Guard:
    """The guard that a spec names.

    Raises:
        DefinitionError: the key isn't ``name@version``.
    """
    name, mark, version = key.rpartition("@") if isinstance(key, str) else ("", "", "")
    # isdecimal takes other scripts' digits and int() leading zeros: two texts, one guard
    if not mark or not version.isascii() or not version.isdecimal() or version[0] == "0":
        raise DefinitionError(what, f"its guard {key!r:.80} is not name@version", "")
    if len(version) > len(str(MAX_VERSION)):
        raise DefinitionError(what, f"its guard {key!r:.80} has no sensible version", "")
    return Guard(name, int(version), fn)


def check_name(name: object, what: str) -> None:
    """Refuse a name that can't be shown, stored and typed.

    Raises:
        DefinitionError: it is no such text.
    """
    if not isinstance(name, str) or not name.strip():
        raise DefinitionError(what, "a name is a non-empty string", "")
    if not name.isprintable() or name != name.strip():
        raise DefinitionError(
            what, "a name has no control characters and no spaces at its ends", ""
        )


def check_version(version: object, what: str) -> None:
    """Refuse what is no version.

    Raises:
        DefinitionError: it isn't a whole number from 1 up.
    """
    if type(version) is not int or not 1 <= version <= MAX_VERSION:
        raise DefinitionError(what, "its version is not an integer from 1 up", "")


def words(value: object) -> str:
    """What a value is, for an error: its kind, and its name if it has one."""
    name = getattr(value, "__name__", None)
    kind = type(value).__name__
    return f"the {kind} {name!r:.80}" if isinstance(name, str) else f"a {kind}"


def _check_fn(fn: object, what: str) -> None:
    if not callable(fn):
        raise DefinitionError(what, f"found {words(fn)}, expected a function", "")
    # an object's __call__ decides for the object
    for code in (fn, type(fn).__call__):
        if inspect.iscoroutinefunction(code) or inspect.isasyncgenfunction(code):
            raise DefinitionError(
                what, "it is a coroutine function", "a guard decides at once: write a plain def"
            )
        if inspect.isgeneratorfunction(code):
            raise DefinitionError(
                what,
                "it is a generator function, whose result is always true",
                "a guard decides at once: return, don't yield",
            )
    try:
        inspect.signature(fn).bind({})
    except TypeError:
        raise DefinitionError(
            what, "it can't be called with one argument, the activity's document", ""
        ) from None
    except ValueError:
        pass  # a builtin that doesn't tell its signature
