"""Versions and builds: who drives what, and that nobody plays ping-pong with an instance."""

from __future__ import annotations

import pytest
import trio

import triggerflow as tf
from triggerflow.engine.clock import LoopClock
from triggerflow.store.operations import Claim
from triggerflow.store.sqlite import SqliteStore
from triggerflow.testing.time import run_virtually, virtual_settings


def _note(text):
    return text


def _versions(new_app, store, *versions, build="one"):
    """Versions of one flow side by side; each says who it is, before and after a wait."""
    app = new_app(store, build=build)
    for version in versions:

        @app.flow(name="f", version=version)
        def f(_, version=version):
            first = yield tf.call(_note, f"v{version}")
            yield tf.wait_signal("go")
            return [first, f"v{version}"]

    return app


def _flow_of(new_app, store, build, effects):
    """An app with one flow that yields these effects, then waits, then yields them again."""
    app = new_app(store, build=build)

    @app.flow(name="f")
    def f(_):
        for effect in effects():
            yield effect
        yield tf.wait_signal("go")
        for effect in effects():
            yield effect
        yield tf.wait_signal("end")
        return build

    return app


def _right():
    return [tf.call(_note, "a")]


def _wrong():
    return [tf.call(_note, "b")]


def test_instances_keep_their_version(new_app, live, killed, make_store):
    """A later version takes new instances only, whatever restarts and crashes lie between."""
    store = make_store()

    async def begin(engine):
        ids = [await engine.start("f"), await engine.start("f")]
        await engine.run_until_idle()
        return ids

    old = live(_versions(new_app, store, 1), begin)

    async def upgrade(engine):
        await engine.signal(old[0], "go")
        new = await engine.start("f")
        await engine.run_until_idle()
        assert (await engine.get(new)).version == 2
        return new

    new = killed(_versions(new_app, store, 1, 2, build="two"), upgrade)

    async def end(engine):
        for id in (old[1], new):
            await engine.signal(id, "go")
        return [(await engine.wait(id)).result for id in (*old, new)]

    found = live(_versions(new_app, store, 1, 2, 3, build="three"), end)
    assert found == [["v1", "v1"], ["v1", "v1"], ["v2", "v2"]]


def test_version_that_nobody_knows_blocks_until_a_worker_does(new_app, live, make_store):
    """A worker with other versions neither takes it nor blocks its own."""
    store = make_store()

    async def begin(engine):
        id = await engine.start("f")
        await engine.run_until_idle()
        return id

    id = live(_versions(new_app, store, 1), begin)

    async def strange(engine):
        await engine.signal(id, "go")
        other = await engine.start("f")
        await engine.run_until_idle()
        return await engine.get(id), await engine.get(other)

    blocked, other = live(_versions(new_app, store, 2, build="two"), strange)
    assert (blocked.status, blocked.cause) == ("blocked", "unknown_version")
    assert "version 1" in blocked.reason
    assert (other.status, other.version) == ("waiting", 2)

    async def work(engine):
        return (await engine.wait(id)).result

    # The very build that could not: what it couldn't take doesn't count as tried.
    assert live(_versions(new_app, store, 1, 2, build="two"), work) == ["v1", "v1"]


@pytest.mark.parametrize("fits", [True, False])
def test_changed_code_of_one_version_goes_on_where_it_fits(new_app, live, make_store, fits):
    """Strict replay decides: a change behind the log's end goes on, one within it blocks."""
    store = make_store()

    async def begin(engine):
        id = await engine.start("f")
        await engine.run_until_idle()
        return id

    id = live(_flow_of(new_app, store, "old", _right), begin)
    app = new_app(store, build="new")

    @app.flow(name="f")
    def f(_):
        yield tf.call(_note, "a" if fits else "b")
        yield tf.wait_signal("go")
        return (yield tf.call(_note, "quite another end"))

    async def go_on(engine):
        await engine.signal(id, "go")
        await engine.run_until_idle()
        return await engine.get(id)

    found = live(app, go_on)
    if fits:
        assert found.result == "quite another end"
        return
    assert (found.status, found.cause) == ("blocked", "diverged")

    async def end(engine):
        await engine.signal(id, "end")
        return (await engine.wait(id)).result

    assert live(_flow_of(new_app, store, "old", _right), end) == "old"


