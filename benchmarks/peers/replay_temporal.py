"""Temporal's `Replayer`, without its sandbox, on made-up histories of activities in a row.

usage: replay_temporal.py ENTRIES SECONDS
"""

from __future__ import annotations

import asyncio
import gc
import sys
import time
from datetime import timedelta
from importlib.metadata import version
from typing import Any

from common import emit
from temporalio import activity, workflow
from temporalio.api.enums.v1 import EventType
from temporalio.api.history.v1 import HistoryEvent
from temporalio.client import WorkflowHistory
from temporalio.converter import default
from temporalio.worker import Replayer, UnsandboxedWorkflowRunner

PAYLOADS = default().payload_converter
LIMIT = timedelta(seconds=10)


@activity.defn
async def step(value: int) -> int:
    return value


@workflow.defn
class Chain:
    @workflow.run
    async def run(self, entries: int) -> int:
        for number in range(entries):
            await workflow.execute_activity(step, number, start_to_close_timeout=LIMIT)
        return entries


class Recorder:
    """Writes events as a server does: six for an activity."""

    def __init__(self) -> None:
        self.events: list[HistoryEvent] = []

    def add(self, kind: str, **fields: Any) -> int:
        event = HistoryEvent(event_id=len(self.events) + 1)
        event.event_type = EventType.Value(f"EVENT_TYPE_{kind}")
        event.event_time.FromSeconds(1_700_000_000 + len(self.events))
        attributes = getattr(event, f"{kind.lower()}_event_attributes")
        attributes.SetInParent()
        for name, value in fields.items():
            if name in {"input", "result"}:
                getattr(attributes, name).payloads.extend(PAYLOADS.to_payloads([value]))
            elif name in {"workflow_type", "activity_type", "task_queue"}:
                getattr(attributes, name).name = value
            elif name == "flags":
                attributes.sdk_metadata.core_used_flags.extend(value)
            else:
                setattr(attributes, name, value)
        self.events.append(event)
        return len(self.events)

    def task(self, **fields: Any) -> int:
        """A workflow task: the worker was asked, and answered."""
        asked = self.add("WORKFLOW_TASK_SCHEDULED", task_queue="q")
        begun = self.add("WORKFLOW_TASK_STARTED", scheduled_event_id=asked)
        return self.add(
            "WORKFLOW_TASK_COMPLETED",
            scheduled_event_id=asked,
            started_event_id=begun,
            **fields,
        )


def history(entries: int) -> WorkflowHistory:
    recorder = Recorder()
    recorder.add(
        "WORKFLOW_EXECUTION_STARTED",
        workflow_type="Chain",
        task_queue="q",
        input=entries,
        original_execution_run_id="run",
        first_execution_run_id="run",
        attempt=1,
    )
    # A current worker records the flags of its core with its first task.
    task = recorder.task(flags=[1, 2, 3])
    for number in range(entries):
        asked = recorder.add(
            "ACTIVITY_TASK_SCHEDULED",
            activity_id=str(number + 1),
            activity_type="step",
            task_queue="q",
            workflow_task_completed_event_id=task,
            input=number,
        )
        begun = recorder.add("ACTIVITY_TASK_STARTED", scheduled_event_id=asked)
        recorder.add(
            "ACTIVITY_TASK_COMPLETED",
            scheduled_event_id=asked,
            started_event_id=begun,
            result=number,
        )
        task = recorder.task()
    recorder.add(
        "WORKFLOW_EXECUTION_COMPLETED", workflow_task_completed_event_id=task, result=entries
    )
    return WorkflowHistory("flow", recorder.events)


async def main(entries: int, seconds: float) -> None:
    replayer = Replayer(workflows=[Chain], workflow_runner=UnsandboxedWorkflowRunner())
    await replayer.replay_workflow(history(10))
    given = history(entries)
    gc.collect()
    rounds = 0
    begun = time.perf_counter()
    while not rounds or time.perf_counter() - begun < seconds:
        await replayer.replay_workflow(given)
        rounds += 1
    taken = time.perf_counter() - begun
    emit(f"temporal {entries}", entries * rounds, taken, version=version("temporalio"))


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]), float(sys.argv[2])))
