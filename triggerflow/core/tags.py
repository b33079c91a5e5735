"""Tags: the deterministic names of effects, ``branch/kind:name#n``."""

from __future__ import annotations


def kind_of(tag: str) -> str:
    """The kind in a tag: ``call`` in ``gather#0[1]/call:charge#2``."""
    last = tag.rpartition("/")[2]
    return last.partition("#")[0].partition(":")[0]


def name_of(tag: str) -> str:
    """The name in a tag: ``charge`` in ``gather#0[1]/call:charge#2``."""
    last = tag.rpartition("/")[2]
    return last.partition("#")[0].partition(":")[2]
