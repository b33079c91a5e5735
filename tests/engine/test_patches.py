"""`patches()`: who is on which side of a guarded change, told from logs and from re-drives."""

from __future__ import annotations

import attrs
import pytest
import trio

import triggerflow as tf


def _charge(n):
    return n


def _check(n):
    return n


def _old_app(new_app, store):
    """The flow before its change."""
    app = new_app(store, build="old")

    @app.flow(name="shop")
    def shop(n):
        yield tf.wait_signal("begin")
        yield tf.call(_charge, n)
        yield tf.wait_signal("end")
        return "old"

    return app


def _new_app(new_app, store, build="new", **guards):
    """The flow with its change behind a guard; without one, in place of the old branch."""
    app = new_app(store, build=build)

    def checked(n):
        # In a helper: it has to be found there.
        if guards.get("gone") or (yield tf.patched("check-first")):
            yield tf.call(_check, n)
            return "new"
        return "old"

    @app.flow(name="shop")
    def shop(n):
        yield tf.wait_signal("begin")
        side = yield from checked(n)
        yield tf.call(_charge, n)
        yield tf.wait_signal("end")
        return side

    return app


def _sides(patch):
    return {side: getattr(patch, side) for side in ("old", "new", "unmet", "unclear")}


@pytest.fixture
def on_both_sides(new_app, live, make_store):
    """A store with an instance on the old branch, one on the new, and one before both."""
    store = make_store()

    async def begin(engine):
        ids = [await engine.start("shop", n) for n in range(3)]
        await engine.signal(ids[0], "begin")
        await engine.run_until_idle()
        return ids

    ids = live(_old_app(new_app, store), begin)

    async def go_on(engine):
        await engine.signal(ids[1], "begin")
        await engine.run_until_idle()

    live(_new_app(new_app, store), go_on)
    return store, ids


def test_each_side_is_known(new_app, live, on_both_sides):
    """The old branch leaves no entry: its instance is found by driving it, as workers do."""
    store, (old, new, unmet) = on_both_sides

    async def scenario(engine):
        (patch,) = await engine.patches()
        return patch

    patch = live(_new_app(new_app, store), scenario)
    assert _sides(patch) == {"old": (old,), "new": (new,), "unmet": (unmet,), "unclear": ()}
    assert (patch.flow, patch.version, patch.id) == ("shop", 1, "check-first")
    assert patch.location.startswith(__file__)
    assert patch.in_code
    assert patch.removable == "nothing"
    assert patch.verdict == "the old branch is still needed by 1"
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        patch.old = ()


def test_what_may_be_removed_grows_as_instances_end(new_app, live, on_both_sides):
    """First the old branch, then the guard; each verdict is what the code then bears out."""
    store, (old, new, unmet) = on_both_sides
    found = []

    async def scenario(engine):
        for id in (old, new):
            found.append([each.removable for each in await engine.patches("shop")])
            await engine.signal(id, "end")
            await engine.wait(id)
        found.append([each.verdict for each in await engine.patches("shop")])

    live(_new_app(new_app, store), scenario)
    assert found == [["nothing"], ["old branch"], ["safe to remove the guard"]]

    async def end(engine):
        await engine.signal(unmet, "begin")
        await engine.signal(unmet, "end")
        return (await engine.wait(unmet)).result

    # The guard is gone from the code, and the one that hadn't met it goes on.
    assert live(_new_app(new_app, store, "bare", gone=True), end) == "new"


def test_guard_that_went_too_soon_is_told(new_app, live, on_both_sides):
    """Code without the guard doesn't fit those that met it: they block, and the report says."""
    store, (old, new, _) = on_both_sides

    async def scenario(engine):
        await engine.signal(new, "end")
        await engine.run_until_idle()
        return (await engine.get(new)).status, await engine.patches()

    status, (patch,) = live(_new_app(new_app, store, "bare", gone=True), scenario)
    assert status == "blocked"
    # The source still names the guard, so it counts as there; what it was is in the log.
    assert patch.new == (new,)
    assert patch.unclear == (old,)
    assert patch.removable == "nothing"

    app = new_app(store, build="nothing of it")

    @app.flow(name="shop")
    def shop(n):
        yield tf.wait_signal("begin")
        yield tf.call(_check, n)
        yield tf.call(_charge, n)
        yield tf.wait_signal("end")

    async def ask(engine):
        return await engine.patches()

    (patch,) = live(app, ask, work=False)
    assert (patch.in_code, patch.location, patch.removable) == (False, "", "nothing")
    assert patch.verdict == "put the guard back: 1 instance met it"


def test_instance_that_has_not_begun_is_before_every_guard(new_app, live, make_store):
    """A drive would pass the guard and take the new branch, but nothing has decided it yet."""
    store = make_store()
    app = new_app(store)

    @app.flow
    def f(_):
        yield tf.patched("at-once")
        yield tf.call(_check, 1)
        yield tf.wait_signal("end")

    async def begin(engine):
        id = await engine.start(f)
        return id, await engine.patches()

    id, (before,) = live(app, begin, work=False)
    assert before.unmet == (id,)
    assert before.verdict == "safe to remove the guard"

    async def work(engine):
        await engine.run_until_idle()
        return await engine.patches()

    (after,) = live(app, work)
    assert after.new == (id,)


def test_ids_made_as_the_flow_runs_are_found_in_logs(new_app, live):
    """No source tells them; what the instances met does, each flow and version by itself."""
    app = new_app()

    def flow_of(version):
        @app.flow(name="f", version=version)
        def f(names):
            for name in names:
                yield tf.patched(f"{name}-{version}")
            yield tf.wait_signal("end")

    flow_of(1)
    flow_of(2)

    @app.flow
    def other(_):
        yield tf.patched("other's")

    async def scenario(engine):
        one = await engine.start("f", ["a", "b"], version=1)
        two = await engine.start("f", ["a"])
        await engine.run_until_idle()
        return one, two, await engine.patches("f"), await engine.patches()

    one, two, found, everything = live(app, scenario)
    assert [(each.version, each.id, each.new, each.location) for each in found] == [
        (1, "a-1", (one,), ""),
        (1, "b-1", (one,), ""),
        (2, "a-2", (two,), ""),
    ]
    assert all(each.in_code for each in found)
    assert [each.id for each in everything] == ["a-1", "b-1", "a-2", "other's"]


def test_pages_of_instances_are_all_looked_at(new_app, live):
    """More instances than a page holds: each is counted once."""
    app = new_app()

    @app.flow
    def f(_):
        yield tf.patched("p")
        yield tf.wait_signal("end")

    async def scenario(engine):
        for _ in range(230):
            await engine.start(f)
        await engine.run_until_idle()
        await trio.sleep(1)
        (patch,) = await engine.patches()
        return len(patch.new), len(set(patch.new))

    assert live(app, scenario) == (230, 230)


def test_clients_ask_too(new_app):
    """The blocking client has the verb."""
    app = new_app()

    @app.flow
    def f(_):
        yield tf.patched("p")
        yield tf.wait_signal("end")

    with app.client() as client:
        id = client.start(f)
        client.run_until_idle()
        (patch,) = client.patches()
        assert patch.new == (id,)
        assert patch.verdict == "safe to remove the old branch; keep the guard"
