"""durabletask's orchestration executor on made-up histories of activities in a row.

usage: replay_durabletask.py ENTRIES SECONDS
"""

from __future__ import annotations

import gc
import json
import logging
import sys
import time
from importlib.metadata import version
from typing import Any

from common import emit
from durabletask import worker
from durabletask.internal import helpers
from durabletask.serialization import JsonDataConverter


def step(_context: Any, value: int) -> int:
    return value


def chain(context: Any, entries: int) -> Any:
    for number in range(entries):
        yield context.call_activity(step, input=number)
    return entries


def main(entries: int, seconds: float) -> None:
    logging.disable(logging.CRITICAL)
    registry: Any = worker._Registry()  # type: ignore[no-untyped-call,unused-ignore]
    name = registry.add_orchestrator(chain)
    registry.add_activity(step)
    old = [
        helpers.new_orchestrator_started_event(),
        helpers.new_execution_started_event(name, "flow", encoded_input=json.dumps(entries)),
    ]
    for number in range(1, entries + 1):
        old += [
            helpers.new_task_scheduled_event(number, "step"),
            helpers.new_orchestrator_started_event(),
            helpers.new_task_completed_event(number, json.dumps(number)),
        ]
    new = [old.pop()]
    logger, converter = logging.getLogger("bench"), JsonDataConverter()
    gc.collect()
    rounds = 0
    begun = time.perf_counter()
    while not rounds or time.perf_counter() - begun < seconds:
        executor = worker._OrchestrationExecutor(registry, logger, converter)
        found = executor.execute("flow", old, new)
        rounds += 1
    taken = time.perf_counter() - begun
    assert found.actions[0].completeOrchestration.result.value == str(entries)
    emit(f"durabletask {entries}", entries * rounds, taken, version=version("durabletask"))


if __name__ == "__main__":
    main(int(sys.argv[1]), float(sys.argv[2]))
