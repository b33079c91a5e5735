"""Whether activities share a commit or come one by one changes nothing that comes of them."""

from __future__ import annotations

from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

import triggerflow as tf

GATHERS = [
    {"debounce": {"period": 5}},
    {"debounce": {"period": 5, "collect": "all", "key": "$.g"}},
    {"batch": {"size": 2, "wait": 5}},
]
LIMITS = [
    {"concurrency": 1},
    {"concurrency": {"limit": 1, "key": "$.k"}},
    {"singleton": {"mode": "skip", "key": "$.g"}},
    {"singleton": {"mode": "cancel"}},
    {"throttle": {"limit": 1, "period": 9}},
    {"rate_limit": {"limit": 2, "period": 9, "key": "$.g"}},
]


@st.composite
def controls(draw):
    """A control of one or two parts, or none; what doesn't go together is left apart."""
    parts = draw(st.sampled_from([{}, *GATHERS])) | draw(st.sampled_from([{}, *LIMITS]))
    try:
        tf.Control(**parts)
    except tf.DefinitionError:
        return None
    return parts or None


acts = st.lists(
    st.tuples(
        st.sampled_from(["Note", "Note", "Note", "Undo", "Tell"]),
        st.sampled_from("ab"),
        st.sampled_from("xy"),
    ),
    min_size=2,
    max_size=9,
)


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    acts=acts, control=controls(), key=st.booleans(), dedup=st.booleans(), limit=st.booleans()
)
@example(
    acts=[("Note", "b", "x"), ("Tell", "b", "x"), ("Note", "a", "x")],
    control={"debounce": {"period": 5}, "singleton": {"mode": "cancel"}},
    key=True,
    dedup=False,
    limit=False,
)
def test_together_as_one_by_one(new_app, live, acts, control, key, dedup, limit):
    """The same outcomes, instances, holds and letters, and the same rates and places left."""

    def app():
        made = new_app()

        @made.flow(concurrency=tf.Concurrency(2, key="$.k") if limit else None)
        def runs(given):
            yield tf.wait_signal("never")

        options = {"key": "$.k"} if key else {}
        if dedup:
            options["dedup"] = {"key": "$.d"}
        made.trigger("all", on="Note", start=runs, control=control, **options)
        made.trigger("undo", on="Undo", cancel={"flow": "runs", "key": "$.k"})
        told = {"flow": "runs", "key": "$.k", "name": "hello"}
        made.trigger("tell", on="Tell", signal=told)
        return made

    documents = [
        {"type": kind, "actor": "ann", "n": n, "k": k, "g": g, "d": n // 2}
        for n, (kind, k, g) in enumerate(acts)
    ]

    async def end(engine, found):
        db = engine._store._db
        rows = {
            table: db.execute(f"SELECT {columns} FROM {table} ORDER BY {columns}").fetchall()
            for table, columns in (
                ("instance", "public_id, status, key, held, due, cancelled, priority"),
                ("generation", "instance, input"),
                ("place", "instance, rank, scope, key, state"),
                ("pool", "scope, key, cap, taken"),
                ("rate", "scope, key, debt"),
                ("gathering", "scope, key, instance, count, bytes"),
                ("inbox", "instance, kind, name, payload"),
                ("dedup", "scope, key, activity, instance"),
            )
        }
        fired = [
            (each.trigger, each.outcome, each.instance_id, each.error, each.earlier)
            for one in found
            for each in one.firings
        ]
        return fired, rows

    async def together(engine):
        return await end(engine, await engine.append_many(documents))

    async def apart(engine):
        return await end(engine, [await engine.append(each) for each in documents])

    assert live(app(), together, work=False) == live(app(), apart, work=False)
