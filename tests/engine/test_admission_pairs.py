"""Each pair of controls that is allowed, in an engine: what it means is what happens."""

from __future__ import annotations

import math

import pytest
import trio

import triggerflow as tf
from triggerflow.core.admission_pairs import PAIRS


class Story:
    """What became of some arrivals under a control.

    Attributes:
        outcomes: of the firings, in order of arrival.
        began: (seconds, input's `n`, or the list of them) of each run, in order.
        ends: status of each instance, in order of creation.
    """

    def __init__(self, live, new_app, lasts, control):
        self.outcomes, self.began, self.ends = [], [], []
        self._live, self._app = live, new_app()

        @self._app.flow
        def runs(given):
            began = yield tf.now()
            numbers = [each["n"] for each in given] if isinstance(given, list) else given["n"]
            self.began.append((began, numbers))
            yield tf.sleep(lasts)

        self._app.trigger("all", on="Note", start=runs, control=control)

    def tell(self, *arrivals):
        """Arrivals as (seconds, fields of the document)."""

        async def scenario(engine):
            zero, start = trio.current_time(), engine._clock.now()
            for n, (moment, fields) in enumerate(arrivals):
                await trio.sleep(max(0, zero + moment - trio.current_time()))
                document = {"type": "Note", "actor": "ann", "n": n, **fields}
                (fired,) = (await engine.append(document)).firings
                self.outcomes.append(fired.outcome)
                assert bool(fired.error) == (fired.outcome == "limited")
            await trio.sleep(1000)
            self.ends = [each.status async for each in engine.instances()]
            self.began = [(round(at.timestamp() - start, 3), n) for at, n in self.began]

        self._live(self._app, scenario, hung=math.inf)
        return self


@pytest.fixture
def story(live, new_app):
    return lambda *arrivals, lasts=1, **control: Story(
        live, new_app, lasts, tf.Control(**control)
    ).tell(*arrivals)


TOLD = {}


def tells(*pair):
    def keep(check):
        TOLD[pair] = check
        return check

    return keep


@tells("debounce", "rate_limit")
def _(story):
    found = story(
        *((0, {}), (1, {}), (20, {})),
        debounce={"period": 5},
        rate_limit={"limit": 1, "period": 100},
    )
    assert found.outcomes == ["started", "debounced", "limited"]
    assert found.began == [(6, 1)]


@tells("debounce", "throttle")
def _(story):
    found = story(
        *((0, {"k": 1}), (0, {"k": 2})),
        debounce={"period": 2, "key": "$.k"},
        throttle={"limit": 1, "period": 10},
    )
    assert found.outcomes == ["started"] * 2
    assert found.began == [(2, 0), (12, 1)]


@tells("debounce", "concurrency")
def _(story):
    found = story(
        *((0, {"k": 1}), (0, {"k": 2}), (1, {"k": 2})),
        debounce={"period": 2, "key": "$.k", "collect": "all"},
        concurrency=1,
        lasts=7,
    )
    assert found.outcomes == ["started", "started", "debounced"]
    assert found.began == [(2, [0]), (9, [1, 2])]


@tells("debounce", "singleton")
def _(story):
    arrivals = ((0, {"k": 1}), (0.5, {"k": 2}), (0.6, {"k": 2}))
    bounce = {"period": 2, "key": "$.k"}
    found = story(*arrivals, debounce=bounce, singleton={"mode": "cancel"})
    assert found.outcomes == ["started", "started", "debounced"]
    assert found.ends == ["cancelled", "done"]
    assert found.began == [(2.6, 2)]
    found = story(*arrivals, debounce=bounce, singleton={"mode": "skip"})
    assert found.outcomes == ["started", "limited", "limited"]
    assert found.began == [(2, 0)]


@tells("debounce", "priority")
def _(story):
    found = story(
        *(
            (0, {"k": 0}),
            (2.5, {"k": 1, "p": 1}),
            (2.6, {"k": 1, "p": 9}),
            (2.6, {"k": 2, "p": 5}),
        ),
        debounce={"period": 2, "key": "$.k"},
        priority="$.p",
        concurrency=1,
        lasts=20,
    )
    assert [n for _, n in found.began] == [0, 3, 2]


@tells("batch", "throttle")
def _(story):
    found = story(
        *((0, {}) for _ in range(4)),
        batch={"size": 2, "wait": 99},
        throttle={"limit": 1, "period": 10},
    )
    assert found.outcomes == ["started", "batched"] * 2
    assert found.began == [(0, [0, 1]), (10, [2, 3])]


