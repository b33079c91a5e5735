"""What a trigger takes out of an activity: one value, several, or a payload made of them.

A *pick* is a path to one value: ``$.object.id`` looks into the document, ``$$.type`` into what
is known about the activity: ``cid``, ``type`` and ``actor`` (lists of strings), ``source``,
``namespace`` and ``depth``. So a document that came with type and actor beside it can be
mapped as well.

A *template* makes an input. It is a pick, or a payload template as Amazon States Language has
them: an object whose keys that end in ``.$`` hold picks, ``{"who.$": "$.actor", "kind":
"new"}``, nested as one likes; everything else in it is constant. Nothing is computed, so a
mapping always ends: its cost is bounded by the template and the limits of documents.

A path that finds nothing is an error, null is a value.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final, Protocol

import attrs

from triggerflow.core.paths import ABSENT, Path, compile_path
from triggerflow.errors import DefinitionError

if TYPE_CHECKING:
    from triggerflow.core.activity import Activity

_MARK: Final = ".$"
_DEEPEST: Final = 64
_KNOWN: Final = ("cid", "type", "actor", "source", "namespace", "depth")


class Source(Protocol):
    """What a value is taken from: an activity, or an input that stands in for one."""

    @property
    def document(self) -> Any:
        """What ``$`` is."""

    @property
    def about(self) -> Any:
        """What ``$$`` is."""


class NoValue(Exception):
    """A path found nothing, or nothing of use; the argument says which and why."""


@attrs.frozen
class Pick:
    """One value of an activity: call it.

    Attributes:
        path: where it stands.
        about: it is looked for in what is known about the activity, not in its document.
    """

    path: Path
    about: bool = False

    def __call__(self, activity: Source) -> Any:
        """The value there.

        Raises:
            NoValue: there is none.
        """
        found = self.path(activity.about if self.about else activity.document)
        if found is ABSENT:
            raise NoValue(f"the activity has no {self}")
        return found

    def __str__(self) -> str:
        return f"${self.path}" if self.about else str(self.path)


@attrs.frozen
class Template:
    """How an input is made: call it with an activity.

    Attributes:
        source: in one form; `compile_template` takes it back.
    """

    source: Any
    _make: Any = attrs.field(eq=False, repr=False)

    def __call__(self, activity: Activity) -> Any:
        """The payload; it shares parts with the document, so it is not to be changed.

        Raises:
            NoValue: a path finds nothing.
        """
        return _made(self._make, activity)


def compile_pick(text: object, what: str) -> Pick:
    """Compile the path to one value.

    Raises:
        DefinitionError: it is no path; the error names the place.
    """
    if isinstance(text, str) and text.startswith("$$"):
        path = compile_path(text[1:], what)
        if not path.parts or path.parts[0] not in _KNOWN:
            raise DefinitionError(
                what,
                f"{text!r:.80} is nothing that is known about an activity",
                f"known are {', '.join(f'$$.{name}' for name in _KNOWN)}",
            )
        return Pick(path, about=True)
    return Pick(compile_path(text, what))


def compile_picks(given: object, what: str) -> tuple[Pick, ...]:
    """Compile one path, or a list of them.

    Raises:
        DefinitionError: one is no path, or there is none.
    """
    paths = given if isinstance(given, list | tuple) else [given]
    if not paths:
        raise DefinitionError(what, "the list of paths is empty", "")
    return tuple(compile_pick(path, what) for path in paths)


def picks_source(picks: tuple[Pick, ...]) -> Any:
    """Picks as a spec has them: one as a text, several as a list."""
    return str(picks[0]) if len(picks) == 1 else [str(pick) for pick in picks]


def compile_template(given: object, what: str) -> Template:
    """Compile an input mapping: a path, or a payload template.

    Raises:
        DefinitionError: it can't be one; the error names the place.
    """
    if isinstance(given, str):
        pick = compile_pick(given, what)
        return Template(str(pick), pick)
    if not isinstance(given, Mapping):
        raise DefinitionError(
            what,
            f"found {type(given).__name__}, expected a path or a payload template",
            'write "$.object", or {"who.$": "$.actor", "kind": "new"}',
        )
    source, make = _compiled(given, what, _DEEPEST)
    return Template(source, make)


def key_text(picks: tuple[Pick, ...], activity: Activity) -> str:
    """A business key: the text or whole number at a path; of several, a JSON list of them.

    Raises:
        NoValue: a path finds nothing, or neither text nor a whole number.
    """
    values = []
    for pick in picks:
        value = pick(activity)
        if type(value) not in (str, int) or value == "":
            raise NoValue(
                f"the key {pick} is {_kind(value)}, expected a text or a whole number"
            )
        values.append(value)
    if len(values) > 1:
        return json.dumps(values, ensure_ascii=False, separators=(",", ":"))
    return str(values[0])


# A payload template, compiled: a Pick, a _Constant, or a dict or list of these.
@attrs.frozen
class _Constant:
    value: Any


def _compiled(given: Any, what: str, depth: int) -> tuple[Any, Any]:
    """The normal form of a part of a template, and what makes it."""
    if depth == 0:
        raise DefinitionError(what, f"is nested deeper than {_DEEPEST} levels", "")
    if isinstance(given, Mapping):
        return _compiled_object(given, what, depth)
    if isinstance(given, list | tuple):
        parts = [_compiled(item, f"{what}[{at}]", depth - 1) for at, item in enumerate(given)]
        source = [part for part, _ in parts]
        makes = [make for _, make in parts]
        if all(isinstance(make, _Constant) for make in makes):
            return source, _Constant(source)
        return source, makes
    if given is None or isinstance(given, bool | int | float | str):
        return given, _Constant(given)
    raise DefinitionError(
        what, f"found {type(given).__name__}, expected what JSON has", "constants are JSON"
    )


def _compiled_object(given: Mapping[Any, Any], what: str, depth: int) -> tuple[Any, Any]:
    source: dict[str, Any] = {}
    makes: dict[str, Any] = {}
    for key, value in given.items():
        if not isinstance(key, str):
            raise DefinitionError(what, f"the key {key!r:.80} is not a text", "")
        name = key.removesuffix(_MARK)
        place = f"{what}.{key}"
        if name in makes:
            raise DefinitionError(what, f"sets {name!r:.80} twice, by a path and without", "")
        if key.endswith(_MARK):
            pick = compile_pick(value, place)
            source[key], makes[name] = str(pick), pick
        else:
            source[key], makes[name] = _compiled(value, place, depth - 1)
    if all(isinstance(make, _Constant) for make in makes.values()):
        return source, _Constant(source)
    return source, makes


def _made(make: Any, activity: Activity) -> Any:
    if isinstance(make, Pick):
        return make(activity)
    if isinstance(make, _Constant):
        return make.value
    if isinstance(make, dict):
        return {name: _made(each, activity) for name, each in make.items()}
    return [_made(each, activity) for each in make]


def _kind(value: object) -> str:
    if value is None or isinstance(value, bool):
        return json.dumps(value)
    if isinstance(value, str):
        return "an empty text"
    return {dict: "an object", list: "a list", float: "a fraction"}.get(
        type(value), f"a {type(value).__name__}"
    )
