"""A step renamed."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

import triggerflow as tf
from orders.steps import bill, ship, thank


@tf.flow
def order(item: str) -> Generator[Any, Any, Any]:
    yield tf.call(bill, item, 10)
    yield tf.call(ship, item)
    answer = yield tf.wait_signal("received")
    return (yield tf.call(thank, item, answer))
