"""Hazards of effects towards others, found by attack; each test is the smallest repro."""

from __future__ import annotations

import pytest

import triggerflow as tf
from triggerflow.store.operations import Turn
from triggerflow.store.sqlite import MemoryStore


def ok(*_args):
    return "ok"


@pytest.fixture
def app(new_app):
    """An app with a child that waits for ever."""
    app = new_app()

    @app.flow
    def patient(_):
        return (yield tf.wait_signal("go"))

    return app


# --- turns that are refused and taken again


def test_refusals_are_remembered_while_a_turn_is_taken_again(new_app, live, watched):
    """A flow that looks for a free key among many takes one turn for each, not 2^n."""
    store = watched(MemoryStore())
    app = new_app(store)

    @app.flow
    def patient(_):
        return (yield tf.wait_signal("go"))

    @app.flow
    def parent(_):
        for number in range(12):
            try:
                yield tf.spawn("patient", key=f"slot{number}")
            except tf.StepFailed:
                continue
            return number

    async def main(engine):
        for number in range(10):
            await engine.start("patient", key=f"slot{number}")
        await engine.run_until_idle()
        before = len(store.operations(Turn))
        found = await engine.wait(await engine.start(parent))
        return found.result, len(store.operations(Turn)) - before

    result, turns = live(app, main)
    assert result == 10
    assert turns <= 12


def test_a_refusal_is_for_one_request_and_one_turn(app, live):
    """A signal refused once says nothing of a later one under the same name."""

    @app.flow
    def parent(gone):
        try:
            yield tf.signal(gone, "go")
        except tf.StepFailed:
            ref = yield tf.spawn("patient")
            yield tf.signal(ref, "go", "now")
            return (yield tf.join(ref))

    async def main(engine):
        return (await engine.wait(await engine.start(parent, "nobody"))).result

    assert live(app, main) == "now"


def test_attributes_of_a_refused_turn_are_forgotten(app, live):
    """What a refused turn had set is not set when it is taken again another way."""

    @app.flow
    def parent(_):
        try:
            yield tf.spawn("patient", key="k")
        except tf.StepFailed:
            yield tf.set_attributes(b=1)
            return
        yield tf.set_attributes(a=1)

    async def main(engine):
        await engine.start("patient", key="k")
        await engine.run_until_idle()
        return (await engine.wait(await engine.start(parent))).attributes

    assert live(app, main) == {"b": 1}
