"""Which `patched` ids a source has: found through helpers and aliases, none guessed."""

from __future__ import annotations

from pathlib import Path

import pytest

import triggerflow as tf
from triggerflow.core.verbs import patched as guard
from triggerflow.flows.flow import define_flow
from triggerflow.flows.patches import patches_in

ID = "constant"


def _helper(n):
    return (yield guard("in-helper")) or n


def _trusted_step(n):
    return n


def _flow(n):
    if (yield tf.patched("plain")):
        yield from _helper(n)
    yield guard(ID)
    yield tf.patched(id="keyword")
    yield tf.patched(f"made-{n}")
    yield tf.patched("plain")
    yield tf.call(_trusted_step, n)


def test_ids_are_found_where_they_stand():
    """Constants, aliases, keywords and helpers; a text that is made is left out."""
    found = patches_in(define_flow(_flow))
    assert sorted(found) == ["constant", "in-helper", "keyword", "plain"]
    assert found["plain"].startswith(f"{__file__}:")
    line = int(found["plain"].rpartition(":")[2])
    assert "plain" in Path(__file__).read_text().splitlines()[line - 1]


@pytest.mark.parametrize("source", ["def f(n):\n    yield patched('x')\n", "f = iter"])
def test_a_source_that_cannot_be_read_has_none(source):
    """Code without a file, or none at all, is no error."""
    space = {"patched": tf.patched}
    exec(source, space)
    assert patches_in(define_flow(space["f"], name="f")) == {}
