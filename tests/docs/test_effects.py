"""The table of effects has every effect, and says how each is recorded."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import triggerflow as tf
from triggerflow.core.effects import Effect
from triggerflow.core.tags import kind_of
from triggerflow.flows.reading import makes_effect
from triggerflow.store.sqlite import MemoryStore
from triggerflow.testing import run_virtually, virtual_settings

PAGE = Path(__file__).resolve().parents[2] / "docs" / "reference" / "effects.md"
TITLES = ["effect", "gives back", "raises", "entry", "tag", "digest of", "lost or cancelled"]
ACTIVITY = {"type": "Note", "actor": "https://a.example/ann"}


def table() -> dict[str, dict[str, str]]:
    """Verb -> title -> cell."""
    lines = [line for line in PAGE.read_text("utf-8").splitlines() if line.startswith("|")]
    rows = [[cell.strip() for cell in line[1:-1].split("|")] for line in lines]
    assert [cell.strip() for cell in rows[0]] == TITLES
    found = {}
    for row in rows[2:]:
        cells = dict(zip(TITLES, row, strict=True))
        found[cells["effect"].strip("`").partition("(")[0]] = cells
    assert len(found) == len(rows) - 2
    return found


TABLE = table()


def kinds(cls: type = Effect) -> set[str]:
    """The kinds of all effect classes."""
    return {cls.kind}.union(*(kinds(each) for each in cls.__subclasses__())) - {""}


def test_the_table_has_every_verb_and_every_kind() -> None:
    """Each public function that makes an effect has a row, and so has each kind of effect."""
    made = {name for name in tf.__all__ if makes_effect(getattr(tf, name)) is True}
    assert set(TABLE) == {name for name in made if not isinstance(getattr(tf, name), type)}
    tags = {verb: cells["tag"].strip("`") for verb, cells in TABLE.items()}
    # Those without a tag are called like their kind.
    assert {kind_of(tag) if tag else verb for verb, tag in tags.items()} == kinds()


def step(*args: object) -> str:
    """A step."""
    return "done"


def flow_of(verb: str):
    """A flow that yields the effect once, and comes to an end or to its next generation."""

    def flow(state):
        if state == "next":
            return "next"
        if verb in ("join", "cancel", "signal"):
            ref = yield tf.spawn("other", abandon=True)
        if verb in ("compensate", "compensate_all"):
            paid = tf.call(step, 1).using(compensate=step)
            yield paid
        match verb:
            case "call":
                yield tf.call(step, 1)
            case "sleep" | "sleep_until":
                yield getattr(tf, verb)(1)
            case "wait_signal":
                yield tf.wait_signal(("one", "two"), timeout=1, default=None)
            case "wait_activity":
                yield tf.wait_activity({"type": ["Note"]}, timeout=1, default=None)
            case "inbox" | "now" | "uuid4" | "random":
                yield getattr(tf, verb)()
            case "side_effect":
                yield tf.side_effect(step)
            case "patched":
                yield tf.patched("better")
            case "gather" | "race":
                yield getattr(tf, verb)(tf.call(step))
            case "child" | "spawn":
                yield getattr(tf, verb)("other", 1)
            case "join":
                yield tf.join(ref, timeout=9, default=None)
            case "cancel":
                yield tf.cancel(ref)
            case "signal":
                yield tf.signal(ref, "one")
            case "emit":
                yield tf.emit(ACTIVITY)
            case "set_attributes":
                yield tf.set_attributes(stage=1)
            case "compensate":
                yield tf.compensate(paid)
            case "compensate_all":
                yield tf.compensate_all()
            case "continue_as_new":
                yield tf.continue_as_new("next")
            case _:
                raise AssertionError(f"no example of {verb}")
        return "done"

    return flow


def entries_of(verb: str) -> list[tf.Entry]:
    """What its flow leaves in the log."""
    app = tf.App(MemoryStore(), entry_points=False)
    app.register(tf.flow(name="it")(flow_of(verb)))

    @app.flow
    def other(_):
        yield tf.wait_signal("one", timeout=5, default=None)

    async def main() -> list[tf.Entry]:
        async with app.open(**virtual_settings()) as engine:
            id = await engine.start("it")
            ended = await engine.wait(id)
            assert ended.status == "done", ended.failure
            assert (ended.generation > 1) == (verb == "continue_as_new")
            return await engine.log(id)

    return run_virtually(main)


@pytest.mark.parametrize("verb", sorted(TABLE))
def test_a_row_says_how_the_effect_is_recorded(verb: str) -> None:
    """Entry, tag and digest are those that an engine writes."""
    cells = TABLE[verb]
    form = cells["tag"].strip("`")
    pattern = re.escape(form).replace("NAME", "[a-z|_]+").replace("N", "0")
    found = entries_of(verb)
    if cells["entry"] == "no":
        assert verb not in [kind_of(entry.tag) for entry in found]
        if form:
            assert [entry for entry in found if re.match(f"{pattern}\\[", entry.tag)]
        return
    (entry,) = [entry for entry in found if re.fullmatch(pattern, entry.tag)]
    assert (entry.digest is None) == (cells["digest of"] == "nothing")
