"""The GitHub plugin: what it registers, starts, sends and refuses."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

import triggerflow as tf
import triggerflow_github
from triggerflow_github import GitHub, activity_from_webhook
from triggerflow_github import plugin as plugin_module
from triggerflow_github.steps import suggest_labels

WEBHOOKS = Path(__file__).parents[4] / "shared" / "data" / "github-webhooks.jsonl"
SENDER = {"login": "ann", "html_url": "https://github.com/ann"}
REPOSITORY = {"full_name": "ann/garden"}


def webhooks() -> list[dict[str, Any]]:
    """Return the real payloads; without them a test is skipped, but never in CI."""
    if not WEBHOOKS.exists():
        if os.environ.get("CI") == "true":
            pytest.fail(f"{WEBHOOKS} is missing")
        pytest.skip(f"{WEBHOOKS} is missing")
    with WEBHOOKS.open(encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


def app_with(plugin: GitHub) -> tf.App:
    return tf.App("memory://", plugins=[plugin], entry_points=False)


def pull_request(action: str = "opened", **fields: Any) -> dict[str, Any]:
    pull = {
        "title": "Water the roses",
        "html_url": "https://github.com/ann/garden/pull/7",
        "draft": False,
        "user": {"login": "ann"},
        "requested_reviewers": [{"login": "ben"}],
        **fields,
    }
    payload = {
        "action": action,
        "pull_request": pull,
        "repository": REPOSITORY,
        "sender": SENDER,
    }
    return activity_from_webhook("pull_request", payload)


def expected_firings(rows: list[dict[str, Any]]) -> Counter[str]:
    """Count by hand what should fire; nothing of the plugin is used."""
    bad = {"failure", "timed_out", "startup_failure", "action_required"}
    count: Counter[str] = Counter()
    for row in rows:
        payload = row["object"]
        match row["type"].split(".")[1:]:
            case ["issues", "opened" | "reopened"]:
                count["github-issue-opened"] += 1
            case ["pull_request", "opened" | "reopened" | "ready_for_review"]:
                count["github-pull-request-ready"] += payload["pull_request"]["draft"] is False
            case ["release", "published"]:
                count["github-release-published"] += 1
            case ["check_run", "completed"]:
                count["github-check-failed"] += payload["check_run"]["conclusion"] in bad
            case ["workflow_run", "completed"]:
                count["github-workflow-failed"] += payload["workflow_run"]["conclusion"] in bad
    return +count


def test_real_webhooks_fire_exactly_what_they_should() -> None:
    """164 real payloads, each appended twice: every matching trigger fires once for each."""
    rows = webhooks()
    assert len(rows) == 164
    with app_with(GitHub()).client() as client:
        first = client.append_many(rows)
        again = client.append_many(rows)
        client.run_until_idle()
        instances = list(client.instances())
    assert all(isinstance(each, tf.Appended) for each in first + again)
    fired = Counter(firing.trigger for each in first for firing in each.firings)
    assert fired == expected_firings(rows)
    assert sum(fired.values()) == 10, "the file has changed"
    assert not any(each.duplicate for each in first)
    assert all(each.duplicate for each in again)
    assert [each.firings for each in again] == [each.firings for each in first]
    started = sorted(firing.instance_id for each in first for firing in each.firings)
    assert sorted(each.id for each in instances) == started
    by_flow = {(each.flow, each.status) for each in instances}
    assert by_flow == {
        ("github-issue-triage", "done"),
        ("github-review-reminder", "waiting"),
        ("github-release-announce", "done"),
        ("github-failure-report", "done"),
    }


TWICE = """
import json, sys
import triggerflow as tf
from triggerflow_github import GitHub
rows = [json.loads(line) for line in open(sys.argv[1], encoding="utf-8")]
app = tf.App(f"sqlite:///{sys.argv[2]}", plugins=[GitHub()], entry_points=False)
with app.client() as client:
    appended = [client.append(row) for row in rows] + client.append_many(rows)
    client.run_until_idle()
print(sum(not each.duplicate for each in appended))
"""


def test_two_processes_append_the_same_webhooks(tmp_path: Path) -> None:
    """Each appends all of them twice at once: together 164 are new, each firing is one."""
    rows = webhooks()
    file = tmp_path / "shared.db"
    folders = [str(Path(module.__file__).parents[1]) for module in (tf, triggerflow_github)]
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", TWICE, str(WEBHOOKS), str(file)],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(folders)},
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(2)
    ]
    outputs = [process.communicate(timeout=100)[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0]
    assert sum(map(int, outputs)) == 164
    app = tf.App(f"sqlite:///{file}", plugins=[GitHub()], entry_points=False)
    with app.client() as client:
        again = client.append_many(rows)
        instances = list(client.instances())
    assert all(each.duplicate for each in again)
    fired = Counter(firing.trigger for each in again for firing in each.firings)
    print(fired)  # noqa: T201
    assert fired == expected_firings(rows)
    assert sorted(each.id for each in instances) == sorted(
        firing.instance_id for each in again for firing in each.firings
    )
    assert {each.status for each in instances} == {"done", "waiting"}


def test_every_webhook_becomes_the_activity_that_it_is() -> None:
    """`activity_from_webhook` gives the file's activities back from event and payload."""
    for row in webhooks():
        event = row["type"].split(".")[1]
        assert activity_from_webhook(event, row["object"]) == row


def test_activity_from_webhook_without_action_or_sender() -> None:
    """Events without an action have a shorter type; without a sender, nobody did it."""
    assert activity_from_webhook("push", {"sender": SENDER}) == {
        "type": "github.push",
        "actor": "https://github.com/ann",
        "object": {"sender": SENDER},
    }
    assert activity_from_webhook("push", {})["actor"] == "https://github.com/ghost"


