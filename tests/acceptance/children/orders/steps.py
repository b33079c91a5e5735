"""The steps of every version of the flow `order`."""

from __future__ import annotations

import os
import sys
from pathlib import Path

RAN: list[str] = []


def _note(step: str) -> None:
    RAN.append(step)
    path = os.environ.get("TRIGGERFLOW_TEST_ORDERS", "")
    if path:
        with Path(path).open("a", encoding="utf-8") as file:
            file.write(f"{step}\n")


def charge(item: str, amount: int) -> str:
    _note("charge")
    if os.environ.get("TRIGGERFLOW_TEST_HOLD"):
        os.write(1, b"charging\n")
        sys.stdin.readline()
    return f"{item} for {amount}"


def bill(item: str, amount: int) -> str:
    _note("bill")
    return f"{item} billed {amount}"


def ship(item: str) -> str:
    _note("ship")
    return f"{item} shipped"


def inspect(item: str) -> None:
    _note("inspect")


def thank(item: str, answer: str) -> str:
    _note("thank")
    return f"{item}: {answer}"