@tells("batch", "concurrency")
def _(story):
    found = story(
        *((0, {}) for _ in range(5)), batch={"size": 2, "wait": 3}, concurrency=1, lasts=7
    )
    assert found.began == [(0, [0, 1]), (7, [2, 3]), (14, [4])]


@tells("batch", "priority")
def _(story):
    found = story(
        *((0, {"k": k, "p": p}) for k, p in ((0, 0), (0, 0), (1, 1), (1, 9), (2, 5), (2, 0))),
        batch={"size": 2, "wait": 9, "key": "$.k"},
        priority="$.p",
        concurrency=1,
    )
    assert [n for _, n in found.began] == [[0, 1], [4, 5], [2, 3]]


@tells("rate_limit", "throttle")
def _(story):
    found = story(
        *((0, {}) for _ in range(3)),
        rate_limit={"limit": 2, "period": 100},
        throttle={"limit": 1, "period": 10},
    )
    assert found.outcomes == ["started", "started", "limited"]
    assert found.began == [(0, 0), (10, 1)]


@tells("rate_limit", "concurrency")
def _(story):
    found = story(
        *((0, {}) for _ in range(3)),
        rate_limit={"limit": 2, "period": 100},
        concurrency=1,
        lasts=7,
    )
    assert found.outcomes == ["started", "started", "limited"]
    assert found.began == [(0, 0), (7, 1)]


@tells("rate_limit", "singleton")
def _(story):
    rate = {"limit": 2, "period": 1000}
    found = story(
        *((0, {}), (1, {}), (8, {}), (16, {})),
        rate_limit=rate,
        singleton={"mode": "skip"},
        lasts=5,
    )
    assert found.outcomes == ["started", "limited", "started", "limited"]
    found = story(
        *((0, {}), (1, {}), (2, {})), rate_limit=rate, singleton={"mode": "cancel"}, lasts=5
    )
    assert found.outcomes == ["started", "started", "limited"]
    assert found.ends == ["cancelled", "done"]


@tells("rate_limit", "priority")
def _(story):
    found = story(
        *((0, {"p": 0}), (0, {"p": 9})),
        rate_limit={"limit": 1, "period": 100},
        priority="$.p",
    )
    assert found.outcomes == ["started", "limited"]


@tells("throttle", "concurrency")
def _(story):
    found = story(
        *((0, {}) for _ in range(3)),
        throttle={"limit": 1, "period": 5},
        concurrency=1,
        lasts=7,
    )
    assert found.began == [(0, 0), (7, 1), (14, 2)]


@tells("throttle", "singleton")
def _(story):
    throttle = {"limit": 1, "period": 10}
    arrivals = ((0, {}), (3, {}), (4, {}))
    found = story(*arrivals, throttle=throttle, singleton={"mode": "skip"})
    assert found.outcomes == ["started", "started", "limited"]
    assert found.began == [(0, 0), (10, 1)]
    found = story(*arrivals, throttle=throttle, singleton={"mode": "cancel"})
    assert found.ends == ["done", "cancelled", "done"]
    assert found.began == [(0, 0), (20, 2)]


@tells("throttle", "priority")
def _(story):
    found = story(
        *((0, {"p": p}) for p in (0, 1, 9)),
        throttle={"limit": 1, "period": 5},
        priority="$.p",
    )
    assert found.began == [(0, 0), (5, 1), (10, 2)]


@tells("concurrency", "priority")
def _(story):
    found = story(
        *((0, {"p": p}) for p in (0, 1, 9, -1, 9)), concurrency=1, priority="$.p", lasts=7
    )
    assert found.began == [(0, 0), (7, 2), (14, 4), (21, 1), (28, 3)]


@tells("singleton", "priority")
def _(story):
    found = story(
        *((0, {"k": k, "p": p}) for k, p in ((1, 0), (2, 9))),
        singleton={"mode": "cancel", "key": "$.k"},
        priority="$.p",
    )
    assert found.ends == ["done", "done"]


def test_each_allowed_pair_is_told() -> None:
    """No cell of the table is without its story; the refused ones are tested with the table."""
    assert list(TOLD) == [pair for pair in PAIRS if PAIRS[pair].allowed]


@pytest.mark.parametrize("pair", TOLD, ids="-".join)
def test_a_pair_means_what_the_table_says(pair, story) -> None:
    """Outcomes, times and order of two controls together."""
    TOLD[pair](story)
