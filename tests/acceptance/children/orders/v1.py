"""The flow as it was deployed first."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

import triggerflow as tf
from orders.steps import charge, ship, thank


@tf.flow
def order(item: str) -> Generator[Any, Any, Any]:
    yield tf.call(charge, item, 10)
    yield tf.call(ship, item)
    answer = yield tf.wait_signal("received")
    return (yield tf.call(thank, item, answer))
