"""The triggers: which deliveries start which flow."""

from __future__ import annotations

from typing import Any, Final

import triggerflow as tf

FAILED: Final = ["failure", "timed_out", "startup_failure", "action_required"]


def make_triggers() -> tuple[tf.Trigger, ...]:
    """The plugin's triggers; they address the flows by name."""
    ready: dict[str, Any] = {"object": {"pull_request": {"draft": [False]}}}
    return (
        tf.define_trigger(
            "github-issue-opened",
            on=["github.issues.opened", "github.issues.reopened"],
            start="github-issue-triage",
        ),
        tf.define_trigger(
            "github-pull-request-ready",
            on=[
                "github.pull_request.opened",
                "github.pull_request.reopened",
                "github.pull_request.ready_for_review",
            ],
            match=ready,
            start="github-review-reminder",
        ),
        tf.define_trigger(
            "github-release-published",
            on="github.release.published",
            start="github-release-announce",
        ),
        tf.define_trigger(
            "github-check-failed",
            on="github.check_run.completed",
            match={"object": {"check_run": {"conclusion": FAILED}}},
            start="github-failure-report",
        ),
        tf.define_trigger(
            "github-workflow-failed",
            on="github.workflow_run.completed",
            match={"object": {"workflow_run": {"conclusion": FAILED}}},
            start="github-failure-report",
        ),
    )