class _Pair:
    """Two engines of two builds, live at once on one file in virtual time."""

    def __init__(self, new_app, watched, path, live):
        self.path = path
        self.stores = {}
        self.new_app = new_app
        self.watched = watched
        self.live = live

    def app(self, build, effects):
        store = self.stores[build] = self.watched(SqliteStore(self.path))
        return _flow_of(self.new_app, store, build, effects)

    def run(self, one, other, scenario):
        async def main():
            # A lease, so that both look around every second, as in real life.
            settings = virtual_settings(LoopClock()) | {"lease": 30.0}
            with trio.fail_after(1e6):
                async with one.open(**settings) as first, other.open(**settings) as second:
                    return await scenario(first, second)

        return run_virtually(main)

    def claimed(self, build):
        """How often a build's worker became the owner of an instance."""
        return sum(
            len(outcome.claimed)
            for batch, outcomes in self.stores[build].batches
            for op, outcome in zip(batch.operations, outcomes, strict=True)
            if type(op) is Claim
        )

    def drives(self, build):
        return self.stores[build].operations(Claim)


@pytest.fixture
def pair(new_app, watched, tmp_path, live):
    return _Pair(new_app, watched, tmp_path / "shared.db", live)


def _parked(pair):
    async def begin(engine):
        id = await engine.start("f")
        await engine.run_until_idle()
        return id

    return pair.live(pair.app("right", _right), begin)


def test_two_builds_that_do_not_fit_try_it_once_each(pair):
    """Both live for an hour and look around all the time: two claims, and it stays blocked."""
    id = _parked(pair)

    async def scenario(first, second):
        for _ in range(60):
            await first.signal(id, "go")
            await trio.sleep(60)
        return await second.get(id)

    found = pair.run(pair.app("a", _wrong), pair.app("b", _wrong), scenario)
    assert (found.status, found.cause) == ("blocked", "diverged")
    assert (pair.claimed("a"), pair.claimed("b")) == (1, 1)
    # They did look: it isn't that nobody asked.
    assert min(len(pair.drives("a")), len(pair.drives("b"))) > 50


@pytest.mark.parametrize("first_wrong", [True, False])
def test_build_that_fits_keeps_it(pair, first_wrong):
    """Beside a build that doesn't fit, it goes on; the other takes it once at most."""
    id = _parked(pair)

    async def scenario(first, second):
        for _ in range(10):
            await first.signal(id, "unread")
            await trio.sleep(60)
        await second.signal(id, "go")
        await trio.sleep(60)
        await first.signal(id, "end")
        return (await second.wait(id, timeout=600)).result

    order = [("wrong", _wrong), ("fits", _right)]
    apps = [pair.app(*each) for each in (order if first_wrong else order[::-1])]
    assert pair.run(*apps, scenario) == "fits"
    assert pair.claimed("wrong") <= 1
    # A claim for each message that it was woken for, and one to take it over.
    assert pair.claimed("fits") <= 14


def test_instance_whose_only_fitting_build_left_is_blocked_visibly(pair):
    """It isn't left runnable for nobody; when such a worker comes back it goes on."""
    id = _parked(pair)

    async def scenario(first, second):
        await first.signal(id, "go")
        await trio.sleep(60)
        return (await second.get(id)).status

    assert pair.run(pair.app("wrong", _wrong), pair.app("fits", _right), scenario) == "waiting"

    async def poke(engine):
        await engine.signal(id, "end")
        await engine.run_until_idle()
        return await engine.get(id)

    found = pair.live(pair.app("wrong", _wrong), poke)
    assert (found.status, found.cause) == ("blocked", "diverged")
    assert "'wrong'" in found.reason
    assert pair.claimed("wrong") == 0

    async def work(engine):
        return (await engine.wait(id)).result

    assert pair.live(pair.app("fits", _right), work) == "fits"
