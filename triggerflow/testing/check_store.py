"""One conformance suite for every store, ours and a stranger's; it needs no test runner.

Each check opens a store over new, empty data and holds it to one promise of
`triggerflow.store.operations` or `triggerflow.store.protocol`; its docstring is the
promise. A check that fails raises an ``AssertionError`` that names the check and says what
was expected and what was found, whatever the store itself raised.

    check_store(lambda: MyStore(new_empty_place()))

`STORE_CHECKS` has them one by one, for a test runner that likes to name them. Bytes are
opaque to a store, so documents, inputs and values here are short texts.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from triggerflow.testing.store_checks import (  # noqa: F401 - importing them registers them
    acts,
    admission,
    arrivals,
    asking,
    claims,
    firings,
    gathering,
    history,
    messages,
    progress,
    retention,
    tasks,
    transactions,
    turns,
    waits,
    workers,
)
from triggerflow.testing.store_checks.bench import STORE_CHECKS

if TYPE_CHECKING:
    from triggerflow.testing.store_checks.bench import MakeStore


def check_store(make_store: MakeStore) -> None:
    """Hold a store to all of its promises.

    Args:
        make_store: gives a new, unopened store over new, empty data, each time.

    Raises:
        AssertionError: a promise is broken; the message names the check.
    """
    for check in STORE_CHECKS.values():
        check(make_store)