def test_messages_are_kept_in_the_log() -> None:
    """With the default notifier, the log holds what would have been sent."""
    issue = {
        "number": 3,
        "title": "Crash on start",
        "body": None,
        "labels": [{"name": "question"}],
        "html_url": "https://github.com/ann/garden/issues/3",
    }
    payload = {
        "action": "opened",
        "issue": issue,
        "repository": REPOSITORY,
        "sender": SENDER,
    }
    with app_with(GitHub()).client() as client:
        appended = client.append(activity_from_webhook("issues", payload))
        (firing,) = appended.firings or ()
        ended = client.wait(firing.instance_id, timeout=10)
        log = client.log(firing.instance_id)
    assert ended.result == {"issue": issue["html_url"], "labels": ["bug"]}
    assert [entry.tag for entry in log] == ["call:suggest_labels#0", "call:notify#0"]
    assert log[1].value == {
        "to": "ann/garden",
        "text": "issue #3: Crash on start; suggested: bug "
        "https://github.com/ann/garden/issues/3",
    }


def test_a_failed_workflow_is_reported_to_its_sender() -> None:
    """Two triggers start the report; a run that went well starts nothing."""
    run = {
        "name": "tests",
        "conclusion": "failure",
        "head_sha": "0123456789",
        "html_url": "https://github.com/ann/garden/actions/runs/1",
    }
    payload = {
        "action": "completed",
        "workflow_run": run,
        "repository": REPOSITORY,
        "sender": SENDER,
    }
    with app_with(GitHub()).client() as client:
        bad = client.append(activity_from_webhook("workflow_run", payload))
        run = payload["workflow_run"] = {**run, "conclusion": "success"}
        good = client.append(activity_from_webhook("workflow_run", payload))
        (firing,) = bad.firings or ()
        client.wait(firing.instance_id, timeout=10)
        (entry,) = client.log(firing.instance_id)
    assert good.firings == ()
    assert entry.value["to"] == "ann"
    assert entry.value["text"].startswith("tests ended with failure at 0123456: ")


def test_reminder_ends_with_a_signal() -> None:
    """A review that came before the first reminder is due ends the flow without one."""
    with app_with(GitHub()).client() as client:
        (firing,) = client.append(pull_request()).firings or ()
        client.run_until_idle()
        assert client.get(firing.instance_id).status == "waiting"
        client.signal(firing.instance_id, "reviewed")
        ended = client.wait(firing.instance_id, timeout=10)
    assert ended.result == {
        "pull": "https://github.com/ann/garden/pull/7",
        "ended": "reviewed",
        "reminders": 0,
    }


def test_reminder_gives_up() -> None:
    """Without a signal the reviewer is asked so many times, through the app's notifier."""
    sent: list[tuple[str, str]] = []

    def to_chat(message: dict[str, Any]) -> None:
        sent.append((message["to"], tf.step_context().idempotency_key))

    plugin = GitHub(to_chat, reminders=2, patience=tf.minutes(0.0001))
    with app_with(plugin).client() as client:
        (firing,) = client.append(pull_request()).firings or ()
        ended = client.wait(firing.instance_id, timeout=20)
        log = client.log(firing.instance_id)
    assert ended.result["ended"] == "given up"
    assert [person for person, _ in sent] == ["ben", "ben"]
    assert len({key for _, key in sent}) == 2
    assert [entry.tag for entry in log if "notify" in entry.tag] == [
        "call:notify#0",
        "call:notify#1",
    ], "whatever the notifier is called, logs name it notify"


def test_drafts_are_left_alone() -> None:
    """Nobody is asked to review a draft."""
    with app_with(GitHub()).client() as client:
        assert client.append(pull_request(draft=True)).firings == ()


@pytest.mark.parametrize(
    ("document", "found"),
    [
        ({"type": "github.push", "actor": "a"}, "missing"),
        ({"type": ["note", "github.push"], "actor": "a", "object": "x"}, "a str"),
        ({"type": "github.push", "actor": "a", "object": [1]}, "a list"),
    ],
)
def test_activities_without_a_payload_are_refused(document: Any, found: str) -> None:
    """The plugin vetoes them by name, and nothing is stored."""
    with app_with(GitHub()).client() as client:
        with pytest.raises(tf.ActivityRejected) as refused:
            client.append(document)
        assert refused.value.by == "triggerflow-github"
        assert refused.value.found == found
        good = {**document, "object": {}}
        assert not client.append(good).duplicate
        assert client.append({**document, "type": "note"}).seq > 0, "others are no concern"


def test_an_app_s_own_plugin_replaces_the_default_one() -> None:
    """Both may be there, as when the distribution is installed: one set is registered."""
    own = GitHub(reminders=1)
    for plugins in ([plugin_module.default, own], [own, plugin_module.default]):
        app = tf.App("memory://", plugins=plugins, entry_points=False)
        assert len(app.triggers) == 5
        assert len(list(app.flows)) == 4


def test_suggest_labels() -> None:
    """Labels are sorted, and those that are there are not suggested."""
    text = "How do I fix the typo in the README? It looks broken"
    assert suggest_labels(text, "", []) == ["bug", "documentation", "question"]
    assert suggest_labels("", text, ["bug"]) == ["documentation", "question"]
    assert suggest_labels("Hello", "", []) == []


def test_only_the_public_face_is_used() -> None:
    """The plugin imports `triggerflow`, and nothing below it."""
    for source in Path(triggerflow_github.__file__).parent.glob("*.py"):
        assert "from triggerflow" not in source.read_text().replace(
            "from triggerflow_github", ""
        ), source.name
