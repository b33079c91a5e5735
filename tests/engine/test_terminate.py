"""`terminate`: the hard end."""

from __future__ import annotations

import pytest
import trio

import triggerflow as tf


def test_terminate_ends_at_once_and_runs_nothing(new_app, live):
    """A running instance ends without its clean-up, and its step's result is dropped."""
    app = new_app()
    cleaned = []
    started = trio.Event()

    async def slow():
        started.set()
        await trio.sleep(1000)

    @app.flow
    def careful(_):
        try:
            yield tf.call(slow)
        finally:
            cleaned.append("code")
            yield tf.call(cleaned.append, "step").using(name="clean")

    async def scenario(engine):
        id = await engine.start(careful)
        await started.wait()
        await engine.terminate(id, "no longer wanted")
        found = await engine.wait(id, timeout=5)
        with pytest.raises(tf.InstanceEnded):
            await engine.terminate(id)
        with pytest.raises(tf.UnknownInstance):
            await engine.terminate("nobody")
        await engine.run_until_idle()
        return found

    found = live(app, scenario)
    assert (found.status, found.failure.type) == ("cancelled", "Terminated")
    assert found.failure.message == "no longer wanted"
    assert "step" not in cleaned


def test_terminate_ends_what_waits_and_what_is_blocked(new_app, live):
    """A parked instance and a blocked one, which can't run, end as well."""
    app = new_app()

    @app.flow
    def waits(_):
        yield tf.wait_signal("never")

    app.trigger("t", on="x", start="nobody-knows")

    async def scenario(engine):
        parked = await engine.start(waits)
        appended = await engine.append({"type": "x", "actor": "a:b"})
        blocked = appended.firings[0].instance_id
        await engine.run_until_idle()
        before = [(await engine.get(id)).status for id in (parked, blocked)]
        for id in (parked, blocked):
            await engine.terminate(id)
        return before, [(await engine.wait(id)).status for id in (parked, blocked)]

    assert live(app, scenario) == (["waiting", "blocked"], ["cancelled", "cancelled"])
