"""An engine for the time of a ``with`` block: begun, ended, or left for dead."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

import trio

from triggerflow.engine.engine import Engine

if TYPE_CHECKING:
    from triggerflow.engine.settings import Code, Settings
    from triggerflow.store.protocol import Store


@contextlib.asynccontextmanager
async def open_engine(store: Store, code: Code, settings: Settings) -> AsyncIterator[Engine]:
    """Run an engine for the time of a ``with`` block.

    What the block raises comes out as it is, not wrapped in an exception group.
    """
    raised: Exception | None = None
    engine: Engine | None = None
    async with trio.open_nursery() as nursery:
        engine = Engine(store, code, settings, nursery)
        try:
            await engine.begin()
            yield engine
        except Exception as error:  # noqa: BLE001
            raised = error
        except BaseException:
            # Cancelled from outside, or interrupted: that is no crash of what it owned.
            if engine.died is not None:
                engine.abandon()
            else:
                with trio.CancelScope(shield=True):
                    await engine.end()
            raise
        with trio.CancelScope(shield=True):
            await engine.end()
        nursery.cancel_scope.cancel()
    if engine.died is not None:
        raise engine.died
    if raised is not None:
        raise raised
