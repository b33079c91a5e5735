"""Actor scopes: which actors a trigger listens to, as globs over their ids.

A scope is a fence: with several actors ALL must be in scope, and none may be kept out; an
activity without any is outside. How a glob meets an id stands in `triggerflow.triggers.globs`.

``actors=`` is a glob, a list of globs, or a dict:

=================  =======================================================================
``in``             globs: each actor must meet one of them. Left out, all actors do
``not_in``         globs: no actor may meet one of them, not even by some spelling of its
                   id; an id that can be read in two ways is kept out as well
``same_as_owner``  true: each actor must be one of the app's own, `App(owner=)`. The app puts
                   these ids into the trigger as it registers it, so that they are part of
                   its CID and every process decides alike. A list of ids may be given as well
=================  =======================================================================

An actor is a claim until an ingest plugin has verified it: a scope does not prove identity.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

import attrs

from triggerflow.errors import DefinitionError
from triggerflow.triggers.globs import ActorId, Unfit, compile_glob, cut, plain

_FIELDS: Final = ("in", "not_in", "same_as_owner")


@attrs.frozen
class Globs:
    """Globs in normal form, sorted."""

    source: tuple[str, ...]
    parts: tuple[ActorId, ...] = attrs.field(eq=False, repr=False)

    def take(self, actor: ActorId) -> bool:
        """Tell whether one of them matches."""
        return any(glob.takes(actor) for glob in self.parts)

    def keep_out(self, actor: ActorId) -> bool:
        """Tell whether one of them keeps the actor out."""
        return any(glob.keeps_out(actor) for glob in self.parts)


@attrs.frozen
class Scope:
    """The actors that a trigger listens to: call it with an activity's actors.

    Attributes:
        inside: each actor must meet one of these; None admits all.
        outside: no actor may meet one of these.
        owner: each actor must be one of these; True until an app has said who it is.
    """

    inside: Globs | None
    outside: Globs | None = None
    owner: Globs | bool = False

    @property
    def source(self) -> Any:
        """The scope in normal form, the globs alone where they say all."""
        if self.inside is not None and self.outside is None and not self.owner:
            return self.inside.source
        found: dict[str, Any] = {}
        if self.inside is not None:
            found["in"] = list(self.inside.source)
        if self.outside is not None:
            found["not_in"] = list(self.outside.source)
        if self.owner:
            owner = self.owner
            found["same_as_owner"] = list(owner.source) if isinstance(owner, Globs) else True
        return found

    def owned_by(self, owner: Globs | None, what: str) -> Scope:
        """The same scope, where ``same_as_owner`` means these ids.

        Raises:
            DefinitionError: it asks for the owner, and there is none.
        """
        if self.owner is not True:
            return self
        if owner is None:
            raise DefinitionError(
                f"{what}, actors",
                "same_as_owner, and the app has no owner",
                'write App(owner="https://a.example/me"), or list the ids in the trigger',
            )
        return attrs.evolve(self, owner=owner)

    def __call__(self, actors: Iterable[str]) -> bool:
        """Tell whether every one of the actors is in scope. False when there is none."""
        seen = False
        for actor in actors:
            seen = True
            if self.objection(actor) is not None:
                return False
        return seen

    def objection(self, actor: str) -> str | None:
        """Why an actor is outside, in words; None where it is in scope."""
        try:
            parts = cut(actor, glob=False)
            spelt = parts if self.outside is None else cut(plain(actor), glob=False)
        except Unfit as unfit:
            return f"can be read in two ways: {unfit}"
        if self.outside is not None and self.outside.keep_out(spelt):
            return "is kept out by not_in"
        if self.inside is not None and not self.inside.take(parts):
            return "meets none of the globs"
        if isinstance(self.owner, Globs):
            return None if self.owner.take(parts) else "is not the owner"
        return "nobody has said who the owner is" if self.owner else None


def compile_scope(actors: object) -> Scope:
    """Compile an ``actors=`` scope.

    Args:
        actors: one glob, a non-empty list of them, or a dict.

    Raises:
        DefinitionError: a glob is malformed, or means less or more than it seems to.
    """
    if not isinstance(actors, Mapping):
        return Scope(_globs(actors, "actors"))
    if unknown := [str(name) for name in actors if name not in _FIELDS]:
        raise DefinitionError(
            "actors",
            f"has unknown fields: {', '.join(unknown)}",
            f"known: {', '.join(_FIELDS)}",
        )
    inside, outside = actors.get("in"), actors.get("not_in")
    owner = actors.get("same_as_owner", False)
    if inside is None and outside is None and not owner:
        raise DefinitionError("actors", "the dict is empty", "leave actors out to admit all")
    return Scope(
        None if inside is None else _globs(inside, "actors"),
        None if outside is None else _globs(outside, "actors", spelt=plain),
        owner if isinstance(owner, bool) else owner_ids(owner, "actors"),
    )


def owner_ids(given: object, what: str) -> Globs:
    """The ids of an app's own actors.

    Raises:
        DefinitionError: they aren't ids, or one is a glob.
    """
    found = _globs(given, what)
    for each in found.source:
        if "*" in each:
            raise DefinitionError(
                f"{what}, owner {each!r:.200}", "is a glob", "an owner is known by whole ids"
            )
    return found


def _globs(given: object, what: str, *, spelt: Callable[[str], str] | None = None) -> Globs:
    globs = [given] if isinstance(given, str) else given
    if not isinstance(globs, list | tuple):
        raise DefinitionError(
            what,
            f"found {type(given).__name__}, expected a list of globs",
            'write actors=["https://*.example/*"]',
        )
    if not globs:
        raise DefinitionError(
            what, "the list is empty: no actor could pass", "leave actors out to admit all"
        )
    if spelt is not None:
        globs = [spelt(glob) if isinstance(glob, str) else glob for glob in globs]
    found = {parts.text(): parts for parts in map(compile_glob, globs)}
    ordered = sorted(found)
    return Globs(tuple(ordered), tuple(found[text] for text in ordered))
