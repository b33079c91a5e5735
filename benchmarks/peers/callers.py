"""Callers at once on trio's loop, for the contenders that run on it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import trio


async def by(at_once: int, things: Iterator[Any], do: Callable[[Any], Awaitable[None]]) -> None:
    """So many callers work through the things; returns when all is done."""

    async def caller() -> None:
        for thing in things:
            await do(thing)

    async with trio.open_nursery() as nursery:
        for _ in range(at_once):
            nursery.start_soon(caller)
