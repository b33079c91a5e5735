"""The flows: what happens after an issue, a pull request, a release or a failed check."""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import Any

import triggerflow as tf
from triggerflow_github.steps import suggest_labels

Notify = Callable[[dict[str, Any]], Any]
Steps = Generator[Any, Any, dict[str, Any]]


def make_flows(notify: Notify, *, reminders: int, patience: float) -> tuple[tf.Flow, ...]:
    """The plugin's flows around one notifier.

    Args:
        notify: the step that sends a message; whatever its own name is, it stands in
            logs as ``notify``, so that replacing it breaks no log.
        reminders: how many times a review is asked for.
        patience: seconds before each reminder.
    """

    def send(to: str, text: str) -> Any:
        message = {"to": to, "text": text}
        return tf.call(notify, message).using(name="notify", retry=tf.RetryPolicy())

    @tf.flow(name="github-issue-triage")
    def triage(activity: dict[str, Any]) -> Steps:
        """Suggest labels for an issue and tell its repository's maintainers."""
        payload = activity["object"]
        issue = payload["issue"]
        present = [label["name"] for label in issue.get("labels") or []]
        labels = yield tf.call(suggest_labels, issue["title"], issue.get("body") or "", present)
        hint = f"; suggested: {', '.join(labels)}" if labels else ""
        yield send(
            payload["repository"]["full_name"],
            f"issue #{issue['number']}: {issue['title']}{hint} {issue['html_url']}",
        )
        return {"issue": issue["html_url"], "labels": labels}

    @tf.flow(name="github-review-reminder")
    def remind(activity: dict[str, Any]) -> Steps:
        """Ask for a review again and again until a signal says that there is one."""
        pull = activity["object"]["pull_request"]
        people = [each["login"] for each in pull.get("requested_reviewers") or []]
        for sent in range(reminders):
            news = yield tf.wait_signal(("reviewed", "closed"), timeout=patience, default=None)
            if news is not None:
                return {"pull": pull["html_url"], "ended": news.name, "reminders": sent}
            for person in people or [pull["user"]["login"]]:
                yield send(person, f"review wanted: {pull['title']} {pull['html_url']}")
        return {"pull": pull["html_url"], "ended": "given up", "reminders": reminders}

    @tf.flow(name="github-release-announce")
    def announce(activity: dict[str, Any]) -> Steps:
        """Announce a published release."""
        payload = activity["object"]
        release, repository = payload["release"], payload["repository"]["full_name"]
        kind = "pre-release" if release.get("prerelease") else "release"
        name = release.get("name") or release["tag_name"]
        yield send(repository, f"{kind} {name} of {repository}: {release['html_url']}")
        return {"release": release["html_url"], "kind": kind}

    @tf.flow(name="github-failure-report")
    def report(activity: dict[str, Any]) -> Steps:
        """Tell whoever pushed that a check or a workflow failed."""
        payload = activity["object"]
        run = payload.get("check_run") or payload["workflow_run"]
        name, commit = run.get("name") or "a workflow", run["head_sha"][:7]
        yield send(
            payload["sender"]["login"],
            f"{name} ended with {run['conclusion']} at {commit}: {run['html_url']}",
        )
        return {"run": run["html_url"], "conclusion": run["conclusion"]}

    return (triage, remind, announce, report)
