"""Real input: 164 GitHub webhooks twice from two processes, and the W3C's odd documents."""

from __future__ import annotations

import json
import sqlite3
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import triggerflow as tf
from triggerflow.store.sqlite import MemoryStore, SqliteStore


def rows(path: Path, sql: str) -> list[tuple[Any, ...]]:
    """What plain sqlite3 finds in a store's file."""
    db = sqlite3.connect(path)
    try:
        return db.execute(sql).fetchall()
    finally:
        db.close()


def test_github_file_twice_from_two_processes(
    github: Path,
    processes: Any,
    tmp_path: Path,
    child_module: Callable[[str], Any],
    report: Callable[[str], None],
) -> None:
    """164 activities, every matching trigger once for each, every instance done."""
    plainly = child_module("plainly")
    activities = [json.loads(line) for line in github.read_text().splitlines()]
    assert len(activities) == 164
    wanted = Counter(
        (tf.cid_of(each), trigger) for each in activities for trigger in plainly.fires(each)
    )
    assert set(wanted.values()) == {1}
    by_trigger = Counter(trigger for _, trigger in wanted)
    # A trigger that never fires would prove nothing.
    assert set(by_trigger) == set(plainly.FLOWS)

    store = tmp_path / "github.db"
    both = [
        processes.start("appender.py", store, github, way) for way in ("forwards", "backwards")
    ]
    for child in both:
        child.expect("ready")
    for child in both:
        child.say("go")
    acks: list[Any] = []
    for child in both:
        acks += [child.expect("appended") for _ in activities]
        child.expect("done")
    for child in both:
        child.say("end")
        assert child.finish() == []

    assert "locked" not in processes.complaints()
    # Each document was new to one of them, and both were told the same firings.
    assert Counter(duplicate for _, duplicate, _ in acks) == {False: 164, True: 164}
    told: dict[str, Any] = {}
    for cid, _, fired in acks:
        assert told.setdefault(cid, fired) == fired
    assert {(cid, name) for cid, fired in told.items() for name, _, _ in fired} == set(wanted)

    assert rows(store, "SELECT count(*), count(DISTINCT cid) FROM activity") == [(164, 164)]
    fired = rows(
        store,
        "SELECT a.cid, t.name, f.outcome, f.error, i.flow, i.status FROM firing f"
        " JOIN activity a ON a.seq = f.activity JOIN trigger_spec t ON t.id = f.trigger_spec"
        " LEFT JOIN instance i ON i.public_id = f.instance",
    )
    assert Counter((cid, name) for cid, name, *_ in fired) == wanted
    for _, name, *rest in fired:
        assert rest == ["started", None, plainly.FLOWS[name], "done"]
    assert rows(store, "SELECT status, count(*) FROM instance GROUP BY status") == [
        ("done", len(fired))
    ]
    assert rows(store, "SELECT count(*) FROM outbox") == [(0,)]
    report(
        f"github-webhooks.jsonl twice from two processes: 164 activities, {len(fired)}"
        f" firings {dict(sorted(by_trigger.items()))}, all instances done"
    )


@pytest.mark.parametrize("kind", ["memory", "sqlite"])
def test_activitystreams_examples(
    kind: str, examples: Path, tmp_path: Path, report: Callable[[str], None]
) -> None:
    """20 of the W3C's documents are activities, 121 are refused by name; none half stored."""
    lines = [json.loads(line) for line in examples.read_text().splitlines()]
    documents = [each["document"] for each in lines]
    store: Any = MemoryStore() if kind == "memory" else SqliteStore(tmp_path / "as2.db")
    app = tf.App(store=store, entry_points=False)

    def kept(types: Any) -> Any:
        return types

    @app.flow
    def reads(activity: Any) -> Any:
        return (yield tf.call(kept, activity["type"]))

    app.trigger("all", on="*", start=reads)
    with app.client() as client:
        found = client.append_many(documents)
        client.run_until_idle()
        accepted = [each for each in found if isinstance(each, tf.Appended)]
        refused = [each for each in found if isinstance(each, tf.Rejected)]
        assert (len(accepted), len(refused), len(found)) == (20, 121, 141)
        for each in refused:
            assert isinstance(each.error, tf.ActivityRejected), each
            assert found[each.index] is each
            with pytest.raises(tf.ActivityRejected) as caught:
                client.append(documents[each.index])
            assert str(caught.value) == str(each.error)
            assert caught.value.path.startswith("activity")
        words = Counter(str(each.error).partition(", expected")[0] for each in refused)

        # What is stored is exactly what was accepted, whole.
        cids = {
            tf.cid_of(document): document
            for document, each in zip(documents, found, strict=True)
            if isinstance(each, tf.Appended)
        }
        assert {each.cid for each in accepted} == set(cids)
        assert sum(not each.duplicate for each in accepted) == len(cids)
        instances = list(client.instances())
        assert {each.status for each in instances} == {"done"}
        assert {each.activity for each in instances} == set(cids)
        assert len(instances) == len(cids)
        for each in instances:
            assert tf.cid_of(each.input) == each.activity
            assert each.result == cids[each.activity or ""]["type"]
        counts = store.counts()
        assert (counts.activities, counts.firings) == (len(cids), len(cids))
        for cid in cids:
            record = store.activity(cid)
            assert tf.cid_of(tf.decode_document(record.document)) == cid
    report(
        f"activitystreams2-examples.jsonl ({kind}): 20 accepted, 121 rejected:\n"
        + "\n".join(f"  {count:3} {text}" for text, count in words.most_common())
    )
